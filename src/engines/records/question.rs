//! What is asked of the record: parsed at the edge, resolved to ids when it was decided.

use futures_util::FutureExt as _;

use crate::audit::{Ended, Filter};
use crate::crypto::{Encoder, hex, sha256};
use crate::error::{Error, Result};
use crate::store::identities;
use crate::types::{Id, IdentityId, IdentityName, ResourcePattern, UnixMillis};
use crate::vault::View;

/// Bytes of an action, an outcome or a worker's name at most.
const WORD_BYTES: usize = 128;
/// What a worker of the vault is called by.
const SYSTEM: &str = "system/";

/// Whose doing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    /// An identity, by name.
    Name(IdentityName),
    /// An identity, by id.
    Id(IdentityId),
    /// A worker of the vault.
    Worker(String),
}

impl Who {
    /// Reads a name, an id or `system/<worker>`; none of the empty text.
    fn parse(text: &str) -> Result<Option<Self>> {
        if text.is_empty() {
            return Ok(None);
        }
        if let Some(worker) = text.strip_prefix(SYSTEM) {
            return word(worker, "the worker").map(|worker| worker.map(Self::Worker));
        }
        match text.parse::<Id>() {
            Ok(id) => Ok(Some(Self::Id(IdentityId(id)))),
            Err(_) => text.parse().map(|name| Some(Self::Name(name))),
        }
    }
}

/// Which entries are meant; what is none fits everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    who: Option<Who>,
    action: Option<String>,
    outcome: Option<Ended>,
    resource: Option<ResourcePattern>,
    object: Option<Id>,
    from: Option<UnixMillis>,
    before: Option<UnixMillis>,
}

/// A question as it comes from outside.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw<'a> {
    /// Whose doing.
    pub identity: &'a str,
    /// The action.
    pub action: &'a str,
    /// A pattern of resources.
    pub resource: &'a str,
    /// How it ended.
    pub outcome: &'a str,
    /// The id of a resource or a credential.
    pub object: &'a str,
    /// Not before, in Unix milliseconds; 0 for no limit.
    pub from_ms: i64,
    /// Before, in Unix milliseconds; 0 for no limit.
    pub to_ms: i64,
}

impl Question {
    /// Reads a question.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no name, id or pattern.
    pub fn parse(raw: Raw<'_>) -> Result<Self> {
        let Raw { identity, action, resource, outcome, object, from_ms, to_ms } = raw;
        if from_ms < 0 || to_ms < 0 {
            return Err(Error::invalid("a time must not be negative"));
        }
        let outcome = word(outcome, "the outcome")?.map(|outcome| match outcome.as_str() {
            "ok" => Ended::As("OK".to_owned()),
            "refused" => Ended::Refused,
            _ => Ended::As(outcome),
        });
        Ok(Self {
            who: Who::parse(identity)?,
            action: word(action, "the action")?,
            outcome,
            resource: filled(resource).map(str::parse).transpose()?,
            object: filled(object).map(str::parse).transpose()?,
            from: (from_ms > 0).then_some(UnixMillis(from_ms)),
            before: (to_ms > 0).then_some(UnixMillis(to_ms)),
        })
    }

    /// What a page's token is bound to.
    pub(super) fn binding(&self) -> String {
        hex(&sha256(
            &Encoder::new("strongroom/records/question/v1").text(&format!("{self:?}")).finish(),
        ))
    }

    /// Finds the identity and says what to look for.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a name that nobody has.
    pub(super) async fn filter(&self, view: &View) -> Result<Filter> {
        let (identity, worker) = match &self.who {
            None => (None, None),
            Some(Who::Id(id)) => (Some(*id), None),
            Some(Who::Worker(worker)) => (None, Some(worker.clone())),
            Some(Who::Name(name)) => {
                let name = name.clone();
                let found = view
                    .read(move |tx| {
                        async move { Ok(identities::identity_named(tx, &name).await?) }.boxed()
                    })
                    .await?;
                let found = found.ok_or_else(|| Error::not_found("no identity has that name"))?;
                (Some(found.row.id), None)
            }
        };
        Ok(Filter {
            identity,
            worker,
            action: self.action.clone(),
            outcome: self.outcome.clone(),
            resource: self.resource.clone(),
            object: self.object,
            from: self.from,
            to: self.before.map(|before| UnixMillis(before.0.saturating_sub(1))),
        })
    }
}

fn filled(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Reads an action, an outcome or a worker's name: one word of visible ASCII.
fn word(text: &str, what: &str) -> Result<Option<String>> {
    if text.len() > WORD_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::invalid(format!("{what} must be one word of at most 128 characters")));
    }
    Ok(filled(text).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_names_nothing_real_is_refused() {
        let long = "a".repeat(129);
        for raw in [
            Raw { identity: "Alice", ..Raw::default() },
            Raw { identity: "a\n", ..Raw::default() },
            Raw { identity: "system/a b", ..Raw::default() },
            Raw { action: "a b", ..Raw::default() },
            Raw { action: &long, ..Raw::default() },
            Raw { outcome: "o\u{2028}k", ..Raw::default() },
            Raw { resource: "database/**/x", ..Raw::default() },
            Raw { object: "7", ..Raw::default() },
            Raw { from_ms: -1, ..Raw::default() },
            Raw { to_ms: i64::MIN, ..Raw::default() },
        ] {
            assert!(Question::parse(raw).is_err(), "{raw:?}");
        }
        assert_eq!(Question::parse(Raw::default()), Ok(Question::default()));
    }

    #[test]
    fn who_is_a_name_an_id_or_a_worker() {
        let parsed = Id::from_bytes([7; 16]);
        assert_eq!(Who::parse(&parsed.to_string()), Ok(Some(Who::Id(IdentityId(parsed)))));
        assert_eq!(Who::parse("ci/a"), Ok(Some(Who::Name("ci/a".parse().unwrap()))));
        assert_eq!(Who::parse("system/upkeep"), Ok(Some(Who::Worker("upkeep".into()))));
        assert_eq!(Who::parse(""), Ok(None));
    }

    #[test]
    fn another_question_has_another_binding() {
        let ask = |raw| Question::parse(raw).unwrap().binding();
        let one = ask(Raw { action: "pki.sign", ..Raw::default() });
        assert_eq!(one, ask(Raw { action: "pki.sign", ..Raw::default() }));
        for raw in [
            Raw::default(),
            Raw { action: "pki.issue", ..Raw::default() },
            Raw { outcome: "pki.sign", ..Raw::default() },
            Raw { action: "pki.sign", from_ms: 1, ..Raw::default() },
            Raw { action: "pki.sign", to_ms: 1, ..Raw::default() },
        ] {
            assert_ne!(one, ask(raw), "{raw:?}");
        }
    }
}
