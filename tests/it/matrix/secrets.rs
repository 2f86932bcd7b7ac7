//! Requests of `SecretService`, and the secrets that they speak of.

use prost::Message as _;
use strongroom::proto::secret_service_client::SecretServiceClient;
use strongroom::proto::{
    AddGrantRequest, DeleteSecretRequest, DestroySecretRequest, GetMetadataRequest,
    GetSecretRequest, ListSecretsRequest, ListVersionsRequest, PutSecretRequest,
    RollbackSecretRequest, SearchSecretsRequest, TransferSecretRequest, UndeleteSecretRequest,
    UpdateSecretRequest,
};
use tonic::transport::Channel;

use super::requests::{Things, unknown};
use crate::secrets::VERBS;
use crate::support::target::World;

fn path(name: &str) -> String {
    format!("matrix/{name}")
}

fn put(name: &str) -> PutSecretRequest {
    PutSecretRequest { path: path(name), value: b"a value".to_vec(), ..Default::default() }
}

/// Gives the machine every right below `matrix/`, and makes what requests speak of.
pub(super) async fn make(world: &World, machine: &str, channel: &Channel) {
    for verb in VERBS {
        let with = |grant| AddGrantRequest {
            action: format!("secrets.{verb}"),
            resource: "secrets/matrix/*".into(),
            ..grant
        };
        world.grant(machine, with).await.unwrap();
    }
    for name in ["one", "rollback", "delete", "destroy", "update", "transfer"] {
        SecretServiceClient::new(channel.clone()).put_secret(put(name)).await.unwrap();
    }
}

pub(super) fn request(method: &str, of: &Things) -> Vec<u8> {
    match method {
        "PutSecret" => put("put").encode_to_vec(),
        "GetSecret" => GetSecretRequest { path: path("one"), version: 0 }.encode_to_vec(),
        "ListSecrets" => ListSecretsRequest::default().encode_to_vec(),
        "SearchSecrets" => {
            SearchSecretsRequest { text: "one".into(), ..Default::default() }.encode_to_vec()
        }
        "ListVersions" => {
            ListVersionsRequest { path: path("one"), ..Default::default() }.encode_to_vec()
        }
        "RollbackSecret" => RollbackSecretRequest {
            path: path("rollback"),
            version: 1,
            expected_version: 1,
            ..Default::default()
        }
        .encode_to_vec(),
        "DeleteSecret" => {
            DeleteSecretRequest { path: path("delete"), ..Default::default() }.encode_to_vec()
        }
        "UndeleteSecret" => {
            UndeleteSecretRequest { path: path("one"), ..Default::default() }.encode_to_vec()
        }
        "DestroySecret" => {
            DestroySecretRequest { path: path("destroy"), all: true, ..Default::default() }
                .encode_to_vec()
        }
        "GetMetadata" => GetMetadataRequest { path: path("one") }.encode_to_vec(),
        "UpdateSecret" => UpdateSecretRequest {
            path: path("update"),
            revision: 1,
            max_versions: 3,
            ..Default::default()
        }
        .encode_to_vec(),
        "TransferSecret" => TransferSecretRequest {
            path: path("transfer"),
            owner: of.machine.clone(),
            expected_version: 0,
        }
        .encode_to_vec(),
        _ => unknown(method),
    }
}
