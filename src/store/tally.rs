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

/// Bounds that are remembered, and how long each stands.
const BOUNDS: usize = 10_000;
const BOUNDS_STAND: Duration = Duration::from_mins(1);

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

/// How many there are at most, of what whoever asks adds to, and when they were counted.
#[derive(Debug, Default)]
pub(super) struct Bounds(Mutex<HashMap<String, (Instant, i64)>>);

impl Bounds {
    /// Adds one, if even then there are fewer.
    fn adds(&self, key: &str, now: Instant, many: i64) -> bool {
        let mut kept = self.0.lock();
        let Some((at, bound)) = kept.get_mut(key) else { return false };
        let fits = *bound < many && now.saturating_duration_since(*at) < BOUNDS_STAND;
        *bound = bound.saturating_add(i64::from(fits));
        fits
    }

    fn counted(&self, key: String, now: Instant, bound: i64) {
        let mut kept = self.0.lock();
        if kept.len() >= BOUNDS {
            kept.clear();
        }
        kept.insert(key, (now, bound));
    }
}

impl Tx {
    /// Tells whether there are so many rows already, where whoever hears that there are not adds one.
    /// `rows` selects them.
    ///
    /// On SQLite, whose one writer adds them all, they are counted again only when so many may have
    /// come that it matters: what ends meanwhile only makes them fewer. Counting ten thousand costs
    /// as much as everything else of a commit.
    ///
    /// # Errors
    /// As [`Tx::query`].
    pub async fn has_many(
        &mut self,
        key: String,
        rows: &str,
        params: Vec<Value>,
        many: u32,
    ) -> Result<bool, StoreError> {
        let (now, many) = (Instant::now(), i64::from(many));
        let alone = !self.is_postgres();
        if alone && self.sealer.bounds.adds(&key, now, many) {
            return Ok(false);
        }
        let sql = format!("SELECT COUNT(*) FROM ({rows} LIMIT {many}) AS found");
        let found: i64 =
            self.query_one(&sql, params).await?.ok_or(StoreError::Malformed)?.take()?;
        let full = found >= many;
        if alone && !full {
            self.sealer.bounds.counted(key, now, found.saturating_add(1));
        }
        Ok(full)
    }

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
    fn what_may_not_be_more_is_counted_only_where_it_may_be() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (n BIGINT)").unwrap();
        let mut tx = Tx::new(Connection::Sqlite(connection), Arc::default(), true);
        let full = |tx: &mut Tx, many: u32| {
            sqlite::drive(tx.has_many("t".into(), "SELECT n FROM t", vec![], many)).unwrap()
        };
        let execute = |tx: &mut Tx, sql: &str| {
            assert_ne!(sqlite::drive(tx.execute(sql, vec![])), Ok(0), "{sql}");
        };
        for _ in 0..3 {
            assert!(!full(&mut tx, 3));
            execute(&mut tx, "INSERT INTO t VALUES (1)");
        }
        assert!(full(&mut tx, 3) && full(&mut tx, 3), "never one more");
        execute(&mut tx, "DELETE FROM t");
        assert!(!full(&mut tx, 3), "what ended makes room");
        // Somebody said that they would add one and did not: they are counted again.
        assert!(!full(&mut tx, 3) && !full(&mut tx, 3) && !full(&mut tx, 3));
        execute(&mut tx, "INSERT INTO t VALUES (1), (2), (3)");
        let mut said = 0;
        while !full(&mut tx, 3) {
            said += 1;
        }
        assert!(said < 3, "{said}");
    }

    #[test]
    fn a_bound_stands_for_a_while() {
        let (bounds, at) = (Bounds::default(), Instant::now());
        bounds.counted("t".into(), at, 7);
        assert!(bounds.adds("t", at, 9) && bounds.adds("t", at, 9) && !bounds.adds("t", at, 9));
        assert!(!bounds.adds("t", at + BOUNDS_STAND, 90) && !bounds.adds("other", at, 9));
    }

    #[test]
    fn what_is_too_old_is_counted_anew_by_one_who_asks() {
        let (tallies, at) = (Tallies::default(), Instant::now());
        let tally = Tally { count: 7, highest: 8 };
        tallies.remember("t", at, tally);
        assert_eq!(tallies.lookup("t", at + STANDS / 2), Some(tally));
        assert_eq!(tallies.lookup("other", at), None);
        assert_eq!(tallies.lookup("t", at + STANDS), None);
        assert_eq!(tallies.lookup("t", at + STANDS), Some(tally), "somebody counts already");
        for n in 0..=KEPT {
            tallies.remember(&n.to_string(), at, tally);
        }
        assert!(tallies.0.lock().len() <= KEPT);
    }
}
