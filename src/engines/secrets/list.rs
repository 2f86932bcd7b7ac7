//! Lists and searches secrets, within what the caller may see: a name is known to who may do
//! anything at all with what it names, and to nobody else.
//!
//! Only names are looked at that the caller owns or that a grant of its own may cover: how long a
//! list takes, and where its pages end, tells little of the others. Page tokens are sealed, because
//! the name where a page ended may be one that the caller must not learn.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::find::of;
use crate::engines::identities::{Names, SHORT, check_labels, check_text, read_labels};
use crate::error::{Error, Result};
use crate::store::secrets::{self, SecretHeadRow, SecretRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    IdentityName, Owner, RequestContext, ResourcePattern, UnixMillis, VERBS, Verb as VerbRow,
};
use crate::vault::{Decision, Operation, Page, PageToken, READS, Resource, Verb, View};

/// Rows and ranges that one page looks at: it may hold less than was asked for, and say where to go
/// on.
const LOOKED_AT: usize = 4_000;
/// Rows, and ranges without any, that one step looks at.
const STEP: i64 = 500;
const RANGES: usize = 100;
/// Bytes of a name at most.
const NAME_BYTES: usize = 512;
/// Sort before and behind every character of a name.
const BEFORE: char = '!';
const BEHIND: char = '~';

/// What a verb names that does something with one secret.
const ON_ONE: &str = "secrets/<path>";

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

    /// Reads one page.
    async fn page(
        &self,
        view: &View,
        action: &'static str,
        asked: (i32, &str),
    ) -> Result<SecretPage> {
        self.check()?;
        let tokens = PageToken::new(view, action, &format!("{self:?}"))?;
        let Page { size, after: mut at } = tokens.open(view, asked.0, asked.1)?;
        let size = usize::try_from(size).map_err(Error::internal)?;
        let ranges = ranges(view, &self.prefix)?;
        let (mut found, mut looked_at) = (Vec::new(), 0_usize);
        let more = 'walk: loop {
            let Step { rows, tried, next } = self.step(view, &ranges, &at).await?;
            for row in rows {
                let labels = read_labels(&row.row.labels)?;
                let seen = self.fits(&row.row, &labels) && may_see(view, &row)?;
                // That there is more says nothing of what the caller must not see.
                if seen && found.len() == size {
                    break 'walk true;
                }
                row.row.path.as_str().clone_into(&mut at);
                if seen {
                    found.push((row.row, labels));
                }
                looked_at = looked_at.saturating_add(1);
                if looked_at >= LOOKED_AT {
                    break 'walk true;
                }
            }
            let Some(next) = next else { break false };
            at = next;
            looked_at = looked_at.saturating_add(tried);
            if looked_at >= LOOKED_AT {
                break true;
            }
        };
        let next = if more { tokens.seal(view, &at)? } else { String::new() };
        Ok(SecretPage { secrets: shown(view, found).await?, next })
    }

    /// Looks at what comes after a name, of what the caller owns and of what its grants may cover.
    async fn step(&self, view: &View, ranges: &[Range], at: &str) -> Result<Step> {
        let mut ahead: Vec<Range> =
            ranges.iter().filter(|range| range.end.as_str() > at).cloned().collect();
        let untried = ahead.len() > RANGES;
        ahead.truncate(RANGES);
        let (owner, at) = (view.identity()?, at.to_owned());
        let all = Range::of(&self.prefix);
        let read = view.read(move |tx| {
            async move {
                let from = at.as_str().max(&all.start);
                let mut rows = secrets::owned_from(tx, owner, (from, &all.end), STEP).await?;
                rows.retain(|found| found.row.path.as_str() != at);
                let mut next = rows.last().map(|last| last.row.path.to_string());
                let mut tried = 0_usize;
                // Where nothing is found, the end of what was looked at, unless that is all.
                let mut covered = ahead.last().filter(|_| untried).map(|last| last.end.clone());
                for Range { start, end } in &ahead {
                    tried = tried.saturating_add(1);
                    let from = at.as_str().max(start);
                    let mut granted = secrets::secrets_from(tx, (from, end), STEP).await?;
                    granted.retain(|found| found.row.path.as_str() != at);
                    if let Some(last) = granted.last() {
                        covered = Some(last.row.path.to_string());
                        rows.append(&mut granted);
                        break;
                    }
                }
                next = [next, covered].into_iter().flatten().min();
                Ok(Step { rows, tried, next })
            }
            .boxed()
        });
        let mut step = read.await?;
        if let Some(next) = &step.next {
            step.rows.retain(|found| found.row.path.as_str() <= next.as_str());
        }
        step.rows.sort_by(|a, b| a.row.path.as_str().cmp(b.row.path.as_str()));
        step.rows.dedup_by(|a, b| a.row.id == b.row.id);
        Ok(step)
    }
}

/// What one step looked at.
#[derive(Debug)]
struct Step {
    /// Secrets, by name.
    rows: Vec<Versioned<SecretRow>>,
    /// Ranges that were looked into.
    tried: usize,
    /// The name up to which everything was looked at; none when nothing is left.
    next: Option<String>,
}

/// Names from one on, and before another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    start: String,
    end: String,
}

impl Range {
    /// All names that begin so.
    fn of(prefix: &str) -> Self {
        Self { start: prefix.to_owned(), end: format!("{prefix}{BEHIND}") }
    }

    /// All names that a pattern can cover.
    fn covered(pattern: &ResourcePattern) -> Option<Self> {
        let literal = pattern.literal().strip_prefix("secrets/")?;
        if pattern.has_wildcard() {
            return Some(Self::of(literal));
        }
        Some(Self { start: literal.to_owned(), end: format!("{literal}{BEFORE}") })
    }

    fn within(self, other: &Self) -> Option<Self> {
        let start = self.start.max(other.start.clone());
        let end = self.end.min(other.end.clone());
        (start < end).then_some(Self { start, end })
    }
}

/// The names that grants of the caller may cover, each once and in order.
fn ranges(view: &View, prefix: &str) -> Result<Vec<Range>> {
    let all = Range::of(prefix);
    let on_one = |action: &str| VerbRow::lookup(action).is_some_and(|verb| verb.resource == ON_ONE);
    let held = view.subject()?.all_grants().filter(|held| on_one(&held.row.action));
    let covered = held.filter_map(|held| Range::covered(&held.row.resource)?.within(&all));
    Ok(joined(covered.collect()))
}

fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort();
    let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => {
                if range.end > last.end {
                    last.end = range.end;
                }
            }
            Some(_) | None => joined.push(range),
        }
    }
    joined
}

/// Tells whether the caller may know a secret's name: because it may do anything with it. What no
/// grant of its own covers and it does not own is not decided on at all, so that long lists are
/// short work.
fn may_see(view: &View, found: &Versioned<SecretRow>) -> Result<bool> {
    let subject = view.subject()?;
    let resource = of(&found.row.path, Some(found))?;
    let owns = resource.owner == Some(Owner::Identity(subject.identity.row.id));
    let name = resource.name.as_str();
    for verb in VERBS.iter().filter(|verb| verb.resource == ON_ONE) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(patterns: &[&str], prefix: &str) -> Vec<(String, String)> {
        let all = Range::of(prefix);
        let ranges = patterns
            .iter()
            .filter_map(|pattern| Range::covered(&pattern.parse().unwrap())?.within(&all));
        let joined = joined(ranges.collect());
        joined.into_iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn no_names_are_looked_at_but_those_that_patterns_can_cover() {
        let own = |ranges: &[(&str, &str)]| -> Vec<(String, String)> {
            ranges.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        assert_eq!(covered(&["secrets/team/a"], ""), own(&[("team/a", "team/a!")]));
        assert_eq!(covered(&["secrets/team/a*"], ""), own(&[("team/a", "team/a~")]));
        let overlapping = ["secrets/team/**", "secrets/team/a", "secrets/b/c"];
        assert_eq!(covered(&overlapping, ""), own(&[("b/c", "b/c!"), ("team/", "team/~")]));
        assert_eq!(covered(&overlapping, "team/a"), own(&[("team/a", "team/a~")]));
        assert_eq!(covered(&["secrets/*/e"], "x"), own(&[("x", "x~")]));
        assert_eq!(covered(&["secrets", "keys/a"], ""), own(&[]));
    }
}
