//! Has the revocation list of each issuing CA signed anew when something was revoked, and each hour;
//! takes over the lists that other nodes had signed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::Worker;
use crate::engines::pki::{AuthoritySlot, CrlSlot, Place, Role, SignCrl, list_of, listed_from};
use crate::error::{Error, Result};
use crate::store::crls::{self, CrlRow};
use crate::store::{Reader, Versioned};
use crate::types::{Caller, Segment, UnixMillis};
use crate::vault::Vault;

/// How old a list becomes, in milliseconds.
const REFRESH_MS: i64 = 3_600_000;
/// The shortest pause between two lists of this node: what is revoked meanwhile
/// stands on the second, so that all of it is published within a second.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause; after tries in vain, each of which is on the record, too.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The worker.
#[derive(Debug)]
pub struct CrlKeeper {
    vault: Vault,
    reader: Reader,
    authorities: AuthoritySlot,
    crls: CrlSlot,
    paces: Mutex<BTreeMap<Segment, Pace>>,
}

/// How far this node is with one list.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// The authority epoch up to which contained certificates were looked for.
    looked: i64,
    /// Tries in vain, and when the next list may be signed.
    tries: u32,
    next_try: i64,
}

impl CrlKeeper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader, authorities: AuthoritySlot, crls: CrlSlot) -> Self {
        Self { vault, reader, authorities, crls, paces: Mutex::default() }
    }

    /// Takes over the newest list of the store; tells the authority epoch as of before, and where
    /// the list is.
    async fn load(&self, id: &Segment) -> Result<(i64, Place)> {
        let known = self.crls.newest(id).map(|crl| crl.version);
        let id = id.clone();
        let read = self.reader.view(move |tx| {
            async move {
                let epoch = tx.epoch().await?;
                let stored = crls::version(tx, &id).await?;
                if stored.is_some() && stored == known {
                    return Ok((epoch, Place::Known, None));
                }
                let newest = tx.lookup_intact::<CrlRow>(&id).await?;
                let place = newest.as_ref().map_or(Place::Lost(stored), |_| Place::Known);
                Ok((epoch, place, newest))
            }
            .boxed()
        });
        let (epoch, place, newest) = read.await?;
        if let Some(newest) = newest {
            self.crls.offer(Arc::new(newest));
        }
        Ok((epoch, place))
    }

    fn pace(&self, id: &Segment) -> Pace {
        self.paces.lock().get(id).copied().unwrap_or_default()
    }

    fn goes(&self, id: &Segment, change: impl FnOnce(&mut Pace)) {
        change(self.paces.lock().entry(id.clone()).or_default());
    }

    /// Tells whether something was revoked that does not stand on the list. Those that were ended
    /// are added up each time; who was contained only where rights moved.
    async fn lacks(&self, crl: &Versioned<CrlRow>, epoch: i64) -> Result<bool> {
        let moved = epoch != self.pace(&crl.row.id).looked;
        let CrlRow { this_update, ended, contained, .. } = crl.row;
        let read = self.reader.view(move |tx| {
            async move {
                let since = listed_from(this_update);
                Ok(crls::sum_ended(tx, since).await? != ended
                    || (moved && crls::sum_contained(tx, since).await? != contained))
            }
            .boxed()
        });
        let lacks = read.await?;
        if !lacks {
            self.goes(&crl.row.id, |pace| pace.looked = epoch);
        }
        Ok(lacks)
    }

    async fn sign(
        &self,
        id: &Segment,
        replaces: Option<Arc<Versioned<CrlRow>>>,
        place: Place,
    ) -> Result<()> {
        let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
        let (authorities, others) = (self.authorities.clone(), self.crls.others(id));
        let op = SignCrl { authorities, replaces, others, place, id: id.clone() };
        match self.vault.run(&ctx, op).await {
            Ok(signed) => self.crls.offer(Arc::new(signed)),
            // Another node was first; its list is taken over in the next round.
            Err(Error::Conflict(_) | Error::AlreadyExists(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Sees to one list.
    async fn keep(&self, id: &Segment, now: UnixMillis) -> Result<()> {
        let (epoch, place) = self.load(id).await?;
        if now.0 < self.pace(id).next_try {
            return Ok(());
        }
        let crl = self.crls.newest(id);
        let due = match &crl {
            // A clock that was set back: no list is older than the one before it.
            Some(crl) if crl.row.this_update > now => false,
            Some(crl) if place == Place::Known => {
                now.0.saturating_sub(crl.row.this_update.0) >= REFRESH_MS
                    || self.lacks(crl, epoch).await?
            }
            Some(_) | None => true,
        };
        if !due {
            return Ok(());
        }
        let began = Instant::now();
        let signed = self.sign(id, crl, place).await;
        let (tries, pause) = if signed.is_ok() {
            (0, began.elapsed().saturating_add(PAUSE))
        } else {
            let tries = self.pace(id).tries;
            let pause = Duration::from_secs(1).saturating_mul(1 << tries.min(5));
            (tries.saturating_add(1), pause)
        };
        let next = now.plus(pause.min(LONGEST_PAUSE))?;
        self.goes(id, |pace| (pace.tries, pace.next_try) = (tries, next.0));
        signed
    }
}

#[async_trait]
impl Worker for CrlKeeper {
    const NAME: &'static str = "crl_keeper";
    const PERIOD: Duration = Duration::from_millis(250);

    async fn tick(&self, now: UnixMillis) -> Result<()> {
        let authorities = self.authorities.current()?;
        let lists = authorities.of(Role::Issuing).map(list_of).collect::<Result<Vec<_>>>()?;
        self.crls.keep(&lists);
        let mut done = Ok(());
        for id in &lists {
            // One that fails holds up no other.
            done = done.and(self.keep(id, now).await);
        }
        done
    }
}
