//! Counting: little each time, and much at most every ten seconds.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::store::{StoreError, Tx, Value};

/// Rows that are looked at each time.
const FEW: i64 = 10_000;
/// How long what was counted of more stands.
const STANDS: Duration = Duration::from_secs(10);
/// Counts that are remembered.
const KEPT: usize = 1_000;

/// What a count came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many rows count.
    pub count: i64,
    /// The highest of their values; 0 where there is none.
    pub highest: i64,
}

/// What this process counted of much, and when.
#[derive(Debug, Default)]
pub(super) struct Tallies(Mutex<HashMap<String, (Instant, Tally)>>);

impl Tallies {
    /// Finds what was counted a moment ago. Where it was before, whoever asks counts anew, and
    /// the others are content with it meanwhile.
    fn lookup(&self, key: &str, now: Instant) -> Option<Tally> {
        let mut kept = self.0.lock();
        let (at, tally) = kept.get_mut(key)?;
        let stands = now.saturating_duration_since(*at) < STANDS;
        *at = if stands { *at } else { now };
        stands.then_some(*tally)
    }

    fn remember(&self, key: &str, now: Instant, tally: Tally) {
        let mut kept = self.0.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key.to_owned(), (now, tally));
    }
}

impl Tx {
    /// Counts rows. `rows` selects what is looked at, each with `counts`, 0 or 1, and a `value`. Where
    /// more than 10,000 are to be looked at, the answer may be ten seconds old; `key` names it.
    ///
    /// # Errors
    /// As [`Tx::query`].
    pub async fn tally(
        &mut self,
        key: &str,
        rows: &str,
        params: Vec<Value>,
    ) -> Result<Tally, StoreError> {
        let few = format!("{rows} LIMIT {}", FEW.saturating_add(1));
        let (looked_at, tally) = self.look(&few, params.clone()).await?;
        if looked_at <= FEW {
            return Ok(tally);
        }
        let now = Instant::now();
        if let Some(tally) = self.sealer.tallies.lookup(key, now) {
            return Ok(tally);
        }
        let (_, tally) = self.look(rows, params).await?;
        self.sealer.tallies.remember(key, now, tally);
        Ok(tally)
    }

    async fn look(&mut self, rows: &str, params: Vec<Value>) -> Result<(i64, Tally), StoreError> {
        let sql = format!(
            "SELECT COUNT(*), COALESCE(SUM(counts), 0), COALESCE(MAX(value), 0) \
             FROM ({rows}) AS looked"
        );
        let mut row = self.query_one(&sql, params).await?.ok_or(StoreError::Malformed)?;
        let looked_at = row.take()?;
        Ok((looked_at, Tally { count: row.take()?, highest: row.take()? }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::sqlite;
    use crate::store::tx::Connection;

    #[test]
    fn little_is_counted_each_time_and_much_once_in_a_while() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let fill = "CREATE TABLE t (n BIGINT); WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL \
                    SELECT n + 1 FROM s WHERE n < 10000) INSERT INTO t SELECT n FROM s";
        connection.execute_batch(fill).unwrap();
        let mut tx = Tx::new(Connection::Sqlite(connection), Arc::default(), true);
        let rows = "SELECT CASE WHEN n > $1 THEN 1 ELSE 0 END AS counts, n AS value FROM t";
        let count = |tx: &mut Tx, key: &str| {
            let tally = sqlite::drive(tx.tally(key, rows, vec![Value::Int(10)])).unwrap();
            (tally.count, tally.highest)
        };
        let add = |tx: &mut Tx, n: i64| {
            let added = tx.execute("INSERT INTO t VALUES ($1)", vec![Value::Int(n)]);
            assert_eq!(sqlite::drive(added), Ok(1));
        };
        assert_eq!(count(&mut tx, "t"), (9_990, 10_000));
        add(&mut tx, 10_001);
        assert_eq!(count(&mut tx, "t"), (9_991, 10_001), "nothing of little is remembered");
        add(&mut tx, 10_002);
        assert_eq!(count(&mut tx, "t"), (9_991, 10_001), "it was just counted");
        assert_eq!(count(&mut tx, "other"), (9_992, 10_002));
        let gone = sqlite::drive(tx.execute("DELETE FROM t WHERE n > 50", vec![]));
        assert_eq!(gone, Ok(9_952));
        assert_eq!(count(&mut tx, "t"), (40, 50), "what became little is counted");
    }

    #[test]
    fn what_is_too_old_is_counted_anew_by_one_who_asks() {
        let (tallies, at) = (Tallies::default(), Instant::now());
        let tally = Tally { count: 7, highest: 8 };
        tallies.remember("t", at, tally);
        assert_eq!(tallies.lookup("t", at + STANDS - Duration::from_millis(1)), Some(tally));
        assert_eq!(tallies.lookup("other", at), None);
        assert_eq!(tallies.lookup("t", at + STANDS), None);
        assert_eq!(tallies.lookup("t", at + STANDS), Some(tally), "somebody counts already");
        for n in 0..=KEPT {
            tallies.remember(&n.to_string(), at, tally);
        }
        assert!(tallies.0.lock().len() <= KEPT);
    }
}
