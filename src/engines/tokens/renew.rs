//! Renewing: the end moves, never past its maximum nor past the end of the token above.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{Found, Token, load, meant, missing, resource_of};
use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    CredentialId, CredentialKind, CredentialState, ElevationId, RequestContext, UnixMillis,
};
use crate::vault::{Decision, Note, Operation, Resource, Verb, View, WRITES_ONE};

/// Moves a token's end.
#[derive(Debug, Clone, Copy)]
pub struct RenewToken {
    /// Its accessor; none for the one that asks.
    pub accessor: Option<CredentialId>,
    /// How long it lives from now; none for as long as it was made for.
    pub ttl: Option<Duration>,
}

/// A token and its new end.
#[derive(Debug)]
pub struct Prepared {
    found: Found,
    end: UnixMillis,
    elevations: [Option<ElevationId>; 2],
    restore_epoch: i64,
}

#[async_trait]
impl Verb for RenewToken {
    const ACTION: &'static str = "tokens.renew";
    const SPENDS: bool = false;
    type Prepared = Prepared;
    type Output = Token;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        resource_of(view, self.accessor).await
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Prepared> {
        let (id, now, subject) = (meant(view, self.accessor)?, view.now(), view.subject()?);
        let read = view.read(move |tx| async move { with_parent(tx, id).await }.boxed());
        let (found, parent) = read.await?.ok_or_else(missing)?;
        let (row, holder) = (&found.token.row, &subject.identity.row);
        if row.identity != holder.id {
            return Err(Error::Denied("a token is renewed by its holder alone".into()));
        }
        let alive = row.state == CredentialState::Active
            && row.expires_at > now
            && row.revocation_epoch == holder.revocation_epoch
            && found.detail.restore_epoch == subject.restore_epoch();
        if !alive {
            return Err(Error::precondition("the token is over; ask for another"));
        }
        if subject.lifecycle.row.single_use && found.detail.uses_left.is_none() {
            return Err(Error::precondition(format!(
                "each token of a {} can be used once alone: ask for another",
                holder.kind
            )));
        }
        let made_for = Duration::from_secs(found.detail.ttl_s);
        let ttl = self.ttl.unwrap_or(made_for);
        // A session lives as long at a time as the rule says that gave it.
        let ttl = if found.detail.session.is_some() { ttl.min(made_for) } else { ttl };
        let ttl = Duration::from_secs(decision.cap_ttl_s(ttl.as_secs()));
        let longest = row.max_expires_at.since(row.issued_at).as_secs();
        let last = row.issued_at.plus(Duration::from_secs(decision.cap_age_s(longest)))?;
        let (under, held) = (decision.under(), [row.elevation, row.elevation_too]);
        let caps = [Some(last), holder.expires_at, parent.map(|up| up.row.expires_at), under.end()];
        let end = caps.into_iter().flatten().fold(now.plus(ttl)?, UnixMillis::min);
        // Renewing shortens nothing: revoking does.
        let end = end.max(row.expires_at);
        // What lives longer by a credential that ends with an elevation ends with it as well.
        let elevations = if end > row.expires_at { under.ids(held)? } else { held };
        Ok(Prepared { found, end, elevations, restore_epoch: subject.restore_epoch() })
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        note.credential = Some(prepared.found.token.row.id);
    }
}

/// A token and the token above it, if it is a child.
async fn with_parent(
    tx: &mut Tx,
    id: CredentialId,
) -> Result<Option<(Found, Option<Versioned<CredentialRow>>)>> {
    let Some(found) = load(tx, id).await? else { return Ok(None) };
    let parent = match found.token.row.parent {
        Some(parent) => tx.lookup::<CredentialRow>(&parent).await?,
        None => None,
    };
    let bonds = match &parent {
        Some(parent) => bonds(tx, &parent.row).await?,
        None => false,
    };
    Ok(Some((found, parent.filter(|_| bonds))))
}

/// Tells whether what hangs on a credential lasts no longer: on a token, or on a login that hangs on
/// one. The end of another login ends nothing, also of one that an enrolment gave.
async fn bonds(tx: &mut Tx, row: &CredentialRow) -> Result<bool> {
    let Some(above) = row.parent.filter(|_| row.kind != CredentialKind::Token) else {
        return Ok(row.kind == CredentialKind::Token);
    };
    let above = tx.lookup::<CredentialRow>(&above).await?;
    let free = |row: &CredentialRow| row.kind == CredentialKind::Enrolment && row.parent.is_none();
    Ok(!above.is_some_and(|above| free(&above.row)))
}

#[async_trait]
impl Operation for RenewToken {
    const NEEDS: Needs = WRITES_ONE;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        _: &Decision,
    ) -> Result<Token> {
        let token = &prepared.found.token;
        let [elevation, elevation_too] = prepared.elevations;
        let expires_at = prepared.end;
        let row = CredentialRow { elevation, elevation_too, expires_at, ..token.row.clone() };
        let row = tx.update(token.version, &row).await?.row;
        prepared.found.shown(row, prepared.restore_epoch)
    }
}
