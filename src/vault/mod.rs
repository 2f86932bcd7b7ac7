//! The one door to every engine: nothing happens that was not decided and recorded.
//!
//! [`Vault::run`] and [`Vault::run_effect`] take a verb through decide, prepare, act, commit and
//! answer. Must not know transports. Upkeep (the log, checkpoints, usage, the clock's mark, old
//! idempotency keys, and blocks of serials in `serials.rs`, wraps of keys in `wraps.rs`, who was
//! shredded, outside of the store, in `shreds.rs`) is a closed list: undecided, without an entry, unable
//! to write a sealed row. The state check (`state.rs`) reads alone.

mod anchor;
mod bearer;
mod ceremony;
mod clock;
mod core;
mod decide;
mod effect;
mod elevation;
mod endings;
mod entries;
mod factors;
mod gauges;
mod held;
mod incumbents;
mod notice;
mod operation;
mod owner;
mod page;
mod recent;
mod recovery;
mod refusals;
mod retries;
mod run;
mod serials;
mod session;
mod shreds;
mod spend;
mod state;
mod stream;
mod subject;
mod subjects;
mod terms;
mod token;
mod upkeep;
mod view;
mod wrap;
mod wraps;

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::FutureExt as _;

use crate::error::{Error, Result};
use crate::keyring::Recipient;
use crate::policy::{Basis, Policy};
use crate::store::credentials::CredentialRow;
use crate::types::{AuthMethod, Authenticated, Caller, Id, RequestContext, RequestId, UnixMillis};

pub use self::core::{Installation, Parts};
pub use anchor::{Anchored, Divergence};
pub use bearer::{Presented, handle_of, lease_handle};
pub use ceremony::{About as CeremonyAbout, Term as CeremonyTerm};
pub use clock::VaultClock;
pub use decide::Decision;
pub use elevation::{Elevated, Scope as ElevationScope, StandsOn, Under, Vote};
pub use endings::EndingSoon;
pub use factors::{FRESH, ProvenFactor, note_proof};
pub use gauges::LogState;
pub use held::{GRANTS, HeldGrant};
pub use notice::{NoticeFacts, Recipients, post_notice};
pub use operation::{
    CONTAINS, EffectOperation, GOVERNS, Note, Operation, READS, Resource, Resumed, RetryKey,
    TAKES_BACK, Verb, WRITES, WRITES_ONE,
};
pub use owner::Answerable;
pub use page::{Page, PageToken};
pub use recent::{Moment, Recent};
pub use recovery::{RECOVERY_WAIT, Recovery};
pub use retries::Claimed;
pub use session::{Origin, SignIn};
pub use shreds::ShredsUndone;
pub use state::{StateKeeper, StateReport};
pub use stream::{Items, StreamOperation};
pub use subject::{ADMINISTRATORS, DEPTH, Kin, Subject, is_active};
pub use terms::Terms;
pub use token::{Scope, TokenDetail};
pub use view::View;
pub use wrap::{
    Encode, WrapFate, WrapOrder, Wrapped, Wrapping, missing_payload, open_wrapped, wrap_fate,
};

use self::core::{Core, SharedCore};
use subjects::Wanted;

/// The vault.
#[derive(Debug, Clone)]
pub struct Vault {
    core: SharedCore,
}

impl Vault {
    /// Puts the parts together.
    ///
    /// # Errors
    /// [`Error::Internal`] when the built-in policy does not compile.
    pub fn new(parts: Parts) -> Result<Self> {
        let Parts { reader, writer, codec, keyring, hsm, entropy, clock, identity, .. } = parts;
        let (quorum, wrapped_bytes, tasks) = (parts.quorum, parts.wrapped_bytes, parts.tasks);
        let core = Core {
            reader,
            writer,
            codec,
            keyring,
            hsm,
            entropy,
            clock,
            identity,
            quorum,
            wrapped_bytes,
            tasks,
            policy: Policy::builtin()?,
            subjects: subjects::Subjects::default(),
            watched: std::sync::atomic::AtomicI64::new(0),
            shredded: std::sync::atomic::AtomicI64::new(0),
            moved: tokio::sync::watch::Sender::new(()),
            decisions: decide::Decisions::default(),
            endings: endings::Endings::default(),
            incumbents: Recent::new(incumbents::PURPOSES),
            refusals: refusals::Refusals::default(),
            uses: parking_lot::Mutex::default(),
            signed: parking_lot::Mutex::default(),
            serials: serials::Serials::default(),
            shreds: shreds::ShredKeeper::new(parts.shredded),
            state: StateKeeper::default(),
        };
        Ok(Self { core: SharedCore::new(core) })
    }

    /// The installation.
    #[must_use]
    pub fn installation(&self) -> &Installation {
        &self.core.identity
    }

    /// Tells each time that rights moved, where this node hears of it.
    #[must_use]
    pub fn follow_rights(&self) -> tokio::sync::watch::Receiver<()> {
        self.core.moved.subscribe()
    }

    /// Whether the keys are out of memory.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.core.keyring.is_sealed()
    }

    /// Begins a request: its id and its time are fixed here.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while this node's clock cannot be trusted.
    pub fn context(&self, caller: Caller, source: Option<IpAddr>) -> Result<RequestContext> {
        let now = self.core.clock.now()?;
        let request_id = RequestId(Id::ordered(now, self.core.entropy.as_ref())?);
        let began = self.core.clock.monotonic();
        Ok(RequestContext { request_id, caller, now, began, source })
    }

    /// Finds the caller behind a login certificate, by the SHA-256 of its DER.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for one that is not accepted; [`Error::Sealed`].
    pub async fn authenticate_certificate(
        &self,
        fingerprint: [u8; 32],
        claims: impl FnOnce(&Subject) -> bool,
    ) -> Result<Authenticated> {
        if self.is_sealed() {
            return Err(Error::Sealed);
        }
        let now = self.core.clock.now()?;
        let subject =
            self.subject(Wanted::Handle(fingerprint), now).await?.ok_or_else(subject::refused)?;
        let method = AuthMethod::Mtls { fingerprint };
        subject.check(now, method)?;
        if !claims(&subject) {
            return Err(subject::refused());
        }
        Ok(Authenticated {
            identity: subject.identity.row.id,
            credential: subject.credential.row.id,
            method,
        })
    }

    /// Counts a caller that could not be authenticated, for the minute's summary.
    pub fn count_stranger(&self, reason: &'static str, source: Option<IpAddr>) {
        self.core.refusals.stranger(reason, source);
    }

    /// Counts a request of a known caller that could not be read, for the minute's summary.
    pub fn count_unread(&self, ctx: &RequestContext, reason: &'static str) {
        if let Some(caller) = ctx.authenticated() {
            let now = self.core.clock.monotonic();
            self.core.refusals.count(caller.identity, reason, now);
        }
    }

    async fn subject(&self, wanted: Wanted, now: UnixMillis) -> Result<Option<Arc<Subject>>> {
        match self.core.subjects.lookup(&wanted) {
            Some(kept) => Ok(Some(kept)),
            None => self.load(wanted, now).boxed().await,
        }
    }

    /// Reads a subject, and keeps it.
    async fn load(&self, wanted: Wanted, now: UnixMillis) -> Result<Option<Arc<Subject>>> {
        let emptied = self.core.subjects.emptied();
        let (load, core) = (wanted.clone(), self.core.clone());
        let loaded = self
            .core
            .reader
            .view(move |tx| {
                let vault = core.identity.id;
                async move { Subject::load(tx, vault, &load, &core.subjects, now).await }.boxed()
            })
            .await?;
        let Some(subject) = loaded.map(Arc::new) else { return Ok(None) };
        self.keep_subject(&subject, emptied);
        Ok(Some(subject))
    }

    fn keep_subject(&self, subject: &Arc<Subject>, emptied: u64) {
        if !self.core.subjects.keep(subject, emptied) {
            // They hold the subjects that were forgotten to make room.
            self.core.decisions.clear();
        }
    }

    /// Keeps what is known of a token that was just made at an epoch, unless all was forgotten
    /// meanwhile.
    fn keep_child(&self, by: &Subject, made: &CredentialRow, (epoch, emptied): (i64, u64)) {
        let now = made.issued_at;
        let kin = self.core.subjects.kin(made.identity, epoch, now);
        if let Some(child) = kin.and_then(|kin| by.child(made, kin)) {
            self.keep_subject(&Arc::new(child), emptied);
        }
    }

    /// Begins a view for a request, with its caller looked at again.
    async fn view(&self, ctx: &RequestContext) -> Result<View> {
        if self.is_sealed() {
            return Err(Error::Sealed);
        }
        let subject = match &ctx.caller {
            Caller::System(_) => None,
            Caller::Identity(caller) => {
                let wanted = Wanted::Id(caller.credential);
                Some(self.checked(&wanted, caller.method, ctx.now).await?)
            }
        };
        Ok(View::new(self.core.clone(), ctx.clone(), subject))
    }

    /// Empties the caches: what they held may have moved.
    pub(crate) fn forget(&self) {
        self.core.forget();
    }

    /// Forgets what a decision stood on that moved: who asks, because most often that is it; where
    /// it was not, everything.
    fn moved(&self, ctx: &RequestContext, attempt: usize) {
        match ctx.authenticated() {
            Some(caller) if attempt == 0 => self.core.subjects.forget(caller.credential),
            Some(_) | None => self.forget(),
        }
    }

    /// Notes who was served and by which grants, to be written once a minute.
    fn used(&self, ctx: &RequestContext, decision: &Decision) {
        let mut uses = self.core.uses.lock();
        if let Some(caller) = ctx.authenticated() {
            uses.identities.insert(caller.identity, ctx.now);
        }
        if let Basis::Grants(grants) = &decision.verdict.by {
            let elevation = decision.subject.as_ref().and_then(|it| it.elevation.as_ref());
            // What an elevation allows is no grant.
            for grant in grants.iter().filter(|id| !elevation.is_some_and(|it| it.is(**id))) {
                uses.grants.insert(*grant, ctx.now);
            }
        }
    }

    /// The name of this node.
    #[must_use]
    pub fn node(&self) -> &str {
        self.core.clock.node()
    }

    /// Has the keyring know for which recovery sets keys are wrapped, and lists them.
    ///
    /// # Errors
    /// [`Error::Sealed`]; what the store answers.
    pub async fn follow_sets(&self) -> Result<Vec<Recipient>> {
        Ok(self.core.keyring.follow_sets(&self.core.reader).await?)
    }

    /// The vault's clock.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while this node's clock cannot be trusted.
    pub fn now(&self) -> Result<UnixMillis> {
        self.core.clock.now()
    }
}
