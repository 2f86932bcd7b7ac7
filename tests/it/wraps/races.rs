//! Once is once, whatever races.

use futures_util::future::join_all;

use super::*;
use crate::support::logins::login;
use crate::support::node::BACKENDS;

const CLIENTS: usize = 64;

#[tokio::test(flavor = "multi_thread")]
async fn of_sixty_four_who_unwrap_at_once_one_does_and_the_others_learn_who_was_first() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let second = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(p.f().second_node().await),
        };
        let wrapped = p.wrap("3600", "etl").await.unwrap();
        let etl = login(p.f(), "etl").await;
        let mut channels = Vec::new();
        for node in std::iter::once(p.f().node()).chain(&second) {
            for _ in 0..4 {
                channels.push(p.f().connect_to(node, &etl).await);
            }
        }
        let calls =
            (0..CLIENTS).map(|n| unwrap(&channels[n % channels.len()], expecting(&wrapped)));
        let (won, lost): (Vec<_>, Vec<_>) =
            join_all(calls).await.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, CLIENTS - 1));
        for refusal in lost {
            let refusal = refusal.unwrap_err();
            assert_eq!(reason(&refusal), "OPENED", "{refusal}");
            assert!(refusal.message().contains("by etl"), "{refusal}");
        }
        assert_eq!(p.entries("wraps.unwrap", "ok").await.len(), 1);
        let found = p.entries("wraps.unwrap", "OPENED").await;
        assert_eq!(found.len(), CLIENTS - 1);
        assert!(found.iter().all(|one| one.detail.contains("from 127.0.0.1")));
        drop(channels);
        if let Some(second) = second {
            second.stop().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_unwraps_and_who_revokes_do_not_both_succeed() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        for _ in 0..8 {
            let wrapped = p.wrap("3600", "etl").await.unwrap();
            let (opened, revoked) =
                tokio::join!(value(p.etl(), &wrapped), revoke(p.alice(), &wrapped.accessor));
            let state = shown(p.alice(), &wrapped.accessor).await.unwrap().state;
            let (opened, told) = (opened.is_ok(), revoked.unwrap().state);
            assert_eq!(state, if opened { "opened" } else { "revoked" });
            assert_eq!(told, state, "who revokes is told what became of it");
        }
    }
}
