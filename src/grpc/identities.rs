//! `IdentityService`.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use super::fields::{ms, optional, retry, span};
use super::login;
use crate::engines::identities::{
    CreateIdentity, Described, ListIdentities, ResumeIdentity, ShowIdentity, SuspendIdentity,
    WhoAmI, Whoami,
};
use crate::engines::pki::LoginTtl;
use crate::error::Error;
use crate::policy::GrantSubject;
use crate::proto::identity_service_server::IdentityService;
use crate::proto::{
    CreateIdentityRequest, CreateIdentityResponse, GetIdentityRequest, GetIdentityResponse,
    Identity, IssueLoginCertificateRequest, IssueLoginCertificateResponse, ListIdentitiesRequest,
    ListIdentitiesResponse, Notice, Permission, ResumeIdentityRequest, ResumeIdentityResponse,
    SuspendIdentityRequest, SuspendIdentityResponse, WhoAmIRequest, WhoAmIResponse,
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
        request: Request<CreateIdentityRequest>,
    ) -> Result<Response<CreateIdentityResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = Gate::answer(&ctx, create(&request))?;
        let created = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(CreateIdentityResponse { identity: Some(identity(&created)) }))
    }

    async fn get_identity(
        &self,
        request: Request<GetIdentityRequest>,
    ) -> Result<Response<GetIdentityResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = ShowIdentity { name: Gate::answer(&ctx, request.name.parse())? };
        let found = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(GetIdentityResponse { identity: Some(identity(&found)) }))
    }

    async fn list_identities(
        &self,
        request: Request<ListIdentitiesRequest>,
    ) -> Result<Response<ListIdentitiesResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = Gate::answer(&ctx, list(request))?;
        let page = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(ListIdentitiesResponse {
            identities: page.identities.iter().map(identity).collect(),
            next_page_token: page.next,
        }))
    }

    async fn suspend_identity(
        &self,
        request: Request<SuspendIdentityRequest>,
    ) -> Result<Response<SuspendIdentityResponse>, Status> {
        let (ctx, SuspendIdentityRequest { name, reason }) = self.gate.accept(request).await?;
        let op = SuspendIdentity { name: Gate::answer(&ctx, name.parse())?, reason };
        let suspended = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(SuspendIdentityResponse { identity: Some(identity(&suspended)) }))
    }

    async fn resume_identity(
        &self,
        request: Request<ResumeIdentityRequest>,
    ) -> Result<Response<ResumeIdentityResponse>, Status> {
        let (ctx, ResumeIdentityRequest { name, reason }) = self.gate.accept(request).await?;
        let op = ResumeIdentity { name: Gate::answer(&ctx, name.parse())?, reason };
        let resumed = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(ResumeIdentityResponse { identity: Some(identity(&resumed)) }))
    }

    async fn issue_login_certificate(
        &self,
        request: Request<IssueLoginCertificateRequest>,
    ) -> Result<Response<IssueLoginCertificateResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = login::decode(&request, &self.gate.authorities, self.login);
        let op = Gate::answer(&ctx, op)?;
        let issued = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(Gate::answer(&ctx, login::encode(&issued))?))
    }
}

fn create(request: &CreateIdentityRequest) -> Result<CreateIdentity, Error> {
    Ok(CreateIdentity {
        name: request.name.parse()?,
        kind: request.kind.parse()?,
        owner: optional(&request.owner)?,
        purpose: request.purpose.clone(),
        tier: request.tier.parse()?,
        ttl: span("ttl_s", request.ttl_s)?,
        retry: retry(&request.idempotency_key, request)?,
    })
}

fn list(request: ListIdentitiesRequest) -> Result<ListIdentities, Error> {
    Ok(ListIdentities {
        kind: optional(&request.kind)?,
        owner: optional(&request.owner)?,
        state: optional(&request.state)?,
        tier: optional(&request.tier)?,
        page_size: request.page_size,
        page_token: request.page_token,
    })
}

fn identity(described: &Described) -> Identity {
    let row = &described.identity.row;
    Identity {
        id: row.id.to_string(),
        name: row.name.to_string(),
        kind: row.kind.to_string(),
        owner: described.owner.to_string(),
        purpose: row.purpose.clone(),
        tier: row.tier.to_string(),
        state: row.state.to_string(),
        expires_at_ms: ms(row.expires_at),
        groups: described.groups.iter().map(ToString::to_string).collect(),
        last_used_at_ms: ms(described.last_used_at),
        created_at_ms: row.created_at.0,
        created_by: described.created_by.clone(),
        changed_at_ms: row.changed_at.0,
        changed_by: described.changed_by.clone(),
        row_version: described.identity.version,
    }
}

fn whoami(ctx: &RequestContext, answer: &WhoAmI) -> WhoAmIResponse {
    let subject = &answer.subject;
    let (row, credential) = (&subject.identity.row, &subject.credential.row);
    let method = ctx.authenticated().map(|caller| caller.method.as_str()).unwrap_or_default();
    let mut permissions: Vec<_> = subject
        .all_grants()
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
