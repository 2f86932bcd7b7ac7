//! `FactorService`.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use super::fields::{ms, optional, span};
use crate::crypto::OtpCode;
use crate::engines::factors::{
    Code, ConfirmFactor, EnrolFactor, InviteFactor, Invited, ListFactors, MakeRecoveryCodes,
    Proven, RemoveFactor, ResetFactors, ShownFactor, VerifyFactor,
};
use crate::error::{Error, Result};
use crate::proto;
use crate::proto::factor_service_server::FactorService;
use crate::proto::{
    ConfirmFactorRequest, ConfirmFactorResponse, EnrolFactorRequest, EnrolFactorResponse, Factor,
    InviteFactorRequest, InviteFactorResponse, ListFactorsRequest, ListFactorsResponse,
    MakeRecoveryCodesRequest, MakeRecoveryCodesResponse, RemoveFactorRequest, RemoveFactorResponse,
    ResetFactorsRequest, ResetFactorsResponse, VerifyFactorRequest, VerifyFactorResponse,
};
use crate::types::{FactorKind, Invitation, SecretBytes};

/// Serves factors.
#[derive(Debug, Clone)]
pub(super) struct Factors(pub(super) Gate);

#[tonic::async_trait]
impl FactorService for Factors {
    async fn invite_factor(
        &self,
        request: Request<InviteFactorRequest>,
    ) -> Result<Response<InviteFactorResponse>, Status> {
        let (ctx, request, wrap) = self.0.accept_wrapping(request).await?;
        let op = InviteFactor {
            identity: self.0.read(&ctx, request.identity.parse())?,
            ttl: self.0.read(&ctx, span("ttl_s", request.ttl_s))?,
            reason: request.reason,
        };
        let show = |made: &Invited| {
            Ok(InviteFactorResponse {
                invitation: text(&made.text)?,
                accessor: made.accessor.to_string(),
                expires_at_ms: made.expires_at.0,
                wrapped: None,
            })
        };
        self.0.give(&ctx, op, wrap, show).await
    }

    async fn enrol_factor(
        &self,
        request: Request<EnrolFactorRequest>,
    ) -> Result<Response<EnrolFactorResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let op = self.0.read(&ctx, enrol(request))?;
        let made = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(EnrolFactorResponse {
            id: made.id.to_string(),
            secret: Gate::answer(&ctx, text(&made.secret))?,
            uri: Gate::answer(&ctx, text(&made.uri))?,
            expires_at_ms: made.expires_at.0,
        }))
    }

    async fn confirm_factor(
        &self,
        request: Request<ConfirmFactorRequest>,
    ) -> Result<Response<ConfirmFactorResponse>, Status> {
        let (ctx, ConfirmFactorRequest { id, code }) = self.0.accept(request).await?;
        let code = SecretBytes::new(code.into_bytes());
        let code = OtpCode::parse(code.expose());
        let code = code.ok_or_else(|| Error::invalid("a first code is six digits"));
        let op =
            ConfirmFactor { id: self.0.read(&ctx, id.parse())?, code: self.0.read(&ctx, code)? };
        let tried = self.0.vault.run(&ctx, op).await.and_then(|tried| tried);
        let factor = Some(proven(Gate::answer(&ctx, tried)?));
        Ok(Response::new(ConfirmFactorResponse { factor }))
    }

    async fn make_recovery_codes(
        &self,
        request: Request<MakeRecoveryCodesRequest>,
    ) -> Result<Response<MakeRecoveryCodesResponse>, Status> {
        let (ctx, MakeRecoveryCodesRequest {}) = self.0.accept(request).await?;
        let made = Gate::answer(&ctx, self.0.vault.run(&ctx, MakeRecoveryCodes).await)?;
        let codes = made.codes.iter().map(text).collect::<Result<_>>();
        let (id, codes) = (made.id.to_string(), Gate::answer(&ctx, codes)?);
        Ok(Response::new(MakeRecoveryCodesResponse { id, codes }))
    }

    async fn verify_factor(
        &self,
        request: Request<VerifyFactorRequest>,
    ) -> Result<Response<VerifyFactorResponse>, Status> {
        let (ctx, VerifyFactorRequest { code }) = self.0.accept(request).await?;
        let code = SecretBytes::new(code.into_bytes());
        let op = VerifyFactor { code: self.0.read(&ctx, Code::parse(code.expose()))? };
        let tried = self.0.vault.run(&ctx, op).await.and_then(|tried| tried);
        let tried = Gate::answer(&ctx, tried)?;
        let codes_left = tried.codes_left.unwrap_or_default();
        Ok(Response::new(VerifyFactorResponse { factor: Some(proven(tried)), codes_left }))
    }

    async fn list_factors(
        &self,
        request: Request<ListFactorsRequest>,
    ) -> Result<Response<ListFactorsResponse>, Status> {
        let (ctx, ListFactorsRequest { identity }) = self.0.accept(request).await?;
        let op = ListFactors { identity: self.0.read(&ctx, optional(&identity))? };
        let shown = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(ListFactorsResponse {
            factors: shown.factors.into_iter().map(factor).collect(),
            locked_until_ms: ms(shown.locked_until),
            invited_until_ms: ms(shown.invited_until),
        }))
    }

    async fn remove_factor(
        &self,
        request: Request<RemoveFactorRequest>,
    ) -> Result<Response<RemoveFactorResponse>, Status> {
        let (ctx, RemoveFactorRequest { id }) = self.0.accept(request).await?;
        let op = RemoveFactor { id: self.0.read(&ctx, id.parse())? };
        Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        Ok(Response::new(RemoveFactorResponse {}))
    }

    async fn reset_factors(
        &self,
        request: Request<ResetFactorsRequest>,
    ) -> Result<Response<ResetFactorsResponse>, Status> {
        let (ctx, ResetFactorsRequest { identity, reason }) = self.0.accept(request).await?;
        let op = ResetFactors { identity: self.0.read(&ctx, identity.parse())?, reason };
        let removed = Gate::answer(&ctx, self.0.vault.run(&ctx, op).await)?;
        let removed = i64::try_from(removed).unwrap_or(i64::MAX);
        Ok(Response::new(ResetFactorsResponse { removed }))
    }
}

fn enrol(request: EnrolFactorRequest) -> Result<EnrolFactor> {
    let EnrolFactorRequest { invitation, kind } = request;
    match optional(&kind)? {
        None | Some(FactorKind::Totp) => {}
        Some(FactorKind::Recovery) => {
            return Err(Error::invalid("recovery codes are made, not enrolled"));
        }
    }
    let shown = SecretBytes::new(invitation.into_bytes());
    let invitation =
        if shown.len_bytes() == 0 { None } else { Some(Invitation::parse(shown.expose())?) };
    Ok(EnrolFactor { invitation })
}

fn text(secret: &SecretBytes) -> Result<String> {
    String::from_utf8(secret.expose().to_vec()).map_err(|_encoding| Error::internal("no text"))
}

fn proven(factor: Proven) -> proto::ProvenFactor {
    proto::ProvenFactor {
        id: factor.id.to_string(),
        kind: factor.kind.to_string(),
        proven_at_ms: factor.proven_at.0,
    }
}

fn factor(shown: ShownFactor) -> Factor {
    let row = shown.row;
    Factor {
        id: row.id.to_string(),
        kind: row.kind.to_string(),
        state: row.state.to_string(),
        enrolled_at_ms: ms(row.enrolled_at),
        created_at_ms: row.created_at.0,
        vouched_by: shown.vouched_by,
        codes_left: shown.codes_left.unwrap_or_default(),
    }
}
