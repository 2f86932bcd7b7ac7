//! Streams: decided and recorded before the first item, decided again each second, and recorded
//! at their end.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::run::{ATTEMPTS, Ready};
use super::{Decision, Note, Vault, Verb, View};
use crate::error::{Error, Result};
use crate::types::RequestContext;

/// Items on their way to a reader: what was read before a cut and may still arrive after it.
const AHEAD: usize = 16;
/// How long an idle stream sleeps before it looks again.
const PERIOD: Duration = Duration::from_millis(250);
/// How long a decision carries a stream.
const STANDS: Duration = Duration::from_millis(900);

/// What the first entry of a stream says of its outcome.
const BEGUN: &str = "BEGUN";
/// What the last entry says where nothing failed.
const ENDED: &str = "OK";
/// What it says where the reader went before the end of a stream that has one.
const LEFT: &str = "LEFT";

/// A verb that answers with a stream. What it prepares is where the stream begins.
#[async_trait]
pub trait StreamOperation: Verb {
    /// Whether it comes to an end by itself: whoever goes before has not had all of it.
    const ENDS: bool = false;

    /// Reads what comes next, a bounded part of it; nothing when there is nothing yet.
    async fn next(&self, view: &View, at: &mut Self::Prepared) -> Result<Vec<Self::Output>>;

    /// Tells whether nothing follows what was read: most streams go on until their reader goes.
    fn is_over(&self, _at: &Self::Prepared) -> bool {
        false
    }
}

/// What a stream gives: its items, and last why it was cut, if it was.
///
/// However slowly it is read, it ends as it was ended and in no other way: what was cut never looks
/// like what is whole.
pub struct Items<T> {
    items: mpsc::Receiver<T>,
    /// How it ended; none once that was told.
    end: Option<oneshot::Receiver<Result<()>>>,
}

impl<T> Stream for Items<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        if let Some(item) = ready!(self.items.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(item)));
        }
        let Some(end) = self.end.as_mut() else { return Poll::Ready(None) };
        let ended = ready!(Pin::new(end).poll(cx));
        self.end = None;
        // Where nobody says how it ended, it is not whole.
        Poll::Ready(ended.unwrap_or_else(|_dropped| Err(broken())).err().map(Err))
    }
}

impl<T> fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").finish_non_exhaustive()
    }
}

/// The other end of [`Items`].
struct Outlet<T> {
    items: mpsc::Sender<T>,
    end: oneshot::Sender<Result<()>>,
}

impl<T> Outlet<T> {
    /// Says how the stream ended. Whoever reads may have gone.
    fn tell(self, how: Result<()>) {
        let _gone = self.end.send(how);
    }
}

impl Vault {
    /// Begins a stream: an entry is durable before its first item, and one follows its end.
    ///
    /// It is cut, with the reason as its last item, when what its decision stood on moves so that
    /// it would be refused now, and when the vault stops.
    ///
    /// # Errors
    /// As [`Vault::run`].
    pub fn stream<'a, O: StreamOperation>(
        &'a self,
        ctx: &'a RequestContext,
        op: O,
    ) -> BoxFuture<'a, Result<Items<O::Output>>> {
        self.begin(ctx, Arc::new(op)).boxed()
    }

    async fn begin<O: StreamOperation>(
        &self,
        ctx: &RequestContext,
        op: Arc<O>,
    ) -> Result<Items<O::Output>> {
        for attempt in 0..ATTEMPTS {
            let Some(ready) = self.ready(ctx, op.as_ref()).await? else {
                self.moved(ctx, attempt);
                continue;
            };
            let Ready { view, decision, prepared: at } = ready;
            if decision.subject.as_ref().is_some_and(|subject| subject.is_counted()) {
                let refusal = Error::Denied("a stream is not what a counted use pays for".into());
                if self.record_failure(ctx, O::ACTION, &decision, &refusal, view.used()).await? {
                    return Err(refusal);
                }
                self.moved(ctx, attempt);
                continue;
            }
            let (items, receiver) = mpsc::channel(AHEAD);
            let (end, ended) = oneshot::channel();
            let stream = Streaming {
                vault: self.clone(),
                ctx: ctx.clone(),
                op: Arc::clone(&op),
                at,
                view,
                epoch: decision.known_at(),
                decision,
                decided: Instant::now(),
                outlet: Outlet { items, end },
            };
            // Its beginning is recorded by whoever records its end: a caller that goes away in
            // between would leave the one without the other.
            let (reply, begun) = oneshot::channel();
            drop(self.core.tasks.spawn(stream.run(reply)));
            if begun.await.map_err(|_dropped| Error::OutcomeUnknown)?? {
                return Ok(Items { items: receiver, end: Some(ended) });
            }
            self.moved(ctx, attempt);
        }
        Err(Error::Conflict("what this request stands on keeps changing; retry".into()))
    }
}

struct Streaming<O: StreamOperation> {
    vault: Vault,
    ctx: RequestContext,
    op: Arc<O>,
    at: O::Prepared,
    view: View,
    decision: Arc<Decision>,
    /// The authority epoch that was last seen.
    epoch: i64,
    decided: Instant,
    outlet: Outlet<O::Output>,
}

impl<O: StreamOperation> Streaming<O> {
    /// Records the beginning, tells whether it stands, follows, and records the end.
    async fn run(mut self, reply: oneshot::Sender<Result<bool>>) {
        let note = self.note();
        let begun =
            self.vault.record_begin(&self.ctx, O::ACTION, &self.decision, BEGUN, note).await;
        let ended = match begun {
            Ok(false) => return drop(reply.send(Ok(false))),
            Ok(true) => {
                self.vault.used(&self.ctx, &self.decision);
                drop(reply.send(Ok(true)));
                self.follow().await
            }
            // It may be on the record all the same.
            Err(Error::OutcomeUnknown) => {
                drop(reply.send(Err(Error::OutcomeUnknown)));
                Err(Error::OutcomeUnknown)
            }
            Err(error) => return drop(reply.send(Err(error))),
        };
        let note = self.note();
        let Self { vault, ctx, decision, outlet, .. } = self;
        // Of one that was cut it is told at once; of one that is whole, once that is on record: what is
        // not is not told to be whole.
        let whole = match &ended {
            Ok(_) => Some(outlet),
            Err(error) => {
                outlet.tell(Err(error.clone()));
                None
            }
        };
        let recorded = vault.record_end(&ctx, O::ACTION, &decision, ended, note).await;
        if let Err(error) = &recorded {
            tracing::error!(%error, request = %ctx.request_id, "the end of a stream is not on record");
        }
        if let Some(outlet) = whole {
            outlet.tell(recorded);
        }
    }

    /// What the verb adds to both entries, as far as it has come.
    fn note(&self) -> Note {
        let mut note = Note::default();
        self.op.note(&self.at, &mut note);
        note
    }

    /// Follows until the reader goes away, or nothing is left to read: tells which.
    async fn follow(&mut self) -> Result<&'static str> {
        let left = if O::ENDS { LEFT } else { ENDED };
        loop {
            self.decide_again().await?;
            // What nobody takes is not finished either.
            if self.outlet.items.is_closed() {
                return Ok(left);
            }
            let items = self.op.next(&self.view, &mut self.at).await?;
            let idle = items.is_empty();
            for item in items {
                if !self.deliver(item).await? {
                    return Ok(left);
                }
            }
            if self.op.is_over(&self.at) {
                return Ok(ENDED);
            }
            if idle {
                let tasks = &self.vault.core.tasks;
                tokio::select! {
                    () = self.outlet.items.closed() => return Ok(left),
                    () = tasks.stopping() => return Err(stopping()),
                    () = tokio::time::sleep(PERIOD) => {}
                }
            }
        }
    }

    /// Hands an item over; false when nobody takes it any more.
    async fn deliver(&mut self, item: O::Output) -> Result<bool> {
        loop {
            if self.decided.elapsed() >= STANDS {
                self.decide_again().await?;
            }
            tokio::select! {
                permit = self.outlet.items.reserve() => {
                    return Ok(permit.map(|permit| permit.send(item)).is_ok());
                }
                () = self.vault.core.tasks.stopping() => return Err(stopping()),
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Decides as if the request came now, on nothing that was kept from before a change.
    async fn decide_again(&mut self) -> Result<()> {
        let core = &self.vault.core;
        let epoch = core.reader.view(|tx| async { Ok(tx.epoch().await?) }.boxed()).await?;
        // What engines keep is kept under the epoch that the node has seen.
        core.reader.saw_epoch(epoch);
        if epoch != self.epoch {
            self.vault.forget();
            self.epoch = epoch;
        }
        self.ctx.now = core.clock.now()?;
        self.view = self.vault.view(&self.ctx).await?;
        self.decision = self.vault.decide(&self.view, self.op.as_ref()).await?;
        self.decided = Instant::now();
        let verdict = &self.decision.verdict;
        if verdict.allow { Ok(()) } else { Err(verdict.reason.refusal(O::ACTION)) }
    }
}

fn broken() -> Error {
    Error::unavailable("the stream broke off; begin it again")
}

fn stopping() -> Error {
    Error::unavailable("the vault is stopping; begin the stream again")
}
