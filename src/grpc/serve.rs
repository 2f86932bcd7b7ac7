//! The gRPC server: every service behind the gate, limits before parsing, health, reflection.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::transport::Server;

use super::accept::Gate;
use super::door::Door;
use super::identities::Identities;
use super::system::System;
use super::tls::{self, Tls};
use crate::engines::pki::AuthoritySlot;
use crate::error::{Error, Result};
use crate::proto::DESCRIPTORS;
use crate::proto::identity_service_server::IdentityServiceServer;
use crate::proto::system_service_server::SystemServiceServer;
use crate::telemetry::Metrics;
use crate::types::{Standing, TaskGroup};
use crate::vault::Vault;

/// Limits before parsing (rule 11 of the security rules).
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
    /// How long a request may take.
    pub deadline: Duration,
    /// Handshakes.
    pub handshakes: tls::Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            message_bytes: 1_024 * 1_024 + 64 * 1_024,
            header_bytes: 16 * 1_024,
            streams: 100,
            in_flight: 1_024,
            deadline: Duration::from_secs(30),
            handshakes: tls::Limits::default(),
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
    /// The authorities, while the vault is unsealed.
    pub authorities: AuthoritySlot,
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
    let Front { tls, vault, standing, metrics, authorities: _ } = front;
    let door = Door::new(vault.clone(), standing.clone(), metrics, settings.in_flight);
    let gate = Gate::new(vault, Arc::clone(&tls));
    let incoming = tls::listen(listener, tls, settings.handshakes, &tasks);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<IdentityServiceServer<Identities>>().await;
    health.set_serving::<SystemServiceServer<System>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let system = SystemServiceServer::new(System(gate.clone(), standing))
        .max_decoding_message_size(settings.message_bytes);
    let identities = IdentityServiceServer::new(Identities(gate))
        .max_decoding_message_size(settings.message_bytes);
    Server::builder()
        .http2_max_header_list_size(settings.header_bytes)
        .max_concurrent_streams(settings.streams)
        .timeout(settings.deadline)
        .layer(door)
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(Error::internal)?)
        .add_service(reflection().build_v1alpha().map_err(Error::internal)?)
        .add_service(identities)
        .add_service(system)
        .serve_with_incoming_shutdown(incoming, async move { tasks.stopping().await })
        .await
        .map_err(Error::internal)
}
