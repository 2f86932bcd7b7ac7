//! Named keys at the real socket, on both stores.

mod artifacts;
mod counting;
mod crash;
mod custody;
mod hsm;
mod import;
mod life;
mod openssl;
mod races;
mod refusals;
mod signatures;
mod streams;
mod tamper;
mod usage;
mod wycheproof;

use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::key_service_client::KeyServiceClient;
use strongroom::proto::{
    AddGrantRequest, CreateKeyRequest, DecryptItem, DecryptRequest, Decrypted, EncryptItem,
    EncryptRequest, EncryptResponse, GetKeyRequest, GetKeyResponse, NamedKey, RewrapRequest,
    RotateKeyRequest, UpdateKeyRequest, add_grant_request,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::logins::{human, machine};
use crate::support::node::{Backend, Fixture};

pub(crate) type Client = KeyServiceClient<Channel>;

/// Everything that is done to a key by name.
pub(crate) const VERBS: [&str; 21] = [
    "create",
    "show",
    "rotate",
    "update",
    "encrypt",
    "decrypt",
    "rewrap",
    "datakey",
    "mac",
    "verify-mac",
    "sign",
    "verify",
    "export",
    "encrypt-stream",
    "decrypt-stream",
    "import",
    "transfer",
    "backup",
    "restore",
    "sign-artifact",
    "usage",
];
/// What encrypts.
pub(crate) const CIPHERS: [&str; 3] = ["aes-256-gcm", "chacha20-poly1305", "xaes-256-gcm"];

/// A vault with alice, who may do everything below `team/`, and a pipeline that may do nothing.
pub(crate) struct Place {
    pub(crate) f: Fixture,
    pub(crate) alice: Channel,
    pub(crate) etl: Channel,
}

impl Place {
    pub(crate) async fn new(backend: Backend) -> Self {
        let f = Fixture::on(backend).await;
        let alice = human(&f, "alice").await;
        let etl = machine(&f, "etl").await;
        let place = Self { f, alice, etl };
        for verb in VERBS {
            place.grant("alice", verb, "keys/team/**").await;
        }
        place
    }

    pub(crate) async fn grant(&self, to: &str, verb: &str, resource: &str) {
        let request = AddGrantRequest {
            subject: Some(add_grant_request::Subject::Identity(to.to_owned())),
            action: format!("keys.{verb}"),
            resource: resource.to_owned(),
            ..Default::default()
        };
        let mut client = GrantServiceClient::new(self.f.connect(&self.f.admin).await);
        client.add_grant(request).await.unwrap();
    }

    pub(crate) fn alice(&self) -> Client {
        client(&self.alice)
    }

    pub(crate) fn etl(&self) -> Client {
        client(&self.etl)
    }
}

pub(crate) fn client(channel: &Channel) -> Client {
    // The vault's own bound, and some room.
    let most = 2 * 1_024 * 1_024;
    Client::new(channel.clone()).max_encoding_message_size(most).max_decoding_message_size(most)
}

pub(crate) fn spec(name: &str, algorithm: &str) -> CreateKeyRequest {
    let (name, algorithm) = (name.to_owned(), algorithm.to_owned());
    CreateKeyRequest { name, algorithm, ..Default::default() }
}

pub(crate) async fn create(client: &mut Client, name: &str, algorithm: &str) -> NamedKey {
    client.create_key(spec(name, algorithm)).await.unwrap().into_inner().key.unwrap()
}

pub(crate) async fn show(client: &mut Client, name: &str) -> Result<GetKeyResponse, Status> {
    let answer = client.get_key(GetKeyRequest { name: name.to_owned() }).await?;
    Ok(answer.into_inner())
}

pub(crate) async fn rotate(client: &mut Client, name: &str, expected: i64) -> Result<i64, Code> {
    let request = RotateKeyRequest { name: name.to_owned(), expected_version: expected };
    let rotated = client.rotate_key(request).await.map_err(|status| status.code())?;
    Ok(rotated.into_inner().key.unwrap().version)
}

/// Changes a key as it is now.
pub(crate) async fn update(
    client: &mut Client,
    name: &str,
    with: impl FnOnce(UpdateKeyRequest) -> UpdateKeyRequest,
) -> Result<NamedKey, Status> {
    let revision = show(client, name).await?.key.unwrap().revision;
    let request = UpdateKeyRequest { name: name.to_owned(), revision, ..Default::default() };
    Ok(client.update_key(with(request)).await?.into_inner().key.unwrap())
}

pub(crate) async fn encrypt_all(
    client: &mut Client,
    name: &str,
    items: &[(&[u8], &[u8])],
) -> Result<EncryptResponse, Status> {
    let item = |(plaintext, aad): &(&[u8], &[u8])| EncryptItem {
        plaintext: plaintext.to_vec(),
        associated_data: aad.to_vec(),
    };
    let items = items.iter().map(item).collect();
    let request = EncryptRequest { name: name.to_owned(), items };
    Ok(client.encrypt(request).await?.into_inner())
}

pub(crate) async fn encrypt(
    client: &mut Client,
    name: &str,
    plaintext: &[u8],
    aad: &[u8],
) -> Result<Vec<u8>, Status> {
    let mut done = encrypt_all(client, name, &[(plaintext, aad)]).await?;
    let one = done.results.remove(0);
    assert_eq!(one.fault, None);
    Ok(one.ciphertext)
}

pub(crate) async fn decrypt_all(
    client: &mut Client,
    name: &str,
    items: &[(&[u8], &[u8])],
) -> Result<Vec<Decrypted>, Status> {
    let request = DecryptRequest { name: name.to_owned(), items: sealed(items) };
    Ok(client.decrypt(request).await?.into_inner().results)
}

pub(crate) fn sealed(items: &[(&[u8], &[u8])]) -> Vec<DecryptItem> {
    let item = |(ciphertext, aad): &(&[u8], &[u8])| DecryptItem {
        ciphertext: ciphertext.to_vec(),
        associated_data: aad.to_vec(),
    };
    items.iter().map(item).collect()
}

/// Decrypts one: the plaintext and its version, or the reason of its fault.
pub(crate) async fn decrypt(
    client: &mut Client,
    name: &str,
    ciphertext: &[u8],
    aad: &[u8],
) -> Result<(Vec<u8>, i64), String> {
    let answers = decrypt_all(client, name, &[(ciphertext, aad)]).await;
    let one = answers.map_err(|status| status.code().to_string())?.remove(0);
    match one.fault.clone() {
        Some(fault) => {
            assert!(one.plaintext.is_empty());
            Err(fault.reason)
        }
        None => Ok((one.plaintext.clone(), one.version)),
    }
}

pub(crate) async fn rewrap(client: &mut Client, name: &str, ciphertext: &[u8]) -> Vec<u8> {
    let request = RewrapRequest { name: name.to_owned(), items: sealed(&[(ciphertext, b"")]) };
    let mut done = client.rewrap(request).await.unwrap().into_inner();
    done.results.remove(0).ciphertext
}
