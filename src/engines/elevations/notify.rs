//! Tells whom it concerns what became of an elevation or a role, in the commit that makes it so.
//!
//! Who is told of what stands in one table, [`crate::types::NOTICES`]. What takes rights away never
//! fails because somebody cannot be told: that is an alarm, and the rest goes on without it. What
//! gives rights does: nobody breaks the glass unseen.

use super::definition::{RoleDefinition, Step, current_step};
use super::eligible::same_human;
use super::propose::Proposal;
use super::review::Review;
use super::scope::Resources;
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::elevations::{ElevationRoleRow, ElevationRow};
use crate::store::identities::{self, GroupRow, IdentityRow};
use crate::store::{Part, Tx, Versioned};
use crate::types::{
    Audience, ElevationEvent, ElevationId, GroupId, Id, Kind, NoticeKind, Owner, RequestContext,
    UnixMillis,
};
use crate::vault::{
    ADMINISTRATORS, ElevationScope, NoticeFacts, Recipients, Vote, is_active, post_notice,
};

/// Humans of a group that are named one by one; the first by name. Larger ones have an address of
/// their own.
const MEMBERS: i64 = 200;

/// What a notice is about.
struct Matter {
    definition: RoleDefinition,
    requester: Option<IdentityRow>,
    owners: Vec<Owner>,
    /// Steps whose approvers are told.
    steps: Vec<Step>,
    /// When: who is not in force then is told nothing.
    now: UnixMillis,
}

/// Tells of an event of the table of transitions; of those that lead on to another at once, nothing.
pub(super) async fn event(
    ctx: &RequestContext,
    tx: &mut Tx,
    row: &ElevationRow,
    event: ElevationEvent,
) -> Result<()> {
    let prolongs = ElevationScope::read(&row.scope)?.extends.is_some();
    let kind = match event {
        ElevationEvent::Submit => NoticeKind::Requested,
        ElevationEvent::BreakGlass => NoticeKind::EmergencyRequested,
        ElevationEvent::Complete => NoticeKind::Approved,
        ElevationEvent::Deny => NoticeKind::Denied,
        ElevationEvent::Withdraw => NoticeKind::Withdrawn,
        ElevationEvent::Expire => NoticeKind::Expired,
        ElevationEvent::Fail => NoticeKind::ActivationFailed,
        ElevationEvent::Revoke => NoticeKind::Revoked,
        // Of one that prolongs another, that other is what is told.
        ElevationEvent::Confirm | ElevationEvent::End if prolongs => return Ok(()),
        ElevationEvent::Confirm if is_emergency(row)? => NoticeKind::EmergencyActivated,
        ElevationEvent::Confirm => NoticeKind::Activated,
        ElevationEvent::End => NoticeKind::Ended,
        ElevationEvent::Activate => return Ok(()),
    };
    if !row.state.is_over() {
        return elevation(ctx, tx, row, kind).await;
    }
    let part = tx.begin_part().await?;
    let told = elevation(ctx, tx, row, kind).await;
    goes_on_untold(tx, part, (row.id.0, kind), told).await
}

/// Ends a part in which somebody was to be told of something: where nobody could be, nothing of the
/// part stays but an alarm, and the rest goes on.
///
/// # Errors
/// What the store answers.
pub(in crate::engines) async fn goes_on_untold(
    tx: &mut Tx,
    part: Part,
    (of, kind): (Id, NoticeKind),
    told: Result<()>,
) -> Result<()> {
    if let Err(error) = &told {
        tracing::error!(alarm = true, %of, %kind, %error, "nobody could be told");
    }
    Ok(tx.end_part(part, told.is_ok()).await?)
}

/// Tells whether what is in force was approved by nobody.
fn is_emergency(row: &ElevationRow) -> Result<bool> {
    Ok(!Vote::read_all(&row.votes)?.iter().any(|vote| vote.approves))
}

/// Tells of an elevation.
pub(super) async fn elevation(
    ctx: &RequestContext,
    tx: &mut Tx,
    row: &ElevationRow,
    kind: NoticeKind,
) -> Result<()> {
    let (facts, recipients) = describe(tx, row, kind, ctx.now).await?;
    post_notice(ctx, tx, kind, &facts, &recipients).await.map(drop)
}

/// As [`must_tell_of_identity`], of what takes rights away: it goes on where nobody can be told, with
/// an alarm.
///
/// # Errors
/// What the store answers.
pub(in crate::engines) async fn tell_of_identity(
    ctx: &RequestContext,
    tx: &mut Tx,
    who: &IdentityRow,
    kind: NoticeKind,
    facts: &NoticeFacts,
) -> Result<()> {
    let part = tx.begin_part().await?;
    let told = must_tell_of_identity(ctx, tx, who, kind, facts).await;
    goes_on_untold(tx, part, (who.id.0, kind), told).await
}

/// Tells whoever answers for an identity, and the administrators, of what is no elevation's.
///
/// # Errors
/// What the store answers; [`Error::Tampered`] where a row that it needs is not what was sealed.
pub(in crate::engines) async fn must_tell_of_identity(
    ctx: &RequestContext,
    tx: &mut Tx,
    who: &IdentityRow,
    kind: NoticeKind,
    facts: &NoticeFacts,
) -> Result<()> {
    let mut all = Vec::new();
    requester(tx, who, ctx.now, &mut all).await?;
    groups(tx, &[ADMINISTRATORS.to_owned()], ctx.now, &mut all).await?;
    post_notice(ctx, tx, kind, facts, &all).await.map(drop)
}

/// Describes an elevation as it is, and who is to be told of it.
///
/// # Errors
/// [`Error::NotFound`] when there is none; what the store answers.
pub async fn describe_elevation(
    tx: &mut Tx,
    id: ElevationId,
    kind: NoticeKind,
    now: UnixMillis,
) -> Result<(NoticeFacts, Vec<Recipients>)> {
    let found = tx.lookup::<ElevationRow>(&id).await?.ok_or_else(super::unknown)?;
    describe(tx, &found.row, kind, now).await
}

async fn describe(
    tx: &mut Tx,
    row: &ElevationRow,
    kind: NoticeKind,
    now: UnixMillis,
) -> Result<(NoticeFacts, Vec<Recipients>)> {
    let missing = |what| move || Error::internal(what);
    let role = tx.lookup::<ElevationRoleRow>(&row.role).await?;
    let role = role.ok_or_else(missing("an elevation without its role"))?;
    let requester = tx.lookup::<IdentityRow>(&row.identity).await?;
    let requester = requester.ok_or_else(missing("an elevation of nobody"))?.row;
    let (scope, votes) = (ElevationScope::read(&row.scope)?, Vote::read_all(&row.votes)?);
    let definition = RoleDefinition::read(&role.row.definition)?;
    let owners = Resources::read(tx, &scope.resources).await?.owners.into_iter().flatten();
    let owners: Vec<_> = owners.map(|owned| owned.owner).collect();
    let given = |step| {
        let of = votes.iter().filter(|vote| vote.approves && vote.step == step).count();
        u32::try_from(of).unwrap_or(u32::MAX)
    };
    let given: Vec<_> = (0..definition.steps.len()).map(given).collect();
    let step = current_step(definition.steps.iter().map(|step| step.approvals), &given);
    let steps = step.and_then(|step| definition.steps.get(step)).cloned().into_iter().collect();
    let mut names = Names::default();
    let facts = NoticeFacts {
        by: names.actor(tx, &row.changed_by).await?,
        role: role.row.name.to_string(),
        requester: requester.name.to_string(),
        approved_by: voters(tx, &mut names, &votes, true).await?,
        denied_by: voters(tx, &mut names, &votes, false).await?,
        step: step.map(|step| step.saturating_add(1)),
        break_glass: definition.break_glass,
        ..facts_of(row, scope)?
    };
    let matter = Matter { definition, requester: Some(requester), owners, steps, now };
    let recipients = matter.recipients(tx, kind).await?;
    Ok((facts, recipients))
}

/// What a row says by itself.
fn facts_of(row: &ElevationRow, scope: ElevationScope) -> Result<NoticeFacts> {
    let text = |at: UnixMillis| at.to_string();
    let review = Review::read(&row.review)?;
    Ok(NoticeFacts {
        elevation: row.id.to_string(),
        state: row.state.to_string(),
        why: row.why.clone(),
        resources: scope.resources,
        actions: scope.actions,
        reason: scope.reason,
        ticket: scope.ticket,
        ttl_s: row.ttl_s,
        requested_at: Some(text(row.requested_at)),
        starts_at: Some(text(row.starts_at)),
        activated_at: row.activated_at.map(text),
        ends_at: row.ends_at.map(text),
        extends: scope.extends.unwrap_or_default(),
        standing: scope.standing,
        review_due: row.review_due.map(text),
        verdict: review.as_ref().map_or("", |review| review.verdict.as_str()).to_owned(),
        review: review.map(|review| review.note).unwrap_or_default(),
        ..NoticeFacts::default()
    })
}

async fn voters(
    tx: &mut Tx,
    names: &mut Names,
    votes: &[Vote],
    approves: bool,
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for vote in votes.iter().filter(|vote| vote.approves == approves) {
        found.push(names.actor(tx, &vote.by).await?);
    }
    Ok(found)
}

/// Tells of a role: what it says, or is to say, from the row as it was and as it is.
pub(super) async fn role(
    ctx: &RequestContext,
    tx: &mut Tx,
    (was, is): (&ElevationRoleRow, &ElevationRoleRow),
    kind: NoticeKind,
    why: &str,
) -> Result<()> {
    let mut names = Names::default();
    let json = if is.proposal.is_empty() { &was.proposal } else { &is.proposal };
    let proposal = Proposal::read(json)?;
    let said = RoleDefinition::read(&was.definition)?;
    let wanted = proposal.as_ref().map_or(&said, |proposal| &proposal.definition);
    let (mut requester, mut approved_by) = (String::new(), Vec::new());
    if let Some(proposal) = &proposal {
        requester = names.actor(tx, &proposal.by).await?;
        if !proposal.confirmed_by.is_empty() {
            approved_by.push(names.actor(tx, &proposal.confirmed_by).await?);
        }
    }
    let facts = NoticeFacts {
        role: is.name.to_string(),
        requester,
        approved_by,
        why: why.to_owned(),
        by: names.actor(tx, &ctx.actor()).await?,
        resources: wanted.resources.clone(),
        actions: wanted.actions.clone(),
        reason: wanted.purpose.clone(),
        break_glass: wanted.break_glass,
        standing: wanted.standing,
        starts_at: is.next_try.map(|at| at.to_string()),
        detail: wanted.to_json()?,
        ..NoticeFacts::default()
    };
    // Who approved and reviewed until now is told as well as who is to.
    let mut definition = said.clone();
    definition.reviewer_groups.extend(wanted.reviewer_groups.iter().cloned());
    let steps = said.steps.iter().chain(&wanted.steps).cloned().collect();
    let matter = Matter { definition, requester: None, owners: Vec::new(), steps, now: ctx.now };
    let recipients = matter.recipients(tx, kind).await?;
    post_notice(ctx, tx, kind, &facts, &recipients).await.map(drop)
}

impl Matter {
    async fn recipients(&self, tx: &mut Tx, kind: NoticeKind) -> Result<Vec<Recipients>> {
        let (mut all, now) = (Vec::new(), self.now);
        for audience in kind.audiences() {
            match audience {
                Audience::Requester => {
                    if let Some(who) = &self.requester {
                        requester(tx, who, now, &mut all).await?;
                    }
                }
                Audience::Owners => self.owners(tx, &mut all).await?,
                Audience::Approvers => {
                    for step in &self.steps {
                        groups(tx, &step.groups, now, &mut all).await?;
                        if step.owners {
                            self.owners(tx, &mut all).await?;
                        }
                    }
                }
                Audience::Reviewers => {
                    groups(tx, &self.definition.reviewer_groups, now, &mut all).await?;
                }
                Audience::Administrators => {
                    groups(tx, &[ADMINISTRATORS.to_owned()], now, &mut all).await?;
                }
            }
        }
        Ok(all)
    }

    async fn owners(&self, tx: &mut Tx, all: &mut Vec<Recipients>) -> Result<()> {
        for one in &self.owners {
            owner(tx, *one, self.now, all).await?;
        }
        Ok(())
    }
}

/// Adds people, unless they are there.
fn add(all: &mut Vec<Recipients>, group: Option<String>, people: Vec<String>) {
    let one = Recipients { group, people };
    if !all.contains(&one) {
        all.push(one);
    }
}

/// Adds somebody who is in force; of a machine, who answers for it.
async fn requester(
    tx: &mut Tx,
    who: &IdentityRow,
    now: UnixMillis,
    all: &mut Vec<Recipients>,
) -> Result<()> {
    if who.kind.is_machine() {
        return owner(tx, who.owner, now, all).await;
    }
    if is_active(who, now) {
        add(all, None, vec![who.name.to_string()]);
    }
    Ok(())
}

async fn owner(
    tx: &mut Tx,
    owner: Owner,
    now: UnixMillis,
    all: &mut Vec<Recipients>,
) -> Result<()> {
    match owner {
        Owner::Identity(id) => {
            let found = tx.lookup::<IdentityRow>(&id).await?;
            if let Some(found) = found.filter(|found| is_active(&found.row, now)) {
                add(all, None, vec![found.row.name.to_string()]);
            }
            Ok(())
        }
        Owner::Group(id) => match tx.lookup::<GroupRow>(&id).await? {
            Some(found) => group(tx, &found, now, all).await,
            None => Ok(()),
        },
    }
}

async fn groups(
    tx: &mut Tx,
    names: &[String],
    now: UnixMillis,
    all: &mut Vec<Recipients>,
) -> Result<()> {
    for found in named(tx, names).await? {
        group(tx, &found, now, all).await?;
    }
    Ok(())
}

async fn named(tx: &mut Tx, names: &[String]) -> Result<Vec<Versioned<GroupRow>>> {
    let mut all = Vec::new();
    for name in names {
        let name = name.parse().map_err(Error::internal)?;
        all.extend(identities::group_named(tx, &name).await?);
    }
    Ok(all)
}

async fn group(
    tx: &mut Tx,
    found: &Versioned<GroupRow>,
    now: UnixMillis,
    all: &mut Vec<Recipients>,
) -> Result<()> {
    let people = humans(tx, found.row.id, now).await?;
    let names = people.iter().map(|one| one.name.to_string()).collect();
    add(all, Some(found.row.name.to_string()), names);
    Ok(())
}

/// Lists the humans of a group who are in force: machines read no notices.
async fn humans(tx: &mut Tx, group: GroupId, now: UnixMillis) -> Result<Vec<IdentityRow>> {
    let mut people = Vec::new();
    for member in identities::humans_of(tx, group, now, MEMBERS).await? {
        let found = tx.lookup::<IdentityRow>(&member.row.identity_id).await?;
        let human = found.map(|found| found.row);
        people.extend(human.filter(|row| row.kind == Kind::Human && is_active(row, now)));
    }
    Ok(people)
}

/// Tells whether groups hold a human in force who is another than somebody.
pub(super) async fn reaches_another(
    tx: &mut Tx,
    names: &[String],
    who: &IdentityRow,
    now: UnixMillis,
) -> Result<bool> {
    for found in named(tx, names).await? {
        if humans(tx, found.row.id, now).await?.iter().any(|one| !same_human(one, who)) {
            return Ok(true);
        }
    }
    Ok(false)
}
