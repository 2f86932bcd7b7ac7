//! What a recovery needs, whom it is for, and what ends it.

use strongroom::keyring::FinalTry;
use strongroom::server::{Occasion, RecoveryOrder};
use strongroom::types::SecretBytes;

use super::*;
use crate::support::hand::Hand;
use crate::support::node::{Backend, pin};
use crate::support::recovery::order;
use crate::support::restored::restored;

/// The state in the row.
async fn state(f: &Fixture) -> String {
    let rows = Hand::new(&f.parts.location).ask("SELECT state FROM recovery").await;
    rows.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_proof_of_the_pin_nothing_is_asked_for() {
    let f = Fixture::new().await;
    let life = &f.node().life;
    let (mine, other) = (csr().1, csr().1);
    let good = order(&f, f.node(), "admin", &mine).await.unwrap();
    let none = life.recover(RecoveryOrder { nonce: Vec::new(), ..good.clone() }).await.unwrap_err();
    assert_eq!(none.reason(), "PRECONDITION");
    let used = life.recover(good).await.unwrap_err();
    assert_eq!(used.reason(), "PRECONDITION", "whatever was tried, a challenge is used once");

    let proofs: [fn(&mut RecoveryOrder); 4] = [
        |order| order.proof = SecretBytes::new(vec![0; 32]),
        |order| order.proof = SecretBytes::new(Vec::new()),
        |order| order.name = "carol".parse().unwrap(),
        |order| order.csr_pem.push('\n'),
    ];
    for (i, change) in proofs.into_iter().enumerate() {
        let mut bad = order(&f, f.node(), "admin", &mine).await.unwrap();
        change(&mut bad);
        assert_eq!(life.recover(bad).await.unwrap_err().reason(), "DENIED", "{i}");
    }
    let mut swapped = order(&f, f.node(), "admin", &mine).await.unwrap();
    swapped.csr_pem = other;
    assert_eq!(life.recover(swapped).await.unwrap_err().reason(), "DENIED");
    let late = order(&f, f.node(), "admin", &mine).await.unwrap();
    f.clock.advance(2 * MINUTE);
    assert_eq!(life.recover(late).await.unwrap_err().reason(), "PRECONDITION");
    let replaced = order(&f, f.node(), "admin", &mine).await.unwrap();
    order(&f, f.node(), "admin", &mine).await.unwrap();
    assert_eq!(life.recover(replaced).await.unwrap_err().reason(), "PRECONDITION");
    assert_eq!(state(&f).await, "never");

    let asked = order(&f, f.node(), "admin", &mine).await.unwrap();
    life.recover(asked.clone()).await.unwrap();
    assert_eq!(life.recover(asked).await.unwrap_err().reason(), "PRECONDITION", "no replay");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_administered_no_machine_and_nobody_retired_is_recovered() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let admin = f.connect(&f.admin).await;
        human(&f, "dave").await;
        machine(&f, "etl").await;
        administrator(&f, "gone").await;
        let retire = RetireIdentityRequest { name: "gone".into(), ..Default::default() };
        IdentityServiceClient::new(admin.clone()).retire_identity(retire).await.unwrap();
        for (name, reason, says) in [
            ("dave", "PRECONDITION", "administrators"),
            ("etl", "PRECONDITION", "only humans"),
            ("gone", "PRECONDITION", "retired"),
            ("nobody", "NOT_FOUND", "no such identity"),
        ] {
            let refused = recover(&f, f.node(), name, &csr().1).await.unwrap_err();
            assert_eq!(refused.reason(), reason, "{name}: {refused}");
            assert!(refused.to_string().contains(says), "{name}: {refused}");
        }
        for name in ["Admin", "admin ", "", "a/../b"] {
            assert!(recover(&f, f.node(), name, &csr().1).await.is_err(), "{name:?}");
        }
        for csr in ["", "-----BEGIN CERTIFICATE REQUEST-----"] {
            let refused = recover(&f, f.node(), "admin", csr).await.unwrap_err();
            assert_eq!(refused.reason(), "INVALID", "{csr}");
        }
        assert_eq!(state(&f).await, "never");
        assert!(told(&admin).await.is_empty());
        let refused = entries(&f, &admin, "system.recover-admin").await;
        assert_eq!(refused.len(), 4, "each is on the record: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_suspended_and_taken_out_of_the_group_comes_back_with_nothing_old() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let admin = f.connect(&f.admin).await;
        let old = administrator(&f, "carol").await;
        let (group, identity) = ("administrators".to_owned(), "carol".to_owned());
        let remove = RemoveMemberRequest { group, identity };
        GroupServiceClient::new(admin.clone()).remove_member(remove).await.unwrap();
        suspend(&admin, "carol").await;
        let (key, request) = csr();
        recover(&f, f.node(), "carol", &request).await.unwrap();
        f.clock.advance(HOUR);
        let done = recover(&f, f.node(), "carol", &request).await.unwrap();
        let me = whoami(&f.connect(&new_login(&done, &key)).await).await.unwrap();
        assert!(me.administrator);
        let refused = whoami(&f.connect(&old).await).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_contained_while_it_waits_is_not_recovered_by_it() {
    let f = Fixture::new().await;
    let admin = f.connect(&f.admin).await;
    administrator(&f, "carol").await;
    let (_, request) = csr();
    let asked = recover(&f, f.node(), "carol", &request).await.unwrap();
    f.clock.advance(30 * MINUTE);
    suspend(&admin, "carol").await;
    let resume = ResumeIdentityRequest { name: "carol".into(), reason: String::new() };
    IdentityServiceClient::new(admin.clone()).resume_identity(resume).await.unwrap();
    f.clock.advance(HOUR);
    let anew = recover(&f, f.node(), "carol", &request).await.unwrap();
    assert!(anew.login.is_none());
    assert_ne!(id(&anew), id(&asked));
    // What it yielded dies like every login, and is not handed out again then.
    f.clock.advance(HOUR);
    let done = recover(&f, f.node(), "carol", &request).await.unwrap();
    assert!(done.login.is_some());
    suspend(&admin, "carol").await;
    let after = recover(&f, f.node(), "carol", &request).await.unwrap();
    assert!(after.login.is_none() && id(&after) != id(&done));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ran_out_meanwhile_comes_back_without_that_end() {
    let f = Fixture::new().await;
    administrator(&f, "carol").await;
    let ttl_s = Some(600);
    let update = UpdateIdentityRequest { name: "carol".into(), ttl_s, ..Default::default() };
    let mut client = IdentityServiceClient::new(f.connect(&f.admin).await);
    client.update_identity(update).await.unwrap();
    let (key, request) = csr();
    recover(&f, f.node(), "carol", &request).await.unwrap();
    f.clock.advance(HOUR);
    let done = recover(&f, f.node(), "carol", &request).await.unwrap();
    let me = whoami(&f.connect(&new_login(&done, &key)).await).await.unwrap();
    assert_eq!((me.administrator, me.expires_at_ms), (true, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_before_a_restore_yields_nothing_after_it() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        administrator(&f, "carol").await;
        let admin = f.connect(&f.admin).await;
        let (_, request) = csr();
        let asked = id(&recover(&f, f.node(), "carol", &request).await.unwrap());
        assert_eq!(told(&admin).await.len(), 1);
        restored(&f).await;
        f.clock.advance(HOUR);
        // What was kept of callers is forgotten.
        register(&f, "erin", "human", "").await;
        assert!(told(&admin).await.is_empty());
        let refused = cancel(&admin, &asked).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        let anew = recover(&f, f.node(), "carol", &request).await.unwrap();
        assert!(anew.login.is_none());
        assert_ne!(id(&anew), asked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_lapses_after_a_day_and_another_key_takes_its_place() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        administrator(&f, "carol").await;
        let (first, second) = (csr().1, csr().1);
        let one = id(&recover(&f, f.node(), "carol", &first).await.unwrap());
        f.clock.advance(30 * MINUTE);
        let two = id(&recover(&f, f.node(), "carol", &second).await.unwrap());
        let admin = f.connect(&f.admin).await;
        let [notice] = told(&admin).await.try_into().unwrap();
        assert!(notice.message.contains(&two) && !notice.message.contains(&one));
        f.clock.advance(31 * MINUTE);
        let early = recover(&f, f.node(), "carol", &second).await.unwrap();
        assert!(early.login.is_none(), "the hour of the first is not its own");
        f.clock.advance(25 * HOUR);
        let late = recover(&f, f.node(), "carol", &second).await.unwrap();
        assert!(late.login.is_none(), "a day has passed");
        assert_ne!(id(&late), two);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hour_is_one_in_which_the_server_served_without_a_break() {
    let mut f = Fixture::new().await;
    administrator(&f, "carol").await;
    let (_, request) = csr();
    let asked = id(&recover(&f, f.node(), "carol", &request).await.unwrap());
    let life = &f.node().life;
    f.clock.advance(50 * MINUTE);
    life.seal("a drill").await.unwrap();
    assert_eq!(life.challenge().unwrap_err().reason(), "SEALED");
    f.clock.advance(HOUR);
    life.unseal(pin(), FinalTry::Refuse, Occasion::Asked).await.unwrap();
    let waits = recover(&f, f.node(), "carol", &request).await.unwrap();
    assert!(waits.login.is_none(), "nobody could cancel it while the vault was sealed");
    assert_eq!(id(&waits), asked);
    let left = waits.recovery.due_at.since(f.node().vault.now().unwrap());
    assert!(left > 59 * MINUTE, "{left:?}");
    f.clock.advance(30 * MINUTE);
    f.restart().await;
    f.clock.advance(59 * MINUTE);
    let waits = recover(&f, f.node(), "carol", &request).await.unwrap();
    assert!(waits.login.is_none(), "nor while it was stopped");
    f.clock.advance(MINUTE);
    let done = recover(&f, f.node(), "carol", &request).await.unwrap();
    assert!(done.login.is_some());
    assert_eq!(id(&done), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_no_vault_wrote_is_an_alarm_and_recovers_nobody() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let hand = Hand::new(&f.parts.location);
        administrator(&f, "carol").await;
        let admin = f.connect(&f.admin).await;
        let (_, request) = csr();
        let asked = id(&recover(&f, f.node(), "carol", &request).await.unwrap());
        hand.run("CREATE TABLE aside AS SELECT * FROM recovery").await;
        let back = "DELETE FROM recovery; INSERT INTO recovery SELECT * FROM aside";
        for edit in [
            "UPDATE recovery SET requested_at = requested_at - 3600000",
            "UPDATE recovery SET name = 'admin'",
            "UPDATE recovery SET state = 'cancelled'",
            "DELETE FROM recovery",
        ] {
            hand.run(edit).await;
            let refused = recover(&f, f.node(), "carol", &request).await.unwrap_err();
            assert_eq!(refused.reason(), "TAMPERED", "{edit}");
            assert_eq!(cancel(&admin, &asked).await.unwrap_err().code(), Code::PermissionDenied);
            // What was kept of callers is forgotten.
            let others = format!("other-{}", edit.len());
            register(&f, &others, "human", "").await;
            let refused = whoami(&admin).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{edit}: {refused}");
            assert!(refused.message().contains("alarm"), "{refused}");
            hand.run(back).await;
            assert_eq!(told(&admin).await.len(), 1, "{edit}");
        }
        cancel(&admin, &asked).await.unwrap();
        hand.run(back).await;
        f.clock.advance(2 * HOUR);
        let refused = recover(&f, f.node(), "carol", &request).await.unwrap_err();
        assert_eq!(refused.reason(), "TAMPERED", "an older row was put back");
        assert_eq!(state(&f).await, "pending", "and yields nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_does_not_make_it_wait_longer() {
    let f = Fixture::on(Backend::Sqlite).await;
    administrator(&f, "carol").await;
    let (_, request) = csr();
    let asked = recover(&f, f.node(), "carol", &request).await.unwrap();
    f.clock.advance(59 * MINUTE);
    // Who serves moves the nodes' mark.
    recover(&f, f.node(), "carol", &request).await.unwrap();
    f.node().vault.mark_clock().await.unwrap();
    f.clock.set_back(Duration::from_secs(3));
    let waits = recover(&f, f.node(), "carol", &request).await.unwrap();
    assert_eq!(waits.recovery.due_at, asked.recovery.due_at);
    f.clock.set_back(MINUTE);
    f.node().vault.mark_clock().await.unwrap();
    let refused = recover(&f, f.node(), "carol", &request).await.unwrap_err();
    assert_eq!(refused.reason(), "UNAVAILABLE", "a clock that is wrong decides nothing");
    f.clock.advance(3 * MINUTE);
    f.node().vault.mark_clock().await.unwrap();
    let done = recover(&f, f.node(), "carol", &request).await.unwrap();
    assert!(done.login.is_some());
}
