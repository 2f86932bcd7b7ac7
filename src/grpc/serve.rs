//! The gRPC server: every service behind the gate, limits before parsing, health, reflection.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::transport::Server;

use super::accept::Gate;
use super::authorities::RotatingAuthorities;
use super::ceremonies::Ceremonies;
use super::database::DatabaseRpc;
use super::door::Door;
use super::elevations::Elevations;
use super::enrolments::Enrolments;
use super::factors::Factors;
use super::grants::Grants;
use super::groups::Groups;
use super::health::Health;
use super::identities::Identities;
use super::issuers::Issuers;
use super::keys::NamedKeys;
use super::known::Known;
use super::leases::LeaseRpc;
use super::pki::Pki;
use super::records::Records;
use super::recovery_sets::RecoverySets;
use super::root::Root;
use super::secrets::Secrets;
use super::services::Gathering;
use super::system::System;
use super::tls::{self, Tls};
use super::tokens::Tokens;
use super::wraps::Wraps;
use crate::auth::oidc::Federation;
use crate::engines::database::Databases;
use crate::engines::pki::{AuthoritySlot, CrlSlot, LoginTtl, SubjectName};
use crate::engines::tokens::TokenLimits;
use crate::error::{Error, Result};
use crate::proto::DESCRIPTORS;
use crate::proto::authority_service_server::AuthorityServiceServer;
use crate::proto::ceremony_service_server::CeremonyServiceServer;
use crate::proto::database_service_server::DatabaseServiceServer;
use crate::proto::elevation_service_server::ElevationServiceServer;
use crate::proto::enrolment_service_server::EnrolmentServiceServer;
use crate::proto::factor_service_server::FactorServiceServer;
use crate::proto::grant_service_server::GrantServiceServer;
use crate::proto::group_service_server::GroupServiceServer;
use crate::proto::identity_service_server::IdentityServiceServer;
use crate::proto::issuer_service_server::IssuerServiceServer;
use crate::proto::key_service_server::KeyServiceServer;
use crate::proto::lease_service_server::LeaseServiceServer;
use crate::proto::pki_service_server::PkiServiceServer;
use crate::proto::record_service_server::RecordServiceServer;
use crate::proto::recovery_set_service_server::RecoverySetServiceServer;
use crate::proto::root_service_server::RootServiceServer;
use crate::proto::secret_service_server::SecretServiceServer;
use crate::proto::system_service_server::SystemServiceServer;
use crate::proto::token_service_server::TokenServiceServer;
use crate::proto::wrap_service_server::WrapServiceServer;
use crate::telemetry::Metrics;
use crate::types::{Standing, TaskGroup};
use crate::vault::Vault;

/// Limits before parsing.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Largest message, in bytes.
    pub message_bytes: usize,
    /// Largest set of headers, in bytes.
    pub header_bytes: u32,
    /// Streams on one connection at once.
    pub streams: u32,
    /// Requests at once, over all connections.
    pub in_flight: usize,
    /// How long a request may take; its caller may say less.
    pub deadline: Duration,
    /// Connections and their handshakes.
    pub connections: tls::Limits,
    /// How often a client is asked whether it is still there.
    pub ping: Duration,
    /// How long it may take to say so.
    pub pong: Duration,
    /// How long login certificates live.
    pub login: LoginTtl,
    /// How long tokens live, and how many.
    pub tokens: TokenLimits,
    /// How many certificates an identity may have whose time is not over.
    pub certificates: u32,
    /// How many administrators a ceremony takes.
    pub administrators: u32,
    /// Bytes of what one identity wrapped that may wait to be opened.
    pub wrapped_bytes: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            message_bytes: 1_024 * 1_024 + 64 * 1_024,
            header_bytes: 16 * 1_024,
            streams: 100,
            in_flight: 1_024,
            deadline: Duration::from_secs(30),
            connections: tls::Limits::default(),
            ping: Duration::from_secs(30),
            pong: Duration::from_secs(10),
            login: LoginTtl::default(),
            tokens: TokenLimits::default(),
            certificates: 10_000,
            administrators: 2,
            wrapped_bytes: 64 * 1_024 * 1_024,
        }
    }
}

/// What the services stand on.
#[derive(Debug, Clone)]
pub struct Front {
    /// The listener's certificate and trust.
    pub tls: Arc<Tls>,
    /// The vault.
    pub vault: Vault,
    /// Whether it serves.
    pub standing: Standing,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What the node is called.
    pub names: Vec<SubjectName>,
    /// What engines hold outside the vault.
    pub engines: Engines,
}

/// What engines hold outside the vault.
#[derive(Debug, Clone)]
pub struct Engines {
    /// The authorities, while the vault is unsealed.
    pub authorities: AuthoritySlot,
    /// Connections to target databases.
    pub databases: Databases,
    /// The newest revocation list.
    pub crls: CrlSlot,
    /// Logging in by issuers.
    pub federation: Federation,
}

/// Serves until the tasks are told to stop, then drains.
///
/// # Errors
/// [`Error::Internal`] when the server cannot be set up or its listener fails.
pub async fn serve(
    listener: TcpListener,
    front: Front,
    settings: Settings,
    tasks: TaskGroup,
) -> Result<()> {
    let Front { tls, vault, standing, metrics, names, engines } = front;
    let door = Door::new(vault.clone(), standing.clone(), Arc::clone(&metrics), &settings);
    let Engines { authorities, databases, crls, federation } = engines;
    let gate = Gate::new(vault, authorities, Arc::clone(&tls), &names);
    let incoming = tls::listen(listener, tls, settings.connections, metrics, &tasks);
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let v1 = reflection().build_v1().map_err(Error::internal)?;
    let v1 = Known { gate: gate.clone(), inner: v1 };
    let v1alpha = reflection().build_v1alpha().map_err(Error::internal)?;
    let v1alpha = Known { gate: gate.clone(), inner: v1alpha };
    let mut services = Gathering::default();
    services.add(health_service).add(v1).add(v1alpha);
    let health = Health::new(reporter);
    let health = add_people(&mut services, health, &gate, (federation, &settings));
    let health = add_keys(&mut services, health, &gate, settings.message_bytes);
    let held = Held { databases, crls, standing: standing.clone() };
    let health = add_things(&mut services, health, gate, (held, &settings));
    health.follow(&standing, &tasks).await;
    Server::builder()
        .http2_max_header_list_size(settings.header_bytes)
        .max_concurrent_streams(settings.streams)
        .http2_keepalive_interval(Some(settings.ping))
        .http2_keepalive_timeout(Some(settings.pong))
        .layer(door)
        .serve_with_incoming_shutdown(services.services()?, incoming, async move {
            tasks.stopping().await;
        })
        .await
        .map_err(Error::internal)
}

/// Adds what tells who is who, and who may do what.
fn add_people(
    services: &mut Gathering,
    health: Health,
    gate: &Gate,
    (federation, settings): (Federation, &Settings),
) -> Health {
    let most = settings.message_bytes;
    let identities = Identities { gate: gate.clone(), login: settings.login };
    let identities = IdentityServiceServer::new(identities).max_decoding_message_size(most);
    let groups = GroupServiceServer::new(Groups(gate.clone())).max_decoding_message_size(most);
    let grants = GrantServiceServer::new(Grants(gate.clone())).max_decoding_message_size(most);
    let elevations = ElevationServiceServer::new(Elevations(gate.clone()));
    let elevations = elevations.max_decoding_message_size(most);
    let ceremonies = CeremonyServiceServer::new(Ceremonies(gate.clone()));
    let ceremonies = ceremonies.max_decoding_message_size(most);
    let factors = Factors(gate.clone());
    let factors = FactorServiceServer::new(factors).max_decoding_message_size(most);
    let issuers = Issuers { gate: gate.clone(), federation, live: settings.tokens.live };
    let issuers = IssuerServiceServer::new(issuers).max_decoding_message_size(most);
    let tokens = Tokens { gate: gate.clone(), limits: settings.tokens };
    let tokens = TokenServiceServer::new(tokens).max_decoding_message_size(most);
    let enrolments = Enrolments { gate: gate.clone(), login: settings.login };
    let enrolments = EnrolmentServiceServer::new(enrolments).max_decoding_message_size(most);
    let health = health.with(&identities).with(&groups).with(&grants).with(&elevations);
    let health =
        health.with(&ceremonies).with(&factors).with(&issuers).with(&tokens).with(&enrolments);
    services.add(identities).add(groups).add(grants);
    services.add(elevations).add(ceremonies).add(factors);
    services.add(issuers).add(tokens).add(enrolments);
    health
}

/// Adds what tells of the keys that all else hangs on, and uses keys that somebody named.
fn add_keys(services: &mut Gathering, health: Health, gate: &Gate, most: usize) -> Health {
    let rotating = AuthorityServiceServer::new(RotatingAuthorities(gate.clone()));
    let rotating = rotating.max_decoding_message_size(most);
    let root = RootServiceServer::new(Root(gate.clone())).max_decoding_message_size(most);
    let sets = RecoverySetServiceServer::new(RecoverySets(gate.clone()));
    let sets = sets.max_decoding_message_size(most);
    let keys = KeyServiceServer::new(NamedKeys::new(gate.clone()));
    let keys = keys.max_decoding_message_size(most).max_encoding_message_size(most * 2);
    let health = health.with(&rotating).with(&root).with(&sets).with(&keys);
    services.add(rotating).add(root).add(sets).add(keys);
    health
}

/// What the other services hold.
struct Held {
    databases: Databases,
    crls: CrlSlot,
    standing: Standing,
}

/// Adds what hands out, keeps and tells.
fn add_things(
    services: &mut Gathering,
    health: Health,
    gate: Gate,
    (Held { databases, crls, standing }, settings): (Held, &Settings),
) -> Health {
    let most = settings.message_bytes;
    let records = RecordServiceServer::new(Records(gate.clone())).max_decoding_message_size(most);
    let system = System(gate.clone(), standing);
    let system = SystemServiceServer::new(system).max_decoding_message_size(most);
    let pki = PkiServiceServer::new(Pki::new(gate.clone(), crls, settings.certificates));
    let pki = pki.max_decoding_message_size(most);
    let secrets = SecretServiceServer::new(Secrets::new(gate.clone()));
    let secrets = secrets.max_decoding_message_size(most).max_encoding_message_size(most);
    let wraps = WrapServiceServer::new(Wraps(gate.clone())).max_decoding_message_size(most);
    let database = DatabaseRpc { gate: gate.clone(), databases: databases.clone() };
    let database = DatabaseServiceServer::new(database).max_decoding_message_size(most);
    let leases =
        LeaseServiceServer::new(LeaseRpc { gate, databases }).max_decoding_message_size(most);
    let health = health.with(&records).with(&system).with(&pki).with(&secrets);
    let health = health.with(&database).with(&leases).with(&wraps);
    services.add(records).add(system).add(pki).add(secrets);
    services.add(database).add(leases).add(wraps);
    health
}

/// What reflection tells of: our services and health.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
