//! What every request shares.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use parking_lot::Mutex;

use super::clock::VaultClock;
use super::decide::Decisions;
use super::refusals::Refusals;
use super::subject::Subjects;
use crate::audit::{Head, RecordCodec};
use crate::crypto::VerifierKey;
use crate::error::{Error, Result};
use crate::hsm::Hsm;
use crate::keyring::Keyring;
use crate::policy::Policy;
use crate::store::keys::HsmPurpose;
use crate::store::{Reader, Writer};
use crate::types::{Entropy, GrantId, IdentityId, TaskGroup, UnixMillis, VaultId};

/// What an installation is, once and for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Its id.
    pub id: VaultId,
    /// Its SPIFFE trust domain.
    pub trust_domain: String,
    /// Whether it is marked as development.
    pub dev: bool,
    /// The name of its log: origin of checkpoints and name of their key.
    pub origin: String,
}

/// The parts that a vault is made of.
#[derive(Debug)]
pub struct Parts {
    /// Reads the store.
    pub reader: Reader,
    /// Commits to the store; nobody else holds one.
    pub writer: Writer,
    /// Makes batches of the record.
    pub codec: Arc<RecordCodec>,
    /// The key hierarchy.
    pub keyring: Keyring,
    /// The token.
    pub hsm: Arc<dyn Hsm>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Time.
    pub clock: VaultClock,
    /// The installation.
    pub identity: Installation,
    /// Tasks that shutdown waits for.
    pub tasks: TaskGroup,
}

/// Who and what was used since this was last written; statistics, lost with the process.
#[derive(Debug, Default)]
pub(super) struct Uses {
    pub(super) identities: HashMap<IdentityId, UnixMillis>,
    pub(super) grants: HashMap<GrantId, UnixMillis>,
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) codec: Arc<RecordCodec>,
    pub(super) keyring: Keyring,
    pub(super) hsm: Arc<dyn Hsm>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) clock: VaultClock,
    pub(super) identity: Installation,
    pub(super) tasks: TaskGroup,
    pub(super) policy: Policy,
    pub(super) subjects: Subjects,
    /// The authority epoch at which the caches were last emptied for it.
    pub(super) watched: AtomicI64,
    pub(super) decisions: Decisions,
    pub(super) refusals: Refusals,
    pub(super) uses: Mutex<Uses>,
    /// The newest head that this node signed, or was about to.
    pub(super) signed: Mutex<Option<Head>>,
}

impl Core {
    /// Empties the caches: what they held may have moved.
    pub(super) fn forget(&self) {
        self.subjects.clear();
        self.decisions.clear();
    }

    /// The public key of checkpoints, named as the log.
    pub(super) fn log_key(&self) -> Result<VerifierKey> {
        let key = self.keyring.hsm_key(HsmPurpose::Checkpoint)?;
        let spki = key
            .public_key_spki
            .ok_or_else(|| Error::internal("a checkpoint key without a public key"))?;
        Ok(VerifierKey::from_spki(&self.identity.origin, &spki)?)
    }
}
