//! Every transition is an entry in the record: of which elevation, from where, by what, to where.

use std::time::Duration;

use strongroom::types::TRANSITIONS;

use super::glass::{emergency, glass};
use super::*;
use crate::support::restored::restored;
use crate::support::target::until;

/// What the record tells of elevations: action, outcome and detail of each entry.
async fn told(s: &Stage) -> Vec<(String, String, String)> {
    let all = entries(s, "").await.into_iter().filter(|it| it.action.starts_with("elevations."));
    all.map(|it| (it.action, it.outcome, it.detail)).collect()
}

async fn becomes(s: &Stage, of: &Elevation, is: &str) {
    until(is, async || show(&s.admin, &of.id).await.unwrap().state == is).await;
}

/// Lets one elevation after the other go through every transition that there is.
async fn walk(s: &Stage) {
    s.put(ElevationRole { requesters: vec!["second".to_owned()], ..glass() }).await.unwrap();
    // From where it waits to be approved, and from where it is approved.
    for approved in [false, true] {
        let next = async || if approved { s.approved().await } else { s.asked().await };
        deny(&s.erin, &next().await).await.unwrap();
        withdraw(&s.carol, &next().await).await.unwrap();
        revoke(&s.admin, &next().await).await.unwrap();
    }
    let given_back = s.active().await;
    revoke(&s.carol, &given_back).await.unwrap();
    revoke(&s.admin, &s.active().await).await.unwrap();
    ask(&s.second, emergency()).await.unwrap();
    let void = s.approved().await;
    s.put(ElevationRole { purpose: "another".to_owned(), ..role() }).await.unwrap();
    assert_eq!(activate(&s.carol, &void).await.unwrap().state, "activation-failed");
    let by_the_clock = s.active().await;
    let (open, late) = (s.asked().await, s.approved().await);
    s.f.clock.advance(Duration::from_secs(601));
    becomes(s, &by_the_clock, "ended").await;
    s.f.clock.advance(Duration::from_hours(1));
    becomes(s, &open, "expired").await;
    becomes(s, &late, "expired").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transition_of_the_table_is_in_the_record_with_what_moved_from_where_to_where() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        walk(&s).await;
        let told = told(&s).await;
        for (from, event, to) in TRANSITIONS {
            let said = format!(": {event} from {from} to {to}");
            let found = told.iter().find(|(_, _, detail)| detail.contains(&said));
            let (_, outcome, detail) = found.unwrap_or_else(|| panic!("{said} in {told:#?}"));
            assert!(detail.contains("elevation "), "{detail}");
            match to.as_str() {
                "expired" => assert_eq!(outcome, "EXPIRED", "{detail}"),
                "activation-failed" => assert_eq!(outcome, "ACTIVATION_FAILED", "{detail}"),
                _ => {}
            }
        }
        // Nothing else is called anything but what it is.
        let odd = |it: &&(String, String, String)| !["ok", "EXPIRED"].contains(&it.1.as_str());
        let odd: Vec<_> = told.iter().filter(odd).collect();
        assert!(odd.iter().all(|it| it.1 == "ACTIVATION_FAILED"), "{odd:?}");
        assert_eq!(odd.len(), 1, "{odd:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_or_prolongs_another_elevation_names_that_in_its_entry_too() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let active = s.active().await;
        let request = strongroom::proto::ExtendElevationRequest {
            id: active.id.clone(),
            ttl_s: 60,
            ..Default::default()
        };
        let more = Client::new(s.carol.clone()).extend_elevation(request).await.unwrap();
        let more = approve(&s.dave, &more.into_inner().elevation.unwrap()).await.unwrap();
        activate(&s.carol, &more).await.unwrap();
        restored(&s.f).await;
        let next = s.active().await;
        let told = told(&s).await;
        let of = |id: &str| {
            let mut all = told.iter().filter(|it| it.0 == "elevations.activate");
            all.find(|it| it.2.contains(&format!("elevation {id}: activate"))).unwrap().2.clone()
        };
        assert!(of(&more.id).contains(&format!("elevation {}: prolonged", active.id)));
        let ends = format!("elevation {}: end from active to ended", active.id);
        assert!(of(&next.id).contains(&ends), "{}", of(&next.id));
    }
}
