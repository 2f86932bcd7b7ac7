//! The one way of a request: decide, prepare, commit, answer.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::ceremony::check_ceremony;
use super::entries::Story;
use super::notice::tell_standing;
use super::retries::{Claim, Claimed};
use super::spend::Spending;
use super::{Decision, Note, Operation, Resumed, Vault, Verb, View};
use crate::error::{Error, Result};
use crate::store::{Change, Entry, Fence, Job, Needs, Settled, Tx, Work, Writes};
use crate::types::{Id, RequestContext};

/// Times that what a decision stood on may move before the caller is asked to retry.
pub(super) const ATTEMPTS: usize = 3;

impl Vault {
    /// Runs a verb: decided, recorded, and answered only once that is durable.
    ///
    /// It is boxed, as what any future is: the compiler would look through the whole way of a
    /// request once more for every verb.
    ///
    /// # Errors
    /// [`Error::Denied`] when policy refuses; [`Error::Conflict`] when what the decision stood on
    /// keeps moving; what the verb itself answers.
    pub fn run<'a, O: Operation>(
        &'a self,
        ctx: &'a RequestContext,
        op: O,
    ) -> BoxFuture<'a, Result<O::Output>> {
        let op = Arc::new(op);
        if !O::GOES_ON {
            return self.attempt(ctx, op).boxed();
        }
        let (vault, ctx) = (self.clone(), ctx.clone());
        let going = async move { vault.attempt(&ctx, op).await };
        self.to_its_end(going)
    }

    /// Runs what goes on where its caller hangs up.
    pub(super) fn to_its_end<T: Send + 'static>(
        &self,
        doing: impl Future<Output = Result<T>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let panicked = |_logged| Err(Error::internal("a request panicked"));
        self.core.tasks.finish(doing).map(move |done| done.unwrap_or_else(panicked)).boxed()
    }

    async fn attempt<O: Operation>(&self, ctx: &RequestContext, op: Arc<O>) -> Result<O::Output> {
        for attempt in 0..ATTEMPTS {
            let Some(ready) = self.ready(ctx, op.as_ref()).await? else {
                self.moved(ctx, attempt);
                continue;
            };
            let Ready { view, decision, prepared } = ready;
            let prepared = Arc::new(prepared);
            let mut note = Note::default();
            op.note(&prepared, &mut note);
            let subject = decision.subject.as_ref();
            let claim = self.claim(ctx, op.as_ref(), &prepared, subject)?;
            let spending = Spending::of::<O>(decision.subject.as_ref());
            let needs = needs(op.needs(&prepared), claim.is_some(), spending.is_some());
            let emptied = self.core.subjects.emptied();
            let (reply, answer) = oneshot::channel();
            let work = RunWork {
                op: Arc::clone(&op),
                story: Story::new(self, ctx, O::ACTION, &decision, note)?,
                prepared: Arc::clone(&prepared),
                decision: Arc::clone(&decision),
                bumps: needs.bumps,
                writes: needs.writes == Writes::Many,
                claim,
                spending,
                output: None,
                reply,
            };
            let fence = view.fence(decision.fence(ctx.now));
            match self.submit(fence, needs, Box::new(work), answer).await? {
                Answered::Done(output, epoch) => {
                    decision.stood_at(epoch);
                    op.durable(&prepared);
                    self.used(ctx, &decision);
                    if let (Some(made), Some(subject)) = (op.token(&prepared), &decision.subject) {
                        self.keep_child(subject, made, (epoch, emptied));
                    }
                    if op.outlives(&prepared) {
                        Box::pin(self.keep_shred()).await?;
                    }
                    return Ok(output);
                }
                Answered::Made(id) => return Box::pin(view.replay(op.as_ref(), &id)).await,
                Answered::Failed(error) => {
                    let told = self.told_of(ctx, op.as_ref(), &prepared, &decision, error);
                    return Err(Box::pin(told).await);
                }
                Answered::Intended(_) => return Err(Error::internal("an intent without its act")),
                Answered::Moved => self.moved(ctx, attempt),
            }
        }
        Err(Error::Conflict("what this request stands on keeps changing; retry".into()))
    }

    /// Puts on the record what is told apart from the call itself: that a token was shown again
    /// after its last use. What the caller hears.
    pub(super) async fn told_of<V: Verb>(
        &self,
        ctx: &RequestContext,
        op: &V,
        prepared: &V::Prepared,
        decision: &Decision,
        error: Error,
    ) -> Error {
        match (&error, &decision.subject) {
            (Error::Spent(_), Some(subject)) => {
                let mut note = Note::default();
                op.note(prepared, &mut note);
                self.shown_again::<V>(ctx, subject, note.keys).await
            }
            (_, _) => error,
        }
    }

    /// Hands a job to the store and waits until it is settled.
    pub(super) async fn submit<T>(
        &self,
        fence: Fence,
        needs: Needs,
        work: Box<dyn Work>,
        answer: oneshot::Receiver<Answered<T>>,
    ) -> Result<Answered<T>> {
        self.core.writer.submit(Job { fence: Some(fence), needs, work }).await?;
        // Every job is settled; a dropped one says that nothing of it is known.
        answer.await.map_err(|_dropped| Error::OutcomeUnknown)
    }

    /// Takes a verb up to its commit; nothing when what it stood on moved, so that it has to be
    /// decided again.
    ///
    /// What is hardly ever gone through is boxed: every call would carry the room for it.
    pub(super) async fn ready<V: Verb>(
        &self,
        ctx: &RequestContext,
        op: &V,
    ) -> Result<Option<Ready<V>>> {
        let view = match self.view(ctx).await {
            Ok(view) => view,
            Err(error) => {
                return Err(Box::pin(self.undecided(ctx, V::ACTION, None, error)).await);
            }
        };
        if let Some(subject) = view.subject.as_ref().filter(|subject| subject.is_spent()) {
            Box::pin(self.require_resumable(ctx, op, subject)).await?;
        }
        let decision = match self.decide(&view, op).await {
            Ok(decision) => decision,
            Err(error) => {
                let subject = view.subject.as_deref();
                let error = Box::pin(self.undecided(ctx, V::ACTION, subject, error)).await;
                return Err(view.tells(error));
            }
        };
        if !decision.verdict.allow {
            let refusal = Box::pin(self.refuse(ctx, V::ACTION, &decision)).await?;
            return refusal.map_or(Ok(None), Err);
        }
        match op.prepare(&view, &decision).await {
            Ok(prepared) => Ok(Some(Ready { view, decision, prepared })),
            Err(error) => {
                let error = error.told();
                let failure = self.record_failure(ctx, V::ACTION, &decision, &error, view.used());
                if Box::pin(failure).await? {
                    return Err(error);
                }
                Ok(None)
            }
        }
    }

    pub(super) async fn decide<V: Verb>(&self, view: &View, op: &V) -> Result<Arc<Decision>> {
        let core = &self.core;
        let seen = core.reader.epoch_seen();
        let epoch = op.as_of().map_or(seen, |as_of| as_of.min(seen));
        let resources = op.resources(view).await?;
        let subject = view.subject.clone();
        super::decide::decide(
            core,
            &view.ctx,
            V::ACTION,
            subject,
            resources,
            epoch,
            Spending::of::<V>(view.subject.as_ref()).is_some(),
        )
    }
}

/// What a commit needs that also claims a key or takes a use: each is a statement of its own.
pub(super) const fn needs(own: Needs, claims: bool, spends: bool) -> Needs {
    let writes = match (own.writes, claims, spends) {
        (writes, false, false) => writes,
        // The last statement, after everything that can fail.
        (Writes::Nothing, false, true) => Writes::One,
        (_, _, _) => Writes::Many,
    };
    Needs { writes, ..own }
}

/// A verb that was decided and prepared.
pub(super) struct Ready<V: Verb> {
    pub(super) view: View,
    pub(super) decision: Arc<Decision>,
    pub(super) prepared: V::Prepared,
}

/// What became of a job, as its caller hears it.
pub(super) enum Answered<T> {
    /// It is durable, at this epoch.
    Done(T, i64),
    /// The intent of an effect is durable, at this epoch.
    Intended(i64),
    /// An earlier try made this.
    Made(String),
    /// It failed, durably recorded, or was lost.
    Failed(Error),
    /// What its decision stood on moved.
    Moved,
}

struct RunWork<O: Operation> {
    op: Arc<O>,
    story: Story,
    prepared: Arc<O::Prepared>,
    decision: Arc<Decision>,
    bumps: bool,
    /// Whether several statements may be run.
    writes: bool,
    claim: Option<Claim>,
    spending: Option<Spending>,
    output: Option<Answered<O::Output>>,
    reply: oneshot::Sender<Answered<O::Output>>,
}

#[async_trait]
impl<O: Operation> Work for RunWork<O> {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        let ctx = &self.story.ctx.clone();
        let mut spending = self.spending.as_ref();
        if let Some(claim) = &self.claim {
            let (earlier, replace) = match claim.take(ctx, tx).await? {
                Claimed::Ours => (None, false),
                Claimed::Made(made) => (Some(made), false),
                Claimed::Replaces(earlier) => (Some(earlier), true),
            };
            if let Some(earlier) = earlier {
                // What a use paid for is shown, or replaced, without another.
                let paid = spending.take();
                let stands = match paid {
                    Some(paid) => paid.paid_for(ctx, tx, &earlier).await?,
                    None => true,
                };
                let anew = replace
                    && stands
                    && self.op.supersede(ctx, tx, &earlier).await? == Resumed::Anew;
                if !anew {
                    self.output = Some(Answered::Made(earlier));
                    return Ok(());
                }
                claim.moves_on(tx, &earlier).await?;
                if let Some(paid) = paid {
                    paid.moves_on(tx, &earlier, &claim.made).await?;
                }
            }
        }
        if self.bumps {
            tx.bump_authority()?;
        }
        let output = self.op.commit(ctx, tx, &self.prepared, &self.decision).await?;
        check_ceremony(ctx, tx, O::ACTION, &self.decision).await?;
        if self.writes {
            tell_standing(ctx, tx, O::ACTION, &self.decision).await?;
        }
        if let Some(spending) = spending {
            let made = self.claim.as_ref().map(|claim| claim.made.as_str());
            spending.take(ctx, tx, made).await?;
        }
        self.story.success = self.op.outcome(&output);
        self.story.told = self.op.tells(&output);
        self.output = Some(Answered::Done(output, 0));
        Ok(())
    }

    fn holds(&self) -> Option<Id> {
        self.op.holds(&self.prepared)
    }

    fn entry(&mut self, outcome: Result<&[Change], &Error>) -> Option<Entry> {
        if matches!(self.output, Some(Answered::Made(_))) {
            self.story.is_replay();
        }
        // Told apart: see `Vault::told_of`.
        let told_apart = matches!(outcome, Err(Error::Spent(_)));
        (!told_apart).then(|| self.story.entry(outcome))
    }

    fn settle(self: Box<Self>, settled: Settled) {
        // Here, because a caller that went away would not; what failed changed nothing.
        let failed = matches!(settled, Settled::Durable { outcome: Err(_), .. });
        if self.bumps && !failed {
            self.story.core.forget();
        }
        if let Some(spending) = &self.spending {
            self.story.core.subjects.forget(spending.token());
        }
        let answered = match settled {
            Settled::Durable { outcome: Ok(()), epoch } => match self.output {
                Some(Answered::Done(output, _)) => Answered::Done(output, epoch),
                Some(other) => other,
                None => Answered::Failed(Error::Internal),
            },
            Settled::Durable { outcome: Err(error), .. } => Answered::Failed(error),
            Settled::Moved => Answered::Moved,
            Settled::Lost(error) => Answered::Failed(error.into()),
        };
        // A caller that went away wants no answer; what was done is on the record.
        let _gone = self.reply.send(answered);
    }
}
