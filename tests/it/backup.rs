//! Backups of a real vault with a real token: made while it serves, opened with its HSM alone, and
//! restored where nothing is.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::recovery_sets::program::{configure, owns_a_secret, wraps_of};
use crate::support::aged::{Aged, People, ceremony};
use crate::support::node::Backend;
use crate::support::program::{Installation, Person, Running, as_admin, dev, program, text};
use crate::support::softhsm;

/// A secret that no file may hold in the open.
const CANARY: &str = "canary-5b1e0d7c2f";

struct World {
    real: Installation,
    server: Running,
    alice: Person,
    bob: Person,
}

impl World {
    fn new() -> Self {
        let real = Installation::new();
        assert!(real.init().status.success());
        let server = real.serve();
        let bootstrap = real.bootstrap();
        let alice = real.register(&server, &bootstrap, "alice");
        let bob = real.register(&server, &bootstrap, "bob");
        Self::of(real, server, alice, bob)
    }

    fn of(real: Installation, server: Running, alice: Person, bob: Person) -> Self {
        let add = "grant add alice --action secrets.put --resource secrets/**";
        real.ask(&server, &alice, add);
        real.ask(&server, &alice, &format!("secret put apps/one --value {CANARY}"));
        Self { real, server, alice, bob }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.real.dir.path().join(name)
    }

    /// Has the server write a backup.
    fn create(&self, name: &str, more: &str) -> Output {
        let out = self.path(name).display().to_string();
        self.real.local(format!("backup create --output json --out {out} {more}").trim_end())
    }

    fn made(&self, name: &str, more: &str) -> Value {
        let made = self.create(name, more);
        assert!(made.status.success(), "{}", text(&made.stderr));
        serde_json::from_slice(&made.stdout).unwrap()
    }

    fn verify(&self, name: &str, more: &str) -> Output {
        let file = self.path(name).display().to_string();
        self.real.run(format!("backup verify {file} --output json {more}").trim_end())
    }

    /// The configuration of another place, on the same token.
    fn elsewhere(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir(&dir).unwrap();
        let toml = fs::read_to_string(&self.real.config).unwrap();
        let data = |dir: &Path| format!("data_dir = \"{}/data\"", dir.display());
        let toml = toml.replacen(&data(self.real.dir.path()), &data(&dir), 1);
        let config = dir.join("strongroom.toml");
        fs::write(&config, toml).unwrap();
        config
    }

    fn restore(&self, name: &str, config: &Path, more: &[&str]) -> Output {
        let mut command = program();
        command.args(["backup", "restore"]).arg(self.path(name)).arg("--config").arg(config);
        command.args(more).output().unwrap()
    }
}

/// The head that waits for acceptance, as `--found` takes it.
fn found(socket: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"{\"command\":\"rollback\"}\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    let shown: Value = serde_json::from_str(&line).unwrap();
    format!("{}:{}", shown["found"]["size"], shown["found"]["root"].as_str().unwrap())
}

fn holds(file: &Path, text: &str) -> bool {
    fs::read(file).unwrap().windows(text.len()).any(|part| part == text.as_bytes())
}

/// Each of the three is on the record, with the key that wraps it.
fn is_on_the_record(w: &World) {
    let line = "audit list --action system.create-backup --output json";
    // Its place in the log comes within a second.
    let patience = Instant::now() + Duration::from_secs(30);
    let listed = loop {
        let listed = w.real.ask(&w.server, &w.alice, line);
        let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
        if listed.len() == 3 {
            break listed;
        }
        assert!(Instant::now() < patience, "{listed:?}");
    };
    assert!(
        listed[0]["keys"][0]["key"].as_str().unwrap().split('/').any(|part| part == "root"),
        "{listed:?}"
    );
}

#[test]
fn a_backup_is_made_under_load_yields_nothing_by_itself_and_opens_with_its_hsm_alone() {
    let w = World::new();
    let (busy, wrote) = (AtomicBool::new(true), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Not for ever, where what it waits for fails.
            for n in 0..500 {
                if !busy.load(Ordering::Relaxed) {
                    return;
                }
                let line = format!("secret put load/n{n} --value {n}");
                w.real.ask(&w.server, &w.alice, &line);
                wrote.store(true, Ordering::Relaxed);
            }
        });
        while !wrote.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let made = w.made("whole.backup", "");
        assert_eq!(made["content"], "whole");
        assert!(made["log_size"].as_i64().unwrap() > 0, "{made}");
        w.made("data.backup", "--without-key-wraps");
        w.made("wraps.backup", "--only-key-wraps");
        busy.store(false, Ordering::Relaxed);
    });
    let about = w.path("whole.backup").metadata().unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o777, 0o600);
    for name in ["whole.backup", "data.backup", "wraps.backup"] {
        // Not even names, which the store itself has in the open.
        for plain in [CANARY, "alice", "SQLite format 3", "apps/one"] {
            assert!(!holds(&w.path(name), plain), "{name}: {plain}");
        }
    }
    assert!(!w.path("data/vault.db-backup").exists(), "no copy is left beside the store");
    assert_eq!(w.create("whole.backup", "").status.code(), Some(6), "it replaces nothing");

    for (name, more, opened) in [
        ("whole.backup", String::new(), true),
        ("data.backup", String::new(), false),
        ("wraps.backup", String::new(), false),
        ("data.backup", format!("--key-wraps {}", w.path("wraps.backup").display()), true),
    ] {
        let found = w.verify(name, &more);
        assert!(found.status.success(), "{name}: {}", text(&found.stderr));
        let found: Value = serde_json::from_slice(&found.stdout).unwrap();
        assert_eq!(found["key_opened"], opened, "{name}: {found}");
        assert_eq!(found["key_wraps"] == 0, name == "data.backup" && more.is_empty(), "{found}");
    }
    is_on_the_record(&w);

    // Somebody who has the file and another HSM, or changes a byte of it, gets nothing.
    let other = Installation::new();
    let file = w.path("whole.backup").display().to_string();
    let refused = other.run(&format!("backup verify {file}"));
    assert_eq!(refused.status.code(), Some(9), "{}", text(&refused.stderr));
    let whole = fs::read(w.path("whole.backup")).unwrap();
    for (at, keep) in [(25, whole.len()), (whole.len() / 2, whole.len()), (0, whole.len() - 1)] {
        let mut bent = whole[..keep].to_vec();
        if keep == whole.len() {
            bent[at] ^= 4;
        }
        fs::write(w.path("bent.backup"), bent).unwrap();
        let refused = w.verify("bent.backup", "");
        assert_eq!(refused.status.code(), Some(9), "{at}: {}", text(&refused.stderr));
    }
    assert!(!w.path("data/pin-refused").exists());
}

#[test]
fn a_restore_goes_where_nothing_is_and_is_served_once_two_administrators_accept_it() {
    let test =
        "backup::a_restore_goes_where_nothing_is_and_is_served_once_two_administrators_accept_it";
    softhsm::in_child(test, |token| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let people = [("alice", ""), ("bob", "")];
        let Aged { real, people } = runtime.block_on(Aged::new(token, Backend::Sqlite, &people));
        let server = real.serve();
        let (alice, bob) = (people.person("alice"), people.person("bob"));
        restored(World::of(real, server, alice, bob), &people);
    });
}

fn restored(w: World, people: &People) {
    let token = w.path("token");
    w.real.ask(&w.server, &w.alice, &format!("token create --out {}", token.display()));
    w.made("data.backup", "--without-key-wraps");
    w.real.ask(&w.server, &w.alice, "secret put apps/later --value later");
    w.made("wraps.backup", "--only-key-wraps");
    let over = w.restore("data.backup", &w.real.config, &[]);
    assert_eq!(over.status.code(), Some(7), "its server runs: {}", text(&over.stderr));
    let World { real, server, alice, bob } = w;
    assert_eq!(server.stop(), Some(0));
    let w = World { server: real.serve(), real, alice, bob };
    let config = w.elsewhere("new");
    let without = w.restore("data.backup", &config, &[]);
    assert_eq!(without.status.code(), Some(2), "{}", text(&without.stderr));
    assert!(!w.path("new/data/vault.db").exists(), "nothing is put there that does not open");
    let wraps = w.path("wraps.backup").display().to_string();
    let with = ["--key-wraps", &wraps];
    let restored = w.restore("data.backup", &config, &with);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    let again = w.restore("data.backup", &config, &with);
    assert_eq!(again.status.code(), Some(6), "{}", text(&again.stderr));

    let World { real, server, alice, bob } = w;
    assert_eq!(server.stop(), Some(0));
    // The HSM knows the longer log: this one is older.
    let dir = real.dir.path().join("new");
    let mut command = program();
    command.arg("server").arg("--config").arg(&config);
    let server = Running::start(command, &dir);
    let socket = dir.join("data/control.sock").display().to_string();
    let status = || {
        let shown = program().args(["status", "--output", "json", "--socket", &socket]).output();
        serde_json::from_slice::<Value>(&shown.unwrap().stdout).unwrap()
    };
    assert_eq!(status()["state"], "held");
    let found = found(&socket);
    let accept = |who: &Person, more: &[&str]| {
        let mut accept = real.client(&server, who, "backup accept --output json --socket");
        let accepted = accept.arg(&socket).args(["--found", &found]).args(more).output().unwrap();
        assert!(accepted.status.success(), "{}", text(&accepted.stderr));
        accepted
    };
    let code = |name: &str| people.code(name).display().to_string();
    let id = ceremony(&accept(&alice, &["--code-file", &code("alice")]));
    accept(&bob, &["--ceremony", &id, "--code-file", &code("bob")]);
    assert_eq!(status()["state"], "held");
    accept(&alice, &[]);
    let now = status();
    assert_eq!((&now["state"], &now["restores"]), (&json!("unsealed"), &json!(1)));
    let listed = text(&real.ask(&server, &alice, "secret list --output json").stdout);
    assert!(listed.contains("apps/one"), "{listed}");
    assert!(!listed.contains("apps/later"), "what came after the backup is not in it: {listed}");
    let mut bearer = real.client(&server, &alice, "whoami --token-file");
    bearer.arg(&token).env_remove("STRONGROOM_CERT").env_remove("STRONGROOM_KEY");
    let void = bearer.output().unwrap();
    assert_eq!(void.status.code(), Some(3), "tokens from before are void: {}", text(&void.stderr));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_restore_of_which_nobody_was_told_more_shreds_again_who_was_shredded_since() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let at = |name: &str| dir.join(name).display().to_string();
    let server = dev(dir);
    let config = configure(dir);
    owns_a_secret(&server, "gone");
    let (backup, socket) = (at("whole.backup"), at("control.sock"));
    let line = format!("backup create --out {backup} --socket {socket}");
    let made = program().args(line.split(' ')).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let shredded = as_admin(&server, "identity shred gone --confirm gone");
    assert!(shredded.status.success(), "{}", text(&shredded.stderr));
    assert_eq!(server.stop(), Some(0));
    // The token alone knows then: the machine with the list may be lost as well.
    for name in ["vault.db", "vault.db-wal", "vault.db-shm", "shredded"] {
        drop(fs::remove_file(dir.join(name)));
    }
    let mut restore = program();
    restore.args(["backup", "restore", &backup, "--config"]).arg(&config);
    let restored = restore.output().unwrap();
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert!(text(&restored.stderr).contains("shredded again"), "{}", text(&restored.stderr));
    assert_eq!(wraps_of(dir, "gone"), 1, "it is a backup from before");
    let server = dev(dir);
    assert_eq!(wraps_of(dir, "gone"), 1, "nobody is served yet");
    let accepted =
        as_admin(&server, &format!("backup accept --socket {socket} --found {}", found(&socket)));
    assert!(accepted.status.success(), "{}", text(&accepted.stderr));
    assert_eq!(wraps_of(dir, "gone"), 0);
    let listed = text(&as_admin(&server, "identity shreds --output json").stdout);
    let id = fs::read_to_string(dir.join("shredded")).unwrap();
    assert!(listed.contains(id.trim_end()) && listed.contains("restore"), "{listed}");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn what_cannot_be_written_leaves_nothing_behind() {
    let w = World::new();
    let nowhere = w.real.local("backup create --out /dev/null/none");
    assert_eq!(nowhere.status.code(), Some(7), "{}", text(&nowhere.stderr));
    assert!(!w.path("data/vault.db-backup").exists());
    w.made("after.backup", "");
    // What one left that was cut off is gone before the store is served again.
    let left = w.path("data/vault.db-backup");
    let World { real, server, .. } = w;
    assert_eq!(server.stop(), Some(0));
    fs::create_dir(&left).unwrap();
    fs::write(left.join("copy"), "a copy").unwrap();
    let server = real.serve();
    assert!(!left.exists());
    assert_eq!(server.stop(), Some(0));
}
