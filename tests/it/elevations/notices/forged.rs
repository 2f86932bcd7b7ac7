//! Rows that somebody put into the database, or took out of it: they silence nothing, and keep nobody
//! from taking rights away.

use super::*;
use crate::support::hand::Hand;
use crate::support::log::Log;

/// A copy of the first notice, under another number and as old as can be.
async fn forge(f: &Fixture, id: i64) {
    let sql = format!(
        "INSERT INTO notices SELECT '{id:016}', kind, facts, recipients, request, 0, created_by, \
         row_version, seal_version, mac FROM notices WHERE id = '0000000000000001'"
    );
    Hand::new(&f.parts.location).run(&sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_under_a_number_that_nobody_gave_silences_no_sink() {
    for backend in BACKENDS {
        let receiver = Receiver::new().await;
        let f = told(Fixture::on(backend).await, vec![posts_to(&receiver)]).await;
        let s = Stage::of(f).await;
        settled(&s.f).await;
        forge(&s.f, 9_999_999_999_999_999).await;
        // Nor is one deleted before its time that only says to be old.
        let pending = s.asked().await;
        let old = "UPDATE notices SET created_at = 0 WHERE id = '0000000000000001'";
        Hand::new(&s.f.parts.location).run(old).await;
        s.f.clock.advance(Duration::from_hours(9 * 24));
        let kept = "SELECT COUNT(*) FROM notices WHERE kind = 'elevation.requested'";
        until("what is old is deleted", async || number(&s.f, kept).await == 0).await;
        assert_ne!(show(&s.carol, &pending.id).await.unwrap().state, "active");
        let beyond = "SELECT COUNT(*) FROM notice_heads WHERE purged > last";
        assert_eq!(number(&s.f, beyond).await, 0);
        withdraw(&s.carol, &s.asked().await).await.unwrap();
        settled(&s.f).await;
        assert!(receiver.kinds().contains(&"elevation.withdrawn".to_owned()));
        let behind =
            "SELECT COUNT(*) FROM notice_sinks s, notice_heads h WHERE s.position > h.last";
        assert_eq!(number(&s.f, behind).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_somebody_took_by_hand_is_given_all_the_same() {
    for backend in BACKENDS {
        let receiver = Receiver::new().await;
        let f = told(Fixture::on(backend).await, vec![posts_to(&receiver)]).await;
        let s = Stage::of(f).await;
        let active = s.active().await;
        let log = Log::begin();
        forge(&s.f, number(&s.f, "SELECT last FROM notice_heads").await + 1).await;
        assert_eq!(revoke(&s.admin, &active).await.unwrap().state, "revoked");
        let revoked = receiver.waits_for("elevation.revoked").await.json();
        assert_eq!(revoked["data"]["elevation"], active.id);
        assert!(log.text().contains("notices were put into the store by hand"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_taken_away_also_where_no_notice_can_be_written_and_none_are_given() {
    for backend in BACKENDS {
        let s = Stage::of(Fixture::on(backend).await).await;
        let (active, open) = (s.active().await, s.asked().await);
        let log = Log::begin();
        Hand::new(&s.f.parts.location).run("ALTER TABLE notices RENAME TO taken").await;
        assert_eq!(revoke(&s.admin, &active).await.unwrap().state, "revoked");
        assert_eq!(withdraw(&s.carol, &open).await.unwrap().state, "withdrawn");
        assert!(ask(&s.carol, request()).await.is_err());
        assert!(log.text().contains("nobody could be told"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_whose_row_is_taken_out_is_told_once_more_of_all_that_is_kept() {
    for backend in BACKENDS {
        let receiver = Receiver::new().await;
        let f = told(Fixture::on(backend).await, vec![posts_to(&receiver)]).await;
        let s = Stage::of(f).await;
        receiver.waits_for("elevation-role.created").await;
        receiver.usually(Some(Answer::status("503 Later")));
        s.asked().await;
        receiver.waits_for("elevation.requested").await;
        Hand::new(&s.f.parts.location).run("DELETE FROM notice_sinks").await;
        until("it begins again", async || {
            number(&s.f, "SELECT COUNT(*) FROM notice_sinks WHERE position = 0").await == 1
        })
        .await;
        receiver.usually(None);
        settled(&s.f).await;
        assert_eq!(receiver.kinds(), ["elevation-role.created", "elevation.requested"]);
        assert!(receiver.came().len() >= 4, "each again");
    }
}
