//! Receivers that are down, hostile or slow; nodes that crash or race; rows that were altered.

use std::collections::HashSet;

use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{EntryFilter, ListEntriesRequest};
use strongroom::server::Node;

use super::*;
use crate::support::log::Log;
use crate::support::node::pin;

/// Asks, and takes it back.
async fn some(s: &Stage, times: usize) {
    for _ in 0..times {
        withdraw(&s.carol, &s.asked().await).await.unwrap();
    }
}

/// That everything came once, or again under the same id with the same body, and in order.
fn in_order(receiver: &Receiver, count: usize) {
    let sequence: Vec<_> =
        receiver.once().iter().map(|one| one.json()["sequence"].as_i64().unwrap()).collect();
    assert!(sequence.is_sorted() && sequence.len() == count, "{sequence:?}");
    for one in receiver.once() {
        let again: HashSet<_> = receiver
            .came()
            .into_iter()
            .filter(|it| it.id() == one.id())
            .map(|it| it.body)
            .collect();
        assert_eq!(again.len(), 1, "the same body");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_a_receiver_is_down_and_all_comes_in_order_afterwards() {
    for backend in BACKENDS {
        let receiver = Receiver::new().await;
        let (sinks, address) = (vec![posts_to(&receiver)], receiver.address);
        let s = Stage::of(told(Fixture::on(backend).await, sinks).await).await;
        receiver.waits_for("elevation-role.created").await;
        drop(receiver);
        some(&s, 5).await;
        let tried = "SELECT COUNT(*) FROM notice_sinks WHERE tries > 1";
        until("it is tried", async || {
            s.f.clock.advance(Duration::from_secs(2));
            number(&s.f, tried).await == 1
        })
        .await;
        let receiver = Receiver::at(address, None).await;
        settled(&s.f).await;
        in_order(&receiver, 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_receiver_answers_but_success_the_same_notice_is_sent_again() {
    let (receiver, elsewhere) = (Receiver::new().await, Receiver::new().await);
    let s = Stage::of(told(Fixture::new().await, vec![posts_to(&receiver)]).await).await;
    receiver.waits_for("elevation-role.created").await;
    let location = |code: &str| {
        let address = elsewhere.address;
        let head = format!("HTTP/1.1 {code} There\r\nlocation: http://{address}/\r\n");
        Answer::Bytes(format!("{head}content-length: 0\r\n\r\n").into_bytes())
    };
    let bad = [
        Answer::status("500 Oops"),
        Answer::status("404 Nobody"),
        Answer::status("410 Gone"),
        location("302"),
        location("307"),
        location("308"),
        Answer::Endless,
        Answer::Bytes(vec![]),
        Answer::Bytes(b"220 mail.test ESMTP\r\n".to_vec()),
        Answer::Bytes(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n".to_vec()),
        Answer::Hangs,
    ];
    let tries = bad.len();
    receiver.then(bad);
    some(&s, 1).await;
    settled(&s.f).await;
    let came = receiver.came();
    // The role's, then the first as often as it was not taken and once more, then the second.
    assert_eq!(came.len(), 1 + tries + 1 + 1);
    let ids: HashSet<_> = came[1..=tries + 1].iter().map(|one| one.id().to_owned()).collect();
    assert_eq!(ids.len(), 1, "the same id");
    in_order(&receiver, 3);
    assert!(elsewhere.came().is_empty(), "nothing is followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_be_long_without_being_read() {
    let receiver = Receiver::new().await;
    let s = Stage::of(told(Fixture::new().await, vec![posts_to(&receiver)]).await).await;
    let mut long = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n".to_vec();
    long.resize(1 << 20, b'x');
    receiver.usually(Some(Answer::Bytes(long)));
    some(&s, 1).await;
    settled(&s.f).await;
    assert_eq!(receiver.came().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_and_not_noted_down_before_a_crash_is_sent_again_under_its_id() {
    for backend in BACKENDS {
        let receiver = Receiver::new().await;
        let f = told(Fixture::on(backend).await, vec![posts_to(&receiver)]).await;
        let mut s = Stage::of(f).await;
        receiver.waits_for("elevation-role.created").await;
        receiver.then([Answer::Hangs]);
        s.asked().await;
        receiver.waits_for("elevation.requested").await;
        // It has come, the answer has not: the node ends in between.
        s.f.node.take().unwrap().stop_within(Duration::ZERO).await.unwrap();
        let claimed = "SELECT COUNT(*) FROM notice_sinks WHERE next_try IS NOT NULL AND tries = 0";
        assert_eq!(number(&s.f, claimed).await, 1);
        s.f.node = Some(Node::start(s.f.parts.clone(), pin()).await.unwrap());
        assert_eq!(receiver.came().len(), 2, "its claim stands");
        s.f.clock.advance(Duration::from_secs(61));
        settled(&s.f).await;
        let came = receiver.came();
        assert_eq!(came.len(), 3);
        assert_eq!((came[1].id(), &came[1].body), (came[2].id(), &came[2].body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_deliver_in_one_order_and_once() {
    for backend in BACKENDS {
        let receiver = Receiver::new().await;
        let f = told(Fixture::on(backend).await, vec![posts_to(&receiver)]).await;
        let s = Stage::of(f).await;
        // The embedded store serves one node; the other has only its own couriers there.
        let other = match backend {
            Backend::Postgres => Some(s.f.second_node().await),
            Backend::Sqlite => None,
        };
        some(&s, 12).await;
        settled(&s.f).await;
        in_order(&receiver, 25);
        assert_eq!(receiver.came().len(), 25, "each once");
        if let Some(other) = other {
            other.stop().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_is_given_up_with_an_entry_and_the_next_goes_on() {
    for backend in BACKENDS {
        let receiver = Receiver::new().await;
        let f = told(Fixture::on(backend).await, vec![posts_to(&receiver)]).await;
        let s = Stage::of(f).await;
        receiver.waits_for("elevation-role.created").await;
        receiver.usually(Some(Answer::status("503 Later")));
        some(&s, 1).await;
        receiver.waits_for("elevation.requested").await;
        s.f.clock.advance(Duration::from_hours(73));
        let given_up = "SELECT given_up FROM notice_sinks";
        // Its request ran out meanwhile, and was taken back before: both are too old.
        until("both are given up, each after a try", async || {
            s.f.clock.advance(Duration::from_secs(1));
            number(&s.f, given_up).await == 2
        })
        .await;
        assert!(receiver.kinds().contains(&"elevation.withdrawn".to_owned()));
        receiver.usually(None);
        deny(&s.dave, &s.asked().await).await.unwrap();
        receiver.waits_for("elevation.denied").await;
        let filter = EntryFilter { action: "notices.deliver".to_owned(), ..Default::default() };
        let request = ListEntriesRequest { filter: Some(filter), ..Default::default() };
        let listed = RecordServiceClient::new(s.second.clone()).list_entries(request).await;
        let entries = format!("{:?}", listed.unwrap().into_inner().entries);
        assert!(entries.contains("given up: nobody took it for too long"), "{entries}");
        assert!(entries.contains("the receiver answered 503"), "{entries}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_is_deleted_and_a_sink_that_was_away_goes_on_after_it() {
    for backend in BACKENDS {
        let receiver = Receiver::new().await;
        let f = told(Fixture::on(backend).await, vec![posts_to(&receiver)]).await;
        let mut s = Stage::of(f).await;
        receiver.waits_for("elevation-role.created").await;
        settled(&s.f).await;
        let sinks = std::mem::take(&mut s.f.parts.sinks);
        s.f.restart().await;
        let admin = s.f.connect(&s.f.admin).await;
        put(&admin, ElevationRole { name: "another".to_owned(), ..role() }).await.unwrap();
        s.f.clock.advance(Duration::from_hours(9 * 24));
        let kept = "SELECT COUNT(*) FROM notices";
        until("they are deleted", async || number(&s.f, kept).await == 0).await;
        s.f.parts.sinks = sinks;
        s.f.restart().await;
        let before = receiver.came().len();
        settled(&s.f).await;
        assert_eq!(receiver.came().len(), before);
        assert_eq!(number(&s.f, "SELECT given_up FROM notice_sinks").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_to_a_private_address_is_not_followed_unless_that_is_allowed() {
    let receiver = Receiver::new().await;
    let port = receiver.address.port();
    let to = |name: &str, host: &str, private| {
        let wire = Wire::new(host, port, private, &Roots::Public).unwrap();
        sink(name, Way::Webhook(WebhookSink::new(wire, false, format!("/{name}"), key())))
    };
    let sinks = vec![to("strict", "localhost", false), to("private", "localhost", true)];
    let s = Stage::of(told(Fixture::new().await, sinks).await).await;
    s.asked().await;
    until("the one comes", async || !receiver.came().is_empty()).await;
    let tried = "SELECT COUNT(*) FROM notice_sinks WHERE id = 'strict' AND tries > 0";
    until("the other is tried", async || number(&s.f, tried).await == 1).await;
    assert!(receiver.came().iter().all(|one| one.head.contains("/private")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_was_altered_or_taken_out_by_hand_is_an_alarm_and_the_next_goes_on() {
    let receiver = Receiver::new().await;
    let log = Log::begin();
    let f = told(Fixture::new().await, vec![posts_to(&receiver)]).await;
    let s = Stage::of(f).await;
    receiver.waits_for("elevation-role.created").await;
    receiver.then([Answer::status("500 Wait")]);
    some(&s, 2).await;
    let Location::Sqlite { path, .. } = &s.f.parts.location else { panic!("not embedded") };
    let store = rusqlite::Connection::open(path).unwrap();
    store.busy_timeout(Duration::from_secs(10)).unwrap();
    let third = "0000000000000003";
    let forged = "UPDATE notices SET facts = replace(facts, 'carol', 'mallory') WHERE id = ";
    store.execute_batch(&format!("{forged}'{third}'")).unwrap();
    store.execute_batch("DELETE FROM notices WHERE id = '0000000000000004'").unwrap();
    settled(&s.f).await;
    let sequence: Vec<_> =
        receiver.once().iter().map(|one| one.json()["sequence"].as_i64().unwrap()).collect();
    assert_eq!(sequence, [1, 2, 5], "2 and 5 are whole");
    assert!(receiver.came().iter().all(|one| !format!("{:?}", one.json()).contains("mallory")));
    assert!(log.text().contains("a notice is gone or altered"));
    assert_eq!(number(&s.f, "SELECT given_up FROM notice_sinks").await, 2);
}
