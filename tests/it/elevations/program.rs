//! `strongroom elevate …`, at a development vault, as its page tells it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strongroom::crypto::{hotp, otp_step, parse_base32};
use strongroom::types::{Clock as _, SecretBytes, SystemClock};

use super::page::typed;
use crate::support::program::{Running, dev, program, text};
use crate::support::terminal::on_terminal;

/// Prepares a command as one of the two humans of a development vault.
fn command(server: &Running, who: &str, words: &[&str]) -> Command {
    let (cert, key) = (format!("{who}_cert_file"), format!("{who}_key_file"));
    let mut command = program();
    command
        .args(words)
        .env("STRONGROOM_ADDR", format!("https://{}", server.said("grpc_addr")))
        .env("STRONGROOM_CACERT", server.said("ca_file"))
        .env("STRONGROOM_CERT", server.said(&cert))
        .env("STRONGROOM_KEY", server.said(&key));
    command
}

fn run(server: &Running, who: &str, line: &str) -> Output {
    command(server, who, &line.split(' ').collect::<Vec<_>>()).output().unwrap()
}

/// What a command prints; it succeeds.
fn done(server: &Running, who: &str, line: &str) -> String {
    let output = run(server, who, line);
    assert!(output.status.success(), "{who}: {line}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What a command answers; it succeeds.
fn answer(server: &Running, who: &str, line: &str) -> Value {
    serde_json::from_str(&done(server, who, &format!("{line} --output json"))).unwrap()
}

/// Why a command is refused, and by which exit code.
fn refused(server: &Running, who: &str, line: &str) -> (Option<i32>, String) {
    let output = run(server, who, line);
    (output.status.code(), text(&output.stderr))
}

/// The code that an app shows of the secret in a file.
fn code(secret: &str) -> String {
    let secret = SecretBytes::new(parse_base32(&secret.trim().to_lowercase()).unwrap());
    let step = u64::try_from(otp_step(SystemClock.now())).unwrap();
    String::from_utf8(hotp(&secret, step).unwrap().digits().to_vec()).unwrap()
}

fn second_code(server: &Running) -> String {
    code(&fs::read_to_string(server.said("second_totp_file")).unwrap())
}

/// Runs a command that reads one line.
fn tell(mut command: Command, typed: &str, dir: &Path) -> Output {
    let piped = command.current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that reads nothing has closed it.
    let _closed = std::io::Write::write_all(&mut stdin, format!("{typed}\n").as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// Asks for what a role of this test allows, as the administrator; its id.
fn asked(server: &Running, more: &str) -> String {
    let line = format!("elevate request --role web-admin --resource pki/web --reason test{more}");
    answer(server, "admin", &line)["id"].as_str().unwrap().to_owned()
}

const PUT: &str = "elevate role put web-admin --purpose tests --requester admin --resource pki/web \
                   --action pki.issue --for 15m --max 1h --step 1:administrators --reason-required";

#[test]
fn the_first_role_of_the_page_is_configured_and_used_command_by_command() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path());
    let page = fs::read_to_string("docs/elevation.md").unwrap();
    let block = page.split("```console\n").nth(1).unwrap().split("\n```").next().unwrap();
    let commands = typed(&format!("```console\n{block}\n```\n"));
    assert!(commands.len() > 10, "{commands:?}");
    let mut id = String::new();
    for (who, words, said) in commands {
        let words: Vec<_> = words.iter().skip(1).map(|word| word.replace("ID", &id)).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let output = tell(command(&server, &who, &words), &second_code(&server), dir.path());
        let expected = if said.starts_with("denied") { 4 } else { 0 };
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(expected), "{who}: {words:?}: {told}");
        if words.starts_with(&["elevate", "request"]) {
            let open = answer(&server, &who, "elevate list");
            open[0]["id"].as_str().unwrap().clone_into(&mut id);
        }
    }
    ends(&server, &id);
}

/// Waits until an elevation is over: what was made under it ends first.
fn ends(server: &Running, id: &str) {
    let patience = Instant::now() + Duration::from_secs(30);
    while answer(server, "admin", &format!("elevate show {id}"))["state"] != "ended" {
        assert!(Instant::now() < patience, "it does not end");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Reads what a stream tells until an elevation is in a state.
fn saw(changes: &mut impl Iterator<Item = String>, id: &str, state: &str) {
    let found = changes.any(|line| line.contains(id) && line.contains(state));
    assert!(found, "the stream ends without {state} of {id}");
}

#[test]
fn each_command_of_elevations_does_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path());
    done(&server, "admin", "pki role put web --dns www.example.org");
    done(&server, "second", PUT);
    let mut watch = command(&server, "second", &["elevate", "watch"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut changes = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    // It tells of what happens from when it began on.
    let patience = Instant::now() + Duration::from_secs(30);
    while answer(&server, "admin", "audit list --action elevations.watch") == json!([]) {
        assert!(Instant::now() < patience, "nobody watches");
    }

    let later = asked(&server, " --start 00:00");
    let shown = answer(&server, "admin", &format!("elevate show {later}"));
    assert_eq!(shown["starts_at_ms"].as_i64().unwrap() % 86_400_000, 0, "{shown}");
    saw(&mut changes, &later, "awaiting-approval");
    let withdrawn = done(&server, "admin", &format!("elevate withdraw {later}"));
    assert!(withdrawn.contains("withdrawn"), "{withdrawn}");
    saw(&mut changes, &later, "withdrawn");
    let denied = asked(&server, "");
    let said = done(&server, "second", &format!("elevate deny {denied} --reason no"));
    assert!(said.contains("denied") && said.contains("VOTE"), "{said}");
    saw(&mut changes, &denied, "denied");

    // On a terminal, whoever approves is asked for the code, and the call goes on.
    let id = asked(&server, "");
    let (own, why) = refused(&server, "admin", &format!("elevate approve {id}"));
    assert_eq!(own, Some(4), "{why}");
    // Another login than the one that `dev` proved the factor with: a token.
    let token = answer(&server, "second", "token create --ttl 5m")["bearer"].clone();
    let token = token.as_str().unwrap();
    let mut unproven = command(&server, "second", &["elevate", "approve", &id]);
    let unproven = unproven.env("STRONGROOM_TOKEN", token).output().unwrap();
    let why = text(&unproven.stderr);
    assert_eq!(
        (unproven.status.code(), why.contains("STEP_UP_REQUIRED")),
        (Some(3), true),
        "{why}"
    );
    let mut approve = command(&server, "second", &["elevate", "approve", &id, "--for", "10m"]);
    approve.env("STRONGROOM_TOKEN", token);
    let typed = second_code(&server);
    let (went_on, screen) = on_terminal(&approve, "code: ", &typed);
    assert!(went_on && screen.contains("scheduled") && !screen.contains(&typed), "{screen}");
    // A state that ends at once may be passed over: a stream tells what is.
    saw(&mut changes, &id, "scheduled");

    let active = done(&server, "admin", &format!("elevate activate {id}"));
    assert!(active.contains("active") && active.contains("10m"), "{active}");
    saw(&mut changes, &id, "active");
    let line = format!("elevate extend {id} --for 5m --reason more");
    let more = answer(&server, "admin", &line)["id"].as_str().unwrap().to_owned();
    done(&server, "second", &format!("elevate approve {more}"));
    done(&server, "admin", &format!("elevate activate {more}"));
    let longer = answer(&server, "admin", &format!("elevate show {id}"));
    let lasts =
        longer["ends_at_ms"].as_i64().unwrap() - longer["activated_at_ms"].as_i64().unwrap();
    assert_eq!(lasts, 15 * 60_000);
    let revoked = done(&server, "second", &format!("elevate revoke {id} --reason enough"));
    assert!(revoked.contains("revok"), "{revoked}");
    let (again, why) = refused(&server, "admin", &format!("elevate activate {id}"));
    assert_eq!(again, Some(7), "{why}");

    saw(&mut changes, &id, "revok");
    watch.kill().unwrap();
    watch.wait().unwrap();
    let over = answer(&server, "admin", "elevate list --all --state denied");
    assert_eq!(over[0]["id"], denied.as_str());
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn roles_are_shown_listed_changed_by_two_and_emergencies_reviewed() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path());
    done(&server, "admin", "pki role put web --dns www.example.org");
    done(&server, "second", PUT);
    let shown = done(&server, "admin", "elevate role show web-admin");
    for said in ["pki.issue", "15m", "1 of group administrators", "makes what stands"] {
        assert!(shown.contains(said), "{said}: {shown}");
    }
    let listed = done(&server, "admin", "elevate role list");
    assert!(listed.contains("web-admin") && listed.contains("tests"), "{listed}");
    // A name stands for itself alone; the refusal says what the role covers.
    let line = "elevate request --role web-admin --resource pki/api --reason test";
    let (code_of, why) = refused(&server, "admin", line);
    assert_eq!(code_of, Some(4), "{why}");
    assert!(why.contains("the role covers pki/web"), "{why}");

    // A change, by the administrator, waits for the other one.
    let wanted = done(&server, "admin", &PUT.replace("tests", "others"));
    assert!(wanted.contains("it is to say"), "{wanted}");
    let (alone, why) = refused(&server, "admin", "elevate role confirm web-admin");
    assert_eq!(alone, Some(4), "{why}");
    let typed = second_code(&server);
    let verify = command(&server, "second", &["factor", "verify"]);
    assert!(tell(verify, &typed, dir.path()).status.success());
    let confirmed = done(&server, "second", "elevate role confirm web-admin");
    assert!(confirmed.contains("others") && !confirmed.contains("it is to say"), "{confirmed}");

    // An emergency of the administrator's, reviewed by the other one.
    let line = "elevate role put glass --break-glass --requester admin --reviewer-group \
                administrators --resource pki/web --action pki.issue --reason-required";
    done(&server, "admin", line);
    done(&server, "second", "elevate role confirm glass");
    let line = "elevate request --role glass --resource pki/web --reason burns";
    let id = answer(&server, "admin", line)["id"].as_str().unwrap().to_owned();
    let invitation = dir.path().join("invitation");
    // By the other one: one's own invitation is none of somebody else's.
    done(&server, "second", &format!("factor invite admin --out {}", invitation.display()));
    let line = format!("factor enrol --invitation {}", invitation.display());
    let enrolled = answer(&server, "admin", &line);
    let confirm = ["factor", "confirm", enrolled["id"].as_str().unwrap()];
    let typed = code(enrolled["secret"].as_str().unwrap());
    let proven = tell(command(&server, "admin", &confirm), &typed, dir.path());
    assert!(proven.status.success(), "{}", text(&proven.stderr));
    let active = done(&server, "admin", &format!("elevate activate {id}"));
    assert!(active.contains("for emergencies") && active.contains("to be reviewed by"), "{active}");
    done(&server, "admin", &format!("elevate revoke {id}"));
    let line = format!("elevate review {id} --verdict accepted --note it-did");
    let reviewed = done(&server, "second", &line);
    assert!(reviewed.contains("accepted it-did"), "{reviewed}");
    assert_eq!(server.stop(), Some(0));
}
