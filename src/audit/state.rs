//! Folds the record: the newest version that it names of every sealed row, to be compared with the
//! tables. Every entry that is folded is hashed into a tree of its own, whose root has to be that of
//! the head, so that an altered entry vouches for nothing.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::RecordCodec;
use super::batch::cut;
use super::entry::ReadEntry;
use super::head::{Head, head};
use crate::crypto::{Frontier, leaf_hash};
use crate::error::{Error, Result};
use crate::store::records;
use crate::store::state::{Folded, Named, PAGE, RowState, TABLES, is_purged};
use crate::store::{Reader, StoreError, Tx};

/// Entries that are folded in one step: it bounds what is in memory.
const STEP: i64 = 1_024;

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// The record names it, and it is not there.
    Missing,
    /// It is there, and no entry made it.
    Inserted,
    /// It is older than the newest version that the record names.
    Older,
    /// It has a version that no entry made.
    Newer,
    /// It has the newest version, and is not what was sealed then.
    Altered,
    /// The record itself is not what its head says.
    Record,
}

impl Wrong {
    /// Names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Inserted => "inserted",
            Self::Older => "older",
            Self::Newer => "newer",
            Self::Altered => "altered",
            Self::Record => "record",
        }
    }
}

/// A row that is not what the record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFault {
    /// The table.
    pub table: &'static str,
    /// The row's key, as the database holds it.
    pub key: String,
    /// What is wrong.
    pub wrong: Wrong,
    /// The newest version that the record names; 0 where it names none.
    pub named: i64,
    /// The version that stands in the table; 0 where there is none.
    pub found: i64,
}

/// What a page of a table came to.
#[derive(Debug, Default)]
pub struct Compared {
    /// What is wrong.
    pub faults: Vec<StateFault>,
    /// Rows that are newer than what was folded: the entries that made them come later, or never.
    pub ahead: Vec<RowState>,
}

/// The record, folded up to a size.
#[derive(Debug)]
pub struct StateFold {
    folded: Folded,
    frontier: Frontier,
}

impl StateFold {
    /// Begins with nothing.
    ///
    /// # Errors
    /// What keeps it answers.
    pub fn new() -> Result<Self> {
        Ok(Self { folded: Folded::new()?, frontier: Frontier::new() })
    }

    /// Counts the entries that were folded.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.frontier.size()
    }

    /// Folds on, up to the log's head. What fails on the way leaves no fold behind.
    ///
    /// # Errors
    /// [`Error::Tampered`], with an alarm, for a record that is not what its head says; what the
    /// store answers.
    pub async fn advance(mut self, reader: &Reader, codec: &Arc<RecordCodec>) -> Result<Self> {
        loop {
            let from = i64::try_from(self.frontier.size()).map_err(Error::internal)?;
            let codec = Arc::clone(codec);
            let (head, to, bodies) =
                reader.yielding_view(move |tx| look(tx, codec, from).boxed()).await?;
            if head.size < from {
                return Err(altered(head.size).into());
            }
            if to > from {
                let mut fold = self;
                let taken = tokio::task::spawn_blocking(move || {
                    fold.take(from, to, &bodies)?;
                    Ok::<Self, Error>(fold)
                });
                self = taken.await.map_err(Error::internal)??;
            }
            if to == head.size {
                let same = self.frontier.root() == head.root;
                return if same { Ok(self) } else { Err(altered(head.size).into()) };
            }
        }
    }

    /// Compares a page of a table, behind a key and up to another where there is one, with what was
    /// folded before the page was read: a table is never behind the record.
    ///
    /// # Errors
    /// What keeps the fold answers.
    pub fn compare(
        &self,
        table: usize,
        rows: &[RowState],
        (after, upto): (&str, Option<&str>),
    ) -> Result<Compared> {
        let mut compared = Compared::default();
        let mut found: HashMap<&str, &RowState> =
            rows.iter().map(|row| (row.key.as_str(), row)).collect();
        let purged = TABLES.get(table).is_some_and(|table| is_purged(table));
        let mut after = after.to_owned();
        loop {
            let named = self.folded.rows(table, &after, upto)?;
            let full = i64::try_from(named.len()).is_ok_and(|count| count == PAGE);
            for named in &named {
                match found.remove(named.key.as_str()) {
                    Some(row) => compared.judge(table, named, row),
                    None if purged => {}
                    None => {
                        compared.faults.push(fault(
                            table,
                            &named.key,
                            Wrong::Missing,
                            named.version,
                            0,
                        ));
                    }
                }
            }
            match named.into_iter().next_back() {
                Some(last) if full => after = last.key,
                Some(_) | None => break,
            }
        }
        compared.ahead.extend(found.into_values().cloned());
        Ok(compared)
    }

    /// Looks again at rows that were ahead, now that more is folded.
    ///
    /// # Errors
    /// What keeps the fold answers.
    pub fn look_again(&self, table: usize, ahead: Vec<RowState>) -> Result<Compared> {
        let mut compared = Compared::default();
        for row in ahead {
            match self.folded.lookup(table, &row.key)? {
                // It was changed again since; the next check looks at that.
                Some(named) if named.version > row.version => {}
                Some(named) => compared.judge(table, &named, &row),
                None => compared.ahead.push(row),
            }
        }
        Ok(compared)
    }

    /// What is wrong with a row whose entry never came.
    ///
    /// # Errors
    /// What keeps the fold answers.
    pub fn unmade(&self, table: usize, row: &RowState) -> Result<StateFault> {
        let named = self.folded.lookup(table, &row.key)?.map_or(0, |named| named.version);
        let wrong = if named == 0 { Wrong::Inserted } else { Wrong::Newer };
        Ok(fault(table, &row.key, wrong, named, row.version))
    }

    fn take(&mut self, from: i64, to: i64, bodies: &[(i64, Vec<u8>)]) -> Result<()> {
        let (mut next, mut changes) = (from, Vec::new());
        for (first, body) in bodies {
            let entries = cut(body).map_err(|_malformed| altered(next))?;
            for (index, leaf) in (*first..).zip(entries) {
                if index < from || index >= to {
                    continue;
                }
                if index != next {
                    return Err(altered(next).into());
                }
                self.frontier.append(leaf_hash(leaf))?;
                let entry = ReadEntry::decode(leaf).map_err(|_malformed| altered(next))?;
                changes.extend(entry.changes.into_iter().filter_map(named));
                next = next.saturating_add(1);
            }
        }
        if next != to {
            return Err(altered(next).into());
        }
        Ok(self.folded.put(&changes)?)
    }
}

impl Compared {
    fn judge(&mut self, table: usize, named: &RowState, found: &RowState) {
        let wrong = match found.version.cmp(&named.version) {
            Ordering::Greater => return self.ahead.push(found.clone()),
            Ordering::Equal if found.hash == named.hash => return,
            Ordering::Equal => Wrong::Altered,
            Ordering::Less => Wrong::Older,
        };
        self.faults.push(fault(table, &named.key, wrong, named.version, found.version));
    }
}

async fn look(
    tx: &mut Tx,
    codec: Arc<RecordCodec>,
    from: i64,
) -> Result<(Head, i64, Vec<(i64, Vec<u8>)>)> {
    let head = Head::read(&head(tx, &codec).await?);
    let to = head.size.min(from.saturating_add(STEP));
    let bodies = if to > from { records::bodies(tx, from, to).await? } else { Vec::new() };
    Ok((head, to, bodies))
}

/// A change as the fold keeps it; none of a table that this program does not know.
fn named((table, key, version, hash): (String, String, i64, Vec<u8>)) -> Option<Named> {
    let table = TABLES.iter().position(|known| known.name == table)?;
    Some(Named { table, row: RowState { key, version, hash } })
}

fn fault(table: usize, key: &str, wrong: Wrong, named: i64, found: i64) -> StateFault {
    let table = TABLES.get(table).map_or("", |table| table.name);
    StateFault { table, key: key.to_owned(), wrong, named, found }
}

fn altered(entry: i64) -> StoreError {
    StoreError::Tampered { table: "record_batches", id: format!("entry-{entry}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, version: i64, content: u8) -> RowState {
        RowState { key: key.into(), version, hash: vec![content; 32] }
    }

    #[test]
    fn each_way_in_which_a_row_is_not_what_the_record_says_has_its_name() {
        let mut fold = StateFold::new().unwrap();
        let named = |row| Named { table: 0, row };
        let said = [row("a", 2, 1), row("b", 2, 1), row("c", 2, 1), row("d", 2, 1)];
        fold.folded.put(&said.map(named)).unwrap();
        let rows = [row("a", 2, 1), row("b", 1, 1), row("c", 2, 9), row("e", 1, 1), row("f", 3, 1)];
        let compared = fold.compare(0, &rows, ("", None)).unwrap();
        let wrong: Vec<_> =
            compared.faults.iter().map(|fault| (fault.key.as_str(), fault.wrong)).collect();
        let expected = [("b", Wrong::Older), ("c", Wrong::Altered), ("d", Wrong::Missing)];
        assert_eq!(wrong, expected);
        let mut ahead: Vec<_> = compared.ahead.iter().map(|row| row.key.as_str()).collect();
        ahead.sort_unstable();
        assert_eq!(ahead, ["e", "f"]);

        // The entry of one comes, with a change after it; that of the other never does.
        fold.folded.put(&[named(row("e", 2, 2))]).unwrap();
        let again = fold.look_again(0, compared.ahead).unwrap();
        assert!(again.faults.is_empty());
        let [left] = again.ahead.try_into().unwrap();
        assert_eq!(fold.unmade(0, &left).unwrap().wrong, Wrong::Inserted);
        assert_eq!(fold.unmade(0, &row("a", 5, 1)).unwrap().wrong, Wrong::Newer);

        // Behind a key, and up to another, nothing else is missed.
        let part = fold.compare(0, &[row("b", 2, 1)], ("a", Some("b"))).unwrap();
        assert!(part.faults.is_empty() && part.ahead.is_empty());
    }

    #[test]
    fn an_old_notice_that_is_gone_is_nothing_wrong() {
        let table = TABLES.iter().position(|table| is_purged(table)).unwrap();
        let mut fold = StateFold::new().unwrap();
        fold.folded.put(&[Named { table, row: row("1", 1, 1) }]).unwrap();
        assert!(fold.compare(table, &[], ("", None)).unwrap().faults.is_empty());
    }
}
