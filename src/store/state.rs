//! Sealed rows beside what the record says of them: every table of sealed rows in its order, and a
//! file of this process alone that holds the newest version that was named of each row.

use std::fmt;

use rusqlite::OptionalExtension as _;

use crate::crypto::sha256;
use crate::params;
use crate::store::sealed::sealed_bytes;
use crate::store::sqlite::fault;
use crate::store::{
    Row, SealedRow, StoreError, Table, Tx, Value, ceremonies, credentials, crls, database,
    elevations, factors, identities, issuers, keys, lifecycles, logins, named_keys, notices, pki,
    recovery, recovery_sets, rotations, secrets, shreds, wraps,
};

/// Every table of sealed rows; the conformance suite compares the list with the schema.
pub static TABLES: &[&Table] = &[
    keys::VaultRow::TABLE,
    keys::SealRow::TABLE,
    keys::HsmKeyRow::TABLE,
    keys::IdentityKeyRow::TABLE,
    rotations::RotationRow::TABLE,
    rotations::ScheduleRow::TABLE,
    shreds::ShredRow::TABLE,
    ceremonies::CeremonyRow::TABLE,
    identities::IdentityRow::TABLE,
    identities::GroupRow::TABLE,
    identities::MemberRow::TABLE,
    identities::GrantRow::TABLE,
    credentials::CredentialRow::TABLE,
    lifecycles::LifecycleRow::TABLE,
    logins::LoginKeyRow::TABLE,
    factors::FactorRow::TABLE,
    factors::GuardRow::TABLE,
    factors::CodeRow::TABLE,
    factors::InvitationRow::TABLE,
    recovery::RecoveryRow::TABLE,
    recovery_sets::RecoverySetRow::TABLE,
    elevations::ElevationRoleRow::TABLE,
    elevations::ElevationRow::TABLE,
    issuers::IssuerRow::TABLE,
    issuers::RuleRow::TABLE,
    issuers::RegistrationRow::TABLE,
    issuers::ReviewerRow::TABLE,
    wraps::WrapRow::TABLE,
    secrets::SecretRow::TABLE,
    secrets::SecretHeadRow::TABLE,
    secrets::SecretVersionRow::TABLE,
    named_keys::NamedKeyRow::TABLE,
    named_keys::NamedKeyVersionRow::TABLE,
    named_keys::NamedKeyCountRow::TABLE,
    database::ConnectionRow::TABLE,
    database::TargetRow::TABLE,
    database::RoleRow::TABLE,
    pki::PkiRoleRow::TABLE,
    crls::CrlRow::TABLE,
    notices::NoticeRow::TABLE,
    notices::NoticeHeadRow::TABLE,
    notices::NoticeSinkRow::TABLE,
];

/// Rows that are read in one view.
pub const PAGE: i64 = 500;

/// The one table whose rows are deleted when they are old.
#[must_use]
pub fn is_purged(table: &Table) -> bool {
    table.name == notices::NoticeRow::TABLE.name
}

/// A version of a row: what the table holds, or what the record named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowState {
    /// The row's key.
    pub key: String,
    /// Its version; 0 where what stands there is none.
    pub version: i64,
    /// SHA-256 of what is sealed.
    pub hash: Vec<u8>,
}

/// Reads the rows of a table behind a key, in order. No MAC is verified: what they are compared with
/// is what was sealed.
pub async fn rows_after(
    tx: &mut Tx,
    table: &'static Table,
    after: &str,
) -> Result<Vec<RowState>, StoreError> {
    let sql = table.select("WHERE id > $1 ORDER BY id LIMIT $2");
    let rows = tx.query(&sql, params![after.to_owned(), PAGE]).await?;
    Ok(rows.iter().map(|row| state_of(table, row)).collect())
}

fn state_of(table: &Table, row: &Row) -> RowState {
    let values = row.rest();
    let key = match values.first() {
        Some(Value::Text(key)) => key.clone(),
        Some(Value::Null | Value::Int(_) | Value::Bytes(_)) | None => String::new(),
    };
    let sealed = table.columns.len().saturating_add(1);
    match (values.get(..sealed), values.get(sealed..)) {
        (Some(columns), Some([Value::Int(version), Value::Int(seal), ..])) => {
            let hash = sha256(&sealed_bytes(table.name, *version, *seal, columns));
            RowState { key, version: *version, hash: hash.to_vec() }
        }
        _ => RowState { key, version: 0, hash: Vec::new() },
    }
}

/// The newest version of each row that the record named so far, in a file without a name: nobody
/// else can open it, and it is gone with the process. What SQLite keeps in memory of it is bounded.
pub struct Folded(rusqlite::Connection);

/// A change as the record names it: the table by its place in [`TABLES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The table.
    pub table: usize,
    /// The row as the change made it.
    pub row: RowState,
}

/// Memory for pages of the file, in KiB; negative is how SQLite is told so.
const CACHE_KIB: i64 = -8_192;

impl Folded {
    /// Makes an empty one.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn new() -> Result<Self, StoreError> {
        let make = || -> rusqlite::Result<rusqlite::Connection> {
            // A database without a name is a file that SQLite unlinks as it makes it.
            let connection = rusqlite::Connection::open("")?;
            connection.pragma_update(None, "journal_mode", "OFF")?;
            connection.pragma_update(None, "synchronous", "OFF")?;
            connection.pragma_update(None, "cache_size", CACHE_KIB)?;
            connection.execute_batch(
                "CREATE TABLE folded (tab INTEGER NOT NULL, id TEXT NOT NULL, \
                 version INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (tab, id)) \
                 WITHOUT ROWID",
            )?;
            Ok(connection)
        };
        make().map(Self).map_err(|error| fault(&error).0)
    }

    /// Takes changes; of each row the newest stays, in whatever order they come.
    ///
    /// # Errors
    /// What SQLite answers; what was taken then is undefined.
    pub fn put(&mut self, changes: &[Named]) -> Result<(), StoreError> {
        let mut put = || -> rusqlite::Result<()> {
            let tx = self.0.transaction()?;
            {
                let mut statement = tx.prepare_cached(
                    "INSERT INTO folded (tab, id, version, hash) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT (tab, id) DO UPDATE SET version = excluded.version, \
                     hash = excluded.hash WHERE excluded.version > folded.version",
                )?;
                for Named { table, row } in changes {
                    statement.execute((place(*table), &row.key, row.version, &row.hash))?;
                }
            }
            tx.commit()
        };
        put().map_err(|error| fault(&error).0)
    }

    /// Lists rows of a table behind a key, up to another where one is given, in order.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn rows(
        &self,
        table: usize,
        after: &str,
        upto: Option<&str>,
    ) -> Result<Vec<RowState>, StoreError> {
        let list = || -> rusqlite::Result<Vec<RowState>> {
            let mut statement = self.0.prepare_cached(
                "SELECT id, version, hash FROM folded WHERE tab = ?1 AND id > ?2 \
                 AND (?3 IS NULL OR id <= ?3) ORDER BY id LIMIT ?4",
            )?;
            let rows = statement.query_map((place(table), after, upto, PAGE), |row| {
                Ok(RowState { key: row.get(0)?, version: row.get(1)?, hash: row.get(2)? })
            })?;
            rows.collect()
        };
        list().map_err(|error| fault(&error).0)
    }

    /// Finds a row.
    ///
    /// # Errors
    /// What SQLite answers.
    pub fn lookup(&self, table: usize, key: &str) -> Result<Option<RowState>, StoreError> {
        let find = || -> rusqlite::Result<Option<RowState>> {
            let mut statement = self
                .0
                .prepare_cached("SELECT version, hash FROM folded WHERE tab = ?1 AND id = ?2")?;
            statement
                .query_row((place(table), key), |row| {
                    Ok(RowState { key: key.to_owned(), version: row.get(0)?, hash: row.get(1)? })
                })
                .optional()
        };
        find().map_err(|error| fault(&error).0)
    }
}

fn place(table: usize) -> i64 {
    i64::try_from(table).unwrap_or(i64::MAX)
}

impl fmt::Debug for Folded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Folded")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(table: usize, key: &str, version: i64) -> Named {
        let hash = sha256(&version.to_be_bytes()).to_vec();
        Named { table, row: RowState { key: key.into(), version, hash } }
    }

    #[test]
    fn of_each_row_the_newest_version_stays_in_whatever_order_they_come() {
        let mut folded = Folded::new().unwrap();
        folded.put(&[named(0, "b", 2), named(0, "a", 1), named(1, "b", 9)]).unwrap();
        folded.put(&[named(0, "b", 1), named(0, "c", 4), named(0, "a", 3)]).unwrap();
        let keys = |after: &str, upto: Option<&str>| {
            let rows = folded.rows(0, after, upto).unwrap().into_iter();
            rows.map(|row| (row.key, row.version)).collect::<Vec<_>>()
        };
        let all = [("a", 3), ("b", 2), ("c", 4)].map(|(key, version)| (key.to_owned(), version));
        assert_eq!(keys("", None), all);
        assert_eq!(keys("a", Some("b")), all[1..2]);
        assert_eq!(folded.lookup(1, "b").unwrap().unwrap().version, 9);
        assert_eq!(folded.lookup(1, "a").unwrap(), None);
    }

    #[test]
    fn every_table_of_sealed_rows_is_on_the_list() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault.db");
        crate::store::migrate::sqlite(&path).unwrap();
        let store = rusqlite::Connection::open(&path).unwrap();
        let sql = "SELECT m.name FROM sqlite_schema m JOIN pragma_table_info(m.name) p \
                   WHERE m.type = 'table' AND p.name = 'row_version' ORDER BY m.name";
        let mut statement = store.prepare(sql).unwrap();
        let found = statement.query_map((), |row| row.get(0)).unwrap();
        let found: Vec<String> = found.map(Result::unwrap).collect();
        let mut known: Vec<_> = TABLES.iter().map(|table| table.name.to_owned()).collect();
        known.sort();
        assert_eq!(known, found);
    }
}
