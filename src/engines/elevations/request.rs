//! Asks for an elevation, or for more time of one: the scope is frozen here.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::case::Case;
use super::definition::{RoleDefinition, kinds};
use super::eligible::accounts;
use super::notify;
use super::roles::{find, no_such_role, resource};
use super::scope::{Resources, check, hash, stands_on};
use super::show::{self, Elevation, visible};
use super::unknown;
use super::window::open_until;
use crate::audit::Field;
use crate::engines::identities::{LONG, Names, SHORT, check_text};
use crate::error::{Error, Result};
use crate::store::elevations::{self as rows, ElevationRoleRow, ElevationRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    ElevationEvent, ElevationId, ElevationState, Id, Kind, RequestContext, ResourcePattern,
    Segment, UnixMillis, VaultId,
};
use crate::vault::{
    Decision, ElevationScope, FRESH, Note, Operation, Resource, RetryKey, Subject, Verb, View,
    WRITES,
};

/// How long a request waits for its approvals.
const WAITS: Duration = Duration::from_hours(1);
/// How far ahead it may begin.
const AHEAD: Duration = Duration::from_hours(7 * 24);
/// Resources of one request, and what an identity may have open.
const RESOURCES: usize = 16;
const OPEN: i64 = 20;
/// Resources of a role that a refusal names.
const SHOWN: usize = 4;
/// What an identity may ask for within an hour: each request is told to people.
const ASKED: i64 = 60;
const ASKED_WITHIN: i64 = 3_600_000;

/// Why, and for how long.
#[derive(Debug, Clone)]
pub struct Asked {
    /// How long; the role's usual time where there is none.
    pub ttl: Option<Duration>,
    /// Why.
    pub reason: String,
    /// The ticket that asks for it.
    pub ticket: String,
    /// Makes a retry find what the first try made.
    pub retry: Option<RetryKey>,
}

/// Asks for an elevation.
#[derive(Debug, Clone)]
pub struct RequestElevation {
    /// The role.
    pub role: Segment,
    /// The resources.
    pub resources: Vec<ResourcePattern>,
    /// From when on; at once where there is none.
    pub start: Option<UnixMillis>,
    /// Why, and for how long.
    pub asked: Asked,
}

/// Asks for more time of an elevation in force: approved as a request of its own.
#[derive(Debug, Clone)]
pub struct ExtendElevation {
    /// The elevation.
    pub id: ElevationId,
    /// Why, and for how long.
    pub asked: Asked,
}

/// A request that is about to be stored.
#[derive(Debug)]
pub struct Prepared {
    row: ElevationRow,
    vault: VaultId,
    dev: bool,
}

impl Asked {
    /// Checks what was said against the role; how long it is, in seconds.
    fn check(&self, role: &RoleDefinition) -> Result<i64> {
        check_text("a reason", &self.reason, LONG)?;
        check_text("a ticket", &self.ticket, SHORT)?;
        if role.reason_required && self.reason.trim().is_empty() {
            return Err(Error::invalid("this role wants a reason"));
        }
        if !role.ticket_pattern.is_empty() && !role.fits_ticket(&self.ticket)? {
            let pattern = &role.ticket_pattern;
            return Err(Error::invalid(format!("this role wants a ticket like {pattern}")));
        }
        let ttl_s = self.ttl.map_or(role.default_ttl_s, |ttl| ttl.as_secs());
        if ttl_s == 0 || ttl_s > role.max_ttl_s {
            return Err(Error::invalid(format!(
                "an elevation to this role lasts at most {} seconds",
                role.max_ttl_s
            )));
        }
        i64::try_from(ttl_s).map_err(Error::internal)
    }

    fn note(&self, note: &mut Note) {
        for (what, text) in [("", &self.reason), ("ticket ", &self.ticket)] {
            if !text.is_empty() {
                note.private.push((Field::Reason, format!("{what}{text}")));
            }
        }
    }
}

impl RoleDefinition {
    fn fits_ticket(&self, ticket: &str) -> Result<bool> {
        let pattern = self.ticket_pattern.parse::<super::ticket::TicketPattern>();
        Ok(pattern.map_err(Error::internal)?.matches(ticket))
    }

    /// Tells whether somebody may ask.
    pub(super) fn admits(&self, subject: &Subject) -> bool {
        let name = subject.identity.row.name.as_str();
        let in_group = |group: &String| {
            subject.groups.iter().any(|one| one.row.name.as_str() == group.as_str())
        };
        self.requesters.iter().any(|one| one == name) || self.requester_groups.iter().any(in_group)
    }

    /// Tells whether it still allows all of what was asked for before.
    fn allows(&self, scope: &ElevationScope) -> Result<bool> {
        for text in &scope.resources {
            if !self.covers(&text.parse().map_err(Error::internal)?)? {
                return Ok(false);
            }
        }
        let actions = self.expanded();
        let all = scope.actions.iter().all(|one| actions.contains(&one.as_str()));
        Ok(all && (self.standing || !scope.standing))
    }

    /// Says what may be asked for instead: a name stands for itself alone, and not for what is below
    /// it.
    fn covers_not(&self, wanted: &ResourcePattern) -> Error {
        let (shown, more) = self.resources.split_at(self.resources.len().min(SHOWN));
        let more = if more.is_empty() { "" } else { ", and more" };
        Error::Denied(
            format!(
                "the role covers {}{more}; {wanted} is not within that: ask for one of these, or for \
                 something below it by its full name",
                shown.join(", ")
            )
            .into(),
        )
    }

    fn covers(&self, wanted: &ResourcePattern) -> Result<bool> {
        for text in &self.resources {
            let pattern: ResourcePattern = text.parse().map_err(Error::internal)?;
            if pattern.covers(wanted) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl RequestElevation {
    fn start(&self, view: &View, role: &RoleDefinition) -> Result<Option<UnixMillis>> {
        let Some(start) = self.start else { return Ok(None) };
        if start < view.now() || start > view.now().plus(AHEAD)? {
            return Err(Error::invalid("an elevation starts from now on, within seven days"));
        }
        if open_until(&role.windows, start).is_none() {
            return Err(Error::precondition("it would start outside of the role's change windows"));
        }
        Ok(Some(start))
    }

    fn scope(&self, view: &View, role: &RoleDefinition) -> Result<ElevationScope> {
        let mut resources: Vec<_> = self.resources.iter().map(ToString::to_string).collect();
        resources.sort_unstable();
        resources.dedup();
        if resources.is_empty() || resources.len() > RESOURCES {
            return Err(Error::invalid(format!("ask for 1 to {RESOURCES} resources")));
        }
        for wanted in &self.resources {
            if !role.covers(wanted)? {
                return Err(role.covers_not(wanted));
            }
        }
        let scope = ElevationScope {
            resources,
            actions: role.expanded().into_iter().map(ToOwned::to_owned).collect(),
            ttl_s: self.asked.check(role)?,
            start_ms: self.start(view, role)?.map(|start| start.0),
            reason: self.asked.reason.clone(),
            ticket: self.asked.ticket.clone(),
            extends: None,
            standing: role.standing,
            stands_on: Vec::new(),
        };
        check(&scope)?;
        Ok(scope)
    }
}

/// Freezes a scope: with the rows that it stands on, as they are.
async fn freeze(
    view: &View,
    role: &Versioned<ElevationRoleRow>,
    definition: &RoleDefinition,
    mut scope: ElevationScope,
) -> Result<Prepared> {
    let subject = view.subject()?;
    if !definition.admits(subject) {
        return Err(Error::Denied(
            "the role does not let you ask; `elevate role show` says whom".into(),
        ));
    }
    let factors = kinds(&definition.factors_to_ask)?;
    if !factors.is_empty() {
        subject.require_factor(view.now(), &factors, FRESH)?;
    }
    let patterns = scope.resources.clone();
    let resources =
        view.read(move |tx| async move { Resources::read(tx, &patterns).await }.boxed()).await?;
    let unowned = resources.owners.iter().any(Option::is_none);
    if unowned && definition.steps.iter().any(|step| step.owners && step.groups.is_empty()) {
        return Err(Error::precondition(
            "owners approve this, and nobody owns one of the resources; name each exactly",
        ));
    }
    scope.stands_on = vec![stands_on(role)];
    scope.stands_on.extend(resources.stands_on);
    let (id, now) = (ElevationId(view.new_id()?), view.now());
    let identity = subject.identity.row.id;
    let row = ElevationRow {
        id,
        identity,
        role: role.row.id,
        state: ElevationState::Requested,
        scope_hash: hash(&scope, view.vault_id(), (id, identity, role.row.id)),
        votes: "[]".to_owned(),
        ttl_s: scope.ttl_s,
        restore_epoch: subject.restore_epoch(),
        revocation_epoch: subject.identity.row.revocation_epoch,
        requested_at: now,
        starts_at: scope.start_ms.map_or(now, UnixMillis),
        activated_at: None,
        ends_at: None,
        next_try: Some(now.plus(WAITS)?),
        why: String::new(),
        review_due: None,
        review: String::new(),
        review_told_at: None,
        changed_at: now,
        changed_by: view.actor(),
        scope: serde_json::to_string(&scope).map_err(Error::internal)?,
    };
    Ok(Prepared { row, vault: view.vault_id(), dev: view.is_dev() })
}

/// Stores a request, and hands it to who has to approve it.
async fn store(ctx: &RequestContext, tx: &mut Tx, it: &Prepared) -> Result<Elevation> {
    if rows::count_open(tx, it.row.identity, OPEN).await? >= OPEN {
        return Err(Error::Exhausted(
            format!("nobody has more than {OPEN} elevations open; withdraw some first").into(),
        ));
    }
    let after = UnixMillis(ctx.now.0.saturating_sub(ASKED_WITHIN));
    if rows::count_asked(tx, it.row.identity, after, ASKED).await? >= ASKED {
        return Err(Error::Exhausted(
            format!("nobody asks for more than {ASKED} elevations within an hour").into(),
        ));
    }
    let found = tx.insert(&it.row).await?;
    let mut case = Case::load(tx, found, (it.vault, it.dev)).await?;
    case.check_frozen()?;
    if case.definition.break_glass {
        check_emergency(tx, &case, ctx.now).await?;
        case.moves(ctx, tx, ElevationEvent::BreakGlass, |_| {}).await?;
    } else {
        case.moves(ctx, tx, ElevationEvent::Submit, |_| {}).await?;
    }
    Elevation::of(tx, &mut Names::default(), &case).await
}

/// Checks that who asks in an emergency is human, that somebody else hears of it who reviews it, and
/// that none of theirs waits for its review too long.
pub(super) async fn check_emergency(tx: &mut Tx, case: &Case, now: UnixMillis) -> Result<()> {
    let who = &case.requester.row;
    if who.kind != Kind::Human {
        return Err(Error::Denied("only humans break the glass".into()));
    }
    if !notify::reaches_another(tx, &case.definition.reviewer_groups, who, now).await? {
        return Err(Error::precondition(
            "nobody else is in force in the groups that review this; nobody would hear of it",
        ));
    }
    for account in accounts(tx, who).await? {
        if rows::has_overdue(tx, account, now).await? {
            return Err(Error::precondition(
                "the review of an earlier elevation of yours is overdue; have it reviewed first",
            ));
        }
    }
    Ok(())
}

#[async_trait]
impl Verb for RequestElevation {
    const ACTION: &'static str = "elevations.request";
    type Prepared = Prepared;
    type Output = Elevation;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.role).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        let role = find(view, &self.role).await?.ok_or_else(no_such_role)?;
        let definition = RoleDefinition::read(&role.row.definition)?;
        let scope = self.scope(view, &definition)?;
        freeze(view, &role, &definition, scope).await
    }

    fn note(&self, _: &Prepared, note: &mut Note) {
        self.asked.note(note);
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.asked.retry.as_ref()
    }

    fn made(&self, prepared: &Prepared) -> String {
        prepared.row.id.to_string()
    }

    async fn replay(&self, view: &View, made: &str) -> Result<Elevation> {
        visible(view, made.parse()?).await
    }
}

#[async_trait]
impl Operation for RequestElevation {
    const NEEDS: Needs = WRITES;

    // That there are not too many is a fact without a row of its own.
    fn holds(&self, prepared: &Prepared) -> Option<Id> {
        Some(prepared.row.identity.0)
    }

    fn tells(&self, shown: &Elevation) -> Vec<(Field, String)> {
        shown.moves.fields()
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        _: &Decision,
    ) -> Result<Elevation> {
        store(ctx, tx, prepared).await
    }
}

#[async_trait]
impl Verb for ExtendElevation {
    const ACTION: &'static str = "elevations.extend";
    type Prepared = Prepared;
    type Output = Elevation;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        show::resource(view, self.id).await
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        let running = visible(view, self.id).await?;
        if running.row.identity != view.identity()? {
            return Err(unknown());
        }
        let in_force = running.row.state == ElevationState::Active
            && running.row.ends_at.is_some_and(|end| end > view.now());
        if !in_force {
            return Err(Error::precondition("only an elevation in force is prolonged"));
        }
        let role = find(view, &running.role).await?.ok_or_else(no_such_role)?;
        let definition = RoleDefinition::read(&role.row.definition)?;
        if !definition.allows(&running.scope)? {
            return Err(Error::Denied(
                "the role allows less than it did; give this elevation back, and ask anew".into(),
            ));
        }
        let scope = ElevationScope {
            ttl_s: self.asked.check(&definition)?,
            start_ms: None,
            reason: self.asked.reason.clone(),
            ticket: self.asked.ticket.clone(),
            extends: Some(self.id.to_string()),
            standing: definition.standing,
            ..running.scope
        };
        freeze(view, &role, &definition, scope).await
    }

    fn note(&self, _: &Prepared, note: &mut Note) {
        self.asked.note(note);
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.asked.retry.as_ref()
    }

    fn made(&self, prepared: &Prepared) -> String {
        prepared.row.id.to_string()
    }

    async fn replay(&self, view: &View, made: &str) -> Result<Elevation> {
        visible(view, made.parse()?).await
    }
}

#[async_trait]
impl Operation for ExtendElevation {
    const NEEDS: Needs = WRITES;

    // That there are not too many is a fact without a row of its own.
    fn holds(&self, prepared: &Prepared) -> Option<Id> {
        Some(prepared.row.identity.0)
    }

    fn tells(&self, shown: &Elevation) -> Vec<(Field, String)> {
        shown.moves.fields()
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        _: &Decision,
    ) -> Result<Elevation> {
        store(ctx, tx, prepared).await
    }
}
