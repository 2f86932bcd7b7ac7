//! The one tree of authority: certificates, leases, tokens and enrolments.

use crate::params;
use crate::sealed_row;
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{
    CredentialId, CredentialKind, CredentialState, ElevationId, IdentityId, ResourceName,
    UnixMillis,
};

sealed_row! {
    /// A credential, or the intent to make one.
    pub struct CredentialRow in "credentials", seal 1 {
        /// Its id, for ever; its accessor in the record.
        pub id: CredentialId,
        /// What it is.
        pub kind: CredentialKind,
        /// Whose it is.
        pub identity: IdentityId,
        /// What it hangs on: ending that ends this, as the tree of authority says.
        pub parent: Option<CredentialId>,
        /// The elevation that it was made under: any end of that ends this.
        pub elevation: Option<ElevationId>,
        /// Another that it was made under: the first of both to end ends it.
        pub elevation_too: Option<ElevationId>,
        /// What it is found by: a certificate's SHA-256, a token's hash.
        pub handle: Option<Vec<u8>>,
        /// What it was issued for.
        pub resource: ResourceName,
        /// Where it is in its life.
        pub state: CredentialState,
        /// The identity's revocation epoch at issue; a lower one than the identity's is dead.
        pub revocation_epoch: i64,
        /// When it was issued.
        pub issued_at: UnixMillis,
        /// When it ends.
        pub expires_at: UnixMillis,
        /// When it ends however often it is renewed.
        pub max_expires_at: UnixMillis,
        /// When a worker looks at it next; none when nothing outside is left to be done.
        pub next_try: Option<UnixMillis>,
        /// How often ending it was tried in vain.
        pub tries: i64,
        /// Why the last try failed; empty when none did.
        pub trouble: String,
        /// What its kind needs to know, encoded by it.
        pub detail: Vec<u8>,
        /// The factors that were proven with it, as a JSON list; empty for none.
        pub proofs: String,
    }
}

/// Finds a credential that is presented, a login certificate, by its handle. A token says its id.
pub async fn by_handle(
    tx: &mut Tx,
    handle: &[u8],
) -> Result<Option<Versioned<CredentialRow>>, StoreError> {
    tx.lookup_where("WHERE handle = $1 AND kind = 'login'", params![handle.to_vec()]).await
}

/// Lists what a worker has to look at: intents that a crash left, ends, tries that failed. One that
/// is not what was sealed holds up itself alone.
pub async fn due(
    tx: &mut Tx,
    kind: CredentialKind,
    now: UnixMillis,
    limit: i64,
) -> Result<Vec<Versioned<CredentialRow>>, StoreError> {
    let tail = "WHERE kind = $1 AND next_try IS NOT NULL AND next_try <= $2 \
                ORDER BY next_try LIMIT $3";
    tx.select_intact(tail, params![kind, now, limit]).await
}

/// Whose leases are walked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseFilter {
    /// Only those of this identity.
    pub identity: Option<IdentityId>,
    /// Whether those that have ended are among them.
    pub ended: bool,
}

const OPEN_OF_ONE: &str = "WHERE identity = $1 AND kind = 'lease' AND state <> 'ended' \
                           AND id > $2 ORDER BY id LIMIT $3";
const ALL_OF_ONE: &str = "WHERE identity = $1 AND kind = 'lease' AND id > $2 ORDER BY id LIMIT $3";
const OPEN: &str = "WHERE kind = 'lease' AND state <> 'ended' AND id > $1 ORDER BY id LIMIT $2";
const ALL: &str = "WHERE id > $1 ORDER BY id LIMIT $2";

/// Walks through leases by id. Each text reads no more rows than it answers, whatever else the
/// table holds; so with all that ever were, of everybody, come the other kinds of credentials.
pub async fn leases_after(
    tx: &mut Tx,
    filter: LeaseFilter,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<CredentialRow>>, StoreError> {
    let after = after.to_owned();
    match filter {
        LeaseFilter { identity: Some(identity), ended } => {
            let tail = if ended { ALL_OF_ONE } else { OPEN_OF_ONE };
            tx.select(tail, params![identity, after, limit]).await
        }
        LeaseFilter { identity: None, ended } => {
            tx.select(if ended { ALL } else { OPEN }, params![after, limit]).await
        }
    }
}

const BELOW: &str = "WHERE kind = 'lease' AND state <> 'ended' \
                     AND resource >= $1 AND resource < $2 LIMIT 1";

/// Finds a lease that has not ended on what is below a resource.
pub async fn lease_below(
    tx: &mut Tx,
    above: &ResourceName,
) -> Result<Option<Versioned<CredentialRow>>, StoreError> {
    // Texts stand in the order of their bytes on either store, and 0 follows the slash.
    tx.lookup_where(BELOW, params![format!("{above}/"), format!("{above}0")]).await
}

/// Lists leases in force whose identity is not: suspended, contained since, or over.
///
/// The identities' own seals are not looked at here: what is found is looked at again. A lease that
/// is not what was sealed is left out.
pub async fn leases_without_right(
    tx: &mut Tx,
    now: UnixMillis,
    limit: i64,
) -> Result<Vec<Versioned<CredentialRow>>, StoreError> {
    let tail = "WHERE kind = 'lease' AND state <> 'ended' AND state = 'active' AND EXISTS \
                (SELECT 1 FROM identities i WHERE i.id = credentials.identity \
                AND (i.revocation_epoch > credentials.revocation_epoch \
                OR i.state NOT IN ('registered', 'active') \
                OR (i.expires_at IS NOT NULL AND i.expires_at <= $1))) ORDER BY id LIMIT $2";
    tx.select_intact(tail, params![now, limit]).await
}

/// Lists credentials of one kind by id, of one identity or of all.
pub async fn after(
    tx: &mut Tx,
    kind: CredentialKind,
    identity: Option<IdentityId>,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<CredentialRow>>, StoreError> {
    let tail = "WHERE kind = $1 AND ($2 = '' OR identity = $2) AND id > $3 ORDER BY id LIMIT $4";
    let identity = identity.map(|identity| identity.to_string()).unwrap_or_default();
    tx.select(tail, params![kind, identity, after.to_owned(), limit]).await
}

/// Whose tokens may be in force, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The identity.
    pub identity: IdentityId,
    /// Its revocation epoch: tokens of a lower one are dead.
    pub epoch: i64,
    /// When the vault was last restored: tokens from before are void.
    pub since: UnixMillis,
}

const LIVE_TOKENS: &str = "WHERE identity = $1 AND kind = 'token' AND state = 'active' \
                           AND revocation_epoch = $2 AND issued_at >= $3 \
                           AND (expires_at, id) > ($4, $5) ORDER BY expires_at, id LIMIT $6";

/// Lists tokens in force of an identity by when they end, after an end and an id.
pub async fn live_tokens(
    tx: &mut Tx,
    of: Holder,
    end: UnixMillis,
    after: &str,
    limit: i64,
) -> Result<Vec<Versioned<CredentialRow>>, StoreError> {
    let Holder { identity, epoch, since } = of;
    let params = params![identity, epoch, since, end, after.to_owned(), limit];
    tx.select(LIVE_TOKENS, params).await
}

/// Tells whether an identity has so many tokens in force: whoever hears that it has not gives it one.
pub async fn has_live_tokens(
    tx: &mut Tx,
    of: Holder,
    now: UnixMillis,
    many: u32,
) -> Result<bool, StoreError> {
    let rows = "SELECT 1 AS one FROM credentials WHERE identity = $1 AND kind = 'token' \
                AND state = 'active' AND revocation_epoch = $2 AND issued_at >= $3 \
                AND expires_at > $4";
    let key = format!("tokens of {} {} {}", of.identity, of.epoch, of.since.0);
    tx.has_many(key, rows, params![of.identity, of.epoch, of.since, now], many).await
}

const UNEXPIRED: &str = "WHERE identity = $1 AND kind = 'certificate' AND revocation_epoch = $2 \
                         AND expires_at > $3 LIMIT $4";

/// Counts certificates of an identity that may stand on a list while their time is not over,
/// revoked or not; so many at most.
pub async fn unexpired_certificates(
    tx: &mut Tx,
    (identity, epoch): (IdentityId, i64),
    now: UnixMillis,
    many: u32,
) -> Result<u32, StoreError> {
    let sql =
        format!("SELECT COUNT(*) FROM (SELECT 1 AS one FROM credentials {UNEXPIRED}) AS found");
    let row = tx.query_one(&sql, params![identity, epoch, now, i64::from(many)]).await?;
    let found: i64 = row.ok_or(StoreError::Malformed)?.take()?;
    u32::try_from(found).map_err(|_negative| StoreError::Malformed)
}

const CHILDREN: &str = "WHERE parent = $1 AND state <> 'ended' AND state <> 'revoking' \
                        AND (kind, id) > ($2, $3) ORDER BY kind, id LIMIT $4";

const OF_ELEVATION: &str = "WHERE elevation = $1 AND elevation IS NOT NULL AND state <> 'ended' \
                            AND state <> 'revoking' AND kind <> 'lease' AND (kind, id) > ($2, $3) \
                            ORDER BY kind, id LIMIT $4";
const OF_ELEVATION_TOO: &str = "WHERE elevation_too = $1 AND elevation_too IS NOT NULL \
                                AND state <> 'ended' AND state <> 'revoking' AND kind <> 'lease' \
                                AND (kind, id) > ($2, $3) ORDER BY kind, id LIMIT $4";

/// A part of what hangs on a credential.
#[derive(Debug)]
pub struct Below {
    /// What is what was sealed.
    pub rows: Vec<Versioned<CredentialRow>>,
    /// How much is not, each an alarm.
    pub altered: usize,
    /// Whether there is more.
    pub more: bool,
}

/// Lists what hangs on a credential and is not to end yet: certificates and leases first, then what
/// more hangs on. Rows that are not what was sealed hold up themselves alone.
pub async fn below(tx: &mut Tx, parent: CredentialId, limit: i64) -> Result<Below, StoreError> {
    hanging(tx, CHILDREN, parent.to_string(), limit).await
}

/// Lists what was made under an elevation and is not to end yet, but leases: those a worker finds
/// by the elevation itself.
pub async fn made_under(
    tx: &mut Tx,
    elevation: ElevationId,
    limit: i64,
) -> Result<Below, StoreError> {
    let mut made = hanging(tx, OF_ELEVATION, elevation.to_string(), limit).await?;
    if !made.more {
        let mut too = hanging(tx, OF_ELEVATION_TOO, elevation.to_string(), limit).await?;
        made.rows.append(&mut too.rows);
        made.altered = made.altered.saturating_add(too.altered);
        made.more = too.more;
    }
    Ok(made)
}

/// Tells whether something that was made under an elevation is not known to be gone.
pub async fn has_made_under(tx: &mut Tx, elevation: ElevationId) -> Result<bool, StoreError> {
    for sql in [
        "SELECT kind FROM credentials WHERE elevation = $1 AND elevation IS NOT NULL \
         AND state <> 'ended' LIMIT 1",
        "SELECT kind FROM credentials WHERE elevation_too = $1 AND elevation_too IS NOT NULL \
         AND state <> 'ended' LIMIT 1",
    ] {
        if tx.query_one(sql, params![elevation]).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

const OF_ENDED: &str = "WHERE kind = 'lease' AND state = 'active' AND state <> 'ended' \
                        AND elevation IN (SELECT id FROM elevations WHERE next_try IS NOT NULL \
                        AND state IN ('ended', 'revoked')) ORDER BY elevation, kind, id LIMIT $1";
const OF_ENDED_TOO: &str = "WHERE kind = 'lease' AND state = 'active' AND state <> 'ended' \
     AND elevation_too IN (SELECT id FROM elevations WHERE next_try IS NOT NULL \
     AND state IN ('ended', 'revoked')) ORDER BY elevation_too, kind, id LIMIT $1";

/// Lists leases in force that were made under an elevation which is over. One that is not what was
/// sealed is left out.
pub async fn leases_of_ended(
    tx: &mut Tx,
    limit: i64,
) -> Result<Vec<Versioned<CredentialRow>>, StoreError> {
    let found: Vec<Versioned<CredentialRow>> = tx.select_intact(OF_ENDED, params![limit]).await?;
    if !found.is_empty() {
        return Ok(found);
    }
    tx.select_intact(OF_ENDED_TOO, params![limit]).await
}

async fn hanging(tx: &mut Tx, tail: &str, on: String, limit: i64) -> Result<Below, StoreError> {
    let keys = format!("SELECT kind, id FROM credentials {tail}");
    let mut below = Below { rows: Vec::new(), altered: 0, more: true };
    let (mut kind, mut id) = (String::new(), String::new());
    while below.more && below.rows.is_empty() {
        let from = params![on, kind.clone(), id.clone(), limit];
        let mut part = tx.query(&keys, from.clone()).await?;
        let found = part.len();
        below.more = i64::try_from(found).is_ok_and(|found| found == limit);
        if let Some(last) = part.last_mut() {
            below.rows = tx.select_intact(tail, from).await?;
            let altered = found.saturating_sub(below.rows.len());
            below.altered = below.altered.saturating_add(altered);
            (kind, id) = (last.take()?, last.take()?);
        }
    }
    Ok(below)
}

/// Tells whether something hangs on a credential that is not to end yet, whatever its seal says.
pub async fn has_below(tx: &mut Tx, parent: CredentialId) -> Result<bool, StoreError> {
    let sql = format!("SELECT kind FROM credentials {CHILDREN}");
    let params = params![parent, String::new(), String::new(), 1_i64];
    Ok(tx.query_one(&sql, params).await?.is_some())
}

const OPEN_THROUGH: &str =
    "WHERE identity = $1 AND kind = 'lease' AND state <> 'ended' AND parent = $2 LIMIT 1";

/// Tells whether a lease that hangs on a credential has not ended, whatever its seal says.
pub async fn has_open_lease(
    tx: &mut Tx,
    identity: IdentityId,
    parent: CredentialId,
) -> Result<bool, StoreError> {
    let sql = format!("SELECT id FROM credentials {OPEN_THROUGH}");
    Ok(tx.query_one(&sql, params![identity, parent]).await?.is_some())
}

const OUTDATED: &str = "WHERE identity = $1 AND revocation_epoch < $2 AND kind = 'lease' \
                        AND state <> 'ended' AND state IN ('pending', 'active') \
                        ORDER BY id LIMIT $3";

/// Lists an identity's credentials that a worker must end outside, after the identity was
/// contained: those of an earlier revocation epoch that are not ended yet. One that is not what was
/// sealed is left out.
pub async fn outdated(
    tx: &mut Tx,
    identity: IdentityId,
    epoch: i64,
    limit: i64,
) -> Result<Vec<Versioned<CredentialRow>>, StoreError> {
    tx.select_intact(OUTDATED, params![identity, epoch, limit]).await
}

/// Credentials of one identity and kind that are counted at most, the newest of them.
pub const COUNTED: i64 = 10_000;

/// What was counted of an identity's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// How many were looked at; more than [`COUNTED`] where there are more.
    pub looked_at: i64,
    /// How many are in force.
    pub in_force: i64,
    /// How many are dead before their time, by their revocation epoch or because they were ended.
    pub contained: i64,
}

/// Counts the credentials of an identity whose time is not over, of a kind that nothing outside
/// hangs on.
pub async fn unexpired(
    tx: &mut Tx,
    kind: CredentialKind,
    identity: IdentityId,
    epoch: i64,
    now: UnixMillis,
) -> Result<Held, StoreError> {
    let sql = "SELECT COUNT(*), COALESCE(SUM(lives), 0), COALESCE(SUM(died), 0) FROM (SELECT \
               CASE WHEN state = 'active' AND expires_at > $4 AND revocation_epoch >= $3 \
               THEN 1 ELSE 0 END AS lives, \
               CASE WHEN handle IS NOT NULL AND expires_at > $4 AND state <> 'spent' \
               AND (state <> 'active' OR revocation_epoch < $3) THEN 1 ELSE 0 END AS died \
               FROM credentials WHERE identity = $1 AND kind = $2 ORDER BY id DESC LIMIT $5) AS c";
    let params = params![identity, kind, epoch, now, COUNTED.saturating_add(1)];
    let mut row = tx.query_one(sql, params).await?.ok_or(StoreError::Malformed)?;
    Ok(Held { looked_at: row.take()?, in_force: row.take()?, contained: row.take()? })
}

/// Counts the leases of an identity that have not ended, by what they are on.
pub async fn open_leases(
    tx: &mut Tx,
    identity: IdentityId,
    epoch: i64,
) -> Result<Vec<(ResourceName, Held)>, StoreError> {
    let sql = "SELECT resource, COUNT(*), SUM(lives) FROM (SELECT resource, \
               CASE WHEN state IN ('pending', 'active') AND revocation_epoch >= $2 \
               THEN 1 ELSE 0 END AS lives FROM credentials \
               WHERE identity = $1 AND kind = 'lease' AND state <> 'ended' \
               ORDER BY id DESC LIMIT $3) AS c GROUP BY resource ORDER BY resource";
    let rows = tx.query(sql, params![identity, epoch, COUNTED.saturating_add(1)]).await?;
    let read = |mut row: crate::store::Row| {
        let (resource, looked_at): (ResourceName, i64) = (row.take()?, row.take()?);
        let in_force: i64 = row.take()?;
        let contained = looked_at.saturating_sub(in_force);
        Ok((resource, Held { looked_at, in_force, contained }))
    };
    rows.into_iter().map(read).collect()
}

/// Tells whether an identity was ever issued anything, or is being issued it.
pub async fn has_any(tx: &mut Tx, identity: IdentityId) -> Result<bool, StoreError> {
    let found = tx.lookup_where::<CredentialRow>("WHERE identity = $1 LIMIT 1", params![identity]);
    Ok(found.await?.is_some())
}

/// Counts credentials by kind and state.
pub async fn counts(tx: &mut Tx) -> Result<Vec<(String, String, i64)>, StoreError> {
    let sql = "SELECT kind, state, COUNT(*) FROM credentials GROUP BY kind, state";
    let rows = tx.query(sql, vec![]).await?;
    rows.into_iter().map(|mut row| Ok((row.take()?, row.take()?, row.take()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SealedRow as _;

    #[test]
    fn no_question_reads_leases_that_it_does_not_answer() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let schema = include_str!("../../migrations/sqlite/0001_house.sql");
        connection.execute_batch(schema).unwrap();
        let one = "credentials_open_by_identity (identity=? AND kind=?";
        for (tail, index) in [
            (OPEN_OF_ONE, one),
            (ALL_OF_ONE, "credentials_by_identity (identity=? AND kind=? AND id>?"),
            (OPEN, "credentials_open_leases (id>?"),
            (ALL, "sqlite_autoindex_credentials_1 (id>?"),
            (OUTDATED, one),
            (OPEN_THROUGH, one),
            (BELOW, "credentials_open_by_resource (resource>? AND resource<?)"),
            (LIVE_TOKENS, "credentials_live_tokens (identity=? AND revocation_epoch=?"),
            (UNEXPIRED, "credentials_unexpired_certificates (identity=? AND revocation_epoch=?"),
            (CHILDREN, "credentials_below (parent=?"),
            (OF_ELEVATION, "credentials_of_elevation (elevation=?"),
            (OF_ELEVATION_TOO, "credentials_of_elevation_too (elevation_too=?"),
        ] {
            let sql = CredentialRow::TABLE.select(tail).replace('$', "?");
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let some = [1, 2, 3, 4, 5, 6].iter().take(plan.parameter_count());
            let steps =
                plan.query_map(rusqlite::params_from_iter(some), |row| row.get::<_, String>(3));
            let steps: Vec<_> = steps.unwrap().map(Result::unwrap).collect();
            assert_eq!(steps.len(), 1, "no sorting: {steps:?}");
            assert!(steps[0].contains(&format!("USING INDEX {index}")), "{tail}: {steps:?}");
        }
    }
}
