//! Whom a restore of the store brought back: shredded again before anybody is served.

use std::path::Path;

use crate::engines::identities::ShredAgain;
use crate::error::{Error, Result};
use crate::types::Caller;
use crate::vault::{ShredsUndone, Vault};

/// The name under which it is recorded.
const RESTORE: &str = "restore";

/// Shreds again whoever was shredded, as HSM and file say, and is not in this store.
///
/// # Errors
/// [`Error::Precondition`] where some are named nowhere; what store and HSM answer. Some may be
/// shredded already then, and the rest are the next time. Where that cannot be kept outside of the
/// store is no error: it is true in the store, and tried again every minute.
pub(super) async fn again(vault: &Vault, list: Option<&Path>) -> Result<()> {
    let undone = vault.shreds_undone().await?;
    if let Some(told) = unnamed(&undone, list) {
        return Err(Error::precondition(told));
    }
    for id in undone.ids {
        let ctx = vault.context(Caller::System(RESTORE), None)?;
        vault.run(&ctx, ShredAgain { id }).await?;
        tracing::warn!(identity = %id, "shredded again: a restore had brought it back");
    }
    if let Err(error) = vault.keep_shreds().await {
        tracing::error!(%error, alarm = true, "who was shredded is not kept outside of the store yet");
    }
    Ok(())
}

/// Says how many were shredded whom nobody names, and what is to be done; none where all are named.
pub(super) fn unnamed(undone: &ShredsUndone, list: Option<&Path>) -> Option<String> {
    let list = list.map_or_else(|| "the node's list".to_owned(), |path| path.display().to_string());
    let count = undone.unnamed;
    (count > 0).then(|| {
        format!(
            "{count} identities that were shredded are in neither this store nor {list}, and the \
             HSM knows their number alone: write their ids there, one a line, before they come back"
        )
    })
}
