//! The state check: what the record says of every sealed row, held against the tables. At start,
//! each hour, after a restore was accepted, and when somebody asks.
//!
//! It reads behind the requests and writes nothing, unless something is wrong: then an entry, and
//! alarms. A row that a node saw newer is refused without it, wherever it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Vault;
use crate::audit::{Compared, DecisionFact, Field, StateFault, StateFold, Wrong};
use crate::error::{Error, Result};
use crate::store::state::{PAGE, RowState, TABLES, rows_after};
use crate::types::UnixMillis;

/// How long a check stands.
const PERIOD: Duration = Duration::from_hours(1);
/// Between two pages: the check is nobody's hurry.
const REST: Duration = Duration::from_millis(2);
/// Faults that are named; more are counted.
const NAMED: usize = 100;
/// Faults that an entry names.
const TOLD: usize = 32;
/// Times that the entry of a row is waited for, and in how many of them the log is left to itself.
const ROUNDS: usize = 8;
const PATIENT: usize = 5;
const WAIT: Duration = Duration::from_millis(300);

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateReport {
    /// When it ended.
    pub checked_at: UnixMillis,
    /// Entries that were folded.
    pub entries: u64,
    /// Rows that were compared.
    pub rows: u64,
    /// What is wrong, as far as it is named.
    pub faults: Vec<StateFault>,
    /// What is wrong beyond that.
    pub more: u64,
    /// The newest request for a check that it answers.
    ticket: u64,
}

impl StateReport {
    /// Counts what is wrong.
    #[must_use]
    pub fn wrong(&self) -> u64 {
        u64::try_from(self.faults.len()).unwrap_or(u64::MAX).saturating_add(self.more)
    }

    /// Says what is wrong, as an entry does; nothing where nothing is.
    #[must_use]
    pub fn told(&self) -> String {
        let line = |fault: &StateFault| {
            let StateFault { table, key, wrong, named, found } = fault;
            let key = key.escape_debug();
            format!("{table} {key}: {} (named {named}, found {found})", wrong.as_str())
        };
        let mut lines: Vec<_> = self.faults.iter().take(TOLD).map(line).collect();
        let told = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if self.wrong() > told {
            lines.push(format!("{} more", self.wrong().saturating_sub(told)));
        }
        lines.join("; ")
    }
}

/// Keeps the fold between checks, and the newest report.
#[derive(Debug)]
pub struct StateKeeper {
    fold: tokio::sync::Mutex<Option<StateFold>>,
    asked: AtomicU64,
    report: watch::Sender<Option<Arc<StateReport>>>,
    ended: Mutex<Option<Instant>>,
}

impl Default for StateKeeper {
    fn default() -> Self {
        Self {
            fold: tokio::sync::Mutex::default(),
            asked: AtomicU64::new(0),
            report: watch::Sender::new(None),
            ended: Mutex::new(None),
        }
    }
}

impl StateKeeper {
    /// Asks for a check that begins from now on; its number.
    pub fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::AcqRel).saturating_add(1)
    }

    /// The newest report of this process.
    #[must_use]
    pub fn report(&self) -> Option<Arc<StateReport>> {
        self.report.borrow().clone()
    }

    /// Waits for a check that was asked for; none where it takes longer. A number that this process
    /// never gave is a question anew.
    pub async fn wait(&self, ticket: u64, most: Duration) -> (u64, Option<Arc<StateReport>>) {
        let known = (1..=self.asked.load(Ordering::Acquire)).contains(&ticket);
        let ticket = if known { ticket } else { self.ask() };
        let mut reports = self.report.subscribe();
        let answers = |report: &Option<Arc<StateReport>>| {
            report.as_ref().is_some_and(|it| it.ticket >= ticket)
        };
        let found = tokio::time::timeout(most, reports.wait_for(answers)).await;
        let report = found.ok().and_then(Result::ok).and_then(|report| report.clone());
        (ticket, report)
    }

    fn is_due(&self, now: Instant) -> bool {
        let answered = self.report.borrow().as_ref().map(|report| report.ticket);
        let fresh = self.ended.lock().is_some_and(|at| now.saturating_duration_since(at) < PERIOD);
        !fresh || answered.is_none_or(|ticket| ticket < self.asked.load(Ordering::Acquire))
    }
}

/// What is found on the way.
#[derive(Debug, Default)]
struct Findings {
    rows: u64,
    faults: Vec<StateFault>,
    more: u64,
}

impl Findings {
    fn add(&mut self, faults: impl IntoIterator<Item = StateFault>) {
        for fault in faults {
            if self.faults.len() < NAMED {
                self.faults.push(fault);
            } else {
                self.more = self.more.saturating_add(1);
            }
        }
    }
}

impl Vault {
    /// The newest report of the state check, and who asks for one.
    #[must_use]
    pub fn state(&self) -> &StateKeeper {
        &self.core.state
    }

    /// Tells whether the state is to be checked.
    #[must_use]
    pub fn state_is_due(&self) -> bool {
        self.core.state.is_due(self.core.clock.monotonic())
    }

    /// Folds what the record names of sealed rows and compares it with the tables; what is wrong is
    /// an alarm each, and an entry together.
    ///
    /// # Errors
    /// [`Error::Sealed`]; what the store answers. A record that is not what its head says is no error
    /// but an answer.
    pub async fn check_state(&self) -> Result<Arc<StateReport>> {
        let keeper = &self.core.state;
        let mut kept = keeper.fold.lock().await;
        let ticket = keeper.asked.load(Ordering::Acquire);
        let mut findings = Findings::default();
        let entries = match self.fold_state(kept.take(), &mut findings).await {
            Ok(fold) => {
                let entries = fold.entries();
                *kept = Some(fold);
                entries
            }
            Err(Error::Tampered { table, id }) => {
                findings.add([StateFault {
                    table,
                    key: id,
                    wrong: Wrong::Record,
                    named: 0,
                    found: 0,
                }]);
                0
            }
            Err(error) => return Err(error),
        };
        drop(kept);
        let Findings { rows, faults, more } = findings;
        let checked_at = self.core.clock.now()?;
        let report = Arc::new(StateReport { checked_at, entries, rows, faults, more, ticket });
        self.tell_state(&report).await?;
        *keeper.ended.lock() = Some(self.core.clock.monotonic());
        keeper.report.send_replace(Some(Arc::clone(&report)));
        Ok(report)
    }

    async fn tell_state(&self, report: &StateReport) -> Result<()> {
        for StateFault { table, key, wrong, named, found } in &report.faults {
            let wrong = wrong.as_str();
            tracing::error!(
                table,
                key,
                wrong,
                named,
                found,
                alarm = true,
                "the state is not what the record says"
            );
        }
        // A log that is not what its head says takes no more entries into its tree.
        if report.faults.iter().all(|fault| fault.wrong == Wrong::Record) {
            return Ok(());
        }
        let decision = DecisionFact { allowed: true, reason: "allowed", by: "upkeep".into() };
        let private = vec![(Field::Detail, report.told())];
        self.own_entry("records.verify-state", decision, "TAMPERED", private).await
    }

    async fn fold_state(
        &self,
        kept: Option<StateFold>,
        findings: &mut Findings,
    ) -> Result<StateFold> {
        let (reader, codec) = (&self.core.reader, &self.core.codec);
        let fold = kept.map_or_else(StateFold::new, Ok)?;
        let mut fold = fold.advance(reader, codec).await?;
        for (table, known) in TABLES.iter().copied().enumerate() {
            let mut after = String::new();
            loop {
                let behind = after.clone();
                let view = reader.yielding_view(move |tx| {
                    async move { Ok(rows_after(tx, known, &behind).await?) }.boxed()
                });
                let rows = view.await?;
                let count = rows.len();
                findings.rows = findings.rows.saturating_add(u64::try_from(count).unwrap_or(0));
                // What has no key that is a text comes after all that have one.
                let full = i64::try_from(count).is_ok_and(|count| count == PAGE);
                let last = rows.iter().rev().map(|row| &row.key).find(|key| !key.is_empty());
                let upto = last.filter(|_| full).cloned();
                let (from, until) = (after.clone(), upto.clone());
                let (next, compared) = blocking(fold, move |fold| {
                    fold.compare(table, &rows, (from.as_str(), until.as_deref()))
                })
                .await?;
                fold = next;
                findings.add(compared.faults);
                if !compared.ahead.is_empty() {
                    fold = self.wait_for(fold, table, compared.ahead, findings).await?;
                }
                match upto {
                    Some(last) => after = last,
                    None => break,
                }
                tokio::time::sleep(REST).await;
            }
        }
        Ok(fold)
    }

    /// Waits for the entries of rows that are ahead of what was folded. What was read is committed,
    /// and with it its entry: once all that is committed has its place, it is folded or there is none.
    async fn wait_for(
        &self,
        mut fold: StateFold,
        table: usize,
        mut ahead: Vec<RowState>,
        findings: &mut Findings,
    ) -> Result<StateFold> {
        for round in 0..ROUNDS {
            // The log moves by itself, at its own pace; where it does not, it is moved.
            if round < PATIENT {
                tokio::time::sleep(WAIT).await;
            } else {
                self.integrate().await?;
            }
            fold = fold.advance(&self.core.reader, &self.core.codec).await?;
            let (next, compared) =
                blocking(fold, move |fold| fold.look_again(table, ahead)).await?;
            fold = next;
            findings.add(compared.faults);
            ahead = compared.ahead;
            if ahead.is_empty() {
                break;
            }
        }
        for row in &ahead {
            findings.add([fold.unmade(table, row)?]);
        }
        Ok(fold)
    }
}

/// Works on the fold where waiting for a file keeps nobody else waiting.
async fn blocking(
    fold: StateFold,
    work: impl FnOnce(&StateFold) -> Result<Compared> + Send + 'static,
) -> Result<(StateFold, Compared)> {
    let done = tokio::task::spawn_blocking(move || {
        let compared = work(&fold)?;
        Ok((fold, compared))
    });
    done.await.map_err(Error::internal)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_faults_than_are_named_are_counted_and_told() {
        let fault = |n: usize| StateFault {
            table: "grants",
            key: format!("g{n}\u{1b}"),
            wrong: Wrong::Older,
            named: 3,
            found: 2,
        };
        let mut findings = Findings::default();
        findings.add((0..NAMED + 7).map(fault));
        let Findings { faults, more, .. } = findings;
        let report =
            StateReport { checked_at: UnixMillis(0), entries: 0, rows: 0, faults, more, ticket: 0 };
        assert_eq!(report.wrong(), 107);
        let told = report.told();
        assert!(told.starts_with("grants g0\\u{1b}: older (named 3, found 2); "), "{told}");
        assert!(told.ends_with("; 75 more"), "{told}");
    }
}
