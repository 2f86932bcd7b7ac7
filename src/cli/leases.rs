//! `strongroom lease …`

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::failure::Outcome;
use super::output::{Format, fields, json_line, print, show, show_list, time};
use super::session::{Session, collect, must};
use super::span::{Span, seconds_or_default};
use crate::proto::lease_service_client::LeaseServiceClient as Client;
use crate::proto::{Lease, ListLeasesRequest, RenewLeaseRequest, RevokeLeaseRequest};

const STATES: [&str; 4] = ["pending", "active", "revoking", "revoked"];

/// `strongroom lease …`
#[derive(Debug, Subcommand)]
pub enum LeaseCommand {
    /// List leases: yours, and others where you may
    List(List),
    /// Move a lease's end, never past its maximum
    Renew {
        /// Its id.
        id: String,
        /// How long it lives from now; the role's default where it is left out.
        #[arg(long, value_name = "SPAN")]
        ttl: Option<Span>,
    },
    /// End leases now
    Revoke {
        /// Their ids.
        #[arg(required = true, num_args = 1..=1_000)]
        ids: Vec<String>,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// What `lease list` takes.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Only those of this identity.
    #[arg(long, default_value = "")]
    identity: String,
    /// Only those on these resources, like 'database/**'.
    #[arg(long, value_name = "PATTERN", default_value = "")]
    resource: String,
    /// Only those in this state.
    #[arg(long, value_parser = PossibleValuesParser::new(STATES))]
    state: Option<String>,
    /// Those that have ended, too.
    #[arg(long)]
    all: bool,
    /// How many at most.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

/// Runs `strongroom lease …`.
pub(super) async fn run(session: &Session, command: &LeaseCommand) -> Outcome {
    match command {
        LeaseCommand::List(args) => list(session, args).await,
        LeaseCommand::Renew { id, ttl } => {
            let request = RenewLeaseRequest { id: id.clone(), ttl_s: seconds_or_default(*ttl) };
            let renewed = session
                .call(request, async |wire, request| Client::new(wire).renew_lease(request).await)
                .await?;
            show(session.format, &must(renewed.lease)?, text)
        }
        LeaseCommand::Revoke { ids, reason } => revoke(session, ids, reason).await,
    }
}

/// Revokes one after the other, each printed when it is done: the first failure ends it.
async fn revoke(session: &Session, ids: &[String], reason: &str) -> Outcome {
    for id in ids {
        let request = RevokeLeaseRequest { id: id.clone(), reason: reason.into() };
        let revoked = session
            .call(request, async |wire, request| Client::new(wire).revoke_lease(request).await)
            .await?;
        let lease = must(revoked.lease)?;
        match (session.format, ids.len()) {
            (Format::Json, 2..) => print(&json_line(&lease))?,
            (Format::Json | Format::Human, _) => show(session.format, &lease, text)?,
        }
    }
    Ok(())
}

async fn list(session: &Session, args: &List) -> Outcome {
    let listed = collect(args.limit, async |page_size, page_token| {
        let request = ListLeasesRequest {
            page_size,
            page_token,
            identity: args.identity.clone(),
            resource: args.resource.clone(),
            state: args.state.clone().unwrap_or_default(),
            include_ended: args.all,
        };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_leases(request).await)
            .await?;
        Ok((page.leases, page.next_page_token))
    })
    .await?;
    let headers = ["ID", "IDENTITY", "RESOURCE", "STATE", "ENDS", "NEXT TRY", "WHY"];
    show_list(session.format, &listed, headers, |lease| {
        let why =
            if lease.retry_reason.is_empty() { &lease.end_reason } else { &lease.retry_reason };
        [
            lease.id.clone(),
            lease.identity.clone(),
            lease.resource.clone(),
            lease.state.clone(),
            time(lease.expires_at_ms),
            time(lease.next_try_at_ms),
            why.clone(),
        ]
    })
}

fn text(lease: &Lease) -> String {
    let tries = match lease.revoke_attempts {
        0 => String::new(),
        tries => tries.to_string(),
    };
    fields(&[
        ("id", lease.id.clone()),
        ("identity", lease.identity.clone()),
        ("resource", lease.resource.clone()),
        ("in the target", lease.accessor.clone()),
        ("state", lease.state.clone()),
        ("issued", time(lease.created_at_ms)),
        ("renewed", time(lease.renewed_at_ms)),
        ("ends", time(lease.expires_at_ms)),
        ("ends at the latest", time(lease.max_expires_at_ms)),
        ("ended", time(lease.ended_at_ms)),
        ("because", lease.end_reason.clone()),
        ("tries to revoke", tries),
        ("next try", time(lease.next_try_at_ms)),
        ("last try failed", lease.retry_reason.clone()),
    ])
}
