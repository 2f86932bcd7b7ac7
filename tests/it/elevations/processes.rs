//! Two servers of the real program, in processes of their own, on one PostgreSQL and one token: the
//! races of approvals.
//!
//! What an approval stands on is a day old. So the vault is founded here, by a clock that is two
//! days behind, and handed to the servers, whose clock is right.

use std::sync::Arc;
use std::time::Duration;

use strongroom::hsm::Pkcs11Hsm;
use strongroom::proto::SuspendIdentityRequest;

use super::races::lost;
use super::*;
use crate::support::program::{Installation, Running};
use crate::support::softhsm::{self, Token};
use crate::support::target::until;

const ROUNDS: usize = 6;
const AGE: Duration = Duration::from_hours(48);

/// The people of the stage, at one of the servers.
struct Place {
    carol: Channel,
    dave: Channel,
    erin: Channel,
    admin: Channel,
}

/// Founds the vault and stops serving it; who logs in with what, and a role that takes two.
async fn founded(token: &Token) -> (Stage, [Login; 4]) {
    let hsm = Pkcs11Hsm::open(&token.config()).unwrap();
    let f = Fixture::aged(Backend::Postgres, Arc::new(hsm), token.pin.clone(), AGE).await;
    let mut s = Stage::of(f).await;
    let both =
        ElevationRole { name: "both".to_owned(), steps: vec![step(2, &["security"])], ..role() };
    put(&s.second, both).await.unwrap();
    let mut logins = [const { None }; 3];
    for (login, name) in logins.iter_mut().zip(["carol", "dave", "erin"]) {
        *login = Some(issued(&s.admin, name).await);
    }
    let [carol, dave, erin] = logins.map(Option::unwrap);
    let logins = [carol, dave, erin, s.f.admin.clone()];
    s.f.node.take().unwrap().stop().await.unwrap();
    s.f.clock.advance(AGE);
    (s, logins)
}

async fn at(real: &Installation, server: &Running, logins: &[Login; 4]) -> Place {
    let [carol, dave, erin, admin] = logins;
    let to = async |login: &Login| real.connect(server, login).await;
    Place {
        carol: to(carol).await,
        dave: to(dave).await,
        erin: to(erin).await,
        admin: to(admin).await,
    }
}

/// What carol asks for, by a role that takes two approvals.
async fn asked(here: &Place) -> Elevation {
    let request = RequestElevationRequest { role: "both".to_owned(), ..request() };
    ask(&here.carol, request).await.unwrap()
}

async fn approved(here: &Place) -> Elevation {
    approve(&here.dave, &ask(&here.carol, request()).await.unwrap()).await.unwrap()
}

async fn state(here: &Place, of: &Elevation) -> Elevation {
    show(&here.carol, &of.id).await.unwrap()
}

async fn approving_while_withdrawing(here: &Place, there: &Place) {
    let asked = asked(here).await;
    approve(&here.dave, &asked).await.unwrap();
    let (approved, withdrawn) =
        tokio::join!(approve(&here.erin, &asked), withdraw(&there.carol, &asked));
    assert!(!lost(&withdrawn));
    let after = state(here, &asked).await;
    assert_eq!(after.state, "withdrawn");
    assert_eq!(after.votes.len(), 1 + usize::from(!lost(&approved)));
    assert!(lost(&activate(&there.carol, &asked).await));
}

async fn approving_twice_at_once(here: &Place, there: &Place) {
    let one_person = asked(here).await;
    let (one, two) =
        tokio::join!(approve(&here.dave, &one_person), approve(&there.dave, &one_person));
    assert_eq!(usize::from(lost(&one)) + usize::from(lost(&two)), 1);
    let after = state(there, &one_person).await;
    assert_eq!((after.state.as_str(), after.votes.len()), ("awaiting-approval", 1));
    // Two at once are two.
    let two_people = asked(there).await;
    let (one, two) =
        tokio::join!(approve(&here.dave, &two_people), approve(&there.erin, &two_people));
    assert!(!lost(&one) && !lost(&two));
    assert_eq!(state(here, &two_people).await.state, "scheduled");
    for open in [one_person, two_people] {
        withdraw(&here.carol, &open).await.unwrap();
    }
}

async fn ending_while_activating(here: &Place, there: &Place) {
    let approved = approved(here).await;
    let (activated, revoked) =
        tokio::join!(activate(&here.carol, &approved), revoke(&there.admin, &approved));
    assert!(!lost(&revoked));
    lost(&activated);
    let after = state(there, &approved).await.state;
    assert!(["revoked", "revoking"].contains(&after.as_str()), "{after}");
    until("nothing is left of it", async || state(there, &approved).await.state == "revoked").await;
}

async fn suspend(at: &Place, name: &str) {
    let request = SuspendIdentityRequest { name: name.to_owned(), ..Default::default() };
    let mut identities = IdentityServiceClient::new(at.admin.clone());
    identities.suspend_identity(request).await.unwrap();
}

/// Activates at one server while who approved is suspended at the other. Which was first nobody
/// outside can tell: entries of two servers stand in the record in the order of its lanes.
async fn activating_while_the_approver_is_suspended(here: &Place, there: &Place) {
    let approved = approved(here).await;
    let (activated, ()) = tokio::join!(activate(&here.carol, &approved), suspend(there, "dave"));
    let activated = match activated {
        Ok(activated) => activated,
        Err(status) => {
            assert_eq!(status.code(), Code::Aborted, "{status}");
            activate(&here.carol, &approved).await.unwrap()
        }
    };
    if activated.state == "active" {
        revoke(&here.carol, &activated).await.unwrap();
    } else {
        assert_eq!(activated.state, "activation-failed");
        assert!(activated.why.contains("suspended"), "{}", activated.why);
    }
}

/// What was answered at one server is known to the other: nothing is in force that stood on who was
/// suspended before.
async fn activating_after_the_approver_was_suspended_elsewhere(here: &Place, there: &Place) {
    let asked = ask(&here.carol, request()).await.unwrap();
    let approved = approve(&here.erin, &asked).await.unwrap();
    suspend(there, "erin").await;
    let failed = activate(&here.carol, &approved).await.unwrap();
    assert_eq!(failed.state, "activation-failed");
    assert!(failed.why.contains("suspended"), "{}", failed.why);
}

#[test]
fn of_what_races_at_two_servers_the_row_tells_who_was_first() {
    let test = "elevations::processes::of_what_races_at_two_servers_the_row_tells_who_was_first";
    softhsm::in_child(test, |token| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (s, logins) = founded(token).await;
            let real = Installation::of(&s.f, token);
            let (one, other) = (real.serve(), real.serve_beside());
            let here = at(&real, &one, &logins).await;
            let there = at(&real, &other, &logins).await;
            // A proof is of the login, at whichever server it is shown.
            step_up(&s.f, &here.dave, "dave", Some(&s.apps[0])).await;
            step_up(&s.f, &there.erin, "erin", Some(&s.apps[1])).await;
            for round in 0..ROUNDS {
                let (here, there) = if round % 2 == 0 { (&here, &there) } else { (&there, &here) };
                approving_while_withdrawing(here, there).await;
                approving_twice_at_once(here, there).await;
                ending_while_activating(here, there).await;
            }
            activating_while_the_approver_is_suspended(&here, &there).await;
            activating_after_the_approver_was_suspended_elsewhere(&here, &there).await;
            drop((here, there));
            assert_eq!((one.stop(), other.stop()), (Some(0), Some(0)));
        });
    });
}
