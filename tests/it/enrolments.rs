//! Machines that join, at the real socket, and what becomes of a token or a certificate that two have.

mod bounds;
mod lineage;
mod program;
mod refusals;

use std::time::Duration;

use strongroom::proto::enrolment_service_client::EnrolmentServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    CreateEnrolmentRequest, EnrolledLogin, Enrolment, Entry, EntryFilter, JoinRequest,
    ListEnrolmentsRequest, ListEntriesRequest, RenewLoginRequest, RevokeEnrolmentRequest,
    WhoAmIRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::logins::register;
use crate::support::node::{BACKENDS, Backend, Fixture, Login, csr};

type Client = EnrolmentServiceClient<Channel>;

/// A vault with a machine that has no login yet.
struct Scene {
    f: Fixture,
    admin: Client,
    stranger: Client,
}

impl Scene {
    async fn new(backend: Backend) -> Self {
        let f = Fixture::on(backend).await;
        register(&f, "etl", "pipeline", "admin").await;
        let admin = Client::new(f.connect(&f.admin).await);
        let stranger = Client::new(f.connect_as_nobody().await);
        Self { f, admin, stranger }
    }

    /// A join token for the machine, for the usual time.
    async fn token(&self) -> String {
        enroll(&self.admin, "etl").await.unwrap().0
    }

    async fn join(&self, token: &str, csr_pem: &str) -> Result<EnrolledLogin, Status> {
        join(&self.stranger, token, csr_pem).await
    }

    /// Joins with a new key.
    async fn joined(&self) -> Login {
        let (key_pem, csr_pem) = csr();
        let login = self.join(&self.token().await, &csr_pem).await.unwrap();
        Login { key_pem, certificate_pem: login.certificate_pem }
    }

    /// Renews a login for a request.
    async fn renew(&self, login: &Login, csr_pem: &str) -> Result<EnrolledLogin, Status> {
        renew(&self.f.connect(login).await, csr_pem).await
    }

    async fn who(&self, login: &Login) -> Result<String, Code> {
        who(&self.f.connect(login).await).await
    }

    /// The states of the machine's enrolments, in the order of the words.
    async fn states(&self) -> Vec<String> {
        let listed = list(&self.admin, "etl").await.into_iter();
        let mut states: Vec<_> = listed.map(|one| one.state).collect();
        states.sort();
        states
    }

    /// Outcomes on the record of an action, in the order of the words.
    async fn outcomes(&self, action: &str) -> Vec<String> {
        let entries = entries(&self.f, action).await.into_iter();
        let mut outcomes: Vec<_> = entries.map(|entry| entry.outcome).collect();
        outcomes.sort();
        outcomes
    }

    fn advance(&self, seconds: u64) {
        self.f.clock.advance(Duration::from_secs(seconds));
    }
}

async fn enroll(client: &Client, identity: &str) -> Result<(String, Enrolment), Status> {
    let identity = identity.to_owned();
    order(client, CreateEnrolmentRequest { identity, ..Default::default() }).await
}

async fn order(
    client: &Client,
    request: CreateEnrolmentRequest,
) -> Result<(String, Enrolment), Status> {
    let made = client.clone().create_enrolment(request).await?.into_inner();
    Ok((made.join_token, made.enrolment.unwrap()))
}

async fn join(client: &Client, token: &str, csr_pem: &str) -> Result<EnrolledLogin, Status> {
    let request = JoinRequest { token: token.to_owned(), csr_pem: csr_pem.to_owned() };
    Ok(client.clone().join(request).await?.into_inner().login.unwrap())
}

async fn renew(channel: &Channel, csr_pem: &str) -> Result<EnrolledLogin, Status> {
    let request = RenewLoginRequest { csr_pem: csr_pem.to_owned() };
    let renewed = Client::new(channel.clone()).renew_login(request).await?;
    Ok(renewed.into_inner().login.unwrap())
}

async fn who(channel: &Channel) -> Result<String, Code> {
    let mut client = IdentityServiceClient::new(channel.clone());
    let answer = client.who_am_i(WhoAmIRequest {}).await;
    answer.map(|answer| answer.into_inner().identity).map_err(|refusal| refusal.code())
}

async fn list(client: &Client, identity: &str) -> Vec<Enrolment> {
    let request = ListEnrolmentsRequest { identity: identity.to_owned(), ..Default::default() };
    client.clone().list_enrolments(request).await.unwrap().into_inner().enrolments
}

async fn revoke(client: &Client, id: &str) -> Result<Enrolment, Status> {
    let request = RevokeEnrolmentRequest { id: id.to_owned(), reason: "a drill".to_owned() };
    let ended = client.clone().revoke_enrolment(request).await?.into_inner();
    Ok(ended.enrolment.unwrap())
}

async fn entries(f: &Fixture, action: &str) -> Vec<Entry> {
    f.node().vault.integrate().await.unwrap();
    let mut client = RecordServiceClient::new(f.connect(&f.admin).await);
    let filter = Some(EntryFilter { action: action.to_owned(), ..Default::default() });
    let request = ListEntriesRequest { filter, page_size: 1_000, ..Default::default() };
    client.list_entries(request).await.unwrap().into_inner().entries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_joins_with_its_own_key_is_who_the_token_says_and_renews_itself() {
    for backend in BACKENDS {
        let scene = Scene::new(backend).await;
        let (token, made) = enroll(&scene.admin, "etl").await.unwrap();
        assert!(token.starts_with("srj_") && !format!("{made:?}").contains(&token));
        assert_eq!((made.state.as_str(), made.created_by.as_str()), ("pending", "admin"));
        assert_eq!(made.expires_at_ms - made.created_at_ms, 600_000);
        let (key_pem, csr_pem) = csr();
        let first = scene.join(&token, &csr_pem).await.unwrap();
        assert_eq!(first.spiffe_id, "spiffe://vault.test/pipeline/etl");
        // An answer that was lost.
        assert_eq!(scene.join(&token, &csr_pem).await.unwrap(), first);
        let login = Login { key_pem, certificate_pem: first.certificate_pem.clone() };
        assert_eq!(scene.who(&login).await.unwrap(), "etl");
        let shown = list(&scene.admin, "etl").await.remove(0);
        assert_eq!((shown.state.as_str(), shown.login), ("joined", first.credential_id.clone()));

        scene.advance(16 * 3_600);
        let (key_pem, csr_pem) = csr();
        let next = scene.renew(&login, &csr_pem).await.unwrap();
        assert_ne!(next.credential_id, first.credential_id);
        let longer = next.expires_at_ms / 1_000 - first.expires_at_ms / 1_000 - 16 * 3_600;
        assert!((0..=5).contains(&longer), "{longer}");
        assert_eq!(scene.renew(&login, &csr_pem).await.unwrap(), next);
        let renewed = Login { key_pem, certificate_pem: next.certificate_pem };
        assert_eq!(scene.who(&renewed).await.unwrap(), "etl");
        assert_eq!(scene.who(&login).await.unwrap(), "etl", "it lives to its end");
        let second = scene.renew(&renewed, &csr().1).await.unwrap();
        // Also a late retry of what was renewed since.
        assert_eq!(scene.renew(&login, &csr_pem).await.unwrap().serial, next.serial);
        assert_ne!(second.serial, next.serial);
        assert_eq!(scene.states().await, ["joined"]);
        assert_eq!(scene.outcomes("enrolments.join").await, ["REPLAY", "ok"]);
        assert_eq!(scene.outcomes("enrolments.renew").await, ["REPLAY", "REPLAY", "ok", "ok"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolments_are_made_by_administrators_and_by_a_machines_owner_alone() {
    use crate::support::logins::{human, machine};
    let f = Fixture::new().await;
    let carol = Client::new(human(&f, "carol").await);
    let dave = Client::new(human(&f, "dave").await);
    register(&f, "etl", "pipeline", "carol").await;
    let bare = Client::new(machine(&f, "bare").await);
    let admin = Client::new(f.connect(&f.admin).await);
    let (_, made) = enroll(&carol, "etl").await.unwrap();
    for (who, asks, for_whom) in [
        ("a human", &dave, "carol"),
        ("a human, for itself", &dave, "dave"),
        ("not the owner", &dave, "etl"),
        ("an owner, for an administrator", &carol, "admin"),
        ("a machine, for itself", &bare, "bare"),
        ("for nobody", &dave, "nobody"),
    ] {
        let refused = enroll(asks, for_whom).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{who}");
    }
    assert_eq!(enroll(&admin, "nobody").await.unwrap_err().code(), Code::NotFound);
    let (token, _) = enroll(&admin, "dave").await.unwrap();
    join(&Client::new(f.connect_as_nobody().await), &token, &csr().1).await.unwrap();
    // The owner sees and ends what others made for its machine; nobody else does.
    let (_, other) = enroll(&admin, "etl").await.unwrap();
    assert_eq!(revoke(&dave, &other.id).await.unwrap_err().code(), Code::PermissionDenied);
    let ids: Vec<_> = list(&carol, "etl").await.into_iter().map(|one| one.id).collect();
    assert_eq!(ids, [made.id, other.id.clone()]);
    for _ in 0..2 {
        assert_eq!(revoke(&carol, &other.id).await.unwrap().state, "revoked");
    }
    for bad in [
        CreateEnrolmentRequest { ttl_s: 86_401, ..Default::default() },
        CreateEnrolmentRequest { ttl_s: -1, ..Default::default() },
        CreateEnrolmentRequest { networks: vec!["10.0.0.1/8".into()], ..Default::default() },
        CreateEnrolmentRequest { networks: vec!["10.0.0.0/8".into(); 65], ..Default::default() },
    ] {
        let bad = CreateEnrolmentRequest { identity: "etl".into(), ..bad };
        assert_eq!(order(&admin, bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
}
