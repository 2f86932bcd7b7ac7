//! The record held against the tables: whoever writes to the database cannot put an older row back,
//! take one away or put one in without its being named.

use std::time::Duration;

use serde_json::Value;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{EntryFilter, GetIdentityRequest, SuspendIdentityRequest};
use tonic::Code;

use super::{Audited, client, list};
use crate::support::hand::Hand;
use crate::support::logins::register;
use crate::support::node::{BACKENDS, Backend, Fixture};
use crate::support::target::until;

/// What a check says, and how the program ends: each fault as table, key and problem.
async fn checked(program: &Audited) -> (i32, Vec<[String; 3]>) {
    let (code, found, said) = program.run(&["verify", "--state"]).await;
    assert!(found["rows"].as_i64().unwrap() > 10, "{found} {said}");
    let text = |fault: &Value, field: &str| fault[field].as_str().unwrap().to_owned();
    let faults = found["faults"].as_array().unwrap().iter();
    let faults = faults.map(|fault| ["table", "key", "problem"].map(|field| text(fault, field)));
    (code, faults.collect())
}

async fn id_of(hand: &Hand, name: &str) -> String {
    hand.ask(&format!("SELECT id FROM identities WHERE name = '{name}'")).await.remove(0)
}

const FORGED: &str = "ffffffff-0000-7000-8000-0000000000ff";

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_put_back_taken_away_put_in_or_edited_is_named() {
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        for name in ["old", "gone", "edited"] {
            register(&f, name, "pipeline", "admin").await;
        }
        let (hand, program) = (Hand::new(&f.parts.location), Audited::new(&f));
        assert_eq!(checked(&program).await, (0, vec![]), "what requests write is right");
        hand.run("CREATE TABLE kept AS SELECT * FROM identities WHERE name = 'old'").await;
        let mut identities = IdentityServiceClient::new(f.connect(&f.admin).await);
        let suspend = SuspendIdentityRequest { name: "old".into(), reason: String::new() };
        identities.suspend_identity(suspend).await.unwrap();
        assert_eq!(checked(&program).await, (0, vec![]));

        let ids = [id_of(&hand, "old").await, id_of(&hand, "gone").await];
        let edited = id_of(&hand, "edited").await;
        hand.run(&format!(
            "DELETE FROM identities WHERE name IN ('old', 'gone'); \
             INSERT INTO identities SELECT * FROM kept; \
             UPDATE kept SET id = '{FORGED}', name = 'forged'; \
             INSERT INTO identities SELECT * FROM kept; \
             UPDATE identities SET tier = 'critical' WHERE name = 'edited'; DROP TABLE kept"
        ))
        .await;
        // The node that saw the newer row refuses the older one, whose MAC is right, without a check.
        let show = || GetIdentityRequest { name: "old".into() };
        let refused = identities.get_identity(show()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        let mut wrong = [
            (ids[0].as_str(), "older"),
            (ids[1].as_str(), "missing"),
            (edited.as_str(), "altered"),
            (FORGED, "inserted"),
        ];
        wrong.sort_unstable();
        let named: Vec<_> = wrong
            .iter()
            .map(|(id, problem)| ["identities", id, problem].map(str::to_owned))
            .collect();
        let sorted = |(code, mut faults): (i32, Vec<_>)| {
            faults.sort();
            (code, faults)
        };
        assert_eq!(sorted(checked(&program).await), (9, named.clone()));

        // One that never saw it names it, by itself, at its start.
        f.restart().await;
        let vault = f.node().vault.clone();
        until("it is checked", async || vault.state().report().is_some()).await;
        assert_eq!(vault.state().report().unwrap().wrong(), 4);
        let mut records = client(&f).await;
        let told = EntryFilter {
            identity: "system/upkeep".into(),
            action: "records.verify-state".into(),
            outcome: "TAMPERED".into(),
            ..EntryFilter::default()
        };
        until("it is on the record", async || {
            let found = list(&mut records.clone(), told.clone()).await;
            found.iter().any(|entry| entry.detail.contains(FORGED))
        })
        .await;
        let entries = list(&mut records, EntryFilter { identity: "admin".into(), ..told }).await;
        assert_eq!(entries.len(), 1, "who asked had it as well");
        assert_eq!(sorted(checked(&Audited::new(&f)).await), (9, named));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_checked_each_hour_and_an_altered_record_vouches_for_nothing() {
    let f = Fixture::on(Backend::Sqlite).await;
    let state = f.node().vault.clone();
    until("it was checked at the start", async || state.state().report().is_some()).await;
    let first = state.state().report().unwrap();
    assert_eq!((first.wrong(), first.rows > 10), (0, true));
    f.clock.advance(Duration::from_hours(1));
    until("an hour later again", async || {
        state.state().report().unwrap().checked_at > first.checked_at
    })
    .await;

    // A fold that begins anew reads the whole record: an entry that was edited is found.
    let hand = Hand::new(&f.parts.location);
    let place = hand.places().await[0];
    let which = format!("record_batches WHERE lane = {} AND seq = {}", place.lane, place.seq);
    let mut body = hand.bytes("body", &which).await;
    *body.last_mut().unwrap() ^= 1;
    let body = hand.literal(&body);
    let (lane, seq) = (place.lane, place.seq);
    hand.run(&format!(
        "UPDATE record_batches SET body = {body} WHERE lane = {lane} AND seq = {seq}"
    ))
    .await;
    let second = f.second_node().await;
    until("another node folds it", async || second.vault.state().report().is_some()).await;
    let report = second.vault.state().report().unwrap();
    assert_eq!(report.faults[0].wrong, strongroom::audit::Wrong::Record, "{report:?}");
    second.stop().await.unwrap();
}
