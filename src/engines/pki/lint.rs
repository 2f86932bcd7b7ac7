//! The check of every certificate before the HSM signs it.
//!
//! Reads the written bytes with another parser than the one that wrote them and compares all of it
//! with what was meant; an extension that nobody meant is a fault. Shares no code with the writer.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::asn1_rs::{FromDer, Oid};
use x509_parser::certificate::{TbsCertificate, X509Certificate};
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384};
use x509_parser::x509::X509Version;

use super::authority::{Authority, Role};
use super::certificate::Validity;
use super::der;
use super::key::KeyType;
use super::names::SubjectName;
use super::profile::{KeyUse, Usage};
use super::template::{Body, Template};
use crate::error::{Error, Result};
use crate::types::Serial;

/// `keyUsage` bits as x509-parser numbers them (RFC 5280, section 4.2.1.3).
const DIGITAL_SIGNATURE: u16 = 1;
const KEY_ENCIPHERMENT: u16 = 1 << 2;
const KEY_CERT_SIGN: u16 = 1 << 5;
const CRL_SIGN: u16 = 1 << 6;

/// Compares what was written with what was meant and hands out the bytes to sign.
///
/// # Errors
/// [`Error::Internal`] on any difference; the log says which.
pub(super) fn check(
    unsigned: &[u8],
    authority: &Authority,
    template: &Template,
    serial: &Serial,
    validity: Validity,
) -> Result<Vec<u8>> {
    let fault = |what: &str| Error::internal(format!("a certificate was not signed: {what}"));
    let (rest, certificate) =
        X509Certificate::from_der(unsigned).map_err(|_malformed| fault("it does not parse"))?;
    let tbs = &certificate.tbs_certificate;
    let issuer = authority.validity();
    let algorithm =
        signature_algorithm(authority).ok_or_else(|| fault("authorities sign with ECDSA"))?;
    let subject = match &template.body {
        Body::Leaf { .. } => vec![0x30, 0x00],
        Body::Authority { common_name, .. } => der::common_name(common_name),
    };
    let faults = [
        (!rest.is_empty(), "bytes follow it"),
        (template.issuer != authority.role(), "it is meant for another authority"),
        (!names_fit(template, authority), "its names are not this authority's to vouch for"),
        (tbs.version != X509Version::V3, "version"),
        (tbs.raw_serial() != serial.as_bytes(), "serial"),
        (tbs.signature.algorithm != algorithm, "signature algorithm"),
        (tbs.signature.parameters.is_some(), "signature parameters"),
        (tbs.issuer.as_raw() != authority.subject_der(), "issuer"),
        (tbs.subject.as_raw() != subject, "subject"),
        (tbs.subject_pki.raw != template.key.spki_der(), "public key"),
        (tbs.issuer_uid.is_some() || tbs.subject_uid.is_some(), "unique ids"),
        (tbs.validity.not_before.timestamp() != validity.not_before_s, "begin"),
        (tbs.validity.not_after.timestamp() != validity.not_after_s, "end"),
        (validity.not_before_s < issuer.not_before_s, "it begins before its authority"),
        (validity.not_after_s > issuer.not_after_s, "it outlives its authority"),
        (!extensions_fit(tbs, authority, template), "extensions"),
    ];
    match faults.iter().find(|(is_fault, _)| *is_fault) {
        Some((_, what)) => Err(fault(what)),
        None => Ok(tbs.as_ref().to_vec()),
    }
}

/// What an authority signs with, which is ECDSA.
pub(super) fn signature_algorithm(authority: &Authority) -> Option<Oid<'static>> {
    match authority.key().key_type() {
        KeyType::P256 => Some(OID_SIG_ECDSA_WITH_SHA256),
        KeyType::P384 => Some(OID_SIG_ECDSA_WITH_SHA384),
        KeyType::Ed25519 | KeyType::Rsa => None,
    }
}

/// The login CA vouches for one id of our trust domain; no other authority for any.
fn names_fit(template: &Template, authority: &Authority) -> bool {
    let ours = |name: &SubjectName| authority.trust_domain().holds(name);
    match (authority.role(), &template.body) {
        (Role::Login, Body::Leaf { names, .. }) => {
            matches!(names.as_slice(), [one] if ours(one))
        }
        (Role::Issuing, Body::Leaf { names, .. }) => !names.is_empty() && !names.iter().any(ours),
        (Role::Root | Role::Login, Body::Authority { .. }) => true,
        (Role::Root, Body::Leaf { .. }) | (Role::Issuing, Body::Authority { .. }) => false,
    }
}

/// Wants each meant extension once, and no other.
fn extensions_fit(tbs: &TbsCertificate<'_>, authority: &Authority, template: &Template) -> bool {
    let expected = match &template.body {
        Body::Leaf { .. } => 6_usize.saturating_add(usize::from(authority.crl_url().is_some())),
        Body::Authority { .. } => 4,
    };
    let unique = tbs.extensions_map().is_ok_and(|map| map.len() == expected);
    unique
        && tbs.extensions().len() == expected
        && tbs.extensions().iter().all(|extension| extension_fits(extension, authority, template))
}

fn extension_fits(
    extension: &X509Extension<'_>,
    authority: &Authority,
    template: &Template,
) -> bool {
    let critical = extension.critical;
    match (extension.parsed_extension(), &template.body) {
        (ParsedExtension::AuthorityKeyIdentifier(id), _) => {
            !critical
                && id.key_identifier.as_ref().is_some_and(|id| id.0 == authority.key_id())
                && id.authority_cert_issuer.is_none()
                && id.authority_cert_serial.is_none()
        }
        (ParsedExtension::SubjectKeyIdentifier(id), _) => {
            !critical && Some(id.0) == key_id(template.key.spki_der()).as_deref()
        }
        (ParsedExtension::BasicConstraints(constraints), Body::Leaf { .. }) => {
            critical && !constraints.ca && constraints.path_len_constraint.is_none()
        }
        (ParsedExtension::BasicConstraints(constraints), Body::Authority { path_len, .. }) => {
            critical
                && constraints.ca
                && constraints.path_len_constraint == Some(u32::from(*path_len))
        }
        (ParsedExtension::KeyUsage(usage), Body::Authority { .. }) => {
            critical && usage.flags == KEY_CERT_SIGN | CRL_SIGN
        }
        (ParsedExtension::KeyUsage(usage), Body::Leaf { key_uses, .. }) => {
            let flags = key_uses.iter().fold(0, |flags, key_use| {
                flags
                    | match key_use {
                        KeyUse::DigitalSignature => DIGITAL_SIGNATURE,
                        KeyUse::KeyEncipherment => KEY_ENCIPHERMENT,
                    }
            });
            critical && usage.flags == flags
        }
        (ParsedExtension::ExtendedKeyUsage(usage), Body::Leaf { usages, .. }) => {
            let others = usage.any
                || usage.code_signing
                || usage.email_protection
                || usage.time_stamping
                || usage.ocsp_signing
                || !usage.other.is_empty();
            !critical
                && !others
                && usage.server_auth == usages.contains(&Usage::Server)
                && usage.client_auth == usages.contains(&Usage::Client)
        }
        (ParsedExtension::CRLDistributionPoints(points), Body::Leaf { .. }) => {
            let [point] = points.points.as_slice() else { return false };
            let Some(DistributionPointName::FullName(names)) = &point.distribution_point else {
                return false;
            };
            !critical
                && point.reasons.is_none()
                && point.crl_issuer.is_none()
                && matches!(names.as_slice(), [GeneralName::URI(url)]
                    if Some(*url) == authority.crl_url())
        }
        (ParsedExtension::SubjectAlternativeName(written), Body::Leaf { names, .. }) => {
            // The subject is empty, so the names are critical (RFC 5280, section 4.2.1.6).
            critical
                && written.general_names.len() == names.len()
                && written.general_names.iter().zip(names).all(|(w, n)| same_name(w, n))
        }
        _ => false,
    }
}

fn same_name(written: &GeneralName<'_>, meant: &SubjectName) -> bool {
    match (written, meant) {
        (GeneralName::DNSName(written), SubjectName::Dns(text))
        | (GeneralName::URI(written), SubjectName::Uri(text))
        | (GeneralName::RFC822Name(written), SubjectName::Email(text)) => written == text,
        (GeneralName::IPAddress(written), SubjectName::Ip(IpAddr::V4(v4))) => {
            *written == v4.octets()
        }
        (GeneralName::IPAddress(written), SubjectName::Ip(IpAddr::V6(v6))) => {
            *written == v6.octets()
        }
        (
            _,
            SubjectName::Dns(_) | SubjectName::Ip(_) | SubjectName::Uri(_) | SubjectName::Email(_),
        ) => false,
    }
}

/// Derives a key's identifier: the first 160 bits of SHA-256 over the key (RFC 7093, section 2).
pub(super) fn key_id(spki_der: &[u8]) -> Option<Vec<u8>> {
    digest(&SHA256, spki_der).as_ref().get(..20).map(<[u8]>::to_vec)
}
