//! Rows that carry authority: each has a version and a MAC over all of it.
//!
//! Somebody who can write to the database cannot forge or edit such a row, because the MAC key is
//! under the HSM's root; and cannot put an older one back unnoticed, because a node remembers the
//! newest version it saw. Rows are never deleted: they end in a state, so that the version of an
//! ended row is remembered too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::{Mutex, RwLock};

use crate::crypto::{MacKey, sha256};
use crate::store::tally::{Bounds, Tallies};
use crate::store::{Row, StoreError, Value};

/// A table of sealed rows.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns between `id` and `row_version`, in the order in which they are sealed.
    pub columns: &'static [&'static str],
    /// Version of that list; a binary refuses to write a row with a newer one.
    pub seal_version: i64,
    /// Its statements, written once.
    pub texts: LazyLock<Texts>,
}

/// The statements that every table of sealed rows has.
#[derive(Debug)]
pub struct Texts {
    select: String,
    pub(super) insert: String,
    pub(super) update: String,
}

impl Texts {
    /// Writes them for a table and its columns.
    #[must_use]
    pub fn of(table: &str, columns: &[&str]) -> Self {
        let listed = columns.join(", ");
        let places: Vec<_> = (1..=columns.len() + 4).map(|i| format!("${i}")).collect();
        let all: Vec<_> = (0..columns.len()).collect();
        Self {
            select: format!("SELECT id, {listed}, row_version, seal_version, mac FROM {table} "),
            insert: format!(
                "INSERT INTO {table} (id, {listed}, row_version, seal_version, mac) VALUES ({})",
                places.join(", ")
            ),
            update: update(table, columns, &all),
        }
    }
}

impl Table {
    pub(super) fn select(&self, tail: &str) -> String {
        [self.texts.select.as_str(), tail].concat()
    }

    /// The compare-and-set that changes some of the columns, by their places in the list.
    pub(super) fn change(&self, changed: &[usize]) -> String {
        update(self.name, self.columns, changed)
    }
}

/// The compare-and-set: its parameters are the key, the columns that it sets, version, seal
/// version and MAC, and last the version that was read.
fn update(table: &str, columns: &[&str], changed: &[usize]) -> String {
    let names = changed.iter().filter_map(|index| columns.get(*index)).copied();
    let names = names.chain(["row_version", "seal_version", "mac"]);
    let sets: Vec<_> = (2..).zip(names).map(|(place, name)| format!("{name} = ${place}")).collect();
    let (listed, read) = (sets.join(", "), sets.len() + 2);
    format!("UPDATE {table} SET {listed} WHERE id = $1 AND row_version = ${read}")
}

/// A type that is stored as a sealed row; made by [`sealed_row!`](crate::sealed_row).
pub trait SealedRow: Sized + Send + Sync {
    /// Where it is stored.
    const TABLE: &'static Table;

    /// Shows its key.
    fn key(&self) -> String;

    /// Shows its columns in the table's order.
    fn to_columns(&self) -> Vec<Value>;

    /// Reads it back.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] when a column holds what it must not.
    fn from_columns(row: &mut Row) -> Result<Self, StoreError>;
}

/// A sealed row with the version that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<T> {
    /// What the row says.
    pub row: T,
    /// Its version, from 1.
    pub version: i64,
}

impl<T: SealedRow> Versioned<T> {
    /// A row as it is inserted.
    #[must_use]
    pub const fn first(row: T) -> Self {
        Self { row, version: 1 }
    }

    /// Points at the row as it was read, for fences.
    #[must_use]
    pub fn fence(&self) -> RowRef {
        RowRef { table: T::TABLE, key: self.row.key(), version: self.version }
    }
}

/// A sealed row that a decision stood on.
#[derive(Debug, Clone)]
pub struct RowRef {
    /// The table.
    pub table: &'static Table,
    /// The row's key.
    pub key: String,
    /// The version that was read.
    pub version: i64,
}

/// A change of a sealed row, as the record names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The table.
    pub table: &'static str,
    /// The row's key.
    pub key: String,
    /// The version that the change made.
    pub version: i64,
    /// SHA-256 of what is sealed.
    pub hash: [u8; 32],
}

/// Seals and verifies rows; holds the key while the vault is unsealed.
#[derive(Debug, Default)]
pub struct RowSealer {
    key: RwLock<Option<Arc<MacKey>>>,
    seen: Mutex<Seen>,
    marks: AtomicU64,
    /// What was counted lately.
    pub(super) tallies: Tallies,
    /// How many there are at most of what is not to be more.
    pub(super) bounds: Bounds,
}

impl RowSealer {
    /// Takes the key at unsealing, or drops it at sealing.
    pub fn set_key(&self, key: Option<MacKey>) {
        *self.key.write() = key.map(Arc::new);
    }

    /// A moment in the order in which versions were seen.
    pub(super) fn moment(&self) -> u64 {
        self.marks.load(Ordering::Acquire)
    }

    pub(super) fn seal(&self, input: &[u8]) -> Result<[u8; 32], StoreError> {
        let key = self.key.read().clone().ok_or(StoreError::Sealed)?;
        Ok(key.tag(&[input]))
    }

    fn verify(&self, input: &[u8], mac: &[u8]) -> Result<bool, StoreError> {
        let key = self.key.read().clone().ok_or(StoreError::Sealed)?;
        Ok(key.verify(&[input], mac))
    }

    /// Remembers a version that was read or committed.
    pub(super) fn saw(&self, table: &'static str, key: &str, version: i64) {
        let mark = self.marks.fetch_add(1, Ordering::AcqRel) + 1;
        self.seen.lock().remember(table, key, version, mark);
    }

    /// Opens a row: verifies its MAC, and that no newer version was seen before `since`.
    pub(super) fn open<T: SealedRow>(
        &self,
        mut row: Row,
        since: u64,
    ) -> Result<Versioned<T>, StoreError> {
        let values = row.rest();
        let id = match values.first() {
            Some(Value::Text(id)) => id.clone(),
            Some(Value::Null | Value::Int(_) | Value::Bytes(_)) | None => String::new(),
        };
        let tampered = || StoreError::Tampered { table: T::TABLE.name, id: id.clone() };
        let sealed = T::TABLE.columns.len() + 1;
        let (Some(columns), Some([Value::Int(version), Value::Int(seal), Value::Bytes(mac)])) =
            (values.get(..sealed), values.get(sealed..))
        else {
            return Err(tampered());
        };
        // A newer binary would have made the schema newer, which is refused before any row is read.
        if *seal > T::TABLE.seal_version {
            return Err(tampered());
        }
        let version = *version;
        let older = self.seen.lock().newest(T::TABLE.name, &id, since).is_some_and(|v| version < v);
        if older || !self.verify(&sealed_bytes(T::TABLE.name, version, *seal, columns), mac)? {
            return Err(tampered());
        }
        let row = T::from_columns(&mut row)?;
        Ok(Versioned { row, version })
    }
}

/// The one encoding of a sealed row: what the MAC and the record's hash cover. Every part carries
/// its type and length, so that no two rows encode alike.
pub(super) fn sealed_bytes(table: &str, version: i64, seal: i64, columns: &[Value]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"strongroom row 1\0");
    put(&mut out, 2, table.as_bytes());
    put(&mut out, 1, &version.to_be_bytes());
    put(&mut out, 1, &seal.to_be_bytes());
    for column in columns {
        match column {
            Value::Null => put(&mut out, 0, &[]),
            Value::Int(int) => put(&mut out, 1, &int.to_be_bytes()),
            Value::Text(text) => put(&mut out, 2, text.as_bytes()),
            Value::Bytes(bytes) => put(&mut out, 3, bytes),
        }
    }
    out
}

fn put(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    // A column is far below 4 GiB: the edge bounds every message.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

pub(super) fn change(table: &'static str, key: String, version: i64, input: &[u8]) -> Change {
    Change { table, key, version, hash: sha256(input) }
}

/// The newest versions seen, bounded: two halves, the older of which is dropped when the younger
/// is full. What falls out is still protected by its MAC.
#[derive(Debug, Default)]
struct Seen {
    young: HashMap<(&'static str, String), Sight>,
    old: HashMap<(&'static str, String), Sight>,
}

/// The newest version of a row, when it was first seen, and the one that was seen before it.
#[derive(Debug, Clone, Copy)]
struct Sight {
    version: i64,
    mark: u64,
    before: Option<(i64, u64)>,
}

impl Seen {
    const HALF: usize = 200_000;

    fn remember(&mut self, table: &'static str, key: &str, version: i64, mark: u64) {
        let entry = (table, key.to_owned());
        let known = self.young.get(&entry).or_else(|| self.old.get(&entry));
        let sight = match known {
            // Read again: it keeps the moment at which it was first seen, and its place among the
            // young.
            Some(known) if known.version >= version => *known,
            Some(known) => Sight { version, mark, before: Some((known.version, known.mark)) },
            None => Sight { version, mark, before: None },
        };
        if self.young.len() >= Self::HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(entry, sight);
    }

    /// The newest version that was seen up to a moment: a snapshot taken before may be older, but
    /// not older than the version before.
    fn newest(&self, table: &'static str, key: &str, since: u64) -> Option<i64> {
        let entry = (table, key.to_owned());
        let sight = self.young.get(&entry).or_else(|| self.old.get(&entry))?;
        let seen = [Some((sight.version, sight.mark)), sight.before];
        let seen = seen.into_iter().flatten().find(|(_, mark)| *mark <= since);
        seen.map(|(version, _)| version)
    }
}

/// Declares a type and the table of sealed rows that stores it. The first field is the key.
#[macro_export]
macro_rules! sealed_row {
    (
        $(#[$doc:meta])*
        pub struct $name:ident in $table:literal, seal $seal:literal {
            $(#[$iddoc:meta])* pub id: $idtype:ty,
            $($(#[$fdoc:meta])* pub $field:ident: $type:ty),+ $(,)?
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $(#[$iddoc])* pub id: $idtype,
            $($(#[$fdoc])* pub $field: $type),+
        }

        impl $crate::store::SealedRow for $name {
            const TABLE: &'static $crate::store::Table = {
                const COLUMNS: &[&str] = &[$(stringify!($field)),+];
                static TABLE: $crate::store::Table = $crate::store::Table {
                    name: $table,
                    columns: COLUMNS,
                    seal_version: $seal,
                    texts: ::std::sync::LazyLock::new(|| {
                        $crate::store::Texts::of($table, COLUMNS)
                    }),
                };
                &TABLE
            };

            fn key(&self) -> String {
                self.id.to_string()
            }

            fn to_columns(&self) -> Vec<$crate::store::Value> {
                $crate::params![self.id, $(self.$field),+]
            }

            fn from_columns(
                row: &mut $crate::store::Row,
            ) -> Result<Self, $crate::store::StoreError> {
                Ok(Self { id: row.take()?, $($field: row.take()?),+ })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_newer_than_the_snapshot_hides_none_that_is_older() {
        let mut seen = Seen::default();
        seen.remember("grants", "1", 4, 10);
        seen.remember("grants", "1", 7, 20);
        assert_eq!(seen.newest("grants", "1", 25), Some(7));
        // A snapshot from between the two may not know the newer, but must know the older.
        assert_eq!(seen.newest("grants", "1", 15), Some(4));
        assert_eq!(seen.newest("grants", "1", 5), None);
        // Seen again, neither gets a later moment.
        seen.remember("grants", "1", 7, 30);
        seen.remember("grants", "1", 4, 31);
        assert_eq!(seen.newest("grants", "1", 20), Some(7));
        assert_eq!(seen.newest("grants", "1", 19), Some(4));
    }
}
