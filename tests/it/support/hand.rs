//! Somebody who can write to the database: either store, by hand.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use strongroom::store::Location;

/// A hand in the database.
pub(crate) struct Hand(Location);

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) first: i64,
    pub(crate) lane: i64,
    pub(crate) seq: i64,
    pub(crate) entries: i64,
}

impl Hand {
    pub(crate) fn new(location: &Location) -> Self {
        Self(location.clone())
    }

    /// Runs statements.
    pub(crate) async fn run(&self, sql: &str) {
        match &self.0 {
            Location::Sqlite { path, .. } => {
                let store = rusqlite::Connection::open(path).unwrap();
                store.busy_timeout(Duration::from_secs(10)).unwrap();
                store.execute_batch(sql).expect(sql);
            }
            Location::Postgres { url, .. } => {
                let mut store = PgConnection::connect(url).await.unwrap();
                store.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.expect(sql);
            }
        }
    }

    /// Holds the authority epoch of a PostgreSQL store where it is: a trigger swallows each step.
    pub(crate) async fn hold_epoch(&self) {
        self.run(
            "CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN NEW.epoch := OLD.epoch; RETURN NEW; END';\
             CREATE TRIGGER stay BEFORE UPDATE ON authority FOR EACH ROW EXECUTE FUNCTION stay()",
        )
        .await;
    }

    /// Asks for texts.
    pub(crate) async fn ask(&self, sql: &str) -> Vec<String> {
        match &self.0 {
            Location::Sqlite { path, .. } => {
                let store = rusqlite::Connection::open(path).unwrap();
                let mut query = store.prepare(sql).expect(sql);
                let rows = query.query_map([], |row| row.get(0)).unwrap();
                rows.map(Result::unwrap).collect()
            }
            Location::Postgres { url, .. } => {
                let mut store = PgConnection::connect(url).await.unwrap();
                let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
                query.fetch_all(&mut store).await.expect(sql)
            }
        }
    }

    /// Reads one value of bytes; `rest` begins with the table.
    pub(crate) async fn bytes(&self, column: &str, rest: &str) -> Vec<u8> {
        let hex = match &self.0 {
            Location::Sqlite { .. } => format!("hex({column})"),
            Location::Postgres { .. } => format!("encode({column}, 'hex')"),
        };
        let found = self.ask(&format!("SELECT {hex} FROM {rest}")).await;
        strongroom::crypto::parse_hex(&found[0].to_lowercase()).unwrap()
    }

    /// Writes bytes as the store's own literal.
    pub(crate) fn literal(&self, bytes: &[u8]) -> String {
        let hex = strongroom::crypto::hex(bytes);
        match &self.0 {
            Location::Sqlite { .. } => format!("X'{hex}'"),
            Location::Postgres { .. } => format!("'\\x{hex}'::bytea"),
        }
    }

    /// Every batch that has its place, in the log's order.
    pub(crate) async fn places(&self) -> Vec<Place> {
        let sql = "SELECT first || ' ' || lane || ' ' || seq || ' ' || entries FROM log_places \
                   ORDER BY first";
        let places = self.ask(sql).await;
        let place = |text: &String| {
            let parts: Vec<i64> = text.split(' ').map(|part| part.parse().unwrap()).collect();
            Place { first: parts[0], lane: parts[1], seq: parts[2], entries: parts[3] }
        };
        places.iter().map(place).collect()
    }

    /// The log's head, as statements that put it back.
    pub(crate) async fn head(&self) -> String {
        let (root, edge) =
            (self.bytes("root", "log_head").await, self.bytes("edge", "log_head").await);
        let (lanes, mac) =
            (self.bytes("lanes", "log_head").await, self.bytes("mac", "log_head").await);
        let size = &self.ask("SELECT '' || size FROM log_head").await[0];
        let note = &self.ask("SELECT checkpoint FROM log_head").await[0];
        format!(
            "UPDATE log_head SET size = {size}, root = {}, edge = {}, lanes = {}, mac = {}, \
             checkpoint = '{note}'",
            self.literal(&root),
            self.literal(&edge),
            self.literal(&lanes),
            self.literal(&mac)
        )
    }
}
