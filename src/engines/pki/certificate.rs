//! Certificates: written, checked, and then signed in the HSM, by one function.
//!
//! rcgen writes the certificate under a signer that signs nothing; what it wrote is parsed anew and
//! compared with what was meant; only then are exactly those bytes signed. Must not know the store.

use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, DistinguishedName,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
    SigningKey, date_time_ymd,
};
use rustls_pki_types::CertificateDer;

use super::authority::Authority;
use super::key::PublicKey;
use super::names::SubjectName;
use super::profile::{KeyUse, Usage};
use super::template::{Body, Template};
use super::{der, lint};
use crate::error::{Error, Result};
use crate::hsm::Hsm;
use crate::types::{Serial, UnixMillis};

/// How far before now a certificate begins, for clocks that are behind.
pub(super) const BACKDATED_S: i64 = 60;
/// The last second that a certificate can name (9999-12-31T23:59:59Z).
const LAST_SECOND: i64 = 253_402_300_799;

/// A certificate that the HSM signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its DER.
    pub der: Vec<u8>,
    /// Its serial number.
    pub serial: Serial,
    /// When it begins to be valid.
    pub not_before: UnixMillis,
    /// The last second in which it is valid.
    pub not_after: UnixMillis,
}

impl Certificate {
    /// Writes it as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem(&self.der)
    }
}

/// Writes a public key as PEM (RFC 7468, section 13).
#[must_use]
pub fn public_pem(spki_der: &[u8]) -> String {
    armour("PUBLIC KEY", spki_der)
}

/// Writes a certificate as PEM (RFC 7468, section 5).
#[must_use]
pub fn pem(der: &[u8]) -> String {
    armour("CERTIFICATE", der)
}

/// Writes a revocation list as PEM (RFC 7468, section 6).
#[must_use]
pub fn crl_pem(der: &[u8]) -> String {
    armour("X509 CRL", der)
}

fn armour(label: &str, der: &[u8]) -> String {
    let encoded = data_encoding::BASE64.encode(der);
    let mut pem = String::with_capacity(encoded.len().saturating_add(encoded.len() / 64 + 80));
    pem.push_str("-----BEGIN ");
    pem.push_str(label);
    pem.push_str("-----\n");
    let mut rest = encoded.as_str();
    while let Some((line, after)) = rest.split_at_checked(64) {
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    if !rest.is_empty() {
        pem.push_str(rest);
        pem.push('\n');
    }
    pem.push_str("-----END ");
    pem.push_str(label);
    pem.push_str("-----\n");
    pem
}

/// First and last second of a certificate's life, since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before_s: i64,
    pub(super) not_after_s: i64,
}

impl Validity {
    fn of(template: &Template, authority: &Authority, now: UnixMillis) -> Result<Self> {
        let issuer = authority.validity();
        let not_before_s = now.seconds().saturating_sub(BACKDATED_S).max(issuer.not_before_s);
        let not_after_s = now.plus(template.ttl)?.seconds();
        if not_after_s > issuer.not_after_s.min(LAST_SECOND) || not_after_s <= not_before_s {
            return Err(Error::precondition(
                "the certificate would outlive its authority; ask for a shorter TTL",
            ));
        }
        Ok(Self { not_before_s, not_after_s })
    }
}

/// Checks a certificate and has the HSM sign it. Its serial is stored already.
///
/// # Errors
/// [`Error::Precondition`] when it would outlive its authority, [`Error::Unavailable`] and
/// [`Error::Sealed`] when the HSM cannot sign, [`Error::Internal`] when a check fails.
pub async fn issue(
    hsm: &dyn Hsm,
    authority: &Authority,
    template: &Template,
    serial: &Serial,
    now: UnixMillis,
) -> Result<Certificate> {
    let validity = Validity::of(template, authority, now)?;
    let unsigned = write_unsigned(authority, template, serial, validity)?;
    let tbs = lint::check(&unsigned, authority, template, serial, validity)?;
    let signature = hsm.sign(authority.key_label(), &tbs).await?;
    Ok(Certificate {
        der: der::signed(&tbs, authority.key().key_type(), &signature)?,
        serial: *serial,
        not_before: UnixMillis(validity.not_before_s.saturating_mul(1_000)),
        not_after: UnixMillis(validity.not_after_s.saturating_mul(1_000)),
    })
}

/// Stands where rcgen wants a key: it signs with nothing, because the HSM signs later.
#[derive(Debug)]
pub(super) struct Unsigned(pub(super) PublicKey);

impl PublicKeyData for Unsigned {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for Unsigned {
    fn sign(&self, _message: &[u8]) -> std::result::Result<Vec<u8>, rcgen::Error> {
        Ok(Vec::new())
    }
}

fn write_unsigned(
    authority: &Authority,
    template: &Template,
    serial: &Serial,
    validity: Validity,
) -> Result<CertificateDer<'static>> {
    let mut params = CertificateParams::default();
    let moment = |seconds: i64| {
        let since_epoch = u64::try_from(seconds.clamp(0, LAST_SECOND)).unwrap_or(0);
        date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(since_epoch)
    };
    params.not_before = moment(validity.not_before_s);
    params.not_after = moment(validity.not_after_s);
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name = DistinguishedName::new();
    match &template.body {
        Body::Leaf { names, usages, key_uses } => {
            params.is_ca = IsCa::ExplicitNoCa;
            let url = authority.crl_url().map(str::to_owned);
            params.crl_distribution_points =
                url.into_iter().map(|url| CrlDistributionPoint { uris: vec![url] }).collect();
            params.subject_alt_names = names.iter().map(alternative_name).collect::<Result<_>>()?;
            params.key_usages = key_uses.iter().copied().map(key_usage).collect();
            params.extended_key_usages = usages.iter().copied().map(extended_key_usage).collect();
        }
        Body::Authority { common_name, path_len } => {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(*path_len));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.distinguished_name.push(rcgen::DnType::CommonName, common_name.clone());
        }
    }
    let written = params.signed_by(&template.key, authority.writer()).map_err(Error::internal)?;
    Ok(written.into())
}

fn alternative_name(name: &SubjectName) -> Result<SanType> {
    let text = |text: &String| text.as_str().try_into().map_err(Error::internal);
    Ok(match name {
        SubjectName::Dns(host) => SanType::DnsName(text(host)?),
        SubjectName::Ip(address) => SanType::IpAddress(*address),
        SubjectName::Uri(uri) => SanType::URI(text(uri)?),
        SubjectName::Email(email) => SanType::Rfc822Name(text(email)?),
    })
}

fn key_usage(key_use: KeyUse) -> KeyUsagePurpose {
    match key_use {
        KeyUse::DigitalSignature => KeyUsagePurpose::DigitalSignature,
        KeyUse::KeyEncipherment => KeyUsagePurpose::KeyEncipherment,
    }
}

fn extended_key_usage(usage: Usage) -> ExtendedKeyUsagePurpose {
    match usage {
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::authority::Role;
    use super::super::key::{GeneratedKey, KeyType};
    use super::*;
    use crate::hsm::{KeyInfo, KeyKind};
    use crate::types::SystemEntropy;

    /// 2026-01-01T00:00:00Z.
    const NOW: UnixMillis = UnixMillis(1_767_225_600_000);

    /// An authority that signs nothing.
    pub(in super::super) fn authority(role: Role) -> Authority {
        let info = KeyInfo {
            label: "ca".to_owned(),
            kind: KeyKind::EcdsaP256,
            public_key_spki: Some(key().spki_der().to_vec()),
            check: Vec::new(),
        };
        let start = NOW.seconds();
        let validity = Validity { not_before_s: start - 600, not_after_s: start + 86_400 };
        let ours = "vault.example".parse().unwrap();
        Authority::unborn(role, &info, "A CA", validity, &ours).unwrap()
    }

    fn key() -> PublicKey {
        GeneratedKey::generate(KeyType::P256).unwrap().public
    }

    fn leaf(key: &PublicKey, names: &[&str], usage: Usage, key_use: KeyUse) -> Template {
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        Template::leaf(key.clone(), names, &[usage], &[key_use], Duration::from_hours(1))
    }

    fn server(key: &PublicKey, names: &[&str]) -> Template {
        leaf(key, names, Usage::Server, KeyUse::DigitalSignature)
    }

    fn serial() -> Serial {
        Serial::random(&SystemEntropy).unwrap()
    }

    const NAMES: &[&str] = &[
        "dns:a.example",
        "ip:192.0.2.1",
        "ip:2001:db8::1",
        "uri:https://a/b",
        "email:a@b.example",
    ];

    #[test]
    fn what_was_written_as_meant_is_handed_out_for_signing() {
        let issuer = authority(Role::Issuing);
        let meant = server(&key(), NAMES);
        let serial = serial();
        let span = Validity::of(&meant, &issuer, NOW).unwrap();
        let der = write_unsigned(&issuer, &meant, &serial, span).unwrap();
        let tbs = lint::check(&der, &issuer, &meant, &serial, span).unwrap();
        assert!(der.windows(tbs.len()).any(|window| window == tbs));
    }

    #[test]
    fn any_difference_from_what_was_meant_is_refused() {
        let issuer = authority(Role::Issuing);
        let key = key();
        let meant = server(&key, NAMES);
        let serial = serial();
        let span = Validity::of(&meant, &issuer, NOW).unwrap();
        let others = [
            ("key", server(&self::key(), NAMES)),
            ("usage", leaf(&key, NAMES, Usage::Client, KeyUse::DigitalSignature)),
            ("key use", leaf(&key, NAMES, Usage::Server, KeyUse::KeyEncipherment)),
            ("a name less", server(&key, NAMES.split_last().unwrap().1)),
            ("a name more", server(&key, &[NAMES, &["dns:b.example"]].concat())),
            ("another name", server(&key, &[&["dns:b.example"], &NAMES[1..]].concat())),
            ("an authority", {
                let body = Body::Authority { common_name: "CA".to_owned(), path_len: 0 };
                Template { body, ..meant.clone() }
            }),
        ];
        for (what, other) in &others {
            let der = write_unsigned(&issuer, other, &serial, span).unwrap();
            assert!(lint::check(&der, &issuer, &meant, &serial, span).is_err(), "{what}");
        }
        let der = write_unsigned(&issuer, &meant, &serial, span).unwrap();
        let later = Validity { not_after_s: span.not_after_s + 1, ..span };
        assert!(lint::check(&der, &issuer, &meant, &self::serial(), span).is_err(), "serial");
        assert!(lint::check(&der, &issuer, &meant, &serial, later).is_err(), "end");
        let longer = [&der[..], &[0]].concat();
        assert!(lint::check(&longer, &issuer, &meant, &serial, span).is_err(), "length");
        let stranger = authority(Role::Issuing);
        assert!(lint::check(&der, &stranger, &meant, &serial, span).is_err(), "authority key");
    }

    #[test]
    fn our_trust_domain_is_the_login_authoritys_alone() {
        let ours = "uri:spiffe://vault.example/human/admin";
        let others = "uri:spiffe://other.example/human/admin";
        for (role, names, fits) in [
            (Role::Login, vec![ours], true),
            (Role::Login, vec![others], false),
            (Role::Login, vec![ours, "uri:spiffe://vault.example/human/b"], false),
            (Role::Login, vec!["dns:a.example"], false),
            (Role::Issuing, vec![others], true),
            (Role::Issuing, vec![ours], false),
            (Role::Issuing, vec!["dns:a.example", ours], false),
            (Role::Root, vec!["dns:a.example"], false),
        ] {
            let issuer = authority(role);
            let template = Template { issuer: role, ..server(&key(), &names) };
            let serial = serial();
            let span = Validity::of(&template, &issuer, NOW).unwrap();
            let der = write_unsigned(&issuer, &template, &serial, span).unwrap();
            let checked = lint::check(&der, &issuer, &template, &serial, span);
            assert_eq!(checked.is_ok(), fits, "{role:?} {names:?}");
        }
    }

    #[test]
    fn where_the_list_is_stands_in_a_certificate_exactly_where_it_is_configured() {
        let plain = authority(Role::Issuing);
        let mut named = authority(Role::Issuing);
        named.set_crl_url(Some("http://crl.example/crl/issuing.crl".to_owned()));
        let mut other = authority(Role::Issuing);
        other.set_crl_url(Some("http://crl.example/crl/other.crl".to_owned()));
        let (meant, serial) = (server(&key(), NAMES), serial());
        let span = Validity::of(&meant, &plain, NOW).unwrap();
        // Their keys differ, which is a fault of its own: each checks what it wrote itself.
        for issuer in [&plain, &named, &other] {
            let der = write_unsigned(issuer, &meant, &serial, span).unwrap();
            assert!(lint::check(&der, issuer, &meant, &serial, span).is_ok());
            let url = issuer.crl_url().unwrap_or("crl").as_bytes();
            let there = der.windows(url.len()).any(|window| window == url);
            assert_eq!(there, issuer.crl_url().is_some());
        }
        let der = write_unsigned(&named, &meant, &serial, span).unwrap();
        for url in [None, Some("http://crl.example/crl/other.crl".to_owned())] {
            named.set_crl_url(url);
            assert!(lint::check(&der, &named, &meant, &serial, span).is_err());
        }
    }

    #[test]
    fn a_certificate_never_outlives_its_authority() {
        let issuer = authority(Role::Issuing);
        for (ttl, fits) in [(86_400, true), (86_401, false), (u64::MAX, false)] {
            let ttl = Duration::from_secs(ttl);
            let template = Template { ttl, ..server(&key(), NAMES) };
            assert_eq!(Validity::of(&template, &issuer, NOW).is_ok(), fits, "{ttl:?}");
        }
    }
}
