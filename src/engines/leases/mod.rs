//! Leases: what stands outside for a time, and is taken back after it.
//!
//! A lease is a row of the one tree of authority. Its detail holds all that ending it needs, so
//! that roles and connections may change or go while it lives.

mod detail;
mod list;
mod renew;
mod revoke;

use futures_util::FutureExt as _;

pub use detail::{EndReason, LeaseDetail};
pub use list::ListLeases;
pub use renew::RenewLease;
pub use revoke::{Course, Ending, RevokeLease};
pub(in crate::engines) use revoke::{
    MAY_STILL_COME, end_with_parent, hand_over, resume, supersede,
};

use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::identities::IdentityRow;
use crate::store::{Tx, Versioned};
use crate::types::{CredentialId, CredentialKind, IdentityName, ResourceName};
use crate::vault::{Resource, View};

/// A lease as it is shown.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The lease.
    pub row: CredentialRow,
    /// What its kind knows about it.
    pub detail: LeaseDetail,
    /// The name of whose it is.
    pub identity: IdentityName,
}

/// A lease with whose it is, as of one snapshot.
#[derive(Debug, Clone)]
struct Found {
    lease: Versioned<CredentialRow>,
    detail: LeaseDetail,
    holder: Versioned<IdentityRow>,
}

impl Found {
    fn shown(&self, row: CredentialRow) -> Result<Lease> {
        let detail = LeaseDetail::decode(&row.detail)?;
        Ok(Lease { row, detail, identity: self.holder.row.name.clone() })
    }
}

/// Finds a lease.
async fn find(view: &View, id: CredentialId) -> Result<Option<Found>> {
    view.read(move |tx| async move { load(tx, id).await }.boxed()).await
}

async fn load(tx: &mut Tx, id: CredentialId) -> Result<Option<Found>> {
    let lease = tx.lookup::<CredentialRow>(&id).await?;
    let Some(lease) = lease.filter(|lease| lease.row.kind == CredentialKind::Lease) else {
        return Ok(None);
    };
    let holder = tx.lookup::<IdentityRow>(&lease.row.identity).await?;
    let holder = holder.ok_or_else(|| Error::internal("a lease without its identity"))?;
    let detail = LeaseDetail::decode(&lease.row.detail)?;
    Ok(Some(Found { lease, detail, holder }))
}

/// A lease as a decision sees it: held by its identity, owned by whoever answers for that. One
/// that does not exist is named by its id.
async fn resource_of(view: &View, id: CredentialId) -> Result<Vec<Resource>> {
    let Some(found) = find(view, id).await? else {
        return Ok(vec![Resource::named(ResourceName::join("leases", &[&id.to_string()])?)]);
    };
    let name = ResourceName::join("leases", &[found.lease.row.resource.as_str()])?;
    let mut resource = Resource::named(name).with_row(id.0, &found.lease);
    resource.rows.push(found.holder.fence());
    resource.holder = Some(found.holder.row.id);
    resource.owner = Some(found.holder.row.owner);
    Ok(vec![resource])
}

fn missing() -> Error {
    Error::not_found("there is no such lease")
}
