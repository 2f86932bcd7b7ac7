//! Secret sharing (Shamir 1979) over GF(2^8), byte by byte: of N shares any M give the secret, and
//! fewer tell nothing about it. A share is its number, from 1, ‖ a byte for each of the secret.
//!
//! The field is that of AES; multiplication looks nothing up and takes no branch, so that how long it
//! takes says nothing about what is multiplied. Fifty lines of our own, because the libraries that do
//! this are either unmaintained or bring elliptic curves along.

use zeroize::Zeroizing;

use super::{CryptoError, Result};
use crate::types::{Entropy, SecretBytes};

/// Splits a secret into so many shares, of which `threshold` give it again.
///
/// # Errors
/// [`CryptoError::OutOfRange`] for a threshold below 2 or above the number of shares;
/// [`CryptoError::Failed`] when the generator fails.
pub fn split_secret(
    secret: &SecretBytes,
    threshold: u8,
    shares: u8,
    entropy: &dyn Entropy,
) -> Result<Vec<SecretBytes>> {
    if threshold < 2 || threshold > shares {
        return Err(CryptoError::OutOfRange);
    }
    let degree = usize::from(threshold).saturating_sub(1);
    let mut random = Zeroizing::new(vec![0; degree.saturating_mul(secret.len_bytes())]);
    entropy.fill(&mut random).map_err(|_logged| CryptoError::Failed)?;
    let share = |x: u8| {
        let mut share = Zeroizing::new(Vec::with_capacity(secret.len_bytes().saturating_add(1)));
        share.push(x);
        for (byte, coefficients) in secret.expose().iter().zip(random.chunks_exact(degree)) {
            // Horner's rule; the secret is the value at 0.
            let sum = coefficients.iter().fold(0, |sum, one| multiply(sum ^ one, x));
            share.push(sum ^ byte);
        }
        SecretBytes::from(share)
    };
    Ok((1..=shares).map(share).collect())
}

/// Puts shares together. Whether they are enough, and of one secret, is seen by what comes out.
///
/// # Errors
/// [`CryptoError::Malformed`] for shares of different lengths, or two with one number.
pub fn join_shares(shares: &[SecretBytes]) -> Result<SecretBytes> {
    let malformed = CryptoError::Malformed("shares");
    let mut parts = Vec::with_capacity(shares.len());
    for share in shares {
        let (x, bytes) = share.expose().split_first().ok_or(malformed)?;
        parts.push((*x, bytes));
    }
    let len = parts.first().ok_or(malformed)?.1.len();
    let mut secret = Zeroizing::new(vec![0; len]);
    for (nth, (x, bytes)) in parts.iter().enumerate() {
        let others = || parts.iter().enumerate().filter(|(other, _)| *other != nth);
        if *x == 0 || bytes.len() != len || others().any(|(_, (other, _))| other == x) {
            return Err(malformed);
        }
        // Lagrange's basis at 0; subtraction is addition.
        let weight = others().fold(1, |product, (_, (other, _))| {
            multiply(product, multiply(*other, invert(x ^ other)))
        });
        for (sum, byte) in secret.iter_mut().zip(*bytes) {
            *sum ^= multiply(weight, *byte);
        }
    }
    Ok(secret.into())
}

/// Multiplies modulo x^8 + x^4 + x^3 + x + 1 (FIPS 197, section 4.2).
fn multiply(a: u8, b: u8) -> u8 {
    let (mut a, mut product) = (a, 0);
    for bit in 0..8 {
        product ^= a & ((b >> bit) & 1).wrapping_neg();
        a = (a << 1) ^ (0x1b & (a >> 7).wrapping_neg());
    }
    product
}

/// Inverts: a^254. The inverse of 0, which nobody asks for, is 0.
fn invert(a: u8) -> u8 {
    let square = |a| multiply(a, a);
    // 254 = 2 + 4 + … + 128.
    let (mut power, mut product) = (square(a), 1);
    for _ in 0..7 {
        product = multiply(product, power);
        power = square(power);
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SystemEntropy;

    #[test]
    fn the_field_is_that_of_fips_197() {
        assert_eq!([multiply(0x57, 0x83), multiply(0x57, 0x13)], [0xc1, 0xfe]);
        for a in 1..=255 {
            assert_eq!(multiply(a, invert(a)), 1, "{a}");
        }
    }

    #[test]
    fn any_of_the_shares_that_are_enough_give_the_secret_and_fewer_do_not() {
        let secret = SecretBytes::new((0..32).map(|n| n * 7).collect());
        let shares = split_secret(&secret, 3, 5, &SystemEntropy).unwrap();
        assert_eq!(shares.len(), 5);
        let of = |which: &[usize]| {
            let some: Vec<_> = which.iter().map(|nth| shares[*nth].clone()).collect();
            join_shares(&some)
        };
        for a in 0..5 {
            for b in 0..5 {
                for c in 0..5 {
                    if a < b && b < c {
                        assert_eq!(of(&[c, a, b]), Ok(secret.clone()), "{a} {b} {c}");
                        assert_ne!(of(&[a, b]), Ok(secret.clone()));
                    }
                }
            }
        }
        assert_eq!(of(&[0, 1, 2, 3, 4]), Ok(secret.clone()), "more are not too many");
        assert_eq!(of(&[0, 1, 1]), Err(CryptoError::Malformed("shares")));
        assert_eq!(of(&[]), Err(CryptoError::Malformed("shares")));
        for (threshold, count) in [(1, 5), (0, 5), (6, 5)] {
            let refused = split_secret(&secret, threshold, count, &SystemEntropy);
            assert_eq!(refused, Err(CryptoError::OutOfRange));
        }
        let largest = split_secret(&secret, 255, 255, &SystemEntropy).unwrap();
        assert_eq!(join_shares(&largest), Ok(secret));
    }
}
