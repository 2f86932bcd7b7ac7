//! Somebody who can write to the database: what was altered, moved or put back is refused.

use proptest::test_runner::{Config, TestRunner};
use prost::Message as _;
use strongroom::proto::{ErrorInfo, RpcStatus};
use tonic::{Code, Status};

use super::{CIPHERS, Place, create, decrypt, decrypt_all, encrypt, rotate};
use crate::support::hand::Hand;
use crate::support::logins::login;
use crate::support::node::{BACKENDS, Backend};

fn reason(status: &Status) -> String {
    let details = RpcStatus::decode(status.details()).unwrap().details;
    ErrorInfo::decode(details[0].value.as_slice()).unwrap().reason
}

/// A node that remembers nothing meets what somebody did meanwhile.
async fn anew(p: &mut Place) {
    p.f.restart().await;
    p.alice = p.f.connect(&login(&p.f, "alice").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_changed_bit_of_a_ciphertext_opens_nothing() {
    let p = Place::new(Backend::Sqlite).await;
    let mut alice = p.alice();
    for cipher in CIPHERS {
        let name = format!("team/{cipher}");
        create(&mut alice, &name, cipher).await;
        let mut runner = TestRunner::new(Config { cases: 4, ..Config::default() });
        let strategy = (1_usize..200, 0_usize..50);
        for _ in 0..4 {
            let tree = proptest::strategy::Strategy::new_tree(&strategy, &mut runner).unwrap();
            let (length, bound) = proptest::strategy::ValueTree::current(&tree);
            let (plaintext, aad) = (vec![b'c'; length], vec![b'a'; bound]);
            let ciphertext = encrypt(&mut alice, &name, &plaintext, &aad).await.unwrap();
            let forged: Vec<Vec<u8>> = (0..ciphertext.len() * 8)
                .map(|bit| {
                    let mut bad = ciphertext.clone();
                    bad[bit / 8] ^= 1 << (bit % 8);
                    bad
                })
                .collect();
            for part in forged.chunks(500) {
                let items: Vec<(&[u8], &[u8])> =
                    part.iter().map(|bad| (bad.as_slice(), aad.as_slice())).collect();
                for one in decrypt_all(&mut alice, &name, &items).await.unwrap() {
                    assert!(one.plaintext.is_empty());
                    let reason = one.fault.clone().unwrap().reason;
                    let known = ["INVALID", "OTHER_KEY", "DOES_NOT_OPEN"];
                    assert!(known.contains(&reason.as_str()), "{reason}");
                }
            }
            assert_eq!(decrypt(&mut alice, &name, &ciphertext, &aad).await, Ok((plaintext, 1)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_altered_is_refused_whatever_was_altered() {
    for backend in BACKENDS {
        let mut p = Place::new(backend).await;
        create(&mut p.alice(), "team/a", "aes-256-gcm").await;
        create(&mut p.alice(), "team/b", "aes-256-gcm").await;
        rotate(&mut p.alice(), "team/a", 1).await.unwrap();
        let ciphertext = encrypt(&mut p.alice(), "team/a", b"canary", b"").await.unwrap();
        let hand = Hand::new(&p.f.parts.location);
        let id = hand.ask("SELECT id FROM named_keys WHERE name = 'team/a'").await.remove(0);
        let etl = hand.ask("SELECT id FROM identities WHERE name = 'etl'").await.remove(0);
        let key = format!("named_keys WHERE id = '{id}'");
        let version = format!("named_key_versions WHERE named_key = '{id}' AND version = 2");
        for (rows, column, to) in [
            (&key, "owner", format!("'{etl}'")),
            (&key, "newest", "1".to_owned()),
            (&key, "min_version", "2".to_owned()),
            (&key, "algorithm", "'xaes-256-gcm'".to_owned()),
            (&key, "placement", "'hsm'".to_owned()),
            (&key, "state", "'disabled'".to_owned()),
            (&version, "state", "'failed'".to_owned()),
            (&version, "version", "3".to_owned()),
            (&version, "created_at", "1".to_owned()),
        ] {
            let (table, which) = rows.split_once(" WHERE ").unwrap();
            hand.run(&format!("CREATE TABLE kept AS SELECT * FROM {rows}")).await;
            hand.run(&format!("UPDATE {table} SET {column} = {to} WHERE {which}")).await;
            anew(&mut p).await;
            let status = encrypt(&mut p.alice(), "team/a", b"x", b"").await.unwrap_err();
            assert_eq!(reason(&status), "TAMPERED", "{rows} {column}");
            let restore = format!(
                "DELETE FROM {table} WHERE id IN (SELECT id FROM kept); \
                 INSERT INTO {table} SELECT * FROM kept; DROP TABLE kept"
            );
            hand.run(&restore).await;
        }
        anew(&mut p).await;
        let opened = decrypt(&mut p.alice(), "team/a", &ciphertext, b"").await;
        assert_eq!(opened, Ok((b"canary".to_vec(), 2)));
        // A name that is given to another key, and a version that is gone.
        hand.run(&format!(
            "UPDATE named_keys SET name = 'team/x' WHERE id = '{id}'; \
             UPDATE named_keys SET name = 'team/a' WHERE name = 'team/b'"
        ))
        .await;
        anew(&mut p).await;
        let status = encrypt(&mut p.alice(), "team/a", b"x", b"").await.unwrap_err();
        assert_eq!(reason(&status), "TAMPERED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_are_swapped_between_keys_or_removed_are_refused() {
    for backend in BACKENDS {
        let mut p = Place::new(backend).await;
        create(&mut p.alice(), "team/a", "aes-256-gcm").await;
        create(&mut p.alice(), "team/b", "aes-256-gcm").await;
        let hand = Hand::new(&p.f.parts.location);
        let of = async |name: &str| {
            let sql = format!(
                "SELECT v.id FROM named_key_versions v JOIN named_keys k ON k.id = v.named_key \
                 WHERE k.name = '{name}'"
            );
            hand.ask(&sql).await.remove(0)
        };
        let (a, b) = (of("team/a").await, of("team/b").await);
        let material = async |id: &str| {
            hand.bytes("material", &format!("named_key_versions WHERE id = '{id}'")).await
        };
        let (mine, theirs) = (material(&a).await, material(&b).await);
        let put = async |id: &str, bytes: &[u8]| {
            let bytes = hand.literal(bytes);
            hand.run(&format!(
                "UPDATE named_key_versions SET material = {bytes} WHERE id = '{id}'"
            ))
            .await;
        };
        put(&a, &theirs).await;
        put(&b, &mine).await;
        anew(&mut p).await;
        for name in ["team/a", "team/b"] {
            let status = encrypt(&mut p.alice(), name, b"x", b"").await.unwrap_err();
            assert_eq!(reason(&status), "TAMPERED");
        }
        put(&a, &mine).await;
        put(&b, &theirs).await;
        anew(&mut p).await;
        encrypt(&mut p.alice(), "team/a", b"x", b"").await.unwrap();
        hand.run(&format!("DELETE FROM named_key_versions WHERE id = '{a}'")).await;
        anew(&mut p).await;
        let status = encrypt(&mut p.alice(), "team/a", b"x", b"").await.unwrap_err();
        assert_eq!(reason(&status), "TAMPERED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_put_back_or_whose_count_is_gone_is_refused() {
    for backend in BACKENDS {
        let mut p = Place::new(backend).await;
        create(&mut p.alice(), "team/a", "aes-256-gcm").await;
        let hand = Hand::new(&p.f.parts.location);
        hand.run("CREATE TABLE old_keys AS SELECT * FROM named_keys").await;
        rotate(&mut p.alice(), "team/a", 1).await.unwrap();
        hand.run("CREATE TABLE new_keys AS SELECT * FROM named_keys").await;
        let puts = |rows: &str| {
            format!("DELETE FROM named_keys; INSERT INTO named_keys SELECT * FROM {rows}")
        };
        hand.run(&puts("old_keys")).await;
        // A node that never saw the newer row sees that the versions are ahead of it.
        anew(&mut p).await;
        let status = encrypt(&mut p.alice(), "team/a", b"x", b"").await.unwrap_err();
        assert_eq!(reason(&status), "TAMPERED");
        hand.run(&puts("new_keys")).await;
        hand.run("DELETE FROM named_key_counts").await;
        anew(&mut p).await;
        let status = encrypt(&mut p.alice(), "team/a", b"x", b"").await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "TAMPERED"));
    }
}
