//! Walks through named things within what a caller may see: a name is known to who may do anything
//! at all with what it names, and to nobody else.
//!
//! Only names are looked at that the caller owns or that a grant of its own may cover: how long a
//! list takes, and where its pages end, tells little of the others.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use crate::error::{Error, Result};
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{IdentityId, Owner, ResourcePattern, VERBS, Verb as VerbRow};
use crate::vault::{Resource, View};

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

/// What is walked through by its name.
#[async_trait]
pub(in crate::engines) trait Walked: Clone + Send + Sync + 'static {
    /// What its resources begin with.
    const ROOT: &'static str;
    /// What a verb names that does something with one.
    const ON_ONE: &'static str;

    /// Its name.
    fn name(&self) -> &str;

    /// It, as a resource.
    fn resource(found: &Versioned<Self>) -> Result<Resource>;

    /// Those of one owner from one name on, before another.
    async fn owned(
        tx: &mut Tx,
        owner: IdentityId,
        names: (&str, &str),
        limit: i64,
    ) -> Result<Vec<Versioned<Self>>, StoreError>;

    /// Those from one name on, before another.
    async fn all(
        tx: &mut Tx,
        names: (&str, &str),
        limit: i64,
    ) -> Result<Vec<Versioned<Self>>, StoreError>;
}

/// Refuses a prefix that no name has.
pub(in crate::engines) fn check_prefix(prefix: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/".contains(&b);
    if prefix.len() > NAME_BYTES || !prefix.bytes().all(plain) {
        return Err(Error::invalid("a prefix has the characters of a name: a-z 0-9 . _ - /"));
    }
    Ok(())
}

/// Reads one page of what begins so, after a name, and fits; and the last name that was looked at
/// where there may be more, which may be one that the caller must not learn.
pub(in crate::engines) async fn walk<R: Walked>(
    view: &View,
    prefix: &str,
    (mut at, size): (String, usize),
    fits: impl Fn(&R) -> Result<bool> + Send + Sync,
) -> Result<(Vec<Versioned<R>>, Option<String>)> {
    let ranges = ranges::<R>(view, prefix)?;
    let (mut found, mut looked_at) = (Vec::new(), 0_usize);
    loop {
        let Step { rows, tried, next } = step::<R>(view, prefix, &ranges, &at).await?;
        for row in rows {
            let seen = fits(&row.row)? && may_see(view, &row)?;
            // That there is more says nothing of what the caller must not see.
            if seen && found.len() == size {
                return Ok((found, Some(at)));
            }
            row.row.name().clone_into(&mut at);
            if seen {
                found.push(row);
            }
            looked_at = looked_at.saturating_add(1);
            if looked_at >= LOOKED_AT {
                return Ok((found, Some(at)));
            }
        }
        let Some(next) = next else { return Ok((found, None)) };
        at = next;
        looked_at = looked_at.saturating_add(tried);
        if looked_at >= LOOKED_AT {
            return Ok((found, Some(at)));
        }
    }
}

/// Looks at what comes after a name, of what the caller owns and of what its grants may cover.
async fn step<R: Walked>(view: &View, prefix: &str, ranges: &[Range], at: &str) -> Result<Step<R>> {
    let mut ahead: Vec<Range> =
        ranges.iter().filter(|range| range.end.as_str() > at).cloned().collect();
    let untried = ahead.len() > RANGES;
    ahead.truncate(RANGES);
    let (owner, at, all) = (view.identity()?, at.to_owned(), Range::of(prefix));
    let read = view.read(move |tx| {
        async move {
            let from = at.as_str().max(&all.start);
            let mut rows = R::owned(tx, owner, (from, &all.end), STEP).await?;
            rows.retain(|found| found.row.name() != at);
            let mut next = rows.last().map(|last| last.row.name().to_owned());
            let mut tried = 0_usize;
            // Where nothing is found, the end of what was looked at, unless that is all.
            let mut covered = ahead.last().filter(|_| untried).map(|last| last.end.clone());
            for Range { start, end } in &ahead {
                tried = tried.saturating_add(1);
                let from = at.as_str().max(start);
                let mut granted = R::all(tx, (from, end), STEP).await?;
                granted.retain(|found| found.row.name() != at);
                if let Some(last) = granted.last() {
                    covered = Some(last.row.name().to_owned());
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
        step.rows.retain(|found| found.row.name() <= next.as_str());
    }
    step.rows.sort_by(|a, b| a.row.name().cmp(b.row.name()));
    step.rows.dedup_by(|a, b| a.row.name() == b.row.name());
    Ok(step)
}

/// What one step looked at.
#[derive(Debug)]
struct Step<R> {
    /// Rows, by name.
    rows: Vec<Versioned<R>>,
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
    fn covered(root: &str, pattern: &ResourcePattern) -> Option<Self> {
        let literal = pattern.literal().strip_prefix(root)?;
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
fn ranges<R: Walked>(view: &View, prefix: &str) -> Result<Vec<Range>> {
    let all = Range::of(prefix);
    let on_one =
        |action: &str| VerbRow::lookup(action).is_some_and(|verb| verb.resource == R::ON_ONE);
    let held = view.subject()?.all_grants().filter(|held| on_one(&held.row.action));
    let covered = held.filter_map(|held| Range::covered(R::ROOT, &held.row.resource)?.within(&all));
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

/// Tells whether the caller may know a name: because it may do anything with it. What no
/// grant of its own covers and it does not own is not decided on at all, so that long lists are
/// short work.
fn may_see<R: Walked>(view: &View, found: &Versioned<R>) -> Result<bool> {
    let subject = view.subject()?;
    let resource = R::resource(found)?;
    let owns = resource.owner == Some(Owner::Identity(subject.identity.row.id));
    let name = resource.name.as_str();
    for verb in VERBS.iter().filter(|verb| verb.resource == R::ON_ONE) {
        let granted = || subject.grants(verb.action).any(|held| held.row.resource.matches(name));
        if (owns || granted()) && view.may(verb.action, &resource)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(patterns: &[&str], prefix: &str) -> Vec<(String, String)> {
        let all = Range::of(prefix);
        let ranges = patterns.iter().filter_map(|pattern| {
            Range::covered("secrets/", &pattern.parse().unwrap())?.within(&all)
        });
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
