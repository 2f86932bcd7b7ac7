//! Notices that wait to be sent, and how far each sink is.

use crate::params;
use crate::sealed_row;
use crate::store::elevations::ElevationRow;
use crate::store::{Row, StoreError, Tx, Versioned};
use crate::types::{ElevationId, NoticeKind, NoticeNumber, RequestId, Segment, UnixMillis};

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

/// Reads the head, and keeps other transactions that hold it waiting until this one ends.
pub async fn hold_head(tx: &mut Tx) -> Result<Versioned<NoticeHeadRow>, StoreError> {
    let sql = "UPDATE notice_heads SET row_version = row_version WHERE id = $1";
    tx.execute(sql, params![HEAD.to_owned()]).await?;
    head(tx).await
}

/// Tells up to which notice too many are kept, or they are too old; some of them at a time.
pub async fn due_for_purge(
    tx: &mut Tx,
    before: UnixMillis,
    most: i64,
    limit: i64,
) -> Result<Option<NoticeNumber>, StoreError> {
    let head = head(tx).await?.row;
    let beyond = NoticeNumber(head.last.saturating_sub(most));
    let sql = "SELECT MAX(id) FROM (SELECT id, created_at FROM notices ORDER BY id LIMIT $3) AS oldest \
               WHERE created_at < $1 OR id <= $2";
    let row = tx.query_one(sql, params![before, beyond, limit]).await?;
    row.ok_or(StoreError::Malformed)?.take()
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

/// Lists elevations whose review is overdue, and of which nobody was told so.
pub async fn overdue(
    tx: &mut Tx,
    now: UnixMillis,
    limit: i64,
) -> Result<Vec<Versioned<ElevationRow>>, StoreError> {
    let tail = "WHERE review_due IS NOT NULL AND review_due <= $1 AND NOT EXISTS \
                (SELECT 1 FROM review_notices n WHERE n.id = elevations.id) \
                ORDER BY review_due LIMIT $2";
    tx.select_intact(tail, params![now, limit]).await
}

/// Notes that somebody was told of an overdue review; false where that was done already.
pub async fn tell_overdue(tx: &mut Tx, id: ElevationId) -> Result<bool, StoreError> {
    let sql = "INSERT INTO review_notices (id) VALUES ($1) ON CONFLICT (id) DO NOTHING";
    Ok(tx.execute(sql, params![id]).await? == 1)
}
