//! Renewing: the end moves, never past its maximum, and only while the right is still there.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::revoke::pool;
use super::{Found, Lease, find, missing, resource_of};
use crate::engines::database::Databases;
use crate::engines::database::limits::Limits;
use crate::engines::database::names::RoleName;
use crate::engines::database::postgres::PostgresTarget;
use crate::engines::database::target::{DatabaseTarget as _, TargetError};
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::Tx;
use crate::store::credentials::CredentialRow;
use crate::types::{CredentialId, CredentialState, ElevationId, RequestContext, UnixMillis};
use crate::vault::{Decision, EffectOperation, Note, Resource, Verb, View};

const WAITS: Duration = Duration::from_secs(10);

/// Moves a lease's end.
#[derive(Debug)]
pub struct RenewLease {
    /// What the database verbs share.
    pub databases: Databases,
    /// The lease.
    pub id: CredentialId,
    /// How long it lives from now, in seconds; 0 for the role's default.
    pub ttl_s: i64,
}

/// What renewing takes.
#[derive(Debug)]
pub struct Prepared {
    found: Found,
    role: RoleName,
    target: Arc<PostgresTarget>,
    used: Vec<KeyUse>,
    end: UnixMillis,
    elevations: [Option<ElevationId>; 2],
}

#[async_trait]
impl Verb for RenewLease {
    const ACTION: &'static str = "leases.renew";
    type Prepared = Prepared;
    type Output = Lease;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        resource_of(view, self.id).await
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Prepared> {
        let found = find(view, self.id).await?.ok_or_else(missing)?;
        let (row, now, subject) = (&found.lease.row, view.now(), view.subject()?);
        if row.identity != subject.identity.row.id {
            return Err(Error::Denied("a lease is renewed by its holder alone".into()));
        }
        let alive = row.state == CredentialState::Active
            && row.expires_at > now
            && row.revocation_epoch == subject.identity.row.revocation_epoch;
        if !alive {
            return Err(Error::precondition("the lease is over; ask for another credential"));
        }
        let limits = Limits::of_lease(view, row)?;
        let ttl_s = match self.ttl_s {
            0 => u64::from(found.detail.default_ttl_s),
            ttl_s => u64::try_from(ttl_s)
                .map_err(|_negative| Error::invalid("ttl_s must not be negative"))?,
        };
        let longest = row.max_expires_at.since(row.issued_at).as_secs();
        let most = decision.cap_ttl_s(longest);
        if self.ttl_s != 0 && ttl_s > most {
            return Err(Error::invalid(format!(
                "ttl_s is beyond the {most} seconds that this lease may be renewed for at once"
            )));
        }
        let end = now.plus(Duration::from_secs(ttl_s.min(most)))?;
        let last = row.issued_at.plus(Duration::from_secs(decision.cap_age_s(longest)))?;
        let mut under = decision.under();
        under.add(limits.elevated());
        let end = under.end().map_or(end, |first| first.min(end));
        // Renewing shortens nothing: revoking does.
        let end = limits.cap(end).min(last).max(row.expires_at);
        // What lives longer by an elevation ends with it.
        let held = [row.elevation, row.elevation_too];
        let elevations = if end > row.expires_at { under.ids(held)? } else { held };
        let (target, used) = pool(&self.databases, view, &found.detail).await?;
        let role = found.detail.role(view.vault_id())?;
        Ok(Prepared { found, role, target, used, end, elevations })
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        note.credential = Some(self.id);
        note.keys.extend(prepared.used.iter().cloned());
    }
}

#[async_trait]
impl EffectOperation for RenewLease {
    type Effect = ();

    /// Nothing is to be undone after a crash: a role that may log in for longer is ended when the
    /// lease ends, as the row says it.
    async fn intend(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        _: &Prepared,
        _: &Decision,
    ) -> Result<()> {
        Ok(())
    }

    async fn act(&self, _: &View, prepared: &Prepared) -> Result<()> {
        let extended = prepared.target.extend(&prepared.role, prepared.end);
        match tokio::time::timeout(WAITS, extended).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(TargetError::Gone)) => Err(Error::precondition(
                "the role is gone from the target database; ask for another credential",
            )),
            Ok(Err(error)) => Err(error.into()),
            Err(_elapsed) => Err(Error::unavailable("the target database did not answer in time")),
        }
    }

    async fn record(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        (): &(),
    ) -> Result<Lease> {
        let lease = &prepared.found.lease;
        let mut detail = prepared.found.detail.clone();
        detail.renewed(ctx.now);
        let [elevation, elevation_too] = prepared.elevations;
        let row = CredentialRow {
            expires_at: prepared.end,
            elevation,
            elevation_too,
            next_try: Some(prepared.end),
            detail: detail.encode()?,
            ..lease.row.clone()
        };
        let row = tx.update(lease.version, &row).await?.row;
        prepared.found.shown(row)
    }

    async fn abandon(&self, _: &RequestContext, _: &mut Tx, _: &Prepared) -> Result<()> {
        Ok(())
    }
}
