//! How a rule names identities by a token's claims, and how they are registered at first login.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::rule::{claim, span};
use crate::error::{Error, Result};
use crate::types::{IdentityName, Kind, Segment, Tier};

/// Identities that one template may register.
const MOST: u64 = 100_000;
/// How long one of them lives, in seconds: where nobody says, and at the most.
const LASTS_S: u64 = 90 * 86_400;
const LASTS_MOST_S: u64 = 365 * 86_400;
/// Bytes of a name.
const NAME: usize = 255;

/// Names identities, and registers them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The name, with claims in braces: `ci-{repository_id}`.
    pub name: String,
    /// The kind of machine.
    pub kind: String,
    /// The group that answers for them.
    pub owner_group: String,
    /// The group that they are put into; empty for none.
    pub group: String,
    /// How much harm the misuse of one could do.
    pub tier: String,
    /// How many it registers at the most.
    pub most: u64,
    /// How long one lives, in seconds.
    pub lasts_s: u64,
}

/// A piece of a template's name.
enum Piece<'a> {
    Fixed(&'a str),
    Claim(&'a str),
}

fn pieces(name: &str) -> Result<Vec<Piece<'_>>> {
    let unfit =
        || Error::invalid("a template is a name with claims in braces, like ci-{repository_id}");
    let (mut pieces, mut rest) = (Vec::new(), name);
    while let Some((fixed, after)) = rest.split_once('{') {
        let (claim, after) = after.split_once('}').ok_or_else(unfit)?;
        if claim.is_empty() || claim.contains('{') {
            return Err(unfit());
        }
        pieces.extend([Piece::Fixed(fixed), Piece::Claim(claim)]);
        rest = after;
    }
    pieces.push(Piece::Fixed(rest));
    if name.len() > NAME || !pieces.iter().any(|piece| matches!(piece, Piece::Claim(_))) {
        return Err(unfit());
    }
    Ok(pieces)
}

impl Template {
    /// The claims that it names identities by.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no template.
    pub(super) fn claims(&self) -> Result<Vec<&str>> {
        let claims = pieces(&self.name)?.into_iter().filter_map(|piece| match piece {
            Piece::Claim(claim) => Some(claim),
            Piece::Fixed(_) => None,
        });
        Ok(claims.collect())
    }

    /// Checks what can be known without the issuer.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what is wrong.
    pub(super) fn check(&self) -> Result<()> {
        let example: String = pieces(&self.name)?
            .iter()
            .map(|piece| match piece {
                Piece::Fixed(fixed) => fixed,
                Piece::Claim(_) => "0",
            })
            .collect();
        example.parse::<IdentityName>()?;
        if !self.kind()?.is_machine() {
            return Err(Error::invalid("a template registers machines"));
        }
        self.tier()?;
        self.owner_group.parse::<Segment>()?;
        if !self.group.is_empty() {
            self.group.parse::<Segment>()?;
        }
        if !(1..=MOST).contains(&self.most) {
            return Err(Error::invalid(format!("a template registers 1 to {MOST} identities")));
        }
        if !(1..=LASTS_MOST_S).contains(&self.lasts_s) {
            return Err(Error::invalid("what a template registers lives 365 days at the most"));
        }
        Ok(())
    }

    /// Fills in what was left out.
    pub(super) fn filled(mut self) -> Self {
        if self.lasts_s == 0 {
            self.lasts_s = LASTS_S;
        }
        if self.kind.is_empty() {
            Kind::Pipeline.as_str().clone_into(&mut self.kind);
        }
        if self.tier.is_empty() {
            Tier::Medium.as_str().clone_into(&mut self.tier);
        }
        self
    }

    /// The kind of machine.
    pub(super) fn kind(&self) -> Result<Kind> {
        self.kind.parse()
    }

    /// How much harm the misuse of one could do.
    pub(super) fn tier(&self) -> Result<Tier> {
        self.tier.parse()
    }

    /// Names the identity of a token, and says by which values; none where a claim is missing, or is
    /// no part of a name.
    pub(super) fn name_of(&self, claims: &Map<String, Value>) -> Option<(IdentityName, String)> {
        let (mut name, mut values) = (String::new(), Vec::new());
        for piece in pieces(&self.name).ok()? {
            match piece {
                Piece::Fixed(fixed) => name.push_str(fixed),
                Piece::Claim(path) => {
                    let value = match claim(claims, path)? {
                        Value::String(text) => text.clone(),
                        Value::Number(number) => number.as_i64()?.to_string(),
                        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                            return None;
                        }
                    };
                    // One value is never more than a part of one segment.
                    if value.is_empty() || value.contains('/') {
                        return None;
                    }
                    name.push_str(&value);
                    values.push(claim(claims, path)?.to_string());
                }
            }
        }
        Some((name.parse().ok()?, values.join(",")))
    }

    /// Says what it yields.
    pub(super) fn sentence(&self) -> String {
        let into = match self.group.as_str() {
            "" => String::new(),
            group => format!(" into the group {group}"),
        };
        format!(
            "{}, which is registered at its first login as a {} of tier {} that the group {} answers \
             for{into}, for {}, {} of them at the most",
            self.name,
            self.kind,
            self.tier,
            self.owner_group,
            span(self.lasts_s),
            self.most
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(name: &str) -> Template {
        Template {
            name: name.to_owned(),
            kind: String::new(),
            owner_group: "platform".to_owned(),
            group: String::new(),
            tier: String::new(),
            most: 10,
            lasts_s: 0,
        }
        .filled()
    }

    fn named(name: &str, claims: &str) -> Option<String> {
        let claims = super::super::json::object(claims.as_bytes()).unwrap();
        template(name).name_of(&claims).map(|(name, _)| name.to_string())
    }

    #[test]
    fn a_name_is_made_of_claims_that_are_parts_of_names() {
        assert_eq!(named("ci-{id}", r#"{"id":"7"}"#).as_deref(), Some("ci-7"));
        assert_eq!(named("ci/{a/b}", r#"{"a":{"b":7}}"#).as_deref(), Some("ci/7"));
        for bad in [
            "{}",
            r#"{"id":""}"#,
            r#"{"id":"a/b"}"#,
            r#"{"id":"A"}"#,
            r#"{"id":"a b"}"#,
            r#"{"id":".."}"#,
            r#"{"id":true}"#,
            r#"{"id":["7"]}"#,
            r#"{"id":1.5}"#,
        ] {
            assert_eq!(named("ci-{id}", bad), None, "{bad}");
        }
    }

    #[test]
    fn what_says_which_claims_it_stands_for_tells_them_apart() {
        let claims = |a: &str, b: &str| {
            let claims =
                super::super::json::object(format!(r#"{{"a":"{a}","b":"{b}"}}"#).as_bytes());
            template("{a}-{b}").name_of(&claims.unwrap()).unwrap()
        };
        let (one, other) = (claims("1-2", "3"), claims("1", "2-3"));
        assert_eq!(one.0, other.0);
        assert_ne!(one.1, other.1);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for bad in ["ci", "ci-{", "ci-{}", "ci-{a", "{{a}}", "CI-{a}", "ci//{a}", "-{a}"] {
            assert!(template(bad).check().is_err(), "{bad}");
        }
        assert!(template("ci-{a}").check().is_ok());
        assert!(Template { kind: "human".to_owned(), ..template("ci-{a}") }.check().is_err());
        assert!(Template { most: 0, ..template("ci-{a}") }.check().is_err());
    }
}
