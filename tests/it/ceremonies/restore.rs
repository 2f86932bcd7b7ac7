//! Accepting a store while nothing is served: in a ceremony, by the rules of all of them.

use std::fs;

use strongroom::Error;
use strongroom::engines::factors::Code as Typed;
use strongroom::server::{AcceptOrder, Accepted, Node};
use strongroom::types::{CeremonyId, State};

use super::*;
use crate::support::hand::Hand;
use crate::support::logins::{login_for, sign};
use crate::support::node::{BACKENDS, pin};

/// A node that holds its store, because the head of its log is none that the vault wrote.
async fn held(f: &mut Fixture) {
    f.node.take().unwrap().stop().await.unwrap();
    let hand = Hand::new(&f.parts.location);
    let zeros = hand.literal(&[0; 32]);
    hand.run(&format!("UPDATE log_head SET mac = {zeros}")).await;
    f.node = Some(Node::start(f.parts.clone(), pin()).await.unwrap());
    assert!(matches!(f.node().life.standing().state(), State::Held(_)));
}

/// Accepts what waits, or approves that another does.
async fn accept(
    f: &Fixture,
    who: &Login,
    code: Option<String>,
    ceremony: Option<CeremonyId>,
) -> strongroom::Result<Accepted> {
    let life = &f.node().life;
    let waits = life.rollback().await.unwrap();
    let (certificate_der, signature) = sign(who, &waits.statement());
    let code = code.map(|code| Typed::parse(code.as_bytes()).unwrap());
    life.accept(AcceptOrder { certificate_der, signature, ceremony, code }).await
}

fn waits(accepted: strongroom::Result<Accepted>, for_more: i64) -> CeremonyId {
    match accepted {
        Ok(Accepted::Waits { ceremony, missing, .. }) if missing == for_more => ceremony,
        other => panic!("{other:?}"),
    }
}

fn denied(accepted: &strongroom::Result<Accepted>, because: &str) {
    let Err(Error::Denied(why)) = accepted else { panic!("{because}: {accepted:?}") };
    assert!(why.contains(because), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_accepts_a_store_proves_a_factor_and_is_really_another_than_who_asked() {
    for backend in BACKENDS {
        let mut s = Stage::new(backend).await;
        // One whose account is of third's making, and one who administers since today.
        let puppet = account(&s.f, &s.third, "puppet", "").await;
        let strings = step_up(&s.f, &puppet, "puppet", None).await;
        join(&s.admin, "puppet").await;
        s.a_day_later().await;
        let today = account(&s.f, &s.admin, "today", "").await;
        let todays = step_up(&s.f, &today, "today", None).await;
        join(&s.admin, "today").await;
        account(&s.f, &s.admin, "human", "").await;
        let mut logins = Vec::new();
        for name in ["second", "third", "puppet", "today", "human"] {
            logins.push(login_for(&s.f, name, Some(20 * DAY)).await);
        }
        let [second, third, puppet, today, human]: [Login; 5] = logins.try_into().unwrap();
        held(&mut s.f).await;
        let f = &s.f;
        // A code counts once, also one that was given before.
        f.clock.advance(LATER);
        let [seconds, thirds] = &s.apps;
        let code = |app: &App| Some(app.code(f, 0));

        denied(&accept(f, &human, None, None).await, "ask an administrator");
        let login_alone = accept(f, &second, None, None).await;
        assert!(matches!(login_alone, Err(Error::StepUp(_))), "{login_alone:?}");
        let wrong = seconds.wrong(f, 1).remove(0);
        assert!(accept(f, &second, Some(wrong), None).await.is_err());
        let asked = waits(accept(f, &second, code(seconds), None).await, 1);
        assert_eq!(waits(accept(f, &second, None, None).await, 1), asked, "it is the same one");
        denied(&accept(f, &second, None, Some(asked)).await, "whichever account");
        denied(&accept(f, &today, code(&todays), Some(asked)).await, "a day older");
        // Of two of whom one made the other, neither approves what the other asks.
        let puppets = waits(accept(f, &puppet, code(&strings), None).await, 1);
        denied(&accept(f, &third, code(thirds), Some(puppets)).await, "made or changed");
        let theirs = waits(accept(f, &third, None, None).await, 1);
        denied(&accept(f, &puppet, None, Some(theirs)).await, "made or changed");
        assert!(matches!(f.node().life.standing().state(), State::Held(_)));

        assert_eq!(waits(accept(f, &third, None, Some(asked)).await, 0), asked);
        denied(&accept(f, &third, None, Some(asked)).await, "each person counts once");
        assert_eq!(accept(f, &second, None, None).await, Ok(Accepted::Wholly));
        assert_eq!(f.node().life.standing().state(), State::Serving);
        let sql = "SELECT '' || restore_epoch FROM vault";
        assert_eq!(Hand::new(&f.parts.location).ask(sql).await, ["1"]);
        // What waited for the same is void with everything from before.
        let admin = f.connect(&f.admin).await;
        assert_eq!(find(&admin, &asked.to_string()).await.state, "performed");
        let late = find(&admin, &theirs.to_string()).await;
        let refused = approve(&f.connect(&second).await, &late).await.unwrap_err();
        assert!(refused.message().contains("restored since"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_asks_for_three_is_not_served_for_two() {
    let mut s = Stage::asking(Backend::Sqlite, 3).await;
    let mut logins = Vec::new();
    for name in ["second", "third"] {
        logins.push(login_for(&s.f, name, Some(20 * DAY)).await);
    }
    held(&mut s.f).await;
    s.f.clock.advance(LATER);
    let f = &s.f;
    let asked = waits(accept(f, &logins[0], Some(s.apps[0].code(f, 0)), None).await, 2);
    let third = Some(s.apps[1].code(f, 0));
    waits(accept(f, &logins[1], third, Some(asked)).await, 1);
    waits(accept(f, &logins[0], None, None).await, 1);
    assert!(matches!(f.node().life.standing().state(), State::Held(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ceremony_of_something_else_is_not_approved_by_accepting_a_store() {
    let mut s = Stage::new(Backend::Sqlite).await;
    let other = opened(&s.second, "etl").await;
    let third = login_for(&s.f, "third", Some(20 * DAY)).await;
    held(&mut s.f).await;
    s.f.clock.advance(LATER);
    let code = Some(s.apps[1].code(&s.f, 0));
    let refused = accept(&s.f, &third, code, Some(other.id.parse().unwrap())).await;
    assert!(matches!(refused, Err(Error::Precondition(_))), "{refused:?}");
    let sql = "SELECT votes FROM ceremonies";
    assert_eq!(Hand::new(&s.f.parts.location).ask(sql).await, ["[]"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_many_come_back_whom_nobody_names_is_part_of_what_is_approved() {
    let mut s = Stage::new(Backend::Sqlite).await;
    let second = login_for(&s.f, "second", Some(20 * DAY)).await;
    let third = login_for(&s.f, "third", Some(20 * DAY)).await;
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("shredded");
    s.f.parts.shredded = Some(list.clone());
    // The HSM counts two who were shredded, and names neither.
    let label = format!("strongroom/{}/shredded", s.f.node().vault.installation().id);
    let two = [&[1_u8][..], &2_i64.to_be_bytes()].concat();
    s.f.parts.hsm.write_data(&label, &two).await.unwrap();
    held(&mut s.f).await;
    let f = &s.f;
    let State::Held(why) = f.node().life.standing().state() else { panic!("it is served") };
    assert!(why.contains("2 identities that were shredded are in neither"), "{why}");
    f.clock.advance(LATER);
    let [seconds, thirds] = &s.apps;
    let code = |app: &App| Some(app.code(f, 0));
    // Nobody accepts that by a signature that does not say so.
    let signed = f.node().life.rollback().await.unwrap().statement();
    let blind = signed.strip_suffix("shredded and named nowhere 2\n").unwrap();
    let (certificate_der, signature) = sign(&second, blind);
    let order = AcceptOrder { certificate_der, signature, ceremony: None, code: None };
    let refused = f.node().life.accept(order).await;
    assert!(matches!(refused, Err(Error::Unauthenticated(_))), "{refused:?}");
    let both = waits(accept(f, &second, code(seconds), None).await, 1);
    // One of them is named meanwhile: that is something else to approve.
    fs::write(&list, "0197a1c0-0000-7000-8000-000000000001\n").unwrap();
    let refused = accept(f, &third, code(thirds), Some(both)).await;
    assert!(matches!(refused, Err(Error::Precondition(_))), "{refused:?}");
    let one = waits(accept(f, &second, None, None).await, 1);
    assert_ne!(one, both);
    assert_eq!(waits(accept(f, &third, None, Some(one)).await, 0), one);
    assert_eq!(accept(f, &second, None, None).await, Ok(Accepted::Wholly));
    let admin = f.connect(&f.admin).await;
    for (id, count) in [(both, "2"), (one, "1")] {
        let terms = find(&admin, &id.to_string()).await.terms;
        let told = terms.iter().find(|term| term.name == "shredded and named nowhere").unwrap();
        assert_eq!(told.value, count);
    }
    let sql = "SELECT '' || COUNT(*) FROM shreds";
    assert_eq!(Hand::new(&f.parts.location).ask(sql).await, ["1"]);
    s.f.restart().await;
    assert_eq!(s.f.node().life.standing().state(), State::Serving, "the other is let go of");
}
