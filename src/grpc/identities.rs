//! `IdentityService`.

mod whoami;

use tonic::{Request, Response, Status};

use self::whoami::whoami;
use super::accept::Gate;
use super::fields::{ms, optional, retry, span};
use super::root::identity_key;
use super::{lifecycles, login, shreds};
use crate::engines::ceremonies::{Held, InCeremony};
use crate::engines::identities::{
    CreateIdentity, Described, End, FinishShred, Holdings, IdentityFilter, ListIdentities,
    ListLifecycles, ListShreds, ResumeIdentity, RetireIdentity, RotateIdentityKey,
    ScheduleIdentityKey, ShowHoldings, ShowIdentity, ShowIdentityKey, ShowShredding, ShredIdentity,
    SuspendIdentity, TransferIdentity, UpdateIdentity, Whoami,
};
use crate::engines::pki::LoginTtl;
use crate::error::Error;
use crate::proto::identity_service_server::IdentityService;
use crate::proto::{
    CreateIdentityRequest, CreateIdentityResponse, CredentialCount, FinishShredRequest,
    FinishShredResponse, FormerOwner, GetHoldingsRequest, GetHoldingsResponse,
    GetIdentityKeyRequest, GetIdentityKeyResponse, GetIdentityRequest, GetIdentityResponse,
    GetShreddingRequest, GetShreddingResponse, Identity, IssueLoginCertificateRequest,
    IssueLoginCertificateResponse, LeaseCount, ListIdentitiesRequest, ListIdentitiesResponse,
    ListLifecyclesRequest, ListLifecyclesResponse, ListShredsRequest, ListShredsResponse,
    PutLifecycleRequest, PutLifecycleResponse, ResumeIdentityRequest, ResumeIdentityResponse,
    RetireIdentityRequest, RetireIdentityResponse, RotateIdentityKeyRequest,
    RotateIdentityKeyResponse, ScheduleIdentityKeyRequest, ScheduleIdentityKeyResponse,
    ShredIdentityRequest, ShredIdentityResponse, SuspendIdentityRequest, SuspendIdentityResponse,
    TransferIdentityRequest, TransferIdentityResponse, UpdateIdentityRequest,
    UpdateIdentityResponse, WhoAmIRequest, WhoAmIResponse,
};
use crate::types::{OwnerName, Segment, UnixMillis};

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
        let op = self.gate.read(&ctx, create(&request))?;
        let created = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(CreateIdentityResponse { identity: Some(identity(&created)) }))
    }

    async fn get_identity(
        &self,
        request: Request<GetIdentityRequest>,
    ) -> Result<Response<GetIdentityResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = ShowIdentity { name: self.gate.read(&ctx, request.name.parse())? };
        let found = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(GetIdentityResponse { identity: Some(identity(&found)) }))
    }

    async fn list_identities(
        &self,
        request: Request<ListIdentitiesRequest>,
    ) -> Result<Response<ListIdentitiesResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, list(request))?;
        let page = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(ListIdentitiesResponse {
            identities: page.identities.iter().map(identity).collect(),
            next_page_token: page.next,
        }))
    }

    async fn list_lifecycles(
        &self,
        request: Request<ListLifecyclesRequest>,
    ) -> Result<Response<ListLifecyclesResponse>, Status> {
        let (ctx, ListLifecyclesRequest {}) = self.gate.accept(request).await?;
        let all = Gate::answer(&ctx, self.gate.vault.run(&ctx, ListLifecycles).await)?;
        let lifecycles = all.into_iter().map(lifecycles::lifecycle).collect();
        Ok(Response::new(ListLifecyclesResponse { lifecycles }))
    }

    async fn put_lifecycle(
        &self,
        request: Request<PutLifecycleRequest>,
    ) -> Result<Response<PutLifecycleResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, lifecycles::put(request))?;
        let put = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let lifecycle = Some(lifecycles::lifecycle(put));
        Ok(Response::new(PutLifecycleResponse { lifecycle }))
    }

    async fn get_holdings(
        &self,
        request: Request<GetHoldingsRequest>,
    ) -> Result<Response<GetHoldingsResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = ShowHoldings { name: self.gate.read(&ctx, request.name.parse())? };
        let held = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(holdings(held)))
    }

    async fn update_identity(
        &self,
        request: Request<UpdateIdentityRequest>,
    ) -> Result<Response<UpdateIdentityResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, update(request))?;
        let updated = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(UpdateIdentityResponse { identity: Some(identity(&updated)) }))
    }

    async fn transfer_identity(
        &self,
        request: Request<TransferIdentityRequest>,
    ) -> Result<Response<TransferIdentityResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, transfer(request))?;
        let transferred = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(TransferIdentityResponse { identity: Some(identity(&transferred)) }))
    }

    async fn rotate_identity_key(
        &self,
        request: Request<RotateIdentityKeyRequest>,
    ) -> Result<Response<RotateIdentityKeyResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let (name, expected) = (request.name, request.expected_version);
        let op = RotateIdentityKey { name: self.gate.read(&ctx, name.parse())?, expected };
        let rotated = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(RotateIdentityKeyResponse { key: Some(identity_key(rotated)) }))
    }

    async fn get_identity_key(
        &self,
        request: Request<GetIdentityKeyRequest>,
    ) -> Result<Response<GetIdentityKeyResponse>, Status> {
        let (ctx, GetIdentityKeyRequest { name }) = self.gate.accept(request).await?;
        let op = ShowIdentityKey { name: self.gate.read(&ctx, name.parse())? };
        let shown = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(GetIdentityKeyResponse { key: Some(identity_key(shown)) }))
    }

    async fn schedule_identity_key(
        &self,
        request: Request<ScheduleIdentityKeyRequest>,
    ) -> Result<Response<ScheduleIdentityKeyResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let every = self.gate.read(&ctx, span("rotate_every_s", request.rotate_every_s))?;
        let op = ScheduleIdentityKey { name: self.gate.read(&ctx, request.name.parse())?, every };
        let set = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(ScheduleIdentityKeyResponse { key: Some(identity_key(set)) }))
    }

    async fn suspend_identity(
        &self,
        request: Request<SuspendIdentityRequest>,
    ) -> Result<Response<SuspendIdentityResponse>, Status> {
        let (ctx, SuspendIdentityRequest { name, reason }) = self.gate.accept(request).await?;
        let name = self.gate.read(&ctx, name.parse())?;
        let op = SuspendIdentity { name, reason, due: None };
        let suspended = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(SuspendIdentityResponse { identity: Some(identity(&suspended)) }))
    }

    async fn resume_identity(
        &self,
        request: Request<ResumeIdentityRequest>,
    ) -> Result<Response<ResumeIdentityResponse>, Status> {
        let (ctx, ResumeIdentityRequest { name, reason }) = self.gate.accept(request).await?;
        let op = ResumeIdentity { name: self.gate.read(&ctx, name.parse())?, reason };
        let resumed = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(ResumeIdentityResponse { identity: Some(identity(&resumed)) }))
    }

    async fn retire_identity(
        &self,
        request: Request<RetireIdentityRequest>,
    ) -> Result<Response<RetireIdentityResponse>, Status> {
        let (ctx, RetireIdentityRequest { name, reason }) = self.gate.accept(request).await?;
        let op = RetireIdentity { name: self.gate.read(&ctx, name.parse())?, reason };
        let retired = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(RetireIdentityResponse { identity: Some(identity(&retired)) }))
    }

    async fn shred_identity(
        &self,
        request: Request<ShredIdentityRequest>,
    ) -> Result<Response<ShredIdentityResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let ShredIdentityRequest { name, confirm, reason } = request;
        let op = ShredIdentity { name: self.gate.read(&ctx, name.parse())?, confirm, reason };
        let held = self.gate.vault.run(&ctx, InCeremony(op)).await.and_then(Held::done);
        let shred = Some(shreds::shred(Gate::answer(&ctx, held)?));
        Ok(Response::new(ShredIdentityResponse { shred }))
    }

    async fn finish_shred(
        &self,
        request: Request<FinishShredRequest>,
    ) -> Result<Response<FinishShredResponse>, Status> {
        let (ctx, FinishShredRequest { name }) = self.gate.accept(request).await?;
        let op = FinishShred { name: self.gate.read(&ctx, name.parse())? };
        let done = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(FinishShredResponse { shred: Some(shreds::shred(done)) }))
    }

    async fn get_shredding(
        &self,
        request: Request<GetShreddingRequest>,
    ) -> Result<Response<GetShreddingResponse>, Status> {
        let (ctx, GetShreddingRequest { name }) = self.gate.accept(request).await?;
        let op = ShowShredding { name: self.gate.read(&ctx, name.parse())? };
        let found = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(shreds::shredding(found)))
    }

    async fn list_shreds(
        &self,
        request: Request<ListShredsRequest>,
    ) -> Result<Response<ListShredsResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let ListShredsRequest { page_size, page_token } = request;
        let op = ListShreds { page_size, page_token };
        let (listed, next_page_token) = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let shreds = listed.into_iter().map(shreds::shred).collect();
        Ok(Response::new(ListShredsResponse { shreds, next_page_token }))
    }

    async fn issue_login_certificate(
        &self,
        request: Request<IssueLoginCertificateRequest>,
    ) -> Result<Response<IssueLoginCertificateResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = login::decode(&request, &self.gate.authorities, self.login);
        let op = self.gate.read(&ctx, op)?;
        let issued = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(Gate::answer(&ctx, login::encode(&issued))?))
    }
}

fn create(request: &CreateIdentityRequest) -> Result<CreateIdentity, Error> {
    Ok(CreateIdentity {
        name: request.name.parse()?,
        kind: request.kind.parse()?,
        owner: owner(&request.owner, &request.owner_group)?,
        person: optional(&request.person)?,
        purpose: request.purpose.clone(),
        needs: request.needs.clone(),
        labels: request.labels.clone(),
        tier: request.tier.parse()?,
        ttl: span("ttl_s", request.ttl_s)?,
        retry: retry(&request.idempotency_key, request)?,
    })
}

/// Reads a human or a group; neither where both are left out.
fn owner(human: &str, group: &str) -> Result<Option<OwnerName>, Error> {
    match (human, group) {
        ("", "") => Ok(None),
        (human, "") => human.parse().map(OwnerName::Identity).map(Some),
        ("", group) => group.parse().map(OwnerName::Group).map(Some),
        _ => Err(Error::invalid("an owner is a human or a group, not both")),
    }
}

fn update(request: UpdateIdentityRequest) -> Result<UpdateIdentity, Error> {
    let end = match request.ttl_s {
        None => None,
        Some(ttl_s) => Some(span("ttl_s", ttl_s)?.map_or(End::Never, End::In)),
    };
    Ok(UpdateIdentity {
        name: request.name.parse()?,
        purpose: request.purpose,
        needs: request.needs,
        tier: request.tier.map(|tier| tier.parse()).transpose()?,
        set_labels: request.set_labels,
        remove_labels: request.remove_labels,
        end,
    })
}

fn transfer(request: TransferIdentityRequest) -> Result<TransferIdentity, Error> {
    let to = owner(&request.owner, &request.owner_group)?;
    let to = to.ok_or_else(|| Error::invalid("name the human or the group that is to own it"))?;
    Ok(TransferIdentity { name: request.name.parse()?, to, reason: request.reason })
}

fn list(request: ListIdentitiesRequest) -> Result<ListIdentities, Error> {
    let filter = IdentityFilter {
        kind: optional(&request.kind)?,
        state: optional(&request.state)?,
        tier: optional(&request.tier)?,
        owner: owner(&request.owner, &request.owner_group)?,
        person: optional(&request.person)?,
        labels: request.labels,
        prefix: request.prefix,
        expiring_before: moment(request.expiring_before_ms)?,
        unused_since: moment(request.unused_since_ms)?,
        orphaned: request.orphaned,
        search: request.search,
    };
    Ok(ListIdentities { filter, page_size: request.page_size, page_token: request.page_token })
}

/// Reads a moment; none where it is 0.
fn moment(ms: i64) -> Result<Option<UnixMillis>, Error> {
    match ms {
        0 => Ok(None),
        1.. => Ok(Some(UnixMillis(ms))),
        _ => Err(Error::invalid("a moment must not be negative")),
    }
}

fn holdings(held: Holdings) -> GetHoldingsResponse {
    let counted = held.credentials.into_iter().map(|of| CredentialCount {
        kind: of.kind.to_string(),
        in_force: of.in_force,
        contained: of.contained,
    });
    let leases = held.targets.into_iter().map(|on| LeaseCount {
        resource: on.resource.to_string(),
        in_force: on.in_force,
        ending: on.ending,
    });
    GetHoldingsResponse {
        identity: Some(identity(&held.identity)),
        credentials: counted.collect(),
        leases: leases.collect(),
        owned: held.owned,
        secrets: held.secrets,
        grants: held.grants,
        partial: held.partial,
        elevations: held.elevations,
        factors: held.factors,
        invitations: held.invitations,
        last_administrator: held.last_administrator,
        wraps: held.wraps,
        lent: held.lent,
        orphans: held.orphans,
    }
}

/// Writes an owner as the name of a human and the name of a group, one of which is empty.
fn owner_names(owner: &OwnerName) -> (String, String) {
    match owner {
        OwnerName::Identity(name) => (name.to_string(), String::new()),
        OwnerName::Group(name) => (String::new(), name.to_string()),
    }
}

fn former((owner, until): &(OwnerName, UnixMillis)) -> FormerOwner {
    let (owner, owner_group) = owner_names(owner);
    FormerOwner { owner, owner_group, until_ms: until.0 }
}

/// Writes which person a human is; nothing for a machine.
fn person(person: Option<&Segment>) -> String {
    person.map(ToString::to_string).unwrap_or_default()
}

fn identity(described: &Described) -> Identity {
    let row = &described.identity.row;
    let (owner, owner_group) = owner_names(&described.owner);
    Identity {
        id: row.id.to_string(),
        name: row.name.to_string(),
        kind: row.kind.to_string(),
        owner,
        owner_group,
        owner_active: described.owner_active,
        owned_since_ms: row.owned_since.0,
        former_owners: described.former_owners.iter().map(former).collect(),
        person: person(row.person.as_ref()),
        needs: row.needs.clone(),
        labels: described.labels.clone(),
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
