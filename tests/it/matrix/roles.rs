//! Who asks: one caller for each column of the page.

use std::collections::BTreeMap;
use std::sync::Arc;

use strongroom::engines::pki::Request;
use strongroom::hsm::{Hsm, MemoryHsm};
use strongroom::proto::elevation_service_client::ElevationServiceClient;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::key_service_client::KeyServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::{
    AddGrantRequest, AddMemberRequest, ApproveElevationRequest, CreateGroupRequest, Elevation,
    GetRandomRequest, PutCertificateRoleRequest, PutConnectionRequest, PutDatabaseRoleRequest,
    PutElevationRoleRequest, SignCertificateRequest, SubjectNames, SuspendIdentityRequest,
};
use strongroom::server::{First, Founding, Ingredients, Node, found};
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::requests::{
    LEAVER, SPARE, Things, certificate_role, elevation, elevation_role, request,
};
use super::wire::call;
use super::{keys, secrets};
use crate::support::factors::step_up;
use crate::support::logins::{human, machine, register};
use crate::support::node::{Backend, Fixture, Login, TRUST_DOMAIN, csr, location, pin};
use crate::support::recovery::recover;
use crate::support::target::{World, ask, issue};
use crate::support::tokens::token;
use crate::wraps::asked;

/// The columns. They are asked in this order: who is refused comes before who changes something.
pub(super) const ROLES: [&str; 8] = [
    "nobody",
    "suspended",
    "bootstrap",
    "machine",
    "human",
    "granted machine",
    "owner",
    "administrator",
];

/// A vault with all of them, and another that has just been founded.
pub(super) struct Scene {
    _world: World,
    callers: Vec<Channel>,
    things: Things,
    _founded: Bootstrapped,
    /// In the vault that has just been founded there is nothing else to speak of.
    first: Things,
}

struct Bootstrapped {
    _dir: TempDir,
    _node: Node,
    channel: Channel,
}

impl Scene {
    pub(super) async fn new(backend: Backend) -> Self {
        let world = World::new(backend).await;
        let f = &world.f;
        let owner = human(f, "carol").await;
        register(f, "data-etl", "pipeline", "carol").await;
        let login = crate::support::logins::login(f, "data-etl").await;
        let granted = f.connect(&login).await;
        let spare = || SPARE.to_owned();
        let mut pki = PkiServiceClient::new(world.admin.clone());
        for role in
            [certificate_role(), PutCertificateRoleRequest { name: spare(), ..certificate_role() }]
        {
            pki.put_role(role).await.unwrap();
        }
        let mut database = world.database_client();
        let connection = PutConnectionRequest { name: spare(), ..world.connection() };
        database.put_connection(connection).await.unwrap();
        let role = PutDatabaseRoleRequest { name: spare(), ..world.role() };
        database.put_role(role).await.unwrap();
        world.grant("data-etl", |grant| grant).await.unwrap();
        for action in ["pki.sign", "pki.issue"] {
            let resource = "pki/etl".to_owned();
            let with = |grant| AddGrantRequest { action: action.into(), resource, ..grant };
            world.grant("data-etl", with).await.unwrap();
        }
        secrets::make(&world, "data-etl", &granted).await;
        keys::make(&world, "data-etl", &granted).await;
        let bare = machine(f, "bare").await;
        let other = human(f, "dave").await;
        register(f, "victim", "pipeline", "carol").await;
        register(f, LEAVER, "pipeline", "carol").await;
        let suspended = machine(f, "contained").await;
        let contain = SuspendIdentityRequest { name: "contained".into(), reason: String::new() };
        let mut client = IdentityServiceClient::new(world.admin.clone());
        client.suspend_identity(contain).await.unwrap();
        let things = Things {
            machine: "data-etl".into(),
            bearer: "data-etl".into(),
            owner: "carol".into(),
            token: token(&granted, 0).await.token.unwrap().accessor,
            wrap: wrap(&granted).await,
            lease: issue(&granted, ask()).await.unwrap().lease_id,
            certificate: sign(&granted).await,
            grant: world
                .grant("bare", |grant| AddGrantRequest {
                    resource: "database/analytics/writer".into(),
                    ..grant
                })
                .await
                .unwrap()
                .id,
            connection: world.connection(),
            role: world.role(),
            elevations: elevations(&world, &granted, &other).await,
            recovery: recovery(f).await,
        };
        let founded = Bootstrapped::new(&f.parts).await;
        let first = Things { bearer: "newcomer".into(), ..things.clone() };
        let callers = vec![
            f.connect_as_nobody().await,
            suspended,
            founded.channel.clone(),
            bare,
            other,
            granted,
            owner,
            world.admin.clone(),
        ];
        Self { _world: world, callers, things, _founded: founded, first }
    }

    /// Sends an RPC's request as each role.
    pub(super) async fn ask_all(&self, rpc: &str) -> Vec<String> {
        let mut answers = Vec::new();
        for (role, caller) in ROLES.iter().zip(&self.callers) {
            let things = if *role == "bootstrap" { &self.first } else { &self.things };
            let message = request(rpc, things);
            answers.push(word(call(caller.clone(), rpc, message).await));
        }
        answers
    }
}

/// Makes an elevation for each verb that does something to one: the machine asks, dave approves.
async fn elevations(
    world: &World,
    machine: &Channel,
    dave: &Channel,
) -> BTreeMap<&'static str, (String, String)> {
    let mut groups = GroupServiceClient::new(world.admin.clone());
    let security = CreateGroupRequest { name: "security".into(), ..Default::default() };
    groups.create_group(security).await.unwrap();
    let member = AddMemberRequest { group: "security".into(), identity: "dave".into() };
    groups.add_member(member).await.unwrap();
    let role = PutElevationRoleRequest { role: Some(elevation_role()) };
    ElevationServiceClient::new(world.admin.clone()).put_role(role).await.unwrap();
    step_up(&world.f, dave, "dave", None).await;
    let mut theirs = ElevationServiceClient::new(machine.clone());
    let mut made = BTreeMap::new();
    for (method, approved) in [
        ("GetElevation", false),
        ("ReviewElevation", false),
        ("ApproveElevation", false),
        ("DenyElevation", false),
        ("WithdrawElevation", false),
        ("RevokeElevation", false),
        ("ActivateElevation", true),
        ("ExtendElevation", true),
    ] {
        let asked = theirs.request_elevation(elevation()).await.unwrap().into_inner();
        let Elevation { id, scope_hash, .. } = asked.elevation.unwrap();
        if approved {
            let approve = ApproveElevationRequest {
                id: id.clone(),
                scope_hash: scope_hash.clone(),
                ..Default::default()
            };
            ElevationServiceClient::new(dave.clone()).approve_elevation(approve).await.unwrap();
        }
        made.insert(method, (id, scope_hash));
    }
    made
}

/// Begins what is to be cancelled.
async fn recovery(f: &Fixture) -> String {
    let asked = recover(f, f.node(), "admin", &csr().1).await.unwrap();
    asked.recovery.id.to_string()
}

/// Signs what is to be revoked.
async fn sign(granted: &Channel) -> String {
    let order = SignCertificateRequest {
        role: "etl".into(),
        names: Some(SubjectNames { dns: vec!["etl.test".into()], ..Default::default() }),
        csr_pem: csr().1,
        ..Default::default()
    };
    let signed = PkiServiceClient::new(granted.clone()).sign_certificate(order).await.unwrap();
    signed.into_inner().certificate.unwrap().id
}

/// Wraps what is to be seen and taken back.
async fn wrap(granted: &Channel) -> String {
    let order = asked(GetRandomRequest { len_bytes: 32 }, "3600", "");
    let given = KeyServiceClient::new(granted.clone()).get_random(order).await.unwrap();
    given.into_inner().wrapped.unwrap().accessor
}

/// How the page writes a code.
#[expect(clippy::wildcard_enum_match_arm, reason = "the codes are tonic's")]
fn word(code: Code) -> String {
    match code {
        Code::Ok => "ok".to_owned(),
        Code::PermissionDenied => "denied".to_owned(),
        Code::Unauthenticated => "stranger".to_owned(),
        other => format!("{other:?}"),
    }
}

impl Bootstrapped {
    /// Founds a vault as `init` does, with the bootstrap certificate alone.
    async fn new(like: &Ingredients) -> Self {
        let dir = TempDir::new().unwrap();
        let parts = Ingredients {
            location: location(Backend::Sqlite, dir.path()).await,
            hsm: Arc::new(MemoryHsm::new(pin())) as Arc<dyn Hsm>,
            ..like.clone()
        };
        let (key_pem, request) = csr();
        let founding = Founding {
            trust_domain: TRUST_DOMAIN.parse().unwrap(),
            origin: "vault.test/log".to_owned(),
            dev: false,
            first: First::Bootstrap(Request::parse(request.as_bytes()).unwrap()),
        };
        let founded = found(&parts, &founding, pin()).await.unwrap();
        let node = Node::start(parts, pin()).await.unwrap();
        let login = Login { key_pem, certificate_pem: founded.certificate_pem };
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&founded.root_pem))
            .identity(Identity::from_pem(&login.certificate_pem, &login.key_pem))
            .domain_name("localhost");
        let uri = format!("https://127.0.0.1:{}", node.grpc_addr.port());
        let endpoint = Endpoint::from_shared(uri).unwrap().tls_config(tls).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self { _dir: dir, _node: node, channel }
    }
}
