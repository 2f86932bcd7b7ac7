//! `strongroom run`: a command with credentials in its environment, which end with it.
//!
//! The lease is renewed for a minute at a time: where this program is killed with no time to revoke
//! it, it runs out by itself.

use std::fmt::Display;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use clap::Args;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::Global;
use super::credentials::{lease, variables};
use super::database::RoleName;
use super::failure::{Exit, Failure, Outcome};
use super::files::write_private;
use super::login::hide;
use super::output::note;
use super::session::Session;
use crate::proto::lease_service_client::LeaseServiceClient as Leases;
use crate::proto::{IssueCredentialsResponse, RenewLeaseRequest, RevokeLeaseRequest};
use crate::types::{Entropy as _, SystemEntropy};

/// How long a lease lives at a time, and how often it is renewed.
const LEASE_S: i64 = 60;
const RENEW: Duration = Duration::from_secs(20);

/// What `run` takes.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// A database role, CONNECTION/ROLE, whose credentials libpq's variables hold.
    #[arg(long, value_name = "ROLE")]
    db: RoleName,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Runs the command, and ends as it does.
pub(super) async fn run(global: &Global, args: &RunArgs) -> Outcome<ExitCode> {
    let session = Session::open(global)?;
    let issued = lease(&session, &args.db, LEASE_S).await?;
    // Whatever becomes of the session meanwhile, the lease's own handle renews and revokes it.
    let leases = match issued.lease_handle.as_str() {
        "" => session.clone(),
        handle => session.bearing(handle)?,
    };
    let outcome = supervise(&leases, &issued, args).await;
    revoke(&leases, &issued.lease_id).await;
    outcome.map(code)
}

async fn supervise(
    leases: &Session,
    issued: &IssueCredentialsResponse,
    args: &RunArgs,
) -> Outcome<ExitStatus> {
    hide(&issued.password)?;
    let watch = |kind| {
        signal(kind).map_err(|error| Failure::new(Exit::Unexpected, format!("no signals: {error}")))
    };
    let (mut term, mut int) = (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
    let (mut hup, mut quit) = (watch(SignalKind::hangup())?, watch(SignalKind::quit())?);
    let authorities = Authorities::keep(&issued.ca_pem)?;
    let file = authorities.as_ref().map(|kept| kept.file().display().to_string());
    let mut child = spawn(issued, file.as_deref(), args)?;
    let mut renewals = tokio::time::interval(RENEW);
    renewals.tick().await;
    loop {
        tokio::select! {
            ended = child.wait() => {
                return ended.map_err(|error| Failure::new(Exit::Unexpected, error.to_string()));
            }
            _ = renewals.tick() => renew(leases, &issued.lease_id).await,
            () = heard(&mut term) => pass_on(&child, rustix::process::Signal::TERM),
            () = heard(&mut int) => pass_on(&child, rustix::process::Signal::INT),
            () = heard(&mut hup) => pass_on(&child, rustix::process::Signal::HUP),
            () = heard(&mut quit) => pass_on(&child, rustix::process::Signal::QUIT),
        }
    }
}

async fn heard(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

fn spawn(
    issued: &IssueCredentialsResponse,
    ca_file: Option<&str>,
    args: &RunArgs,
) -> Outcome<Child> {
    let (program, rest) =
        args.command.split_first().ok_or_else(|| Failure::usage("there is no command"))?;
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::inherit()).kill_on_drop(true);
    for (name, value) in variables(issued, ca_file) {
        command.env(name, value);
    }
    // It does not need them. The session's file is the user's, whose programs read it all the same.
    command.env_remove("STRONGROOM_TOKEN").env_remove("STRONGROOM_LEASE_HANDLE");
    command.spawn().map_err(|error| Failure::usage(format!("{program} cannot be run: {error}")))
}

/// The authorities of the database, in a file that goes away with this.
#[derive(Debug)]
struct Authorities {
    folder: PathBuf,
}

impl Authorities {
    /// Writes them to where nobody else can put others; nothing where the database has none of its
    /// own.
    fn keep(pem: &str) -> Outcome<Option<Self>> {
        if pem.is_empty() {
            return Ok(None);
        }
        let failed = |error: &dyn Display| {
            let text = format!("the database's authorities cannot be written: {error}");
            Failure::new(Exit::Unexpected, text)
        };
        let mut random = [0; 16];
        SystemEntropy.fill(&mut random).map_err(|error| failed(&error))?;
        let name = format!("strongroom-{}", data_encoding::HEXLOWER.encode(&random));
        let folder = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&folder).map_err(|error| failed(&error))?;
        let kept = Self { folder };
        write_private(&kept.file(), pem)?;
        Ok(Some(kept))
    }

    fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }
}

impl Drop for Authorities {
    fn drop(&mut self) {
        // They are public: what cannot be removed tells nobody anything.
        drop(std::fs::remove_file(self.file()));
        drop(std::fs::remove_dir(&self.folder));
    }
}

/// Passes a signal on to the command.
fn pass_on(child: &Child, signal: rustix::process::Signal) {
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(id) = id.and_then(rustix::process::Pid::from_raw) {
        // One that ended meanwhile needs none.
        let _gone = rustix::process::kill_process(id, signal);
    }
}

async fn renew(leases: &Session, id: &str) {
    let request = RenewLeaseRequest { id: id.to_owned(), ttl_s: LEASE_S };
    let renewed =
        leases.call(request, async |wire, request| Leases::new(wire).renew_lease(request).await);
    if let Err(failure) = renewed.await {
        note(&format!("the lease was not renewed: {}", failure.message));
    }
}

async fn revoke(leases: &Session, id: &str) {
    let (id, reason) = (id.to_owned(), "the command ended".to_owned());
    let revoked = leases.call(RevokeLeaseRequest { id, reason }, async |wire, request| {
        Leases::new(wire).revoke_lease(request).await
    });
    if let Err(failure) = revoked.await {
        note(&format!(
            "the lease was not revoked and runs out within a minute: {}",
            failure.message
        ));
    }
}

/// Ends as the command did; as a shell says it, where a signal ended it.
fn code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_authorities_of_a_database_are_in_a_private_file_while_the_command_runs() {
        assert!(Authorities::keep("").unwrap().is_none());
        let kept = Authorities::keep("PEM").unwrap().unwrap();
        let (folder, file) = (kept.folder.clone(), kept.file());
        let mode = |path: &PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "PEM");
        drop(kept);
        assert!(!folder.exists());
    }
}
