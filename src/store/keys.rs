//! The vault's own row, its seal, the keys in the HSM, and identity keys with their wraps.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use crate::crypto::MacKey;
use crate::error::Error;
use crate::params;
use crate::sealed_row;
use crate::store::{Column, Row, RowSealer, SealedRow, StoreError, Tx, Value, Versioned};
use crate::types::{Id, IdentityId, UnixMillis, VaultId};

/// Key of the one row of `seal`: a second vault in one store finds it taken.
pub const SEAL_ID: &str = "seal";
/// Most wraps of one key that are read.
const MAX_WRAPS: i64 = 16;
/// Most keys in the HSM that are read.
const MAX_HSM_KEYS: i64 = 256;

sealed_row! {
    /// The vault itself.
    pub struct VaultRow in "vault", seal 1 {
        /// Its id, for ever.
        pub id: VaultId,
        /// Trust domain of its SPIFFE ids.
        pub trust_domain: String,
        /// Whether it was made for development; for ever.
        pub dev: bool,
        /// Origin of its log.
        pub origin: String,
        /// When it was founded.
        pub created_at: UnixMillis,
        /// Counts the restores that were accepted. Tokens, joins, wraps, approvals and elevations
        /// keep the one that they were made under, and are void under a higher one: a backup may
        /// hold them unspent or unrevoked. Logins, certificates and leases do not compare with it.
        pub restore_epoch: i64,
        /// When the last of them was accepted; 0 before the first.
        pub restored_at: UnixMillis,
    }
}

sealed_row! {
    /// Whether an operator sealed the vault.
    pub struct SealRow in "seal", seal 1 {
        /// Always [`SEAL_ID`].
        pub id: String,
        /// Since when it is sealed; none while it is not.
        pub sealed_at: Option<UnixMillis>,
        /// Who sealed or unsealed it last.
        pub sealed_by: String,
    }
}

sealed_row! {
    /// A key in the HSM.
    pub struct HsmKeyRow in "hsm_keys", seal 1 {
        /// Its label in the token.
        pub id: String,
        /// What it is for.
        pub purpose: HsmPurpose,
        /// Its version among the keys of its purpose, from 1.
        pub version: i64,
        /// Where it is in its life.
        pub state: KeyState,
        /// What pins it: the token's key must have this check value.
        pub pinned: Vec<u8>,
        /// The CA's certificate, DER.
        pub certificate: Option<Vec<u8>>,
        /// Of a root CA: the certificate by which the one before vouches for it, DER.
        pub link: Option<Vec<u8>>,
        /// When it was made.
        pub created_at: UnixMillis,
    }
}

sealed_row! {
    /// A version of an owner's key.
    pub struct IdentityKeyRow in "identity_keys", seal 1 {
        /// The key's id, for ever.
        pub id: Id,
        /// Whose it is.
        pub owner: KeyOwner,
        /// Its version among the owner's, from 1.
        pub version: i64,
        /// Where it is in its life.
        pub state: KeyState,
        /// When it was made.
        pub created_at: UnixMillis,
    }
}

/// A wrap of an identity key for one recipient; its associated data binds it, so it has no MAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrapRow {
    /// The wrapped key.
    pub key_id: Id,
    /// Who can unwrap it: the label of a root key.
    pub recipient: String,
    /// How it is wrapped.
    pub suite: i64,
    /// The wrap.
    pub blob: Vec<u8>,
}

/// Whose key it is: data belongs to its owner's key, not to the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyOwner {
    /// The vault, for its own credentials.
    System,
    /// An identity.
    Identity(IdentityId),
}

impl fmt::Display for KeyOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Identity(id) => id.fmt(f),
        }
    }
}

impl FromStr for KeyOwner {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "system" { Ok(Self::System) } else { text.parse().map(Self::Identity) }
    }
}

/// Words of a column, and their type.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant),+
        }

        impl $name {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Names it as it is stored.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(Error::invalid(concat!("an unknown ", stringify!($name)))),
                }
            }
        }
    };
}

words! {
    /// What a key in the HSM is for; also the middle of its label.
    HsmPurpose {
        /// Wraps identity keys.
        Root = "root",
        /// Signs the certificates of issuing CAs, and vouches for the root after it.
        CaRoot = "ca/root",
        /// Signs certificates of the certificate engine.
        CaIssuing = "ca/issuing",
        /// Signs login certificates.
        CaLogin = "ca/login",
        /// Signs checkpoints of the record.
        Checkpoint = "checkpoint",
    }
}

words! {
    /// Where a key is in its life.
    KeyState {
        /// New work is done with it.
        Active = "active",
        /// It still opens or verifies what it made.
        Retired = "retired",
        /// Its wraps are gone, and what was under it with them.
        Destroyed = "destroyed",
    }
}

macro_rules! text_columns {
    ($($type:ty),+) => {$(
        impl Column for $type {
            fn to_value(&self) -> Value {
                Value::Text(self.to_string())
            }

            fn from_value(value: Value) -> Result<Self, StoreError> {
                String::from_value(value)?.parse().map_err(|_malformed| StoreError::Malformed)
            }
        }
    )+};
}

text_columns!(KeyOwner, HsmPurpose, KeyState);

/// What the hierarchy hangs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foundation {
    /// The vault.
    pub vault: VaultRow,
    /// Whether it is sealed.
    pub seal: SealRow,
    /// Every key in the HSM that was not destroyed, by label.
    pub hsm_keys: Vec<HsmKeyRow>,
    /// Version 1 of the key of `system`: what the master keys are derived from.
    pub system: IdentityKeyRow,
}

impl Foundation {
    /// The newest key of a purpose that is not destroyed: those of an HSM that was lost stay on record.
    #[must_use]
    pub fn newest(&self, purpose: HsmPurpose) -> Option<&HsmKeyRow> {
        let there = |key: &&HsmKeyRow| key.purpose == purpose && key.state != KeyState::Destroyed;
        self.hsm_keys.iter().filter(there).max_by_key(|key| key.version)
    }
}

/// How the rows of the foundation are checked.
#[derive(Debug)]
pub enum Check {
    /// Not at all: the key of the MACs hangs on them. Nothing may be believed of them.
    Nothing,
    /// With a key that is not in force yet.
    Trial(MacKey),
    /// As every other row, the memory of newer versions included.
    InForce,
}

/// Reads the foundation; none in a store that holds no vault.
///
/// # Errors
/// [`StoreError::Tampered`] where a row is not what was sealed, [`StoreError::Malformed`] where
/// one is missing or there are two vaults.
pub async fn foundation(tx: &mut Tx, check: &Check) -> Result<Option<Foundation>, StoreError> {
    let Some(vault) = only(checked::<VaultRow>(tx, check, "LIMIT 2", vec![]).await?)? else {
        return Ok(None);
    };
    let seal = only(checked::<SealRow>(tx, check, "LIMIT 2", vec![]).await?)?;
    // One that was destroyed opens nothing, and there may be many.
    let tail = "WHERE state <> 'destroyed' ORDER BY id LIMIT $1";
    let hsm_keys = checked(tx, check, tail, params![MAX_HSM_KEYS]).await?;
    let tail = "WHERE owner = $1 AND version = 1";
    let system = only(checked(tx, check, tail, params![KeyOwner::System]).await?)?;
    Ok(Some(Foundation {
        vault,
        seal: seal.ok_or(StoreError::Malformed)?,
        hsm_keys,
        system: system.ok_or(StoreError::Malformed)?,
    }))
}

async fn checked<T: SealedRow>(
    tx: &mut Tx,
    check: &Check,
    tail: &str,
    params: Vec<Value>,
) -> Result<Vec<T>, StoreError> {
    let open: Box<dyn Fn(Row) -> Result<T, StoreError> + Send> = match check {
        Check::InForce => {
            let rows = tx.select::<T>(tail, params).await?;
            return Ok(rows.into_iter().map(|row| row.row).collect());
        }
        Check::Nothing => Box::new(|mut row| T::from_columns(&mut row)),
        Check::Trial(key) => {
            let sealer = RowSealer::default();
            sealer.set_key(Some(key.clone()));
            Box::new(move |row| sealer.open::<T>(row, 0).map(|row| row.row))
        }
    };
    let rows = tx.query(&T::TABLE.select(tail), params).await?;
    rows.into_iter().map(open).collect()
}

fn only<T>(rows: Vec<T>) -> Result<Option<T>, StoreError> {
    let mut rows = rows.into_iter();
    let first = rows.next();
    if rows.next().is_some() { Err(StoreError::Malformed) } else { Ok(first) }
}

/// Tells which store this is: random, made with the schema, the same for ever.
///
/// # Errors
/// [`StoreError::Malformed`] where there is not one row with an id.
pub async fn store_id(tx: &mut Tx) -> Result<Id, StoreError> {
    let rows = tx.query("SELECT id FROM store_id LIMIT 2", vec![]).await?;
    only(rows)?.ok_or(StoreError::Malformed)?.take()
}

/// Tells whether a founded vault has to stay sealed, before the row's MAC can be checked: only
/// one row that says otherwise says otherwise, so that deleting it unseals nothing.
pub async fn seal_on_record(tx: &mut Tx) -> Result<bool, StoreError> {
    let rows = tx.query("SELECT id, sealed_at FROM seal LIMIT 2", vec![]).await?;
    let Some(mut row) = only(rows).ok().flatten() else {
        return Ok(true);
    };
    let (id, sealed_at): (String, Option<UnixMillis>) = (row.take()?, row.take()?);
    Ok(id != SEAL_ID || sealed_at.is_some())
}

/// Finds the row of the seal.
pub async fn seal_row(tx: &mut Tx) -> Result<Option<Versioned<SealRow>>, StoreError> {
    tx.lookup(&SEAL_ID).await
}

/// Finds the newest active key of an owner.
pub async fn current_key(
    tx: &mut Tx,
    owner: KeyOwner,
) -> Result<Option<Versioned<IdentityKeyRow>>, StoreError> {
    let tail = "WHERE owner = $1 AND state = 'active' ORDER BY version DESC LIMIT 1";
    tx.lookup_where(tail, params![owner]).await
}

/// Finds the newest key of an owner, whatever its state.
pub async fn newest_key(
    tx: &mut Tx,
    owner: KeyOwner,
) -> Result<Option<Versioned<IdentityKeyRow>>, StoreError> {
    tx.lookup_where("WHERE owner = $1 ORDER BY version DESC LIMIT 1", params![owner]).await
}

/// Finds a version of an owner's key.
pub async fn key_numbered(
    tx: &mut Tx,
    owner: KeyOwner,
    version: i64,
) -> Result<Option<Versioned<IdentityKeyRow>>, StoreError> {
    tx.lookup_where("WHERE owner = $1 AND version = $2", params![owner, version]).await
}

/// Lists the versions of an owner's key, the newest first.
pub async fn keys_of(
    tx: &mut Tx,
    owner: KeyOwner,
    limit: i64,
) -> Result<Vec<Versioned<IdentityKeyRow>>, StoreError> {
    tx.select("WHERE owner = $1 ORDER BY version DESC LIMIT $2", params![owner, limit]).await
}

/// Finds the newest key that is an identity's and was not destroyed.
pub async fn newest_of_identities(tx: &mut Tx) -> Result<Option<Id>, StoreError> {
    let tail = "WHERE owner <> 'system' AND state <> 'destroyed' ORDER BY id DESC LIMIT 1";
    let found = tx.lookup_where::<IdentityKeyRow>(tail, vec![]).await?;
    Ok(found.map(|found| found.row.id))
}

/// Lists the wraps of a key.
pub async fn wraps_of(tx: &mut Tx, key: Id) -> Result<Vec<WrapRow>, StoreError> {
    let sql = "SELECT key_id, recipient, suite, blob FROM key_wraps WHERE key_id = $1 \
               ORDER BY recipient LIMIT $2";
    let rows = tx.query(sql, params![key, MAX_WRAPS]).await?;
    rows.into_iter().map(wrap).collect()
}

fn wrap(mut row: Row) -> Result<WrapRow, StoreError> {
    Ok(WrapRow {
        key_id: row.take()?,
        recipient: row.take()?,
        suite: row.take()?,
        blob: row.take()?,
    })
}

/// Inserts a wrap.
///
/// # Errors
/// [`StoreError::Taken`] where the recipient has one of this key.
pub async fn insert_wrap(tx: &mut Tx, wrap: &WrapRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO key_wraps (key_id, recipient, suite, blob) VALUES ($1, $2, $3, $4)";
    let params = params![wrap.key_id, wrap.recipient, wrap.suite, wrap.blob];
    tx.execute(sql, params).await.map(drop)
}

/// Lists the keys in the HSM of a purpose, the newest first, destroyed ones included.
pub async fn keys_for(
    tx: &mut Tx,
    purpose: HsmPurpose,
) -> Result<Vec<Versioned<HsmKeyRow>>, StoreError> {
    let tail = "WHERE purpose = $1 ORDER BY version DESC LIMIT $2";
    tx.select(tail, params![purpose, MAX_HSM_KEYS]).await
}

/// Finds the key in the HSM of a purpose that what is new is made with.
pub async fn current_of(
    tx: &mut Tx,
    purpose: HsmPurpose,
) -> Result<Option<Versioned<HsmKeyRow>>, StoreError> {
    let tail = "WHERE purpose = $1 AND state = 'active' ORDER BY version DESC LIMIT 1";
    tx.lookup_where(tail, params![purpose]).await
}

/// Counts the wraps of a recipient, as [`Tx::tally`] does.
pub async fn count_wraps(tx: &mut Tx, recipient: &str) -> Result<i64, StoreError> {
    let rows = "SELECT 1 AS counts, 0 AS value FROM key_wraps WHERE recipient = $1";
    let key = format!("wraps for {recipient}");
    Ok(tx.tally(&key, rows, params![recipient.to_owned()]).await?.count)
}

/// Tells whether a recipient has a wrap.
pub async fn has_wraps(tx: &mut Tx, recipient: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM key_wraps WHERE recipient = $1 LIMIT 1";
    Ok(tx.query_one(sql, params![recipient.to_owned()]).await?.is_some())
}

/// A part of a walk through the wraps of a recipient.
#[derive(Debug)]
pub struct WrapPart {
    /// Wraps with their keys; each whose key is not what was sealed, an alarm, is left out.
    pub wraps: Vec<(IdentityKeyRow, WrapRow)>,
    /// The key after which the next part begins; none where this is the last.
    pub next: Option<String>,
}

/// Walks through the wraps of a recipient by key, after one of them.
pub async fn wraps_after(
    tx: &mut Tx,
    recipient: &str,
    after: &str,
    limit: i64,
) -> Result<WrapPart, StoreError> {
    let sql = "SELECT key_id, recipient, suite, blob FROM key_wraps \
               WHERE recipient = $1 AND key_id > $2 ORDER BY key_id LIMIT $3";
    let params = || params![recipient.to_owned(), after.to_owned(), limit];
    let rows = tx.query(sql, params()).await?;
    let wraps = rows.into_iter().map(wrap).collect::<Result<Vec<_>, _>>()?;
    let full = i64::try_from(wraps.len()).is_ok_and(|len| len >= limit);
    let next = wraps.last().filter(|_| full).map(|last| last.key_id.to_string());
    let tail = "WHERE id IN (SELECT key_id FROM key_wraps \
                WHERE recipient = $1 AND key_id > $2 ORDER BY key_id LIMIT $3)";
    let keys = tx.select_intact::<IdentityKeyRow>(tail, params()).await?;
    let mut keys: HashMap<Id, IdentityKeyRow> =
        keys.into_iter().map(|key| (key.row.id, key.row)).collect();
    let with_key = |wrap: WrapRow| keys.remove(&wrap.key_id).map(|key| (key, wrap));
    Ok(WrapPart { wraps: wraps.into_iter().filter_map(with_key).collect(), next })
}

/// Puts a wrap in the place of another of the same key, if that is still there as it was.
pub async fn replace_wrap(tx: &mut Tx, was: &WrapRow, is: &WrapRow) -> Result<bool, StoreError> {
    let sql = "UPDATE key_wraps SET recipient = $1, suite = $2, blob = $3 \
               WHERE key_id = $4 AND recipient = $5 AND blob = $6";
    let params = params![is.recipient, is.suite, is.blob, was.key_id, was.recipient, was.blob];
    Ok(tx.execute(sql, params).await? == 1)
}

/// Removes every wrap of a key.
pub async fn remove_wraps(tx: &mut Tx, key: Id) -> Result<(), StoreError> {
    tx.execute("DELETE FROM key_wraps WHERE key_id = $1", params![key]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_owners_read_back_as_they_are_stored() {
        for purpose in HsmPurpose::ALL {
            assert_eq!(HsmPurpose::from_value(purpose.to_value()), Ok(*purpose));
        }
        for state in KeyState::ALL {
            assert_eq!(KeyState::from_value(state.to_value()), Ok(*state));
        }
        let identity = KeyOwner::Identity(IdentityId(Id::from_bytes([7; 16])));
        for owner in [KeyOwner::System, identity] {
            assert_eq!(KeyOwner::from_value(owner.to_value()), Ok(owner));
        }
        for bad in ["", "System", "Active", "ca", "00000000"] {
            let value = || Value::Text(bad.into());
            assert_eq!(KeyOwner::from_value(value()), Err(StoreError::Malformed), "{bad}");
            assert_eq!(HsmPurpose::from_value(value()), Err(StoreError::Malformed), "{bad}");
            assert_eq!(KeyState::from_value(value()), Err(StoreError::Malformed), "{bad}");
        }
    }
}
