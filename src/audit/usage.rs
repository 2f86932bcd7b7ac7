//! Who used which named key, counted from entries as they get their place in the log.
//!
//! A use is one call, however many items it had. What is counted is what the record says, each entry
//! once: the head of the log moves in the same commit.

use std::collections::BTreeMap;

use super::entry::ReadEntry;
use crate::store::key_usage::{self, LastUse, UsageKey, Uses};
use crate::store::{StoreError, Tx};
use crate::types::{ObjectId, UnixMillis};

/// How the purposes of named keys end: by where the key is kept, or that its public half did it.
const KEPT: [&str; 3] = ["/sealed", "/hsm", "/public"];
/// Entries that are followed by another of the same call: they are no use of their own.
const BEGINNINGS: [&str; 2] = ["INTENT", "BEGUN"];
/// What the vault does with a key whose versions nobody uses any more: counted, and not its last use.
const DESTROYS: &str = "destroy/hsm";
/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct KeyUses {
    counted: BTreeMap<UsageKey, Uses>,
    last: BTreeMap<ObjectId, LastUse>,
}

impl KeyUses {
    /// Counts an entry.
    pub(super) fn add(&mut self, entry: &ReadEntry) {
        let uses = i64::from(!BEGINNINGS.contains(&entry.outcome.as_str()));
        for (key, version, purpose) in &entry.keys {
            // The keys of the hierarchy have other purposes, and some no id.
            let named = KEPT.iter().any(|kept| purpose.ends_with(kept));
            let Some(key) = named.then(|| key.parse::<ObjectId>().ok()).flatten() else { continue };
            let used_by = match entry.identity {
                Some(identity) => identity.to_string(),
                None => entry.method.clone(),
            };
            self.note(
                key,
                LastUse { at: entry.at, used_by, version: *version, purpose: purpose.clone() },
                uses,
            );
        }
    }

    fn note(&mut self, key: ObjectId, last: LastUse, uses: i64) {
        let LastUse { at, used_by, version, purpose } = last.clone();
        let of = UsageKey { key, day: at.0.div_euclid(DAY_MS), used_by, version, purpose };
        let counted = self.counted.entry(of).or_insert(Uses { uses: 0, last_at: UnixMillis(0) });
        counted.uses = counted.uses.saturating_add(uses);
        counted.last_at = counted.last_at.max(at);
        let newer = self.last.get(&key).is_none_or(|known| known.at <= at);
        if newer && last.purpose != DESTROYS {
            self.last.insert(key, last);
        }
    }

    /// Writes what was counted.
    pub(super) async fn store(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let counted: Vec<_> = self.counted.iter().map(|(of, uses)| (of.clone(), *uses)).collect();
        key_usage::add(tx, &counted).await?;
        let last: Vec<_> = self.last.iter().map(|(key, last)| (*key, last.clone())).collect();
        key_usage::note_last(tx, &last).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Id, RequestId};

    fn entry(at: i64, outcome: &str, keys: &[(&str, i64, &str)]) -> ReadEntry {
        let id = Id::from_bytes([7; 16]);
        ReadEntry {
            at: UnixMillis(at),
            request: RequestId(id),
            identity: None,
            caller_credential: None,
            method: "key_keeper".to_owned(),
            action: "keys.encrypt".to_owned(),
            resources: Vec::new(),
            allowed: true,
            reason: "rule".to_owned(),
            by: "owner".to_owned(),
            outcome: outcome.to_owned(),
            keys: keys.iter().map(|(k, v, p)| ((*k).to_owned(), *v, (*p).to_owned())).collect(),
            duration_us: 1,
            changes: Vec::new(),
            credential: None,
            commitments: Vec::new(),
            factors: Vec::new(),
        }
    }

    #[test]
    fn each_call_counts_once_for_each_version_and_keys_of_the_hierarchy_do_not() {
        let (one, two) = (Id::from_bytes([1; 16]).to_string(), Id::from_bytes([2; 16]).to_string());
        let mut uses = KeyUses::default();
        let keys = [(one.as_str(), 1, "decrypt/sealed"), (&one, 2, "decrypt/sealed")];
        uses.add(&entry(5, "OK", &keys));
        uses.add(&entry(9, "NONE_DONE", &keys[..1]));
        uses.add(&entry(DAY_MS, "BEGUN", &[(&two, 1, "encrypt-stream/sealed")]));
        uses.add(&entry(DAY_MS + 3, "LEFT", &[(&two, 1, "encrypt-stream/sealed")]));
        uses.add(&entry(11, "OK", &[(&one, 1, "destroy/hsm")]));
        let not_named = [(one.as_str(), 1, "decrypt"), ("strongroom/root/1", 1, "unwrap/hsm")];
        uses.add(&entry(7, "OK", &not_named));
        let counted: Vec<_> = uses
            .counted
            .iter()
            .map(|(of, uses)| (of.key.to_string(), of.day, of.version, uses.uses, uses.last_at.0))
            .collect();
        assert_eq!(
            counted,
            [
                (one.clone(), 0, 1, 2, 9),
                (one.clone(), 0, 1, 1, 11),
                (one.clone(), 0, 2, 1, 5),
                (two.clone(), 1, 1, 1, DAY_MS + 3),
            ]
        );
        let last = |key: &str| &uses.last[&key.parse::<ObjectId>().unwrap()];
        assert_eq!((last(&one).at.0, last(&one).version), (9, 1));
        assert_eq!(last(&two).used_by, "key_keeper");
    }
}
