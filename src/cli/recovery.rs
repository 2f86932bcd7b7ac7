//! Recovering an administrator, as it goes over the local socket; and `strongroom recovery cancel`.

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::failure::Outcome;
use super::output::{fields, show, time};
use super::session::{Session, must};
use crate::proto::system_service_client::SystemServiceClient;
use crate::proto::{CancelRecoveryRequest, Recovery};

/// What the HSM is to answer for whoever has its PIN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinChallenge {
    /// The vault's id.
    pub vault_id: String,
    /// The version of the root key that answers.
    pub root_version: i64,
    /// Random bytes, base64.
    pub nonce: String,
}

/// A recovery, as whoever asked for it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryReport {
    /// Its id.
    pub id: String,
    /// The administrator.
    pub identity: String,
    /// `pending` or `done`.
    pub state: String,
    /// SHA-256 of the new login's public key, hexadecimal.
    pub key_sha256: String,
    /// When it was asked for, in Unix milliseconds.
    pub requested_at_ms: i64,
    /// From when on it can take effect.
    pub takes_effect_at_ms: i64,
    /// Until when.
    pub lapses_at_ms: i64,
    /// The new login's certificate, PEM; empty while it waits.
    pub certificate_pem: String,
    /// What signed it, PEM.
    pub chain_pem: String,
    /// When the login ends; 0 while the recovery waits.
    pub expires_at_ms: i64,
}

/// `strongroom recovery …`
#[derive(Debug, Subcommand)]
pub enum RecoveryCommand {
    /// Stop the recovery of an administrator before it takes effect
    Cancel {
        /// Its id, which `whoami` tells every administrator.
        id: String,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// Runs `strongroom recovery …`.
pub(super) async fn run(session: &Session, command: &RecoveryCommand) -> Outcome {
    let RecoveryCommand::Cancel { id, reason } = command;
    let request = CancelRecoveryRequest { id: id.clone(), reason: reason.clone() };
    let cancelled = session
        .call(request, async |wire, request| {
            SystemServiceClient::new(wire).cancel_recovery(request).await
        })
        .await?;
    show(session.format, &must(cancelled.recovery)?, text)
}

fn text(recovery: &Recovery) -> String {
    fields(&[
        ("recovery", recovery.id.clone()),
        ("identity", recovery.identity.clone()),
        ("state", recovery.state.clone()),
        ("key (SHA-256)", recovery.key_sha256.clone()),
        ("asked for", time(recovery.requested_at_ms)),
        ("changed", time(recovery.changed_at_ms)),
    ])
}
