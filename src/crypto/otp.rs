//! One-time codes: HOTP (RFC 4226) and, over time, TOTP (RFC 6238), with SHA-1, six digits and steps
//! of 30 seconds, which is what authenticator apps do whatever the address says.
//!
//! SHA-1 is sound here: HMAC does not stand on its resistance to collisions (RFC 6238, section 1.2).

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

use super::{CryptoError, Result};
use crate::types::{SecretBytes, UnixMillis};

/// Digits of a code.
const CODE_DIGITS: usize = 6;
/// Length of a step, in seconds.
pub const STEP_S: i64 = 30;
/// Bytes of a secret: 160 bits (RFC 4226, section 4, R6).
pub const OTP_SECRET_BYTES: usize = 20;
/// Steps before and after the current one that are accepted (RFC 6238, section 5.2).
const SKEW: i64 = 1;

/// The six digits of a code.
#[derive(Clone, PartialEq, Eq)]
pub struct OtpCode(Zeroizing<[u8; CODE_DIGITS]>);

impl OtpCode {
    /// Takes a code as it is typed: six digits, with spaces wherever apps and people put them.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut digits = Zeroizing::new([0; CODE_DIGITS]);
        let mut places = digits.iter_mut();
        for byte in text.iter().filter(|byte| **byte != b' ') {
            *places.next().filter(|_| byte.is_ascii_digit())? = *byte;
        }
        if places.next().is_some() {
            return None;
        }
        Some(Self(digits))
    }

    /// Shows the digits to whoever has to type them.
    #[must_use]
    pub fn digits(&self) -> &[u8; CODE_DIGITS] {
        &self.0
    }
}

impl fmt::Debug for OtpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// Computes the code of a counter (RFC 4226, section 5.3).
///
/// # Errors
/// [`CryptoError::Failed`] when the library yields less than a SHA-1.
pub fn hotp(secret: &SecretBytes, counter: u64) -> Result<OtpCode> {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose());
    let tag = hmac::sign(&key, &counter.to_be_bytes());
    let offset = tag.as_ref().last().map_or(0, |last| usize::from(last & 0x0f));
    let word = tag.as_ref().get(offset..).and_then(|rest| rest.first_chunk::<4>());
    let word = u32::from_be_bytes(*word.ok_or(CryptoError::Failed)?) & 0x7fff_ffff;
    let text = Zeroizing::new(format!("{:06}", word % 1_000_000));
    OtpCode::parse(text.as_bytes()).ok_or(CryptoError::Failed)
}

/// Tells the step of a moment.
#[must_use]
pub const fn otp_step(now: UnixMillis) -> i64 {
    now.0.div_euclid(STEP_S * 1_000)
}

/// Finds the step whose code was given: the current one, or one before or after it. All three are
/// compared, each in constant time, so that nobody learns which was near.
///
/// # Errors
/// As [`hotp`].
pub fn totp_step(secret: &SecretBytes, code: &OtpCode, now: UnixMillis) -> Result<Option<i64>> {
    let (current, mut found) = (otp_step(now), None);
    for step in current.saturating_sub(SKEW)..=current.saturating_add(SKEW) {
        let Ok(counter) = u64::try_from(step) else { continue };
        let expected = hotp(secret, counter)?;
        if verify_slices_are_equal(expected.digits(), code.digits()).is_ok() {
            found = Some(step);
        }
    }
    Ok(found)
}

/// Writes a secret as authenticator apps take it: base 32 in capitals (RFC 4648, section 6), without
/// padding.
#[must_use]
pub fn otp_secret_text(secret: &SecretBytes) -> SecretBytes {
    SecretBytes::new(BASE32_NOPAD.encode(secret.expose()).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> OtpCode {
        OtpCode::parse(text.as_bytes()).unwrap()
    }

    fn secret() -> SecretBytes {
        SecretBytes::new(b"12345678901234567890".to_vec())
    }

    #[test]
    fn hotp_yields_the_values_of_rfc_4226_appendix_d() {
        let values = [
            "755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583",
            "399871", "520489",
        ];
        for (counter, value) in (0..).zip(values) {
            assert_eq!(hotp(&secret(), counter).unwrap().digits(), value.as_bytes(), "{counter}");
        }
    }

    /// The values of RFC 6238 have eight digits; six of them are the last six.
    #[test]
    fn totp_yields_the_values_of_rfc_6238_appendix_b() {
        for (second, value) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            let now = UnixMillis(second * 1_000);
            let counter = u64::try_from(otp_step(now)).unwrap();
            assert_eq!(hotp(&secret(), counter).unwrap().digits(), &value.as_bytes()[2..]);
            let found = totp_step(&secret(), &code(&value[2..]), now).unwrap();
            assert_eq!(found, Some(otp_step(now)), "{second}");
        }
    }

    #[test]
    fn a_code_is_accepted_one_step_early_and_one_late_and_no_further() {
        let now = UnixMillis(1_234_567_890_000);
        let at = |steps: i64| {
            let later = UnixMillis(now.0 + steps * STEP_S * 1_000);
            totp_step(&secret(), &code("005924"), later).unwrap()
        };
        for steps in [-1, 0, 1] {
            assert_eq!(at(steps), Some(otp_step(now)), "{steps}");
        }
        for steps in [-3, -2, 2, 3] {
            assert_eq!(at(steps), None, "{steps}");
        }
        assert_eq!(totp_step(&secret(), &code("755224"), UnixMillis(0)), Ok(Some(0)));
    }

    #[test]
    fn spaces_do_not_count_and_what_is_not_six_digits_is_no_code() {
        for good in ["005924", "005 924", " 0 0 5 9 2 4 "] {
            assert_eq!(code(good), code("005924"), "{good:?}");
        }
        for bad in
            ["", " ", "00592", "0059240", "00592a", "005\u{a0}924", "-05924", "005924\n", "٠٠٥٩٢٤"]
        {
            assert_eq!(OtpCode::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(format!("{:?}", code("005924")), "[REDACTED]");
    }
}
