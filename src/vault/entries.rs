//! What the vault tells the record about an operation.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::core::SharedCore;
use super::spend::Strike;
use super::{Decision, GOVERNS, Note, ProvenFactor, READS, Resource, Subject, Vault};
use crate::audit::{
    CallerFact, DecisionFact, Draft, Ending, EntryFacts, FactorFact, Field, ResourceFact,
};
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::policy::Basis;
use crate::store::{Change, Entry, Fence, Job, Settled, Tx, Work};
use crate::types::{Caller, CredentialId, GrantId, RequestContext};

/// One operation's story, told before its commit runs and ended by it.
pub(super) struct Story {
    pub(super) ctx: RequestContext,
    pub(super) core: SharedCore,
    draft: Draft,
    keys: Vec<KeyUse>,
    credential: Option<CredentialId>,
    /// What to call success: `OK`, or `INTENT` before an effect.
    pub(super) success: &'static str,
    /// What is known only once the commit ran; a commit that is run again says it anew.
    pub(super) told: Vec<(Field, String)>,
    /// Whether it is told in a summary instead of an entry of its own.
    silent: bool,
}

impl Story {
    /// Tells everything but the ending.
    ///
    /// # Errors
    /// [`Error::Internal`] for an entry that would be too large, or when randomness fails.
    pub(super) fn new(
        vault: &Vault,
        ctx: &RequestContext,
        action: &'static str,
        decision: &Decision,
        note: Note,
    ) -> Result<Self> {
        let core = vault.core.clone();
        let Note { keys, credential, private: noted } = note;
        let facts = EntryFacts {
            at: ctx.now,
            request: ctx.request_id,
            caller: caller_fact(ctx),
            action,
            resources: resource_facts(decision),
            decision: decision_fact(decision),
            factors: factor_facts(decision.subject.as_deref()),
            private: private(ctx, decision.subject.as_deref(), &decision.resources, noted),
        };
        let draft = facts.draft(core.entropy.as_ref())?;
        let ctx = ctx.clone();
        Ok(Self {
            ctx,
            core,
            draft,
            keys,
            credential,
            success: "OK",
            told: Vec::new(),
            silent: false,
        })
    }

    /// Tells that a stored row kept it from being decided.
    fn undecided(
        vault: &Vault,
        ctx: &RequestContext,
        action: &'static str,
        subject: Option<&Subject>,
        error: &Error,
    ) -> Result<Self> {
        let core = vault.core.clone();
        let noted = vec![(Field::Detail, error.clone().told().to_string())];
        let facts = EntryFacts {
            at: ctx.now,
            request: ctx.request_id,
            caller: caller_fact(ctx),
            action,
            resources: Vec::new(),
            decision: DecisionFact { allowed: false, reason: "undecided", by: "seal".into() },
            factors: factor_facts(subject),
            private: private(ctx, subject, &[], noted),
        };
        let draft = facts.draft(core.entropy.as_ref())?;
        let (ctx, keys) = (ctx.clone(), Vec::new());
        Ok(Self {
            ctx,
            core,
            draft,
            keys,
            credential: None,
            success: "OK",
            told: Vec::new(),
            silent: false,
        })
    }

    /// Tells that a spent token was shown again: from here, and where its last use came from.
    pub(super) fn shown_again(
        vault: &Vault,
        ctx: &RequestContext,
        action: &'static str,
        subject: &Subject,
        first: &str,
        keys: Vec<KeyUse>,
    ) -> Result<Self> {
        let core = vault.core.clone();
        let noted = vec![(Field::Detail, format!("spent from {first}"))];
        let facts = EntryFacts {
            at: ctx.now,
            request: ctx.request_id,
            caller: caller_fact(ctx),
            action,
            resources: Vec::new(),
            decision: DecisionFact { allowed: false, reason: "token_spent", by: "token".into() },
            factors: factor_facts(Some(subject)),
            private: private(ctx, Some(subject), &[], noted),
        };
        let draft = facts.draft(core.entropy.as_ref())?;
        let now = core.clock.monotonic();
        // No use of a key is without its entry.
        let who = subject.identity.row.id;
        let silent = keys.is_empty() && !core.refusals.records_finding(who, action, now);
        let ctx = ctx.clone();
        let credential = Some(subject.credential.row.id);
        Ok(Self { ctx, core, draft, keys, credential, success: "OK", told: Vec::new(), silent })
    }

    /// Says that an earlier try did it: this one used no key and made nothing.
    pub(super) fn is_replay(&mut self) {
        self.success = "REPLAY";
        self.keys.clear();
        self.credential = None;
    }

    /// Ends the entry. One that cannot be encoded fails the whole group, because nothing may
    /// happen off the record: it is left empty, which no batch accepts.
    pub(super) fn entry(&self, outcome: Result<&[Change], &Error>) -> Entry {
        let (outcome, changes, told) = match outcome {
            Ok(changes) => (self.success, changes, self.told.as_slice()),
            Err(error) => (error.reason(), &[][..], &[][..]),
        };
        let took = self.core.clock.monotonic().saturating_duration_since(self.ctx.began);
        let ending = Ending {
            outcome,
            keys: &self.keys,
            duration_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            changes,
            credential: self.credential,
        };
        if told.is_empty() {
            return self.draft.end(&ending).unwrap_or_default();
        }
        let told = told.iter().map(|(field, value)| (*field, value.as_str().into()));
        let mut draft = self.draft.clone();
        let added = draft.add(&told.collect::<Vec<_>>(), self.core.entropy.as_ref());
        added.and_then(|()| draft.end(&ending)).unwrap_or_default()
    }
}

fn caller_fact(ctx: &RequestContext) -> CallerFact {
    match &ctx.caller {
        Caller::Identity(caller) => CallerFact::Identity {
            identity: caller.identity,
            credential: caller.credential,
            method: caller.method.as_str(),
        },
        Caller::System(worker) => CallerFact::System(worker),
    }
}

fn resource_facts(decision: &Decision) -> Vec<ResourceFact<'_>> {
    let fact = |resource| {
        let Resource { name, id, .. }: &Resource = resource;
        let noun = name.as_str().split('/').next().unwrap_or_default();
        ResourceFact { noun: Cow::Borrowed(noun), id: *id }
    };
    decision.resources.iter().map(fact).collect()
}

fn factor_facts(subject: Option<&Subject>) -> Vec<FactorFact> {
    let factors = subject.map(Subject::factors).unwrap_or_default().iter();
    let fact = |one: &ProvenFactor| FactorFact {
        factor: one.id(),
        kind: one.kind().as_str(),
        at: one.proven_at,
    };
    factors.map(fact).collect()
}

fn decision_fact(decision: &Decision) -> DecisionFact<'_> {
    let verdict = &decision.verdict;
    let by = match &verdict.by {
        Basis::Grants(grants) => {
            let elevation = decision.subject.as_ref().and_then(|it| it.elevation.as_ref());
            let name = |id: &GrantId| match elevation.filter(|it| it.is(*id)) {
                Some(elevation) => elevation.named().to_owned(),
                None => id.to_string(),
            };
            grants.iter().map(name).collect::<Vec<_>>().join(",").into()
        }
        Basis::Rule(rule) => Cow::Borrowed(*rule),
    };
    DecisionFact { allowed: verdict.allow, reason: verdict.reason.as_str(), by }
}

fn private<'a>(
    ctx: &RequestContext,
    subject: Option<&'a Subject>,
    resources: &'a [Resource],
    noted: Vec<(Field, String)>,
) -> Vec<(Field, Cow<'a, str>)> {
    let mut values = Vec::with_capacity(4);
    if let Some(subject) = subject {
        values.push((Field::Identity, subject.identity.row.name.as_str().into()));
        let signed_in = subject.signed_in().map(|said| (Field::Detail, Cow::from(said.told())));
        values.extend(signed_in);
    }
    for resource in resources {
        values.push((Field::Resource, resource.name.as_str().into()));
    }
    if let Some(source) = ctx.source {
        values.push((Field::Source, source.to_string().into()));
    }
    values.extend(noted.into_iter().map(|(field, value)| (field, value.into())));
    values
}

impl Vault {
    /// Records that a stored row which is not what was sealed kept an identity's request from
    /// being decided, and says what to answer. Whatever else fails there is answered as it is; a
    /// worker comes back each round, and is in the log.
    pub(super) async fn undecided(
        &self,
        ctx: &RequestContext,
        action: &'static str,
        subject: Option<&Subject>,
        error: Error,
    ) -> Error {
        let (Error::Tampered { .. }, Some(caller)) = (&error, ctx.authenticated()) else {
            return error;
        };
        let now = self.core.clock.monotonic();
        let counted = !self.core.refusals.records(caller.identity, action, now);
        let mut story = match Story::undecided(self, ctx, action, subject, &error) {
            Ok(story) => story,
            Err(failed) => return failed,
        };
        story.silent = counted;
        match self.append_story(story, Err(error.clone()), None, None).await {
            Ok(_) => error,
            Err(lost) => lost,
        }
    }

    /// Records a refusal by policy; nothing when what it stood on moved, so that it is decided
    /// again.
    pub(super) async fn refuse(
        &self,
        ctx: &RequestContext,
        action: &'static str,
        decision: &Arc<Decision>,
    ) -> Result<Option<Error>> {
        let refusal = decision.verdict.reason.refusal(action);
        let identity = ctx.authenticated().map(|caller| caller.identity);
        let counted = identity.is_some_and(|identity| {
            !self.core.refusals.records(identity, action, self.core.clock.monotonic())
        });
        let mut story = Story::new(self, ctx, action, decision, Note::default())?;
        let strike = Strike::of(decision.subject.as_ref());
        // It waits for a group like any other: how long it took to look must not show.
        story.silent = counted && strike.is_none();
        let outcome = Err(refusal.clone());
        let fence = Some(decision.fence(ctx.now));
        if self.append_story(story, outcome, fence, strike).await? {
            Ok(Some(refusal))
        } else {
            Ok(None)
        }
    }

    /// Records that an allowed operation failed before its commit, with the keys that it had used;
    /// false when what it stood on moved, so that the failure may not be answered.
    pub(super) async fn record_failure(
        &self,
        ctx: &RequestContext,
        action: &'static str,
        decision: &Arc<Decision>,
        error: &Error,
        keys: Vec<KeyUse>,
    ) -> Result<bool> {
        let note = Note { keys, ..Note::default() };
        let story = Story::new(self, ctx, action, decision, note)?;
        let fence = Some(decision.fence(ctx.now));
        self.append_story(story, Err(error.clone()), fence, None).await
    }

    /// Records that a stream begins; false when what it stood on moved.
    pub(super) async fn record_begin(
        &self,
        ctx: &RequestContext,
        action: &'static str,
        decision: &Arc<Decision>,
        success: &'static str,
        note: Note,
    ) -> Result<bool> {
        let mut story = Story::new(self, ctx, action, decision, note)?;
        story.success = success;
        self.append_story(story, Ok(()), Some(decision.fence(ctx.now)), None).await
    }

    /// Records how a stream ended, and what to call that, whatever moved meanwhile.
    pub(super) async fn record_end(
        &self,
        ctx: &RequestContext,
        action: &'static str,
        decision: &Arc<Decision>,
        ended: Result<&'static str>,
        note: Note,
    ) -> Result<()> {
        let mut story = Story::new(self, ctx, action, decision, note)?;
        let outcome = match ended {
            Ok(success) => {
                story.success = success;
                Ok(())
            }
            Err(error) => Err(error),
        };
        self.append_story(story, outcome, None, None).await.map(drop)
    }

    /// Appends an entry of what changes nothing; false when its fence moved.
    pub(super) async fn append_story(
        &self,
        story: Story,
        outcome: Result<()>,
        fence: Option<Fence>,
        strike: Option<Strike>,
    ) -> Result<bool> {
        let (reply, answer) = oneshot::channel();
        let needs = if strike.is_some() { GOVERNS } else { READS };
        let work = Append { story, outcome, strike, reply };
        self.core.writer.submit(Job { fence, needs, work: Box::new(work) }).await?;
        match answer.await.map_err(|_dropped| Error::OutcomeUnknown)? {
            Settled::Durable { outcome, .. } => outcome.map(|()| true),
            Settled::Moved => Ok(false),
            Settled::Lost(error) => Err(error.into()),
        }
    }
}

/// An entry by itself.
struct Append {
    story: Story,
    outcome: Result<()>,
    strike: Option<Strike>,
    reply: oneshot::Sender<Settled>,
}

#[async_trait]
impl Work for Append {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        match &self.strike {
            Some(strike) => strike.count(self.story.ctx.now, tx).await,
            None => Ok(()),
        }
    }

    fn entry(&mut self, ran: Result<&[Change], &Error>) -> Option<Entry> {
        if let Err(error) = &self.outcome {
            self.story.success = error.reason();
        }
        (!self.story.silent).then(|| self.story.entry(ran))
    }

    fn settle(self: Box<Self>, settled: Settled) {
        // Whoever asked may have gone.
        let _gone = self.reply.send(settled);
    }
}
