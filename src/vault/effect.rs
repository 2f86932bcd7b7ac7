//! What changes outside: the intent committed first, then the act, then the record of it.
//!
//! A client that hangs up does not cancel it: it may use a key before its intent.
//! After a crash, or a failure, the row is left to the worker that ends it.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::ceremony::check_ceremony;
use super::entries::Story;
use super::retries::{Claim, Claimed};
use super::run::{Answered, Ready, needs};
use super::spend::Spending;
use super::{Decision, EffectOperation, Note, Resumed, Vault, View};
use crate::error::{Error, Result};
use crate::store::{Change, Entry, Fence, Needs, Settled, Tx, Work, Writes};
use crate::types::{Id, RequestContext};

/// Times that what a decision stood on may move before the caller is asked to retry.
const ATTEMPTS: usize = 3;

impl Vault {
    /// Runs a verb that changes something outside.
    ///
    /// # Errors
    /// As [`Vault::run`].
    pub fn run_effect<'a, O: EffectOperation>(
        &'a self,
        ctx: &RequestContext,
        op: O,
    ) -> BoxFuture<'a, Result<O::Output>> {
        let (vault, ctx) = (self.clone(), ctx.clone());
        let doing = async move { vault.attempt_effect(&ctx, Arc::new(op)).await };
        self.to_its_end(doing)
    }

    async fn attempt_effect<O: EffectOperation>(
        &self,
        ctx: &RequestContext,
        op: Arc<O>,
    ) -> Result<O::Output> {
        for attempt in 0..ATTEMPTS {
            let Some(ready) = self.ready(ctx, op.as_ref()).await? else {
                self.moved(ctx, attempt);
                continue;
            };
            let Ready { view, decision, prepared } = ready;
            let subject = decision.subject.as_ref();
            let claim = self.claim(ctx, op.as_ref(), &prepared, subject)?;
            let effect = Effect {
                vault: self.clone(),
                view,
                op: Arc::clone(&op),
                prepared: Arc::new(prepared),
                spending: Spending::of::<O>(decision.subject.as_ref()),
                decision,
                claim: claim.map(Arc::new),
            };
            match effect.run().await {
                Answered::Done(output, _) => return Ok(output),
                Answered::Made(id) => return effect.view.replay(op.as_ref(), &id).await,
                Answered::Failed(error) => {
                    let Effect { prepared, decision, .. } = &effect;
                    return Err(self.told_of(ctx, op.as_ref(), prepared, decision, error).await);
                }
                Answered::Intended(_) => return Err(Error::internal("an intent without its act")),
                Answered::Moved => self.moved(ctx, attempt),
            }
        }
        Err(Error::Conflict("what this request stands on keeps changing; retry".into()))
    }
}

/// One effect on its way.
struct Effect<O: EffectOperation> {
    vault: Vault,
    view: View,
    op: Arc<O>,
    prepared: Arc<O::Prepared>,
    decision: Arc<Decision>,
    claim: Option<Arc<Claim>>,
    spending: Option<Spending>,
}

impl<O: EffectOperation> Effect<O> {
    fn fence(&self) -> Fence {
        self.view.fence(self.decision.fence(self.view.ctx.now))
    }

    async fn run(&self) -> Answered<O::Output> {
        if self.spending.is_some() || !self.op.is_done(&self.prepared) {
            let intend = Step::Intend(self.claim.clone(), self.spending.clone());
            match self.commit(intend, self.fence()).await {
                Ok(Answered::Intended(epoch)) => self.decision.stood_at(epoch),
                Ok(other) => return other,
                Err(error) => return Answered::Failed(error),
            }
        }
        let effect = match self.op.act(&self.view, &self.prepared).await {
            Ok(effect) => effect,
            // The key is given back: nothing of this try stays, and the next one makes another.
            Err(error) => return self.give_up(error, self.claim.clone()).await,
        };
        match self.commit(Step::Record(effect), self.fence()).await {
            Ok(Answered::Moved) => {
                // Undone, its claim with it; decided again from the start.
                let moved = Error::Conflict("what it stood on changed; its use is taken".into());
                let failed = self.give_up(moved, self.claim.clone()).await;
                // Without a key, going round would ask for another use.
                let once = self.spending.is_some() && self.claim.is_none();
                if once { failed } else { Answered::Moved }
            }
            // What was done stands outside without a record of it, and the caller does not get it.
            Ok(Answered::Failed(error)) | Err(error) => {
                self.give_up(error, self.claim.clone()).await
            }
            Ok(done) => {
                self.vault.used(&self.view.ctx, &self.decision);
                done
            }
        }
    }

    /// Leaves the row to the worker that ends it, and answers why. Where a use was taken, the key
    /// stays with what it paid for: by it the call may go on once that is known to be gone.
    async fn give_up(&self, error: Error, release: Option<Arc<Claim>>) -> Answered<O::Output> {
        let release = release.filter(|_| self.spending.is_none());
        let fence =
            Fence { epoch: self.decision.fence(self.view.ctx.now).epoch, rows: Arc::new([]) };
        match self.commit(Step::Abandon(error.clone(), release), fence).await {
            Ok(_) => Answered::Failed(error),
            // What the store answers is not why it failed; the worker finds the row later.
            Err(lost) => {
                tracing::warn!(%lost, "an abandoned effect is left to recovery");
                Answered::Failed(error)
            }
        }
    }

    async fn commit(&self, step: Step<O>, fence: Fence) -> Result<Answered<O::Output>> {
        let mut note = Note::default();
        self.op.note(&self.prepared, &mut note);
        let mut story = Story::new(&self.vault, &self.view.ctx, O::ACTION, &self.decision, note)?;
        if matches!(step, Step::Intend(..)) {
            story.success = "INTENT";
        }
        let own = self.op.needs(&self.prepared);
        let needs = match &step {
            Step::Intend(claim, spending) => needs(own, claim.is_some(), spending.is_some()),
            Step::Record(_) => own,
            Step::Abandon(_, _) => Needs { writes: Writes::Many, ..own },
        };
        let (reply, answer) = oneshot::channel();
        let work = EffectWork {
            op: Arc::clone(&self.op),
            story,
            prepared: Arc::clone(&self.prepared),
            decision: Arc::clone(&self.decision),
            step,
            output: None,
            reply,
        };
        self.vault.submit(fence, needs, Box::new(work), answer).await
    }
}

enum Step<O: EffectOperation> {
    Intend(Option<Arc<Claim>>, Option<Spending>),
    Record(O::Effect),
    /// With why, and the claim to be released where the caller's request goes on.
    Abandon(Error, Option<Arc<Claim>>),
}

enum Reached<T> {
    Intended,
    Made(String),
    Recorded(T),
}

struct EffectWork<O: EffectOperation> {
    op: Arc<O>,
    story: Story,
    prepared: Arc<O::Prepared>,
    decision: Arc<Decision>,
    step: Step<O>,
    output: Option<Reached<O::Output>>,
    reply: oneshot::Sender<Answered<O::Output>>,
}

/// Claims the key and takes the use, or finds what was made before.
///
/// A use pays for one thing: what it made is gone before the call goes on under a new name,
/// and the use is not taken again.
async fn begin<O: EffectOperation>(
    op: &O,
    ctx: &RequestContext,
    tx: &mut Tx,
    claim: Option<&Claim>,
    spending: Option<&Spending>,
) -> Result<Option<String>> {
    let claimed = match claim {
        Some(claim) => claim.take(ctx, tx).await?,
        None => Claimed::Ours,
    };
    let (earlier, replace) = match claimed {
        Claimed::Ours => {
            if let Some(spending) = spending {
                spending.take(ctx, tx, claim.map(|claim| claim.made.as_str())).await?;
            }
            return Ok(None);
        }
        Claimed::Made(earlier) => (earlier, false),
        Claimed::Replaces(earlier) => (earlier, true),
    };
    let anew = if let Some(paid) = spending {
        paid.paid_for(ctx, tx, &earlier).await?
            && op.resume(ctx, tx, &earlier, replace).await? == Resumed::Anew
    } else if replace {
        op.supersede(ctx, tx, &earlier).await? == Resumed::Anew
    } else {
        false
    };
    match claim {
        Some(claim) if anew => {
            claim.moves_on(tx, &earlier).await?;
            if let Some(paid) = spending {
                paid.moves_on(tx, &earlier, &claim.made).await?;
            }
            Ok(None)
        }
        Some(_) | None => Ok(Some(earlier)),
    }
}

#[async_trait]
impl<O: EffectOperation> Work for EffectWork<O> {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        let ctx: &RequestContext = &self.story.ctx;
        self.output = Some(match &self.step {
            Step::Intend(claim, spending) => {
                let (claim, spending) = (claim.as_deref(), spending.as_ref());
                let made = begin(self.op.as_ref(), ctx, tx, claim, spending).await?;
                if let Some(made) = made {
                    Reached::Made(made)
                } else {
                    self.op.intend(ctx, tx, &self.prepared, &self.decision).await?;
                    check_ceremony(ctx, tx, O::ACTION, &self.decision).await?;
                    Reached::Intended
                }
            }
            Step::Record(effect) => {
                let output = self.op.record(ctx, tx, &self.prepared, effect).await?;
                if self.op.is_done(&self.prepared) {
                    check_ceremony(ctx, tx, O::ACTION, &self.decision).await?;
                }
                self.story.success = self.op.outcome(&output);
                Reached::Recorded(output)
            }
            Step::Abandon(_, release) => {
                self.op.abandon(ctx, tx, &self.prepared).await?;
                if let Some(claim) = release {
                    claim.release(tx).await?;
                }
                Reached::Intended
            }
        });
        Ok(())
    }

    fn holds(&self) -> Option<Id> {
        match &self.step {
            Step::Intend(..) => self.op.holds(&self.prepared),
            // What intends nothing counts here.
            Step::Record(_) if self.op.is_done(&self.prepared) => self.op.holds(&self.prepared),
            Step::Record(_) | Step::Abandon(..) => None,
        }
    }

    fn entry(&mut self, outcome: Result<&[Change], &Error>) -> Option<Entry> {
        if matches!(self.output, Some(Reached::Made(_))) {
            self.story.is_replay();
        }
        Some(match (&self.step, outcome) {
            (Step::Abandon(error, _), Ok(changes)) => {
                self.story.success = error.reason();
                self.story.entry(Ok(changes))
            }
            // Told apart: see `Vault::told_of`.
            (_, Err(Error::Spent(_))) => return None,
            (_, outcome) => self.story.entry(outcome),
        })
    }

    fn settle(self: Box<Self>, settled: Settled) {
        if let Step::Intend(_, Some(spending)) = &self.step {
            self.story.core.subjects.forget(spending.token());
        }
        let answered = match settled {
            Settled::Durable { outcome: Ok(()), epoch } => match self.output {
                Some(Reached::Recorded(output)) => Answered::Done(output, epoch),
                Some(Reached::Made(id)) => Answered::Made(id),
                Some(Reached::Intended) => Answered::Intended(epoch),
                None => Answered::Failed(Error::Internal),
            },
            Settled::Durable { outcome: Err(error), .. } => Answered::Failed(error),
            Settled::Moved => Answered::Moved,
            Settled::Lost(error) => Answered::Failed(error.into()),
        };
        // The effect always waits: it goes on where its caller does not.
        let _gone = self.reply.send(answered);
    }
}
