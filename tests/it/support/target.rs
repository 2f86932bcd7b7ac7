//! A vault with a target database: an account, a group that may read, a pipeline with a grant.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection};
use strongroom::engines::database::names;
use strongroom::proto::database_service_client::DatabaseServiceClient;
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::lease_service_client::LeaseServiceClient;
use strongroom::proto::{
    AddGrantRequest, Grant, IssueCredentialsRequest, IssueCredentialsResponse, Lease,
    ListLeasesRequest, PutConnectionRequest, PutDatabaseRoleRequest,
};
use strongroom::types::{Entropy, SystemEntropy, TaskGroup};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::transport::Channel;

use super::logins;
use super::node::{Backend, Fixture};
use super::postgres::Postgres;

/// The account's password on the target.
pub(crate) const ACCOUNT_PASSWORD: &str = "the account's; own 'password'";

/// A vault with a target.
pub(crate) struct World {
    pub(crate) f: Fixture,
    /// The pipeline `nightly-etl`, which holds the grant.
    pub(crate) etl: Channel,
    pub(crate) admin: Channel,
    pub(crate) port: u16,
    pub(crate) database: String,
    /// Ends the names of the account, group and owner on the target.
    pub(crate) tag: String,
}

impl World {
    pub(crate) async fn new(backend: Backend) -> Self {
        Self::over(backend, Postgres::shared(), Postgres::shared().port()).await
    }

    /// A vault that reaches a cluster at some port.
    pub(crate) async fn over(backend: Backend, cluster: &Postgres, port: u16) -> Self {
        Self::of(Fixture::on(backend).await, cluster, port).await
    }

    /// A vault of the test's own making.
    pub(crate) async fn of(f: Fixture, cluster: &Postgres, port: u16) -> Self {
        let tag = prepare(cluster).await;
        let database = format!("t_{tag}");
        logins::register(&f, "nightly-etl", "pipeline", "admin").await;
        let etl = f.connect(&logins::login(&f, "nightly-etl").await).await;
        let admin = f.connect(&f.admin).await;
        let world = Self { f, etl, admin, port, database, tag };
        world.database_client().put_connection(world.connection()).await.unwrap();
        world.database_client().put_role(world.role()).await.unwrap();
        world.grant("nightly-etl", |grant| grant).await.unwrap();
        world
    }

    pub(crate) fn connection(&self) -> PutConnectionRequest {
        PutConnectionRequest {
            name: "analytics".into(),
            host: "127.0.0.1".into(),
            port: self.port.into(),
            database: self.database.clone(),
            username: format!("account_{}", self.tag),
            password: ACCOUNT_PASSWORD.into(),
            tls: "off".into(),
            ..Default::default()
        }
    }

    pub(crate) fn role(&self) -> PutDatabaseRoleRequest {
        PutDatabaseRoleRequest {
            connection: "analytics".into(),
            name: "reader".into(),
            member_of: vec![format!("reader_{}", self.tag)],
            owner_role: format!("owner_{}", self.tag),
            default_ttl_s: 600,
            max_ttl_s: 3_600,
            ..Default::default()
        }
    }

    pub(crate) async fn grant(
        &self,
        identity: &str,
        change: impl FnOnce(AddGrantRequest) -> AddGrantRequest,
    ) -> Result<Grant, Status> {
        let request = change(AddGrantRequest {
            subject: Some(strongroom::proto::add_grant_request::Subject::Identity(identity.into())),
            action: "database.credentials".into(),
            resource: "database/analytics/reader".into(),
            reason: "a test".into(),
            ..Default::default()
        });
        let mut client = GrantServiceClient::new(self.admin.clone());
        Ok(client.add_grant(request).await?.into_inner().grant.unwrap())
    }

    /// The administrator's.
    pub(crate) fn database_client(&self) -> DatabaseServiceClient<Channel> {
        DatabaseServiceClient::new(self.admin.clone())
    }

    /// The administrator's.
    pub(crate) fn lease_client(&self) -> LeaseServiceClient<Channel> {
        LeaseServiceClient::new(self.admin.clone())
    }

    pub(crate) async fn issue(&self) -> Result<IssueCredentialsResponse, Status> {
        issue(&self.etl, ask()).await
    }

    /// Every lease, ended ones included. Where several nodes run, a clock that was turned is not
    /// trusted for some seconds.
    pub(crate) async fn leases(&self) -> Vec<Lease> {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let request = ListLeasesRequest { include_ended: true, ..Default::default() };
            match self.lease_client().list_leases(request).await {
                Ok(listed) => return listed.into_inner().leases,
                Err(refused) if refused.message().contains("clock") => {
                    assert!(Instant::now() < patience, "{refused}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(refused) => panic!("{refused}"),
            }
        }
    }

    pub(crate) async fn lease(&self, id: &str) -> Lease {
        self.leases().await.into_iter().find(|lease| lease.id == id).unwrap()
    }

    /// Waits until no lease is anything but over.
    pub(crate) async fn all_over(&self) {
        until("every lease is over", async || {
            self.leases().await.iter().all(|lease| lease.state == "revoked")
        })
        .await;
    }

    /// Roles of this vault on a cluster.
    pub(crate) async fn roles(&self, cluster: &Postgres) -> Vec<String> {
        let prefix = names::prefix(self.f.node().vault.installation().id);
        let sql = format!(
            "SELECT COALESCE(string_agg(rolname, ',' ORDER BY rolname), '') FROM pg_roles \
             WHERE starts_with(rolname, '{prefix}')"
        );
        let all = cluster.ask("postgres", &sql).await.unwrap();
        all.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    /// Turns the clock on.
    pub(crate) fn advance(&self, seconds: u64) {
        self.f.clock.advance(Duration::from_secs(seconds));
    }
}

/// Makes a database, an account, a group that may read and an owner; what their names end with.
pub(crate) async fn prepare(cluster: &Postgres) -> String {
    let tag = tag();
    let database = format!("t_{tag}");
    cluster.run("postgres", &format!("CREATE DATABASE {database}")).await;
    let account = ACCOUNT_PASSWORD.replace('\'', "''");
    cluster
        .run(
            &database,
            &format!(
                "CREATE ROLE reader_{tag}; CREATE ROLE owner_{tag}; \
                 CREATE ROLE account_{tag} LOGIN CREATEROLE PASSWORD '{account}'; \
                 GRANT pg_signal_backend TO account_{tag}; \
                 GRANT reader_{tag} TO account_{tag} WITH ADMIN OPTION; \
                 GRANT owner_{tag} TO account_{tag}; \
                 CREATE TABLE facts AS SELECT 42 AS answer; \
                 GRANT SELECT ON facts TO reader_{tag}"
            ),
        )
        .await;
    tag
}

/// The usual request.
pub(crate) fn ask() -> IssueCredentialsRequest {
    IssueCredentialsRequest {
        connection: "analytics".into(),
        role: "reader".into(),
        ..Default::default()
    }
}

pub(crate) async fn issue(
    channel: &Channel,
    request: IssueCredentialsRequest,
) -> Result<IssueCredentialsResponse, Status> {
    let mut client = DatabaseServiceClient::new(channel.clone());
    Ok(client.issue_credentials(request).await?.into_inner())
}

/// Logs in with what was issued.
pub(crate) async fn log_in(
    issued: &IssueCredentialsResponse,
    port: u16,
) -> sqlx::Result<PgConnection> {
    PgConnectOptions::new_without_pgpass()
        .host(&issued.host)
        .port(port)
        .username(&issued.username)
        .password(&issued.password)
        .database(&issued.database)
        .ssl_mode(PgSslMode::Disable)
        .connect()
        .await
}

/// Runs a statement; the SQLSTATE where it is refused, `lost` where there is no session.
pub(crate) async fn outcome(session: &mut PgConnection, sql: &str) -> Result<(), String> {
    let done = session.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await;
    done.map(drop).map_err(|error| {
        let code = error.as_database_error().and_then(|said| said.code().map(Into::into));
        code.unwrap_or_else(|| "lost".to_owned())
    })
}

/// Waits for what a worker does: it has a pace of its own.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !is().await {
        assert!(Instant::now() < patience, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Gives calls a head start: until none, one, two and so on of them have answered, and some
/// milliseconds more, from round to round. Milliseconds alone would make it a race that the one side
/// always wins, on a machine that is slower or faster.
pub(crate) async fn head_start(round: u64, calls: &[AbortHandle]) {
    let patience = Instant::now() + Duration::from_secs(30);
    let count = usize::try_from(round).unwrap() % calls.len();
    while calls.iter().filter(|call| call.is_finished()).count() < count {
        assert!(Instant::now() < patience, "{count} of {} calls answer", calls.len());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(round / 4 % 10)).await;
}

/// Of several measurements the middle one: other tests share the machine.
pub(crate) fn middle(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

fn tag() -> String {
    let mut bytes = [0; 6];
    SystemEntropy.fill(&mut bytes).unwrap();
    data_encoding::HEXLOWER.encode(&bytes)
}

/// What a wire does with what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Whole,
    /// What goes to the server stays on the way.
    HoldsRequests,
    /// What comes from the server stays on the way.
    HoldsAnswers,
    /// Every connection is cut.
    Cut,
}

/// A wire to a server that a test can cut.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<watch::Sender<Wire>>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap().port();
        let state = Arc::new(watch::Sender::new(Wire::Whole));
        let watched = Arc::clone(&state);
        let tasks = TaskGroup::default();
        let carriers = tasks.clone();
        drop(tasks.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await;
                if let Ok(far) = far {
                    drop(carriers.spawn(carry(near, far, watched.subscribe())));
                }
            }
        }));
        Self { port: proxy, state }
    }

    pub(crate) fn set(&self, wire: Wire) {
        self.state.send_replace(wire);
    }
}

async fn carry(near: TcpStream, far: TcpStream, state: watch::Receiver<Wire>) {
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let mut cut = state.clone();
    tokio::select! {
        () = pump(near_in, far_out, Wire::HoldsRequests, state.clone()) => {}
        () = pump(far_in, near_out, Wire::HoldsAnswers, state) => {}
        _ = cut.wait_for(|wire| *wire == Wire::Cut) => {}
    }
}

async fn pump(
    from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    held: Wire,
    mut state: watch::Receiver<Wire>,
) {
    let mut buffer = vec![0; 16_384];
    while from.readable().await.is_ok() {
        match from.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                // What was held when the wire is cut is lost.
                let carries = match state.wait_for(|wire| *wire != held).await {
                    Ok(wire) => *wire != Wire::Cut,
                    Err(_) => false,
                };
                if !carries || to.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
