//! A store that was put back to an older state, on the real program with a token that knows better.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use strongroom::cli::control::{LogHead, Rollback};

use crate::support::logins;
use crate::support::node::Login;
use crate::support::postgres::{Postgres, tool};
use crate::support::program::{Installation, Person, Running, text};

/// An installation whose store is older than the head that the token keeps.
struct Held {
    real: Installation,
    server: Running,
    alice: Person,
    /// Another account of whose alice is.
    twin: Person,
    bob: Person,
    carol: Person,
}

/// The store's files, as a backup takes them of a server that is stopped.
fn copy_store(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["vault.db", "vault.db-wal", "vault.db-shm"] {
        drop(fs::remove_file(to.join(name)));
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

impl Held {
    /// With a store that was put back.
    fn new() -> Self {
        Self::after(Installation::new(), |real, alice| {
            let (data, backup) = (real.dir.path().join("data"), real.dir.path().join("backup"));
            copy_store(&data, &backup);
            let server = real.serve();
            for _ in 0..3 {
                real.ask(&server, alice, "whoami");
            }
            assert_eq!(server.stop(), Some(0));
            copy_store(&backup, &data);
        })
    }

    /// With a store whose log's head somebody edited.
    fn altered() -> Self {
        Self::after(Installation::new(), |real, _| {
            let store = rusqlite::Connection::open(real.dir.path().join("data/vault.db")).unwrap();
            store.execute("UPDATE log_head SET mac = zeroblob(32)", []).unwrap();
        })
    }

    /// With a dump of PostgreSQL, taken while it served, that was restored into another database.
    async fn on_postgres() -> Self {
        let real = Installation::on_postgres().await;
        let run = |program: &str, args: &[&str]| {
            let done = tool(program).args(args).output().unwrap();
            assert!(done.status.success(), "{program}: {}", text(&done.stderr));
        };
        Self::after(real, |real, alice| {
            let toml = fs::read_to_string(&real.config).unwrap();
            let (_, rest) = toml.split_once("/store_").unwrap();
            let store = format!("store_{}", rest.split('?').next().unwrap());
            let restored = format!("{store}_restored");
            let dump = real.dir.path().join("store.dump").display().to_string();
            let url = |database: &str| Postgres::shared().url(database);
            let server = real.serve();
            run("pg_dump", &["--format=custom", "--file", &dump, &url(&store)]);
            for _ in 0..3 {
                real.ask(&server, alice, "whoami");
            }
            assert_eq!(server.stop(), Some(0));
            let maintenance = format!("--maintenance-db={}", url("postgres"));
            run("createdb", &[&maintenance, "--template=template0", &restored]);
            let into = format!("--dbname={}", url(&restored));
            run("pg_restore", &["--no-owner", "--exit-on-error", &into, &dump]);
            real.replace(&format!("/{store}?"), &format!("/{restored}?"));
        })
    }

    fn after(real: Installation, act: impl FnOnce(&Installation, &Person)) -> Self {
        assert!(real.init().status.success());
        let server = real.serve();
        let bootstrap = real.bootstrap();
        let ann = |name: &str| {
            let line = "--kind human --purpose test --tier high --person ann";
            real.ask(&server, &bootstrap, &format!("identity create {name} {line}"));
            real.sign(&server, &bootstrap, name)
        };
        let (alice, twin) = (ann("alice"), ann("twin"));
        let bob = real.register(&server, &bootstrap, "bob");
        let carol = real.register(&server, &alice, "carol");
        assert_eq!(server.stop(), Some(0));
        act(&real, &alice);
        let server = real.serve();
        Self { real, server, alice, twin, bob, carol }
    }

    fn accept(&self, who: &Person) -> Output {
        self.accept_with(who, "backup accept --socket")
    }

    fn accept_with(&self, who: &Person, line: &str) -> Output {
        let socket = self.real.dir.path().join("data/control.sock");
        let mut command = self.real.client(&self.server, who, line);
        let shown = self.exchange(&json!({ "command": "rollback" }));
        if let Some(root) = shown["found"]["root"].as_str() {
            command.arg(socket).arg("--found").arg(format!("{}:{root}", shown["found"]["size"]));
        } else {
            command.arg(socket);
        }
        command.output().unwrap()
    }

    /// One line each way on the control socket.
    fn exchange(&self, request: &Value) -> Value {
        let socket = self.real.dir.path().join("data/control.sock");
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

/// A statement, signed with somebody's key.
fn signed(who: &Person, statement: &str) -> Value {
    let read = |path| fs::read_to_string(path).unwrap();
    let login = Login { certificate_pem: read(&who.certificate), key_pem: read(&who.key) };
    let (certificate, signature) = logins::sign(&login, statement);
    let (certificate, signature) = (STANDARD.encode(certificate), STANDARD.encode(signature));
    json!({ "command": "accept", "certificate": certificate, "signature": signature })
}

#[test]
fn a_rolled_back_store_is_held_until_two_different_administrators_accept_it() {
    let held = Held::new();
    let (state, because) = held.real.state();
    assert_eq!(state, "held", "{because}");
    assert!(because.contains("does not extend"), "{because}");
    let status = held.real.local("status");
    assert_eq!(status.status.code(), Some(8));
    let refused = held.real.client(&held.server, &held.alice, "whoami").output().unwrap();
    assert_eq!(refused.status.code(), Some(8), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("administrators must accept it"));
    let (code, why) = held.server.http("/readyz");
    assert_eq!((code, why.starts_with("held")), (503, true), "{why}");

    let refused = held.accept(&held.carol);
    assert_eq!(refused.status.code(), Some(4), "no administrator: {}", text(&refused.stderr));
    let unknown = held.accept(&held.real.bootstrap());
    assert_eq!(unknown.status.code(), Some(4), "{}", text(&unknown.stderr));
    let without = held.real.local("backup accept");
    assert_eq!(without.status.code(), Some(2), "{}", text(&without.stderr));
    let socket = held.real.dir.path().join("data/control.sock");
    let mut unnamed = held.real.client(&held.server, &held.alice, "backup accept --socket");
    let unnamed = unnamed.arg(socket).output().unwrap();
    assert_eq!(unnamed.status.code(), Some(7), "{}", text(&unnamed.stderr));
    let shown = held.exchange(&json!({ "command": "rollback" }));
    let found = format!("{}:{}", shown["found"]["size"], shown["found"]["root"].as_str().unwrap());
    assert!(text(&unnamed.stderr).contains(&found), "{}", text(&unnamed.stderr));

    let once = held.accept(&held.alice);
    assert!(once.status.success(), "{}", text(&once.stderr));
    assert!(text(&once.stdout).contains("accepted by alice; another"), "{}", text(&once.stdout));
    assert!(text(&once.stderr).contains("found "), "shown: {}", text(&once.stderr));
    // Nor by another account of the same person.
    for (again, who) in [&held.alice, &held.alice, &held.twin].into_iter().enumerate() {
        let twice = held.accept(who);
        assert_eq!(twice.status.code(), Some(7), "{again}: {}", text(&twice.stderr));
        assert!(text(&twice.stderr).contains("another administrator"), "{}", text(&twice.stderr));
        assert_eq!(held.real.state().0, "held");
    }
    let restores = || {
        let shown = held.real.local("status --output json");
        serde_json::from_slice::<Value>(&shown.stdout).unwrap()["restores"].clone()
    };
    assert_eq!(restores(), json!(0));
    let both = held.accept(&held.bob);
    assert!(both.status.success(), "{}", text(&both.stderr));
    assert_eq!(held.real.state().0, "unsealed");
    assert_eq!(restores(), json!(1), "what was handed out before is void");
    assert_eq!(held.accept(&held.bob).status.code(), Some(7), "nothing waits any more");

    let line = "audit list --action system.accept-rollback --output json";
    let found: Vec<Value> = wait_for(|| {
        let listed = held.real.ask(&held.server, &held.alice, line);
        let found: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
        (found.len() == 2).then_some(found)
    });
    let text = json!(found).to_string();
    assert!(text.contains("alice") && text.contains("bob"), "{text}");
    assert!(text.contains("signature"), "{text}");
    held.real.ask(&held.server, &held.alice, "audit verify");
    let Held { real, server, .. } = held;
    assert_eq!(server.stop(), Some(0));
    let server = real.serve();
    assert_eq!(real.state().0, "unsealed", "the token keeps the accepted head");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_of_postgresql_that_was_restored_is_held_and_serves_once_it_is_accepted() {
    let held = Held::on_postgres().await;
    let (state, because) = held.real.state();
    assert_eq!(state, "held", "{because}");
    assert!(because.contains("does not extend"), "{because}");
    for who in [&held.alice, &held.bob] {
        let accepted = held.accept(who);
        assert!(accepted.status.success(), "{}", text(&accepted.stderr));
    }
    assert_eq!(held.real.state().0, "unsealed");
    held.real.ask(&held.server, &held.alice, "identity list");
    // The log that is accepted is signed within a second.
    wait_for(|| {
        let verified = held.real.client(&held.server, &held.alice, "audit verify").output();
        verified.unwrap().status.success().then_some(())
    });
}

#[test]
fn a_signature_counts_for_the_very_rollback_that_it_names() {
    let held = Held::new();
    let shown = held.exchange(&json!({ "command": "rollback" }));
    let read = |key: &str| LogHead {
        size: shown[key]["size"].as_i64().unwrap(),
        root: shown[key]["root"].as_str().unwrap().to_owned(),
    };
    let (kept, found) = (read("kept"), read("found"));
    assert!(kept.size > found.size);
    let vault_id = shown["vault_id"].as_str().unwrap().to_owned();
    let right = Rollback { vault_id, kept: Some(kept), found, altered: false };
    let change = |change: fn(&mut Rollback)| {
        let mut other = right.clone();
        change(&mut other);
        other.statement()
    };
    for (what, statement) in [
        ("another vault", change(|r| r.vault_id.replace_range(0..1, "x"))),
        ("another size", change(|r| r.found.size += 1)),
        ("another root", change(|r| r.found.root = r.kept.clone().unwrap().root)),
        ("another head kept", change(|r| r.kept.as_mut().unwrap().size -= 1)),
        ("no head kept", change(|r| r.kept = None)),
        ("the other way round", change(|r| std::mem::swap(r.kept.as_mut().unwrap(), &mut r.found))),
        ("an altered head", change(|r| r.altered = true)),
        ("nothing", String::new()),
    ] {
        let refused = held.exchange(&signed(&held.alice, &statement));
        assert_eq!(refused["reason"], "UNAUTHENTICATED", "{what}: {refused}");
    }
    // Somebody else's key under an administrator's certificate.
    let mut forged = signed(&held.carol, &right.statement());
    forged["certificate"] = signed(&held.alice, "")["certificate"].clone();
    assert_eq!(held.exchange(&forged)["reason"], "UNAUTHENTICATED");
    for broken in ["!", "AAAA"] {
        let mut request = signed(&held.alice, &right.statement());
        request["certificate"] = json!(broken);
        assert_eq!(held.exchange(&request)["reply"], "failed", "{broken}");
    }
    assert_eq!(held.real.state().0, "held");
    let accepted = held.exchange(&signed(&held.alice, &right.statement()));
    assert_eq!(accepted["reply"], "done", "{accepted}");
    assert_eq!(held.real.state().0, "held", "one is not enough");
}

#[test]
fn a_false_socket_gets_nothing_signed_but_the_head_that_was_named() {
    let held = Held::new();
    let mut shown = held.exchange(&json!({ "command": "rollback" }));
    let root = shown["found"]["root"].as_str().unwrap().to_owned();
    let injected = format!("{root}\nhead altered");
    let named = format!("{}:{root}", shown["found"]["size"]);
    for (root, named, code) in [
        (injected.clone(), format!("{}:{injected}", shown["found"]["size"]), 1),
        (injected, named.clone(), 1),
        ("00".repeat(32), named, 7),
    ] {
        shown["found"]["root"] = json!(root);
        let path = held.real.dir.path().join("false.sock");
        drop(fs::remove_file(&path));
        let listener = UnixListener::bind(&path).unwrap();
        let answer = format!("{shown}\n");
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            BufReader::new(stream).read_line(&mut String::new()).unwrap();
            // Whoever signs comes once more.
            listener.set_nonblocking(true).unwrap();
            listener
        });
        let mut command = held.real.client(&held.server, &held.alice, "backup accept --socket");
        let refused = command.arg(&path).arg("--found").arg(named).output().unwrap();
        assert_eq!(refused.status.code(), Some(code), "{}", text(&refused.stderr));
        assert!(asked.join().unwrap().accept().is_err(), "nothing was sent");
    }
}

#[test]
fn an_altered_head_is_held_until_two_different_administrators_accept_that() {
    let held = Held::altered();
    let (state, because) = held.real.state();
    assert_eq!(state, "held", "{because}");
    assert!(because.contains("none that this vault wrote"), "{because}");
    let shown = held.exchange(&json!({ "command": "rollback" }));
    assert_eq!((&shown["altered"], &shown["kept"]), (&json!(true), &shown["found"]), "{shown}");

    let unsaid = held.accept(&held.alice);
    assert_eq!(unsaid.status.code(), Some(7), "{}", text(&unsaid.stderr));
    assert!(text(&unsaid.stderr).contains("--altered"), "{}", text(&unsaid.stderr));
    let whole: LogHead = serde_json::from_value(shown["found"].clone()).unwrap();
    let vault_id = shown["vault_id"].as_str().unwrap().to_owned();
    let plain = Rollback { vault_id, kept: Some(whole.clone()), found: whole, altered: false };
    let refused = held.exchange(&signed(&held.alice, &plain.statement()));
    assert_eq!(refused["reason"], "UNAUTHENTICATED", "signed for a rollback: {refused}");

    let line = "backup accept --altered --socket";
    let carol = held.accept_with(&held.carol, line);
    assert_eq!(carol.status.code(), Some(4), "no administrator: {}", text(&carol.stderr));
    let once = held.accept_with(&held.alice, line);
    assert!(text(&once.stdout).contains("accepted by alice; another"), "{}", text(&once.stderr));
    assert_eq!(held.accept_with(&held.alice, line).status.code(), Some(7), "twice by one");
    assert_eq!(held.real.state().0, "held");
    let both = held.accept_with(&held.bob, line);
    assert!(both.status.success(), "{}", text(&both.stderr));
    assert_eq!(held.real.state().0, "unsealed");

    let line = "audit list --action system.accept-rollback --output json";
    let found: Vec<Value> = wait_for(|| {
        let listed = held.real.ask(&held.server, &held.alice, line);
        let found: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
        (found.len() == 2).then_some(found)
    });
    let text = json!(found).to_string();
    assert!(text.contains("alice") && text.contains("bob"), "{text}");
    assert!(text.contains("altered head"), "{text}");
    held.real.ask(&held.server, &held.alice, "audit verify");
    let Held { real, server, .. } = held;
    assert_eq!(server.stop(), Some(0));
    let server = real.serve();
    assert_eq!(real.state().0, "unsealed", "the vault vouches for the head again");
    assert_eq!(server.stop(), Some(0));
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(std::time::Instant::now() < patience, "in vain");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
