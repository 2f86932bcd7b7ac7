//! The real program: two administrators invite each other, codes come through standard input.

use std::process::Output;

use serde_json::Value;
use strongroom::crypto::{hotp, otp_step, parse_base32};
use strongroom::types::{Clock as _, SecretBytes, SystemClock};

use crate::support::program::{Installation, text};
use crate::support::terminal::on_terminal;

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn two_administrators_invite_each_other_and_nobody_invites_themselves() {
    let real = Installation::new();
    assert!(real.init().status.success());
    let server = real.serve();
    let alice = real.register(&server, &real.bootstrap(), "alice");
    let bob = real.register(&server, &real.bootstrap(), "bob");
    let denied = real.client(&server, &alice, "factor invite alice").output().unwrap();
    assert_eq!(denied.status.code(), Some(4), "{}", text(&denied.stderr));
    assert!(text(&denied.stderr).contains("nobody invites themselves"));

    let file = real.dir.path().join("bob.invitation");
    let line = format!("factor invite bob --ttl 1h --out {} --output json", file.display());
    let made = json(&real.ask(&server, &alice, &line));
    assert_eq!(made["invitation"], "");
    let invitation = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    let line = "factor enrol --invitation - --output json";
    let foreign = real.tell(&server, &alice, line, &invitation);
    assert_eq!(foreign.status.code(), Some(4), "{}", text(&foreign.stderr));
    let shown = json(&real.tell(&server, &bob, line, &invitation));
    let secret = shown["secret"].as_str().unwrap();
    assert!(shown["uri"].as_str().unwrap().contains(&format!("?secret={secret}&")));
    let bytes = SecretBytes::new(parse_base32(&secret.to_lowercase()).unwrap());
    let code = |steps: i64| {
        let step = u64::try_from(otp_step(SystemClock.now()) + steps).unwrap();
        String::from_utf8(hotp(&bytes, step).unwrap().digits().to_vec()).unwrap()
    };
    let line = format!("factor confirm {} --output json", shown["id"].as_str().unwrap());
    json(&real.tell(&server, &bob, &line, &code(-1)));
    let codes = json(&real.ask(&server, &bob, "factor recovery-codes --output json"));
    let recovery = codes["codes"][0].as_str().unwrap();
    let proven = json(&real.tell(&server, &bob, "factor verify --output json", &code(0)));
    assert_eq!(proven["factor"]["kind"], "totp");
    let proven = json(&real.tell(&server, &bob, "factor verify --output json", recovery));
    assert_eq!((&proven["factor"]["kind"], &proven["codes_left"]), (&"recovery".into(), &9.into()));
    let me = json(&real.ask(&server, &bob, "whoami --output json"));
    assert_eq!(me["factors"].as_array().unwrap().len(), 2);

    // Another login of his proved nothing: off a terminal the program says what to run.
    let line = "token create --ttl 5m --output json";
    let token = json(&real.ask(&server, &bob, line))["bearer"].as_str().unwrap().to_owned();
    let mut wanted = real.client(&server, &bob, "factor recovery-codes");
    let wanted = wanted.env("STRONGROOM_TOKEN", &token).output().unwrap();
    assert_eq!(wanted.status.code(), Some(3), "{}", text(&wanted.stderr));
    let said = text(&wanted.stderr);
    assert!(said.contains("STEP_UP_REQUIRED") && said.contains("factor verify"), "{said}");

    let listed = text(&real.ask(&server, &alice, "factor list bob").stdout);
    assert!(listed.contains("alice") && listed.contains("9 codes left"), "{listed}");
    // On one it asks for the code, and goes on with the same call.
    let typed = code(1);
    let mut wanted = real.client(&server, &bob, "factor recovery-codes --output json");
    let (done, screen) = on_terminal(wanted.env("STRONGROOM_TOKEN", &token), "code: ", &typed);
    assert!(done && screen.contains("\"codes\""), "{screen}");
    assert!(!screen.contains(&typed), "what is typed is not shown");

    let log = server.log();
    for canary in [&invitation, secret, recovery, &token] {
        assert!(!log.contains(canary));
    }
    assert_eq!(server.stop(), Some(0));
}
