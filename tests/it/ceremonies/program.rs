//! `strongroom identity shred` and `ceremony`, at a development vault, as the page tells it.

use std::fs;
use std::io::Write as _;
use std::process::{Output, Stdio};

use crate::elevations::page::typed;
use crate::support::program::{Running, dev, program, text};

/// Runs a command as the administrator, who gives it a value where it reads one.
fn run(server: &Running, words: &[String]) -> Output {
    let mut command = program();
    let mut child = command
        .args(words)
        .env("STRONGROOM_ADDR", format!("https://{}", server.said("grpc_addr")))
        .env("STRONGROOM_CACERT", server.said("ca_file"))
        .env("STRONGROOM_CERT", server.said("admin_cert_file"))
        .env("STRONGROOM_KEY", server.said("admin_key_file"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that reads nothing has closed it.
    let _closed = child.stdin.take().unwrap().write_all(b"canary");
    child.wait_with_output().unwrap()
}

#[test]
fn the_page_of_shredding_is_played_command_by_command() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path());
    let page = fs::read_to_string("docs/shredding.md").unwrap();
    let block = page.split("```console\n").nth(1).unwrap().split("\n```").next().unwrap();
    let commands = typed(&format!("```console\n{block}\n```\n"));
    assert!(commands.len() > 8, "{commands:?}");
    for (_, words, said) in commands {
        let words: Vec<_> = words.into_iter().skip(1).collect();
        let output = run(&server, &words);
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.success(), !said.starts_with("refused"), "{words:?}: {told}");
        if let Some((_, because)) = said.split_once("refused: ") {
            assert!(told.contains(because), "{words:?}: {told}");
        }
        if words.iter().any(|word| word == "--dry-run") {
            assert!(told.contains("versions of them") && told.contains("secrets.get"), "{told}");
        }
        if words.iter().any(|word| word == "shred-status") {
            assert!(
                told.contains("unrecoverable since") && told.contains(&["/root", "1"].join("/")),
                "{told}"
            );
        }
    }
    let line = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let listed = run(&server, &line("ceremony list --all --output json"));
    let listed: serde_json::Value = serde_json::from_str(&text(&listed.stdout)).unwrap();
    assert_eq!(listed[0]["state"], "performed");
    let shown =
        run(&server, &line(&format!("ceremony show {}", listed[0]["id"].as_str().unwrap())));
    assert!(text(&shown.stdout).contains("identities.shred"), "{}", text(&shown.stdout));
    let missing = run(&server, &line("identity shred second"));
    assert_eq!(missing.status.code(), Some(2), "{}", text(&missing.stderr));
}
