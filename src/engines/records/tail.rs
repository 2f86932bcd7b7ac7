//! Streams entries as they get their place in the log.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{Question, log};
use crate::audit::{self, Filter, Shown};
use crate::error::{Error, Result};
use crate::vault::{Decision, Resource, StreamOperation, Verb, View};

/// Entries looked at in one step.
const STEP: i64 = 256;
/// Steps in one look that finds nothing.
const STEPS: usize = 16;
/// Entries that may come first.
const LAST: i32 = 1_000;

/// Asks for entries as they come.
#[derive(Debug, Clone)]
pub struct Tail {
    question: Question,
    last: usize,
}

impl Tail {
    /// Asks for those that fit; so many of the newest come first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than 1,000, or less than none.
    pub fn new(question: Question, last: i32) -> Result<Self> {
        match usize::try_from(last) {
            Ok(most) if last <= LAST => Ok(Self { question, last: most }),
            Ok(_) | Err(_) => Err(Error::invalid("last must be from 0 to 1000")),
        }
    }
}

/// Where a stream stands.
#[derive(Debug)]
pub struct Cursor {
    filter: Filter,
    /// What comes first.
    first: Vec<Shown>,
    /// The next index.
    next: i64,
}

#[async_trait]
impl Verb for Tail {
    const ACTION: &'static str = "records.tail";
    type Prepared = Cursor;
    type Output = Shown;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        log()
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Cursor> {
        let filter = self.question.filter(view).await?;
        let (last, asked) = (self.last, filter.clone());
        let codec = view.record();
        let (mut first, next) = view
            .read(move |tx| {
                async move {
                    let size = audit::head(tx, &codec).await?.size;
                    let first = match last {
                        0 => Vec::new(),
                        // What one look finds: a bounded part of the log.
                        most => audit::find(tx, &codec, &asked, size, most).await?.entries,
                    };
                    Ok((first, size))
                }
                .boxed()
            })
            .await?;
        first.reverse();
        Ok(Cursor { filter, first, next })
    }
}

#[async_trait]
impl StreamOperation for Tail {
    async fn next(&self, view: &View, at: &mut Cursor) -> Result<Vec<Shown>> {
        if !at.first.is_empty() {
            return Ok(std::mem::take(&mut at.first));
        }
        let from = at.next;
        let filter = at.filter.clone();
        let codec = view.record();
        let (size, reached, found) = view
            .read(move |tx| {
                async move {
                    let size = audit::head(tx, &codec).await?.size;
                    let mut from = from;
                    // A step that fits nothing is followed by the next, a bounded number of times.
                    for _ in 0..STEPS {
                        let to = size.min(from.saturating_add(STEP));
                        if to <= from {
                            break;
                        }
                        let entries = audit::entries_of(tx, from, to).await?;
                        let shown = entries.iter().filter_map(Shown::read);
                        let found: Vec<_> =
                            shown.filter(|shown| filter.fits(&shown.entry, &shown.names)).collect();
                        from = to;
                        if !found.is_empty() {
                            return Ok((size, from, found));
                        }
                    }
                    Ok((size, from, Vec::new()))
                }
                .boxed()
            })
            .await?;
        if size < from {
            return Err(Error::precondition("the log is shorter than it was; verify it"));
        }
        at.next = reached;
        Ok(found)
    }
}
