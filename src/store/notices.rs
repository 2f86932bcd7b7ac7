//! Notices that wait to be sent, and how far each sink is.

use crate::params;
use crate::sealed_row;
use crate::store::{Row, StoreError, Tx, Versioned};
use crate::types::{NoticeKind, NoticeNumber, RequestId, Segment, UnixMillis};

sealed_row! {
    /// A notice.
    pub struct NoticeRow in "notices", seal 1 {
        /// Its number.
        pub id: NoticeNumber,
        /// What it is about.
        pub kind: NoticeKind,
        /// What there is to tell, as JSON.
        pub facts: String,
        /// Whom it is for, as JSON.
        pub recipients: String,
        /// The request that it was written in.
        pub request: RequestId,
        /// When.
        pub created_at: UnixMillis,
        /// By whom.
        pub created_by: String,
    }
}

sealed_row! {
    /// The one row that numbers notices.
    pub struct NoticeHeadRow in "notice_heads", seal 1 {
        /// Its name.
        pub id: Segment,
        /// The number of the newest notice; 0 before the first.
        pub last: i64,
        /// The number of the newest that was deleted.
        pub purged: i64,
        /// When it last changed.
        pub changed_at: UnixMillis,
    }
}

sealed_row! {
    /// How far a sink is.
    pub struct NoticeSinkRow in "notice_sinks", seal 1 {
        /// Its name.
        pub id: Segment,
        /// The number of the last notice that was delivered or given up.
        pub position: i64,
        /// Tries in vain to deliver the one that follows.
        pub tries: i64,
        /// When the next try may be made: after one in vain, and while a node is at it.
        pub next_try: Option<UnixMillis>,
        /// Why the last try was in vain.
        pub trouble: String,
        /// Notices that were given up.
        pub given_up: i64,
        /// When it last changed.
        pub changed_at: UnixMillis,
    }
}

/// The name of the head.
const HEAD: &str = "head";

/// The head as it is founded.
///
/// # Errors
/// Never: the name is canonical.
pub fn first_head(now: UnixMillis) -> Result<NoticeHeadRow, StoreError> {
    let id = HEAD.parse().map_err(|_never| StoreError::Malformed)?;
    Ok(NoticeHeadRow { id, last: 0, purged: 0, changed_at: now })
}

/// Reads the head.
pub async fn head(tx: &mut Tx) -> Result<Versioned<NoticeHeadRow>, StoreError> {
    tx.lookup::<NoticeHeadRow>(&HEAD).await?.ok_or(StoreError::Malformed)
}

/// Reads the head, and keeps other transactions that hold it waiting until this one ends. What has a
/// number that nobody gave was put in by hand, and would be in the way of who gets that number: it
/// is deleted.
///
/// On PostgreSQL jobs of two groups may wait for each other here, where each has locked a row that
/// the other wants: the server ends one of them, which runs again.
pub async fn hold_head(tx: &mut Tx) -> Result<Versioned<NoticeHeadRow>, StoreError> {
    let sql = "UPDATE notice_heads SET row_version = row_version WHERE id = $1";
    tx.execute(sql, params![HEAD.to_owned()]).await?;
    let head = head(tx).await?;
    let last = NoticeNumber(head.row.last);
    let beyond = tx.execute("DELETE FROM notices WHERE id > $1", params![last]).await?;
    if beyond > 0 {
        tracing::error!(alarm = true, beyond, "notices were put into the store by hand");
    }
    Ok(head)
}

/// Tells up to which notice they were written before a moment; some of them at a time. Only of what
/// was sealed is it known when that was.
pub async fn due_for_purge(
    tx: &mut Tx,
    before: UnixMillis,
    limit: i64,
) -> Result<Option<NoticeNumber>, StoreError> {
    let head = head(tx).await?.row;
    let (purged, last) = (NoticeNumber(head.purged), NoticeNumber(head.last));
    let tail = "WHERE id IN (SELECT id FROM notices WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $4) \
                AND created_at < $3 ORDER BY id";
    let old = tx.select_intact::<NoticeRow>(tail, params![purged, last, before, limit]).await?;
    Ok(old.last().map(|found| found.row.id))
}

/// Deletes notices up to a number.
pub async fn purge(tx: &mut Tx, upto: NoticeNumber) -> Result<(), StoreError> {
    tx.execute("DELETE FROM notices WHERE id <= $1", params![upto]).await.map(drop)
}

/// Tells of each sink that there ever was how many notices wait for it, and how many were given up.
///
/// Counted by columns alone.
pub async fn counts(tx: &mut Tx) -> Result<Vec<(String, i64, i64)>, StoreError> {
    let sql = "SELECT s.id, h.last - s.position, s.given_up FROM notice_sinks s, notice_heads h \
               ORDER BY s.id";
    let rows = tx.query(sql, vec![]).await?;
    let read = |mut row: Row| Ok((row.take()?, row.take()?, row.take()?));
    rows.into_iter().map(read).collect()
}
