//! Lists keys, within what the caller may see: a name is known to who may do anything at all with
//! what it names, and to nobody else.
//!
//! Where a page ended is kept as the id of the last key that was looked at, because its name may be
//! one that the caller must not learn.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::find::of;
use super::show::KeyDetail;
use crate::error::{Error, Result};
use crate::store::named_keys::{self, NamedKeyRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{ObjectId, Owner, RequestContext, VERBS, Verb as VerbRow};
use crate::vault::{Decision, Operation, Page, PageToken, READS, Resource, Verb, View};

/// Rows that one page looks at: a page may hold less than was asked for, and say where to go on.
const LOOKED_AT: usize = 4_000;
const STEP: i64 = 500;
/// Bytes of a name at most.
const NAME_BYTES: usize = 512;
/// Sorts behind every character of a name.
const BEHIND: char = '~';

/// A page of keys.
#[derive(Debug, Clone)]
pub struct KeyPage {
    /// The keys, by name.
    pub keys: Vec<KeyDetail>,
    /// The token of the next page; empty after the last.
    pub next: String,
}

/// Lists keys by name.
#[derive(Debug, Clone)]
pub struct ListKeys {
    /// Only names that begin so.
    pub prefix: String,
    /// Keys at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

impl ListKeys {
    /// The name after which a page begins.
    async fn begin(view: &View, after: &str) -> Result<String> {
        if after.is_empty() {
            return Ok(String::new());
        }
        let id: ObjectId = after.parse().map_err(Error::internal)?;
        let read = view
            .read(move |tx| async move { Ok(tx.lookup_intact::<NamedKeyRow>(&id).await?) }.boxed());
        let stood = || Error::invalid("page_token is not of this list; begin again without one");
        Ok(read.await?.ok_or_else(stood)?.row.name.to_string())
    }

    async fn step(&self, view: &View, after: &str) -> Result<Vec<Versioned<NamedKeyRow>>> {
        let from = after.max(self.prefix.as_str()).to_owned();
        let to = format!("{}{BEHIND}", self.prefix);
        let read = view.read(move |tx| {
            async move { Ok(named_keys::keys_from(tx, (&from, &to), STEP).await?) }.boxed()
        });
        let mut rows = read.await?;
        rows.retain(|found| found.row.name.as_str() != after);
        Ok(rows)
    }

    /// The rows of one page, and the last that was looked at where there may be more.
    async fn walk(
        &self,
        view: &View,
        mut from: String,
        size: usize,
    ) -> Result<(Vec<Versioned<NamedKeyRow>>, Option<ObjectId>)> {
        let (mut found, mut looked_at, mut last) = (Vec::new(), 0_usize, None);
        loop {
            let rows = self.step(view, &from).await?;
            if rows.is_empty() {
                return Ok((found, None));
            }
            for row in rows {
                if looked_at == LOOKED_AT {
                    return Ok((found, last));
                }
                looked_at = looked_at.saturating_add(1);
                let seen = may_see(view, &row)?;
                // That there is more says nothing of what the caller must not see.
                if seen && found.len() == size {
                    return Ok((found, last));
                }
                row.row.name.as_str().clone_into(&mut from);
                last = Some(row.row.id);
                if seen {
                    found.push(row);
                }
            }
        }
    }
}

/// Tells whether the caller may know a key's name: because it may do anything with it.
fn may_see(view: &View, found: &Versioned<NamedKeyRow>) -> Result<bool> {
    let subject = view.subject()?;
    let resource = of(&found.row.name, Some(found))?;
    let owns = resource.owner == Some(Owner::Identity(subject.identity.row.id));
    let name = resource.name.as_str();
    let on_one = |verb: &&VerbRow| verb.resource == "keys/<name>";
    for verb in VERBS.iter().filter(on_one) {
        let granted = || subject.grants(verb.action).any(|held| held.row.resource.matches(name));
        if (owns || granted()) && view.may(verb.action, &resource)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[async_trait]
impl Verb for ListKeys {
    const ACTION: &'static str = "keys.list";
    type Prepared = KeyPage;
    type Output = KeyPage;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("keys".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<KeyPage> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/".contains(&b);
        if self.prefix.len() > NAME_BYTES || !self.prefix.bytes().all(plain) {
            return Err(Error::invalid("a prefix has the characters of a name: a-z 0-9 . _ - /"));
        }
        let tokens = PageToken::new(view, Self::ACTION, &self.prefix)?;
        let Page { size, after } = tokens.open(view, self.page_size, &self.page_token)?;
        let size = usize::try_from(size).map_err(Error::internal)?;
        let from = Self::begin(view, &after).await?;
        let (found, last) = self.walk(view, from, size).await?;
        let next = last.map(|id| tokens.seal(view, &id.to_string()));
        let read = view.read(move |tx| {
            async move {
                let mut keys = Vec::with_capacity(found.len());
                for row in found {
                    keys.push(KeyDetail::of(tx, row).await?);
                }
                Ok(keys)
            }
            .boxed()
        });
        Ok(KeyPage { keys: read.await?, next: next.transpose()?.unwrap_or_default() })
    }
}

#[async_trait]
impl Operation for ListKeys {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        page: &KeyPage,
        _: &Decision,
    ) -> Result<KeyPage> {
        Ok(page.clone())
    }
}
