//! `TokenService`.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use super::fields::{optional, retry, span};
use crate::engines::tokens::{
    CreateToken, InspectToken, ListTokens, Made, MintToken, Order, RenewToken, RevokeToken, Token,
    TokenLimits,
};
use crate::error::{Error, Result};
use crate::proto;
use crate::proto::token_service_server::TokenService;
use crate::proto::{
    CreateTokenRequest, CreateTokenResponse, InspectTokenRequest, InspectTokenResponse,
    ListTokensRequest, ListTokensResponse, MintTokenRequest, MintTokenResponse, RenewTokenRequest,
    RenewTokenResponse, RevokeTokenRequest, RevokeTokenResponse, TokenOrder,
};
use crate::types::{CredentialState, UnixMillis};
use crate::vault::RetryKey;

/// Serves tokens.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    pub(super) gate: Gate,
    pub(super) limits: TokenLimits,
}

#[tonic::async_trait]
impl TokenService for Tokens {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let (ctx, request, wrap) = self.gate.accept_wrapping(request).await?;
        // Asking for another in place of the first is the same request.
        let asked = CreateTokenRequest { replace: false, ..request.clone() };
        let key = replacing(retry(&request.idempotency_key, &asked), request.replace);
        let order = key.and_then(|key| self.order(request.order.unwrap_or_default(), key));
        let op = CreateToken(self.gate.read(&ctx, order)?);
        let now = ctx.now;
        let show = move |made: &Made| {
            let (bearer, token) = show_made(made, now)?;
            Ok(CreateTokenResponse { bearer, token, wrapped: None })
        };
        self.gate.give(&ctx, op, wrap, show).await
    }

    async fn mint_token(
        &self,
        request: Request<MintTokenRequest>,
    ) -> Result<Response<MintTokenResponse>, Status> {
        let (ctx, request, wrap) = self.gate.accept_wrapping(request).await?;
        let name = self.gate.read(&ctx, request.identity.parse())?;
        let asked = MintTokenRequest { replace: false, ..request.clone() };
        let key = replacing(retry(&request.idempotency_key, &asked), request.replace);
        let order = key.and_then(|key| self.order(request.order.unwrap_or_default(), key));
        let op = MintToken { name, order: self.gate.read(&ctx, order)? };
        let now = ctx.now;
        let show = move |made: &Made| {
            let (bearer, token) = show_made(made, now)?;
            Ok(MintTokenResponse { bearer, token, wrapped: None })
        };
        self.gate.give(&ctx, op, wrap, show).await
    }

    async fn inspect_token(
        &self,
        request: Request<InspectTokenRequest>,
    ) -> Result<Response<InspectTokenResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = InspectToken { accessor: self.gate.read(&ctx, optional(&request.accessor))? };
        let token = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(InspectTokenResponse { token: Some(show(token, ctx.now)) }))
    }

    async fn renew_token(
        &self,
        request: Request<RenewTokenRequest>,
    ) -> Result<Response<RenewTokenResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = RenewToken {
            accessor: self.gate.read(&ctx, optional(&request.accessor))?,
            ttl: self.gate.read(&ctx, span("ttl_s", request.ttl_s))?,
        };
        let token = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(RenewTokenResponse { token: Some(show(token, ctx.now)) }))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let accessor = self.gate.read(&ctx, optional(&request.accessor))?;
        let op = RevokeToken { accessor, reason: request.reason };
        let token = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(RevokeTokenResponse { token: Some(show(token, ctx.now)) }))
    }

    async fn list_tokens(
        &self,
        request: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = ListTokens {
            identity: self.gate.read(&ctx, optional(&request.identity))?,
            ended: request.include_ended,
            page_size: request.page_size,
            page_token: request.page_token,
        };
        let (listed, next_page_token) = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let tokens = listed.into_iter().map(|token| show(token, ctx.now)).collect();
        Ok(Response::new(ListTokensResponse { tokens, next_page_token }))
    }
}

impl Tokens {
    fn order(&self, order: TokenOrder, retry: Option<RetryKey>) -> Result<Order> {
        let uses = u32::try_from(order.uses)
            .map_err(|_negative| Error::invalid("uses must not be negative"))?;
        Ok(Order {
            limits: self.limits,
            ttl: span("ttl_s", order.ttl_s)?,
            max_ttl: span("max_ttl_s", order.max_ttl_s)?,
            uses: (uses > 0).then_some(uses),
            sources: order.networks.iter().map(|text| text.parse()).collect::<Result<_>>()?,
            audience: order.audience.into_iter().map(Gate::known_as).collect::<Result<_>>()?,
            scope: order.scope.iter().map(|text| text.parse()).collect::<Result<_>>()?,
            certificate: (!order.certificate_sha256.is_empty()).then_some(order.certificate_sha256),
            retry,
        })
    }
}

fn replacing(key: Result<Option<RetryKey>>, replace: bool) -> Result<Option<RetryKey>> {
    match key? {
        None if replace => {
            Err(Error::invalid("replacing takes the idempotency key of the first call"))
        }
        key => Ok(key.map(|key| key.replacing(replace))),
    }
}

fn show_made(made: &Made, now: UnixMillis) -> Result<(String, Option<proto::Token>)> {
    let bearer = match &made.bearer {
        Some(bearer) => {
            std::str::from_utf8(bearer.expose()).map(str::to_owned).map_err(Error::internal)?
        }
        None => String::new(),
    };
    Ok((bearer, Some(show(made.token.clone(), now))))
}

fn show(token: Token, now: UnixMillis) -> proto::Token {
    let Token { row, detail, identity, void, created_by } = token;
    let state = match row.state {
        CredentialState::Revoking => "revoking",
        CredentialState::Ended => "revoked",
        CredentialState::Pending | CredentialState::Active | CredentialState::Spent if void => {
            "revoked"
        }
        CredentialState::Spent => "spent",
        CredentialState::Pending | CredentialState::Active if row.expires_at <= now => "expired",
        CredentialState::Pending | CredentialState::Active => "active",
    };
    let spent = detail.spent.as_ref();
    proto::Token {
        accessor: row.id.to_string(),
        identity: identity.to_string(),
        state: state.to_owned(),
        parent: row.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        created_at_ms: row.issued_at.0,
        created_by,
        expires_at_ms: row.expires_at.0,
        max_expires_at_ms: row.max_expires_at.0,
        counted: detail.uses_left.is_some(),
        // A million at the most, as it was checked.
        uses_left: i32::try_from(detail.uses_left.unwrap_or_default()).unwrap_or(i32::MAX),
        networks: detail.sources.iter().map(ToString::to_string).collect(),
        spent_at_ms: spent.map_or(0, |spent| spent.at),
        spent_from: spent.map(|spent| spent.source.clone()).unwrap_or_default(),
        revoked_at_ms: detail.revoked.as_ref().map_or(0, |revoked| revoked.at),
        audience: detail.audience,
        scope: detail.scope.iter().map(ToString::to_string).collect(),
        certificate_sha256: detail.certificate.unwrap_or_default(),
    }
}
