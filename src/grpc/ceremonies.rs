//! `CeremonyService`.

use std::pin::Pin;

use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::accept::Gate;
use crate::crypto::hex;
use crate::engines::ceremonies::{
    Act, Approve, Cancel, Ceremony, Change, Deny, ListCeremonies, ShowCeremony, Term,
    WatchCeremonies,
};
use crate::proto::ceremony_service_server::CeremonyService;
use crate::proto::{
    self, ApproveCeremonyRequest, ApproveCeremonyResponse, CancelCeremonyRequest,
    CancelCeremonyResponse, CeremonyTerm, CeremonyVote, DenyCeremonyRequest, DenyCeremonyResponse,
    ElevationBasis, GetCeremonyRequest, GetCeremonyResponse, ListCeremoniesRequest,
    ListCeremoniesResponse, WatchCeremoniesRequest, WatchCeremoniesResponse,
};
use crate::types::{IdentityName, RequestContext};
use crate::vault::{StandsOn, Vote};

/// Serves ceremonies.
#[derive(Debug, Clone)]
pub(super) struct Ceremonies(pub(super) Gate);

impl Ceremonies {
    async fn act<C: Change>(
        &self,
        ctx: &RequestContext,
        id: &str,
        change: C,
    ) -> Result<Option<proto::Ceremony>, Status> {
        let act = Act { id: self.0.read(ctx, id.parse())?, change };
        Ok(Some(ceremony(Gate::answer(ctx, self.0.vault.run(ctx, act).await)?)))
    }
}

#[tonic::async_trait]
impl CeremonyService for Ceremonies {
    async fn list_ceremonies(
        &self,
        request: Request<ListCeremoniesRequest>,
    ) -> Result<Response<ListCeremoniesResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let ListCeremoniesRequest { include_over: over, page_size, page_token } = request;
        let op = ListCeremonies { over, page_size, page_token };
        let (listed, next_page_token) = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        let ceremonies = listed.into_iter().map(ceremony).collect();
        Ok(Response::new(ListCeremoniesResponse { ceremonies, next_page_token }))
    }

    type WatchCeremoniesStream =
        Pin<Box<dyn Stream<Item = Result<WatchCeremoniesResponse, Status>> + Send>>;

    async fn watch_ceremonies(
        &self,
        request: Request<WatchCeremoniesRequest>,
    ) -> Result<Response<Self::WatchCeremoniesStream>, Status> {
        let (ctx, WatchCeremoniesRequest {}) = self.0.accept(request).await?;
        let items = Gate::answer(&ctx, self.0.vault.stream(&ctx, WatchCeremonies).await)?;
        let answers = items.map(move |item| {
            let ceremony = Some(ceremony(Gate::answer(&ctx, item)?));
            Ok(WatchCeremoniesResponse { ceremony })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_ceremony(
        &self,
        request: Request<GetCeremonyRequest>,
    ) -> Result<Response<GetCeremonyResponse>, Status> {
        let (ctx, GetCeremonyRequest { id }) = self.0.accept(request).await?;
        let op = ShowCeremony { id: self.0.read(&ctx, id.parse())? };
        let found = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(GetCeremonyResponse { ceremony: Some(ceremony(found)) }))
    }

    async fn approve_ceremony(
        &self,
        request: Request<ApproveCeremonyRequest>,
    ) -> Result<Response<ApproveCeremonyResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let ApproveCeremonyRequest { id, hash: about_hash, reason } = request;
        let ceremony = self.act(&ctx, &id, Approve { about_hash, reason }).await?;
        Ok(Response::new(ApproveCeremonyResponse { ceremony }))
    }

    async fn deny_ceremony(
        &self,
        request: Request<DenyCeremonyRequest>,
    ) -> Result<Response<DenyCeremonyResponse>, Status> {
        let (ctx, DenyCeremonyRequest { id, reason }) = self.0.accept(request).await?;
        let ceremony = self.act(&ctx, &id, Deny { reason }).await?;
        Ok(Response::new(DenyCeremonyResponse { ceremony }))
    }

    async fn cancel_ceremony(
        &self,
        request: Request<CancelCeremonyRequest>,
    ) -> Result<Response<CancelCeremonyResponse>, Status> {
        let (ctx, CancelCeremonyRequest { id }) = self.0.accept(request).await?;
        let ceremony = self.act(&ctx, &id, Cancel).await?;
        Ok(Response::new(CancelCeremonyResponse { ceremony }))
    }
}

fn term(Term { name, value }: Term) -> CeremonyTerm {
    CeremonyTerm { name, value }
}

fn basis(StandsOn { table, id, version }: StandsOn) -> ElevationBasis {
    ElevationBasis { table, id, version }
}

fn vote((by, vote): (IdentityName, Vote)) -> CeremonyVote {
    CeremonyVote {
        by: by.to_string(),
        approves: vote.approves,
        at_ms: vote.at_ms,
        reason: vote.reason,
    }
}

fn ceremony(it: Ceremony) -> proto::Ceremony {
    proto::Ceremony {
        id: it.row.id.to_string(),
        identity: it.identity.to_string(),
        action: it.about.action.clone(),
        resources: it.about.resources.clone(),
        state: it.shown_state().to_owned(),
        terms: it.about.terms.into_iter().map(term).collect(),
        stands_on: it.about.stands_on.into_iter().map(basis).collect(),
        needed: it.row.needed,
        missing: it.missing,
        votes: it.votes.into_iter().map(vote).collect(),
        hash: hex(&it.row.about_hash),
        requested_at_ms: it.row.requested_at.0,
        expires_at_ms: it.row.expires_at.0,
        changed_at_ms: it.row.changed_at.0,
        changed_by: it.changed_by,
    }
}
