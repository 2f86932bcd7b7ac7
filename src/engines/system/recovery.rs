//! Recovers an administrator whose key is lost: asked for on the server's own machine by who has the
//! PIN of the HSM, told to every administrator for an hour, and then a login for a new key.
//!
//! One verb asks, looks and takes: the row says which of these it comes to. That the PIN was proven
//! is for the caller to know.

mod cancel;
mod found;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

pub use cancel::CancelRecovery;

use self::found::Found;
use crate::audit::Field;
use crate::crypto::{hex, sha256};
use crate::engines::identities::reinstate;
use crate::engines::pki::{
    Authorities, AuthoritySlot, Holder, LoginTtl, Request, Signed, SpiffeId, Template, pem,
};
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::credentials::CredentialRow;
use crate::store::identities::IdentityRow;
use crate::store::recovery::RecoveryRow;
use crate::store::{Needs, Tx, Versioned, logins};
use crate::types::{CredentialKind, IdentityName, RecoveryState, RequestContext, ResourceName};
use crate::vault::{
    Decision, GOVERNS, Note, Operation, READS, RECOVERY_WAIT, Recovery, Resource, Verb, View,
};

/// Recovers an administrator: begins it, tells when it is due, or yields the login.
#[derive(Debug)]
pub struct RecoverAdministrator {
    /// Where the authorities are.
    pub authorities: AuthoritySlot,
    /// How long the login may live.
    pub limits: LoginTtl,
    /// Who it is.
    pub name: IdentityName,
    /// The request for the new login.
    pub request: Request,
    /// How long this node has served without a break: administrators could look and cancel.
    pub served: Duration,
    /// The key by which the PIN was proven.
    pub proven: KeyUse,
}

/// A recovery, as whoever asked for it is told.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The recovery, with what has become of it.
    pub recovery: Recovery,
    /// The login, once it took effect.
    pub login: Option<RecoveredLogin>,
}

/// The login that a recovery yielded.
#[derive(Debug, Clone)]
pub struct RecoveredLogin {
    /// Its row.
    pub row: CredentialRow,
    /// The login CA's certificate, PEM.
    pub chain_pem: String,
}

impl RecoveredLogin {
    /// Writes the certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem(&self.row.detail)
    }
}

/// What a call comes to.
#[derive(Debug)]
pub struct Prepared {
    recovery: Recovery,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// It is asked for: this takes the place of the row.
    Begins(Versioned<RecoveryRow>),
    /// It is not due.
    Waits,
    /// It takes effect.
    Takes(Box<Taking>),
    /// It took effect before.
    Took(Box<CredentialRow>, Arc<Authorities>),
}

#[derive(Debug)]
struct Taking {
    recovery: Versioned<RecoveryRow>,
    identity: Versioned<IdentityRow>,
    signed: Signed,
    authorities: Arc<Authorities>,
}

impl RecoverAdministrator {
    async fn find(&self, view: &View) -> Result<Option<Found>> {
        let (name, key, vault) = (self.name.clone(), self.key_hash(), view.vault_id());
        view.read(move |tx| async move { Found::load(tx, &name, &key, vault).await }.boxed()).await
    }

    fn key_hash(&self) -> [u8; 32] {
        sha256(self.request.key().spki_der())
    }

    fn template(&self, view: &View, found: &Found) -> Result<Template> {
        let row = &found.identity.row;
        let spiffe = SpiffeId {
            trust_domain: view.trust_domain().parse()?,
            kind: row.kind,
            name: row.name.clone(),
        };
        let ttl = self.limits.usual.min(self.limits.most_of(&found.lifecycle.row, row)?);
        let lives = &found.lifecycle.row;
        let left = LoginTtl::left_of_key(found.key_since, lives, row, view.now())?;
        let ttl = ttl.min(left);
        let end = row.expires_at.filter(|end| *end > view.now());
        let ttl = end.map_or(ttl, |end| ttl.min(end.since(view.now())));
        Template::login(&self.request, &spiffe, Some(ttl))
    }

    fn begin(&self, view: &View, found: Found) -> Result<Prepared> {
        let Versioned { row, version } = found.recovery;
        let row = RecoveryRow {
            id: row.id,
            state: RecoveryState::Pending,
            recovery: Some(view.new_id()?),
            name: Some(self.name.clone()),
            key_hash: self.key_hash().to_vec(),
            requested_at: view.now(),
            revocation_epoch: found.identity.row.revocation_epoch,
            restore_epoch: found.vault.row.restore_epoch,
            credential: None,
            changed_at: view.now(),
            changed_by: view.actor(),
        };
        let nobody = || Error::internal("a recovery of nobody");
        let recovery = Recovery::of(&row)?.ok_or_else(nobody)?;
        Ok(Prepared { recovery, step: Step::Begins(Versioned { row, version }) })
    }

    /// Has the login signed. What is signed and does not become true is a certificate that no row
    /// allows.
    async fn take(&self, view: &View, found: Found, recovery: Recovery) -> Result<Prepared> {
        let authorities = self.authorities.current()?;
        let template = self.template(view, &found)?;
        let mut identity = found.identity.row.clone();
        identity.revocation_epoch = identity.revocation_epoch.saturating_add(1);
        let resource = self.resource()?;
        let holder = Holder {
            kind: CredentialKind::Login,
            identity: &identity,
            parent: None,
            elevations: [None, None],
            resource: &resource,
        };
        let signed = holder.sign(view, &authorities.login, &template).await?;
        let row = RecoveryRow {
            state: RecoveryState::Done,
            credential: Some(signed.row.id),
            changed_at: view.now(),
            changed_by: view.actor(),
            ..found.recovery.row
        };
        let recovery = Recovery {
            state: row.state,
            credential: row.credential,
            changed_at: row.changed_at,
            ..recovery
        };
        let taking = Taking {
            recovery: Versioned { row, version: found.recovery.version },
            identity: found.identity,
            signed,
            authorities,
        };
        Ok(Prepared { recovery, step: Step::Takes(Box::new(taking)) })
    }

    fn resource(&self) -> Result<ResourceName> {
        ResourceName::join("identities", &[self.name.as_str()])
    }
}

#[async_trait]
impl Verb for RecoverAdministrator {
    const ACTION: &'static str = "system.recover-admin";
    type Prepared = Prepared;
    type Output = Recovered;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let resource = Resource::named(self.resource()?);
        let Some(found) = self.find(view).await? else { return Ok(vec![resource]) };
        let mut resource = resource.with_row(found.identity.row.id.0, &found.identity);
        resource.owner = Some(found.identity.row.owner);
        let rows = [found.recovery.fence(), found.lifecycle.fence(), found.vault.fence()];
        resource.rows.extend(rows);
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        view.noted(&self.proven, Ok(()))?;
        let unknown = || Error::not_found("there is no such identity");
        let found = self.find(view).await?.ok_or_else(unknown)?;
        found.check()?;
        // What could not be signed in an hour is refused now.
        self.template(view, &found)?;
        let now = view.now();
        let Some(mut same) = found.same(&self.key_hash())? else { return self.begin(view, found) };
        if let Some(login) = found.yielded(&same, now) {
            let step = Step::Took(Box::new(login.clone()), self.authorities.current()?);
            return Ok(Prepared { recovery: same, step });
        }
        if !found.waits(&same, now) {
            return self.begin(view, found);
        }
        same.due_at = same.due_at.max(now.plus(RECOVERY_WAIT.saturating_sub(self.served))?);
        if same.due_at > now {
            return Ok(Prepared { recovery: same, step: Step::Waits });
        }
        self.take(view, found, same).await
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        note.keys.push(self.proven.clone());
        let recovery = &prepared.recovery;
        let said = match &prepared.step {
            Step::Begins(_) => format!("asked for, due at {}", recovery.due_at),
            Step::Waits => format!("looked at, due at {}", recovery.due_at),
            Step::Takes(taking) => {
                note.keys.push(taking.signed.key.clone());
                note.credential = Some(taking.signed.row.id);
                "takes effect".to_owned()
            }
            Step::Took(login, _) => {
                note.credential = Some(login.id);
                "fetched again".to_owned()
            }
        };
        let key = hex(&recovery.key_hash);
        note.private.push((Field::Detail, format!("recovery {} {said}; key {key}", recovery.id)));
    }
}

#[async_trait]
impl Operation for RecoverAdministrator {
    const NEEDS: Needs = GOVERNS;
    const GOES_ON: bool = true;

    fn needs(&self, prepared: &Prepared) -> Needs {
        match prepared.step {
            Step::Begins(_) | Step::Takes(_) => GOVERNS,
            Step::Waits | Step::Took(..) => READS,
        }
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        _: &Decision,
    ) -> Result<Recovered> {
        let login = match &prepared.step {
            Step::Begins(Versioned { row, version }) => {
                tx.update(*version, row).await?;
                None
            }
            Step::Waits => None,
            Step::Takes(taking) => {
                let Taking { recovery, identity, signed, authorities } = taking.as_ref();
                tx.update(recovery.version, &recovery.row).await?;
                let back = reinstate(ctx, tx, identity.clone()).await?;
                if back.row.revocation_epoch != signed.row.revocation_epoch {
                    return Err(Error::internal("a login of another revocation epoch"));
                }
                tx.insert(&signed.row).await?;
                let (holder, now) = (signed.row.identity, signed.row.issued_at);
                logins::note_key(tx, holder, &self.key_hash(), now).await?;
                Some(yielded(signed.row.clone(), authorities))
            }
            Step::Took(login, authorities) => Some(yielded(login.as_ref().clone(), authorities)),
        };
        Ok(Recovered { recovery: prepared.recovery.clone(), login })
    }
}

fn yielded(row: CredentialRow, authorities: &Authorities) -> RecoveredLogin {
    RecoveredLogin { row, chain_pem: authorities.login.pem() }
}
