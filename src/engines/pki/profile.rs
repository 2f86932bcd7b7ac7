//! Profiles: what a certificate role lets its holders have.
//!
//! Must not know who holds the role, nor how certificates are written.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::csr::Request;
use super::key::KeyType;
use super::names::{MAX_NAMES, SubjectName};
use super::patterns::{Cidr, DnsPattern, EmailDomain, UriPattern};
use super::spiffe::TrustDomain;
use super::template::Template;
use crate::error::{Error, Result};

/// Shortest life of a certificate: below it, clocks decide and not the vault.
pub(in crate::engines) const MIN_TTL: Duration = Duration::from_mins(1);
/// Longest life that a profile may allow.
const MAX_TTL_S: u64 = 397 * 86_400;
/// Patterns that one list of a profile may hold.
const MAX_PATTERNS: usize = 200;

/// What a certificate is used for (RFC 5280, section 4.2.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Usage {
    /// TLS servers (`id-kp-serverAuth`).
    Server,
    /// TLS clients (`id-kp-clientAuth`).
    Client,
}

/// What the key does (RFC 5280, section 4.2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyUse {
    /// Signs handshakes and data.
    DigitalSignature,
    /// Receives keys; RSA alone can.
    KeyEncipherment,
}

/// Whether names such as `*.a.example` may stand in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WildcardNames {
    /// Never.
    #[default]
    Refused,
    /// Where a pattern covers them.
    Allowed,
}

/// What a certificate role allows; everything that is not in it is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Hosts.
    #[serde(default)]
    pub dns_names: Vec<DnsPattern>,
    /// Whether wildcard names are allowed under these hosts.
    #[serde(default)]
    pub wildcard_names: WildcardNames,
    /// Addresses.
    #[serde(default)]
    pub ip_ranges: Vec<Cidr>,
    /// URIs.
    #[serde(default)]
    pub uris: Vec<UriPattern>,
    /// Domains of addresses for mail.
    #[serde(default)]
    pub email_domains: Vec<EmailDomain>,
    /// Kinds of keys.
    pub key_types: Vec<KeyType>,
    /// What the certificates are used for.
    pub usages: Vec<Usage>,
    /// What their keys do.
    #[serde(default = "signing")]
    pub key_uses: Vec<KeyUse>,
    /// Life of a certificate where none is asked for, in seconds.
    pub default_ttl_s: u64,
    /// Longest life that may be asked for, in seconds.
    pub max_ttl_s: u64,
}

fn signing() -> Vec<KeyUse> {
    vec![KeyUse::DigitalSignature]
}

impl Profile {
    /// Checks what the types cannot: bounds, empty lists, and that our trust domain is not named.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the first fault.
    pub fn validate(&self, ours: &TrustDomain) -> Result<()> {
        let lists =
            [self.dns_names.len(), self.ip_ranges.len(), self.uris.len(), self.email_domains.len()];
        let min_s = MIN_TTL.as_secs();
        let faults = [
            (lists.iter().all(|len| *len == 0), "a certificate role allows at least one name"),
            (lists.iter().any(|len| *len > MAX_PATTERNS), "a list has at most 200 patterns"),
            (!is_set(&self.key_types), "key types are listed once each, one at the least"),
            (!is_set(&self.usages), "usages are listed once each, one at the least"),
            (!is_set(&self.key_uses), "key uses are listed once each, one at the least"),
            (
                self.key_uses.contains(&KeyUse::KeyEncipherment)
                    && self.key_types.iter().any(|key| *key != KeyType::Rsa),
                "key encipherment needs RSA as the only key type",
            ),
            (
                self.wildcard_names == WildcardNames::Allowed && self.dns_names.is_empty(),
                "wildcard names need DNS patterns",
            ),
            (self.default_ttl_s < min_s, "the default TTL is at least 60 s"),
            (self.default_ttl_s > self.max_ttl_s, "the default TTL exceeds the maximum"),
            (self.max_ttl_s > MAX_TTL_S, "the maximum TTL is at most 397 days"),
            (
                self.uris.iter().any(|uri| uri.origin().is_none_or(|origin| ours.holds(&origin))),
                "no certificate role may name the vault's own trust domain",
            ),
        ];
        match faults.iter().find(|(fault, _)| *fault) {
            Some((_, message)) => Err(Error::invalid(*message)),
            None => Ok(()),
        }
    }

    /// Says what certificate a request gets: every name at every position is checked.
    ///
    /// `extra` are names beyond those of the request. A common name decides nothing, but one that
    /// is none of the names would be dropped in silence, so it is refused.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what the role does not allow.
    pub fn check(
        &self,
        request: &Request,
        extra: &[SubjectName],
        ttl: Option<Duration>,
        ours: &TrustDomain,
    ) -> Result<Template> {
        // A role that was stored before a rule was made is held to it as well.
        self.validate(ours)?;
        let key_type = request.key().key_type();
        if !self.key_types.contains(&key_type) {
            return Err(Error::invalid("the role does not allow this kind of key"));
        }
        let mut names = request.names().to_vec();
        for name in extra {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        if names.is_empty() || names.len() > MAX_NAMES {
            return Err(Error::invalid("a certificate carries 1 to 100 names"));
        }
        if let Some(name) = names.iter().find(|name| ours.holds(name) || !self.allows(name)) {
            return Err(Error::invalid(format!("the role does not allow the name {name}")));
        }
        request.common_name_is_one_of(names.iter().map(SubjectName::text))?;
        let ttl = ttl.unwrap_or(Duration::from_secs(self.default_ttl_s));
        if ttl < MIN_TTL || ttl > Duration::from_secs(self.max_ttl_s) {
            return Err(Error::invalid(format!(
                "the TTL lies between {} and {} seconds",
                MIN_TTL.as_secs(),
                self.max_ttl_s
            )));
        }
        Ok(Template::leaf(request.key().clone(), names, &self.usages, &self.key_uses, ttl))
    }

    fn allows(&self, name: &SubjectName) -> bool {
        match name {
            SubjectName::Dns(host) => {
                let wildcard_ok =
                    !host.starts_with('*') || self.wildcard_names == WildcardNames::Allowed;
                wildcard_ok && self.dns_names.iter().any(|pattern| pattern.matches(host))
            }
            SubjectName::Ip(address) => self.ip_ranges.iter().any(|range| range.matches(*address)),
            SubjectName::Uri(uri) => self.uris.iter().any(|pattern| pattern.matches(uri)),
            SubjectName::Email(email) => self.email_domains.iter().any(|d| d.matches(email)),
        }
    }
}

/// Tells whether a list has members and none of them twice.
fn is_set<T: PartialEq>(list: &[T]) -> bool {
    !list.is_empty()
        && list.iter().enumerate().all(|(i, item)| !list.iter().skip(i + 1).any(|x| x == item))
}

#[cfg(test)]
mod tests {
    use super::super::key::GeneratedKey;
    use super::*;

    fn ours() -> TrustDomain {
        "vault.example".parse().unwrap()
    }

    fn profile() -> Profile {
        serde_json::from_str(
            r#"{"dns_names": ["db.a.example", "*.b.example"], "ip_ranges": ["192.0.2.0/24"],
                "uris": ["spiffe://other.example/**"], "email_domains": ["a.example"],
                "key_types": ["p256"], "usages": ["server", "client"],
                "default_ttl_s": 3600, "max_ttl_s": 86400}"#,
        )
        .unwrap()
    }

    fn check(names: &[&str], ttl: Option<u64>) -> Result<Template> {
        let request = Request::of_key(GeneratedKey::generate(KeyType::P256).unwrap().public);
        let names: Vec<_> = names.iter().map(|name| name.parse().unwrap()).collect();
        profile().check(&request, &names, ttl.map(Duration::from_secs), &ours())
    }

    #[test]
    fn a_profile_reads_as_it_was_written_and_unknown_fields_are_refused() {
        let text = serde_json::to_string(&profile()).unwrap();
        assert_eq!(serde_json::from_str::<Profile>(&text).unwrap(), profile());
        let stranger = text.replacen('{', r#"{"is_ca": true, "#, 1);
        assert!(serde_json::from_str::<Profile>(&stranger).is_err());
    }

    #[test]
    fn unsound_profiles_are_refused() {
        type Spoil = fn(&mut Profile);
        let spoilt: [(&str, Spoil); 11] = [
            ("name", |p| {
                p.dns_names.clear();
                p.ip_ranges.clear();
                p.uris.clear();
                p.email_domains.clear();
            }),
            ("patterns", |p| p.dns_names = vec!["a.example".parse().unwrap(); 201]),
            ("key types", |p| p.key_types.clear()),
            ("key types", |p| p.key_types.push(KeyType::P256)),
            ("usages", |p| p.usages.clear()),
            ("encipherment", |p| p.key_uses.push(KeyUse::KeyEncipherment)),
            ("60 s", |p| p.default_ttl_s = 0),
            ("exceeds", |p| p.default_ttl_s = 86_401),
            ("397", |p| p.max_ttl_s = u64::MAX),
            ("trust domain", |p| p.uris.push("spiffe://vault.example/human/a".parse().unwrap())),
            ("trust domain", |p| p.uris.insert(0, "spiffe://vault.example".parse().unwrap())),
        ];
        assert_eq!(profile().validate(&ours()), Ok(()));
        for (part, spoil) in spoilt {
            let mut profile = profile();
            spoil(&mut profile);
            let refused = profile.validate(&ours()).unwrap_err().to_string();
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }

    #[test]
    fn allowed_names_of_every_type_pass() {
        let names = [
            "dns:db.a.example",
            "dns:x.b.example",
            "ip:192.0.2.9",
            "uri:spiffe://other.example/a/b",
            "email:me@a.example",
        ];
        assert!(check(&names, None).is_ok());
    }

    #[test]
    fn a_foreign_name_is_refused_at_every_position() {
        let allowed: Vec<String> = (0..99).map(|i| format!("dns:h{i}.b.example")).collect();
        for foreign in [
            "dns:evil.test",
            "dns:b.example",
            "dns:*.b.example",
            "dns:x.y.b.example",
            "ip:192.0.3.1",
            "uri:spiffe://vault.example/human/admin",
            "uri:spiffe://other.example",
            "email:me@b.example",
        ] {
            for position in 0..=allowed.len() {
                let mut names: Vec<&str> = allowed.iter().map(String::as_str).collect();
                names.insert(position, foreign);
                let refused = check(&names, None).unwrap_err().to_string();
                assert!(refused.ends_with(foreign), "{foreign} at {position}: {refused}");
            }
        }
    }

    #[test]
    fn ttl_names_and_keys_beyond_the_role_are_refused() {
        for ttl in [0, 59, 86_401, u64::MAX] {
            assert!(check(&["dns:db.a.example"], Some(ttl)).is_err(), "{ttl}");
        }
        assert!(check(&["dns:db.a.example"], Some(86_400)).is_ok());
        assert!(check(&[], None).is_err());
        let many: Vec<String> = (0..101).map(|i| format!("dns:h{i}.b.example")).collect();
        assert!(check(&many.iter().map(String::as_str).collect::<Vec<_>>(), None).is_err());
        let p384 = Request::of_key(GeneratedKey::generate(KeyType::P384).unwrap().public);
        let name = ["dns:db.a.example".parse().unwrap()];
        assert!(profile().check(&p384, &name, None, &ours()).is_err());
    }

    #[test]
    fn wildcard_names_need_their_flag() {
        let mut profile = profile();
        profile.wildcard_names = WildcardNames::Allowed;
        let request = Request::of_key(GeneratedKey::generate(KeyType::P256).unwrap().public);
        let name = ["dns:*.b.example".parse().unwrap()];
        assert!(profile.check(&request, &name, None, &ours()).is_ok());
        let wider = ["dns:*.a.example".parse().unwrap()];
        assert!(profile.check(&request, &wider, None, &ours()).is_err());
    }
}
