//! What every service stands behind: who is nobody reads nothing, what cannot be read is counted,
//! and a call that takes too long ends.

use std::time::Duration;

use prost::Message as _;
use strongroom::keyring::FinalTry;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::system_service_client::SystemServiceClient;
use strongroom::proto::{
    Entry, EntryFilter, ErrorInfo, GetIdentityRequest, ListEntriesRequest, RpcStatus, SealRequest,
    WhoAmIRequest,
};
use strongroom::server::{ListenerTls, Occasion};
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::node::{Backend, Fixture, pin};
use crate::support::postgres::Postgres;
use crate::support::target::{Proxy, Wire, World, until};

fn reason(status: &Status) -> String {
    let details = RpcStatus::decode(status.details()).unwrap();
    ErrorInfo::decode(&*details.details[0].value).unwrap().reason
}

/// Lists the services by reflection v1.
async fn services_v1(channel: &Channel) -> Result<Vec<String>, Status> {
    use v1::server_reflection_client::ServerReflectionClient;
    use v1::server_reflection_request::MessageRequest::ListServices;
    use v1::server_reflection_response::MessageResponse::ListServicesResponse;
    let message_request = Some(ListServices(String::new()));
    let request = v1::ServerReflectionRequest { message_request, ..Default::default() };
    let mut client = ServerReflectionClient::new(channel.clone());
    let answers = client.server_reflection_info(tokio_stream::once(request)).await?;
    let answer = answers.into_inner().next().await.unwrap()?;
    let Some(ListServicesResponse(listed)) = answer.message_response else { panic!() };
    Ok(listed.service.into_iter().map(|service| service.name).collect())
}

/// Lists the services by reflection v1alpha.
async fn services_v1alpha(channel: &Channel) -> Result<Vec<String>, Status> {
    use v1alpha::server_reflection_client::ServerReflectionClient;
    use v1alpha::server_reflection_request::MessageRequest::ListServices;
    use v1alpha::server_reflection_response::MessageResponse::ListServicesResponse;
    let message_request = Some(ListServices(String::new()));
    let request = v1alpha::ServerReflectionRequest { message_request, ..Default::default() };
    let mut client = ServerReflectionClient::new(channel.clone());
    let answers = client.server_reflection_info(tokio_stream::once(request)).await?;
    let answer = answers.into_inner().next().await.unwrap()?;
    let Some(ListServicesResponse(listed)) = answer.message_response else { panic!() };
    Ok(listed.service.into_iter().map(|service| service.name).collect())
}

async fn services(channel: &Channel, version: &str) -> Result<Vec<String>, Status> {
    if version == "v1" { services_v1(channel).await } else { services_v1alpha(channel).await }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_shows_the_protos_to_known_callers_alone_and_to_nobody_while_sealed() {
    let mut f = Fixture::new().await;
    // A sealed node shows the certificate that was kept.
    let kept = tempfile::tempdir().unwrap();
    f.parts.tls = ListenerTls::Issued { kept_in: Some(kept.path().to_owned()) };
    f.restart().await;
    let (nobody, admin) = (f.connect_as_nobody().await, f.connect(&f.admin).await);
    for version in ["v1", "v1alpha"] {
        let refused = services(&nobody, version).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{version}");
        assert_eq!(reason(&refused), "UNAUTHENTICATED", "{version}");
        let found = services(&admin, version).await.unwrap();
        let ours = |name: &String| name == "strongroom.v1.IdentityService";
        assert!(found.iter().any(ours), "{version}: {found:?}");
    }
    let strangers = entries(&f, "system.strangers").await;
    assert!(strangers[0].detail.contains("UNAUTHENTICATED: 2"), "{strangers:?}");
    let seal = SealRequest { reason: "a drill".to_owned() };
    SystemServiceClient::new(admin.clone()).seal(seal).await.unwrap();
    for version in ["v1", "v1alpha"] {
        for channel in [&nobody, &admin] {
            let refused = services(channel, version).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unavailable, "{version}");
        }
    }
    until("it is sealed", async || f.node().vault.is_sealed()).await;
    f.node().life.unseal(pin(), FinalTry::Refuse, Occasion::Asked).await.unwrap();
    services(&admin, "v1").await.unwrap();
}

/// What was counted, as its summary tells it.
async fn entries(f: &Fixture, action: &str) -> Vec<Entry> {
    f.node().vault.summarise_refusals().await.unwrap();
    f.node().vault.integrate().await.unwrap();
    let filter = EntryFilter { action: action.to_owned(), ..EntryFilter::default() };
    let request = ListEntriesRequest { filter: Some(filter), page_size: 100, ..Default::default() };
    let mut client = RecordServiceClient::new(f.connect(&f.admin).await);
    client.list_entries(request).await.unwrap().into_inner().entries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_read_is_counted_by_who_sent_it() {
    let f = Fixture::new().await;
    let mut client = IdentityServiceClient::new(f.connect(&f.admin).await);
    for name in ["NOT canonical", "a//b", ""] {
        let request = GetIdentityRequest { name: name.to_owned() };
        let refused = client.get_identity(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name}");
    }
    client.who_am_i(WhoAmIRequest {}).await.unwrap();
    let counted = entries(&f, "system.refusals").await;
    assert_eq!(counted.len(), 1, "{counted:?}");
    assert!(counted[0].detail.ends_with(" INVALID: 3"), "{counted:?}");
    assert!(entries(&f, "identities.show").await.is_empty(), "what was asked is nowhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_too_long_ends_with_its_reason_and_is_counted() {
    let proxy = Proxy::to(Postgres::shared().port()).await;
    let mut w = World::over(Backend::Sqlite, Postgres::shared(), proxy.port).await;
    w.f.parts.limits.deadline = Duration::from_millis(700);
    w.f.restart().await;
    w.admin = w.f.connect(&w.f.admin).await;
    w.database_client().put_connection(w.connection()).await.unwrap();
    proxy.set(Wire::HoldsRequests);
    let late = w.database_client().put_connection(w.connection()).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    assert_eq!(reason(&late), "DEADLINE");
    let port = w.f.node().http_addr.unwrap().port();
    let shown = crate::http::ask(port, "/metrics").await.unwrap();
    let counted = "code=\"DEADLINE_EXCEEDED\",rpc=\"DatabaseService/PutConnection\"";
    let other = "rpc=\"DatabaseService/PutConnection\",code=\"DEADLINE_EXCEEDED\"";
    assert!(shown.contains(counted) || shown.contains(other), "{shown}");
    proxy.set(Wire::Cut);
}
