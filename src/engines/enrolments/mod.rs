//! Enrolments: a join token gives one machine its first login certificate, and what is below it is a
//! *lineage*: certificates each of which gave the next.
//!
//! An enrolment is a row of the tree of authority. Until its token is used it is active, from then on
//! spent, and its certificates hang on it: revoking it, or locking it because two keys were shown
//! where there can be one, ends them and what was asked for with them.

mod create;
mod detail;
mod join;
mod lineage;
mod list;
mod renew;
mod revoke;

use futures_util::FutureExt as _;

pub use create::{CreateEnrolment, Enrolled};
pub use detail::{EnrolmentDetail, Why};
pub use join::{Join, not_accepted};
pub use lineage::{Asks, Came};
pub use list::ListEnrolments;
pub use renew::RenewLogin;
pub use revoke::RevokeEnrolment;

use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::identities::IdentityRow;
use crate::store::{Tx, Versioned};
use crate::types::{CredentialId, CredentialKind, IdentityName, ResourceName, UnixMillis};
use crate::vault::{View, is_active};

/// An enrolment as it is shown.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// Its row.
    pub row: CredentialRow,
    /// What its kind knows about it.
    pub detail: EnrolmentDetail,
    /// The name of whose it is.
    pub identity: IdentityName,
    /// Whether it is dead since its identity was contained or is over, or, where its token was not
    /// used, since the vault was restored.
    pub void: bool,
    /// The name of who made it.
    pub created_by: String,
}

/// An enrolment with whose it is, as of one snapshot.
#[derive(Debug, Clone)]
struct Found {
    enrolment: Versioned<CredentialRow>,
    holder: Versioned<IdentityRow>,
    created_by: String,
}

impl Found {
    async fn of(
        tx: &mut Tx,
        names: &mut Names,
        holder: Versioned<IdentityRow>,
        enrolment: Versioned<CredentialRow>,
    ) -> Result<Self> {
        let detail = EnrolmentDetail::decode(&enrolment.row.detail)?;
        let created_by = names.actor(tx, &detail.created_by).await?;
        Ok(Self { enrolment, holder, created_by })
    }

    /// Shows it as of a moment, and of a restore of the vault.
    fn shown(
        &self,
        row: CredentialRow,
        (restore_epoch, now): (i64, UnixMillis),
    ) -> Result<Enrolment> {
        let detail = EnrolmentDetail::decode(&row.detail)?;
        let holder = &self.holder.row;
        let unused = detail.joined.is_none() && detail.restore_epoch != restore_epoch;
        Ok(Enrolment {
            void: unused
                || row.revocation_epoch < holder.revocation_epoch
                || !is_active(holder, now),
            row,
            detail,
            identity: holder.name.clone(),
            created_by: self.created_by.clone(),
        })
    }
}

/// Finds an enrolment.
async fn find(view: &View, id: CredentialId) -> Result<Option<Found>> {
    let read = view.read(move |tx| {
        async move {
            let found = tx.lookup::<CredentialRow>(&id).await?;
            let Some(found) = found.filter(|it| it.row.kind == CredentialKind::Enrolment) else {
                return Ok(None);
            };
            let holder = tx.lookup::<IdentityRow>(&found.row.identity).await?;
            let holder = holder.ok_or_else(|| Error::internal("an enrolment of nobody"))?;
            Found::of(tx, &mut Names::default(), holder, found).await.map(Some)
        }
        .boxed()
    });
    read.await
}

/// Names the enrolments of an identity.
fn resource_name(identity: &IdentityName) -> Result<ResourceName> {
    ResourceName::join("enrolments", &[identity.as_str()])
}

fn missing() -> Error {
    Error::not_found("there is no such enrolment")
}

fn unknown() -> Error {
    Error::not_found("there is no such identity")
}
