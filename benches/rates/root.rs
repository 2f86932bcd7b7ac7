//! `root_rotate`: wraps that are moved to a new root key a second, with the keys of 100,000 identities;
//! beside it the pairs of unwrapping and wrapping that the HSM and this machine do with no server. And
//! `root_rotate_get`: what a rotation costs those who read secrets meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use strongroom::audit::RecordCodec;
use strongroom::crypto::{SALT_BYTES, kdf_input, unwrap_key, wrap_key};
use strongroom::error::{Error, Result};
use strongroom::hsm::{Hsm as _, KeyKind, Pkcs11Hsm};
use strongroom::keyring::{FinalTry, Keyring, NewKey};
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::root_service_client::RootServiceClient;
use strongroom::proto::secret_service_client::SecretServiceClient;
use strongroom::proto::{
    AddGrantRequest, GetRootRequest, GetSecretRequest, PutSecretRequest, RootKey,
    RotateRootRequest, add_grant_request,
};
use strongroom::store::keys::KeyOwner;
use strongroom::store::{
    BatchCodec, Change, Entry, Job, Needs, RowSealer, Settled, Store, Tx, Work, Writer, Writes,
};
use strongroom::types::{Entropy as _, Id, IdentityId, SecretBytes, SystemEntropy, TaskGroup};
use tokio::sync::oneshot;
use tonic::transport::Channel;

use crate::load::{RUN, WARM, drive, run};
use crate::report::{Row, Run, row};
use crate::vault::{ROOT, Vault, sqlite};

/// A smaller number of identities, for trying the bench itself.
const COUNT: &str = "STRONGROOM_BENCH_IDENTITIES";
/// Keys of one commit while they are made.
const GROUP: usize = 500;
/// Pairs of one call of the ceiling, for each of which the HSM is asked twice.
const PAIRS: usize = 16;
const CONNECTIONS: usize = 8;
const CONCURRENCY: usize = 64;
const PATH: &str = "bench/read";

fn count() -> usize {
    std::env::var(COUNT).map_or(100_000, |count| count.parse().expect("a number of identities"))
}

pub(crate) async fn measure() -> Vec<Row> {
    let founded = Vault::found(ROOT, sqlite("root.db")).await;
    let began = Instant::now();
    seed(&founded).await;
    eprintln!("root_rotate: {} keys made in {} s", count(), began.elapsed().as_secs());
    let vault = founded.serve().await;
    let channels = vault.channels(CONNECTIONS).await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        theirs.push(pairs(&vault.hsm).await);
        ours.push(rotation(&channels[0]).await);
    }
    let ceiling = "unwrap + wrap pairs by the same HSM, no server";
    let rotate = row("root_rotate", 1, ceiling, 0.50, ours, theirs);
    let get = beside(&channels).await;
    vault.node.stop().await.expect("the node stops");
    vec![rotate, get]
}

/// Makes a key for each identity, as the first thing that is encrypted for it would.
async fn seed(founded: &Vault<()>) {
    let (sealer, codec) = (Arc::new(RowSealer::default()), Arc::new(RecordCodec::default()));
    let (tasks, parts) = (TaskGroup::default(), founded.parts());
    let batches = codec as Arc<dyn BatchCodec>;
    let opened = Store::open(&parts.location, "seed", Arc::clone(&sealer), batches, &tasks).await;
    let (reader, writer) = opened.unwrap();
    let keyring = Keyring::new(Arc::clone(&parts.hsm), Arc::clone(&parts.entropy), sealer);
    keyring.unseal(&reader, crate::vault::pin(), FinalTry::Refuse).await.unwrap();
    let now = parts.clock.now();
    let mut left = count();
    while left > 0 {
        let some = left.min(GROUP);
        let making = (0..some).map(|_| {
            let owner = KeyOwner::Identity(IdentityId(Id::random(&SystemEntropy).unwrap()));
            keyring.new_identity_key(&reader, owner, now)
        });
        let made = futures_util::future::try_join_all(making).await.unwrap();
        commit(&writer, made).await;
        left -= some;
    }
    drop((reader, writer));
    keyring.seal().await.unwrap();
    tasks.shutdown().await;
}

struct Seeds(Vec<NewKey>, oneshot::Sender<Settled>);

#[async_trait]
impl Work for Seeds {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        for key in &self.0 {
            key.store(tx).await?;
        }
        Ok(())
    }

    fn entry(&mut self, _: Result<&[Change], &Error>) -> Option<Entry> {
        None
    }

    fn settle(self: Box<Self>, settled: Settled) {
        drop(self.1.send(settled));
    }
}

async fn commit(writer: &Writer, keys: Vec<NewKey>) {
    let (reply, settled) = oneshot::channel();
    let needs = Needs { writes: Writes::Many, bumps: false, urgent: false };
    let job = Job { fence: None, needs, work: Box::new(Seeds(keys, reply)) };
    writer.submit(job).await.unwrap();
    let settled = settled.await.unwrap();
    assert!(matches!(settled, Settled::Durable { outcome: Ok(()), .. }), "the keys are stored");
}

async fn root(channel: &Channel) -> RootKey {
    let mut client = RootServiceClient::new(channel.clone());
    client.get_root(GetRootRequest {}).await.unwrap().into_inner().root.unwrap()
}

/// Rotates, and waits until nothing is under the old version.
#[expect(clippy::cast_precision_loss, reason = "a count of wraps")]
async fn rotation(channel: &Channel) -> Run {
    let (began, mut client) = (Instant::now(), RootServiceClient::new(channel.clone()));
    let rotated = client.rotate_root(RotateRootRequest::default()).await.unwrap().into_inner();
    let by = rotated.root.unwrap().versions[1].replaced.clone().unwrap();
    while root(channel).await.versions[1].wraps > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = began.elapsed();
    let each = took / u32::try_from(by.total).unwrap();
    Run { rate_per_s: by.total as f64 / took.as_secs_f64(), p50: each, p99: each }
}

/// The best of several ways to ask the HSM.
async fn pairs(hsm: &Arc<Pkcs11Hsm>) -> Run {
    for label in ["bench-root-a", "bench-root-b"] {
        if hsm.lookup_key(label).await.unwrap().is_none() {
            hsm.create_key(label, KeyKind::HmacSha256).await.unwrap();
        }
    }
    let mut best: Option<Run> = None;
    for tasks in [1, 2, 4] {
        let call = |hsm: Arc<Pkcs11Hsm>, _| async move { some_pairs(&hsm).await };
        let mut run = drive(tasks, RUN / 2, vec![Arc::clone(hsm)], call).await;
        run.rate_per_s *= f64::from(u32::try_from(PAIRS).unwrap());
        if best.as_ref().is_none_or(|best| run.rate_per_s > best.rate_per_s) {
            best = Some(run);
        }
    }
    best.unwrap()
}

/// Unwraps what was wrapped for one key, and wraps it for another, each with a fresh salt and nonce.
async fn some_pairs(hsm: &Pkcs11Hsm) {
    let aad = [7; 168];
    let mut old = [[0; SALT_BYTES]; PAIRS];
    let mut new = [[0; SALT_BYTES]; PAIRS];
    for salt in old.iter_mut().chain(&mut new) {
        SystemEntropy.fill(salt).unwrap();
    }
    let inputs = |salts: &[[u8; SALT_BYTES]]| salts.iter().map(|it| kdf_input(&aad, it)).collect();
    let from = hsm.hmac_many("bench-root-a", inputs(&old)).await.unwrap();
    let to = hsm.hmac_many("bench-root-b", inputs(&new)).await.unwrap();
    let key = SecretBytes::new(vec![9; 32]);
    for ((from, to), (old, new)) in from.iter().zip(&to).zip(old.iter().zip(&new)) {
        // What is unwrapped has to be made first: the ceiling pays for one more sealing.
        let blob = wrap_key(from, old, &aad, &key, &SystemEntropy).unwrap();
        let key = unwrap_key(from, &aad, &blob).unwrap();
        wrap_key(to, new, &aad, &key, &SystemEntropy).unwrap();
    }
}

async fn get(channel: Channel) {
    let request = GetSecretRequest { path: PATH.into(), version: 0 };
    SecretServiceClient::new(channel).get_secret(request).await.unwrap();
}

/// Reads a secret at a fifth of its rate, with and without a rotation under way.
async fn beside(channels: &[Channel]) -> Row {
    for action in ["secrets.put", "secrets.get"] {
        let request = AddGrantRequest {
            subject: Some(add_grant_request::Subject::Identity("admin".into())),
            action: action.into(),
            resource: "secrets/bench/*".into(),
            ..Default::default()
        };
        GrantServiceClient::new(channels[0].clone()).add_grant(request).await.unwrap();
    }
    let value = vec![7; 1_024];
    let request = PutSecretRequest { path: PATH.into(), value, ..Default::default() };
    SecretServiceClient::new(channels[0].clone()).put_secret(request).await.unwrap();
    let call = |channel, _| get(channel);
    drive(CONCURRENCY, WARM, channels.to_vec(), call).await;
    let full = drive(CONCURRENCY, RUN, channels.to_vec(), call).await.rate_per_s;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        without.push(held(channels, full / 5.0).await);
        let mut client = RootServiceClient::new(channels[0].clone());
        client.rotate_root(RotateRootRequest::default()).await.unwrap();
        with.push(held(channels, full / 5.0).await);
        while root(&channels[0]).await.versions[1].wraps > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // At most eight versions are kept.
        let mut oldest = root(&channels[0]).await.versions;
        oldest.retain(|it| it.state == "retiring");
        for old in oldest.iter().filter(|it| it.wraps == 0) {
            let request = strongroom::proto::RetireRootRequest { version: old.version };
            client.retire_root(request).await.unwrap();
        }
    }
    let by_p99 = |mut runs: Vec<Run>| {
        runs.sort_by_key(|run| run.p99);
        runs.swap_remove(1)
    };
    let (with, without) = (by_p99(with), by_p99(without));
    let ratio = with.p99.as_secs_f64() / without.p99.as_secs_f64();
    let what = "p99 of secret_get by p99 without a rotation, at most 2";
    let held = row("root_rotate_get", CONCURRENCY, what, 0.0, vec![with], vec![without]);
    Row { ceiling_per_s: None, ratio: Some(ratio), target: None, ..held }
}

/// Calls so often a second, whether earlier calls are answered or not.
async fn held(channels: &[Channel], per_s: f64) -> Run {
    let (began, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_millis(1)));
    let (mut calls, mut made) = (tokio::task::JoinSet::new(), 0.0_f64);
    while began.elapsed() < RUN {
        ticks.tick().await;
        while made < began.elapsed().as_secs_f64() * per_s {
            let channel = channels[calls.len() % channels.len()].clone();
            calls.spawn(async move {
                let start = Instant::now();
                get(channel).await;
                start.elapsed()
            });
            made += 1.0;
        }
    }
    let elapsed = began.elapsed();
    run(calls.join_all().await, elapsed)
}
