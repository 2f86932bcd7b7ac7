//! The real program where it cannot go on: told to stop in the middle of something, or before a
//! store that takes nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;

use crate::support::job::Job;
use crate::support::postgres::Postgres;
use crate::support::program::{Installation, text};
use crate::support::target::{Proxy, Wire, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_of_making_a_role_leaves_nothing_half_done() {
    let proxy = Proxy::to(Postgres::shared().port()).await;
    let mut job = Job::new(Installation::new(), proxy.port).await;
    let creds = |job: &Job| {
        let mut command = job.real.client(job.server(), &job.etl, "db creds analytics/reader");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    assert!(creds(&job).output().unwrap().status.success());
    assert_eq!(job.roles().await, 1);

    // The target answers while the server drains: the client gets what was made for it.
    proxy.set(Wire::HoldsAnswers);
    let waits = creds(&job).spawn().unwrap();
    until("the role is made", async || job.roles().await == 2).await;
    job.server().signal(Signal::TERM);
    until("it drains", async || job.server().log().contains("\"stopping\"")).await;
    proxy.set(Wire::Whole);
    let got = waits.wait_with_output().unwrap();
    assert!(got.status.success(), "{}", text(&got.stderr));
    job.starts_again();
    assert_eq!(job.lease_states(), ["active", "active"]);
    assert_eq!(job.roles().await, 2);
    // Over a connection that stands.
    assert!(creds(&job).output().unwrap().status.success());

    // The target never answers: the server ends all the same, and the next one cleans up.
    proxy.set(Wire::HoldsAnswers);
    let waits = creds(&job).spawn().unwrap();
    until("the role is made", async || job.roles().await == 4).await;
    job.server().signal(Signal::TERM);
    let got = waits.wait_with_output().unwrap();
    assert!(!got.status.success(), "nobody knows a password");
    let ended = job.server.take().unwrap().ended();
    assert_eq!(ended, Some(0));
    assert_eq!(job.roles().await, 4);
    proxy.set(Wire::Cut);
    proxy.set(Wire::Whole);
    job.server = Some(job.real.serve());
    until("the role is gone", async || job.roles().await == 3).await;
    // It is looked for again later: what was sent may still have been on its way.
    let mut states = job.lease_states();
    states.sort();
    assert_eq!(states[..3], ["active", "active", "active"]);
    assert!(["revoking", "revoked"].contains(&states[3].as_str()), "{}", states[3]);
    job.real.ask(job.server(), &job.alice, "audit verify");
}

/// Runs the program as an account that permissions bind: root's own binds nothing.
struct Bound<'a> {
    real: &'a Installation,
    account: Option<(u32, u32)>,
}

impl<'a> Bound<'a> {
    fn new(real: &'a Installation) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        let bound = Self { real, account: is_root.then_some((65_534, 65_534)) };
        bound.give(real.dir.path());
        bound
    }

    fn give(&self, path: &Path) {
        let Some((uid, gid)) = self.account else { return };
        chown(path, Some(uid), Some(gid)).unwrap();
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                self.give(&entry.unwrap().path());
            }
        }
    }

    fn run(&self, line: &str) -> Output {
        let program = env!("CARGO_BIN_EXE_strongroom");
        let mut command = match self.account {
            None => Command::new(program),
            Some((uid, gid)) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
                command.args(["--clear-groups", program]);
                command
            }
        };
        let config = self.real.config.as_os_str();
        command.args(line.split(' ')).arg("--config").arg(config).current_dir("/");
        command.stdin(Stdio::null()).output().unwrap()
    }
}

/// Every file of a directory: its name, what it holds, when it was changed.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>, i64)> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        // What readers share beside the store, and an empty log, say nothing.
        .filter(|path| path.is_file() && !path.ends_with("vault.db-shm"))
        .map(|path| {
            let (bytes, about) = (fs::read(&path).unwrap(), path.metadata().unwrap());
            (path, bytes, about.mtime())
        })
        .filter(|(path, bytes, _)| !bytes.is_empty() || !path.ends_with("vault.db-wal"))
        .collect();
    found.sort();
    found
}

#[test]
fn a_store_that_cannot_be_written_is_named_and_left_as_it_is() {
    let real = Installation::new();
    let bound = Bound::new(&real);
    let out = real.dir.path().join("out");
    let founded = bound.run(&format!("init --out {}", out.display()));
    assert!(founded.status.success(), "{}", text(&founded.stderr));
    let data = real.dir.path().join("data");
    let store = data.join("vault.db");
    let kept = contents(&data);
    for (path, mode) in [(&store, 0o400), (&store, 0o000), (&data, 0o500)] {
        let before = path.metadata().unwrap().permissions().mode();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let refused = bound.run("server");
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(7), "{mode:o}: {said}");
        assert!(said.contains("vault.db") || said.contains("data"), "{mode:o}: {said}");
        assert!(said.contains("written") || said.contains("opened"), "{mode:o}: {said}");
        let doctor = bound.run("doctor");
        let said = text(&doctor.stdout);
        assert_eq!(doctor.status.code(), Some(7), "{mode:o}: {said}");
        fs::set_permissions(path, fs::Permissions::from_mode(before)).unwrap();
        assert!(contents(&data) == kept, "{mode:o}");
    }
    let doctor = bound.run("doctor");
    assert_eq!(doctor.status.code(), Some(0), "{}", text(&doctor.stdout));
}
