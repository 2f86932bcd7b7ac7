//! Keys that an issuer publishes (RFC 7517), and signatures by them (RFC 7518, section 3).
//!
//! A key is taken for the algorithms that the issuer is pinned to, and for none that a token names
//! beyond them.

use std::collections::HashSet;
use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::json;
use crate::types::SignatureAlgorithm;

/// Keys that an issuer may publish at once.
const KEYS: usize = 100;

/// A key, for one algorithm.
pub(super) struct Key {
    id: Option<String>,
    algorithm: SignatureAlgorithm,
    public: ParsedPublicKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// Checks a signature.
    pub(super) fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        self.public.verify_sig(signed, signature).is_ok()
    }
}

/// The keys of an issuer that fit what it is pinned to.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads a JWK set. What is no key for signatures of these algorithms is left out.
    ///
    /// # Errors
    /// What is wrong with all of it.
    pub(super) fn parse(
        bytes: &[u8],
        algorithms: &[SignatureAlgorithm],
    ) -> Result<Self, &'static str> {
        let set =
            json::object(bytes).ok_or("the keys are no JSON object, or a name stands twice")?;
        let Some(Value::Array(list)) = set.get("keys") else {
            return Err("the keys are no JWK set: there is no list `keys`");
        };
        if list.len() > KEYS {
            return Err("there are more than 100 keys");
        }
        let (mut keys, mut seen) = (Vec::new(), HashSet::new());
        for jwk in list.iter().filter_map(Value::as_object) {
            for algorithm in algorithms {
                let Some(key) = read(jwk, *algorithm) else { continue };
                // Which of two keys of one id is meant must not depend on who reads the set.
                if !seen.insert((key.id.clone(), *algorithm)) {
                    return Err("two keys have one id");
                }
                keys.push(key);
            }
        }
        if keys.is_empty() {
            return Err("there is no key for the algorithms that the issuer is pinned to");
        }
        Ok(Self(keys))
    }

    /// Finds the key of a token: by its id, or, where the token names none, the only one there is.
    pub(super) fn find(&self, id: Option<&str>, algorithm: SignatureAlgorithm) -> Option<&Key> {
        let mut fitting = self.0.iter().filter(|key| key.algorithm == algorithm);
        match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }
}

fn read(jwk: &Map<String, Value>, algorithm: SignatureAlgorithm) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let absent_or = |name: &str, wanted: &str| match jwk.get(name) {
        None => true,
        Some(value) => value.as_str() == Some(wanted),
    };
    let verifies = match jwk.get("key_ops") {
        None => true,
        Some(Value::Array(ops)) => ops.iter().any(|op| op.as_str() == Some("verify")),
        Some(_) => false,
    };
    if !absent_or("use", "sig") || !absent_or("alg", algorithm.as_str()) || !verifies {
        return None;
    }
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let key = match (text("kty")?, Shape::of(algorithm)) {
        ("RSA", Shape::Rsa) => rsa_public_key(&bytes("n")?, &bytes("e")?),
        ("EC", Shape::Curve { name, len }) if text("crv") == Some(name) => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() != len || y.len() != len {
                return None;
            }
            [&[4][..], &x, &y].concat()
        }
        ("OKP", Shape::Edwards) if text("crv") == Some("Ed25519") => bytes("x")?,
        _ => return None,
    };
    let public = ParsedPublicKey::new(verification(algorithm), key).ok()?;
    let id = match jwk.get("kid") {
        None => None,
        Some(id) => Some(id.as_str()?.to_owned()),
    };
    Some(Key { id, algorithm, public })
}

enum Shape {
    Rsa,
    Curve { name: &'static str, len: usize },
    Edwards,
}

impl Shape {
    const fn of(algorithm: SignatureAlgorithm) -> Self {
        match algorithm {
            SignatureAlgorithm::Rs256
            | SignatureAlgorithm::Rs384
            | SignatureAlgorithm::Rs512
            | SignatureAlgorithm::Ps256
            | SignatureAlgorithm::Ps384
            | SignatureAlgorithm::Ps512 => Self::Rsa,
            SignatureAlgorithm::Es256 => Self::Curve { name: "P-256", len: 32 },
            SignatureAlgorithm::Es384 => Self::Curve { name: "P-384", len: 48 },
            SignatureAlgorithm::EdDsa => Self::Edwards,
        }
    }
}

fn verification(algorithm: SignatureAlgorithm) -> &'static dyn VerificationAlgorithm {
    match algorithm {
        SignatureAlgorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        SignatureAlgorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        SignatureAlgorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        SignatureAlgorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        SignatureAlgorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        SignatureAlgorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        SignatureAlgorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
        SignatureAlgorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
        SignatureAlgorithm::EdDsa => &ED25519,
    }
}

/// Writes an `RSAPublicKey` (RFC 8017, appendix A.1.1).
fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let both = [integer(modulus), integer(exponent)].concat();
    element(0x30, &both)
}

/// Writes an unsigned number as an INTEGER: without zeros before it, but one where it would be
/// negative.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let bytes = bytes.get(zeros..).unwrap_or_default();
    let negative = bytes.first().is_none_or(|first| *first >= 0x80);
    let padded = if negative { [&[0][..], bytes].concat() } else { bytes.to_vec() };
    element(0x02, &padded)
}

fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    let len = contents.len();
    if let Ok(short @ 0..=0x7f) = u8::try_from(len) {
        der.push(short);
    } else {
        let bytes = len.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let significant = bytes.get(zeros..).unwrap_or_default();
        der.push(0x80 | u8::try_from(significant.len()).unwrap_or(0x7f));
        der.extend_from_slice(significant);
    }
    der.extend_from_slice(contents);
    der
}

#[cfg(test)]
mod tests {
    use super::*;
    use SignatureAlgorithm::{EdDsa, Es256, Rs256};

    /// RFC 8037, appendix A.2.
    const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"a",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    /// RFC 7515, appendix A.2.
    const RSA: &str = r#"{"kty":"RSA","kid":"r","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}"#;

    fn set(keys: &[&str], algorithms: &[SignatureAlgorithm]) -> Result<KeySet, &'static str> {
        KeySet::parse(format!("{{\"keys\":[{}]}}", keys.join(",")).as_bytes(), algorithms)
    }

    #[test]
    fn a_key_serves_the_algorithms_that_the_issuer_is_pinned_to_and_no_other() {
        let keys = set(&[ED, RSA], &[EdDsa, Rs256, Es256]).unwrap();
        assert!(keys.find(Some("a"), EdDsa).is_some() && keys.find(Some("r"), Rs256).is_some());
        assert!(keys.find(Some("a"), Rs256).is_none() && keys.find(Some("x"), EdDsa).is_none());
        assert!(keys.find(None, EdDsa).is_some(), "there is one alone");
        assert!(set(&[ED], &[Rs256]).is_err());
    }

    #[test]
    fn what_is_no_verification_key_is_left_out() {
        for (from, to) in [
            ("\"kid\"", "\"use\":\"enc\",\"kid\""),
            ("\"kid\"", "\"alg\":\"RS256\",\"kid\""),
            ("\"kid\"", "\"key_ops\":[\"sign\"],\"kid\""),
            ("\"kid\":\"a\"", "\"kid\":1"),
            ("Ed25519", "X25519"),
            ("OKP", "oct"),
            ("11qY", ""),
        ] {
            assert!(set(&[&ED.replace(from, to)], &[EdDsa]).is_err(), "{from} → {to}");
        }
        let (_, modulus) = RSA.split_once(r#""n":""#).unwrap();
        let modulus = modulus.split('"').next().unwrap();
        let short = RSA.replace(modulus, &modulus[..modulus.len() / 2]);
        assert!(set(&[&short], &[Rs256]).is_err(), "a modulus of 1024 bits");
        assert!(set(&[ED, ED], &[EdDsa]).is_err(), "two of one id");
        assert!(KeySet::parse(b"{\"keys\":[],\"keys\":[]}", &[EdDsa]).is_err());
    }
}
