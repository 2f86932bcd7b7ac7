//! The real program: servers in processes of their own, with SoftHSM tokens of their own.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use strongroom::hsm::softhsm;
use strongroom::store::Location;
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::node::{Backend, Fixture, Login, ORIGIN, TRUST_DOMAIN, location};
use super::postgres::PASSWORD;
use super::softhsm::Token;

/// Longest that a start or an end may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// The program, without anything of our own environment.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    for variable in [
        "ADDR",
        "CACERT",
        "CERT",
        "KEY",
        "TOKEN",
        "SESSION_FILE",
        "ISSUER_CACERT",
        "JOIN_DIR",
        "IDENTITY",
        "AUDIENCE",
        "ENVIRONMENT_SET",
    ] {
        command.env_remove(format!("STRONGROOM_{variable}"));
    }
    command.env_remove(softhsm::CONFIGURATION_VARIABLE);
    command.stdin(Stdio::null());
    command
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// What it said when it served.
    pub(crate) ready: Value,
    log: PathBuf,
}

impl Running {
    /// Starts a server's command and waits until it answers.
    pub(crate) fn start(mut command: Command, dir: &Path) -> Self {
        let ready = dir.join("ready.json");
        let log = dir.join("log");
        drop(fs::remove_file(&ready));
        command.arg("--ready-file").arg(&ready);
        let err = fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
        let out = err.try_clone().unwrap();
        let mut child = command.stdout(out).stderr(err).spawn().unwrap();
        let patience = Instant::now() + PATIENCE;
        while !ready.exists() {
            let ended = child.try_wait().unwrap();
            let text = || fs::read_to_string(&log).unwrap();
            assert!(ended.is_none() && Instant::now() < patience, "{ended:?}\n{}", text());
            std::thread::sleep(Duration::from_millis(20));
        }
        let ready = serde_json::from_slice(&fs::read(ready).unwrap()).unwrap();
        Self { child, ready, log }
    }

    /// Everything that it wrote.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Option<i32> {
        let patience = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < patience, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Tells it to stop, and waits.
    pub(crate) fn stop(self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// A string of what it said.
    pub(crate) fn said(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap()
    }

    /// Asks its second listener; the status and the body.
    pub(crate) fn http(&self, path: &str) -> (u16, String) {
        let mut stream = std::net::TcpStream::connect(self.said("http_addr")).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// A development vault in a directory.
pub(crate) fn dev(dir: &Path) -> Running {
    let mut command = program();
    command.arg("dev").arg("--dir").arg(dir);
    Running::start(command, dir)
}

/// A client's command as the administrator of a development vault.
pub(crate) fn as_admin(server: &Running, line: &str) -> Output {
    program()
        .args(line.split(' '))
        .env("STRONGROOM_ADDR", format!("https://{}", server.said("grpc_addr")))
        .env("STRONGROOM_CACERT", server.said("ca_file"))
        .env("STRONGROOM_CERT", server.said("admin_cert_file"))
        .env("STRONGROOM_KEY", server.said("admin_key_file"))
        .output()
        .unwrap()
}

/// Somebody with a login certificate.
#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Person {
    /// What it logs in with.
    pub(crate) fn login(&self) -> Login {
        let read = |path| fs::read_to_string(path).unwrap();
        Login { certificate_pem: read(&self.certificate), key_pem: read(&self.key) }
    }
}

/// A real installation that is not founded yet: token, PIN file, configuration.
#[derive(Debug)]
pub(crate) struct Installation {
    pub(crate) dir: TempDir,
    pub(crate) config: PathBuf,
}

/// The token's right PIN.
pub(crate) const PIN: &str = "71839265";

impl Installation {
    /// On SQLite.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// On PostgreSQL.
    pub(crate) async fn on_postgres() -> Self {
        let real = Self::new();
        let Location::Postgres { url, .. } = location(Backend::Postgres, real.dir.path()).await
        else {
            panic!("not PostgreSQL")
        };
        let word = real.write_secret("word", PASSWORD);
        let url = url.replacen(&format!(":{PASSWORD}@"), "@", 1);
        let word = word.display();
        let store = format!("[store]\nurl = \"{url}\"\npassword_file = \"{word}\"\n[vault]");
        real.replace("[vault]", &store);
        real
    }

    /// Of a vault that this process founded on its own token, and serves no more.
    pub(crate) fn of(f: &Fixture, token: &Token) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let store = match &f.parts.location {
            Location::Postgres { url, .. } => {
                let url = url.replacen(&format!(":{PASSWORD}@"), "@", 1);
                let word = path.join("word").display().to_string();
                format!("[store]\nurl = \"{url}\"\npassword_file = \"{word}\"\n")
            }
            Location::Sqlite { path: store, .. } => {
                let data = path.join("data");
                fs::create_dir(&data).unwrap();
                fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
                copy_store(store.parent().unwrap(), &data);
                String::new()
            }
        };
        let toml = format!(
            "[server]\ngrpc_listen = \"127.0.0.1:0\"\nhttp_listen = \"127.0.0.1:0\"\n\
             data_dir = \"{dir}/data\"\ndrain_timeout_s = 5\n{store}\
             [vault]\ntrust_domain = \"{TRUST_DOMAIN}\"\nname = \"main\"\n\
             [record]\norigin = \"{ORIGIN}\"\n\
             [hsm]\nmodule = \"{module}\"\ntoken_label = \"{label}\"\npin_file = \"{dir}/pin\"\n\
             environment = {{ SOFTHSM2_CONF = \"{conf}\" }}\n",
            dir = path.display(),
            module = token.module.display(),
            label = token.label,
            conf = std::env::var(softhsm::CONFIGURATION_VARIABLE).unwrap(),
        );
        let config = path.join("strongroom.toml");
        fs::write(&config, toml).unwrap();
        fs::create_dir(path.join("out")).unwrap();
        fs::write(path.join("out/ca.pem"), &f.root_pem).unwrap();
        let this = Self { dir, config };
        this.write_secret("word", PASSWORD);
        this.set_pin(&text(token.pin.expose()));
        this
    }

    /// With more in `[server]`.
    pub(crate) fn with(server: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let conf = softhsm::write_configuration(path).unwrap();
        let module = softhsm::lookup_module().expect("the softhsm2 package is not installed");
        let made = Command::new("softhsm2-util")
            .args([
                "--init-token",
                "--free",
                "--label",
                "real",
                "--pin",
                PIN,
                "--so-pin",
                "19283746",
            ])
            .env(softhsm::CONFIGURATION_VARIABLE, &conf)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        let config = path.join("strongroom.toml");
        let toml = format!(
            "[server]\ngrpc_listen = \"127.0.0.1:0\"\nhttp_listen = \"127.0.0.1:0\"\n\
             data_dir = \"{dir}/data\"\ndrain_timeout_s = 5\n{server}\n\
             [vault]\ntrust_domain = \"vault.example.org\"\nname = \"main\"\n\
             [hsm]\nmodule = \"{module}\"\ntoken_label = \"real\"\npin_file = \"{dir}/pin\"\n\
             environment = {{ SOFTHSM2_CONF = \"{conf}\" }}\n[log]\nformat = \"json\"\n\
             level = \"trace\"\n",
            dir = path.display(),
            module = module.display(),
            conf = conf.display(),
        );
        fs::write(&config, toml).unwrap();
        let this = Self { dir, config };
        this.set_pin(PIN);
        this
    }

    /// Changes the configuration.
    pub(crate) fn replace(&self, from: &str, to: &str) {
        let toml = fs::read_to_string(&self.config).unwrap();
        assert!(toml.contains(from), "{from}");
        fs::write(&self.config, toml.replace(from, to)).unwrap();
    }

    /// Changes what is in the PIN file.
    pub(crate) fn set_pin(&self, pin: &str) {
        self.write_secret("pin", pin);
    }

    /// Writes a file that its owner alone can read.
    pub(crate) fn write_secret(&self, name: &str, secret: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, secret).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    /// Runs a command with this configuration.
    pub(crate) fn run(&self, command: &str) -> Output {
        program().args(command.split(' ')).arg("--config").arg(&self.config).output().unwrap()
    }

    /// Founds the vault.
    pub(crate) fn init(&self) -> Output {
        let out = self.dir.path().join("out");
        program()
            .arg("init")
            .arg("--config")
            .arg(&self.config)
            .arg("--out")
            .arg(out)
            .output()
            .unwrap()
    }

    /// Starts the server.
    pub(crate) fn serve(&self) -> Running {
        let mut command = program();
        command.arg("server").arg("--config").arg(&self.config);
        Running::start(command, self.dir.path())
    }

    /// Starts one more server on the same store and token, with a directory of its own.
    pub(crate) fn serve_beside(&self) -> Running {
        let dir = self.dir.path().join("beside");
        fs::create_dir(&dir).unwrap();
        let toml = fs::read_to_string(&self.config).unwrap();
        let data = |dir: &Path| format!("data_dir = \"{}/data\"", dir.display());
        let other = toml.replacen(&data(self.dir.path()), &data(&dir), 1);
        assert_ne!(toml, other);
        fs::write(dir.join("strongroom.toml"), other).unwrap();
        let mut command = program();
        command.arg("server").arg("--config").arg(dir.join("strongroom.toml"));
        Running::start(command, &dir)
    }

    /// Connects to one of several servers.
    pub(crate) async fn connect(&self, to: &Running, login: &Login) -> Channel {
        let ca = fs::read_to_string(self.dir.path().join("out/ca.pem")).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .identity(Identity::from_pem(&login.certificate_pem, &login.key_pem))
            .domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://{}", to.said("grpc_addr"))).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.unwrap()
    }

    /// Who may register the first administrators.
    pub(crate) fn bootstrap(&self) -> Person {
        let out = self.dir.path().join("out");
        Person { certificate: out.join("bootstrap.pem"), key: out.join("bootstrap.key") }
    }

    /// Prepares a client's command as somebody.
    pub(crate) fn client(&self, server: &Running, who: &Person, line: &str) -> Command {
        let mut command = program();
        command
            .args(line.split(' '))
            .env("STRONGROOM_ADDR", format!("https://{}", server.said("grpc_addr")))
            .env("STRONGROOM_CACERT", self.dir.path().join("out/ca.pem"))
            .env("STRONGROOM_CERT", &who.certificate)
            .env("STRONGROOM_KEY", &who.key);
        command
    }

    /// Runs a client's command as somebody, who may.
    pub(crate) fn ask(&self, server: &Running, who: &Person, line: &str) -> Output {
        let done = self.client(server, who, line).output().unwrap();
        assert!(done.status.success(), "{line}: {}", text(&done.stderr));
        done
    }

    /// Runs a client's command as somebody, whose standard input says something.
    pub(crate) fn tell(&self, server: &Running, who: &Person, line: &str, typed: &str) -> Output {
        let mut command = self.client(server, who, line);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, format!("{typed}\n").as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    /// Registers a human, and signs its first login certificate.
    pub(crate) fn register(&self, server: &Running, by: &Person, name: &str) -> Person {
        let create = format!("identity create {name} --kind human --purpose test --tier high");
        self.ask(server, by, &create);
        self.sign(server, by, name)
    }

    /// Signs a login certificate for a key made here.
    pub(crate) fn sign(&self, server: &Running, by: &Person, name: &str) -> Person {
        let at = |end: &str| self.dir.path().join(format!("{name}.{end}"));
        let person = Person { certificate: at("pem"), key: at("key") };
        let (key, request) = super::node::csr();
        fs::write(&person.key, key).unwrap();
        fs::write(at("csr"), request).unwrap();
        let [csr, out] = [at("csr"), at("pem")].map(|path| path.display().to_string());
        self.ask(server, by, &format!("identity issue-cert {name} --csr {csr} --out {out}"));
        person
    }

    /// Runs a command on the control socket.
    pub(crate) fn local(&self, line: &str) -> Output {
        let socket = self.dir.path().join("data/control.sock");
        program().args(line.split(' ')).arg("--socket").arg(socket).output().unwrap()
    }

    /// The state that `status` shows, and why.
    pub(crate) fn state(&self) -> (String, String) {
        let shown = self.local("status --output json");
        let status: Value = serde_json::from_slice(&shown.stdout).unwrap();
        let because = status["because"].as_str().unwrap_or_default();
        (status["state"].as_str().unwrap().to_owned(), because.to_owned())
    }
}

/// Copies the files of a store that nobody serves, in the place of what is there.
pub(crate) fn copy_store(from: &Path, to: &Path) {
    for name in ["vault.db", "vault.db-wal", "vault.db-shm"] {
        drop(fs::remove_file(to.join(name)));
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
