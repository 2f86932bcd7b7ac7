//! The one encoding of everything that a MAC or a hash covers: no two different inputs encode alike.
//!
//! A domain and then tagged values; bytes and texts carry their length, so that nothing can move
//! from one value into its neighbour. Written and compared, never parsed.

use data_encoding::{BASE32_NOPAD, HEXLOWER};

use super::{CryptoError, Result};

const NULL: u8 = 0;
const BYTES: u8 = 1;
const TEXT: u8 = 2;
const INTEGER: u8 = 3;
const LIST: u8 = 4;

/// A length of `u32::MAX` says that as many bytes follow, and then another length with more.
const PIECE_BYTES: usize = u32::MAX as usize;

/// Writes values one after the other, injectively.
#[derive(Debug, Clone)]
pub struct Encoder {
    out: Vec<u8>,
}

impl Encoder {
    /// Begins with a domain, which names the purpose and its version (`strongroom/aad/v1`): bytes
    /// made for one purpose are never valid for another.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        Self { out: Vec::with_capacity(256) }.text(domain)
    }

    /// Appends bytes.
    #[must_use]
    pub fn bytes(self, value: &[u8]) -> Self {
        self.pieces(BYTES, value, PIECE_BYTES)
    }

    /// Appends a text.
    #[must_use]
    pub fn text(self, value: &str) -> Self {
        self.pieces(TEXT, value.as_bytes(), PIECE_BYTES)
    }

    /// Appends an integer: 8 bytes, big endian, two's complement.
    #[must_use]
    pub fn integer(mut self, value: i64) -> Self {
        self.out.push(INTEGER);
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Appends the absence of a value, as SQL's NULL.
    #[must_use]
    pub fn null(mut self) -> Self {
        self.out.push(NULL);
        self
    }

    /// Opens a list; exactly `count` values belong to it and follow.
    #[must_use]
    pub fn list(mut self, count: usize) -> Self {
        self.out.push(LIST);
        // A list with more items than `u64` counts does not fit into any memory.
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.out.extend_from_slice(&count.to_be_bytes());
        self
    }

    /// Yields what was written.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    fn pieces(mut self, tag: u8, value: &[u8], piece_bytes: usize) -> Self {
        self.out.push(tag);
        let mut rest = value;
        while let Some((piece, after)) = rest.split_at_checked(piece_bytes) {
            self.piece(piece);
            rest = after;
        }
        self.piece(rest);
        self
    }

    fn piece(&mut self, piece: &[u8]) {
        let len = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        self.out.extend_from_slice(&len.to_be_bytes());
        self.out.extend_from_slice(piece);
    }
}

/// Writes lowercase base32 without padding (RFC 4648, section 6: `a-z2-7`).
#[must_use]
pub fn base32(bytes: &[u8]) -> String {
    let mut text = BASE32_NOPAD.encode(bytes);
    text.make_ascii_lowercase();
    text
}

/// Reads what [`base32`] writes and nothing else: no uppercase, no padding, no stray bits.
///
/// # Errors
/// [`CryptoError::Malformed`].
pub fn parse_base32(text: &str) -> Result<Vec<u8>> {
    let malformed = CryptoError::Malformed("base32");
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(malformed);
    }
    let upper = zeroize::Zeroizing::new(text.to_ascii_uppercase());
    BASE32_NOPAD.decode(upper.as_bytes()).map_err(|_position| malformed)
}

/// Writes lowercase hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Reads lowercase hexadecimal.
///
/// # Errors
/// [`CryptoError::Malformed`].
pub fn parse_hex(text: &str) -> Result<Vec<u8>> {
    HEXLOWER.decode(text.as_bytes()).map_err(|_position| CryptoError::Malformed("hexadecimal"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    enum Value {
        Null,
        Bytes(Vec<u8>),
        Text(String),
        Integer(i64),
        List(Vec<i64>),
    }

    fn encode(domain: &str, values: &[Value]) -> Vec<u8> {
        let begun = Encoder::new(domain);
        let ended = values.iter().fold(begun, |out, value| match value {
            Value::Null => out.null(),
            Value::Bytes(bytes) => out.bytes(bytes),
            Value::Text(text) => out.text(text),
            Value::Integer(integer) => out.integer(*integer),
            Value::List(items) => {
                items.iter().fold(out.list(items.len()), |out, item| out.integer(*item))
            }
        });
        ended.finish()
    }

    /// Few and short values over a tiny alphabet, so that collisions would be found if there were.
    fn values() -> impl Strategy<Value = Vec<Value>> {
        let value = prop_oneof![
            Just(Value::Null),
            prop::collection::vec(0..4_u8, 0..4).prop_map(Value::Bytes),
            "[\0\x01ab]{0,3}".prop_map(Value::Text),
            (-1..3_i64).prop_map(Value::Integer),
            prop::collection::vec(0..2_i64, 0..3).prop_map(Value::List),
        ];
        prop::collection::vec(value, 0..4)
    }

    proptest! {
        #[test]
        fn different_values_never_encode_alike(
            a in values(), b in values(), domain_a in "[ab]{0,2}", domain_b in "[ab]{0,2}",
        ) {
            let alike = encode(&domain_a, &a) == encode(&domain_b, &b);
            prop_assert_eq!(alike, domain_a == domain_b && a == b);
        }

        #[test]
        fn base32_and_hex_come_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(parse_base32(&base32(&bytes)).unwrap(), bytes.clone());
            prop_assert_eq!(parse_hex(&hex(&bytes)).unwrap(), bytes);
        }
    }

    #[test]
    fn each_value_has_its_tag_and_length() {
        let bytes = Encoder::new("d").bytes(b"ab").text("").integer(-2).null().list(1).finish();
        assert_eq!(
            hex(&bytes),
            "020000000164\
             01000000026162\
             0200000000\
             03fffffffffffffffe\
             00\
             040000000000000001"
        );
    }

    #[test]
    fn a_value_longer_than_a_piece_continues_in_the_next() {
        let begun = || Encoder { out: Vec::new() };
        assert_eq!(hex(&begun().pieces(BYTES, b"abc", 2).out), "010000000261620000000163");
        assert_eq!(hex(&begun().pieces(BYTES, b"ab", 2).out), "0100000002616200000000");
    }

    #[test]
    fn base32_is_lowercase_rfc_4648_and_nothing_else_is_read() {
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        for bad in ["MZXW6YTBOI", "mzxw6ytbo", "mzxw6===", "mzxw61", "mzxw6ytbo ", "m", "mz9", "mé"]
        {
            assert!(parse_base32(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_lowercase_pairs_are_read_as_hexadecimal() {
        for bad in ["AB", "a", "0x00", "g0", " 00"] {
            assert!(parse_hex(bad).is_err(), "{bad:?}");
        }
    }
}
