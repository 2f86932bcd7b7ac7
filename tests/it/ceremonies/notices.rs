//! Who asked for a ceremony, and who has to approve it, is told what becomes of it.

use serde_json::Value;
use strongroom::proto::{CancelCeremonyRequest, DenyCeremonyRequest, WatchCeremoniesRequest};

use super::*;
use crate::elevations::notices::{people, posts_to, told};
use crate::support::hand::Hand;
use crate::support::log::Log;
use crate::support::node::BACKENDS;
use crate::support::receiver::Receiver;
use crate::support::target::until;

fn deny(id: &str) -> DenyCeremonyRequest {
    DenyCeremonyRequest { id: id.to_owned(), reason: "not now".to_owned() }
}

/// What was told of ceremonies, in order.
fn of_ceremonies(receiver: &Receiver) -> Vec<Value> {
    let all = receiver.once().into_iter().map(|one| one.json());
    all.filter(|one| one["type"].as_str().unwrap().starts_with("ceremony.")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_one_is_told_to_who_asked_and_to_the_administrators() {
    for backend in BACKENDS {
        let receiver = Receiver::new().await;
        let f = told(Fixture::earnest(backend).await, vec![posts_to(&receiver)]).await;
        let s = Stage::of(f).await;
        register(&s.f, "other", "pipeline", "admin").await;
        let mut second = Client::new(s.second.clone());
        let done = opened(&s.second, "etl").await;
        // Asked for again, it is told once.
        assert_eq!(opened(&s.second, "etl").await.id, done.id);
        approve(&s.third, &done).await.unwrap();
        shred(&s.second, "etl").await.unwrap();
        let denied = opened(&s.second, "other").await;
        Client::new(s.third.clone()).deny_ceremony(deny(&denied.id)).await.unwrap();
        let cancelled = opened(&s.second, "other").await;
        let cancel = CancelCeremonyRequest { id: cancelled.id.clone() };
        second.cancel_ceremony(cancel).await.unwrap();
        let late = opened(&s.second, "other").await;
        s.f.clock.advance(Duration::from_hours(1));
        receiver.waits_for("ceremony.expired").await;

        let told = of_ceremonies(&receiver);
        let shown: Vec<_> = told
            .iter()
            .map(|one| (one["type"].as_str().unwrap(), one["data"]["ceremony"].as_str().unwrap()))
            .collect();
        let opened = "ceremony.opened";
        let wanted = [
            (opened, &done),
            ("ceremony.approved", &done),
            ("ceremony.performed", &done),
            (opened, &denied),
            ("ceremony.denied", &denied),
            (opened, &cancelled),
            ("ceremony.cancelled", &cancelled),
            (opened, &late),
            ("ceremony.expired", &late),
        ];
        assert_eq!(shown, wanted.map(|(kind, of)| (kind, of.id.as_str())));
        for one in &told {
            let (to, data) = (people(one), &one["data"]);
            for who in [":second", "administrators:second", "administrators:third"] {
                assert!(to.contains(&who.to_owned()), "{who} of {to:?}");
            }
            assert_eq!(data["requester"], "second");
            assert_eq!(data["actions"][0], "identities.shred");
            assert_eq!((&data["elevation"], &data["role"]), (&"".into(), &"".into()));
        }
        let [first, approved, performed, _, denied, _, _, _, expired] = told.as_slice() else {
            panic!("{told:#?}")
        };
        assert_eq!(first["data"]["reason"], "a test");
        assert_eq!(first["data"]["detail"], "confirm: etl");
        assert_eq!(
            (&first["data"]["state"], &first["data"]["by"]),
            (&"open".into(), &"second".into())
        );
        assert_eq!(approved["data"]["state"], "approved");
        assert_eq!(approved["data"]["approved_by"][0], "third");
        assert_eq!(performed["data"]["state"], "performed");
        assert_eq!(
            (&denied["data"]["why"], &denied["data"]["by"]),
            (&"not now".into(), &"third".into())
        );
        assert_eq!(expired["data"]["by"], "ceremony_keeper");
        let text = first["text"].as_str().unwrap();
        assert!(text.contains("strongroom ceremony show ") && !text.contains("elevate"), "{text}");
        assert_eq!(find(&s.admin, &late.id).await.changed_by, "ceremony_keeper");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_for_or_done_unseen_and_a_denial_stands_all_the_same() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        register(&s.f, "other", "pipeline", "admin").await;
        let (ready, open) = (opened(&s.second, "etl").await, opened(&s.second, "other").await);
        approve(&s.third, &ready).await.unwrap();
        let log = Log::begin();
        let hand = Hand::new(&s.f.parts.location);
        hand.run("ALTER TABLE notices RENAME TO taken").await;
        shred(&s.second, "etl").await.unwrap_err();
        assert_eq!(find(&s.third, &ready.id).await.state, "approved");
        assert!(shredding(&s.admin, "etl").await.shred.is_none());
        approve(&s.third, &open).await.unwrap_err();
        assert!(find(&s.third, &open.id).await.votes.is_empty());
        Client::new(s.third.clone()).deny_ceremony(deny(&open.id)).await.unwrap();
        assert_eq!(find(&s.third, &open.id).await.state, "denied");
        assert!(log.text().contains("nobody could be told"));
        hand.run("ALTER TABLE taken RENAME TO notices").await;
        shred(&s.second, "etl").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_who_watches_sees_them_as_they_change_and_nobody_else_does() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        register(&s.f, "other", "pipeline", "admin").await;
        let before = opened(&s.second, "other").await;
        let mut third = Client::new(s.third.clone());
        let request = || WatchCeremoniesRequest {};
        let mut changes = third.watch_ceremonies(request()).await.unwrap().into_inner();
        let mut next = async || {
            let seen = tokio::time::timeout(Duration::from_secs(20), changes.message()).await;
            let seen = seen.unwrap().unwrap().unwrap().ceremony.unwrap();
            (seen.id, seen.state)
        };
        let asked = opened(&s.second, "etl").await;
        assert_eq!(next().await, (asked.id.clone(), "open".to_owned()));
        approve(&s.third, &asked).await.unwrap();
        assert_eq!(next().await, (asked.id.clone(), "approved".to_owned()));
        third.deny_ceremony(deny(&before.id)).await.unwrap();
        assert_eq!(next().await, (before.id.clone(), "denied".to_owned()));
        let human = account(&s.f, &s.admin, "human", "").await;
        let refused = Client::new(human).watch_ceremonies(request()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        s.f.clock.advance(Duration::from_hours(1));
        until("it expires", async || {
            find(&s.admin, &asked.id).await.changed_by == "ceremony_keeper"
        })
        .await;
    }
}
