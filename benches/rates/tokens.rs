//! Tokens: a bearer beside a certificate, and one use from its making to its spending.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rusqlite::{Transaction, params};
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::token_service_client::TokenServiceClient;
use strongroom::proto::{
    CreateTokenRequest, CreateTokenResponse, GetIdentityRequest, GetIdentityResponse, TokenOrder,
    WhoAmIRequest,
};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::caller::Caller;
use crate::load::{RUN, WARM, drive};
use crate::report::{Row, Run, row};
use crate::vault::Vault;
use crate::{echo, insert};

const CONCURRENCY: usize = 64;
const CONNECTIONS: usize = 8;
/// Connections over which tokens are made and spent: one a core.
const FEW: usize = 2;
/// The vault's own tables and indexes.
const SCHEMA: &str = include_str!("../../migrations/sqlite/0001_house.sql");
/// Bytes of a token's detail, and of an entry with what stands beside it.
const DETAIL: usize = 180;
const ENTRY: usize = 620;

pub(crate) fn header(token: &str) -> MetadataValue<Ascii> {
    format!("Bearer {token}").parse().unwrap()
}

pub(crate) fn with<T>(message: T, header: &MetadataValue<Ascii>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", header.clone());
    request
}

async fn create(channel: &Channel, uses: i32) -> String {
    let order = Some(TokenOrder { uses, ..Default::default() });
    let request = CreateTokenRequest { order, ..Default::default() };
    let mut client = TokenServiceClient::new(channel.clone());
    client.create_token(request).await.unwrap().into_inner().bearer
}

/// `whoami` with a token, beside `whoami` with a certificate.
pub(crate) async fn whoami(vault: &Vault) -> Row {
    let channels = vault.channels(CONNECTIONS).await;
    let token = header(&create(&channels[0], 0).await);
    let by_token = move |channel, _| {
        let request = with(WhoAmIRequest {}, &token);
        async move { drop(IdentityServiceClient::new(channel).who_am_i(request).await.unwrap()) }
    };
    let by_certificate = |channel, _| async move {
        drop(IdentityServiceClient::new(channel).who_am_i(WhoAmIRequest {}).await.unwrap());
    };
    drive(CONCURRENCY, WARM, channels.clone(), by_token.clone()).await;
    drive(CONCURRENCY, WARM, channels.clone(), by_certificate).await;
    let (mut tokens, mut certificates) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        certificates.push(drive(CONCURRENCY, RUN, channels.clone(), by_certificate).await);
        tokens.push(drive(CONCURRENCY, RUN, channels.clone(), by_token.clone()).await);
    }
    let beside = "the same with a certificate";
    row("whoami_token", CONCURRENCY, beside, 0.90, tokens, certificates)
}

/// Makes a token with one use and spends it, beside the same rows without a server.
///
/// Beside it `token_single_use_no_vault`: the ceiling's rows behind a bare server, in two calls; and
/// `token_single_use_tonic`: the same as the first by tonic's client, so that what a client costs is seen.
pub(crate) async fn single_use(vault: &Vault) -> [Row; 3] {
    let (callers, channels) = (vault.callers(FEW).await, vault.channels(FEW).await);
    let by_tonic = |channel: Channel, _| async move {
        let token = header(&create(&channel, 1).await);
        let request = with(GetIdentityRequest { name: "admin".to_owned() }, &token);
        drop(IdentityServiceClient::new(channel).get_identity(request).await.unwrap());
    };
    let once = |caller: Caller, _| async move {
        let order = Some(TokenOrder { uses: 1, ..Default::default() });
        let request = CreateTokenRequest { order, ..Default::default() };
        let path = "/strongroom.v1.TokenService/CreateToken";
        let created: CreateTokenResponse = caller.call(path, &request, None).await;
        let bearer = format!("Bearer {}", created.bearer).parse().unwrap();
        let request = GetIdentityRequest { name: "admin".to_owned() };
        let path = "/strongroom.v1.IdentityService/GetIdentity";
        let shown: GetIdentityResponse = caller.call(path, &request, Some(&bearer)).await;
        assert!(shown.identity.is_some());
    };
    let (bare, ids) = (bare_server().await, Arc::new(AtomicU64::new(0)));
    let twice = move |caller: Caller, _| {
        let id = ids.fetch_add(1, Ordering::Relaxed);
        async move {
            for step in [0, 1] {
                let mut sent = vec![7; 128];
                sent[0] = step;
                sent[1..9].copy_from_slice(&id.to_be_bytes());
                echo::ask(caller.clone(), Bytes::from(sent)).await;
            }
        }
    };
    drive(CONCURRENCY, WARM, callers.clone(), once).await;
    drive(CONCURRENCY, WARM, bare.clone(), twice.clone()).await;
    drive(CONCURRENCY, WARM, channels.clone(), by_tonic).await;
    let (mut ours, mut between, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    let mut tonics = Vec::new();
    for _ in 0..3 {
        let mut best: Option<Run> = None;
        for group in [32, 64] {
            let run = ceiling(group).await;
            if best.as_ref().is_none_or(|best| run.rate_per_s > best.rate_per_s) {
                best = Some(run);
            }
        }
        theirs.extend(best);
        ours.push(drive(CONCURRENCY, RUN, callers.clone(), once).await);
        between.push(drive(CONCURRENCY, RUN, bare.clone(), twice.clone()).await);
        tonics.push(drive(CONCURRENCY, RUN, channels.clone(), by_tonic).await);
    }
    let beside = "durable grouped commits of the same rows";
    let (bare, tonic) = ("token_single_use_no_vault", "token_single_use_tonic");
    [("token_single_use", ours), (bare, between), (tonic, tonics)]
        .map(|(workload, runs)| row(workload, CONCURRENCY, beside, 0.40, runs, theirs.clone()))
}

/// The ceiling's rows, durable before each call is answered, and nothing else.
async fn bare_server() -> Vec<Caller> {
    // Both end with the process.
    let (sender, _writer) = insert::grouped(CONCURRENCY, SCHEMA, commit);
    let work = move |sent: Bytes| -> BoxFuture<'static, Bytes> {
        let sender = sender.clone();
        Box::pin(async move {
            let id = id(u64::from_be_bytes(sent[1..9].try_into().unwrap()));
            insert::call(&sender, if sent[0] == 0 { Step::Create(id) } else { Step::Spend(id) })
                .await;
            Bytes::from_static(&[7; 128])
        })
    };
    echo::working(FEW, Arc::new(work)).await
}

/// As long as an id that sorts by time.
fn id(number: u64) -> String {
    format!("0198f3a0-0000-7000-8000-{number:012}")
}

/// What the one writer of the ceiling is asked for.
enum Step {
    Create(String),
    Spend(String),
}

/// The same rows and entries, a group in one durable transaction of one thread.
async fn ceiling(group: usize) -> Run {
    let (sender, writer) = insert::grouped(group, SCHEMA, commit);
    let ids = Arc::new(AtomicU64::new(0));
    let call = move |sender: insert::Asking<_>, _| {
        let id = id(ids.fetch_add(1, Ordering::Relaxed));
        async move {
            for step in [Step::Create(id.clone()), Step::Spend(id)] {
                insert::call(&sender, step).await;
            }
        }
    };
    let run = drive(CONCURRENCY, RUN / 2, vec![sender], call).await;
    writer.join().unwrap();
    run
}

fn commit(group: &Transaction<'_>, steps: &[Step]) {
    let (handle, detail, mac) = ([7_u8; 32], vec![7_u8; DETAIL], [7_u8; 32]);
    for step in steps {
        match step {
            Step::Create(id) => {
                let sql = "INSERT INTO credentials (id, kind, identity, parent, handle, resource, \
                           state, revocation_epoch, issued_at, expires_at, max_expires_at, tries, \
                           trouble, detail, proofs, row_version, seal_version, mac) VALUES (?1, \
                           'token', ?2, ?2, ?3, 'tokens/admin', 'active', 1, 1, 9, 9, 0, '', ?4, \
                           '', 1, 1, ?5)";
                let owner = "0198f3a0-0000-7000-8000-000000000000";
                let row = params![id, owner, handle, detail, mac];
                group.prepare_cached(sql).unwrap().execute(row).unwrap();
            }
            Step::Spend(id) => {
                let sql = "UPDATE credentials SET state = 'spent', detail = ?2, row_version = 2, \
                           mac = ?3 WHERE id = ?1 AND row_version = 1";
                let row = params![id, detail, mac];
                assert_eq!(group.prepare_cached(sql).unwrap().execute(row).unwrap(), 1);
            }
        }
    }
    let body = vec![7_u8; ENTRY * steps.len()];
    let sql = "INSERT INTO blobs (body) VALUES (?1)";
    group.prepare_cached(sql).unwrap().execute([body]).unwrap();
}
