//! A store that is full: it refuses what it cannot record, and authority can still be taken away.

use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::system_service_client::SystemServiceClient;
use strongroom::proto::{RevokeLeaseRequest, SealRequest, SuspendIdentityRequest, WhoAmIRequest};
use strongroom::store::Location;
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::logins;
use crate::support::node::Fixture;
use crate::support::postgres::Postgres;
use crate::support::target::{World, until};

async fn whoami(channel: &Channel) -> Code {
    let asked = IdentityServiceClient::new(channel.clone()).who_am_i(WhoAmIRequest {}).await;
    asked.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_still_takes_a_revocation_a_suspension_and_a_seal() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vault.db");
    let location = Location::Sqlite { path, max_mib: 3, reserve_mib: 2 };
    let f = Fixture::at(dir, location).await;
    let w = World::of(f, Postgres::shared(), Postgres::shared().port()).await;
    let issued = w.issue().await.unwrap();
    let ml = logins::machine(&w.f, "ml").await;
    let refused = [Code::ResourceExhausted, Code::Unavailable];
    // A smaller entry may still fit where a larger one did not: it is full once none does.
    let (mut asked, mut refusals) = (0, 0);
    while refusals < 9 {
        for channel in [&w.etl, &ml, &w.admin] {
            let is_refused = refused.contains(&whoami(channel).await);
            refusals = if is_refused { refusals + 1 } else { 0 };
        }
        asked += 1;
        assert!(asked < 5_000, "it is never full");
    }
    let none = w.issue().await.unwrap_err();
    assert!(refused.contains(&none.code()), "{none}");

    let revoke = RevokeLeaseRequest { id: issued.lease_id, reason: "a test".into() };
    w.lease_client().revoke_lease(revoke.clone()).await.unwrap();
    until("the role is gone", async || w.roles(Postgres::shared()).await.is_empty()).await;
    let mut refusals = 0;
    for _ in 0..200 {
        if let Err(told) = w.lease_client().revoke_lease(revoke.clone()).await {
            assert!(refused.contains(&told.code()), "{told}");
            refusals += 1;
        }
    }
    assert!(refusals > 100, "what has ended takes nothing of the reserve: {refusals}");
    let suspend = SuspendIdentityRequest { name: "ml".into(), reason: "a test".into() };
    IdentityServiceClient::new(w.admin.clone()).suspend_identity(suspend).await.unwrap();
    assert_ne!(whoami(&ml).await, Code::Ok);
    let seal = SealRequest { reason: "a test".into() };
    SystemServiceClient::new(w.admin.clone()).seal(seal).await.unwrap();
    assert!(!w.f.node().life.standing().is_serving());
    assert_eq!(whoami(&w.admin).await, Code::Unavailable);
}
