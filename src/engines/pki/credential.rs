//! The row of a certificate: pending with its serial before the HSM signs, then with its DER.
//!
//! A pending row that a crash or a failure left is ended by [`never_signed`]: what the HSM may
//! have signed over its serial was never handed out.

use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::certificate::Certificate;
use super::names::SubjectName;
use super::template::Serial;
use crate::crypto::sha256;
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::credentials::CredentialRow;
use crate::store::identities::IdentityRow;
use crate::store::keys::HsmPurpose;
use crate::types::{CredentialId, CredentialKind, CredentialState, ResourceName, UnixMillis};
use crate::vault::View;

/// The version of a row that nobody but its intent has written.
pub(super) const PENDING: i64 = 1;
/// How long after its intent a signature is looked for by recovery.
const RECOVER_AFTER: std::time::Duration = std::time::Duration::from_mins(1);

/// Whose certificate is made, from what.
#[derive(Debug)]
pub(super) struct Intent<'a> {
    pub(super) kind: CredentialKind,
    pub(super) identity: &'a IdentityRow,
    pub(super) resource: ResourceName,
    pub(super) serial: &'a Serial,
    /// The last second of the certificate.
    pub(super) not_after: UnixMillis,
}

impl Intent<'_> {
    /// Makes the row that is stored before anything is signed.
    pub(super) fn pending(self, view: &View) -> Result<CredentialRow> {
        let now = view.now();
        Ok(CredentialRow {
            id: CredentialId(view.new_id()?),
            kind: self.kind,
            identity: self.identity.id,
            parent: None,
            handle: None,
            resource: self.resource,
            state: CredentialState::Pending,
            revocation_epoch: self.identity.revocation_epoch,
            issued_at: now,
            expires_at: self.not_after,
            max_expires_at: self.not_after,
            next_try: Some(now.plus(RECOVER_AFTER)?),
            tries: 0,
            trouble: String::new(),
            detail: self.serial.as_bytes().to_vec(),
        })
    }
}

/// Makes the row of a certificate that was signed.
pub(super) fn signed(pending: &CredentialRow, certificate: &Certificate) -> CredentialRow {
    CredentialRow {
        handle: Some(sha256(&certificate.der).to_vec()),
        state: CredentialState::Active,
        expires_at: certificate.not_after,
        max_expires_at: certificate.not_after,
        next_try: None,
        detail: certificate.der.clone(),
        ..pending.clone()
    }
}

/// Makes the row of a certificate or login whose signing failed or was cut off: it has ended, and
/// nothing is left outside.
#[must_use]
pub(super) fn never_signed(pending: &CredentialRow) -> CredentialRow {
    CredentialRow {
        state: CredentialState::Ended,
        next_try: None,
        trouble: "it was not signed".to_owned(),
        ..pending.clone()
    }
}

/// Tells when a certificate of this length ends: its last second, inclusive.
pub(super) fn last_second(now: UnixMillis, ttl: std::time::Duration) -> Result<UnixMillis> {
    Ok(UnixMillis(now.plus(ttl)?.seconds().saturating_mul(1_000)))
}

/// Names the key that signs, for the record.
pub(super) fn signing_key(view: &View, purpose: HsmPurpose) -> Result<KeyUse> {
    let key = view.keyring().hsm_key(purpose)?;
    Ok(KeyUse { key: key.label, version: key.version, purpose: "sign certificate" })
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

    /// Reads a row: the certificate, or the serial that was set aside for it.
    ///
    /// # Errors
    /// [`Error::Internal`] when it holds neither.
    pub fn of_row(row: &CredentialRow) -> Result<Self> {
        if is_signed(row) {
            return Self::of_der(&row.detail);
        }
        Ok(Self {
            serial: Serial::from_bytes(&row.detail)?.to_string(),
            names: Vec::new(),
            not_before: row.issued_at,
            not_after: row.expires_at,
        })
    }
}

/// Tells whether the row holds a certificate, and not only the serial that was set aside for one.
#[must_use]
pub fn is_signed(row: &CredentialRow) -> bool {
    row.handle.is_some()
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
