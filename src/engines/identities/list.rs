//! Lists identities.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::labels::{check_labels, read_labels};
use super::{Described, Names, SHORT, check_text};
use crate::error::{Error, Result};
use crate::store::identities::{self, IdentityRow, IdentityWalk};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    IdentityState, Kind, Owner, OwnerName, RequestContext, Segment, Tier, UnixMillis,
};
use crate::vault::{Answerable, Decision, Operation, PageToken, READS, Resource, Verb, View};

/// Rows that one page looks at: a page may hold less than was asked for, and say where to go on.
const LOOKED_AT: usize = 2_000;
const STEP: i64 = 500;
/// Bytes of a name at most, with its slashes.
const NAME_BYTES: usize = 255;
/// Sorts behind every character of a name.
const BEHIND: char = '~';

/// Lists identities by name.
#[derive(Debug, Clone, Default)]
pub struct ListIdentities {
    /// What it is narrowed by.
    pub filter: IdentityFilter,
    /// Identities at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

/// What a list of identities is narrowed by: all of it must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentityFilter {
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Only this state.
    pub state: Option<IdentityState>,
    /// Only this tier.
    pub tier: Option<Tier>,
    /// Only what this owner answers for.
    pub owner: Option<OwnerName>,
    /// Only the accounts of this person.
    pub person: Option<Segment>,
    /// Only those with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only names that begin so.
    pub prefix: String,
    /// Only those whose name, purpose, needs, or a label's key or value hold this text, whatever its
    /// case.
    pub search: String,
    /// Only those that end before this moment.
    pub expiring_before: Option<UnixMillis>,
    /// Only those that were not served, and not registered, since this moment.
    pub unused_since: Option<UnixMillis>,
    /// Only those that are not retired and whom nobody active answers for. Humans answer for
    /// themselves.
    pub orphaned: bool,
}

/// A page of identities.
#[derive(Debug, Clone)]
pub struct IdentityPage {
    /// The identities.
    pub identities: Vec<Described>,
    /// The token of the next page; empty after the last.
    pub next: String,
}

impl IdentityFilter {
    fn check(&self) -> Result<()> {
        check_labels(&self.labels)?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/".contains(&b);
        if self.prefix.len() > NAME_BYTES || !self.prefix.bytes().all(plain) {
            return Err(Error::invalid("a prefix has the characters of a name: a-z 0-9 . _ - /"));
        }
        check_text("what is searched for", &self.search, SHORT)
    }

    /// Tells whether a row fits, by itself.
    fn holds(&self, row: &IdentityRow) -> Result<bool> {
        let fits = self.kind.is_none_or(|kind| row.kind == kind)
            && self.state.is_none_or(|state| row.state == state)
            && self.tier.is_none_or(|tier| row.tier == tier)
            && self.person.as_ref().is_none_or(|person| row.person.as_ref() == Some(person))
            && !(self.orphaned && (row.state == IdentityState::Retired || owns_itself(row)))
            && row.name.as_str().starts_with(&self.prefix)
            && self.expiring_before.is_none_or(|at| row.expires_at.is_some_and(|end| end < at));
        if !fits || (self.labels.is_empty() && self.search.is_empty()) {
            return Ok(fits);
        }
        let labels = read_labels(&row.labels)?;
        Ok(self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.found_in(row, &labels))
    }

    fn found_in(&self, row: &IdentityRow, labels: &BTreeMap<String, String>) -> bool {
        let wanted = self.search.to_lowercase();
        let texts = [row.name.as_str(), &row.purpose, &row.needs].into_iter();
        let labels = labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
        wanted.is_empty() || texts.chain(labels).any(|text| text.to_lowercase().contains(&wanted))
    }

    /// Tells whether what is known beside the row fits as well.
    async fn holds_beside(
        &self,
        tx: &mut Tx,
        names: &mut Names,
        row: &IdentityRow,
        now: UnixMillis,
    ) -> Result<bool> {
        if self.orphaned && names.answerable(tx, row.owner).await?.is_active(now) {
            return Ok(false);
        }
        let Some(since) = self.unused_since else { return Ok(true) };
        if row.created_at >= since {
            return Ok(false);
        }
        Ok(identities::identity_last_used(tx, row.id).await?.is_none_or(|used| used < since))
    }
}

fn owns_itself(row: &IdentityRow) -> bool {
    row.owner == Owner::Identity(row.id)
}

/// Where a walk through identities stands.
struct Walk {
    filter: IdentityFilter,
    owner: Option<Owner>,
    size: usize,
    now: UnixMillis,
}

impl Walk {
    async fn step(&self, tx: &mut Tx, after: &str) -> Result<Vec<Versioned<IdentityRow>>> {
        let prefix = self.filter.prefix.as_str();
        let to = format!("{prefix}{BEHIND}");
        let walk = match (self.owner, &self.filter.person) {
            (Some(owner), _) => IdentityWalk::Owned(owner),
            (None, Some(person)) => IdentityWalk::Person(person),
            (None, None) => IdentityWalk::All,
        };
        let mut rows =
            identities::identities_from(tx, walk, (after.max(prefix), &to), STEP).await?;
        rows.retain(|found| found.row.name.as_str() != after);
        Ok(rows)
    }

    /// Reads one page, and the name after which the next begins.
    async fn page(
        &self,
        tx: &mut Tx,
        mut after: String,
    ) -> Result<(Vec<Described>, Option<String>)> {
        let (mut names, mut found, mut looked_at) = (Names::default(), Vec::new(), 0_usize);
        loop {
            let rows = self.step(tx, &after).await?;
            if rows.is_empty() {
                return Ok((found, None));
            }
            for row in rows {
                if found.len() == self.size || looked_at == LOOKED_AT {
                    return Ok((found, Some(after)));
                }
                looked_at = looked_at.saturating_add(1);
                row.row.name.as_str().clone_into(&mut after);
                if self.filter.holds(&row.row)?
                    && self.filter.holds_beside(tx, &mut names, &row.row, self.now).await?
                {
                    found.push(Described::read(tx, &mut names, row, self.now).await?);
                }
            }
        }
    }
}

#[async_trait]
impl Verb for ListIdentities {
    const ACTION: &'static str = "identities.list";
    type Prepared = IdentityPage;
    type Output = IdentityPage;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("identities".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<IdentityPage> {
        self.filter.check()?;
        let tokens = PageToken::new(view, Self::ACTION, &format!("{:?}", self.filter))?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let size = usize::try_from(page.size).map_err(Error::internal)?;
        let mut walk = Walk { filter: self.filter.clone(), owner: None, size, now: view.now() };
        let (identities, next) = view
            .read(move |tx| {
                async move {
                    if let Some(name) = &walk.filter.owner {
                        let found = Answerable::named(tx, name).await?;
                        let unknown = || Error::not_found("there is no owner of that name");
                        walk.owner = Some(found.ok_or_else(unknown)?.owner);
                    }
                    walk.page(tx, page.after).await
                }
                .boxed()
            })
            .await?;
        let next = next.map(|after| tokens.seal(view, &after)).transpose()?;
        Ok(IdentityPage { identities, next: next.unwrap_or_default() })
    }
}

#[async_trait]
impl Operation for ListIdentities {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        prepared: &IdentityPage,
        _: &Decision,
    ) -> Result<IdentityPage> {
        Ok(prepared.clone())
    }
}
