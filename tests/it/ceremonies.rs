//! Ceremonies and shredding at the real socket, on both stores.

mod again;
mod guard;
mod notices;
mod program;
mod restore;
mod rules;
mod shred;

use std::time::Duration;

use prost::Message as _;
use strongroom::proto::ceremony_service_client::CeremonyServiceClient;
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{
    AddGrantRequest, AddMemberRequest, ApproveCeremonyRequest, Ceremony, CreateIdentityRequest,
    ErrorInfo, GetCeremonyRequest, GetShreddingRequest, GetShreddingResponse,
    IssueLoginCertificateRequest, ListCeremoniesRequest, RpcStatus, Shred, ShredIdentityRequest,
    add_grant_request,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::factors::{App, step_up};
use crate::support::logins::{register, registration};
use crate::support::node::{Backend, Fixture, Login, csr};

type Client = CeremonyServiceClient<Channel>;

const DAY: Duration = Duration::from_hours(24);
const LATER: Duration = Duration::from_mins(1);

/// An earnest vault a day later, with two administrators besides the first.
struct Stage {
    f: Fixture,
    admin: Channel,
    second: Channel,
    third: Channel,
    apps: [App; 2],
}

impl Stage {
    async fn new(backend: Backend) -> Self {
        Self::asking(backend, 2).await
    }

    /// As [`Stage::new`], in a vault that asks for so many administrators.
    async fn asking(backend: Backend, administrators: u32) -> Self {
        let mut f = Fixture::earnest(backend).await;
        f.parts.limits.administrators = administrators;
        f.keep_listener().await;
        Self::of(f).await
    }

    /// On a vault that was just founded.
    async fn of(f: Fixture) -> Self {
        let admin = f.connect(&f.admin).await;
        let second = account(&f, &admin, "second", "").await;
        let third = account(&f, &admin, "third", "").await;
        let apps =
            [step_up(&f, &second, "second", None).await, step_up(&f, &third, "third", None).await];
        for name in ["second", "third"] {
            join(&admin, name).await;
        }
        register(&f, "etl", "pipeline", "admin").await;
        let stage = Self { f, admin, second, third, apps };
        stage.a_day_later().await;
        stage
    }

    /// Turns the clock until what was made counts, and lets both prove their factors again.
    async fn a_day_later(&self) {
        self.f.clock.advance(DAY + LATER);
        self.step_up().await;
    }

    async fn step_up(&self) {
        step_up(&self.f, &self.second, "second", Some(&self.apps[0])).await;
        step_up(&self.f, &self.third, "third", Some(&self.apps[1])).await;
    }
}

/// Registers a human, of a person, and connects as it with a login that lasts.
async fn account(f: &Fixture, by: &Channel, name: &str, person: &str) -> Channel {
    let mut client = IdentityServiceClient::new(by.clone());
    let person = person.to_owned();
    let human = CreateIdentityRequest { person, ..registration(name, "human", "") };
    client.create_identity(human).await.unwrap();
    let (key_pem, csr_pem) = csr();
    let (name, ttl_s) = (name.to_owned(), 20 * 86_400);
    let request = IssueLoginCertificateRequest { name, csr_pem, ttl_s, ..Default::default() };
    let issued = client.issue_login_certificate(request).await.unwrap().into_inner();
    f.connect(&Login { key_pem, certificate_pem: issued.certificate_pem }).await
}

async fn join(by: &Channel, identity: &str) {
    let (group, identity) = ("administrators".to_owned(), identity.to_owned());
    let mut groups = GroupServiceClient::new(by.clone());
    groups.add_member(AddMemberRequest { group, identity }).await.unwrap();
}

async fn grant(f: &Fixture, to: &str, action: &str, resource: &str) {
    let request = AddGrantRequest {
        subject: Some(add_grant_request::Subject::Identity(to.to_owned())),
        action: action.to_owned(),
        resource: resource.to_owned(),
        ..Default::default()
    };
    let mut client = GrantServiceClient::new(f.connect(&f.admin).await);
    client.add_grant(request).await.unwrap();
}

async fn shred(by: &Channel, name: &str) -> Result<Shred, Status> {
    let (name, confirm) = (name.to_owned(), name.to_owned());
    let request = ShredIdentityRequest { name, confirm, reason: "a test".to_owned() };
    let answer = IdentityServiceClient::new(by.clone()).shred_identity(request).await?;
    Ok(answer.into_inner().shred.unwrap())
}

async fn shredding(by: &Channel, name: &str) -> GetShreddingResponse {
    let request = GetShreddingRequest { name: name.to_owned() };
    IdentityServiceClient::new(by.clone()).get_shredding(request).await.unwrap().into_inner()
}

/// The ceremonies that wait, or all, the newest first.
async fn list(by: &Channel, include_over: bool) -> Vec<Ceremony> {
    let request = ListCeremoniesRequest { include_over, ..Default::default() };
    Client::new(by.clone()).list_ceremonies(request).await.unwrap().into_inner().ceremonies
}

async fn find(by: &Channel, id: &str) -> Ceremony {
    let request = GetCeremonyRequest { id: id.to_owned() };
    let found = Client::new(by.clone()).get_ceremony(request).await.unwrap();
    found.into_inner().ceremony.unwrap()
}

async fn approve(by: &Channel, seen: &Ceremony) -> Result<Ceremony, Status> {
    let (id, hash) = (seen.id.clone(), seen.hash.clone());
    let request = ApproveCeremonyRequest { id, hash, reason: "agreed".to_owned() };
    Ok(Client::new(by.clone()).approve_ceremony(request).await?.into_inner().ceremony.unwrap())
}

/// Asks for what takes a ceremony; the ceremony that is open then.
async fn opened(by: &Channel, name: &str) -> Ceremony {
    let refused = shred(by, name).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, OPEN));
    let newest = list(by, false).await.remove(0);
    assert!(refused.message().contains(&newest.id), "{refused}");
    newest
}

const OPEN: &str = "CEREMONY_OPEN";

fn reason(status: &Status) -> String {
    let details = RpcStatus::decode(status.details()).unwrap();
    ErrorInfo::decode(details.details[0].value.as_slice()).unwrap().reason
}
