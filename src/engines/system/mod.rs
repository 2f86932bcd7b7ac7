//! The vault as a whole: sealing it, unsealing it, accepting a restored store, its listener's
//! certificate, its backups, recovering an administrator, and the first administrator of `dev`.
//!
//! The verbs here change rows and the record; taking keys up and dropping them is the server's.

mod accept;
mod backup;
mod listener;
mod recovery;
mod renew;
mod seal;
mod unseal;

pub use accept::AcceptRollback;
pub use backup::TellBackup;
pub use listener::{IssueListener, LISTENER, PreparedListener};
pub use recovery::{CancelRecovery, RecoverAdministrator, Recovered, RecoveredLogin};
pub use renew::RenewAdministrator;
pub use seal::{Seal, Sealing};
pub use unseal::{CONTROL_SOCKET, Unseal};

use futures_util::FutureExt as _;

use crate::error::{Error, Result};
use crate::store::Versioned;
use crate::store::keys::{self, SealRow};
use crate::types::ResourceName;
use crate::vault::{Resource, View};

/// The seal as a resource, with its row.
async fn seal_resource(view: &View) -> Result<Resource> {
    let mut resource = Resource::named(ResourceName::join("system", &["seal"])?);
    resource.rows.push(seal_row(view).await?.fence());
    Ok(resource)
}

async fn seal_row(view: &View) -> Result<Versioned<SealRow>> {
    let row = view.read(|tx| async move { Ok(keys::seal_row(tx).await?) }.boxed()).await?;
    row.ok_or_else(|| Error::internal("the row of the seal is missing"))
}
