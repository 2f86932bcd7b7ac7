//! Words about issuers of OIDC tokens: what their tokens look like, which signatures are believed,
//! how often a token is.

use std::fmt;
use std::str::FromStr;

use super::kind::words;
use crate::error::{Error, Result};

words! {
    /// What an issuer's tokens look like, and so what rules have to bind.
    Preset, "preset" {
        /// GitHub Actions.
        GitHub = "github",
        /// GitLab CI.
        GitLab = "gitlab",
        /// The projected tokens of one Kubernetes cluster.
        Kubernetes = "kubernetes",
        /// The provider by which people sign in.
        People = "people",
        /// Any other OIDC issuer.
        Generic = "generic",
    }
}

words! {
    /// What keeps a token from being used again.
    Replay, "replay mode" {
        /// Its `jti`: a token logs in once.
        Once = "once",
        /// The hash of what is signed: a token logs in once.
        Hash = "hash",
        /// The uid of a pod: it logs in again until its token expires, and each time its session
        /// before ends.
        Bound = "bound",
    }
}

words! {
    /// A signature algorithm that an issuer may use: asymmetric ones alone (RFC 7518, section 3.1;
    /// RFC 8037, section 3.1).
    SignatureAlgorithm, "algorithm" {
        /// RSASSA-PKCS1-v1_5 with SHA-256.
        Rs256 = "RS256",
        /// The same with SHA-384.
        Rs384 = "RS384",
        /// The same with SHA-512.
        Rs512 = "RS512",
        /// RSASSA-PSS with SHA-256.
        Ps256 = "PS256",
        /// The same with SHA-384.
        Ps384 = "PS384",
        /// The same with SHA-512.
        Ps512 = "PS512",
        /// ECDSA on P-256 with SHA-256.
        Es256 = "ES256",
        /// ECDSA on P-384 with SHA-384.
        Es384 = "ES384",
        /// Ed25519.
        EdDsa = "EdDSA",
    }
}
