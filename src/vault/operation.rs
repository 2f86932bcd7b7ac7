//! A verb is a value: what it touches, what it prepares, what it commits.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Decision, View};
use crate::audit::{Field, KeyUse};
use crate::error::{Error, Result};
use crate::policy::SubjectFacts;
use crate::store::credentials::CredentialRow;
use crate::store::{Needs, RowRef, SealedRow, Tx, Versioned, Writes};
use crate::types::{CredentialId, Id, IdentityId, Owner, RequestContext, ResourceName};

/// A commit that writes nothing.
pub const READS: Needs = Needs { writes: Writes::Nothing, bumps: false, urgent: false };
/// A commit of several statements that no decision reads.
pub const WRITES: Needs = Needs { writes: Writes::Many, bumps: false, urgent: false };
/// Changes one row that nothing was decided on, by one statement after which nothing fails.
pub const WRITES_ONE: Needs = Needs { writes: Writes::One, ..WRITES };
/// A commit that changes what decisions stand on.
pub const GOVERNS: Needs = Needs { writes: Writes::Many, bumps: true, urgent: false };
/// A commit that takes authority away: it may use the room that is kept for it.
pub const CONTAINS: Needs = Needs { writes: Writes::Many, bumps: true, urgent: true };

/// A commit around an effect that takes something back: it may use the room that is kept for it.
pub const TAKES_BACK: Needs = Needs { writes: Writes::Many, bumps: false, urgent: true };

/// A thing that an operation touches. What does not exist has a name and nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Its full name.
    pub name: ResourceName,
    /// The id of its row.
    pub id: Option<Id>,
    /// Who owns it.
    pub owner: Option<Owner>,
    /// Who holds it, where it is a lease or a certificate.
    pub holder: Option<IdentityId>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What is known about it as an identity.
    pub identity: Option<SubjectFacts>,
    /// The sealed rows that say all this.
    pub rows: Vec<RowRef>,
}

impl Resource {
    /// Names something that has no row, or of which nothing was found.
    #[must_use]
    pub fn named(name: ResourceName) -> Self {
        Self {
            name,
            id: None,
            owner: None,
            holder: None,
            labels: BTreeMap::new(),
            identity: None,
            rows: Vec::new(),
        }
    }

    /// Adds the row that it stands on.
    #[must_use]
    pub fn with_row<T: SealedRow>(mut self, id: Id, row: &Versioned<T>) -> Self {
        self.id = Some(id);
        self.rows.push(row.fence());
        self
    }
}

impl PartialEq for RowRef {
    fn eq(&self, other: &Self) -> bool {
        self.table.name == other.table.name
            && self.key == other.key
            && self.version == other.version
    }
}

/// What an operation adds to its entry in the record.
#[derive(Debug, Default)]
pub struct Note {
    /// Keys used.
    pub keys: Vec<KeyUse>,
    /// The credential that was issued, renewed or ended.
    pub credential: Option<CredentialId>,
    /// What may have to be erased: reasons, details.
    pub private: Vec<(Field, String)>,
}

/// Makes the retry of a creating call find what the first try made.
#[derive(Debug, Clone)]
pub struct RetryKey {
    /// The caller's key, at least 128 random bits.
    pub key: String,
    /// SHA-256 of the decoded request: the same key with another request is refused.
    pub request: [u8; 32],
    /// Whether what the first try made is to be ended and made anew, within 60 s of it.
    pub replace: bool,
}

impl RetryKey {
    /// Takes a key from a request; none when it was left out.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that could be guessed or is too long.
    pub fn parse(key: &str, request: &[u8]) -> Result<Option<Self>> {
        let plain = key.bytes().all(|byte| byte.is_ascii_graphic());
        match key.len() {
            0 => Ok(None),
            16..=128 if plain => {
                let request = crate::crypto::sha256(request);
                Ok(Some(Self { key: key.to_owned(), request, replace: false }))
            }
            _ => Err(Error::invalid(
                "an idempotency key is 16 to 128 visible ASCII characters with 128 random bits",
            )),
        }
    }

    /// Says whether what the first try made is to be replaced.
    #[must_use]
    pub fn replacing(self, replace: bool) -> Self {
        Self { replace, ..self }
    }
}

/// What every verb says about itself before it is decided.
#[async_trait]
pub trait Verb: Send + Sync + 'static {
    /// Its action, a row of [`crate::types::VERBS`].
    const ACTION: &'static str;
    /// Whether it takes a use from a token whose uses are counted.
    const SPENDS: bool = true;
    /// What it prepares outside the transaction.
    type Prepared: Send + Sync + 'static;
    /// What it answers.
    type Output: Send + 'static;

    /// Names every resource it touches. What is not found is named all the same, so that a refusal
    /// says nothing about what exists.
    async fn resources(&self, view: &View) -> Result<Vec<Resource>>;

    /// The epoch that was seen before anything was read that the verb brought along; none where it
    /// reads all of that in [`Verb::resources`]. Without it, what moved between that reading and the
    /// decision would not be noticed.
    fn as_of(&self) -> Option<i64> {
        None
    }

    /// Reads, derives keys, encrypts; no transaction.
    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Self::Prepared>;

    /// Adds to the entry.
    fn note(&self, _prepared: &Self::Prepared, _note: &mut Note) {}

    /// The key that makes a retry find what the first try made.
    fn retry_key(&self) -> Option<&RetryKey> {
        None
    }

    /// The id of what is made, for a retry to find.
    fn made(&self, _prepared: &Self::Prepared) -> String {
        String::new()
    }

    /// Answers a retry: ids and outcome, never a secret.
    async fn replay(&self, _view: &View, _made: &str) -> Result<Self::Output> {
        Err(Error::internal("a retry of a call that makes nothing"))
    }

    /// Ends what the first try of a retried call made, in the commit that replaces it (of the
    /// intent, where there is one): its secret may have been lost on the way to the caller. Where
    /// something of it is left, what was ended is, and nothing takes its place yet.
    async fn supersede(&self, _ctx: &RequestContext, _tx: &mut Tx, _made: &str) -> Result<Resumed> {
        Err(Error::internal("a call whose result cannot be replaced"))
    }
}

/// A verb whose whole effect is one commit.
#[async_trait]
pub trait Operation: Verb {
    /// How its commit is to be run.
    const NEEDS: Needs;

    /// Whether it goes on where its caller hangs up: it uses a key in the HSM before its commit,
    /// and no use of one stays without an entry because nobody waited for it.
    const GOES_ON: bool = false;

    /// How it is to be run for what was found.
    fn needs(&self, _: &Self::Prepared) -> Needs {
        Self::NEEDS
    }

    /// What the record calls what was done. What fails changes nothing; an operation that counts a
    /// failure does so by an output that says it.
    fn outcome(&self, _: &Self::Output) -> &'static str {
        "OK"
    }

    /// Adds to the entry what is known only once its commit ran.
    fn tells(&self, _: &Self::Output) -> Vec<(Field, String)> {
        Vec::new()
    }

    /// The token that it made for who asks: the next call probably brings it, so that it is known
    /// before it is looked for.
    fn token<'a>(&self, _: &'a Self::Prepared) -> Option<&'a CredentialRow> {
        None
    }

    /// Takes notice that its commit is durable.
    fn durable(&self, _: &Self::Prepared) {}

    /// Whether what it did is kept outside of the store as well, before it is answered: a restore of
    /// the store is not to undo it.
    fn outlives(&self, _: &Self::Prepared) -> bool {
        false
    }

    /// Whose other commits that hold it as well wait for this one, on every node: what it counts
    /// stays counted until it is durable.
    fn holds(&self, _: &Self::Prepared) -> Option<Id> {
        None
    }

    /// Writes: fences re-read, compare-and-set, record, in one transaction. No HSM, no network.
    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Self::Prepared,
        decision: &Decision,
    ) -> Result<Self::Output>;
}

/// What becomes of what an earlier try of a call began, when it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// Nothing of it is left anywhere: the call may go on under a new name.
    Anew,
    /// It stands, is under way, or is over: the call is answered with what is known of it.
    Stays,
}

/// A verb that changes something outside: intent, act, record.
#[async_trait]
pub trait EffectOperation: Verb {
    /// What acting yields.
    type Effect: Send + Sync + 'static;

    /// What its intent and its record need of the store; an intent that claims a key, and giving
    /// up, run several statements whatever this says.
    const NEEDS: Needs = WRITES;

    /// What they need for what was found: it may be less.
    fn needs(&self, _: &Self::Prepared) -> Needs {
        Self::NEEDS
    }

    /// Tells whether nothing is left to be done: it is recorded then without an intent.
    fn is_done(&self, _: &Self::Prepared) -> bool {
        false
    }

    /// Whose other intents that hold it as well wait for this one, on every node: what it counts
    /// stays counted until it is durable.
    fn holds(&self, _: &Self::Prepared) -> Option<Id> {
        None
    }

    /// What the record calls what was done.
    fn outcome(&self, _: &Self::Output) -> &'static str {
        "OK"
    }

    /// Commits the intent: a row, with a deterministic name, that recovery can end.
    async fn intend(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Self::Prepared,
        decision: &Decision,
    ) -> Result<()>;

    /// Acts outside.
    async fn act(&self, view: &View, prepared: &Self::Prepared) -> Result<Self::Effect>;

    /// Commits what was done.
    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Self::Prepared,
        effect: &Self::Effect,
    ) -> Result<Self::Output>;

    /// Commits that it failed: the row is left to the worker that ends it.
    async fn abandon(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Self::Prepared,
    ) -> Result<()>;

    /// Says what is left of what a counted use of a token made. Where `replace` is asked for, what
    /// stands is to be ended first, and the call repeated.
    async fn resume(
        &self,
        _ctx: &RequestContext,
        _tx: &mut Tx,
        _made: &str,
        _replace: bool,
    ) -> Result<Resumed> {
        Ok(Resumed::Stays)
    }
}
