//! Ends that come: told once in the record, to owners and to whoever watches; and walks that take
//! their time.

use std::time::Duration;

use futures_util::future::join_all;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::{
    AddMemberRequest, CreateGroupRequest, Lifecycle, PutLifecycleRequest, UpdateIdentityRequest,
    WhoAmIResponse,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::support::hand::Hand;
use crate::support::logins::login;
use crate::support::target::until;

const DAY_S: i64 = 86_400;

async fn metrics(f: &Fixture) -> String {
    let mut stream = TcpStream::connect(f.node().http_addr.unwrap()).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn ends_in(client: &mut Client, name: &str, ttl_s: i64) -> i64 {
    let request =
        UpdateIdentityRequest { name: name.into(), ttl_s: Some(ttl_s), ..Default::default() };
    let updated = client.update_identity(request).await.unwrap().into_inner();
    updated.identity.unwrap().expires_at_ms
}

fn told(answer: &WhoAmIResponse) -> Option<&str> {
    let notices = &mut answer.notices.iter();
    notices.find(|notice| notice.code == "OWNED_EXPIRE_SOON").map(|notice| notice.message.as_str())
}

async fn whoami(channel: &Channel) -> WhoAmIResponse {
    Client::new(channel.clone()).who_am_i(WhoAmIRequest {}).await.unwrap().into_inner()
}

/// Lets the worker look again: it waits for a whole minute after its start, and between two looks.
async fn until_told(f: &Fixture, end_ms: i64) -> Vec<String> {
    let told = format!("SELECT id FROM identity_notices WHERE ends_at = {end_ms}");
    let hand = Hand::new(&f.parts.location);
    until("the end is told", async || {
        f.clock.advance(Duration::from_secs(2));
        !hand.ask(&told).await.is_empty()
    })
    .await;
    // Where several nodes run, a clock that was turned is not trusted for some seconds.
    until("the clock is trusted", async || {
        let asked = Client::new(f.connect(&f.admin).await).who_am_i(WhoAmIRequest {}).await;
        asked.is_ok()
    })
    .await;
    details(f, "identities.tell-end").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_within_its_notice_is_told_once_and_again_where_it_moves() {
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        register(&f, "carol", "human", "").await;
        let carol = login(&f, "carol").await;
        for (name, kind) in [("data/a", "pipeline"), ("data/b", "pipeline"), ("bot", "agent")] {
            register(&f, name, kind, "carol").await;
        }
        let notice = Lifecycle {
            kind: "agent".into(),
            notice_s: 3_600,
            max_ttl_s: DAY_S,
            max_age_s: DAY_S,
            rotation_s: DAY_S,
            ..Default::default()
        };
        let request = PutLifecycleRequest { lifecycle: Some(notice) };
        client.put_lifecycle(request).await.unwrap();
        assert_eq!(told(&whoami(&f.connect(&carol).await).await), None);
        let end = ends_in(&mut client, "data/a", 10 * DAY_S).await;
        // Ten days are far off, for an agent.
        ends_in(&mut client, "bot", 10 * DAY_S).await;
        // Counted at a start, and each minute from then on.
        f.restart().await;
        until("it is counted", async || {
            let text = metrics(&f).await;
            text.contains("strongroom_identities_ending{kind=\"pipeline\"} 1")
                && text.contains("strongroom_identities_ending{kind=\"agent\"} 0")
        })
        .await;
        let other = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(f.second_node().await),
        };
        let shown = strongroom::types::UnixMillis(end).to_string();
        let owner = whoami(&f.connect(&carol).await).await;
        let said = told(&owner).unwrap();
        assert!(said.contains(&format!("data/a ({shown});")), "{said}");
        assert_eq!(told(&whoami(&f.connect(&f.admin).await).await), None, "it is not the owner");
        assert_eq!(until_told(&f, end).await, [format!("ends {shown}; owner: carol")]);
        // Nobody is told again, by neither node.
        let end = ends_in(&mut admin(&f).await, "data/b", 5 * DAY_S).await;
        let shown = strongroom::types::UnixMillis(end).to_string();
        let second = format!("ends {shown}; owner: carol");
        assert_eq!(until_told(&f, end).await[0], second);
        let moved = ends_in(&mut admin(&f).await, "data/a", 6 * DAY_S).await;
        let third = until_told(&f, moved).await;
        assert!(third[0].contains(&strongroom::types::UnixMillis(moved).to_string()), "{third:?}");
        let end = ends_in(&mut admin(&f).await, "bot", 1_800).await;
        assert_eq!(until_told(&f, end).await.len(), 4, "each once");
        if let Some(other) = other {
            other.stop().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_in_a_group_that_owns_is_told_what_ends_and_machines_are_not() {
    let f = Fixture::new().await;
    let mut client = admin(&f).await;
    let carol = human(&f, "carol").await;
    let robot = machine(&f, "robot").await;
    let mut groups = GroupServiceClient::new(f.connect(&f.admin).await);
    let team = CreateGroupRequest { name: "data".into(), ..Default::default() };
    groups.create_group(team).await.unwrap();
    for identity in ["carol", "robot"] {
        let add = AddMemberRequest { group: "data".into(), identity: identity.into() };
        groups.add_member(add).await.unwrap();
    }
    for n in 0..7 {
        let name = format!("etl-{n}");
        let request = CreateIdentityRequest {
            owner_group: "data".into(),
            ttl_s: DAY_S * (i64::from(n) + 1),
            ..registration(&name, "pipeline", "")
        };
        create(&mut client, request).await.unwrap();
    }
    let me = whoami(&carol).await;
    let said = told(&me).unwrap();
    assert!(said.contains("etl-0 (") && said.contains("etl-4 (") && said.contains("and 2 more"));
    assert!(!said.contains("etl-5"), "{said}");
    assert_eq!(told(&whoami(&robot).await), None);
}

/// More than a walk looks at in one tick.
const MANY: usize = 600;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_over_is_suspended_however_many_there_are() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let mut client = admin(&f).await;
        let each = (0..MANY).map(|n| {
            let mut client = client.clone();
            let request = CreateIdentityRequest {
                ttl_s: 3_600,
                ..registration(&format!("over-{n:03}"), "agent", "admin")
            };
            async move { create(&mut client, request).await.unwrap() }
        });
        let each: Vec<_> = each.collect();
        let mut each = each.into_iter();
        loop {
            let some: Vec<_> = each.by_ref().take(50).collect();
            if some.is_empty() {
                break;
            }
            join_all(some).await;
        }
        f.clock.advance(Duration::from_hours(2));
        let suspended = async || {
            let sql = "SELECT name FROM identities WHERE state = 'suspended'";
            Hand::new(&f.parts.location).ask(sql).await.len()
        };
        let patience = std::time::Instant::now() + Duration::from_mins(2);
        while suspended().await < MANY {
            assert!(std::time::Instant::now() < patience, "{backend:?}");
            f.clock.advance(Duration::from_secs(2));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(show(&mut client, "admin").await.unwrap().state, "active");
    }
}
