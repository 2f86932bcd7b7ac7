//! Suspends identities whose end has passed, and those that were not used for as long as their
//! kind may rest; ends logins that are older than their rotation, or whose keys are; has the record
//! tell once of each end that comes within its notice.
//!
//! Each walk takes a bounded part in a tick and goes on from there in the next.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use tokio::sync::Mutex;

use super::Worker;
use crate::engines::identities::{Due, EndLogin, SuspendIdentity, TellEnd, is_overdue};
use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::identities::IdentityRow;
use crate::store::lifecycles::{self, Ending, LiveLogin};
use crate::store::{Reader, Tx, Versioned};
use crate::types::{Caller, CredentialId, IdentityName, Kind, UnixMillis};
use crate::vault::Vault;

/// Identities that one walk looks at in a tick.
const STEP: i64 = 512;
/// Time between the beginnings of two walks through who is over or ends soon, and of two through who
/// is dormant and through logins, in milliseconds.
const ENDS_EVERY_MS: i64 = 60_000;
const AGES_EVERY_MS: i64 = 3_600_000;
/// Sorts behind every id.
const BEHIND: &str = "~";

/// The worker.
#[derive(Debug)]
pub struct LifecycleKeeper {
    vault: Vault,
    reader: Reader,
    rounds: Mutex<Option<Rounds>>,
}

/// Where its walks stand, and what it may not hold against anybody.
#[derive(Debug)]
struct Rounds {
    over: Walk<(UnixMillis, String)>,
    told: Walk<(UnixMillis, String)>,
    logins: Walk<(UnixMillis, String)>,
    /// By kind, and by id within it.
    dormant: Walk<(usize, String)>,
    /// Milliseconds before this node's start in which nobody at all was served: nobody could have
    /// been used then.
    unserved_ms: i64,
}

/// A walk that begins again and again.
#[derive(Debug)]
struct Walk<P> {
    every_ms: i64,
    began: UnixMillis,
    /// After what it goes on; none where it is at its end.
    after: Option<P>,
}

impl<P: Default> Walk<P> {
    const fn resting(every_ms: i64, began: UnixMillis) -> Self {
        Self { every_ms, began, after: None }
    }

    /// Where it goes on, where it is not at its end or is to begin. Whoever takes a step says where
    /// the next one begins: one that fails ends the walk.
    fn step(&mut self, now: UnixMillis) -> Option<P> {
        if let Some(after) = self.after.take() {
            return Some(after);
        }
        let begins = now.0.saturating_sub(self.began.0) >= self.every_ms;
        begins.then(|| {
            self.began = now;
            P::default()
        })
    }
}

impl LifecycleKeeper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader) -> Self {
        Self { vault, reader, rounds: Mutex::default() }
    }

    /// Waits a whole round after a start, so that whoever finds a wrong clock, or an old vault put
    /// back, has the time to say so.
    async fn begin(&self, now: UnixMillis) -> Result<Rounds> {
        let last = self.reader.view(|tx| async { Ok(lifecycles::last_use(tx).await?) }.boxed());
        let unserved_ms = last.await?.map_or(0, |last| now.0.saturating_sub(last.0).max(0));
        Ok(Rounds {
            over: Walk::resting(ENDS_EVERY_MS, now),
            told: Walk::resting(ENDS_EVERY_MS, now),
            logins: Walk::resting(AGES_EVERY_MS, now),
            dormant: Walk::resting(AGES_EVERY_MS, now),
            unserved_ms,
        })
    }

    async fn end_over(&self, walk: &mut Walk<(UnixMillis, String)>, now: UnixMillis) -> Result<()> {
        let Some(after) = walk.step(now) else { return Ok(()) };
        let read = self.reader.view(move |tx| {
            async move {
                let page = lifecycles::ending(tx, (after.0, &after.1), now, STEP).await?;
                let due = rows(tx, page.iter().map(|one| &one.id)).await?;
                Ok((due, next(&page)))
            }
            .boxed()
        });
        let (due, next) = read.await?;
        for identity in due {
            self.suspend(identity, Due::Over, "its end has passed").await;
        }
        walk.after = next;
        Ok(())
    }

    async fn tell_ends(
        &self,
        walk: &mut Walk<(UnixMillis, String)>,
        now: UnixMillis,
    ) -> Result<()> {
        let Some(after) = walk.step(now) else { return Ok(()) };
        // What ends now is over.
        let (from, after) = after.max((now, BEHIND.to_owned()));
        let read = self.reader.view(move |tx| {
            async move {
                let horizons = horizons(tx, now).await?;
                let furthest = horizons.values().copied().fold(now, UnixMillis::max);
                let page = lifecycles::ending(tx, (from, &after), furthest, STEP).await?;
                let comes = |one: &&Ending| {
                    !one.told && horizons.get(&one.kind).is_some_and(|until| one.ends_at <= *until)
                };
                let due = rows(tx, page.iter().filter(comes).map(|one| &one.id)).await?;
                Ok((due, next(&page)))
            }
            .boxed()
        });
        let (due, next) = read.await?;
        for identity in due {
            self.tell(identity).await;
        }
        walk.after = next;
        Ok(())
    }

    async fn end_overdue(
        &self,
        walk: &mut Walk<(UnixMillis, String)>,
        now: UnixMillis,
    ) -> Result<()> {
        let Some(after) = walk.step(now) else { return Ok(()) };
        let (from, after) = after.max((now, BEHIND.to_owned()));
        let read = self.reader.view(move |tx| {
            async move {
                let page = lifecycles::live_logins(tx, (from, &after), now, STEP).await?;
                let mut due = Vec::new();
                for login in page.iter().filter(|one| one.may_be_overdue) {
                    due.extend(overdue(tx, login, now).await?);
                }
                Ok((due, full(&page).map(|last| (last.ends_at, last.id.clone()))))
            }
            .boxed()
        });
        let (due, next) = read.await?;
        for (id, name) in due {
            // A row may hold what is no id at all.
            if let Ok(id) = id.parse() {
                self.end_login(id, name).await;
            }
        }
        walk.after = next;
        Ok(())
    }

    async fn end_dormant(
        &self,
        walk: &mut Walk<(usize, String)>,
        now: UnixMillis,
        unserved_ms: i64,
    ) -> Result<()> {
        let Some((nth, after)) = walk.step(now) else { return Ok(()) };
        let Some(kind) = Kind::ALL.get(nth).copied() else { return Ok(()) };
        let another = Some((nth.saturating_add(1), String::new()));
        if kind == Kind::Bootstrap {
            walk.after = another;
            return Ok(());
        }
        let read = self.reader.view(move |tx| {
            async move {
                let after_s = lifecycles::of_kind(tx, kind).await?.row.dormant_after_s;
                if after_s == 0 {
                    return Ok((now, Vec::new(), None));
                }
                let unused_ms = after_s.saturating_mul(1_000).saturating_add(unserved_ms);
                let since = UnixMillis(now.0.saturating_sub(unused_ms));
                let page = lifecycles::resting(tx, kind, &after, since, STEP).await?;
                let resting = page.iter().filter(|(_, rests)| *rests).map(|(id, _)| id);
                let due = rows(tx, resting).await?;
                Ok((since, due, full(&page).map(|(last, _)| last.clone())))
            }
            .boxed()
        });
        let (since, due, last) = read.await?;
        for identity in due {
            let due = Due::Dormant { since };
            self.suspend(identity, due, "it was not used for too long").await;
        }
        walk.after = last.map(|last| (nth, last)).or(another);
        Ok(())
    }

    /// What cannot be suspended, the last administrator, is passed by; what fails holds up itself
    /// alone, until the next walk.
    async fn suspend(&self, identity: Versioned<IdentityRow>, due: Due, reason: &'static str) {
        let name = identity.row.name;
        let op = SuspendIdentity { name: name.clone(), reason: reason.to_owned(), due: Some(due) };
        let suspended = match self.vault.context(Caller::System(Self::NAME), None) {
            Ok(ctx) => self.vault.run(&ctx, op).await.map(drop),
            Err(error) => Err(error),
        };
        match suspended {
            Ok(()) => tracing::warn!(identity = %name, reason, "an identity was suspended"),
            // Another node was first, it was changed or used meanwhile, or it is needed.
            Err(Error::Conflict(_) | Error::Precondition(_) | Error::Sealed) => {}
            Err(error) => tracing::warn!(identity = %name, %error, "an identity stays as it is"),
        }
    }

    async fn end_login(&self, id: CredentialId, name: IdentityName) {
        let op = EndLogin { name: name.clone(), id };
        let ended = match self.vault.context(Caller::System(Self::NAME), None) {
            Ok(ctx) => self.vault.run(&ctx, op).await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => tracing::warn!(identity = %name, login = %id, "an overdue login was ended"),
            Err(Error::Conflict(_) | Error::Precondition(_) | Error::Sealed) => {}
            Err(error) => tracing::warn!(identity = %name, %error, "a login stays as it is"),
        }
    }

    async fn tell(&self, identity: Versioned<IdentityRow>) {
        let IdentityRow { name, expires_at: Some(end), .. } = identity.row else { return };
        let op = TellEnd { name: name.clone(), end };
        let told = match self.vault.context(Caller::System(Self::NAME), None) {
            Ok(ctx) => self.vault.run(&ctx, op).await,
            Err(error) => Err(error),
        };
        match told {
            Ok(()) => tracing::warn!(identity = %name, %end, "an identity ends soon"),
            // Another node was first, or it was changed meanwhile.
            Err(Error::Conflict(_) | Error::Sealed) => {}
            Err(error) => tracing::warn!(identity = %name, %error, "a coming end is not told"),
        }
    }
}

/// Reads identities; one that is not what was sealed is left out.
async fn rows(
    tx: &mut Tx,
    ids: impl Iterator<Item = &String> + Send,
) -> Result<Vec<Versioned<IdentityRow>>> {
    let mut found = Vec::new();
    for id in ids {
        found.extend(tx.lookup_intact::<IdentityRow>(id).await?);
    }
    Ok(found)
}

/// Tells whose a login is that is older than its identity's rotation, or whose key is. Rows that are
/// not what was sealed are left out.
async fn overdue(
    tx: &mut Tx,
    login: &LiveLogin,
    now: UnixMillis,
) -> Result<Option<(String, IdentityName)>> {
    let Some(found) = tx.lookup_intact::<CredentialRow>(&login.id).await? else { return Ok(None) };
    let holder = tx.lookup_intact::<IdentityRow>(&found.row.identity).await?;
    let Some(Versioned { row: holder, .. }) = holder else { return Ok(None) };
    let due = is_overdue(tx, &holder, &found.row, now).await?;
    Ok(due.then(|| (login.id.clone(), holder.name)))
}

/// Until when an end of each kind's is one that notice is given of.
async fn horizons(tx: &mut Tx, now: UnixMillis) -> Result<HashMap<Kind, UnixMillis>> {
    let mut horizons = HashMap::new();
    for kind in Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Bootstrap) {
        let notice_s = lifecycles::of_kind(tx, kind).await?.row.notice_s;
        let until = now.0.saturating_add(notice_s.saturating_mul(1_000));
        horizons.insert(kind, UnixMillis(until));
    }
    Ok(horizons)
}

/// The last of a full page: there may be more after it.
fn full<T>(page: &[T]) -> Option<&T> {
    page.last().filter(|_| i64::try_from(page.len()).is_ok_and(|found| found >= STEP))
}

fn next(page: &[Ending]) -> Option<(UnixMillis, String)> {
    full(page).map(|last| (last.ends_at, last.id.clone()))
}

#[async_trait]
impl Worker for LifecycleKeeper {
    const NAME: &'static str = "lifecycle_keeper";
    const PERIOD: Duration = Duration::from_secs(1);

    /// A walk that fails begins again when its next is due.
    async fn tick(&self, now: UnixMillis) -> Result<()> {
        let mut rounds = self.rounds.lock().await;
        let Some(rounds) = rounds.as_mut() else {
            *rounds = Some(self.begin(now).await?);
            return Ok(());
        };
        let over = self.end_over(&mut rounds.over, now).await;
        let told = self.tell_ends(&mut rounds.told, now).await;
        let dormant = self.end_dormant(&mut rounds.dormant, now, rounds.unserved_ms).await;
        let logins = self.end_overdue(&mut rounds.logins, now).await;
        over.and(told).and(dormant).and(logins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_goes_on_until_its_end_and_begins_when_it_is_due() {
        let mut walk: Walk<(usize, String)> = Walk::resting(1_000, UnixMillis(0));
        assert_eq!(walk.step(UnixMillis(999)), None);
        assert_eq!(walk.step(UnixMillis(1_000)), Some((0, String::new())));
        walk.after = Some((2, "x".to_owned()));
        assert_eq!(walk.step(UnixMillis(1_001)), Some((2, "x".to_owned())));
        // It failed, or was at its end.
        assert_eq!(walk.step(UnixMillis(1_002)), None);
        assert_eq!(walk.step(UnixMillis(2_000)), Some((0, String::new())));
    }
}
