//! `strongroom identity suspend` and `retire`: what would end, and how far its ending is.

use std::time::{Duration, Instant};

use clap::Args;

use super::show::text;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::{fields, note, show, table};
use crate::cli::session::{Session, must};
use crate::cli::span::Span;
use crate::proto::identity_service_client::IdentityServiceClient as Client;
use crate::proto::{
    GetHoldingsRequest, GetHoldingsResponse, Identity, RetireIdentityRequest,
    SuspendIdentityRequest,
};

/// How long lies between two looks at what is still to be ended.
const LOOK: Duration = Duration::from_millis(500);

/// What `identity suspend` and `identity retire` take.
#[derive(Debug, Clone, Args)]
pub struct Contain {
    /// Its name.
    name: String,
    /// Why, for the record.
    #[arg(long, default_value = "")]
    reason: String,
    /// Show what would end, and change nothing.
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Wait until what hangs outside is ended too, for five minutes or as long as is said.
    #[arg(long, value_name = "SPAN", num_args = 0..=1, default_missing_value = "5m")]
    wait: Option<Span>,
}

pub(super) async fn suspend(session: &Session, args: &Contain) -> Outcome {
    if args.dry_run {
        return holdings(session, &args.name).await;
    }
    let (name, reason) = (args.name.clone(), args.reason.clone());
    let suspended = session
        .call(SuspendIdentityRequest { name, reason }, async |wire, request| {
            Client::new(wire).suspend_identity(request).await
        })
        .await?;
    contained(session, args, suspended.identity).await
}

pub(super) async fn retire(session: &Session, args: &Contain) -> Outcome {
    if args.dry_run {
        return holdings(session, &args.name).await;
    }
    let (name, reason) = (args.name.clone(), args.reason.clone());
    let retired = session
        .call(RetireIdentityRequest { name, reason }, async |wire, request| {
            Client::new(wire).retire_identity(request).await
        })
        .await?;
    contained(session, args, retired.identity).await
}

async fn contained(session: &Session, args: &Contain, identity: Option<Identity>) -> Outcome {
    let identity = must(identity)?;
    if let Some(span) = args.wait {
        wait(session, &args.name, span).await?;
    }
    show(session.format, &identity, text)
}

/// Shows what an identity holds.
pub(super) async fn holdings(session: &Session, name: &str) -> Outcome {
    show(session.format, &ask(session, name).await?, holdings_text)
}

async fn ask(session: &Session, name: &str) -> Outcome<GetHoldingsResponse> {
    let request = GetHoldingsRequest { name: name.to_owned() };
    session.call(request, async |wire, request| Client::new(wire).get_holdings(request).await).await
}

/// Waits until no lease is left to be ended, and tells how many there are as they get fewer.
async fn wait(session: &Session, name: &str, span: Span) -> Outcome {
    let most = Duration::from_secs(span.seconds().unsigned_abs());
    let (began, mut told) = (Instant::now(), None);
    loop {
        let held = ask(session, name).await?;
        let left = held.credentials.iter().filter(|of| of.kind == "lease").map(|of| of.contained);
        let left: i64 = left.sum();
        if left == 0 {
            return Ok(());
        }
        if told != Some(left) {
            note(&format!("{left} leases are dead and still to be ended outside"));
            told = Some(left);
        }
        if began.elapsed() >= most {
            return Err(Failure::new(
                Exit::Unavailable,
                format!("{name} is contained, but {left} leases are not ended outside yet"),
            )
            .hint(
                "the vault goes on by itself; `lease list --identity` shows why one does not end",
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn holdings_text(held: &GetHoldingsResponse) -> String {
    let identity = held.identity.clone().unwrap_or_default();
    let mut text = fields(&[
        ("identity", identity.name),
        ("state", identity.state),
        ("answers for", held.owned.to_string()),
        ("orphans without it", held.orphans.to_string()),
        ("secrets", held.secrets.to_string()),
        ("grants", held.grants.to_string()),
        ("elevations", held.elevations.to_string()),
        ("factors", held.factors.to_string()),
        ("invitations", held.invitations.to_string()),
        ("wraps", held.wraps.to_string()),
        ("others by its tokens", held.lent.to_string()),
        ("groups", identity.groups.join(", ")),
    ]);
    text.push('\n');
    let rows = held
        .credentials
        .iter()
        .map(|of| [of.kind.clone(), of.in_force.to_string(), of.contained.to_string()]);
    text.push_str(&table(["CREDENTIALS", "IN FORCE", "CONTAINED"], rows));
    if !held.leases.is_empty() {
        text.push('\n');
        let rows = held
            .leases
            .iter()
            .map(|on| [on.resource.clone(), on.in_force.to_string(), on.ending.to_string()]);
        text.push_str(&table(["LEASES ON", "IN FORCE", "TO BE ENDED"], rows));
    }
    if held.last_administrator {
        text.push_str(
            "\nit is the last administrator who can log in: suspending or retiring it is refused\n",
        );
    }
    if held.partial {
        text.push_str("\nonly the newest 10,000 credentials of a kind were counted\n");
    }
    text
}
