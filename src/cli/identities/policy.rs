//! `strongroom identity policy …`: how the identities of a kind live.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::KINDS;
use super::show::by;
use crate::cli::failure::Outcome;
use crate::cli::output::{Listed, fields, show, show_list};
use crate::cli::session::{Session, must};
use crate::cli::span::{Span, seconds_or_default, show_seconds};
use crate::proto::identity_service_client::IdentityServiceClient as Client;
use crate::proto::{Lifecycle, ListLifecyclesRequest, PutLifecycleRequest};

/// `strongroom identity policy …`
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// List how the identities of each kind live
    List,
    /// Say how the identities of a kind live from now on
    Put(Put),
}

/// What `identity policy put` takes.
#[derive(Debug, Clone, Args)]
pub struct Put {
    /// The kind.
    #[arg(value_parser = PossibleValuesParser::new(KINDS))]
    kind: String,
    /// How long what is issued to them lives at most, each time.
    #[arg(long, value_name = "SPAN")]
    max_ttl: Span,
    /// How long it lives at most, however often it is renewed.
    #[arg(long, value_name = "SPAN")]
    max_age: Span,
    /// After how long what they log in with must have been replaced.
    #[arg(long, value_name = "SPAN")]
    rotation: Span,
    /// The same, of those with the label `environment=development`; 30d, or the rotation where that is
    /// shorter, where it is left out.
    #[arg(long, value_name = "SPAN")]
    development_rotation: Option<Span>,
    /// After how long without use they are suspended; never where it is left out.
    #[arg(long, value_name = "SPAN")]
    dormant_after: Option<Span>,
    /// How long before an end they are told of it; not at all where it is left out.
    #[arg(long, value_name = "SPAN")]
    notice: Option<Span>,
    /// Each of their tokens can be used once alone; any number of times where it is left out.
    #[arg(long)]
    single_use: bool,
}

pub(super) async fn policy(session: &Session, command: &PolicyCommand) -> Outcome {
    match command {
        PolicyCommand::List => list(session).await,
        PolicyCommand::Put(args) => put(session, args).await,
    }
}

async fn list(session: &Session) -> Outcome {
    let listed = session
        .call(ListLifecyclesRequest {}, async |wire, request| {
            Client::new(wire).list_lifecycles(request).await
        })
        .await?;
    let listed = Listed { items: listed.lifecycles, more: false };
    let headers = [
        "KIND",
        "MAX TTL",
        "MAX AGE",
        "ROTATION",
        "IN DEVELOPMENT",
        "DORMANT AFTER",
        "NOTICE",
        "SINGLE USE",
        "CHANGED",
    ];
    show_list(session.format, &listed, headers, |of| {
        [
            of.kind.clone(),
            show_seconds(of.max_ttl_s),
            show_seconds(of.max_age_s),
            show_seconds(of.rotation_s),
            show_seconds(of.development_rotation_s),
            show_seconds(of.dormant_after_s),
            show_seconds(of.notice_s),
            of.single_use.to_string(),
            by(of.changed_at_ms, &of.changed_by),
        ]
    })
}

async fn put(session: &Session, args: &Put) -> Outcome {
    let lifecycle = Lifecycle {
        kind: args.kind.clone(),
        max_ttl_s: args.max_ttl.seconds(),
        max_age_s: args.max_age.seconds(),
        rotation_s: args.rotation.seconds(),
        development_rotation_s: seconds_or_default(args.development_rotation),
        dormant_after_s: seconds_or_default(args.dormant_after),
        notice_s: seconds_or_default(args.notice),
        single_use: args.single_use,
        ..Lifecycle::default()
    };
    let put = session
        .call(PutLifecycleRequest { lifecycle: Some(lifecycle) }, async |wire, request| {
            Client::new(wire).put_lifecycle(request).await
        })
        .await?;
    show(session.format, &must(put.lifecycle)?, |of| {
        fields(&[
            ("kind", of.kind.clone()),
            ("max ttl", show_seconds(of.max_ttl_s)),
            ("max age", show_seconds(of.max_age_s)),
            ("rotation", show_seconds(of.rotation_s)),
            ("rotation in development", show_seconds(of.development_rotation_s)),
            ("dormant after", show_seconds(of.dormant_after_s)),
            ("notice", show_seconds(of.notice_s)),
            ("single use", of.single_use.to_string()),
        ])
    })
}
