//! `strongroom server`: serves a vault that `init` founded, until it is told to stop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::assemble;
use super::backup;
use super::control::{self, Control};
use super::files;
use super::life::{Life, Occasion};
use super::node::Node;
use super::pin::PinMemory;
use super::run::{environment, failed, in_runtime};
use crate::cli::control::{State as Shown, Status};
use crate::cli::{Outcome, ServerArgs, json_text};
use crate::config::{Config, SecretSource, Store, TokenName};
use crate::error::{Error, Result};
use crate::hsm::Pkcs11Hsm;
use crate::keyring::FinalTry;
use crate::types::{Clock as _, SecretBytes, State, SystemClock};

/// How long a node waits before it asks an HSM again that does not answer: at first, and twice as
/// long after each time, up to the second.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Which vaults a command serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Those marked as development.
    Development,
    /// All others.
    Production,
}

/// Serves.
pub(super) fn run(args: &ServerArgs) -> Outcome {
    let config = Config::load(&args.config).map_err(|error| failed(&error.into()))?;
    environment(&config, None)?;
    in_runtime(&config, false, async {
        let served = async {
            let signals = Signals::watch()?;
            files::private_dir(&config.server.data_dir)?;
            let _lock = files::lock(&config.server.data_dir)?;
            let token = assemble::token(&config)?;
            let node = start(&config, token, Mark::Production).await?;
            if let Some(path) = &args.ready_file {
                let ready = json!({ "grpc_addr": node.grpc_addr, "http_addr": node.http_addr });
                write_ready(path, &ready)?;
            }
            signals.serve_until_stopped(&config, node).await
        };
        served.await.map_err(|error| failed(&error))
    })
}

/// Starts a node with its control socket, and unseals it where it may.
///
/// # Errors
/// [`Error::Precondition`] for a vault of the other mark or another name; what store and token
/// answer before the listeners are open. What unsealing answers is logged and shown by `status`.
pub(super) async fn start(config: &Config, token: Arc<Pkcs11Hsm>, mark: Mark) -> Result<Node> {
    backup::sweep(config);
    let parts = assemble::ingredients(config, token)?;
    let node = Node::start_sealed(parts).await?;
    if let Err(error) = admit(config, &node, mark) {
        node.stop().await?;
        return Err(error);
    }
    let memory = PinMemory::new(&config.server.data_dir);
    let control = Control {
        life: node.life.clone(),
        pin: config.hsm.pin.clone(),
        memory: memory.clone(),
        about: about(config, &node),
    };
    control::serve(&config.server.control_socket, control, node.tasks())?;
    tracing::info!(
        grpc = %node.grpc_addr,
        version = env!("CARGO_PKG_VERSION"),
        development = node.vault.installation().dev,
        "listening"
    );
    match &config.hsm.pin {
        Some(source) => unseal_by_itself(&node, source, &memory).await,
        None => stay_sealed(&node.life, "no PIN source is configured; run `strongroom unseal`"),
    }
    Ok(node)
}

/// Refuses a vault that is not the one that was meant.
fn admit(config: &Config, node: &Node, mark: Mark) -> Result<()> {
    let there = node.vault.installation();
    match (mark, there.dev) {
        (Mark::Development, true) | (Mark::Production, false) => {}
        (Mark::Production, true) => {
            return Err(Error::precondition(
                "the store holds a development vault, for ever; only `strongroom dev` serves it",
            ));
        }
        (Mark::Development, false) => {
            return Err(Error::precondition(
                "the store holds a vault that is not for development; `strongroom server` \
                 serves it",
            ));
        }
    }
    let wanted = [
        ("vault.trust_domain", &config.vault.trust_domain, &there.trust_domain),
        ("record.origin", &config.record.origin, &there.origin),
    ];
    match wanted.iter().find(|(_, wanted, found)| wanted != found) {
        Some((key, _, found)) => Err(Error::precondition(format!(
            "{key} is `{found}` since `init` and cannot change; correct the configuration"
        ))),
        None => Ok(()),
    }
}

fn about(config: &Config, node: &Node) -> Status {
    let (TokenName::Label(token) | TokenName::Serial(token)) = &config.hsm.token;
    let store = match &config.store {
        Store::Sqlite(_) => "sqlite",
        Store::Postgres(_) => "postgres",
    };
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        vault_id: Some(node.vault.installation().id.to_string()),
        state: Shown::Sealed,
        because: None,
        development: node.vault.installation().dev,
        restores: None,
        grpc_addr: node.grpc_addr.to_string(),
        http_addr: node.http_addr.map(|address| address.to_string()).unwrap_or_default(),
        token: token.clone(),
        store: store.to_owned(),
        started_at_ms: SystemClock.now().0,
        state_check: None,
        recovery_sets: None,
    }
}

/// Unseals with the configured PIN, once; again only where the HSM was never asked.
async fn unseal_by_itself(node: &Node, source: &SecretSource, memory: &PinMemory) {
    if let Err(refused) = memory.require_unmarked() {
        return stay_sealed(&node.life, &refused.to_string());
    }
    let pin = match source.read() {
        Ok(pin) => pin,
        Err(error) => return stay_sealed(&node.life, &error.to_string()),
    };
    if attempt(&node.life, &pin, memory).await {
        return;
    }
    let (life, memory, group) = (node.life.clone(), memory.clone(), node.tasks().clone());
    drop(node.tasks().spawn(async move {
        let (mut wait, longest) = AGAIN;
        loop {
            tokio::select! {
                () = group.stopping() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = wait.saturating_mul(2).min(longest);
            if !life.vault().is_sealed() || attempt(&life, &pin, &memory).await {
                return;
            }
        }
    }));
}

/// Tries to unseal; false when it is worth another try.
async fn attempt(life: &Life, pin: &SecretBytes, memory: &PinMemory) -> bool {
    match memory.unseal(life, pin.clone(), FinalTry::Refuse, Occasion::Start).await {
        Ok(()) => true,
        // Why is on record.
        Err(Error::Sealed) => {
            tracing::warn!("a seal is on record; `strongroom unseal` takes it off");
            true
        }
        Err(Error::Unavailable(why)) => {
            stay_sealed(life, &format!("{why}; it is tried again"));
            false
        }
        Err(error) => {
            stay_sealed(life, &error.to_string());
            true
        }
    }
}

fn stay_sealed(life: &Life, because: &str) {
    tracing::error!(because, "the vault stays sealed");
    life.standing().set(State::Sealed(because.to_owned()));
}

/// What the server is told from outside. Watched from before it says that it is ready: a signal
/// that nobody watches would end it there and then, with nothing drained.
#[derive(Debug)]
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// Begins to watch: what comes from now on is heard, however much later.
    pub(super) fn watch() -> Result<Self> {
        let watch = |kind| signal(kind).map_err(Error::internal);
        Ok(Self {
            term: watch(SignalKind::terminate())?,
            int: watch(SignalKind::interrupt())?,
            hup: watch(SignalKind::hangup())?,
        })
    }

    /// Serves until SIGTERM or SIGINT, reloading TLS on SIGHUP; then drains.
    pub(super) async fn serve_until_stopped(mut self, config: &Config, node: Node) -> Result<()> {
        loop {
            tokio::select! {
                _ = self.term.recv() => break,
                _ = self.int.recv() => break,
                _ = self.hup.recv() => match node.life.reload_tls().await {
                    Ok(()) => tracing::info!("the listener's certificate and trust are reloaded"),
                    Err(error) => tracing::error!(%error, "what served before serves on"),
                },
            }
        }
        tracing::info!("stopping");
        node.stop_within(config.server.drain_timeout).await?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Says to whoever waits that the node answers: the file is there whole, or not at all.
pub(super) fn write_ready(path: &Path, ready: &serde_json::Value) -> Result<()> {
    files::replace(path, json_text(ready).as_bytes(), 0o600)
}
