//! The program itself against a server of its own: changing, transferring, containing, listing,
//! tokens and revocation, as somebody types them.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::node::csr;
use crate::support::program::{Running, as_admin, dev, text};

struct Shell {
    server: Running,
    dir: TempDir,
}

impl Shell {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Self { server: dev(dir.path()), dir }
    }

    /// What a command says; it must succeed.
    fn says(&self, line: &str) -> String {
        let done = as_admin(&self.server, line);
        assert!(done.status.success(), "{line}: {}", text(&done.stderr));
        text(&done.stdout)
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.says(&format!("{line} --output json"))).unwrap()
    }

    /// The exit code of a command that must not succeed, and its words.
    fn fails(&self, line: &str) -> (i32, String) {
        let done = as_admin(&self.server, line);
        (done.status.code().unwrap(), text(&done.stderr))
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// The names that a list has.
    fn names(&self, filter: &str) -> Vec<String> {
        let listed = self.json(&format!("identity list {filter}"));
        let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
        listed.as_array().unwrap().iter().map(name).collect()
    }

    /// Signs a certificate for a name; its serial number.
    fn sign(&self, out: &Path) -> String {
        let request = self.file("web.csr");
        std::fs::write(&request, csr().1).unwrap();
        let (request, out) = (request.display(), out.display());
        self.says(&format!("pki sign web --csr {request} --dns web.test --out {out}"));
        let listed = self.json("pki list --role web");
        listed.as_array().unwrap().last().unwrap()["serial"].as_str().unwrap().to_owned()
    }
}

#[test]
fn identities_are_changed_found_transferred_and_contained_by_what_is_typed() {
    let shell = Shell::new();
    for (name, rest) in [
        ("carol", "--kind human --tier high"),
        ("data/etl", "--kind pipeline --tier low --owner admin --label env=stage --expires 60d"),
        ("data/bot", "--kind agent --tier low --owner carol --expires 5d"),
    ] {
        shell.says(&format!("identity create {name} --purpose test {rest}"));
    }
    let change =
        "identity update data/etl --tier high --label env=prod --needs analytics --expires 30d";
    let changed = shell.json(change);
    assert_eq!((&changed["tier"], &changed["labels"]["env"]), (&"high".into(), &"prod".into()));
    let changed = shell.json("identity update data/etl --no-label env");
    assert_eq!(changed["labels"], serde_json::json!({}));
    for (filter, found) in [
        ("--kind pipeline", &["data/etl"][..]),
        ("--owner carol", &["carol", "data/bot"]),
        ("--tier high --prefix data/", &["data/etl"]),
        ("--expiring-before 14d", &["data/bot"]),
        ("--search analytics", &["data/etl"]),
        ("--state registered --kind agent", &["data/bot"]),
        ("--orphaned", &[]),
        ("--label env=prod", &[]),
    ] {
        assert_eq!(shell.names(filter), found, "{filter}");
    }
    let moved = shell.json("identity transfer data/etl --to carol --reason leaves");
    assert_eq!(moved["owner"], "carol");
    let holdings = shell.says("identity show data/etl --holdings");
    for column in [
        "answers for",
        "orphans without it",
        "elevations",
        "factors",
        "invitations",
        "wraps",
        "others by its tokens",
        "CREDENTIALS",
    ] {
        assert!(holdings.contains(column), "{holdings}");
    }
    shell.says("identity suspend carol --dry-run");
    assert_eq!(shell.json("identity show carol")["state"], "registered", "a dry run is dry");
    shell.says("identity suspend second --reason drill");
    let last = shell.says("identity suspend admin --dry-run");
    assert!(last.contains("last administrator"), "{last}");
    let (code, words) = shell.fails("identity suspend admin");
    assert!(code != 0 && words.contains("last active administrator"), "{words}");
    shell.says("identity suspend carol --reason drill --wait 5s");
    assert_eq!(shell.names("--orphaned"), ["data/bot", "data/etl"]);
    let (code, words) = shell.fails("token create --for data/etl");
    assert!(code != 0, "nobody answers for it: {words}");
    assert_eq!(shell.json("identity resume carol")["state"], "registered");
    shell.says("identity retire data/bot --wait");
    assert_eq!(shell.json("identity show data/bot")["state"], "retired");
    assert_ne!(shell.fails("identity resume data/bot").0, 0);
}

#[test]
fn policies_tokens_and_certificates_are_managed_by_what_is_typed() {
    let shell = Shell::new();
    let put = "identity policy put pipeline --max-ttl 2h --max-age 4h --rotation 60d";
    let put = shell.json(&format!("{put} --development-rotation 20d --notice 1d"));
    assert_eq!(put["development_rotation_s"], 20 * 86_400);
    let bad = "identity policy put pipeline --max-ttl 2h --max-age 4h --rotation 1d";
    let (code, words) = shell.fails(&format!("{bad} --development-rotation 2d"));
    assert!(code != 0 && words.contains("rotation in development"), "{words}");
    let listed = shell.says("identity policy list");
    assert!(listed.contains("IN DEVELOPMENT") && listed.contains("20d"), "{listed}");
    shell.says("identity create etl --kind pipeline --tier low --owner admin --purpose test");
    let kept = shell.file("etl.token");
    let path = kept.display();
    shell.says(&format!("token create --for etl --ttl 30m --out {path}"));
    let shown = shell.json(&format!("token inspect --token-file {path}"));
    assert_eq!((&shown["identity"], &shown["state"]), (&"etl".into(), &"active".into()));
    let renewed = shell.json(&format!("token renew --ttl 60m --token-file {path}"));
    assert!(renewed["expires_at_ms"].as_i64() > shown["expires_at_ms"].as_i64());
    let accessor = shown["accessor"].as_str().unwrap();
    assert_eq!(shell.json(&format!("token revoke {accessor} --reason leaked"))["state"], "revoked");
    assert_eq!(shell.fails(&format!("token inspect --token-file {path}")).0, 3);
    shell.says("pki role put web --dns web.test");
    shell.says("grant add admin --action pki.sign --resource pki/web --reason test");
    let serial = shell.sign(&shell.file("web.pem"));
    shell.says(&format!("pki revoke {serial}"));
    let listed = shell.json("pki list --role web");
    assert_eq!(listed[0]["state"], "revoked");
    // The list is signed by a worker, within a second.
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let done = as_admin(&shell.server, "pki crl");
        if done.status.success() && names(&text(&done.stdout), &serial) {
            break;
        }
        assert!(std::time::Instant::now() < patience, "{}", text(&done.stderr));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // It stands in the log within a second.
    let mut said = String::new();
    while !said.contains("leaked") && std::time::Instant::now() < patience {
        said = shell.says("audit list --action tokens.revoke --detail");
    }
    assert!(said.contains("SOURCE") && said.contains("DETAIL"), "{said}");
    assert!(said.contains("127.0.0.1") && said.contains("leaked"), "{said}");
}

/// Whether a list, as PEM with a comment before it, names a serial number.
fn names(list: &str, serial: &str) -> bool {
    let Some(begin) = list.find("-----BEGIN") else { return false };
    let (_, pem) = x509_parser::pem::parse_x509_pem(&list.as_bytes()[begin..]).unwrap();
    let serial = strongroom::crypto::parse_hex(serial).unwrap();
    pem.contents.windows(serial.len()).any(|window| window == serial)
}
