//! Who asks, with everything that a decision reads about it, loaded once and fenced.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::bearer;
use super::elevation::{Elevated, MadeUnder};
use super::held::{self, Held, HeldGrant};
use super::session::Session;
use super::subjects::{Subjects, WEIGHT, Wanted, weight};
use super::{Answerable, ProvenFactor, TokenDetail, factors};
use crate::error::{Error, Result};
use crate::policy::{GrantFacts, GroupFacts, IdentityFacts, SubjectFacts};
use crate::store::credentials::{self, CredentialRow};
use crate::store::identities::{GroupRow, IdentityRow};
use crate::store::keys::VaultRow;
use crate::store::lifecycles::{self, LifecycleRow};
use crate::store::recovery::{RECOVERY_ID, RecoveryRow};
use crate::store::{RowRef, Tx, Versioned};
use crate::types::{
    AuthMethod, CredentialKind, CredentialState, ElevationId, IdentityId, IdentityState,
    UnixMillis, VaultId,
};

/// The built-in group whose active humans administer.
pub const ADMINISTRATORS: &str = "administrators";
/// Tokens above a token, at the most.
pub const DEPTH: usize = 8;
/// How long what was read of an identity stands for its other credentials, and of a token whose
/// uses are counted for its next call, in milliseconds.
const STANDS_MS: i64 = 1_000;

/// A credential with its identity, owner, groups and grants, as of one snapshot.
#[derive(Debug)]
pub struct Subject {
    /// The credential.
    pub credential: Versioned<CredentialRow>,
    /// What a token may do; none where the credential is no token.
    pub token: Option<TokenDetail>,
    /// Of the handle of a lease, what the token may do that the lease was asked for with.
    pub(super) through: Option<TokenDetail>,
    /// The factors that the credential proved.
    pub(super) proven: Vec<ProvenFactor>,
    /// The elevations that the credential was made under.
    under: Vec<MadeUnder>,
    /// What a token or a login hangs on: tokens, logins and enrolments, nearest first.
    pub(super) ancestors: Vec<Versioned<CredentialRow>>,
    /// What it, or what it hangs on, was got for, where that is an issuer's token.
    pub(super) session: Option<Arc<Session>>,
    /// Every sealed row above and of its kin that decisions stand on, but the credential's own.
    pub rows: Vec<RowRef>,
    kin: Arc<Kin>,
}

/// What all credentials of an identity share, as of one reading: whoever shows a new token with
/// each call has it copied for none of them.
#[derive(Debug)]
pub struct Kin {
    /// Whose the credentials are.
    pub identity: Versioned<IdentityRow>,
    /// Who answers for it.
    pub owner: Answerable,
    /// The groups it is in.
    pub groups: Vec<Versioned<GroupRow>>,
    /// Its grants and its groups'.
    pub(super) held: Vec<Arc<Held>>,
    /// How identities of its kind live.
    pub lifecycle: Versioned<LifecycleRow>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Of an administrator: the recovery that was asked for last, where its row is what was sealed.
    pub recovery: Option<Arc<Versioned<RecoveryRow>>>,
    /// The elevation that it has in force.
    pub(super) elevation: Option<Elevated>,
    /// The vault, which counts its restores.
    vault: Versioned<VaultRow>,
    /// The authority epoch of the snapshot.
    pub epoch: i64,
    /// When it was read.
    read_at: UnixMillis,
    /// What a verb read of the identity itself, kept as long as all of this is new.
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// A subject is its kin, with one credential.
impl Deref for Subject {
    type Target = Kin;

    fn deref(&self) -> &Kin {
        &self.kin
    }
}

impl Kin {
    async fn load(
        tx: &mut Tx,
        vault: VaultId,
        id: IdentityId,
        kept: &Subjects,
        now: UnixMillis,
    ) -> Result<Self> {
        let missing = || Error::internal("a credential without its identity");
        let identity = tx.lookup::<IdentityRow>(&id).await?.ok_or_else(missing)?;
        let owner = Answerable::of(tx, &identity).await?;
        let lifecycle = lifecycles::of_kind(tx, identity.row.kind).await?;
        let groups = held::groups_of(tx, id).await?;
        let mut held = Vec::with_capacity(groups.len().saturating_add(1));
        let own = std::iter::once((id.0, identity.version));
        for (holder, version) in own.chain(groups.iter().map(|g| (g.row.id.0, g.version))) {
            held.push(match kept.held(holder, version) {
                Some(held) => held,
                None => Arc::new(Held::load(tx, holder, version).await?),
            });
        }
        let recovery = if groups.iter().any(is_administrators) {
            tx.lookup_intact::<RecoveryRow>(&RECOVERY_ID).await?.map(Arc::new)
        } else {
            None
        };
        let labels = serde_json::from_str(&identity.row.labels).map_err(Error::internal)?;
        let missing = || Error::internal("a vault without its row");
        let vault = tx.lookup::<VaultRow>(&vault).await?.ok_or_else(missing)?;
        let elevation = Elevated::find(tx, &identity.row, now, vault.row.restore_epoch).await?;
        let epoch = tx.epoch().await?;
        Ok(Self {
            identity,
            owner,
            groups,
            held,
            lifecycle,
            labels,
            recovery,
            elevation,
            vault,
            epoch,
            read_at: now,
            kept: OnceLock::new(),
        })
    }

    /// What a verb read of the identity a moment ago.
    pub(super) fn kept<T: Clone + 'static>(&self, now: UnixMillis) -> Option<T> {
        let kept = self.kept.get().filter(|_| !self.is_old(now))?;
        kept.downcast_ref().cloned()
    }

    /// Keeps what a verb read of the identity, with everything else that was read of it.
    pub(super) fn keep<T: Send + Sync + 'static>(&self, read: T) {
        // Whoever was first read the same.
        let _second = self.kept.set(Box::new(read));
    }

    /// Tells whether what it was loaded from is to be looked at again, whatever the epoch says.
    pub(super) const fn is_old(&self, now: UnixMillis) -> bool {
        now.0.saturating_sub(self.read_at.0) >= STANDS_MS
    }
}

impl Subject {
    /// Loads it by its credential's handle or id, sharing what is kept of its holders.
    pub(super) async fn load(
        tx: &mut Tx,
        vault: VaultId,
        by: &Wanted,
        kept: &Subjects,
        now: UnixMillis,
    ) -> Result<Option<Self>> {
        let credential = match by {
            Wanted::Handle(handle) => credentials::by_handle(tx, handle).await?,
            Wanted::Id(id) => tx.lookup::<CredentialRow>(id).await?,
            Wanted::Token(id, handle) => {
                let found = tx.lookup::<CredentialRow>(id).await?;
                found.filter(|found| bearer::proves(&found.row, handle))
            }
        };
        let Some(credential) = credential else { return Ok(None) };
        let above = Above::load(tx, &credential).await?;
        let identity = credential.row.identity;
        let kin = match kept.kin(identity, tx.epoch().await?, now) {
            Some(kin) => kin,
            None => Arc::new(Kin::load(tx, vault, identity, kept, now).await?),
        };
        let Above { token, through, proven, under, ancestors, session } = above;
        let mut subject = Self {
            credential,
            token,
            through,
            proven,
            under,
            ancestors,
            session,
            rows: Vec::new(),
            kin,
        };
        subject.rows = subject.fences();
        Ok(Some(subject))
    }

    /// A token that it just made below itself: all of it is known without reading anything.
    pub(super) fn child(&self, made: &CredentialRow, kin: Arc<Kin>) -> Option<Self> {
        let own = made.identity == self.identity.row.id
            && made.parent == Some(self.credential.row.id)
            && made.kind == CredentialKind::Token
            && made.elevation.is_none()
            && made.elevation_too.is_none()
            && made.proofs.is_empty();
        let token = own.then(|| TokenDetail::decode(&made.detail).ok()).flatten()?;
        let above = std::iter::once(&self.credential).chain(&self.ancestors);
        let mut child = Self {
            credential: Versioned::first(made.clone()),
            token: Some(token),
            through: None,
            proven: Vec::new(),
            under: Vec::new(),
            ancestors: above.cloned().collect(),
            session: self.session.clone(),
            rows: Vec::new(),
            kin,
        };
        child.rows = child.fences();
        Some(child)
    }

    fn fences(&self) -> Vec<RowRef> {
        let mut rows = vec![self.identity.fence(), self.lifecycle.fence()];
        rows.extend(self.owner.fence());
        rows.extend(self.groups.iter().map(Versioned::fence));
        rows.extend(self.proven.iter().map(|proven| proven.factor.fence()));
        rows.extend(self.ancestors.iter().map(Versioned::fence));
        rows.extend(self.token.is_some().then(|| self.vault.fence()));
        rows.extend(self.elevation.as_ref().map(|it| it.row.fence()));
        rows.extend(self.under.iter().map(|under| under.row.fence()));
        rows.extend(self.session.iter().flat_map(|session| session.fences()));
        rows.extend(self.under.iter().filter_map(|under| Some(under.holder.as_ref()?.fence())));
        rows
    }

    /// Counts the restores of the vault that were accepted.
    #[must_use]
    pub fn restore_epoch(&self) -> i64 {
        self.vault.row.restore_epoch
    }

    /// When the last of them was; 0 before the first.
    #[must_use]
    pub fn restored_at(&self) -> UnixMillis {
        self.vault.row.restored_at
    }

    /// What it shares with those that differ from it in their credential alone.
    pub(super) const fn kin(&self) -> &Arc<Kin> {
        &self.kin
    }

    /// Tells whether a token or a login and all that it hangs on are in force, its time aside. A
    /// token that is spent has something to say yet: see [`super::spend`].
    fn stands(&self) -> bool {
        let alive = |row: &CredentialRow| match row.state {
            CredentialState::Active | CredentialState::Spent => true,
            CredentialState::Pending | CredentialState::Revoking | CredentialState::Ended => false,
        };
        alive(&self.credential.row) && self.ancestors.iter().all(|above| alive(&above.row))
    }

    /// Tells whether a token was made since the vault was last restored.
    fn is_restored(&self, token: &TokenDetail) -> bool {
        token.restore_epoch == self.restore_epoch()
    }

    /// The elevations that the credential was made under, and when each ends.
    pub(super) fn under(&self) -> impl Iterator<Item = (ElevationId, UnixMillis)> {
        let rows = self.under.iter().map(|under| &under.row.row);
        rows.filter_map(|row| row.ends_at.map(|end| (row.id, end)))
    }

    /// The elevation that it has in force, and when that ends.
    #[must_use]
    pub fn elevated(&self) -> Option<(ElevationId, UnixMillis)> {
        self.elevation.as_ref().map(Elevated::end)
    }

    /// When an elevation ends that it has in force, or that its credential was made under.
    #[must_use]
    pub fn carries(&self, id: ElevationId) -> Option<UnixMillis> {
        let mut both = self.under().chain(self.elevated());
        both.find(|(it, _)| *it == id).map(|(_, end)| end)
    }

    /// Checks that it is not too deep for something to hang on it.
    ///
    /// # Errors
    /// [`Error::Precondition`] where it is.
    pub fn require_room_below(&self) -> Result<()> {
        if self.ancestors.len() > DEPTH {
            let text = format!("a token hangs at most {DEPTH} tokens deep");
            return Err(Error::precondition(text));
        }
        Ok(())
    }

    /// Tells whether the credential is accepted at a moment, as what it was presented as.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], the same sentence whatever is wrong with it.
    pub fn check(&self, now: UnixMillis, method: AuthMethod) -> Result<()> {
        let (credential, identity) = (&self.credential.row, &self.identity.row);
        let meant = match method {
            AuthMethod::Mtls { .. } | AuthMethod::Signature => {
                credential.kind == CredentialKind::Login && self.stands()
            }
            AuthMethod::Token { .. } => {
                credential.kind == CredentialKind::Token
                    && self.stands()
                    && self.token.as_ref().is_some_and(|token| self.is_restored(token))
            }
            AuthMethod::Handle => {
                credential.kind == CredentialKind::Lease
                    && self.through.as_ref().is_none_or(|token| self.is_restored(token))
            }
        };
        let elevated = self.under.iter().all(|under| under.is_in_force(now, self.restore_epoch()));
        let accepted = meant
            && elevated
            && self.session.as_ref().is_none_or(|session| session.stands())
            && credential.revocation_epoch == identity.revocation_epoch
            && identity.state == IdentityState::Active
            && credential.expires_at > now
            && identity.expires_at.is_none_or(|end| end > now);
        if accepted { Ok(()) } else { Err(refused()) }
    }

    /// Tells whether it is in the built-in group of administrators.
    #[must_use]
    pub fn is_administrator(&self) -> bool {
        self.groups.iter().any(is_administrators)
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
            owner_active: self.owner.is_active(now),
            owner_expires_at: self.owner.expires_at(),
            tier: row.tier,
            expires_at: row.expires_at,
            labels: &self.labels,
            groups,
            administrator: self.is_administrator(),
        }
    }

    /// The identity, as the object of what it does itself.
    #[must_use]
    pub fn own_facts(&self, now: UnixMillis) -> SubjectFacts {
        let row = &self.identity.row;
        SubjectFacts {
            id: Some(row.id),
            kind: row.kind,
            administrator: self.is_administrator(),
            registered_by: row.created_by.parse().ok(),
            has_certificate: true,
            owner_active: self.owner.is_active(now),
            owner_expires_at: self.owner.expires_at(),
        }
    }

    /// The grants for one action, as facts.
    #[must_use]
    pub fn grant_facts(&self, action: &str) -> Vec<GrantFacts<'_>> {
        self.grants(action).map(HeldGrant::facts).collect()
    }

    /// The grants for one action, its own and its groups'.
    pub fn grants(&self, action: &str) -> impl Iterator<Item = &HeldGrant> {
        let elevated = self.elevation.iter().flat_map(move |it| it.grants(action));
        let held = self.held.iter().filter_map(move |held| held.by_action.get(action)).flatten();
        held.chain(elevated)
    }

    /// Its grants and its groups', for whatever action.
    pub fn all_grants(&self) -> impl Iterator<Item = &HeldGrant> {
        let elevated = self.elevation.iter().flat_map(Elevated::all);
        self.held.iter().flat_map(|held| held.by_action.values()).flatten().chain(elevated)
    }

    /// Tells whether it is too large to be kept.
    pub(super) fn is_large(&self) -> bool {
        weight(&self.held) > WEIGHT
    }
}

/// What stands above a credential.
struct Above {
    token: Option<TokenDetail>,
    through: Option<TokenDetail>,
    proven: Vec<ProvenFactor>,
    under: Vec<MadeUnder>,
    ancestors: Vec<Versioned<CredentialRow>>,
    session: Option<Arc<Session>>,
}

impl Above {
    /// Reads what a token may do, what tokens and logins hang on, and what a lease was asked for
    /// with.
    async fn load(tx: &mut Tx, credential: &Versioned<CredentialRow>) -> Result<Self> {
        let Versioned { row, .. } = credential;
        let mut under = Vec::new();
        for id in [row.elevation, row.elevation_too].into_iter().flatten() {
            under.push(MadeUnder::load(tx, id, row.identity).await?);
        }
        let (proven, ancestors) = (Vec::new(), Vec::new());
        let mut above =
            Self { token: None, through: None, proven, under, ancestors, session: None };
        match row.kind {
            CredentialKind::Token => above.token = Some(TokenDetail::decode(&row.detail)?),
            CredentialKind::Login => {}
            CredentialKind::Lease => {
                if let Some(id) = row.parent {
                    let parent = tx.lookup::<CredentialRow>(&id).await?.ok_or_else(parentless)?;
                    let token = parent.row.kind == CredentialKind::Token;
                    let detail = token.then(|| TokenDetail::decode(&parent.row.detail));
                    above.through = detail.transpose()?;
                    let root = root_of(tx, &parent.row).await?;
                    above.session =
                        Session::below(tx, above.through.as_ref(), root.as_ref()).await?;
                }
                return Ok(above);
            }
            CredentialKind::Certificate | CredentialKind::Enrolment => return Ok(above),
        }
        above.proven = factors::load(tx, row).await?;
        let mut next = row.parent;
        while let Some(id) = next {
            let parent = tx.lookup::<CredentialRow>(&id).await?.ok_or_else(parentless)?;
            next = parent.row.parent;
            above.ancestors.push(parent);
            // A login is above the first token or below the last, and an enrolment above a login.
            if above.ancestors.len() > DEPTH.saturating_add(2) {
                return Err(Error::internal("a token is deeper than any can be"));
            }
        }
        let root = above.ancestors.last();
        above.session = Session::below(tx, above.token.as_ref(), root).await?;
        Ok(above)
    }
}

/// Reads what is above all that a credential hangs on; nothing where it hangs on nothing.
async fn root_of(tx: &mut Tx, row: &CredentialRow) -> Result<Option<Versioned<CredentialRow>>> {
    let (mut next, mut root) = (row.parent, None);
    for _ in 0..=DEPTH.saturating_add(2) {
        let Some(id) = next else { return Ok(root) };
        let above = tx.lookup::<CredentialRow>(&id).await?.ok_or_else(parentless)?;
        next = above.row.parent;
        root = Some(above);
    }
    Err(Error::internal("a token is deeper than any can be"))
}

fn parentless() -> Error {
    Error::internal("a credential without its parent")
}

fn is_administrators(group: &Versioned<GroupRow>) -> bool {
    group.row.name.as_str() == ADMINISTRATORS
}

/// Tells whether an identity is in force at a moment: neither contained nor over.
#[must_use]
pub fn is_active(row: &IdentityRow, now: UnixMillis) -> bool {
    row.state.stands() && row.expires_at.is_none_or(|end| end > now)
}

pub(super) fn refused() -> Error {
    Error::Unauthenticated(
        "the credential is not accepted: unknown, expired, revoked or of a suspended identity"
            .into(),
    )
}
