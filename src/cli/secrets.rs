//! `strongroom secret …`

mod args;
mod text;

use std::path::Path;

use data_encoding::BASE64;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::failure::{Exit, Failure, Outcome};
use super::files::{check_new, read_bytes, write_private_bytes};
use super::identities::by;
use super::output::{Format, fields, json_text, note, print, print_bytes, show, show_list, time};
use super::session::{Session, collect, idempotency_key, must};
use super::span::{Span, seconds_or_default};
use crate::proto::secret_service_client::SecretServiceClient as Client;
use crate::proto::{
    DeleteSecretRequest, DestroySecretRequest, GetMetadataRequest, GetSecretRequest,
    GetSecretResponse, ListSecretsRequest, ListVersionsRequest, PutSecretRequest,
    RollbackSecretRequest, SearchSecretsRequest, SecretMetadata, TransferSecretRequest,
    UndeleteSecretRequest, UpdateSecretRequest,
};

pub(super) use args::SecretCommand;
use args::{Chosen, Get, Metadata, Put};
use text::{HEADERS, metadata_text, row, version_text, versions_text};

/// Runs `strongroom secret …`.
pub(super) async fn run(session: &Session, command: &SecretCommand) -> Outcome {
    match command {
        SecretCommand::Put(args) => put(session, args).await,
        SecretCommand::Get(args) => get(session, args).await,
        SecretCommand::List { prefix, limit } => list(session, prefix, *limit).await,
        SecretCommand::Search { text, labels, limit } => {
            search(session, text, labels, *limit).await
        }
        SecretCommand::History { path, limit } => history(session, path, *limit).await,
        SecretCommand::Rollback { path, to, cas } => rollback(session, path, *to, *cas).await,
        SecretCommand::Delete { chosen, window } => delete(session, chosen, *window).await,
        SecretCommand::Undelete(chosen) => undelete(session, chosen).await,
        SecretCommand::Destroy { chosen, all } => destroy(session, chosen, *all).await,
        SecretCommand::Metadata(args) => metadata(session, args).await,
        SecretCommand::Transfer { path, owner, cas } => transfer(session, path, owner, *cas).await,
    }
}

async fn put(session: &Session, args: &Put) -> Outcome {
    let value = match (&args.stdin, &args.value, &args.from_file) {
        (Some(_), None, None) => read_bytes(Path::new("-"))?,
        (None, Some(value), None) => Zeroizing::new(value.clone().into_bytes()),
        (None, None, Some(file)) => read_bytes(file)?,
        (_, _, _) => {
            return Err(Failure::usage("where is the value?")
                .hint("give --from-file FILE, or `-` for standard input"));
        }
    };
    let request = PutSecretRequest {
        idempotency_key: idempotency_key()?,
        path: args.path.clone(),
        value: value.to_vec(),
        json: args.json,
        expected_version: args.cas,
        owner: args.owner.clone(),
        ttl_s: seconds_or_default(args.ttl),
    };
    let written = session
        .call(request, async |wire, request| Client::new(wire).put_secret(request).await)
        .await?;
    show(session.format, &written, |written| version_text(&args.path, written.version))
}

async fn get(session: &Session, args: &Get) -> Outcome {
    if let Some(path) = &args.out {
        check_new(path)?;
    }
    args.wrap.excludes(&[("--out", args.out.is_some()), ("--field", args.field.is_some())])?;
    let session = &args.wrap.session(session)?;
    let request = GetSecretRequest { path: args.path.clone(), version: args.version };
    let mut given = session
        .call(request, async |wire, request| Client::new(wire).get_secret(request).await)
        .await?;
    if args.wrap.hand_over(session.format, given.wrapped.take())? {
        return Ok(());
    }
    let value = Zeroizing::new(std::mem::take(&mut given.value));
    if !given.masked.is_empty() {
        note(&format!("masked: {}", given.masked.join(", ")));
    }
    let value = match &args.field {
        Some(field) => field_of(&value, given.json, field)?,
        None => value,
    };
    if let Some(path) = &args.out {
        write_private_bytes(path, &value)?;
        note(&format!("version {} is in {}", given.version, path.display()));
        return Ok(());
    }
    match session.format {
        Format::Human => print_bytes(&value),
        Format::Json => {
            let whole = args.field.is_none();
            print(&Zeroizing::new(json_text(&shown_json(&args.path, whole, &given, &value))))
        }
    }
}

/// Writes a value that was wrapped, as `secret get` does.
pub(super) fn unwrapped(
    format: Format,
    path: &str,
    mut given: GetSecretResponse,
) -> Zeroizing<Vec<u8>> {
    let value = Zeroizing::new(std::mem::take(&mut given.value));
    if !given.masked.is_empty() {
        note(&format!("masked: {}", given.masked.join(", ")));
    }
    match format {
        Format::Human => value,
        Format::Json => {
            Zeroizing::new(json_text(&shown_json(path, true, &given, &value)).into_bytes())
        }
    }
}

/// A value and its version; text where it is text, base64 where it is not.
fn shown_json(path: &str, whole: bool, given: &GetSecretResponse, value: &[u8]) -> Value {
    let mut shown = json!({
        "path": path,
        "version": given.version,
        "created_at_ms": given.created_at_ms,
        "expires_at_ms": given.expires_at_ms,
        "masked": given.masked,
    });
    let (key, value) = match (given.json && whole, std::str::from_utf8(value)) {
        (true, _) => ("value", serde_json::from_slice(value).unwrap_or(Value::Null)),
        (false, Ok(text)) => ("value", Value::from(text)),
        (false, Err(_binary)) => ("value_base64", Value::from(BASE64.encode(value))),
    };
    if let Some(object) = shown.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
    shown
}

/// One field of a JSON value: text as it is, anything else as JSON.
fn field_of(value: &[u8], is_json: bool, field: &str) -> Outcome<Zeroizing<Vec<u8>>> {
    if !is_json {
        return Err(Failure::usage("the value is no JSON object: it has no fields"));
    }
    let object: Value = serde_json::from_slice(value)
        .map_err(|error| Failure::new(Exit::Unexpected, error.to_string()))?;
    match object.get(field) {
        Some(Value::String(text)) => Ok(Zeroizing::new(text.clone().into_bytes())),
        Some(other) => Ok(Zeroizing::new(other.to_string().into_bytes())),
        None => Err(Failure::new(Exit::NotFound, "the value has no such field")),
    }
}

async fn list(session: &Session, prefix: &str, limit: usize) -> Outcome {
    let listed = collect(limit, async |page_size, page_token| {
        let request = ListSecretsRequest { page_size, page_token, prefix: prefix.to_owned() };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_secrets(request).await)
            .await?;
        Ok((page.items, page.next_page_token))
    })
    .await?;
    show_list(session.format, &listed, HEADERS, row)
}

async fn search(
    session: &Session,
    text: &str,
    labels: &[(String, String)],
    limit: usize,
) -> Outcome {
    let listed = collect(limit, async |page_size, page_token| {
        let (text, labels) = (text.to_owned(), labels.iter().cloned().collect());
        let request = SearchSecretsRequest { page_size, page_token, text, labels };
        let page = session
            .call(request, async |wire, request| Client::new(wire).search_secrets(request).await)
            .await?;
        Ok((page.items, page.next_page_token))
    })
    .await?;
    show_list(session.format, &listed, HEADERS, row)
}

async fn history(session: &Session, path: &str, limit: usize) -> Outcome {
    let listed = collect(limit, async |page_size, page_token| {
        let request = ListVersionsRequest { path: path.to_owned(), page_size, page_token };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_versions(request).await)
            .await?;
        Ok((page.versions, page.next_page_token))
    })
    .await?;
    let headers = ["VERSION", "STATE", "WRITTEN", "BYTES", "ENDS", "DESTROYED", "REPLACE"];
    show_list(session.format, &listed, headers, |version| {
        [
            version.version.to_string(),
            version.state.clone(),
            by(version.created_at_ms, &version.created_by),
            version.len_bytes.to_string(),
            time(version.expires_at_ms),
            time(version.destroyed_at_ms),
            if version.replace_since_ms == 0 { String::new() } else { "yes".into() },
        ]
    })
}

async fn rollback(session: &Session, path: &str, to: i64, cas: i64) -> Outcome {
    let request = RollbackSecretRequest {
        idempotency_key: idempotency_key()?,
        path: path.to_owned(),
        version: to,
        expected_version: cas,
    };
    let written = session
        .call(request, async |wire, request| Client::new(wire).rollback_secret(request).await)
        .await?;
    show(session.format, &written, |written| version_text(path, written.version))
}

async fn delete(session: &Session, chosen: &Chosen, window: Option<Span>) -> Outcome {
    let Chosen { path, versions, cas } = chosen.clone();
    let window_s = seconds_or_default(window);
    let request = DeleteSecretRequest { path, versions, expected_version: cas, window_s };
    let answer = session
        .call(request, async |wire, request| Client::new(wire).delete_secret(request).await)
        .await?;
    show(session.format, &answer, |answer| versions_text(chosen, "deleted", &answer.versions))
}

async fn undelete(session: &Session, chosen: &Chosen) -> Outcome {
    let Chosen { path, versions, cas } = chosen.clone();
    let request = UndeleteSecretRequest { path, versions, expected_version: cas };
    let answer = session
        .call(request, async |wire, request| Client::new(wire).undelete_secret(request).await)
        .await?;
    show(session.format, &answer, |answer| versions_text(chosen, "undeleted", &answer.versions))
}

async fn destroy(session: &Session, chosen: &Chosen, all: bool) -> Outcome {
    let Chosen { path, versions, cas } = chosen.clone();
    let request = DestroySecretRequest { path, versions, all, expected_version: cas };
    let answer = session
        .call(request, async |wire, request| Client::new(wire).destroy_secret(request).await)
        .await?;
    show(session.format, &answer, |answer| versions_text(chosen, "destroyed", &answer.versions))
}

async fn shown(session: &Session, path: &str) -> Outcome<SecretMetadata> {
    let request = GetMetadataRequest { path: path.to_owned() };
    let found = session
        .call(request, async |wire, request| Client::new(wire).get_metadata(request).await)
        .await?;
    must(found.metadata)
}

async fn metadata(session: &Session, args: &Metadata) -> Outcome {
    let asked = !(args.labels.is_empty() && args.no_labels.is_empty())
        || args.max_versions.is_some()
        || args.window.is_some();
    if !asked {
        return show(session.format, &shown(session, &args.path).await?, metadata_text);
    }
    let revision = match args.revision {
        Some(revision) => revision,
        None => shown(session, &args.path).await?.revision,
    };
    let request = UpdateSecretRequest {
        path: args.path.clone(),
        revision,
        set_labels: args.labels.iter().cloned().collect(),
        remove_labels: args.no_labels.clone(),
        max_versions: args.max_versions.unwrap_or_default(),
        window_s: seconds_or_default(args.window),
    };
    // Once: a repetition would find another revision than it names.
    let changed = session
        .call_once(request, async |wire, request| Client::new(wire).update_secret(request).await)
        .await?;
    show(session.format, &must(changed.metadata)?, metadata_text)
}

async fn transfer(session: &Session, path: &str, owner: &str, cas: i64) -> Outcome {
    let request = TransferSecretRequest {
        path: path.to_owned(),
        owner: owner.to_owned(),
        expected_version: cas,
    };
    let done = session
        .call(request, async |wire, request| Client::new(wire).transfer_secret(request).await)
        .await?;
    show(session.format, &done, |done| {
        fields(&[("path", path.to_owned()), ("owner", done.owner.clone())])
    })
}
