//! Every way of making a credential, racing with everything that takes a right away, on one node
//! and on two: what is taken away leaves nothing in force that came after it.

mod racer;

use std::collections::HashSet;
use std::time::Duration;

use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    Entry, EntryFilter, ListCertificatesRequest, ListEntriesRequest, ResumeIdentityRequest,
    RetireIdentityRequest, SuspendIdentityRequest, TransferIdentityRequest,
};
use tonic::Code;
use tonic::transport::Channel;

use crate::support::hand::Hand;
use crate::support::node::{BACKENDS, Backend};
use crate::support::target::until;
use crate::support::tokens::{bearing, plain};
use crate::wraps::{expecting, unwrap};
use racer::{By, Course, Made, RACERS, Racer, add, group, joined, knock, remove};

const ROUNDS: u64 = 8;

/// Lets everything race with an end, and tells what was made, by whom.
async fn race(
    racer: &Racer,
    round: u64,
    end: impl Future<Output = ()>,
) -> (Vec<(By, Made)>, usize) {
    let calls = racer.all_ways();
    // Now before most of them, now behind.
    tokio::time::sleep(Duration::from_millis(round * 7 % 60)).await;
    end.await;
    let (mut made, mut refused) = (Vec::new(), 0);
    for (by, call) in calls {
        match call.await.unwrap() {
            Ok(one) => made.push((by, one)),
            Err(refusal) => {
                // Refused, beaten to the use, or asked to come again: nothing else.
                let refusals = [
                    Code::Unauthenticated,
                    Code::PermissionDenied,
                    Code::FailedPrecondition,
                    Code::Aborted,
                    // What is replaced is still being taken back.
                    Code::Unavailable,
                ];
                assert!(refusals.contains(&refusal.code()), "{by:?}: {refusal}");
                refused += 1;
            }
        }
    }
    (made, refused)
}

/// The node whose turn it is, as the administrator.
fn turn(channels: &[Channel; 2], round: u64) -> Channel {
    channels[usize::from(round % 2 == 1)].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_races_with_a_suspension_is_dead_also_after_the_resumption() {
    for backend in BACKENDS {
        let course = Course::on(backend).await;
        contain(&course, async |admin, name| {
            let request = SuspendIdentityRequest { name, ..Default::default() };
            IdentityServiceClient::new(admin).suspend_identity(request).await.unwrap();
        })
        .await;
        course.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_races_with_a_retirement_is_dead_for_good() {
    for backend in BACKENDS {
        let course = Course::on(backend).await;
        contain(&course, async |admin, name| {
            let request = RetireIdentityRequest { name, ..Default::default() };
            IdentityServiceClient::new(admin).retire_identity(request).await.unwrap();
        })
        .await;
        course.stop().await;
    }
}

async fn contain(course: &Course, end: impl AsyncFn(Channel, String)) {
    let administrators = course.nobody().await;
    let (mut made, mut refused, mut names) = (Vec::new(), 0, Vec::new());
    for round in 0..ROUNDS {
        let name = format!("racer-{round}");
        let racer = course.racer(&name, ("carol", "")).await;
        let ending = end(turn(&administrators, round), name.clone());
        let (some, not) = race(&racer, round, ending).await;
        made.extend(some.into_iter().map(|(_, one)| one));
        refused += not;
        dead(course, &made).await;
        names.push(name);
    }
    assert!(made.len() > 20 && refused > 20, "{} made, {refused} refused", made.len());
    until("no lease is in force", async || {
        let all = course.w.leases().await;
        all.iter().all(|lease| !["pending", "active"].contains(&&*lease.state))
    })
    .await;
    // What a suspension killed stays dead when it is over.
    for name in names {
        let request = ResumeIdentityRequest { name, ..Default::default() };
        let resumed = IdentityServiceClient::new(administrators[0].clone());
        drop(resumed.clone().resume_identity(request).await);
    }
    dead(course, &made).await;
}

/// Shows everything that was made to both nodes.
async fn dead(course: &Course, made: &[Made]) {
    let nodes = course.nobody().await;
    let request = ListCertificatesRequest { page_size: 1_000, ..Default::default() };
    let mut certificates = PkiServiceClient::new(course.w.admin.clone());
    let listed = certificates.list_certificates(request).await.unwrap().into_inner().certificates;
    for one in made {
        match one {
            Made::Token { bearer, .. } => {
                for node in &nodes {
                    assert_eq!(knock(bearing(node, bearer)).await, Code::Unauthenticated);
                }
            }
            Made::Login { login, .. } => {
                for node in course.both(login).await {
                    assert_eq!(knock(plain(&node)).await, Code::Unauthenticated);
                }
            }
            Made::Certificate { id } => {
                let found = listed.iter().find(|listed| listed.id == *id).unwrap();
                assert_eq!(found.state, "revoked", "{found:?}");
            }
            Made::Enrolment { join_token, .. } => {
                for node in &nodes {
                    let refusal = joined(node.clone(), join_token.clone()).await.unwrap_err();
                    assert_eq!(refusal.code(), Code::Unauthenticated, "{refusal}");
                }
            }
            Made::Wrap { wrapped, .. } => {
                for node in &nodes {
                    let refusal = unwrap(node, expecting(wrapped)).await.unwrap_err();
                    assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal}");
                }
            }
            // A worker ends it outside: looked at when all is over.
            Made::Lease { .. } => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_an_owner_asks_for_is_made_after_the_machine_was_transferred() {
    for backend in BACKENDS {
        let course = Course::on(backend).await;
        let administrators = course.nobody().await;
        let (mut made, mut refused) = (0, 0);
        for round in 0..ROUNDS {
            let name = format!("racer-{round}");
            let racer = course.racer(&name, ("carol", "")).await;
            let admin = turn(&administrators, round);
            let ending = async {
                let (name, owner) = (name.clone(), "dave".to_owned());
                let request = TransferIdentityRequest { name, owner, ..Default::default() };
                IdentityServiceClient::new(admin).transfer_identity(request).await.unwrap();
            };
            let (some, not) = race(&racer, round, ending).await;
            assert_eq!(racer.asked_by_owner().await, [Code::PermissionDenied; 6]);
            let owners = of(&some, &[By::Owner]);
            before(&course, backend, &owners, "identities.transfer", &name).await;
            made += owners.len();
            refused += not;
        }
        assert!(made > 5 && refused > 5, "{made} made, {refused} refused");
        course.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_for_a_machine_by_who_left_the_group_that_owns_it() {
    for backend in BACKENDS {
        let course = Course::on(backend).await;
        let administrators = course.nobody().await;
        let (mut made, mut refused) = (0, 0);
        for round in 0..ROUNDS {
            let (name, team) = (format!("racer-{round}"), format!("team-{round}"));
            group(&course.w, &team).await;
            add(&course.w, &team, "carol").await;
            // Without her, somebody answers yet, or nobody does.
            let deserted = round % 2 == 0;
            if !deserted {
                add(&course.w, &team, "erin").await;
            }
            let racer = course.racer(&name, ("", &team)).await;
            let admin = turn(&administrators, round / 2);
            let (some, not) = race(&racer, round, remove(&admin, &team, "carol")).await;
            assert_eq!(racer.asked_by_owner().await, [Code::PermissionDenied; 6]);
            let whose: &[By] = if deserted {
                &[By::Owner, By::Itself, By::Granted, By::Administrator]
            } else {
                &[By::Owner]
            };
            let theirs = of(&some, whose);
            before(&course, backend, &theirs, "groups.remove", "carol").await;
            made += theirs.len();
            refused += not;
        }
        assert!(made > 5 && refused > 5, "{made} made, {refused} refused");
        course.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_by_a_right_of_a_group_that_the_machine_has_left() {
    for backend in BACKENDS {
        let course = Course::on(backend).await;
        let administrators = course.nobody().await;
        let (mut made, mut refused) = (0, 0);
        for round in 0..ROUNDS {
            let name = format!("racer-{round}");
            let racer = course.racer(&name, ("carol", "")).await;
            let admin = turn(&administrators, round);
            let (some, not) = race(&racer, round, remove(&admin, RACERS, &name)).await;
            assert_eq!(racer.asked_by_grant().await, [Code::PermissionDenied; 8]);
            let theirs = of(&some, &[By::Granted]);
            before(&course, backend, &theirs, "groups.remove", &name).await;
            made += theirs.len();
            refused += not;
        }
        assert!(made > 5 && refused > 5, "{made} made, {refused} refused");
        course.stop().await;
    }
}

/// What these have made.
fn of(made: &[(By, Made)], by: &[By]) -> HashSet<String> {
    let theirs = made.iter().filter(|(who, _)| by.contains(who));
    theirs.map(|(_, one)| one.id().to_owned()).collect()
}

/// Checks that all of it was committed before a change of somebody's row, the last of it.
async fn before(course: &Course, backend: Backend, made: &HashSet<String>, end: &str, whose: &str) {
    match backend {
        // One lane: the record is in the order of commits.
        Backend::Sqlite => {
            let entries = entries(course).await;
            let end = entries.iter().find(|entry| entry.action == end).unwrap();
            let late = |entry: &&Entry| entry.index > end.index && made.contains(&entry.subject_id);
            let late: Vec<_> = entries.iter().filter(late).collect();
            assert!(late.iter().all(|entry| entry.outcome != "ok"), "{late:?}");
            let known = |id: &String| entries.iter().any(|entry| entry.subject_id == *id);
            assert!(made.iter().all(known), "the record names all of it");
        }
        // A change of authority waits for whoever writes and lets nobody write beside it: numbers
        // of transactions are in the order of commits around it.
        Backend::Postgres => {
            let ids: Vec<_> = made.iter().map(|id| format!("'{id}'")).collect();
            let sql = format!(
                "SELECT kind || ' ' || id FROM credentials WHERE id IN ({}) AND state = 'active' \
                 AND xmin::text::bigint > \
                 (SELECT xmin::text::bigint FROM identities WHERE name = '{whose}')",
                if ids.is_empty() { "''".to_owned() } else { ids.join(", ") }
            );
            let late = Hand::new(&course.w.f.parts.location).ask(&sql).await;
            assert!(late.is_empty(), "{late:?}");
        }
    }
}

/// The newest entries, newest first.
async fn entries(course: &Course) -> Vec<Entry> {
    course.w.f.node().vault.integrate().await.unwrap();
    let filter = Some(EntryFilter::default());
    let request = ListEntriesRequest { filter, page_size: 200, ..Default::default() };
    let mut client = RecordServiceClient::new(course.w.admin.clone());
    client.list_entries(request).await.unwrap().into_inner().entries
}
