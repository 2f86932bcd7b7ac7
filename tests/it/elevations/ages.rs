//! What an approval stands on is a day old; only a development vault waives that.

use std::time::Duration;

use strongroom::engines::elevations::{Act, Approve};
use strongroom::types::Caller;

use super::*;
use crate::support::factors::{confirm, enrol};
use crate::support::logins::{fingerprint, login};
use crate::support::tokens::plain;

const DAY: Duration = Duration::from_hours(24);

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_counts_only_where_account_membership_and_role_are_a_day_old() {
    for backend in BACKENDS {
        let s = Stage::of(Fixture::earnest(backend).await).await;
        let young = async |by: &Channel, asked: &Elevation| {
            let refusal = approve(by, asked).await.unwrap_err();
            assert_eq!(refusal.code(), Code::PermissionDenied);
            assert!(refusal.message().contains("a day older"), "{refusal}");
            assert!(show(&s.carol, &asked.id).await.unwrap().votes.is_empty());
        };
        young(&s.dave, &s.asked().await).await;
        s.f.clock.advance(DAY + Duration::from_mins(1));
        s.step_up().await;
        // An old account that is new in the group.
        s.join("security", "second").await;
        let asked = s.asked().await;
        young(&s.second, &asked).await;
        assert!(new_account(&s, "frank", &asked).await.contains("a day older"));
        assert_eq!(approve(&s.dave, &asked).await.unwrap().state, "scheduled");
        // A role that was made today.
        s.put(ElevationRole { name: "new".to_owned(), ..role() }).await.unwrap();
        let new = || RequestElevationRequest { role: "new".to_owned(), ..request() };
        young(&s.dave, &ask(&s.carol, new()).await.unwrap()).await;
        // Waiting does not help what was asked for before: the request has to be younger.
        s.f.clock.advance(DAY.saturating_sub(Duration::from_mins(30)));
        let asked = ask(&s.carol, new()).await.unwrap();
        s.f.clock.advance(Duration::from_mins(59));
        young(&s.dave, &asked).await;
        s.step_up().await;
        let asked = ask(&s.carol, new()).await.unwrap();
        assert_eq!(approve(&s.dave, &asked).await.unwrap().state, "scheduled");
        // A factor that was enrolled today.
        let bearer = plain(&s.erin);
        let fresh = enrol(&bearer, "").await.unwrap();
        confirm(&bearer, &fresh, &fresh.code(&s.f, 0)).await.unwrap();
        young(&s.erin, &ask(&s.carol, new()).await.unwrap()).await;
    }
}

/// Registers somebody in the group, and approves as them; why that is refused. A connection of
/// theirs would be younger than the test's own clock.
async fn new_account(s: &Stage, name: &str, asked: &Elevation) -> String {
    let request = crate::support::logins::registration(name, "human", "");
    IdentityServiceClient::new(s.admin.clone()).create_identity(request).await.unwrap();
    s.join("security", name).await;
    let vault = &s.f.node().vault;
    let print = fingerprint(&login(&s.f, name).await.certificate_pem);
    let who = vault.authenticate_certificate(print, |_| true).await.unwrap();
    let ctx = vault.context(Caller::Identity(who), None).unwrap();
    let (scope_hash, ttl, reason) = (asked.scope_hash.clone(), None, String::new());
    let change = Approve { scope_hash, ttl, reason };
    vault.run(&ctx, Act { id: asked.id.parse().unwrap(), change }).await.unwrap_err().to_string()
}
