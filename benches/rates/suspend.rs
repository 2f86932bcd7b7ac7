//! `suspend`: an identity with as many live tokens as one may have, suspended on one node of two on
//! one PostgreSQL; seconds until the last of them is refused on the other.
//!
//! The other node is asked by 64 clients at once from before the suspension on, and the clock begins
//! with the call that suspends. For `suspend` each asks with one token all the time, the first and the
//! last that were made among them, and the latest of their first refusals ends it. For
//! `suspend_each` they ask with every token, round after round, until each single one was refused:
//! that is as much the pace at which one client and one node get through 10,000 calls.

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
        for (name, refused) in [("some", &mut last), ("each", &mut each)] {
            let name = format!("{name}-{round}");
            let tokens = mint(&here, &name).await;
            let asked = if name.starts_with("some") { some(&tokens) } else { tokens };
            refused.push(run(&here[0], &there, &name, asked).await);
        }
    }
    drop((here, there));
    other.stop().await.expect("the other node stops");
    vault.node.stop().await.expect("the node stops");
    [
        ("suspend", "until the last of 64 of 10,000 tokens is refused elsewhere", last),
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

/// As many as there are clients, from the first that was made to the last.
fn some(tokens: &[MetadataValue<Ascii>]) -> Vec<MetadataValue<Ascii>> {
    let last = tokens.len() - 1;
    (0..CONCURRENCY).map(|n| tokens[n * last / (CONCURRENCY - 1)].clone()).collect()
}

/// What is seen of each token, in microseconds since the beginning.
struct Seen {
    began: Instant,
    left: AtomicUsize,
    refused: Vec<AtomicU64>,
}

/// Asks with tokens while their identity is suspended; seconds until each was refused.
async fn run(
    here: &Channel,
    there: &[Channel],
    name: &str,
    tokens: Vec<MetadataValue<Ascii>>,
) -> f64 {
    let seen = Arc::new(Seen {
        began: Instant::now(),
        left: AtomicUsize::new(tokens.len()),
        refused: tokens.iter().map(|_| AtomicU64::new(NEVER)).collect(),
    });
    let tokens = Arc::new(tokens);
    let tasks = (0..CONCURRENCY).map(|task| {
        let (seen, tokens) = (Arc::clone(&seen), Arc::clone(&tokens));
        tokio::spawn(knock(there[task % there.len()].clone(), task, seen, tokens))
    });
    let tasks: Vec<_> = tasks.collect();
    tokio::time::sleep(BEFORE).await;
    let called = micros(seen.began);
    let request = SuspendIdentityRequest { name: name.to_owned(), reason: "bench".to_owned() };
    IdentityServiceClient::new(here.clone()).suspend_identity(request).await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    let refused = seen.refused.iter().map(|at| at.load(Ordering::Acquire)).max().unwrap();
    Duration::from_micros(refused.saturating_sub(called)).as_secs_f64()
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap()
}

/// Shows every so-manieth token, one after the other, until each of all has been refused.
async fn knock(
    channel: Channel,
    first: usize,
    seen: Arc<Seen>,
    tokens: Arc<Vec<MetadataValue<Ascii>>>,
) {
    let mut client = IdentityServiceClient::new(channel);
    let mut n = first;
    while seen.left.load(Ordering::Acquire) > 0 {
        if let Err(refusal) = client.who_am_i(with(WhoAmIRequest {}, &tokens[n])).await {
            assert_eq!(refusal.code(), Code::Unauthenticated, "{refusal}");
            let before = seen.refused[n].fetch_min(micros(seen.began), Ordering::AcqRel);
            if before == NEVER {
                seen.left.fetch_sub(1, Ordering::AcqRel);
            }
        }
        n += CONCURRENCY;
        if n >= tokens.len() {
            n = first;
        }
    }
}
