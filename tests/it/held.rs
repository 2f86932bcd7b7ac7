//! A store that was put back to an older state, on the real program with a token that knows better.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use strongroom::cli::control::{LogHead, Rollback};

use crate::support::aged::{Aged, People, ceremony};
use crate::support::logins;
use crate::support::node::Backend;
use crate::support::postgres::{Postgres, tool};
use crate::support::program::{Installation, Person, Running, copy_store, text};
use crate::support::softhsm::{self, Token};

/// An installation whose store is older than the head that the token keeps, or was written to.
struct Held {
    real: Installation,
    server: Running,
}

/// Puts a store back as it was before some calls.
fn roll_back(real: &Installation, who: &Person) {
    let (data, backup) = (real.dir.path().join("data"), real.dir.path().join("backup"));
    fs::create_dir_all(&backup).unwrap();
    copy_store(&data, &backup);
    let server = real.serve();
    for _ in 0..3 {
        real.ask(&server, who, "whoami");
    }
    assert_eq!(server.stop(), Some(0));
    copy_store(&backup, &data);
}

/// Restores a dump of PostgreSQL, taken while it served, into another database.
fn restore_dump(real: &Installation, who: &Person) {
    let run = |program: &str, args: &[&str]| {
        let done = tool(program).args(args).output().unwrap();
        assert!(done.status.success(), "{program}: {}", text(&done.stderr));
    };
    let toml = fs::read_to_string(&real.config).unwrap();
    let (_, rest) = toml.split_once("/store_").unwrap();
    let store = format!("store_{}", rest.split('?').next().unwrap());
    let restored = format!("{store}_restored");
    let dump = real.dir.path().join("store.dump").display().to_string();
    let url = |database: &str| Postgres::shared().url(database);
    let server = real.serve();
    run("pg_dump", &["--format=custom", "--file", &dump, &url(&store)]);
    for _ in 0..3 {
        real.ask(&server, who, "whoami");
    }
    assert_eq!(server.stop(), Some(0));
    let maintenance = format!("--maintenance-db={}", url("postgres"));
    run("createdb", &[&maintenance, "--template=template0", &restored]);
    let into = format!("--dbname={}", url(&restored));
    run("pg_restore", &["--no-owner", "--exit-on-error", &into, &dump]);
    real.replace(&format!("/{store}?"), &format!("/{restored}?"));
}

impl Held {
    /// Of an administrator, alice, and of carol, who is none, both made a moment ago.
    fn new(act: impl FnOnce(&Installation, &Person)) -> (Self, Person, Person) {
        let real = Installation::new();
        assert!(real.init().status.success());
        let server = real.serve();
        let alice = real.register(&server, &real.bootstrap(), "alice");
        let carol = real.register(&server, &alice, "carol");
        assert_eq!(server.stop(), Some(0));
        act(&real, &alice);
        let server = real.serve();
        (Self { real, server }, alice, carol)
    }

    /// Of administrators who can hold a ceremony: alice, who has another account, and bob.
    async fn aged(
        token: &Token,
        backend: Backend,
        act: impl FnOnce(&Installation, &Person),
    ) -> (Self, People) {
        let people = [("alice", "ann"), ("twin", "ann"), ("bob", "")];
        let Aged { real, people } = Aged::new(token, backend, &people).await;
        act(&real, &people.person("alice"));
        let server = real.serve();
        (Self { real, server }, people)
    }

    /// Accepts what the vault found.
    fn accept(&self, who: &Person, more: &[&str]) -> Output {
        let socket = self.real.dir.path().join("data/control.sock");
        let line = "backup accept --output json --socket";
        let mut command = self.real.client(&self.server, who, line);
        command.arg(socket).args(more);
        let shown = self.exchange(&json!({ "command": "rollback" }));
        if let Some(root) = shown["found"]["root"].as_str() {
            command.arg("--found").arg(format!("{}:{root}", shown["found"]["size"]));
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

    fn restores(&self) -> Value {
        let shown = self.real.local("status --output json");
        serde_json::from_slice::<Value>(&shown.stdout).unwrap()["restores"].clone()
    }
}

/// A refusal, by its exit code and a part of what it says.
fn refused(done: &Output, code: i32, because: &str) {
    let why = text(&done.stderr);
    assert!(done.status.code() == Some(code) && why.contains(because), "{because}: {why}");
}

/// A statement, signed with somebody's key.
fn signed(who: &Person, statement: &str) -> Value {
    let (certificate, signature) = logins::sign(&who.login(), statement);
    let (certificate, signature) = (STANDARD.encode(certificate), STANDARD.encode(signature));
    json!({ "command": "accept", "certificate": certificate, "signature": signature })
}

/// Runs a test in a process with a token of its own.
fn run(test: &str, body: impl AsyncFnOnce(&Token)) {
    softhsm::in_child(test, |token| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(body(token));
    });
}

#[test]
fn a_rolled_back_store_is_held_until_two_administrators_accept_it() {
    run("held::a_rolled_back_store_is_held_until_two_administrators_accept_it", async |token| {
        let (held, people) = Held::aged(token, Backend::Sqlite, roll_back).await;
        let (alice, bob) = (people.person("alice"), people.person("bob"));
        let (state, because) = held.real.state();
        assert_eq!(state, "held", "{because}");
        assert!(because.contains("does not extend"), "{because}");
        assert_eq!(held.real.local("status").status.code(), Some(8));
        let whoami = held.real.client(&held.server, &alice, "whoami").output().unwrap();
        refused(&whoami, 8, "administrators must accept it");
        let (code, why) = held.server.http("/readyz");
        assert_eq!((code, why.starts_with("held")), (503, true), "{why}");

        // A login alone accepts nothing.
        refused(&held.accept(&alice, &[]), 3, "--code-file");
        let code = |name: &str| people.code(name).display().to_string();
        let opened = held.accept(&alice, &["--code-file", &code("alice")]);
        let id = ceremony(&opened);
        assert!(text(&opened.stderr).contains("found "), "shown: {}", text(&opened.stderr));
        // Asking again is not enough, nor does who asked approve it, by whichever account.
        assert_eq!(ceremony(&held.accept(&alice, &[])), id);
        refused(&held.accept(&alice, &["--ceremony", &id]), 4, "whichever account");
        let twins = ["--ceremony", &id, "--code-file", &code("twin")];
        refused(&held.accept(&people.person("twin"), &twins), 4, "whichever account");
        refused(&held.accept(&bob, &["--ceremony", &id]), 3, "STEP_UP_REQUIRED");
        let none = ["--ceremony", "0197a1c0-0000-7000-8000-000000000001"];
        refused(&held.accept(&bob, &none), 5, "no such ceremony");
        let bobs = ["--ceremony", &id, "--code-file", &code("bob")];
        let approved = held.accept(&bob, &bobs);
        assert!(text(&approved.stdout).contains("is approved"), "{}", text(&approved.stderr));
        assert_eq!((held.real.state().0.as_str(), held.restores()), ("held", json!(0)));
        let done = held.accept(&alice, &[]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert_eq!(held.real.state().0, "unsealed");
        assert_eq!(held.restores(), json!(1), "what was handed out before is void");
        refused(&held.accept(&alice, &[]), 7, "nothing waits");

        let line = "audit list --action system.accept-rollback --output json";
        let found: Value = wait_for(|| {
            let listed = held.real.ask(&held.server, &alice, line);
            let found: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
            found.into_iter().find(|entry| entry["outcome"] == "ok")
        });
        assert_eq!((&found["identity"], &found["method"]), (&json!("alice"), &json!("signature")));
        let detail = found["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("ceremony {id} approved by ")), "{detail}");
        held.real.ask(&held.server, &alice, "audit verify");
        let Held { real, server } = held;
        assert_eq!(server.stop(), Some(0));
        let server = real.serve();
        assert_eq!(real.state().0, "unsealed", "the token keeps the accepted head");
        assert_eq!(server.stop(), Some(0));
    });
}

#[test]
fn a_dump_of_postgresql_that_was_restored_is_held_until_it_is_accepted() {
    run(
        "held::a_dump_of_postgresql_that_was_restored_is_held_until_it_is_accepted",
        async |token| {
            let (held, people) = Held::aged(token, Backend::Postgres, restore_dump).await;
            let (alice, bob) = (people.person("alice"), people.person("bob"));
            let (state, because) = held.real.state();
            assert_eq!(state, "held", "{because}");
            assert!(because.contains("does not extend"), "{because}");
            let code = |name: &str| people.code(name).display().to_string();
            let id = ceremony(&held.accept(&alice, &["--code-file", &code("alice")]));
            let approved = held.accept(&bob, &["--ceremony", &id, "--code-file", &code("bob")]);
            assert!(approved.status.success(), "{}", text(&approved.stderr));
            let done = held.accept(&alice, &[]);
            assert!(done.status.success(), "{}", text(&done.stderr));
            assert_eq!(held.real.state().0, "unsealed");
            held.real.ask(&held.server, &alice, "identity list");
            // The log that is accepted is signed within a second.
            wait_for(|| {
                let verified = held.real.client(&held.server, &alice, "audit verify").output();
                verified.unwrap().status.success().then_some(())
            });
            assert_eq!(held.server.stop(), Some(0));
        },
    );
}

#[test]
fn a_signature_counts_for_the_very_rollback_that_it_names() {
    let (held, alice, carol) = Held::new(roll_back);
    let shown = held.exchange(&json!({ "command": "rollback" }));
    let read = |key: &str| LogHead {
        size: shown[key]["size"].as_i64().unwrap(),
        root: shown[key]["root"].as_str().unwrap().to_owned(),
    };
    let (kept, found) = (read("kept"), read("found"));
    assert!(kept.size > found.size);
    let vault_id = shown["vault_id"].as_str().unwrap().to_owned();
    let right = Rollback { vault_id, kept: Some(kept), found, altered: false, unnamed: 0 };
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
        let refused = held.exchange(&signed(&alice, &statement));
        assert_eq!(refused["reason"], "UNAUTHENTICATED", "{what}: {refused}");
    }
    // Somebody else's key under an administrator's certificate.
    let mut forged = signed(&carol, &right.statement());
    forged["certificate"] = signed(&alice, "")["certificate"].clone();
    assert_eq!(held.exchange(&forged)["reason"], "UNAUTHENTICATED");
    for broken in ["!", "AAAA"] {
        let mut request = signed(&alice, &right.statement());
        request["certificate"] = json!(broken);
        assert_eq!(held.exchange(&request)["reply"], "failed", "{broken}");
    }
    assert_eq!(held.real.state().0, "held");
    let counts = held.exchange(&signed(&alice, &right.statement()));
    assert_eq!(counts["reason"], "STEP_UP_REQUIRED", "that is what she is asked next: {counts}");
    let with = |code: &str| {
        let mut request = signed(&alice, &right.statement());
        request["code"] = json!(code);
        held.exchange(&request)
    };
    let wrong = with("123456");
    assert_eq!(wrong["reason"], "PRECONDITION", "she has no factor: {wrong}");
    for odd in ["12 34", "", "\u{0}"] {
        assert_eq!(with(odd)["reason"], "INVALID", "{odd:?}");
    }
    assert_eq!(held.real.state().0, "held");
}

#[test]
fn a_false_socket_gets_nothing_signed_but_the_head_that_was_named() {
    let (held, alice, _) = Held::new(roll_back);
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
        let mut command = held.real.client(&held.server, &alice, "backup accept --socket");
        let refused = command.arg(&path).arg("--found").arg(named).output().unwrap();
        assert_eq!(refused.status.code(), Some(code), "{}", text(&refused.stderr));
        assert!(asked.join().unwrap().accept().is_err(), "nothing was sent");
    }
}

#[test]
fn an_altered_head_is_held_and_is_not_accepted_as_a_rollback() {
    let (held, alice, carol) = Held::new(|real, _| {
        let store = rusqlite::Connection::open(real.dir.path().join("data/vault.db")).unwrap();
        store.execute("UPDATE log_head SET mac = zeroblob(32)", []).unwrap();
    });
    let (state, because) = held.real.state();
    assert_eq!(state, "held", "{because}");
    assert!(because.contains("none that this vault wrote"), "{because}");
    let shown = held.exchange(&json!({ "command": "rollback" }));
    assert_eq!((&shown["altered"], &shown["kept"]), (&json!(true), &shown["found"]), "{shown}");

    refused(&held.accept(&alice, &[]), 7, "--altered");
    let whole: LogHead = serde_json::from_value(shown["found"].clone()).unwrap();
    let vault_id = shown["vault_id"].as_str().unwrap().to_owned();
    let plain =
        Rollback { vault_id, kept: Some(whole.clone()), found: whole, altered: false, unnamed: 0 };
    let unsigned = held.exchange(&signed(&alice, &plain.statement()));
    assert_eq!(unsigned["reason"], "UNAUTHENTICATED", "signed for a rollback: {unsigned}");

    refused(&held.accept(&carol, &["--altered"]), 4, "ask an administrator");
    let bootstrap = held.real.bootstrap();
    refused(&held.accept(&bootstrap, &["--altered"]), 4, "bootstrap certificate");
    refused(&held.accept(&alice, &["--altered"]), 3, "STEP_UP_REQUIRED");
    let nobody = held.real.local("backup accept");
    assert_eq!(nobody.status.code(), Some(2), "{}", text(&nobody.stderr));
    let socket = held.real.dir.path().join("data/control.sock");
    let mut unnamed = held.real.client(&held.server, &alice, "backup accept --altered --socket");
    let unnamed = unnamed.arg(socket).output().unwrap();
    let found = format!("{}:{}", shown["found"]["size"], shown["found"]["root"].as_str().unwrap());
    refused(&unnamed, 7, &found);
    assert_eq!(held.real.state().0, "held");
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
