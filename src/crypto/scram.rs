//! The verifier that PostgreSQL stores for SCRAM-SHA-256, so that the password itself never
//! reaches its logs and statistics.
//!
//! Source: RFC 5802, section 3; RFC 5803; RFC 7677.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{CryptoError, Result, hmac_sha256, sha256};
use crate::types::SecretBytes;

/// Computes `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
///
/// The password is printable ASCII, on which `SASLprep` (RFC 4013) changes nothing.
///
/// # Errors
/// [`CryptoError::Malformed`] for an empty password or one beyond printable ASCII.
pub fn scram_sha_256_verifier(
    password: &SecretBytes,
    salt: &[u8],
    iterations: NonZeroU32,
) -> Result<Zeroizing<String>> {
    let password = password.expose();
    if password.is_empty() || !password.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Err(CryptoError::Malformed("password"));
    }
    let mut salted = Zeroizing::new([0; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut *salted);
    let client_key = Zeroizing::new(hmac_sha256(&*salted, &[b"Client Key"]));
    let server_key = Zeroizing::new(hmac_sha256(&*salted, &[b"Server Key"]));
    Ok(Zeroizing::new(format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(sha256(&*client_key)),
        STANDARD.encode(*server_key)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";

    fn verifier(password: &str) -> Result<Zeroizing<String>> {
        let salt = STANDARD.decode(SALT).unwrap();
        let iterations = NonZeroU32::new(4_096).unwrap();
        scram_sha_256_verifier(&SecretBytes::new(password.into()), &salt, iterations)
    }

    /// The exchange of RFC 7677, section 3: what the verifier holds must accept the client's proof
    /// and yield the server's signature.
    #[test]
    fn the_verifier_agrees_with_the_exchange_of_rfc_7677() {
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let message =
            format!("n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s={SALT},i=4096,c=biws,r={nonce}");
        let text = verifier("pencil").unwrap();
        let keys = text.strip_prefix(&format!("SCRAM-SHA-256$4096:{SALT}$")).unwrap();
        let (stored, server) = keys.split_once(':').unwrap();
        let stored = STANDARD.decode(stored).unwrap();

        let signature = hmac_sha256(&STANDARD.decode(server).unwrap(), &[message.as_bytes()]);
        assert_eq!(STANDARD.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");

        let proof = STANDARD.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let mask = hmac_sha256(&stored, &[message.as_bytes()]);
        let client_key: Vec<u8> = proof.iter().zip(mask).map(|(a, b)| a ^ b).collect();
        assert_eq!(sha256(&client_key).as_slice(), stored);
    }

    #[test]
    fn passwords_that_saslprep_might_change_are_refused() {
        for bad in ["", "pencil\n", "pencil\0", "crayon é", "\u{a0}"] {
            assert_eq!(verifier(bad), Err(CryptoError::Malformed("password")), "{bad:?}");
        }
    }
}
