//! SPIFFE ids: the one name in a login certificate that says who somebody is.
//!
//! Must not know whether the identity exists.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::names::{SubjectName, is_authority, split_uri};
use crate::error::{Error, Result};
use crate::types::{IdentityName, Kind};

/// The trust domain that a vault or an outside authority speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Shows the canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether a name lies in this trust domain.
    #[must_use]
    pub fn holds(&self, name: &SubjectName) -> bool {
        match name {
            SubjectName::Uri(uri) => split_uri(uri)
                .is_some_and(|(scheme, host, _)| scheme == "spiffe" && host == &*self.0),
            SubjectName::Dns(_) | SubjectName::Ip(_) | SubjectName::Email(_) => false,
        }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if is_authority(text) {
            Ok(Self(text.into()))
        } else {
            Err(Error::invalid("a trust domain has 1 to 255 characters a-z 0-9 . _ -"))
        }
    }
}

/// `spiffe://<trust domain>/<kind>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    /// Whose word it is.
    pub trust_domain: TrustDomain,
    /// What the identity is.
    pub kind: Kind,
    /// What the identity is called.
    pub name: IdentityName,
}

impl SpiffeId {
    /// Reads the one URI that decides; a common name and other names never do.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when the certificate has none, more than one, or one that names
    /// no identity.
    ///
    /// Source: X.509-SVID, section 2 (exactly one URI SAN).
    pub fn of_certificate(certificate: &X509Certificate<'_>) -> Result<Self> {
        let refused = |why| Err(Error::Unauthenticated(why));
        let mut uris = Vec::new();
        let mut alternative_names = 0;
        for extension in certificate.extensions() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
                alternative_names += 1;
                uris.extend(names.general_names.iter().filter_map(|name| match name {
                    GeneralName::URI(uri) => Some(Some(*uri)),
                    GeneralName::Invalid(..) => Some(None),
                    GeneralName::OtherName(..)
                    | GeneralName::RFC822Name(_)
                    | GeneralName::DNSName(_)
                    | GeneralName::X400Address(_)
                    | GeneralName::DirectoryName(_)
                    | GeneralName::EDIPartyName(_)
                    | GeneralName::IPAddress(_)
                    | GeneralName::RegisteredID(_) => None,
                }));
            }
        }
        match (alternative_names, uris.as_slice()) {
            (1, [Some(uri)]) => uri.parse().or_else(|_malformed: Error| {
                refused("the certificate's URI is not spiffe://<trust domain>/<kind>/<name>".into())
            }),
            _ => refused("a login certificate carries exactly one URI".into()),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.trust_domain, self.kind, self.name)
    }
}

impl FromStr for SpiffeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || Error::invalid("an id is spiffe://<trust domain>/<kind>/<name>");
        let (scheme, domain, path) = split_uri(text).ok_or_else(malformed)?;
        let (kind, name) = path.and_then(|path| path.split_once('/')).ok_or_else(malformed)?;
        if scheme != "spiffe" {
            return Err(malformed());
        }
        Ok(Self { trust_domain: domain.parse()?, kind: kind.parse()?, name: name.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_as_it_was_read() {
        let text = "spiffe://corp.example/pipeline/etl/nightly";
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!((id.kind, id.name.as_str()), (Kind::Pipeline, "etl/nightly"));
        assert_eq!(id.to_string(), text);
    }

    #[test]
    fn what_names_no_identity_is_refused() {
        for text in [
            "spiffe://corp.example",
            "spiffe://corp.example/",
            "spiffe://corp.example/pipeline",
            "spiffe://corp.example/pipeline/",
            "spiffe://corp.example/robot/a",
            "spiffe://corp.example/pipeline/A",
            "spiffe://corp.example/pipeline/a/b/c/d/e",
            "spiffe://corp.example/pipeline/a?b",
            "spiffe:///pipeline/a",
            "https://corp.example/pipeline/a",
            "SPIFFE://corp.example/pipeline/a",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}
