//! `strongroom run`: a command with credentials in its environment, which end with it.
//!
//! The lease is renewed for a minute at a time: where this program is killed with no time to revoke
//! it, it runs out by itself.

use std::fmt::Display;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

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
    // Before there is a lease: from here on none of them ends this program and leaves one behind.
    let mut signals = Signals::listen()?;
    let session = Session::open(global)?;
    let issued = tokio::select! {
        issued = lease(&session, &args.db, LEASE_S) => issued?,
        // If there is one by now, nobody knows it, and it runs out.
        signal = signals.next() => return Ok(code_of(signal.as_raw())),
    };
    // Whatever becomes of the session meanwhile, the lease's own handle renews and revokes it.
    let leases = match issued.lease_handle.as_str() {
        "" => session.clone(),
        handle => session.bearing(handle)?,
    };
    let outcome = with_credential(&leases, &issued, args, &mut signals).await;
    revoke(&leases, &issued.lease_id).await;
    outcome.map(code)
}

async fn with_credential(
    leases: &Session,
    issued: &IssueCredentialsResponse,
    args: &RunArgs,
    signals: &mut Signals,
) -> Outcome<ExitStatus> {
    hide(&issued.password)?;
    let authorities = Authorities::keep(&issued.ca_pem)?;
    let file = authorities.as_ref().map(|kept| kept.file().display().to_string());
    let child = spawn(issued, file.as_deref(), args)?;
    supervise(child, signals, renew_on(leases, &issued.lease_id)).await
}

/// Waits for the command's end, and passes signals on to it. The lease is renewed beside: a vault that
/// does not answer keeps nobody from being heard.
async fn supervise(
    mut child: Child,
    signals: &mut Signals,
    renewals: impl Future<Output = ()>,
) -> Outcome<ExitStatus> {
    tokio::pin!(renewals);
    loop {
        tokio::select! {
            ended = child.wait() => {
                return ended.map_err(|error| Failure::new(Exit::Unexpected, error.to_string()));
            }
            signal = signals.next() => {
                if !is_from_terminal(signal) {
                    pass_on(&child, signal);
                }
            }
            () = &mut renewals => {
                return Err(Failure::new(Exit::Unexpected, "the lease is renewed no more"));
            }
        }
    }
}

/// The signals that would end this program.
#[derive(Debug)]
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    quit: Signal,
}

impl Signals {
    fn listen() -> Outcome<Self> {
        let failed = |error| Failure::new(Exit::Unexpected, format!("no signals: {error}"));
        let watch = |kind| signal(kind).map_err(failed);
        Ok(Self {
            term: watch(SignalKind::terminate())?,
            int: watch(SignalKind::interrupt())?,
            hup: watch(SignalKind::hangup())?,
            quit: watch(SignalKind::quit())?,
        })
    }

    /// Waits for the next one.
    async fn next(&mut self) -> rustix::process::Signal {
        use rustix::process::Signal;
        tokio::select! {
            () = heard(&mut self.term) => Signal::TERM,
            () = heard(&mut self.int) => Signal::INT,
            () = heard(&mut self.hup) => Signal::HUP,
            () = heard(&mut self.quit) => Signal::QUIT,
        }
    }
}

async fn heard(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Tells whether a signal is one that the terminal sends: to all that run in its foreground, and so to
/// the command as well, which would get it twice.
fn is_from_terminal(signal: rustix::process::Signal) -> bool {
    if signal == rustix::process::Signal::TERM {
        return false;
    }
    let foreground = File::open("/dev/tty").ok().and_then(|terminal| tcgetpgrp(terminal).ok());
    foreground == Some(getpgrp())
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
    if let Some(id) = id.and_then(Pid::from_raw) {
        // One that ended meanwhile needs none.
        let _gone = kill_process(id, signal);
    }
}

/// Renews the lease for as long as anybody waits for this.
async fn renew_on(leases: &Session, id: &str) {
    let mut renewals = tokio::time::interval(RENEW);
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    renewals.tick().await;
    loop {
        renewals.tick().await;
        renew(leases, id).await;
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
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        (None, signal) => code_of(signal.unwrap_or_default()),
    }
}

/// The code that a shell gives what a signal ended.
fn code_of(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(signal.saturating_add(128)).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_vault_that_does_not_answer_keeps_nobody_from_hearing_the_commands_end() {
        // One that ends nothing: what ends the test is to go on ending it.
        let quiet = || signal(SignalKind::user_defined1()).unwrap();
        let mut signals = Signals { term: quiet(), int: quiet(), hup: quiet(), quit: quiet() };
        let child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let ended = supervise(child, &mut signals, std::future::pending()).await.unwrap();
        assert_eq!(ended.code(), Some(7));
    }

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
