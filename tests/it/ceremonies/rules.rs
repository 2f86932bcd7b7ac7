//! Who holds a ceremony, and what voids one.

use std::sync::Arc;

use strongroom::audit::RecordCodec;
use strongroom::engines::ceremonies::administrators_apart;
use strongroom::keyring::{FinalTry, Keyring};
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    CancelCeremonyRequest, DenyCeremonyRequest, EntryFilter, ListEntriesRequest,
    ResumeIdentityRequest, SuspendIdentityRequest, UpdateIdentityRequest,
};
use strongroom::store::{RowSealer, Store};
use strongroom::types::{SystemEntropy, TaskGroup, UnixMillis};

use super::*;
use crate::support::logins::login;
use crate::support::node::{BACKENDS, pin};

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, because: &str) {
    let refusal = answer.unwrap_err();
    assert!(refusal.message().contains(because), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_administrators_hold_one_and_it_is_performed_once() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let asked = opened(&s.second, "etl").await;
        assert_eq!((asked.needed, asked.missing, asked.state.as_str()), (2, 1, "open"));
        assert_eq!(asked.action, "identities.shred");
        assert_eq!(asked.resources, ["identities/etl"]);
        assert!(asked.terms.iter().any(|term| term.value == "a test"), "{asked:?}");
        // Asked for again it is the same one, and nothing was done.
        assert_eq!(opened(&s.second, "etl").await.id, asked.id);
        assert!(shredding(&s.admin, "etl").await.shred.is_none());

        // By oneself, by a login that an administrator signed for a key of their own, by who is of
        // the side of who asks, or of something else than was seen, it is not approved.
        refused(approve(&s.second, &asked).await, "whichever account");
        let signed = s.f.connect(&login(&s.f, "third").await).await;
        refused(approve(&signed, &asked).await, "totp");
        let other = Ceremony { hash: "00".repeat(32), ..asked.clone() };
        refused(approve(&s.third, &other).await, "not what was seen");
        let human = account(&s.f, &s.admin, "human", "").await;
        assert_eq!(approve(&human, &asked).await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(find(&s.third, &asked.id).await.votes.len(), 0);

        let approved = approve(&s.third, &asked).await.unwrap();
        assert_eq!((approved.state.as_str(), approved.missing), ("approved", 0));
        refused(approve(&s.third, &asked).await, "each person counts once");
        // It is for who asked alone.
        let theirs = opened(&s.third, "etl").await;
        assert_ne!(theirs.id, asked.id);
        let shredded = shred(&s.second, "etl").await.unwrap();
        assert_eq!(shredded.shredded_by, "second");
        assert_eq!(find(&s.third, &asked.id).await.state, "performed");
        refused(shred(&s.second, "etl").await, "was shredded");
        refused(shred(&s.third, "etl").await, "was shredded");

        s.f.node().vault.integrate().await.unwrap();
        let action = "identities.shred".to_owned();
        let filter = Some(EntryFilter { action, ..Default::default() });
        let request = ListEntriesRequest { filter, ..Default::default() };
        let mut record = RecordServiceClient::new(s.admin.clone());
        let entries = record.list_entries(request).await.unwrap().into_inner().entries;
        let told = |outcome: &str| entries.iter().filter(|it| it.outcome == outcome).count();
        assert_eq!((told(OPEN), told("ok")), (3, 1), "{entries:#?}");
        let done = entries.iter().find(|it| it.outcome == "ok").unwrap();
        let approved = format!("ceremony {} approved by ", asked.id);
        assert!(done.detail.contains(&approved), "{}", done.detail);
        let changed = |table: &str| done.changes.iter().any(|change| change.table == table);
        assert!(changed("ceremonies") && changed("shreds") && changed("identities"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_person_holds_one_alone_by_another_account_or_a_puppet() {
    let s = Stage::new(Backend::Sqlite).await;
    // Two accounts of one person, and one that an administrator made, who asks.
    let grace = account(&s.f, &s.admin, "grace", "grace-hopper").await;
    let also = account(&s.f, &s.admin, "grace-two", "grace-hopper").await;
    let puppet = account(&s.f, &s.third, "puppet", "").await;
    let who = [(&grace, "grace"), (&also, "grace-two"), (&puppet, "puppet")];
    let mut apps = Vec::new();
    for (channel, name) in who {
        apps.push(step_up(&s.f, channel, name, None).await);
        join(&s.admin, name).await;
    }
    s.a_day_later().await;
    for ((channel, name), app) in who.into_iter().zip(&apps) {
        step_up(&s.f, channel, name, Some(app)).await;
    }
    s.step_up().await;
    let asked = opened(&grace, "etl").await;
    refused(approve(&also, &asked).await, "whichever account");
    let asked = opened(&puppet, "etl").await;
    refused(approve(&s.third, &asked).await, "made or changed");
    let asked = opened(&s.third, "etl").await;
    refused(approve(&puppet, &asked).await, "made or changed");
    // Nor does one who is an administrator since today.
    let today = account(&s.f, &s.admin, "today", "").await;
    step_up(&s.f, &today, "today", None).await;
    join(&s.admin, "today").await;
    refused(approve(&today, &asked).await, "a day older");
    assert!(shredding(&s.admin, "etl").await.shred.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_voids_it_and_so_do_denial_cancelling_and_time() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let mut identities = IdentityServiceClient::new(s.admin.clone());
        let asked = opened(&s.second, "etl").await;
        approve(&s.third, &asked).await.unwrap();
        // What it is about changed.
        let purpose = Some("another".to_owned());
        let update = UpdateIdentityRequest { name: "etl".into(), purpose, ..Default::default() };
        identities.update_identity(update).await.unwrap();
        let again = opened(&s.second, "etl").await;
        assert_ne!(again.id, asked.id);
        assert_eq!(again.missing, 1);
        // Who approved was suspended meanwhile.
        approve(&s.third, &again).await.unwrap();
        let (name, reason) = ("third".to_owned(), String::new());
        let contain = SuspendIdentityRequest { name: name.clone(), reason: reason.clone() };
        identities.suspend_identity(contain).await.unwrap();
        identities.resume_identity(ResumeIdentityRequest { name, reason }).await.unwrap();
        assert_eq!(opened(&s.second, "etl").await.missing, 1);

        let mut second = Client::new(s.second.clone());
        let mut admin = Client::new(s.admin.clone());
        let cancel = CancelCeremonyRequest { id: again.id.clone() };
        refused(admin.cancel_ceremony(cancel.clone()).await, "only who asked");
        second.cancel_ceremony(cancel).await.unwrap();
        let asked = opened(&s.second, "etl").await;
        let deny = DenyCeremonyRequest { id: asked.id.clone(), reason: "no".into() };
        refused(second.deny_ceremony(deny.clone()).await, "whichever account");
        admin.deny_ceremony(deny).await.unwrap();
        let asked = opened(&s.second, "etl").await;
        s.f.clock.advance(Duration::from_hours(1));
        assert_eq!(find(&s.admin, &asked.id).await.state, "expired");
        assert!(list(&s.admin, false).await.is_empty());
        let states: Vec<_> = list(&s.admin, true).await.into_iter().map(|it| it.state).collect();
        assert_eq!(states[..3], ["expired", "denied", "cancelled"]);
        assert!(shredding(&s.admin, "etl").await.shred.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_may_ask_for_more_than_two_and_one_for_development_asks_for_one() {
    let s = Stage::asking(Backend::Sqlite, 3).await;
    let asked = opened(&s.second, "etl").await;
    approve(&s.third, &asked).await.unwrap();
    let missing = shred(&s.second, "etl").await.unwrap_err();
    assert!(missing.message().contains("1 more"), "{missing}");

    let f = Fixture::on(Backend::Sqlite).await;
    register(&f, "etl", "pipeline", "admin").await;
    let admin = f.connect(&f.admin).await;
    shred(&admin, "etl").await.unwrap();
    assert_eq!(list(&admin, true).await[0].state, "performed");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_who_hold_one_nobody_is_of_the_making_of_another() {
    let s = Stage::asking(Backend::Sqlite, 3).await;
    let puppet = account(&s.f, &s.third, "puppet", "").await;
    let app = step_up(&s.f, &puppet, "puppet", None).await;
    join(&s.admin, "puppet").await;
    s.f.clock.advance(DAY + LATER);
    s.step_up().await;
    step_up(&s.f, &puppet, "puppet", Some(&app)).await;
    let who = [s.second.clone(), s.third.clone(), puppet];
    let asked = opened(&who[0], "etl").await;
    assert_eq!(approve(&who[1], &asked).await.unwrap().missing, 1);
    refused(approve(&who[2], &asked).await, "who approved before");
    assert_eq!(opened(&who[0], "etl").await.missing, 1);
}

/// How many could hold a ceremony at a moment, as a program beside the server sees it.
async fn apart(f: &Fixture, needed: usize, at: UnixMillis) -> usize {
    let (tasks, sealer) = (TaskGroup::default(), Arc::new(RowSealer::default()));
    let codec = Arc::new(RecordCodec::default());
    let opened = Store::open(&f.parts.location, "looks", Arc::clone(&sealer), codec, &tasks);
    let (reader, _writer) = opened.await.unwrap();
    let keyring = Keyring::new(Arc::clone(&f.parts.hsm), Arc::new(SystemEntropy), sealer);
    keyring.unseal(&reader, pin(), FinalTry::Refuse).await.unwrap();
    let looked = reader
        .view(move |tx| Box::pin(async move { administrators_apart(tx, needed, at).await }))
        .await;
    keyring.seal().await.unwrap();
    looked.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_enough_can_hold_one_is_known_before_it_is_needed() {
    let mut s = Stage::new(Backend::Sqlite).await;
    // One who is of third's making.
    let puppet = account(&s.f, &s.third, "puppet", "").await;
    step_up(&s.f, &puppet, "puppet", None).await;
    join(&s.admin, "puppet").await;
    s.a_day_later().await;
    let now = s.f.node().vault.now().unwrap();
    s.f.node.take().unwrap().stop().await.unwrap();
    assert_eq!(apart(&s.f, 2, now).await, 2);
    assert_eq!(apart(&s.f, 3, now).await, 2, "third and puppet are of one side");
    let day = i64::try_from(DAY.as_millis()).unwrap();
    assert_eq!(apart(&s.f, 2, UnixMillis(now.0 - 2 * day)).await, 1, "nothing was old enough");
    assert_eq!(apart(&s.f, 2, UnixMillis(now.0 + 30 * day)).await, 0, "no login lasts so long");
}
