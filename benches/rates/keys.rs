//! Named keys, each beside its ceiling: an echo of the same messages, or the HSM's own rate.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use strongroom::hsm::{Hsm as _, KeyKind};
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::key_service_client::KeyServiceClient;
use strongroom::proto::{
    AddGrantRequest, CreateKeyRequest, EncryptItem, EncryptRequest, EncryptStreamRequest, SignItem,
    SignRequest, SignResponse, add_grant_request,
};
use tonic::transport::Channel;

use crate::caller::Caller;
use crate::load::{RUN, WARM, drive};
use crate::report::{Row, Run, row};
use crate::vault::Vault;
use crate::{echo, insert, secrets};

/// Connections that the tasks share, on both sides.
const CONNECTIONS: usize = 8;
const KIB: usize = 1_024;
/// Bytes of an entry with what stands beside it.
const ENTRY: usize = 620;
/// Parts of a stream, of 64 KiB: 1 GiB.
const PARTS: usize = 16_384;

async fn create(channel: &Channel, name: &str, algorithm: &str) {
    let (name, algorithm) = (name.to_owned(), algorithm.to_owned());
    let request = CreateKeyRequest { name, algorithm, ..Default::default() };
    KeyServiceClient::new(channel.clone()).create_key(request).await.unwrap();
}

/// Gives the administrator what it wants of keys and secrets.
async fn grants(channel: &Channel) {
    let actions = ["keys.create", "secrets.put", "secrets.get"];
    for action in actions {
        let noun = action.split('.').next().unwrap();
        let request = AddGrantRequest {
            subject: Some(add_grant_request::Subject::Identity("admin".into())),
            action: action.into(),
            resource: format!("{noun}/bench/*"),
            ..Default::default()
        };
        GrantServiceClient::new(channel.clone()).add_grant(request).await.unwrap();
    }
}

pub(crate) async fn measure(vault: &Vault, wants: impl Fn(&str) -> bool) -> Vec<Row> {
    let all =
        ["encrypt", "encrypt_batch", "encrypt_stream", "key_sign", "secret_get", "secret_put"];
    if !all.iter().any(|name| wants(name)) {
        return Vec::new();
    }
    let ours = vault.channels(CONNECTIONS).await;
    grants(&ours[0]).await;
    create(&ours[0], "bench/aes", "aes-256-gcm").await;
    create(&ours[0], "bench/p256", "ecdsa-p256").await;
    let mut rows = Vec::new();
    if wants("encrypt") {
        rows.push(encrypt(&ours).await);
    }
    if wants("encrypt_batch") {
        rows.push(encrypt_batch(&ours).await);
    }
    if wants("encrypt_stream") {
        rows.push(stream(&ours).await);
    }
    if wants("key_sign") {
        rows.extend(sign(vault).await);
    }
    if wants("secret_get") {
        rows.push(secrets::get(vault, &ours).await);
    }
    if wants("secret_put") {
        rows.extend(secrets::put(vault).await);
    }
    rows
}

fn request(items: usize) -> EncryptRequest {
    let item = || EncryptItem { plaintext: vec![7; KIB], associated_data: vec![] };
    EncryptRequest { name: "bench/aes".into(), items: (0..items).map(|_| item()).collect() }
}

async fn sealing(channel: Channel, items: usize) {
    let answer = KeyServiceClient::new(channel).encrypt(request(items)).await.unwrap();
    assert!(answer.get_ref().results.iter().all(|one| one.fault.is_none()));
}

async fn encrypt(ours: &[Channel]) -> Row {
    const CONCURRENCY: usize = 64;
    let theirs = echo::channels(CONNECTIONS).await;
    let data = Bytes::from(vec![7; KIB]);
    let bare = move |channel, _| echo::call(channel, data.clone());
    let call = move |channel, _| sealing(channel, 1);
    drive(CONCURRENCY, WARM, ours.to_vec(), call).await;
    drive(CONCURRENCY, WARM, theirs.clone(), bare.clone()).await;
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        there.push(drive(CONCURRENCY, RUN, theirs.clone(), bare.clone()).await);
        here.push(drive(CONCURRENCY, RUN, ours.to_vec(), call).await);
    }
    row("encrypt", CONCURRENCY, "bare tonic mTLS echo of 1 KiB", 0.50, here, there)
}

/// Beside an echo of the very messages: both sides make and take apart as many items.
async fn encrypt_batch(ours: &[Channel]) -> Row {
    const CONCURRENCY: usize = 8;
    const ITEMS: usize = 100;
    let theirs = echo::channels(CONNECTIONS).await;
    let bare = |channel, _| echo::items(channel, request(ITEMS));
    let call = |channel, _| sealing(channel, ITEMS);
    drive(CONCURRENCY, WARM, ours.to_vec(), call).await;
    drive(CONCURRENCY, WARM, theirs.clone(), bare).await;
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        there.push(drive(CONCURRENCY, RUN, theirs.clone(), bare).await);
        here.push(drive(CONCURRENCY, RUN, ours.to_vec(), call).await);
    }
    let ceiling = "bare tonic mTLS echo of the same messages";
    row("encrypt_batch", CONCURRENCY, ceiling, 0.60, here, there)
}

/// One stream of 1 GiB at a time; a rate is of parts.
async fn stream(ours: &[Channel]) -> Row {
    let theirs = echo::channels(1).await;
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        there.push(timed(echo::stream(theirs[0].clone(), PARTS, 64 * KIB)).await);
        here.push(timed(sealed(ours[0].clone())).await);
    }
    let ceiling = "bare bidirectional mTLS echo of the same messages";
    row("encrypt_stream", 1, ceiling, 0.60, here, there)
}

#[expect(clippy::cast_precision_loss, reason = "a count of parts")]
async fn timed(work: impl Future<Output = ()>) -> Run {
    let began = Instant::now();
    work.await;
    let took = began.elapsed();
    let each = took / u32::try_from(PARTS).unwrap();
    Run { rate_per_s: PARTS as f64 / took.as_secs_f64(), p50: each, p99: each }
}

async fn sealed(channel: Channel) {
    let first = EncryptStreamRequest { name: "bench/aes".into(), ..Default::default() };
    let part = |_| EncryptStreamRequest { data: vec![7; 64 * KIB], ..Default::default() };
    let parts = std::iter::once(first).chain((0..PARTS).map(part));
    let mut client = KeyServiceClient::new(channel);
    let answers = client.encrypt_stream(tokio_stream::iter(parts)).await.unwrap();
    let (mut answers, mut bytes) = (answers.into_inner(), 0);
    while let Some(answer) = answers.message().await.unwrap() {
        bytes += answer.data.len();
    }
    assert_eq!(bytes, 53 + PARTS * (64 * KIB + 16));
}

/// Beside it `key_sign_no_vault`: a bare server that signs with the HSM, and stores as many bytes
/// as an entry has durably before it answers.
async fn sign(vault: &Vault) -> [Row; 2] {
    const CONCURRENCY: usize = 16;
    let label = "bench-own-rate";
    vault.hsm.create_key(label, KeyKind::EcdsaP256).await.unwrap();
    let theirs = vec![Arc::clone(&vault.hsm)];
    let own = move |hsm: Arc<strongroom::hsm::Pkcs11Hsm>, _| async move {
        hsm.sign(label, &[7; KIB]).await.unwrap();
    };
    let ours = vault.callers(CONNECTIONS).await;
    let call = |caller: Caller, _| async move {
        let items = vec![SignItem { message: vec![7; KIB] }];
        let request = SignRequest { name: "bench/p256".into(), items };
        let path = "/strongroom.v1.KeyService/Sign";
        let answer: SignResponse = caller.call(path, &request, None).await;
        assert_eq!(answer.used.unwrap().placement, "hsm");
    };
    let (hsm, entry) = (Arc::clone(&vault.hsm), Bytes::from(vec![7; ENTRY]));
    // Both end with the process.
    let (sender, _writer) = insert::start(usize::MAX);
    let work = move |message: Bytes| -> BoxFuture<'static, Bytes> {
        let (hsm, sender, entry) = (Arc::clone(&hsm), sender.clone(), entry.clone());
        Box::pin(async move {
            let signature = hsm.sign(label, &message).await.unwrap();
            insert::call(&sender, entry).await;
            Bytes::from(signature)
        })
    };
    let bare = echo::working(CONNECTIONS, Arc::new(work)).await;
    let message = Bytes::from(vec![7; KIB]);
    let bare_call = move |caller, _| echo::ask(caller, message.clone());
    drive(CONCURRENCY, WARM, ours.clone(), call).await;
    drive(CONCURRENCY, WARM, theirs.clone(), own).await;
    drive(CONCURRENCY, WARM, bare.clone(), bare_call.clone()).await;
    let (mut here, mut between, mut there) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        there.push(drive(CONCURRENCY, RUN, theirs.clone(), own).await);
        here.push(drive(CONCURRENCY, RUN, ours.clone(), call).await);
        between.push(drive(CONCURRENCY, RUN, bare.clone(), bare_call.clone()).await);
    }
    [("key_sign", here), ("key_sign_no_vault", between)].map(|(workload, runs)| {
        row(workload, CONCURRENCY, "the HSM's own rate", 0.60, runs, there.clone())
    })
}
