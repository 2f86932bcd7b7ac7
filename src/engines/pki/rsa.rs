//! Weak RSA keys, told from the public half alone.
//!
//! Must not know where a key comes from.

use x509_parser::num_bigint::BigUint;

use crate::error::{Error, Result};

/// Smallest modulus accepted.
const MIN_BITS: u64 = 2_048;
/// Largest modulus accepted: what AWS-LC verifies.
const MAX_BITS: u64 = 8_192;
/// Smallest public exponent accepted: F4.
const MIN_EXPONENT: u64 = 65_537;
/// Largest public exponent accepted: what AWS-LC verifies, and no way to slow a verifier down.
const MAX_EXPONENT: u64 = (1 << 33) - 1;
/// Steps of Fermat's method; primes that were drawn apart need far more than can be made.
const FERMAT_STEPS: u32 = 100;
/// Primes below this may not divide a modulus.
const SMALL_PRIMES_BELOW: u32 = 752;
/// Primes up to this tell the keys of CVE-2017-15361 from others.
const ROCA_PRIMES_TO: u32 = 167;

/// Refuses a modulus or exponent (big-endian) that a certificate must not vouch for.
///
/// # Errors
/// [`Error::Invalid`] with the weakness.
///
/// Source: NIST SP 800-89, section 5.3.3; CVE-2017-15361 (ROCA); CVE-2022-26320 (close primes).
pub(super) fn check(modulus: &[u8], exponent: &[u8]) -> Result<()> {
    let n = BigUint::from_bytes_be(modulus);
    let e = u64::try_from(BigUint::from_bytes_be(exponent)).unwrap_or(u64::MAX);
    if !(MIN_BITS..=MAX_BITS).contains(&n.bits()) {
        return Err(Error::invalid("an RSA key has 2048 to 8192 bits"));
    }
    if !(MIN_EXPONENT..=MAX_EXPONENT).contains(&e) || e % 2 == 0 {
        return Err(Error::invalid("an RSA exponent is odd, at least 65537 and below 2^33"));
    }
    let residues: Vec<(u32, u32)> =
        small_primes().into_iter().map(|p| (p, remainder(modulus, p))).collect();
    if residues.iter().any(|(_, residue)| *residue == 0) {
        return Err(Error::invalid("the RSA modulus has a small factor"));
    }
    let infineon =
        |(p, residue): &(u32, u32)| *p == 2 || *p > ROCA_PRIMES_TO || is_power(*residue, *p);
    if residues.iter().all(infineon) {
        return Err(Error::invalid("the RSA key comes from a broken generator (ROCA)"));
    }
    if has_close_primes(&n) {
        return Err(Error::invalid("the primes of the RSA key lie too close together"));
    }
    Ok(())
}

fn small_primes() -> Vec<u32> {
    (2..SMALL_PRIMES_BELOW)
        .filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0))
        .collect()
}

fn remainder(bytes: &[u8], p: u32) -> u32 {
    bytes.iter().fold(0, |r, b| (r * 256 + u32::from(*b)) % p)
}

/// Tells whether a residue is a power of 65537 modulo `p`.
fn is_power(residue: u32, p: u32) -> bool {
    let generator = 65_537 % p;
    let mut power = 1;
    for _ in 1..p {
        if power == residue {
            return true;
        }
        power = power * generator % p;
    }
    false
}

/// Looks for n = a² − b² with a near the root of n: Fermat's method.
fn has_close_primes(n: &BigUint) -> bool {
    let one = BigUint::from(1_u8);
    let mut a = n.sqrt();
    if &a * &a < *n {
        a += &one;
    }
    let mut rest = &a * &a - n;
    for _ in 0..FERMAT_STEPS {
        if is_square(&rest) {
            return true;
        }
        // (a + 1)² − n = a² − n + 2a + 1
        rest += &a + &a + &one;
        a += &one;
    }
    false
}

fn is_square(n: &BigUint) -> bool {
    // Two cheap sieves first: residues of squares modulo 64 and 63.
    let may = |modulus: u32| {
        let r = u32::try_from(n % modulus).unwrap_or(0);
        (0..modulus).any(|x| x * x % modulus == r)
    };
    may(64) && may(63) && may(65) && {
        let root = n.sqrt();
        &root * &root == *n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F4: &[u8] = &[1, 0, 1];

    fn refusal(n: &BigUint, e: &[u8]) -> String {
        check(&n.to_bytes_be(), e).unwrap_err().to_string()
    }

    /// An odd number of so many bits without small factors, at or after a start.
    fn rough(mut n: BigUint) -> BigUint {
        while small_primes().iter().any(|p| remainder(&n.to_bytes_be(), *p) == 0) {
            n += 1_u8;
        }
        n
    }

    #[test]
    fn small_and_even_exponents_are_refused() {
        let n = rough((BigUint::from(1_u8) << 2_047_u32) + 12_345_u32);
        for e in [&[1][..], &[3], &[1, 0, 0], &[1, 0, 2], &[], &[1, 0, 0, 0, 1, 0, 1, 1, 1]] {
            assert!(refusal(&n, e).contains("exponent"), "{e:?}");
        }
    }

    #[test]
    fn short_and_even_moduli_are_refused() {
        let n = BigUint::from(1_u8) << 2_046_u32;
        assert!(refusal(&(&n + 1_u8), F4).contains("bits"));
        assert!(refusal(&(n << 2_u32), F4).contains("small factor"));
    }

    #[test]
    fn close_primes_are_refused() {
        let p = rough((BigUint::from(3_u8) << 1_022_u32) + 99_u8);
        let q = rough(&p + 100_000_u32);
        assert!(refusal(&(p * q), F4).contains("close"));
    }

    #[test]
    fn the_fingerprint_of_roca_is_refused() {
        let primes: Vec<u32> =
            small_primes().into_iter().filter(|p| (3..=ROCA_PRIMES_TO).contains(p)).collect();
        let product = primes.iter().fold(BigUint::from(2_u8), |m, p| m * *p);
        let residue = BigUint::from(65_537_u32).modpow(&BigUint::from(4_711_u32), &product);
        let mut n = (BigUint::from(1_u8) << 2_047_u32) / &product * &product + residue + &product;
        while small_primes().iter().any(|p| remainder(&n.to_bytes_be(), *p) == 0) {
            n += &product;
        }
        assert!(refusal(&n, F4).contains("ROCA"));
    }
}
