//! Whether a token is believed: by whom it is, for whom, when, and signed with which key. Who it
//! logs in is not decided here.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::Value;

use super::definition::IssuerDefinition;
use super::jwt::{TOKEN_BYTES, Token};
use super::keys::IssuerKeys;
use super::memory::{KnownIssuer, Look, Memory};
use super::refused::{Refused, Why};
use super::rule::claim;
use super::sign_in;
use crate::error::Error;
use crate::store::issuers::{self, IssuerRow};
use crate::store::{Reader, Versioned};
use crate::types::{Preset, Replay, UnixMillis};
use crate::vault::SignIn;

/// Issuers that may call themselves alike, as clusters do.
pub(super) const ALIKE: i64 = 16;
/// How far another's clock may be off.
pub(super) const SKEW: Duration = Duration::from_mins(1);
/// How long a token may be good for: what is remembered of it is bounded by this.
const LASTS: Duration = Duration::from_hours(24);
/// Members of a list of audiences that are looked at.
const AUDIENCES: usize = 32;
/// The pod that a projected token is bound to.
const POD: &str = "kubernetes.io/pod/uid";

/// A token that is believed.
#[derive(Debug)]
pub(super) struct Believed {
    pub(super) token: Token,
    pub(super) issuer: Versioned<IssuerRow>,
    /// What is known of the issuer.
    pub(super) definition: Arc<IssuerDefinition>,
    /// The moment from which on it is no more.
    pub(super) expires_at: UnixMillis,
    /// When it was issued, or became good.
    pub(super) issued_at: UnixMillis,
    /// What keeps it from being used again.
    pub(super) replay: Replay,
    /// What of it may be used once.
    pub(super) once: String,
    /// What it says of a person's signing in; none where it is a machine's.
    pub(super) sign_in: Option<SignIn>,
}

/// Looks at a token.
///
/// # Errors
/// [`Error::Invalid`] for one that is too large; [`Refused::Token`] with what is wrong with it.
pub(super) async fn believe(
    reader: &Reader,
    keys: &IssuerKeys,
    text: &str,
    look: &Look,
) -> Result<Believed, Refused> {
    if text.len() > TOKEN_BYTES {
        return Err(Error::invalid("a token has at most 64 KiB").into());
    }
    let token = Token::parse(text)?;
    let found = of_url(reader, &keys.memory, &token.issuer, look).await?;
    let mut why = Refused::from(Why::new("TOKEN_ISSUER", "no issuer has the URL that it says"));
    for known in found.iter() {
        let (issuer, definition) = known;
        match examine(keys, &token, known, look.now()).await {
            Ok(examined) => {
                let Examined { expires_at, issued_at, replay, once, sign_in } = examined;
                return Ok(Believed {
                    token,
                    issuer: issuer.clone(),
                    definition: Arc::clone(definition),
                    expires_at,
                    issued_at,
                    replay,
                    once,
                    sign_in,
                });
            }
            Err(Refused::Token(other)) => {
                let named = Why { text: format!("{}: {}", issuer.row.name, other.text), ..other };
                why = named.into();
            }
            Err(failed @ Refused::Vault(_)) => return Err(failed),
        }
    }
    Err(why)
}

/// Finds the issuers that a token may be of, those that are remembered where they are believed.
async fn of_url(
    reader: &Reader,
    memory: &Memory,
    url: &String,
    look: &Look,
) -> Result<Arc<Vec<KnownIssuer>>, Refused> {
    if let Some(kept) = memory.issuers.at(look, url) {
        return Ok(kept);
    }
    let wanted = url.clone();
    let read = reader
        .view(move |tx| async move { Ok(issuers::by_url(tx, &wanted, ALIKE).await?) }.boxed());
    let read_all = read.await?.into_iter().map(|issuer| {
        let definition = IssuerDefinition::read(&issuer.row.definition)?;
        Ok((issuer, Arc::new(definition)))
    });
    let found = read_all.collect::<Result<Vec<_>, Error>>()?;
    // URLs that no issuer has are not remembered: there is no end of them.
    if found.is_empty() {
        return Ok(Arc::new(found));
    }
    Ok(memory.issuers.keep(look, url.clone(), found))
}

struct Examined {
    expires_at: UnixMillis,
    issued_at: UnixMillis,
    replay: Replay,
    once: String,
    sign_in: Option<SignIn>,
}

/// Looks at a token as one that an issuer made. What costs most comes last.
async fn examine(
    keys: &IssuerKeys,
    token: &Token,
    (issuer, definition): &KnownIssuer,
    now: UnixMillis,
) -> Result<Examined, Refused> {
    check_audience(token, &definition.audience)?;
    let (issued_at, expires_at) = check_times(token, definition.preset()?, now)?;
    if token.text("sub").is_none_or(str::is_empty) {
        return Err(Why::claims("there is no `sub`").into());
    }
    keys.verify(issuer, definition, token, now).await?;
    let replay = definition.replay()?;
    let once = once(token, replay)?;
    let people = issuer.row.people.then_some(&definition.audience);
    let sign_in = people.map(|client| sign_in::read(token, &issuer.row.name, client, now));
    let sign_in = sign_in.transpose()?;
    Ok(Examined { expires_at, issued_at, replay, once, sign_in })
}

/// Checks that it is for us: `aud` is our audience, or a list with it (RFC 7519, section 4.1.3).
fn check_audience(token: &Token, ours: &str) -> Result<(), Why> {
    let for_us = match token.claims.get("aud") {
        Some(Value::String(one)) => one == ours,
        Some(Value::Array(list)) => {
            let texts = list.iter().all(Value::is_string);
            texts && list.len() <= AUDIENCES && list.iter().any(|one| one.as_str() == Some(ours))
        }
        Some(_) | None => false,
    };
    if for_us {
        return Ok(());
    }
    Err(Why::new("TOKEN_AUDIENCE", format!("its `aud` is not {ours}")))
}

/// Checks when it is good, and tells when that began and ends (RFC 7519, sections 4.1.4 to 4.1.6).
fn check_times(
    token: &Token,
    preset: Preset,
    now: UnixMillis,
) -> Result<(UnixMillis, UnixMillis), Why> {
    let skew = i64::try_from(SKEW.as_millis()).unwrap_or(0);
    let expires = moment(token, "exp")?.ok_or_else(|| Why::time("there is no `exp`"))?;
    let (from, issued) = (moment(token, "nbf")?, moment(token, "iat")?);
    let known = match preset {
        // They all say it; one that does not is of somebody else's making.
        Preset::GitHub | Preset::GitLab | Preset::Kubernetes => from,
        Preset::People | Preset::Generic => from.or(issued),
    };
    let began = known.ok_or_else(|| Why::time("there is no `nbf`"))?;
    if expires.0.saturating_add(skew) <= now.0 {
        return Err(Why::time("it is over"));
    }
    // From its beginning, and not from now: one that is good for a year is not believed on its last day.
    if expires.since(issued.unwrap_or(began)) > LASTS {
        return Err(Why::time("it is good for more than 24 hours"));
    }
    let ahead = |at: Option<UnixMillis>| at.is_some_and(|at| at.0 > now.0.saturating_add(skew));
    if ahead(from) || ahead(issued) {
        return Err(Why::time("it is not good yet"));
    }
    Ok((issued.map_or(began, |issued| issued.min(began)), expires))
}

/// Reads a `NumericDate`; a fraction is cut off.
pub(super) fn moment(token: &Token, name: &str) -> Result<Option<UnixMillis>, Why> {
    let Some(value) = token.claims.get(name) else { return Ok(None) };
    let malformed = || Why::time(format!("its `{name}` is no time"));
    let seconds = match value.as_i64() {
        Some(seconds) => seconds,
        None => whole(value.as_f64().ok_or_else(malformed)?).ok_or_else(malformed)?,
    };
    // Up to the year 9999.
    if !(0..=253_402_300_799).contains(&seconds) {
        return Err(malformed());
    }
    seconds.checked_mul(1_000).map(UnixMillis).map(Some).ok_or_else(malformed)
}

/// Cuts a fraction off.
fn whole(seconds: f64) -> Option<i64> {
    // Through text: there is no checked way from one to the other.
    seconds.is_finite().then(|| format!("{:.0}", seconds.floor()).parse().ok()).flatten()
}

/// Names what of a token may be used once.
fn once(token: &Token, replay: Replay) -> Result<String, Why> {
    match replay {
        Replay::Once => match token.text("jti") {
            Some(id) if (1..=512).contains(&id.len()) => Ok(id.to_owned()),
            Some(_) | None => Err(Why::claims("there is no `jti`, by which it would be used once")),
        },
        Replay::Hash => Ok(data_encoding::HEXLOWER.encode(&token.hash())),
        Replay::Bound => match claim(&token.claims, POD).and_then(Value::as_str) {
            Some(pod) if (1..=512).contains(&pod.len()) => Ok(pod.to_owned()),
            Some(_) | None => Err(Why::claims("it is bound to no pod")),
        },
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn token(claims: &str) -> Token {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let payload = format!(r#"{{"iss":"https://i"{claims}}}"#);
        Token::parse(&format!("{}.{}.AAAA", part(r#"{"alg":"RS256"}"#), part(&payload))).unwrap()
    }

    #[test]
    fn an_audience_is_ours_exactly_or_in_a_list_of_texts() {
        for (aud, fits) in [
            (r#""vault""#, true),
            (r#"["a","vault"]"#, true),
            (r#""Vault""#, false),
            (r#""vault/""#, false),
            (r#""vault.evil""#, false),
            (r#"["a"]"#, false),
            (r#"["vault",1]"#, false),
            ("[]", false),
            ("null", false),
            (r#"{"vault":1}"#, false),
        ] {
            let read = token(&format!(r#","aud":{aud}"#));
            assert_eq!(check_audience(&read, "vault").is_ok(), fits, "{aud}");
        }
        assert!(check_audience(&token(""), "vault").is_err());
    }

    #[test]
    fn a_token_is_good_within_its_times_and_a_minute() {
        let at = |offset: i64| NOW.seconds() + offset;
        let all = |exp: i64, nbf: i64, iat: i64| {
            format!(r#","exp":{},"nbf":{},"iat":{}"#, at(exp), at(nbf), at(iat))
        };
        for (claims, fits) in [
            (all(300, 0, 0), true),
            (all(-59, -300, -300), true),
            (all(-60, -300, -300), false),
            (all(300, 60, 60), true),
            (all(300, 61, 0), false),
            (all(300, 0, 61), false),
            (all(86_400, 0, 0), true),
            (all(86_401, 0, 0), false),
            (all(60, -86_400, -86_340), true),
            (all(60, -86_341, -86_341), false),
            (format!(r#","exp":{}.9,"nbf":{}.5"#, at(300), at(0)), true),
            (format!(r#","nbf":{}"#, at(0)), false),
            (format!(r#","exp":{}"#, at(300)), false),
            (format!(r#","exp":"{}","nbf":{}"#, at(300), at(0)), false),
            (format!(r#","exp":-1,"nbf":{}"#, at(0)), false),
            (format!(r#","exp":1e300,"nbf":{}"#, at(0)), false),
            (format!(r#","exp":null,"nbf":{}"#, at(0)), false),
        ] {
            let checked = check_times(&token(&claims), Preset::GitHub, NOW);
            assert_eq!(checked.is_ok(), fits, "{claims}: {checked:?}");
        }
        let issued = token(&format!(r#","exp":{},"iat":{}"#, at(300), at(0)));
        assert!(check_times(&issued, Preset::Generic, NOW).is_ok());
        assert!(check_times(&issued, Preset::GitLab, NOW).is_err(), "it says `nbf`");
    }

    #[test]
    fn what_is_used_once_is_there_or_the_token_is_refused() {
        let pod = r#","kubernetes.io":{"pod":{"uid":"p"}},"jti":"j""#;
        assert_eq!(once(&token(pod), Replay::Once).as_deref(), Ok("j"));
        assert_eq!(once(&token(pod), Replay::Bound).as_deref(), Ok("p"));
        assert_eq!(once(&token(pod), Replay::Hash).unwrap().len(), 64);
        for mode in [Replay::Once, Replay::Bound] {
            assert!(once(&token(""), mode).is_err());
        }
    }
}
