//! Clocks that jump: what is over is over, also where the time of day is an earlier one again.

use std::time::Duration;

use super::force::{Scene, reader};
use super::*;
use crate::support::target::{ask as credentials, issue, until};

/// As far as clocks are set right by a step, and as far as they are wrong.
const BACK: [Duration; 2] = [Duration::from_secs(3), Duration::from_mins(1)];

/// Nobody is elevated: the call is refused, or the node refuses every call while its clock is behind.
async fn refused(who: &Channel) {
    let refusal = code(issue(who, credentials()).await);
    assert!([Code::PermissionDenied, Code::Unavailable].contains(&refusal), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_elevated_again_where_the_clock_is_set_back_behind_the_end() {
    for backend in BACKENDS {
        for back in BACK {
            let s = Scene::new(backend).await;
            let active = s.carol().await;
            issue(&s.carol, credentials()).await.unwrap();
            s.w.f.clock.advance(Duration::from_mins(10));
            refused(&s.carol).await;
            s.w.f.clock.set_back(back);
            for _ in 0..20 {
                refused(&s.carol).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // Once the clock is right again, it is over for everybody who looks.
            s.w.f.clock.advance(back + Duration::from_secs(1));
            until("it is over", async || {
                show(&s.carol, &active.id).await.is_ok_and(|it| it.state == "ended")
            })
            .await;
            refused(&s.carol).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_approved_or_activated_again_where_the_clock_is_set_back_behind_its_hour() {
    for backend in BACKENDS {
        for back in BACK {
            let s = Scene::new(backend).await;
            put(&s.w.admin, reader()).await.unwrap();
            let (role, resources) = ("reader".to_owned(), reader().resources);
            let request = RequestElevationRequest { role, resources, ..request() };
            let open = ask(&s.carol, request.clone()).await.unwrap();
            let later = approve(&s.dave, &ask(&s.carol, request).await.unwrap()).await.unwrap();
            s.w.f.clock.advance(Duration::from_hours(1));
            assert_eq!(code(activate(&s.carol, &later).await), Code::FailedPrecondition);
            s.w.f.clock.set_back(back);
            for _ in 0..20 {
                for answer in [approve(&s.dave, &open).await, activate(&s.carol, &later).await] {
                    let refusal = code(answer);
                    let over = [Code::FailedPrecondition, Code::Unavailable];
                    assert!(over.contains(&refusal), "{refusal:?}");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            s.w.f.clock.advance(back + Duration::from_secs(1));
            for over in [&open, &later] {
                until("it is over", async || {
                    show(&s.carol, &over.id).await.is_ok_and(|it| it.state == "expired")
                })
                .await;
            }
        }
    }
}
