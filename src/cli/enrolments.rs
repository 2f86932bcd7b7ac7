//! `strongroom identity enroll` and `strongroom enrolment …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use zeroize::Zeroizing;

use super::failure::Outcome;
use super::files::{check_new, write_private};
use super::output::{Format, fields, json_text, note, print, show, show_list, time};
use super::session::{Session, collect, must};
use super::span::{Span, seconds_or_default};
use super::wraps::WrapArgs;
use crate::proto::enrolment_service_client::EnrolmentServiceClient as Client;
use crate::proto::{
    CreateEnrolmentRequest, CreateEnrolmentResponse, Enrolment, ListEnrolmentsRequest,
    RevokeEnrolmentRequest,
};

/// What `identity enroll` takes.
#[derive(Debug, Clone, Args)]
pub struct Enroll {
    /// The identity that the machine joins as.
    name: String,
    /// How long the token can be used, up to a day; 10m where it is left out.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// A network that it may be used from, like 10.0.0.0/8; several may be given.
    #[arg(long, value_name = "CIDR")]
    cidr: Vec<String>,
    /// A new file for the token, which you alone can read; printed where it is left out.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How the answer is wrapped.
    #[command(flatten)]
    wrap: WrapArgs,
}

/// `strongroom enrolment …`
#[derive(Debug, Subcommand)]
pub enum EnrolmentCommand {
    /// List the enrolments of an identity
    List {
        /// Whose.
        #[arg(long, value_name = "NAME")]
        identity: String,
        /// How many at most.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// End an enrolment now: its token, its certificates and what was asked for with them
    Revoke {
        /// Its id.
        id: String,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// Makes a join token, and prints it: that is what was asked for.
pub(super) async fn enroll(session: &Session, args: &Enroll) -> Outcome {
    args.wrap.excludes(&[("--out", args.out.is_some())])?;
    let session = &args.wrap.session(session)?;
    if let Some(out) = &args.out {
        check_new(out)?;
    }
    let request = CreateEnrolmentRequest {
        identity: args.name.clone(),
        ttl_s: seconds_or_default(args.ttl),
        networks: args.cidr.clone(),
    };
    // A token whose answer is lost is over soon, and nobody has it.
    let made = session
        .call_once(request, async |wire, request| Client::new(wire).create_enrolment(request).await)
        .await?;
    if args.wrap.hand_over(session.format, made.wrapped)? {
        return Ok(());
    }
    let (token, enrolment) = (Zeroizing::new(made.join_token), must(made.enrolment)?);
    if let Some(out) = &args.out {
        write_private(out, &Zeroizing::new(format!("{}\n", token.as_str())))?;
        return show(session.format, &enrolment, text);
    }
    if session.format == Format::Human {
        let end = time(enrolment.expires_at_ms);
        note(&format!("enrolment {}, to be used once until {end}", enrolment.id));
    }
    print(&unwrapped_text(session.format, &token, &enrolment))
}

fn unwrapped_text(format: Format, token: &str, enrolment: &Enrolment) -> Zeroizing<String> {
    Zeroizing::new(match format {
        Format::Human => format!("{token}\n"),
        Format::Json => json_text(&json!({"join_token": token, "enrolment": enrolment})),
    })
}

/// Writes a join token that was wrapped, as `identity enroll` does.
pub(super) fn unwrapped(
    format: Format,
    made: &CreateEnrolmentResponse,
) -> Outcome<Zeroizing<Vec<u8>>> {
    let enrolment = must(made.enrolment.clone())?;
    let text = unwrapped_text(format, &made.join_token, &enrolment);
    Ok(Zeroizing::new(text.as_bytes().to_vec()))
}

/// Runs `strongroom enrolment …`.
pub(super) async fn run(session: &Session, command: &EnrolmentCommand) -> Outcome {
    match command {
        EnrolmentCommand::List { identity, limit } => list(session, identity, *limit).await,
        EnrolmentCommand::Revoke { id, reason } => {
            let request = RevokeEnrolmentRequest { id: id.clone(), reason: reason.clone() };
            let ended = session
                .call(request, async |wire, request| {
                    Client::new(wire).revoke_enrolment(request).await
                })
                .await?;
            show(session.format, &must(ended.enrolment)?, text)
        }
    }
}

async fn list(session: &Session, identity: &str, limit: usize) -> Outcome {
    let listed = collect(limit, async |page_size, page_token| {
        let identity = identity.to_owned();
        let request = ListEnrolmentsRequest { page_size, page_token, identity };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_enrolments(request).await)
            .await?;
        Ok((page.enrolments, page.next_page_token))
    })
    .await?;
    let headers = ["ID", "STATE", "MADE", "MADE BY", "JOINED", "NETWORKS"];
    show_list(session.format, &listed, headers, |one| {
        [
            one.id.clone(),
            one.state.clone(),
            time(one.created_at_ms),
            one.created_by.clone(),
            time(one.joined_at_ms),
            one.networks.join(" "),
        ]
    })
}

fn text(enrolment: &Enrolment) -> String {
    fields(&[
        ("id", enrolment.id.clone()),
        ("identity", enrolment.identity.clone()),
        ("state", enrolment.state.clone()),
        ("made", time(enrolment.created_at_ms)),
        ("made by", enrolment.created_by.clone()),
        ("to be used until", time(enrolment.expires_at_ms)),
        ("networks", enrolment.networks.join(" ")),
        ("joined", time(enrolment.joined_at_ms)),
        ("login", enrolment.login.clone()),
        ("ended", time(enrolment.ended_at_ms)),
        ("ends at the latest", time(enrolment.max_expires_at_ms)),
    ])
}
