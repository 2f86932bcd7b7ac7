//! One transaction, on either database: statements in, rows out, sealed rows on top.

use crate::error::{Error, Result};
use crate::params;
use crate::store::sealed::{change, sealed_bytes};
use crate::store::{Change, Row, RowRef, RowSealer, SealedRow, StoreError, Value, Versioned};
use crate::store::{intact, postgres, sqlite};
use std::sync::Arc;

/// The connection that a transaction runs on; owned for its length.
#[derive(Debug)]
pub(super) enum Connection {
    Sqlite(rusqlite::Connection),
    Postgres(Box<sqlx::PgConnection>),
    /// A view from the pool, which rolls it back when it gets the connection again.
    View(Box<sqlx::pool::PoolConnection<sqlx::Postgres>>),
}

/// A transaction. Its futures never wait on SQLite, so the writer's thread drives them to the end.
#[derive(Debug)]
pub struct Tx {
    connection: Connection,
    pub(super) sealer: Arc<RowSealer>,
    /// What was seen before this transaction began may not be undercut in it.
    since: u64,
    writes: bool,
    changes: Vec<Change>,
    may_bump: bool,
    job: JobState,
    poison: Option<StoreError>,
    /// What was deleted is to leave nothing behind in the files, once it is durable.
    pub(super) wipe: bool,
}

/// What the statements of one job came to.
#[derive(Debug, Clone, Copy, Default)]
struct JobState {
    /// The authority epoch moves with it.
    bumped: bool,
    /// A statement failed.
    failed: bool,
    /// A statement changed a row.
    wrote: bool,
}

/// Where a part of a job began.
#[derive(Debug)]
pub struct Part {
    changes: usize,
    job: JobState,
}

impl Tx {
    pub(super) fn new(connection: Connection, sealer: Arc<RowSealer>, writes: bool) -> Self {
        let since = sealer.moment();
        Self {
            connection,
            sealer,
            since,
            writes,
            changes: Vec::new(),
            may_bump: false,
            job: JobState::default(),
            poison: None,
            wipe: false,
        }
    }

    /// Forgets the transaction before: the connection begins another.
    pub(super) fn renew(&mut self) {
        self.since = self.sealer.moment();
        self.changes.clear();
        self.begin_job(false);
        self.poison = None;
    }

    /// Forgets the job before.
    pub(super) fn begin_job(&mut self, may_bump: bool) {
        self.may_bump = may_bump;
        self.job = JobState::default();
    }

    /// Begins a part of a job that may fail without it.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub async fn begin_part(&mut self) -> Result<Part, StoreError> {
        self.execute("SAVEPOINT part", vec![]).await?;
        Ok(Part { changes: self.changes.len(), job: self.job })
    }

    /// Ends a part: keeps it, or leaves nothing of it.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub async fn end_part(&mut self, part: Part, keep: bool) -> Result<(), StoreError> {
        if !keep {
            self.execute("ROLLBACK TO part", vec![]).await?;
            self.changes.truncate(part.changes);
            self.job = part.job;
        }
        self.execute("RELEASE part", vec![]).await.map(drop)
    }

    pub(super) const fn failed(&self) -> bool {
        self.job.failed
    }

    pub(super) const fn wrote(&self) -> bool {
        self.job.wrote
    }

    pub(super) const fn is_postgres(&self) -> bool {
        matches!(self.connection, Connection::Postgres(_) | Connection::View(_))
    }

    /// The failure after which nothing more may reach the database, if there was one.
    pub(super) const fn poison(&self) -> Option<&StoreError> {
        self.poison.as_ref()
    }

    pub(super) fn sealer(&self) -> &RowSealer {
        &self.sealer
    }

    /// Runs a statement and counts the rows it changed.
    ///
    /// # Errors
    /// Whatever the database answers; after an answer that may have rolled the transaction back,
    /// [`StoreError::Poisoned`] for everything that follows.
    pub async fn execute(&mut self, sql: &str, params: Vec<Value>) -> Result<u64, StoreError> {
        self.accept(&params)?;
        let done = match &mut self.connection {
            Connection::Sqlite(connection) => sqlite::execute(connection, sql, &params),
            Connection::Postgres(connection) => postgres::execute(connection, sql, params).await,
            Connection::View(view) => postgres::execute(view, sql, params).await,
        };
        let count = self.judge(done)?;
        self.job.wrote |= count > 0;
        Ok(count)
    }

    /// Runs a query.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub async fn query(&mut self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        self.accept(&params)?;
        let rows = match &mut self.connection {
            Connection::Sqlite(connection) => sqlite::query(connection, sql, &params),
            Connection::Postgres(connection) => postgres::query(connection, sql, params).await,
            Connection::View(view) => postgres::query(view, sql, params).await,
        };
        self.judge(rows)
    }

    /// Runs a query that yields one row at most.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub async fn query_one(
        &mut self,
        sql: &str,
        params: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// Lets nothing through to a poisoned transaction, nor a NUL in text, which SQLite would keep
    /// and PostgreSQL refuse.
    fn accept(&mut self, params: &[Value]) -> Result<(), StoreError> {
        if self.poison.is_some() {
            return Err(StoreError::Poisoned);
        }
        if params.iter().any(|value| matches!(value, Value::Text(text) if text.contains('\0'))) {
            self.job.failed = true;
            return Err(StoreError::Malformed);
        }
        Ok(())
    }

    fn judge<T>(&mut self, answer: Result<T, (StoreError, bool)>) -> Result<T, StoreError> {
        answer.map_err(|(error, poisons)| {
            self.job.failed = true;
            if poisons {
                self.poison = Some(error.clone());
            }
            error
        })
    }

    /// Selects sealed rows, each verified; `tail` begins with `WHERE`.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] when one of them is not what was sealed.
    pub async fn select<T: SealedRow>(
        &mut self,
        tail: &str,
        params: Vec<Value>,
    ) -> Result<Vec<Versioned<T>>, StoreError> {
        let rows = self.query(&T::TABLE.select(tail), params).await?;
        let mut opened = Vec::with_capacity(rows.len());
        for row in rows {
            let row = self.sealer.open::<T>(row, self.since)?;
            // What a writing transaction reads may be its own, and not yet true for anybody else.
            if !self.writes {
                self.sealer.saw(T::TABLE.name, &row.row.key(), row.version);
            }
            opened.push(row);
        }
        Ok(opened)
    }

    /// Selects sealed rows and leaves out those that are not what was sealed, each with an alarm:
    /// for where one of them must not keep the rest from being done.
    ///
    /// # Errors
    /// As [`Tx::query`].
    pub async fn select_intact<T: SealedRow>(
        &mut self,
        tail: &str,
        params: Vec<Value>,
    ) -> Result<Vec<Versioned<T>>, StoreError> {
        let rows = self.query(&T::TABLE.select(tail), params).await?;
        let open = |row| intact(self.sealer.open::<T>(row, self.since).map(Some));
        rows.into_iter().map(open).filter_map(Result::transpose).collect()
    }

    /// Selects one sealed row by its key, unless it is not what was sealed.
    ///
    /// # Errors
    /// As [`Tx::query`].
    pub async fn lookup_intact<T: SealedRow>(
        &mut self,
        key: &impl ToString,
    ) -> Result<Option<Versioned<T>>, StoreError> {
        intact(self.lookup(key).await)
    }

    /// Selects one sealed row by its key.
    ///
    /// # Errors
    /// As [`Tx::select`].
    pub async fn lookup<T: SealedRow>(
        &mut self,
        key: &impl ToString,
    ) -> Result<Option<Versioned<T>>, StoreError> {
        let rows = self.select("WHERE id = $1", vec![Value::Text(key.to_string())]).await?;
        Ok(rows.into_iter().next())
    }

    /// Selects one sealed row by a unique column.
    ///
    /// # Errors
    /// As [`Tx::select`].
    pub async fn lookup_where<T: SealedRow>(
        &mut self,
        tail: &str,
        params: Vec<Value>,
    ) -> Result<Option<Versioned<T>>, StoreError> {
        Ok(self.select(tail, params).await?.into_iter().next())
    }

    /// Inserts a sealed row as version 1.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when a unique key is taken.
    pub async fn insert<T: SealedRow + Clone>(
        &mut self,
        row: &T,
    ) -> Result<Versioned<T>, StoreError> {
        let first = Versioned::first(row.clone());
        let mut params = row.to_columns();
        let change = self.seal::<T>(&mut params, first.version, row.key())?;
        if self.execute(&T::TABLE.texts.insert, params).await? != 1 {
            return Err(StoreError::Failed("an insert changed no row".into()));
        }
        self.changes.push(change);
        Ok(first)
    }

    /// Replaces a sealed row if its version is still the one that was read.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when somebody else was first.
    pub async fn update<T: SealedRow + Clone>(
        &mut self,
        read: i64,
        row: &T,
    ) -> Result<Versioned<T>, StoreError> {
        let version = read.checked_add(1).ok_or(StoreError::Malformed)?;
        self.put(Some(read), version, row).await
    }

    /// Puts a row in the place of one that is not what was sealed, or that is gone, under a version
    /// that nobody has seen. `found` is the version that what is there claims to have.
    ///
    /// # Errors
    /// [`StoreError::Stale`] or [`StoreError::Taken`] when somebody else was first.
    pub async fn put<T: SealedRow + Clone>(
        &mut self,
        found: Option<i64>,
        version: i64,
        row: &T,
    ) -> Result<Versioned<T>, StoreError> {
        let mut params = row.to_columns();
        let change = self.seal::<T>(&mut params, version, row.key())?;
        let sql = match found {
            Some(found) => {
                params.push(Value::Int(found));
                &T::TABLE.texts.update
            }
            None => &T::TABLE.texts.insert,
        };
        if self.execute(sql, params).await? != 1 {
            return Err(StoreError::Stale);
        }
        self.changes.push(change);
        Ok(Versioned { row: row.clone(), version })
    }

    /// As [`Tx::update`], and sets no column that stays as it is: each that is set costs SQLite
    /// every index that it stands in.
    ///
    /// # Errors
    /// As [`Tx::update`].
    pub async fn change<T: SealedRow + Clone>(
        &mut self,
        read: &Versioned<T>,
        row: &T,
    ) -> Result<Versioned<T>, StoreError> {
        let version = read.version.checked_add(1).ok_or(StoreError::Malformed)?;
        let (was, mut values) = (read.row.to_columns(), row.to_columns());
        let sealed = self.seal::<T>(&mut values, version, row.key())?;
        let (mut changed, mut params) = (Vec::new(), Vec::with_capacity(values.len()));
        for (place, value) in values.into_iter().enumerate() {
            // The key comes first and is looked for; what follows the columns always changes.
            if place > 0 && was.get(place) == Some(&value) {
                continue;
            }
            changed.extend(place.checked_sub(1).filter(|_| place < was.len()));
            params.push(value);
        }
        params.push(Value::Int(read.version));
        if self.execute(&T::TABLE.change(&changed), params).await? != 1 {
            return Err(StoreError::Stale);
        }
        self.changes.push(sealed);
        Ok(Versioned { row: row.clone(), version })
    }

    fn seal<T: SealedRow>(
        &self,
        params: &mut Vec<Value>,
        version: i64,
        key: String,
    ) -> Result<Change, StoreError> {
        let table = T::TABLE;
        let input = sealed_bytes(table.name, version, table.seal_version, params);
        let mac = self.sealer.seal(&input)?;
        params.extend([
            Value::Int(version),
            Value::Int(table.seal_version),
            Value::Bytes(mac.to_vec()),
        ]);
        Ok(change(table.name, key, version, &input))
    }

    /// Says that this transaction changes what decisions stand on: the authority epoch moves.
    ///
    /// # Errors
    /// [`Error::Internal`] when the operation did not declare it, because its group then holds the
    /// shared lock alone.
    pub fn bump_authority(&mut self) -> Result<()> {
        if !self.may_bump {
            return Err(Error::internal("an undeclared change of authority"));
        }
        self.job.bumped = true;
        Ok(())
    }

    pub(super) const fn bumped(&self) -> bool {
        self.job.bumped
    }

    pub(super) fn set_bumped(&mut self, bumped: bool) {
        self.job.bumped = bumped;
    }

    /// Shows the sealed rows that this job changed so far.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    // How a transaction begins and ends, told by the store alone.

    /// Begins a group. One that changes authority takes the lock exclusively from its start, never
    /// by upgrade, which would deadlock.
    pub(super) async fn begin(&mut self, exclusive: bool) -> Result<(), StoreError> {
        if !self.is_postgres() {
            self.execute("BEGIN IMMEDIATE", vec![]).await?;
            return Ok(());
        }
        // Every statement has to see what was committed before the lock was granted, whatever the
        // server's default: a snapshot taken with the lock would be older than it.
        self.execute(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '5s'; \
             SET LOCAL statement_timeout = '10s'",
            vec![],
        )
        .await?;
        let lock = if exclusive {
            "SELECT pg_advisory_xact_lock($1)::text"
        } else {
            "SELECT pg_advisory_xact_lock_shared($1)::text"
        };
        self.query(lock, params![AUTHORITY_LOCK]).await?;
        Ok(())
    }

    /// Holds something until the transaction ends; for PostgreSQL.
    pub(super) async fn hold(&mut self, key: i32) -> Result<(), StoreError> {
        let sql = "SELECT pg_advisory_xact_lock($1::bigint::int, $2::bigint::int)::text";
        self.query(sql, params![HELD, i64::from(key)]).await.map(drop)
    }

    pub(super) async fn commit(&mut self) -> Result<(), StoreError> {
        self.execute("COMMIT", vec![]).await.map(drop)
    }

    pub(super) async fn rollback(&mut self) -> Result<(), StoreError> {
        self.poison = None;
        self.execute("ROLLBACK", vec![]).await.map(drop)
    }

    pub(super) async fn begin_read(&mut self) -> Result<(), StoreError> {
        self.execute("BEGIN", vec![]).await.map(drop)
    }

    pub(super) async fn end_read(&mut self) -> Result<(), StoreError> {
        self.rollback().await
    }

    /// Reads the authority epoch.
    ///
    /// # Errors
    /// As [`Tx::query`].
    pub async fn epoch(&mut self) -> Result<i64, StoreError> {
        let row = self.query_one("SELECT epoch FROM authority WHERE id = 1", vec![]).await?;
        row.ok_or(StoreError::Malformed)?.take()
    }

    /// Tells whether each row is still at the version that was read.
    pub(super) async fn stands(&mut self, rows: &[RowRef]) -> Result<bool, StoreError> {
        for row in rows {
            let sql = format!("SELECT row_version FROM {} WHERE id = $1", row.table.name);
            let found = self.query_one(&sql, vec![Value::Text(row.key.clone())]).await?;
            let version: Option<i64> = found.map(|mut found| found.take()).transpose()?;
            if version != Some(row.version) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// First part of the keys of advisory locks on what a job holds: `held` in ASCII. They are none of
/// those with one key.
const HELD: i64 = 0x6865_6c64;
/// Key of the advisory lock that keeps the authority epoch: `strongrm` in ASCII.
const AUTHORITY_LOCK: i64 = 0x7374_726f_6e67_726d;
