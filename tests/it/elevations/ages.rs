//! What an approval stands on is a day old; only a development vault waives that.

use std::time::Duration;

use super::*;
use crate::support::logins::login;

const DAY: Duration = Duration::from_hours(24);

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_counts_only_where_account_membership_and_role_are_a_day_old() {
    for backend in BACKENDS {
        let mut s = Stage::of(Fixture::earnest(backend).await).await;
        let young = async |s: &Stage, by: &Channel, asked: &Elevation| {
            let refusal = approve(by, asked).await.unwrap_err();
            assert_eq!(refusal.code(), Code::PermissionDenied);
            assert!(refusal.message().contains("a day older"), "{refusal}");
            assert!(show(&s.carol, &asked.id).await.unwrap().votes.is_empty());
        };
        young(&s, &s.dave, &s.asked().await).await;
        turn(&mut s, DAY + Duration::from_mins(1)).await;
        // A new account, and an old one that is new in the group.
        let frank = human(&s.f, "frank").await;
        s.join("security", "frank").await;
        s.join("security", "admin").await;
        let asked = s.asked().await;
        young(&s, &frank, &asked).await;
        young(&s, &s.admin, &asked).await;
        assert_eq!(approve(&s.dave, &asked).await.unwrap().state, "scheduled");
        // A role that was changed today.
        s.put(ElevationRole { purpose: "another".to_owned(), ..role() }).await.unwrap();
        young(&s, &s.dave, &s.asked().await).await;
        // Waiting does not help what was asked for before: the request itself has to be younger.
        turn(&mut s, Duration::from_mins(30)).await;
        let asked = s.asked().await;
        turn(&mut s, Duration::from_mins(59)).await;
        young(&s, &s.dave, &asked).await;
        turn(&mut s, DAY).await;
        let asked = s.asked().await;
        assert_eq!(approve(&s.dave, &asked).await.unwrap().state, "scheduled");
    }
}

/// Turns the clock on; logins of a day are over then.
async fn turn(s: &mut Stage, by: Duration) {
    // In steps that a node takes for time that passed.
    s.f.clock.advance(by);
    s.f.restart().await;
    let new = async |name: &str| s.f.connect(&login(&s.f, name).await).await;
    let (carol, dave, erin) = (new("carol").await, new("dave").await, new("erin").await);
    let admin = s.f.connect(&s.f.admin).await;
    (s.carol, s.dave, s.erin, s.admin) = (carol, dave, erin, admin);
}
