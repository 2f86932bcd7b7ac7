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

/// A small generator, seeded: what fails is played again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_random_operations_no_child_exceeds_its_parent_and_no_end_its_caps() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let etl = machine(&f, "etl").await;
        let holder = plain(&etl);
        let mut dice = Dice(7);
        let mut known: Vec<(String, Bearing)> = Vec::new();
        for step in 0..150 {
            let pick =
                usize::try_from(dice.below(u64::try_from(known.len() + 1).unwrap())).unwrap();
            let ttl_s = i64::try_from(dice.below(2_000)).unwrap();
            let order = TokenOrder { max_ttl_s: ttl_s + 500, ..with(ttl_s.max(1)) };
            match (dice.below(6), known.get(pick)) {
                (0..=1, None) | (0, Some(_)) => {
                    if let Ok(made) = create(&etl, order).await {
                        let bearer = bearing(&etl, &made.bearer);
                        known.push((made.token.unwrap().accessor, bearer));
                    }
                }
                (1..=2, Some((_, parent))) => {
                    if let Ok(made) = child(parent, order).await {
                        let bearer = bearing(&etl, &made);
                        let accessor = inspect(&bearer, "").await.unwrap().accessor;
                        known.push((accessor, bearer));
                    }
                }
                (3, Some((_, token))) => drop(renew(token, "", ttl_s).await),
                (4, Some((_, token))) if step % 3 == 0 => drop(revoke(token, "").await),
                (_, _) => f.clock.advance(Duration::from_millis(dice.below(200_000))),
            }
        }
        let all: Vec<_> = {
            let mut all = Vec::new();
            for (accessor, bearer) in &known {
                all.push((inspect(&holder, accessor).await.unwrap(), knock(bearer).await));
            }
            all
        };
        assert!(all.len() > 20);
        let now = f.node().vault.now().unwrap().0;
        for (token, answer) in &all {
            assert!(token.expires_at_ms <= token.max_expires_at_ms, "{token:?}");
            let parent = all.iter().find(|(parent, _)| parent.accessor == token.parent);
            if let Some((parent, of_parent)) = parent {
                assert!(token.expires_at_ms <= parent.expires_at_ms, "{token:?} {parent:?}");
                assert!(token.max_expires_at_ms <= parent.max_expires_at_ms);
                assert!(*answer != Code::Ok || *of_parent == Code::Ok, "{token:?} {parent:?}");
            }
            assert!(*answer != Code::Ok || token.expires_at_ms > now - 1_000);
        }
    }
}
