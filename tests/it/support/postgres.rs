//! Throwaway PostgreSQL clusters on free loopback ports.
//!
//! PostgreSQL refuses to run as root; then it runs as `postgres`. A small shell watches each
//! server: it stops it and removes its files when our end of its stdin closes, which happens
//! however the test process ends.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use strongroom::crypto::scram_sha_256_verifier;
use strongroom::types::SecretBytes;

/// Stops the server when stdin ends; removes the files unless told to keep them.
const WATCH: &str = r#"
dir=$1; shift
trap '' INT HUP
"$@" >"$dir/server.log" 2>&1 </dev/null &
server=$!
word=; read -r word
kill -INT "$server"; wait "$server"
[ "$word" = keep ] || rm -rf -- "$dir"
"#;

/// What a cluster is for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// Serves TLS with a certificate for `localhost` and 127.0.0.1, and refuses clear connections.
    pub(crate) tls: bool,
}

/// One cluster; dropped, it is stopped and removed.
#[derive(Debug)]
pub(crate) struct Postgres {
    dir: PathBuf,
    port: u16,
    account: Option<(u32, u32)>,
    options: Options,
    watch: Option<Child>,
}

/// The superuser's password.
pub(crate) const PASSWORD: &str = "throwaway";

impl Postgres {
    /// The instance that all tests of the process share.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Options::default()))
    }

    /// Makes and starts a cluster of one's own.
    pub(crate) fn start(options: Options) -> Self {
        let dir = tempfile::Builder::new().prefix("strongroom-pg-").tempdir().unwrap().keep();
        let mut cluster = Self { port: 0, account: account(), dir, options, watch: None };
        cluster.initialise();
        for _ in 0..5 {
            cluster.port = free_port();
            if cluster.resume_if_free() {
                return cluster;
            }
        }
        panic!("no server came up:\n{}", cluster.log());
    }

    /// The TCP port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The CA of the server's certificate, in PEM.
    pub(crate) fn ca_pem(&self) -> String {
        fs::read_to_string(self.dir.join("ca.pem")).unwrap()
    }

    /// Stops the server and keeps its files.
    pub(crate) fn stop(&mut self) {
        self.end("keep\n");
    }

    /// Starts a stopped server again, on the same port.
    pub(crate) fn resume(&mut self) {
        assert!(self.resume_if_free(), "the server does not come back:\n{}", self.log());
    }

    /// The superuser's URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        let port = self.port;
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{port}/{database}?sslmode=disable")
    }

    /// Connection options of the superuser for a database.
    pub(crate) fn superuser(&self, database: &str) -> PgConnectOptions {
        self.login("postgres", PASSWORD, database)
    }

    /// Connection options of any role for a database.
    pub(crate) fn login(&self, user: &str, password: &str, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(user)
            .password(password)
            .database(database)
            .ssl_mode(if self.options.tls { PgSslMode::Require } else { PgSslMode::Disable })
            .disable_statement_logging()
    }

    /// Runs statements as the superuser, in autocommit when there is one.
    pub(crate) async fn run(&self, database: &str, sql: &str) {
        let mut connection: PgConnection = self.superuser(database).connect().await.unwrap();
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.expect(sql);
    }

    /// Asks for one value as the superuser, as text.
    pub(crate) async fn ask(&self, database: &str, sql: &str) -> Option<String> {
        let mut connection = self.superuser(database).connect().await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT ({sql})::text")))
            .fetch_one(&mut connection)
            .await
            .expect(sql)
    }

    fn initialise(&self) {
        self.give(&self.dir);
        let word = self.dir.join("password");
        // Hashed once and not 4,096 times: every store of a test logs in with it, several times over.
        let password = SecretBytes::new(PASSWORD.into());
        let verifier = scram_sha_256_verifier(&password, b"a throwaway salt", NonZeroU32::MIN);
        fs::write(&word, verifier.unwrap().as_str()).unwrap();
        self.give(&word);
        let done = self
            .command("initdb")
            .args(["-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "-U", "postgres"])
            .arg("--pwfile")
            .arg(&word)
            .arg("-D")
            .arg(self.dir.join("data"))
            .output()
            .unwrap();
        assert!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
        if self.options.tls {
            self.certify();
            let clear = "hostnossl all all all reject\nhostssl all all all scram-sha-256\n";
            fs::write(self.dir.join("data/pg_hba.conf"), clear).unwrap();
        }
    }

    fn certify(&self) {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = rcgen::CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &rcgen::Issuer::from_params(&ca, &ca_key))
            .unwrap();
        fs::write(self.dir.join("ca.pem"), ca_certificate.pem()).unwrap();
        for (file, pem) in [("leaf.pem", leaf.pem()), ("key.pem", key.serialize_pem())] {
            let path = self.dir.join(file);
            fs::write(&path, pem).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            self.give(&path);
        }
    }

    fn resume_if_free(&mut self) -> bool {
        if self.dir.join("server.log").exists() {
            fs::remove_file(self.dir.join("server.log")).unwrap();
        }
        let server = self.command("postgres");
        let mut watch = Command::new("sh");
        watch.args(["-c", WATCH, "watch"]).arg(&self.dir);
        watch.arg(server.get_program()).args(server.get_args());
        watch.arg("-D").arg(self.dir.join("data")).args(["-h", "127.0.0.1", "-p"]);
        watch.arg(self.port.to_string()).args(["-k", ""]);
        // Every test of the process is on one server, some with two nodes.
        watch.args(["-c", "max_connections=300"]);
        if self.options.tls {
            let file = |name: &str| self.dir.join(name).display().to_string();
            watch.args(["-c", "ssl=on"]);
            watch.arg("-c").arg(format!("ssl_cert_file={}", file("leaf.pem")));
            watch.arg("-c").arg(format!("ssl_key_file={}", file("key.pem")));
        }
        self.watch = Some(watch.stdin(Stdio::piped()).spawn().unwrap());
        let patience = Instant::now() + Duration::from_secs(20);
        while Instant::now() < patience {
            if self.log().contains("database system is ready to accept connections") {
                return true;
            }
            if self.log().contains("could not create any TCP/IP sockets") {
                break;
            }
            // Another process's start has no clock of ours to turn.
            std::thread::sleep(Duration::from_millis(20));
        }
        self.end("keep\n");
        false
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("server.log")).unwrap_or_default()
    }

    fn command(&self, program: &str) -> Command {
        let program = binaries().join(program);
        let Some((uid, gid)) = self.account else {
            return Command::new(program);
        };
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
        command.arg(program);
        command
    }

    fn give(&self, path: &Path) {
        if let Some((uid, gid)) = self.account {
            chown(path, Some(uid), Some(gid)).unwrap();
        }
    }

    fn end(&mut self, word: &str) {
        if let Some(mut watch) = self.watch.take() {
            if let Some(mut stdin) = watch.stdin.take() {
                stdin.write_all(word.as_bytes()).unwrap();
            }
            assert!(watch.wait().unwrap().success());
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let running = self.watch.is_some();
        self.end("remove\n");
        if !running {
            fs::remove_dir_all(&self.dir).unwrap();
        }
    }
}

/// The unprivileged account to run as, where we are root.
fn account() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let line = accounts.lines().find(|line| line.starts_with("postgres:")).expect("no postgres");
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
    Some((fields.next().unwrap(), fields.next().unwrap()))
}

/// Prepares one of PostgreSQL's own programs.
pub(crate) fn tool(program: &str) -> Command {
    Command::new(binaries().join(program))
}

/// The newest installed version's programs.
fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("postgresql is not installed");
    let newest = versions
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok())
        .max()
        .expect("postgresql is not installed");
    PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
