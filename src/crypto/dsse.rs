//! What a signature on artifacts covers, and which key made it.
//!
//! An in-toto statement (in-toto.io/Statement/v1) in a DSSE envelope: forms that others' tools read.

use aws_lc_rs::digest;

use super::{HASH_BYTES, Scheme};

/// The type of the payload: what the signature covers first.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The type of the statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The type of what the statement says of its subject.
pub const PREDICATE_TYPE: &str = "urn:strongroom:artifacts:v1";

/// What a DSSE signature covers: the type and the payload, each with its length, so that nothing of
/// another kind is ever signed by it.
///
/// Source: DSSE v1.0.2, protocol, "PAE".
#[must_use]
pub fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Tells how a public key's signatures are made, by the length of its `SubjectPublicKeyInfo`: each
/// kind that signs has its own, and verifying reads it strictly.
#[must_use]
pub const fn scheme_of(spki_der: &[u8]) -> Option<Scheme> {
    match spki_der.len() {
        44 => Some(Scheme::Ed25519),
        91 => Some(Scheme::EcdsaP256),
        120 => Some(Scheme::EcdsaP384),
        422 => Some(Scheme::RsaPssSha256),
        550 => Some(Scheme::RsaPssSha384),
        _ => None,
    }
}

/// SHA-256 of what comes in parts.
#[derive(Clone)]
pub struct Sha256(digest::Context);

impl Sha256 {
    /// Begins.
    #[must_use]
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Takes the next part.
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// Ends.
    #[must_use]
    pub fn finish(self) -> [u8; HASH_BYTES] {
        let mut hash = [0; HASH_BYTES];
        for (to, from) in hash.iter_mut().zip(self.0.finish().as_ref()) {
            *to = *from;
        }
        hash
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sha256").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{new_signer, sha256};
    use crate::types::SystemEntropy;

    #[test]
    fn what_is_signed_is_that_of_the_protocol() {
        // The example of the specification.
        let pae = pre_authentication("http://example.com/HelloWorld", b"hello world");
        assert_eq!(pae, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn a_key_is_known_by_what_it_is() {
        for scheme in [Scheme::Ed25519, Scheme::EcdsaP256, Scheme::EcdsaP384] {
            let made = new_signer(scheme, &SystemEntropy).unwrap();
            assert_eq!(scheme_of(&made.public), Some(scheme));
        }
        assert_eq!(scheme_of(&[0; 43]), None);
    }

    #[test]
    fn parts_hash_as_the_whole() {
        let mut hash = Sha256::new();
        hash.update(b"hello ");
        hash.update(b"");
        hash.update(b"world");
        assert_eq!(hash.finish(), sha256(b"hello world"));
    }
}
