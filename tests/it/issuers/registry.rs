//! Issuers and rules: who may keep them, what they say, where they end.

use strongroom::proto::{
    GetIssuerRequest, ListIssuersRequest, ListRulesRequest, RemoveIssuerRequest, TestTokenRequest,
    UpdateIssuerRequest, issuer_settings,
};

use crate::support::logins::human;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_is_added_shown_changed_and_removed_and_its_name_is_never_used_again() {
    for backend in BACKENDS {
        let mut scene = Scene::bare(backend, "github").await;
        let get = GetIssuerRequest { name: "ci".into() };
        let shown = scene.admin.get_issuer(get.clone()).await.unwrap().into_inner().issuer.unwrap();
        let known = shown.settings.clone().unwrap();
        assert_eq!((known.replay.as_str(), known.audience.as_str()), ("hash", AUDIENCE));
        assert_eq!((shown.created_by.as_str(), shown.rules), ("admin", 0));
        let listed = scene.admin.list_issuers(ListIssuersRequest::default()).await.unwrap();
        assert_eq!(listed.into_inner().issuers, std::slice::from_ref(&shown));
        let update = |version, change: &dyn Fn(&mut IssuerSettings)| {
            let mut settings = known.clone();
            change(&mut settings);
            let (name, settings) = ("ci".to_owned(), Some(settings));
            UpdateIssuerRequest { name, version, settings, ..Default::default() }
        };
        let to = update(shown.version, &|it| it.audience = "other".into());
        scene.admin.update_issuer(to.clone()).await.unwrap();
        let stale = scene.admin.update_issuer(to).await.unwrap_err();
        assert_eq!(stale.code(), Code::Aborted);
        for (said, bad) in [
            ("no audience", update(0, &|it| it.audience.clear())),
            ("HMAC", update(0, &|it| it.algorithms = vec!["HS256".into()])),
            ("none", update(0, &|it| it.algorithms = vec!["none".into()])),
            ("another preset", update(0, &|it| it.preset = "generic".into())),
            ("no pods", update(0, &|it| it.replay = "bound".into())),
            ("public", update(0, &|it| it.private_network = false)),
            (
                "no keys",
                update(0, &|it| {
                    it.keys = Some(issuer_settings::Keys::Jwks("{\"keys\":[]}".into()));
                }),
            ),
        ] {
            let status = scene.admin.update_issuer(bad).await.expect_err(said);
            assert_eq!(status.code(), Code::InvalidArgument, "{said}: {status}");
        }
        let remove = RemoveIssuerRequest { name: "ci".into(), reason: "over".into() };
        scene.admin.remove_issuer(remove.clone()).await.unwrap();
        assert_eq!(scene.admin.remove_issuer(remove).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(scene.admin.get_issuer(get).await.unwrap_err().code(), Code::NotFound);
        let again = AddIssuerRequest {
            name: "ci".into(),
            url: shown.url,
            settings: Some(known),
            ..Default::default()
        };
        let taken = scene.admin.add_issuer(again).await.unwrap_err();
        assert_eq!(taken.code(), Code::AlreadyExists);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_said_before_it_is_added_and_binds_what_it_must() {
    for backend in BACKENDS {
        let mut scene = Scene::bare(backend, "github").await;
        let said = scene.rule(AddRuleRequest { dry_run: true, ..rule(&GITHUB) }).await.unwrap();
        let list = ListRulesRequest { issuer: "ci".into(), ..Default::default() };
        let listed = scene.admin.list_rules(list.clone()).await.unwrap().into_inner().rules;
        assert!(listed.is_empty(), "it was only said");
        let added = scene.rule(rule(&GITHUB)).await.unwrap();
        assert_eq!(said.sentence, added.sentence);
        for part in ["repository_id \"70001\"", "ref_protected \"true\"", "as etl", "15 min"] {
            assert!(added.sentence.contains(part), "{part}: {}", added.sentence);
        }
        let listed = scene.admin.list_rules(list).await.unwrap().into_inner().rules;
        assert_eq!(listed, [added]);
        human(&scene.f, "erin").await;
        let to = |name: &str| AddRuleRequest {
            yields: Some(add_rule_request::Yields::Identity(name.into())),
            ..rule(&GITHUB)
        };
        let sub = [&GITHUB[..], &[("sub", "repo:acme/pipeline:ref:refs/heads/main")]].concat();
        for (what, request, code) in [
            ("sub", rule(&sub), Code::InvalidArgument),
            ("no repository", rule(&GITHUB[1..]), Code::InvalidArgument),
            ("no branch", rule(&GITHUB[..3]), Code::InvalidArgument),
            ("a person", to("erin"), Code::InvalidArgument),
            ("nobody", to("nobody"), Code::NotFound),
            (
                "too long",
                AddRuleRequest { max_ttl_s: 86_401, ..rule(&GITHUB) },
                Code::InvalidArgument,
            ),
            ("no issuer", AddRuleRequest { issuer: "no".into(), ..rule(&GITHUB) }, Code::NotFound),
        ] {
            let status = scene.rule(request).await.expect_err(what);
            assert_eq!(status.code(), code, "{what}: {status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_issuers_of_one_url_differ_by_their_audience() {
    for backend in BACKENDS {
        let mut scene = Scene::bare(backend, "github").await;
        let add = |name: &str, audience: &str| {
            let known = settings(&scene.issuer, "github");
            let settings = Some(IssuerSettings { audience: audience.to_owned(), ..known });
            AddIssuerRequest {
                name: name.to_owned(),
                url: scene.issuer.url(),
                settings,
                ..Default::default()
            }
        };
        let (same, other) = (add("twin", AUDIENCE), add("other", "other.vault"));
        let settings = same.settings.clone();
        let status = scene.admin.add_issuer(same).await.unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "{status}");
        assert!(status.message().contains("the issuer ci has"), "{status}");
        scene.admin.add_issuer(other).await.unwrap();
        let name = "other".to_owned();
        let update = UpdateIssuerRequest { name, settings, ..Default::default() };
        let status = scene.admin.update_issuer(update).await.unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_rules_yield_an_identity_and_not_one_more() {
    let mut scene = Scene::bare(Backend::Sqlite, "generic").await;
    for n in 0..100 {
        scene.rule(rule(&[("sub", &n.to_string())])).await.unwrap();
    }
    let full = scene.rule(rule(&[("sub", "x")])).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().starts_with("100 rules yield the identity"), "{full}");
    let token = scene.token("1", json!({"sub": "99"}));
    scene.login(&token).await.unwrap();
    // Those of an issuer that was removed yield nobody.
    let remove = RemoveIssuerRequest { name: "ci".into(), reason: "over".into() };
    scene.admin.remove_issuer(remove).await.unwrap();
    let (url, known) = (scene.issuer.url(), Some(settings(&scene.issuer, "generic")));
    let add = AddIssuerRequest { name: "ci2".into(), url, settings: known, ..Default::default() };
    scene.admin.add_issuer(add).await.unwrap();
    let issuer = "ci2".to_owned();
    scene.rule(AddRuleRequest { issuer, ..rule(&[("sub", "x")]) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_says_which_rule_matches_and_why_others_do_not_and_uses_nothing_up() {
    for backend in BACKENDS {
        let mut scene = Scene::with(backend, "github", &GITHUB).await;
        let other = [GITHUB[0], GITHUB[1], GITHUB[2], ("environment", "production")];
        scene.rule(rule(&other)).await.unwrap();
        let token = scene.token("1", github());
        let test = async |token: &str, identity: &str| {
            let (token, identity) = (token.to_owned(), identity.to_owned());
            let request = TestTokenRequest { token, identity };
            scene.admin.clone().test_token(request).await.unwrap().into_inner()
        };
        for identity in ["etl", ""] {
            let tested = test(&token, identity).await;
            assert_eq!((tested.issuer.as_str(), tested.problem.as_str()), ("ci", ""));
            let verdicts: Vec<_> = tested.trials.iter().map(|one| one.matches).collect();
            assert_eq!(verdicts, [true, false], "{identity:?}");
            let why = &tested.trials[1].objection;
            assert!(
                why.contains("environment \"production\"") && why.contains("no such claim"),
                "{why}"
            );
        }
        scene.login(&token).await.unwrap();
        let used = test(&token, "etl").await;
        assert_eq!(used.problem, "it was used before");
        let forged = format!("{token}A");
        let tested = test(&forged, "etl").await;
        assert!(tested.issuer.is_empty() && !tested.problem.is_empty() && tested.trials.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_workflows_count_where_a_rule_names_them() {
    const WORKFLOW: &str = "acme/shared/.github/workflows/deploy.yml@refs/heads/main";
    let mut scene = Scene::bare(Backend::Sqlite, "github").await;
    let bound = |workflow: &'static str| {
        let [repository, owner, ..] = GITHUB;
        let event = ("event_name", "pull_request_target");
        rule(&[repository, owner, event, ("environment", "prod"), ("job_workflow_ref", workflow)])
    };
    let half = scene.rule(bound("acme/shared")).await.unwrap_err();
    assert_eq!(half.code(), Code::InvalidArgument, "{half}");
    scene.rule(bound(WORKFLOW)).await.unwrap();
    for (jti, event, workflow, fits) in [
        ("1", "pull_request_target", WORKFLOW.to_owned(), true),
        ("2", "workflow_run", WORKFLOW.to_owned(), false),
        ("3", "push", WORKFLOW.to_owned(), false),
        ("4", "pull_request_target", WORKFLOW.replace("main", "topic"), false),
        ("5", "pull_request_target", WORKFLOW.replace("acme", "mallory"), false),
    ] {
        let mut claims = github();
        claims["environment"] = json!("prod");
        claims["event_name"] = json!(event);
        claims["job_workflow_ref"] = json!(workflow);
        let came = scene.login(&scene.token(jti, claims)).await;
        assert_eq!(came.is_ok(), fits, "{event} of {workflow}");
    }
}
