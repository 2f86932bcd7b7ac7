//! Who asks, with everything that a decision reads about it, loaded once and fenced.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Terms, TokenDetail};
use crate::error::{Error, Result};
use crate::policy::{CredentialFacts, GrantFacts, GrantSubject, GroupFacts, IdentityFacts};
use crate::store::credentials::{self, CredentialRow};
use crate::store::identities::{self, GrantRow, GroupRow, IdentityRow};
use crate::store::keys::VaultRow;
use crate::store::{RowRef, Tx, Versioned};
use crate::types::{
    AuthMethod, CredentialId, CredentialKind, CredentialState, GroupId, Id, IdentityId,
    IdentityState, UnixMillis, VaultId,
};

/// The built-in group whose active humans administer.
pub const ADMINISTRATORS: &str = "administrators";
/// Grants that one identity or group may hold.
pub const GRANTS: i64 = 10_000;
/// Tokens above a token, at the most.
pub const DEPTH: u32 = 8;
/// Subjects kept.
const KEPT: usize = 20_000;
/// Grants and memberships kept, of all subjects together.
const WEIGHT: usize = 200_000;

/// A credential with its identity, owner, groups and grants, as of one snapshot.
#[derive(Debug)]
pub struct Subject {
    /// The credential.
    pub credential: Versioned<CredentialRow>,
    /// Whose it is.
    pub identity: Versioned<IdentityRow>,
    /// Who answers for it.
    pub owner: Versioned<IdentityRow>,
    /// The groups it is in.
    pub groups: Vec<Versioned<GroupRow>>,
    /// Its grants and its groups'.
    held: Vec<Arc<Held>>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What a token may do; none where the credential is no token.
    pub token: Option<TokenDetail>,
    /// What a token hangs on: tokens and a login, nearest first.
    ancestors: Vec<Versioned<CredentialRow>>,
    /// The vault, which counts its restores.
    vault: Versioned<VaultRow>,
    /// The authority epoch of the snapshot.
    pub epoch: i64,
    /// Every sealed row above that decisions stand on, but the credential's own.
    pub rows: Vec<RowRef>,
}

/// What one identity or group holds, shared by all who hold it.
#[derive(Debug)]
struct Held {
    holder: Id,
    /// Of the holder's row, which every change of its grants moves.
    version: i64,
    by_action: HashMap<String, Vec<HeldGrant>>,
    count: usize,
}

impl Held {
    async fn load(tx: &mut Tx, holder: Id, version: i64) -> Result<Self> {
        let mut by_action: HashMap<String, Vec<HeldGrant>> = HashMap::new();
        let grants = identities::grants_of(tx, holder, GRANTS).await?;
        let count = grants.len();
        for grant in grants {
            let held = HeldGrant::read(grant.row)?;
            by_action.entry(held.row.action.clone()).or_default().push(held);
        }
        Ok(Self { holder, version, by_action, count })
    }
}

/// A grant with its conditions read.
#[derive(Debug)]
pub struct HeldGrant {
    /// The grant.
    pub row: GrantRow,
    /// When it begins, and what else must be true.
    pub terms: Terms,
    subject: GrantSubject,
    granted_by: IdentityId,
}

impl Subject {
    /// Loads it by its credential's handle or id, sharing what is kept of its holders.
    pub(super) async fn load(
        tx: &mut Tx,
        vault: VaultId,
        by: &Wanted,
        kept: &Subjects,
    ) -> Result<Option<Self>> {
        let credential = match by {
            Wanted::Handle(handle) => credentials::by_handle(tx, handle).await?,
            Wanted::Id(id) => tx.lookup::<CredentialRow>(id).await?,
        };
        let Some(credential) = credential else { return Ok(None) };
        let (token, ancestors) = above(tx, &credential).await?;
        let epoch = tx.epoch().await?;
        if let Some(kin) = kept.kin(credential.row.identity, epoch) {
            return Ok(Some(kin.with(credential, token, ancestors)));
        }
        let missing = || Error::internal("a credential without its identity");
        let identity =
            tx.lookup::<IdentityRow>(&credential.row.identity).await?.ok_or_else(missing)?;
        let owner = if identity.row.owner == identity.row.id {
            identity.clone()
        } else {
            tx.lookup::<IdentityRow>(&identity.row.owner).await?.ok_or_else(missing)?
        };
        let mut named: HashMap<GroupId, Versioned<GroupRow>> =
            identities::groups_of(tx, identity.row.id)
                .await?
                .into_iter()
                .map(|group| (group.row.id, group))
                .collect();
        let mut groups = Vec::with_capacity(named.len());
        for member in identities::memberships(tx, identity.row.id).await? {
            let group = named.remove(&member.row.group_id);
            groups.push(group.ok_or_else(|| Error::internal("a member without its group"))?);
        }
        let mut held = Vec::with_capacity(groups.len().saturating_add(1));
        let own = std::iter::once((identity.row.id.0, identity.version));
        for (holder, version) in own.chain(groups.iter().map(|g| (g.row.id.0, g.version))) {
            held.push(match kept.held(holder, version) {
                Some(held) => held,
                None => Arc::new(Held::load(tx, holder, version).await?),
            });
        }
        let labels = serde_json::from_str(&identity.row.labels).map_err(Error::internal)?;
        let missing = || Error::internal("a vault without its row");
        let vault = tx.lookup::<VaultRow>(&vault).await?.ok_or_else(missing)?;
        let rows = Vec::new();
        let mut subject = Self {
            credential,
            identity,
            owner,
            groups,
            held,
            labels,
            token,
            ancestors,
            vault,
            epoch,
            rows,
        };
        subject.rows = subject.fences();
        Ok(Some(subject))
    }

    /// The same identity by another credential, as of the same epoch.
    fn with(
        &self,
        credential: Versioned<CredentialRow>,
        token: Option<TokenDetail>,
        ancestors: Vec<Versioned<CredentialRow>>,
    ) -> Self {
        let mut subject = Self {
            credential,
            identity: self.identity.clone(),
            owner: self.owner.clone(),
            groups: self.groups.clone(),
            held: self.held.clone(),
            labels: self.labels.clone(),
            token,
            ancestors,
            vault: self.vault.clone(),
            epoch: self.epoch,
            rows: Vec::new(),
        };
        subject.rows = subject.fences();
        subject
    }

    fn fences(&self) -> Vec<RowRef> {
        let mut rows = vec![self.identity.fence(), self.owner.fence()];
        rows.extend(self.groups.iter().map(Versioned::fence));
        rows.extend(self.ancestors.iter().map(Versioned::fence));
        rows.extend(self.token.is_some().then(|| self.vault.fence()));
        rows
    }

    /// Counts the restores of the vault that were accepted.
    #[must_use]
    pub const fn restore_epoch(&self) -> i64 {
        self.vault.row.restore_epoch
    }

    /// Tells whether a token and all that it hangs on are in force, its time aside. A token that
    /// is spent has something to say yet: see [`super::spend`].
    fn token_stands(&self) -> bool {
        let restored = |token: &TokenDetail| token.restore_epoch == self.restore_epoch();
        let alive = |row: &CredentialRow| match row.state {
            CredentialState::Active | CredentialState::Spent => true,
            CredentialState::Pending | CredentialState::Revoking | CredentialState::Ended => false,
        };
        self.token.as_ref().is_some_and(restored)
            && alive(&self.credential.row)
            && self.ancestors.iter().all(|ancestor| alive(&ancestor.row))
    }

    /// Tells whether the credential is accepted at a moment, as what it was presented as.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], the same sentence whatever is wrong with it.
    pub fn check(&self, now: UnixMillis, method: AuthMethod) -> Result<()> {
        let (credential, identity) = (&self.credential.row, &self.identity.row);
        let meant = match method {
            AuthMethod::Mtls { .. } => {
                credential.kind == CredentialKind::Login
                    && credential.state == CredentialState::Active
            }
            AuthMethod::Token { .. } => {
                credential.kind == CredentialKind::Token && self.token_stands()
            }
            AuthMethod::Handle => credential.kind == CredentialKind::Lease,
        };
        let accepted = meant
            && credential.revocation_epoch == identity.revocation_epoch
            && identity.state == IdentityState::Active
            && credential.expires_at > now
            && identity.expires_at.is_none_or(|end| end > now);
        if accepted { Ok(()) } else { Err(refused()) }
    }

    /// Tells whether it is in the built-in group of administrators.
    #[must_use]
    pub fn is_administrator(&self) -> bool {
        self.groups.iter().any(|group| group.row.name.as_str() == ADMINISTRATORS)
    }

    /// The groups, as facts.
    #[must_use]
    pub fn group_facts(&self) -> Vec<GroupFacts<'_>> {
        self.groups
            .iter()
            .map(|group| GroupFacts { id: group.row.id, name: &group.row.name })
            .collect()
    }

    /// The identity, as facts.
    #[must_use]
    pub fn facts<'a>(&'a self, groups: &'a [GroupFacts<'a>], now: UnixMillis) -> IdentityFacts<'a> {
        let row = &self.identity.row;
        IdentityFacts {
            id: row.id,
            name: &row.name,
            kind: row.kind,
            state: row.state,
            owner: row.owner,
            owner_active: is_active(&self.owner.row, now),
            owner_expires_at: self.owner.row.expires_at,
            tier: row.tier,
            expires_at: row.expires_at,
            labels: &self.labels,
            groups,
            administrator: self.is_administrator(),
        }
    }

    /// The credential, as facts.
    #[must_use]
    pub fn credential_facts(&self, method: AuthMethod) -> CredentialFacts {
        CredentialFacts { method, expires_at: Some(self.credential.row.expires_at) }
    }

    /// The grants for one action, as facts.
    #[must_use]
    pub fn grant_facts(&self, action: &str) -> Vec<GrantFacts<'_>> {
        self.grants(action).map(HeldGrant::facts).collect()
    }

    /// The grants for one action, its own and its groups'.
    pub fn grants(&self, action: &str) -> impl Iterator<Item = &HeldGrant> {
        self.held.iter().filter_map(move |held| held.by_action.get(action)).flatten()
    }

    /// Its grants and its groups', for whatever action.
    pub fn all_grants(&self) -> impl Iterator<Item = &HeldGrant> {
        self.held.iter().flat_map(|held| held.by_action.values()).flatten()
    }

    /// Tells whether it is too large to be kept.
    pub(super) fn is_large(&self) -> bool {
        weight(&self.held) > WEIGHT
    }
}

impl HeldGrant {
    /// Reads a grant's row.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn read(row: GrantRow) -> Result<Self> {
        let terms = Terms::read(&row.conditions)?;
        let subject = if row.subject_is_group {
            GrantSubject::Group(GroupId(row.subject))
        } else {
            GrantSubject::Identity(IdentityId(row.subject))
        };
        let granted_by = row.created_by.parse().map_err(Error::internal)?;
        Ok(Self { row, terms, subject, granted_by })
    }

    /// The grant, as facts.
    #[must_use]
    pub fn facts(&self) -> GrantFacts<'_> {
        GrantFacts {
            id: self.row.id,
            subject: self.subject,
            action: &self.row.action,
            resource: &self.row.resource,
            not_before: self.terms.not_before,
            expires_at: self.row.expires_at,
            conditions: &self.terms.conditions,
            granted_by: self.granted_by,
        }
    }
}

/// Reads what a token may do and what it hangs on: tokens and a login certificate.
async fn above(
    tx: &mut Tx,
    credential: &Versioned<CredentialRow>,
) -> Result<(Option<TokenDetail>, Vec<Versioned<CredentialRow>>)> {
    if credential.row.kind != CredentialKind::Token {
        return Ok((None, Vec::new()));
    }
    let detail = TokenDetail::decode(&credential.row.detail)?;
    let (mut ancestors, mut next) = (Vec::new(), credential.row.parent);
    while let Some(id) = next {
        let missing = || Error::internal("a token without its parent");
        let parent = tx.lookup::<CredentialRow>(&id).await?.ok_or_else(missing)?;
        next = parent.row.parent;
        ancestors.push(parent);
        // A login is above the tokens.
        if ancestors.len() > usize::try_from(DEPTH).unwrap_or_default().saturating_add(1) {
            return Err(Error::internal("a token is deeper than any can be"));
        }
    }
    Ok((Some(detail), ancestors))
}

/// Tells whether an identity is active at a moment.
#[must_use]
pub fn is_active(row: &IdentityRow, now: UnixMillis) -> bool {
    row.state == IdentityState::Active && row.expires_at.is_none_or(|end| end > now)
}

pub(super) fn refused() -> Error {
    Error::Unauthenticated(
        "the credential is not accepted: unknown, expired, revoked or of a suspended identity"
            .into(),
    )
}

/// What a subject is looked up by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Handle([u8; 32]),
    Id(CredentialId),
}

/// Subjects kept: a stale one is slow, never wrong, because commits re-read what it stood on.
#[derive(Debug, Default)]
pub(super) struct Subjects(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Counts how often all of it was forgotten.
    emptied: u64,
    by_id: HashMap<CredentialId, Arc<Subject>>,
    by_handle: HashMap<[u8; 32], CredentialId>,
    /// Of each identity one subject.
    by_identity: HashMap<IdentityId, Arc<Subject>>,
    holders: HashMap<Id, Arc<Held>>,
    weight: usize,
}

impl Subjects {
    pub(super) fn lookup(&self, wanted: &Wanted) -> Option<Arc<Subject>> {
        let kept = self.0.lock();
        let id = match wanted {
            Wanted::Handle(handle) => kept.by_handle.get(handle)?,
            Wanted::Id(id) => id,
        };
        kept.by_id.get(id).cloned()
    }

    /// What an identity or group holds, if that is kept as of this version of its row.
    fn held(&self, holder: Id, version: i64) -> Option<Arc<Held>> {
        let kept = self.0.lock();
        kept.holders.get(&holder).filter(|held| held.version == version).cloned()
    }

    /// A subject of the same identity, as of the same epoch: all but its credential is the same.
    fn kin(&self, identity: IdentityId, epoch: i64) -> Option<Arc<Subject>> {
        let kept = self.0.lock();
        kept.by_identity.get(&identity).filter(|kin| kin.epoch == epoch).cloned()
    }

    /// Forgets one subject.
    pub(super) fn forget(&self, id: CredentialId) {
        self.0.lock().by_id.remove(&id);
    }

    /// How often all of it was forgotten: asked before loading.
    pub(super) fn emptied(&self) -> u64 {
        self.0.lock().emptied
    }

    /// Keeps a subject, unless all was forgotten since its loading began. False when all was
    /// forgotten to make room.
    pub(super) fn keep(&self, subject: &Arc<Subject>, emptied: u64) -> bool {
        let mut kept = self.0.lock();
        if kept.emptied != emptied || subject.is_large() {
            return true;
        }
        let had_room = kept.admit(&subject.held);
        let id = subject.credential.row.id;
        kept.by_identity.insert(subject.identity.row.id, Arc::clone(subject));
        if subject.credential.row.kind == CredentialKind::Lease {
            // Its end moves with each renewal.
            return had_room;
        }
        kept.by_id.insert(id, Arc::clone(subject));
        if subject.credential.row.kind == CredentialKind::Login
            && let Some(handle) = subject.credential.row.handle.as_deref()
            && let Ok(handle) = handle.try_into()
        {
            kept.by_handle.insert(handle, id);
        }
        had_room
    }

    pub(super) fn clear(&self) {
        self.0.lock().empty();
    }
}

impl Kept {
    /// Makes room for what a subject holds and counts it, each holder's once. False when all was
    /// forgotten for it.
    fn admit(&mut self, held: &[Arc<Held>]) -> bool {
        let shared = |one: &&Arc<Held>| {
            !self.holders.get(&one.holder).is_some_and(|kept| Arc::ptr_eq(kept, one))
        };
        let grants = held.iter().filter(shared).map(|held| held.count).sum::<usize>();
        let added = grants.saturating_add(held.len());
        let has_room = self.by_id.len() < KEPT && self.weight.saturating_add(added) <= WEIGHT;
        if !has_room {
            self.empty();
        }
        self.weight = self.weight.saturating_add(if has_room { added } else { weight(held) });
        self.holders.extend(held.iter().map(|held| (held.holder, Arc::clone(held))));
        has_room
    }

    fn empty(&mut self) {
        self.by_id.clear();
        self.by_handle.clear();
        self.by_identity.clear();
        self.holders.clear();
        self.weight = 0;
        self.emptied = self.emptied.wrapping_add(1);
    }
}

/// What a subject weighs by itself: its grants, and its place in each holder.
fn weight(held: &[Arc<Held>]) -> usize {
    held.iter().map(|held| held.count).sum::<usize>().saturating_add(held.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(holder: u8, version: i64, count: usize) -> Arc<Held> {
        let holder = Id::from_bytes([holder; 16]);
        Arc::new(Held { holder, version, by_action: HashMap::new(), count })
    }

    #[test]
    fn what_a_group_holds_is_kept_once_however_many_are_in_it() {
        let subjects = Subjects::default();
        let group = held(1, 7, 1_000);
        for member in 2..=250 {
            let mut kept = subjects.0.lock();
            assert!(kept.admit(&[held(member, 1, 3), Arc::clone(&group)]));
        }
        assert_eq!(subjects.0.lock().weight, 1_000 + 249 * (3 + 2));
        let found = subjects.held(group.holder, 7).unwrap();
        assert!(Arc::ptr_eq(&found, &group));
        assert!(subjects.held(group.holder, 8).is_none(), "its grants may have changed");
    }

    #[test]
    fn all_is_forgotten_before_too_much_is_kept() {
        let mut kept = Kept::default();
        for holder in 0..3 {
            assert!(kept.admit(&[held(holder, 1, 60_000)]));
        }
        let before = kept.emptied;
        assert!(!kept.admit(&[held(3, 1, 60_000)]));
        assert_ne!(kept.emptied, before);
        assert_eq!((kept.weight, kept.holders.len()), (60_001, 1));
        // A holder whose grants changed is counted anew: who loaded the old ones may hold them.
        assert!(kept.admit(&[held(3, 2, 60_000)]));
        assert_eq!(kept.weight, 120_002);
    }
}
