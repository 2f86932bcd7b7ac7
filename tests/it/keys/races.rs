//! Several at once, on one node and on two.

use futures_util::future::join_all;
use strongroom::proto::UpdateKeyRequest;
use tonic::Code;

use super::{Place, client, create, decrypt, encrypt, rotate, update};
use crate::support::logins::login;
use crate::support::node::{BACKENDS, Backend};

#[tokio::test(flavor = "multi_thread")]
async fn of_many_rotations_of_one_version_one_wins() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        for (name, algorithm) in [("team/a", "aes-256-gcm"), ("team/b", "ecdsa-p256")] {
            create(&mut p.alice(), name, algorithm).await;
            for round in 1..4 {
                let racing = (0..8).map(|_| {
                    let mut alice = p.alice();
                    async move { rotate(&mut alice, name, round).await }
                });
                let answers = join_all(racing).await;
                let won = answers.iter().filter(|answer| answer.is_ok()).count();
                assert_eq!(won, 1, "{answers:?}");
                let told = answers.iter().filter(|answer| **answer == Err(Code::Aborted)).count();
                assert_eq!(told, 7, "{answers:?}");
                let newest = answers.into_iter().find_map(Result::ok).unwrap();
                if name == "team/a" {
                    assert_eq!(newest, round + 1);
                } else {
                    break;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_encrypts_while_two_nodes_rotate_gets_what_opens() {
    let p = Place::new(Backend::Postgres).await;
    let second = p.f.second_node().await;
    let there = p.f.connect_to(&second, &login(&p.f, "alice").await).await;
    create(&mut p.alice(), "team/a", "aes-256-gcm").await;
    for round in 1..6 {
        let encrypting = [p.alice.clone(), there.clone()].into_iter().cycle().take(16);
        let encrypting = encrypting.map(|channel| async move {
            encrypt(&mut client(&channel), "team/a", b"canary", b"aad").await
        });
        let (mut here, mut over) = (p.alice(), client(&there));
        let (ciphertexts, one, two) = tokio::join!(
            join_all(encrypting),
            rotate(&mut here, "team/a", round),
            rotate(&mut over, "team/a", round)
        );
        let both = [one, two];
        assert!(both.contains(&Ok(round + 1)) && both.contains(&Err(Code::Aborted)), "{both:?}");
        for ciphertext in ciphertexts.into_iter().filter_map(Result::ok) {
            for channel in [&p.alice, &there] {
                let opened = decrypt(&mut client(channel), "team/a", &ciphertext, b"aad").await;
                let (plaintext, version) = opened.unwrap();
                assert_eq!(plaintext, b"canary");
                assert!(version == round || version == round + 1, "{version}");
            }
        }
        // After the answer nobody encrypts with what was the newest, on either node.
        for channel in [&p.alice, &there] {
            let ciphertext = encrypt(&mut client(channel), "team/a", b"x", b"").await.unwrap();
            assert_eq!(ciphertext[17..21], u32::try_from(round + 1).unwrap().to_be_bytes());
        }
    }
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_after_the_answer_to_a_disabling_gets_nothing_on_either_node() {
    let p = Place::new(Backend::Postgres).await;
    let second = p.f.second_node().await;
    let there = p.f.connect_to(&second, &login(&p.f, "alice").await).await;
    create(&mut p.alice(), "team/a", "xaes-256-gcm").await;
    let ciphertext = encrypt(&mut client(&there), "team/a", b"x", b"").await.unwrap();
    for state in ["disabled", "active", "disabled"] {
        let turn =
            |request: UpdateKeyRequest| UpdateKeyRequest { state: state.to_owned(), ..request };
        update(&mut p.alice(), "team/a", turn).await.unwrap();
        for channel in [&p.alice, &there] {
            let mut client = client(channel);
            let encrypted = encrypt(&mut client, "team/a", b"x", b"").await;
            let opened = decrypt(&mut client, "team/a", &ciphertext, b"").await;
            assert_eq!(encrypted.is_ok(), state == "active");
            assert_eq!(opened.is_ok(), state == "active");
        }
    }
    second.stop().await.unwrap();
}
