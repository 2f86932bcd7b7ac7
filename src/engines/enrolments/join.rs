//! Trades a join token and a request for the first certificate of an enrolment.
//!
//! Whoever shows a token is a stranger until it is proven: what is refused before that is not decided
//! on and has no entry. The token is used up in the commit that makes the certificate.

use async_trait::async_trait;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use futures_util::FutureExt as _;

use super::detail::{EnrolmentDetail, Step};
use super::lineage::{Asks, Came, Does, Lineage, again, key_of, lock, moved, used};
use super::resource_name;
use crate::crypto::hex;
use crate::engines::identities::activate;
use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::{Needs, Tx};
use crate::types::{
    CredentialId, CredentialKind, CredentialState, Id, IdentityState, JoinToken, Kind,
    RequestContext,
};
use crate::vault::{
    CONTAINS, Decision, GOVERNS, Note, Operation, READS, Resource, Verb, View, WRITES, handle_of,
    is_active,
};

/// How often the record tells that a used token was shown after its time, in milliseconds.
const TOLD_EACH_MS: i64 = 60_000;

/// Joins by a token.
#[derive(Debug, Clone)]
pub struct Join {
    /// The token.
    pub token: JoinToken,
    /// What is asked for.
    pub asks: Asks,
}

/// What is about to come of it.
#[derive(Debug)]
pub struct Prepared {
    does: Does,
    /// Whose it is.
    identity: Id,
    /// Whether nothing was issued to the identity before.
    activates: bool,
}

/// The one sentence of every refusal: it tells neither what exists nor what was wrong.
#[must_use]
pub fn not_accepted() -> Error {
    Error::Unauthenticated(
        "the join token is not accepted: unknown, over, revoked, or not from here; ask for another"
            .into(),
    )
}

impl Join {
    /// Finds the enrolment of the token, where the token is its.
    async fn find(&self, view: &View) -> Result<Lineage> {
        let (id, key) = (self.token.id(), key_of(&self.asks.request));
        let handle = {
            let key = view.keyring().token_key()?;
            handle_of(&key, JoinToken::TYPE, id, self.token.secret())
        };
        let vault = view.vault_id();
        let read = view.read(move |tx| {
            async move {
                let found = tx.lookup::<CredentialRow>(&id).await?;
                match found.filter(|found| proves(&found.row, &handle)) {
                    Some(found) => Lineage::load(tx, found, &key, vault).await.map(Some),
                    None => Ok(None),
                }
            }
            .boxed()
        });
        read.await?.ok_or_else(not_accepted)
    }

    /// Tells what comes of it, where anything does.
    fn step(&self, view: &View, lineage: &Lineage) -> Result<Step> {
        let Lineage { enrolment, detail, identity, owner, vault, .. } = lineage;
        let (row, now) = (&identity.row, view.now());
        let from = |at| detail.sources.iter().any(|range| range.contains(at));
        let stands = (detail.sources.is_empty() || view.ctx().source.is_some_and(from))
            && detail.restore_epoch == vault.row.restore_epoch
            && enrolment.row.revocation_epoch == row.revocation_epoch
            && row.kind != Kind::Bootstrap
            && is_active(row, now)
            && owner.is_active(now);
        if !stands {
            return Err(not_accepted());
        }
        let step = detail.joins(&enrolment.row, &hex(&key_of(&self.asks.request)), now)?;
        match step {
            // What its bearer asks for is looked at before anything has an entry.
            Step::Anew => lineage.template(&self.asks, now).map(|_| step),
            Step::Again(_) | Step::Locks(_) => Ok(step),
            Step::Late => {
                let told = |at: i64| now.0.saturating_sub(at) < TOLD_EACH_MS;
                if detail.shown_late.is_some_and(told) { Err(used()) } else { Ok(step) }
            }
            Step::Over => Err(not_accepted()),
        }
    }
}

fn proves(row: &CredentialRow, handle: &[u8; 32]) -> bool {
    let same = |stored: &[u8]| verify_slices_are_equal(stored, handle).is_ok();
    row.kind == CredentialKind::Enrolment && row.handle.as_deref().is_some_and(same)
}

#[async_trait]
impl Verb for Join {
    const ACTION: &'static str = "enrolments.join";
    type Prepared = Prepared;
    type Output = Came;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let lineage = self.find(view).await?;
        self.step(view, &lineage)?;
        let Lineage { enrolment, identity, owner, lifecycle, vault, .. } = &lineage;
        let name = resource_name(&identity.row.name)?;
        let mut resource = Resource::named(name).with_row(identity.row.id.0, identity);
        resource.rows.extend([enrolment.fence(), lifecycle.fence(), vault.fence()]);
        resource.rows.extend(owner.fence());
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        let lineage = self.find(view).await?;
        let does = match self.step(view, &lineage)? {
            Step::Anew => Does::Gives(Box::new(lineage.sign(view, &self.asks).await?)),
            step @ (Step::Again(_) | Step::Locks(_) | Step::Late | Step::Over) => Does::Step(step),
        };
        let row = &lineage.identity.row;
        let activates = row.state == IdentityState::Registered;
        Ok(Prepared { does, identity: row.id.0, activates })
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        prepared.does.note(self.token.id(), &self.asks, note);
    }
}

#[async_trait]
impl Operation for Join {
    const NEEDS: Needs = WRITES;
    const GOES_ON: bool = true;

    fn needs(&self, prepared: &Prepared) -> Needs {
        match &prepared.does {
            Does::Gives(_) if prepared.activates => GOVERNS,
            Does::Gives(_) | Does::Step(Step::Late | Step::Anew) => WRITES,
            Does::Step(Step::Locks(_)) => CONTAINS,
            Does::Step(Step::Again(_) | Step::Over) => READS,
        }
    }

    /// That a key is new to an identity is a fact without a row of its own.
    fn holds(&self, prepared: &Prepared) -> Option<Id> {
        matches!(prepared.does, Does::Gives(_)).then_some(prepared.identity)
    }

    fn durable(&self, prepared: &Prepared) {
        prepared.does.alarm(self.token.id());
    }

    fn outcome(&self, came: &Came) -> &'static str {
        came.outcome()
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        _: &Decision,
    ) -> Result<Came> {
        let id: CredentialId = self.token.id();
        let read = tx.lookup::<CredentialRow>(&id).await?.ok_or_else(moved)?;
        let mut detail = EnrolmentDetail::decode(&read.row.detail)?;
        let key = hex(&key_of(&self.asks.request));
        match (&prepared.does, detail.joins(&read.row, &key, ctx.now)?) {
            (Does::Gives(login), Step::Anew) => {
                let came = login.store(tx).await?;
                detail.joined = Some(login.made());
                let (state, detail) = (CredentialState::Spent, detail.encode()?);
                let row = CredentialRow { state, detail, ..read.row };
                tx.update(read.version, &row).await?;
                if prepared.activates {
                    activate(ctx, tx, row.identity).await?;
                }
                Ok(came)
            }
            (Does::Step(Step::Again(_)), Step::Again(login)) => {
                again(tx, &self.asks, id, login).await
            }
            (Does::Step(Step::Locks(_)), Step::Locks(why)) => {
                lock(ctx, tx, read, detail, why).await
            }
            (Does::Step(Step::Late), Step::Late) => {
                detail.shown_late = Some(ctx.now.0);
                let row = CredentialRow { detail: detail.encode()?, ..read.row };
                tx.update(read.version, &row).await?;
                Ok(Came::Late)
            }
            (Does::Gives(_) | Does::Step(_), _) => Err(moved()),
        }
    }
}
