//! `strongroom status | seal | unseal`: the vault as a whole. All but `seal` are local acts on the
//! server's own socket.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::control::{Reply, Request, Secret, SetCoverage, State, StateCheck, Status, ask};
use super::failure::{Exit, Failure, Outcome};
use super::files::{prompt_secret, read_secret};
use super::output::{Format, fields, show, time};
use super::session::Session;
use crate::proto::SealRequest;
use crate::proto::system_service_client::SystemServiceClient;

/// Where the server listens, on this machine.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// The server's socket, `control_socket` in its configuration.
    #[arg(long, value_name = "PATH", default_value = "/var/lib/strongroom/control.sock")]
    pub socket: PathBuf,
}

/// What `seal` takes.
#[derive(Debug, Clone, Args)]
pub struct SealArgs {
    /// Why, for the record.
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// What `unseal` takes.
#[derive(Debug, Clone, Args)]
pub struct UnsealArgs {
    /// Where the server listens.
    #[command(flatten)]
    pub at: StatusArgs,
    /// A file that holds the PIN of the HSM, `-` for standard input. Without it and --prompt the
    /// server uses the source that it is configured with.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub pin_file: Option<PathBuf>,
    /// Ask for the PIN here.
    #[arg(long)]
    pub prompt: bool,
    /// Try even where the token allows one last attempt.
    #[arg(long)]
    pub force: bool,
}

/// Shows the state. A vault that does not serve is `Unavailable` to scripts, once it is shown.
pub(super) async fn status(format: Format, args: &StatusArgs) -> Outcome {
    let status = match ask(&args.socket, &Request::Status).await? {
        Reply::Status(status) => status,
        Reply::Done { .. }
        | Reply::Rollback(_)
        | Reply::Challenge(_)
        | Reply::Recovery(_)
        | Reply::Backup(_)
        | Reply::Failed { .. } => return Err(beside_the_point()),
    };
    show(format, &status, table)?;
    match status.state {
        State::Unsealed => Ok(()),
        State::Sealed => Err(Failure::from_reason("SEALED", "the vault is sealed").told()),
        State::Held => Err(Failure::new(Exit::Unavailable, "the vault waits for acceptance")
            .hint(
                "administrators look at the store, then accept it with `strongroom backup accept`",
            )
            .told()),
        State::Unheard => {
            Err(Failure::new(Exit::Unavailable, "the server does not hear from its store")
                .hint("look at the store, the network and `strongroom doctor`")
                .told())
        }
        State::Stopping => Err(Failure::from_reason("UNAVAILABLE", "the vault is stopping").told()),
    }
}

fn table(status: &Status) -> String {
    let restores = status.restores.filter(|restores| *restores > 0);
    let mark = if status.development { "yes, for ever" } else { "" };
    fields(&[
        ("state", status.state.as_str().into()),
        ("because", status.because.clone().unwrap_or_default()),
        ("vault", status.vault_id.clone().unwrap_or_default()),
        ("development", mark.into()),
        ("restores", restores.map(|restores| restores.to_string()).unwrap_or_default()),
        ("version", status.version.clone()),
        ("grpc", status.grpc_addr.clone()),
        ("http", status.http_addr.clone()),
        ("token", status.token.clone()),
        ("store", status.store.clone()),
        ("started", time(status.started_at_ms)),
        ("rows checked", status.state_check.as_ref().map(checked).unwrap_or_default()),
        ("recovery", status.recovery_sets.as_deref().map(recovery).unwrap_or_default()),
    ])
}

fn recovery(sets: &[SetCoverage]) -> String {
    let one = |set: &SetCoverage| {
        let SetCoverage { custody, holders, keys_covered, keys_total, .. } = set;
        format!("{custody} {}: {keys_covered} of {keys_total} keys", holders.join(" "))
    };
    match sets {
        [] => "none".to_owned(),
        sets => sets.iter().map(one).collect::<Vec<_>>().join("; "),
    }
}

fn checked(check: &StateCheck) -> String {
    let StateCheck { checked_at_ms, rows, wrong } = check;
    let at = time(*checked_at_ms);
    match wrong {
        0 => format!("{rows} right, {at}"),
        wrong => format!("{wrong} of {rows} WRONG, {at}: `strongroom audit verify --state`"),
    }
}

/// Unseals the vault on this machine.
pub(super) async fn unseal(format: Format, args: &UnsealArgs) -> Outcome {
    let pin = match &args.pin_file {
        Some(file) => Some(read_secret(file)?),
        None if args.prompt => Some(prompt_secret("PIN of the HSM token")?),
        None => None,
    };
    let request = Request::Unseal { pin: pin.map(Secret::new), force: args.force };
    done(format, ask(&args.at.socket, &request).await?)
}

/// Shows what was done.
pub(super) fn done(format: Format, reply: Reply) -> Outcome {
    match reply {
        Reply::Done { message } => {
            show(format, &json!({ "message": message }), |_| fields(&[("done", message.clone())]))
        }
        Reply::Status(_)
        | Reply::Rollback(_)
        | Reply::Challenge(_)
        | Reply::Recovery(_)
        | Reply::Backup(_)
        | Reply::Failed { .. } => Err(beside_the_point()),
    }
}

/// Says that the vault answered something else than was asked.
pub(crate) fn beside_the_point() -> Failure {
    Failure::new(Exit::Unexpected, "the vault answered something else than was asked")
        .hint("client and server are of different versions")
}

/// Seals the vault.
pub(super) async fn seal(session: &Session, args: &SealArgs) -> Outcome {
    let request = SealRequest { reason: args.reason.clone() };
    let sealed = session
        .call(request, async |wire, request| SystemServiceClient::new(wire).seal(request).await)
        .await?;
    show(session.format, &sealed, |sealed| fields(&[("sealed", time(sealed.sealed_at_ms))]))
}
