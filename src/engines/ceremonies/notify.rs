//! Tells who asked for a ceremony, and the administrators, what becomes of it, in the commit that
//! makes it so: by the notices that tell of elevations.

use super::case::Case;
use super::show::Ceremony;
use crate::engines::elevations::{goes_on_untold, must_tell_of_identity};
use crate::engines::identities::Names;
use crate::error::Result;
use crate::store::Tx;
use crate::types::{CeremonyState, NoticeKind, RequestContext};
use crate::vault::NoticeFacts;

/// The term that holds the words of who asked.
const REASON: &str = "reason";

/// Tells of an event. What ends a ceremony goes on where nobody can be told; nothing is asked for,
/// approved or done unseen.
pub(super) async fn event(
    ctx: &RequestContext,
    tx: &mut Tx,
    case: &Case,
    kind: NoticeKind,
) -> Result<()> {
    match case.found.row.state {
        CeremonyState::Open | CeremonyState::Performed => tell(ctx, tx, case, kind).await,
        CeremonyState::Denied | CeremonyState::Cancelled | CeremonyState::Expired => {
            let part = tx.begin_part().await?;
            let told = tell(ctx, tx, case, kind).await;
            goes_on_untold(tx, part, (case.found.row.id.0, kind), told).await
        }
    }
}

async fn tell(ctx: &RequestContext, tx: &mut Tx, case: &Case, kind: NoticeKind) -> Result<()> {
    let it = Ceremony::of(tx, &mut Names::default(), case, ctx.now).await?;
    must_tell_of_identity(ctx, tx, &case.requester, kind, &facts(&it)).await
}

fn facts(it: &Ceremony) -> NoticeFacts {
    let (words, others): (Vec<_>, Vec<_>) =
        it.about.terms.iter().partition(|term| term.name == REASON);
    let others = others.iter().map(|term| format!("{}: {}", term.name, term.value));
    let voters = |approves: bool| {
        let of = it.votes.iter().filter(move |(_, vote)| vote.approves == approves);
        of.map(|(by, _)| by.to_string()).collect()
    };
    let denial = it.votes.iter().find(|(_, vote)| !vote.approves);
    NoticeFacts {
        ceremony: it.row.id.to_string(),
        requester: it.identity.to_string(),
        state: it.shown_state().to_owned(),
        why: denial.map(|(_, vote)| vote.reason.clone()).unwrap_or_default(),
        by: it.changed_by.clone(),
        resources: it.about.resources.clone(),
        actions: vec![it.about.action.clone()],
        reason: words.first().map(|term| term.value.clone()).unwrap_or_default(),
        requested_at: Some(it.row.requested_at.to_string()),
        ends_at: Some(it.row.expires_at.to_string()),
        approved_by: voters(true),
        denied_by: voters(false),
        detail: others.collect::<Vec<_>>().join("; "),
        ..NoticeFacts::default()
    }
}
