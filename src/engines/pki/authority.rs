//! Authorities: the root, the issuing and the login CA, each with a key in the HSM.
//!
//! A role is part of an authority's type of work: the certificate engine holds the issuing one and
//! has no way to name the login CA's. Must not know where certificates are stored.

use std::fmt;
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyIdMethod};
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;

use super::certificate::{BACKDATED_S, Certificate, Unsigned, Validity, issue, pem};
use super::key::{KeyType, PublicKey, ca_key_type};
use super::spiffe::TrustDomain;
use super::template::{Body, Template};
use super::{der, lint};
use crate::error::{Error, Result};
use crate::hsm::{Hsm, KeyInfo};
use crate::store::keys::HsmPurpose;
use crate::types::{Serial, UnixMillis};

const DAY_S: u64 = 86_400;
const ROOT_TTL: Duration = Duration::from_secs(20 * 365 * DAY_S);
const ISSUING_TTL: Duration = Duration::from_secs(10 * 365 * DAY_S);
const LOGIN_CA_TTL: Duration = Duration::from_secs(10 * 365 * DAY_S);
/// Authorities between a root and a leaf (RFC 5280, section 4.2.1.9): the next root, for which it
/// vouches while it retires, and an issuing CA below that.
const ROOT_PATH: u8 = 2;
/// The same below a root for which another vouches.
const LINK_PATH: u8 = 1;
/// The same below every other authority.
const LEAVES: u8 = 0;
/// Characters of a common name (RFC 5280, appendix A, `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;

/// What an authority signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Issuing CAs and the next root, and nothing else; self-signed.
    Root,
    /// Certificates that profiles allow, and the listener's; signed by the root.
    Issuing,
    /// Login certificates and nothing else; self-signed, apart from the others.
    Login,
}

impl Role {
    /// Names what its key in the HSM is for.
    #[must_use]
    pub const fn purpose(self) -> HsmPurpose {
        match self {
            Self::Root => HsmPurpose::CaRoot,
            Self::Issuing => HsmPurpose::CaIssuing,
            Self::Login => HsmPurpose::CaLogin,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Root => "Root",
            Self::Issuing => "Issuing",
            Self::Login => "Login",
        }
    }
}

/// Whether a store is marked as a development store for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deployment {
    /// Its authorities say so in their names.
    Development,
    /// A real one.
    Production,
}

/// An authority: its certificate, and the label of its key in the HSM.
pub struct Authority {
    role: Role,
    key_label: String,
    common_name: String,
    key: PublicKey,
    key_id: Vec<u8>,
    subject_der: Vec<u8>,
    validity: Validity,
    trust_domain: TrustDomain,
    writer: Issuer<'static, Unsigned>,
    certificate_der: Vec<u8>,
    crl_url: Option<String>,
}

impl Authority {
    /// Takes an authority from its stored certificate and proves it: key, form and signature.
    ///
    /// `above` is the root for an issuing CA, and for a root the one that vouches for it where that is
    /// what its certificate says; none for one that signed itself.
    ///
    /// # Errors
    /// [`Error::Internal`] when the certificate is not what was stored, with the cause in the log.
    pub fn load(
        role: Role,
        key: &KeyInfo,
        certificate_der: &[u8],
        above: Option<&Self>,
        trust_domain: &TrustDomain,
    ) -> Result<Self> {
        let fault = |what: &str| Error::internal(format!("the {} CA: {what}", role.title()));
        let (rest, parsed) = X509Certificate::from_der(certificate_der)
            .map_err(|_malformed| fault("its certificate does not parse"))?;
        let common_name = parsed
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .ok_or_else(|| fault("its certificate has no common name"))?;
        let validity = Validity {
            not_before_s: parsed.validity().not_before.timestamp(),
            not_after_s: parsed.validity().not_after.timestamp(),
        };
        let mut authority = Self::unborn(role, key, common_name, validity, trust_domain)?;
        let (signer_key, issuer_der) = above
            .map_or((parsed.public_key().raw, authority.subject_der.as_slice()), |root| {
                (root.key.spki_der(), root.subject_der.as_slice())
            });
        let (_, signer) = x509_parser::x509::SubjectPublicKeyInfo::from_der(signer_key)
            .map_err(|_malformed| fault("its signer's key does not parse"))?;
        let is_ca = parsed
            .basic_constraints()
            .is_ok_and(|found| found.is_some_and(|constraints| constraints.value.ca));
        let stands = match role {
            Role::Root => true,
            Role::Issuing => above.is_some(),
            Role::Login => above.is_none(),
        };
        let faults = [
            (!rest.is_empty(), "bytes follow its certificate"),
            (!stands, "an issuing CA has one above it, and a login CA has none"),
            (above.is_some_and(|root| root.role != Role::Root), "it stands below the root alone"),
            (parsed.public_key().raw != authority.key.spki_der(), "the HSM holds another key"),
            (parsed.subject().as_raw() != authority.subject_der, "its subject has another form"),
            (parsed.issuer().as_raw() != issuer_der, "another authority issued it"),
            (!is_ca, "it is no authority"),
            (parsed.verify_signature(Some(&signer)).is_err(), "its signature is wrong"),
        ];
        if let Some((_, what)) = faults.iter().find(|(is_fault, _)| *is_fault) {
            return Err(fault(what));
        }
        authority.certificate_der = certificate_der.to_vec();
        Ok(authority)
    }

    /// Stands for an authority whose certificate is still to be made or proved.
    pub(super) fn unborn(
        role: Role,
        info: &KeyInfo,
        common_name: &str,
        validity: Validity,
        trust_domain: &TrustDomain,
    ) -> Result<Self> {
        let spki = info.public_key_spki.as_deref();
        let key = PublicKey::from_spki(spki.unwrap_or_default()).map_err(Error::internal)?;
        if key.key_type() != ca_key_type(info.kind)? {
            return Err(Error::internal("an authority's key is of another kind than it says"));
        }
        let key_id = lint::key_id(key.spki_der());
        let key_id = key_id.ok_or_else(|| Error::internal("SHA-256 has less than 20 bytes"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_identifier_method = KeyIdMethod::PreSpecified(key_id.clone());
        Ok(Self {
            role,
            key_label: info.label.clone(),
            common_name: common_name.to_owned(),
            key_id,
            subject_der: der::common_name(common_name),
            validity,
            trust_domain: trust_domain.clone(),
            writer: Issuer::new(params, Unsigned(key.clone())),
            key,
            certificate_der: Vec::new(),
            crl_url: None,
        })
    }

    /// Says where its revocation list is served, to stand in each certificate that it signs.
    pub fn set_crl_url(&mut self, url: Option<String>) {
        self.crl_url = url;
    }

    /// Tells where its revocation list is served, where that is known.
    #[must_use]
    pub fn crl_url(&self) -> Option<&str> {
        self.crl_url.as_deref()
    }

    /// Tells what it signs.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Tells which version of its kind it is, by the label of its key.
    #[must_use]
    pub fn version(&self) -> i64 {
        version_of(&self.key_label)
    }

    /// Names its key in the HSM.
    #[must_use]
    pub fn key_label(&self) -> &str {
        &self.key_label
    }

    /// Shows its certificate as DER.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// Shows its certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem(&self.certificate_der)
    }

    /// Tells the last second in which it may sign.
    #[must_use]
    pub const fn not_after(&self) -> UnixMillis {
        UnixMillis(self.validity.not_after_s.saturating_mul(1_000))
    }

    /// Tells what kind of key it signs with.
    #[must_use]
    pub const fn key_type(&self) -> KeyType {
        self.key.key_type()
    }

    pub(super) const fn key(&self) -> &PublicKey {
        &self.key
    }

    pub(super) fn key_id(&self) -> &[u8] {
        &self.key_id
    }

    pub(super) fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    pub(super) const fn validity(&self) -> Validity {
        self.validity
    }

    pub(in crate::engines) const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub(super) const fn writer(&self) -> &Issuer<'static, Unsigned> {
        &self.writer
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("role", &self.role)
            .field("key_label", &self.key_label)
            .finish_non_exhaustive()
    }
}

/// Makes a vault's authorities: at `init`, and their next versions.
#[derive(Debug, Clone, Copy)]
pub struct Founder<'a> {
    /// Signs; holds the keys already.
    pub hsm: &'a dyn Hsm,
    /// Tells this vault's authorities from those of others: a few characters of its id.
    pub vault: &'a str,
    /// Whether the store is marked.
    pub deployment: Deployment,
    /// Whose logins the vault decides on.
    pub trust_domain: &'a TrustDomain,
    /// The time.
    pub now: UnixMillis,
}

impl Founder<'_> {
    /// Makes a root: self-signed, with the next root and issuing CAs below it and no more.
    ///
    /// # Errors
    /// As [`issue`].
    pub async fn root(&self, key: &KeyInfo, serial: &Serial) -> Result<Authority> {
        self.self_signed(Role::Root, key, serial, ROOT_PATH, ROOT_TTL).await
    }

    /// Has a root vouch for the next one: by that certificate, whoever trusts the old one alone
    /// believes what is below the new one.
    ///
    /// # Errors
    /// As [`issue`].
    pub async fn link(&self, key: &KeyInfo, old: &Authority, serial: &Serial) -> Result<Authority> {
        let common_name = self.common_name(Role::Root, key)?;
        self.below(old, (Role::Root, LINK_PATH), key, (common_name, ROOT_TTL), serial).await
    }

    /// Makes the login CA: self-signed, apart from the root, nothing below it but leaves.
    ///
    /// # Errors
    /// As [`issue`].
    pub async fn login(&self, key: &KeyInfo, serial: &Serial) -> Result<Authority> {
        self.self_signed(Role::Login, key, serial, LEAVES, LOGIN_CA_TTL).await
    }

    /// Makes an issuing CA: signed by the root, nothing below it but leaves.
    ///
    /// # Errors
    /// As [`issue`].
    pub async fn issuing(
        &self,
        key: &KeyInfo,
        root: &Authority,
        serial: &Serial,
    ) -> Result<Authority> {
        let common_name = self.common_name(Role::Issuing, key)?;
        self.below(root, (Role::Issuing, LEAVES), key, (common_name, ISSUING_TTL), serial).await
    }

    /// Makes the certificate of an issuing CA anew, by another root. Key, name and end stay what they
    /// are, so that whatever it signed is below either.
    ///
    /// # Errors
    /// As [`issue`].
    pub async fn again(
        &self,
        issuing: &Authority,
        root: &Authority,
        serial: &Serial,
    ) -> Result<Authority> {
        let key = self.hsm.lookup_key(&issuing.key_label).await?;
        let key = key.ok_or_else(|| Error::internal("an issuing CA without its key"))?;
        let said = (issuing.common_name.clone(), issuing.not_after().since(self.now));
        self.below(root, (Role::Issuing, LEAVES), &key, said, serial).await
    }

    /// Makes an authority below a root, which it does not outlive.
    async fn below(
        &self,
        root: &Authority,
        (role, path_len): (Role, u8),
        key: &KeyInfo,
        (common_name, ttl): (String, Duration),
        serial: &Serial,
    ) -> Result<Authority> {
        let ttl = ttl.min(root.not_after().since(self.now));
        let template = template(root.role(), key, common_name, path_len, ttl)?;
        let made = issue(self.hsm, root, &template, serial, self.now).await?;
        Authority::load(role, key, &made.der, Some(root), self.trust_domain)
    }

    async fn self_signed(
        &self,
        role: Role,
        key: &KeyInfo,
        serial: &Serial,
        path_len: u8,
        ttl: Duration,
    ) -> Result<Authority> {
        let common_name = self.common_name(role, key)?;
        let validity = Validity {
            not_before_s: self.now.seconds().saturating_sub(BACKDATED_S),
            not_after_s: self.now.plus(ttl)?.seconds(),
        };
        let unborn = Authority::unborn(role, key, &common_name, validity, self.trust_domain)?;
        let template = template(role, key, common_name, path_len, ttl)?;
        let made: Certificate = issue(self.hsm, &unborn, &template, serial, self.now).await?;
        Authority::load(role, key, &made.der, None, self.trust_domain)
    }

    /// Names an authority by the vault and, from its second version on, by that: two with different
    /// keys never have one name.
    fn common_name(&self, role: Role, key: &KeyInfo) -> Result<String> {
        let mark = match self.deployment {
            Deployment::Development => " (development)",
            Deployment::Production => "",
        };
        let version = match version_of(&key.label) {
            1 => String::new(),
            version => format!("v{version}"),
        };
        let name = format!("Strongroom {} CA {}{version}{mark}", role.title(), self.vault);
        if name.len() > MAX_COMMON_NAME || self.vault.bytes().any(|b| !b.is_ascii_alphanumeric()) {
            return Err(Error::invalid("an authority's name takes a short id of the vault"));
        }
        Ok(name)
    }
}

/// Reads the version of a key in its label.
fn version_of(key_label: &str) -> i64 {
    let last = key_label.rsplit('/').next();
    last.and_then(|version| version.parse().ok()).unwrap_or(1)
}

fn template(
    issuer: Role,
    key: &KeyInfo,
    common_name: String,
    path_len: u8,
    ttl: Duration,
) -> Result<Template> {
    let spki = key.public_key_spki.as_deref().unwrap_or_default();
    let key = PublicKey::from_spki(spki).map_err(Error::internal)?;
    Ok(Template { issuer, key, body: Body::Authority { common_name, path_len }, ttl })
}
