//! Secrets: reading one beside an echo of as many bytes, writing versions beside the same rows without
//! a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rusqlite::{Transaction, params};
use strongroom::proto::secret_service_client::SecretServiceClient;
use strongroom::proto::{GetSecretRequest, PutSecretRequest, PutSecretResponse};
use tonic::transport::Channel;

use crate::caller::Caller;
use crate::load::{RUN, WARM, drive};
use crate::report::{Row, Run, row};
use crate::vault::Vault;
use crate::{echo, insert};

const CONCURRENCY: usize = 64;
/// Connections that the tasks share, on both sides.
const CONNECTIONS: usize = 8;
/// Connections over which versions are written: one a core.
const FEW: usize = 2;
const KIB: usize = 1_024;
/// The vault's own tables and indexes.
const SCHEMA: &str = include_str!("../../migrations/sqlite/0006_secrets.sql");
/// Versions that a secret keeps: with each new one, one is destroyed.
const VERSIONS: i64 = 10;
/// Bytes of a wrapped data key, of what encryption adds to a value, and of an entry with what stands
/// beside it.
const WRAP: usize = 120;
const ADDED: usize = 60;
const ENTRY: usize = 620;

async fn write(caller: Caller, path: String, expected_version: i64) {
    let value = vec![7; KIB];
    let request = PutSecretRequest { path, value, expected_version, ..Default::default() };
    let path = "/strongroom.v1.SecretService/PutSecret";
    let written: PutSecretResponse = caller.call(path, &request, None).await;
    assert_eq!(written.version, expected_version + 1);
}

pub(crate) async fn get(vault: &Vault, ours: &[Channel]) -> Row {
    let theirs = echo::channels(CONNECTIONS).await;
    write(vault.callers(1).await.remove(0), "bench/read".into(), 0).await;
    let data = Bytes::from(vec![7; KIB]);
    let bare = move |channel, _| echo::call(channel, data.clone());
    let call = |channel, _| async move {
        let request = GetSecretRequest { path: "bench/read".into(), version: 0 };
        let answer = SecretServiceClient::new(channel).get_secret(request).await.unwrap();
        assert_eq!(answer.get_ref().value.len(), KIB);
    };
    drive(CONCURRENCY, WARM, ours.to_vec(), call).await;
    drive(CONCURRENCY, WARM, theirs.clone(), bare.clone()).await;
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        there.push(drive(CONCURRENCY, RUN, theirs.clone(), bare.clone()).await);
        here.push(drive(CONCURRENCY, RUN, ours.to_vec(), call).await);
    }
    row("secret_get", CONCURRENCY, "bare tonic mTLS echo of 1 KiB", 0.50, here, there)
}

/// Each task writes versions of a secret of its own, so that none waits for another's.
///
/// Beside it `secret_put_no_vault`: the ceiling's rows behind a bare server.
pub(crate) async fn put(vault: &Vault) -> [Row; 2] {
    let ours = vault.callers(FEW).await;
    let versions = counters();
    let call = move |caller: Caller, task: usize| {
        let versions = Arc::clone(&versions);
        async move {
            let known = versions[task].fetch_add(1, Ordering::Relaxed);
            write(caller, format!("bench/put{task}"), known).await;
        }
    };
    let (bare, known) = (bare_server().await, counters());
    let bare_call = move |caller, task: usize| {
        let version = known[task].fetch_add(1, Ordering::Relaxed) + 1;
        let (task, mut sent) = (u64::try_from(task).unwrap(), vec![7; KIB]);
        sent[..8].copy_from_slice(&task.to_be_bytes());
        sent[8..16].copy_from_slice(&version.to_be_bytes());
        echo::ask(caller, Bytes::from(sent))
    };
    drive(CONCURRENCY, WARM, ours.clone(), call.clone()).await;
    drive(CONCURRENCY, WARM, bare.clone(), bare_call.clone()).await;
    let (mut here, mut between, mut there) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut best: Option<Run> = None;
        for group in [32, 64] {
            let run = ceiling(group).await;
            if best.as_ref().is_none_or(|best| run.rate_per_s > best.rate_per_s) {
                best = Some(run);
            }
        }
        there.extend(best);
        here.push(drive(CONCURRENCY, RUN, ours.clone(), call.clone()).await);
        between.push(drive(CONCURRENCY, RUN, bare.clone(), bare_call.clone()).await);
    }
    let beside = "durable grouped commits of the same rows";
    [("secret_put", here), ("secret_put_no_vault", between)]
        .map(|(workload, runs)| row(workload, CONCURRENCY, beside, 0.40, runs, there.clone()))
}

/// The ceiling's rows, durable before each call is answered, and nothing else.
async fn bare_server() -> Vec<Caller> {
    // Both end with the process.
    let (sender, _writer) = insert::grouped(CONCURRENCY, SCHEMA, commit);
    let work = move |sent: Bytes| -> BoxFuture<'static, Bytes> {
        let sender = sender.clone();
        Box::pin(async move {
            let number = |at: usize| u64::from_be_bytes(sent[at..at + 8].try_into().unwrap());
            let task = usize::try_from(number(0)).unwrap();
            insert::call(&sender, (task, i64::try_from(number(8)).unwrap())).await;
            Bytes::from_static(b"done")
        })
    };
    echo::working(FEW, Arc::new(work)).await
}

/// The newest version of each task's secret.
fn counters() -> Arc<Vec<AtomicI64>> {
    Arc::new((0..CONCURRENCY).map(|_| AtomicI64::new(0)).collect())
}

/// The same rows and entries, a group in one durable transaction of one thread.
async fn ceiling(group: usize) -> Run {
    let (sender, writer) = insert::grouped(group, SCHEMA, commit);
    let versions = counters();
    let call = move |sender: insert::Asking<_>, task: usize| {
        let version = versions[task].fetch_add(1, Ordering::Relaxed) + 1;
        async move { insert::call(&sender, (task, version)).await }
    };
    let run = drive(CONCURRENCY, RUN / 2, vec![sender], call).await;
    writer.join().unwrap();
    run
}

/// As long as an id that sorts by time.
fn id(version: i64, task: usize) -> String {
    format!("{version:08}-0000-7000-8000-{task:012}")
}

fn commit(group: &Transaction<'_>, puts: &[(usize, i64)]) {
    let (wrap, mac, by) = (vec![7_u8; WRAP], [7_u8; 32], id(0, 0));
    let value = vec![7_u8; KIB + ADDED];
    let run = |sql: &str, params: &[&dyn rusqlite::ToSql]| {
        assert_eq!(group.prepare_cached(sql).unwrap().execute(params).unwrap(), 1);
    };
    for (task, version) in puts {
        let (secret, this) = (id(0, *task), id(*version, *task));
        if *version == 1 {
            let sql = "INSERT INTO secret_heads VALUES (?1, 1, 1, 1, ?2, 1, 1, ?3)";
            run(sql, params![secret, by, mac]);
        } else {
            let sql = "UPDATE secret_heads SET newest = ?2, valued_from = 1, changed_at = 1, \
                       changed_by = ?3, row_version = ?2, mac = ?4 WHERE id = ?1 AND row_version = ?2 - 1";
            run(sql, params![secret, version, by, mac]);
        }
        let sql = "INSERT INTO secret_versions VALUES (?1, ?2, ?3, 'live', 0, 1024, ?4, ?5, NULL, \
                   ?3, NULL, NULL, NULL, NULL, 1, ?5, 1, ?5, 1, 1, ?6)";
        run(sql, params![this, secret, version, wrap, by, mac]);
        run("INSERT INTO secret_values VALUES (?1, ?2)", params![this, value]);
        if *version > VERSIONS {
            let over = id(version - VERSIONS, *task);
            let sql = "UPDATE secret_versions SET state = 'destroyed', wrap = x'', changed_at = 1, \
                       changed_by = ?2, row_version = 2, mac = ?3 WHERE id = ?1 AND row_version = 1";
            run(sql, params![over, by, mac]);
            run("DELETE FROM secret_values WHERE id = ?1", params![over]);
        }
    }
    run("INSERT INTO blobs (body) VALUES (?1)", params![vec![7_u8; ENTRY * puts.len()]]);
}
