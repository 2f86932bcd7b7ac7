//! `ElevationService`.

use std::pin::Pin;

use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::accept::Gate;
use super::fields::{ms, optional, retry, span};
use crate::crypto::hex;
use crate::engines::elevations::{
    Act, Activate, Approve, Asked, Change, ConfirmRole, Deny, Elevation, ElevationRole,
    ExtendElevation, ListElevations, ListRoles, PutRole, RequestElevation, ReviewElevation,
    RevokeElevation, Revoked, RoleDefinition, ShowElevation, ShowRole, Step, WatchElevations,
    Window, Withdraw,
};
use crate::error::{Error, Result as Parsed};
use crate::proto::elevation_service_server::ElevationService;
use crate::proto::{
    self, ActivateElevationRequest, ActivateElevationResponse, ApproveElevationRequest,
    ApproveElevationResponse, ConfirmElevationRoleRequest, ConfirmElevationRoleResponse,
    DenyElevationRequest, DenyElevationResponse, ElevationBasis, ElevationRoleProposal,
    ElevationStep, ElevationVote, ElevationWindow, ExtendElevationRequest, ExtendElevationResponse,
    GetElevationRequest, GetElevationResponse, GetElevationRoleRequest, GetElevationRoleResponse,
    ListElevationRolesRequest, ListElevationRolesResponse, ListElevationsRequest,
    ListElevationsResponse, PutElevationRoleRequest, PutElevationRoleResponse,
    RequestElevationRequest, RequestElevationResponse, ReviewElevationRequest,
    ReviewElevationResponse, RevokeElevationRequest, RevokeElevationResponse,
    WatchElevationsRequest, WatchElevationsResponse, WithdrawElevationRequest,
    WithdrawElevationResponse,
};
use crate::types::{RequestContext, UnixMillis};
use crate::vault::StandsOn;

/// Serves elevations.
#[derive(Debug, Clone)]
pub(super) struct Elevations(pub(super) Gate);

impl Elevations {
    async fn act<C: Change>(
        &self,
        ctx: &RequestContext,
        id: &str,
        change: Parsed<C>,
    ) -> Result<Option<proto::Elevation>, Status> {
        let change = self.0.read(ctx, change)?;
        let act = Act { id: self.0.read(ctx, id.parse())?, change };
        Ok(Some(elevation(Gate::answer(ctx, self.0.vault.run(ctx, act).await)?)))
    }
}

#[tonic::async_trait]
impl ElevationService for Elevations {
    async fn put_role(
        &self,
        request: Request<PutElevationRoleRequest>,
    ) -> Result<Response<PutElevationRoleResponse>, Status> {
        let (ctx, PutElevationRoleRequest { role: wanted }) = self.0.accept(request).await?;
        let put = self.0.read(&ctx, put_role(wanted.unwrap_or_default()))?;
        let (stored, changed) = Gate::answer(&ctx, self.0.vault.run(&ctx, put).await)?;
        let (role, proposal) = role(stored);
        Ok(Response::new(PutElevationRoleResponse { role: Some(role), changed, proposal }))
    }

    async fn confirm_role(
        &self,
        request: Request<ConfirmElevationRoleRequest>,
    ) -> Result<Response<ConfirmElevationRoleResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let ConfirmElevationRoleRequest { name, version } = request;
        let op = ConfirmRole { name: self.0.read(&ctx, name.parse())?, version };
        let (role, proposal) = role(Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?);
        Ok(Response::new(ConfirmElevationRoleResponse { role: Some(role), proposal }))
    }

    async fn get_role(
        &self,
        request: Request<GetElevationRoleRequest>,
    ) -> Result<Response<GetElevationRoleResponse>, Status> {
        let (ctx, GetElevationRoleRequest { name }) = self.0.accept(request).await?;
        let op = ShowRole { name: self.0.read(&ctx, name.parse())? };
        let found = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        let (role, proposal) = role(found);
        Ok(Response::new(GetElevationRoleResponse { role: Some(role), proposal }))
    }

    async fn list_roles(
        &self,
        request: Request<ListElevationRolesRequest>,
    ) -> Result<Response<ListElevationRolesResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let ListElevationRolesRequest { page_size, page_token } = request;
        let op = ListRoles { page_size, page_token };
        let (roles, next_page_token) = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        let roles = roles.into_iter().map(|found| role(found).0).collect();
        Ok(Response::new(ListElevationRolesResponse { roles, next_page_token }))
    }

    async fn request_elevation(
        &self,
        request: Request<RequestElevationRequest>,
    ) -> Result<Response<RequestElevationResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let op = self.0.read(&ctx, ask(&request))?;
        let asked = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(RequestElevationResponse { elevation: Some(elevation(asked)) }))
    }

    async fn list_elevations(
        &self,
        request: Request<ListElevationsRequest>,
    ) -> Result<Response<ListElevationsResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let ListElevationsRequest { page_size, page_token, state, include_over: over } = request;
        let state = self.0.read(&ctx, optional(&state))?;
        let op = ListElevations { state, over, page_size, page_token };
        let (listed, next_page_token) = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        let elevations = listed.into_iter().map(elevation).collect();
        Ok(Response::new(ListElevationsResponse { elevations, next_page_token }))
    }

    type WatchElevationsStream =
        Pin<Box<dyn Stream<Item = Result<WatchElevationsResponse, Status>> + Send>>;

    async fn watch_elevations(
        &self,
        request: Request<WatchElevationsRequest>,
    ) -> Result<Response<Self::WatchElevationsStream>, Status> {
        let (ctx, WatchElevationsRequest {}) = self.0.accept(request).await?;
        let items = Gate::answer(&ctx, self.0.vault.stream(&ctx, WatchElevations).await)?;
        let answers = items.map(move |item| {
            let elevation = Some(elevation(Gate::answer(&ctx, item)?));
            Ok(WatchElevationsResponse { elevation })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_elevation(
        &self,
        request: Request<GetElevationRequest>,
    ) -> Result<Response<GetElevationResponse>, Status> {
        let (ctx, GetElevationRequest { id }) = self.0.accept(request).await?;
        let op = ShowElevation { id: self.0.read(&ctx, id.parse())? };
        let found = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(GetElevationResponse { elevation: Some(elevation(found)) }))
    }

    async fn approve_elevation(
        &self,
        request: Request<ApproveElevationRequest>,
    ) -> Result<Response<ApproveElevationResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let ApproveElevationRequest { id, scope_hash, ttl_s, reason } = request;
        let approve = span("ttl_s", ttl_s).map(|ttl| Approve { scope_hash, ttl, reason });
        let elevation = self.act(&ctx, &id, approve).await?;
        Ok(Response::new(ApproveElevationResponse { elevation }))
    }

    async fn deny_elevation(
        &self,
        request: Request<DenyElevationRequest>,
    ) -> Result<Response<DenyElevationResponse>, Status> {
        let (ctx, DenyElevationRequest { id, reason }) = self.0.accept(request).await?;
        let elevation = self.act(&ctx, &id, Ok(Deny { reason })).await?;
        Ok(Response::new(DenyElevationResponse { elevation }))
    }

    async fn withdraw_elevation(
        &self,
        request: Request<WithdrawElevationRequest>,
    ) -> Result<Response<WithdrawElevationResponse>, Status> {
        let (ctx, WithdrawElevationRequest { id }) = self.0.accept(request).await?;
        let elevation = self.act(&ctx, &id, Ok(Withdraw)).await?;
        Ok(Response::new(WithdrawElevationResponse { elevation }))
    }

    async fn activate_elevation(
        &self,
        request: Request<ActivateElevationRequest>,
    ) -> Result<Response<ActivateElevationResponse>, Status> {
        let (ctx, ActivateElevationRequest { id }) = self.0.accept(request).await?;
        let elevation = self.act(&ctx, &id, Ok(Activate)).await?;
        Ok(Response::new(ActivateElevationResponse { elevation }))
    }

    async fn extend_elevation(
        &self,
        request: Request<ExtendElevationRequest>,
    ) -> Result<Response<ExtendElevationResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let op = self.0.read(&ctx, extend(&request))?;
        let asked = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(ExtendElevationResponse { elevation: Some(elevation(asked)) }))
    }

    async fn review_elevation(
        &self,
        request: Request<ReviewElevationRequest>,
    ) -> Result<Response<ReviewElevationResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let ReviewElevationRequest { id, verdict, note } = request;
        let review = verdict.parse().map(|verdict| ReviewElevation { verdict, note });
        let elevation = self.act(&ctx, &id, review).await?;
        Ok(Response::new(ReviewElevationResponse { elevation }))
    }

    async fn revoke_elevation(
        &self,
        request: Request<RevokeElevationRequest>,
    ) -> Result<Response<RevokeElevationResponse>, Status> {
        let (ctx, RevokeElevationRequest { id, reason }) = self.0.accept(request).await?;
        let op = RevokeElevation { id: self.0.read(&ctx, id.parse())?, reason };
        let elevation = match Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)? {
            Revoked::Whole(shown) => elevation(*shown),
            // What of it can be vouched for.
            Revoked::Alone(row, _) => proto::Elevation {
                id: row.id.to_string(),
                state: row.state.to_string(),
                why: row.why,
                ends_at_ms: ms(row.ends_at),
                changed_at_ms: row.changed_at.0,
                ..Default::default()
            },
        };
        Ok(Response::new(RevokeElevationResponse { elevation: Some(elevation) }))
    }
}

fn ask(request: &RequestElevationRequest) -> Parsed<RequestElevation> {
    Ok(RequestElevation {
        role: request.role.parse()?,
        resources: request.resources.iter().map(|one| one.parse()).collect::<Parsed<_>>()?,
        start: match request.start_ms {
            0 => None,
            at => Some(UnixMillis(at)),
        },
        asked: Asked {
            ttl: span("ttl_s", request.ttl_s)?,
            reason: request.reason.clone(),
            ticket: request.ticket.clone(),
            retry: retry(&request.idempotency_key, request)?,
        },
    })
}

fn extend(request: &ExtendElevationRequest) -> Parsed<ExtendElevation> {
    Ok(ExtendElevation {
        id: request.id.parse()?,
        asked: Asked {
            ttl: span("ttl_s", request.ttl_s)?,
            reason: request.reason.clone(),
            ticket: request.ticket.clone(),
            retry: retry(&request.idempotency_key, request)?,
        },
    })
}

fn put_role(role: proto::ElevationRole) -> Parsed<PutRole> {
    let seconds = |what: &'static str, seconds: i64| {
        let negative = |_| Error::invalid(format!("{what} must not be negative"));
        u64::try_from(seconds).map_err(negative)
    };
    let step = |step: ElevationStep| Step {
        approvals: step.approvals,
        groups: step.groups,
        owners: step.owners,
    };
    let window =
        |window: ElevationWindow| Window { days: window.days, from: window.from, to: window.to };
    Ok(PutRole {
        name: role.name.parse()?,
        definition: RoleDefinition {
            purpose: role.purpose,
            requesters: role.requesters,
            requester_groups: role.requester_groups,
            resources: role.resources,
            actions: role.actions,
            default_ttl_s: seconds("default_ttl_s", role.default_ttl_s)?,
            max_ttl_s: seconds("max_ttl_s", role.max_ttl_s)?,
            steps: role.steps.into_iter().map(step).collect(),
            denials: role.denials,
            reason_required: role.reason_required,
            ticket_pattern: role.ticket_pattern,
            windows: role.windows.into_iter().map(window).collect(),
            standing: role.standing,
            break_glass: role.break_glass,
            reviewer_groups: role.reviewer_groups,
            factors_to_ask: role.factors_to_ask,
            factors_to_approve: role.factors_to_approve,
            factors_to_activate: role.factors_to_activate,
        },
    })
}

fn step(step: Step) -> ElevationStep {
    ElevationStep { approvals: step.approvals, groups: step.groups, owners: step.owners }
}

/// Shows a role, and what it is to say.
fn role(shown: ElevationRole) -> (proto::ElevationRole, Option<ElevationRoleProposal>) {
    let ElevationRole { role, definition, proposal, confirmed_by, created_by, changed_by } = shown;
    let name = role.row.name.to_string();
    let proposal = proposal.map(|(wanted, by)| ElevationRoleProposal {
        role: Some(said(name.clone(), wanted.definition)),
        proposed_by: by,
        proposed_at_ms: wanted.at_ms,
        confirmed_by,
        effective_at_ms: ms(role.row.next_try),
    });
    let role = proto::ElevationRole {
        version: role.version,
        created_at_ms: role.row.created_at.0,
        created_by,
        changed_at_ms: role.row.changed_at.0,
        changed_by,
        ..said(name, definition)
    };
    (role, proposal)
}

fn said(name: String, said: RoleDefinition) -> proto::ElevationRole {
    let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    let window = |it: Window| ElevationWindow { days: it.days, from: it.from, to: it.to };
    proto::ElevationRole {
        name,
        purpose: said.purpose,
        requesters: said.requesters,
        requester_groups: said.requester_groups,
        resources: said.resources,
        actions: said.actions,
        default_ttl_s: seconds(said.default_ttl_s),
        max_ttl_s: seconds(said.max_ttl_s),
        steps: said.steps.into_iter().map(step).collect(),
        denials: said.denials,
        reason_required: said.reason_required,
        ticket_pattern: said.ticket_pattern,
        windows: said.windows.into_iter().map(window).collect(),
        standing: said.standing,
        break_glass: said.break_glass,
        reviewer_groups: said.reviewer_groups,
        factors_to_ask: said.factors_to_ask,
        factors_to_approve: said.factors_to_approve,
        factors_to_activate: said.factors_to_activate,
        ..Default::default()
    }
}

fn basis(row: StandsOn) -> ElevationBasis {
    ElevationBasis { table: row.table, id: row.id, version: row.version }
}

/// Counts from 1, as people do.
fn ordinal(step: usize) -> u32 {
    u32::try_from(step).unwrap_or(u32::MAX).saturating_add(1)
}

fn elevation(shown: Elevation) -> proto::Elevation {
    let state = shown.shown_state().to_owned();
    let Elevation { row, scope, identity, role, definition, votes, step: turn, .. } = shown;
    let (changed_by, reviewed_by, review) = (shown.changed_by, shown.reviewed_by, shown.review);
    let votes = votes.into_iter().map(|vote| ElevationVote {
        by: vote.by.to_string(),
        approves: vote.approves,
        step: ordinal(vote.step),
        at_ms: vote.at.0,
        ttl_s: vote.ttl_s,
        reason: vote.reason,
        factor_id: vote.factor.unwrap_or_default(),
    });
    proto::Elevation {
        id: row.id.to_string(),
        identity: identity.to_string(),
        role: role.to_string(),
        state,
        why: row.why,
        resources: scope.resources,
        actions: scope.actions,
        ttl_s: row.ttl_s,
        reason: scope.reason,
        ticket: scope.ticket,
        extends: scope.extends.unwrap_or_default(),
        scope_hash: hex(&row.scope_hash),
        votes: votes.collect(),
        steps: definition.steps.into_iter().map(step).collect(),
        step: turn.map_or(0, ordinal),
        requested_at_ms: row.requested_at.0,
        starts_at_ms: row.starts_at.0,
        activated_at_ms: ms(row.activated_at),
        ends_at_ms: ms(row.ends_at),
        next_at_ms: ms(row.next_try),
        changed_at_ms: row.changed_at.0,
        changed_by,
        review_due_at_ms: ms(row.review_due),
        review_verdict: review.as_ref().map_or("", |it| it.verdict.as_str()).to_owned(),
        reviewed_at_ms: review.as_ref().map_or(0, |it| it.at_ms),
        review_note: review.map(|it| it.note).unwrap_or_default(),
        reviewed_by,
        standing: scope.standing,
        break_glass: definition.break_glass,
        stands_on: scope.stands_on.into_iter().map(basis).collect(),
    }
}
