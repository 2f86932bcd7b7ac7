//! Delivers the notice that a sink's turn has come for.
//!
//! The sink's row is claimed first, by compare-and-set, for longer than a try takes: two nodes do
//! not deliver at once, and what follows waits. A crash between sending and noting it down leaves
//! the claim; when it is over the notice is sent again, under the same id.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::letter::Letter;
use super::resource;
use super::sink::Sink;
use crate::audit::Field;
use crate::engines::elevations::describe_elevation;
use crate::error::{Error, Result};
use crate::store::notices::{self, NoticeRow, NoticeSinkRow};
use crate::store::{Tx, Versioned};
use crate::types::{NoticeKind, NoticeNumber, RequestContext, Segment};
use crate::vault::{
    Decision, EffectOperation, Note, NoticeFacts, Recipients, Resource, Verb, View,
};

/// How long a try has the sink for itself: longer than any takes.
const CLAIM: Duration = Duration::from_mins(1);
/// Pauses between tries: doubled from the first to the last, and up to a quarter less, so that nodes
/// and sinks do not keep step.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_mins(10);
const DOUBLINGS: u32 = 10;

/// Delivers one notice, or gives it up; the worker's.
#[derive(Debug, Clone)]
pub struct DeliverNotice {
    /// Where.
    pub sink: Arc<Sink>,
    /// The version of the sink's row that was found due.
    pub version: i64,
    /// The notice.
    pub number: NoticeNumber,
}

/// What becomes of it.
#[derive(Debug)]
enum Fate {
    Sent(Letter),
    /// What this node cannot read, and another may: as a try in vain.
    Unread,
    /// Given up, up to a number, and why.
    GivenUp(NoticeNumber, &'static str),
}

/// What was prepared.
#[derive(Debug)]
pub struct Prepared {
    fate: Fate,
    /// Parts of 256 that are taken off the pause after a try in vain.
    jitter: u8,
    /// What went wrong, for row and record.
    trouble: Mutex<String>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// It was taken.
    Taken,
    /// It was given up.
    GivenUp,
}

#[async_trait]
impl Verb for DeliverNotice {
    const ACTION: &'static str = "notices.deliver";
    type Prepared = Prepared;
    type Output = Delivered;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        resource(&[self.sink.name.as_str()])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        let mut jitter = [0];
        view.entropy().fill_public(&mut jitter)?;
        let [jitter] = jitter;
        let fate = self.fate(view).await?;
        Ok(Prepared { fate, jitter, trouble: Mutex::default() })
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        let (number, sink) = (self.number.0, &self.sink.name);
        let said = match &prepared.fate {
            Fate::Sent(_) | Fate::Unread => format!("notice {number} to {sink}"),
            Fate::GivenUp(upto, why) => {
                format!("notices {number} to {} to {sink} are given up: {why}", upto.0)
            }
        };
        note.private.push((Field::Detail, said));
        let trouble = prepared.trouble.lock().clone();
        if !trouble.is_empty() {
            note.private.push((Field::Detail, trouble));
        }
    }
}

impl DeliverNotice {
    async fn fate(&self, view: &View) -> Result<Fate> {
        let (number, sink) = (self.number, self.sink.name.clone());
        let read = view.read(move |tx| {
            async move {
                let head = notices::head(tx).await?.row;
                let purged = NoticeNumber(head.purged.min(head.last));
                let tries =
                    tx.lookup::<NoticeSinkRow>(&sink).await?.map_or(0, |sink| sink.row.tries);
                Ok((purged, tries, tx.lookup_intact::<NoticeRow>(&number).await?))
            }
            .boxed()
        });
        let (row, tries) = match read.await? {
            (purged, _, _) if purged >= number => {
                return Ok(Fate::GivenUp(purged, "nobody took them for too long"));
            }
            (_, _, None) => {
                tracing::error!(alarm = true, notice = number.0, "a notice is gone or altered");
                return Ok(Fate::GivenUp(number, "what the store holds is not what was written"));
            }
            (_, tries, Some(found)) => (found.row, tries),
        };
        // However old it is, it was tried: nodes may have been away for long.
        if tries > 0 && view.now().since(row.created_at) > self.sink.give_up_after {
            return Ok(Fate::GivenUp(number, "nobody took it for too long"));
        }
        match self.letter(view, &row).await {
            Err(Error::Internal) => Ok(Fate::Unread),
            letter => letter.map(Fate::Sent),
        }
    }

    async fn letter(&self, view: &View, row: &NoticeRow) -> Result<Letter> {
        let (facts, recipients) = complete(view, row).await?;
        Letter::new(row, &facts, recipients, view.trust_domain(), &self.sink.templates)
    }

    /// The sink's row, as long as this notice's turn has not passed.
    async fn turn(&self, tx: &mut Tx) -> Result<Versioned<NoticeSinkRow>> {
        let found = tx.lookup::<NoticeSinkRow>(&self.sink.name).await?;
        let found = found.ok_or_else(|| Error::internal("a sink without its row"))?;
        if NoticeNumber(found.row.position).next() == self.number {
            return Ok(found);
        }
        Err(Error::Conflict("another node delivered it".into()))
    }

    async fn moves_on(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        to: NoticeNumber,
        given_up: i64,
    ) -> Result<()> {
        let Versioned { row, version } = self.turn(tx).await?;
        let next = NoticeSinkRow {
            position: to.0,
            tries: 0,
            next_try: None,
            trouble: String::new(),
            given_up: row.given_up.saturating_add(given_up),
            changed_at: ctx.now,
            ..row
        };
        tx.update(version, &next).await?;
        Ok(())
    }
}

/// Reads what a row tells. Of what was made under an elevation the row itself knows little: what was
/// done stands in it, and the elevation and whom that concerns are looked up.
async fn complete(view: &View, row: &NoticeRow) -> Result<(Map<String, Value>, Vec<Recipients>)> {
    let facts: NoticeFacts = serde_json::from_str(&row.facts).map_err(Error::internal)?;
    let recipients = serde_json::from_str(&row.recipients).map_err(Error::internal)?;
    let (facts, recipients) = if row.kind == NoticeKind::StandingMade {
        made_to_stand(view, facts).await?
    } else {
        (facts, recipients)
    };
    match serde_json::to_value(facts).map_err(Error::internal)? {
        Value::Object(facts) => Ok((facts, recipients)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Error::internal("facts that are no object"))
        }
    }
}

/// Looks up what a notice of something that stands does not say itself. Where that cannot be read,
/// what it does say is told all the same.
async fn made_to_stand(view: &View, facts: NoticeFacts) -> Result<(NoticeFacts, Vec<Recipients>)> {
    let (id, kind) = (facts.elevation.parse().map_err(Error::internal)?, NoticeKind::StandingMade);
    let now = view.now();
    let read =
        view.read(move |tx| async move { describe_elevation(tx, id, kind, now).await }.boxed());
    match read.await {
        Ok((of, to)) => Ok((NoticeFacts { by: facts.by, detail: facts.detail, ..of }, to)),
        Err(Error::Tampered { .. } | Error::Internal | Error::NotFound(_)) => {
            Ok((facts, Vec::new()))
        }
        Err(error) => Err(error),
    }
}

#[async_trait]
impl EffectOperation for DeliverNotice {
    type Effect = ();

    /// What is given up is not sent, so that there is nothing to claim.
    fn is_done(&self, prepared: &Prepared) -> bool {
        matches!(prepared.fate, Fate::GivenUp(_, _))
    }

    async fn intend(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        _: &Prepared,
        _: &Decision,
    ) -> Result<()> {
        let Versioned { row, version } = self.turn(tx).await?;
        if version != self.version {
            return Err(Error::Conflict("another node is delivering it".into()));
        }
        let claimed = NoticeSinkRow { next_try: Some(ctx.now.plus(CLAIM)?), ..row };
        tx.update(version, &claimed).await?;
        Ok(())
    }

    async fn act(&self, view: &View, prepared: &Prepared) -> Result<()> {
        let sent = match &prepared.fate {
            Fate::GivenUp(_, _) => return Ok(()),
            Fate::Unread => Err(Error::unavailable("this node cannot read what it says")),
            Fate::Sent(letter) => self.sink.send(letter, view.now()).await,
        };
        match sent {
            Ok(said) => {
                *prepared.trouble.lock() = said;
                Ok(())
            }
            Err(error) => {
                *prepared.trouble.lock() = error.to_string();
                Err(error)
            }
        }
    }

    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        (): &(),
    ) -> Result<Delivered> {
        match &prepared.fate {
            Fate::Sent(_) | Fate::Unread => {
                self.moves_on(ctx, tx, self.number, 0).await?;
                Ok(Delivered::Taken)
            }
            Fate::GivenUp(upto, why) => {
                let many = upto.0.saturating_sub(self.number.0).saturating_add(1);
                self.moves_on(ctx, tx, *upto, many).await?;
                let (sink, from) = (&self.sink.name, self.number.0);
                tracing::error!(%sink, from, upto = upto.0, why, "notices are given up");
                Ok(Delivered::GivenUp)
            }
        }
    }

    async fn abandon(&self, ctx: &RequestContext, tx: &mut Tx, prepared: &Prepared) -> Result<()> {
        let Versioned { row, version } = self.turn(tx).await?;
        let failed = NoticeSinkRow {
            next_try: Some(ctx.now.plus(pause(row.tries, prepared.jitter))?),
            tries: row.tries.saturating_add(1),
            trouble: prepared.trouble.lock().clone(),
            changed_at: ctx.now,
            ..row
        };
        tx.update(version, &failed).await?;
        Ok(())
    }
}

/// How long to wait after so many tries in vain.
fn pause(tries: i64, jitter: u8) -> Duration {
    let doublings = u32::try_from(tries).unwrap_or(DOUBLINGS).min(DOUBLINGS);
    let whole = FIRST_PAUSE.saturating_mul(1 << doublings).min(LAST_PAUSE);
    whole.saturating_sub(whole.saturating_mul(u32::from(jitter)) / 1_024)
}

impl DeliverNotice {
    /// Finds what a sink's turn has come for at a moment: the version of its row and the notice.
    /// None while there is nothing, another node is at it, or the pause is not over.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a sink that has no row yet; what the store answers.
    pub async fn due(
        tx: &mut Tx,
        sink: &Segment,
        now: crate::types::UnixMillis,
    ) -> Result<Option<(i64, NoticeNumber)>> {
        let found = tx.lookup::<NoticeSinkRow>(sink).await?;
        let found = found.ok_or_else(|| Error::not_found("a sink that has not begun"))?;
        let (head, row) = (notices::head(tx).await?.row, &found.row);
        let waits = row.next_try.is_some_and(|at| at > now);
        let next = NoticeNumber(row.position).next();
        Ok((!waits && next.0 <= head.last).then_some((found.version, next)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_second_to_ten_minutes_less_up_to_a_quarter() {
        let seconds: Vec<_> = (0..12).map(|tries| pause(tries, 0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
        assert_eq!(pause(2, 128), Duration::from_millis(3_500));
        assert!(pause(i64::MAX, u8::MAX) > Duration::from_secs(450));
    }
}
