//! Lists and searches secrets, within what the caller may see: a name is known to who may do
//! anything at all with what it names, and to nobody else.
//!
//! Where a page ended is kept as the id of the last secret that was looked at, because its name may
//! be one that the caller must not learn.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::find::of;
use crate::engines::identities::{Names, SHORT, check_labels, check_text, read_labels};
use crate::error::{Error, Result};
use crate::store::secrets::{self, SecretHeadRow, SecretRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    IdentityName, ObjectId, Owner, RequestContext, UnixMillis, VERBS, Verb as VerbRow,
};
use crate::vault::{Decision, Operation, Page, PageToken, READS, Resource, Verb, View};

/// Rows that one page looks at: a page may hold less than was asked for, and say where to go on.
const LOOKED_AT: usize = 4_000;
const STEP: i64 = 500;
/// Bytes of a name at most.
const NAME_BYTES: usize = 512;
/// Sorts behind every character of a name.
const BEHIND: char = '~';

/// A secret as lists show it.
#[derive(Debug, Clone)]
pub struct ShownSecret {
    /// Its row.
    pub row: SecretRow,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The name of its owner.
    pub owner: IdentityName,
    /// The newest version's number.
    pub newest: i64,
    /// When that was written.
    pub written_at: UnixMillis,
}

/// A page of secrets.
#[derive(Debug, Clone)]
pub struct SecretPage {
    /// The secrets, by name.
    pub secrets: Vec<ShownSecret>,
    /// The token of the next page; empty after the last.
    pub next: String,
}

/// Lists secrets by name.
#[derive(Debug, Clone)]
pub struct ListSecrets {
    /// Only names that begin so.
    pub prefix: String,
    /// Secrets at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

/// Searches secrets by name and labels.
#[derive(Debug, Clone)]
pub struct SearchSecrets {
    /// Only those whose name, or a label's key or value, holds this text, whatever its case.
    pub text: String,
    /// Only those with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Secrets at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

/// What is looked for.
#[derive(Debug, Clone, Default)]
struct Wanted {
    prefix: String,
    text: String,
    labels: BTreeMap<String, String>,
}

impl Wanted {
    fn check(&self) -> Result<()> {
        check_labels(&self.labels)?;
        check_text("what is searched for", &self.text, SHORT)?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/".contains(&b);
        if self.prefix.len() > NAME_BYTES || !self.prefix.bytes().all(plain) {
            return Err(Error::invalid("a prefix has the characters of a name: a-z 0-9 . _ - /"));
        }
        Ok(())
    }

    fn fits(&self, row: &SecretRow, labels: &BTreeMap<String, String>) -> bool {
        let wanted = self.text.to_lowercase();
        let texts = labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
        let mut texts = texts.chain([row.path.as_str()]);
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && (wanted.is_empty() || texts.any(|text| text.contains(&wanted)))
    }

    /// Reads one page, and the last secret that was looked at where there may be more.
    async fn page(
        &self,
        view: &View,
        action: &'static str,
        asked: (i32, &str),
    ) -> Result<SecretPage> {
        self.check()?;
        let tokens = PageToken::new(view, action, &format!("{self:?}"))?;
        let Page { size, after } = tokens.open(view, asked.0, asked.1)?;
        let size = usize::try_from(size).map_err(Error::internal)?;
        let mut from = self.begin(view, &after).await?;
        let (mut found, mut looked_at, mut last) = (Vec::new(), 0_usize, None);
        let more = 'walk: loop {
            let rows = self.step(view, &from).await?;
            if rows.is_empty() {
                break false;
            }
            for row in rows {
                if looked_at == LOOKED_AT {
                    break 'walk true;
                }
                looked_at = looked_at.saturating_add(1);
                let labels = read_labels(&row.row.labels)?;
                let seen = self.fits(&row.row, &labels) && may_see(view, &row)?;
                // That there is more says nothing of what the caller must not see.
                if seen && found.len() == size {
                    break 'walk true;
                }
                row.row.path.as_str().clone_into(&mut from);
                last = Some(row.row.id);
                if seen {
                    found.push((row.row, labels));
                }
            }
        };
        let next = last.filter(|_| more).map(|id| tokens.seal(view, &id.to_string()));
        Ok(SecretPage {
            secrets: shown(view, found).await?,
            next: next.transpose()?.unwrap_or_default(),
        })
    }

    /// The name after which a page begins.
    async fn begin(&self, view: &View, after: &str) -> Result<String> {
        if after.is_empty() {
            return Ok(String::new());
        }
        let id: ObjectId = after.parse().map_err(Error::internal)?;
        let read = view
            .read(move |tx| async move { Ok(tx.lookup_intact::<SecretRow>(&id).await?) }.boxed());
        let stood = || Error::invalid("page_token is not of this list; begin again without one");
        Ok(read.await?.ok_or_else(stood)?.row.path.to_string())
    }

    async fn step(&self, view: &View, after: &str) -> Result<Vec<Versioned<SecretRow>>> {
        let from = after.max(self.prefix.as_str()).to_owned();
        let to = format!("{}{BEHIND}", self.prefix);
        let read = view.read(move |tx| {
            async move { Ok(secrets::secrets_from(tx, (&from, &to), STEP).await?) }.boxed()
        });
        let mut rows = read.await?;
        rows.retain(|found| found.row.path.as_str() != after);
        Ok(rows)
    }
}

/// Tells whether the caller may know a secret's name: because it may do anything with it. What no
/// grant of its own covers and it does not own is not decided on at all, so that long lists are
/// short work.
fn may_see(view: &View, found: &Versioned<SecretRow>) -> Result<bool> {
    let subject = view.subject()?;
    let resource = of(&found.row.path, Some(found))?;
    let owns = resource.owner == Some(Owner::Identity(subject.identity.row.id));
    let name = resource.name.as_str();
    let on_one = |verb: &&VerbRow| verb.resource == "secrets/<path>";
    for verb in VERBS.iter().filter(on_one) {
        let granted = || subject.grants(verb.action).any(|held| held.row.resource.matches(name));
        if (owns || granted()) && view.may(verb.action, &resource)? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn shown(
    view: &View,
    found: Vec<(SecretRow, BTreeMap<String, String>)>,
) -> Result<Vec<ShownSecret>> {
    let read = view.read(move |tx| {
        async move {
            let (mut names, mut shown) = (Names::default(), Vec::with_capacity(found.len()));
            for (row, labels) in found {
                // What is not what was sealed hides what stands on it, and nothing else.
                let Some(head) = tx.lookup_intact::<SecretHeadRow>(&row.id).await? else {
                    continue;
                };
                let Some(owner) = names.intact(tx, row.owner).await? else { continue };
                let (newest, written_at) = (head.row.newest, head.row.changed_at);
                shown.push(ShownSecret { row, labels, owner, newest, written_at });
            }
            Ok(shown)
        }
        .boxed()
    });
    read.await
}

#[async_trait]
impl Verb for ListSecrets {
    const ACTION: &'static str = "secrets.list";
    type Prepared = SecretPage;
    type Output = SecretPage;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("secrets".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<SecretPage> {
        let wanted = Wanted { prefix: self.prefix.clone(), ..Wanted::default() };
        wanted.page(view, Self::ACTION, (self.page_size, &self.page_token)).await
    }
}

#[async_trait]
impl Operation for ListSecrets {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        page: &SecretPage,
        _: &Decision,
    ) -> Result<SecretPage> {
        Ok(page.clone())
    }
}

#[async_trait]
impl Verb for SearchSecrets {
    const ACTION: &'static str = "secrets.search";
    type Prepared = SecretPage;
    type Output = SecretPage;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("secrets".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<SecretPage> {
        if self.text.is_empty() && self.labels.is_empty() {
            return Err(Error::invalid("say what to search for: a text, a label, or both"));
        }
        let (text, labels) = (self.text.clone(), self.labels.clone());
        let wanted = Wanted { text, labels, ..Wanted::default() };
        wanted.page(view, Self::ACTION, (self.page_size, &self.page_token)).await
    }
}

#[async_trait]
impl Operation for SearchSecrets {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        page: &SecretPage,
        _: &Decision,
    ) -> Result<SecretPage> {
        Ok(page.clone())
    }
}
