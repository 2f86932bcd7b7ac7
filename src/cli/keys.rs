//! `strongroom key …`

mod args;
mod custody;
mod streams;
mod text;
mod work;

use super::failure::Outcome;
use super::output::{print, show, show_list};
use super::session::{Session, collect, idempotency_key, must};
use super::span::{Span, seconds_or_default};
use crate::proto::key_service_client::KeyServiceClient as Client;
use crate::proto::{
    CreateKeyRequest, ExportKeyRequest, GetKeyRequest, GetKeyResponse, ListKeysRequest,
    RotateKeyRequest, UpdateKeyRequest,
};

pub(super) use args::KeyCommand;
use args::{Create, Decrypt, Update};
use text::{HEADERS, key_text, row, shown_text};
pub(super) use work::{unwrapped_data_key, unwrapped_plaintext, unwrapped_random};

/// Runs `strongroom key …`.
pub(super) async fn run(session: &Session, command: &KeyCommand) -> Outcome {
    match command {
        KeyCommand::Create(args) => create(session, args).await,
        KeyCommand::Show { name } => show(session.format, &fetch(session, name).await?, shown_text),
        KeyCommand::List { prefix, limit, unused_for } => {
            list(session, prefix, (*limit, *unused_for)).await
        }
        KeyCommand::Usage { name, limit } => custody::usage(session, name, *limit).await,
        KeyCommand::WrappingKey { name } => custody::wrapping_key(session, name).await,
        KeyCommand::Import { name, wrapped } => custody::import(session, name, wrapped).await,
        KeyCommand::Transfer { name, owner, cas } => {
            custody::transfer(session, name, (owner, *cas)).await
        }
        KeyCommand::Backup { name, out } => custody::backup(session, name, out).await,
        KeyCommand::Restore { name, from } => custody::restore(session, name, from).await,
        KeyCommand::Rotate { name, cas } => rotate(session, name, *cas).await,
        KeyCommand::Update(args) => update(session, args).await,
        KeyCommand::Disable { name } => turn(session, name, "disabled").await,
        KeyCommand::Enable { name } => turn(session, name, "active").await,
        KeyCommand::Encrypt(piece) => match streams::asked(piece)? {
            Some(files) => streams::encrypt(session, piece, files).await,
            None => work::encrypt(session, piece).await,
        },
        KeyCommand::Decrypt(Decrypt { piece, wrap }) => {
            let out = ("--out", piece.out.is_some());
            wrap.excludes(&[("--file", piece.file.is_some()), out])?;
            match streams::asked(piece)? {
                Some(files) => streams::decrypt(session, piece, files).await,
                None => work::decrypt(session, piece, wrap).await,
            }
        }
        KeyCommand::Rewrap(piece) => work::rewrap(session, piece).await,
        KeyCommand::Datakey { name, out, bytes, aad, wrap } => {
            work::data_key(session, name, out.as_deref(), (*bytes, aad, wrap)).await
        }
        KeyCommand::Mac(message) => work::mac(session, message).await,
        KeyCommand::VerifyMac(check) => work::verify_mac(session, check).await,
        KeyCommand::Sign(message) => work::sign(session, message).await,
        KeyCommand::Verify(check) => work::verify(session, check).await,
        KeyCommand::Export { name, version } => export(session, name, *version).await,
        KeyCommand::Random { bytes, out, wrap } => {
            work::random(session, *bytes, out.as_deref(), wrap).await
        }
    }
}

async fn create(session: &Session, args: &Create) -> Outcome {
    let request = CreateKeyRequest {
        idempotency_key: idempotency_key()?,
        name: args.name.clone(),
        algorithm: args.algorithm.clone(),
        placement: args.placement.clone(),
        owner: args.owner.clone(),
        rotate_every_s: seconds_or_default(args.rotate_every),
        labels: args.labels.iter().cloned().collect(),
        purpose: if args.for_artifacts { "artifacts".to_owned() } else { String::new() },
        import: args.import,
        may_back_up: args.allow_backup,
    };
    let made = session
        .call(request, async |wire, request| Client::new(wire).create_key(request).await)
        .await?;
    show(session.format, &must(made.key)?, key_text)
}

async fn fetch(session: &Session, name: &str) -> Outcome<GetKeyResponse> {
    let request = GetKeyRequest { name: name.to_owned() };
    session.call(request, async |wire, request| Client::new(wire).get_key(request).await).await
}

async fn list(
    session: &Session,
    prefix: &str,
    (limit, unused_for): (usize, Option<Span>),
) -> Outcome {
    let unused_for_s = seconds_or_default(unused_for);
    let listed = collect(limit, async |page_size, page_token| {
        let prefix = prefix.to_owned();
        let request = ListKeysRequest { page_size, page_token, prefix, unused_for_s };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_keys(request).await)
            .await?;
        Ok((page.keys, page.next_page_token))
    })
    .await?;
    show_list(session.format, &listed, HEADERS, row)
}

async fn rotate(session: &Session, name: &str, cas: i64) -> Outcome {
    // Once: a repetition would rotate again, or find another version than it names.
    let request = RotateKeyRequest { name: name.to_owned(), expected_version: cas };
    let rotated = session
        .call_once(request, async |wire, request| Client::new(wire).rotate_key(request).await)
        .await?;
    show(session.format, &must(rotated.key)?, key_text)
}

async fn update(session: &Session, args: &Update) -> Outcome {
    let revision = match args.revision {
        Some(revision) => revision,
        None => must(fetch(session, &args.name).await?.key)?.revision,
    };
    let rotate_every_s = if args.no_rotation { -1 } else { seconds_or_default(args.rotate_every) };
    let request = UpdateKeyRequest {
        name: args.name.clone(),
        revision,
        min_version: args.min_version,
        state: String::new(),
        rotate_every_s,
        set_labels: args.labels.iter().cloned().collect(),
        remove_labels: args.no_labels.clone(),
    };
    change(session, request).await
}

async fn turn(session: &Session, name: &str, state: &str) -> Outcome {
    let revision = must(fetch(session, name).await?.key)?.revision;
    let (name, state) = (name.to_owned(), state.to_owned());
    change(session, UpdateKeyRequest { name, revision, state, ..Default::default() }).await
}

async fn change(session: &Session, request: UpdateKeyRequest) -> Outcome {
    // Once: a repetition would find another revision than it names.
    let changed = session
        .call_once(request, async |wire, request| Client::new(wire).update_key(request).await)
        .await?;
    show(session.format, &must(changed.key)?, key_text)
}

async fn export(session: &Session, name: &str, version: i64) -> Outcome {
    let request = ExportKeyRequest { name: name.to_owned(), version };
    let half = session
        .call(request, async |wire, request| Client::new(wire).export_key(request).await)
        .await?;
    match session.format {
        super::output::Format::Human => print(&half.public_key_pem),
        super::output::Format::Json => show(session.format, &half, |_| String::new()),
    }
}
