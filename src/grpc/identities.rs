//! `IdentityService`.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use super::login;
use crate::engines::identities::{WhoAmI, Whoami};
use crate::engines::pki::LoginTtl;
use crate::policy::GrantSubject;
use crate::proto::identity_service_server::IdentityService;
use crate::proto::{
    IssueLoginCertificateRequest, IssueLoginCertificateResponse, Notice, Permission, WhoAmIRequest,
    WhoAmIResponse,
};
use crate::types::RequestContext;

/// Serves identities.
#[derive(Debug, Clone)]
pub(super) struct Identities {
    pub(super) gate: Gate,
    pub(super) login: LoginTtl,
}

#[tonic::async_trait]
impl IdentityService for Identities {
    async fn who_am_i(
        &self,
        request: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        let (ctx, WhoAmIRequest {}) = self.gate.accept(request).await?;
        let answer = Gate::answer(&ctx, self.gate.vault.run(&ctx, Whoami).await)?;
        Ok(Response::new(whoami(&ctx, &answer)))
    }

    async fn create_identity(
        &self,
        _: Request<crate::proto::CreateIdentityRequest>,
    ) -> Result<Response<crate::proto::CreateIdentityResponse>, Status> {
        Err(Status::unimplemented("next"))
    }

    async fn get_identity(
        &self,
        _: Request<crate::proto::GetIdentityRequest>,
    ) -> Result<Response<crate::proto::GetIdentityResponse>, Status> {
        Err(Status::unimplemented("next"))
    }

    async fn list_identities(
        &self,
        _: Request<crate::proto::ListIdentitiesRequest>,
    ) -> Result<Response<crate::proto::ListIdentitiesResponse>, Status> {
        Err(Status::unimplemented("next"))
    }

    async fn suspend_identity(
        &self,
        _: Request<crate::proto::SuspendIdentityRequest>,
    ) -> Result<Response<crate::proto::SuspendIdentityResponse>, Status> {
        Err(Status::unimplemented("next"))
    }

    async fn resume_identity(
        &self,
        _: Request<crate::proto::ResumeIdentityRequest>,
    ) -> Result<Response<crate::proto::ResumeIdentityResponse>, Status> {
        Err(Status::unimplemented("next"))
    }

    async fn issue_login_certificate(
        &self,
        request: Request<IssueLoginCertificateRequest>,
    ) -> Result<Response<IssueLoginCertificateResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = login::decode(&request, &self.gate.authorities, self.login);
        let op = Gate::answer(&ctx, op)?;
        let issued = Gate::answer(&ctx, self.gate.vault.run_effect(&ctx, op).await)?;
        Ok(Response::new(Gate::answer(&ctx, login::encode(&issued))?))
    }
}

fn whoami(ctx: &RequestContext, answer: &WhoAmI) -> WhoAmIResponse {
    let subject = &answer.subject;
    let (row, credential) = (&subject.identity.row, &subject.credential.row);
    let method = ctx.authenticated().map(|caller| caller.method.as_str()).unwrap_or_default();
    let mut permissions: Vec<_> = subject
        .grants
        .values()
        .flatten()
        .map(|held| Permission {
            action: held.row.action.clone(),
            resource: held.row.resource.to_string(),
            expires_at_ms: held.row.expires_at.map_or(0, |end| end.0),
            group: match held.facts().subject {
                GrantSubject::Identity(_) => String::new(),
                GrantSubject::Group(id) => subject
                    .groups
                    .iter()
                    .find(|group| group.row.id == id)
                    .map(|group| group.row.name.to_string())
                    .unwrap_or_default(),
            },
        })
        .collect();
    permissions.sort_by(|a, b| (&a.action, &a.resource).cmp(&(&b.action, &b.resource)));
    let dev = answer.dev.then(|| Notice {
        code: "DEVELOPMENT_VAULT".to_owned(),
        message: "this vault is marked as development for ever; its keys are files".to_owned(),
    });
    WhoAmIResponse {
        id: row.id.to_string(),
        identity: row.name.to_string(),
        kind: row.kind.to_string(),
        owner: subject.owner.row.name.to_string(),
        method: method.to_owned(),
        credential_id: credential.id.to_string(),
        credential_expires_at_ms: credential.expires_at.0,
        expires_at_ms: row.expires_at.map_or(0, |end| end.0),
        groups: subject.groups.iter().map(|group| group.row.name.to_string()).collect(),
        administrator: subject.is_administrator(),
        permissions,
        notices: dev.into_iter().collect(),
    }
}
