//! What a recovery stands on: its row, whose it is, and what became of the last one.

use crate::engines::identities::{administrator_once, never_administered};
use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::identities::{self, IdentityRow};
use crate::store::keys::VaultRow;
use crate::store::lifecycles::{self, LifecycleRow};
use crate::store::recovery::{self, RecoveryRow};
use crate::store::{Tx, Versioned, logins};
use crate::types::{
    CredentialState, IdentityName, IdentityState, Kind, RecoveryState, UnixMillis, VaultId,
};
use crate::vault::{Recovery, is_active};

/// What there is.
pub(super) struct Found {
    pub(super) recovery: Versioned<RecoveryRow>,
    pub(super) identity: Versioned<IdentityRow>,
    pub(super) lifecycle: Versioned<LifecycleRow>,
    pub(super) vault: Versioned<VaultRow>,
    /// Since when the identity logs in with the key that is asked for.
    pub(super) key_since: Option<UnixMillis>,
    administered: bool,
    /// The login that the last recovery yielded.
    login: Option<CredentialRow>,
}

impl Found {
    pub(super) async fn load(
        tx: &mut Tx,
        name: &IdentityName,
        key_hash: &[u8; 32],
        vault: VaultId,
    ) -> Result<Option<Self>> {
        let Some(identity) = identities::identity_named(tx, name).await? else { return Ok(None) };
        let recovery = recovery::recovery(tx).await?;
        let missing = || Error::internal("a vault without its row");
        let login = match recovery.row.credential {
            Some(id) => tx.lookup::<CredentialRow>(&id).await?.map(|found| found.row),
            None => None,
        };
        Ok(Some(Self {
            administered: administrator_once(tx, identity.row.id).await?.is_some(),
            lifecycle: lifecycles::of_kind(tx, identity.row.kind).await?,
            vault: tx.lookup::<VaultRow>(&vault).await?.ok_or_else(missing)?,
            key_since: logins::key_since(tx, identity.row.id, key_hash).await?,
            identity,
            recovery,
            login,
        }))
    }

    /// Refuses who is not recovered, whoever asks.
    pub(super) fn check(&self) -> Result<()> {
        let row = &self.identity.row;
        if row.kind != Kind::Human {
            return Err(Error::precondition("only humans administer, so only they are recovered"));
        }
        if row.state == IdentityState::Retired {
            return Err(Error::precondition("the identity is retired, for good; name another one"));
        }
        if self.administered { Ok(()) } else { Err(never_administered()) }
    }

    /// The recovery that a call with this key speaks of, if there is one.
    pub(super) fn same(&self, key_hash: &[u8]) -> Result<Option<Recovery>> {
        let found = Recovery::of(&self.recovery.row)?;
        Ok(found.filter(|one| one.name == self.identity.row.name && one.key_hash == key_hash))
    }

    /// Tells whether a recovery still waits: who was contained since is not recovered by it.
    pub(super) fn waits(&self, recovery: &Recovery, now: UnixMillis) -> bool {
        recovery.is_pending(now, self.vault.row.restore_epoch)
            && recovery.revocation_epoch == self.identity.row.revocation_epoch
    }

    /// The login that a recovery yielded, while it is in force.
    pub(super) fn yielded(&self, recovery: &Recovery, now: UnixMillis) -> Option<&CredentialRow> {
        let identity = &self.identity.row;
        let in_force = |login: &&CredentialRow| {
            login.identity == identity.id
                && login.state == CredentialState::Active
                && login.revocation_epoch == identity.revocation_epoch
                && login.expires_at > now
        };
        let done = recovery.state == RecoveryState::Done && is_active(identity, now);
        self.login.as_ref().filter(in_force).filter(|_| done)
    }
}
