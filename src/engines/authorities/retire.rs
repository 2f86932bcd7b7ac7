//! Retires a version of an authority: its key in the HSM is destroyed. No login that it signed opens
//! anything any more; who believes a certificate by the root above it does so to its end. A root that is
//! retired vouches for none any more in the chains that are given out from then on.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;

use super::{AuthorityName, AuthorityStatus, issued, resource, valid};
use crate::audit::Field;
use crate::engines::ceremonies::{Solemn, Term};
use crate::engines::rotations::{Retiring, Versions};
use crate::error::{Error, Result};
use crate::store::keys::HsmKeyRow;
use crate::store::{Needs, Tx};
use crate::types::{CredentialKind, RequestContext};
use crate::vault::{Decision, EffectOperation, GOVERNS, Note, Resource, Verb, View};

/// Retires a version of an authority.
#[derive(Debug, Clone, Copy)]
pub struct RetireAuthority {
    /// Which authority.
    pub name: AuthorityName,
    /// Which version.
    pub version: i64,
    /// Whether what hangs on it may be valid still.
    pub force: bool,
}

/// A version that is retired.
#[derive(Debug)]
pub struct RetiringAuthority {
    version: Retiring,
    /// How much of what hangs on it alone is valid.
    left: i64,
}

impl AuthorityName {
    /// What becomes of what hangs on a version that is retired.
    const fn lost(self) -> &'static str {
        match self {
            Self::Root => {
                "who trusts the new root alone believes them by the chain of `pki ca` only"
            }
            Self::Issuing => "they have no revocation list any more",
            Self::Login => "they open nothing any more",
        }
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
        let read = view.read(move |tx| {
            async move {
                let found = Versions::read(tx, asked.name.kept()).await?;
                let version = Retiring::of(&found, asked.version, node)?;
                // It is tainted: this only ever becomes less.
                let hangs = valid(tx, asked.name, &found, &version.key.row, now).await?;
                Ok((version, hangs))
            }
            .boxed()
        });
        let (version, (left, until)) = read.await?;
        if left > 0 && !self.force {
            return Err(Error::precondition(format!(
                "{left} of what hangs on it are valid, the last until {until}; wait for them, replace \
                 them, or force it: {}",
                self.name.lost()
            )));
        }
        self.require_other_login(view, &version.key.row)?;
        Ok(RetiringAuthority { version, left })
    }

    fn note(&self, it: &RetiringAuthority, note: &mut Note) {
        note.keys.push(it.version.used());
        let forced =
            if it.left > 0 { format!(", forced, {} were valid", it.left) } else { String::new() };
        let detail = format!("{} CA {}{forced}", self.name, it.version.key.row.version);
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
        it.version.begin(ctx, tx).await
    }

    async fn act(&self, view: &View, it: &RetiringAuthority) -> Result<()> {
        it.version.destroy(view).await
    }

    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &RetiringAuthority,
        (): &(),
    ) -> Result<AuthorityStatus> {
        it.version.end(ctx, tx).await?;
        AuthorityStatus::read(tx, self.name, ctx.now).await
    }

    /// The row says that the key is to be destroyed: a worker ends it.
    async fn abandon(&self, _: &RequestContext, _: &mut Tx, _: &RetiringAuthority) -> Result<()> {
        Ok(())
    }
}
