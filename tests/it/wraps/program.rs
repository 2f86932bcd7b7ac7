//! `strongroom … --wrap`, `unwrap` and `wrap …` at a development vault, as the page tells it.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::program::{Running, dev, program, text};

/// Runs a command as one of the two humans of a development vault, who types a line.
fn run(server: &Running, who: &str, words: &[&str], typed: &str) -> Output {
    let (cert, key) = (format!("{who}_cert_file"), format!("{who}_key_file"));
    let mut command: Command = program();
    command
        .args(words)
        .env("STRONGROOM_ADDR", format!("https://{}", server.said("grpc_addr")))
        .env("STRONGROOM_CACERT", server.said("ca_file"))
        .env("STRONGROOM_CERT", server.said(&cert))
        .env("STRONGROOM_KEY", server.said(&key))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that reads nothing has closed it.
    let _closed = stdin.write_all(format!("{typed}\n").as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn done(server: &Running, who: &str, line: &str, typed: &str) -> String {
    let output = run(server, who, &line.split(' ').collect::<Vec<_>>(), typed);
    assert!(output.status.success(), "{who}: {line}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_page_is_played_command_by_command_and_every_wrapped_command_prints_what_it_would_have() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path());
    let page = fs::read_to_string("docs/wrapping.md").unwrap();
    let block = page.split("```console\n").nth(1).unwrap().split("\n```").next().unwrap();
    let (mut handle, mut opened) = (String::new(), Vec::new());
    for line in block.lines() {
        let (command, said) = line.split_once(" # ").unwrap_or((line, ""));
        let (who, command) = command.split_once('$').unwrap();
        let words: Vec<_> = command.split_whitespace().skip(1).collect();
        let output = run(&server, who, &words, &handle);
        let code = match said.trim() {
            said if said.starts_with("refused") => 7,
            said if said.starts_with("denied") => 4,
            _ => 0,
        };
        assert_eq!(output.status.code(), Some(code), "{line}: {}", text(&output.stderr));
        if words.contains(&"--wrap") {
            text(&output.stdout).trim().clone_into(&mut handle);
        } else if words[0] == "unwrap" {
            opened.push((text(&output.stdout), text(&output.stderr)));
        }
    }
    assert!(handle.starts_with("srw_"));
    assert_eq!(opened[2].0, "correct-horse");
    let first = ["reason: OPENED", "by second", "from 127.0.0.1"];
    assert!(first.iter().all(|part| opened[3].1.contains(part)), "{}", opened[3].1);
    assert!(opened.iter().all(|(_, told)| !told.contains("correct-horse")));

    let listed: Value =
        serde_json::from_str(&done(&server, "admin", "wrap list --output json", "")).unwrap();
    assert_eq!(
        (&listed[0]["state"], &listed[0]["opened_by"]),
        (&"opened".into(), &"second".into())
    );
    assert!(!listed.to_string().contains("srw_"));
    // The same with JSON, and to a file.
    let line = "secret get ci/deploy-key --wrap 1h --output json";
    let wrapped: Value = serde_json::from_str(&done(&server, "admin", line, "")).unwrap();
    let handle = wrapped["handle"].as_str().unwrap();
    let file = dir.path().join("key");
    let line = format!(
        "unwrap --from admin --path secrets/ci/deploy-key:secrets.get --output json --out {}",
        file.display()
    );
    done(&server, "second", &line, handle);
    let unwrapped: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let plain = done(&server, "admin", "secret get ci/deploy-key --output json", "");
    assert_eq!(unwrapped, serde_json::from_str::<Value>(&plain).unwrap());
    // One that is taken back says so.
    let line = "token create --wrap 2m --output json";
    let wrapped: Value = serde_json::from_str(&done(&server, "admin", line, "")).unwrap();
    let accessor = wrapped["accessor"].as_str().unwrap();
    let shown = done(&server, "admin", &format!("wrap revoke {accessor} --reason drill"), "");
    assert!(shown.contains("revoked"), "{shown}");
    assert!(done(&server, "admin", &format!("wrap show {accessor}"), "").contains("revoked"));
    for line in [
        "secret get ci/deploy-key --wrap 2m --out x",
        "secret put ci/other --value x --wrap 2m",
        "secret get ci/deploy-key --wrap-for second",
        "whoami --wrap 2m",
    ] {
        let output = run(&server, "admin", &line.split(' ').collect::<Vec<_>>(), "");
        assert_eq!(output.status.code(), Some(2), "{line}: {}", text(&output.stderr));
    }
    assert_eq!(server.stop(), Some(0));
}
