//! Secrets at the real socket, on both stores.

mod crash;
mod life;
mod lists;
mod masks;
mod owners;
mod races;
mod refusals;
mod tamper;

use std::time::Duration;

use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::secret_service_client::SecretServiceClient;
use strongroom::proto::{
    AddGrantRequest, Conditions, GetMetadataRequest, GetSecretRequest, GetSecretResponse, Grant,
    ListVersionsRequest, PutSecretRequest, RemoveGrantRequest, SecretMetadata, SecretVersion,
    add_grant_request,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::logins::{human, machine};
use crate::support::node::{Backend, Fixture};

pub(crate) type Client = SecretServiceClient<Channel>;

/// Everything that is done to a secret by name.
pub(crate) const VERBS: [&str; 10] = [
    "put", "get", "history", "rollback", "delete", "undelete", "destroy", "metadata", "update",
    "transfer",
];

/// A vault with alice, who may do everything below `team/`, and a pipeline that may do nothing.
pub(crate) struct Place {
    pub(crate) f: Fixture,
    pub(crate) alice: Channel,
    pub(crate) etl: Channel,
}

impl Place {
    pub(crate) async fn new(backend: Backend) -> Self {
        Self::of(Fixture::on(backend).await).await
    }

    pub(crate) async fn of(f: Fixture) -> Self {
        let alice = human(&f, "alice").await;
        let etl = machine(&f, "etl").await;
        let place = Self { f, alice, etl };
        for verb in VERBS {
            place.grant("alice", verb, "secrets/team/**").await;
        }
        place
    }

    pub(crate) async fn grant(&self, to: &str, verb: &str, resource: &str) -> Grant {
        self.grant_with(to, verb, resource, Conditions::default()).await.unwrap()
    }

    pub(crate) async fn grant_with(
        &self,
        to: &str,
        verb: &str,
        resource: &str,
        conditions: Conditions,
    ) -> Result<Grant, Status> {
        let request = AddGrantRequest {
            subject: Some(add_grant_request::Subject::Identity(to.to_owned())),
            action: format!("secrets.{verb}"),
            resource: resource.to_owned(),
            conditions: Some(conditions),
            ..Default::default()
        };
        let mut client = GrantServiceClient::new(self.f.connect(&self.f.admin).await);
        Ok(client.add_grant(request).await?.into_inner().grant.unwrap())
    }

    pub(crate) async fn remove(&self, grant: &str) {
        let request = RemoveGrantRequest { id: grant.to_owned(), reason: String::new() };
        let mut client = GrantServiceClient::new(self.f.connect(&self.f.admin).await);
        client.remove_grant(request).await.unwrap();
    }

    pub(crate) fn alice(&self) -> Client {
        client(&self.alice)
    }

    pub(crate) fn etl(&self) -> Client {
        client(&self.etl)
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.f.clock.advance(Duration::from_secs(seconds));
    }
}

pub(crate) fn client(channel: &Channel) -> Client {
    // The vault's own bound, and some room.
    let most = 2 * 1_024 * 1_024;
    Client::new(channel.clone()).max_encoding_message_size(most).max_decoding_message_size(most)
}

pub(crate) fn request(path: &str, value: &[u8], expected_version: i64) -> PutSecretRequest {
    let (path, value) = (path.to_owned(), value.to_vec());
    PutSecretRequest { path, value, expected_version, ..Default::default() }
}

pub(crate) async fn put(
    client: &mut Client,
    path: &str,
    value: &[u8],
    expected: i64,
) -> Result<i64, Code> {
    let written = client.put_secret(request(path, value, expected)).await;
    written.map(|written| written.into_inner().version).map_err(|status| status.code())
}

pub(crate) async fn fetch(
    client: &mut Client,
    path: &str,
    version: i64,
) -> Result<GetSecretResponse, Status> {
    let request = GetSecretRequest { path: path.to_owned(), version };
    client.get_secret(request).await.map(tonic::Response::into_inner)
}

pub(crate) async fn get(client: &mut Client, path: &str, version: i64) -> Result<Vec<u8>, Code> {
    fetch(client, path, version).await.map(|given| given.value).map_err(|status| status.code())
}

pub(crate) async fn metadata(client: &mut Client, path: &str) -> Result<SecretMetadata, Status> {
    let answer = client.get_metadata(GetMetadataRequest { path: path.to_owned() }).await?;
    Ok(answer.into_inner().metadata.unwrap())
}

pub(crate) async fn history(client: &mut Client, path: &str) -> Result<Vec<SecretVersion>, Status> {
    let request = ListVersionsRequest { path: path.to_owned(), ..Default::default() };
    Ok(client.list_versions(request).await?.into_inner().versions)
}

/// The states of all versions, the newest first.
pub(crate) async fn states(client: &mut Client, path: &str) -> Vec<(i64, String)> {
    let versions = history(client, path).await.unwrap();
    versions.into_iter().map(|version| (version.version, version.state)).collect()
}
