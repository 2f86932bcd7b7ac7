//! Names of roles on targets: those that we mint, and those that an administrator wrote down.
//!
//! A minted name says whose it is, so that no vault ever touches another's. Quoting is no matter
//! of this file: a name is data until a driver quotes it.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

use super::target::TargetError;
use crate::types::{Entropy, IdentityName, VaultId};

/// Bytes that a role's name may have on PostgreSQL: `NAMEDATALEN - 1`.
pub const NAME_BYTES: usize = 63;
const PREFIX: &str = "sr_";
const VAULT_CHARS: usize = 8;
const IDENTITY_CHARS: usize = 20;
/// 26 base32 characters carry 130 bits.
const RANDOM_CHARS: usize = 26;
const RANDOM_BYTES: usize = 17;

/// A name minted by some vault: `sr_<vault>_<identity>_<random>`, at most 59 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleName(String);

impl RoleName {
    /// Mints a name that was never used: 130 random bits end it.
    ///
    /// # Errors
    /// [`crate::Error::Internal`] when the random generator fails.
    pub fn mint(
        vault: VaultId,
        identity: &IdentityName,
        entropy: &dyn Entropy,
    ) -> crate::Result<Self> {
        Self::assemble(vault, identity.as_str(), entropy)
    }

    /// Mints a name for a role that exists only inside a transaction that is rolled back.
    pub(super) fn probe(vault: VaultId, entropy: &dyn Entropy) -> crate::Result<Self> {
        Self::assemble(vault, "probe", entropy)
    }

    fn assemble(vault: VaultId, identity: &str, entropy: &dyn Entropy) -> crate::Result<Self> {
        let mut bytes = [0; RANDOM_BYTES];
        entropy.fill(&mut bytes)?;
        let mut random = BASE32_NOPAD.encode(&bytes).to_ascii_lowercase();
        random.truncate(RANDOM_CHARS);
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let identity: String =
            identity.chars().take(IDENTITY_CHARS).map(|c| if plain(c) { c } else { '_' }).collect();
        Ok(Self(format!("{}{identity}_{random}", prefix(vault))))
    }

    /// Reads a name back, from a record or from the target.
    ///
    /// # Errors
    /// [`TargetError::NotOurs`] when this vault did not mint it.
    pub fn parse(vault: VaultId, text: &str) -> Result<Self, TargetError> {
        if is_ours(vault, text) { Ok(Self(text.into())) } else { Err(TargetError::NotOurs) }
    }

    /// Shows the name, unquoted.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Passes a name that this vault minted.
    ///
    /// # Errors
    /// [`TargetError::NotOurs`] for any other.
    pub fn ours(&self, vault: VaultId) -> Result<&Self, TargetError> {
        if is_ours(vault, &self.0) { Ok(self) } else { Err(TargetError::NotOurs) }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Shows what every name of a vault begins with: `sr_`, 8 characters of its id, `_`.
///
/// The last 8 are taken: the first 8 of a `UUIDv7` are a clock, equal for vaults made in the same
/// minute.
#[must_use]
pub fn prefix(vault: VaultId) -> String {
    let id: String = vault.to_string().chars().filter(|c| *c != '-').collect();
    let tail = id.get(id.len().saturating_sub(VAULT_CHARS)..).unwrap_or_default();
    format!("{PREFIX}{tail}_")
}

/// Tells whether a name was minted by this vault, by its whole grammar and not by its prefix alone.
#[must_use]
pub fn is_ours(vault: VaultId, name: &str) -> bool {
    name.len() <= NAME_BYTES && name.strip_prefix(&prefix(vault)).is_some_and(is_tail)
}

/// Tells whether text is `<identity>_<random>`.
fn is_tail(tail: &str) -> bool {
    let Some((identity, random)) = tail.rsplit_once('_') else {
        return false;
    };
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (1..=IDENTITY_CHARS).contains(&identity.len())
        && identity.bytes().all(word)
        && random.len() == RANDOM_CHARS
        && random.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b))
}

/// A role that stands on the target already: a group, or the owner of what credentials leave.
///
/// Anything that PostgreSQL takes as a name, quotes and semicolons included; no control
/// characters, none of the reserved words, none that a vault could have minted.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetRole(String);

impl TargetRole {
    /// Shows the name, unquoted.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TargetRole {
    type Error = TargetError;

    fn try_from(name: String) -> Result<Self, TargetError> {
        if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
            return Err(TargetError::Invalid(
                "a role of the target has 1 to 63 bytes and no control characters".into(),
            ));
        }
        if ["none", "public"].contains(&name.as_str()) || name.starts_with(PREFIX) {
            return Err(TargetError::Invalid(
                "`none`, `public` and names that begin with `sr_` are no roles to grant".into(),
            ));
        }
        Ok(Self(name))
    }
}

impl TryFrom<&str> for TargetRole {
    type Error = TargetError;

    fn try_from(name: &str) -> Result<Self, TargetError> {
        name.to_owned().try_into()
    }
}

impl From<TargetRole> for String {
    fn from(role: TargetRole) -> Self {
        role.0
    }
}

impl fmt::Debug for TargetRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Id, SystemEntropy};

    fn vault(last: u8) -> VaultId {
        VaultId(Id::from_bytes([1, 2, 3, 4, 5, 6, 0x70, 8, 0x80, 10, 11, 12, 13, 14, 15, last]))
    }

    #[test]
    fn minted_names_are_ours_short_and_never_the_same() {
        let identities = ["nightly-etl", "a", "team/etl.v2/x", "abcdefghijklmnopqrstuvwxyz0123456"];
        for identity in identities {
            let identity: IdentityName = identity.parse().unwrap();
            let name = RoleName::mint(vault(1), &identity, &SystemEntropy).unwrap();
            assert!(name.as_str().len() <= NAME_BYTES, "{name}");
            assert!(is_ours(vault(1), name.as_str()), "{name}");
            assert!(!is_ours(vault(2), name.as_str()), "{name}");
            assert_eq!(RoleName::parse(vault(1), name.as_str()).unwrap(), name);
            assert_eq!(RoleName::parse(vault(2), name.as_str()), Err(TargetError::NotOurs));
            assert_eq!(name.ours(vault(2)), Err(TargetError::NotOurs));
            let again = RoleName::mint(vault(1), &identity, &SystemEntropy).unwrap();
            assert_ne!(again, name);
        }
        let etl = "nightly-etl".parse().unwrap();
        let name = RoleName::mint(vault(1), &etl, &SystemEntropy).unwrap();
        assert!(name.as_str().starts_with("sr_0d0e0f01_nightly_etl_"), "{name}");
    }

    #[test]
    fn whatever_is_not_the_whole_grammar_is_not_ours() {
        let random = "a".repeat(26);
        for bad in [
            String::new(),
            "postgres".into(),
            "sr_0d0e0f01_".into(),
            format!("sr_0d0e0f01_{random}"),
            format!("sr_0d0e0f01__{random}"),
            format!("sr_0d0e0f01_etl_{random}a"),
            format!("sr_0d0e0f01_etl_{}", "1".repeat(26)),
            format!("sr_0d0e0f01_ETL_{random}"),
            format!("sr_0d0e0f01_e\"; drop_{random}"),
            format!("sr_0d0e0f01_e\0_{random}"),
            format!("sr_0d0e0f01_{}_{random}", "e".repeat(21)),
            format!("sr_0d0e0f02_etl_{random}"),
        ] {
            assert!(!is_ours(vault(1), &bad), "{bad:?}");
        }
    }

    #[test]
    fn roles_of_the_target_may_hold_quotes_but_no_control_characters() {
        for good in ["reader", "we\"ird; --'", "größe", "a b"] {
            assert_eq!(TargetRole::try_from(good).unwrap().as_str(), good);
        }
        for bad in ["", "a\0b", "a\nb", "none", "public", "sr_0d0e0f01_x", &"x".repeat(64)] {
            assert!(TargetRole::try_from(bad).is_err(), "{bad:?}");
        }
    }
}
