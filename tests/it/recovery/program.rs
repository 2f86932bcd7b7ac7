//! The real command on a real token, which has the last word about the PIN.

use std::fs;
use std::process::Output;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::node::csr;
use crate::support::program::{Installation, PIN, text};

/// Runs `recover-admin` with a PIN in a file of its own.
fn recover(real: &Installation, line: &str, pin: &str) -> Output {
    let file = real.write_secret("typed", pin);
    real.run(&format!("recover-admin {line} --pin-file {}", file.display()))
}

fn write_csr(real: &Installation, name: &str) -> String {
    let path = real.dir.path().join(name);
    fs::write(&path, csr().1).unwrap();
    path.display().to_string()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn play(real: &Installation) {
    assert!(real.init().status.success());
    let ours = write_csr(real, "new.csr");
    let line = format!("alice --csr {ours} --output json");
    let stopped = recover(real, &line, "00000000");
    assert_eq!(stopped.status.code(), Some(8), "it asks nobody's PIN: {}", text(&stopped.stderr));

    let server = real.serve();
    let alice = real.register(&server, &real.bootstrap(), "alice");
    let bob = real.register(&server, &real.bootstrap(), "bob");
    let wrong = recover(real, &line, "00000000");
    assert_eq!(wrong.status.code(), Some(7), "{}", text(&wrong.stderr));
    assert!(text(&wrong.stderr).contains("the HSM refused the PIN"), "{}", text(&wrong.stderr));
    let notices = |who| json(&real.client(&server, who, "whoami --output json").output().unwrap());
    assert_eq!(notices(&bob)["notices"], Value::Array(Vec::new()), "nothing was asked for");
    assert_eq!(real.state().0, "unsealed", "and nobody else is harmed");
    assert!(!real.dir.path().join("data/pin-refused").exists());

    let asked = json(&recover(real, &line, PIN));
    assert_eq!((&asked["identity"], &asked["state"]), (&"alice".into(), &"pending".into()));
    assert_eq!(asked["certificate_pem"], "");
    let number = |key: &str| asked[key].as_i64().unwrap();
    assert_eq!(number("takes_effect_at_ms") - number("requested_at_ms"), 3_600_000);
    assert_eq!(number("lapses_at_ms") - number("takes_effect_at_ms"), 24 * 3_600_000);
    assert_eq!(json(&recover(real, &line, PIN)), asked, "it is asked for once");
    let id = asked["id"].as_str().unwrap();
    for who in [&alice, &bob] {
        let notice = &notices(who)["notices"][0];
        assert_eq!(notice["code"], "RECOVERY_PENDING");
        assert!(notice["message"].as_str().unwrap().contains(&format!("recovery cancel {id}")));
    }

    let cancel = format!("recovery cancel {id} --reason mistaken --output json");
    let cancelled = json(&real.ask(&server, &bob, &cancel));
    assert_eq!((&cancelled["id"], &cancelled["state"]), (&asked["id"], &"cancelled".into()));
    assert_eq!(notices(&alice)["notices"], Value::Array(Vec::new()));
    let anew = json(&recover(real, &line, PIN));
    assert_ne!(anew["id"], asked["id"]);

    server.signal(Signal::KILL);
    assert_eq!(server.ended(), None);
    let server = real.serve();
    let after = json(&recover(real, &line, PIN));
    assert_eq!(after["id"], anew["id"], "a crash loses nothing");
    let due = |of: &Value| of["takes_effect_at_ms"].as_i64().unwrap();
    assert!(due(&after) > due(&anew), "its hour begins with the service");

    let human = recover(real, &format!("alice --csr {ours}"), PIN);
    assert!(text(&human.stdout).contains("takes effect"), "{}", text(&human.stdout));
    assert!(text(&human.stderr).contains("run the same command again"));
    for (line, code) in [
        (format!("carol --csr {ours}"), 5),
        (format!("Alice --csr {ours}"), 2),
        (format!("alice --csr {ours} --out {ours}"), 2),
        (format!("alice --csr {}", real.config.display()), 2),
        ("alice --csr /nonexistent".to_owned(), 2),
        ("alice".to_owned(), 2),
    ] {
        let refused = recover(real, &line, PIN);
        assert_eq!(refused.status.code(), Some(code), "{line}: {}", text(&refused.stderr));
    }
    let unasked = real.run(&format!("recover-admin alice --csr {ours}"));
    assert_eq!(unasked.status.code(), Some(2), "the configured PIN is never taken");
    assert!(text(&unasked.stderr).contains("no terminal"), "{}", text(&unasked.stderr));
    assert!(!server.log().contains(PIN));
    real.ask(&server, &alice, "seal");
    let sealed = recover(real, &line, PIN);
    assert_eq!(sealed.status.code(), Some(8), "{}", text(&sealed.stderr));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_recovery_is_asked_for_with_the_pin_told_and_cancelled() {
    play(&Installation::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_is_asked_for_with_the_pin_told_and_cancelled_on_postgresql() {
    play(&Installation::on_postgres().await);
}
