//! Races, from two nodes where there are two.

use std::time::Duration;

use strongroom::proto::SuspendIdentityRequest;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::server::Node;

use super::*;
use crate::support::logins::login;

const ROUNDS: usize = 6;

/// The same people on another node, where the store can be shared; else on the same.
struct Elsewhere {
    node: Option<Node>,
    carol: Channel,
    dave: Channel,
    erin: Channel,
    admin: Channel,
}

impl Elsewhere {
    async fn of(s: &Stage, backend: Backend) -> Self {
        let node = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(s.f.second_node().await),
        };
        let there = node.as_ref().unwrap_or_else(|| s.f.node());
        let to = async |name: &str| s.f.connect_to(there, &login(&s.f, name).await).await;
        let (carol, dave, erin) = (to("carol").await, to("dave").await, to("erin").await);
        step_up(&s.f, &dave, "dave", Some(&s.apps[0])).await;
        step_up(&s.f, &erin, "erin", Some(&s.apps[1])).await;
        let admin = s.f.connect_to(there, &s.f.admin).await;
        Self { node, carol, dave, erin, admin }
    }

    async fn stop(self) {
        drop((self.carol, self.dave, self.erin, self.admin));
        if let Some(node) = self.node {
            node.stop().await.unwrap();
        }
    }
}

/// Whoever loses a race is told that the state does not allow it, or that somebody was first.
pub(super) fn lost<T: std::fmt::Debug>(answer: &Result<T, Status>) -> bool {
    let codes = [Code::FailedPrecondition, Code::Aborted, Code::PermissionDenied, Code::NotFound];
    match answer {
        Ok(_) => false,
        Err(status) => {
            assert!(codes.contains(&status.code()), "{status}");
            true
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_approving_and_withdrawing_at_once_the_row_tells_who_was_first() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let there = Elsewhere::of(&s, backend).await;
        for _ in 0..ROUNDS {
            let asked = s.asked().await;
            let (approved, withdrawn) =
                tokio::join!(approve(&s.dave, &asked), withdraw(&there.carol, &asked));
            // What is approved may still be withdrawn; what is withdrawn is not approved.
            assert!(!lost(&withdrawn));
            lost(&approved);
            let after = show(&s.carol, &asked.id).await.unwrap();
            assert_eq!(after.state, "withdrawn");
            assert_eq!(after.votes.len(), usize::from(approved.is_ok()));
            assert!(lost(&activate(&s.carol, &asked).await));
        }
        there.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_approves_twice_at_once_is_counted_once() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        s.put(ElevationRole { steps: vec![step(2, &["security"])], ..role() }).await.unwrap();
        let there = Elsewhere::of(&s, backend).await;
        for _ in 0..ROUNDS {
            let asked = s.asked().await;
            let (one, two) = tokio::join!(approve(&s.dave, &asked), approve(&there.dave, &asked));
            assert_eq!(usize::from(lost(&one)) + usize::from(lost(&two)), 1);
            let after = show(&s.carol, &asked.id).await.unwrap();
            assert_eq!((after.state.as_str(), after.votes.len()), ("awaiting-approval", 1));
            // Two at once are two.
            let asked = s.asked().await;
            let (one, two) = tokio::join!(approve(&s.dave, &asked), approve(&there.erin, &asked));
            assert!(!lost(&one) && !lost(&two));
            assert_eq!(show(&s.carol, &asked.id).await.unwrap().state, "scheduled");
            for open in list(&s.carol).await {
                let open = show(&s.carol, &open).await.unwrap();
                if open.state != "withdrawn" {
                    withdraw(&s.carol, &open).await.unwrap();
                }
            }
        }
        there.stop().await;
    }
}

/// Tells whether the record has the suspension of who approved before the activation.
async fn first(s: &Stage, approved: &Elevation, name: &str) -> bool {
    let activate = format!("elevation {}: activate", approved.id);
    let all = entries(s, "elevations.activate").await;
    let activation = all.iter().find(|it| it.detail.contains(&activate)).unwrap();
    let all = entries(s, "identities.suspend").await;
    all.iter().find(|it| it.resource.contains(name)).unwrap().index < activation.index
}

#[tokio::test(flavor = "multi_thread")]
async fn activating_while_the_approver_is_suspended_leaves_nothing_in_force_that_was_decided_after()
{
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let there = Elsewhere::of(&s, backend).await;
        for round in 0..2 {
            let (by, name) = if round == 0 { (&s.dave, "dave") } else { (&s.erin, "erin") };
            let approved = approve(by, &s.asked().await).await.unwrap();
            let suspend = async {
                let request = SuspendIdentityRequest { name: name.into(), reason: String::new() };
                IdentityServiceClient::new(there.admin.clone()).suspend_identity(request).await
            };
            let (activated, suspended) = tokio::join!(activate(&s.carol, &approved), suspend);
            suspended.unwrap();
            let activated = match activated {
                Ok(activated) => activated,
                Err(status) => {
                    assert_eq!(status.code(), Code::Aborted, "{status}");
                    activate(&s.carol, &approved).await.unwrap()
                }
            };
            let suspended_first = first(&s, &approved, name).await;
            match (activated.state.as_str(), backend) {
                // One lane has the order of the commits; entries of two nodes have none.
                ("active", Backend::Sqlite) => assert!(!suspended_first),
                ("activation-failed", Backend::Sqlite) => assert!(suspended_first),
                ("active" | "activation-failed", Backend::Postgres) => {}
                (other, _) => panic!("{other}"),
            }
            if activated.state == "active" {
                revoke(&s.carol, &activated).await.unwrap();
            } else {
                assert!(activated.why.contains("suspended"), "{}", activated.why);
            }
        }
        there.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_elevations_that_are_activated_at_once_are_not_both_in_force() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let there = Elsewhere::of(&s, backend).await;
        for _ in 0..ROUNDS {
            let (one, two) = (s.approved().await, s.approved().await);
            let (first, second) =
                tokio::join!(activate(&s.carol, &one), activate(&there.carol, &two));
            assert_eq!(usize::from(lost(&first)) + usize::from(lost(&second)), 1);
            for id in [&one.id, &two.id] {
                let open = show(&s.carol, id).await.unwrap();
                revoke(&s.carol, &open).await.unwrap();
            }
        }
        there.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_while_activating_ends_it() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let there = Elsewhere::of(&s, backend).await;
        for _ in 0..ROUNDS {
            let approved = s.approved().await;
            let (activated, revoked) =
                tokio::join!(activate(&s.carol, &approved), revoke(&there.admin, &approved));
            assert!(!lost(&revoked));
            lost(&activated);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let after = show(&s.carol, &approved.id).await.unwrap();
            assert!(["revoked", "revoking"].contains(&after.state.as_str()), "{}", after.state);
        }
        there.stop().await;
    }
}
