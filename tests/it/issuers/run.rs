//! `strongroom run`, however it and its command end.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::support::logins;
use crate::support::postgres::Postgres;
use crate::support::program::{program, text};
use crate::support::target::World;
use crate::support::terminal::on_terminal;

/// A vault whose clock can be turned, and the program beside it.
struct Bench {
    w: World,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let (w, dir) = (World::new(Backend::Sqlite).await, tempfile::tempdir().unwrap());
        let login = logins::login(&w.f, "nightly-etl").await;
        for (name, text) in
            [("ca", &w.f.root_pem), ("crt", &login.certificate_pem), ("key", &login.key_pem)]
        {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Self { w, dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self) -> Command {
        let mut command = program();
        let port = self.w.f.node().grpc_addr.port();
        command
            .args(["run", "--db", "analytics/reader", "--"])
            .env("STRONGROOM_ADDR", format!("https://localhost:{port}"))
            .env("STRONGROOM_CACERT", self.file("ca"))
            .env("STRONGROOM_CERT", self.file("crt"))
            .env("STRONGROOM_KEY", self.file("key"));
        command
    }

    async fn roles(&self) -> usize {
        self.w.roles(Postgres::shared()).await.len()
    }
}

/// Starts a command, and waits until it says that it is there.
fn ready(command: &mut Command) -> (Child, BufReader<ChildStdout>) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut says = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    says.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, says)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_command_nobody_waits_for_runs_out_within_a_minute() {
    let b = Bench::new().await;
    let script = "echo ready; exec psql -qAt -c 'SELECT pg_sleep(300)' 2>&1";
    let (mut run, mut says) = ready(b.run().args(["sh", "-c", script]));
    assert_eq!(b.roles().await, 1);
    let lease = b.w.leases().await.remove(0);
    assert!(lease.expires_at_ms - lease.created_at_ms <= 60_000, "{lease:?}");
    until("the command is connected", async || {
        let sql = "SELECT count(*)::text FROM pg_stat_activity WHERE query LIKE '%pg_sleep(300)' \
                   AND usename LIKE 'sr\\_%'";
        Postgres::shared().ask("postgres", sql).await.unwrap() != "0"
    })
    .await;
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(b.roles().await, 1, "nobody was there to revoke it");
    b.w.advance(61);
    b.w.all_over().await;
    assert_eq!(b.roles().await, 0);
    // Its connection was cut, and so the command, which goes on by itself, ended.
    let mut rest = String::new();
    says.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("terminating connection"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reaches_the_command_once_and_the_lease_ends_with_it() {
    let b = Bench::new().await;
    let waits = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let (mut run, _says) = ready(b.run().args(["sh", "-c", waits]));
    assert_eq!(b.roles().await, 1);
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(5), "it ends as its command does");
    assert_eq!(b.roles().await, 0);
    for (command, code) in [(["sh", "-c", "exit 7"], 7), (["sh", "-c", "kill -9 $$"], 128 + 9)] {
        let done = b.run().args(command).output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{}", text(&done.stderr));
    }
    let none = b.run().arg("/nonexistent").output().unwrap();
    assert_eq!(none.status.code(), Some(2), "{}", text(&none.stderr));
    assert!(text(&none.stderr).contains("cannot be run"), "{}", text(&none.stderr));
    // A terminal tells everybody in its foreground, and so the command as well.
    let script = b.file("counts");
    let counts = "n=0; trap 'n=$((n+1))' INT; echo ready; read -r line; sleep 0.3; echo counted $n";
    std::fs::write(&script, counts).unwrap();
    let (_, shown) = on_terminal(b.run().arg("sh").arg(&script), "ready\r\n", "\u{3}");
    assert!(shown.contains("counted 1"), "{shown}");
    assert_eq!(b.roles().await, 0, "each lease ended with its command");
}
