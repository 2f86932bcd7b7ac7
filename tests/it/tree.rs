//! The tree of authority: what `docs/tree-of-authority.md` says becomes of what hangs below
//! something that ends, played through the real socket.

use std::collections::BTreeSet;
use std::fs;

use strongroom::proto::database_service_client::DatabaseServiceClient;
use strongroom::proto::elevation_service_client::ElevationServiceClient;
use strongroom::proto::enrolment_service_client::EnrolmentServiceClient;
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::token_service_client::TokenServiceClient;
use strongroom::proto::{
    ActivateElevationRequest, AddGrantRequest, AddMemberRequest, ApproveElevationRequest,
    CreateEnrolmentRequest, CreateEnrolmentResponse, CreateGroupRequest, CreateIdentityRequest,
    CreateTokenRequest, ElevationRole, ElevationStep, IssueCredentialsRequest,
    IssueLoginCertificateRequest, JoinRequest, ListCertificatesRequest, ListEnrolmentsRequest,
    PutCertificateRoleRequest, PutElevationRoleRequest, RemoveCertificateRoleRequest,
    RemoveDatabaseRoleRequest, RemoveGrantRequest, RequestElevationRequest, RetireIdentityRequest,
    RevokeElevationRequest, RevokeEnrolmentRequest, RevokeTokenRequest, SignCertificateRequest,
    SubjectNames, SuspendIdentityRequest, TokenOrder, WhoAmIRequest,
};
use strongroom::types::CredentialKind;
use tonic::transport::Channel;

use crate::support::factors::step_up;
use crate::support::logins::{human, register, registration};
use crate::support::node::{BACKENDS, Backend, Login, csr};
use crate::support::recovery::recover;
use crate::support::target::{World, ask, until};
use crate::support::tokens::{Bearing, bearing, create, plain};

const PAGE: &str = "docs/tree-of-authority.md";

/// One row: what ends, how, and what becomes of a credential of each kind.
struct Row {
    parent: String,
    way: String,
    children: Vec<String>,
}

fn page() -> Vec<Row> {
    let text = fs::read_to_string(PAGE).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ")).map(|line| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    });
    let mut rows = rows.collect::<Vec<_>>();
    let head = rows.remove(0);
    let kinds: Vec<_> = CredentialKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(head[2..], kinds, "the columns are the kinds");
    let row = |mut cells: Vec<String>| {
        let children = cells.split_off(2);
        assert_eq!(children.len(), kinds.len());
        let (way, parent) = (cells.pop().unwrap(), cells.pop().unwrap());
        Row { parent, way, children }
    };
    rows.into_iter().map(row).collect()
}

#[test]
fn every_kind_of_credential_has_its_rows() {
    let parents: BTreeSet<_> = page().into_iter().map(|row| row.parent).collect();
    for kind in CredentialKind::ALL {
        assert!(parents.contains(kind.as_str()), "{kind} has no row in {PAGE}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_below_ends_or_stays_as_the_page_says() {
    let mut different = Vec::new();
    let rows = page();
    for (backend, row) in BACKENDS.iter().flat_map(|on| rows.iter().map(move |row| (*on, row))) {
        // Nothing hangs below them: nothing names one as its parent.
        if row.children.iter().all(|child| child == "–") {
            continue;
        }
        let scene = Scene::new(backend, row).await;
        scene.end(row).await;
        let mut found = scene.look().await;
        scene.stop().await;
        for (said, found) in row.children.iter().zip(&mut found) {
            if said == "–" {
                "–".clone_into(found);
            }
        }
        if row.children != found {
            different.push(format!("{backend:?} {} {}: {found:?}", row.parent, row.way));
        }
    }
    assert!(different.is_empty(), "the vault does\n{}", different.join("\n"));
}

/// How long what is to end by time lives, in seconds; what hangs on it asks for more.
const SHORT_S: i64 = 300;
const LONG_S: i64 = 600;

/// A machine with a login, a certificate and a lease.
struct Scene {
    world: World,
    machine: Channel,
    certificate: String,
    lease: String,
    /// A token, and the one that all of these were made with, where that is what ends.
    token: String,
    parent: Option<String>,
    /// Where that ends, a login that was asked for with another's token that ends as it does.
    login: Option<(Channel, Bearing)>,
    /// An enrolment whose token was not used; where one ends, the one that gave the login.
    enrolment: String,
    grants: Vec<String>,
    /// The elevation that all of these were made under, where that is what ends.
    elevation: Option<String>,
    /// A lease of another machine that ends by its own time: then the worker has been round.
    probe: String,
    /// The request for the key that the identity is recovered for, where that is what ends it.
    csr_anew: String,
}

impl Scene {
    async fn new(backend: Backend, row: &Row) -> Self {
        let world = World::new(backend).await;
        let short = |parent| if row.parent == parent && row.way == "expiry" { SHORT_S } else { 0 };
        register(&world.f, "carol", "human", "").await;
        let recovered = row.way == "recovery";
        let (kind, owner) = if recovered { ("human", "") } else { ("pipeline", "carol") };
        let identity = registration("etl", kind, owner);
        let ttl_s = if short("identity") == 0 { identity.ttl_s } else { SHORT_S };
        let mut identities = IdentityServiceClient::new(world.admin.clone());
        let identity = CreateIdentityRequest { ttl_s, ..identity };
        identities.create_identity(identity).await.unwrap();
        // Asked for before: what hangs here would not last until it is due.
        let csr_anew = csr().1;
        if recovered {
            administer(&world, "etl").await;
            recover(&world.f, world.f.node(), "etl", &csr_anew).await.unwrap();
            world.advance(3_600);
        }
        let (login, joined) = first_login(&world, row).await;
        let machine = world.f.connect(&login).await;
        let grants = match row.parent.as_str() {
            // What a grant allows as well would not be made under the elevation.
            "elevation" => {
                certificate_role(&world).await;
                Vec::new()
            }
            _ => grant(&world, short("grant")).await,
        };
        let elevation = match row.parent.as_str() {
            "elevation" => Some(elevate(&world, &machine).await),
            _ => None,
        };
        let parent = match row.parent.as_str() {
            "token" => Some(parent(&machine, row).await),
            _ => None,
        };
        let login = match (row.parent.as_str(), row.way.as_str()) {
            ("token", "expiry" | "revocation") => Some(log_in(&world, row).await),
            _ => None,
        };
        let enrolment = match (joined, &login) {
            (Some(joined), _) => joined,
            (None, Some((_, others))) => enroll(others, LONG_S).await.1,
            (None, None) => enroll(&plain(&world.admin), LONG_S).await.1,
        };
        let bearer = parent.as_ref().map_or_else(|| plain(&machine), |it| bearing(&machine, it));
        let token = if row.way == "spending" { String::new() } else { child(&bearer).await };
        let certificate = sign(&bearer).await;
        let lease = issue_lease(&bearer, 0).await;
        let probe = issue_lease(&plain(&world.etl), SHORT_S / 2).await;
        Self {
            world,
            machine,
            certificate,
            lease,
            token,
            parent,
            login,
            enrolment,
            grants,
            elevation,
            probe,
            csr_anew,
        }
    }

    /// Ends what the row names.
    async fn end(&self, row: &Row) {
        match (row.parent.as_str(), row.way.as_str()) {
            ("identity", "suspension") => self.suspend("etl").await,
            ("identity", "retirement") => {
                let mut client = IdentityServiceClient::new(self.world.admin.clone());
                let request = RetireIdentityRequest { name: "etl".into(), ..Default::default() };
                client.retire_identity(request).await.unwrap();
            }
            ("identity", "recovery") => {
                let f = &self.world.f;
                let done = recover(f, f.node(), "etl", &self.csr_anew).await.unwrap();
                assert!(done.login.is_some());
            }
            ("owner", "suspension") => self.suspend("carol").await,
            ("grant", "removal") => {
                let mut client = GrantServiceClient::new(self.world.admin.clone());
                for id in &self.grants {
                    let request = RemoveGrantRequest { id: id.clone(), reason: String::new() };
                    client.remove_grant(request).await.unwrap();
                }
            }
            ("role", "removal") => {
                let (connection, name) = ("analytics".to_owned(), "reader".to_owned());
                let request = RemoveDatabaseRoleRequest { connection, name };
                self.world.database_client().remove_role(request).await.unwrap();
                let request = RemoveCertificateRoleRequest { name: "etl".to_owned() };
                let mut client = PkiServiceClient::new(self.world.admin.clone());
                client.remove_role(request).await.unwrap();
            }
            ("token", "revocation") => {
                let own = bearing(&self.machine, self.parent.as_ref().unwrap());
                let (_, others) = self.login.clone().unwrap();
                for bearer in [own, others] {
                    let request = RevokeTokenRequest::default();
                    TokenServiceClient::new(bearer).revoke_token(request).await.unwrap();
                }
            }
            ("elevation", "revocation") => {
                let id = self.elevation.clone().unwrap();
                let request = RevokeElevationRequest { id, reason: String::new() };
                let mut client = ElevationServiceClient::new(self.world.admin.clone());
                client.revoke_elevation(request).await.unwrap();
            }
            ("enrolment", "revocation") => {
                let request =
                    RevokeEnrolmentRequest { id: self.enrolment.clone(), reason: String::new() };
                let mut client = EnrolmentServiceClient::new(self.world.admin.clone());
                client.revoke_enrolment(request).await.unwrap();
                // Below the login a worker goes on.
                until("what hung on the login is ended", async || {
                    let [login, certificate, lease, token, _] = self.look().await;
                    [login, certificate, lease, token].iter().all(|it| it == "ends")
                })
                .await;
            }
            // Its second use was the last.
            ("token", "spending") | (_, "expiry") => {}
            (parent, way) => panic!("play here how a {parent} ends by {way}"),
        }
        self.world.advance(u64::try_from(SHORT_S).unwrap() + 1);
        until("the worker has been round", async || {
            self.world.lease(&self.probe).await.state != "active"
        })
        .await;
    }

    async fn suspend(&self, name: &str) {
        let mut client = IdentityServiceClient::new(self.world.admin.clone());
        let request = SuspendIdentityRequest { name: name.to_owned(), reason: String::new() };
        client.suspend_identity(request).await.unwrap();
    }

    /// Stops the node: its connections would be missing for the scenes to come.
    async fn stop(self) {
        let Self { world, machine, login, .. } = self;
        let World { mut f, etl, admin, .. } = world;
        drop((machine, login, etl, admin));
        f.node.take().unwrap().stop().await.unwrap();
    }

    /// What has become of the login, the certificate, the lease, the token and the enrolment.
    async fn look(&self) -> [String; 5] {
        let login = self.login.as_ref().map_or(&self.machine, |(login, _)| login);
        let mut client = IdentityServiceClient::new(login.clone());
        let login = client.who_am_i(WhoAmIRequest {}).await.is_ok();
        let mut client = PkiServiceClient::new(self.world.admin.clone());
        let request = ListCertificatesRequest { identity: "etl".into(), ..Default::default() };
        let listed = client.list_certificates(request).await.unwrap().into_inner().certificates;
        let certificate = listed.iter().find(|one| one.id == self.certificate).unwrap();
        let lease = self.world.lease(&self.lease).await;
        let mut client = IdentityServiceClient::new(bearing(&self.machine, &self.token));
        let token = client.who_am_i(WhoAmIRequest {}).await.is_ok();
        let mut client = EnrolmentServiceClient::new(self.world.admin.clone());
        let request = ListEnrolmentsRequest { identity: "etl".into(), ..Default::default() };
        let listed = client.list_enrolments(request).await.unwrap().into_inner().enrolments;
        let enrolment = listed.iter().find(|one| one.id == self.enrolment).unwrap();
        let pending = enrolment.state == "pending";
        [login, certificate.state == "active", lease.state == "active", token, pending]
            .map(|alive| if alive { "stays" } else { "ends" }.to_owned())
    }
}

/// Makes a human an administrator.
async fn administer(world: &World, name: &str) {
    let (group, identity) = ("administrators".to_owned(), name.to_owned());
    let mut groups = GroupServiceClient::new(world.admin.clone());
    groups.add_member(AddMemberRequest { group, identity }).await.unwrap();
}

async fn certificate_role(world: &World) {
    let mut roles = PkiServiceClient::new(world.admin.clone());
    let role = PutCertificateRoleRequest {
        name: "etl".into(),
        allowed_dns: vec!["etl.test".into()],
        default_ttl_s: LONG_S,
        ..Default::default()
    };
    roles.put_role(role).await.unwrap();
}

/// Elevates the machine to a certificate and a credential, for a short time.
async fn elevate(world: &World, machine: &Channel) -> String {
    let dave = human(&world.f, "dave").await;
    step_up(&world.f, &dave, "dave", None).await;
    let mut groups = GroupServiceClient::new(world.admin.clone());
    let group = CreateGroupRequest { name: "security".into(), ..Default::default() };
    groups.create_group(group).await.unwrap();
    let member = AddMemberRequest { group: "security".into(), identity: "dave".into() };
    groups.add_member(member).await.unwrap();
    let resources = vec!["database/analytics/reader".to_owned(), "pki/etl".to_owned()];
    let role = ElevationRole {
        name: "night".into(),
        requesters: vec!["etl".into()],
        resources: resources.clone(),
        actions: vec!["database.credentials".into(), "pki.sign".into()],
        steps: vec![ElevationStep { approvals: 1, groups: vec!["security".into()], owners: false }],
        ..Default::default()
    };
    let role = PutElevationRoleRequest { role: Some(role) };
    ElevationServiceClient::new(world.admin.clone()).put_role(role).await.unwrap();
    let (role, ttl_s) = ("night".to_owned(), SHORT_S);
    let request = RequestElevationRequest { role, resources, ttl_s, ..Default::default() };
    let mut theirs = ElevationServiceClient::new(machine.clone());
    let asked = theirs.request_elevation(request).await.unwrap().into_inner().elevation.unwrap();
    let (id, scope_hash) = (asked.id, asked.scope_hash);
    let approve = ApproveElevationRequest { id: id.clone(), scope_hash, ..Default::default() };
    ElevationServiceClient::new(dave).approve_elevation(approve).await.unwrap();
    let active = theirs.activate_elevation(ActivateElevationRequest { id }).await.unwrap();
    active.into_inner().elevation.unwrap().id
}

/// Grants a certificate and a credential.
async fn grant(world: &World, ttl_s: i64) -> Vec<String> {
    certificate_role(world).await;
    let database = world.grant("etl", |grant| AddGrantRequest { ttl_s, ..grant }).await.unwrap();
    let sign = |grant| AddGrantRequest {
        action: "pki.sign".into(),
        resource: "pki/etl".into(),
        ttl_s,
        ..grant
    };
    vec![database.id, world.grant("etl", sign).await.unwrap().id]
}

/// Enrols the machine: a join token, and the id of the enrolment.
async fn enroll(by: &Bearing, ttl_s: i64) -> (String, String) {
    let identity = "etl".to_owned();
    let request = CreateEnrolmentRequest { identity, ttl_s, ..Default::default() };
    let made = EnrolmentServiceClient::new(by.clone()).create_enrolment(request).await.unwrap();
    let CreateEnrolmentResponse { join_token, enrolment, .. } = made.into_inner();
    (join_token, enrolment.unwrap().id)
}

/// The machine's login, and the enrolment that gave it, where that is what ends.
async fn first_login(world: &World, row: &Row) -> (Login, Option<String>) {
    let (key_pem, csr_pem) = csr();
    if row.parent == "enrolment" {
        let ttl_s = if row.way == "expiry" { SHORT_S } else { LONG_S };
        let (token, enrolment) = enroll(&plain(&world.admin), ttl_s).await;
        let mut stranger = EnrolmentServiceClient::new(world.f.connect_as_nobody().await);
        let joined = stranger.join(JoinRequest { token, csr_pem }).await.unwrap().into_inner();
        let certificate_pem = joined.login.unwrap().certificate_pem;
        return (Login { key_pem, certificate_pem }, Some(enrolment));
    }
    let ttl_s = if row.parent == "login" && row.way == "expiry" { SHORT_S } else { 0 };
    let name = "etl".to_owned();
    let request = IssueLoginCertificateRequest { name, csr_pem, ttl_s, ..Default::default() };
    let mut client = IdentityServiceClient::new(world.admin.clone());
    let issued = client.issue_login_certificate(request).await.unwrap().into_inner();
    (Login { key_pem, certificate_pem: issued.certificate_pem }, None)
}

/// The token that everything else hangs on.
async fn parent(machine: &Channel, row: &Row) -> String {
    let order = match row.way.as_str() {
        "expiry" => TokenOrder { ttl_s: SHORT_S, ..Default::default() },
        "spending" => TokenOrder { ttl_s: LONG_S, uses: 2, ..Default::default() },
        _ => TokenOrder { ttl_s: LONG_S, ..Default::default() },
    };
    create(machine, order).await.unwrap().bearer
}

/// A login of the machine's that an administrator's token asked for.
async fn log_in(world: &World, row: &Row) -> (Channel, Bearing) {
    let ttl_s = if row.way == "expiry" { SHORT_S } else { LONG_S };
    let scope = vec![
        "identities/etl:identities.issue-cert".to_owned(),
        "enrolments/etl:enrolments.create".to_owned(),
    ];
    let order = TokenOrder { ttl_s, scope, ..Default::default() };
    let token = create(&world.admin, order).await.unwrap().bearer;
    let token = bearing(&world.admin, &token);
    let (key_pem, csr_pem) = csr();
    let (name, ttl_s) = ("etl".to_owned(), LONG_S);
    let request = IssueLoginCertificateRequest { name, csr_pem, ttl_s, ..Default::default() };
    let mut client = IdentityServiceClient::new(token.clone());
    let issued = client.issue_login_certificate(request).await.unwrap().into_inner();
    let login = Login { key_pem, certificate_pem: issued.certificate_pem };
    (world.f.connect(&login).await, token)
}

async fn child(bearer: &Bearing) -> String {
    let order = Some(TokenOrder { ttl_s: LONG_S, ..Default::default() });
    let request = CreateTokenRequest { order, ..Default::default() };
    let mut client = TokenServiceClient::new(bearer.clone());
    client.create_token(request).await.unwrap().into_inner().bearer
}

async fn sign(machine: &Bearing) -> String {
    let mut client = PkiServiceClient::new(machine.clone());
    let request = SignCertificateRequest {
        role: "etl".into(),
        csr_pem: csr().1,
        names: Some(SubjectNames { dns: vec!["etl.test".into()], ..Default::default() }),
        ..Default::default()
    };
    let signed = client.sign_certificate(request).await.unwrap().into_inner();
    signed.certificate.unwrap().id
}

async fn issue_lease(machine: &Bearing, ttl_s: i64) -> String {
    let request = IssueCredentialsRequest { ttl_s, ..ask() };
    let mut client = DatabaseServiceClient::new(machine.clone());
    client.issue_credentials(request).await.unwrap().into_inner().lease_id
}
