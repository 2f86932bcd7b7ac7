//! Who was shredded, outside of the store: in the HSM and in a file of this node, so that a restore of
//! the store brings nobody back.
//!
//! A shredding is answered once it is kept there. The store is where it is true; what is outside is
//! written anew from it, and read where the store may be an older one.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::Vault;
use crate::error::{Error, Result};
use crate::keyring::{HeadKept, Shredded};
use crate::store::shred_list::ShredList;
use crate::store::shreds::{self, ShredRow};
use crate::store::{SealedRow as _, StoreError};
use crate::types::IdentityId;

/// Times that the HSM is written in one round, where more are shredded meanwhile.
const REWRITES: usize = 8;
/// Rows that are read at once.
const PAGE: i64 = 500;

/// Keeps who was shredded outside of the store.
#[derive(Debug)]
pub(super) struct ShredKeeper {
    /// The file, where there is one.
    list: Option<Arc<Mutex<ShredList>>>,
    /// The number up to which all of the store are in the file. Rounds go one after the other.
    listed: tokio::sync::Mutex<i64>,
}

impl ShredKeeper {
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        let list = file.map(|file| Arc::new(Mutex::new(ShredList::at(file))));
        Self { list, listed: tokio::sync::Mutex::new(0) }
    }

    /// Works on the file where waiting for it keeps nobody else waiting; nothing where there is none.
    async fn with_list<T: Default + Send + 'static>(
        &self,
        work: impl FnOnce(&mut ShredList) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(list) = self.list.clone() else { return Ok(T::default()) };
        let done = tokio::task::spawn_blocking(move || work(&mut list.lock()));
        done.await.map_err(Error::internal)?
    }
}

/// Who was shredded, and is not in this store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShredsUndone {
    /// Those who are named, in the order in which they were shredded.
    pub ids: Vec<IdentityId>,
    /// How many more there are, of whom the HSM knows the number alone.
    pub unnamed: i64,
}

impl Vault {
    /// Keeps outside of the store whoever was shredded in it, where that is not so yet.
    ///
    /// # Errors
    /// [`Error::Tampered`], with an alarm, where the HSM knows of more than the store does; what
    /// store, HSM and disk answer.
    pub async fn keep_shreds(&self) -> Result<()> {
        let mut listed = self.core.shreds.listed.lock().await;
        // Either is told, whatever becomes of the other.
        let in_file = self.list_shreds(&mut listed).await;
        self.tell_hsm_of_shreds().await?;
        in_file
    }

    async fn list_shreds(&self, listed: &mut i64) -> Result<()> {
        loop {
            let after = *listed;
            let view = self.core.reader.view(move |tx| {
                async move { Ok(shreds::numbered_after(tx, after, PAGE).await?) }.boxed()
            });
            let new = view.await?;
            let Some(upto) = new.last().map(|last| last.row.number) else { return Ok(()) };
            let ids: Vec<_> = new.iter().map(|one| one.row.id).collect();
            self.core.shreds.with_list(move |list| list.add(&ids)).await?;
            *listed = upto;
        }
    }

    async fn tell_hsm_of_shreds(&self) -> Result<()> {
        for _ in 0..REWRITES {
            // The HSM first: whoever it knows of was in the store before. Whoever writes last looks
            // again, and sees what another node added meanwhile.
            let kept = self.core.keyring.read_shredded().await?.map_or(0, |kept| kept.count);
            let newest = self.newest_shreds().await?;
            match kept.cmp(&newest.count) {
                Ordering::Equal => break,
                Ordering::Less => {
                    if self.core.keyring.write_shredded(&newest).await? == HeadKept::Nowhere {
                        break;
                    }
                }
                Ordering::Greater => return Err(miscounted(kept)),
            }
        }
        Ok(())
    }

    /// The same, before a shredding is answered that is durable.
    pub(super) async fn keep_shred(&self) -> Result<()> {
        self.keep_shreds().await.map_err(|error| {
            tracing::warn!(%error, "who was shredded is not kept outside of the store yet");
            Error::unavailable(
                "it is shredded, but the HSM or the disk did not keep that, so that a restore would \
                 bring it back; the vault tries again by itself",
            )
        })
    }

    /// Finds who was shredded, as HSM and file say, and is not in this store or was put back into it.
    ///
    /// # Errors
    /// [`Error::Precondition`] for a file with a line that is none; what store and HSM answer.
    pub async fn shreds_undone(&self) -> Result<ShredsUndone> {
        let keeper = &self.core.shreds;
        let mut listed = keeper.listed.lock().await;
        // The store may be another one than before.
        *listed = 0;
        let mut outside = keeper.with_list(ShredList::read).await?;
        let kept = self.core.keyring.read_shredded().await?;
        let count = kept.as_ref().map_or(0, |kept| kept.count);
        outside.extend(kept.into_iter().flat_map(|kept| kept.newest));
        let (mut known, put_back) = self.stored_shreds().await?;
        let mut ids: Vec<_> = outside.into_iter().filter(|id| known.insert(*id)).collect();
        let named = i64::try_from(known.len()).map_err(Error::internal)?;
        ids.extend(put_back);
        Ok(ShredsUndone { ids, unnamed: count.saturating_sub(named).max(0) })
    }

    /// Lets go of those whom nobody names, where a store without them was accepted.
    pub(super) async fn let_go_of(&self, unnamed: i64) -> Result<()> {
        let Some(kept) = self.core.keyring.read_shredded().await? else { return Ok(()) };
        if unnamed > 0 {
            tracing::error!(unnamed, alarm = true, "who was shredded is let go of, unnamed");
            let count = kept.count.saturating_sub(unnamed);
            self.core.keyring.write_shredded(&Shredded { count, ..kept }).await?;
        }
        Ok(())
    }

    async fn newest_shreds(&self) -> Result<Shredded> {
        let most = i64::try_from(Shredded::NAMED).map_err(Error::internal)?;
        let view = self.core.reader.view(move |tx| {
            // Counted first: whoever comes in between is named, and counted when it is looked again.
            async move { Ok((shreds::count(tx).await?, shreds::last(tx, most).await?)) }.boxed()
        });
        let (count, rows) = view.await?;
        let number = rows.first().map_or(0, |last| last.row.number);
        // Rows that somebody put in must not make the HSM count what nobody will ever name.
        if count > number {
            return Err(miscounted(count));
        }
        let newest = rows.iter().rev().map(|one| one.row.id).collect();
        Ok(Shredded { count, newest })
    }

    /// Reads who was shredded as the store says, and those of whose keys it holds something again.
    async fn stored_shreds(&self) -> Result<(HashSet<IdentityId>, Vec<IdentityId>)> {
        let (mut known, mut after) = (HashSet::new(), 0_i64);
        loop {
            let view = self.core.reader.view(move |tx| {
                async move { Ok(shreds::numbered_after(tx, after, PAGE).await?) }.boxed()
            });
            let rows = view.await?;
            let Some(last) = rows.last() else { break };
            after = last.row.number;
            known.extend(rows.iter().map(|one| one.row.id));
        }
        let (mut put_back, mut after) = (Vec::new(), String::new());
        loop {
            let behind = after.clone();
            let view = self.core.reader.view(move |tx| {
                async move { Ok(shreds::undone_after(tx, &behind, PAGE).await?) }.boxed()
            });
            let ids = view.await?;
            let Some(last) = ids.last() else { break };
            after = last.to_string();
            put_back.extend(ids);
        }
        Ok((known, put_back))
    }
}

/// That the store holds more or fewer who were shredded than there are.
fn miscounted(count: i64) -> Error {
    StoreError::Tampered { table: ShredRow::TABLE.name, id: count.to_string() }.into()
}
