//! Parents and children: a child is at most what its parent is, whatever is done in which order.

use super::*;
use crate::support::restored::restored;

#[tokio::test(flavor = "multi_thread")]
async fn a_child_neither_outlives_nor_outranks_its_parent() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let etl = machine(&f, "etl").await;
        let order = TokenOrder {
            max_ttl_s: 1_000,
            networks: vec!["127.0.0.0/16".to_owned()],
            audience: vec!["localhost".to_owned()],
            scope: vec!["database/analytics/*".to_owned()],
            ..with(500)
        };
        let made = create(&etl, order).await.unwrap();
        let (parent, up) = (bearing(&etl, &made.bearer), made.token.unwrap());
        for bad in [
            TokenOrder { networks: vec!["127.0.0.0/8".to_owned()], ..with(0) },
            TokenOrder { audience: vec!["vault.test".to_owned()], ..with(0) },
            TokenOrder { scope: vec!["database/**".to_owned()], ..with(0) },
        ] {
            let refusal = child(&parent, bad).await.unwrap_err();
            assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
        }
        let below = bearing(
            &etl,
            &child(&parent, TokenOrder { max_ttl_s: 9_000, ..with(9_000) }).await.unwrap(),
        );
        let down = inspect(&below, "").await.unwrap();
        assert_eq!(down.parent, up.accessor);
        assert_eq!(
            (down.expires_at_ms, down.max_expires_at_ms),
            (up.expires_at_ms, up.max_expires_at_ms)
        );
        assert_eq!((&down.networks, &down.audience), (&up.networks, &up.audience));
        assert_eq!(down.scope, up.scope);
        // Renewed, it ends where its parent does now.
        f.clock.advance(Duration::from_secs(100));
        assert_eq!(renew(&below, "", 800).await.unwrap().expires_at_ms, up.expires_at_ms);
        let later = renew(&parent, "", 700).await.unwrap();
        assert!(later.expires_at_ms > up.expires_at_ms);
        assert_eq!(renew(&below, "", 9_000).await.unwrap().expires_at_ms, later.expires_at_ms);
        // One whose uses are counted makes no other, and pays nothing for asking.
        let counted = TokenOrder { uses: 2, ..with(0) };
        let counted = bearing(&etl, &child(&parent, counted).await.unwrap());
        let refusal = child(&counted, with(0)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::FailedPrecondition);
        assert_eq!(inspect(&counted, "").await.unwrap().uses_left, 2);
        revoke(&parent, "").await.unwrap();
        for dead in [&parent, &below, &counted] {
            assert_eq!(knock(dead).await, Code::Unauthenticated);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_hang_eight_deep_and_all_of_them_die_with_the_first() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let etl = machine(&f, "etl").await;
        let mut tokens = vec![bearing(&etl, &token(&etl, 0).await.bearer)];
        while tokens.len() < 9 {
            let next = child(tokens.last().unwrap(), with(0)).await.unwrap();
            tokens.push(bearing(&etl, &next));
        }
        let refusal = child(tokens.last().unwrap(), with(0)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::FailedPrecondition);
        let last = inspect(tokens.last().unwrap(), "").await.unwrap().accessor;
        for token in &tokens {
            assert_eq!(knock(token).await, Code::Ok);
        }
        revoke(&tokens[0], "").await.unwrap();
        for token in &tokens {
            assert_eq!(knock(token).await, Code::Unauthenticated);
        }
        // The rows follow, down to the last.
        crate::support::target::until("the last is revoked", async || {
            inspect(&plain(&etl), &last).await.unwrap().state == "revoked"
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_before_a_restore_is_void() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let etl = machine(&f, "etl").await;
        let before = bearing(&etl, &token(&etl, 0).await.bearer);
        assert_eq!(knock(&before).await, Code::Ok);
        restored(&f).await;
        assert_eq!(knock(&before).await, Code::Unauthenticated);
        assert_eq!(knock(&plain(&etl)).await, Code::Ok);
        assert_eq!(knock(&bearing(&etl, &token(&etl, 0).await.bearer)).await, Code::Ok);
    }
}
