//! What every request shares.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::clock::VaultClock;
use super::decide::Decisions;
use super::endings::Endings;
use super::recent::Recent;
use super::refusals::Refusals;
use super::serials::Serials;
use super::shreds::ShredKeeper;
use super::state::StateKeeper;
use super::subjects::Subjects;
use crate::audit::{Head, RecordCodec};
use crate::crypto::VerifierKey;
use crate::error::{Error, Result};
use crate::hsm::Hsm;
use crate::keyring::Keyring;
use crate::policy::Policy;
use crate::store::keys::{HsmKeyRow, HsmPurpose};
use crate::store::{Reader, Versioned, Writer};
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
    /// How many administrators a ceremony takes, unless the installation is one for development.
    pub quorum: u32,
    /// Bytes of what one identity wrapped that may wait to be opened.
    pub wrapped_bytes: i64,
    /// The file that lists who was shredded, if there is one.
    pub shredded: Option<PathBuf>,
    /// Tasks that shutdown waits for.
    pub tasks: TaskGroup,
}

/// Who and what was used since this was last written; statistics, lost with the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Uses {
    pub(super) identities: HashMap<IdentityId, UnixMillis>,
    pub(super) grants: HashMap<GrantId, UnixMillis>,
}

impl Uses {
    /// Takes so many notes at most; none when there are none.
    pub(super) fn split_off(&mut self, most: usize) -> Option<Self> {
        let identities = take(&mut self.identities, most);
        let grants = take(&mut self.grants, most.saturating_sub(identities.len()));
        let some = Self { identities, grants };
        (some != Self::default()).then_some(some)
    }

    /// Gives back notes that were not written; a newer one stays.
    pub(super) fn put_back(&mut self, other: Self) {
        for (identity, at) in other.identities {
            self.identities.entry(identity).or_insert(at);
        }
        for (grant, at) in other.grants {
            self.grants.entry(grant).or_insert(at);
        }
    }
}

fn take<K: Copy + Eq + Hash>(
    from: &mut HashMap<K, UnixMillis>,
    most: usize,
) -> HashMap<K, UnixMillis> {
    let mut room = most;
    from.extract_if(|_, _| {
        let fits = room > 0;
        room = room.saturating_sub(1);
        fits
    })
    .collect()
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
    pub(super) quorum: u32,
    pub(super) wrapped_bytes: i64,
    pub(super) tasks: TaskGroup,
    pub(super) policy: Policy,
    pub(super) subjects: Subjects,
    /// The authority epoch at which the caches were last emptied for it.
    pub(super) watched: AtomicI64,
    /// The number of who was shredded last when the keys in memory were last forgotten for it.
    pub(super) shredded: AtomicI64,
    /// Tells those who wait that rights may have moved.
    pub(super) moved: watch::Sender<()>,
    pub(super) decisions: Decisions,
    pub(super) endings: Endings,
    pub(super) incumbents: Recent<HsmPurpose, Versioned<HsmKeyRow>>,
    pub(super) refusals: Refusals,
    pub(super) uses: Mutex<Uses>,
    /// The newest head that this node signed, or was about to.
    pub(super) signed: Mutex<Option<Head>>,
    pub(super) serials: Serials,
    pub(super) shreds: ShredKeeper,
    pub(super) state: StateKeeper,
}

/// The core, as whatever goes with a request holds it.
///
/// It is behind a trait object, because the compiler proves anew in each future that holds it that it
/// may change threads, and looks through all of it each time where it can.
#[derive(Debug, Clone)]
pub(super) struct SharedCore(Arc<dyn HoldsCore>);

impl SharedCore {
    pub(super) fn new(core: Core) -> Self {
        Self(Arc::new(core))
    }
}

impl Deref for SharedCore {
    type Target = Core;

    fn deref(&self) -> &Core {
        self.0.core()
    }
}

trait HoldsCore: fmt::Debug + Send + Sync {
    fn core(&self) -> &Core;
}

impl HoldsCore for Core {
    fn core(&self) -> &Core {
        self
    }
}

impl Core {
    /// Empties the caches: what they held may have moved.
    pub(super) fn forget(&self) {
        self.subjects.clear();
        self.decisions.clear();
        self.endings.clear();
        self.moved.send_replace(());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Id;

    #[test]
    fn notes_of_use_are_written_in_parts_and_what_is_put_back_undoes_nothing_newer() {
        let identity = |n: u16| {
            IdentityId(Id::from_bytes(
                [[0; 14].as_slice(), &n.to_be_bytes()].concat().try_into().unwrap(),
            ))
        };
        let grant = |n| GrantId(identity(n).0);
        let mut uses = Uses {
            identities: (0..700).map(|n| (identity(n), UnixMillis(1))).collect(),
            grants: (0..400).map(|n| (grant(n), UnixMillis(1))).collect(),
        };
        let all = uses.clone();
        let mut parts = Vec::new();
        while let Some(part) = uses.split_off(500) {
            parts.push(part);
        }
        let sizes: Vec<_> =
            parts.iter().map(|part| part.identities.len() + part.grants.len()).collect();
        assert_eq!(sizes, [500, 500, 100]);
        for part in parts {
            uses.put_back(part);
        }
        assert_eq!(uses, all);
        uses.put_back(Uses {
            identities: HashMap::from([(identity(3), UnixMillis(0))]),
            grants: HashMap::new(),
        });
        assert_eq!(uses, all);
    }
}
