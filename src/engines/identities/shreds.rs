//! Identities that were shredded: what that destroys, and since when nothing brings it back.
//!
//! *Shredded* is a fact of this store, from its commit on. *Unrecoverable* is one of every copy of it
//! from before: none of the keys that could open one is left.

use async_trait::async_trait;

use super::Names;
use super::show::{decided, resource};
use super::shredding::COUNTED;
use super::state::next;
use crate::engines::root::ROOT;
use crate::engines::rotations::Versions;
use crate::error::{Error, Result};
use crate::keyring::Recipient;
use crate::store::database::{self, ConnectionRow, RoleRow, TargetRow};
use crate::store::keys::{HsmKeyRow, IdentityKeyRow, KeyOwner, KeyState};
use crate::store::named_keys::NamedKeyVersionRow;
use crate::store::recovery_sets::{self, RecoverySetRow};
use crate::store::shreds::{self, ShredRow};
use crate::store::{Needs, Tx, Versioned, secrets};
use crate::types::{
    IdentityId, IdentityName, KeyVersionState, RequestContext, RotationState, VaultId,
};
use crate::vault::{Decision, Operation, Page, PageToken, READS, Resource, Verb, View, WRITES};

/// Rows that are read at once.
const PAGE: i64 = 256;

/// That an identity was shredded, as it is shown.
#[derive(Debug, Clone)]
pub struct Shred {
    /// Its row.
    pub row: ShredRow,
    /// The identity's name; empty where it came after the copy that this store was restored from.
    pub identity: String,
    /// Keys that are still to be destroyed in the HSM.
    pub ending: i64,
    /// What still opens a copy from before.
    pub openers: Vec<String>,
    /// The name of who shredded it.
    pub shredded_by: String,
}

impl Shred {
    pub(super) async fn of(tx: &mut Tx, row: &ShredRow) -> Result<Self> {
        let mut names = Names::default();
        Ok(Self {
            identity: names.intact(tx, row.id).await?.map(|it| it.to_string()).unwrap_or_default(),
            ending: shreds::count_ending(tx, row.id).await?,
            openers: still_open(tx, row).await?,
            shredded_by: names.actor(tx, &row.shredded_by).await?,
            row: row.clone(),
        })
    }
}

/// What could open a copy of the store from before: every root key that the HSM did not destroy, every
/// recovery set that stands, whatever it is wrapped for now, and whoever the owner's keys are.
async fn openers(tx: &mut Tx, vault: VaultId, owner: KeyOwner) -> Result<Vec<String>> {
    let roots = Versions::read(tx, ROOT).await?;
    let standing = roots.keys.iter().filter(|key| !is_destroyed(&roots, &key.row));
    let mut openers: Vec<_> = standing.map(|key| key.row.id.clone()).collect();
    let sets = recovery_sets::active(tx).await?;
    openers.extend(sets.iter().map(|set| Recipient::label(vault, set.row.id)));
    openers.extend(shreds::recipients_of(tx, owner).await?);
    openers.sort_unstable();
    openers.dedup();
    Ok(openers)
}

/// Lists what of that is left: root keys whose destruction in the HSM is not on record, and recovery
/// sets that stand. What is neither is left.
async fn still_open(tx: &mut Tx, row: &ShredRow) -> Result<Vec<String>> {
    let openers: Vec<String> = serde_json::from_str(&row.openers).map_err(Error::internal)?;
    let (roots, mut left) = (Versions::read(tx, ROOT).await?, Vec::new());
    for opener in openers {
        let gone = if let Some(set) = Recipient::set_of(&opener) {
            let set = tx.lookup::<RecoverySetRow>(&set).await?;
            set.is_some_and(|set| set.row.state == KeyState::Destroyed)
        } else {
            let root = roots.keys.iter().find(|key| key.row.id == opener);
            root.is_some_and(|root| is_destroyed(&roots, &root.row))
        };
        if !gone {
            left.push(opener);
        }
    }
    Ok(left)
}

/// Tells whether the HSM destroyed a root key: its row says so before the HSM is asked, the rotation's
/// afterwards.
fn is_destroyed(roots: &Versions, root: &HsmKeyRow) -> bool {
    let asked = roots.replaced(root.version);
    let asked = asked.is_some_and(|found| found.row.state == RotationState::Retiring);
    root.state == KeyState::Destroyed && !asked
}

/// Destroys an identity's key, and what hangs on it: every wrap is deleted, its keys in the HSM are
/// handed to the worker that destroys them there, the credentials of its connections are forgotten.
pub(super) async fn destroy(
    ctx: &RequestContext,
    tx: &mut Tx,
    (vault, id): (VaultId, IdentityId),
    connections: &[Versioned<ConnectionRow>],
) -> Result<ShredRow> {
    let owner = KeyOwner::Identity(id);
    let openers = openers(tx, vault, owner).await?;
    let number = next(shreds::last(tx, 1).await?.first().map_or(0, |last| last.row.number))?;
    let key_versions = destroy_keys(tx, owner).await?;
    let hsm_keys = hand_over(ctx, tx, id).await?;
    for connection in connections {
        forget(ctx, tx, connection).await?;
    }
    let row = ShredRow {
        id,
        number,
        key_versions,
        secrets: secrets::count_owned(tx, id, COUNTED).await?,
        named_keys: shreds::count_sealed(tx, id, COUNTED).await?,
        hsm_keys,
        connections: i64::try_from(connections.len()).map_err(Error::internal)?,
        openers: serde_json::to_string(&openers).map_err(Error::internal)?,
        shredded_at: ctx.now,
        shredded_by: ctx.actor(),
        unrecoverable_at: None,
        changed_at: ctx.now,
        changed_by: ctx.actor(),
    };
    tx.insert(&row).await?;
    Ok(row)
}

/// Destroys every version of an owner's key; how many.
pub(super) async fn destroy_keys(tx: &mut Tx, owner: KeyOwner) -> Result<i64> {
    let mut destroyed = 0_i64;
    loop {
        let keys = shreds::keys_of(tx, owner, PAGE).await?;
        if keys.is_empty() {
            break;
        }
        for key in keys {
            let row = IdentityKeyRow { state: KeyState::Destroyed, ..key.row.clone() };
            tx.change(&key, &row).await?;
            destroyed = destroyed.saturating_add(1);
        }
    }
    shreds::delete_wraps(tx, owner).await?;
    Ok(destroyed)
}

/// Hands named keys in the HSM to the worker that destroys them. The rows say what is to be destroyed
/// there, so that a crash leaves nothing that the worker does not find.
pub(super) async fn hand_over(ctx: &RequestContext, tx: &mut Tx, id: IdentityId) -> Result<i64> {
    let (changed_at, by) = (ctx.now, ctx.actor());
    let mut ending = 0_i64;
    loop {
        let versions = shreds::versions_in_hsm(tx, id, PAGE).await?;
        if versions.is_empty() {
            return Ok(ending);
        }
        for version in versions {
            let row = NamedKeyVersionRow {
                state: KeyVersionState::Retired,
                changed_at,
                changed_by: by.clone(),
                ..version.row.clone()
            };
            tx.change(&version, &row).await?;
            ending = ending.saturating_add(1);
        }
    }
}

/// Removes a connection with its roles, and forgets its passwords.
async fn forget(
    ctx: &RequestContext,
    tx: &mut Tx,
    connection: &Versioned<ConnectionRow>,
) -> Result<()> {
    let (changed_at, by) = (ctx.now, ctx.actor());
    loop {
        let roles = database::roles_after(tx, Some(connection.row.id), "", PAGE).await?;
        if roles.is_empty() {
            break;
        }
        for Versioned { row, version } in roles {
            let changed_by = by.clone();
            tx.update(version, &RoleRow { active: false, changed_at, changed_by, ..row }).await?;
        }
    }
    for Versioned { row, version } in database::targets_of(tx, connection.row.id).await? {
        tx.update(version, &TargetRow { password: Vec::new(), ..row }).await?;
    }
    let row = connection.row.clone();
    let row = ConnectionRow { active: false, changed_at, changed_by: by, ..row };
    tx.update(connection.version, &row).await?;
    Ok(())
}

/// Establishes that nothing opens a copy from before an identity was shredded.
#[derive(Debug, Clone)]
pub struct FinishShred {
    /// Its name.
    pub name: IdentityName,
}

#[async_trait]
impl Verb for FinishShred {
    const ACTION: &'static str = "identities.finish-shred";
    type Prepared = IdentityId;
    type Output = Shred;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, &self.name).await?])
    }

    async fn prepare(&self, _: &View, decision: &Decision) -> Result<IdentityId> {
        decided(decision)
    }
}

#[async_trait]
impl Operation for FinishShred {
    const NEEDS: Needs = WRITES;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        id: &IdentityId,
        _: &Decision,
    ) -> Result<Shred> {
        let found = tx.lookup::<ShredRow>(id).await?;
        let found = found.ok_or_else(|| Error::precondition("it was not shredded"))?;
        let left = still_open(tx, &found.row).await?;
        if !left.is_empty() {
            return Err(Error::precondition(format!(
                "a copy of the store from before is still opened by {}: rotate the root, take a \
                 backup, and destroy these first",
                left.join(", ")
            )));
        }
        if shreds::count_ending(tx, *id).await? > 0 {
            return Err(Error::precondition(
                "keys of it are still to be destroyed in the HSM, which the vault goes on with",
            ));
        }
        if found.row.unrecoverable_at.is_some() {
            return Shred::of(tx, &found.row).await;
        }
        let row = ShredRow {
            unrecoverable_at: Some(ctx.now),
            changed_at: ctx.now,
            changed_by: ctx.actor(),
            ..found.row
        };
        tx.update(found.version, &row).await?;
        Shred::of(tx, &row).await
    }
}

/// Lists identities that were shredded, by their ids.
#[derive(Debug, Clone)]
pub struct ListShreds {
    /// Items at most; 0 for the default.
    pub page_size: i32,
    /// Where the page before ended.
    pub page_token: String,
}

#[async_trait]
impl Verb for ListShreds {
    const ACTION: &'static str = "identities.list-shreds";
    type Prepared = (Vec<Shred>, String);
    type Output = (Vec<Shred>, String);

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("identities".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let tokens = PageToken::new(view, Self::ACTION, "")?;
        let page = tokens.open(view, self.page_size, &self.page_token)?;
        let Page { size, after } = page.clone();
        let listed = view.read(move |tx| Box::pin(list(tx, after, size)));
        tokens.cut(view, &page, listed.await?, |last| last.row.id.to_string())
    }
}

async fn list(tx: &mut Tx, after: String, size: i64) -> Result<Vec<Shred>> {
    let mut listed = Vec::new();
    for found in shreds::shreds_after(tx, &after, size.saturating_add(1)).await? {
        listed.push(Shred::of(tx, &found.row).await?);
    }
    Ok(listed)
}

#[async_trait]
impl Operation for ListShreds {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        page: &Self::Prepared,
        _: &Decision,
    ) -> Result<Self::Output> {
        Ok(page.clone())
    }
}

/// Finds that an identity was shredded.
pub(super) async fn shred_of(tx: &mut Tx, id: IdentityId) -> Result<Option<Shred>> {
    match tx.lookup::<ShredRow>(&id).await? {
        Some(found) => Shred::of(tx, &found.row).await.map(Some),
        None => Ok(None),
    }
}
