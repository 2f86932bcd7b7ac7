//! Recovering an administrator whose key is lost: asked for with the PIN, told to every
//! administrator, cancelled by any of them, and a login after an hour.

mod bounds;
mod program;
mod races;

use std::time::Duration;

use strongroom::engines::system::Recovered;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::system_service_client::SystemServiceClient;
use strongroom::proto::{
    AddMemberRequest, CancelRecoveryRequest, Entry, EntryFilter, ListEntriesRequest, Notice,
    Recovery, RemoveMemberRequest, ResumeIdentityRequest, RetireIdentityRequest,
    SuspendIdentityRequest, UpdateIdentityRequest, WhoAmIRequest, WhoAmIResponse,
};
use strongroom::types::RecoveryState;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::logins::{human, login, machine, register};
use crate::support::node::{BACKENDS, Fixture, Login, csr};
use crate::support::recovery::recover;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// Registers another administrator, with a login.
async fn administrator(f: &Fixture, name: &str) -> Login {
    register(f, name, "human", "").await;
    let mut groups = GroupServiceClient::new(f.connect(&f.admin).await);
    let (group, identity) = ("administrators".to_owned(), name.to_owned());
    groups.add_member(AddMemberRequest { group, identity }).await.unwrap();
    login(f, name).await
}

async fn whoami(channel: &Channel) -> Result<WhoAmIResponse, Status> {
    let mut client = IdentityServiceClient::new(channel.clone());
    Ok(client.who_am_i(WhoAmIRequest {}).await?.into_inner())
}

/// What somebody is told of recoveries.
async fn told(channel: &Channel) -> Vec<Notice> {
    let notices = whoami(channel).await.unwrap().notices;
    notices.into_iter().filter(|notice| notice.code.starts_with("RECOVERY")).collect()
}

async fn cancel(channel: &Channel, id: &str) -> Result<Recovery, Status> {
    let request = CancelRecoveryRequest { id: id.to_owned(), reason: "nobody told me".into() };
    let answer = SystemServiceClient::new(channel.clone()).cancel_recovery(request).await?;
    Ok(answer.into_inner().recovery.unwrap())
}

async fn suspend(channel: &Channel, name: &str) {
    let request = SuspendIdentityRequest { name: name.to_owned(), reason: String::new() };
    IdentityServiceClient::new(channel.clone()).suspend_identity(request).await.unwrap();
}

async fn entries(f: &Fixture, channel: &Channel, action: &str) -> Vec<Entry> {
    f.node().vault.integrate().await.unwrap();
    let filter = EntryFilter { action: action.to_owned(), ..EntryFilter::default() };
    let request = ListEntriesRequest { filter: Some(filter), page_size: 100, ..Default::default() };
    let mut client = RecordServiceClient::new(channel.clone());
    client.list_entries(request).await.unwrap().into_inner().entries
}

fn id(recovered: &Recovered) -> String {
    recovered.recovery.id.to_string()
}

/// Who logs in with what a recovery yielded.
fn new_login(recovered: &Recovered, key_pem: &str) -> Login {
    let certificate_pem = recovered.login.as_ref().unwrap().pem();
    Login { key_pem: key_pem.to_owned(), certificate_pem }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_waits_an_hour_is_told_to_every_administrator_and_yields_one_login() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let admin = f.connect(&f.admin).await;
        let carol = f.connect(&administrator(&f, "carol").await).await;
        let dave = human(&f, "dave").await;
        let etl = machine(&f, "etl").await;
        assert!(told(&admin).await.is_empty());

        let (key, request) = csr();
        let asked = recover(&f, f.node(), "carol", &request).await.unwrap();
        assert_eq!(asked.recovery.state, RecoveryState::Pending);
        assert!(asked.login.is_none());
        let waits = asked.recovery.due_at.since(asked.recovery.requested_at);
        assert_eq!(waits, HOUR);
        for who in [&admin, &carol] {
            let [notice] = told(who).await.try_into().unwrap();
            assert_eq!(notice.code, "RECOVERY_PENDING");
            let key = strongroom::crypto::hex(&asked.recovery.key_hash);
            for part in ["carol", &id(&asked), &key, &asked.recovery.due_at.to_string()] {
                assert!(notice.message.contains(part), "{part}: {}", notice.message);
            }
        }
        for who in [&dave, &etl] {
            assert!(told(who).await.is_empty(), "only administrators are told");
        }

        f.clock.advance(59 * MINUTE);
        let early = recover(&f, f.node(), "carol", &request).await.unwrap();
        assert!(early.login.is_none());
        assert_eq!((id(&early), early.recovery.due_at), (id(&asked), asked.recovery.due_at));
        whoami(&carol).await.unwrap();

        f.clock.advance(MINUTE);
        let done = recover(&f, f.node(), "carol", &request).await.unwrap();
        assert_eq!((id(&done), done.recovery.state), (id(&asked), RecoveryState::Done));
        let back = f.connect(&new_login(&done, &key)).await;
        let me = whoami(&back).await.unwrap();
        assert_eq!((me.identity.as_str(), me.administrator), ("carol", true));
        assert_eq!(whoami(&carol).await.unwrap_err().code(), Code::Unauthenticated, "the old one");
        let again = recover(&f, f.node(), "carol", &request).await.unwrap();
        assert_eq!(again.login.as_ref().unwrap().row, done.login.as_ref().unwrap().row);
        for who in [&admin, &back] {
            let [notice] = told(who).await.try_into().unwrap();
            assert_eq!(notice.code, "RECOVERY_DONE");
        }

        let recorded = entries(&f, &admin, "system.recover-admin").await;
        let said = ["asked for", "looked at", "takes effect", "fetched again"];
        assert_eq!(recorded.len(), said.len(), "{recorded:?}");
        for said in said {
            let entry = recorded.iter().find(|entry| entry.detail.contains(said)).expect(said);
            assert!(entry.detail.contains(&id(&asked)), "{entry:?}");
            assert!(entry.keys.iter().any(|key| key.purpose == "prove PIN"), "{entry:?}");
            let signed = entry.keys.iter().any(|key| key.purpose == "sign certificate");
            assert_eq!(signed, said == "takes effect", "{entry:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_administrator_cancels_a_recovery_and_it_yields_nothing_then() {
    for backend in BACKENDS {
        let f = Fixture::on(backend).await;
        let admin = f.connect(&f.admin).await;
        let carol = f.connect(&administrator(&f, "carol").await).await;
        let bob = f.connect(&administrator(&f, "bob").await).await;
        let dave = human(&f, "dave").await;
        let etl = machine(&f, "etl").await;
        let (_, request) = csr();
        let asked = id(&recover(&f, f.node(), "carol", &request).await.unwrap());
        for who in [&dave, &etl] {
            let refused = cancel(who, &asked).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied);
        }
        for (other, code) in [
            ("0197a1c0-0000-7000-8000-000000000001", Code::NotFound),
            ("carol", Code::InvalidArgument),
            ("", Code::InvalidArgument),
        ] {
            assert_eq!(cancel(&bob, other).await.unwrap_err().code(), code, "{other}");
        }
        assert_eq!(told(&bob).await.len(), 1, "it waits");

        let cancelled = cancel(&bob, &asked).await.unwrap();
        let says = (cancelled.id.as_str(), cancelled.identity.as_str(), cancelled.state.as_str());
        assert_eq!(says, (asked.as_str(), "carol", "cancelled"));
        assert_eq!(cancel(&admin, &asked).await.unwrap(), cancelled, "it is cancelled once");
        for who in [&admin, &bob, &carol] {
            assert!(told(who).await.is_empty());
        }
        f.clock.advance(HOUR + MINUTE);
        let anew = recover(&f, f.node(), "carol", &request).await.unwrap();
        assert!(anew.login.is_none());
        assert_ne!(id(&anew), asked, "it waits an hour of its own");
        whoami(&carol).await.unwrap();
        assert_eq!(cancel(&bob, &asked).await.unwrap_err().code(), Code::NotFound);

        f.clock.advance(HOUR);
        let done = recover(&f, f.node(), "carol", &request).await.unwrap();
        let refused = cancel(&bob, &id(&done)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "it took effect: {refused}");
        let reasons = entries(&f, &admin, "system.cancel-recovery").await;
        assert!(reasons.iter().any(|entry| entry.given_reason == "nobody told me"));
    }
}
