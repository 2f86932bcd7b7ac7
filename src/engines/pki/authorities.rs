//! The vault's three authorities, while it is unsealed.

use std::sync::Arc;

use parking_lot::RwLock;

use super::{Authority, Role, TrustDomain};
use crate::error::{Error, Result};
use crate::hsm::Hsm;
use crate::keyring::Keyring;

/// The authorities, each proved against its key in the HSM.
#[derive(Debug)]
pub struct Authorities {
    /// Signs the issuing CA and nothing else.
    pub root: Authority,
    /// Signs certificates that profiles allow.
    pub issuing: Authority,
    /// Signs login certificates and nothing else.
    pub login: Authority,
}

impl Authorities {
    /// Loads and proves all three. Where the issuing CA's list is served, if anybody said, will stand
    /// in what it signs.
    ///
    /// # Errors
    /// [`Error::Internal`] when a certificate does not belong to its key.
    pub async fn load(
        keyring: &Keyring,
        hsm: &dyn Hsm,
        ours: &TrustDomain,
        crl_url: Option<String>,
    ) -> Result<Self> {
        let root = load(keyring, hsm, ours, Role::Root, None).await?;
        let mut issuing = load(keyring, hsm, ours, Role::Issuing, Some(&root)).await?;
        issuing.set_crl_url(crl_url);
        let login = load(keyring, hsm, ours, Role::Login, None).await?;
        Ok(Self { root, issuing, login })
    }
}

async fn load(
    keyring: &Keyring,
    hsm: &dyn Hsm,
    ours: &TrustDomain,
    role: Role,
    above: Option<&Authority>,
) -> Result<Authority> {
    let missing = || Error::internal("an authority is missing");
    let key = keyring.hsm_key(role.purpose())?;
    let info = hsm.lookup_key(&key.label).await?.ok_or_else(missing)?;
    let certificate = key.certificate.ok_or_else(missing)?;
    Authority::load(role, &info, &certificate, above, ours)
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
