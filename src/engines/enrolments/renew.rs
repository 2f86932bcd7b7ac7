//! Gives the next certificate of an enrolment to whoever holds the last. Each certificate gives one:
//! the same key hears the same answer, another key locks the enrolment.
//!
//! Who asks is who the connection's certificate proves, and the next one is that one's alone: there is
//! nothing in a request by which another could be meant.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::detail::{EnrolmentDetail, RENEWALS, Renewal, Step};
use super::lineage::{Asks, Came, Does, Lineage, again, key_of, lock, moved};
use super::resource_name;
use crate::crypto::hex;
use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::{Needs, Tx};
use crate::types::{
    AuthMethod, CredentialId, CredentialKind, Id, IdentityId, RequestContext, UnixMillis,
};
use crate::vault::{CONTAINS, Decision, Note, Operation, READS, Resource, Verb, View, WRITES};

/// Renews the login that asks.
#[derive(Debug, Clone)]
pub struct RenewLogin {
    /// What is asked for.
    pub asks: Asks,
}

/// What is about to come of it.
#[derive(Debug)]
pub struct Prepared {
    does: Does,
    identity: IdentityId,
    enrolment: CredentialId,
    /// The certificate that asks, and when its time is over.
    of: (CredentialId, UnixMillis),
}

fn not_enrolled() -> Error {
    Error::precondition(
        "an enrolment renews the login certificates that it gave, each by a connection that shows \
         it; this is none of them: ask whoever signed it for another",
    )
}

impl RenewLogin {
    /// Finds the enrolment that the certificate of the connection hangs on.
    async fn find(&self, view: &View) -> Result<Lineage> {
        let login = &view.subject()?.credential.row;
        let method = view.ctx().authenticated().map(|caller| caller.method);
        let shown = matches!(method, Some(AuthMethod::Mtls { .. }));
        let above = login.parent.filter(|_| shown && login.kind == CredentialKind::Login);
        let above = above.ok_or_else(not_enrolled)?;
        let (identity, key) = (login.identity, key_of(&self.asks.request));
        let vault = view.vault_id();
        let ours = move |row: &CredentialRow| {
            row.kind == CredentialKind::Enrolment && row.identity == identity
        };
        let read = view.read(move |tx| {
            async move {
                let found = tx.lookup::<CredentialRow>(&above).await?;
                match found.filter(|found| ours(&found.row)) {
                    Some(found) => Lineage::load(tx, found, &key, vault).await.map(Some),
                    None => Ok(None),
                }
            }
            .boxed()
        });
        read.await?.ok_or_else(not_enrolled)
    }
}

#[async_trait]
impl Verb for RenewLogin {
    const ACTION: &'static str = "enrolments.renew";
    type Prepared = Prepared;
    type Output = Came;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let subject = view.subject()?;
        let row = &subject.identity.row;
        let name = resource_name(&row.name)?;
        let mut resource = Resource::named(name).with_row(row.id.0, &subject.identity);
        resource.owner = Some(row.owner);
        resource.identity = Some(subject.own_facts(view.now()));
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        let mut lineage = self.find(view).await?;
        let login = &view.subject()?.credential.row;
        let key = hex(&key_of(&self.asks.request));
        let does = match lineage.detail.renews(&lineage.enrolment.row, login.id, &key)? {
            Step::Anew => {
                lineage.detail.forget(view.now());
                if lineage.detail.renewed.len() >= RENEWALS {
                    return Err(Error::Exhausted(
                        "the enrolment's certificates were renewed too often for now; retry when \
                         the oldest of them is over"
                            .into(),
                    ));
                }
                Does::Gives(Box::new(lineage.sign(view, &self.asks).await?))
            }
            step @ (Step::Again(_) | Step::Locks(_) | Step::Late) => Does::Step(step),
            Step::Over => return Err(moved()),
        };
        Ok(Prepared {
            does,
            identity: login.identity,
            enrolment: lineage.enrolment.row.id,
            of: (login.id, login.expires_at),
        })
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        prepared.does.note(prepared.enrolment, &self.asks, note);
    }
}

#[async_trait]
impl Operation for RenewLogin {
    const NEEDS: Needs = WRITES;
    const GOES_ON: bool = true;

    fn needs(&self, prepared: &Prepared) -> Needs {
        match &prepared.does {
            Does::Gives(_) => WRITES,
            Does::Step(Step::Locks(_)) => CONTAINS,
            Does::Step(Step::Anew | Step::Again(_) | Step::Late | Step::Over) => READS,
        }
    }

    /// That a key is new to an identity is a fact without a row of its own.
    fn holds(&self, prepared: &Prepared) -> Option<Id> {
        matches!(prepared.does, Does::Gives(_)).then_some(prepared.identity.0)
    }

    fn durable(&self, prepared: &Prepared) {
        prepared.does.alarm(prepared.enrolment);
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
        let (id, (of, until)) = (prepared.enrolment, prepared.of);
        let read = tx.lookup::<CredentialRow>(&id).await?.ok_or_else(moved)?;
        let mut detail = EnrolmentDetail::decode(&read.row.detail)?;
        let key = hex(&key_of(&self.asks.request));
        match (&prepared.does, detail.renews(&read.row, of, &key)?) {
            (Does::Gives(login), Step::Anew) => {
                let came = login.store(tx).await?;
                detail.forget(ctx.now);
                let (of, until) = (of.to_string(), until.0);
                detail.renewed.push(Renewal { of, until, made: login.made() });
                let row = CredentialRow { detail: detail.encode()?, ..read.row };
                tx.update(read.version, &row).await?;
                Ok(came)
            }
            (Does::Step(Step::Again(_)), Step::Again(next)) => {
                again(tx, &self.asks, id, next).await
            }
            (Does::Step(Step::Locks(_)), Step::Locks(why)) => {
                lock(ctx, tx, read, detail, why).await
            }
            (Does::Gives(_) | Does::Step(_), _) => Err(moved()),
        }
    }
}
