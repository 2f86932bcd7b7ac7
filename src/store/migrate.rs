//! The schema and its versions, under a lock.
//!
//! Twenty lines of our own instead of sqlx's migrator, because one way has to serve SQLite through
//! `rusqlite` and PostgreSQL through `sqlx`.

use std::path::Path;
use std::sync::Arc;

use crate::params;
use crate::store::postgres::Server;
use crate::store::tx::Connection;
use crate::store::{Location, StoreError, Tx, sqlite};

/// Every migration: its version and its text for each database.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (
        1,
        include_str!("../../migrations/sqlite/0001_house.sql"),
        include_str!("../../migrations/postgres/0001_house.sql"),
    ),
    (
        2,
        include_str!("../../migrations/sqlite/0002_factors.sql"),
        include_str!("../../migrations/postgres/0002_factors.sql"),
    ),
    (
        3,
        include_str!("../../migrations/sqlite/0003_elevations.sql"),
        include_str!("../../migrations/postgres/0003_elevations.sql"),
    ),
    (
        4,
        include_str!("../../migrations/sqlite/0004_identities.sql"),
        include_str!("../../migrations/postgres/0004_identities.sql"),
    ),
    (
        5,
        include_str!("../../migrations/sqlite/0005_notices.sql"),
        include_str!("../../migrations/postgres/0005_notices.sql"),
    ),
    (
        6,
        include_str!("../../migrations/sqlite/0006_secrets.sql"),
        include_str!("../../migrations/postgres/0006_secrets.sql"),
    ),
    (
        7,
        include_str!("../../migrations/sqlite/0007_issuers.sql"),
        include_str!("../../migrations/postgres/0007_issuers.sql"),
    ),
    (
        8,
        include_str!("../../migrations/sqlite/0008_keys.sql"),
        include_str!("../../migrations/postgres/0008_keys.sql"),
    ),
    (
        13,
        include_str!("../../migrations/sqlite/0013_key_usage.sql"),
        include_str!("../../migrations/postgres/0013_key_usage.sql"),
    ),
    (
        14,
        include_str!("../../migrations/sqlite/0014_rotations.sql"),
        include_str!("../../migrations/postgres/0014_rotations.sql"),
    ),
    (
        15,
        include_str!("../../migrations/sqlite/0015_ceremonies.sql"),
        include_str!("../../migrations/postgres/0015_ceremonies.sql"),
    ),
];

/// Brings a SQLite file up to date, making it where there is none.
pub(super) fn sqlite(path: &Path) -> Result<(), StoreError> {
    let connection = sqlite::open(path, sqlite::Mode::Create)?;
    let mut tx = Tx::new(Connection::Sqlite(connection), Arc::default(), true);
    sqlite::drive(up(&mut tx))
}

/// Brings a PostgreSQL database up to date.
pub(super) async fn postgres(server: &Server) -> Result<(), StoreError> {
    let connection = server.connect().await?;
    let mut tx = Tx::new(Connection::Postgres(Box::new(connection)), Arc::default(), true);
    up(&mut tx).await
}

/// Tells the version in the store, and the one that this program knows.
pub(super) async fn inspect(location: &Location) -> Result<(Option<i64>, i64), StoreError> {
    let found = match location {
        Location::Sqlite { path, .. } => {
            let connection = Connection::Sqlite(sqlite::open(path, sqlite::Mode::Write)?);
            sqlite::drive(version(&mut Tx::new(connection, Arc::default(), true)))?
        }
        Location::Postgres { url, .. } => {
            let connection = Server::parse(url)?.connect().await?;
            let connection = Connection::Postgres(Box::new(connection));
            version(&mut Tx::new(connection, Arc::default(), true)).await?
        }
    };
    let known = MIGRATIONS.last().map_or(0, |(version, _, _)| *version);
    match found {
        Some(found) if found > known => Err(StoreError::Newer { found, known }),
        found => Ok((found, known)),
    }
}

async fn version(tx: &mut Tx) -> Result<Option<i64>, StoreError> {
    let table = if tx.is_postgres() {
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = current_schema() \
         AND table_name = 'schema_versions'"
    } else {
        "SELECT COUNT(*) FROM sqlite_schema WHERE name = 'schema_versions'"
    };
    tx.begin(true).await?;
    let there: i64 = tx.query_one(table, vec![]).await?.ok_or(StoreError::Malformed)?.take()?;
    let mut found = None;
    if there > 0 {
        let row = tx.query_one("SELECT MAX(version) FROM schema_versions", vec![]).await?;
        found = row.ok_or(StoreError::Malformed)?.take()?;
    }
    tx.rollback().await?;
    Ok(found)
}

async fn up(tx: &mut Tx) -> Result<(), StoreError> {
    // The exclusive lock keeps other nodes from migrating, and from committing, meanwhile.
    tx.begin(true).await?;
    tx.execute("CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT PRIMARY KEY)", vec![])
        .await?;
    let row = tx.query_one("SELECT COALESCE(MAX(version), 0) FROM schema_versions", vec![]).await?;
    let found: i64 = row.ok_or(StoreError::Malformed)?.take()?;
    let known = MIGRATIONS.last().map_or(0, |(version, _, _)| *version);
    if found > known {
        tx.rollback().await?;
        return Err(StoreError::Newer { found, known });
    }
    for (version, lite, postgres) in MIGRATIONS.iter().filter(|(version, _, _)| *version > found) {
        let text = if tx.is_postgres() { postgres } else { lite };
        for statement in text.split(";\n").map(str::trim).filter(|s| !s.is_empty()) {
            if tx.is_postgres() {
                // Text sorts by its bytes, as on SQLite, whatever the server's locale.
                let statement = statement.replace(" TEXT", " TEXT COLLATE \"C\"");
                tx.execute(&statement, vec![]).await?;
            } else {
                tx.execute(statement, vec![]).await?;
            }
        }
        tx.execute("INSERT INTO schema_versions (version) VALUES ($1)", params![*version]).await?;
    }
    tx.commit().await
}
