//! What a suspension hands to the worker that ends leases.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use strongroom::Result;
use strongroom::store::credentials::CredentialRow;
use strongroom::store::{Needs, Tx};
use strongroom::types::{
    Caller, CredentialId, CredentialKind, CredentialState, IdentityId, RequestContext, UnixMillis,
};
use strongroom::vault::{Decision, Operation, Resource, Verb, View, WRITES};

use super::{Client, SuspendIdentityRequest, admin};
use crate::support::logins::register;
use crate::support::node::{BACKENDS, Backend, Fixture};

/// Stores a lease as an engine would; asked again, shows it.
struct Lease {
    identity: IdentityId,
    id: Option<CredentialId>,
    state: CredentialState,
}

#[async_trait]
impl Verb for Lease {
    const ACTION: &'static str = "identities.issue-cert";
    type Prepared = CredentialRow;
    type Output = CredentialRow;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("identities/etl".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<CredentialRow> {
        if let Some(id) = self.id {
            let found = view
                .read(move |tx| async move { Ok(tx.lookup::<CredentialRow>(&id).await?) }.boxed());
            return Ok(found.await?.unwrap().row);
        }
        let end = UnixMillis(view.now().0 + 3_600_000);
        Ok(CredentialRow {
            id: CredentialId(view.new_id()?),
            kind: CredentialKind::Lease,
            identity: self.identity,
            parent: None,
            elevation: None,
            elevation_too: None,
            handle: None,
            resource: "database/a/b".parse()?,
            state: self.state,
            revocation_epoch: 1,
            issued_at: view.now(),
            expires_at: end,
            max_expires_at: end,
            next_try: Some(end),
            tries: 0,
            trouble: String::new(),
            proofs: String::new(),
            detail: Vec::new(),
        })
    }
}

#[async_trait]
impl Operation for Lease {
    const NEEDS: Needs = WRITES;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        prepared: &CredentialRow,
        _: &Decision,
    ) -> Result<CredentialRow> {
        if self.id.is_none() {
            tx.insert(prepared).await?;
        }
        Ok(prepared.clone())
    }
}

async fn run(f: &Fixture, op: Lease) -> CredentialRow {
    let vault = &f.node().vault;
    let fingerprint = crate::support::logins::fingerprint(&f.admin.certificate_pem);
    let caller = vault.authenticate_certificate(fingerprint, |_| true).await.unwrap();
    let ctx = vault.context(Caller::Identity(caller), None).unwrap();
    vault.run(&ctx, op).await.unwrap()
}

async fn check(backend: Backend) {
    let f = Fixture::on(backend).await;
    let mut client: Client = admin(&f).await;
    let etl = register(&f, "etl", "pipeline", "admin").await;
    let other = register(&f, "other", "pipeline", "admin").await;
    let (etl, other) = (etl.id.parse().unwrap(), other.id.parse().unwrap());
    let mut given = Vec::new();
    for (identity, state) in [
        (etl, CredentialState::Active),
        (etl, CredentialState::Active),
        (etl, CredentialState::Pending),
        (etl, CredentialState::Ended),
        (other, CredentialState::Active),
    ] {
        given.push(run(&f, Lease { identity, id: None, state }).await);
    }
    let suspend = SuspendIdentityRequest { name: "etl".into(), reason: String::new() };
    let suspended = client.suspend_identity(suspend).await.unwrap().into_inner();
    let at = UnixMillis(suspended.identity.unwrap().changed_at_ms);
    for (i, before) in given.into_iter().enumerate() {
        let op = Lease { identity: etl, id: Some(before.id), state: before.state };
        let after = run(&f, op).await;
        if i < 2 {
            let ending = (CredentialState::Revoking, Some(at));
            assert_eq!((after.state, after.next_try), ending, "{backend:?} {i}");
        } else {
            // A pending one has its next try and fails by its fence; the rest is not touched.
            assert_eq!(after, before, "{backend:?} {i}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_hands_the_active_leases_of_its_identity_to_the_worker() {
    for backend in BACKENDS {
        check(backend).await;
    }
}
