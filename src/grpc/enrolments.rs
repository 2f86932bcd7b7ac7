//! `EnrolmentService`.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use super::fields::span;
use super::login;
use super::status::status;
use super::tls::PeerInfo;
use super::wrapping;
use crate::auth::join::{Presented, join};
use crate::engines::enrolments::{
    Asks, CreateEnrolment, Enrolled, Enrolment, ListEnrolments, RenewLogin, RevokeEnrolment, Why,
};
use crate::engines::pki::{LoginIssued, LoginTtl, Request as Csr};
use crate::error::{Error, Result};
use crate::proto;
use crate::proto::enrolment_service_server::EnrolmentService;
use crate::proto::{
    CreateEnrolmentRequest, CreateEnrolmentResponse, EnrolledLogin, JoinRequest, JoinResponse,
    ListEnrolmentsRequest, ListEnrolmentsResponse, RenewLoginRequest, RenewLoginResponse,
    RevokeEnrolmentRequest, RevokeEnrolmentResponse,
};
use crate::types::{CredentialState, RequestContext, SecretBytes, UnixMillis};

/// Times that what a renewal stands on may move under it.
const ATTEMPTS: usize = 3;

/// Serves enrolments.
#[derive(Debug, Clone)]
pub(super) struct Enrolments {
    pub(super) gate: Gate,
    pub(super) login: LoginTtl,
}

#[tonic::async_trait]
impl EnrolmentService for Enrolments {
    async fn create_enrolment(
        &self,
        request: Request<CreateEnrolmentRequest>,
    ) -> Result<Response<CreateEnrolmentResponse>, Status> {
        let (ctx, request, wrap) = self.gate.accept_wrapping(request).await?;
        let op = self.gate.read(&ctx, order(&request))?;
        let now = ctx.now;
        let tell = move |made: &Enrolled| {
            let text = std::str::from_utf8(made.text.expose()).map_err(Error::internal)?;
            Ok(CreateEnrolmentResponse {
                join_token: text.to_owned(),
                enrolment: Some(show(made.enrolment.clone(), now)),
                wrapped: None,
            })
        };
        self.gate.give(&ctx, op, wrap, tell).await
    }

    async fn list_enrolments(
        &self,
        request: Request<ListEnrolmentsRequest>,
    ) -> Result<Response<ListEnrolmentsResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let ListEnrolmentsRequest { page_size, page_token, identity } = request;
        let identity = self.gate.read(&ctx, identity.parse())?;
        let op = ListEnrolments { identity, page_size, page_token };
        let (listed, next_page_token) = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let enrolments = listed.into_iter().map(|one| show(one, ctx.now)).collect();
        Ok(Response::new(ListEnrolmentsResponse { enrolments, next_page_token }))
    }

    async fn revoke_enrolment(
        &self,
        request: Request<RevokeEnrolmentRequest>,
    ) -> Result<Response<RevokeEnrolmentResponse>, Status> {
        let (ctx, RevokeEnrolmentRequest { id, reason }) = self.gate.accept(request).await?;
        let op = RevokeEnrolment { id: self.gate.read(&ctx, id.parse())?, reason };
        let was = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(RevokeEnrolmentResponse { enrolment: Some(show(was, ctx.now)) }))
    }

    /// Whoever calls this has the token and nothing else: what else the connection could prove is not
    /// looked at.
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let source = request.extensions().get::<PeerInfo>();
        let source = source.map(|peer| peer.address.ip().to_canonical());
        wrapping::refuse(request.metadata().as_ref()).map_err(|error| status(&error, None))?;
        let JoinRequest { token, csr_pem } = request.into_inner();
        let presented = Presented {
            token: &SecretBytes::new(token.into_bytes()),
            csr_pem: &csr_pem,
            authorities: &self.gate.authorities,
            limits: self.login,
        };
        let joined = join(&self.gate.vault, source, &presented).await.and_then(|it| encode(&it));
        let login = joined.map(Some).map_err(|error| status(&error, None))?;
        Ok(Response::new(JoinResponse { login }))
    }

    async fn renew_login(
        &self,
        request: Request<RenewLoginRequest>,
    ) -> Result<Response<RenewLoginResponse>, Status> {
        let (ctx, RenewLoginRequest { csr_pem }) = self.gate.accept(request).await?;
        let op = RenewLogin {
            asks: Asks {
                authorities: self.gate.authorities.clone(),
                limits: self.login,
                request: self.gate.read(&ctx, Csr::parse(csr_pem.as_bytes()))?,
            },
        };
        let renewed = self.renew(&ctx, op).await.and_then(|it| encode(&it));
        let login = Some(Gate::answer(&ctx, renewed)?);
        Ok(Response::new(RenewLoginResponse { login }))
    }
}

impl Enrolments {
    /// Renews; whoever loses a race hears what has become of it, and not that there was one.
    async fn renew(&self, ctx: &RequestContext, op: RenewLogin) -> Result<LoginIssued> {
        let mut moved = Error::Conflict("what this renewal stands on keeps changing; retry".into());
        for _ in 0..ATTEMPTS {
            match self.gate.vault.run(ctx, op.clone()).await {
                Ok(came) => return came.told(),
                Err(error @ Error::Conflict(_)) => moved = error,
                Err(error) => return Err(error),
            }
        }
        Err(moved)
    }
}

fn order(request: &CreateEnrolmentRequest) -> Result<CreateEnrolment> {
    Ok(CreateEnrolment {
        name: request.identity.parse()?,
        ttl: span("ttl_s", request.ttl_s)?,
        sources: request.networks.iter().map(|text| text.parse()).collect::<Result<_>>()?,
    })
}

fn encode(issued: &LoginIssued) -> Result<EnrolledLogin> {
    let issued = login::encode(issued)?;
    Ok(EnrolledLogin {
        credential_id: issued.credential_id,
        certificate_pem: issued.certificate_pem,
        chain_pem: issued.chain_pem,
        spiffe_id: issued.spiffe_id,
        serial: issued.serial,
        fingerprint: issued.fingerprint,
        not_before_ms: issued.not_before_ms,
        expires_at_ms: issued.expires_at_ms,
    })
}

fn show(enrolment: Enrolment, now: UnixMillis) -> proto::Enrolment {
    let Enrolment { row, detail, identity, void, created_by } = enrolment;
    let over = detail.over.as_ref();
    let state = match row.state {
        CredentialState::Revoking | CredentialState::Ended => match over.map(|over| over.why) {
            Some(Why::JoinedTwice | Why::RenewedTwice) => "locked",
            Some(Why::Revoked) | None => "revoked",
        },
        CredentialState::Pending | CredentialState::Active | CredentialState::Spent if void => {
            "void"
        }
        CredentialState::Spent => "joined",
        CredentialState::Pending | CredentialState::Active if row.expires_at <= now => "expired",
        CredentialState::Pending | CredentialState::Active => "pending",
    };
    let joined = detail.joined;
    proto::Enrolment {
        id: row.id.to_string(),
        identity: identity.to_string(),
        state: state.to_owned(),
        created_at_ms: row.issued_at.0,
        created_by,
        expires_at_ms: row.expires_at.0,
        networks: detail.sources.iter().map(ToString::to_string).collect(),
        joined_at_ms: joined.as_ref().map_or(0, |made| made.at),
        ended_at_ms: over.map_or(0, |over| over.at),
        login: joined.map(|made| made.id).unwrap_or_default(),
        max_expires_at_ms: row.max_expires_at.0,
    }
}
