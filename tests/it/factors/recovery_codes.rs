//! Recovery codes: each once, and a new set voids the last.

use super::*;

async fn with_codes(f: &Fixture) -> (Bearing, App, Vec<String>) {
    let channel = human(f, "carol").await;
    let (app, carol) = (authenticator(f, &channel, "carol").await, plain(&channel));
    verify(&carol, &app.code(f, 0)).await.unwrap();
    let codes = codes(&carol).await.unwrap();
    (carol, app, codes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_code_works_once_however_it_is_typed() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let (carol, _, codes) = with_codes(&f).await;
        assert_eq!(codes.len(), 10);
        let proven = verify(&carol, &codes[0]).await.unwrap();
        assert_eq!(proven.kind, "recovery");
        let wrong = verify(&carol, "aaaa-aaaa-aaaa-aaaa").await.unwrap_err();
        for typed in [codes[0].clone(), codes[0].to_uppercase(), codes[0].replace('-', " ")] {
            let used = verify(&carol, &typed).await.unwrap_err();
            assert_eq!(used.code(), Code::PermissionDenied, "{typed}");
            assert_eq!(used.message(), wrong.message(), "nobody hears what it was");
        }
        verify(&carol, &codes[1].to_uppercase().replace('-', "")).await.unwrap();
        let shown = list(&carol, "").await.unwrap().factors;
        let set = shown.iter().find(|one| one.kind == "recovery").unwrap();
        assert_eq!((set.codes_left, set.vouched_by.as_str()), (8, "admin"));
        let calls = (0..16).map(|_| verify(&carol, &codes[2]));
        let answers = futures_util::future::join_all(calls).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_set_voids_the_last_and_what_was_proven_by_it() {
    let f = Fixture::new().await;
    let (carol, app, codes) = with_codes(&f).await;
    verify(&carol, &codes[0]).await.unwrap();
    steps(&f, 2);
    assert_eq!(whoami(&carol).await.factors.len(), 2);
    verify(&carol, &app.code(&f, 0)).await.unwrap();
    let anew = super::codes(&carol).await.unwrap();
    let kinds: Vec<_> = whoami(&carol).await.factors.into_iter().map(|one| one.kind).collect();
    assert_eq!(kinds, ["totp"]);
    assert_eq!(verify(&carol, &codes[1]).await.unwrap_err().code(), Code::PermissionDenied);
    verify(&carol, &anew[0]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_authenticator_enrols_another_with_a_recovery_code_even_while_locked_out() {
    let f = Fixture::new().await;
    let (carol, app, codes) = with_codes(&f).await;
    f.clock.advance(Duration::from_secs(301));
    for code in app.wrong(&f, 5) {
        verify(&carol, &code).await.unwrap_err();
    }
    assert_ne!(list(&carol, "").await.unwrap().locked_until_ms, 0);
    verify(&carol, &codes[0]).await.unwrap();
    // It makes no other set of codes.
    let wanted = super::codes(&carol).await.unwrap_err();
    assert_eq!(wants(&wanted).unwrap().0, "totp");
    let other = enrol(&carol, "").await.unwrap();
    f.clock.advance(Duration::from_mins(15));
    let late = confirm(&carol, &other, &other.code(&f, 0)).await.unwrap_err();
    assert_eq!(late.code(), Code::NotFound, "it waits for ten minutes");
    verify(&carol, &codes[1]).await.unwrap();
    let other = enrol(&carol, "").await.unwrap();
    confirm(&carol, &other, &other.code(&f, 0)).await.unwrap();
    remove(&carol, &app.id).await.unwrap();
    assert_eq!(verify(&carol, &app.code(&f, 0)).await.unwrap_err().code(), Code::PermissionDenied);
}
