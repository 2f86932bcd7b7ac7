//! What is deleted and must leave nothing behind in the store's files.

use crate::store::{StoreError, Tx};

impl Tx {
    /// Asks that what was deleted leaves nothing behind in the store's files: where they are ours,
    /// the log beside them is emptied once this is durable, and again until nobody reads in it.
    pub const fn wipe(&mut self) {
        self.wipe = true;
    }

    pub(super) const fn wipes(&self) -> bool {
        self.wipe
    }

    /// Moves the log of a SQLite file into the file, and empties it.
    ///
    /// # Errors
    /// As [`Tx::query`].
    pub(super) async fn empty_log(&mut self) -> Result<(), StoreError> {
        // Everybody waits for the writer: it waits for no reader.
        self.query("PRAGMA busy_timeout = 100", vec![]).await?;
        let done = self.query_one("PRAGMA wal_checkpoint(TRUNCATE)", vec![]).await;
        // What failed was no transaction.
        self.renew();
        self.query("PRAGMA busy_timeout = 5000", vec![]).await?;
        let busy: i64 = done?.ok_or(StoreError::Malformed)?.take()?;
        self.wipe = busy != 0;
        Ok(())
    }

    /// Moves what nobody reads of the log of a SQLite file into the file.
    ///
    /// # Errors
    /// As [`Tx::query`].
    pub(super) async fn move_log(&mut self) -> Result<(), StoreError> {
        self.query("PRAGMA wal_checkpoint(PASSIVE)", vec![]).await.map(drop)
    }
}
