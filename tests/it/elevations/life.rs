//! From the request to the end.

use std::time::Duration;

use strongroom::proto::{ExtendElevationRequest, ListElevationsRequest};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_elevation_goes_from_its_request_over_approval_and_activation_to_its_end() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let asked = s.asked().await;
        assert_eq!((asked.state.as_str(), asked.step), ("awaiting-approval", 1));
        assert_eq!(asked.identity, "carol");
        assert_eq!(asked.actions, ["database.credentials", "groups.show"]);
        assert_eq!(asked.next_at_ms, asked.requested_at_ms + 3_600_000);
        assert_eq!(
            list(&s.dave).await,
            std::slice::from_ref(&asked.id),
            "who may approve it sees it"
        );
        let approved = approve(&s.dave, &asked).await.unwrap();
        assert_eq!((approved.state.as_str(), approved.step), ("scheduled", 0));
        assert_eq!(approved.votes.len(), 1);
        assert_eq!((approved.votes[0].by.as_str(), approved.votes[0].approves), ("dave", true));
        assert_eq!(approved.scope_hash, asked.scope_hash, "its scope is frozen");
        s.f.clock.advance(Duration::from_mins(5));
        let active = activate(&s.carol, &approved).await.unwrap();
        assert_eq!(active.state, "active");
        assert_eq!(active.ends_at_ms, active.activated_at_ms + 600_000, "it runs from activation");
        let over = revoke(&s.carol, &active).await.unwrap();
        assert!(["revoking", "ended"].contains(&over.state.as_str()), "{}", over.state);
        assert_eq!(over.why, "given back");
        assert_eq!(code(activate(&s.carol, &over).await), Code::FailedPrecondition);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_finds_the_request_that_the_first_try_made() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let key = "0123456789abcdef0123456789abcdef".to_owned();
        let keyed = RequestElevationRequest { idempotency_key: key, ..request() };
        let first = ask(&s.carol, keyed.clone()).await.unwrap();
        assert_eq!(ask(&s.carol, keyed.clone()).await.unwrap().id, first.id);
        let other = RequestElevationRequest { ttl_s: 601, ..keyed };
        assert_eq!(code(ask(&s.carol, other).await), Code::InvalidArgument);
        assert_eq!(list(&s.carol).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_elevation_is_in_force_at_a_time() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let (first, second) = (s.approved().await, s.approved().await);
        let active = activate(&s.carol, &first).await.unwrap();
        assert_eq!(code(activate(&s.carol, &second).await), Code::FailedPrecondition);
        assert_eq!(show(&s.carol, &second.id).await.unwrap().state, "scheduled");
        revoke(&s.carol, &active).await.unwrap();
        assert_eq!(activate(&s.carol, &second).await.unwrap().state, "active");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_time_is_approved_as_a_request_of_its_own_and_stays_within_the_role() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let active = s.active().await;
        let extend = async |ttl_s| {
            let id = active.id.clone();
            let request = ExtendElevationRequest { id, ttl_s, ..Default::default() };
            let asked = Client::new(s.carol.clone()).extend_elevation(request).await?;
            Ok::<_, Status>(asked.into_inner().elevation.unwrap())
        };
        let more = extend(900).await.unwrap();
        assert_eq!(
            (more.extends.as_str(), more.state.as_str()),
            (&*active.id, "awaiting-approval")
        );
        let end = show(&s.carol, &active.id).await.unwrap().ends_at_ms;
        assert_eq!(end, active.ends_at_ms, "asking for it gives nothing");
        let more = approve(&s.erin, &more).await.unwrap();
        assert_eq!(activate(&s.carol, &more).await.unwrap().state, "ended");
        let longer = show(&s.carol, &active.id).await.unwrap();
        assert_eq!(longer.ends_at_ms, active.ends_at_ms + 900_000);
        let most = approve(&s.dave, &extend(7_200).await.unwrap()).await.unwrap();
        activate(&s.carol, &most).await.unwrap();
        let longest = show(&s.carol, &active.id).await.unwrap();
        assert_eq!(longest.ends_at_ms, active.activated_at_ms + 7_200_000);
        // What the role does not allow any more is not prolonged.
        let (all, narrow) = (role(), vec!["groups/team".to_owned()]);
        s.put(ElevationRole { resources: narrow, ..all.clone() }).await.unwrap();
        assert_eq!(code(extend(60).await), Code::PermissionDenied);
        let actions = vec!["groups.show".to_owned()];
        s.put(ElevationRole { actions, ..all.clone() }).await.unwrap();
        assert_eq!(code(extend(60).await), Code::PermissionDenied);
        s.put(all).await.unwrap();
        // What is over is not prolonged, also where that was approved before.
        let late = approve(&s.dave, &extend(60).await.unwrap()).await.unwrap();
        revoke(&s.carol, &longest).await.unwrap();
        assert_eq!(code(activate(&s.carol, &late).await), Code::FailedPrecondition);
        assert_eq!(code(extend(60).await), Code::FailedPrecondition);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn elevations_are_paged_from_the_newest_and_seen_by_whom_they_concern_alone() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let stranger = human(&s.f, "frank").await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.insert(0, s.asked().await.id);
        }
        let page = async |page_token| {
            let request = ListElevationsRequest { page_size: 2, page_token, ..Default::default() };
            let mut client = Client::new(s.erin.clone());
            let page = client.list_elevations(request).await.unwrap().into_inner();
            let ids: Vec<_> = page.elevations.into_iter().map(|one| one.id).collect();
            (ids, page.next_page_token)
        };
        let (first, next) = page(String::new()).await;
        let (second, last) = page(next).await;
        assert_eq!([first, second].concat(), ids);
        assert_eq!(last, "");
        assert_eq!(list(&s.admin).await, ids);
        assert!(list(&stranger).await.is_empty());
        assert_eq!(code(show(&stranger, &ids[0]).await), Code::NotFound);
        let one = show(&s.carol, &ids[0]).await.unwrap();
        assert_eq!(code(approve(&stranger, &one).await), Code::NotFound);
        assert_eq!(code(deny(&stranger, &one).await), Code::NotFound);
        for other in [&stranger, &s.dave] {
            assert_eq!(code(withdraw(other, &one).await), Code::PermissionDenied);
            assert_eq!(code(activate(other, &one).await), Code::PermissionDenied);
            assert_eq!(code(revoke(other, &one).await), Code::PermissionDenied);
        }
        assert_eq!(withdraw(&s.carol, &one).await.unwrap().state, "withdrawn");
        let two = show(&s.admin, &ids[1]).await.unwrap();
        assert_eq!(revoke(&s.admin, &two).await.unwrap().state, "revoked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_sees_what_concerns_them_as_it_changes() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let frank = human(&s.f, "frank").await;
        let before = s.asked().await;
        let watch = async |channel: &Channel| {
            let request = strongroom::proto::WatchElevationsRequest {};
            let mut client = Client::new(channel.clone());
            client.watch_elevations(request).await.unwrap().into_inner()
        };
        let (mut dave, mut stranger) = (watch(&s.dave).await, watch(&frank).await);
        let mut next = async || {
            let seen = tokio::time::timeout(Duration::from_secs(20), dave.message()).await;
            let seen = seen.unwrap().unwrap().unwrap().elevation.unwrap();
            (seen.id, seen.state)
        };
        let asked = s.asked().await;
        assert_eq!(next().await, (asked.id.clone(), "awaiting-approval".to_owned()));
        approve(&s.erin, &asked).await.unwrap();
        assert_eq!(next().await, (asked.id.clone(), "scheduled".to_owned()));
        withdraw(&s.carol, &before).await.unwrap();
        assert_eq!(next().await, (before.id.clone(), "withdrawn".to_owned()));
        let told = tokio::time::timeout(Duration::from_secs(2), stranger.message()).await;
        assert!(told.is_err(), "it concerns nobody else: {told:?}");
        // Whoever is not accepted any more sees nothing more.
        let name = "dave".to_owned();
        let suspend = strongroom::proto::SuspendIdentityRequest { name, reason: String::new() };
        let mut admin = IdentityServiceClient::new(s.admin.clone());
        admin.suspend_identity(suspend).await.unwrap();
        let end = tokio::time::timeout(Duration::from_secs(20), dave.message()).await.unwrap();
        assert_eq!(end.unwrap_err().code(), Code::Unauthenticated);
    }
}
