//! Root keys, CA keys and signing keys: made inside a PKCS#11 token and never out of it.
//!
//! Knows tokens, sessions, mechanisms and attributes; must not know the key hierarchy, what a key
//! is for, or who asks.

mod der;
pub mod memory;
pub mod pkcs11;
pub mod softhsm;

use std::time::Duration;

use async_trait::async_trait;

use crate::error::Error;
use crate::types::SecretBytes;

pub use memory::MemoryHsm;
pub use pkcs11::{Pkcs11Config, Pkcs11Hsm, TokenSelector};

/// How long a call waits for the module; a little under the 5 s that [`Hsm`] promises, so that
/// the answer has left by then.
pub const CALL_TIMEOUT: Duration = Duration::from_millis(4_800);

/// How long making an RSA key may take: the token looks for primes.
pub const RSA_TIMEOUT: Duration = Duration::from_secs(25);

/// Most random bytes that one call gives.
pub const MAX_RANDOM_BYTES: usize = 1_024;

/// Most bytes that a private data object holds.
pub const MAX_DATA_BYTES: usize = 2_048;

/// Longest label, in bytes.
pub const MAX_LABEL_BYTES: usize = 128;

/// What the check value of a secret key is the HMAC of.
const CHECK_LABEL: &[u8] = b"strongroom key check v1";

/// Length of what an RSA key of 3,072 bits decrypts, in bytes.
pub const OAEP_BYTES: usize = 384;

/// Length of what an agreement on P-256 gives, in bytes.
pub const AGREED_BYTES: usize = 32;

/// Length of a secret key's check value, in bytes.
const CHECK_BYTES: usize = 8;

/// What a key is; each key has exactly one usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// 256-bit generic secret, `CKM_SHA256_HMAC` only: the root of the hierarchy.
    HmacSha256,
    /// ECDSA on P-256 with SHA-256.
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384,
    /// Ed25519 (RFC 8032, pure).
    Ed25519,
    /// RSA-PSS of 3,072 bits with SHA-256 and a salt as long (RFC 8017, section 8.1).
    RsaPss3072,
    /// RSA-PSS of 4,096 bits with SHA-384 and a salt as long.
    RsaPss4096,
    /// RSA of 3,072 bits that decrypts by OAEP with SHA-1 and MGF1 with SHA-1 (RFC 8017, section
    /// 7.1): what every token has. Nothing there stands on collisions of SHA-1.
    RsaOaep3072,
    /// ECDH on P-256, without a derivation of the token's own: agrees on secrets.
    EcdhP256,
}

/// What is known of a key in the token once its attributes were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its label; exactly one object of its class carries it.
    pub label: String,
    /// What it is.
    pub kind: KeyKind,
    /// DER of the `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7); none for a secret key.
    pub public_key_spki: Option<Vec<u8>>,
    /// Pins the key: SHA-256 of the SPKI, or for a secret key the HMAC of a fixed label, cut to
    /// 8 bytes. The caller stores it and compares at every start.
    pub check: Vec<u8>,
}

/// What went wrong in the token, by what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HsmError {
    /// The module, token or session is gone or hangs; heals by itself when it is back.
    #[error("the HSM does not answer: {0}")]
    Unavailable(String),
    /// Nobody is logged in.
    #[error("the HSM is logged out")]
    LoggedOut,
    /// The PIN is wrong; no second attempt is made.
    #[error("the HSM refused the PIN")]
    PinIncorrect,
    /// One more wrong PIN locks the token: refused without force.
    #[error("the token warns that one more wrong PIN locks it")]
    PinFinalTry,
    /// The token cannot do what is needed.
    #[error("the token lacks {0}")]
    Unsupported(String),
    /// No key with that label.
    #[error("no key `{0}` in the token")]
    KeyMissing(String),
    /// A key exists already, or more than one carries the label.
    #[error("key `{0}` is not unique in the token")]
    KeyNotUnique(String),
    /// A key's attributes are not what was promised: the vault must not serve.
    #[error("key `{label}` must not be used: {fault}")]
    KeyUntrusted {
        /// The key's label.
        label: String,
        /// Which attribute is wrong, and how.
        fault: String,
    },
    /// The token that is configured was never there, or more than one is like it: nobody can log in
    /// until that is mended. Says which, and where it was looked for.
    #[error("{0}")]
    TokenMissing(String),
    /// The configuration is wrong (module path, token, PIN source).
    #[error("{0}")]
    Configuration(String),
    /// The token answered something that PKCS#11 does not explain.
    #[error("the HSM failed: {0}")]
    Failed(String),
}

impl From<HsmError> for Error {
    /// Says what the caller does about it; the cause goes to the log.
    fn from(error: HsmError) -> Self {
        match error {
            HsmError::Unavailable(cause) => {
                tracing::warn!(%cause, "the HSM does not answer");
                Self::unavailable("the HSM does not answer")
            }
            // Only a login before the token was ever found meets it, and only an operator asks for
            // one.
            HsmError::TokenMissing(what) => Self::unavailable(what),
            HsmError::LoggedOut => Self::Sealed,
            HsmError::PinIncorrect | HsmError::PinFinalTry => Self::precondition(error.to_string()),
            HsmError::Unsupported(_)
            | HsmError::KeyMissing(_)
            | HsmError::KeyNotUnique(_)
            | HsmError::KeyUntrusted { .. }
            | HsmError::Configuration(_)
            | HsmError::Failed(_) => Self::internal(error),
        }
    }
}

/// Refuses labels that are empty, too long or hold control characters.
fn check_label(label: &str) -> Result<(), HsmError> {
    if label.is_empty() || label.len() > MAX_LABEL_BYTES || label.chars().any(char::is_control) {
        return Err(HsmError::Configuration(format!(
            "a label in the token has 1 to {MAX_LABEL_BYTES} bytes and no control characters"
        )));
    }
    Ok(())
}

/// Refuses more random bytes than one call gives.
fn check_random(len_bytes: usize) -> Result<(), HsmError> {
    if len_bytes > MAX_RANDOM_BYTES {
        return Err(HsmError::Failed(format!(
            "one call gives at most {MAX_RANDOM_BYTES} random bytes"
        )));
    }
    Ok(())
}

/// Refuses a value that is too long for a data object.
fn check_data(value: &[u8]) -> Result<(), HsmError> {
    if value.len() > MAX_DATA_BYTES {
        return Err(HsmError::Failed(format!(
            "a data object holds at most {MAX_DATA_BYTES} bytes"
        )));
    }
    Ok(())
}

/// A token with keys. One conformance suite (`tests/it/hsm.rs`) is passed by every implementation.
///
/// Every call answers within 5 s, but that which makes an RSA key, within [`RSA_TIMEOUT`]: a call that
/// hangs in the module is left behind and [`HsmError::Unavailable`] returned.
#[async_trait]
pub trait Hsm: Send + Sync + std::fmt::Debug {
    /// Logs in; success when already logged in.
    async fn login(&self, pin: SecretBytes) -> Result<(), HsmError>;

    /// Logs in even when the token warns that one more wrong PIN locks it.
    ///
    /// Only for an operator who asked for it by name; a token that knows no such warning does the
    /// same as in [`Hsm::login`].
    async fn login_forced(&self, pin: SecretBytes) -> Result<(), HsmError> {
        self.login(pin).await
    }

    /// Logs out and forgets handles; every call but `login` then answers [`HsmError::LoggedOut`].
    async fn logout(&self) -> Result<(), HsmError>;

    /// Makes a key inside the token: sensitive, non-extractable, one usage, unique label.
    async fn create_key(&self, label: &str, kind: KeyKind) -> Result<KeyInfo, HsmError>;

    /// Looks a key up and verifies every attribute that `security.md` promises.
    async fn lookup_key(&self, label: &str) -> Result<Option<KeyInfo>, HsmError>;

    /// Destroys every object of a key, whatever became of its making; success where there is none.
    async fn destroy_key(&self, label: &str) -> Result<(), HsmError>;

    /// HMAC-SHA-256 of `data` under a [`KeyKind::HmacSha256`] key.
    async fn hmac(&self, label: &str, data: &[u8]) -> Result<SecretBytes, HsmError>;

    /// As [`Hsm::hmac`], of several, in their order, for long work of the node itself: one call, so that
    /// each costs less, at less than everybody's priority. Whoever has many asks for few at a time: a
    /// token may have no more than one turn to give.
    async fn hmac_many(
        &self,
        label: &str,
        data: Vec<Vec<u8>>,
    ) -> Result<Vec<SecretBytes>, HsmError> {
        let mut tags = Vec::with_capacity(data.len());
        for one in data {
            tags.push(self.hmac(label, &one).await?);
        }
        Ok(tags)
    }

    /// Signs `message` (hashed as the key's kind says): DER `ECDSA-Sig-Value`, 64 bytes Ed25519, or
    /// RSA-PSS.
    async fn sign(&self, label: &str, message: &[u8]) -> Result<Vec<u8>, HsmError>;

    /// Decrypts under a [`KeyKind::RsaOaep3072`] key; none for what does not open, whatever is wrong
    /// with it.
    async fn decrypt(
        &self,
        label: &str,
        ciphertext: &[u8],
    ) -> Result<Option<SecretBytes>, HsmError>;

    /// Agrees on a secret under a [`KeyKind::EcdhP256`] key with whoever has the private half of a
    /// point, 65 bytes uncompressed: the x-coordinate, 32 bytes; none for what is no point of the
    /// curve, which no token is asked to judge.
    ///
    /// Source: PKCS#11 3.0, section 2.3.6 (`CKM_ECDH1_DERIVE` with `CKD_NULL`).
    async fn agree(&self, label: &str, point: &[u8]) -> Result<Option<SecretBytes>, HsmError>;

    /// Random bytes of the token's generator, at most 1,024.
    async fn random(&self, len_bytes: usize) -> Result<SecretBytes, HsmError>;

    /// Reads a private data object; none where there is none.
    async fn read_data(&self, label: &str) -> Result<Option<Vec<u8>>, HsmError>;

    /// Writes a private data object, replacing it.
    async fn write_data(&self, label: &str, value: &[u8]) -> Result<(), HsmError>;

    /// Counts threads that are stuck inside the module.
    fn stuck_threads(&self) -> usize {
        0
    }
}
