//! Lists and searches secrets, within what the caller may see: a name is known to who may do
//! anything at all with what it names, and to nobody else.
//!
//! Page tokens are sealed, because the name where a page ended may be one that the caller must not
//! learn.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::find::of;
use crate::engines::identities::{Names, SHORT, check_labels, check_text, read_labels};
use crate::engines::walk::{Walked, check_prefix, walk};
use crate::error::{Error, Result};
use crate::store::secrets::{self, SecretHeadRow, SecretRow};
use crate::store::{Needs, StoreError, Tx, Versioned};
use crate::types::{IdentityId, IdentityName, RequestContext, UnixMillis};
use crate::vault::{Decision, Operation, Page, PageToken, READS, Resource, Verb, View};

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
        check_prefix(&self.prefix)
    }

    fn fits(&self, row: &SecretRow, labels: &BTreeMap<String, String>) -> bool {
        let wanted = self.text.to_lowercase();
        let texts = labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
        let mut texts = texts.chain([row.path.as_str()]);
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && (wanted.is_empty() || texts.any(|text| text.contains(&wanted)))
    }

    /// Reads one page.
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
        let fits =
            |row: &SecretRow| -> Result<bool> { Ok(self.fits(row, &read_labels(&row.labels)?)) };
        let (found, next) = walk(view, &self.prefix, (after, size), fits).await?;
        let next = next.map(|at| tokens.seal(view, &at)).transpose()?.unwrap_or_default();
        Ok(SecretPage { secrets: shown(view, found).await?, next })
    }
}

#[async_trait]
impl Walked for SecretRow {
    const ROOT: &'static str = "secrets/";
    const ON_ONE: &'static str = "secrets/<path>";

    fn name(&self) -> &str {
        self.path.as_str()
    }

    fn resource(found: &Versioned<Self>) -> Result<Resource> {
        of(&found.row.path, Some(found))
    }

    async fn owned(
        tx: &mut Tx,
        owner: IdentityId,
        names: (&str, &str),
        limit: i64,
    ) -> Result<Vec<Versioned<Self>>, StoreError> {
        secrets::owned_from(tx, owner, names, limit).await
    }

    async fn all(
        tx: &mut Tx,
        names: (&str, &str),
        limit: i64,
    ) -> Result<Vec<Versioned<Self>>, StoreError> {
        secrets::secrets_from(tx, names, limit).await
    }
}

async fn shown(view: &View, found: Vec<Versioned<SecretRow>>) -> Result<Vec<ShownSecret>> {
    let read = view.read(move |tx| {
        async move {
            let (mut names, mut shown) = (Names::default(), Vec::with_capacity(found.len()));
            for Versioned { row, .. } in found {
                let labels = read_labels(&row.labels)?;
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
