//! Enrols a machine: makes the token that it joins with, once, in a short time.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::detail::EnrolmentDetail;
use super::{Enrolment, resource_name, unknown};
use crate::engines::identities::subject_facts;
use crate::error::{Error, Result};
use crate::policy::{Cidr, SubjectFacts};
use crate::store::credentials::{self, CredentialRow};
use crate::store::identities::{self, IdentityRow};
use crate::store::lifecycles::{self, LifecycleRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    CredentialId, CredentialKind, CredentialState, Id, IdentityName, JoinToken, Kind,
    RequestContext, ResourceName, SecretBytes, TokenSecret, UnixMillis,
};
use crate::vault::{
    Answerable, Decision, Note, Operation, Resource, Verb, View, WRITES, handle_of, is_active,
};

/// How long a join token can be used where nobody says.
const USUAL: Duration = Duration::from_mins(10);
/// The longest that anybody may ask for.
const MOST: Duration = Duration::from_hours(24);
/// Networks that one names at most.
const NETWORKS: usize = 64;
/// Join tokens that an identity may have open.
const OPEN: i64 = 100;

/// Makes a join token for an identity.
#[derive(Debug, Clone)]
pub struct CreateEnrolment {
    /// Whose login it gives.
    pub name: IdentityName,
    /// How long it can be used; none for the usual time.
    pub ttl: Option<Duration>,
    /// Where it may be used from; anywhere when empty.
    pub sources: Vec<Cidr>,
}

/// An enrolment that is about to be stored, or was.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// What it is.
    pub enrolment: Enrolment,
    /// The join token.
    pub text: SecretBytes,
}

/// An identity, with what a decision about its enrolment stands on.
struct Holder {
    identity: Versioned<IdentityRow>,
    owner: Answerable,
    lifecycle: Versioned<LifecycleRow>,
    facts: SubjectFacts,
}

impl Holder {
    async fn load(tx: &mut Tx, name: &IdentityName, now: UnixMillis) -> Result<Option<Self>> {
        let Some(identity) = identities::identity_named(tx, name).await? else { return Ok(None) };
        let (facts, owner) = subject_facts(tx, &identity, now).await?;
        let lifecycle = lifecycles::of_kind(tx, identity.row.kind).await?;
        Ok(Some(Self { identity, owner, lifecycle, facts }))
    }

    fn resource(&self, name: ResourceName) -> Resource {
        let row = &self.identity.row;
        let mut resource = Resource::named(name).with_row(row.id.0, &self.identity);
        resource.rows.extend(self.owner.fence());
        resource.rows.push(self.lifecycle.fence());
        resource.owner = Some(row.owner);
        resource.identity = Some(self.facts);
        resource
    }
}

impl CreateEnrolment {
    async fn holder(&self, view: &View) -> Result<Option<Holder>> {
        let (name, now) = (self.name.clone(), view.now());
        view.read(move |tx| async move { Holder::load(tx, &name, now).await }.boxed()).await
    }

    fn check(&self, view: &View, row: &IdentityRow) -> Result<Duration> {
        if row.kind == Kind::Bootstrap {
            return Err(Error::precondition("the bootstrap identity gets no other certificate"));
        }
        if !is_active(row, view.now()) {
            return Err(Error::precondition("the identity is suspended, retired or over"));
        }
        if self.sources.len() > NETWORKS {
            return Err(Error::invalid(format!("a join token names at most {NETWORKS} networks")));
        }
        let span = self.ttl.unwrap_or(USUAL);
        if span > MOST {
            let most = MOST.as_secs();
            return Err(Error::invalid(format!("a join token lives {most} seconds at the most")));
        }
        Ok(span)
    }
}

#[async_trait]
impl Verb for CreateEnrolment {
    const ACTION: &'static str = "enrolments.create";
    type Prepared = Enrolled;
    type Output = Enrolled;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let name = resource_name(&self.name)?;
        Ok(vec![match self.holder(view).await? {
            Some(holder) => holder.resource(name),
            None => Resource::named(name),
        }])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Enrolled> {
        let holder = self.holder(view).await?.ok_or_else(unknown)?;
        let of = &holder.identity.row;
        let (span, now, asks) = (self.check(view, of)?, view.now(), view.subject()?);
        asks.require_room_below()?;
        let lives = &holder.lifecycle.row;
        let max_ttl_s = u64::try_from(lives.max_ttl_s).map_err(Error::internal)?;
        let max_age_s = u64::try_from(lives.max_age_s).map_err(Error::internal)?;
        let span = span.min(Duration::from_secs(max_ttl_s));
        // What a token asks for ends with it.
        let bond = asks.bond();
        let cap = |at: UnixMillis| bond.map_or(at, |bond| bond.expires_at.min(at));
        let expires_at = cap(now.plus(span)?);
        let (id, secret) = (CredentialId(view.new_id()?), TokenSecret::random(view.entropy())?);
        let handle = handle_of(&view.keyring().token_key()?, JoinToken::TYPE, id, &secret);
        let detail = EnrolmentDetail {
            sources: self.sources.clone(),
            restore_epoch: asks.restore_epoch(),
            created_by: view.actor(),
            joined: None,
            renewed: Vec::new(),
            shown_late: None,
            over: None,
        };
        let [elevation, elevation_too] = decision.elevations()?;
        let row = CredentialRow {
            id,
            kind: CredentialKind::Enrolment,
            identity: of.id,
            parent: asks.hook_of(of.id),
            elevation,
            elevation_too,
            handle: Some(handle.to_vec()),
            resource: resource_name(&of.name)?,
            state: CredentialState::Active,
            revocation_epoch: of.revocation_epoch,
            issued_at: now,
            expires_at,
            max_expires_at: cap(now.plus(span)?.plus(Duration::from_secs(max_age_s))?),
            next_try: None,
            tries: 0,
            trouble: String::new(),
            proofs: String::new(),
            detail: detail.encode()?,
        };
        let enrolment = Enrolment {
            row,
            detail,
            identity: of.name.clone(),
            void: false,
            created_by: asks.identity.row.name.to_string(),
        };
        Ok(Enrolled { enrolment, text: JoinToken::new(id, secret).text() })
    }

    fn note(&self, made: &Enrolled, note: &mut Note) {
        note.credential = Some(made.enrolment.row.id);
    }
}

#[async_trait]
impl Operation for CreateEnrolment {
    const NEEDS: Needs = WRITES;

    /// What it counts stays counted until it is durable.
    fn holds(&self, made: &Enrolled) -> Option<Id> {
        Some(made.enrolment.row.identity.0)
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        made: &Enrolled,
        _: &Decision,
    ) -> Result<Enrolled> {
        let row = &made.enrolment.row;
        let (kind, of) = (CredentialKind::Enrolment, row.identity);
        let open = credentials::unexpired(tx, kind, of, row.revocation_epoch, ctx.now).await?;
        if open.in_force >= OPEN {
            return Err(Error::Exhausted(
                format!("the identity has {OPEN} join tokens open, the most that it may have")
                    .into(),
            ));
        }
        tx.insert(row).await?;
        Ok(made.clone())
    }
}
