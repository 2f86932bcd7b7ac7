//! X.509: requests, profiles, authorities, and certificates signed by keys in the HSM.
//!
//! The pure core: bytes and rules in, certificates out. Knows no store; a serial is stored by the
//! caller before [`issue`] is called, which is the one way to a signature.

mod authorities;
mod authority;
mod certificate;
mod csr;
mod der;
mod edwards;
mod key;
mod lint;
mod names;
mod patterns;
mod profile;
mod rsa;
mod spiffe;
mod template;

pub use authorities::{Authorities, AuthoritySlot};
pub use authority::{Authority, Deployment, Founder, Role};
pub use certificate::{Certificate, issue, pem};
pub use csr::{MAX_CSR_BYTES, Request};
pub use key::{GeneratedKey, KeyType, PublicKey};
pub use names::{MAX_NAMES, SubjectName};
pub use patterns::{Cidr, DnsPattern, EmailDomain, UriPattern};
pub use profile::{KeyUse, Profile, Usage, WildcardNames};
pub use spiffe::{SpiffeId, TrustDomain};
pub use template::{LOGIN_TTL, Serial, Template};
