//! Somebody who can write to the database: what was altered, moved or put back is refused.

use prost::Message as _;
use strongroom::proto::{ErrorInfo, RpcStatus};
use strongroom::types::Id;
use tonic::{Code, Status};

use super::{Place, fetch, get, history, put};
use crate::support::hand::Hand;
use crate::support::node::{BACKENDS, Backend};

fn reason(status: &Status) -> String {
    let details = RpcStatus::decode(status.details()).unwrap().details;
    ErrorInfo::decode(details[0].value.as_slice()).unwrap().reason
}

/// Reads a secret that somebody meddled with: refused, and nothing of a value in the answer.
async fn refused(p: &Place, path: &str, version: i64) -> Status {
    let status = fetch(&mut p.alice(), path, version).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(!format!("{status:?}").contains("canary"), "{status:?}");
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_altered_is_refused_whatever_was_altered() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        for n in 0..3 {
            put(&mut alice, "team/db", b"canary", n).await.unwrap();
        }
        put(&mut alice, "team/other", b"canary", 0).await.unwrap();
        let hand = Hand::new(&p.f.parts.location);
        let id = hand.ask("SELECT id FROM secrets WHERE path = 'team/db'").await.remove(0);
        let etl = hand.ask("SELECT id FROM identities WHERE name = 'etl'").await.remove(0);
        let of_head = format!("secret_heads WHERE id = '{id}'");
        let of_secret = format!("secrets WHERE id = '{id}'");
        let of_newest = format!("secret_versions WHERE secret = '{id}' AND version = 3");
        for (rows, column, to) in [
            (&of_secret, "owner", format!("'{etl}'")),
            (&of_secret, "labels", "'{\"a\":\"b\"}'".to_owned()),
            (&of_secret, "max_versions", "99".to_owned()),
            (&of_secret, "changed_at", "changed_at + 1".to_owned()),
            (&of_head, "newest", "2".to_owned()),
            (&of_newest, "len_bytes", "99".to_owned()),
            (&of_newest, "is_json", "1".to_owned()),
            (&of_newest, "expires_at", "9999999999999".to_owned()),
            (&of_newest, "exposed_at", "1".to_owned()),
            (&of_newest, "root", "1".to_owned()),
            (&of_newest, "state", "'deleted'".to_owned()),
        ] {
            let (table, which) = rows.split_once(" WHERE ").unwrap();
            hand.run(&format!("CREATE TABLE kept AS SELECT * FROM {rows}")).await;
            hand.run(&format!("UPDATE {table} SET {column} = {to} WHERE {which}")).await;
            let status = refused(&p, "team/db", 0).await;
            assert_eq!(reason(&status), "TAMPERED", "{rows} {column}");
            hand.run(&format!(
                "DELETE FROM {rows}; INSERT INTO {table} SELECT * FROM kept; DROP TABLE kept"
            ))
            .await;
            get(&mut alice, "team/db", 0).await.unwrap();
        }
        // A name that is given to another secret.
        hand.run(&format!(
            "UPDATE secrets SET path = 'team/x' WHERE id = '{id}'; \
             UPDATE secrets SET path = 'team/db' WHERE path = 'team/other'"
        ))
        .await;
        assert_eq!(reason(&refused(&p, "team/db", 0).await), "TAMPERED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ciphertext_that_was_moved_or_altered_does_not_open() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        put(&mut alice, "team/db", b"canary-1", 0).await.unwrap();
        put(&mut alice, "team/db", b"canary-2", 1).await.unwrap();
        put(&mut alice, "team/other", b"canary-3", 0).await.unwrap();
        let hand = Hand::new(&p.f.parts.location);
        let version = async |path: &str, number: i64| {
            let sql = format!(
                "SELECT v.id FROM secret_versions v JOIN secrets s ON s.id = v.secret \
                 WHERE s.path = '{path}' AND v.version = {number}"
            );
            hand.ask(&sql).await.remove(0)
        };
        let (one, two) = (version("team/db", 1).await, version("team/db", 2).await);
        let other = version("team/other", 1).await;
        let message = async |id: &str| {
            let rest = format!("secret_values WHERE id = '{id}'");
            hand.bytes("message", &rest).await
        };
        let set = async |id: &str, bytes: &[u8]| {
            let bytes = hand.literal(bytes);
            hand.run(&format!("UPDATE secret_values SET message = {bytes} WHERE id = '{id}'"))
                .await;
        };
        let mine = message(&two).await;
        let (older, foreign) = (message(&one).await, message(&other).await);
        let mut flipped = mine.clone();
        flipped[30] ^= 1;
        let (cut, longer) = (mine[..mine.len() - 1].to_vec(), [mine.as_slice(), b"x"].concat());
        for bytes in [older, foreign, flipped, cut, longer, Vec::new()] {
            set(&two, &bytes).await;
            assert_eq!(reason(&refused(&p, "team/db", 2).await), "DENIED");
        }
        hand.run(&format!("DELETE FROM secret_values WHERE id = '{two}'")).await;
        assert_eq!(reason(&refused(&p, "team/db", 2).await), "TAMPERED");
        let bytes = hand.literal(&mine);
        hand.run(&format!("INSERT INTO secret_values (id, message) VALUES ('{two}', {bytes})"))
            .await;
        assert_eq!(get(&mut alice, "team/db", 2).await, Ok(b"canary-2".to_vec()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_put_back_or_gone_are_refused() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        put(&mut alice, "team/db", b"canary-1", 0).await.unwrap();
        let hand = Hand::new(&p.f.parts.location);
        hand.run("CREATE TABLE old_heads AS SELECT * FROM secret_heads").await;
        put(&mut alice, "team/db", b"canary-2", 1).await.unwrap();
        get(&mut alice, "team/db", 0).await.unwrap();
        hand.run("CREATE TABLE new_heads AS SELECT * FROM secret_heads").await;
        let puts_back = |heads: &str| {
            format!("DELETE FROM secret_heads; INSERT INTO secret_heads SELECT * FROM {heads}")
        };
        hand.run(&puts_back("old_heads")).await;
        assert_eq!(reason(&refused(&p, "team/db", 0).await), "TAMPERED");
        if backend == Backend::Postgres {
            // A node that never saw the newer head sees that the versions are ahead of it.
            let second = p.f.second_node().await;
            let login = crate::support::logins::login(&p.f, "alice").await;
            let mut there = super::client(&p.f.connect_to(&second, &login).await);
            let status = fetch(&mut there, "team/db", 0).await.unwrap_err();
            assert_eq!(reason(&status), "TAMPERED", "{status}");
            assert!(history(&mut there, "team/db").await.is_err());
            second.stop().await.unwrap();
        }
        hand.run(&puts_back("new_heads")).await;
        get(&mut alice, "team/db", 0).await.unwrap();
        // The newest version alone is removed, or the head.
        hand.run("CREATE TABLE kept AS SELECT * FROM secret_versions WHERE version = 2").await;
        hand.run("DELETE FROM secret_versions WHERE version = 2").await;
        for version in [0, 2] {
            assert_eq!(reason(&refused(&p, "team/db", version).await), "TAMPERED", "{version}");
        }
        hand.run("INSERT INTO secret_versions SELECT * FROM kept; DELETE FROM secret_heads").await;
        assert_eq!(reason(&refused(&p, "team/db", 0).await), "TAMPERED");
        assert_eq!(put(&mut alice, "team/db", b"x", 0).await, Err(Code::PermissionDenied));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_destroyed_and_put_back_opens_on_no_node() {
    for backend in BACKENDS {
        let mut p = Place::new(backend).await;
        put(&mut p.alice(), "team/db", b"canary", 0).await.unwrap();
        let hand = Hand::new(&p.f.parts.location);
        hand.run("CREATE TABLE kept AS SELECT * FROM secret_versions").await;
        hand.run("CREATE TABLE kept_values AS SELECT * FROM secret_values").await;
        for version in 1..=10 {
            put(&mut p.alice(), "team/db", b"more", version).await.unwrap();
        }
        hand.run("DELETE FROM secret_versions WHERE version = 1").await;
        hand.run("INSERT INTO secret_versions SELECT * FROM kept").await;
        hand.run("INSERT INTO secret_values SELECT * FROM kept_values").await;
        // It never saw the version destroyed.
        p.f.restart().await;
        let login = crate::support::logins::login(&p.f, "alice").await;
        let mut again = super::client(&p.f.connect(&login).await);
        let status = fetch(&mut again, "team/db", 1).await.unwrap_err();
        assert_eq!(reason(&status), "TAMPERED", "{status}");
        assert_eq!(get(&mut again, "team/db", 0).await, Ok(b"more".to_vec()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_changed_bit_of_a_path_an_owner_or_a_version_is_refused() {
    let p = Place::new(Backend::Sqlite).await;
    let mut alice = p.alice();
    p.grant("alice", "get", "secrets/**").await;
    put(&mut alice, "team/db", b"canary", 0).await.unwrap();
    let hand = Hand::new(&p.f.parts.location);
    let alter = async |table: &str, column: &str, to: &str| {
        hand.run(&format!("UPDATE {table} SET {column} = {to}")).await;
    };
    for bit in 0..7 * 8 {
        let mut bytes = b"team/db".to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // What is no text is no name that anybody asks for.
        let Ok(path) = String::from_utf8(bytes) else { continue };
        let text = format!("CAST({} AS TEXT)", hand.literal(path.as_bytes()));
        alter("secrets", "path", &text).await;
        let status = fetch(&mut alice, &path, 0).await.unwrap_err();
        if status.code() != Code::InvalidArgument {
            assert_eq!(reason(&status), "TAMPERED", "{path:?}");
        }
        assert_eq!(get(&mut alice, "team/db", 0).await, Err(Code::NotFound), "{path:?}");
    }
    alter("secrets", "path", "'team/db'").await;
    get(&mut alice, "team/db", 0).await.unwrap();
    let owner = hand.ask("SELECT owner FROM secrets").await.remove(0);
    let id: Id = owner.parse().unwrap();
    for bit in 0..128 {
        let mut bytes = *id.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        alter("secrets", "owner", &format!("'{}'", Id::from_bytes(bytes))).await;
        assert_eq!(reason(&refused(&p, "team/db", 0).await), "TAMPERED", "{bit}");
    }
    alter("secrets", "owner", &format!("'{owner}'")).await;
    for bit in 0..63 {
        alter("secret_versions", "version", &(1_i64 ^ (1 << bit)).to_string()).await;
        assert_eq!(reason(&refused(&p, "team/db", 0).await), "TAMPERED", "{bit}");
    }
    alter("secret_versions", "version", "1").await;
    assert_eq!(get(&mut alice, "team/db", 0).await, Ok(b"canary".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_swapped_between_identities_open_nothing() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        p.grant("etl", "put", "secrets/etl/*").await;
        put(&mut p.alice(), "team/db", b"canary-1", 0).await.unwrap();
        put(&mut p.etl(), "etl/db", b"canary-2", 0).await.unwrap();
        let hand = Hand::new(&p.f.parts.location);
        let read = async || {
            let of = |given: Result<strongroom::proto::GetSecretResponse, Status>| match given {
                Ok(given) => Ok(given.value),
                Err(status) => {
                    assert!(!format!("{status:?}").contains("canary"), "{status:?}");
                    Err(reason(&status))
                }
            };
            let mine = fetch(&mut p.alice(), "team/db", 0).await;
            [of(mine), of(fetch(&mut p.etl(), "etl/db", 0).await)]
        };
        let whole: [Result<Vec<u8>, String>; 2] =
            [Ok(b"canary-1".to_vec()), Ok(b"canary-2".to_vec())];
        assert_eq!(read().await, whole);
        for (table, columns, told) in [
            ("secret_values", &["message"][..], "DENIED"),
            ("secret_versions", &["wrap", "wrap_key"], "TAMPERED"),
            ("secrets", &["owner"], "TAMPERED"),
            ("secret_heads", &["mac"], "TAMPERED"),
        ] {
            let others = |column: &&str| {
                format!("{column} = (SELECT k.{column} FROM kept k WHERE k.id <> {table}.id)")
            };
            let swaps: Vec<_> = columns.iter().map(others).collect();
            hand.run(&format!("CREATE TABLE kept AS SELECT * FROM {table}")).await;
            hand.run(&format!("UPDATE {table} SET {}", swaps.join(", "))).await;
            let refused: [Result<Vec<u8>, String>; 2] =
                [Err(told.to_owned()), Err(told.to_owned())];
            assert_eq!(read().await, refused, "{table} {columns:?}");
            hand.run(&format!(
                "DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept; DROP TABLE kept"
            ))
            .await;
            assert_eq!(read().await, whole, "{table} {columns:?}");
        }
    }
}
