//! Certificate requests (PKCS#10): a public key, its proof of possession, and names; no more.
//!
//! What asks for more (an authority's rights, key usages, constraints, another subject) is refused
//! and not narrowed in silence. Must not know which names are allowed to whom.

use rustls_pki_types::pem::{PemObject as _, SectionKind};
use x509_parser::asn1_rs::{Any, Class, FromDer, Oid, Tag};
use x509_parser::certification_request::{X509CertificationRequest, X509CertificationRequestInfo};
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_PKCS9_EXTENSION_REQUEST, OID_X509_COMMON_NAME, OID_X509_EXT_SUBJECT_ALT_NAME,
};
use x509_parser::x509::X509Version;

use super::der;
use super::key::{KeyType, PublicKey};
use super::names::{MAX_NAMES, SubjectName};
use crate::error::{Error, Result};

/// Bytes that a request may have, as DER or as PEM.
pub const MAX_CSR_BYTES: usize = 64 * 1_024;

/// A request whose sender proved to hold the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    key: PublicKey,
    names: Vec<SubjectName>,
    common_name: Option<String>,
}

impl Request {
    /// Reads a request, DER or exactly one PEM block.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what is wrong: size, form, key, signature, or what it asks for.
    ///
    /// Source: RFC 2986, section 4; RFC 7468, section 7.
    pub fn parse(input: &[u8]) -> Result<Self> {
        if input.len() > MAX_CSR_BYTES {
            return Err(Error::invalid("a certificate request has at most 64 KiB"));
        }
        if input.first() == Some(&0x30) {
            return Self::from_der(input);
        }
        // Of every kind: a private key pasted beside the request must not pass unnoticed.
        let mut blocks = <(SectionKind, Vec<u8>)>::pem_slice_iter(input);
        match (blocks.next(), blocks.next()) {
            (Some(Ok((SectionKind::Csr, block))), None) => Self::from_der(&block),
            (_, _) => Err(malformed()),
        }
    }

    /// Stands for a key that the vault itself made and that needs no proof.
    #[must_use]
    pub const fn of_key(key: PublicKey) -> Self {
        Self { key, names: Vec::new(), common_name: None }
    }

    /// Takes these names in place of those asked for.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that stands twice, and for too many.
    pub fn renamed(self, names: Vec<SubjectName>) -> Result<Self> {
        let twice =
            names.iter().enumerate().any(|(i, name)| names.iter().skip(i + 1).any(|n| n == name));
        if names.len() > MAX_NAMES || twice {
            return Err(Error::invalid("a certificate carries at most 100 names, each once"));
        }
        Ok(Self { names, ..self })
    }

    /// Shows the key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Shows the names asked for, in order.
    #[must_use]
    pub fn names(&self) -> &[SubjectName] {
        &self.names
    }

    /// Refuses a common name that says something which no name says: it decides nothing, and
    /// leaving it out without a word would surprise its sender.
    pub(super) fn common_name_is_one_of(
        &self,
        allowed: impl IntoIterator<Item = String>,
    ) -> Result<()> {
        match &self.common_name {
            Some(asked) if !allowed.into_iter().any(|name| name == *asked) => Err(Error::invalid(
                "the request's common name is none of its names; leave it out or repeat a name",
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn from_der(der: &[u8]) -> Result<Self> {
        let (rest, csr) =
            X509CertificationRequest::from_der(der).map_err(|_malformed| malformed())?;
        let info = &csr.certification_request_info;
        let whole_bytes = csr.signature_value.unused_bits == 0;
        if !rest.is_empty() || info.version != X509Version::V1 || !whole_bytes {
            return Err(malformed());
        }
        let key = PublicKey::from_spki(info.subject_pki.raw)?;
        let algorithm = raw_algorithm(der).ok_or_else(malformed)?;
        if !signature_fits(key.key_type(), algorithm) {
            return Err(Error::invalid(
                "the request's signature does not fit its key: P-256 takes SHA-256, P-384 takes \
                 SHA-384, RSA takes PKCS#1 v1.5 with SHA-256, SHA-384 or SHA-512",
            ));
        }
        // From the bytes as they came; nothing in them was used before.
        csr.verify_signature().map_err(|_wrong| {
            Error::invalid("the request's signature is wrong: no proof that its key is held")
        })?;
        let names = requested_names(info)?;
        Ok(Self { key, names, common_name: common_name(info)? })
    }
}

fn malformed() -> Error {
    Error::invalid("a certificate request is one PKCS#10 structure, as DER or one PEM block")
}

/// Compares the algorithm by its bytes: the parser is lenient about it, and it is not signed.
fn signature_fits(key: KeyType, algorithm: &[u8]) -> bool {
    match key {
        KeyType::P256 => algorithm == der::ECDSA_SHA256,
        KeyType::P384 => algorithm == der::ECDSA_SHA384,
        KeyType::Ed25519 => algorithm == der::ED25519,
        KeyType::Rsa => der::RSA_PKCS1.contains(&algorithm),
    }
}

/// Splits the outermost structure into its first element, the raw bytes of its second, and
/// demands exactly a third.
fn raw_algorithm(der: &[u8]) -> Option<&[u8]> {
    let after = |bytes| Any::from_der(bytes).ok().map(|(rest, _)| rest);
    let (_, outer) = Any::from_der(der).ok()?;
    let from_algorithm = after(outer.data)?;
    let signature = after(from_algorithm)?;
    let nothing_follows = after(signature)?.is_empty();
    let len = from_algorithm.len().checked_sub(signature.len())?;
    from_algorithm.get(..len).filter(|_| nothing_follows)
}

/// Reads the subject: empty, or one common name.
fn common_name(info: &X509CertificationRequestInfo<'_>) -> Result<Option<String>> {
    let refused = || {
        Error::invalid(
            "the request's subject holds more than a common name; put names into subjectAltName",
        )
    };
    let mut attributes = info.subject.iter_attributes();
    match (attributes.next(), attributes.next()) {
        (None, None) => Ok(None),
        (Some(one), None) if *one.attr_type() == OID_X509_COMMON_NAME => {
            one.as_str().map(|name| Some(name.to_owned())).map_err(|_not_text| refused())
        }
        (Some(_), _) | (None, Some(_)) => Err(refused()),
    }
}

/// Walks the attributes itself: the parser skips over second values and trailing bytes, where
/// something could be asked for that nobody looks at.
fn requested_names(info: &X509CertificationRequestInfo<'_>) -> Result<Vec<SubjectName>> {
    let only = |bytes| match Any::from_der(bytes) {
        Ok((&[], any)) => Ok(any),
        Ok(_) | Err(_) => Err(malformed()),
    };
    let mut fields = only(info.raw)?.data;
    for _ in ["version", "subject", "subjectPKInfo"] {
        (fields, _) = Any::from_der(fields).map_err(|_malformed| malformed())?;
    }
    let attributes = only(fields)?;
    if attributes.class() != Class::ContextSpecific || attributes.tag() != Tag(0) {
        return Err(malformed());
    }
    if attributes.data.is_empty() {
        return Ok(Vec::new());
    }
    let attribute = match Any::from_der(attributes.data) {
        Ok((&[], attribute)) => attribute,
        Ok(_) => return Err(more_than_names()),
        Err(_) => return Err(malformed()),
    };
    let (values, oid) = Oid::from_der(attribute.data).map_err(|_malformed| malformed())?;
    if oid != OID_PKCS9_EXTENSION_REQUEST {
        return Err(more_than_names());
    }
    let (rest, extension) = X509Extension::from_der(only(only(values)?.data)?.data)
        .map_err(|_malformed| malformed())?;
    if !rest.is_empty() || extension.oid != OID_X509_EXT_SUBJECT_ALT_NAME {
        return Err(more_than_names());
    }
    if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
        unique_names(&names.general_names)
    } else {
        Err(malformed())
    }
}

fn more_than_names() -> Error {
    Error::invalid(
        "the request asks for more than names: remove every extension but subjectAltName (CA, key \
         usage and constraints come from the role) and every other attribute",
    )
}

fn unique_names(general: &[GeneralName<'_>]) -> Result<Vec<SubjectName>> {
    if general.len() > MAX_NAMES {
        return Err(Error::invalid("a certificate carries at most 100 names"));
    }
    let mut names = Vec::with_capacity(general.len());
    for name in general {
        let name = match name {
            GeneralName::DNSName(text) => SubjectName::dns(text),
            GeneralName::IPAddress(bytes) => SubjectName::ip(bytes),
            GeneralName::URI(text) => SubjectName::uri(text),
            GeneralName::RFC822Name(text) => SubjectName::email(text),
            GeneralName::OtherName(..)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::RegisteredID(_)
            | GeneralName::Invalid(..) => {
                Err(Error::invalid("a name is a DNS name, an IP address, a URI or an email"))
            }
        }?;
        if names.contains(&name) {
            return Err(Error::invalid("the request carries a name twice"));
        }
        names.push(name);
    }
    Ok(names)
}
