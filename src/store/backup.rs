//! Copies of the embedded store: taken while it is written to, looked at, put together again.
//! Encrypting them is the server's; copying a PostgreSQL is that database's own.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::store::StoreError;
use crate::store::sqlite::{self, fault};

/// Which part of a store a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Whole,
    /// All but the wraps of identity keys: nothing in it opens without the other part.
    WithoutWraps,
    /// The wraps of identity keys alone.
    WrapsAlone,
}

impl Content {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Whole, Self::WithoutWraps, Self::WrapsAlone];

    /// Names it as headers do.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::WithoutWraps => "without-key-wraps",
            Self::WrapsAlone => "key-wraps",
        }
    }
}

/// What a copy says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Version of its schema.
    pub schema: i64,
    /// Entries in its log.
    pub log_size: i64,
    /// The root over them; empty before the first.
    pub log_root: Vec<u8>,
}

/// Copies a store into a new file, as it is at one moment; whoever writes to it goes on.
///
/// # Errors
/// [`StoreError::Full`]; what SQLite answers otherwise. What was written then is the caller's to
/// remove.
pub fn copy(store: &Path, to: &Path, content: Content) -> Result<(), StoreError> {
    match content {
        Content::Whole => vacuum(store, to),
        Content::WithoutWraps => {
            vacuum(store, to)?;
            let copy = edit(to)?;
            told(copy.execute("DELETE FROM key_wraps", ())).map(drop)
        }
        Content::WrapsAlone => {
            let copy = edit(to)?;
            told(copy.execute("ATTACH ?1 AS store", (text(store)?,)))?;
            // One transaction: the head is that of the wraps.
            told(copy.execute_batch(
                "BEGIN; \
                 CREATE TABLE key_wraps AS SELECT * FROM store.key_wraps; \
                 CREATE TABLE schema_versions AS SELECT * FROM store.schema_versions; \
                 CREATE TABLE log_head AS SELECT * FROM store.log_head; \
                 COMMIT; DETACH store",
            ))
        }
    }
}

/// Reads what a copy says of itself.
///
/// # Errors
/// What SQLite answers: for what is no copy of a store, too.
pub fn summary(copy: &Path) -> Result<Summary, StoreError> {
    let copy = sqlite::open(copy, sqlite::Mode::Read)?;
    let sql = "SELECT (SELECT MAX(version) FROM schema_versions), size, root FROM log_head \
               WHERE id = 1";
    told(copy.query_row(sql, (), |row| {
        Ok(Summary { schema: row.get(0)?, log_size: row.get(1)?, log_root: row.get(2)? })
    }))
}

/// Counts the wraps in a copy.
///
/// # Errors
/// What SQLite answers.
pub fn wraps_in(copy: &Path) -> Result<i64, StoreError> {
    let copy = sqlite::open(copy, sqlite::Mode::Read)?;
    told(copy.query_row("SELECT COUNT(*) FROM key_wraps", (), |row| row.get(0)))
}

/// Tells whether SQLite finds a file whole.
///
/// # Errors
/// What SQLite answers.
pub fn is_whole(copy: &Path) -> Result<bool, StoreError> {
    let copy = sqlite::open(copy, sqlite::Mode::Read)?;
    let found = copy.query_row("PRAGMA integrity_check(1)", (), |row| row.get::<_, String>(0));
    told(found).map(|found| found == "ok")
}

/// Puts wraps into a copy that has none, of the keys that it knows; counts them. A key that was
/// destroyed by then gets none back from wraps that are older.
///
/// # Errors
/// What SQLite answers.
pub fn join_wraps(copy: &Path, wraps: &Path) -> Result<usize, StoreError> {
    let copy = edit(copy)?;
    told(copy.execute("ATTACH ?1 AS wraps", (text(wraps)?,)))?;
    told(copy.execute(
        "INSERT INTO key_wraps (key_id, recipient, suite, blob) \
         SELECT key_id, recipient, suite, blob FROM wraps.key_wraps \
         WHERE key_id IN (SELECT id FROM identity_keys WHERE state <> 'destroyed')",
        (),
    ))
}

/// Copies a store page by page into a new file, without what was deleted.
fn vacuum(store: &Path, to: &Path) -> Result<(), StoreError> {
    let store = sqlite::open(store, sqlite::Mode::Read)?;
    told(store.execute("VACUUM INTO ?1", (text(to)?,))).map(drop)
}

/// Opens a copy to change it: nothing of what is deleted stays in it, or in a file beside it.
fn edit(copy: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = told(Connection::open_with_flags(copy, flags))?;
    told(connection.pragma_update(None, "journal_mode", "MEMORY"))?;
    told(connection.pragma_update(None, "secure_delete", "ON"))?;
    told(connection.pragma_update(None, "trusted_schema", "OFF"))?;
    Ok(connection)
}

fn text(path: &Path) -> Result<&str, StoreError> {
    path.to_str().ok_or_else(|| StoreError::Failed("a path that is no text".into()))
}

fn told<T>(done: rusqlite::Result<T>) -> Result<T, StoreError> {
    done.map_err(|error| fault(&error).0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::migrate;
    use crate::types::Id;

    fn store(dir: &Path) -> std::path::PathBuf {
        let path = dir.join("vault.db");
        migrate::sqlite(&path).unwrap();
        let store = Connection::open(&path).unwrap();
        let [key, gone] = [7, 8].map(|byte| Id::from_bytes([byte; 16]));
        store
            .execute_batch(&format!(
                "INSERT INTO identity_keys VALUES ('{key}', '{key}', 1, 'active', 0, 1, 1, x'00'); \
                 INSERT INTO identity_keys VALUES ('{gone}', '{gone}', 1, 'destroyed', 0, 2, 1, x'00'); \
                 INSERT INTO key_wraps VALUES ('{gone}', 'root', 1, x'bb'); \
                 INSERT INTO key_wraps VALUES ('{key}', 'root', 1, x'c0ffeec0ffeec0ffee'); \
                 INSERT INTO key_wraps VALUES ('other', 'root', 1, x'aa')"
            ))
            .unwrap();
        path
    }

    #[test]
    fn a_copy_without_wraps_holds_none_of_their_bytes_and_gets_those_of_keys_it_has_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let at = |name: &str| dir.path().join(name);
        for (name, content) in [
            ("whole", Content::Whole),
            ("without", Content::WithoutWraps),
            ("wraps", Content::WrapsAlone),
        ] {
            copy(&store, &at(name), content).unwrap();
            assert!(is_whole(&at(name)).unwrap(), "{name}");
            assert_eq!(summary(&at(name)).unwrap(), summary(&store).unwrap(), "{name}");
        }
        let wraps = |name: &str| wraps_in(&at(name)).unwrap();
        assert_eq!([wraps("whole"), wraps("without"), wraps("wraps")], [3, 0, 3]);
        let blob = [0xc0, 0xff, 0xee, 0xc0, 0xff, 0xee, 0xc0, 0xff, 0xee];
        let holds = |name: &str| {
            std::fs::read(at(name)).unwrap().windows(blob.len()).any(|part| part == blob)
        };
        assert!(holds("whole") && holds("wraps") && !holds("without"));

        assert_eq!(join_wraps(&at("without"), &at("wraps")).unwrap(), 1);
        assert_eq!(wraps("without"), 1);
        assert!(copy(&store, &at("whole"), Content::Whole).is_err(), "it replaces nothing");
    }
}
