//! Accepting a log that was rolled back or altered, while nothing is served: its ceremony, on the
//! server's own socket, where each administrator signs what they accept.
//!
//! A signature is over the very heads that were kept and found, and how many who were shredded come
//! back, so that it counts for nothing else.
//! Whose it is has to have proven a factor, as in every ceremony, and by its rules it is looked at
//! whether they are enough.

use crate::audit::Head;
use crate::auth::statement::{Signer, signer};
use crate::cli::control::{LogHead, Rollback};
use crate::crypto::hex;
use crate::engines::ceremonies::{Act, Approve, Ceremony, Held, InCeremony, ShowCeremony, Solemn};
use crate::engines::factors::{Code, VerifyFactor};
use crate::engines::system::AcceptRollback;
use crate::error::{Error, Result};
use crate::types::{AuthMethod, Authenticated, Caller, CeremonyId, UnixMillis};
use crate::vault::{Divergence, Vault, Verb as _};

/// What an administrator says to accept a log.
#[derive(Debug, Clone)]
pub struct AcceptOrder {
    /// Their login certificate.
    pub certificate_der: Vec<u8>,
    /// Its key's signature over what waits for acceptance.
    pub signature: Vec<u8>,
    /// The ceremony of another that they approve; none where they ask themselves.
    pub ceremony: Option<CeremonyId>,
    /// A code of theirs, where they have to prove a factor.
    pub code: Option<Code>,
}

/// How far a log is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// Its ceremony is open.
    Waits {
        /// Which.
        ceremony: CeremonyId,
        /// How many administrators are missing; where none is, whoever asked says so once more.
        missing: i64,
        /// From when on it waits no more.
        until: UnixMillis,
    },
    /// It is served.
    Wholly,
}

/// A log that was rolled back or altered, as it is and as it is shown.
#[derive(Debug)]
pub(super) struct Seen {
    log: Divergence,
    pub(super) shown: Rollback,
}

/// Takes one administrator's acceptance; accepts the log where it is the last that it takes.
pub(super) async fn accept(vault: &Vault, order: AcceptOrder) -> Result<Accepted> {
    let Seen { log, shown } = read_rollback(vault).await?;
    let statement = shown.statement();
    let signer = signer(&order.certificate_der, statement.as_bytes(), &order.signature)?;
    let caller = Caller::Identity(signed_by(vault, &signer).await?);
    if let Some(code) = order.code {
        vault.run(&vault.context(caller, None)?, VerifyFactor { code }).await??;
    }
    let unnamed = shown.unnamed;
    let op = AcceptRollback { log, unnamed };
    let open = match order.ceremony {
        Some(id) => approve(vault, caller, id, op).await?,
        None => match vault.run(&vault.context(caller, None)?, InCeremony(op)).await? {
            Held::Open(open) => *open,
            Held::Done(()) => {
                vault.adopt(log.found, unnamed).await?;
                return Ok(Accepted::Wholly);
            }
        },
    };
    let (ceremony, missing, until) = (open.row.id, open.missing, open.row.expires_at);
    tracing::warn!(alarm = true, %ceremony, missing, "a restored store is accepted in part");
    Ok(Accepted::Waits { ceremony, missing, until })
}

/// Approves the ceremony of another that is about just this.
async fn approve(
    vault: &Vault,
    caller: Caller,
    id: CeremonyId,
    op: AcceptRollback,
) -> Result<Ceremony> {
    let seen = vault.run(&vault.context(caller, None)?, ShowCeremony { id }).await?;
    if seen.about.action != AcceptRollback::ACTION || seen.about.terms != op.terms() {
        return Err(Error::precondition("that ceremony is not about what you accept"));
    }
    let change = Approve { about_hash: hex(&seen.row.about_hash), reason: String::new() };
    vault.run(&vault.context(caller, None)?, Act { id, change }).await
}

/// Looks at what waits for acceptance.
pub(super) async fn read_rollback(vault: &Vault) -> Result<Seen> {
    let log =
        vault.check_anchor().await?.divergence().ok_or_else(|| {
            Error::precondition("the log extends what was kept of it; unseal again")
        })?;
    let show = |head: &Head| LogHead { size: head.size, root: hex(&head.root) };
    let shown = Rollback {
        vault_id: vault.installation().id.to_string(),
        kept: log.kept.as_ref().map(show),
        found: show(&log.found),
        altered: log.altered,
        unnamed: vault.shreds_undone().await?.unnamed,
    };
    Ok(Seen { log, shown })
}

/// Finds whose live login signed.
async fn signed_by(vault: &Vault, signer: &Signer) -> Result<Authenticated> {
    // Nobody watches the authority epoch while the vault is held.
    vault.forget();
    let ours = signer.id.trust_domain.as_str() == vault.installation().trust_domain;
    let who = vault.authenticate_certificate(signer.fingerprint, |subject| {
        let row = &subject.identity.row;
        ours && row.kind == signer.id.kind && row.name == signer.id.name
    });
    Ok(Authenticated { method: AuthMethod::Signature, ..who.await? })
}
