//! Masks on JSON values: what the grant hides is hidden before anything leaves.
//!
//! Works on the text as it was written, so that what is not masked comes out byte for byte.

use zeroize::Zeroizing;

use crate::crypto::{Encoder, MacKey, base32};
use crate::error::{Error, Result};
use crate::policy::{Mask, MaskHow};
use crate::types::{ObjectId, SecretBytes};

/// Stands for what is hidden.
const HIDDEN: &str = "****";
/// Characters that are shown of a long value, and from how many on it is long.
const SHOWN: usize = 4;
const LONG: usize = 8;
/// Bytes of a hash that are shown.
const HASH_BYTES: usize = 20;

/// What hashes are made with.
pub(super) struct Hashes {
    /// The vault's key for that: nobody outside can try values.
    pub(super) key: MacKey,
    /// The secret: hashes of two secrets cannot be compared.
    pub(super) secret: ObjectId,
}

/// Hides fields of a JSON object that was checked when it was stored.
pub(super) fn mask(value: &SecretBytes, masks: &[Mask], hashes: &Hashes) -> Result<SecretBytes> {
    let mut masker = Masker {
        text: value.expose(),
        at: 0,
        out: Zeroizing::new(Vec::with_capacity(value.len_bytes())),
        path: String::new(),
        masks,
        hashes,
    };
    // Nothing of it may be in the message.
    masker.value().ok_or_else(|| Error::internal("a JSON value that is none"))?;
    Ok(SecretBytes::from(masker.out))
}

struct Masker<'a> {
    text: &'a [u8],
    at: usize,
    out: Zeroizing<Vec<u8>>,
    /// The keys that led to where it is.
    path: String,
    masks: &'a [Mask],
    hashes: &'a Hashes,
}

impl<'a> Masker<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Goes over white space.
    fn space(&mut self) {
        while self.peek().is_some_and(|byte| b" \t\r\n".contains(&byte)) {
            self.at = self.at.saturating_add(1);
        }
    }

    /// Goes over one byte, which has to be this one.
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at = self.at.saturating_add(1))
    }

    /// Goes over a value and gives its text.
    fn skip(&mut self) -> Option<&'a [u8]> {
        let from = self.at;
        let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
        loop {
            let byte = self.peek()?;
            if quoted {
                (quoted, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
            } else {
                match byte {
                    b'"' => quoted = true,
                    b'{' | b'[' => depth = depth.saturating_add(1),
                    b'}' | b']' => depth = depth.checked_sub(1)?,
                    _ => {}
                }
            }
            self.at = self.at.saturating_add(1);
            let scalar = |next: u8| !b",]} \t\r\n".contains(&next) && byte != b'"';
            let goes_on = depth == 0 && !b"}]".contains(&byte) && self.peek().is_some_and(scalar);
            if depth == 0 && !quoted && !goes_on {
                return self.text.get(from..self.at);
            }
        }
    }

    /// Tells whether a mask names something below where it is. So no path is walked that is longer
    /// than a mask's, however long the keys are that stand before many small values.
    fn leads(&self) -> bool {
        let below = |mask: &Mask| {
            mask.field.strip_prefix(&self.path).is_some_and(|rest| rest.starts_with('.'))
        };
        self.path.is_empty() || self.masks.iter().any(below)
    }

    /// Writes a value, with what is masked below it.
    fn value(&mut self) -> Option<()> {
        self.space();
        match self.peek()? {
            b'{' if self.leads() => self.object(),
            b'[' if self.leads() => self.list(),
            _ => {
                let text = self.skip()?;
                self.out.extend_from_slice(text);
                Some(())
            }
        }
    }

    fn list(&mut self) -> Option<()> {
        self.take(b'[')?;
        self.out.push(b'[');
        self.space();
        let mut first = true;
        while self.peek()? != b']' {
            if !first {
                self.take(b',')?;
                self.out.push(b',');
            }
            first = false;
            self.value()?;
            self.space();
        }
        self.take(b']')?;
        self.out.push(b']');
        Some(())
    }

    fn object(&mut self) -> Option<()> {
        self.take(b'{')?;
        self.out.push(b'{');
        self.space();
        let above = self.path.len();
        let (mut first, mut written) = (true, false);
        while self.peek()? != b'}' {
            if !first {
                self.take(b',')?;
                self.space();
            }
            first = false;
            let quoted = self.skip()?;
            let key: String = serde_json::from_slice(quoted).ok()?;
            self.space();
            self.take(b':')?;
            self.space();
            if above > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            written |= self.field(quoted, written)?;
            self.path.truncate(above);
            self.space();
        }
        self.take(b'}')?;
        self.out.push(b'}');
        Some(())
    }

    /// Writes a field, unless it is dropped; tells whether it did.
    fn field(&mut self, quoted: &[u8], follows: bool) -> Option<bool> {
        // Of several masks of one field the strictest counts.
        let how =
            self.masks.iter().filter(|mask| mask.field == self.path).map(|mask| mask.how).max();
        let hidden = match how {
            None => None,
            Some(how) => {
                let value = self.skip()?;
                if how == MaskHow::Drop {
                    return Some(false);
                }
                Some(hide(how, &self.path, value, self.hashes)?)
            }
        };
        if follows {
            self.out.push(b',');
        }
        self.out.extend_from_slice(quoted);
        self.out.push(b':');
        match hidden {
            Some(hidden) => self.out.extend_from_slice(hidden.as_bytes()),
            None => self.value()?,
        }
        Some(true)
    }
}

/// What is shown of a value, as JSON.
fn hide(how: MaskHow, path: &str, value: &[u8], hashes: &Hashes) -> Option<Zeroizing<String>> {
    let text = if value.first() == Some(&b'"') {
        Some(Zeroizing::new(serde_json::from_slice::<String>(value).ok()?))
    } else {
        None
    };
    let shown = match how {
        MaskHow::Redact | MaskHow::Drop => HIDDEN.to_owned(),
        MaskHow::Last4 => {
            let number = value.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-');
            let plain = match &text {
                Some(text) => text.as_str(),
                None if number => std::str::from_utf8(value).ok()?,
                // Of an object, a list, a truth there are no last four.
                None => "",
            };
            let all = plain.chars().count();
            let from = if all < LONG { all } else { all.saturating_sub(SHOWN) };
            [HIDDEN, &plain.chars().skip(from).collect::<String>()].concat()
        }
        MaskHow::Hash => {
            let input = Encoder::new("strongroom/mask/v1")
                .bytes(hashes.secret.0.as_bytes())
                .text(path)
                .integer(i64::from(text.is_some()))
                .bytes(text.as_ref().map_or(value, |text| text.as_bytes()));
            let tag = hashes.key.tag(&[&Zeroizing::new(input.finish())]);
            ["hmac:", &base32(tag.get(..HASH_BYTES)?)].concat()
        }
    };
    Some(Zeroizing::new(serde_json::to_string(&shown).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Id;

    fn hashes(secret: u8) -> Hashes {
        Hashes { key: MacKey::new(&[7; 32]), secret: ObjectId(Id::from_bytes([secret; 16])) }
    }

    fn masked(text: &str, masks: &[(&str, &str)]) -> String {
        let masks: Vec<_> =
            masks.iter().map(|(field, how)| Mask::parse(field, how).unwrap()).collect();
        let value = SecretBytes::new(text.as_bytes().to_vec());
        let value = mask(&value, &masks, &hashes(1)).unwrap();
        String::from_utf8(value.expose().to_vec()).unwrap()
    }

    #[test]
    fn fields_are_hidden_wherever_they_stand_and_the_rest_is_as_it_was_written() {
        for (text, masks, wanted) in [
            (r#"{"a":1}"#, &[][..], r#"{"a":1}"#),
            (r#" { "a" : 1.50 , "b" : "x\u0041" } "#, &[], r#"{"a":1.50,"b":"x\u0041"}"#),
            (r#"{"a":1,"b":2,"c":3}"#, &[("b", "drop")], r#"{"a":1,"c":3}"#),
            (r#"{"a":1,"b":2}"#, &[("a", "drop")], r#"{"b":2}"#),
            (r#"{"a":{"x":[1,"]}"]}}"#, &[("a", "drop")], "{}"),
            (r#"{"a":"4111111111111111"}"#, &[("a", "last4")], r#"{"a":"****1111"}"#),
            (r#"{"a":"1234567"}"#, &[("a", "last4")], r#"{"a":"****"}"#),
            (r#"{"a":-12345678}"#, &[("a", "last4")], r#"{"a":"****5678"}"#),
            (r#"{"a":["12345678"]}"#, &[("a", "last4")], r#"{"a":"****"}"#),
            (r#"{"a":"éééééééé\"\\"}"#, &[("a", "last4")], r#"{"a":"****éé\"\\"}"#),
            (r#"{"a":null}"#, &[("a", "redact")], r#"{"a":"****"}"#),
            (r#"{"\u0061":"x","b":1}"#, &[("a", "drop")], r#"{"b":1}"#),
            (r#"{"a":{"b":1,"c":2}}"#, &[("a.b", "drop")], r#"{"a":{"c":2}}"#),
            (r#"{"a.b":1,"a":{"b":2,"c":3}}"#, &[("a.b", "drop")], r#"{"a":{"c":3}}"#),
            (
                r#"{"a":[{"b":1},[{"b":2,"c":"]"}],3]}"#,
                &[("a.b", "drop")],
                r#"{"a":[{},[{"c":"]"}],3]}"#,
            ),
            (r#"{"a":1}"#, &[("a", "last4"), ("a", "drop")], "{}"),
            (r#"{"":{"a":1},"aa":{"a":1}}"#, &[("a", "drop")], r#"{"":{},"aa":{"a":1}}"#),
            (r#"{"a":[],"b":{},"c":"\\\""}"#, &[("z", "drop")], r#"{"a":[],"b":{},"c":"\\\""}"#),
        ] {
            assert_eq!(masked(text, masks), wanted, "{text} {masks:?}");
        }
    }

    #[test]
    fn what_no_mask_leads_into_is_copied_as_one_piece() {
        // White space tells: only what is walked loses it. Each of the objects would otherwise cost
        // the length of the key that leads to them.
        let long = "k".repeat(300_000);
        let objects = vec![r#"{ "a" : 1 }"#; 60_000].join(" ,");
        let text = format!(r#"{{"{long}":[ {objects} ],"b":{{"c":[ {{ "a" : 1 }} ]}},"a":1}}"#);
        let wanted = format!(r#"{{"{long}":[ {objects} ],"b":{{"c":[ {{ "a" : 1 }} ]}}}}"#);
        assert_eq!(masked(&text, &[("a", "drop"), ("b.d", "drop")]), wanted);
    }

    #[test]
    fn hashes_tell_equal_values_of_one_field_of_one_secret_and_nothing_else() {
        let hash = |text: &str| masked(text, &[("a", "hash"), ("b", "hash")]);
        assert_eq!(hash(r#"{"a":"x"}"#), hash(r#"{"a":"\u0078"}"#));
        let both: serde_json::Value = serde_json::from_str(&hash(r#"{"a":"x","b":"x"}"#)).unwrap();
        assert_ne!(both["a"], both["b"], "another field");
        assert_ne!(hash(r#"{"a":"1"}"#), hash(r#"{"a":1}"#));
        assert!(!hash(r#"{"a":"x"}"#).contains("\"x\""));
        let value = SecretBytes::new(br#"{"a":"x"}"#.to_vec());
        let masks = [Mask::parse("a", "hash").unwrap()];
        let of = |secret| mask(&value, &masks, &hashes(secret)).unwrap();
        assert_ne!(of(1), of(2), "another secret");
    }
}
