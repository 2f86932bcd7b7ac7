//! Gives a secret to another owner: its data keys are wrapped for the new one, its values stay.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::find::{Found, decided, nameable, resource};
use super::sealing::{key_owner, place};
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::keyring::{Rewrapped, Wrapped};
use crate::store::identities::{IdentityRow, identity_named};
use crate::store::secrets::{self, SecretHeadRow, SecretRow, SecretVersionRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{IdentityId, IdentityName, Owner, RequestContext, SecretPath};
use crate::vault::{Decision, GOVERNS, Note, Operation, Resource, Verb, View};

/// Gives a secret to another owner.
#[derive(Debug, Clone)]
pub struct TransferSecret {
    /// The secret's name.
    pub path: SecretPath,
    /// The new owner.
    pub owner: IdentityName,
    /// The number of the newest version, as the caller knows it; 0 for whatever it is.
    pub expected: i64,
}

/// What is to be written.
#[derive(Debug)]
pub struct Prepared {
    found: Found,
    owner: IdentityId,
    /// Every version that has a value, with its data key wrapped for the new owner; none where the
    /// owner stays.
    again: Option<(Vec<Versioned<SecretVersionRow>>, Rewrapped)>,
}

#[async_trait]
impl Verb for TransferSecret {
    const ACTION: &'static str = "secrets.transfer";
    type Prepared = Prepared;
    type Output = IdentityName;

    /// It stands on both owners as well: what was of one who is shredded meanwhile goes nowhere.
    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let mut resource = resource(view, &self.path).await?;
        let (name, was) = (self.owner.clone(), resource.owner);
        let read = view.read(move |tx| {
            async move {
                let owner = identity_named(tx, &name).await?.map(|owner| owner.fence());
                let was = match was {
                    Some(Owner::Identity(id)) => tx.lookup_intact::<IdentityRow>(&id).await?,
                    Some(Owner::Group(_)) | None => None,
                };
                Ok([owner, was.map(|was| was.fence())])
            }
            .boxed()
        });
        resource.rows.extend(read.await?.into_iter().flatten());
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Prepared> {
        let id = decided(decision)?;
        let owner = nameable(view, &self.owner).await?.row.id;
        let read = view.read(move |tx| {
            async move {
                let found = Found::read(tx, id).await?;
                let head = &found.head.row;
                let versions = secrets::valued(tx, head, head.newest).await?;
                Ok((found, versions))
            }
            .boxed()
        });
        let (found, versions) = read.await?;
        found.expect(self.expected)?;
        let was = found.secret.row.owner;
        if was == owner {
            return Ok(Prepared { found, owner, again: None });
        }
        let wrapped: Vec<_> = versions
            .iter()
            .map(|Versioned { row, .. }| Wrapped {
                place: place(id, row.id, row.version),
                key_id: row.wrap_key,
                wrap: row.wrap.clone(),
            })
            .collect();
        let again = view.rewrap((key_owner(was), key_owner(owner)), &wrapped).await?;
        Ok(Prepared { found, owner, again: Some((versions, again)) })
    }

    fn note(&self, it: &Prepared, note: &mut Note) {
        let used = it.again.iter().flat_map(|(_, again)| again.used());
        note.keys.extend(used.cloned());
        let detail = format!("owner {} -> {}", it.found.secret.row.owner, it.owner);
        note.private.push((Field::Detail, detail));
    }
}

#[async_trait]
impl Operation for TransferSecret {
    /// Whoever writes or reads meanwhile is decided again.
    const NEEDS: Needs = GOVERNS;
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Prepared,
        _: &Decision,
    ) -> Result<IdentityName> {
        let Some((versions, again)) = &it.again else { return Ok(self.owner.clone()) };
        let Found { secret, head } = &it.found;
        let row = SecretRow {
            owner: it.owner,
            changed_at: ctx.now,
            changed_by: ctx.actor(),
            owned_since: ctx.now,
            owned_by: ctx.actor(),
            ..secret.row.clone()
        };
        tx.change(secret, &row).await?;
        // A version that was written meanwhile is under the old owner's key: the head moved then.
        tx.change(head, &SecretHeadRow { ..head.row.clone() }).await?;
        let (wrap_key, wraps) = again.store(tx).await?;
        if wraps.len() != versions.len() {
            return Err(Error::internal("a version without its wrap"));
        }
        for (version, wrap) in versions.iter().zip(wraps) {
            let row = SecretVersionRow { wrap: wrap.clone(), wrap_key, ..version.row.clone() };
            tx.change(version, &row).await?;
        }
        Ok(self.owner.clone())
    }
}
