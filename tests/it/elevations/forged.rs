//! Somebody who can write to the database: a byte of a scheduled elevation is another one.

use super::*;
use crate::support::hand::Hand;
use crate::support::log::Log;

/// Changes one character of a text, to another that keeps it readable.
fn other(text: &str, place: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[place] = if bytes[place] == b'1' { b'2' } else { b'1' };
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_of_scope_or_votes_changed_after_approval_puts_nothing_in_force() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let hand = Hand::new(&s.f.parts.location);
        for (column, within) in [
            ("scope", "\"ttl_s\":"),
            ("scope", "database.cred"),
            ("votes", "\"by\":\""),
            ("votes", "\"ttl_s\":"),
        ] {
            let approved = s.approved().await;
            let row = format!("FROM elevations WHERE id = '{}'", approved.id);
            let text = hand.ask(&format!("SELECT {column} {row}")).await.remove(0);
            let forged = other(&text, text.find(within).unwrap() + within.len());
            assert_ne!(text, forged);
            let set = |text: &str| {
                format!("UPDATE elevations SET {column} = '{text}' WHERE id = '{}'", approved.id)
            };
            hand.run(&set(&forged)).await;
            let log = Log::begin();
            let refused = activate(&s.carol, &approved).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{column}: {refused}");
            assert!(refused.message().contains("alarm"), "{column}: {refused}");
            let told = |line: &str| line.contains("alarm") && line.contains(&approved.id);
            assert!(log.text().lines().any(told), "{column}");
            assert_eq!(hand.ask(&format!("SELECT state {row}")).await, ["scheduled"], "{column}");
            // As it was, it is what was approved.
            hand.run(&set(&text)).await;
            let active = activate(&s.carol, &approved).await.unwrap();
            assert_eq!(active.state, "active", "{column}: {}", active.why);
            revoke(&s.carol, &active).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_with_one_digit_changed_approves_nothing() {
    let s = Stage::new(Backend::Sqlite).await;
    let asked = s.asked().await;
    for place in [0, 31, 63] {
        let forged = Elevation { scope_hash: other(&asked.scope_hash, place), ..asked.clone() };
        assert_eq!(code(approve(&s.dave, &forged).await), Code::FailedPrecondition, "{place}");
    }
    let longer = Elevation { scope_hash: format!("{}0", asked.scope_hash), ..asked.clone() };
    assert_eq!(code(approve(&s.dave, &longer).await), Code::FailedPrecondition);
    assert!(show(&s.carol, &asked.id).await.unwrap().votes.is_empty());
    approve(&s.dave, &asked).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_elevation_whose_own_row_was_altered_gives_nothing_to_anybody() {
    for backend in BACKENDS {
        let s = Stage::new(backend).await;
        let active = s.active().await;
        let hand = Hand::new(&s.f.parts.location);
        let alter =
            format!("UPDATE elevations SET ends_at = ends_at + 3600000 WHERE id = '{}'", active.id);
        hand.run(&alter).await;
        // Nothing of who has it is decided any more, so nothing stands on it.
        let look =
            strongroom::proto::GetGroupRequest { name: "security".into(), ..Default::default() };
        let mut groups = GroupServiceClient::new(s.carol.clone());
        assert!(groups.get_group(look).await.is_err());
        assert!(show(&s.carol, &active.id).await.is_err());
        let refused = revoke(&s.admin, &active).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        // What an administrator does instead: what was made under it ends with who has it.
        let request = strongroom::proto::SuspendIdentityRequest {
            name: "carol".to_owned(),
            ..Default::default()
        };
        let mut identities = IdentityServiceClient::new(s.admin.clone());
        identities.suspend_identity(request).await.unwrap();
    }
}
