//! The vault's authorities, while it is unsealed: the current ones, and those whose place they took.

use std::sync::Arc;

use parking_lot::RwLock;
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;

use super::publish::list_of;
use super::{Authority, Role, TrustDomain};
use crate::error::{Error, Result};
use crate::hsm::Hsm;
use crate::keyring::{HsmKey, Keyring};
use crate::store::keys::KeyState;
use crate::types::Segment;

/// The authorities, each proved against its key in the HSM.
#[derive(Debug)]
pub struct Authorities {
    /// Signs the issuing CA and nothing else.
    pub root: Authority,
    /// Signs certificates that profiles allow.
    pub issuing: Authority,
    /// Signs login certificates and nothing else.
    pub login: Authority,
    /// Tainted: they sign nothing new but revocation lists, and what they signed is believed until
    /// they are retired.
    pub old: Vec<Authority>,
}

impl Authorities {
    /// Loads and proves all of them. Where the list of an issuing CA is served, if anybody said, will
    /// stand in what it signs.
    ///
    /// # Errors
    /// [`Error::Internal`] when a certificate does not belong to its key.
    pub async fn load(
        keyring: &Keyring,
        hsm: &dyn Hsm,
        ours: &TrustDomain,
        crl_url: Option<String>,
    ) -> Result<Self> {
        let current = |role: Role| keyring.hsm_key(role.purpose());
        let root = load(&current(Role::Root)?, hsm, ours, Role::Root, None).await?;
        let issuing = current(Role::Issuing)?;
        let mut issuing = load(&issuing, hsm, ours, Role::Issuing, Some(&root)).await?;
        issuing.set_crl_url(crl_url.map(|url| url_of(&url, issuing.version())));
        let login = load(&current(Role::Login)?, hsm, ours, Role::Login, None).await?;
        let mut old = Vec::new();
        for key in keyring.hsm_keys()? {
            let role = [Role::Issuing, Role::Login].into_iter().find(|role| is_old(&key, *role));
            if let Some(role) = role {
                let above = (role == Role::Issuing).then_some(&root);
                old.push(load(&key, hsm, ours, role, above).await?);
            }
        }
        Ok(Self { root, issuing, login, old })
    }

    /// Tells whether these are the authorities whose keys these are.
    #[must_use]
    pub fn are_of(&self, keys: &[HsmKey]) -> bool {
        let current = [&self.root, &self.issuing, &self.login];
        let current = current.into_iter().map(|it| (it.key_label(), KeyState::Active));
        let old = self.old.iter().map(|it| (it.key_label(), KeyState::Retired));
        let mut loaded: Vec<_> = current.chain(old).collect();
        let roles = [Role::Root, Role::Issuing, Role::Login];
        let is_ours = |key: &&HsmKey| roles.iter().any(|role| role.purpose() == key.purpose);
        let there = keys.iter().filter(is_ours).map(|key| (key.label.as_str(), key.state));
        let mut there: Vec<_> = there.collect();
        loaded.sort_unstable();
        there.sort_unstable();
        loaded == there
    }

    /// Every authority of a role, the current one first.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Authority> {
        let current = [&self.root, &self.issuing, &self.login];
        current.into_iter().chain(&self.old).filter(move |authority| authority.role() == role)
    }

    /// The authority whose revocation list has a name.
    #[must_use]
    pub fn listing(&self, list: &Segment) -> Option<&Authority> {
        self.of(Role::Issuing).find(|authority| list_of(authority).is_ok_and(|id| id == *list))
    }

    /// The authority of a role that signed a certificate; the current one where none of them did.
    #[must_use]
    pub fn above(&self, role: Role, der: &[u8]) -> &Authority {
        let issuer = X509Certificate::from_der(der).ok().map(|(_, parsed)| parsed);
        let issuer = issuer.as_ref().map(|parsed| parsed.issuer().as_raw());
        let signed = self.of(role).find(|authority| Some(authority.subject_der()) == issuer);
        signed.unwrap_or(match role {
            Role::Root => &self.root,
            Role::Issuing => &self.issuing,
            Role::Login => &self.login,
        })
    }
}

fn is_old(key: &HsmKey, role: Role) -> bool {
    key.purpose == role.purpose() && key.state == KeyState::Retired
}

/// Where the list of a version is served, from where that of the first is: `…/issuing.crl`,
/// `…/issuing-2.crl`.
fn url_of(url: &str, version: i64) -> String {
    match (version, url.strip_suffix(".crl")) {
        (1, _) => url.to_owned(),
        (_, Some(stem)) => format!("{stem}-{version}.crl"),
        (_, None) => format!("{url}-{version}"),
    }
}

async fn load(
    key: &HsmKey,
    hsm: &dyn Hsm,
    ours: &TrustDomain,
    role: Role,
    above: Option<&Authority>,
) -> Result<Authority> {
    let missing = || Error::internal("an authority is missing");
    let info = hsm.lookup_key(&key.label).await?.ok_or_else(missing)?;
    let certificate = key.certificate.as_ref().ok_or_else(missing)?;
    Authority::load(role, &info, certificate, above, ours)
}

/// Where engines find the authorities: full while the vault is unsealed.
#[derive(Debug, Clone, Default)]
pub struct AuthoritySlot(Arc<RwLock<Option<Arc<Authorities>>>>);

impl AuthoritySlot {
    /// Fills or empties it.
    pub fn set(&self, authorities: Option<Arc<Authorities>>) {
        *self.0.write() = authorities;
    }

    /// The authorities.
    ///
    /// # Errors
    /// [`Error::Sealed`].
    pub fn current(&self) -> Result<Arc<Authorities>> {
        self.0.read().clone().ok_or(Error::Sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_each_version_has_a_place_of_its_own() {
        for (url, version, place) in [
            ("http://crl.example/crl/issuing.crl", 1, "http://crl.example/crl/issuing.crl"),
            ("http://crl.example/crl/issuing.crl", 2, "http://crl.example/crl/issuing-2.crl"),
            ("http://crl.example/list", 3, "http://crl.example/list-3"),
        ] {
            assert_eq!(url_of(url, version), place);
        }
    }
}
