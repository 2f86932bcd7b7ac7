//! `db_creds`: a database credential, beside a fresh password, its SCRAM verifier and the same
//! statements straight to the same PostgreSQL on as many connections.
//!
//! Beside it `db_no_vault`: the same behind a bare tonic server with mTLS that stores as many bytes
//! durably, once before the statements and once after them, and does nothing else.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use strongroom::crypto::{base32, scram_sha_256_verifier};
use strongroom::proto::database_service_client::DatabaseServiceClient;
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::{
    AddGrantRequest, IssueCredentialsRequest, IssueCredentialsResponse, PutConnectionRequest,
    PutDatabaseRoleRequest, add_grant_request,
};
use strongroom::types::SecretBytes;
use tonic::transport::Channel;

use crate::caller::Caller;
use crate::echo;
use crate::insert;
use crate::load::{RUN, WARM, drive};
use crate::report::{Row, row};
use crate::vault::Vault;

const CONCURRENCY: usize = 8;

/// A throwaway PostgreSQL.
pub(crate) struct Target {
    dir: PathBuf,
    port: u16,
    password: String,
}

impl Target {
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("strongroom-bench-pg-").tempdir().unwrap().keep();
        let answer = script("start", &dir);
        let port = answer.trim().parse().expect("the script prints the port");
        let password = std::fs::read_to_string(dir.join("password")).unwrap();
        Self { dir, port, password: password.trim().to_owned() }
    }

    pub(crate) fn url(&self) -> String {
        let (port, password) = (self.port, &self.password);
        format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres?sslmode=disable")
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnectOptions::from_str(&self.url()).unwrap().connect().await.unwrap()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        script("stop", &self.dir);
    }
}

fn script(verb: &str, dir: &Path) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres.sh");
    let done = Command::new("sh").arg(path).arg(verb).arg(dir).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

pub(crate) async fn measure(vault: &Vault) -> [Row; 2] {
    let target = Target::start();
    let mut setup = target.connect().await;
    setup.execute("CREATE ROLE readers NOLOGIN; CREATE ROLE owners NOLOGIN").await.unwrap();
    let channel = vault.channels(1).await.remove(0);
    configure(&channel, &target, "bench").await;
    grant(&channel).await;
    let callers = vault.callers(CONCURRENCY).await;
    let mut connections = Vec::new();
    for _ in 0..CONCURRENCY {
        connections.push(Arc::new(tokio::sync::Mutex::new(target.connect().await)));
    }
    let issue = |caller: Caller, _| async move {
        let request = IssueCredentialsRequest {
            connection: "bench".to_owned(),
            role: "reader".to_owned(),
            ..IssueCredentialsRequest::default()
        };
        let path = "/strongroom.v1.DatabaseService/IssueCredentials";
        let issued: IssueCredentialsResponse = caller.call(path, &request, None).await;
        assert!(!issued.password.is_empty());
    };
    let servers = echo::working(CONCURRENCY, bare_server(&connections)).await;
    let ask = |caller, task: usize| {
        echo::ask(caller, Bytes::from(vec![u8::try_from(task).unwrap(); 128]))
    };
    drive(CONCURRENCY, WARM, callers.clone(), issue).await;
    drive(CONCURRENCY, WARM, connections.clone(), bare).await;
    drive(CONCURRENCY, WARM, servers.clone(), ask).await;
    let (mut ours, mut bares, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    // The target grows slower with every role: neither side always comes second.
    for round in 0..3 {
        if round % 2 == 1 {
            ours.push(drive(CONCURRENCY, RUN, callers.clone(), issue).await);
        }
        theirs.push(drive(CONCURRENCY, RUN, connections.clone(), bare).await);
        if round % 2 == 0 {
            ours.push(drive(CONCURRENCY, RUN, callers.clone(), issue).await);
        }
        bares.push(drive(CONCURRENCY, RUN, servers.clone(), ask).await);
    }
    let ceiling = "the same statements straight to PostgreSQL";
    [("db_creds", ours), ("db_no_vault", bares)]
        .map(|(workload, runs)| row(workload, CONCURRENCY, ceiling, 0.90, runs, theirs.clone()))
}

/// Bytes that a credential leaves in the store: its row and an entry, twice.
const STORED: usize = 1_400;

/// The ceiling's work for each call, between two durable inserts.
fn bare_server(connections: &[Arc<tokio::sync::Mutex<PgConnection>>]) -> echo::Work {
    let connections = connections.to_vec();
    // Both end with the process.
    let (sender, _writer) = insert::start(usize::MAX);
    Arc::new(move |asked| {
        let task = usize::from(asked[0]);
        let (connection, sender) = (Arc::clone(&connections[task]), sender.clone());
        Box::pin(async move {
            insert::call(&sender, Bytes::from(vec![0; STORED])).await;
            bare(connection, task).await;
            insert::call(&sender, Bytes::from(vec![0; STORED])).await;
            Bytes::from(vec![0; 512])
        })
    })
}

/// Connects the vault to a target, with a role `reader`.
pub(crate) async fn configure(channel: &Channel, target: &Target, name: &str) {
    let mut database = DatabaseServiceClient::new(channel.clone());
    let connection = PutConnectionRequest {
        name: name.to_owned(),
        host: "127.0.0.1".to_owned(),
        port: i32::from(target.port),
        database: "postgres".to_owned(),
        username: "postgres".to_owned(),
        password: target.password.clone(),
        tls: "off".to_owned(),
        ..PutConnectionRequest::default()
    };
    database.put_connection(connection).await.unwrap();
    let role = PutDatabaseRoleRequest {
        connection: name.to_owned(),
        name: "reader".to_owned(),
        member_of: vec!["readers".to_owned()],
        owner_role: "owners".to_owned(),
        ..PutDatabaseRoleRequest::default()
    };
    database.put_role(role).await.unwrap();
}

async fn grant(channel: &Channel) {
    let grant = AddGrantRequest {
        idempotency_key: "a-grant-of-credentials-for-the-bench".to_owned(),
        subject: Some(add_grant_request::Subject::Identity("admin".to_owned())),
        action: "database.credentials".to_owned(),
        resource: "database/bench/reader".to_owned(),
        reason: "bench".to_owned(),
        ..AddGrantRequest::default()
    };
    GrantServiceClient::new(channel.clone()).add_grant(grant).await.unwrap();
}

/// A fresh password, its verifier and the statements.
async fn bare(connection: Arc<tokio::sync::Mutex<PgConnection>>, task: usize) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut random = [0; 48];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    let (secret, salt) = random.split_at(32);
    let password = SecretBytes::new(base32(secret).into_bytes());
    let rounds = NonZeroU32::new(4_096).unwrap();
    let verifier = scram_sha_256_verifier(&password, salt, rounds).unwrap();
    let name = format!("bare_{task}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let sql = format!(
        "CREATE ROLE \"{name}\" LOGIN PASSWORD '{}' VALID UNTIL '2099-01-01T00:00:00Z' \
         IN ROLE \"readers\"; ALTER ROLE \"{name}\" SET role TO 'readers'",
        verifier.as_str()
    );
    let mut connection = connection.lock().await;
    (*connection).execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}
