//! The schema and its versions, under a lock.
//!
//! Twenty lines of our own instead of sqlx's migrator, because one way has to serve SQLite through
//! `rusqlite` and PostgreSQL through `sqlx`.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::params;
use crate::store::postgres::Server;
use crate::store::tx::Connection;
use crate::store::{Location, StoreError, Tx, backup, sqlite};

/// A version, and its text for each database.
type Migration = (i64, &'static str, &'static str);

/// Every migration.
const MIGRATIONS: &[Migration] = &[
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
        9,
        include_str!("../../migrations/sqlite/0009_wraps.sql"),
        include_str!("../../migrations/postgres/0009_wraps.sql"),
    ),
    (
        12,
        include_str!("../../migrations/sqlite/0012_reviewers.sql"),
        include_str!("../../migrations/postgres/0012_reviewers.sql"),
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
    (
        16,
        include_str!("../../migrations/sqlite/0016_recovery_sets.sql"),
        include_str!("../../migrations/postgres/0016_recovery_sets.sql"),
    ),
];

/// Brings a SQLite file up to date, making it where there is none. One that an older program wrote is
/// copied beside itself first.
pub(super) fn sqlite(path: &Path) -> Result<(), StoreError> {
    sqlite_with(path, MIGRATIONS)
}

fn sqlite_with(path: &Path, migrations: &[Migration]) -> Result<(), StoreError> {
    let connection = sqlite::open(path, sqlite::Mode::Create)?;
    let mut tx = Tx::new(Connection::Sqlite(connection), Arc::default(), true);
    if let Some(found) = sqlite::drive(version(&mut tx))?
        && found > 0
        && found < newest(migrations)
    {
        keep(path, found)?;
    }
    sqlite::drive(up(&mut tx, migrations))
}

/// Copies a store whose schema is about to change: `vault.db` to `vault.db.schema-8`. One that a start
/// left there which did not come to its end is replaced.
fn keep(path: &Path, schema: i64) -> Result<(), StoreError> {
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".schema-{schema}{end}"));
        PathBuf::from(name)
    };
    let (new, kept) = (beside(".new"), beside(""));
    let failed =
        |error: io::Error| StoreError::Failed(format!("the store cannot be copied: {error}"));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    // It is this user's alone from the first byte on: SQLite writes into a file that is empty.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let file = file.map_err(failed)?;
    backup::copy(path, &new, backup::Content::Whole)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&new, &kept).map_err(failed)?;
    tracing::warn!(copy = %kept.display(), "the store was copied before its schema changes");
    Ok(())
}

/// Brings a PostgreSQL database up to date. One that an older program wrote is changed only where
/// somebody says that it was backed up: that is for its own tools.
pub(super) async fn postgres(server: &Server, backed_up: bool) -> Result<(), StoreError> {
    let connection = server.connect().await?;
    let mut tx = Tx::new(Connection::Postgres(Box::new(connection)), Arc::default(), true);
    let known = newest(MIGRATIONS);
    if let Some(found) = version(&mut tx).await?
        && (1..known).contains(&found)
        && !backed_up
    {
        return Err(StoreError::Outdated { found, known });
    }
    up(&mut tx, MIGRATIONS).await
}

/// The newest version.
fn newest(migrations: &[Migration]) -> i64 {
    migrations.last().map_or(0, |(version, _, _)| *version)
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
    let known = newest(MIGRATIONS);
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

async fn up(tx: &mut Tx, migrations: &[Migration]) -> Result<(), StoreError> {
    // The exclusive lock keeps other nodes from migrating, and from committing, meanwhile.
    tx.begin(true).await?;
    tx.execute("CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT PRIMARY KEY)", vec![])
        .await?;
    let row = tx.query_one("SELECT COALESCE(MAX(version), 0) FROM schema_versions", vec![]).await?;
    let found: i64 = row.ok_or(StoreError::Malformed)?.take()?;
    let known = newest(migrations);
    if found > known {
        tx.rollback().await?;
        return Err(StoreError::Newer { found, known });
    }
    for (version, lite, postgres) in migrations.iter().filter(|(version, _, _)| *version > found) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_an_older_program_is_copied_before_its_schema_changes_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault.db");
        let names = || {
            let names = std::fs::read_dir(dir.path()).unwrap();
            let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name.contains("schema")).collect::<Vec<_>>()
        };
        let before = &MIGRATIONS[..MIGRATIONS.len() - 1];
        sqlite_with(&path, before).unwrap();
        sqlite_with(&path, before).unwrap();
        assert!(names().is_empty(), "a new store and one that is up to date are not copied");
        let was = newest(before);
        // A start that did not come to its end left half of one.
        std::fs::write(dir.path().join(format!("vault.db.schema-{was}.new")), b"half").unwrap();
        sqlite(&path).unwrap();
        assert_eq!(names(), [format!("vault.db.schema-{was}")]);
        let kept = dir.path().join(format!("vault.db.schema-{was}"));
        assert_eq!(backup::summary(&kept).unwrap().schema, was);
        assert_eq!(backup::summary(&path).unwrap().schema, newest(MIGRATIONS));
        // What was copied is a store that the program before starts on.
        sqlite_with(&kept, before).unwrap();
    }
}
