//! `WrapService`.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use super::fields::{ms, optional};
use crate::engines::wraps::{ListWraps, RevokeWrap, ShowWrap, Unwrap, Unwrapped, Wrap};
use crate::error::{Error, Result};
use crate::proto;
use crate::proto::wrap_service_server::WrapService;
use crate::proto::{
    GetWrapRequest, GetWrapResponse, ListWrapsRequest, ListWrapsResponse, RevokeWrapRequest,
    RevokeWrapResponse, UnwrapRequest, UnwrapResponse,
};
use crate::types::{SecretBytes, Verb, WrapHandle};
use crate::vault::WrapFate;

/// Serves wrapped answers.
#[derive(Debug, Clone)]
pub(super) struct Wraps(pub(super) Gate);

#[tonic::async_trait]
impl WrapService for Wraps {
    async fn unwrap(
        &self,
        request: Request<UnwrapRequest>,
    ) -> Result<Response<UnwrapResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let op = self.0.read(&ctx, unwrap(request))?;
        match Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)? {
            Unwrapped::Given(given) => {
                let message = given.wrap.row.message.clone();
                let answer = given.answer.expose().to_vec();
                let wrap = Some(show(given.wrap));
                Ok(Response::new(UnwrapResponse { message, answer, wrap }))
            }
            Unwrapped::Before(before) => {
                Gate::answer(&ctx, Err(Error::Opened(format!("the wrap was {before}").into())))
            }
        }
    }

    async fn get_wrap(
        &self,
        request: Request<GetWrapRequest>,
    ) -> Result<Response<GetWrapResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let op = ShowWrap { accessor: self.0.read(&ctx, request.accessor.parse())? };
        let wrap = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(GetWrapResponse { wrap: Some(show(wrap)) }))
    }

    async fn list_wraps(
        &self,
        request: Request<ListWrapsRequest>,
    ) -> Result<Response<ListWrapsResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let ListWrapsRequest { page_size, page_token, identity } = request;
        let identity = self.0.read(&ctx, optional(&identity))?;
        let op = ListWraps { identity, page_size, page_token };
        let (listed, next_page_token) = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        let wraps = listed.into_iter().map(show).collect();
        Ok(Response::new(ListWrapsResponse { wraps, next_page_token }))
    }

    async fn revoke_wrap(
        &self,
        request: Request<RevokeWrapRequest>,
    ) -> Result<Response<RevokeWrapResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let accessor = self.0.read(&ctx, request.accessor.parse())?;
        let op = RevokeWrap { accessor, reason: request.reason };
        let wrap = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(RevokeWrapResponse { wrap: Some(show(wrap)) }))
    }
}

fn unwrap(request: UnwrapRequest) -> Result<Unwrap> {
    let UnwrapRequest { handle, creator, path, action } = request;
    let handle = SecretBytes::new(handle.into_bytes());
    let known = |action: &str| {
        let unknown = || Error::invalid("an action is as `strongroom actions` lists it");
        Verb::lookup(action).map(|verb| verb.action).ok_or_else(unknown)
    };
    let named = (!action.is_empty()).then_some(action.as_str());
    Ok(Unwrap {
        handle: WrapHandle::parse(handle.expose())?,
        creator: creator.parse()?,
        path: path.parse()?,
        action: named.map(known).transpose()?,
    })
}

fn show(wrap: Wrap) -> proto::Wrap {
    let Wrap { row, fate, creator, recipient, opened_by, changed_by } = wrap;
    let (state, void_because) = match fate {
        WrapFate::Open => ("pending", ""),
        WrapFate::Opened => ("opened", ""),
        WrapFate::Revoked => ("revoked", ""),
        WrapFate::Expired => ("expired", ""),
        WrapFate::Void(why) => ("void", why),
    };
    proto::Wrap {
        accessor: row.id.to_string(),
        creator: creator.to_string(),
        path: row.resource.to_string(),
        action: row.action,
        recipient: recipient.map(|name| name.to_string()).unwrap_or_default(),
        state: state.to_owned(),
        void_because: void_because.to_owned(),
        created_at_ms: row.created_at.0,
        expires_at_ms: row.expires_at.0,
        opened_by: opened_by.map(|name| name.to_string()).unwrap_or_default(),
        opened_at_ms: ms(row.opened_at),
        opened_from: row.opened_from,
        changed_at_ms: row.changed_at.0,
        changed_by,
    }
}
