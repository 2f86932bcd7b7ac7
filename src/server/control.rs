//! The server's half of the local socket: `status`, `unseal`, `backup create`, `backup accept`,
//! `recover-admin`.
//!
//! A Unix socket of mode 0600; who connects is asked of the kernel, and only this user and root
//! are answered. One line each way, then it closes.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::acceptance::{AcceptOrder, Accepted};
use super::backup::{self, BackupOrder};
use super::life::{Life, Occasion};
use super::pin::PinMemory;
use super::recovery::RecoveryOrder;
use crate::cli::control::{
    BackupReport, MOST_LINE_BYTES, PinChallenge, RecoveryReport, Reply, Request, Secret,
    SetCoverage, State as Shown, StateCheck, Status,
};
use crate::config::SecretSource;
use crate::crypto::hex;
use crate::engines::factors::Code;
use crate::engines::recovery_sets::DescribedSet;
use crate::engines::system::{Recovered, RecoveredLogin};
use crate::error::{Error, Result};
use crate::keyring::{Challenge, FinalTry};
use crate::store::backup::Content;
use crate::types::{SecretBytes, State, TaskGroup};

/// How long a client may take to say its line.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long `status` waits for what is in the store: it is asked when something is wrong.
const SOON: Duration = Duration::from_secs(1);
/// Clients at once; more wait.
const CLIENTS: usize = 8;

/// What the socket answers with.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) life: Life,
    pub(super) pin: Option<SecretSource>,
    pub(super) memory: PinMemory,
    /// What does not change while the node runs.
    pub(super) about: Status,
}

/// Opens the socket and serves it until the tasks are told to stop.
///
/// # Errors
/// [`Error::Precondition`] when another server listens there, or it cannot be made.
pub(super) fn serve(path: &Path, control: Control, tasks: &TaskGroup) -> Result<()> {
    let listener = bind(path)?;
    let (path, group, control) = (path.to_owned(), tasks.clone(), Arc::new(control));
    drop(tasks.spawn(accept(listener, path, control, group)));
    Ok(())
}

fn bind(path: &Path) -> Result<UnixListener> {
    let failed = |error: &io::Error| {
        Error::precondition(format!("the control socket {}: {error}", path.display()))
    };
    if let Ok(about) = path.symlink_metadata() {
        if !about.file_type().is_socket() {
            return Err(Error::precondition(format!(
                "{} is in the way of the control socket",
                path.display()
            )));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(Error::precondition(format!(
                "another server listens on {}",
                path.display()
            )));
        }
        std::fs::remove_file(path).map_err(|error| failed(&error))?;
    }
    // Nobody else gets in before the mode is set: the directory is its owner's, and who connects
    // is asked of the kernel as well.
    let listener = UnixListener::bind(path).map_err(|error| failed(&error))?;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, mode).map_err(|error| failed(&error))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, path: PathBuf, control: Arc<Control>, tasks: TaskGroup) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = tasks.stopping() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let control = Arc::clone(&control);
                drop(tasks.spawn(async move {
                    if let Err(error) = control.exchange(stream).await {
                        tracing::debug!(%error, "a client of the control socket went away");
                    }
                    drop(place);
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket accepts nobody; trying again");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // It may be gone already, with its directory.
    drop(std::fs::remove_file(&path));
}

impl Control {
    async fn exchange(&self, stream: UnixStream) -> io::Result<()> {
        let peer = stream.peer_cred()?.uid();
        let me = rustix::process::geteuid().as_raw();
        let (from, mut to) = stream.into_split();
        let reply = if peer == me || peer == 0 {
            // Of the final size at once: growing would leave copies of a PIN behind.
            let mut line = Zeroizing::new(Vec::with_capacity(MOST_LINE_BYTES));
            let most = u64::try_from(MOST_LINE_BYTES).unwrap_or(u64::MAX);
            let mut from = BufReader::new(from.take(most));
            tokio::time::timeout(PATIENCE, from.read_until(b'\n', &mut line)).await??;
            self.answer(&line).await
        } else {
            tracing::warn!(uid = peer, "another user asked on the control socket");
            Reply::from(&Error::Denied("only the server's own user and root may ask".into()))
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        to.write_all(&line).await
    }

    async fn answer(&self, line: &[u8]) -> Reply {
        let done = match Request::parse(line) {
            Ok(Request::Status) => return Reply::Status(self.status().await),
            Ok(Request::Unseal { pin, force }) => {
                let pin = pin.map(|pin| SecretBytes::new(pin.expose().as_bytes().to_vec()));
                self.unseal(pin, force).await
            }
            Ok(Request::Rollback) => match self.life.rollback().await {
                Ok(rollback) => return Reply::Rollback(rollback),
                Err(error) => Err(error),
            },
            Ok(Request::Accept { certificate, signature, ceremony, code }) => {
                self.accept((&certificate, &signature), ceremony, code).await
            }
            Ok(Request::Challenge) => match self.life.challenge() {
                Ok(challenge) => return Reply::Challenge(shown(&challenge)),
                Err(error) => Err(error),
            },
            Ok(Request::RecoverAdmin { name, csr, nonce, proof }) => {
                match self.recover(&name, csr, &nonce, &proof).await {
                    Ok(recovered) => return Reply::Recovery(report(&recovered)),
                    Err(error) => Err(error.told()),
                }
            }
            Ok(Request::Backup { out, content }) => match self.back_up(out, &content).await {
                Ok(report) => return Reply::Backup(report),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match done {
            Ok(message) => Reply::Done { message },
            Err(error) => {
                tracing::warn!(%error, "refused on the control socket");
                Reply::from(&error)
            }
        }
    }

    async fn status(&self) -> Status {
        let (state, because) = match self.life.standing().state() {
            State::Serving => (Shown::Unsealed, None),
            State::Sealed(because) => (Shown::Sealed, Some(because)),
            State::Held(because) => (Shown::Held, Some(because)),
            State::Unheard => (Shown::Unheard, None),
            State::Stopping => (Shown::Stopping, None),
        };
        let (restores, sets) = tokio::join!(
            tokio::time::timeout(SOON, self.life.restores()),
            tokio::time::timeout(SOON, self.life.recovery_sets()),
        );
        let (restores, sets) = (restores.ok().flatten(), sets.ok().flatten());
        let recovery_sets = sets.map(|sets| sets.into_iter().map(coverage).collect());
        let state_check = self.life.vault().state().report().map(|report| StateCheck {
            checked_at_ms: report.checked_at.0,
            rows: report.rows,
            wrong: report.wrong(),
        });
        Status { state, because, restores, state_check, recovery_sets, ..self.about.clone() }
    }

    async fn unseal(&self, given: Option<SecretBytes>, force: bool) -> Result<String> {
        let pin = match (given, &self.pin) {
            (Some(pin), _) => pin,
            (None, None) => {
                return Err(Error::precondition(
                    "no PIN source is configured; give one with --prompt or --pin-file",
                ));
            }
            (None, Some(source)) => {
                if !force {
                    self.memory.require_unmarked()?;
                }
                source.read()?
            }
        };
        let final_try = if force { FinalTry::Force } else { FinalTry::Refuse };
        self.memory.unseal(&self.life, pin, final_try, Occasion::Asked).await?;
        Ok("the vault is unsealed".to_owned())
    }

    async fn recover(
        &self,
        name: &str,
        csr_pem: String,
        nonce: &str,
        proof: &str,
    ) -> Result<Recovered> {
        let (nonce, proof) = (decode(nonce)?, SecretBytes::new(decode(proof)?));
        self.life.recover(RecoveryOrder { name: name.parse()?, csr_pem, nonce, proof }).await
    }

    async fn back_up(&self, out: String, content: &str) -> Result<BackupReport> {
        let content = Content::ALL.into_iter().find(|one| one.as_str() == content);
        let content = content.ok_or_else(|| Error::invalid("no backup holds that"))?;
        let order = BackupOrder { out: out.clone().into(), content };
        let made = backup::create(&self.life, order).await?;
        tracing::info!(backup = %made.id, file = out, "a backup was made");
        Ok(BackupReport {
            id: made.id.to_string(),
            file: out,
            content: made.content.as_str().to_owned(),
            created_at_ms: made.created_at.0,
            log_size: made.log_size,
            log_root: made.log_root,
            bytes: made.bytes,
        })
    }

    async fn accept(
        &self,
        (certificate, signature): (&str, &str),
        ceremony: Option<String>,
        code: Option<Secret>,
    ) -> Result<String> {
        let order = AcceptOrder {
            certificate_der: decode(certificate)?,
            signature: decode(signature)?,
            ceremony: ceremony.map(|id| id.parse()).transpose()?,
            code: code.map(|code| Code::parse(code.expose().as_bytes())).transpose()?,
        };
        Ok(match self.life.accept(order).await? {
            Accepted::Waits { ceremony, missing: 0, until } => format!(
                "ceremony {ceremony} is approved: who asked for it accepts once more before {until}"
            ),
            Accepted::Waits { ceremony, missing, until } => format!(
                "ceremony {ceremony} is open and needs {missing} more: another administrator accepts \
                 with --ceremony {ceremony}, then who asked for it once more before {until}"
            ),
            Accepted::Wholly => "the store is accepted, and the vault serves".to_owned(),
        })
    }
}

fn decode(text: &str) -> Result<Vec<u8>> {
    STANDARD.decode(text).map_err(|_malformed| Error::invalid("bytes are base64 on this socket"))
}

fn coverage(of: DescribedSet) -> SetCoverage {
    SetCoverage {
        id: of.row.id.to_string(),
        custody: of.custody.as_str().to_owned(),
        holders: of.holders.into_iter().map(|holder| holder.name).collect(),
        keys_covered: of.covered,
        keys_total: of.keys,
    }
}

fn shown(challenge: &Challenge) -> PinChallenge {
    PinChallenge {
        vault_id: challenge.vault.to_string(),
        root_version: challenge.root_version,
        nonce: STANDARD.encode(challenge.nonce),
    }
}

fn report(recovered: &Recovered) -> RecoveryReport {
    let Recovered { recovery, login } = recovered;
    RecoveryReport {
        id: recovery.id.to_string(),
        identity: recovery.name.to_string(),
        state: recovery.state.to_string(),
        key_sha256: hex(&recovery.key_hash),
        requested_at_ms: recovery.requested_at.0,
        takes_effect_at_ms: recovery.due_at.0,
        lapses_at_ms: recovery.until.0,
        certificate_pem: login.as_ref().map(RecoveredLogin::pem).unwrap_or_default(),
        chain_pem: login.as_ref().map(|login| login.chain_pem.clone()).unwrap_or_default(),
        expires_at_ms: login.as_ref().map_or(0, |login| login.row.expires_at.0),
    }
}
