//! Makes an authority's next version: its key in the HSM, and its certificate. What is new is signed by
//! it; the one before is tainted, and what it signed is believed until it is retired.

use async_trait::async_trait;

use super::{AuthorityName, AuthorityStatus, resource};
use crate::audit::Field;
use crate::engines::pki::{AuthoritySlot, Deployment, Founder, signing_key};
use crate::engines::rotations::{NextVersion, Schedule, next, raced};
use crate::error::{Error, Result};
use crate::hsm::KeyKind;
use crate::keyring::KeyUse;
use crate::store::keys::{HsmKeyRow, KeyState};
use crate::store::rotations::{self, RotationRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{RequestContext, RotationState, Serial};
use crate::vault::{Decision, EffectOperation, GOVERNS, Note, Resource, Verb, View};

/// Versions that are not retired, at most.
const VERSIONS: usize = 4;

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
    /// Of its certificate.
    serial: Serial,
}

/// A key that was made, and its certificate.
#[derive(Debug)]
pub struct AuthorityMade {
    pinned: Vec<u8>,
    certificate: Vec<u8>,
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
        let asked = (self.expected, VERSIONS);
        let next = NextVersion::find(view, decision, self.name.kept(), asked).await?;
        Ok(AuthorityRotation { next, serial: view.serial().await? })
    }

    fn note(&self, it: &AuthorityRotation, note: &mut Note) {
        note.keys.push(it.used());
        let RotationRow { from_version, to_version, .. } = it.next.row;
        let detail = format!("{} CA {from_version} -> {to_version}", self.name);
        note.private.push((Field::Detail, detail));
    }
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
        let made = view.hsm().create_key(&it.next.label, KeyKind::EcdsaP256).await;
        let key = view.noted(&it.used(), made.map_err(Error::from))?;
        let authorities = self.authorities.current()?;
        let trust_domain = view.trust_domain().parse()?;
        let id = view.vault_id().to_string();
        // As the first one's, and the version behind it: two authorities never have one name.
        let short = id.get(id.len().saturating_sub(8)..).unwrap_or(&id);
        let named = format!("{short}v{}", it.next.row.to_version);
        let deployment =
            if view.is_dev() { Deployment::Development } else { Deployment::Production };
        let founder = Founder {
            hsm: view.hsm().as_ref(),
            vault: &named,
            deployment,
            trust_domain: &trust_domain,
            now: view.now(),
        };
        let authority = match self.name {
            AuthorityName::Issuing => {
                let root = &authorities.root;
                let used = signing_key(view, root)?;
                let signed = founder.issuing(&key, root, &it.serial).await;
                view.noted(&used, signed)?
            }
            AuthorityName::Login => founder.login(&key, &it.serial).await?,
        };
        let certificate = authority.certificate_der().to_vec();
        Ok(AuthorityMade { pinned: key.check, certificate })
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
        let key = HsmKeyRow {
            id: label.clone(),
            purpose: self.name.role().purpose(),
            version: row.to_version,
            state: KeyState::Active,
            pinned: made.pinned.clone(),
            certificate: Some(made.certificate.clone()),
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
