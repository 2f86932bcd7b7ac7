//! Identities that a template names are registered at their first login, within limits.

use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::{
    AddGrantRequest, AddMemberRequest, CreateGroupRequest, GetIdentityRequest, RemoveRuleRequest,
    RuleTemplate, add_grant_request,
};

use super::*;
use crate::support::logins::human;

async fn group(scene: &Scene, name: &str, member: Option<&str>) {
    let mut groups = GroupServiceClient::new(scene.f.connect(&scene.f.admin).await);
    let request =
        CreateGroupRequest { name: name.into(), purpose: "a test".into(), ..Default::default() };
    groups.create_group(request).await.unwrap();
    if let Some(member) = member {
        let (group, identity) = (name.to_owned(), member.to_owned());
        groups.add_member(AddMemberRequest { group, identity }).await.unwrap();
    }
}

fn template(most: i64) -> AddRuleRequest {
    AddRuleRequest {
        issuer: "ci".to_owned(),
        yields: Some(add_rule_request::Yields::Template(RuleTemplate {
            name: "ci-{repository_id}".to_owned(),
            owner_group: "platform".to_owned(),
            group: "jobs".to_owned(),
            tier: "low".to_owned(),
            most,
            ..Default::default()
        })),
        claims: texts(&GITHUB[1..]),
        ..Default::default()
    }
}

fn of(repository: &str) -> Value {
    let mut claims = github();
    claims["repository_id"] = json!(repository);
    claims
}

#[tokio::test(flavor = "multi_thread")]
async fn one_rule_registers_repositories_at_their_first_login_within_its_limits() {
    for backend in BACKENDS {
        let mut scene = Scene::bare(backend, "github").await;
        let refused = scene.rule(template(2)).await.unwrap_err();
        assert_ne!(refused.code(), Code::Ok, "nobody would answer for them");
        group(&scene, "platform", Some("admin")).await;
        group(&scene, "jobs", None).await;
        let added = scene.rule(template(2)).await.unwrap();
        assert!(
            added.sentence.contains("ci-{repository_id}, which is registered"),
            "{}",
            added.sentence
        );
        let log_in = async |name: &str, repository: &str, jti: &str| {
            login(&scene.stranger, name, &scene.token(jti, of(repository))).await
        };
        let first = log_in("ci-7", "7", "1").await.unwrap();
        assert!(first.registered);
        assert_eq!(scene.whoami(&first.bearer).await.unwrap(), "ci-7");
        let again = log_in("ci-7", "7", "2").await.unwrap();
        assert!(!again.registered);
        // Nobody takes another's name, nor one that a person gave.
        register(&scene.f, "ci-9", "pipeline", "admin").await;
        for (name, repository) in [
            ("ci-7", "8"),
            ("ci-8", "7"),
            ("etl", "7"),
            ("ci-9", "9"),
            // What is no part of a name makes none.
            ("ci-8", "8/9"),
            ("ci-8", "8 "),
            ("ci-8", "8\0"),
            ("ci-8", "{repository_id}"),
        ] {
            let status =
                log_in(name, repository, &format!("{name}{repository}")).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{name} by {repository}");
        }
        log_in("ci-8", "8", "3").await.unwrap();
        let status = log_in("ci-10", "10", "4").await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().starts_with("nothing more is given"), "{status}");
        let mut identities = IdentityServiceClient::new(scene.f.connect(&scene.f.admin).await);
        let request = GetIdentityRequest { name: "ci-7".into() };
        let found = identities.get_identity(request).await.unwrap().into_inner().identity.unwrap();
        assert_eq!((found.kind.as_str(), found.tier.as_str()), ("pipeline", "low"));
        assert_eq!((found.owner_group.as_str(), found.state.as_str()), ("platform", "active"));
        assert!(found.expires_at_ms > 0 && found.created_by == "federation");
        let request = GetIdentityRequest { name: "ci-10".into() };
        assert!(
            identities.get_identity(request).await.is_err(),
            "nothing is left of who was one too many"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn first_logins_that_race_register_one_identity() {
    for backend in BACKENDS {
        let mut scene = Scene::bare(backend, "github").await;
        group(&scene, "platform", Some("admin")).await;
        group(&scene, "jobs", None).await;
        scene.rule(template(1)).await.unwrap();
        let tokens: Vec<_> = (0..8).map(|n| scene.token(&n.to_string(), of("7"))).collect();
        let racers = tokens.iter().map(|token| login(&scene.stranger, "ci-7", token));
        let done = join_all(racers).await;
        let registered = done.iter().flatten().filter(|one| one.registered).count();
        assert_eq!(registered, 1, "{backend:?}: {done:?}");
        for lost in done.into_iter().filter_map(Result::err) {
            assert_eq!(lost.code(), Code::Aborted, "{lost}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_first_logins_that_race_on_two_nodes_no_more_are_registered_than_the_rule_may() {
    let mut scene = Scene::bare(Backend::Postgres, "github").await;
    group(&scene, "platform", Some("admin")).await;
    group(&scene, "jobs", None).await;
    scene.rule(template(3)).await.unwrap();
    let node = scene.f.second_node().await;
    let there = Client::new(scene.f.connect_to(&node, &scene.f.admin).await);
    let token = |round: &str, n: usize| {
        let n = n.to_string();
        scene.token(&format!("{round}{n}"), of(&n))
    };
    let tokens: Vec<_> = (0..12).map(|n| token("a", n)).collect();
    let racers = tokens.iter().enumerate().map(|(n, token)| {
        let client = if n % 2 == 0 { &scene.stranger } else { &there };
        async move { login(client, &format!("ci-{n}"), token).await }
    });
    for lost in join_all(racers).await.into_iter().filter_map(Result::err) {
        let code = lost.code();
        assert!([Code::ResourceExhausted, Code::Aborted].contains(&code), "{lost}");
    }
    // Whoever lost only the race comes in while there is room.
    let mut registered = 0;
    for n in 0..12 {
        let came = login(&scene.stranger, &format!("ci-{n}"), &token("b", n)).await;
        registered += usize::from(came.is_ok());
    }
    assert_eq!(registered, 3);
    drop(there);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_takes_the_place_of_another_goes_on_with_whom_that_registered() {
    for backend in BACKENDS {
        let mut scene = Scene::bare(backend, "github").await;
        group(&scene, "platform", Some("admin")).await;
        group(&scene, "jobs", None).await;
        let first = scene.rule(template(1)).await.unwrap();
        let log_in = async |scene: &Scene, name: &str, repository: &str, jti: &str| {
            login(&scene.stranger, name, &scene.token(jti, of(repository))).await
        };
        let session = log_in(&scene, "ci-7", "7", "1").await.unwrap();
        // It names whom it yields in another way: what was registered is none of its business.
        let mut other = template(5);
        if let Some(add_rule_request::Yields::Template(it)) = &mut other.yields {
            it.name = "ci-{repository_id}-{repository_owner_id}".to_owned();
        }
        scene.rule(other).await.unwrap();
        let (issuer, reason) = ("ci".to_owned(), "another takes its place".to_owned());
        let request = RemoveRuleRequest { issuer, id: first.id, reason };
        scene.admin.remove_rule(request).await.unwrap();
        assert!(scene.whoami(&session.bearer).await.is_err(), "what it gave ended with it");
        assert!(log_in(&scene, "ci-7", "7", "2").await.is_err(), "no rule is left");
        // Another branch, and more of them.
        let mut wider = template(2);
        wider.claims = texts(&[GITHUB[1], ("event_name", "push"), ("environment", "production")]);
        scene.rule(wider).await.unwrap();
        assert!(log_in(&scene, "ci-7", "7", "3").await.is_err(), "it binds other claims");
        let mut claims = of("7");
        claims["environment"] = json!("production");
        let token = scene.token("4", claims.clone());
        let again = login(&scene.stranger, "ci-7", &token).await.unwrap();
        assert!(!again.registered);
        assert_eq!(scene.whoami(&again.bearer).await.unwrap(), "ci-7");
        // Another repository does not become it.
        claims["repository_id"] = json!("8");
        let token = scene.token("5", claims);
        assert!(login(&scene.stranger, "ci-7", &token).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_add_rules_says_by_what_the_machines_are_known_that_they_answer_for_alone() {
    for backend in BACKENDS {
        let scene = Scene::bare(backend, "github").await;
        let carol = Client::new(human(&scene.f, "carol").await);
        register(&scene.f, "own", "pipeline", "carol").await;
        group(&scene, "platform", Some("admin")).await;
        group(&scene, "jobs", None).await;
        let grants = GrantServiceClient::new(scene.f.connect(&scene.f.admin).await);
        let grant = async |action: &str, resource: &str| {
            let request = AddGrantRequest {
                subject: Some(add_grant_request::Subject::Identity("carol".to_owned())),
                action: action.to_owned(),
                resource: resource.to_owned(),
                ..AddGrantRequest::default()
            };
            grants.clone().add_grant(request).await.unwrap();
        };
        grant("issuers.add-rule", "issuers/ci").await;
        let denied = async |request: AddRuleRequest, why: &str| {
            let status = carol.clone().add_rule(request).await.expect_err(why);
            assert_eq!(status.code(), Code::PermissionDenied, "{why}: {status}");
        };
        // With a rule of one's own claims anybody's machine, and any group's rights, would be theirs.
        denied(rule(&GITHUB), "another's machine").await;
        denied(template(1), "a group that others answer in").await;
        let mut groups = GroupServiceClient::new(scene.f.connect(&scene.f.admin).await);
        let (group, identity) = ("platform".to_owned(), "carol".to_owned());
        groups.add_member(AddMemberRequest { group, identity }).await.unwrap();
        denied(template(1), "a group that she puts nobody into").await;
        grant("groups.add", "groups/jobs").await;
        carol.clone().add_rule(template(1)).await.unwrap();
        let yields = Some(add_rule_request::Yields::Identity("own".to_owned()));
        carol.clone().add_rule(AddRuleRequest { yields, ..rule(&GITHUB) }).await.unwrap();
    }
}
