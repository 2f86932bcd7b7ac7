//! A provider as the program of somebody who signs in by it sees it: where it lets people in, a code
//! traded for an ID token, a code for another device. It runs where that person is, and believes
//! nothing of what it gets: the vault does.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Map, Value};
use url::Url;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::fetch::{self, Answer, Ask, Place};
use super::json;
use crate::crypto::sha256;

/// The grant of a device code (RFC 8628, section 3.4).
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// How often a provider is asked where it does not say (RFC 8628, section 3.2), and how much less
/// often once it says that this is too often (section 3.5).
const INTERVAL: Duration = Duration::from_secs(5);
const SLOWER: Duration = Duration::from_secs(5);
/// The shortest and the longest of both.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_mins(1);
/// How long a device code is waited for, whatever the provider says.
const WAITS_S: u64 = 1_800;

/// What somebody signs in with: what a program sends along, and what it keeps to itself.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The client's id.
    pub client_id: &'a str,
    /// The scopes.
    pub scopes: &'a [String],
    /// What the ID token is to be bound to.
    pub nonce: &'a str,
    /// How long ago the person may have proven who they are, in seconds; none for however long.
    pub max_age_s: Option<i64>,
}

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// Where somebody is sent to sign in, and where they come back to (RFC 8252, section 7.3).
#[derive(Clone, Copy)]
pub struct Way<'a> {
    /// Where they come back to.
    pub redirect_uri: &'a str,
    /// What comes back with them.
    pub state: &'a str,
    /// What the code is bound to (RFC 7636): its hash goes with them, and itself redeems it.
    pub verifier: &'a str,
}

impl fmt::Debug for Way<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("redirect_uri", &self.redirect_uri).finish_non_exhaustive()
    }
}

/// A code for another device.
pub struct DeviceCode {
    /// What the person types there.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it, where there is that.
    pub complete_uri: Option<String>,
    /// How long it can be used.
    pub lasts: Duration,
    /// How long to wait before the provider is asked again.
    pub interval: Duration,
    code: Zeroizing<String>,
}

impl fmt::Debug for DeviceCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCode").field("user_code", &self.user_code).finish_non_exhaustive()
    }
}

/// Why there is no ID token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoToken {
    /// The provider says no, with a word of RFC 6749 or RFC 8628.
    Refused(String),
    /// It cannot be reached, or answers what means nothing.
    Trouble(String),
}

/// What came of asking for the token of a device code.
pub enum Polled {
    /// It is there.
    Token(Zeroizing<String>),
    /// Ask again, after this long.
    Wait(Duration),
}

impl fmt::Debug for Polled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token",
            Self::Wait(_) => "Wait",
        })
    }
}

/// A provider that was found.
#[derive(Debug)]
pub struct Doors {
    ca_pem: String,
    authorization: Option<Url>,
    token: Url,
    device: Option<Url>,
    /// Whether who comes back brings the issuer along (RFC 9207).
    pub says_issuer: bool,
}

impl Doors {
    /// Finds out where a provider lets people in.
    ///
    /// # Errors
    /// Why that is not known.
    pub async fn find(issuer: &str, ca_pem: &str) -> Result<Self, String> {
        let (_, document) = fetch::document(issuer, Place { ca_pem, private: true }).await?;
        Self::read(&document, ca_pem)
    }

    fn read(document: &Map<String, Value>, ca_pem: &str) -> Result<Self, String> {
        let url = |name: &str| {
            let text = document.get(name).and_then(Value::as_str);
            text.map(|text| fetch::parse(text).map_err(|why| format!("`{name}`: {why}")))
                .transpose()
        };
        let methods = document.get("code_challenge_methods_supported").and_then(Value::as_array);
        if methods.is_some_and(|all| !all.iter().any(|one| one == "S256")) {
            return Err("it does not take S256, without which a code is anybody's".to_owned());
        }
        let says = document.get("authorization_response_iss_parameter_supported");
        Ok(Self {
            ca_pem: ca_pem.to_owned(),
            authorization: url("authorization_endpoint")?,
            token: url("token_endpoint")?
                .ok_or("its discovery document has no `token_endpoint`")?,
            device: url("device_authorization_endpoint")?,
            says_issuer: says == Some(&Value::Bool(true)),
        })
    }

    /// Says where somebody signs in.
    ///
    /// # Errors
    /// That there is no such place.
    ///
    /// Source: `OpenID` Connect Core 1.0, section 3.1.2.1; RFC 7636, section 4.3.
    pub fn sign_in_at(&self, asked: Asked<'_>, way: Way<'_>) -> Result<String, String> {
        let mut url = self.authorization.clone().ok_or("it lets nobody in by a browser")?;
        let challenge = URL_SAFE_NO_PAD.encode(sha256(way.verifier.as_bytes()));
        url.set_fragment(None);
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", asked.client_id)
            .append_pair("redirect_uri", way.redirect_uri)
            .append_pair("scope", &asked.scopes.join(" "))
            .append_pair("state", way.state)
            .append_pair("nonce", asked.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if let Some(age) = asked.max_age_s {
            query.append_pair("max_age", &age.to_string());
        }
        drop(query);
        Ok(url.into())
    }

    /// Trades a code for an ID token.
    ///
    /// # Errors
    /// [`NoToken`].
    ///
    /// Source: RFC 6749, section 4.1.3; RFC 7636, section 4.5.
    pub async fn redeem(
        &self,
        asked: Asked<'_>,
        way: Way<'_>,
        code: &str,
    ) -> Result<Zeroizing<String>, NoToken> {
        let form = form(&[
            ("grant_type", "authorization_code"),
            ("client_id", asked.client_id),
            ("code", code),
            ("redirect_uri", way.redirect_uri),
            ("code_verifier", way.verifier),
        ]);
        id_token(&self.post(&self.token, &form).await?)
    }

    /// Asks for a code that is typed on another device.
    ///
    /// # Errors
    /// [`NoToken`].
    ///
    /// Source: RFC 8628, sections 3.1 and 3.2. The nonce is no part of it: providers that know it
    /// bind the token to it.
    pub async fn start_device(&self, asked: Asked<'_>) -> Result<DeviceCode, NoToken> {
        let none = || NoToken::Trouble("it gives no codes for other devices".to_owned());
        let door = self.device.as_ref().ok_or_else(none)?;
        let scope = asked.scopes.join(" ");
        let form = form(&[
            ("client_id", asked.client_id),
            ("scope", scope.as_str()),
            ("nonce", asked.nonce),
        ]);
        let answer = self.post(door, &form).await?;
        device_code(&object(&answer)?).map_err(NoToken::Trouble)
    }

    /// Asks once whether somebody let the program in, by the device code.
    ///
    /// # Errors
    /// [`NoToken`].
    ///
    /// Source: RFC 8628, sections 3.4 and 3.5.
    pub async fn poll_device(
        &self,
        asked: Asked<'_>,
        code: &DeviceCode,
        interval: Duration,
    ) -> Result<Polled, NoToken> {
        let form = form(&[
            ("grant_type", DEVICE_GRANT),
            ("client_id", asked.client_id),
            ("device_code", code.code.as_str()),
        ]);
        match self.post(&self.token, &form).await.and_then(|answer| id_token(&answer)) {
            Ok(token) => Ok(Polled::Token(token)),
            Err(refused) => waits(refused, interval).map(Polled::Wait),
        }
    }

    async fn post(&self, door: &Url, form: &str) -> Result<Answer, NoToken> {
        let at = Place { ca_pem: &self.ca_pem, private: true };
        fetch::ask(door, at, Ask::Post(form)).await.map_err(NoToken::Trouble)
    }
}

fn form(pairs: &[(&str, &str)]) -> Zeroizing<String> {
    Zeroizing::new(Serializer::new(String::new()).extend_pairs(pairs).finish())
}

/// How long to wait after an answer that is not the last word; what it was otherwise.
fn waits(refused: NoToken, interval: Duration) -> Result<Duration, NoToken> {
    match &refused {
        NoToken::Refused(word) if word == "authorization_pending" => Ok(interval),
        NoToken::Refused(word) if word == "slow_down" => Ok(interval.saturating_add(SLOWER)),
        NoToken::Refused(_) | NoToken::Trouble(_) => Err(refused),
    }
}

/// Reads an answer that went well; the word of one that did not.
fn object(answer: &Answer) -> Result<Map<String, Value>, NoToken> {
    let status = answer.status;
    let read = json::object(&answer.body);
    if status == StatusCode::OK {
        let none = || NoToken::Trouble("its answer is no JSON object".to_owned());
        return read.ok_or_else(none);
    }
    let word = read.as_ref().and_then(|read| read.get("error")).and_then(Value::as_str);
    // RFC 6749, section 5.2: what an error may be made of.
    let plain =
        |word: &&str| (1..=64).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_graphic());
    Err(match word.filter(plain) {
        Some(word) => NoToken::Refused(word.to_owned()),
        None => NoToken::Trouble(format!("it answered {}", status.as_u16())),
    })
}

fn id_token(answer: &Answer) -> Result<Zeroizing<String>, NoToken> {
    let read = object(answer)?;
    let token = read.get("id_token").and_then(Value::as_str);
    token.map(|token| Zeroizing::new(token.to_owned())).ok_or_else(|| {
        NoToken::Trouble("its answer has no ID token; does it know the scope openid?".to_owned())
    })
}

fn device_code(read: &Map<String, Value>) -> Result<DeviceCode, String> {
    let text = |name: &str| read.get(name).and_then(Value::as_str);
    let must = |name: &str| {
        text(name).map(str::to_owned).ok_or_else(|| format!("its answer has no `{name}`"))
    };
    let lasts_s = read.get("expires_in").and_then(Value::as_u64);
    let lasts_s = lasts_s.ok_or("its answer has no `expires_in`")?;
    let interval = read.get("interval").and_then(Value::as_u64).map(Duration::from_secs);
    // Whoever reads it opens it.
    let verification_uri = must("verification_uri")?;
    fetch::parse(&verification_uri)?;
    let complete_uri = text("verification_uri_complete").map(str::to_owned);
    Ok(DeviceCode {
        user_code: must("user_code")?,
        complete_uri: complete_uri.filter(|uri| fetch::parse(uri).is_ok()),
        verification_uri,
        lasts: Duration::from_secs(lasts_s.min(WAITS_S)),
        interval: interval.unwrap_or(INTERVAL).clamp(LEAST, MOST),
        code: Zeroizing::new(must("device_code")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Map<String, Value> {
        json::object(json.as_bytes()).unwrap()
    }

    fn doors(more: &str) -> Result<Doors, String> {
        let text = format!(
            r#"{{"authorization_endpoint":"https://i/a?tenant=x","token_endpoint":"https://i/t"{more}}}"#
        );
        Doors::read(&read(&text), "")
    }

    #[test]
    fn somebody_is_sent_with_a_hash_of_what_redeems_the_code() {
        let scopes = ["openid".to_owned(), "email".to_owned()];
        let asked = Asked { client_id: "c&d", scopes: &scopes, nonce: "n", max_age_s: Some(300) };
        // RFC 7636, appendix B.
        let way = Way {
            redirect_uri: "http://127.0.0.1:1/callback",
            state: "s",
            verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        };
        let url = doors("").unwrap().sign_in_at(asked, way).unwrap();
        assert_eq!(
            url,
            "https://i/a?tenant=x&response_type=code&client_id=c%26d\
             &redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2Fcallback&scope=openid+email&state=s&nonce=n\
             &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM\
             &code_challenge_method=S256&max_age=300"
        );
        assert!(!url.contains(way.verifier));
    }

    #[test]
    fn a_provider_that_takes_no_s256_or_is_not_https_is_left() {
        assert!(doors(r#","code_challenge_methods_supported":["plain","S256"]"#).is_ok());
        assert!(doors(r#","code_challenge_methods_supported":["plain"]"#).is_err());
        assert!(doors(r#","device_authorization_endpoint":"http://i/d""#).is_err());
        assert!(Doors::read(&read("{}"), "").is_err());
        assert!(!doors("").unwrap().says_issuer);
        let says = r#","authorization_response_iss_parameter_supported":true"#;
        assert!(doors(says).unwrap().says_issuer);
    }

    #[test]
    fn a_device_code_is_waited_for_as_its_provider_says() {
        let answer = |more: &str| {
            device_code(&read(&format!(
                r#"{{"device_code":"d","user_code":"AB-CD","expires_in":600,
                    "verification_uri":"https://i/d"{more}}}"#
            )))
        };
        let code = answer("").unwrap();
        assert_eq!((code.interval, code.lasts), (INTERVAL, Duration::from_mins(10)));
        assert_eq!(answer(r#","interval":0"#).unwrap().interval, LEAST);
        assert_eq!(answer(r#","interval":9"#).unwrap().interval, Duration::from_secs(9));
        assert!(device_code(&read(r#"{"device_code":"d"}"#)).is_err());
        let word = |word: &str| NoToken::Refused(word.to_owned());
        let five = Duration::from_secs(5);
        assert_eq!(waits(word("authorization_pending"), five), Ok(five));
        assert_eq!(waits(word("slow_down"), five), Ok(Duration::from_secs(10)));
        for last in [word("access_denied"), word("expired_token"), NoToken::Trouble(String::new())]
        {
            assert_eq!(waits(last.clone(), five), Err(last));
        }
    }

    #[test]
    fn an_answer_is_a_token_a_word_or_nothing() {
        let answer =
            |status, body: &str| Answer { status, body: Zeroizing::new(body.as_bytes().to_vec()) };
        let token = id_token(&answer(StatusCode::OK, r#"{"id_token":"a.b.c"}"#)).unwrap();
        assert_eq!(token.as_str(), "a.b.c");
        let refused = id_token(&answer(StatusCode::BAD_REQUEST, r#"{"error":"invalid_grant"}"#));
        assert_eq!(refused.unwrap_err(), NoToken::Refused("invalid_grant".to_owned()));
        for (status, body) in [
            (StatusCode::OK, "{}"),
            (StatusCode::OK, r#"{"id_token":1}"#),
            (StatusCode::OK, r#"{"id_token":"a","id_token":"b"}"#),
            (StatusCode::BAD_REQUEST, r#"{"error":"a\nb"}"#),
            (StatusCode::BAD_GATEWAY, "<html>"),
        ] {
            let read = id_token(&answer(status, body));
            assert!(matches!(read, Err(NoToken::Trouble(_))), "{body}");
        }
    }
}
