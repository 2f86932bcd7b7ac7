//! A cluster is asked whether it still stands behind a token: what does not say yes is a refusal.

use strongroom::proto::{
    GetIssuerRequest, RemoveIssuerRequest, TestTokenRequest, TokenReview, UpdateIssuerRequest,
};

use super::*;
use crate::support::hand::Hand;

const CREDENTIAL: &str = "the-reviewers.own";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const CLUSTER: [(&str, &str); 2] = [
    ("kubernetes.io/namespace", "data"),
    ("kubernetes.io/serviceaccount/uid", "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"),
];

/// Has the cluster asked at a URL, or not; with a credential, or the stored one.
async fn review(scene: &Scene, url: Option<&str>, credential: &str) -> Result<(), Status> {
    let review = |url: &str| TokenReview { url: url.to_owned(), ca_pem: scene.issuer.ca.clone() };
    let known = settings(&scene.issuer, "kubernetes");
    let settings = Some(IssuerSettings { token_review: url.map(review), ..known });
    let request = UpdateIssuerRequest {
        name: "ci".to_owned(),
        settings,
        reviewer_credential: credential.to_owned(),
        ..Default::default()
    };
    scene.admin.clone().update_issuer(request).await.map(drop)
}

/// What an administrator is told of a token.
async fn problem(scene: &Scene, token: &str) -> String {
    let request = TestTokenRequest { token: token.to_owned(), identity: "etl".to_owned() };
    scene.admin.clone().test_token(request).await.unwrap().into_inner().problem
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_its_cluster_does_not_stand_behind_logs_nobody_in() {
    for backend in BACKENDS {
        let scene = Scene::with(backend, "kubernetes", &CLUSTER).await;
        let url = scene.issuer.url();
        review(&scene, Some(&url), CREDENTIAL).await.unwrap();
        let yes = json!(null);
        scene.issuer.serve_cluster(CREDENTIAL, &[], &yes);
        let token = scene.token("1", kubernetes("p"));
        assert_eq!(problem(&scene, &token).await, "");
        scene.login(&token).await.unwrap();
        for (said, bearer, gone, says, why) in [
            ("a pod that is gone", CREDENTIAL, &["p"][..], yes.clone(), "does not stand behind it"),
            ("no", CREDENTIAL, &[], json!({"authenticated": false}), "does not stand behind it"),
            ("another account", CREDENTIAL, &[], json!({"user": {"uid": "u"}}), "another service"),
            ("nobody", CREDENTIAL, &[], json!({"user": {}}), "another service account"),
            ("another audience", CREDENTIAL, &[], json!({"audiences": ["a"]}), "for this vault"),
            ("no audience", CREDENTIAL, &[], json!({"audiences": null}), "for this vault"),
            ("a credential that is over", "another", &[], yes.clone(), "it answered 401"),
        ] {
            scene.issuer.serve_cluster(bearer, gone, &says);
            let status = scene.login(&token).await.expect_err(said);
            assert_eq!(status.code(), Code::Unauthenticated, "{said}: {status}");
            assert!(status.message().starts_with("the token is not accepted"), "{said}: {status}");
            let problem = problem(&scene, &token).await;
            assert!(problem.contains(why), "{said}: {problem}");
        }
        scene.issuer.serve_cluster(CREDENTIAL, &[], &yes);
        scene.login(&token).await.unwrap();
        let elsewhere = json!({"Location": format!("{url}{REVIEWS}/2")});
        for (said, status, body, headers) in [
            ("no JSON", 201, "<html>", json!({})),
            ("another kind", 200, r#"{"kind":"Status","status":"Success"}"#, json!({})),
            ("a redirect", 307, "", elsewhere),
            ("a fault", 500, "", json!({})),
        ] {
            scene.issuer.serve(REVIEWS, status, body, &headers);
            assert!(scene.login(&token).await.is_err(), "{said}");
        }
        review(&scene, Some("https://127.0.0.1:1"), CREDENTIAL).await.unwrap();
        assert!(scene.login(&token).await.is_err(), "nobody answers");
        assert!(problem(&scene, &token).await.contains("could not be asked"));
        review(&scene, None, "").await.unwrap();
        scene.login(&token).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reviewers_credential_is_sealed_for_one_cluster_and_shown_to_nobody() {
    for backend in BACKENDS {
        let mut scene = Scene::with(backend, "kubernetes", &CLUSTER).await;
        let (url, hand) = (scene.issuer.url(), Hand::new(&scene.f.parts.location));
        let stored = async || hand.bytes("credential", "issuer_reviewers").await;
        for (said, url, credential) in [
            ("none", Some(url.as_str()), ""),
            ("no header", Some(url.as_str()), "a\r\nb"),
            ("for nothing", None, CREDENTIAL),
            ("in the clear", Some("http://127.0.0.1"), CREDENTIAL),
        ] {
            let status = review(&scene, url, credential).await.expect_err(said);
            assert_eq!(status.code(), Code::InvalidArgument, "{said}: {status}");
        }
        review(&scene, Some(&url), CREDENTIAL).await.unwrap();
        let first = stored().await;
        assert!(!first.windows(CREDENTIAL.len()).any(|part| part == CREDENTIAL.as_bytes()));
        let get = GetIssuerRequest { name: "ci".into() };
        let shown = scene.admin.get_issuer(get).await.unwrap().into_inner();
        let text = format!("{shown:?}");
        assert!(text.contains(&url) && !text.contains(CREDENTIAL), "{text}");
        // It stays where its cluster does, and goes to no other.
        review(&scene, Some(&url), "").await.unwrap();
        assert_eq!(stored().await, first);
        let status = review(&scene, Some("https://127.0.0.1:1"), "").await.unwrap_err();
        assert!(status.message().contains("credential is missing"), "{status}");
        review(&scene, Some(&url), CREDENTIAL).await.unwrap();
        assert_ne!(stored().await, first, "it is sealed anew");
        scene.issuer.serve_cluster(CREDENTIAL, &[], &json!(null));
        scene.login(&scene.token("1", kubernetes("p"))).await.unwrap();
        scene.f.restart().await;
        scene.stranger = Client::new(scene.f.connect_as_nobody().await);
        scene.admin = Client::new(scene.f.connect(&scene.f.admin).await);
        scene.login(&scene.token("1", kubernetes("p"))).await.unwrap();
        let remove = RemoveIssuerRequest { name: "ci".into(), reason: "over".into() };
        scene.admin.remove_issuer(remove).await.unwrap();
        assert!(stored().await.is_empty(), "it is forgotten with its issuer");
    }
}
