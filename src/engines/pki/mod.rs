//! X.509: requests, profiles, authorities, and certificates signed by keys in the HSM.
//!
//! The core is pure: bytes and rules in, certificates out, and [`issue`] is the one way to a
//! signature. The verbs around it (`roles`, `mint`, `login`, `listing`) give it a serial that is in the
//! store.

mod authorities;
mod authority;
mod certificate;
mod credential;
mod crl;
mod csr;
mod der;
mod edwards;
mod key;
mod lint;
mod listing;
mod login;
mod mint;
mod names;
mod patterns;
mod profile;
mod publish;
mod quota;
mod revoke;
mod roles;
mod rsa;
mod spiffe;
mod template;

pub use authorities::{Authorities, AuthoritySlot};
pub use authority::{Authority, Deployment, Founder, Role};
pub use certificate::{Certificate, crl_pem, issue, pem, public_pem};
pub use credential::{Holder, Said, Signed, require_current, signing_key};
pub use csr::{MAX_CSR_BYTES, Request};
pub use key::{GeneratedKey, KeyType, PublicKey};
pub use listing::{Anchors, CertificatePage, ListCertificates, Listed, ShowAuthorities, Standing};
pub use login::{IssueLogin, LoginIssued, LoginTtl};
pub use mint::{Issue, Issued, Mint, NewKey, Order, Sign, Source};
pub use names::{MAX_NAMES, SubjectName};
pub use patterns::{Cidr, DnsPattern, EmailDomain, UriPattern};
pub(in crate::engines) use profile::MIN_TTL;
pub use profile::{KeyUse, Profile, Usage, WildcardNames};
pub use publish::{
    CrlSlot, MANY, Place, PreparedCrl, ShowCrl, SignCrl, list_of, listed, listed_from,
};
pub use quota::Quota;
pub use revoke::RevokeCertificate;
pub use roles::{CertificateRole, ListRoles, Put, PutRole, RemoveRole, RolePage, Roles, ShowRole};
pub use spiffe::{SpiffeId, TrustDomain};
pub use template::{LOGIN_TTL, Template};
