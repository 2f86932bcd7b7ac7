//! What a ceremony is about, frozen: approvals bind to the hash of its one encoding. And that no
//! commit does what several administrators do together but in the ceremony of just that.

use serde::{Deserialize, Serialize};

use super::{Decision, Resource, StandsOn};
use crate::crypto::{Encoder, sha256};
use crate::error::{Error, Result};
use crate::store::ceremonies::CeremonyRow;
use crate::store::notices::{NoticeHeadRow, NoticeRow};
use crate::store::{SealedRow as _, Tx};
use crate::types::{Caller, CeremonyState, IdentityId, RequestContext, VaultId, Verb};

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
    #[must_use]
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
    #[must_use]
    pub fn of(action: &str, resources: &[Resource], terms: Vec<Term>) -> Self {
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
    ///
    /// # Errors
    /// [`Error::Internal`] when that is none.
    pub fn read(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(Error::internal)
    }

    /// Writes it as a row holds it.
    ///
    /// # Errors
    /// [`Error::Internal`], which this type excludes.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(Error::internal)
    }

    /// Computes what approvals bind to, of a call of one identity to one vault.
    #[must_use]
    pub fn hash(&self, vault: VaultId, identity: IdentityId) -> [u8; 32] {
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

/// Tells whether a call changes a table that does nothing yet but ask.
fn is_asking(table: &str) -> bool {
    [CeremonyRow::TABLE.name, NoticeRow::TABLE.name, NoticeHeadRow::TABLE.name].contains(&table)
}

/// Refuses what several administrators do together, unless the ceremony of this action and these
/// resources, asked for by who asks now, is performed in the same commit; and refuses to perform any
/// other. What a worker does by itself, of a closed list, was agreed on when its schedule was.
///
/// What is hardly ever gone through is boxed: every commit would carry the room for it.
pub(super) async fn check_ceremony(
    ctx: &RequestContext,
    tx: &mut Tx,
    action: &'static str,
    decision: &Decision,
) -> Result<()> {
    let touched = tx.changes().iter().filter(|change| change.table == CeremonyRow::TABLE.name);
    let touched: Vec<_> = touched.map(|change| change.key.clone()).collect();
    let solemn = matches!(ctx.caller, Caller::Identity(_))
        && Verb::lookup(action).is_some_and(|verb| verb.ceremony);
    if !solemn && touched.is_empty() {
        return Ok(());
    }
    let (performed, asked) = Box::pin(own(ctx, tx, (action, solemn), decision, touched)).await?;
    let asks = asked && tx.changes().iter().all(|change| is_asking(change.table));
    if solemn && !performed && !asks {
        return Err(Error::internal("an act without its ceremony"));
    }
    Ok(())
}

/// Tells whether among the ceremonies that a commit changed is the one of the act itself: performed,
/// or open still.
async fn own(
    ctx: &RequestContext,
    tx: &mut Tx,
    (action, solemn): (&'static str, bool),
    decision: &Decision,
    touched: Vec<String>,
) -> Result<(bool, bool)> {
    let wanted = About::of(action, &decision.resources, Vec::new());
    let asks = ctx.authenticated().map(|caller| caller.identity);
    let (mut performed, mut asked) = (false, false);
    for id in touched {
        let found = tx.lookup::<CeremonyRow>(&id).await?;
        let row = found.ok_or_else(|| Error::internal("a ceremony without its row"))?.row;
        let about = About { terms: Vec::new(), ..About::read(&row.about)? };
        let ours = solemn && Some(row.identity) == asks && about == wanted;
        match row.state {
            CeremonyState::Performed if ours => performed = true,
            CeremonyState::Performed => {
                return Err(Error::internal("an act that performs the ceremony of another"));
            }
            CeremonyState::Open => asked |= ours,
            CeremonyState::Denied | CeremonyState::Cancelled | CeremonyState::Expired => {}
        }
    }
    Ok((performed, asked))
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
