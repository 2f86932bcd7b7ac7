//! Whose a key is, how much room it takes in the HSM, and what becomes of it when it is gone.

use std::sync::Arc;
use std::time::Duration;

use strongroom::proto::{
    BackUpKeyRequest, CreateKeyRequest, NamedKey, RestoreKeyRequest, SignItem, SignRequest,
    TransferKeyRequest, UpdateKeyRequest,
};
use tonic::Code;

use super::{CIPHERS, Client, Place, client, create, decrypt, encrypt, rotate, show, spec, update};
use crate::support::hand::Hand;
use crate::support::logins::{human, login};
use crate::support::node::{BACKENDS, Backend};
use crate::support::target::until;

async fn admin(p: &Place) -> Client {
    client(&p.f.connect(&p.f.admin).await)
}

async fn transfer(
    client: &mut Client,
    name: &str,
    owner: &str,
    expected_version: i64,
) -> Result<NamedKey, Code> {
    let (name, owner) = (name.to_owned(), owner.to_owned());
    let request = TransferKeyRequest { name, owner, expected_version };
    let given = client.transfer_key(request).await.map_err(|status| status.code())?;
    Ok(given.into_inner().key.unwrap())
}

async fn back_up(client: &mut Client, name: &str) -> Result<Vec<u8>, Code> {
    let request = BackUpKeyRequest { name: name.to_owned() };
    let made = client.back_up_key(request).await.map_err(|status| status.code())?;
    Ok(made.into_inner().backup)
}

async fn restore(client: &mut Client, name: &str, backup: &[u8]) -> Result<NamedKey, Code> {
    let request = RestoreKeyRequest { name: name.to_owned(), backup: backup.to_vec() };
    let restored = client.restore_key(request).await.map_err(|status| status.code())?;
    Ok(restored.into_inner().key.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_takes_all_versions_along_and_the_new_owner_needs_no_grant() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        for verb in ["transfer", "create"] {
            p.grant("admin", verb, "keys/team/**").await;
        }
        let (mut alice, mut etl, mut admin) = (p.alice(), p.etl(), admin(&p).await);
        create(&mut alice, "team/a", "aes-256-gcm").await;
        let first = encrypt(&mut alice, "team/a", b"one", b"").await.unwrap();
        rotate(&mut alice, "team/a", 1).await.unwrap();
        let second = encrypt(&mut alice, "team/a", b"two", b"").await.unwrap();
        assert_eq!(decrypt(&mut etl, "team/a", &first, b"").await, Err(denied()));
        // Nobody gives to whom they may not name, nor what moved on.
        assert_eq!(transfer(&mut alice, "team/a", "etl", 2).await, Err(Code::PermissionDenied));
        assert_eq!(transfer(&mut etl, "team/a", "etl", 2).await, Err(Code::PermissionDenied));
        assert_eq!(transfer(&mut admin, "team/a", "etl", 1).await, Err(Code::Aborted));
        assert_eq!(transfer(&mut admin, "team/a", "nobody", 2).await, Err(Code::NotFound));
        assert_eq!(transfer(&mut admin, "team/none", "etl", 0).await, Err(Code::NotFound));
        let given = transfer(&mut admin, "team/a", "etl", 2).await.unwrap();
        assert_eq!((given.owner.as_str(), given.version), ("etl", 2));
        for (ciphertext, plain, version) in [(&first, "one", 1), (&second, "two", 2)] {
            let opened = decrypt(&mut etl, "team/a", ciphertext, b"").await.unwrap();
            assert_eq!(opened, (plain.as_bytes().to_vec(), version));
        }
        // Grants stay: alice has hers, and is the owner no more.
        decrypt(&mut alice, "team/a", &second, b"").await.unwrap();
        assert_eq!(rotate(&mut etl, "team/a", 2).await, Ok(3));
        let third = encrypt(&mut etl, "team/a", b"three", b"").await.unwrap();
        // To whom it belongs already it is given as well.
        assert_eq!(transfer(&mut admin, "team/a", "etl", 3).await.unwrap().owner, "etl");
        transfer(&mut admin, "team/a", "alice", 3).await.unwrap();
        assert_eq!(decrypt(&mut etl, "team/a", &third, b"").await, Err(denied()));
        assert_eq!(decrypt(&mut alice, "team/a", &third, b"").await.unwrap().1, 3);
    }
}

fn denied() -> String {
    Code::PermissionDenied.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identitys_room_in_the_hsm_is_never_exceeded_and_what_is_retired_gives_it_back() {
    for backend in BACKENDS {
        let p = Arc::new(Place::new(backend).await);
        let makes = (0..12_usize).map(|task| {
            let p = Arc::clone(&p);
            tokio::spawn(async move {
                let (mut made, mut refused) = (0, 0);
                for nth in 0..9 {
                    let request = spec(&format!("team/k{task}-{nth}"), "ecdsa-p256");
                    match p.alice().create_key(request).await {
                        Ok(_) => made += 1,
                        Err(status) if status.code() == Code::ResourceExhausted => refused += 1,
                        Err(status) => panic!("{status}"),
                    }
                }
                (made, refused)
            })
        });
        let mut sum = (0, 0);
        for make in makes.collect::<Vec<_>>() {
            let (made, refused) = make.await.unwrap();
            sum = (sum.0 + made, sum.1 + refused);
        }
        assert_eq!(sum, (100, 8));
        let mut alice = p.alice();
        let listed = Hand::new(&p.f.parts.location);
        let name = listed.ask("SELECT name FROM named_keys ORDER BY name LIMIT 1").await.remove(0);
        assert_eq!(rotate(&mut alice, &name, 1).await, Err(Code::ResourceExhausted));
        // Given away, a key's place is the other's.
        p.grant("admin", "transfer", "keys/team/**").await;
        let mut admin = admin(&p).await;
        transfer(&mut admin, &name, "etl", 1).await.unwrap();
        assert_eq!(rotate(&mut alice, &name, 1).await, Ok(2));
        transfer(&mut admin, &name, "alice", 2).await.map(drop).unwrap_err();
        let request = spec("team/again", "ecdsa-p256");
        alice.create_key(request).await.unwrap();
        // What is retired gives its place back, once it is destroyed.
        let retire = |request: UpdateKeyRequest| UpdateKeyRequest { min_version: 2, ..request };
        update(&mut alice, &name, retire).await.unwrap();
        until("it is destroyed", async || {
            show(&mut p.alice(), &name).await.unwrap().versions[1].state == "destroyed"
        })
        .await;
        let sign =
            SignRequest { name: name.clone(), items: vec![SignItem { message: b"x".to_vec() }] };
        alice.sign(sign).await.unwrap();
        assert_eq!(rotate(&mut alice, &name, 2).await, Ok(3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_gone_comes_back_with_all_that_it_opened() {
    for backend in BACKENDS {
        let mut p = Place::new(backend).await;
        let hand = Hand::new(&p.f.parts.location);
        for cipher in CIPHERS {
            let name = format!("team/{cipher}");
            let request = CreateKeyRequest { may_back_up: true, ..spec(&name, cipher) };
            let made = p.alice().create_key(request).await.unwrap().into_inner().key.unwrap();
            assert!(made.may_back_up);
            let first = encrypt(&mut p.alice(), &name, b"one", b"").await.unwrap();
            rotate(&mut p.alice(), &name, 1).await.unwrap();
            let backup = back_up(&mut p.alice(), &name).await.unwrap();
            assert!(!backup.windows(3).any(|part| part == b"one"));
            let second = encrypt(&mut p.alice(), &name, b"two", b"x").await.unwrap();
            // What is there is not put back, under its name or another.
            assert_eq!(restore(&mut p.alice(), &name, &backup).await, Err(Code::AlreadyExists));
            let other = restore(&mut p.alice(), "team/other", &backup).await;
            assert_eq!(other, Err(Code::InvalidArgument));
            for table in ["named_key_counts WHERE id IN (SELECT id FROM named_key_versions", ""] {
                let rows = match table {
                    "" => format!("named_key_versions WHERE named_key = '{}'", made.id),
                    table => format!("{table} WHERE named_key = '{}')", made.id),
                };
                hand.run(&format!("DELETE FROM {rows}")).await;
            }
            hand.run(&format!("DELETE FROM named_keys WHERE id = '{}'", made.id)).await;
            p.f.restart().await;
            p.alice = p.f.connect(&login(&p.f, "alice").await).await;
            p.etl = p.f.connect(&login(&p.f, "etl").await).await;
            let restored = restore(&mut p.alice(), &name, &backup).await.unwrap();
            assert_eq!((&restored.id, restored.owner.as_str()), (&made.id, "alice"));
            assert!(restored.may_back_up && restored.version >= 2);
            for (ciphertext, aad, plain) in [(&first, "", "one"), (&second, "x", "two")] {
                let opened = decrypt(&mut p.alice(), &name, ciphertext, aad.as_bytes()).await;
                assert_eq!(opened.unwrap().0, plain.as_bytes());
            }
            // Where messages are counted, what was counted since is not known: the next version
            // encrypts.
            if cipher != "xaes-256-gcm" {
                until("it is rotated", async || {
                    show(&mut p.alice(), &name).await.unwrap().key.unwrap().version == 3
                })
                .await;
            }
            let newest = if cipher == "xaes-256-gcm" { 2 } else { 3 };
            let again = encrypt(&mut p.alice(), &name, b"three", b"").await.unwrap();
            assert_eq!(decrypt(&mut p.alice(), &name, &again, b"").await.unwrap().1, newest);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_that_were_altered_or_are_others_put_nothing_back() {
    let mut p = Place::new(Backend::Sqlite).await;
    let request = CreateKeyRequest { may_back_up: true, ..spec("team/a", "xaes-256-gcm") };
    let made = p.alice().create_key(request).await.unwrap().into_inner().key.unwrap();
    create(&mut p.alice(), "team/b", "xaes-256-gcm").await;
    let (signer, hsm) = (spec("team/s", "ed25519"), "hsm".to_owned());
    let in_hsm = CreateKeyRequest { may_back_up: true, placement: hsm, ..signer };
    let refused = p.alice().create_key(in_hsm).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(back_up(&mut p.alice(), "team/b").await, Err(Code::FailedPrecondition));
    assert_eq!(back_up(&mut p.etl(), "team/a").await, Err(Code::PermissionDenied));
    assert_eq!(back_up(&mut p.alice(), "team/none").await, Err(Code::NotFound));
    let backup = back_up(&mut p.alice(), "team/a").await.unwrap();
    let hand = Hand::new(&p.f.parts.location);
    hand.run(&format!("DELETE FROM named_key_versions WHERE named_key = '{}'", made.id)).await;
    hand.run(&format!("DELETE FROM named_keys WHERE id = '{}'", made.id)).await;
    p.f.restart().await;
    p.alice = p.f.connect(&login(&p.f, "alice").await).await;
    // Every byte counts, those before what is sealed as well.
    for at in (0..backup.len()).step_by(3) {
        let mut bad = backup.clone();
        bad[at] ^= 1;
        let told = restore(&mut p.alice(), "team/a", &bad).await;
        assert_eq!(told, Err(Code::InvalidArgument), "{at}");
    }
    for cut in [0, 1, 56, 57, 100, backup.len() - 1] {
        let told = restore(&mut p.alice(), "team/a", &backup[..cut]).await;
        assert_eq!(told, Err(Code::InvalidArgument), "{cut}");
    }
    // A grant alone makes nobody the owner.
    let bob = human(&p.f, "bob").await;
    assert_eq!(restore(&mut client(&bob), "team/a", &backup).await, Err(Code::PermissionDenied));
    p.grant("bob", "restore", "keys/team/*").await;
    assert_eq!(restore(&mut client(&bob), "team/a", &backup).await, Err(Code::PermissionDenied));
    let elsewhere = Place::new(Backend::Sqlite).await;
    let told = restore(&mut elsewhere.alice(), "team/a", &backup).await;
    assert_eq!(told, Err(Code::InvalidArgument));
    restore(&mut p.alice(), "team/a", &backup).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_restored_counts_as_used_up_at_once() {
    let mut p = Place::new(Backend::Sqlite).await;
    let request = CreateKeyRequest { may_back_up: true, ..spec("team/a", "aes-256-gcm") };
    let made = p.alice().create_key(request).await.unwrap().into_inner().key.unwrap();
    let backup = back_up(&mut p.alice(), "team/a").await.unwrap();
    let hand = Hand::new(&p.f.parts.location);
    hand.run(&format!("DELETE FROM named_key_versions WHERE named_key = '{}'", made.id)).await;
    hand.run(&format!("DELETE FROM named_keys WHERE id = '{}'", made.id)).await;
    p.f.restart().await;
    p.alice = p.f.connect(&login(&p.f, "alice").await).await;
    restore(&mut p.alice(), "team/a", &backup).await.unwrap();
    let shown = show(&mut p.alice(), "team/a").await.unwrap();
    let first = shown.versions.iter().find(|version| version.version == 1).unwrap();
    assert_eq!(first.reserved, (1 << 32) - (1 << 16));
    // Whoever comes before the worker is refused, and nobody encrypts with it again.
    p.f.clock.advance(Duration::from_secs(1));
    match encrypt(&mut p.alice(), "team/a", b"x", b"").await {
        Ok(ciphertext) => {
            assert_eq!(decrypt(&mut p.alice(), "team/a", &ciphertext, b"").await.unwrap().1, 2);
        }
        Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
    }
}
