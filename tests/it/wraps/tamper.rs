//! Somebody who can write to the database: what was altered or moved opens nothing, and burns
//! nothing.

use super::*;
use crate::support::hand::Hand;
use crate::support::node::BACKENDS;

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_or_moved_answer_does_not_open_and_burns_nothing() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let (one, other) =
            (p.wrap("600", "etl").await.unwrap(), p.wrap("600", "etl").await.unwrap());
        let hand = Hand::new(&p.f().parts.location);
        let row = |wrapped: &Wrapped| format!("wrap_payloads WHERE id = '{}'", wrapped.accessor);
        let was = hand.bytes("payload", &row(&one)).await;
        let moved = hand.bytes("payload", &row(&other)).await;
        let mut flipped = was.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let write = async |bytes: &[u8]| {
            let (bytes, id) = (hand.literal(bytes), &one.accessor);
            hand.run(&format!("UPDATE wrap_payloads SET payload = {bytes} WHERE id = '{id}'"))
                .await;
        };
        for (what, bytes) in
            [("flipped", flipped), ("moved", moved), ("cut off", was[..9].to_vec())]
        {
            write(bytes.as_slice()).await;
            let refusal = unwrap(p.etl(), expecting(&one)).await.unwrap_err();
            assert_eq!(reason(&refusal), "TAMPERED", "{what}: {refusal}");
        }
        write(was.as_slice()).await;
        assert_eq!(value(p.etl(), &one).await.unwrap(), CANARY, "nothing was burned");

        // The row that says for whom it is is sealed.
        let id = &other.accessor;
        hand.run(&format!("UPDATE wraps SET recipient = NULL WHERE id = '{id}'")).await;
        let refusal = unwrap(&p.eve, expecting(&other)).await.unwrap_err();
        assert_eq!(reason(&refusal), "TAMPERED", "{refusal}");
        // A wrap that was opened is not made fresh by its payload alone.
        let bytes = hand.literal(&was);
        let id = &one.accessor;
        hand.run(&format!(
            "INSERT INTO wrap_payloads (id, expires_at, payload) \
             VALUES ('{id}', 9000000000000, {bytes})"
        ))
        .await;
        let refusal = unwrap(p.etl(), expecting(&one)).await.unwrap_err();
        assert_eq!(reason(&refusal), "OPENED", "{refusal}");
    }
}
