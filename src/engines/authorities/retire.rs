//! Retires a version of an authority: its key in the HSM is destroyed. No login that it signed opens
//! anything any more; who believes a certificate by the root above it does so to its end.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;

use super::{AuthorityName, AuthorityStatus, issued, resource, valid};
use crate::audit::Field;
use crate::engines::ceremonies::{Solemn, Term};
use crate::engines::rotations::{Versions, find, next};
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::keys::{HsmKeyRow, KeyState};
use crate::store::rotations::RotationRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{CredentialKind, RequestContext, RotationState, UnixMillis};
use crate::vault::{Decision, EffectOperation, GOVERNS, Note, Resource, Verb, View};

/// Retires a version of an authority.
#[derive(Debug, Clone, Copy)]
pub struct RetireAuthority {
    /// Which authority.
    pub name: AuthorityName,
    /// Which version.
    pub version: i64,
    /// Whether what it signed may be valid still.
    pub force: bool,
}

/// A version that is retired.
#[derive(Debug)]
pub struct RetiringAuthority {
    key: Versioned<HsmKeyRow>,
    rotation: Versioned<RotationRow>,
    node: String,
    /// How much of what it signed is valid.
    left: i64,
}

impl RetiringAuthority {
    fn used(&self) -> KeyUse {
        let HsmKeyRow { id, version, .. } = &self.key.row;
        KeyUse { key: id.clone(), version: *version, purpose: "destroy" }
    }

    async fn find(tx: &mut Tx, asked: RetireAuthority, now: UnixMillis) -> Result<Self> {
        let found = Versions::read(tx, asked.name.kept()).await?;
        let key = found
            .numbered(asked.version)
            .cloned()
            .ok_or_else(|| Error::not_found("the authority has no version of that number"))?;
        match key.row.state {
            KeyState::Retired => {}
            KeyState::Active => {
                return Err(Error::precondition("it is the current version: rotate it first"));
            }
            KeyState::Destroyed => return Err(Error::precondition("it is retired already")),
        }
        let missing = || Error::internal("an old authority that nothing replaced");
        let rotation = found.replaced(asked.version).cloned().ok_or_else(missing)?;
        // It is tainted: this only ever becomes less.
        let (left, until) = valid(tx, asked.name, &found, &key.row, now).await?;
        if left > 0 && !asked.force {
            return Err(Error::precondition(format!(
                "{left} of what it signed are valid, the last until {until}; wait for them, replace \
                 them, or force it: logins among them open nothing then, and certificates have no \
                 revocation list any more"
            )));
        }
        Ok(Self { key, rotation, node: String::new(), left })
    }
}

impl RetireAuthority {
    /// Refuses whoever asks by a login that this would end: an administrator at least can log in after
    /// it.
    fn require_other_login(&self, view: &View, key: &HsmKeyRow) -> Result<()> {
        let own = &view.subject()?.credential.row;
        if self.name != AuthorityName::Login || own.kind != CredentialKind::Login {
            return Ok(());
        }
        let authority = key.certificate.as_deref().unwrap_or_default();
        let authority = X509Certificate::from_der(authority).map_err(Error::internal)?.1;
        if issued(&authority, &own.detail)? {
            return Err(Error::precondition(
                "your own login is by that version and would open nothing any more: renew it first",
            ));
        }
        Ok(())
    }
}

#[async_trait]
impl Verb for RetireAuthority {
    const ACTION: &'static str = "authorities.retire";
    type Prepared = RetiringAuthority;
    type Output = AuthorityStatus;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource(view, self.name).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<RetiringAuthority> {
        let (asked, now, node) = (*self, view.now(), view.node().to_owned());
        let read = view.read(move |tx| RetiringAuthority::find(tx, asked, now).boxed());
        let it = read.await?;
        self.require_other_login(view, &it.key.row)?;
        Ok(RetiringAuthority { node, ..it })
    }

    fn note(&self, it: &RetiringAuthority, note: &mut Note) {
        note.keys.push(it.used());
        let forced =
            if it.left > 0 { format!(", forced, {} were valid", it.left) } else { String::new() };
        let detail = format!("{} CA {}{forced}", self.name, it.key.row.version);
        note.private.push((Field::Detail, detail));
    }
}

impl Solemn for RetireAuthority {
    fn terms(&self) -> Vec<Term> {
        let forced = if self.force { "yes" } else { "no" };
        vec![Term::new("version", &self.version.to_string()), Term::new("forced", forced)]
    }
}

#[async_trait]
impl EffectOperation for RetireAuthority {
    type Effect = ();
    const NEEDS: Needs = GOVERNS;

    async fn intend(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &RetiringAuthority,
        _: &Decision,
    ) -> Result<()> {
        // Every node lets go of it.
        tx.bump_authority()?;
        let destroyed = HsmKeyRow { state: KeyState::Destroyed, ..it.key.row.clone() };
        tx.change(&it.key, &destroyed).await?;
        let node = it.node.clone();
        let retiring = RotationRow { node, ..next(ctx, &it.rotation.row, RotationState::Retiring) };
        tx.change(&it.rotation, &retiring).await?;
        Ok(())
    }

    async fn act(&self, view: &View, it: &RetiringAuthority) -> Result<()> {
        let destroyed = view.hsm().destroy_key(&it.key.row.id).await.map_err(Error::from);
        view.noted(&it.used(), destroyed)
    }

    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &RetiringAuthority,
        (): &(),
    ) -> Result<AuthorityStatus> {
        let found = find(tx, &it.rotation.row.id, &[RotationState::Retiring]).await?;
        tx.change(&found, &next(ctx, &found.row, RotationState::Retired)).await?;
        AuthorityStatus::read(tx, self.name, ctx.now).await
    }

    /// The row says that the key is to be destroyed: a worker ends it.
    async fn abandon(&self, _: &RequestContext, _: &mut Tx, _: &RetiringAuthority) -> Result<()> {
        Ok(())
    }
}
