//! Values: bytes, or JSON objects that mean one thing.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::room::{Held, Room};
use crate::error::{Error, Result};
use crate::types::SecretBytes;

/// Bytes of a value at most.
pub const VALUE_BYTES: usize = 1_024 * 1_024;
/// How deep objects and lists may stand in each other.
const DEPTH: usize = 32;

/// A value that may be stored: bytes, or a JSON object, kept as it was written.
#[derive(Debug, Clone)]
pub struct SecretValue {
    pub(super) bytes: SecretBytes,
    pub(super) is_json: bool,
    /// The room that it takes up.
    pub(super) _held: Held,
}

impl SecretValue {
    /// Takes a value in.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that is empty or too large, and for JSON that is no object, has a
    /// key twice, is too deep, or is not JSON; nothing of it is in the message.
    /// [`Error::Unavailable`] where there is no room.
    pub fn parse(bytes: SecretBytes, is_json: bool, room: &Room) -> Result<Self> {
        if bytes.len_bytes() == 0 {
            return Err(Error::invalid("a value has at least one byte"));
        }
        if bytes.len_bytes() > VALUE_BYTES {
            return Err(Error::invalid(format!("a value has at most {VALUE_BYTES} bytes")));
        }
        if is_json {
            check_object(bytes.expose())?;
        }
        let held = room.take(bytes.len_bytes())?;
        Ok(Self { bytes, is_json, _held: held })
    }
}

/// Checks that text is a JSON object that every reader understands alike (RFC 8259, section 4).
fn check_object(text: &[u8]) -> Result<()> {
    // The parser's own words would quote what it read.
    let refused = || {
        Error::invalid(format!(
            "a JSON value is one object, in UTF-8, with no key twice, at most {DEPTH} deep, and \
             with numbers that a double holds"
        ))
    };
    let first = text.iter().find(|byte| !b" \t\r\n".contains(byte));
    if first != Some(&b'{') {
        return Err(refused());
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Strict(DEPTH).deserialize(&mut reader).and_then(|()| reader.end());
    read.map_err(|_quotes| refused())
}

/// Reads through a value that may be so deep yet.
#[derive(Clone, Copy)]
struct Strict(usize);

impl Strict {
    fn below<E: serde::de::Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let below = self.below()?;
        while list.next_element_seed(below)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let below = self.below()?;
        let mut keys = HashSet::new();
        while let Some(key) = object.next_key::<String>()? {
            if !keys.insert(key) {
                return Err(serde::de::Error::custom("a key twice"));
            }
            object.next_value_seed(below)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8], is_json: bool) -> Result<SecretValue> {
        SecretValue::parse(SecretBytes::new(text.to_vec()), is_json, &Room::default())
    }

    #[test]
    fn json_that_two_readers_could_understand_differently_is_refused() {
        let deep = |n: usize| format!("{}1{}", r#"{"a":"#.repeat(n), "}".repeat(n));
        let lists = |n: usize| format!(r#"{{"a":{}1{}}}"#, "[".repeat(n), "]".repeat(n));
        for good in [
            "{}",
            r#" {"a":1,"b":[1,2,{"a":null}],"c":{"a":"\u0061\ud83d\ude00"}} "#,
            r#"{"a":-1.5e300,"b":18446744073709551615}"#,
            &deep(32),
            &lists(31),
        ] {
            assert!(parse(good.as_bytes(), true).is_ok(), "{good}");
        }
        for bad in [
            "",
            "[]",
            "1",
            "null",
            r#""{}""#,
            "{",
            r#"{"a":1}{"a":1}"#,
            r#"{"a":1} x"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"b":[{"a":1,"a":2}]}"#,
            r#"{"a":1e400}"#,
            r#"{"a":NaN}"#,
            r#"{"a":"\ud800"}"#,
            r"{'a':1}",
            r#"{"a":1,}"#,
            "\u{feff}{}",
            &deep(33),
            &lists(32),
            &deep(5_000),
        ] {
            assert!(matches!(parse(bad.as_bytes(), true), Err(Error::Invalid(_))), "{bad}");
        }
        assert!(parse(b"{\"a\":\"\xff\"}", true).is_err());
    }

    #[test]
    fn a_refusal_quotes_nothing_of_the_value() {
        let refusal = parse(br#"{"canary-41":canary-42}"#, true).unwrap_err();
        assert!(!refusal.to_string().contains("canary"), "{refusal}");
        assert!(!format!("{:?}", parse(b"canary", false).unwrap()).contains("canary"));
    }

    #[test]
    fn a_value_has_a_byte_and_no_more_than_a_mebibyte() {
        assert!(parse(b"", false).is_err());
        assert!(parse(&vec![0; VALUE_BYTES], false).is_ok());
        assert!(parse(&vec![0; VALUE_BYTES + 1], false).is_err());
    }
}
