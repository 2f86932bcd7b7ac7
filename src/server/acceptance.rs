//! Accepting a log that was rolled back or altered: which administrators did, and whether that is
//! enough.
//!
//! An acceptance is a signature over the very heads that were kept and found, so that it counts for
//! nothing else; who gave it is looked up again when it is used.

use data_encoding::HEXLOWER;
use parking_lot::Mutex;

use crate::audit::Head;
use crate::auth::statement::{Signer, signer};
use crate::cli::control::{LogHead, Rollback};
use crate::error::{Error, Result};
use crate::store::identities::IdentityRow;
use crate::types::{IdentityName, Kind};
use crate::vault::{Anchored, Approver, Vault};

/// How far a restored store is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// By this administrator; another must as well.
    Once(IdentityName),
    /// It is served.
    Wholly,
}

/// A rollback, as it is and as it is shown.
#[derive(Debug)]
pub(super) struct Seen {
    anchored: Anchored,
    pub(super) shown: Rollback,
}

/// Who accepted a rollback first, and which.
#[derive(Debug, Default)]
pub(super) struct Acceptance(Mutex<Option<(Rollback, Signer)>>);

impl Acceptance {
    /// Takes one administrator's acceptance; accepts the log once there are enough.
    pub(super) async fn add(
        &self,
        vault: &Vault,
        certificate_der: &[u8],
        signature: &[u8],
    ) -> Result<Accepted> {
        let seen = read_rollback(vault).await?;
        let signer = signer(certificate_der, seen.shown.statement().as_bytes(), signature)?;
        let (by, who) = administrator(vault, &signer).await?;
        let mut enough = vec![by.clone()];
        if !vault.installation().dev {
            match self.first(vault, &seen).await {
                Some((_, first)) if same_human(&first, &who) => {
                    return Err(Error::precondition(
                        "you have accepted it already; another administrator must accept it too",
                    ));
                }
                Some((first, _)) => enough.insert(0, first),
                None => {
                    tracing::warn!(alarm = true, by = %by.name, "a restored store is accepted once");
                    *self.0.lock() = Some((seen.shown, signer));
                    return Ok(Accepted::Once(by.name));
                }
            }
        }
        vault.accept_rollback(seen.anchored, &enough).await?;
        *self.0.lock() = None;
        Ok(Accepted::Wholly)
    }

    /// Who accepted just this before, if that one is still an administrator.
    async fn first(&self, vault: &Vault, seen: &Seen) -> Option<(Approver, IdentityRow)> {
        let first = self.0.lock().clone();
        let (_, signer) = first.filter(|(rollback, _)| *rollback == seen.shown)?;
        administrator(vault, &signer).await.ok()
    }
}

/// Looks at the rollback that waits for acceptance.
pub(super) async fn read_rollback(vault: &Vault) -> Result<Seen> {
    let anchored = vault.check_anchor().await?;
    let (kept, found, altered) = match anchored {
        Anchored::RolledBack { kept, found } => (Some(kept), found, false),
        Anchored::Altered { kept, found } => (kept, found, true),
        Anchored::Extends { .. } | Anchored::Unknown => {
            return Err(Error::precondition("the log extends what was kept of it; unseal again"));
        }
    };
    let show = |head: &Head| LogHead { size: head.size, root: HEXLOWER.encode(&head.root) };
    let vault_id = vault.installation().id.to_string();
    let shown = Rollback { vault_id, kept: kept.as_ref().map(show), found: show(&found), altered };
    Ok(Seen { anchored, shown })
}

/// Tells whether two accounts are of one human. Whether one made the other is not asked: where nobody
/// else is left, the store would never be served again.
fn same_human(one: &IdentityRow, other: &IdentityRow) -> bool {
    one.id == other.id || (one.person.is_some() && one.person == other.person)
}

/// Finds the active human administrator whose live login signed.
async fn administrator(vault: &Vault, signer: &Signer) -> Result<(Approver, IdentityRow)> {
    // Nobody watches the authority epoch while the vault is held.
    vault.forget();
    let ours = signer.id.trust_domain.as_str() == vault.installation().trust_domain;
    let mut administers = false;
    let mut who: Option<IdentityRow> = None;
    let caller = vault
        .authenticate_certificate(signer.fingerprint, |subject| {
            let row = &subject.identity.row;
            administers = row.kind == Kind::Human && subject.is_administrator();
            who = Some(row.clone());
            ours && row.kind == signer.id.kind && row.name == signer.id.name
        })
        .await?;
    match who {
        Some(who) if administers => {
            let name = who.name.clone();
            let (identity, credential) = (caller.identity, caller.credential);
            Ok((Approver { identity, credential, name }, who))
        }
        Some(_) | None => Err(Error::Denied("only administrators accept a restored store".into())),
    }
}
