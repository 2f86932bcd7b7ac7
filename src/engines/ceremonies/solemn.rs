//! Verbs that several administrators do together.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Term;
use super::call::{Call, Standing};
use super::show::Ceremony;
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::{Needs, Tx};
use crate::types::{Id, RequestContext};
use crate::vault::{Decision, EffectOperation, Note, Operation, Resource, Verb, View, WRITES};

/// A verb that several administrators do together.
///
/// Its `prepare` runs each time that the call is made, before anybody approved: it reads, and makes
/// nothing. It takes no key for retries, because the ceremony is performed once.
pub trait Solemn: Verb {
    /// Everything that was asked for besides the resources, as approvers read it.
    fn terms(&self) -> Vec<Term>;
}

/// Runs a verb in its ceremony.
#[derive(Debug, Clone)]
pub struct InCeremony<O>(pub O);

/// What was prepared, and where the ceremony is.
#[derive(Debug)]
pub struct Convened<P> {
    inner: P,
    call: Call,
    standing: Standing,
}

/// What became of a call.
#[derive(Debug)]
pub enum Held<T> {
    /// It was done.
    Done(T),
    /// Its ceremony is open, and nothing was done.
    Open(Box<Ceremony>),
}

impl<T> Held<T> {
    /// Takes what was done.
    ///
    /// # Errors
    /// [`Error::Ceremony`], with what is to be done next, where nothing was.
    pub fn done(self) -> Result<T> {
        let open = match self {
            Self::Done(done) => return Ok(done),
            Self::Open(open) => open,
        };
        let (id, needed) = (open.row.id, open.row.needed);
        let text = if open.missing == 0 {
            format!("ceremony {id} was approved by {needed} at this moment; repeat the call")
        } else {
            format!(
                "ceremony {id} is open and needs {} more of {needed} administrators: another runs \
                 `strongroom ceremony approve {id}`, then repeat the call before {}",
                open.missing, open.row.expires_at
            )
        };
        Err(Error::Ceremony(text.into()))
    }
}

#[async_trait]
impl<O: Solemn> Verb for InCeremony<O> {
    const ACTION: &'static str = O::ACTION;
    const SPENDS: bool = O::SPENDS;
    type Prepared = Convened<O::Prepared>;
    type Output = Held<O::Output>;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        self.0.resources(view).await
    }

    fn as_of(&self) -> Option<i64> {
        self.0.as_of()
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Self::Prepared> {
        let inner = self.0.prepare(view, decision).await?;
        let call = Call::of(view, decision, O::ACTION, self.0.terms())?;
        let (asked, now) = (call.clone(), view.now());
        let read = view.read(move |tx| async move { asked.stands(tx, now).await }.boxed());
        let standing = read.await?;
        Ok(Convened { inner, call, standing })
    }

    fn note(&self, it: &Self::Prepared, note: &mut Note) {
        self.0.note(&it.inner, note);
        let Standing { id, by, ready } = &it.standing;
        let text = match (ready, by.as_slice()) {
            (false, _) | (true, []) => format!("ceremony {id}"),
            (true, by) => format!("ceremony {id} approved by {}", by.join("+")),
        };
        note.private.push((Field::Detail, text));
    }
}

/// What the record calls it where nothing was done but to ask.
const OPEN: &str = "CEREMONY_OPEN";

#[async_trait]
impl<O: Solemn + Operation> Operation for InCeremony<O> {
    const NEEDS: Needs = O::NEEDS;
    const GOES_ON: bool = O::GOES_ON;

    fn needs(&self, it: &Self::Prepared) -> Needs {
        if it.standing.ready { self.0.needs(&it.inner) } else { WRITES }
    }

    fn outcome(&self, held: &Self::Output) -> &'static str {
        match held {
            Held::Done(done) => self.0.outcome(done),
            Held::Open(_) => OPEN,
        }
    }

    fn tells(&self, held: &Self::Output) -> Vec<(Field, String)> {
        match held {
            Held::Done(done) => self.0.tells(done),
            Held::Open(_) => Vec::new(),
        }
    }

    fn durable(&self, it: &Self::Prepared) {
        if it.standing.ready {
            self.0.durable(&it.inner);
        }
    }

    fn outlives(&self, it: &Self::Prepared) -> bool {
        it.standing.ready && self.0.outlives(&it.inner)
    }

    // That not too many are asked for is a fact without a row of its own.
    fn holds(&self, it: &Self::Prepared) -> Option<Id> {
        if it.standing.ready { self.0.holds(&it.inner) } else { Some(it.call.identity()) }
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Self::Prepared,
        decision: &Decision,
    ) -> Result<Self::Output> {
        if !it.standing.ready {
            return Ok(Held::Open(Box::new(it.call.open(ctx, tx).await?)));
        }
        it.call.perform(ctx, tx).await?;
        self.0.commit(ctx, tx, &it.inner, decision).await.map(Held::Done)
    }
}

#[async_trait]
impl<O: Solemn + EffectOperation> EffectOperation for InCeremony<O> {
    /// None where nothing was done but to ask.
    type Effect = Option<O::Effect>;
    const NEEDS: Needs = O::NEEDS;

    fn needs(&self, it: &Self::Prepared) -> Needs {
        if it.standing.ready { self.0.needs(&it.inner) } else { WRITES }
    }

    fn outcome(&self, held: &Self::Output) -> &'static str {
        match held {
            Held::Done(done) => self.0.outcome(done),
            Held::Open(_) => OPEN,
        }
    }

    // As above.
    fn holds(&self, it: &Self::Prepared) -> Option<Id> {
        if it.standing.ready { self.0.holds(&it.inner) } else { Some(it.call.identity()) }
    }

    /// What only asks has nothing to act on.
    fn is_done(&self, it: &Self::Prepared) -> bool {
        !it.standing.ready
    }

    async fn intend(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Self::Prepared,
        decision: &Decision,
    ) -> Result<()> {
        it.call.perform(ctx, tx).await?;
        if self.0.is_done(&it.inner) {
            return Ok(());
        }
        self.0.intend(ctx, tx, &it.inner, decision).await
    }

    async fn act(&self, view: &View, it: &Self::Prepared) -> Result<Self::Effect> {
        if !it.standing.ready {
            return Ok(None);
        }
        self.0.act(view, &it.inner).await.map(Some)
    }

    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Self::Prepared,
        effect: &Self::Effect,
    ) -> Result<Self::Output> {
        match effect {
            Some(effect) => self.0.record(ctx, tx, &it.inner, effect).await.map(Held::Done),
            None => Ok(Held::Open(Box::new(it.call.open(ctx, tx).await?))),
        }
    }

    async fn abandon(&self, ctx: &RequestContext, tx: &mut Tx, it: &Self::Prepared) -> Result<()> {
        if it.standing.ready {
            self.0.abandon(ctx, tx, &it.inner).await?;
        }
        Ok(())
    }
}
