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
    /// Signs issuing CAs, the root after it, and nothing else.
    pub root: Authority,
    /// Signs certificates that profiles allow.
    pub issuing: Authority,
    /// Signs login certificates and nothing else.
    pub login: Authority,
    /// Tainted: they sign nothing new but revocation lists, and what they signed is believed until
    /// they are retired.
    pub old: Vec<Authority>,
    /// The root, as the one before it vouches for it: there until that one is retired.
    pub link: Option<Authority>,
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
        // Of one moment: a root and what is below it change together.
        let keys = keyring.hsm_keys()?;
        let found = |role: Role, state: KeyState| {
            keys.iter().filter(move |key| key.purpose == role.purpose() && key.state == state)
        };
        let current = |role: Role| {
            let newest = found(role, KeyState::Active).max_by_key(|key| key.version);
            newest.ok_or_else(missing)
        };
        let newest = current(Role::Root)?;
        let root = load(newest, hsm, ours, Role::Root, None).await?;
        let mut old = Vec::new();
        for role in [Role::Root, Role::Issuing, Role::Login] {
            for key in found(role, KeyState::Retired) {
                let above = (role == Role::Issuing).then_some(&root);
                old.push(load(key, hsm, ours, role, above).await?);
            }
        }
        // There is one at the most: it is retired before the root is rotated again.
        let before = old.iter().find(|old| old.role() == Role::Root);
        let link = match newest.link.as_deref().filter(|_| before.is_some()) {
            Some(link) => Some(prove((newest, link), hsm, ours, Role::Root, before).await?),
            None => None,
        };
        let issuing = current(Role::Issuing)?;
        let mut issuing = load(issuing, hsm, ours, Role::Issuing, Some(&root)).await?;
        issuing.set_crl_url(crl_url.map(|url| url_of(&url, issuing.version())));
        let login = load(current(Role::Login)?, hsm, ours, Role::Login, None).await?;
        Ok(Self { root, issuing, login, old, link })
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

    /// Writes what is to be shown with a certificate of an issuing CA, nearest first, as PEM: whoever
    /// trusts one root that is not retired finds a way to it.
    #[must_use]
    pub fn chain_pem(&self, issuing: &Authority) -> String {
        let link = self.link.as_ref().map(Authority::pem).unwrap_or_default();
        issuing.pem() + &link
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

/// Where the list of a version is served, from where that of the first is: `…/issuing.crl`,
/// `…/issuing-2.crl`.
fn url_of(url: &str, version: i64) -> String {
    match (version, url.strip_suffix(".crl")) {
        (1, _) => url.to_owned(),
        (_, Some(stem)) => format!("{stem}-{version}.crl"),
        (_, None) => format!("{url}-{version}"),
    }
}

fn missing() -> Error {
    Error::internal("an authority is missing")
}

/// Proves one by its own certificate.
async fn load(
    key: &HsmKey,
    hsm: &dyn Hsm,
    ours: &TrustDomain,
    role: Role,
    above: Option<&Authority>,
) -> Result<Authority> {
    let certificate = key.certificate.as_deref().ok_or_else(missing)?;
    prove((key, certificate), hsm, ours, role, above).await
}

/// Proves one by a certificate of its key.
async fn prove(
    (key, certificate): (&HsmKey, &[u8]),
    hsm: &dyn Hsm,
    ours: &TrustDomain,
    role: Role,
    above: Option<&Authority>,
) -> Result<Authority> {
    let info = hsm.lookup_key(&key.label).await?.ok_or_else(missing)?;
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
