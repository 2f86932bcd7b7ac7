//! `strongroom join` on a machine, as its page tells it, and wherever it is stopped.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::elevations::page::typed;
use crate::support::node::csr;
use crate::support::program::{Running, as_admin, dev, program, text};

/// What `deploy/` has run by a timer.
const UNIT: &str = include_str!("../../../deploy/strongroom-join.service");

/// A vault of the program, and a machine with a home of its own.
struct Machine {
    dir: tempfile::TempDir,
    server: Running,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = dev(dir.path());
        fs::create_dir(dir.path().join("home")).unwrap();
        Self { dir, server }
    }

    fn admin(&self, line: &str) -> String {
        let done = as_admin(&self.server, line);
        assert!(done.status.success(), "{line}: {}", text(&done.stderr));
        text(&done.stdout)
    }

    fn login(&self) -> PathBuf {
        self.dir.path().join("home/.strongroom/login.pem")
    }

    fn kept(&self) -> String {
        fs::read_to_string(self.login()).unwrap()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = program();
        command
            .args(words)
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path().join("home"))
            .env("STRONGROOM_ADDR", format!("https://{}", self.server.said("grpc_addr")))
            .env("STRONGROOM_CACERT", self.server.said("ca_file"));
        // What `eval` would have set.
        if self.login().exists() {
            command.env("STRONGROOM_CERT", self.login()).env("STRONGROOM_KEY", self.login());
        }
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(&line.split(' ').collect::<Vec<_>>()).output().unwrap()
    }

    fn done(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// A token for the machine, in a file.
    fn token(&self) -> String {
        let path = self.dir.path().join("token");
        drop(fs::remove_file(&path));
        let path = path.display().to_string();
        self.admin(&format!("identity enroll etl --out {path}"));
        path
    }

    fn registered() -> Self {
        let machine = Self::new();
        machine
            .admin("identity create etl --kind pipeline --owner admin --purpose test --tier low");
        machine
    }
}

/// The private key in a file.
fn key_of(text: &str) -> String {
    let end = "-----END PRIVATE KEY-----\n";
    text.split_once(end).map(|(key, _)| format!("{key}{end}")).unwrap()
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn the_page_is_typed_command_by_command() {
    let machine = Machine::new();
    let page = fs::read_to_string("docs/enrolment.md").unwrap();
    let block = page.split("```console\n").nth(1).unwrap().split("\n```").next().unwrap();
    let commands = typed(&format!("```console\n{block}\n```\n"));
    assert!(commands.len() > 10, "{commands:?}");
    for (who, words, said) in commands {
        let words: Vec<_> = words.iter().skip(1).map(String::as_str).collect();
        let mut command = machine.command(&words);
        if who == "admin" {
            let said = |key| machine.server.said(key);
            command.env("STRONGROOM_CERT", said("admin_cert_file"));
            command.env("STRONGROOM_KEY", said("admin_key_file"));
        }
        let output = command.output().unwrap();
        let expected = if said.starts_with("refused") { 3 } else { 0 };
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(expected), "{who}: {words:?}: {told}");
        if said == "locked" {
            assert!(told.contains("locked"), "{told}");
        }
    }
}

#[test]
fn a_machine_joins_once_does_nothing_until_it_is_due_and_renews_when_told() {
    let machine = Machine::registered();
    let none = machine.run("join");
    assert_eq!(none.status.code(), Some(2), "{}", text(&none.stderr));
    assert!(text(&none.stderr).contains("identity enroll"), "{}", text(&none.stderr));
    let printed = machine.done(&format!("join --token-file {}", machine.token()));
    let path = machine.login();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    for line in ["STRONGROOM_CERT", "STRONGROOM_KEY"] {
        assert!(printed.contains(&format!("export {line}='")), "{printed}");
    }
    let first = machine.kept();
    assert!(!printed.contains("PRIVATE") && first.contains("PRIVATE KEY"));
    assert!(machine.done("whoami").contains("etl"));
    let said: serde_json::Value =
        serde_json::from_str(&machine.done("join --output json")).unwrap();
    assert_eq!((said["done"].as_str(), machine.kept()), (Some("nothing to do"), first.clone()));
    let idle = machine.run(&format!("join --token-file {}", machine.token()));
    assert!(text(&idle.stderr).contains("no join token was used"), "{}", text(&idle.stderr));
    let said: serde_json::Value =
        serde_json::from_str(&machine.done("join --renew --output json")).unwrap();
    assert_eq!(said["done"], "renewed");
    assert_eq!(said["name"].as_str().unwrap().rsplit('/').next(), Some("etl"));
    let next = machine.kept();
    assert_ne!(key_of(&next), key_of(&first));
    assert!(machine.done("whoami").contains("etl"));
    assert!(!machine.login().with_file_name("next.key").exists());
}

#[test]
fn wherever_it_is_stopped_the_next_run_asks_with_the_same_key() {
    let machine = Machine::registered();
    let next_key = machine.login().with_file_name("next.key");
    fs::create_dir(next_key.parent().unwrap()).unwrap();
    // Between the key and the certificate: nobody knows whether the token was used.
    let (key, _) = csr();
    private(&next_key, &key);
    let token = machine.token();
    machine.done(&format!("join --token-file {token}"));
    let first = machine.kept();
    assert_eq!(key_of(&first), key);
    assert!(!next_key.exists());
    // It was used, and the answer never came.
    fs::remove_file(machine.login()).unwrap();
    private(&next_key, &key);
    machine.done(&format!("join --token-file {token}"));
    assert_eq!(machine.kept(), first, "the same certificate");
    // The same of a renewal.
    machine.done("join --renew");
    let second = machine.kept();
    private(&machine.login(), &first);
    private(&next_key, &key_of(&second));
    machine.done("join --renew");
    assert_eq!(machine.kept(), second);
    // Between the certificate and the end.
    private(&next_key, &key_of(&second));
    machine.done("join");
    assert!(!next_key.exists());
    let listed = machine.admin("enrolment list --identity etl");
    assert!(listed.contains("joined") && !listed.contains("locked"), "{listed}");
    // Another key is another machine.
    private(&machine.login(), &first);
    let thief = machine.run("join --renew");
    assert_eq!(thief.status.code(), Some(3), "{}", text(&thief.stderr));
    let listed = machine.admin("enrolment list --identity etl");
    assert!(listed.contains("locked"), "{listed}");
}

#[test]
fn the_unit_that_is_deployed_keeps_to_what_was_joined_where_it_says() {
    let machine = Machine::registered();
    let dir = machine.dir.path().join("state").display().to_string();
    machine.done(&format!("join --dir {dir} --token-file {}", machine.token()));
    let values = |key: &str| {
        let lines = UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let commands = values("ExecStart");
    assert_eq!(commands.len(), 1, "{commands:?}");
    let words = commands[0].strip_prefix("/usr/local/bin/strongroom ").unwrap();
    let mut run = machine.command(&words.split(' ').collect::<Vec<_>>());
    let set = values("Environment");
    for (name, value) in set.iter().map(|line| line.split_once('=').unwrap()) {
        match name {
            // Where the vault is here.
            "STRONGROOM_ADDR" | "STRONGROOM_CACERT" => {}
            "STRONGROOM_JOIN_DIR" => {
                assert_eq!(value.strip_prefix("/var/lib/").unwrap(), values("StateDirectory")[0]);
                run.env(name, &dir);
            }
            other => panic!("nothing reads {other}"),
        }
    }
    assert_eq!(set.len(), 3);
    let done = run.args(["--output", "json"]).output().unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));
    let said: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(said["done"], "nothing to do");
    assert!(said["login_file"].as_str().unwrap().ends_with("/state/login.pem"), "{said}");
}
