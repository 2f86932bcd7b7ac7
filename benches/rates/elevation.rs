//! Elevations: `whoami` while one is active, beside `whoami` without one; and the end of one under
//! which a thousand database credentials were made, beside the same statements straight to the
//! target.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use strongroom::crypto::{hotp, otp_step, parse_base32};
use strongroom::proto::database_service_client::DatabaseServiceClient;
use strongroom::proto::elevation_service_client::ElevationServiceClient;
use strongroom::proto::factor_service_client::FactorServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{
    ActivateElevationRequest, ApproveElevationRequest, ConfirmFactorRequest, CreateIdentityRequest,
    ElevationRole, ElevationStep, EnrolFactorRequest, InviteFactorRequest, IssueCredentialsRequest,
    IssueLoginCertificateRequest, PutElevationRoleRequest, RequestElevationRequest,
    RevokeElevationRequest, VerifyFactorRequest, WhoAmIRequest,
};
use strongroom::types::{Clock as _, SecretBytes, SystemClock};
use tonic::transport::{Channel, Identity};

use crate::db::{self, Target};
use crate::load::{RUN, WARM, drive};
use crate::report::{Row, Run, row};
use crate::vault::{Vault, connect};

const CONCURRENCY: usize = 64;
const CONNECTIONS: usize = 8;
/// Credentials made under one elevation.
const LEASES: usize = 1_000;
/// Connections that end them without us.
const DIRECT: usize = 8;
const ROLE: &str = "elevated";

pub(crate) async fn measure(vault: &Vault) -> [Row; 2] {
    let target = Target::start();
    let mut setup = target.connect().await;
    setup.execute("CREATE ROLE readers NOLOGIN; CREATE ROLE owners NOLOGIN").await.unwrap();
    let admin = vault.channels(1).await.remove(0);
    db::configure(&admin, &target, "ended").await;
    let role = ElevationRole {
        name: ROLE.to_owned(),
        requesters: vec!["raised".to_owned()],
        resources: vec!["database/ended/*".to_owned()],
        actions: vec!["database.credentials".to_owned()],
        steps: vec![ElevationStep {
            approvals: 1,
            groups: vec!["administrators".to_owned()],
            owners: false,
        }],
        ..ElevationRole::default()
    };
    let app = enrol(&admin).await;
    let plain = human(vault, &admin, "plain").await;
    let raised = human(vault, &admin, "raised").await;
    let role = PutElevationRoleRequest { role: Some(role) };
    ElevationServiceClient::new(admin.clone()).put_role(role).await.unwrap();
    let mut ended = Vec::new();
    for _ in 0..3 {
        let id = elevate(&admin, &app, &raised[0]).await;
        ended.push(end(&admin, &raised, &id, &mut setup).await);
    }
    let mut direct = Vec::new();
    for _ in 0..3 {
        direct.push(drop_directly(&target, &mut setup).await);
    }
    elevate(&admin, &app, &raised[0]).await;
    let beside = "the same statements straight to PostgreSQL";
    [whoami(plain, raised).await, row("elevation_end", DIRECT, beside, 0.85, ended, direct)]
}

/// Registers a human and logs in as it.
async fn human(vault: &Vault, admin: &Channel, name: &str) -> Vec<Channel> {
    let mut identities = IdentityServiceClient::new(admin.clone());
    let request = CreateIdentityRequest {
        idempotency_key: format!("the-human-{name}-for-the-bench"),
        name: name.to_owned(),
        kind: "human".to_owned(),
        purpose: "bench".to_owned(),
        tier: "low".to_owned(),
        ..CreateIdentityRequest::default()
    };
    identities.create_identity(request).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = IssueLoginCertificateRequest {
        name: name.to_owned(),
        csr_pem: params.serialize_request(&key).unwrap().pem().unwrap(),
        ..IssueLoginCertificateRequest::default()
    };
    let issued = identities.issue_login_certificate(request).await.unwrap().into_inner();
    let login = Identity::from_pem(issued.certificate_pem, key.serialize_pem());
    let (address, root) = (vault.node.grpc_addr.to_string(), &vault.node.root_pem);
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(connect(&address, root, Some(login.clone())).await);
    }
    channels
}

/// Lets the administrator, who approves, enrol an authenticator: a development vault lets everybody
/// invite themselves. Its secret.
async fn enrol(admin: &Channel) -> SecretBytes {
    let mut factors = FactorServiceClient::new(admin.clone());
    let invite = InviteFactorRequest { identity: "admin".to_owned(), ..Default::default() };
    let invitation = factors.invite_factor(invite).await.unwrap().into_inner().invitation;
    let request = EnrolFactorRequest { invitation, kind: String::new() };
    let shown = factors.enrol_factor(request).await.unwrap().into_inner();
    let secret = SecretBytes::new(parse_base32(&shown.secret.to_lowercase()).unwrap());
    let request = ConfirmFactorRequest { id: shown.id, code: code(&secret) };
    factors.confirm_factor(request).await.unwrap();
    secret
}

/// What an authenticator shows now.
fn code(secret: &SecretBytes) -> String {
    let step = u64::try_from(otp_step(SystemClock.now())).unwrap();
    String::from_utf8(hotp(secret, step).unwrap().digits().to_vec()).unwrap()
}

/// Puts an elevation in force: asked for, approved by the administrator, activated.
async fn elevate(admin: &Channel, app: &SecretBytes, raised: &Channel) -> String {
    let mut asks = ElevationServiceClient::new(raised.clone());
    let request = RequestElevationRequest {
        role: ROLE.to_owned(),
        resources: vec!["database/ended/reader".to_owned()],
        ..RequestElevationRequest::default()
    };
    let asked = asks.request_elevation(request).await.unwrap().into_inner().elevation.unwrap();
    let (id, scope_hash) = (asked.id, asked.scope_hash);
    let approve = ApproveElevationRequest { id: id.clone(), scope_hash, ..Default::default() };
    let mut approves = ElevationServiceClient::new(admin.clone());
    if approves.approve_elevation(approve.clone()).await.is_err() {
        // What was proven is old by now.
        let request = VerifyFactorRequest { code: code(app) };
        FactorServiceClient::new(admin.clone()).verify_factor(request).await.unwrap();
        approves.approve_elevation(approve).await.unwrap();
    }
    asks.activate_elevation(ActivateElevationRequest { id: id.clone() }).await.unwrap();
    id
}

/// `whoami` while an elevation is active, beside one who has none.
async fn whoami(plain: Vec<Channel>, raised: Vec<Channel>) -> Row {
    let call = |channel, _| async move {
        drop(IdentityServiceClient::new(channel).who_am_i(WhoAmIRequest {}).await.unwrap());
    };
    drive(CONCURRENCY, WARM, plain.clone(), call).await;
    drive(CONCURRENCY, WARM, raised.clone(), call).await;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        without.push(drive(CONCURRENCY, RUN, plain.clone(), call).await);
        with.push(drive(CONCURRENCY, RUN, raised.clone(), call).await);
    }
    row("whoami_elevated", CONCURRENCY, "the same without an elevation", 0.85, with, without)
}

/// Makes the credentials, ends the elevation, and waits until the last role is gone.
async fn end(admin: &Channel, raised: &[Channel], id: &str, target: &mut PgConnection) -> Run {
    let issue = |number: usize| {
        let mut database = DatabaseServiceClient::new(raised[number % raised.len()].clone());
        async move {
            let request = IssueCredentialsRequest {
                connection: "ended".to_owned(),
                role: "reader".to_owned(),
                ..IssueCredentialsRequest::default()
            };
            database.issue_credentials(request).await.map(drop)
        }
    };
    let made = stream::iter((0..LEASES).map(issue)).buffer_unordered(DIRECT);
    made.try_collect::<Vec<()>>().await.unwrap();
    assert_eq!(left(target, "sr\\_%").await, i64::try_from(LEASES).unwrap());
    let began = Instant::now();
    let revoke = RevokeElevationRequest { id: id.to_owned(), ..Default::default() };
    ElevationServiceClient::new(admin.clone()).revoke_elevation(revoke).await.unwrap();
    while left(target, "sr\\_%").await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rate(began.elapsed())
}

async fn left(target: &mut PgConnection, like: &'static str) -> i64 {
    let sql = format!("SELECT count(*) FROM pg_roles WHERE rolname LIKE '{like}'");
    target.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap().get(0)
}

/// As many roles, ended by the statements that end ours, on connections of their own.
async fn drop_directly(target: &Target, setup: &mut PgConnection) -> Run {
    for number in 0..LEASES {
        let sql = format!("CREATE ROLE bare_{number} LOGIN IN ROLE readers");
        setup.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }
    let mut connections = Vec::new();
    for _ in 0..DIRECT {
        connections.push(target.connect().await);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let next = Arc::clone(&next);
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= LEASES {
                        return;
                    }
                    let name = format!("bare_{number}");
                    for sql in [
                        format!("ALTER ROLE {name} NOLOGIN; GRANT {name} TO CURRENT_USER"),
                        format!(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                             WHERE usename = '{name}'"
                        ),
                        format!(
                            "SELECT count(*) FROM pg_shdepend WHERE refclassid = \
                             'pg_authid'::regclass AND refobjid = '{name}'::regrole"
                        ),
                        format!("DROP ROLE {name}"),
                    ] {
                        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let run = rate(began.elapsed());
    assert_eq!(left(setup, "bare\\_%").await, 0);
    run
}

#[expect(clippy::cast_precision_loss, reason = "a count of leases")]
fn rate(took: Duration) -> Run {
    let each = took / u32::try_from(LEASES).unwrap();
    Run { rate_per_s: LEASES as f64 / took.as_secs_f64(), p50: each, p99: each }
}
