//! A machine that asks for everything at once, and those who ask in its name.

use strongroom::proto::add_grant_request::Subject;
use strongroom::proto::database_service_client::DatabaseServiceClient;
use strongroom::proto::enrolment_service_client::EnrolmentServiceClient;
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::issuer_service_client::IssuerServiceClient;
use strongroom::proto::lease_service_client::LeaseServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::token_service_client::TokenServiceClient;
use strongroom::proto::{
    AddGrantRequest, AddIssuerRequest, AddMemberRequest, AddRuleRequest, CreateEnrolmentRequest,
    CreateGroupRequest, CreateIdentityRequest, CreateTokenRequest, EnrolledLogin,
    IssueCertificateRequest, IssueCredentialsRequest, IssueLoginCertificateRequest, JoinRequest,
    LoginRequest, MintTokenRequest, PutCertificateRoleRequest, RemoveMemberRequest,
    RenewLeaseRequest, RenewLoginRequest, RenewTokenRequest, SignCertificateRequest, SubjectNames,
    TokenOrder, WhoAmIRequest, Wrapped, add_rule_request,
};
use strongroom::server::Node;
use strongroom::types::TaskGroup;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::issuers::{GITHUB, settings, texts};
use crate::support::logins::{fingerprint, human, login, registration};
use crate::support::node::{Backend, Login, csr};
use crate::support::oidc::{Issuer, github};
use crate::support::target::{World, ask, issue};
use crate::support::tokens::{Bearing, bearing, create, mint, plain, token};
use crate::wraps::asked;

/// Machines that may ask for everything are in this group, which holds the grants.
pub(super) const RACERS: &str = "racers";

/// A vault with a target, on one node or on two.
pub(super) struct Course {
    pub(super) w: World,
    pub(super) second: Option<Node>,
    /// Who owns the machines, or is in the group that does.
    pub(super) carol: [Channel; 2],
    /// Whose tokens log machines in.
    issuer: Issuer,
}

/// What was made while somebody ended it.
#[derive(Debug)]
pub(super) enum Made {
    Token {
        id: String,
        bearer: String,
    },
    Login {
        id: String,
        login: Login,
    },
    Certificate {
        id: String,
    },
    Lease {
        id: String,
    },
    Enrolment {
        id: String,
        join_token: String,
    },
    /// A wrapped answer, by what is in it.
    Wrap {
        id: String,
        wrapped: Wrapped,
    },
}

impl Made {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Token { id, .. }
            | Self::Login { id, .. }
            | Self::Certificate { id }
            | Self::Lease { id }
            | Self::Enrolment { id, .. }
            | Self::Wrap { id, .. } => id,
        }
    }
}

/// Who asks: the machine itself, who owns it, or an administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Itself,
    /// The machine, with a right that its group holds.
    Granted,
    Owner,
    Administrator,
}

/// A machine that is about to be ended.
pub(super) struct Racer {
    pub(super) name: String,
    nodes: [Channel; 2],
    admin: [Channel; 2],
    carol: [Channel; 2],
    bearer: String,
    spent: [String; 2],
    /// One whose use is made, for what can be asked for again.
    paid: String,
    lease: String,
    /// One that nobody joined with yet, and the login of who joined with another.
    join_token: String,
    joined: Channel,
    /// Tokens of the issuer, one for each node.
    believed: [String; 2],
}

pub(super) async fn add(w: &World, group: &str, identity: &str) {
    let add = AddMemberRequest { group: group.to_owned(), identity: identity.to_owned() };
    GroupServiceClient::new(w.admin.clone()).add_member(add).await.unwrap();
}

pub(super) async fn remove(admin: &Channel, group: &str, identity: &str) {
    let remove = RemoveMemberRequest { group: group.to_owned(), identity: identity.to_owned() };
    GroupServiceClient::new(admin.clone()).remove_member(remove).await.unwrap();
}

pub(super) async fn group(w: &World, name: &str) {
    let request = CreateGroupRequest { name: name.to_owned(), ..Default::default() };
    GroupServiceClient::new(w.admin.clone()).create_group(request).await.unwrap();
}

impl Course {
    pub(super) async fn on(backend: Backend) -> Self {
        let w = World::new(backend).await;
        let second = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(w.f.second_node().await),
        };
        let role = PutCertificateRoleRequest {
            name: "racer".into(),
            allowed_dns: vec!["racer.test".into()],
            ..Default::default()
        };
        PkiServiceClient::new(w.admin.clone()).put_role(role).await.unwrap();
        group(&w, RACERS).await;
        for (action, resource) in [
            ("database.credentials", "database/analytics/reader"),
            ("pki.sign", "pki/racer"),
            ("pki.issue", "pki/racer"),
        ] {
            let grant = AddGrantRequest {
                subject: Some(Subject::Group(RACERS.to_owned())),
                action: action.to_owned(),
                resource: resource.to_owned(),
                ..Default::default()
            };
            GrantServiceClient::new(w.admin.clone()).add_grant(grant).await.unwrap();
        }
        for name in ["dave", "erin"] {
            human(&w.f, name).await;
        }
        human(&w.f, "carol").await;
        let issuer = Issuer::new();
        let request = AddIssuerRequest {
            name: "ci".to_owned(),
            url: issuer.url(),
            settings: Some(settings(&issuer, "github")),
            ..Default::default()
        };
        IssuerServiceClient::new(w.admin.clone()).add_issuer(request).await.unwrap();
        let mut this = Self { carol: [w.admin.clone(), w.admin.clone()], w, second, issuer };
        let carol = login(&this.w.f, "carol").await;
        this.carol = this.both(&carol).await;
        this
    }

    /// Connects to both nodes, or twice to the one.
    pub(super) async fn both(&self, login: &Login) -> [Channel; 2] {
        let here = self.w.f.connect(login).await;
        match &self.second {
            Some(node) => [here, self.w.f.connect_to(node, login).await],
            None => [here.clone(), here],
        }
    }

    pub(super) async fn nobody(&self) -> [Channel; 2] {
        // Whose certificate it is does not count where a token comes along.
        self.both(&self.w.f.admin).await
    }

    /// Registers a machine of somebody's, with a token, two single-use ones, a lease, a join token,
    /// a login that another gave it, and what an issuer says of it.
    pub(super) async fn racer(&self, name: &str, owner: (&str, &str)) -> Racer {
        let request = CreateIdentityRequest {
            owner_group: owner.1.to_owned(),
            ..registration(name, "pipeline", owner.0)
        };
        let mut identities = IdentityServiceClient::new(self.w.admin.clone());
        identities.create_identity(request).await.unwrap();
        add(&self.w, RACERS, name).await;
        let nodes = self.both(&login(&self.w.f, name).await).await;
        let single = || TokenOrder { uses: 1, ..Default::default() };
        let mut spent = Vec::new();
        for _ in 0..2 {
            spent.push(mint(&self.w.admin, name, single()).await.unwrap());
        }
        let paid = mint(&self.w.admin, name, single()).await.unwrap();
        // What a later call with the same key replaces.
        let first = plain(&nodes[0]);
        keyed_token(first.clone(), false).await.unwrap();
        keyed_certificate(first.clone(), false).await.unwrap();
        keyed_credentials(first, false).await.unwrap();
        keyed_credentials(bearing(&nodes[0], &paid), false).await.unwrap();
        let (join_token, joined) = self.enrolled(name).await;
        let rule = AddRuleRequest {
            issuer: "ci".to_owned(),
            yields: Some(add_rule_request::Yields::Identity(name.to_owned())),
            claims: texts(&GITHUB),
            ..Default::default()
        };
        IssuerServiceClient::new(self.w.admin.clone()).add_rule(rule).await.unwrap();
        let believed = ["here", "there"].map(|node| {
            let claims = self.issuer.claims(&self.w.f, &format!("{name} {node}"), github());
            self.issuer.mint(&claims)
        });
        Racer {
            name: name.to_owned(),
            join_token,
            joined,
            believed,
            bearer: token(&nodes[0], 0).await.bearer,
            lease: issue(&nodes[0], ask()).await.unwrap().lease_id,
            spent: spent.try_into().unwrap(),
            paid,
            admin: self.both(&self.w.f.admin).await,
            carol: self.carol.clone(),
            nodes,
        }
    }

    /// Enrols a machine twice: a join token, and the login of who joined with the other.
    async fn enrolled(&self, name: &str) -> (String, Channel) {
        let mut tokens = Vec::new();
        for _ in 0..2 {
            let Ok(Made::Enrolment { join_token, .. }) =
                enrolled(self.w.admin.clone(), name.to_owned()).await
            else {
                panic!("no enrolment");
            };
            tokens.push(join_token);
        }
        let stranger = self.w.f.connect_as_nobody().await;
        let Ok(Made::Login { login, .. }) = joined(stranger, tokens.remove(0)).await else {
            panic!("nobody joined");
        };
        (tokens.remove(0), self.w.f.connect(&login).await)
    }

    /// Stops both nodes.
    pub(super) async fn stop(self) {
        let Self { w, second, carol, issuer } = self;
        drop((carol, issuer));
        let World { mut f, etl, admin, .. } = w;
        drop((etl, admin));
        if let Some(node) = second {
            node.stop().await.unwrap();
        }
        f.node.take().unwrap().stop().await.unwrap();
    }
}

type Call = futures_util::future::BoxFuture<'static, Result<Made, Status>>;

impl Racer {
    /// Every way of making something for it, each under way on a task of its own.
    pub(super) fn all_ways(&self) -> Vec<(By, tokio::task::JoinHandle<Result<Made, Status>>)> {
        let tasks = TaskGroup::default();
        self.calls().into_iter().map(|(by, call)| (by, tasks.spawn(call))).collect()
    }

    fn calls(&self) -> Vec<(By, Call)> {
        let [here, there] = self.nodes.clone().map(|node| plain(&node));
        let name = || self.name.clone();
        let paid = |n: usize, node: usize| bearing(&self.nodes[node], &self.spent[n]);
        let mut calls: Vec<(By, Call)> = vec![
            (By::Itself, Box::pin(own_token(self.nodes[0].clone()))),
            (By::Itself, Box::pin(child(bearing(&self.nodes[1], &self.bearer)))),
            (By::Granted, Box::pin(credentials(there.clone()))),
            (By::Granted, Box::pin(issued(here.clone()))),
            (By::Granted, Box::pin(signed(there.clone()))),
            (By::Granted, Box::pin(renewed(here.clone(), self.lease.clone()))),
            (By::Itself, Box::pin(keyed_token(here.clone(), true))),
            (By::Granted, Box::pin(keyed_certificate(there.clone(), true))),
            (By::Granted, Box::pin(keyed_credentials(here, true))),
            (By::Itself, Box::pin(wrapped(there))),
            (By::Itself, Box::pin(longer(self.nodes[0].clone(), self.bearer.clone()))),
            (By::Itself, Box::pin(joined(self.nodes[1].clone(), self.join_token.clone()))),
            (By::Itself, Box::pin(joined_anew(self.joined.clone()))),
        ];
        for node in 0..2 {
            let believed = self.believed[node].clone();
            calls.push((
                By::Itself,
                Box::pin(believed_for(self.nodes[node].clone(), name(), believed)),
            ));
            let resumed = bearing(&self.nodes[node], &self.paid);
            calls.push((By::Granted, Box::pin(keyed_credentials(resumed, true))));
            calls.push((By::Granted, Box::pin(credentials(paid(0, node)))));
            calls.push((By::Granted, Box::pin(signed(paid(1, node)))));
            for (by, who) in [(By::Owner, &self.carol), (By::Administrator, &self.admin)] {
                calls.push((by, Box::pin(minted(who[node].clone(), name()))));
                calls.push((by, Box::pin(logged_in(who[node].clone(), name()))));
                calls.push((by, Box::pin(enrolled(who[node].clone(), name()))));
            }
        }
        calls
    }

    /// Asks once more for what the owner may, on each node; the codes.
    pub(super) async fn asked_by_owner(&self) -> Vec<Code> {
        let mut codes = Vec::new();
        for node in &self.carol {
            let token = minted(node.clone(), self.name.clone()).await;
            let login = logged_in(node.clone(), self.name.clone()).await;
            let enrolment = enrolled(node.clone(), self.name.clone()).await;
            let made = [token, login, enrolment];
            codes.extend(made.map(|made| made.map_or_else(|no| no.code(), |_| Code::Ok)));
        }
        codes
    }

    /// Asks once more for what its group may, on each node; the codes.
    pub(super) async fn asked_by_grant(&self) -> Vec<Code> {
        let mut codes = Vec::new();
        for node in self.nodes.clone().map(|node| plain(&node)) {
            for made in [
                credentials(node.clone()).await,
                issued(node.clone()).await,
                signed(node.clone()).await,
                renewed(node, self.lease.clone()).await,
            ] {
                codes.push(made.map_or_else(|no| no.code(), |_| Code::Ok));
            }
        }
        codes
    }
}

/// What `whoami` answers.
pub(super) async fn knock(bearer: Bearing) -> Code {
    let mut client = IdentityServiceClient::new(bearer);
    client.who_am_i(WhoAmIRequest {}).await.map_or_else(|no| no.code(), |_| Code::Ok)
}

async fn own_token(node: Channel) -> Result<Made, Status> {
    let made = create(&node, TokenOrder::default()).await?;
    Ok(Made::Token { id: made.token.unwrap().accessor, bearer: made.bearer })
}

async fn child(parent: Bearing) -> Result<Made, Status> {
    let order = Some(TokenOrder::default());
    let request = CreateTokenRequest { order, ..Default::default() };
    let made = TokenServiceClient::new(parent).create_token(request).await?.into_inner();
    Ok(Made::Token { id: made.token.unwrap().accessor, bearer: made.bearer })
}

async fn minted(who: Channel, identity: String) -> Result<Made, Status> {
    let order = Some(TokenOrder::default());
    let request = MintTokenRequest { identity, order, ..Default::default() };
    let made = TokenServiceClient::new(who).mint_token(request).await?.into_inner();
    Ok(Made::Token { id: made.token.unwrap().accessor, bearer: made.bearer })
}

async fn logged_in(who: Channel, name: String) -> Result<Made, Status> {
    let (key_pem, csr_pem) = csr();
    let request = IssueLoginCertificateRequest { name, csr_pem, ..Default::default() };
    let made = IdentityServiceClient::new(who).issue_login_certificate(request).await?.into_inner();
    let login = Login { key_pem, certificate_pem: made.certificate_pem };
    assert_eq!(made.fingerprint, strongroom::crypto::hex(&fingerprint(&login.certificate_pem)));
    Ok(Made::Login { id: made.credential_id, login })
}

async fn enrolled(who: Channel, identity: String) -> Result<Made, Status> {
    let request = CreateEnrolmentRequest { identity, ..Default::default() };
    let made = EnrolmentServiceClient::new(who).create_enrolment(request).await?.into_inner();
    Ok(Made::Enrolment { id: made.enrolment.unwrap().id, join_token: made.join_token })
}

/// A login that an enrolment gave for a key.
fn given(key_pem: String, login: Option<EnrolledLogin>) -> Made {
    let login = login.unwrap();
    let certificate_pem = login.certificate_pem;
    Made::Login { id: login.credential_id, login: Login { key_pem, certificate_pem } }
}

pub(super) async fn joined(node: Channel, token: String) -> Result<Made, Status> {
    let (key_pem, csr_pem) = csr();
    let request = JoinRequest { token, csr_pem };
    let made = EnrolmentServiceClient::new(node).join(request).await?.into_inner();
    Ok(given(key_pem, made.login))
}

async fn joined_anew(node: Channel) -> Result<Made, Status> {
    let (key_pem, csr_pem) = csr();
    let request = RenewLoginRequest { csr_pem };
    let made = EnrolmentServiceClient::new(node).renew_login(request).await?.into_inner();
    Ok(given(key_pem, made.login))
}

async fn believed_for(node: Channel, identity: String, token: String) -> Result<Made, Status> {
    let request = LoginRequest { identity, token, ..Default::default() };
    let made = IssuerServiceClient::new(node).login(request).await?.into_inner();
    Ok(Made::Token { id: made.accessor, bearer: made.bearer })
}

async fn longer(node: Channel, bearer: String) -> Result<Made, Status> {
    let request = RenewTokenRequest { accessor: String::new(), ttl_s: 1_800 };
    let mut client = TokenServiceClient::new(bearing(&node, &bearer));
    let renewed = client.renew_token(request).await?.into_inner();
    Ok(Made::Token { id: renewed.token.unwrap().accessor, bearer })
}

async fn wrapped(bearer: Bearing) -> Result<Made, Status> {
    let request = CreateTokenRequest { order: Some(TokenOrder::default()), ..Default::default() };
    let made = TokenServiceClient::new(bearer).create_token(asked(request, "600", "")).await?;
    let made = made.into_inner();
    Ok(Made::Wrap { id: made.token.unwrap().accessor, wrapped: made.wrapped.unwrap() })
}

async fn credentials(bearer: Bearing) -> Result<Made, Status> {
    let made = DatabaseServiceClient::new(bearer).issue_credentials(ask()).await?.into_inner();
    Ok(Made::Lease { id: made.lease_id })
}

const KEY: &str = "a-key-of-the-races";

async fn keyed_token(bearer: Bearing, replace: bool) -> Result<Made, Status> {
    let (idempotency_key, order) = (KEY.to_owned(), Some(TokenOrder::default()));
    let request = CreateTokenRequest { idempotency_key, order, replace };
    let made = TokenServiceClient::new(bearer).create_token(request).await?.into_inner();
    Ok(Made::Token { id: made.token.unwrap().accessor, bearer: made.bearer })
}

async fn keyed_certificate(bearer: Bearing, replace: bool) -> Result<Made, Status> {
    let request = IssueCertificateRequest {
        idempotency_key: KEY.to_owned(),
        role: "racer".into(),
        names: Some(names()),
        replace,
        ..Default::default()
    };
    let made = PkiServiceClient::new(bearer).issue_certificate(request).await?.into_inner();
    Ok(Made::Certificate { id: made.certificate.unwrap().id })
}

async fn keyed_credentials(bearer: Bearing, replace: bool) -> Result<Made, Status> {
    let request = IssueCredentialsRequest { idempotency_key: KEY.to_owned(), replace, ..ask() };
    let made = DatabaseServiceClient::new(bearer).issue_credentials(request).await?.into_inner();
    Ok(Made::Lease { id: made.lease_id })
}

async fn renewed(bearer: Bearing, id: String) -> Result<Made, Status> {
    let request = RenewLeaseRequest { id: id.clone(), ttl_s: 1_200 };
    LeaseServiceClient::new(bearer).renew_lease(request).await?;
    Ok(Made::Lease { id })
}

fn names() -> SubjectNames {
    SubjectNames { dns: vec!["racer.test".into()], ..Default::default() }
}

async fn issued(bearer: Bearing) -> Result<Made, Status> {
    let request = IssueCertificateRequest {
        role: "racer".into(),
        names: Some(names()),
        ..Default::default()
    };
    let made = PkiServiceClient::new(bearer).issue_certificate(request).await?.into_inner();
    Ok(Made::Certificate { id: made.certificate.unwrap().id })
}

async fn signed(bearer: Bearing) -> Result<Made, Status> {
    let request = SignCertificateRequest {
        role: "racer".into(),
        csr_pem: csr().1,
        names: Some(names()),
        ..Default::default()
    };
    let made = PkiServiceClient::new(bearer).sign_certificate(request).await?.into_inner();
    Ok(Made::Certificate { id: made.certificate.unwrap().id })
}
