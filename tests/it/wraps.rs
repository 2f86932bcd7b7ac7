//! Wrapped answers at the real socket, on both stores.

mod ends;
mod life;
mod program;
mod races;
mod tamper;
mod verbs;

use prost::Message as _;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::secret_service_client::SecretServiceClient;
use strongroom::proto::wrap_service_client::WrapServiceClient;
use strongroom::proto::{
    Entry, EntryFilter, ErrorInfo, GetSecretRequest, GetSecretResponse, GetWrapRequest,
    ListEntriesRequest, ListWrapsRequest, RevokeWrapRequest, RpcStatus, UnwrapRequest,
    UnwrapResponse, WRAP_FOR, WRAP_TTL, Wrap, Wrapped,
};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::secrets::{self, put};
use crate::support::logins::machine;
use crate::support::node::{Backend, Fixture};

/// What nobody may find but who unwraps.
pub(crate) const CANARY: &[u8] = b"a canary of 21 bytes!";
const PATH: &str = "secrets/team/key";

/// A vault with alice, whose secret it is, a pipeline `etl`, and `eve`, who may nothing.
struct Place {
    place: secrets::Place,
    eve: Channel,
}

impl Place {
    async fn new(backend: Backend) -> Self {
        Self::of(Fixture::on(backend).await).await
    }

    async fn of(f: Fixture) -> Self {
        let place = secrets::Place::of(f).await;
        let eve = machine(&place.f, "eve").await;
        put(&mut place.alice(), "team/key", CANARY, 0).await.unwrap();
        Self { place, eve }
    }

    fn f(&self) -> &Fixture {
        &self.place.f
    }

    fn alice(&self) -> &Channel {
        &self.place.alice
    }

    fn etl(&self) -> &Channel {
        &self.place.etl
    }

    /// Wraps the secret, as alice.
    async fn wrap(&self, ttl: &str, recipient: &str) -> Result<Wrapped, Status> {
        let answer = wrap_with(self.alice(), ttl, recipient).await?;
        assert!(answer.value.is_empty());
        Ok(answer.wrapped.unwrap())
    }

    /// What the record says of an action with an outcome.
    async fn entries(&self, action: &str, outcome: &str) -> Vec<Entry> {
        let f = self.f();
        f.node().vault.integrate().await.unwrap();
        let mut client = RecordServiceClient::new(f.connect(&f.admin).await);
        let (action, outcome) = (action.to_owned(), outcome.to_owned());
        let filter = Some(EntryFilter { action, outcome, ..Default::default() });
        let request = ListEntriesRequest { filter, page_size: 1_000, ..Default::default() };
        client.list_entries(request).await.unwrap().into_inner().entries
    }
}

/// Asks for an answer to be wrapped.
pub(crate) fn asked<T>(message: T, ttl: &str, recipient: &str) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in [(WRAP_TTL, ttl), (WRAP_FOR, recipient)] {
        if !value.is_empty() {
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
    }
    request
}

/// Wraps the secret as somebody.
async fn wrap_with(
    channel: &Channel,
    ttl: &str,
    recipient: &str,
) -> Result<GetSecretResponse, Status> {
    let get = GetSecretRequest { path: "team/key".into(), version: 0 };
    let mut client = SecretServiceClient::new(channel.clone());
    Ok(client.get_secret(asked(get, ttl, recipient)).await?.into_inner())
}

/// What whoever got the handle in the right way says.
pub(crate) fn expecting(wrapped: &Wrapped) -> UnwrapRequest {
    UnwrapRequest {
        handle: wrapped.handle.clone(),
        creator: wrapped.creator.clone(),
        path: wrapped.path.clone(),
        action: wrapped.action.clone(),
    }
}

pub(crate) async fn unwrap(
    channel: &Channel,
    request: UnwrapRequest,
) -> Result<UnwrapResponse, Status> {
    let mut client = WrapServiceClient::new(channel.clone());
    Ok(client.unwrap(request).await?.into_inner())
}

/// Unwraps as the wrap asks for; the value.
async fn value(channel: &Channel, wrapped: &Wrapped) -> Result<Vec<u8>, Status> {
    let opened = unwrap(channel, expecting(wrapped)).await?;
    assert_eq!(opened.message, "strongroom.v1.GetSecretResponse");
    Ok(GetSecretResponse::decode(opened.answer.as_slice()).unwrap().value)
}

async fn shown(channel: &Channel, accessor: &str) -> Result<Wrap, Code> {
    let request = GetWrapRequest { accessor: accessor.to_owned() };
    let found = WrapServiceClient::new(channel.clone()).get_wrap(request).await;
    found.map(|found| found.into_inner().wrap.unwrap()).map_err(|refusal| refusal.code())
}

async fn revoke(channel: &Channel, accessor: &str) -> Result<Wrap, Code> {
    let request = RevokeWrapRequest { accessor: accessor.to_owned(), reason: "a test".into() };
    let revoked = WrapServiceClient::new(channel.clone()).revoke_wrap(request).await;
    revoked.map(|revoked| revoked.into_inner().wrap.unwrap()).map_err(|refusal| refusal.code())
}

async fn listed(channel: &Channel, identity: &str) -> Result<Vec<Wrap>, Code> {
    let request = ListWrapsRequest { identity: identity.to_owned(), ..Default::default() };
    let listed = WrapServiceClient::new(channel.clone()).list_wraps(request).await;
    listed.map(|listed| listed.into_inner().wraps).map_err(|refusal| refusal.code())
}

/// The reason that an answer gives to machines.
fn reason(refusal: &Status) -> String {
    let details = RpcStatus::decode(refusal.details()).unwrap().details;
    ErrorInfo::decode(details[0].value.as_slice()).unwrap().reason
}
