//! `suspend`: an identity with as many live tokens as one may have, suspended on one node of two on
//! one PostgreSQL; seconds until the last of them is refused on the other.
//!
//! The other node is asked with every token, round after round, from before the suspension on, and
//! the clock begins with the call that suspends. `suspend` ends with the last token that was still
//! accepted; `suspend_each` when every single one has been asked with again and was refused, which
//! is as much the pace at which one client and one node get through 10,000 calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::token_service_client::TokenServiceClient;
use strongroom::proto::{
    CreateIdentityRequest, MintTokenRequest, SuspendIdentityRequest, TokenOrder, WhoAmIRequest,
};
use strongroom::server::Node;
use strongroom::store::Location;
use tonic::Code;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::db::Target;
use crate::report::{Row, seconds};
use crate::tokens::{header, with};
use crate::vault::{PAIR, Vault, connect};

const CONCURRENCY: usize = 64;
const CONNECTIONS: usize = 8;
/// Tokens: the most that an identity has by default.
const TOKENS: usize = 10_000;
/// How long every token is asked for before the suspension.
const BEFORE: Duration = Duration::from_millis(500);
/// Write connections of a node, as configured where nobody says otherwise.
const LANES: usize = 4;
/// Not refused yet.
const NEVER: u64 = u64::MAX;

pub(crate) async fn measure() -> [Row; 2] {
    let cluster = Target::start();
    let vault = Vault::on(PAIR, Location::Postgres { url: cluster.url(), lanes: LANES }).await;
    let other = vault.second_node().await;
    let (here, there) = (vault.channels(CONNECTIONS).await, strangers(&other).await);
    let (mut last, mut each) = (Vec::new(), Vec::new());
    for round in 0..3 {
        let name = format!("batch-{round}");
        let tokens = mint(&here, &name).await;
        let (accepted, refused) = run(&here[0], &there, &name, tokens).await;
        last.push(accepted);
        each.push(refused);
    }
    drop((here, there));
    other.stop().await.expect("the other node stops");
    vault.node.stop().await.expect("the node stops");
    [
        ("suspend", "until none of 10,000 tokens is accepted elsewhere", last),
        ("suspend_each", "until each of 10,000 tokens was refused elsewhere", each),
    ]
    .map(|(workload, what, runs)| seconds(workload, CONCURRENCY, what, 1.0, runs))
}

/// Connections without any certificate: the token says all.
async fn strangers(node: &Node) -> Vec<Channel> {
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(connect(&node.grpc_addr.to_string(), &node.root_pem, None).await);
    }
    channels
}

/// Registers a machine and makes its tokens.
async fn mint(channels: &[Channel], name: &str) -> Vec<MetadataValue<Ascii>> {
    let request = CreateIdentityRequest {
        name: name.to_owned(),
        kind: "pipeline".to_owned(),
        owner: "admin".to_owned(),
        purpose: "bench".to_owned(),
        tier: "low".to_owned(),
        ttl_s: 86_400,
        ..CreateIdentityRequest::default()
    };
    IdentityServiceClient::new(channels[0].clone()).create_identity(request).await.unwrap();
    let calls = (0..TOKENS).map(|n| {
        let mut client = TokenServiceClient::new(channels[n % channels.len()].clone());
        let order = TokenOrder { ttl_s: 3_600, ..TokenOrder::default() };
        let request = MintTokenRequest {
            identity: name.to_owned(),
            order: Some(order),
            ..MintTokenRequest::default()
        };
        async move { client.mint_token(request).await.map(|made| header(&made.into_inner().bearer)) }
    });
    // The first makes the machine active, which moves what the others would stand on.
    let mut calls = calls.collect::<Vec<_>>().into_iter();
    let first = calls.next().unwrap().await.unwrap();
    let rest: Vec<_> =
        stream::iter(calls).buffer_unordered(CONCURRENCY).try_collect().await.unwrap();
    [vec![first], rest].concat()
}

/// What is seen of each token, in microseconds since the beginning.
struct Seen {
    began: Instant,
    next: AtomicUsize,
    left: AtomicUsize,
    accepted: AtomicU64,
    refused: Vec<AtomicU64>,
}

async fn run(
    here: &Channel,
    there: &[Channel],
    name: &str,
    tokens: Vec<MetadataValue<Ascii>>,
) -> (f64, f64) {
    let seen = Arc::new(Seen {
        began: Instant::now(),
        next: AtomicUsize::new(0),
        left: AtomicUsize::new(TOKENS),
        accepted: AtomicU64::new(0),
        refused: (0..TOKENS).map(|_| AtomicU64::new(NEVER)).collect(),
    });
    let tokens = Arc::new(tokens);
    let tasks = (0..CONCURRENCY).map(|task| {
        let (seen, tokens) = (Arc::clone(&seen), Arc::clone(&tokens));
        tokio::spawn(knock(there[task % there.len()].clone(), seen, tokens))
    });
    let tasks: Vec<_> = tasks.collect();
    tokio::time::sleep(BEFORE).await;
    let called = micros(seen.began);
    let request = SuspendIdentityRequest { name: name.to_owned(), reason: "bench".to_owned() };
    IdentityServiceClient::new(here.clone()).suspend_identity(request).await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    let after = |at: u64| Duration::from_micros(at.saturating_sub(called)).as_secs_f64();
    let refused = seen.refused.iter().map(|at| at.load(Ordering::Acquire)).max().unwrap();
    (after(seen.accepted.load(Ordering::Acquire)), after(refused))
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap()
}

/// Shows one token after the other until each has been refused.
async fn knock(channel: Channel, seen: Arc<Seen>, tokens: Arc<Vec<MetadataValue<Ascii>>>) {
    let mut client = IdentityServiceClient::new(channel);
    while seen.left.load(Ordering::Acquire) > 0 {
        let n = seen.next.fetch_add(1, Ordering::AcqRel) % TOKENS;
        match client.who_am_i(with(WhoAmIRequest {}, &tokens[n])).await {
            Ok(_) => {
                seen.accepted.fetch_max(micros(seen.began), Ordering::AcqRel);
            }
            Err(refusal) => {
                assert_eq!(refusal.code(), Code::Unauthenticated, "{refusal}");
                let before = seen.refused[n].fetch_min(micros(seen.began), Ordering::AcqRel);
                if before == NEVER {
                    seen.left.fetch_sub(1, Ordering::AcqRel);
                }
            }
        }
    }
}
