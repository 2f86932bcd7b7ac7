//! The PostgreSQL driver against real servers, with the account that the manual describes.

mod life;
mod refusals;
mod revocation;

use std::fs;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac, pbkdf2};
use data_encoding::BASE64;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use strongroom::engines::database::names::RoleName;
use strongroom::engines::database::postgres::{ConnectionDefinition, PostgresTarget, Tls};
use strongroom::engines::database::target::{DatabaseTarget, Result};
use strongroom::engines::database::template::{Disposal, RoleDefinition};
use strongroom::types::{Entropy, Id, SecretBytes, SystemEntropy, UnixMillis, VaultId};
use tokio::sync::OnceCell;

use crate::support::postgres::Postgres;

/// The password in the manual's example.
const ACCOUNT_PASSWORD: &str = "change-me-to-a-long-random-one";
/// 2100-01-01T00:00:00Z.
const FAR: UnixMillis = UnixMillis(4_102_444_800_000);
const READER: &str = r#"{"groups": ["analytics_reader"], "owner_role": "analytics_owner"}"#;

/// A vault's driver on a database of its own in a cluster that tests share.
struct Fixture {
    vault: VaultId,
    cluster: &'static Postgres,
    database: String,
    target: PostgresTarget,
}

struct Credential {
    name: RoleName,
    password: String,
}

impl Fixture {
    async fn new() -> Self {
        static READY: OnceCell<()> = OnceCell::const_new();
        let cluster = tokio::task::spawn_blocking(Postgres::shared).await.unwrap();
        READY.get_or_init(|| prepare(cluster)).await;
        let vault = new_vault();
        let database = format!("d_{}", vault.0.to_string().replace('-', ""));
        data(cluster, &database).await;
        let target = driver(vault, &definition(cluster, &database), ACCOUNT_PASSWORD);
        Self { vault, cluster, database, target }
    }

    fn mint(&self) -> RoleName {
        RoleName::mint(self.vault, &"nightly-etl".parse().unwrap(), &SystemEntropy).unwrap()
    }

    async fn create(&self, role: &str) -> Result<Credential> {
        let credential = Credential { name: self.mint(), password: random_hex() };
        let verifier = verifier(&credential.password, 4_096);
        self.target.create(&parse(role), &credential.name, &verifier, FAR).await?;
        Ok(credential)
    }

    async fn reader(&self) -> Credential {
        self.create(READER).await.unwrap()
    }

    fn login(&self, credential: &Credential, database: &str) -> PgConnectOptions {
        self.cluster.login(credential.name.as_str(), &credential.password, database)
    }

    async fn connect(&self, credential: &Credential) -> PgConnection {
        self.login(credential, &self.database).connect().await.unwrap()
    }

    async fn ask(&self, sql: &str) -> Option<String> {
        self.cluster.ask(&self.database, sql).await
    }

    async fn revoke(&self, credential: &Credential) -> Result<()> {
        self.target.revoke(&credential.name, &disposal(READER)).await
    }

    async fn gone(&self, credential: &Credential) -> bool {
        let sql = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{}'", credential.name);
        self.ask(&sql).await.unwrap() == "0" && !self.target.exists(&credential.name).await.unwrap()
    }
}

/// Makes the roles that stand on a target before us, and the account, with the manual's own SQL.
async fn prepare(cluster: &Postgres) {
    cluster.run("postgres", "CREATE ROLE analytics_reader; CREATE ROLE analytics_owner").await;
    let manual = fs::read_to_string("docs/database-postgresql.md").unwrap();
    let block = manual.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
    cluster.run("postgres", block).await;
}

/// Makes a database with data that a reader may read and a schema where it may create.
async fn data(cluster: &Postgres, database: &str) {
    cluster.run("postgres", &format!("CREATE DATABASE {database}")).await;
    cluster
        .run(
            database,
            "CREATE TABLE facts AS SELECT 42 AS answer; \
             GRANT SELECT ON facts TO analytics_reader; \
             GRANT SELECT ON facts TO strongroom WITH GRANT OPTION; \
             CREATE SCHEMA work AUTHORIZATION analytics_owner; \
             GRANT USAGE, CREATE ON SCHEMA work TO analytics_reader",
        )
        .await;
}

fn definition(cluster: &Postgres, database: &str) -> ConnectionDefinition {
    ConnectionDefinition {
        host: "127.0.0.1".into(),
        port: cluster.port(),
        database: database.into(),
        username: "strongroom".into(),
        tls: Tls::Off,
        ca_pem: None,
        max_connections: 10,
    }
}

fn driver(vault: VaultId, definition: &ConnectionDefinition, password: &str) -> PostgresTarget {
    let password = SecretBytes::new(password.as_bytes().to_vec());
    PostgresTarget::new(vault, definition, &password, Arc::new(SystemEntropy)).unwrap()
}

fn new_vault() -> VaultId {
    VaultId(Id::random(&SystemEntropy).unwrap())
}

fn parse(role: &str) -> RoleDefinition {
    let role: RoleDefinition = serde_json::from_str(role).unwrap();
    role.validate().unwrap();
    role
}

fn disposal(role: &str) -> Disposal {
    parse(role).disposal().unwrap()
}

fn random_hex() -> String {
    let mut bytes = [0; 32];
    SystemEntropy.fill(&mut bytes).unwrap();
    data_encoding::HEXLOWER.encode(&bytes)
}

/// RFC 5803, as PostgreSQL stores it.
fn verifier(password: &str, iterations: u32) -> SecretBytes {
    let mut salt = [0; 16];
    SystemEntropy.fill(&mut salt).unwrap();
    let mut salted = [0; 32];
    let rounds = iterations.try_into().unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &mut salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let stored = digest::digest(&digest::SHA256, hmac::sign(&key, b"Client Key").as_ref());
    let (salt, stored) = (BASE64.encode(&salt), BASE64.encode(stored.as_ref()));
    let server = BASE64.encode(hmac::sign(&key, b"Server Key").as_ref());
    let text = format!("SCRAM-SHA-256${iterations}:{salt}${stored}:{server}");
    SecretBytes::new(text.into_bytes())
}

/// Runs statements and answers the SQLSTATE of a refusal.
async fn state(connection: &mut PgConnection, sql: &str) -> Option<String> {
    let outcome = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await;
    outcome.err().map(|error| error.as_database_error().expect(sql).code().unwrap().into_owned())
}

async fn value(connection: &mut PgConnection, sql: &'static str) -> String {
    sqlx::query_scalar(sql).fetch_one(connection).await.expect(sql)
}
