//! `SecretService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::accept::Gate;
use super::fields::{ms, optional, retry, span};
use crate::engines::secrets::{
    Chosen, DeleteSecret, DestroySecret, Early, GetSecret, Given, ListSecrets, ListVersions,
    Metadata, PutSecret, Reads, RollbackSecret, Room, SearchSecrets, SecretValue, ShowMetadata,
    ShownSecret, ShownVersion, Standing, TransferSecret, UndeleteSecret, UpdateSecret,
};
use crate::error::{Error, Result};
use crate::proto::secret_service_server::SecretService;
use crate::proto::{
    DeleteSecretRequest, DeleteSecretResponse, DestroySecretRequest, DestroySecretResponse,
    GetMetadataRequest, GetMetadataResponse, GetSecretRequest, GetSecretResponse,
    ListSecretsRequest, ListSecretsResponse, ListVersionsRequest, ListVersionsResponse,
    PutSecretRequest, PutSecretResponse, RollbackSecretRequest, RollbackSecretResponse,
    SearchSecretsRequest, SearchSecretsResponse, SecretItem, SecretMetadata, SecretVersion,
    TransferSecretRequest, TransferSecretResponse, UndeleteSecretRequest, UndeleteSecretResponse,
    UpdateSecretRequest, UpdateSecretResponse,
};
use crate::types::SecretBytes;

/// Serves secrets.
#[derive(Debug, Clone)]
pub(super) struct Secrets {
    gate: Gate,
    reads: Reads,
    room: Room,
}

impl Secrets {
    pub(super) fn new(gate: Gate) -> Self {
        Self { gate, reads: Reads::default(), room: Room::default() }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl SecretService for Secrets {
    async fn put_secret(&self, request: Request<PutSecretRequest>) -> Answer<PutSecretResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, put(request, &self.room))?;
        let written = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let (id, version) = (written.id.to_string(), written.version);
        Ok(Response::new(PutSecretResponse { id, version }))
    }

    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Answer<GetSecretResponse> {
        let (ctx, request, wrap) = self.gate.accept_wrapping(request).await?;
        let GetSecretRequest { path, version } = request;
        let path = self.gate.read(&ctx, path.parse())?;
        let (reads, room) = (self.reads.clone(), self.room.clone());
        let op = GetSecret { reads, room, path, version, early: Early::default() };
        self.gate.give(&ctx, op, wrap, |given: &Arc<Given>| Ok(show_given(given))).await
    }

    async fn list_secrets(
        &self,
        request: Request<ListSecretsRequest>,
    ) -> Answer<ListSecretsResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let ListSecretsRequest { page_size, page_token, prefix } = request;
        let op = ListSecrets { prefix, page_size, page_token };
        let page = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let items = page.secrets.into_iter().map(item).collect();
        Ok(Response::new(ListSecretsResponse { items, next_page_token: page.next }))
    }

    async fn search_secrets(
        &self,
        request: Request<SearchSecretsRequest>,
    ) -> Answer<SearchSecretsResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let SearchSecretsRequest { page_size, page_token, text, labels } = request;
        let op = SearchSecrets { text, labels, page_size, page_token };
        let page = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let items = page.secrets.into_iter().map(item).collect();
        Ok(Response::new(SearchSecretsResponse { items, next_page_token: page.next }))
    }

    async fn list_versions(
        &self,
        request: Request<ListVersionsRequest>,
    ) -> Answer<ListVersionsResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let ListVersionsRequest { path, page_size, page_token } = request;
        let op = ListVersions { path: self.gate.read(&ctx, path.parse())?, page_size, page_token };
        let history = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let versions = history.versions.into_iter().map(version).collect();
        Ok(Response::new(ListVersionsResponse { versions, next_page_token: history.next }))
    }

    async fn rollback_secret(
        &self,
        request: Request<RollbackSecretRequest>,
    ) -> Answer<RollbackSecretResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, rollback(&request, &self.room))?;
        let written = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let (id, version) = (written.id.to_string(), written.version);
        Ok(Response::new(RollbackSecretResponse { id, version }))
    }

    async fn delete_secret(
        &self,
        request: Request<DeleteSecretRequest>,
    ) -> Answer<DeleteSecretResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let DeleteSecretRequest { path, versions, expected_version, window_s } = request;
        let op = DeleteSecret {
            path: self.gate.read(&ctx, path.parse())?,
            chosen: Chosen { versions, expected: expected_version },
            window: self.gate.read(&ctx, span("window_s", window_s))?,
        };
        let changed = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(DeleteSecretResponse { versions: changed.versions }))
    }

    async fn undelete_secret(
        &self,
        request: Request<UndeleteSecretRequest>,
    ) -> Answer<UndeleteSecretResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let UndeleteSecretRequest { path, versions, expected_version } = request;
        let op = UndeleteSecret {
            path: self.gate.read(&ctx, path.parse())?,
            chosen: Chosen { versions, expected: expected_version },
        };
        let changed = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(UndeleteSecretResponse { versions: changed.versions }))
    }

    async fn destroy_secret(
        &self,
        request: Request<DestroySecretRequest>,
    ) -> Answer<DestroySecretResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, destroy(request))?;
        let changed = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(DestroySecretResponse { versions: changed.versions }))
    }

    async fn get_metadata(
        &self,
        request: Request<GetMetadataRequest>,
    ) -> Answer<GetMetadataResponse> {
        let (ctx, GetMetadataRequest { path }) = self.gate.accept(request).await?;
        let op = ShowMetadata { path: self.gate.read(&ctx, path.parse())? };
        let found = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(GetMetadataResponse { metadata: Some(metadata(found)) }))
    }

    async fn update_secret(
        &self,
        request: Request<UpdateSecretRequest>,
    ) -> Answer<UpdateSecretResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, update(request))?;
        let changed = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(UpdateSecretResponse { metadata: Some(metadata(changed)) }))
    }

    async fn transfer_secret(
        &self,
        request: Request<TransferSecretRequest>,
    ) -> Answer<TransferSecretResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let TransferSecretRequest { path, owner, expected_version } = request;
        let op = TransferSecret {
            path: self.gate.read(&ctx, path.parse())?,
            owner: self.gate.read(&ctx, owner.parse())?,
            expected: expected_version,
        };
        let owner = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?.to_string();
        Ok(Response::new(TransferSecretResponse { owner }))
    }
}

fn show_given(given: &Given) -> GetSecretResponse {
    GetSecretResponse {
        value: given.value.expose().to_vec(),
        json: given.row.is_json,
        version: given.row.version,
        created_at_ms: given.row.created_at.0,
        expires_at_ms: ms(given.row.expires_at),
        masked: given.masked.clone(),
        wrapped: None,
    }
}

fn put(mut request: PutSecretRequest, room: &Room) -> Result<PutSecret> {
    // All of it is hashed for the retry; the value leaves it only then.
    let retry = retry(&request.idempotency_key, &request);
    let value = SecretBytes::new(std::mem::take(&mut request.value));
    Ok(PutSecret {
        standing: Standing::default(),
        path: request.path.parse()?,
        owner: optional(&request.owner)?,
        value: SecretValue::parse(value, request.json, room)?,
        expected: request.expected_version,
        ttl: span("ttl_s", request.ttl_s)?,
        retry: retry?,
    })
}

fn rollback(request: &RollbackSecretRequest, room: &Room) -> Result<RollbackSecret> {
    Ok(RollbackSecret {
        room: room.clone(),
        path: request.path.parse()?,
        to: request.version,
        expected: request.expected_version,
        retry: retry(&request.idempotency_key, request)?,
    })
}

fn destroy(request: DestroySecretRequest) -> Result<DestroySecret> {
    let DestroySecretRequest { path, versions, all, expected_version } = request;
    if versions.is_empty() != all {
        return Err(Error::invalid("name the versions to destroy, or say that it is all of them"));
    }
    let chosen = Chosen { versions, expected: expected_version };
    Ok(DestroySecret { path: path.parse()?, chosen })
}

fn update(request: UpdateSecretRequest) -> Result<UpdateSecret> {
    Ok(UpdateSecret {
        path: request.path.parse()?,
        revision: request.revision,
        set_labels: request.set_labels,
        remove_labels: request.remove_labels,
        max_versions: (request.max_versions != 0).then_some(request.max_versions),
        window: span("window_s", request.window_s)?,
    })
}

fn item(shown: ShownSecret) -> SecretItem {
    SecretItem {
        id: shown.row.id.to_string(),
        path: shown.row.path.to_string(),
        owner: shown.owner.to_string(),
        labels: shown.labels,
        version: shown.newest,
        written_at_ms: shown.written_at.0,
    }
}

fn version(shown: ShownVersion) -> SecretVersion {
    let row = shown.row;
    SecretVersion {
        version: row.version,
        state: if shown.expired { "expired" } else { row.state.as_str() }.to_owned(),
        json: row.is_json,
        len_bytes: row.len_bytes,
        created_at_ms: row.created_at.0,
        created_by: shown.created_by,
        expires_at_ms: ms(row.expires_at),
        destroyed_at_ms: ms(row.purge_at),
        restored_from: row.restored_from.unwrap_or_default(),
        replace_since_ms: ms(row.exposed_at),
        read_under: row.exposed_under.map(|id| id.to_string()).unwrap_or_default(),
        changed_at_ms: row.changed_at.0,
        changed_by: shown.changed_by,
    }
}

fn metadata(found: Metadata) -> SecretMetadata {
    let row = found.secret.row;
    let (last_read_by, last_read_at_ms, last_read_version) = match found.last_read {
        Some((by, at, version)) => (by, at.0, version),
        None => Default::default(),
    };
    SecretMetadata {
        id: row.id.to_string(),
        path: row.path.to_string(),
        owner: found.owner.to_string(),
        owner_active: found.owner_active,
        labels: found.labels,
        max_versions: row.max_versions,
        window_s: row.window_s,
        revision: found.secret.version,
        newest: Some(version(found.newest)),
        last_read_at_ms,
        last_read_by,
        last_read_version,
        created_at_ms: row.created_at.0,
        created_by: found.created_by,
        changed_at_ms: row.changed_at.0,
        changed_by: found.changed_by,
    }
}
