//! Ed25519 keys for which anybody can sign: points of small order.
//!
//! A proof of possession is no proof for them, and verifiers differ about points that are not
//! canonical. Must not know where a key comes from.

use crate::error::{Error, Result};

/// The two y of order 8, little-endian.
const ORDER_8: [&[u8; 32]; 2] = [
    b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\
      \xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
    b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\
      \x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a",
];

/// Refuses an encoded point of small order, or one whose y is not below p = 2^255 − 19.
///
/// # Errors
/// [`Error::Invalid`] for such a point, and for what has not 32 bytes.
///
/// Source: RFC 8032, section 5.1.3; the points of order 8 follow from the group law in 5.1.4.
pub(super) fn check(point: &[u8]) -> Result<()> {
    let weak = || Error::invalid("the Ed25519 key is a point for which anybody can sign");
    let mut y = <[u8; 32]>::try_from(point).map_err(|_length| weak())?;
    let [low, middle @ .., high] = &mut y;
    // The highest bit is the sign of x.
    *high &= 0x7f;
    let all = |byte: u8| middle.iter().all(|b| *b == byte);
    // Order 4 has y = 0, order 1 has y = 1, order 2 has y = p − 1; p and above is not canonical.
    let lowest = *high == 0 && all(0) && *low <= 1;
    let highest = *high == 0x7f && all(0xff) && *low >= 0xec;
    if lowest || highest || ORDER_8.contains(&&y) { Err(weak()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_small_order_and_second_spellings_are_refused() {
        let edge = |low: u8, rest: u8, high: u8| {
            let mut y = [rest; 32];
            (y[0], y[31]) = (low, high);
            y
        };
        let weak = [
            edge(0, 0, 0),
            edge(1, 0, 0),
            edge(0xec, 0xff, 0x7f),
            edge(0xed, 0xff, 0x7f),
            edge(0xff, 0xff, 0x7f),
            *ORDER_8[0],
            *ORDER_8[1],
        ];
        for mut point in weak {
            assert!(check(&point).is_err(), "{point:?}");
            point[31] |= 0x80;
            assert!(check(&point).is_err(), "{point:?}");
        }
        for point in [edge(2, 0, 0), edge(0xeb, 0xff, 0x7f), edge(0, 0, 1)] {
            assert!(check(&point).is_ok(), "{point:?}");
        }
        assert!(check(&[9; 31]).is_err());
    }
}
