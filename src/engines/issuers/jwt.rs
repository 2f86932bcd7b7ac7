//! A token as it is presented: the compact form of a JWS (RFC 7515, section 7.1) with the claims of a
//! JWT (RFC 7519), read as RFC 8725 says.
//!
//! Nothing of it is believed here; where a key may come from is none of its business.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::json;
use super::refused::Why;
use crate::crypto::sha256;
use crate::types::SignatureAlgorithm;

/// Bytes of a token at most.
pub const TOKEN_BYTES: usize = 64 * 1_024;
/// What a header must not say: where a key is to be had, and extensions that nobody here knows.
const REFUSED: [&str; 8] = ["crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc"];

/// A token that parses.
pub(super) struct Token {
    /// What it says it is signed with.
    pub(super) algorithm: SignatureAlgorithm,
    /// Which key it says that was.
    pub(super) key: Option<String>,
    /// What it claims.
    pub(super) claims: Map<String, Value>,
    /// Who it says it is from.
    pub(super) issuer: String,
    /// What is signed.
    pub(super) signed: Vec<u8>,
    /// The signature.
    pub(super) signature: Vec<u8>,
}

impl fmt::Debug for Token {
    /// Shows neither what is signed nor the signature: until it was used, it logs in whoever has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Token {
    /// Reads a token.
    pub(super) fn parse(text: &str) -> Result<Self, Why> {
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Why::malformed("it has not three parts"));
        };
        let bytes = |part: &str| {
            let decoded = URL_SAFE_NO_PAD.decode(part);
            decoded.map_err(|_malformed| Why::malformed("a part is not base64url"))
        };
        let object = |bytes: &[u8], what: &str| {
            json::object(bytes).ok_or_else(|| {
                Why::malformed(format!("the {what} is no JSON object, or a name stands twice"))
            })
        };
        let (algorithm, key) = read_header(&object(&bytes(header)?, "header")?)?;
        let claims = object(&bytes(payload)?, "payload")?;
        let issuer = claims.get("iss").and_then(Value::as_str).map(str::to_owned);
        let signed = header.len().saturating_add(1).saturating_add(payload.len());
        Ok(Self {
            algorithm,
            key,
            issuer: issuer.ok_or_else(|| Why::claims("there is no `iss`"))?,
            claims,
            signed: text.as_bytes().get(..signed).unwrap_or_default().to_vec(),
            signature: bytes(signature)?,
        })
    }

    /// Names it by what is signed: a signature can be written in more ways than one.
    pub(super) fn hash(&self) -> [u8; 32] {
        sha256(&self.signed)
    }

    /// Shows a claim that is text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name).and_then(Value::as_str)
    }
}

/// Reads which algorithm and key it names.
fn read_header(header: &Map<String, Value>) -> Result<(SignatureAlgorithm, Option<String>), Why> {
    if let Some(name) = REFUSED.iter().find(|name| header.contains_key(**name)) {
        return Err(Why::malformed(format!("its header says `{name}`, which is never followed")));
    }
    let typed = match header.get("typ") {
        None => true,
        Some(typ) => typ.as_str().is_some_and(|typ| typ.eq_ignore_ascii_case("jwt")),
    };
    if !typed {
        return Err(Why::malformed("its `typ` is not JWT"));
    }
    let algorithm = header.get("alg").and_then(Value::as_str).unwrap_or_default();
    let algorithm = algorithm.parse().map_err(|_unknown| {
        Why::new("TOKEN_ALGORITHM", "its `alg` is none that an issuer can be pinned to")
    })?;
    let key = match header.get("kid") {
        None => None,
        Some(Value::String(key)) if key.len() <= 512 => Some(key.clone()),
        Some(_) => return Err(Why::malformed("its `kid` is no text of 512 bytes at most")),
    };
    Ok((algorithm, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, payload: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part(header), part(payload), part("signature"))
    }

    const PAYLOAD: &str = r#"{"iss":"https://i"}"#;

    #[test]
    fn a_token_is_read_and_named_by_what_is_signed() {
        let text = token(r#"{"alg":"RS256","kid":"1","typ":"JWT","x5t":"a"}"#, PAYLOAD);
        let read = Token::parse(&text).unwrap();
        assert_eq!((read.algorithm, read.key.as_deref()), (SignatureAlgorithm::Rs256, Some("1")));
        assert_eq!(read.issuer, "https://i");
        assert!(text.starts_with(std::str::from_utf8(&read.signed).unwrap()));
        let other = format!("{}A", &text[..=text.rfind('.').unwrap()]) + "AAA";
        assert_eq!(Token::parse(&other).unwrap().hash(), read.hash());
        assert_eq!(format!("{read:?}"), "Token { issuer: \"https://i\", .. }");
    }

    #[test]
    fn what_is_dangerous_or_unknown_in_a_header_is_refused() {
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"rs256"}"#,
            r#"{"alg":["RS256"]}"#,
            "{}",
            r#"{"alg":"RS256","alg":"RS256"}"#,
            r#"{"alg":"RS256","crit":[]}"#,
            r#"{"alg":"RS256","crit":["b64"],"b64":false}"#,
            r#"{"alg":"RS256","jku":"https://evil"}"#,
            r#"{"alg":"RS256","jwk":{}}"#,
            r#"{"alg":"RS256","x5u":"https://evil"}"#,
            r#"{"alg":"RS256","x5c":[]}"#,
            r#"{"alg":"RS256","zip":"DEF"}"#,
            r#"{"alg":"RS256","typ":"at+jwt"}"#,
            r#"{"alg":"RS256","typ":1}"#,
            r#"{"alg":"RS256","kid":1}"#,
        ] {
            assert!(Token::parse(&token(header, PAYLOAD)).is_err(), "{header}");
        }
    }

    #[test]
    fn what_is_not_three_parts_of_base64url_with_an_issuer_is_refused() {
        let good = token(r#"{"alg":"RS256"}"#, PAYLOAD);
        for bad in [
            String::new(),
            "a.b".to_owned(),
            format!("{good}."),
            format!("{good}="),
            good.replace('.', ".."),
            format!(" {good}"),
            token(r#"{"alg":"RS256"}"#, "{}"),
            token(r#"{"alg":"RS256"}"#, r#"{"iss":1}"#),
            token(r#"{"alg":"RS256"}"#, r#"{"iss":"a","iss":"b"}"#),
        ] {
            assert!(Token::parse(&bad).is_err(), "{bad}");
        }
    }
}
