//! `strongroom identity shred`, `shred-status` and `shreds`.

use clap::Args;

use crate::cli::failure::{Failure, Outcome};
use crate::cli::identities::by;
use crate::cli::output::{fields, note, show, show_list, table, time};
use crate::cli::session::{Session, collect, must};
use crate::proto::identity_service_client::IdentityServiceClient as Client;
use crate::proto::{
    FinishShredRequest, GetShreddingRequest, GetShreddingResponse, ListShredsRequest,
    ShredIdentityRequest, ShredLosses,
};

/// What `identity shred` takes.
#[derive(Debug, Clone, Args)]
pub struct Shred {
    /// Its name.
    name: String,
    /// Its name once more: what is meant.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["dry_run", "finish"])]
    confirm: Option<String>,
    /// Why, for the record and for who approves it.
    #[arg(long, default_value = "")]
    reason: String,
    /// Show what would be lost and who else uses it, and change nothing.
    #[arg(long, conflicts_with = "finish")]
    dry_run: bool,
    /// Of one that is shredded: establish that nothing opens a copy from before.
    #[arg(long)]
    finish: bool,
}

/// What `identity shreds` takes.
#[derive(Debug, Clone, Args)]
pub struct Shreds {
    /// How many at most.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

pub(super) async fn shred(session: &Session, args: &Shred) -> Outcome {
    let name = args.name.clone();
    if args.dry_run {
        return status(session, &name).await;
    }
    if args.finish {
        let finished = session
            .call(FinishShredRequest { name }, async |wire, request| {
                Client::new(wire).finish_shred(request).await
            })
            .await?;
        return show(session.format, &must(finished.shred)?, shred_text);
    }
    let Some(confirm) = args.confirm.clone() else {
        return Err(Failure::usage(
            "shredding cannot be undone: say the name again with --confirm",
        )
        .hint("`identity shred NAME --dry-run` shows what would be lost"));
    };
    let request = ShredIdentityRequest { name, confirm, reason: args.reason.clone() };
    let shredded = session
        .call_once(request, async |wire, request| Client::new(wire).shred_identity(request).await)
        .await?;
    show(session.format, &must(shredded.shred)?, shred_text)?;
    note(
        "copies of the store from before are still opened by the keys named above; `identity shred \
         NAME --finish` establishes when they are not",
    );
    Ok(())
}

/// Shows what shredding would take, or has taken.
pub(super) async fn status(session: &Session, name: &str) -> Outcome {
    let request = GetShreddingRequest { name: name.to_owned() };
    let found = session
        .call(request, async |wire, request| Client::new(wire).get_shredding(request).await)
        .await?;
    show(session.format, &found, text)
}

pub(super) async fn list(session: &Session, args: &Shreds) -> Outcome {
    let listed = collect(args.limit, async |page_size, page_token| {
        let request = ListShredsRequest { page_size, page_token };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_shreds(request).await)
            .await?;
        Ok((page.shreds, page.next_page_token))
    })
    .await?;
    let headers = ["ID", "IDENTITY", "SHREDDED", "BY", "UNRECOVERABLE SINCE"];
    show_list(session.format, &listed, headers, |one| {
        [
            one.identity_id.clone(),
            one.identity.clone(),
            time(one.shredded_at_ms),
            one.shredded_by.clone(),
            time(one.unrecoverable_at_ms),
        ]
    })
}

fn shred_text(one: &crate::proto::Shred) -> String {
    let left = one.hsm_keys_left;
    let hsm_keys = match left {
        0 => one.hsm_keys.to_string(),
        left => format!("{}, {left} of them still to be destroyed", one.hsm_keys),
    };
    let unrecoverable = match one.unrecoverable_at_ms {
        0 => "not yet".to_owned(),
        at => time(at),
    };
    fields(&[
        ("identity", one.identity.clone()),
        ("shredded", by(one.shredded_at_ms, &one.shredded_by)),
        ("unrecoverable since", unrecoverable),
        ("copies opened by", one.openers.join(", ")),
        ("key versions", one.key_versions.to_string()),
        ("secrets", one.secrets.to_string()),
        ("sealed keys", one.named_keys.to_string()),
        ("keys in the HSM", hsm_keys),
        ("connections", one.connections.to_string()),
    ])
}

fn text(it: &GetShreddingResponse) -> String {
    if let Some(one) = &it.shred {
        return shred_text(one);
    }
    let none = ShredLosses::default();
    let losses = it.losses.as_ref().unwrap_or(&none);
    let mut text = fields(&[
        ("shredded", "no".to_owned()),
        ("key versions", losses.key_versions.to_string()),
        ("secrets", losses.secrets.to_string()),
        ("versions of them", losses.values.to_string()),
        ("sealed keys", losses.named_keys.to_string()),
        ("keys in the HSM", losses.hsm_keys.to_string()),
        ("connections", losses.connections.to_string()),
        ("refused because", it.obstacle.clone()),
    ]);
    if !it.readers.is_empty() {
        text.push('\n');
        let rows = it
            .readers
            .iter()
            .map(|one| [one.subject.clone(), one.action.clone(), one.resource.clone()]);
        text.push_str(&table(["WHO ELSE MAY", "DO", "ON"], rows));
    }
    if it.partial {
        text.push_str("\nthere is more: not all of it was counted or looked at\n");
    }
    text
}
