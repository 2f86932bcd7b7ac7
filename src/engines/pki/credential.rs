//! A certificate's row: made once the HSM has signed, and committed before anybody gets it.

use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::authority::Authority;
use super::certificate::{Certificate, issue};
use super::names::SubjectName;
use super::template::Template;
use crate::crypto::sha256;
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::credentials::CredentialRow;
use crate::store::identities::IdentityRow;
use crate::types::{
    CredentialId, CredentialKind, CredentialState, ElevationId, ResourceName, UnixMillis,
};
use crate::vault::View;

/// What a certificate is signed for.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// What it is.
    pub kind: CredentialKind,
    /// Whose it is.
    pub identity: &'a IdentityRow,
    /// The token that it is asked for with.
    pub parent: Option<CredentialId>,
    /// The elevations that it is asked for under.
    pub elevations: [Option<ElevationId>; 2],
    /// What it is issued for.
    pub resource: &'a ResourceName,
}

/// A certificate that was signed, and that nobody has before its row is committed.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The row.
    pub row: CredentialRow,
    /// The certificate.
    pub certificate: Certificate,
    /// The key that signed.
    pub key: KeyUse,
}

impl Holder<'_> {
    /// Has a certificate signed, over a serial that is in the store.
    ///
    /// # Errors
    /// As [`issue`].
    pub async fn sign(
        self,
        view: &View,
        authority: &Authority,
        template: &Template,
    ) -> Result<Signed> {
        require_current(view, authority).await?;
        let serial = view.serial().await?;
        let key = signing_key(view, authority)?;
        let issued = issue(view.hsm().as_ref(), authority, template, &serial, view.now()).await;
        let certificate = view.noted(&key, issued)?;
        let [elevation, elevation_too] = self.elevations;
        let row = CredentialRow {
            id: CredentialId(view.new_id()?),
            kind: self.kind,
            identity: self.identity.id,
            parent: self.parent,
            elevation,
            elevation_too,
            handle: Some(sha256(&certificate.der).to_vec()),
            resource: self.resource.clone(),
            state: CredentialState::Active,
            revocation_epoch: self.identity.revocation_epoch,
            issued_at: view.now(),
            expires_at: certificate.not_after,
            max_expires_at: certificate.not_after,
            next_try: None,
            tries: 0,
            trouble: String::new(),
            proofs: String::new(),
            detail: certificate.der.clone(),
        };
        Ok(Signed { row, certificate, key })
    }
}

/// Refuses to sign by an authority that is not what the store has any more; and what it signs is signed
/// anew where that changes before it is committed.
///
/// # Errors
/// [`Error::Conflict`]; what the store answers.
pub async fn require_current(view: &View, authority: &Authority) -> Result<()> {
    let (label, certificate) = (authority.key_label(), authority.certificate_der());
    view.require_current(authority.role().purpose(), label, certificate).await
}

/// Names the key that signs, for the record.
///
/// # Errors
/// [`Error::Sealed`].
pub fn signing_key(view: &View, authority: &Authority) -> Result<KeyUse> {
    // What is sealed signs nothing.
    view.keyring().hsm_key(authority.role().purpose())?;
    let (key, version) = (authority.key_label().to_owned(), authority.version());
    Ok(KeyUse { key, version, purpose: "sign certificate" })
}

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its serial number in lowercase hexadecimal.
    pub serial: String,
    /// Its names.
    pub names: Vec<SubjectName>,
    /// When it begins.
    pub not_before: UnixMillis,
    /// The last second in which it is valid.
    pub not_after: UnixMillis,
}

impl Said {
    /// Reads a certificate that this vault issued.
    ///
    /// # Errors
    /// [`Error::Internal`] when it is none.
    pub fn of_der(der: &[u8]) -> Result<Self> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(Error::internal)?;
        let mut names = Vec::new();
        for extension in parsed.extensions() {
            if let ParsedExtension::SubjectAlternativeName(found) = extension.parsed_extension() {
                for name in &found.general_names {
                    names.push(name_of(name)?);
                }
            }
        }
        let ms = |seconds: i64| UnixMillis(seconds.saturating_mul(1_000));
        Ok(Self {
            serial: data_encoding::HEXLOWER.encode(parsed.raw_serial()),
            names,
            not_before: ms(parsed.validity().not_before.timestamp()),
            not_after: ms(parsed.validity().not_after.timestamp()),
        })
    }
}

fn name_of(name: &GeneralName<'_>) -> Result<SubjectName> {
    match name {
        GeneralName::DNSName(text) => SubjectName::dns(text),
        GeneralName::IPAddress(bytes) => SubjectName::ip(bytes),
        GeneralName::URI(text) => SubjectName::uri(text),
        GeneralName::RFC822Name(text) => SubjectName::email(text),
        GeneralName::OtherName(..)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => Err(Error::internal("a name that this vault never writes")),
    }
}
