//! `RecordService`.

use std::pin::Pin;

use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::accept::Gate;
use crate::audit::{self, Field, Named, ReadFactor, Shown};
use crate::crypto::hex;
use crate::engines::records::{Checkpoint, List, Question, Raw, Read, Tail, Verified, VerifyState};
use crate::error::{Error, Result as Parsed};
use crate::proto::record_service_server::RecordService;
use crate::proto::{
    Entry, EntryFilter, GetCheckpointRequest, GetCheckpointResponse, KeyUse, ListEntriesRequest,
    ListEntriesResponse, ProvenFactor, ReadLogRequest, ReadLogResponse, RowChange, StateFault,
    TailEntriesRequest, TailEntriesResponse, VerifyStateRequest, VerifyStateResponse,
};

/// Serves the record.
#[derive(Debug, Clone)]
pub(super) struct Records(pub(super) Gate);

#[tonic::async_trait]
impl RecordService for Records {
    async fn list_entries(
        &self,
        request: Request<ListEntriesRequest>,
    ) -> Result<Response<ListEntriesResponse>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let ListEntriesRequest { page_size, page_token, filter } = request;
        let question = self.0.read(&ctx, question(filter.as_ref()))?;
        let list = List { question, page_size, page_token };
        let page = Gate::answer(&ctx, self.0.vault.run(&ctx, list).await)?;
        let entries = page.entries.iter().map(entry).collect();
        Ok(Response::new(ListEntriesResponse { entries, next_page_token: page.next.clone() }))
    }

    type TailEntriesStream =
        Pin<Box<dyn Stream<Item = Result<TailEntriesResponse, Status>> + Send>>;

    async fn tail_entries(
        &self,
        request: Request<TailEntriesRequest>,
    ) -> Result<Response<Self::TailEntriesStream>, Status> {
        let (ctx, request) = self.0.accept(request).await?;
        let TailEntriesRequest { filter, last } = request;
        let tail = question(filter.as_ref()).and_then(|question| Tail::new(question, last));
        let tail = self.0.read(&ctx, tail)?;
        let items = Gate::answer(&ctx, self.0.vault.stream(&ctx, tail).await)?;
        let answers = items.map(move |item| {
            let shown = Gate::answer(&ctx, item)?;
            Ok(TailEntriesResponse { entry: Some(entry(&shown)) })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_checkpoint(
        &self,
        request: Request<GetCheckpointRequest>,
    ) -> Result<Response<GetCheckpointResponse>, Status> {
        let (ctx, GetCheckpointRequest {}) = self.0.accept(request).await?;
        let newest = Gate::answer(&ctx, self.0.vault.run(&ctx, Checkpoint).await)?;
        Ok(Response::new(GetCheckpointResponse {
            note: newest.note,
            verifier_key: newest.verifier_key,
            size: i64::try_from(newest.size).unwrap_or(i64::MAX),
            signed_at_ms: newest.signed_at.0,
        }))
    }

    async fn read_log(
        &self,
        request: Request<ReadLogRequest>,
    ) -> Result<Response<ReadLogResponse>, Status> {
        let (ctx, ReadLogRequest { path }) = self.0.accept(request).await?;
        let path = path.parse().map_err(|_malformed| {
            Error::invalid("path must be that of a tile or an entry bundle, in its one form")
        });
        let path = self.0.read(&ctx, path)?;
        let part = Gate::answer(&ctx, self.0.vault.run(&ctx, Read { path }).await)?;
        Ok(Response::new(ReadLogResponse { data: part.data.clone(), side: part.side.clone() }))
    }

    async fn verify_state(
        &self,
        request: Request<VerifyStateRequest>,
    ) -> Result<Response<VerifyStateResponse>, Status> {
        let (ctx, VerifyStateRequest { ticket }) = self.0.accept(request).await?;
        let ticket = u64::try_from(ticket)
            .map_err(|_negative| Error::invalid("ticket must be one that the vault gave, or 0"));
        let ticket = self.0.read(&ctx, ticket)?;
        let found = Gate::answer(&ctx, self.0.vault.run(&ctx, VerifyState { ticket }).await)?;
        Ok(Response::new(verified(&found)))
    }
}

fn verified(found: &Verified) -> VerifyStateResponse {
    let ticket = i64::try_from(found.ticket).unwrap_or(i64::MAX);
    let Some(report) = &found.report else {
        return VerifyStateResponse { ticket, ..Default::default() };
    };
    let fault = |fault: &audit::StateFault| StateFault {
        table: fault.table.to_owned(),
        key: fault.key.clone(),
        problem: fault.wrong.as_str().to_owned(),
        named_version: fault.named,
        found_version: fault.found,
    };
    VerifyStateResponse {
        ticket,
        checked_at_ms: report.checked_at.0,
        entries: i64::try_from(report.entries).unwrap_or(i64::MAX),
        rows: i64::try_from(report.rows).unwrap_or(i64::MAX),
        faults: report.faults.iter().map(fault).collect(),
        more_faults: i64::try_from(report.more).unwrap_or(i64::MAX),
    }
}

fn question(filter: Option<&EntryFilter>) -> Parsed<Question> {
    let Some(filter) = filter else { return Ok(Question::default()) };
    Question::parse(Raw {
        identity: &filter.identity,
        action: &filter.action,
        resource: &filter.resource,
        outcome: &filter.outcome,
        object: &filter.object_id,
        from_ms: filter.from_ms,
        to_ms: filter.to_ms,
    })
}

fn entry(shown: &Shown) -> Entry {
    let read = &shown.entry;
    let identity = match read.identity {
        Some(_) => named(shown, Field::Identity),
        None => format!("system/{}", read.method),
    };
    let method = if read.identity.is_some() { read.method.clone() } else { String::new() };
    Entry {
        index: shown.index,
        time_ms: read.at.0,
        request_id: read.request.to_string(),
        identity_id: read.identity.map(|id| id.to_string()).unwrap_or_default(),
        identity,
        method,
        credential_id: read.caller_credential.map(|id| id.to_string()).unwrap_or_default(),
        action: read.action.clone(),
        resource: named(shown, Field::Resource),
        decision: if read.allowed { "allow" } else { "deny" }.to_owned(),
        reason: read.reason.clone(),
        decided_by: read.by.clone(),
        keys: read
            .keys
            .iter()
            .map(|(key, version, purpose)| KeyUse {
                key: key.clone(),
                version: *version,
                purpose: purpose.clone(),
            })
            .collect(),
        outcome: if read.outcome == "OK" { "ok".to_owned() } else { read.outcome.clone() },
        duration_us: i64::try_from(read.duration_us).unwrap_or(i64::MAX),
        changes: read
            .changes
            .iter()
            .map(|(table, key, row_version, hash)| RowChange {
                table: table.clone(),
                key: key.clone(),
                row_version: *row_version,
                sha256: hex(hash),
            })
            .collect(),
        source: named(shown, Field::Source),
        subject_id: read.credential.map(|id| id.to_string()).unwrap_or_default(),
        given_reason: named(shown, Field::Reason),
        detail: named(shown, Field::Detail),
        erased: fields(shown, &Named::Erased),
        altered: fields(shown, &Named::Altered),
        factors: read.factors.iter().map(factor).collect(),
    }
}

fn factor(read: &ReadFactor) -> ProvenFactor {
    ProvenFactor { id: read.factor.to_string(), kind: read.kind.clone(), proven_at_ms: read.at.0 }
}

/// The values of a field that are what the entry commits to. Only names have several, and no name
/// holds a space.
fn named(shown: &Shown, field: Field) -> String {
    let known = shown.names.of(field).filter_map(|named| match named {
        Named::Known(value) => Some(value.as_str()),
        Named::Erased | Named::Altered => None,
    });
    known.collect::<Vec<_>>().join(" ")
}

fn fields(shown: &Shown, fate: &Named) -> Vec<String> {
    let mut fields: Vec<_> = shown
        .names
        .values
        .iter()
        .filter(|(_, named)| named == fate)
        .map(|(field, _)| field.as_str().to_owned())
        .collect();
    fields.dedup();
    fields
}
