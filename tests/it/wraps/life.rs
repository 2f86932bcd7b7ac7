//! Who opens a wrap, once; what everybody else hears; what nobody finds anywhere.

use strongroom::types::{CredentialId, Id, TokenSecret, WrapHandle};

use super::*;
use crate::secrets::fetch;
use crate::support::hand::Hand;
use crate::support::log::Log;
use crate::support::node::BACKENDS;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_secret_is_opened_once_by_whom_it_is_for_and_the_sender_sees_it() {
    for backend in BACKENDS {
        let log = Log::begin();
        let p = Place::new(backend).await;
        let plain = fetch(&mut p.place.alice(), "team/key", 0).await.unwrap();
        let answer = wrap_with(p.alice(), "120", "etl").await.unwrap();
        // What is no secret is there as ever.
        assert_eq!((answer.version, answer.created_at_ms), (1, plain.created_at_ms));
        let bytes = answer.encode_to_vec();
        assert!(!bytes.windows(CANARY.len()).any(|part| part == CANARY));
        let wrapped = answer.wrapped.unwrap();
        let Wrapped { creator, path, action, recipient, .. } = &wrapped;
        let said = (creator.as_str(), path.as_str(), action.as_str(), recipient.as_str());
        assert_eq!(said, ("alice", PATH, "secrets.get", "etl"));
        assert!(wrapped.handle.starts_with("srw_") && !format!("{wrapped:?}").contains("srw_"));

        // The database without the handle has neither.
        let hand = Hand::new(&p.f().parts.location);
        let payload = hand.bytes("payload", "wrap_payloads").await;
        let handle = hand.bytes("handle", "wraps").await;
        assert!(!payload.windows(CANARY.len()).any(|part| part == CANARY));
        assert!(!wrapped.handle.as_bytes().windows(handle.len()).any(|part| part == handle));

        let before = shown(p.alice(), &wrapped.accessor).await.unwrap();
        assert_eq!((before.state.as_str(), before.opened_at_ms), ("pending", 0));
        assert_eq!(shown(p.etl(), &wrapped.accessor).await.unwrap(), before);
        assert_eq!(shown(&p.eve, &wrapped.accessor).await, Err(Code::PermissionDenied));

        let opened = unwrap(p.etl(), expecting(&wrapped)).await.unwrap();
        let given = GetSecretResponse::decode(opened.answer.as_slice()).unwrap();
        assert_eq!(given, plain, "it is what the call would have answered");
        let after = shown(p.alice(), &wrapped.accessor).await.unwrap();
        assert_eq!(opened.wrap.unwrap(), after);
        let by = (after.state.as_str(), after.opened_by.as_str(), after.opened_from.as_str());
        assert_eq!(by, ("opened", "etl", "127.0.0.1"));
        assert!(after.opened_at_ms >= after.created_at_ms);
        assert!(hand.ask("SELECT id FROM wrap_payloads").await.is_empty());

        let second = unwrap(p.etl(), expecting(&wrapped)).await.unwrap_err();
        assert_eq!((second.code(), reason(&second).as_str()), (Code::FailedPrecondition, "OPENED"));
        assert!(second.message().contains("by etl") && second.message().contains("127.0.0.1"));
        let found = p.entries("wraps.unwrap", "OPENED").await;
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].source.as_str(), found[0].identity.as_str()), ("127.0.0.1", "etl"));
        assert!(found[0].detail.contains("opened before, by etl"), "{}", found[0].detail);

        let asked = p.entries("secrets.get", "ok").await;
        let told: Vec<_> = asked.iter().filter(|one| one.detail.contains("wrapped as")).collect();
        assert_eq!(told.len(), 1, "the call's own entry says so");
        assert!(told[0].detail.contains(&format!("wrapped as {} for etl", wrapped.accessor)));
        let record = format!("{:?}", p.entries("", "").await);
        for secret in [String::from_utf8_lossy(CANARY).into_owned(), wrapped.handle.clone()] {
            assert!(!record.contains(&secret) && !log.text().contains(&secret));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_not_as_expected_burns_nothing_and_is_on_the_record() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let wrapped = p.wrap("120", "etl").await.unwrap();
        let right = || expecting(&wrapped);
        let id: Id = wrapped.accessor.parse().unwrap();
        let other = |id| {
            let handle = WrapHandle::new(CredentialId(id), TokenSecret::derived([7; 32]));
            String::from_utf8(handle.text().expose().to_vec()).unwrap()
        };
        let of = |text: &str| text.to_owned();
        let nobody = p.f().connect_as_nobody().await;
        let stranger = Code::Unauthenticated;
        let (denied, precondition) = (Code::PermissionDenied, Code::FailedPrecondition);
        let (missing, invalid) = (Code::NotFound, Code::InvalidArgument);
        for (what, who, request, code) in [
            ("nobody", &nobody, right(), stranger),
            ("another recipient", &p.eve, right(), denied),
            ("its creator", p.alice(), right(), denied),
            ("a creator", p.etl(), UnwrapRequest { creator: of("eve"), ..right() }, precondition),
            (
                "no creator",
                p.etl(),
                UnwrapRequest { creator: of("mallory"), ..right() },
                precondition,
            ),
            (
                "a path",
                p.etl(),
                UnwrapRequest { path: of("secrets/team/k"), ..right() },
                precondition,
            ),
            (
                "an action",
                p.etl(),
                UnwrapRequest { action: of("keys.random"), ..right() },
                precondition,
            ),
            ("other bits", p.etl(), UnwrapRequest { handle: other(id), ..right() }, missing),
            (
                "another id",
                p.etl(),
                UnwrapRequest { handle: other(Id::from_bytes([9; 16])), ..right() },
                missing,
            ),
            ("no handle", p.etl(), UnwrapRequest { handle: of(""), ..right() }, invalid),
            (
                "a token's prefix",
                p.etl(),
                UnwrapRequest { handle: wrapped.handle.replace("srw_", "srt_"), ..right() },
                invalid,
            ),
            ("no such action", p.etl(), UnwrapRequest { action: of("x.y"), ..right() }, invalid),
            ("no path", p.etl(), UnwrapRequest { path: of(""), ..right() }, invalid),
        ] {
            let refusal = unwrap(who, request).await.unwrap_err();
            assert_eq!(refusal.code(), code, "{what}: {refusal}");
            assert!(!refusal.message().contains("alice"), "{what}: {refusal}");
        }
        assert_eq!(shown(p.alice(), &wrapped.accessor).await.unwrap().state, "pending");
        assert_eq!(p.entries("wraps.unwrap", "DENIED").await.len(), 2);
        assert_eq!(p.entries("wraps.unwrap", "PRECONDITION").await.len(), 4);
        assert_eq!(p.entries("wraps.unwrap", "NOT_FOUND").await.len(), 2);
        // Which action it was may be left open.
        let open = UnwrapRequest { action: String::new(), ..right() };
        assert!(unwrap(p.etl(), open).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrap_without_a_recipient_is_for_whoever_has_the_handle_and_lists_are_ones_own() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let open = p.wrap("60", "").await.unwrap();
        p.place.advance(1);
        let closed = p.wrap("", "etl").await.unwrap();
        assert_eq!((open.recipient.as_str(), closed.recipient.as_str()), ("", "etl"));
        assert_eq!(value(&p.eve, &open).await.unwrap(), CANARY);
        let span = |one: &Wrap| one.expires_at_ms - one.created_at_ms;
        let made = listed(p.alice(), "").await.unwrap();
        let ids: Vec<_> = made.iter().map(|one| one.accessor.as_str()).collect();
        assert_eq!(ids, [closed.accessor.as_str(), open.accessor.as_str()], "the newest first");
        assert_eq!(
            (span(&made[0]), span(&made[1])),
            (120_000, 60_000),
            "2 minutes where none says"
        );
        assert_eq!(listed(p.etl(), "").await.unwrap(), made[..1]);
        assert!(listed(&p.eve, "").await.unwrap().is_empty());
        assert_eq!(listed(&p.eve, "alice").await, Err(Code::PermissionDenied));
        let admin = p.f().connect(&p.f().admin).await;
        assert_eq!(listed(&admin, "alice").await.unwrap(), made);
    }
}
