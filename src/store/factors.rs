//! Factors of humans, what guards their codes, recovery codes, invitations to enrol.

use crate::params;
use crate::sealed_row;
use crate::store::{StoreError, Tx, Versioned};
use crate::types::{
    CredentialId, FactorId, FactorKind, FactorState, Id, IdentityId, InvitationState, ObjectId,
    UnixMillis,
};

/// Factors that are read of one human at the most; no more than that are enrolled.
pub const FACTORS: i64 = 8;

sealed_row! {
    /// A factor of a human.
    pub struct FactorRow in "factors", seal 1 {
        /// Its id, for ever.
        pub id: FactorId,
        /// Whose it is.
        pub identity: IdentityId,
        /// By what it proves.
        pub kind: FactorKind,
        /// Where it is in its life.
        pub state: FactorState,
        /// The secret of an authenticator, encrypted and bound to this row.
        pub secret: Option<Vec<u8>>,
        /// The key that it is encrypted under.
        pub secret_key: Option<Id>,
        /// The invitation that it was enrolled with; none where another factor was proven.
        pub invitation: Option<CredentialId>,
        /// The administrator whose invitation it goes back to, over however many factors.
        pub vouched_by: Option<IdentityId>,
        /// When a code of it was first accepted.
        pub enrolled_at: Option<UnixMillis>,
        /// When it was made.
        pub created_at: UnixMillis,
        /// By whom.
        pub created_by: String,
        /// When it was last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

sealed_row! {
    /// What guards the codes of one human.
    pub struct GuardRow in "factor_guards", seal 1 {
        /// Whose.
        pub id: IdentityId,
        /// The last step that was accepted of each authenticator, as a JSON object by factor.
        pub steps: String,
        /// When wrong codes were given lately, as a JSON list of Unix milliseconds.
        pub failures: String,
        /// Until when no code that could be guessed is looked at.
        pub locked_until: Option<UnixMillis>,
    }
}

sealed_row! {
    /// A recovery code.
    pub struct CodeRow in "recovery_codes", seal 1 {
        /// Its id, for ever.
        pub id: ObjectId,
        /// The set that it is of.
        pub factor: FactorId,
        /// Its MAC.
        pub handle: Vec<u8>,
        /// When it was used.
        pub used_at: Option<UnixMillis>,
    }
}

sealed_row! {
    /// The invitation to enrol a factor that a human was given last.
    pub struct InvitationRow in "factor_invitations", seal 1 {
        /// Whose: a newer one takes the place of the last.
        pub id: IdentityId,
        /// Which one it is; its accessor in the record.
        pub invitation: CredentialId,
        /// The MAC of its text.
        pub handle: Vec<u8>,
        /// What became of it.
        pub state: InvitationState,
        /// The human's revocation epoch when it was made: who is contained meanwhile enrols nothing.
        pub revocation_epoch: i64,
        /// When it ends.
        pub expires_at: UnixMillis,
        /// When it was made.
        pub created_at: UnixMillis,
        /// By whom.
        pub created_by: String,
        /// When it was last changed.
        pub changed_at: UnixMillis,
        /// By whom.
        pub changed_by: String,
    }
}

/// Lists authenticators whose secrets are under an identity's key. One that is not what was sealed
/// holds up itself alone.
pub async fn secrets_under(
    tx: &mut Tx,
    key: Id,
    limit: i64,
) -> Result<Vec<Versioned<FactorRow>>, StoreError> {
    tx.select_intact("WHERE secret_key = $1 ORDER BY id LIMIT $2", params![key, limit]).await
}

/// Lists what a human has enrolled or is enrolling, oldest first.
pub async fn standing(
    tx: &mut Tx,
    identity: IdentityId,
) -> Result<Vec<Versioned<FactorRow>>, StoreError> {
    let tail = "WHERE identity = $1 AND state <> 'removed' ORDER BY id LIMIT $2";
    tx.select(tail, params![identity, FACTORS.saturating_add(1)]).await
}

/// Counts what a human has enrolled, whatever the rows' seals say.
pub async fn count_standing(tx: &mut Tx, identity: IdentityId) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM factors WHERE identity = $1 AND state <> 'removed' \
               AND state = 'active'";
    tx.query_one(sql, params![identity]).await?.ok_or(StoreError::Malformed)?.take()
}

/// Counts the invitations to enrol of a human that are open: one or none.
pub async fn count_invitations(
    tx: &mut Tx,
    (identity, epoch): (IdentityId, i64),
    now: UnixMillis,
) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM factor_invitations WHERE id = $1 AND state = 'live' \
               AND revocation_epoch >= $2 AND expires_at > $3";
    tx.query_one(sql, params![identity, epoch, now]).await?.ok_or(StoreError::Malformed)?.take()
}

/// Keeps other transactions that try codes of the same human waiting until this one ends, and reads
/// what guards them.
pub async fn hold_guard(
    tx: &mut Tx,
    identity: IdentityId,
) -> Result<Option<Versioned<GuardRow>>, StoreError> {
    let sql = "UPDATE factor_guards SET row_version = row_version WHERE id = $1";
    tx.execute(sql, params![identity]).await?;
    tx.lookup(&identity).await
}

/// Finds a code of a set, used or not.
pub async fn code(
    tx: &mut Tx,
    factor: FactorId,
    handle: &[u8; 32],
) -> Result<Option<Versioned<CodeRow>>, StoreError> {
    tx.lookup_where("WHERE factor = $1 AND handle = $2", params![factor, *handle]).await
}

/// Counts the codes of a set that were not used.
pub async fn codes_left(tx: &mut Tx, factor: FactorId) -> Result<i64, StoreError> {
    let sql = "SELECT COUNT(*) FROM recovery_codes WHERE factor = $1 AND used_at IS NULL";
    tx.query_one(sql, params![factor]).await?.ok_or(StoreError::Malformed)?.take()
}
