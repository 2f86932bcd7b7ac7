//! Has the revocation list signed anew when something was revoked, and each hour; takes over the
//! lists that other nodes had signed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Worker;
use crate::engines::pki::{AuthoritySlot, CrlSlot, Place, SignCrl, issuing, listed_from};
use crate::error::{Error, Result};
use crate::store::crls::{self, CrlRow};
use crate::store::{Reader, Versioned};
use crate::types::{Caller, UnixMillis};
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
    /// The authority epoch up to which contained certificates were looked for.
    looked: AtomicI64,
    /// Tries in vain, and when the next list may be signed.
    tries: AtomicU32,
    next_try: AtomicI64,
}

impl CrlKeeper {
    /// Makes the worker.
    #[must_use]
    pub fn new(vault: Vault, reader: Reader, authorities: AuthoritySlot, crls: CrlSlot) -> Self {
        let (looked, next_try) = (AtomicI64::new(0), AtomicI64::new(0));
        Self { vault, reader, authorities, crls, looked, tries: AtomicU32::new(0), next_try }
    }

    /// Takes over the newest list of the store; tells the authority epoch as of before, and where
    /// the list is.
    async fn load(&self) -> Result<(i64, Place)> {
        let known = self.crls.current().map(|crl| crl.version);
        let read = self.reader.view(move |tx| {
            async move {
                let (epoch, id) = (tx.epoch().await?, issuing()?);
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

    /// Tells whether something was revoked that does not stand on the list. Those that were ended
    /// are added up each time; who was contained only where rights moved.
    async fn lacks(&self, crl: &Versioned<CrlRow>, epoch: i64) -> Result<bool> {
        let moved = epoch != self.looked.load(Ordering::Acquire);
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
            self.looked.store(epoch, Ordering::Release);
        }
        Ok(lacks)
    }

    async fn sign(&self, replaces: Option<Arc<Versioned<CrlRow>>>, place: Place) -> Result<()> {
        let ctx = self.vault.context(Caller::System(Self::NAME), None)?;
        let op = SignCrl { authorities: self.authorities.clone(), replaces, place };
        match self.vault.run(&ctx, op).await {
            Ok(signed) => self.crls.offer(Arc::new(signed)),
            // Another node was first; its list is taken over in the next round.
            Err(Error::Conflict(_) | Error::AlreadyExists(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[async_trait]
impl Worker for CrlKeeper {
    const NAME: &'static str = "crl_keeper";
    const PERIOD: Duration = Duration::from_millis(250);

    async fn tick(&self, now: UnixMillis) -> Result<()> {
        let (epoch, place) = self.load().await?;
        if now.0 < self.next_try.load(Ordering::Acquire) {
            return Ok(());
        }
        let crl = self.crls.current();
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
        let signed = self.sign(crl, place).await;
        let pause = if signed.is_ok() {
            self.tries.store(0, Ordering::Release);
            began.elapsed().saturating_add(PAUSE)
        } else {
            let tries = self.tries.fetch_add(1, Ordering::AcqRel);
            Duration::from_secs(1).saturating_mul(1 << tries.min(5))
        };
        let next = now.plus(pause.min(LONGEST_PAUSE))?;
        self.next_try.store(next.0, Ordering::Release);
        signed
    }
}
