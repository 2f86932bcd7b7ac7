//! The text of tokens: a prefix for the type, an id, 256 random bits, a checksum.
//!
//! `sr?_` ‖ 22 digits (id) ‖ 44 digits (secret) ‖ 6 digits (CRC-32 of all before), in base 62. What
//! is not exactly so is no token, and nobody has to ask the store about it.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

use super::{CredentialId, Entropy, Id, SecretBytes};
use crate::error::{Error, Result};

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Digits of 128 bits.
const HALF: usize = 22;
/// Digits of the checksum.
const CHECK: usize = 6;
const PREFIX: usize = 4;
const BODY: usize = PREFIX + 3 * HALF;
/// Bytes of a token's text.
const TEXT: usize = BODY + CHECK;

/// What a token is; each is accepted only where that type is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenType {
    /// The bearer of any number of calls, or of a number that was fixed when it was made.
    Access,
    /// The bearer of one call.
    SingleUse,
    /// Renews or revokes one lease.
    Handle,
    /// Enrols one factor for one human; the bearer of no call.
    Invitation,
    /// Gets one machine its first login certificate; the bearer of no call.
    Join,
    /// Opens one wrapped answer, once; the bearer of no call.
    Wrapped,
}

impl TokenType {
    const ALL: [Self; 6] =
        [Self::Access, Self::SingleUse, Self::Handle, Self::Invitation, Self::Join, Self::Wrapped];

    /// Shows the prefix.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Access => "srt_",
            Self::SingleUse => "srs_",
            Self::Handle => "srh_",
            Self::Invitation => "sri_",
            Self::Join => "srj_",
            Self::Wrapped => "srw_",
        }
    }
}

macro_rules! tokens {
    ($($(#[$doc:meta])* $name:ident = $type:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(Parts);

        impl $name {
            /// Its type.
            pub const TYPE: TokenType = TokenType::$type;

            /// Puts an id and a secret together.
            #[must_use]
            pub const fn new(id: CredentialId, secret: TokenSecret) -> Self {
                Self(Parts { id, secret })
            }

            /// The credential that it claims to be.
            #[must_use]
            pub const fn id(&self) -> CredentialId {
                self.0.id
            }

            /// What proves it.
            #[must_use]
            pub const fn secret(&self) -> &TokenSecret {
                &self.0.secret
            }

            /// Writes its text, for whoever it was made for.
            #[must_use]
            pub fn text(&self) -> SecretBytes {
                self.0.text(Self::TYPE)
            }
        }
    )+};
}

tokens! {
    /// An access token, `srt_…`.
    AccessToken = Access,
    /// A single-use token, `srs_…`.
    SingleUseToken = SingleUse,
    /// The handle of a lease, `srh_…`.
    LeaseHandle = Handle,
    /// An invitation to enrol a factor, `sri_…`.
    Invitation = Invitation,
    /// A join token, `srj_…`.
    JoinToken = Join,
    /// The handle of a wrapped answer, `srw_…`.
    WrapHandle = Wrapped,
}

/// The 256 bits of a token.
#[derive(Clone)]
pub struct TokenSecret(Zeroizing<[u8; 32]>);

impl TokenSecret {
    /// Draws one.
    ///
    /// # Errors
    /// [`Error::Internal`] when the generator fails.
    pub fn random(entropy: &dyn Entropy) -> Result<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut())?;
        Ok(Self(bytes))
    }

    /// Takes bits that were derived.
    #[must_use]
    pub fn derived(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Shows the bits to code that must use them.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl PartialEq for TokenSecret {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(self.expose(), other.expose()).is_ok()
    }
}

impl Eq for TokenSecret {}

/// A token that was presented as the bearer of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bearer {
    /// An access token.
    Access(AccessToken),
    /// A single-use token.
    SingleUse(SingleUseToken),
    /// The handle of a lease.
    Handle(LeaseHandle),
}

impl Bearer {
    /// Reads a token's text: the canonical form only, with its checksum.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], which quotes nothing of it.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let (token, parts) = Parts::parse(text).ok_or_else(malformed)?;
        match token {
            TokenType::Access => Ok(Self::Access(AccessToken(parts))),
            TokenType::SingleUse => Ok(Self::SingleUse(SingleUseToken(parts))),
            TokenType::Handle => Ok(Self::Handle(LeaseHandle(parts))),
            TokenType::Invitation | TokenType::Join | TokenType::Wrapped => Err(malformed()),
        }
    }
}

impl Invitation {
    /// Reads an invitation's text: the canonical form only, with its checksum.
    ///
    /// # Errors
    /// [`Error::Invalid`], which quotes nothing of it.
    pub fn parse(text: &[u8]) -> Result<Self> {
        match Parts::parse(text) {
            Some((TokenType::Invitation, parts)) => Ok(Self(parts)),
            Some(_) | None => Err(Error::invalid("that is no invitation of this vault")),
        }
    }
}

impl JoinToken {
    /// Reads a join token's text: the canonical form only, with its checksum.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], which quotes nothing of it.
    pub fn parse(text: &[u8]) -> Result<Self> {
        match Parts::parse(text) {
            Some((TokenType::Join, parts)) => Ok(Self(parts)),
            Some(_) | None => {
                Err(Error::Unauthenticated("that is no join token of this vault".into()))
            }
        }
    }
}

impl WrapHandle {
    /// Reads a handle's text: the canonical form only, with its checksum.
    ///
    /// # Errors
    /// [`Error::Invalid`], which quotes nothing of it.
    pub fn parse(text: &[u8]) -> Result<Self> {
        match Parts::parse(text) {
            Some((TokenType::Wrapped, parts)) => Ok(Self(parts)),
            Some(_) | None => Err(Error::invalid("that is no handle of a wrapped answer")),
        }
    }
}

fn malformed() -> Error {
    Error::Unauthenticated("the bearer is no token of this vault".into())
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    id: CredentialId,
    secret: TokenSecret,
}

impl Parts {
    fn text(&self, token: TokenType) -> SecretBytes {
        let mut text = Vec::with_capacity(TEXT);
        text.extend_from_slice(token.prefix().as_bytes());
        write(&mut text, u128::from_be_bytes(*self.id.0.as_bytes()), HALF);
        for half in self.secret.expose().as_chunks::<16>().0 {
            write(&mut text, u128::from_be_bytes(*half), HALF);
        }
        let check = crc32(&text);
        write(&mut text, check.into(), CHECK);
        SecretBytes::new(text)
    }

    fn parse(text: &[u8]) -> Option<(TokenType, Self)> {
        let (body, check) = text.split_at_checked(BODY)?;
        if check.len() != CHECK || read(check)? != crc32(body).into() {
            return None;
        }
        let (prefix, digits) = body.split_at_checked(PREFIX)?;
        let token = TokenType::ALL.into_iter().find(|one| one.prefix().as_bytes() == prefix)?;
        let [id, one, two] = digits.as_chunks::<HALF>().0 else { return None };
        let mut secret = Zeroizing::new([0; 32]);
        for (half, digits) in secret.as_chunks_mut::<16>().0.iter_mut().zip([one, two]) {
            *half = read(digits)?.to_be_bytes();
        }
        let id = CredentialId(Id::from_bytes(read(id)?.to_be_bytes()));
        Some((token, Self { id, secret: TokenSecret(secret) }))
    }
}

/// Writes a number with leading zeros.
fn write(text: &mut Vec<u8>, mut number: u128, digits: usize) {
    let from = text.len();
    for _ in 0..digits {
        let digit = usize::try_from(number % 62).ok().and_then(|at| DIGITS.get(at));
        text.push(digit.copied().unwrap_or(b'0'));
        number /= 62;
    }
    if let Some(written) = text.get_mut(from..) {
        written.reverse();
    }
}

/// Reads a number; none where a digit is none or the number is too large.
fn read(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit.checked_sub(b'0')?,
            b'A'..=b'Z' => digit.checked_sub(b'A')?.checked_add(10)?,
            b'a'..=b'z' => digit.checked_sub(b'a')?.checked_add(36)?,
            _ => return None,
        };
        number.checked_mul(62)?.checked_add(value.into())
    })
}

/// Computes the checksum of ISO-HDLC, the CRC-32 of gzip and PNG (RFC 1952, section 8).
fn crc32(bytes: &[u8]) -> u32 {
    let round = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes
        .iter()
        .fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| round(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SystemEntropy;

    fn token() -> AccessToken {
        let id = CredentialId(Id::random(&SystemEntropy).unwrap());
        AccessToken::new(id, TokenSecret::random(&SystemEntropy).unwrap())
    }

    #[test]
    fn a_token_comes_back_as_it_was_written() {
        let extremes = [[0; 32], [255; 32]].map(TokenSecret::derived);
        let ids = [[0; 16], [255; 16]].map(|bytes| CredentialId(Id::from_bytes(bytes)));
        let extremes = ids.into_iter().zip(extremes).map(|(id, bits)| AccessToken::new(id, bits));
        for token in (0..100).map(|_| token()).chain(extremes) {
            let text = token.text();
            assert_eq!(text.len_bytes(), TEXT);
            assert_eq!(Bearer::parse(text.expose()), Ok(Bearer::Access(token)));
        }
    }

    #[test]
    fn scanners_find_tokens_by_prefix_alphabet_and_length() {
        let text = token().text();
        let text = std::str::from_utf8(text.expose()).unwrap();
        assert!(text.starts_with("srt_"));
        assert!(text[4..].len() == 72 && text[4..].bytes().all(|b| b.is_ascii_alphanumeric()));
        // The check value of the algorithm.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn no_changed_byte_and_no_other_length_is_a_token() {
        let text = token().text().expose().to_vec();
        for at in 0..text.len() {
            for byte in [b'0', b'z', b' ', b'_', 0, 0xff] {
                let mut bad = text.clone();
                bad[at] = byte;
                assert!(bad == text || Bearer::parse(&bad).is_err(), "{at} {byte}");
            }
            assert!(Bearer::parse(&text[..at]).is_err(), "{at}");
        }
        assert!(Bearer::parse(&[text.as_slice(), b"0"].concat()).is_err());
        assert!(Bearer::parse(&vec![b'0'; 65_536]).is_err());
    }

    #[test]
    fn a_number_of_more_than_128_bits_is_no_token() {
        let mut text = b"srt_".to_vec();
        text.extend_from_slice(&[b'z'; 66]);
        let check = crc32(&text);
        write(&mut text, check.into(), CHECK);
        assert!(Bearer::parse(&text).is_err());
    }

    #[test]
    fn what_is_wrapped_bears_no_call_and_each_type_is_its_own() {
        let AccessToken(parts) = token();
        let text = |token| parts.text(token).expose().to_vec();
        assert!(Bearer::parse(&text(TokenType::Wrapped)).is_err());
        let parsed = Bearer::parse(&text(TokenType::SingleUse)).unwrap();
        assert!(matches!(parsed, Bearer::SingleUse(_)));
        let parsed = Bearer::parse(&text(TokenType::Handle)).unwrap();
        assert!(matches!(parsed, Bearer::Handle(_)));
        assert!(Bearer::parse(&text(TokenType::Invitation)).is_err());
        assert!(Bearer::parse(&text(TokenType::Join)).is_err());
        for token in TokenType::ALL {
            let invites = token == TokenType::Invitation;
            assert_eq!(Invitation::parse(&text(token)).is_ok(), invites, "{token:?}");
            let joins = token == TokenType::Join;
            assert_eq!(JoinToken::parse(&text(token)).is_ok(), joins, "{token:?}");
            let wraps = token == TokenType::Wrapped;
            assert_eq!(WrapHandle::parse(&text(token)).is_ok(), wraps, "{token:?}");
        }
    }

    #[test]
    fn debug_shows_the_id_and_nothing_of_the_secret() {
        let token = AccessToken::new(
            CredentialId(Id::from_bytes([7; 16])),
            TokenSecret::derived([0xab; 32]),
        );
        let shown = format!("{token:?}");
        assert!(shown.contains("[REDACTED]") && !shown.contains("171"), "{shown}");
    }
}
