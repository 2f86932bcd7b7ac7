//! One node: a store, a token, a vault, a listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::TcpListener;

use super::upkeep;
use crate::audit::RecordCodec;
use crate::engines::database::Databases;
use crate::engines::pki::{
    Authorities, AuthoritySlot, GeneratedKey, KeyType, Serial, SubjectName, Template, TrustDomain,
    issue,
};
use crate::error::{Error, Result};
use crate::grpc;
use crate::grpc::tls::{ServerIdentity, Tls, Trust};
use crate::hsm::Hsm;
use crate::keyring::{FinalTry, Keyring};
use crate::store::keys::{self, Check, Foundation};
use crate::store::{BatchCodec, Location, RowSealer, Store};
use crate::types::{Clock, Entropy, SecretBytes, TaskGroup};
use crate::vault::{Installation, Parts, Vault, VaultClock};
use crate::workers::{self, CertificateReaper, LeaseReaper};

/// How long the listener's own certificate lives.
const SERVER_CERTIFICATE: Duration = Duration::from_secs(30 * 86_400);

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
    /// Hosts and addresses that the listener's certificate names.
    pub server_names: Vec<SubjectName>,
    /// How often the log is integrated and signed.
    pub checkpoint: Duration,
    /// Limits before parsing.
    pub limits: grpc::Settings,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// The vault.
    pub vault: Vault,
    /// Where gRPC is served.
    pub grpc_addr: SocketAddr,
    /// What relying parties trust, PEM.
    pub root_pem: String,
    keyring: Keyring,
    store_tasks: TaskGroup,
    tasks: TaskGroup,
    serving: tokio::task::JoinHandle<Result<()>>,
}

impl Node {
    /// Opens the store, unseals with the PIN, serves.
    ///
    /// # Errors
    /// What store and HSM answer; [`Error::Precondition`] in a store without a vault.
    pub async fn start(parts: Ingredients, pin: SecretBytes) -> Result<Self> {
        let (sealer, codec) = (Arc::new(RowSealer::default()), Arc::new(RecordCodec::default()));
        let (store_tasks, tasks) = (TaskGroup::default(), TaskGroup::default());
        let batches = Arc::clone(&codec) as Arc<dyn BatchCodec>;
        let (reader, writer) =
            Store::open(&parts.location, &parts.node, Arc::clone(&sealer), batches, &store_tasks)
                .await?;
        let found = reader
            .view(|tx| async { Ok(keys::foundation(tx, &Check::Nothing).await?) }.boxed())
            .await?
            .ok_or_else(|| {
                Error::precondition("the store holds no vault; run `strongroom init`")
            })?;
        let keyring =
            Keyring::new(Arc::clone(&parts.hsm), Arc::clone(&parts.entropy), Arc::clone(&sealer));
        let master = keyring.unseal(&reader, pin, FinalTry::Refuse).await?;
        codec.set_key(Some(master.batch.clone()));
        let identity = installation(&found);
        let ours: TrustDomain = identity.trust_domain.parse()?;
        let authorities = Arc::new(Authorities::load(&keyring, parts.hsm.as_ref(), &ours).await?);
        let slot = AuthoritySlot::default();
        slot.set(Some(Arc::clone(&authorities)));
        let clock = VaultClock::new(Arc::clone(&parts.clock), parts.node.clone());
        let databases = Databases::new(Arc::clone(&parts.entropy), tasks.clone());
        let vault = Vault::new(Parts {
            reader: reader.clone(),
            writer,
            codec,
            keyring: keyring.clone(),
            hsm: Arc::clone(&parts.hsm),
            entropy: Arc::clone(&parts.entropy),
            clock,
            identity,
            tasks: tasks.clone(),
        })?;
        vault.mark_clock().await?;
        let server = server_identity(&parts, &authorities).await?;
        let trust = Trust::new(&ours, authorities.login.certificate_der(), [])?;
        let tls = Arc::new(Tls::new(&server, trust, Arc::clone(&parts.clock))?);
        let listener = TcpListener::bind(parts.grpc_listen).await.map_err(Error::internal)?;
        let grpc_addr = listener.local_addr().map_err(Error::internal)?;
        upkeep::start(&vault, parts.checkpoint, &tasks);
        let engines = grpc::Engines { authorities: slot, databases: databases.clone() };
        let certificates = CertificateReaper::new(vault.clone(), reader.clone());
        workers::start(certificates, &vault, &tasks);
        let leases = LeaseReaper::new(vault.clone(), reader, databases);
        workers::start(leases, &vault, &tasks);
        let serving =
            grpc::serve(listener, tls, vault.clone(), engines, parts.limits, tasks.clone());
        let serving = tasks.spawn(serving);
        let root_pem = authorities.root.pem();
        Ok(Self { vault, grpc_addr, root_pem, keyring, store_tasks, tasks, serving })
    }

    /// Stops: drains, integrates what is committed, forgets every key.
    ///
    /// # Errors
    /// What the listener or the HSM answered at the end.
    pub async fn stop(self) -> Result<()> {
        self.tasks.shutdown().await;
        let served = self.serving.await.map_err(Error::internal)?;
        self.vault.integrate().await?;
        drop(self.vault);
        self.keyring.seal().await?;
        self.store_tasks.shutdown().await;
        served
    }
}

fn installation(found: &Foundation) -> Installation {
    let row = &found.vault;
    Installation {
        id: row.id,
        trust_domain: row.trust_domain.clone(),
        dev: row.dev,
        origin: row.origin.clone(),
    }
}

/// Issues the listener's own certificate for a key that never leaves this process.
async fn server_identity(parts: &Ingredients, authorities: &Authorities) -> Result<ServerIdentity> {
    let key = GeneratedKey::generate(KeyType::P256)?;
    let now = parts.clock.now();
    let template =
        Template::server(key.public.clone(), parts.server_names.clone(), SERVER_CERTIFICATE)?;
    let serial = Serial::random(parts.entropy.as_ref())?;
    let certificate =
        issue(parts.hsm.as_ref(), &authorities.issuing, &template, &serial, now).await?;
    let chain = [certificate.pem(), authorities.issuing.pem()].concat();
    ServerIdentity::from_pem(chain.as_bytes(), key.private_pem.expose(), now)
}
