//! Associated data: the one encoding that binds a ciphertext to its place.
//!
//! A ciphertext moved to another vault, table, column, row, owner, object, version or key does not
//! open. Names never enter: they may change, ids do not.

use super::Encoder;
use crate::types::{Id, VaultId};

/// How the ciphertext is laid out; its number is the first value of the associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 24 bytes nonce, XAES-256-GCM ciphertext, 16 bytes tag.
    Xaes256Gcm,
}

impl Format {
    /// The number that is encoded, for ever.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Self::Xaes256Gcm => 1,
        }
    }
}

/// What an id of the associated data names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject<'a> {
    /// Something with an id: an identity, an object, a key of the hierarchy.
    Id(Id),
    /// Something with a fixed label instead: the key owner `system`, a key in the HSM.
    Label(&'a str),
}

impl From<Id> for Subject<'_> {
    fn from(id: Id) -> Self {
        Self::Id(id)
    }
}

/// Where a ciphertext belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssociatedData<'a> {
    /// How the ciphertext is laid out.
    pub format: Format,
    /// The vault.
    pub vault: VaultId,
    /// The table.
    pub table: &'a str,
    /// The column.
    pub column: &'a str,
    /// The row's key: the 16 bytes of its id, or [`Encoder`]'s bytes of a key of several columns.
    pub row: &'a [u8],
    /// Whose key it is: the owner of the data, not the caller.
    pub key_owner: Subject<'a>,
    /// The object that the ciphertext is part of.
    pub object: Subject<'a>,
    /// The object's version.
    pub object_version: i64,
    /// The key that it is encrypted under.
    pub key: Subject<'a>,
    /// That key's version.
    pub key_version: i64,
}

impl AssociatedData<'_> {
    /// Encodes the values, in this order, under the domain `strongroom/aad/v1`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let out = Encoder::new("strongroom/aad/v1")
            .integer(self.format.number())
            .bytes(self.vault.0.as_bytes())
            .text(self.table)
            .text(self.column)
            .bytes(self.row);
        let out = subject(out, self.key_owner);
        let out = subject(out, self.object).integer(self.object_version);
        subject(out, self.key).integer(self.key_version).finish()
    }
}

/// An id is tagged as bytes and a label as text, so that neither can stand for the other.
fn subject(out: Encoder, subject: Subject<'_>) -> Encoder {
    match subject {
        Subject::Id(id) => out.bytes(id.as_bytes()),
        Subject::Label(label) => out.text(label),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (u8, String, String, Vec<u8>, [Result<u8, String>; 3], i64, i64);

    /// Tiny domains, so that neighbours often differ only in where a value ends.
    fn owned() -> impl Strategy<Value = Owned> {
        let subject = || prop_oneof![(0..2_u8).prop_map(Ok), "[a\0]{0,2}|\0{16}".prop_map(Err)];
        (
            0..2_u8,
            "[ab]{0,2}",
            "[ab]{0,2}",
            prop::collection::vec(0..2_u8, 0..3),
            [subject(), subject(), subject()],
            0..2_i64,
            0..2_i64,
        )
    }

    fn encode(owned: &Owned) -> Vec<u8> {
        let (vault, table, column, row, subjects, object_version, key_version) = owned;
        let [key_owner, object, key] = subjects.each_ref().map(|subject| match subject {
            Ok(byte) => Subject::Id(Id::from_bytes([*byte; 16])),
            Err(label) => Subject::Label(label),
        });
        AssociatedData {
            format: Format::Xaes256Gcm,
            vault: VaultId(Id::from_bytes([*vault; 16])),
            table,
            column,
            row,
            key_owner,
            object,
            object_version: *object_version,
            key,
            key_version: *key_version,
        }
        .encode()
    }

    proptest! {
        #[test]
        fn different_places_never_encode_alike(a in owned(), b in owned()) {
            prop_assert_eq!(encode(&a) == encode(&b), a == b);
        }
    }

    #[test]
    fn each_value_alone_changes_the_encoding() {
        let id = |byte| Ok(byte);
        let base: Owned = (0, "t".into(), "c".into(), vec![1], [id(1), id(2), id(3)], 1, 1);
        let mut others = vec![base.clone(); 9];
        others[0].0 = 1;
        others[1].1 = "u".into();
        others[2].2 = "d".into();
        others[3].3 = vec![2];
        others[4].4[0] = id(9);
        others[5].4[1] = id(9);
        others[6].4[2] = id(9);
        others[7].5 = 2;
        others[8].6 = 2;
        let mut encodings: Vec<_> = others.iter().map(encode).collect();
        encodings.push(encode(&base));
        encodings.sort();
        encodings.dedup();
        assert_eq!(encodings.len(), 10);
    }
}
