//! Elevations at the real socket: asked for, approved by others, in force for a time.

mod ages;
mod bonds;
mod clock;
mod exposure;
mod factors;
mod force;
mod forged;
mod glass;
mod life;
mod model;
mod notices;
pub(crate) mod page;
mod processes;
mod program;
mod puppets;
mod races;
mod record;
mod refusals;
mod rules;
mod standing;

use strongroom::proto::elevation_service_client::ElevationServiceClient;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    ActivateElevationRequest, AddMemberRequest, ApproveElevationRequest, CreateGroupRequest,
    DenyElevationRequest, Elevation, ElevationRole, ElevationStep, Entry, EntryFilter,
    GetElevationRequest, IssueLoginCertificateRequest, ListElevationsRequest, ListEntriesRequest,
    PutElevationRoleRequest, RequestElevationRequest, RevokeElevationRequest,
    WithdrawElevationRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::factors::{App, step_up};
use crate::support::logins::{human, register};
use crate::support::node::{BACKENDS, Backend, Fixture, Login, csr};

type Client = ElevationServiceClient<Channel>;

/// The role of these tests: carol may ask, two of the group `security` may approve.
const ROLE: &str = "db-admin";

/// A vault where carol may ask, and dave and erin may approve.
struct Stage {
    f: Fixture,
    admin: Channel,
    /// Another administrator, who wants roles changed.
    second: Channel,
    /// A third, who confirms it.
    third: Channel,
    carol: Channel,
    dave: Channel,
    erin: Channel,
    /// What dave, erin and third prove.
    apps: [App; 3],
}

impl Stage {
    async fn new(backend: Backend) -> Self {
        Self::of(Fixture::on(backend).await).await
    }

    async fn of(f: Fixture) -> Self {
        let admin = f.connect(&f.admin).await;
        let second = lasting(&f, &admin, "second").await;
        let third = lasting(&f, &admin, "third").await;
        let (carol, dave) = (lasting(&f, &admin, "carol").await, lasting(&f, &admin, "dave").await);
        let erin = lasting(&f, &admin, "erin").await;
        let apps = [
            step_up(&f, &dave, "dave", None).await,
            step_up(&f, &erin, "erin", None).await,
            step_up(&f, &third, "third", None).await,
        ];
        let stage = Self { f, admin, second, third, carol, dave, erin, apps };
        stage.join("administrators", "second").await;
        stage.join("administrators", "third").await;
        stage.group("security", &["dave", "erin"]).await;
        stage.put(role()).await.unwrap();
        stage
    }

    async fn group(&self, name: &str, members: &[&str]) {
        let mut groups = GroupServiceClient::new(self.admin.clone());
        let group = CreateGroupRequest { name: name.to_owned(), ..Default::default() };
        groups.create_group(group).await.unwrap();
        for identity in members {
            self.join(name, identity).await;
        }
    }

    async fn join(&self, group: &str, identity: &str) {
        let (group, identity) = (group.to_owned(), identity.to_string());
        let mut groups = GroupServiceClient::new(self.admin.clone());
        groups.add_member(AddMemberRequest { group, identity }).await.unwrap();
    }

    /// Configures a role, with both administrators where that takes two.
    async fn put(&self, role: ElevationRole) -> Result<ElevationRole, Status> {
        let name = role.name.clone();
        let request = PutElevationRoleRequest { role: Some(role) };
        let put = Client::new(self.second.clone()).put_role(request).await?.into_inner();
        match put.proposal {
            Some(_) => Ok(glass::confirm(&self.third, &name).await?.role.unwrap()),
            None => Ok(put.role.unwrap()),
        }
    }

    /// Lets whoever approves and confirms prove their factors again: a proof is old soon.
    async fn step_up(&self) {
        let who = [(&self.dave, "dave"), (&self.erin, "erin"), (&self.third, "third")];
        for ((channel, name), app) in who.into_iter().zip(&self.apps) {
            step_up(&self.f, channel, name, Some(app)).await;
        }
    }

    /// What carol asks for.
    async fn asked(&self) -> Elevation {
        ask(&self.carol, request()).await.unwrap()
    }

    /// What carol asked for and dave approved.
    async fn approved(&self) -> Elevation {
        approve(&self.dave, &self.asked().await).await.unwrap()
    }

    /// What carol asked for, dave approved and carol activated.
    async fn active(&self) -> Elevation {
        let active = activate(&self.carol, &self.approved().await).await.unwrap();
        assert_eq!((active.state.as_str(), active.why.as_str()), ("active", ""));
        active
    }
}

/// Registers a human, and connects as it with a login that lasts when tests turn the clock by days.
async fn lasting(f: &Fixture, admin: &Channel, name: &str) -> Channel {
    register(f, name, "human", "").await;
    f.connect(&issued(admin, name).await).await
}

/// Signs a login that lasts as long.
async fn issued(admin: &Channel, name: &str) -> Login {
    let (key_pem, csr_pem) = csr();
    let (name, ttl_s) = (name.to_owned(), 20 * 86_400);
    let request = IssueLoginCertificateRequest { name, csr_pem, ttl_s, ..Default::default() };
    let mut client = IdentityServiceClient::new(admin.clone());
    let issued = client.issue_login_certificate(request).await.unwrap().into_inner();
    Login { key_pem, certificate_pem: issued.certificate_pem }
}

/// Lists what the record holds of an action, the newest first.
async fn entries(s: &Stage, action: &str) -> Vec<Entry> {
    s.f.node().vault.integrate().await.unwrap();
    let filter = Some(EntryFilter { action: action.to_owned(), ..Default::default() });
    let mut request = ListEntriesRequest { filter, page_size: 1_000, ..Default::default() };
    let (mut client, mut all) = (RecordServiceClient::new(s.admin.clone()), Vec::new());
    loop {
        let page = client.list_entries(request.clone()).await.unwrap().into_inner();
        all.extend(page.entries);
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}

fn role() -> ElevationRole {
    ElevationRole {
        name: ROLE.to_owned(),
        purpose: "a test".to_owned(),
        requesters: vec!["carol".to_owned()],
        resources: vec!["database/**".to_owned(), "groups/team".to_owned()],
        actions: vec!["database.credentials".to_owned(), "groups.show".to_owned()],
        max_ttl_s: 2 * 3_600,
        steps: vec![step(1, &["security"])],
        ..Default::default()
    }
}

fn step(approvals: u32, groups: &[&str]) -> ElevationStep {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    ElevationStep { approvals, groups, owners: false }
}

fn request() -> RequestElevationRequest {
    RequestElevationRequest {
        role: ROLE.to_owned(),
        resources: vec!["database/analytics/reader".to_owned(), "groups/team".to_owned()],
        ttl_s: 600,
        reason: "a test".to_owned(),
        ..Default::default()
    }
}

async fn put(channel: &Channel, role: ElevationRole) -> Result<ElevationRole, Status> {
    let request = PutElevationRoleRequest { role: Some(role) };
    Ok(Client::new(channel.clone()).put_role(request).await?.into_inner().role.unwrap())
}

async fn ask(channel: &Channel, request: RequestElevationRequest) -> Result<Elevation, Status> {
    let asked = Client::new(channel.clone()).request_elevation(request).await?;
    Ok(asked.into_inner().elevation.unwrap())
}

async fn show(channel: &Channel, id: &str) -> Result<Elevation, Status> {
    let request = GetElevationRequest { id: id.to_owned() };
    let found = Client::new(channel.clone()).get_elevation(request).await?;
    Ok(found.into_inner().elevation.unwrap())
}

async fn list(channel: &Channel) -> Vec<String> {
    let request = ListElevationsRequest { include_over: true, ..Default::default() };
    let listed = Client::new(channel.clone()).list_elevations(request).await.unwrap();
    listed.into_inner().elevations.into_iter().map(|one| one.id).collect()
}

async fn approve(channel: &Channel, seen: &Elevation) -> Result<Elevation, Status> {
    approve_for(channel, seen, 0).await
}

async fn approve_for(channel: &Channel, seen: &Elevation, ttl_s: i64) -> Result<Elevation, Status> {
    let (id, scope_hash) = (seen.id.clone(), seen.scope_hash.clone());
    let request = ApproveElevationRequest { id, scope_hash, ttl_s, reason: String::new() };
    let approved = Client::new(channel.clone()).approve_elevation(request).await?;
    Ok(approved.into_inner().elevation.unwrap())
}

async fn deny(channel: &Channel, of: &Elevation) -> Result<Elevation, Status> {
    let request = DenyElevationRequest { id: of.id.clone(), reason: "no".to_owned() };
    let denied = Client::new(channel.clone()).deny_elevation(request).await?;
    Ok(denied.into_inner().elevation.unwrap())
}

async fn withdraw(channel: &Channel, of: &Elevation) -> Result<Elevation, Status> {
    let request = WithdrawElevationRequest { id: of.id.clone() };
    let withdrawn = Client::new(channel.clone()).withdraw_elevation(request).await?;
    Ok(withdrawn.into_inner().elevation.unwrap())
}

async fn activate(channel: &Channel, of: &Elevation) -> Result<Elevation, Status> {
    let request = ActivateElevationRequest { id: of.id.clone() };
    let activated = Client::new(channel.clone()).activate_elevation(request).await?;
    Ok(activated.into_inner().elevation.unwrap())
}

async fn revoke(channel: &Channel, of: &Elevation) -> Result<Elevation, Status> {
    let request = RevokeElevationRequest { id: of.id.clone(), reason: String::new() };
    let revoked = Client::new(channel.clone()).revoke_elevation(request).await?;
    Ok(revoked.into_inner().elevation.unwrap())
}

/// The code of a refusal.
fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    answer.unwrap_err().code()
}
