//! Notices, written in the transaction of what they are about: none is lost, and none is sent for
//! what did not happen. Must not know who sends them, nor where.
//!
//! They are numbered by one row that the transaction holds until it is over. So numbers have no gap
//! and follow the order of commits: a sink that goes through them one by one misses none that
//! commits late, and notices where somebody took one out of the database.

use serde::{Deserialize, Serialize};

use super::Decision;
use crate::error::{Error, Result};
use crate::store::Tx;
use crate::store::notices::{self, NoticeHeadRow, NoticeRow};
use crate::types::{NoticeKind, NoticeNumber, RequestContext, Verb};

/// What there is to tell: the same fields for every kind, empty where they do not apply. Nothing
/// secret ever stands in an elevation or in a ceremony, and nothing else is told here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoticeFacts {
    /// The elevation's id.
    pub elevation: String,
    /// The ceremony's id.
    pub ceremony: String,
    /// The name of its role.
    pub role: String,
    /// The name of who asked for it.
    pub requester: String,
    /// Where it is.
    pub state: String,
    /// Why it is over, where there is something to say.
    pub why: String,
    /// The name of who did what this is about: an identity, or a worker of the vault.
    pub by: String,
    /// The resources that were asked for.
    pub resources: Vec<String>,
    /// The actions on them.
    pub actions: Vec<String>,
    /// Why it was asked for, in the words of who asked.
    pub reason: String,
    /// The ticket.
    pub ticket: String,
    /// How long it is in force, in seconds.
    pub ttl_s: i64,
    /// When it was asked for, as RFC 3339; so are the others.
    pub requested_at: Option<String>,
    /// From when on it may be activated.
    pub starts_at: Option<String>,
    /// When it came into force.
    pub activated_at: Option<String>,
    /// When it ends.
    pub ends_at: Option<String>,
    /// Names of who approved it.
    pub approved_by: Vec<String>,
    /// Names of who denied it.
    pub denied_by: Vec<String>,
    /// The step whose turn it is, from 1.
    pub step: Option<usize>,
    /// The elevation that it prolongs.
    pub extends: String,
    /// Whether nobody approved it beforehand.
    pub break_glass: bool,
    /// Whether what is made under it may stand by itself.
    pub standing: bool,
    /// By when it has to be reviewed.
    pub review_due: Option<String>,
    /// What the review found.
    pub verdict: String,
    /// The review in words.
    pub review: String,
    /// What was made that stands, or what a role says.
    pub detail: String,
}

/// People that a notice is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipients {
    /// The group by which they are, where it is by one.
    pub group: Option<String>,
    /// Their names.
    pub people: Vec<String>,
}

/// Writes a notice.
///
/// # Errors
/// What the store answers; [`Error::Tampered`] where the row that numbers them is not what was
/// sealed.
pub async fn post_notice(
    ctx: &RequestContext,
    tx: &mut Tx,
    kind: NoticeKind,
    facts: &NoticeFacts,
    recipients: &[Recipients],
) -> Result<NoticeNumber> {
    let head = notices::hold_head(tx).await?;
    let number = NoticeNumber(head.row.last).next();
    let next = NoticeHeadRow { last: number.0, changed_at: ctx.now, ..head.row };
    tx.update(head.version, &next).await?;
    let row = NoticeRow {
        id: number,
        kind,
        facts: serde_json::to_string(facts).map_err(Error::internal)?,
        recipients: serde_json::to_string(recipients).map_err(Error::internal)?,
        request: ctx.request_id,
        created_at: ctx.now,
        created_by: ctx.actor(),
    };
    tx.insert(&row).await?;
    Ok(number)
}

/// Writes that something was made under an elevation that stays when it is over. Whom it is for is
/// found when it is sent, by the elevation: here nothing is known of roles.
pub(super) async fn tell_standing(
    ctx: &RequestContext,
    tx: &mut Tx,
    action: &str,
    decision: &Decision,
) -> Result<()> {
    let Some(subject) = &decision.subject else { return Ok(()) };
    if !Verb::lookup(action).is_some_and(|verb| verb.standing) {
        return Ok(());
    }
    let name = subject.identity.row.name.to_string();
    let made: Vec<_> = decision.resources.iter().map(|one| one.name.to_string()).collect();
    for id in decision.under().each() {
        let facts = NoticeFacts {
            elevation: id.to_string(),
            requester: name.clone(),
            by: name.clone(),
            detail: format!("{action} on {}", made.join(", ")),
            ..NoticeFacts::default()
        };
        post_notice(ctx, tx, NoticeKind::StandingMade, &facts, &[]).await?;
    }
    Ok(())
}
