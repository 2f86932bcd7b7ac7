//! Requests of `KeyService`, and the keys that they speak of.

use prost::Message as _;
use strongroom::proto::key_service_client::KeyServiceClient;
use strongroom::proto::{
    AddGrantRequest, BackUpKeyRequest, CreateKeyRequest, DecryptItem, DecryptRequest,
    DecryptStreamRequest, EncryptItem, EncryptRequest, EncryptStreamRequest, ExportKeyRequest,
    GetKeyRequest, GetKeyUsageRequest, GetRandomRequest, ImportKeyRequest, ListKeysRequest,
    MacItem, MacRequest, MakeDataKeyRequest, RestoreKeyRequest, RewrapRequest, RotateKeyRequest,
    SignArtifactRequest, SignItem, SignRequest, TransferKeyRequest, UpdateKeyRequest, VerifyItem,
    VerifyMacItem, VerifyMacRequest, VerifyRequest,
};
use tonic::transport::Channel;

use super::requests::{Things, unknown};
use crate::keys::{VERBS, spec};
use crate::support::target::World;

fn named(name: &str) -> String {
    format!("matrix/{name}")
}

fn spec_of(name: &str, algorithm: &str) -> CreateKeyRequest {
    CreateKeyRequest { placement: "sealed".into(), ..spec(&named(name), algorithm) }
}

/// Gives the machine every right below `matrix/`, and makes what requests speak of.
pub(super) async fn make(world: &World, machine: &str, channel: &Channel) {
    for verb in VERBS {
        let with = |grant| AddGrantRequest {
            action: format!("keys.{verb}"),
            resource: "keys/matrix/*".into(),
            ..grant
        };
        world.grant(machine, with).await.unwrap();
    }
    for (name, algorithm) in [
        ("cipher", "xaes-256-gcm"),
        ("mac", "hmac-sha-256"),
        ("signer", "ed25519"),
        ("rotate", "xaes-256-gcm"),
        ("update", "xaes-256-gcm"),
        ("transfer", "xaes-256-gcm"),
    ] {
        KeyServiceClient::new(channel.clone()).create_key(spec_of(name, algorithm)).await.unwrap();
    }
    let backed_up = CreateKeyRequest { may_back_up: true, ..spec_of("backup", "xaes-256-gcm") };
    KeyServiceClient::new(channel.clone()).create_key(backed_up).await.unwrap();
}

pub(super) fn request(method: &str, things: &Things) -> Vec<u8> {
    let message = b"a message".to_vec();
    let sealed = || DecryptItem { ciphertext: vec![3; 80], associated_data: vec![] };
    match method {
        "CreateKey" => spec_of("new", "xaes-256-gcm").encode_to_vec(),
        "GetKey" => GetKeyRequest { name: named("cipher") }.encode_to_vec(),
        "ListKeys" => ListKeysRequest::default().encode_to_vec(),
        "RotateKey" => {
            RotateKeyRequest { name: named("rotate"), expected_version: 1 }.encode_to_vec()
        }
        "UpdateKey" => {
            UpdateKeyRequest { name: named("update"), revision: 1, ..Default::default() }
                .encode_to_vec()
        }
        "Encrypt" => {
            let items = vec![EncryptItem { plaintext: message, associated_data: vec![] }];
            EncryptRequest { name: named("cipher"), items }.encode_to_vec()
        }
        "Decrypt" => {
            DecryptRequest { name: named("cipher"), items: vec![sealed()] }.encode_to_vec()
        }
        "EncryptStream" => {
            let (name, data) = (named("cipher"), message);
            EncryptStreamRequest { name, associated_data: vec![], data }.encode_to_vec()
        }
        "DecryptStream" => {
            let (name, data) = (named("cipher"), vec![0x13; 80]);
            DecryptStreamRequest { name, associated_data: vec![], data }.encode_to_vec()
        }
        "Rewrap" => RewrapRequest { name: named("cipher"), items: vec![sealed()] }.encode_to_vec(),
        "MakeDataKey" => {
            MakeDataKeyRequest { name: named("cipher"), ..Default::default() }.encode_to_vec()
        }
        "Mac" => {
            MacRequest { name: named("mac"), items: vec![MacItem { message }] }.encode_to_vec()
        }
        "VerifyMac" => {
            let items = vec![VerifyMacItem { message, mac: vec![0; 32], version: 0 }];
            VerifyMacRequest { name: named("mac"), items }.encode_to_vec()
        }
        "Sign" => {
            SignRequest { name: named("signer"), items: vec![SignItem { message }] }.encode_to_vec()
        }
        "Verify" => {
            let items = vec![VerifyItem { message, signature: vec![0; 64], version: 0 }];
            VerifyRequest { name: named("signer"), items }.encode_to_vec()
        }
        "ExportKey" => ExportKeyRequest { name: named("signer"), version: 0 }.encode_to_vec(),
        "GetRandom" => GetRandomRequest { len_bytes: 32 }.encode_to_vec(),
        _ => custody(method, things),
    }
}

fn custody(method: &str, things: &Things) -> Vec<u8> {
    match method {
        "ImportKey" => {
            ImportKeyRequest { name: named("cipher"), wrapped: vec![7; 424] }.encode_to_vec()
        }
        "TransferKey" => {
            let (name, owner) = (named("transfer"), things.machine.clone());
            TransferKeyRequest { name, owner, expected_version: 1 }.encode_to_vec()
        }
        "BackUpKey" => BackUpKeyRequest { name: named("backup") }.encode_to_vec(),
        "RestoreKey" => {
            RestoreKeyRequest { name: named("gone"), backup: vec![7; 200] }.encode_to_vec()
        }
        "SignArtifact" => {
            let (name, manifest) = (named("signer"), "model.sha256".to_owned());
            let manifest_sha256 = vec![7; 32];
            SignArtifactRequest { name, manifest, manifest_sha256, files: 1, size_bytes: 1 }
                .encode_to_vec()
        }
        "GetKeyUsage" => {
            GetKeyUsageRequest { name: named("cipher"), ..Default::default() }.encode_to_vec()
        }
        _ => unknown(method),
    }
}
