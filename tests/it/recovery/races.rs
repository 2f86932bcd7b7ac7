//! Two nodes, and everything at once: it takes effect once, or is cancelled, never both.

use super::*;
use crate::support::hand::Hand;
use crate::support::node::{Backend, both_take_the_time};
use crate::support::recovery::order;

/// How many logins somebody has.
async fn logins(f: &Fixture, name: &str) -> usize {
    let sql = format!(
        "SELECT c.id FROM credentials c JOIN identities i ON i.id = c.identity \
         WHERE c.kind = 'login' AND i.name = '{name}'"
    );
    Hand::new(&f.parts.location).ask(&sql).await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_are_asked_at_once_yield_one_login() {
    let f = Fixture::on(Backend::Postgres).await;
    let there = f.second_node().await;
    let bob = f.connect_to(&there, &administrator(&f, "bob").await).await;
    administrator(&f, "carol").await;
    let (_, request) = csr();
    let asked = recover(&f, f.node(), "carol", &request).await.unwrap();
    let [notice] = told(&bob).await.try_into().unwrap();
    assert!(notice.message.contains(&id(&asked)), "the other node tells it at once");
    f.clock.advance(HOUR + MINUTE);
    both_take_the_time(f.node(), &there).await;
    let one = order(&f, f.node(), "carol", &request).await.unwrap();
    let other = order(&f, &there, "carol", &request).await.unwrap();
    let (one, other) = tokio::join!(f.node().life.recover(one), there.life.recover(other));
    let rows = [one.unwrap(), other.unwrap()].map(|done| done.login.unwrap().row);
    assert_eq!(rows[0], rows[1]);
    assert_eq!(logins(&f, "carol").await, 2, "the first, and the recovered one");
    there.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_are_asked_for_two_keys_at_once_keep_one_of_them() {
    let f = Fixture::on(Backend::Postgres).await;
    let there = f.second_node().await;
    let (mine, theirs) = (csr().1, csr().1);
    let one = order(&f, f.node(), "admin", &mine).await.unwrap();
    let other = order(&f, &there, "admin", &theirs).await.unwrap();
    let (one, other) = tokio::join!(f.node().life.recover(one), there.life.recover(other));
    let ids = [one.unwrap(), other.unwrap()].map(|asked| id(&asked));
    assert_ne!(ids[0], ids[1]);
    let [notice] = told(&f.connect(&f.admin).await).await.try_into().unwrap();
    assert_eq!(ids.iter().filter(|id| notice.message.contains(*id)).count(), 1);
    f.clock.advance(HOUR + MINUTE);
    both_take_the_time(f.node(), &there).await;
    let mut yielded = 0;
    for request in [&mine, &theirs] {
        let done = recover(&f, &there, "admin", request).await.unwrap();
        yielded += usize::from(done.login.is_some());
        if done.login.is_none() {
            assert!(!ids.contains(&id(&done)), "it begins anew: it had lost its place");
        }
    }
    assert!(yielded <= 1);
    there.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_and_the_taking_that_race_do_not_both_win() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let other = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(f.second_node().await),
        };
        let node = other.as_ref().unwrap_or(f.node());
        let bob = f.connect(&administrator(&f, "bob").await).await;
        for round in 0..6 {
            let name = format!("carol-{round}");
            administrator(&f, &name).await;
            let (_, request) = csr();
            let asked = id(&recover(&f, f.node(), &name, &request).await.unwrap());
            f.clock.advance(HOUR);
            both_take_the_time(f.node(), node).await;
            let order = order(&f, node, &name, &request).await.unwrap();
            let (cancelled, taken) = tokio::join!(cancel(&bob, &asked), node.life.recover(order));
            let taken = taken.unwrap();
            assert_ne!(cancelled.is_ok(), taken.login.is_some(), "{cancelled:?} {taken:?}");
            assert_eq!(logins(&f, &name).await, 1 + usize::from(taken.login.is_some()));
            if let Err(late) = cancelled {
                assert_eq!(late.code(), Code::FailedPrecondition, "{late}");
            } else {
                assert_ne!(id(&taken), asked, "what comes after it waits anew");
                cancel(&bob, &id(&taken)).await.unwrap();
            }
        }
        if let Some(other) = other {
            other.stop().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_neither_what_waits_nor_what_took_effect() {
    for backend in BACKENDS {
        let mut f = Fixture::on(backend).await;
        administrator(&f, "carol").await;
        let (_, request) = csr();
        let asked = recover(&f, f.node(), "carol", &request).await.unwrap();
        f.restart().await;
        let waits = recover(&f, f.node(), "carol", &request).await.unwrap();
        assert_eq!(id(&waits), id(&asked));
        f.clock.advance(HOUR + MINUTE);
        let done = recover(&f, f.node(), "carol", &request).await.unwrap();
        assert_eq!(id(&done), id(&asked));
        f.restart().await;
        let again = recover(&f, f.node(), "carol", &request).await.unwrap();
        assert_eq!(again.login.unwrap().row, done.login.unwrap().row);
        assert_eq!(logins(&f, "carol").await, 2);
    }
}
