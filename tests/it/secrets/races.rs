//! Several at once: of two writers one wins, whatever they meet.

use futures_util::future::join_all;
use strongroom::proto::{DestroySecretRequest, TransferSecretRequest};
use tonic::Code;

use super::{Place, client, get, history, put};
use crate::support::logins::login;
use crate::support::node::{BACKENDS, Backend};

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_of_one_version_one_wins_and_the_others_are_told() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        put(&mut p.alice(), "team/other", b"makes alice's key", 0).await.unwrap();
        for round in 0..5 {
            let writers = (0..16).map(|n: u8| {
                let mut alice = p.alice();
                async move { put(&mut alice, "team/db", &[n], round).await }
            });
            let answers = join_all(writers).await;
            let won = answers.iter().position(|answer| *answer == Ok(round + 1)).unwrap();
            let told = answers.iter().filter(|answer| **answer == Err(Code::Aborted)).count();
            assert_eq!(told, 15, "{answers:?}");
            let value = get(&mut p.alice(), "team/db", 0).await.unwrap();
            assert_eq!(value, [u8::try_from(won).unwrap()], "what is kept is the winner's");
        }
        assert_eq!(history(&mut p.alice(), "team/db").await.unwrap().len(), 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_write_one_version_once() {
    let p = Place::new(Backend::Postgres).await;
    let second = p.f.second_node().await;
    let there = p.f.connect_to(&second, &login(&p.f, "alice").await).await;
    put(&mut p.alice(), "team/db", b"0", 0).await.unwrap();
    for round in 1..10 {
        let (mut here, mut there) = (p.alice(), client(&there));
        let both = tokio::join!(
            put(&mut here, "team/db", b"here", round),
            put(&mut there, "team/db", b"there", round)
        );
        let told = Err(Code::Aborted);
        let won = Ok(round + 1);
        assert!(both == (won, told) || both == (told, won), "{both:?}");
        let wanted: &[u8] = if both.0 == won { b"here" } else { b"there" };
        let seen = [get(&mut here, "team/db", 0).await, get(&mut there, "team/db", 0).await];
        assert_eq!(seen, [Ok(wanted.to_vec()), Ok(wanted.to_vec())]);
    }
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_and_a_write_at_once_leave_every_version_readable() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let admin = p.f.connect(&p.f.admin).await;
        p.grant("admin", "transfer", "secrets/team/*").await;
        put(&mut p.alice(), "team/db", b"0", 0).await.unwrap();
        let mut newest = 1;
        for round in 0..12 {
            let owner = if round % 2 == 0 { "etl" } else { "alice" };
            let transfer = TransferSecretRequest {
                path: "team/db".into(),
                owner: owner.into(),
                expected_version: 0,
            };
            let (mut alice, mut admin) = (p.alice(), client(&admin));
            let (moved, written) = tokio::join!(
                admin.transfer_secret(transfer),
                put(&mut alice, "team/db", b"next", newest)
            );
            let moved = moved.map(drop).map_err(|status| status.code());
            assert!(moved.is_ok() || moved == Err(Code::Aborted), "{moved:?}");
            match written {
                Ok(version) => newest = version,
                Err(code) => assert_eq!(code, Code::Aborted),
            }
            for version in (1..=newest).rev().take(10) {
                get(&mut p.alice(), "team/db", version).await.unwrap();
            }
        }
        assert!(newest > 1, "some were written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_after_the_answer_to_a_destruction_gets_nothing() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        for n in 0..8 {
            let path = format!("team/n{n}");
            put(&mut p.alice(), &path, b"one", 0).await.unwrap();
            let readers = (0..8).map(|_| {
                let (mut alice, path) = (p.alice(), path.clone());
                async move { get(&mut alice, &path, 0).await }
            });
            let mut alice = p.alice();
            let destroy =
                DestroySecretRequest { path: path.clone(), all: true, ..Default::default() };
            let (read, done) = tokio::join!(join_all(readers), alice.destroy_secret(destroy));
            done.unwrap();
            for answer in read {
                let told = Err(Code::FailedPrecondition);
                assert!(answer == Ok(b"one".to_vec()) || answer == told, "{answer:?}");
            }
            let after = get(&mut p.alice(), &path, 0).await;
            assert_eq!(after, Err(Code::FailedPrecondition));
        }
    }
}
