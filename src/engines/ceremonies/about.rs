//! What a ceremony is about, frozen: approvals bind to the hash of its one encoding.

use serde::{Deserialize, Serialize};

use crate::crypto::{Encoder, sha256};
use crate::error::{Error, Result};
use crate::types::{IdentityId, VaultId};
use crate::vault::{Resource, StandsOn};

/// One thing that was asked for, as approvers read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// What it is.
    pub name: String,
    /// What was said.
    pub value: String,
}

impl Term {
    /// Says one.
    pub fn new(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), value: value.to_owned() }
    }
}

/// All of what a ceremony is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The action.
    pub action: String,
    /// Every resource that it touches, by name.
    pub resources: Vec<String>,
    /// Everything else that was asked for.
    pub terms: Vec<Term>,
    /// The rows of the resources, as they were.
    pub stands_on: Vec<StandsOn>,
}

impl About {
    /// Freezes what a call is about, as it was decided on.
    pub(super) fn of(action: &str, resources: &[Resource], terms: Vec<Term>) -> Self {
        let rows = resources.iter().flat_map(|resource| &resource.rows);
        Self {
            action: action.to_owned(),
            resources: resources.iter().map(|resource| resource.name.to_string()).collect(),
            terms,
            stands_on: rows
                .map(|row| StandsOn {
                    table: row.table.name.to_owned(),
                    id: row.key.clone(),
                    version: row.version,
                })
                .collect(),
        }
    }

    /// Reads what a row holds.
    pub(super) fn read(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(Error::internal)
    }

    pub(super) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(Error::internal)
    }

    /// Computes what approvals bind to, of a call of one identity to one vault.
    pub(super) fn hash(&self, vault: VaultId, identity: IdentityId) -> [u8; 32] {
        let mut all = Encoder::new("strongroom/ceremony/v1")
            .bytes(vault.0.as_bytes())
            .bytes(identity.0.as_bytes())
            .text(&self.action)
            .list(self.resources.len());
        all = self.resources.iter().fold(all, |all, name| all.text(name));
        all = all.list(self.terms.len());
        all = self.terms.iter().fold(all, |all, term| all.text(&term.name).text(&term.value));
        all = all.list(self.stands_on.len());
        for row in &self.stands_on {
            all = all.text(&row.table).text(&row.id).integer(row.version);
        }
        sha256(&all.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Id;

    type Change = fn(&mut About);

    #[test]
    fn whatever_changes_changes_the_hash() {
        let about = || About {
            action: "identities.shred".to_owned(),
            resources: vec!["identities/a".to_owned(), "identities/b".to_owned()],
            terms: vec![Term::new("reason", "r"), Term::new("x", "y")],
            stands_on: vec![StandsOn { table: "a".to_owned(), id: "b".to_owned(), version: 1 }],
        };
        let changes: &[Change] = &[
            |_| {},
            |it| it.action.push('s'),
            |it| it.resources.swap(0, 1),
            |it| drop(it.resources.pop()),
            |it| it.terms[0].value.push('x'),
            |it| it.terms.swap(0, 1),
            |it| drop(it.terms.pop()),
            |it| it.stands_on[0].version = 2,
            |it| it.stands_on[0].id.push('c'),
            |it| it.stands_on.clear(),
        ];
        let id = |n| Id::from_bytes([n; 16]);
        let (vault, who) = (VaultId(id(1)), IdentityId(id(2)));
        let mut seen: Vec<_> = changes
            .iter()
            .map(|change| {
                let mut one = about();
                change(&mut one);
                assert_eq!(About::read(&one.to_json().unwrap()), Ok(one.clone()));
                one.hash(vault, who)
            })
            .collect();
        seen.push(about().hash(VaultId(id(3)), who));
        seen.push(about().hash(vault, IdentityId(id(3))));
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }
}
