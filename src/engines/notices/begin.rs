//! A sink that is new: it is told of what is written from then on. One whose row this node has seen
//! is not new: it is told once more of all that is kept.

use async_trait::async_trait;

use super::resource;
use crate::audit::Field;
use crate::error::Result;
use crate::store::notices::{self, NoticeSinkRow};
use crate::store::{Needs, Tx};
use crate::types::{RequestContext, Segment};
use crate::vault::{Decision, Note, Operation, Resource, Verb, View, WRITES};

/// Begins a sink; the worker's. That it begins, and so that it tells of nothing before, is on the
/// record: also where somebody took the row of one out of the database before this node began.
#[derive(Debug, Clone)]
pub struct BeginSink {
    /// Its name.
    pub sink: Segment,
    /// Whether it had a row, which somebody took out of the database.
    pub again: bool,
}

#[async_trait]
impl Verb for BeginSink {
    const ACTION: &'static str = "notices.begin";
    type Prepared = ();
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        resource(&[self.sink.as_str()])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<()> {
        Ok(())
    }

    fn note(&self, (): &(), note: &mut Note) {
        let again = if self.again { " again" } else { "" };
        note.private.push((Field::Detail, format!("notices begin{again} for {}", self.sink)));
    }
}

#[async_trait]
impl Operation for BeginSink {
    const NEEDS: Needs = WRITES;

    async fn commit(&self, ctx: &RequestContext, tx: &mut Tx, (): &(), _: &Decision) -> Result<()> {
        let head = notices::hold_head(tx).await?;
        let row = NoticeSinkRow {
            id: self.sink.clone(),
            position: if self.again { head.row.purged } else { head.row.last },
            tries: 0,
            next_try: None,
            trouble: String::new(),
            given_up: 0,
            changed_at: ctx.now,
        };
        // Under a version that nobody has seen of a row before it.
        tx.put(None, ctx.now.0, &row).await?;
        if self.again {
            tracing::error!(alarm = true, sink = %self.sink, "the row of a sink was taken out");
        }
        Ok(())
    }
}
