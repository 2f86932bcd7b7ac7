//! Tokens and the registry: first ones, those of a group's machines, what a kind's policy bounds.

use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::{
    AddMemberRequest, CreateGroupRequest, CreateIdentityRequest, GetIdentityRequest, Identity,
    Lifecycle, PutLifecycleRequest, RemoveMemberRequest,
};

use super::*;
use crate::support::logins::registration;

fn used(uses: i32) -> TokenOrder {
    TokenOrder { uses, ..with(0) }
}

async fn show(admin: &Channel, name: &str) -> Identity {
    let request = GetIdentityRequest { name: name.to_owned() };
    let mut client = IdentityServiceClient::new(admin.clone());
    client.get_identity(request).await.unwrap().into_inner().identity.unwrap()
}

async fn put(admin: &Channel, lifecycle: Lifecycle) {
    let request = PutLifecycleRequest { lifecycle: Some(lifecycle) };
    IdentityServiceClient::new(admin.clone()).put_lifecycle(request).await.unwrap();
}

/// A policy of so many seconds.
fn lives(kind: &str, max_ttl_s: i64, max_age_s: i64) -> Lifecycle {
    let kind = kind.to_owned();
    Lifecycle { kind, max_ttl_s, max_age_s, rotation_s: max_age_s, ..Default::default() }
}

fn refused<T>(answer: Result<T, Status>) -> Code {
    answer.map_or_else(|refusal| refusal.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_token_makes_an_identity_active_however_many_race_for_it() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let admin = f.connect(&f.admin).await;
        register(&f, "bot", "agent", "admin").await;
        assert_eq!(show(&admin, "bot").await.state, "registered");
        let race = (0..6).map(|_| mint(&admin, "bot", used(1)));
        let minted = futures_util::future::join_all(race).await;
        let nobody = f.connect_as_nobody().await;
        let mut good = 0;
        for token in minted {
            // Whoever loses too often is asked to retry, and has made nothing.
            match token {
                Ok(token) => {
                    assert_eq!(knock(&bearing(&nobody, &token)).await, Code::Ok);
                    good += 1;
                }
                Err(refusal) => assert_eq!(refusal.code(), Code::Aborted, "{refusal}"),
            }
        }
        assert!(good > 0);
        let bot = show(&admin, "bot").await;
        assert_eq!((bot.state.as_str(), bot.changed_by.as_str()), ("active", "admin"));
        let mut identities = IdentityServiceClient::new(admin.clone());
        let suspend = SuspendIdentityRequest { name: "bot".into(), ..Default::default() };
        identities.suspend_identity(suspend).await.unwrap();
        let resume =
            strongroom::proto::ResumeIdentityRequest { name: "bot".into(), ..Default::default() };
        let resumed = identities.resume_identity(resume).await.unwrap().into_inner();
        assert_eq!(resumed.identity.unwrap().state, "active", "it had a credential");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_in_the_group_that_owns_a_machine_mints_and_ends_its_tokens() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let admin = f.connect(&f.admin).await;
        let (carol, dave) = (human(&f, "carol").await, human(&f, "dave").await);
        let mut groups = GroupServiceClient::new(admin.clone());
        groups
            .create_group(CreateGroupRequest { name: "data".into(), ..Default::default() })
            .await
            .unwrap();
        let add = AddMemberRequest { group: "data".into(), identity: "carol".into() };
        groups.add_member(add).await.unwrap();
        let etl = CreateIdentityRequest {
            owner_group: "data".into(),
            ..registration("etl", "pipeline", "")
        };
        IdentityServiceClient::new(admin.clone()).create_identity(etl).await.unwrap();
        assert_eq!(refused(mint(&dave, "etl", with(0)).await), Code::PermissionDenied);
        let token = mint(&carol, "etl", with(0)).await.unwrap();
        let nobody = f.connect_as_nobody().await;
        let bearer = bearing(&nobody, &token);
        let accessor = inspect(&bearer, "").await.unwrap().accessor;
        assert_eq!(refused(inspect(&plain(&dave), &accessor).await), Code::PermissionDenied);
        assert_eq!(refused(revoke(&plain(&dave), &accessor).await), Code::PermissionDenied);
        inspect(&plain(&carol), &accessor).await.unwrap();
        revoke(&plain(&carol), &accessor).await.unwrap();
        assert_eq!(knock(&bearer).await, Code::Unauthenticated);
        let remove = RemoveMemberRequest { group: "data".into(), identity: "carol".into() };
        groups.remove_member(remove).await.unwrap();
        assert_eq!(refused(mint(&carol, "etl", with(0)).await), Code::PermissionDenied);
        // Nobody answers for it any more, so an administrator mints nothing for it either.
        assert_eq!(refused(mint(&admin, "etl", with(0)).await), Code::PermissionDenied);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_outlives_what_the_kind_of_its_holder_may() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let admin = f.connect(&f.admin).await;
        let etl = machine(&f, "etl").await;
        let nobody = f.connect_as_nobody().await;
        // Of the holder's kind, not of who mints.
        put(&admin, lives("human", 3_600, 3_600)).await;
        put(&admin, lives("pipeline", 300, 900)).await;
        for bearer in [
            mint(&admin, "etl", with(0)).await.unwrap(),
            mint(&admin, "etl", with(7_200)).await.unwrap(),
            create(&etl, with(7_200)).await.unwrap().bearer,
        ] {
            let made = inspect(&bearing(&nobody, &bearer), "").await.unwrap();
            assert_eq!(made.expires_at_ms - made.created_at_ms, 300_000);
            assert_eq!(made.max_expires_at_ms - made.created_at_ms, 900_000);
        }
        let token = mint(&admin, "etl", with(0)).await.unwrap();
        let bearer = bearing(&nobody, &token);
        f.clock.advance(Duration::from_secs(200));
        let renewed = renew(&bearer, "", 3_600).await.unwrap();
        let life_s = (renewed.expires_at_ms - renewed.created_at_ms) / 1_000;
        assert!((500..510).contains(&life_s), "{life_s}");
        // What is put later holds for the next renewal, which shortens nothing.
        put(&admin, lives("pipeline", 400, 400)).await;
        let again = renew(&bearer, "", 0).await.unwrap();
        assert_eq!(again.expires_at_ms, renewed.expires_at_ms);
        let made = create(&admin, with(7_200)).await.unwrap().token.unwrap();
        assert_eq!(made.expires_at_ms - made.created_at_ms, 3_600_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tokens_of_a_kind_that_may_have_one_use_have_exactly_one() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let admin = f.connect(&f.admin).await;
        register(&f, "ci", "runner", "admin").await;
        let ci = f.connect(&login(&f, "ci").await).await;
        for uses in [0, 2] {
            assert_eq!(refused(mint(&admin, "ci", used(uses)).await), Code::FailedPrecondition);
            assert_eq!(refused(create(&ci, used(uses)).await), Code::FailedPrecondition);
        }
        assert!(mint(&admin, "ci", used(1)).await.unwrap().starts_with("srs_"));
        assert!(create(&ci, used(1)).await.unwrap().bearer.starts_with("srs_"));
        // It is the policy that says so, of whatever kind.
        put(&admin, lives("runner", 900, 900)).await;
        assert!(mint(&admin, "ci", used(0)).await.unwrap().starts_with("srt_"));
        assert!(create(&ci, used(2)).await.unwrap().bearer.starts_with("srt_"));
        // Nor is what was made before renewed under one that does.
        let before = mint(&admin, "ci", used(0)).await.unwrap();
        let (before, single) =
            (bearing(&ci, &before), Lifecycle { single_use: true, ..lives("runner", 900, 900) });
        renew(&before, "", 0).await.unwrap();
        put(&admin, single).await;
        assert_eq!(refused(renew(&before, "", 0).await), Code::FailedPrecondition);
        assert_eq!(knock(&before).await, Code::Ok);
        put(&admin, Lifecycle { single_use: true, ..lives("human", 3_600, 3_600) }).await;
        assert_eq!(refused(create(&admin, with(0)).await), Code::FailedPrecondition);
    }
}
