//! Who used a key, where it comes from, whose it is, and its backup.

use std::path::Path;

use super::text::{USAGE, key_text, usage_row};
use super::{Client, fetch};
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::files::{check_new, read_bytes, write_private_bytes};
use crate::cli::output::{Format, note, print, show, show_list};
use crate::cli::session::{Session, collect, must};
use crate::proto::{
    BackUpKeyRequest, GetKeyUsageRequest, ImportKeyRequest, RestoreKeyRequest, TransferKeyRequest,
};

pub(super) async fn usage(session: &Session, name: &str, limit: usize) -> Outcome {
    let listed = collect(limit, async |page_size, page_token| {
        let request = GetKeyUsageRequest { name: name.to_owned(), page_size, page_token };
        let page = session
            .call(request, async |wire, request| Client::new(wire).get_key_usage(request).await)
            .await?;
        Ok((page.rows, page.next_page_token))
    })
    .await?;
    show_list(session.format, &listed, USAGE, usage_row)
}

pub(super) async fn wrapping_key(session: &Session, name: &str) -> Outcome {
    let shown = fetch(session, name).await?;
    let awaiting = shown.versions.iter().find(|version| version.state == "awaiting");
    let awaiting = awaiting.ok_or_else(|| {
        Failure::new(Exit::Invalid, "the key awaits no import")
            .hint("make one that does with `strongroom key create --import`")
    })?;
    match session.format {
        Format::Human => print(&awaiting.public_key_pem),
        Format::Json => show(session.format, awaiting, |_| String::new()),
    }
}

pub(super) async fn import(session: &Session, name: &str, wrapped: &Path) -> Outcome {
    let wrapped = read_bytes(wrapped)?.to_vec();
    let request = ImportKeyRequest { name: name.to_owned(), wrapped };
    // Once: a repetition would find that it was imported.
    let brought = session
        .call_once(request, async |wire, request| Client::new(wire).import_key(request).await)
        .await?;
    show(session.format, &must(brought.key)?, key_text)
}

pub(super) async fn transfer(session: &Session, name: &str, (owner, cas): (&str, i64)) -> Outcome {
    let (name, owner) = (name.to_owned(), owner.to_owned());
    let request = TransferKeyRequest { name, owner, expected_version: cas };
    let given = session
        .call_once(request, async |wire, request| Client::new(wire).transfer_key(request).await)
        .await?;
    show(session.format, &must(given.key)?, key_text)
}

pub(super) async fn backup(session: &Session, name: &str, out: &Path) -> Outcome {
    check_new(out)?;
    let request = BackUpKeyRequest { name: name.to_owned() };
    let made = session
        .call(request, async |wire, request| Client::new(wire).back_up_key(request).await)
        .await?;
    write_private_bytes(out, &made.backup)?;
    note(&format!("the backup is in {}; only this vault opens it", out.display()));
    Ok(())
}

pub(super) async fn restore(session: &Session, name: &str, from: &Path) -> Outcome {
    let backup = read_bytes(from)?.to_vec();
    let request = RestoreKeyRequest { name: name.to_owned(), backup };
    let restored = session
        .call_once(request, async |wire, request| Client::new(wire).restore_key(request).await)
        .await?;
    show(session.format, &must(restored.key)?, key_text)
}
