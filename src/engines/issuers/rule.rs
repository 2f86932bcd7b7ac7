//! What a rule wants of a token's claims, and what it yields. Must not know who issued the token.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::template::Template;
use crate::engines::identities::{LONG, check_text};
use crate::error::{Error, Result};

/// Claims that a rule binds, values that one may have, bytes of a name.
const CLAIMS: usize = 32;
const VALUES: usize = 64;
const NAME: usize = 256;
/// How long a session lives where nobody says, and at the most however often it is renewed, in
/// seconds.
const USUAL_S: u64 = 900;
const USUAL_MOST_S: u64 = 3_600;
const MOST_S: u64 = 24 * 3_600;

/// A value, with its type: the text `1` and the number are two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// True or false.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
}

impl Scalar {
    /// Tells whether a claim is exactly this.
    fn is(&self, claim: &Value) -> bool {
        match (self, claim) {
            (Self::Flag(one), Value::Bool(other)) => one == other,
            (Self::Number(one), Value::Number(other)) => other.as_i64() == Some(*one),
            (Self::Text(one), Value::String(other)) => one == other,
            (Self::Flag(_) | Self::Number(_) | Self::Text(_), _) => false,
        }
    }

    /// Shows it as JSON does.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => Value::String(text.clone()).to_string(),
        }
    }
}

/// A claim, and what it may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Its name; the names that lead to it are joined by `/`, as in a JSON pointer (RFC 6901).
    pub claim: String,
    /// The values of which it must be one.
    pub any: Vec<Scalar>,
}

impl Condition {
    /// Wants a claim to be one text.
    pub(super) fn text(claim: &str, value: &str) -> Self {
        Self { claim: claim.to_owned(), any: vec![Scalar::Text(value.to_owned())] }
    }

    /// Shows it as part of a sentence.
    fn shown(&self) -> String {
        let values: Vec<_> = self.any.iter().map(Scalar::shown).collect();
        format!("{} {}", self.claim, values.join(" or "))
    }
}

/// What a rule wants, and what it yields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleDefinition {
    /// What the claims must be.
    pub claims: Vec<Condition>,
    /// How it names identities, where it names none by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// How long a session lives where nobody asks for less, in seconds.
    pub ttl_s: u64,
    /// How long renewals carry it, in seconds.
    pub max_ttl_s: u64,
}

/// Finds a claim by the names that lead to it.
pub(super) fn claim<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut names = path.split('/').map(|name| name.replace("~1", "/").replace("~0", "~"));
    let first = claims.get(&names.next()?)?;
    names.try_fold(first, |value, name| value.as_object()?.get(&name))
}

impl RuleDefinition {
    /// Reads what a row holds.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn read(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(Error::internal)
    }

    /// Writes what a row holds.
    ///
    /// # Errors
    /// [`Error::Internal`], which this type excludes.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(Error::internal)
    }

    /// Fills in what was left out, and checks what can be known without the issuer.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what is wrong.
    pub fn checked(mut self) -> Result<Self> {
        if self.max_ttl_s == 0 {
            self.max_ttl_s = self.ttl_s.max(USUAL_MOST_S);
        }
        if self.ttl_s == 0 {
            self.ttl_s = USUAL_S.min(self.max_ttl_s);
        }
        if self.ttl_s > self.max_ttl_s || self.max_ttl_s > MOST_S {
            return Err(Error::invalid(format!(
                "a session lives no longer than its maximum, and that is at most {MOST_S} seconds"
            )));
        }
        if self.claims.len() > CLAIMS {
            return Err(Error::invalid(format!("a rule binds at most {CLAIMS} claims")));
        }
        let mut names: Vec<_> = self.claims.iter().map(|one| one.claim.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() != self.claims.len() {
            return Err(Error::invalid(
                "a rule names a claim once, with all values that it may have",
            ));
        }
        for Condition { claim, any } in &self.claims {
            if claim.is_empty() || claim.len() > NAME {
                return Err(Error::invalid(format!("a claim's name has 1 to {NAME} bytes")));
            }
            check_text("a claim's name", claim, LONG)?;
            if any.is_empty() || any.len() > VALUES {
                return Err(Error::invalid(format!("a claim is bound to 1 to {VALUES} values")));
            }
            for value in any {
                if let Scalar::Text(text) = value {
                    check_text("a claim's value", text, LONG)?;
                }
            }
        }
        if let Some(template) = &self.template {
            template.check()?;
        }
        Ok(self)
    }

    /// Tells whether a claim is bound.
    pub(super) fn binds(&self, claim: &str) -> bool {
        self.claims.iter().any(|one| one.claim == claim)
    }

    /// Tells what keeps a token from matching; nothing where it matches.
    pub(super) fn objection(&self, claims: &Map<String, Value>) -> Option<String> {
        self.claims.iter().find_map(|wanted| {
            let found = claim(claims, &wanted.claim);
            if found.is_some_and(|found| wanted.any.iter().any(|one| one.is(found))) {
                return None;
            }
            Some(match found {
                Some(found) => {
                    let found: String = found.to_string().chars().take(200).collect();
                    format!("it wants {}, and the token says {found}", wanted.shown())
                }
                None => format!("it wants {}, and the token has no such claim", wanted.shown()),
            })
        })
    }

    /// Says all of it in one sentence.
    #[must_use]
    pub fn sentence(&self, issuer: &str, audience: &str, identity: &str) -> String {
        let wanted: Vec<_> = self.claims.iter().map(Condition::shown).collect();
        let wanted = match wanted.split_last() {
            Some((last, [])) => format!(" with {last}"),
            Some((last, rest)) => format!(" with {} and {last}", rest.join(", ")),
            None => String::new(),
        };
        let whom = match &self.template {
            None => identity.to_owned(),
            Some(template) => template.sentence(),
        };
        format!(
            "a token of {issuer} for the audience {audience}{wanted} logs in as {whom}, for {} at a \
             time and {} in all",
            span(self.ttl_s),
            span(self.max_ttl_s)
        )
    }
}

/// Shows a span in the largest unit that fits.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        s if s > 0 && s.is_multiple_of(86_400) => format!("{} d", s / 86_400),
        s if s > 0 && s.is_multiple_of(3_600) => format!("{} h", s / 3_600),
        s if s > 0 && s.is_multiple_of(60) => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> RuleDefinition {
        let claims: Vec<Condition> = serde_json::from_str(json).unwrap();
        RuleDefinition { claims, template: None, ttl_s: 0, max_ttl_s: 0 }.checked().unwrap()
    }

    fn object(json: &str) -> Map<String, Value> {
        super::super::json::object(json.as_bytes()).unwrap()
    }

    #[test]
    fn claims_match_exactly_and_by_type() {
        for (wanted, token, fits) in [
            (r#"["1"]"#, r#""1""#, true),
            (r#"["1"]"#, "1", false),
            ("[1]", "1", true),
            ("[1]", r#""1""#, false),
            ("[1]", "1.0", false),
            ("[1]", "true", false),
            ("[true]", "true", true),
            ("[true]", r#""true""#, false),
            (r#"["a"]"#, r#""A""#, false),
            (r#"["a"]"#, r#""a ""#, false),
            (r#"["a"]"#, r#"["a"]"#, false),
            (r#"["a*"]"#, r#""ab""#, false),
            (r#"["a","b"]"#, r#""b""#, true),
            (r#"["a"]"#, "null", false),
        ] {
            let rule = rule(&format!(r#"[{{"claim":"c","any":{wanted}}}]"#));
            let objection = rule.objection(&object(&format!(r#"{{"c":{token}}}"#)));
            assert_eq!(objection.is_none(), fits, "{wanted} and {token}: {objection:?}");
        }
        assert!(rule(r#"[{"claim":"c","any":["a"]}]"#).objection(&object("{}")).is_some());
    }

    #[test]
    fn a_claim_that_lies_deeper_is_named_by_its_way() {
        let claims = object(r#"{"kubernetes.io":{"serviceaccount":{"uid":"u"}},"a/b":{"c":"d"}}"#);
        for (path, found) in [
            ("kubernetes.io/serviceaccount/uid", Some("u")),
            ("a~1b/c", Some("d")),
            ("a/b", None),
            ("kubernetes.io/serviceaccount/uid/x", None),
            ("", None),
        ] {
            assert_eq!(claim(&claims, path).and_then(Value::as_str), found, "{path}");
        }
    }

    #[test]
    fn a_rule_is_said_in_one_sentence() {
        let rule = rule(
            r#"[{"claim":"repository_id","any":["7"]},{"claim":"event_name","any":["push","schedule"]}]"#,
        );
        assert_eq!(
            rule.sentence("gh", "vault", "etl"),
            "a token of gh for the audience vault with repository_id \"7\" and event_name \"push\" or \
             \"schedule\" logs in as etl, for 15 min at a time and 1 h in all"
        );
    }
}
