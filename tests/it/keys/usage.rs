//! Who used a key, as the record says.

use std::time::Duration;

use strongroom::proto::{
    GetKeyUsageRequest, GetKeyUsageResponse, KeyUsage, ListKeysRequest, NamedKey,
};
use tonic::Code;

use super::{Client, Place, client, create, decrypt, encrypt, rotate, show};
use crate::support::logins::login_for;
use crate::support::node::BACKENDS;

async fn page(client: &mut Client, name: &str, size: i32, token: &str) -> GetKeyUsageResponse {
    let (name, page_token) = (name.to_owned(), token.to_owned());
    let request = GetKeyUsageRequest { name, page_size: size, page_token };
    client.get_key_usage(request).await.unwrap().into_inner()
}

/// Connects as somebody for longer than the test turns the clock.
async fn lasting(p: &Place, name: &str) -> Client {
    let login = login_for(&p.f, name, Some(Duration::from_hours(24 * 10))).await;
    client(&p.f.connect(&login).await)
}

async fn unused(client: &mut Client, seconds: i64) -> Vec<String> {
    let request = ListKeysRequest { unused_for_s: seconds, ..Default::default() };
    let keys = client.list_keys(request).await.unwrap().into_inner().keys;
    keys.into_iter().map(|key| key.name).collect()
}

async fn key(client: &mut Client, name: &str) -> NamedKey {
    show(client, name).await.unwrap().key.unwrap()
}

fn told(usage: &KeyUsage) -> (i64, &str, i64, &str, i64) {
    let KeyUsage { day_ms, by, version, purpose, uses, .. } = usage;
    (*day_ms / 86_400_000, by, *version, purpose, *uses)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_says_who_used_which_version_for_what_and_how_often_by_day() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let (mut alice, mut etl) = (lasting(&p, "alice").await, lasting(&p, "etl").await);
        p.grant("etl", "decrypt", "keys/team/a").await;
        create(&mut alice, "team/a", "aes-256-gcm").await;
        create(&mut alice, "team/b", "aes-256-gcm").await;
        assert_eq!(key(&mut alice, "team/a").await.last_use, None);
        let first = encrypt(&mut alice, "team/a", b"one", b"").await.unwrap();
        encrypt(&mut alice, "team/a", b"one", b"").await.unwrap();
        rotate(&mut alice, "team/a", 1).await.unwrap();
        encrypt(&mut alice, "team/a", b"two", b"").await.unwrap();
        p.f.clock.advance(Duration::from_hours(24));
        decrypt(&mut etl, "team/a", &first, b"").await.unwrap();
        // What does not open was used all the same; who was refused used nothing.
        decrypt(&mut etl, "team/a", &first, b"wrong").await.unwrap_err();
        encrypt(&mut etl, "team/a", b"x", b"").await.unwrap_err();
        p.f.node().vault.integrate().await.unwrap();

        let all = page(&mut alice, "team/a", 0, "").await;
        let rows: Vec<_> = all.rows.iter().map(told).collect();
        let today = rows[0].0;
        assert_eq!(
            rows,
            [
                (today, "etl", 1, "decrypt/sealed", 2),
                (today - 1, "alice", 1, "encrypt/sealed", 2),
                (today - 1, "alice", 2, "encrypt/sealed", 1),
            ]
        );
        // Page by page it is the same, once each, and what is folded is not folded again.
        p.f.node().vault.integrate().await.unwrap();
        let (mut token, mut found) = (String::new(), Vec::new());
        loop {
            let one = page(&mut alice, "team/a", 1, &token).await;
            found.extend(one.rows);
            if one.next_page_token.is_empty() {
                break;
            }
            token = one.next_page_token;
        }
        assert_eq!(found, all.rows);
        let last = key(&mut alice, "team/a").await.last_use.unwrap();
        assert_eq!((last.by.as_str(), last.version), ("etl", 1));
        assert_eq!((last.purpose.as_str(), last.at_ms), ("decrypt/sealed", all.rows[0].last_at_ms));

        // Unused is what nobody used for so long, nor made.
        assert_eq!(unused(&mut alice, 3_600).await, ["team/b"]);
        assert_eq!(unused(&mut alice, 2 * 86_400).await, [""; 0]);
        p.f.clock.advance(Duration::from_hours(48));
        assert_eq!(unused(&mut alice, 86_400).await, ["team/a", "team/b"]);

        let request = GetKeyUsageRequest { name: "team/a".into(), ..Default::default() };
        let refused = etl.get_key_usage(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_keys_each_use_is_counted_and_each_last_use_is_known() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        for n in 0..18 {
            create(&mut alice, &format!("team/m{n:02}"), "aes-256-gcm").await;
        }
        // All of it in one step of the log.
        for n in 0..18 {
            encrypt(&mut alice, &format!("team/m{n:02}"), b"one", b"").await.unwrap();
        }
        p.f.node().vault.integrate().await.unwrap();
        for n in 0..18 {
            let name = format!("team/m{n:02}");
            let rows = page(&mut alice, &name, 0, "").await.rows;
            assert_eq!(rows.iter().map(|row| row.uses).collect::<Vec<_>>(), [1], "{name}");
            let last = key(&mut alice, &name).await.last_use.unwrap();
            assert_eq!((last.at_ms, last.by.as_str()), (rows[0].last_at_ms, "alice"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_it_is_kept_is_forgotten_and_the_last_use_is_not() {
    let p = Place::new(BACKENDS[0]).await;
    let mut alice = p.alice();
    create(&mut alice, "team/a", "aes-256-gcm").await;
    encrypt(&mut alice, "team/a", b"one", b"").await.unwrap();
    p.f.node().vault.integrate().await.unwrap();
    p.f.node().vault.purge_key_usage().await.unwrap();
    assert_eq!(page(&mut alice, "team/a", 0, "").await.rows.len(), 1);
    let last = key(&mut alice, "team/a").await.last_use;
    p.f.clock.advance(Duration::from_hours(24 * 402));
    p.f.node().vault.purge_key_usage().await.unwrap();
    // Logins are over by then: the store itself is asked.
    let hand = crate::support::hand::Hand::new(&p.f.parts.location);
    assert_eq!(hand.ask("SELECT CAST(COUNT(*) AS TEXT) FROM key_usage").await, ["0"]);
    let kept = hand.ask("SELECT CAST(last_at AS TEXT) FROM key_last_usage").await;
    assert_eq!(kept, [last.unwrap().at_ms.to_string()]);
}
