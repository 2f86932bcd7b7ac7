//! The drills of `docs/disaster.md`, typed: holders, a set, shares, another token; a recovery token.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use strongroom::hsm::softhsm;

use crate::support::program::{Running, as_admin, dev, program, text};

const PAGE: &str = include_str!("../../../docs/disaster.md");

/// Runs what a holder types, with no vault.
fn holder(line: &str) -> Output {
    let done = program().args(line.split(' ')).output().unwrap();
    assert!(done.status.success(), "{line}: {}", text(&done.stderr));
    done
}

/// Writes the configuration of a development vault, for what takes one: its administrator holds the
/// ceremony that a set takes.
pub(crate) fn configure(dir: &Path) -> PathBuf {
    let config = dir.join("strongroom.toml");
    let toml = format!(
        "[server]\ndata_dir = \"{dir}\"\n[store]\nurl = \"sqlite://{dir}/vault.db\"\n\
         [vault]\ntrust_domain = \"dev.strongroom.internal\"\nname = \"dev\"\n\
         [hsm]\nmodule = \"{module}\"\ntoken_label = \"{LABEL}\"\npin_file = \"{dir}/pin\"\n\
         environment = {{ SOFTHSM2_CONF = \"{dir}/softhsm2.conf\" }}\n",
        module = softhsm::lookup_module().unwrap().display(),
        dir = dir.display(),
    );
    fs::write(&config, toml).unwrap();
    config
}

/// Registers a machine that has a key.
pub(crate) fn owns_a_secret(server: &Running, name: &str) {
    for line in [
        format!("identity create {name} --kind pipeline --owner admin --purpose test --tier low"),
        format!("grant add admin --action secrets.put --resource secrets/{name}/**"),
        format!("secret put {name}/one --owner {name} --value canary"),
    ] {
        let done = as_admin(server, &line);
        assert!(done.status.success(), "{line}: {}", text(&done.stderr));
    }
}

/// How many wraps of somebody's keys a development vault's store holds.
pub(crate) fn wraps_of(dir: &Path, name: &str) -> i64 {
    let store = rusqlite::Connection::open(dir.join("vault.db")).unwrap();
    let sql = "SELECT COUNT(*) FROM key_wraps WHERE key_id IN (SELECT k.id FROM identity_keys k \
               JOIN identities i ON i.id = k.owner WHERE i.name = ?1)";
    store.query_row(sql, [name], |row| row.get(0)).unwrap()
}

/// A holder opens a share with a key.
fn open_share(dir: &Path, name: &str, key: &str, out: &str) -> Output {
    let at = |name: &str| dir.join(name).display().to_string();
    let share = at(&format!("{name}.share"));
    let line = format!("recovery-set open-share {share} --key-file {} --out {}", at(key), at(out));
    program().args(line.split(' ')).output().unwrap()
}

const LABEL: &str = "strongroom-dev";

/// Loses the token, and makes another in its place.
fn lose_token(dir: &Path) {
    fs::remove_dir_all(dir.join("tokens")).unwrap();
    fs::create_dir(dir.join("tokens")).unwrap();
    make_token(dir, LABEL, &fs::read_to_string(dir.join("pin")).unwrap());
}

fn make_token(dir: &Path, label: &str, pin: &str) {
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", "19283746"])
        .env(softhsm::CONFIGURATION_VARIABLE, dir.join("softhsm2.conf"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
}

#[test]
fn the_page_says_what_the_drill_types() {
    for command in [
        "recovery-set holder-key --out",
        "recovery-set create --threshold",
        "recovery-set list",
        "recovery-set open-share",
        "strongroom backup restore FILE --config",
        "strongroom recover --config",
        "recover-admin",
        "strongroom recovery-token make spare --config",
        "strongroom recovery-set create --recovery-token spare=PUBKEY",
        "strongroom recovery-token accept",
        "--recovery-token SPARE",
    ] {
        assert!(PAGE.contains(command), "{command}");
    }
}

/// Waits until every key is wrapped for the first set.
fn wait_until_covered(server: &Running) {
    let listed = || {
        let listed = as_admin(server, "recovery-set list --output json");
        serde_json::from_slice::<Value>(&listed.stdout).unwrap()[0].clone()
    };
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while listed()["keys_covered"] != listed()["keys_total"] {
        assert!(std::time::Instant::now() < patience, "{}", listed());
    }
}

#[test]
fn the_drill_of_the_page_brings_a_vault_to_a_new_token() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let server = dev(dir);
    let config = configure(dir);
    let at = |name: &str| dir.join(name).display().to_string();
    owns_a_secret(&server, "gone");
    let mut create = format!("recovery-set create --threshold 2 --out {}", dir.display());
    for name in ["ann", "ben", "cem"] {
        let made = holder(&format!("recovery-set holder-key --output json --out {}", at(name)));
        let made: Value = serde_json::from_slice(&made.stdout).unwrap();
        create.extend([" --holder ", name, "=", made["public_key"].as_str().unwrap()]);
    }
    let made = as_admin(&server, &create);
    assert!(made.status.success(), "{}", text(&made.stderr));
    wait_until_covered(&server);
    let open = |name: &str, key: &str, out: &str| open_share(dir, name, key, out);
    for name in ["ann", "cem"] {
        let opened = open(name, name, &format!("{name}.open"));
        assert!(opened.status.success(), "{}", text(&opened.stderr));
    }
    let others = open("ben", "cem", "no.open");
    assert_eq!(others.status.code(), Some(9), "{}", text(&others.stderr));
    assert!(!Path::new(&at("no.open")).exists());
    let backup = at("vault.backup");
    let line = format!("backup create --out {backup} --socket {}", at("control.sock"));
    let made = program().args(line.split(' ')).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let old = fs::read(server.said("admin_cert_file")).unwrap();
    let shredded = as_admin(&server, "identity shred gone --confirm gone");
    assert!(shredded.status.success(), "{}", text(&shredded.stderr));
    assert_eq!(server.stop(), Some(0));

    let recover = |shares: &[&str]| {
        let mut command = program();
        command.args(["recover", "--output", "json", "--config"]).arg(&config);
        for share in shares {
            command.arg("--share").arg(at(share));
        }
        command.output().unwrap()
    };
    let there = recover(&["ann.open", "cem.open"]);
    assert_eq!(there.status.code(), Some(6), "its token is there: {}", text(&there.stderr));
    lose_token(dir);
    // The disk is lost as well: a backup opens with the shares.
    for name in ["vault.db", "vault.db-wal", "vault.db-shm"] {
        drop(fs::remove_file(dir.join(name)));
    }
    let mut restore = program();
    restore.args(["backup", "restore", &backup, "--config"]).arg(&config);
    let with = ["--share".to_owned(), at("ann.open"), "--share".to_owned(), at("cem.open")];
    let restored = restore.args(with).output().unwrap();
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    let few = recover(&["ann.open"]);
    assert_eq!(few.status.code(), Some(2), "{}", text(&few.stderr));
    let sealed = recover(&["ann.share", "cem.open"]);
    assert_eq!(sealed.status.code(), Some(2), "{}", text(&sealed.stderr));
    let done = recover(&["ann.open", "cem.open"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let done: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(done["keys_lost"], 0, "{done}");
    assert!(done["keys_wrapped"].as_u64().unwrap() >= 1, "{done}");
    assert!(wraps_of(dir, "gone") > 0, "the backup did not know");

    let server = dev(dir);
    assert_eq!(wraps_of(dir, "gone"), 0, "the list beside the store did");
    assert_eq!(fs::read(server.said("admin_cert_file")).unwrap(), old);
    let refused = as_admin(&server, "whoami");
    assert!(!refused.status.success(), "what the old authority signed is worth nothing");
    let examined = program().args(["doctor", "--config"]).arg(&config).output().unwrap();
    assert!(!text(&examined.stdout).contains("alarm"), "{}", text(&examined.stdout));
    assert_eq!(server.stop(), Some(0));
}

/// A development vault with a recovery token beside its own.
struct Spare {
    home: tempfile::TempDir,
    config: PathBuf,
}

const SPARE_PIN: &str = "55667788";
/// What `status` says of it: its kind and its name.
const EXPECTED: (Option<&str>, Option<&str>) = (Some("token"), Some("spare"));

impl Spare {
    fn new() -> (Self, Running) {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path();
        let server = dev(dir);
        let config = configure(dir);
        make_token(dir, "spare", SPARE_PIN);
        for (name, pin) in [("spare.pin", SPARE_PIN), ("wrong.pin", "00000000")] {
            fs::write(dir.join(name), pin).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        (Self { home, config }, server)
    }

    /// Loses every token but the recovery token, whose label stands in its files.
    fn lose_the_others(&self) {
        for token in fs::read_dir(self.home.path().join("tokens")).unwrap() {
            let token = token.unwrap().path();
            let about = fs::read(token.join("token.object")).unwrap();
            if !about.windows(5).any(|window| window == b"spare") {
                fs::remove_dir_all(token).unwrap();
            }
        }
    }

    fn at(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    /// Runs a command with a recovery token, whose PIN is in a file.
    fn run(&self, line: &str, token: &str, pin: &str) -> Output {
        program()
            .args(line.split(' '))
            .arg("--config")
            .arg(&self.config)
            .args(["--output", "json", "--recovery-token", token])
            .args(["--recovery-pin-file", &self.at(pin)])
            .output()
            .unwrap()
    }

    /// Runs one that comes to its end.
    fn done(&self, line: &str) -> Value {
        let done = self.run(line, "spare", "spare.pin");
        assert!(done.status.success(), "{line}: {}", text(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    }

    /// What `doctor` finds of something: level and words.
    fn examined(&self, check: &str) -> (String, String) {
        let mut doctor = program();
        doctor.args(["doctor", "--output", "json", "--config"]).arg(&self.config);
        let found: Vec<Value> = serde_json::from_slice(&doctor.output().unwrap().stdout).unwrap();
        let found = found.iter().find(|one| one["check"] == check);
        let found = found.unwrap_or_else(|| panic!("nothing about {check}"));
        let word = |key: &str| found[key].as_str().unwrap().to_owned();
        (word("level"), word("found"))
    }

    /// Makes the token the recipient of every key.
    fn add(&self, server: &Running) {
        assert_eq!(self.examined("recovery").0, "warning", "there is none");
        let made = self.done("recovery-token make spare");
        assert_eq!(self.done("recovery-token make spare"), made);
        let public = made["public_key"].as_str().unwrap();
        let out = self.home.path().display();
        let line = format!("recovery-set create --recovery-token spare={public} --out {out}");
        let created = as_admin(server, &line);
        assert!(created.status.success(), "{}", text(&created.stderr));
        let share = self.at("spare.share");
        self.done(&format!("recovery-token accept {share}"));
        let status = format!("status --output json --socket {}", self.at("control.sock"));
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            let shown = program().args(status.split(' ')).output().unwrap();
            let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
            let set = &shown["recovery_sets"][0];
            if set["keys_total"].is_i64() && set["keys_covered"] == set["keys_total"] {
                assert_eq!((set["custody"].as_str(), set["holders"][0].as_str()), EXPECTED);
                break;
            }
            assert!(std::time::Instant::now() < patience, "{shown}");
        }
        let (level, found) = self.examined("recovery");
        assert!(level == "ok" && found.starts_with("token spare: "), "{level} {found}");
    }
}

#[test]
fn the_drill_of_the_page_brings_a_vault_to_a_new_token_with_the_recovery_token_and_into_it() {
    let (spare, server) = Spare::new();
    let dir = spare.home.path();
    spare.add(&server);
    let backup = spare.at("vault.backup");
    let line = format!("backup create --out {backup} --socket {}", spare.at("control.sock"));
    let made = program().args(line.split(' ')).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(server.stop(), Some(0));

    let there = spare.run("recover", "spare", "spare.pin");
    assert_eq!(there.status.code(), Some(6), "its token is there: {}", text(&there.stderr));
    spare.lose_the_others();
    make_token(dir, LABEL, &fs::read_to_string(dir.join("pin")).unwrap());
    for name in ["vault.db", "vault.db-wal", "vault.db-shm"] {
        drop(fs::remove_file(dir.join(name)));
    }
    let restored = spare.done(&format!("backup restore {backup}"));
    assert_eq!(restored["backup"]["content"], "whole", "{restored}");
    for (token, pin, why) in [
        ("spare", "wrong.pin", "refused the PIN"),
        ("other", "spare.pin", "no token is there"),
        (LABEL, "pin", "keeps nothing"),
    ] {
        let refused = spare.run("recover", token, pin);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(7), "{token}: {said}");
        assert!(said.contains(why), "{token}: {said}");
    }
    let done = spare.done("recover");
    assert_eq!(done["keys_lost"], 0, "{done}");
    assert!(done["keys_wrapped"].as_u64().unwrap() >= 1, "{done}");
    let server = dev(dir);
    let refused = as_admin(&server, "whoami");
    assert!(!refused.status.success(), "what the old authority signed is worth nothing");
    assert_eq!(server.stop(), Some(0));

    // The new one is lost too: the recovery token takes its place.
    spare.lose_the_others();
    let toml = fs::read_to_string(&spare.config).unwrap();
    let toml = toml.replace(LABEL, "spare").replace("/pin\"", "/spare.pin\"");
    fs::write(&spare.config, toml).unwrap();
    let done = spare.done("recover");
    assert_eq!(done["keys_lost"], 0, "{done}");
    assert_eq!(spare.examined("keys").0, "ok");
    assert_eq!(spare.examined("recovery").0, "ok");
}
