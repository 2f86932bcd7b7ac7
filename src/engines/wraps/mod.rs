//! Wrapped answers: opened once by whom they are for, shown, taken back, forgotten when they are
//! over. How an answer is wrapped is the vault's own: see `src/vault/wrap.rs`.

mod list;
mod purge;
mod revoke;
mod show;
mod unwrap;

use futures_util::FutureExt as _;

pub use list::ListWraps;
pub use purge::PurgeWraps;
pub use revoke::RevokeWrap;
pub use show::ShowWrap;
pub use unwrap::{Given, OpenedBefore, Unwrap, Unwrapped};

use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::Tx;
use crate::store::identities::IdentityRow;
use crate::store::wraps::WrapRow;
use crate::types::{CredentialId, IdentityName, ResourceName, UnixMillis};
use crate::vault::{Resource, View, WrapFate, wrap_fate};

/// A wrap as it is shown.
#[derive(Debug, Clone)]
pub struct Wrap {
    /// Its row.
    pub row: WrapRow,
    /// What can be done with it.
    pub fate: WrapFate,
    /// The name of who made it.
    pub creator: IdentityName,
    /// The name of who alone may open it.
    pub recipient: Option<IdentityName>,
    /// The name of who opened it.
    pub opened_by: Option<IdentityName>,
    /// The name of who changed it last.
    pub changed_by: String,
}

impl Wrap {
    /// Adds what is said of a row, as of a moment and a restore of the vault.
    async fn describe(
        tx: &mut Tx,
        names: &mut Names,
        row: WrapRow,
        (now, restore_epoch): (UnixMillis, i64),
    ) -> Result<Self> {
        let fate = wrap_fate(tx, &row, now, restore_epoch).await?;
        let creator = names.identity(tx, row.creator).await?;
        let recipient = match row.recipient {
            Some(id) => Some(names.identity(tx, id).await?),
            None => None,
        };
        let opened_by = match row.opened_by {
            Some(id) => Some(names.identity(tx, id).await?),
            None => None,
        };
        let changed_by = names.actor(tx, &row.changed_by).await?;
        Ok(Self { row, fate, creator, recipient, opened_by, changed_by })
    }

    /// Reads one.
    async fn load(tx: &mut Tx, id: CredentialId, as_of: (UnixMillis, i64)) -> Result<Self> {
        let found = tx.lookup::<WrapRow>(&id).await?.ok_or_else(missing)?;
        Self::describe(tx, &mut Names::default(), found.row, as_of).await
    }
}

/// Names the wraps of an identity.
fn resource_name(identity: &IdentityName) -> Result<ResourceName> {
    ResourceName::join("wraps", &[identity.as_str()])
}

/// A wrap as a decision sees it: held by whoever of creator and recipient asks, owned by whoever
/// answers for its creator. One that does not exist is named by its id.
async fn resource_of(view: &View, id: CredentialId) -> Result<Vec<Resource>> {
    let read = view.read(move |tx| {
        async move {
            let Some(wrap) = tx.lookup::<WrapRow>(&id).await? else { return Ok(None) };
            let creator = tx.lookup::<IdentityRow>(&wrap.row.creator).await?;
            let creator = creator.ok_or_else(|| Error::internal("a wrap of nobody"))?;
            Ok(Some((wrap, creator)))
        }
        .boxed()
    });
    let Some((wrap, creator)) = read.await? else {
        return Ok(vec![Resource::named(ResourceName::join("wraps", &[&id.to_string()])?)]);
    };
    let mut resource = Resource::named(resource_name(&creator.row.name)?).with_row(id.0, &wrap);
    resource.rows.push(creator.fence());
    let asks = view.identity()?;
    let given = wrap.row.recipient == Some(asks);
    resource.holder = Some(if given { asks } else { wrap.row.creator });
    resource.owner = Some(creator.row.owner);
    Ok(vec![resource])
}

/// The moment and the restore of the vault that an answer is as of.
fn as_of(view: &View) -> Result<(UnixMillis, i64)> {
    Ok((view.now(), view.subject()?.restore_epoch()))
}

fn missing() -> Error {
    Error::not_found("there is no such wrap")
}
