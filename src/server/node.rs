//! One node: a store, a token, a vault, its listeners.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::life::{self, Life, Occasion, Organs};
use super::listener::{self, ListenerTls};
use super::upkeep;
use crate::audit::RecordCodec;
use crate::auth::oidc::Federation;
use crate::engines::database::Databases;
use crate::engines::notices::Sink;
use crate::engines::pki::{AuthoritySlot, CrlSlot, SubjectName};
use crate::error::{Error, Result};
use crate::grpc::tls::Tls;
use crate::hsm::Hsm;
use crate::keyring::{FinalTry, Keyring};
use crate::store::keys::{Check, Foundation, HsmPurpose};
use crate::store::{BatchCodec, Location, Reader, RowSealer, Store};
use crate::telemetry::Metrics;
use crate::types::{Clock, Entropy, SecretBytes, Standing, State, TaskGroup};
use crate::vault::{Parts, Vault, VaultClock};
use crate::workers::{
    self, CeremonyKeeper, CrlKeeper, ElevationKeeper, IssuerKeeper, KeyKeeper, LeaseReaper,
    LifecycleKeeper, NoticeCourier, NoticeKeeper, RecoverySetKeeper, RotationKeeper, SecretKeeper,
    TokenReaper, WrapKeeper,
};
use crate::{grpc, http};

/// How long what runs may take to end where nobody says otherwise.
const DRAIN: Duration = Duration::from_secs(30);
/// How long the store may take to end: a client that holds a stream may keep it.
const STORE_END: Duration = Duration::from_secs(5);

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct Ingredients {
    /// This node's name.
    pub node: String,
    /// Where the state is.
    pub location: Location,
    /// The token.
    pub hsm: Arc<dyn Hsm>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Where gRPC is served.
    pub grpc_listen: SocketAddr,
    /// Where metrics and health are served, if anywhere.
    pub http_listen: Option<SocketAddr>,
    /// Where the listener's certificate comes from.
    pub tls: ListenerTls,
    /// Hosts and addresses that the listener's certificate names.
    pub server_names: Vec<SubjectName>,
    /// How often the log is integrated and signed.
    pub checkpoint: Duration,
    /// Limits before parsing.
    pub limits: grpc::Settings,
    /// Where relying parties get the revocation list, if they do.
    pub crl_url: Option<String>,
    /// Where notices go.
    pub sinks: Vec<Sink>,
    /// The file that lists who was shredded, if there is one: the HSM names the newest alone.
    pub shredded: Option<PathBuf>,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// The vault.
    pub vault: Vault,
    /// Where gRPC is served.
    pub grpc_addr: SocketAddr,
    /// Where metrics and health are served.
    pub http_addr: Option<SocketAddr>,
    /// What relying parties trust, PEM; believed only of a node that is unsealed.
    pub root_pem: String,
    /// What seals and unseals it.
    pub life: Life,
    store_tasks: TaskGroup,
    effects: TaskGroup,
    tasks: TaskGroup,
    serving: JoinHandle<Result<()>>,
}

impl Node {
    /// Opens the store and serves; unseals where there is a PIN.
    ///
    /// # Errors
    /// What store and HSM answer; [`Error::Precondition`] in a store without a vault;
    /// [`Error::Sealed`] where a PIN is given and a `seal` is on record.
    pub async fn start(parts: Ingredients, pin: impl Into<Option<SecretBytes>>) -> Result<Self> {
        let node = Self::start_sealed(parts).await?;
        if let Some(pin) = pin.into()
            && let Err(error) = node.life.unseal(pin, FinalTry::Refuse, Occasion::Start).await
        {
            node.stop().await?;
            return Err(error);
        }
        Ok(node)
    }

    /// Opens the store and serves health alone, until [`Life::unseal`].
    ///
    /// # Errors
    /// What the store answers; [`Error::Precondition`] in a store without a vault, and where a
    /// listener cannot be opened.
    pub async fn start_sealed(parts: Ingredients) -> Result<Self> {
        let (sealer, codec) = (Arc::new(RowSealer::default()), Arc::new(RecordCodec::default()));
        let (store_tasks, effects) = (TaskGroup::default(), TaskGroup::default());
        let batches = Arc::clone(&codec) as Arc<dyn BatchCodec>;
        let (reader, writer) =
            Store::open(&parts.location, &parts.node, Arc::clone(&sealer), batches, &store_tasks)
                .await?;
        let found = life::foundation(&reader, Check::Nothing).await?;
        let root_pem = root_pem(&found);
        let keyring = Keyring::new(Arc::clone(&parts.hsm), Arc::clone(&parts.entropy), sealer);
        let vault = Vault::new(Parts {
            reader: reader.clone(),
            writer,
            codec: Arc::clone(&codec),
            keyring: keyring.clone(),
            hsm: Arc::clone(&parts.hsm),
            entropy: Arc::clone(&parts.entropy),
            clock: VaultClock::new(Arc::clone(&parts.clock), parts.node.clone()),
            identity: life::installation(&found),
            quorum: parts.limits.administrators,
            wrapped_bytes: parts.limits.wrapped_bytes,
            shredded: parts.shredded.clone(),
            tasks: effects.clone(),
        })?;
        vault.mark_clock().await?;
        let tls = Arc::new(tls_while_sealed(&parts, &found)?);
        let (standing, authorities) = (Standing::default(), AuthoritySlot::default());
        let databases = Databases::new(Arc::clone(&parts.entropy), effects.clone());
        let life = Life::new(Organs {
            parts: parts.clone(),
            reader: reader.clone(),
            codec,
            keyring,
            vault: vault.clone(),
            authorities: authorities.clone(),
            databases: databases.clone(),
            tls: Arc::clone(&tls),
            standing: standing.clone(),
        });
        let (crls, tasks) = (CrlSlot::default(), TaskGroup::default());
        let metrics = Arc::new(Metrics::default());
        let grpc = bind(parts.grpc_listen).await?;
        let grpc_addr = grpc.local_addr().map_err(Error::internal)?;
        let front = http::Front {
            vault: vault.clone(),
            standing: standing.clone(),
            metrics: Arc::clone(&metrics),
            hsm: Arc::clone(&parts.hsm),
            crls: crls.clone(),
        };
        let http_addr = serve_http(parts.http_listen, front, &tasks).await?;
        upkeep::start(&life, &metrics, parts.checkpoint, &tasks);
        let federation = Federation::new(reader.clone(), tasks.clone());
        let engines = grpc::Engines { authorities, databases, crls, federation };
        start_workers((&vault, &reader), &engines, &parts.sinks, &standing, &tasks);
        let names = parts.server_names.clone();
        let front = grpc::Front { tls, vault: vault.clone(), standing, metrics, names, engines };
        let serving = tasks.spawn(grpc::serve(grpc, front, parts.limits, tasks.clone()));
        Ok(Self {
            vault,
            grpc_addr,
            http_addr,
            root_pem,
            life,
            store_tasks,
            effects,
            tasks,
            serving,
        })
    }

    /// The tasks that end when the node is told to stop.
    #[must_use]
    pub fn tasks(&self) -> &TaskGroup {
        &self.tasks
    }

    /// Stops: drains, integrates what is committed, forgets every key.
    ///
    /// # Errors
    /// What the listener or the HSM answered at the end.
    pub async fn stop(self) -> Result<()> {
        self.stop_within(DRAIN).await
    }

    /// Stops, giving what runs so long to end. What changes something outside runs to its end.
    ///
    /// # Errors
    /// As [`Node::stop`].
    pub async fn stop_within(self, drain: Duration) -> Result<()> {
        let was_serving = self.life.standing().is_serving();
        self.tasks.stop();
        // Streams end when they are told; effects do not listen and run to their end.
        self.effects.stop();
        let aborts = self.serving.abort_handle();
        let served = match tokio::time::timeout(drain, self.serving).await {
            Ok(ended) => ended.map_err(Error::internal)?,
            Err(_elapsed) => {
                tracing::warn!("requests that still ran were cut off");
                aborts.abort();
                Ok(())
            }
        };
        self.life.standing().set(State::Stopping);
        if tokio::time::timeout(drain, self.tasks.shutdown()).await.is_err() {
            tracing::warn!("a task did not end");
        }
        if tokio::time::timeout(drain, self.effects.shutdown()).await.is_err() {
            tracing::warn!("an effect did not end; recovery takes it over at the next start");
        }
        if was_serving && let Err(error) = self.vault.summarise_refusals().await {
            tracing::warn!(%error, "what was refused in the last minute is not on the record");
        }
        if was_serving && let Err(error) = self.vault.flush_usage().await {
            tracing::warn!(%error, "what was used in the last minute is not noted");
        }
        if was_serving && let Err(error) = self.vault.integrate().await {
            tracing::warn!(%error, "what is committed gets its place at the next start");
        }
        if was_serving && let Err(error) = self.vault.write_anchor().await {
            tracing::warn!(%error, "the HSM keeps an older head of the log");
        }
        let ended = self.life.end().await;
        drop((self.vault, self.life));
        if tokio::time::timeout(STORE_END, self.store_tasks.shutdown()).await.is_err() {
            tracing::warn!("the store is held by a client's stream; it ends with the process");
        }
        served.and(ended)
    }
}

/// Starts what the vault does by itself.
fn start_workers(
    (vault, reader): (&Vault, &Reader),
    engines: &grpc::Engines,
    sinks: &[Sink],
    standing: &Standing,
    tasks: &TaskGroup,
) {
    let grpc::Engines { authorities, databases, crls, federation: _ } = engines.clone();
    let leases = LeaseReaper::new(vault.clone(), reader.clone(), databases);
    workers::start(leases, vault, standing, tasks);
    let tokens = TokenReaper::new(vault.clone(), reader.clone());
    workers::start(tokens, vault, standing, tasks);
    let elevations = ElevationKeeper::new(vault.clone(), reader.clone());
    workers::start(elevations, vault, standing, tasks);
    let ceremonies = CeremonyKeeper::new(vault.clone(), reader.clone());
    workers::start(ceremonies, vault, standing, tasks);
    let lifecycles = LifecycleKeeper::new(vault.clone(), reader.clone());
    workers::start(lifecycles, vault, standing, tasks);
    let notices = NoticeKeeper::new(vault.clone(), reader.clone());
    workers::start(notices, vault, standing, tasks);
    for sink in sinks {
        let courier = NoticeCourier::new(vault.clone(), reader.clone(), sink.clone());
        workers::start(courier, vault, standing, tasks);
    }
    let issuers = IssuerKeeper::new(vault.clone(), reader.clone());
    workers::start(issuers, vault, standing, tasks);
    let secrets = SecretKeeper::new(vault.clone(), reader.clone());
    workers::start(secrets, vault, standing, tasks);
    let keys = KeyKeeper::new(vault.clone(), reader.clone());
    workers::start(keys, vault, standing, tasks);
    let wraps = WrapKeeper::new(vault.clone(), reader.clone());
    workers::start(wraps, vault, standing, tasks);
    let rotations = RotationKeeper::new(vault.clone(), reader.clone(), authorities.clone());
    workers::start(rotations, vault, standing, tasks);
    let sets = RecoverySetKeeper::new(vault.clone(), reader.clone());
    workers::start(sets, vault, standing, tasks);
    let crls = CrlKeeper::new(vault.clone(), reader.clone(), authorities, crls);
    workers::start(crls, vault, standing, tasks);
}

async fn bind(listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen)
        .await
        .map_err(|error| Error::precondition(format!("cannot listen on {listen}: {error}")))
}

async fn serve_http(
    listen: Option<SocketAddr>,
    front: http::Front,
    tasks: &TaskGroup,
) -> Result<Option<SocketAddr>> {
    let Some(listen) = listen else { return Ok(None) };
    let listener = bind(listen).await?;
    let address = listener.local_addr().map_err(Error::internal)?;
    let group = tasks.clone();
    drop(tasks.spawn(async move {
        http::serve(listener, front, http::Limits::default(), group).await;
    }));
    Ok(Some(address))
}

/// Writes the root's certificate as PEM, as the store has it.
/// What the listener shows and trusts before any seal can be looked at.
fn tls_while_sealed(parts: &Ingredients, found: &Foundation) -> Result<Tls> {
    let identity = listener::identity_while_sealed(parts)?;
    Tls::new(&identity, life::trust_unchecked(found)?, Arc::clone(&parts.clock))
}

fn root_pem(found: &Foundation) -> String {
    let root = found.newest(HsmPurpose::CaRoot);
    let der = root.and_then(|key| key.certificate.as_deref());
    der.map(crate::engines::pki::pem).unwrap_or_default()
}
