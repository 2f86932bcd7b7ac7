//! People: what an ID token says of their signing in, what binds it to who asked for it, and where
//! they sign in. Must not know how their programs get such a token.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use serde_json::Value;

use super::definition::IssuerDefinition;
use super::jwt::Token;
use super::refused::{Refused, Why};
use super::verify::{Believed, SKEW, moment};
use crate::crypto::sha256;
use crate::error::Result;
use crate::store::issuers::{self, IssuerRow};
use crate::store::{Reader, Versioned};
use crate::types::{Segment, UnixMillis};
use crate::vault::SignIn;

/// Issuers that people sign in by: whoever asks is told all of them.
pub(super) const PROVIDERS: i64 = 16;
/// Groups and methods that a token may name, and bytes of one.
const GROUPS: usize = 100;
const METHODS: usize = 16;
const BYTES: usize = 256;
/// What no ID token says, and others that the same keys sign for the same client do: those that are
/// shown to resource servers (RFC 9068, section 2.2.3), and those that tell of a logout (`OpenID`
/// Connect Back-Channel Logout 1.0, section 2.4).
const OF_OTHERS: [&str; 3] = ["scope", "scp", "events"];

/// Reads what a token says of a person's signing in.
///
/// # Errors
/// What of it cannot be believed: cutting off what is too much would change who somebody is.
///
/// Source: `OpenID` Connect Core 1.0, sections 2 and 3.1.3.7.
pub(super) fn read(
    token: &Token,
    issuer: &Segment,
    client: &str,
    now: UnixMillis,
) -> Result<SignIn, Why> {
    check_party(token, client)?;
    let auth_time = moment(token, "auth_time")?;
    if auth_time.is_some_and(|at| at > now && at.since(now) > SKEW) {
        return Err(Why::time("its `auth_time` lies ahead"));
    }
    let sub = token.text("sub").unwrap_or_default();
    if !is_plain(sub) {
        return Err(Why::claims(format!("its `sub` is no text of {BYTES} bytes at most")));
    }
    Ok(SignIn {
        issuer: issuer.to_string(),
        sub: sub.to_owned(),
        groups: texts(token, "groups", GROUPS)?,
        amr: texts(token, "amr", METHODS)?,
        auth_time_ms: auth_time.map(|at| at.min(now).0),
    })
}

/// Checks that a token for several was asked for by us.
fn check_party(token: &Token, client: &str) -> Result<(), Why> {
    let several =
        token.claims.get("aud").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
    let ours = match token.claims.get("azp") {
        None => !several,
        Some(party) => party.as_str() == Some(client),
    };
    if ours {
        Ok(())
    } else {
        Err(Why::new("TOKEN_AUDIENCE", format!("its `azp` is not {client}")))
    }
}

fn is_plain(text: &str) -> bool {
    (1..=BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Reads a list of texts; none where there is none.
fn texts(token: &Token, name: &str, most: usize) -> Result<Vec<String>, Why> {
    let all = match token.claims.get(name) {
        None => return Ok(Vec::new()),
        Some(Value::Array(all)) if all.len() <= most => all.iter().map(Value::as_str),
        Some(_) => {
            return Err(Why::claims(format!("its `{name}` is no list of {most} texts at most")));
        }
    };
    let plain = |text: Option<&str>| text.filter(|text| is_plain(text)).map(str::to_owned);
    all.map(plain).collect::<Option<_>>().ok_or_else(|| {
        Why::claims(format!("one of its `{name}` is no text of {BYTES} bytes at most"))
    })
}

/// Makes the `nonce` that a program asks for, of what it alone knows.
#[must_use]
pub fn nonce_of(proof: &str) -> String {
    let parts = format!("strongroom/login-nonce/v1\0{proof}");
    URL_SAFE_NO_PAD.encode(sha256(parts.as_bytes()))
}

/// Checks that whoever shows a person's token is who asked for it, so that one that was stolen on its
/// way, or that another program was given, logs nobody in. A provider that gives tokens for codes of
/// other devices has no standard way to be asked for a `nonce`: what has none must be an ID token by
/// what it says.
///
/// # Errors
/// [`Refused::Token`].
pub(super) fn check_proof(believed: &Believed, proof: &str) -> Result<(), Refused> {
    if believed.sign_in.is_none() {
        return Ok(());
    }
    let device = IssuerDefinition::read(&believed.issuer.row.definition)?.device;
    let is_known = |nonce: &String| {
        let ours = nonce_of(proof);
        !proof.is_empty() && verify_slices_are_equal(nonce.as_bytes(), ours.as_bytes()).is_ok()
    };
    match believed.token.claims.get("nonce") {
        None if device => {
            match OF_OTHERS.iter().find(|it| believed.token.claims.contains_key(**it)) {
                None => Ok(()),
                Some(name) => {
                    Err(Why::claims(format!("it is no ID token: it says `{name}`")).into())
                }
            }
        }
        Some(Value::String(nonce)) if is_known(nonce) => Ok(()),
        None => {
            Err(Why::new("TOKEN_NONCE", "it has no `nonce`, and no device codes are let in").into())
        }
        Some(_) => Err(Why::new("TOKEN_NONCE", "its `nonce` is not of who shows it").into()),
    }
}

/// An issuer that people sign in by, as their programs have to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its name here.
    pub name: Segment,
    /// What its tokens call it, below which its discovery document lies.
    pub url: String,
    /// What it knows this vault's programs by, a public client.
    pub client_id: String,
    /// What it is asked for.
    pub scopes: Vec<String>,
    /// Whether somebody may sign in with a code on another device.
    pub device: bool,
    /// The authorities that its certificate may come from, PEM; the public ones where empty.
    pub ca_pem: String,
}

/// Lists them.
///
/// # Errors
/// What the store answers.
pub async fn providers(reader: &Reader) -> Result<Vec<Provider>> {
    let read = reader
        .view(|tx| async move { Ok(issuers::of_people(tx, PROVIDERS).await?) }.boxed())
        .await?;
    let provider = |found: Versioned<IssuerRow>| {
        let IssuerDefinition { audience, scopes, device, ca_pem, .. } =
            IssuerDefinition::read(&found.row.definition)?;
        let (name, url) = (found.row.name, found.row.url);
        Ok(Provider { name, url, client_id: audience, scopes, device, ca_pem })
    };
    read.into_iter().map(provider).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn token(claims: &str) -> Token {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let payload = format!(r#"{{"iss":"https://i","sub":"s"{claims}}}"#);
        Token::parse(&format!("{}.{}.AAAA", part(r#"{"alg":"RS256"}"#), part(&payload))).unwrap()
    }

    fn signed_in(claims: &str) -> Result<SignIn, Why> {
        read(&token(claims), &"corp".parse().unwrap(), "client", NOW)
    }

    #[test]
    fn what_a_token_says_of_a_person_is_read_to_its_bounds() {
        let all =
            format!(r#","groups":["a","b c"],"amr":["pwd","otp"],"auth_time":{}"#, 1_799_999_000);
        let read = signed_in(&all).unwrap();
        assert_eq!((read.issuer.as_str(), read.sub.as_str()), ("corp", "s"));
        assert_eq!(
            (read.groups, read.amr),
            (vec!["a".into(), "b c".into()], vec!["pwd".into(), "otp".into()])
        );
        assert_eq!(read.auth_time_ms, Some(1_799_999_000_000));
        let bare = signed_in("").unwrap();
        assert!(bare.groups.is_empty() && bare.amr.is_empty() && bare.auth_time_ms.is_none());
        // Their clock may be ahead, and nobody was seen later than now.
        assert_eq!(signed_in(r#","auth_time":1800000030"#).unwrap().auth_time_ms, Some(NOW.0));
        let list = |n: usize, text: &str| format!("[{}]", vec![format!("\"{text}\""); n].join(","));
        assert_eq!(
            signed_in(&format!(r#","groups":{}"#, list(100, "g"))).unwrap().groups.len(),
            100
        );
        for bad in [
            format!(r#","groups":{}"#, list(101, "g")),
            format!(r#","groups":{}"#, list(1, &"g".repeat(257))),
            format!(r#","amr":{}"#, list(17, "otp")),
            r#","groups":"a""#.to_owned(),
            r#","groups":[1]"#.to_owned(),
            r#","groups":[""]"#.to_owned(),
            r#","groups":["a\nb"]"#.to_owned(),
            r#","groups":null"#.to_owned(),
            r#","auth_time":1800000061"#.to_owned(),
            r#","auth_time":"1800000000""#.to_owned(),
        ] {
            assert!(signed_in(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_for_several_was_asked_for_by_us() {
        for (claims, fits) in [
            (r#","aud":"client""#, true),
            (r#","aud":["client"]"#, true),
            (r#","aud":["client","other"]"#, false),
            (r#","aud":["client","other"],"azp":"client""#, true),
            (r#","aud":["client","other"],"azp":"other""#, false),
            (r#","aud":"client","azp":"other""#, false),
            (r#","aud":"client","azp":1"#, false),
        ] {
            assert_eq!(signed_in(claims).is_ok(), fits, "{claims}");
        }
    }

    #[test]
    fn a_nonce_is_the_hash_of_a_proof_and_of_no_other() {
        assert_eq!(nonce_of("a").len(), 43);
        assert_ne!(nonce_of("a"), nonce_of("b"));
    }
}
