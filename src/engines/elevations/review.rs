//! Reviews of what was done in an emergency, which nobody approved beforehand, or under a role that
//! may make what stands.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::act::{Acting, Change, Held};
use super::notify;
use crate::error::{Error, Result};
use crate::store::{Needs, Tx};
use crate::types::NoticeKind;
use crate::vault::WRITES;

/// What a review found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReviewVerdict {
    /// It was an emergency, and dealt with as one.
    Accepted,
    /// It was not.
    Violation,
}

impl ReviewVerdict {
    /// Names it as the API does.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Violation => "violation",
        }
    }
}

impl std::str::FromStr for ReviewVerdict {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Accepted, Self::Violation];
        let found = all.into_iter().find(|verdict| verdict.as_str() == text);
        found.ok_or_else(|| Error::invalid("a verdict is accepted or violation"))
    }
}

/// A review, as the row of an elevation holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Review {
    /// Who reviewed it: an identity's id.
    pub by: String,
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// What was found.
    pub verdict: ReviewVerdict,
    /// In words.
    pub note: String,
}

impl Review {
    /// Reads what a row holds; none before the review.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn read(json: &str) -> Result<Option<Self>> {
        if json.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(json).map(Some).map_err(Error::internal)
    }
}

/// Reviews what was done: once, by somebody else.
#[derive(Debug, Clone)]
pub struct ReviewElevation {
    /// What was found.
    pub verdict: ReviewVerdict,
    /// In words.
    pub note: String,
}

#[async_trait]
impl Change for ReviewElevation {
    const ACTION: &'static str = "elevations.review";
    const NEEDS: Needs = WRITES;

    fn reason(&self) -> Option<&str> {
        Some(&self.note)
    }

    async fn apply(&self, by: &Acting<'_>, tx: &mut Tx, Held(case): &mut Held) -> Result<()> {
        case.check_reviewer(tx, by.subject, by.ctx.now).await?;
        let row = &case.found.row;
        if row.review_due.is_none() {
            return Err(Error::precondition("there is nothing to review, or it was reviewed"));
        }
        if !row.state.is_over() {
            return Err(Error::precondition("it is in force yet; review it when it is over"));
        }
        let review = Review {
            by: by.who().id.to_string(),
            at_ms: by.ctx.now.0,
            verdict: self.verdict,
            note: self.note.clone(),
        };
        let review = serde_json::to_string(&review).map_err(Error::internal)?;
        case.write(by.ctx, tx, |row| {
            row.review = review;
            row.review_due = None;
        })
        .await?;
        notify::elevation(by.ctx, tx, &case.found.row, NoticeKind::Reviewed).await
    }
}
