//! Makes an authority's next version: its key in the HSM, and its certificate. What is new is signed by
//! it; the one before is tainted, and what it signed is believed until it is retired.
//!
//! A root that is new signs every issuing CA anew, and the one before vouches for it: what is issued from
//! then on is believed by whoever trusts either root alone.

use std::sync::Arc;

use async_trait::async_trait;

use super::{AuthorityName, AuthorityStatus, resource};
use crate::audit::Field;
use crate::engines::pki::{
    Authorities, Authority, AuthoritySlot, Deployment, Founder, Role, require_current, signing_key,
};
use crate::engines::rotations::{NextVersion, Schedule, Versions, next, raced};
use crate::error::{Error, Result};
use crate::hsm::KeyInfo;
use crate::keyring::KeyUse;
use crate::store::keys::{HsmKeyRow, KeyState};
use crate::store::rotations::{self, RotationRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{RequestContext, RotationState};
use crate::vault::{Decision, EffectOperation, GOVERNS, Note, Resource, Verb, View};

/// Makes an authority's next version.
#[derive(Debug, Clone)]
pub struct RotateAuthority {
    /// Which.
    pub name: AuthorityName,
    /// The current version, as the caller knows it; 0 for whatever it is.
    pub expected: i64,
    /// Where the authorities are.
    pub authorities: AuthoritySlot,
}

/// What is to be written.
#[derive(Debug)]
pub struct AuthorityRotation {
    next: NextVersion,
    /// What signs, and what is signed.
    authorities: Arc<Authorities>,
    /// What a new root signs anew: the issuing CAs that are not retired.
    below: Vec<Versioned<HsmKeyRow>>,
}

/// A key that was made, and its certificate.
#[derive(Debug)]
pub struct AuthorityMade {
    pinned: Vec<u8>,
    certificate: Vec<u8>,
    /// Of a root: the certificate by which the one before vouches for it.
    link: Option<Vec<u8>>,
    /// Of a root: the certificates of the issuing CAs, in their order.
    below: Vec<Vec<u8>>,
}

impl AuthorityMade {
    fn of(key: &KeyInfo, authority: &Authority) -> Self {
        let certificate = authority.certificate_der().to_vec();
        Self { pinned: key.check.clone(), certificate, link: None, below: Vec::new() }
    }
}

impl AuthorityRotation {
    fn used(&self) -> KeyUse {
        let NextVersion { label, row, .. } = &self.next;
        KeyUse { key: label.clone(), version: row.to_version, purpose: "create" }
    }
}

#[async_trait]
impl Verb for RotateAuthority {
    const ACTION: &'static str = "authorities.rotate";
    type Prepared = AuthorityRotation;
    type Output = AuthorityStatus;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, self.name).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<AuthorityRotation> {
        let asked = (self.expected, self.name.versions());
        let next = NextVersion::find(view, decision, self.name.kept(), asked).await?;
        let authorities = self.authorities.current()?;
        // A root signs what is below it: it has to be the store's, and be so still at the commit.
        if self.name != AuthorityName::Login {
            require_current(view, &authorities.root).await?;
        }
        let below = match self.name {
            AuthorityName::Root => below(view, &authorities).await?,
            AuthorityName::Issuing | AuthorityName::Login => Vec::new(),
        };
        Ok(AuthorityRotation { next, authorities, below })
    }

    fn note(&self, it: &AuthorityRotation, note: &mut Note) {
        note.keys.push(it.used());
        let RotationRow { from_version, to_version, .. } = it.next.row;
        let detail = format!("{} CA {from_version} -> {to_version}", self.name);
        note.private.push((Field::Detail, detail));
    }
}

/// Finds the issuing CAs that are not retired, which are what this node knows. Whoever changes one of
/// them meanwhile takes its version from under the commit.
async fn below(view: &View, authorities: &Authorities) -> Result<Vec<Versioned<HsmKeyRow>>> {
    let mut keys = Versions::of(view, AuthorityName::Issuing.kept()).await?.keys;
    keys.retain(|key| key.row.state != KeyState::Destroyed);
    let is_known = |key: &Versioned<HsmKeyRow>| {
        let certificate = key.row.certificate.as_deref();
        authorities.of(Role::Issuing).any(|one| Some(one.certificate_der()) == certificate)
    };
    if keys.iter().all(is_known) {
        return Ok(keys);
    }
    Err(Error::Conflict("an issuing CA was rotated a moment ago; retry".into()))
}

#[async_trait]
impl EffectOperation for RotateAuthority {
    type Effect = AuthorityMade;
    const NEEDS: Needs = GOVERNS;

    async fn intend(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        it: &AuthorityRotation,
        _: &Decision,
    ) -> Result<()> {
        tx.insert(&it.next.row).await.map_err(raced)?;
        Ok(())
    }

    async fn act(&self, view: &View, it: &AuthorityRotation) -> Result<AuthorityMade> {
        let made = view.hsm().create_key(&it.next.label, self.name.key_kind()).await;
        let key = view.noted(&it.used(), made.map_err(Error::from))?;
        let trust_domain = view.trust_domain().parse()?;
        let id = view.vault_id().to_string();
        let short = id.get(id.len().saturating_sub(8)..).unwrap_or(&id);
        let deployment =
            if view.is_dev() { Deployment::Development } else { Deployment::Production };
        let founder = Founder {
            hsm: view.hsm().as_ref(),
            vault: short,
            deployment,
            trust_domain: &trust_domain,
            now: view.now(),
        };
        let serial = view.serial().await?;
        match self.name {
            AuthorityName::Root => {
                let root = founder.root(&key, &serial).await?;
                next_root(view, founder, it, (&key, &root)).await
            }
            AuthorityName::Issuing => {
                let root = &it.authorities.root;
                let used = signing_key(view, root)?;
                let signed = founder.issuing(&key, root, &serial).await;
                Ok(AuthorityMade::of(&key, &view.noted(&used, signed)?))
            }
            AuthorityName::Login => {
                Ok(AuthorityMade::of(&key, &founder.login(&key, &serial).await?))
            }
        }
    }

    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &AuthorityRotation,
        made: &AuthorityMade,
    ) -> Result<AuthorityStatus> {
        // Every node looks at the authorities anew, and signs again what it was about to commit.
        tx.bump_authority()?;
        let NextVersion { was, row, label } = &it.next;
        let span = (was.row.created_at, ctx.now);
        let (total, _) = rotations::valid_of(tx, self.name.signs(), span, ctx.now).await?;
        let overlap = RotationRow { total, ..next(ctx, row, RotationState::Moving) };
        tx.change(&Versioned::first(row.clone()), &overlap).await?;
        let tainted = HsmKeyRow { state: KeyState::Retired, ..was.row.clone() };
        tx.change(was, &tainted).await?;
        for (issuing, certificate) in it.below.iter().zip(&made.below) {
            let certificate = Some(certificate.clone());
            tx.change(issuing, &HsmKeyRow { certificate, ..issuing.row.clone() }).await?;
        }
        let key = HsmKeyRow {
            id: label.clone(),
            purpose: self.name.role().purpose(),
            version: row.to_version,
            state: KeyState::Active,
            pinned: made.pinned.clone(),
            certificate: Some(made.certificate.clone()),
            link: made.link.clone(),
            created_at: ctx.now,
        };
        tx.insert(&key).await.map_err(raced)?;
        Schedule::rotated(ctx, tx, self.name.subject()).await?;
        AuthorityStatus::read(tx, self.name, ctx.now).await
    }

    /// The row says what to look for in the HSM: a worker ends it.
    async fn abandon(&self, _: &RequestContext, _: &mut Tx, _: &AuthorityRotation) -> Result<()> {
        Ok(())
    }
}

/// Has the root before a new one vouch for it, and the new one sign what is below.
async fn next_root(
    view: &View,
    founder: Founder<'_>,
    it: &AuthorityRotation,
    (key, root): (&KeyInfo, &Authority),
) -> Result<AuthorityMade> {
    let before = &it.authorities.root;
    // One whose time is over is believed by nobody: there is nothing to vouch for.
    let link = if before.not_after() > view.now() {
        let used = signing_key(view, before)?;
        let signed = founder.link(key, before, &view.serial().await?).await;
        Some(view.noted(&used, signed)?.certificate_der().to_vec())
    } else {
        None
    };
    let used = signing_key(view, root)?;
    let mut below = Vec::with_capacity(it.below.len());
    for row in &it.below {
        let issuing = it.authorities.of(Role::Issuing).find(|one| one.key_label() == row.row.id);
        let issuing = issuing.ok_or_else(|| Error::internal("an issuing CA that is not known"))?;
        let signed = founder.again(issuing, root, &view.serial().await?).await;
        below.push(view.noted(&used, signed)?.certificate_der().to_vec());
    }
    Ok(AuthorityMade { link, below, ..AuthorityMade::of(key, root) })
}
