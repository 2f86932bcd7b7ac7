//! Once is once: of a token, and of each certificate.

use std::time::Instant;

use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::{AddMemberRequest, IssueLoginCertificateRequest};

use super::*;
use crate::elevations::notices::{posts_to, told};
use crate::support::log::Log;
use crate::support::receiver::Receiver;
use crate::support::target::until;
use crate::support::tokens::bearing;

/// How long a lock may take to be in force on another node.
const WITHIN: Duration = Duration::from_secs(1);

/// Waits until a login is refused on a connection that stands, and says how long that took.
async fn refused(channel: &Channel) -> Duration {
    let began = Instant::now();
    while who(channel).await != Err(Code::Unauthenticated) {
        assert!(began.elapsed() < WITHIN * 10, "it is never refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sixty_four_machines_with_one_token_one_joins_and_the_theft_is_seen() {
    for backend in BACKENDS {
        let scene = Scene::new(backend).await;
        let second = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(scene.f.second_node().await),
        };
        let mut doors = vec![scene.stranger.clone()];
        if let Some(node) = &second {
            doors.push(Client::new(scene.f.connect_to(node, &scene.f.admin).await));
        }
        let token = scene.token().await;
        let calls = (0..64).map(|n| {
            let (door, token) = (&doors[n % doors.len()], &token);
            async move {
                let (key_pem, csr_pem) = csr();
                let joined = join(door, token, &csr_pem).await?;
                Ok(Login { key_pem, certificate_pem: joined.certificate_pem })
            }
        });
        let answers: Vec<Result<Login, Status>> = futures_util::future::join_all(calls).await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 63), "on {backend:?}");
        for refusal in lost {
            let code = refusal.unwrap_err().code();
            assert!([Code::Unauthenticated, Code::Aborted].contains(&code), "{code:?}");
        }
        assert_eq!(scene.states().await, ["locked"]);
        let mut outcomes = scene.outcomes("enrolments.join").await;
        outcomes.retain(|outcome| ["ok", "LOCKED"].contains(&outcome.as_str()));
        assert_eq!(outcomes, ["LOCKED", "ok"]);
        let winner = won.into_iter().next().unwrap().unwrap();
        assert_eq!(scene.who(&winner).await, Err(Code::Unauthenticated));
        drop(doors);
        if let Some(node) = second {
            node.stop().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_calls_with_one_key_each_hears_the_same_certificate() {
    for backend in BACKENDS {
        let scene = Scene::new(backend).await;
        let (token, (key_pem, csr_pem)) = (scene.token().await, csr());
        let calls = (0..16).map(|_| scene.join(&token, &csr_pem));
        let answers = futures_util::future::join_all(calls).await;
        let serials: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert!(serials.windows(2).all(|two| two[0] == two[1]));
        let certificate_pem = serials[0].certificate_pem.clone();
        let login = Login { key_pem, certificate_pem };
        let (channel, (_, csr_pem)) = (scene.f.connect(&login).await, csr());
        let calls = (0..16).map(|_| renew(&channel, &csr_pem));
        let answers = futures_util::future::join_all(calls).await;
        let serials: Vec<_> = answers.into_iter().map(|it| it.unwrap().serial).collect();
        assert!(serials.windows(2).all(|two| two[0] == two[1]));
        assert_eq!(scene.states().await, ["joined"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_used_twice_in_its_time_locks_that_enrolment_alone_on_every_node() {
    let scene = Scene::new(Backend::Postgres).await;
    let other = scene.f.second_node().await;
    let beside = scene.joined().await;
    let token = scene.token().await;
    let (key_pem, csr_pem) = csr();
    let first = scene.join(&token, &csr_pem).await.unwrap();
    let login = Login { key_pem, certificate_pem: first.certificate_pem };
    let there = scene.f.connect_to(&other, &login).await;
    assert_eq!(who(&there).await.unwrap(), "etl");
    // What was asked for with it ends with it.
    let session = crate::support::tokens::token(&there, 0).await.bearer;
    let thief = scene.join(&token, &csr().1).await.unwrap_err();
    assert_eq!(thief.code(), Code::Unauthenticated);
    assert!(thief.message().contains("locked"), "{thief}");
    assert!(refused(&there).await < WITHIN);
    assert_eq!(scene.who(&login).await, Err(Code::Unauthenticated));
    let mut bearer = IdentityServiceClient::new(bearing(&scene.stranger_channel().await, &session));
    assert!(bearer.who_am_i(WhoAmIRequest {}).await.is_err());
    let again = scene.join(&token, &csr_pem).await.unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated, "also for the first");
    assert_eq!(scene.who(&beside).await.unwrap(), "etl", "another enrolment goes on");
    assert_eq!(scene.states().await, ["joined", "locked"]);
    assert_eq!(scene.outcomes("enrolments.join").await, ["LOCKED", "ok", "ok"]);
    let anew = scene.joined().await;
    assert_eq!(scene.who(&anew).await.unwrap(), "etl", "it is enrolled again");
    drop(there);
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_renewed_by_two_keys_locks_the_lineage_on_every_node() {
    let log = Log::begin();
    let scene = Scene::new(Backend::Postgres).await;
    let other = scene.f.second_node().await;
    let first = scene.joined().await;
    let (key_pem, csr_pem) = csr();
    let next = scene.renew(&first, &csr_pem).await.unwrap();
    let next = Login { key_pem, certificate_pem: next.certificate_pem };
    let there = scene.f.connect_to(&other, &next).await;
    assert_eq!(who(&there).await.unwrap(), "etl");
    let thief = scene.renew(&first, &csr().1).await.unwrap_err();
    assert_eq!(thief.code(), Code::Unauthenticated);
    assert!(thief.message().contains("locked"), "{thief}");
    assert!(refused(&there).await < WITHIN);
    for login in [&first, &next] {
        assert_eq!(scene.who(login).await, Err(Code::Unauthenticated));
        let refusal = scene.renew(login, &csr_pem).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unauthenticated, "nor is it renewed");
    }
    assert_eq!(scene.states().await, ["locked"]);
    let id = list(&scene.admin, "etl").await.remove(0).id;
    let told = |line: &&str| line.contains("alarm") && line.contains(&id);
    assert_eq!(log.text().lines().filter(told).count(), 1, "one alarm");
    assert_eq!(scene.outcomes("enrolments.renew").await, ["LOCKED", "ok"]);
    drop(there);
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_for_a_machine_is_told_that_its_enrolment_is_locked() {
    let receiver = Receiver::new().await;
    let f = told(Fixture::new().await, vec![posts_to(&receiver)]).await;
    register(&f, "carol", "human", "").await;
    register(&f, "etl", "pipeline", "carol").await;
    let admin = Client::new(f.connect(&f.admin).await);
    let stranger = Client::new(f.connect_as_nobody().await);
    let (token, made) = enroll(&admin, "etl").await.unwrap();
    join(&stranger, &token, &csr().1).await.unwrap();
    join(&stranger, &token, &csr().1).await.unwrap_err();
    let notice = receiver.waits_for("enrolment.locked").await.json();
    assert_eq!(notice["data"]["requester"], "etl");
    assert_eq!(notice["data"]["detail"], made.id);
    assert_eq!(notice["recipients"][0]["people"][0], "carol");
    assert_eq!(notice["recipients"][1]["group"], "administrators");
    assert!(
        notice["subject"]
            .as_str()
            .unwrap()
            .ends_with("is locked: its join token was used with two keys")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_keys_that_race_for_one_renewal_lock_the_lineage() {
    for backend in BACKENDS {
        let scene = Scene::new(backend).await;
        let first = scene.joined().await;
        let channel = scene.f.connect(&first).await;
        let requests: Vec<_> = (0..8).map(|_| csr().1).collect();
        let calls = requests.iter().map(|csr_pem| renew(&channel, csr_pem));
        let answers = futures_util::future::join_all(calls).await;
        assert!(answers.iter().filter(|answer| answer.is_ok()).count() <= 1, "on {backend:?}");
        assert_eq!(scene.states().await, ["locked"]);
        assert_eq!(scene.who(&first).await, Err(Code::Unauthenticated));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_token_shown_after_its_time_is_recorded_and_locks_nothing() {
    for backend in BACKENDS {
        let scene = Scene::new(backend).await;
        let (token, (key_pem, csr_pem)) = (scene.token().await, csr());
        let joined = scene.join(&token, &csr_pem).await.unwrap();
        let login = Login { key_pem, certificate_pem: joined.certificate_pem };
        scene.advance(601);
        for request in [&csr().1, &csr_pem, &csr().1] {
            let refusal = scene.join(&token, request).await.unwrap_err();
            assert_eq!(refusal.code(), Code::Unauthenticated);
            assert!(refusal.message().contains("its time is over"), "{refusal}");
        }
        assert_eq!(scene.outcomes("enrolments.join").await, ["SPENT", "ok"], "one a minute");
        scene.advance(60);
        scene.join(&token, &csr().1).await.unwrap_err();
        assert_eq!(scene.outcomes("enrolments.join").await, ["SPENT", "SPENT", "ok"]);
        assert_eq!(scene.states().await, ["joined"]);
        assert_eq!(scene.who(&login).await.unwrap(), "etl");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_connection_of_a_certificate_renews_it_and_for_its_own_identity_alone() {
    let scene = Scene::new(Backend::Sqlite).await;
    let login = scene.joined().await;
    let channel = scene.f.connect(&login).await;
    // One that an administrator signed, and another machine's.
    let (_, csr_pem) = csr();
    let signed = crate::support::logins::login(&scene.f, "etl").await;
    let refusal = scene.renew(&signed, &csr_pem).await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    register(&scene.f, "web", "service", "admin").await;
    let (token, (key_pem, request)) = (enroll(&scene.admin, "web").await.unwrap().0, csr());
    let web = scene.join(&token, &request).await.unwrap();
    let web = Login { key_pem, certificate_pem: web.certificate_pem };
    let named = named("spiffe://vault.test/pipeline/etl");
    let refusal = scene.renew(&web, &named).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument, "it names somebody else");
    let own = scene.renew(&web, &csr_pem).await.unwrap();
    assert_eq!(own.spiffe_id, "spiffe://vault.test/service/web");
    assert_eq!(scene.states().await, ["joined"], "nothing of the other's moved");
    // A token of the machine's beside its certificate is who asks.
    let session = crate::support::tokens::token(&channel, 0).await.bearer;
    let mut bearer = EnrolmentServiceClient::new(bearing(&channel, &session));
    let refusal = bearer.renew_login(RenewLoginRequest { csr_pem: csr_pem.clone() }).await;
    assert_eq!(refusal.unwrap_err().code(), Code::FailedPrecondition);
    let nobody = renew(&scene.stranger_channel().await, &csr_pem).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated);
    let named = self::named("spiffe://vault.test/pipeline/etl");
    assert!(renew(&channel, &named).await.is_ok(), "its own name it may say");
}

/// Has a login signed, as somebody.
async fn signed(by: &Channel, name: &str) -> Login {
    let (key_pem, csr_pem) = csr();
    let name = name.to_owned();
    let request = IssueLoginCertificateRequest { name, csr_pem, ..Default::default() };
    let mut client = IdentityServiceClient::new(by.clone());
    let issued = client.issue_login_certificate(request).await.unwrap().into_inner();
    Login { key_pem, certificate_pem: issued.certificate_pem }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_makes_for_themselves_with_an_enrolments_login_ends_with_the_enrolment() {
    for backend in BACKENDS {
        let scene = Scene::new(backend).await;
        register(&scene.f, "dave", "human", "").await;
        let mut groups = GroupServiceClient::new(scene.f.connect(&scene.f.admin).await);
        let (group, identity) = ("administrators".to_owned(), "dave".to_owned());
        groups.add_member(AddMemberRequest { group, identity }).await.unwrap();
        let (token, made) = enroll(&scene.admin, "dave").await.unwrap();
        let (key_pem, csr_pem) = csr();
        let certificate_pem = scene.join(&token, &csr_pem).await.unwrap().certificate_pem;
        let dave = scene.f.connect(&Login { key_pem, certificate_pem }).await;
        let (own, others) = (signed(&dave, "dave").await, signed(&dave, "etl").await);
        let (unused, _) = enroll(&Client::new(dave), "dave").await.unwrap();
        assert_eq!(scene.who(&own).await.unwrap(), "dave");
        revoke(&scene.admin, &made.id).await.unwrap();
        assert_eq!(scene.who(&own).await, Err(Code::Unauthenticated));
        assert_eq!(scene.who(&others).await.unwrap(), "etl", "what is another's stays");
        until("a worker goes on below the login", async || {
            list(&scene.admin, "dave").await.iter().all(|one| one.state == "revoked")
        })
        .await;
        let refusal = scene.join(&unused, &csr().1).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unauthenticated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_whose_enrolment_was_revoked_is_refused_as_the_first_request_after_a_restart() {
    for backend in BACKENDS {
        let mut scene = Scene::new(backend).await;
        let (gone, beside) = (scene.joined().await, scene.joined().await);
        // They are listed as they were made.
        let found = list(&scene.admin, "etl").await;
        revoke(&scene.admin, &found[0].id).await.unwrap();
        scene.f.restart().await;
        assert_eq!(scene.who(&gone).await, Err(Code::Unauthenticated));
        assert_eq!(scene.who(&beside).await.unwrap(), "etl");
    }
}

/// A request that names a URI.
fn named(uri: &str) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    params.serialize_request(&key).unwrap().pem().unwrap()
}

impl Scene {
    async fn stranger_channel(&self) -> Channel {
        self.f.connect_as_nobody().await
    }
}
