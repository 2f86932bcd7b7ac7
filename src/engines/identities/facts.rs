//! What policy is told about an identity as the object of an action.

use super::administrators::is_administrator;
use crate::error::Result;
use crate::policy::SubjectFacts;
use crate::store::identities::IdentityRow;
use crate::store::{Tx, Versioned, pki};
use crate::types::UnixMillis;
use crate::vault::Answerable;

/// Gathers the facts, with who answers for it: their rows belong into the decision's fence.
///
/// # Errors
/// What the store answers.
pub(in crate::engines) async fn subject_facts(
    tx: &mut Tx,
    identity: &Versioned<IdentityRow>,
    now: UnixMillis,
) -> Result<(SubjectFacts, Answerable)> {
    let owner = Answerable::of(tx, identity).await?;
    let row = &identity.row;
    let facts = SubjectFacts {
        id: Some(row.id),
        kind: row.kind,
        administrator: is_administrator(tx, row.id).await?,
        registered_by: row.created_by.parse().ok(),
        has_certificate: pki::has_login(tx, row.id).await?,
        owner_active: owner.is_active(now),
        owner_expires_at: owner.expires_at(),
    };
    Ok((facts, owner))
}
