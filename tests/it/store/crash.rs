//! A process killed, or a disk that stops syncing, in the middle of commits.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

const DIR: &str = "STRONGROOM_TEST_STORE";

/// The process that is killed: commits without end and says what it knows to be durable.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the tests below, in a process of its own"]
#[expect(clippy::print_stdout, reason = "its parent reads it")]
async fn child() {
    let Some(path) = std::env::var_os(DIR) else { return };
    let node = Node::open(&sqlite_at(Path::new(&path))).await.unwrap();
    let first = u64::from(std::process::id()) << 32;
    for round in 0..2_000_u64 {
        let mut waiting = Vec::new();
        for step in 0..4 {
            let number = first + round * 4 + step;
            let leaf = record::entry(&mut Dice(number + 1), 1).leaf;
            let row = identity(number, &format!("i{number}"));
            waiting.push((number, node.submit(insert(row).leaf(&leaf)).await));
        }
        for (number, settled) in waiting {
            match settled.await.unwrap() {
                Settled::Durable { outcome: Ok(()), .. } => println!("kept {number}"),
                other @ (Settled::Durable { .. } | Settled::Moved | Settled::Lost(_)) => {
                    println!("lost {other:?}");
                    return;
                }
            }
        }
    }
}

fn start(wrapper: &[&str], disk: &[(&str, OsString)], path: &Path) -> Child {
    let program = std::env::current_exe().unwrap();
    let mut words = wrapper.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
    Command::new(words.next().unwrap())
        .args(words)
        .args(["--exact", "store::crash::child", "--ignored", "--nocapture"])
        .env(DIR, path)
        .envs(disk.iter().cloned())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Checks that the store is whole and holds everything that was acknowledged.
async fn check(place: &Place, kept: &[u64]) {
    let connection = rusqlite::Connection::open(place.file()).unwrap();
    let verdict: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    drop(connection);
    let node = place.node().await;
    let found = node
        .reader
        .view(|tx| {
            async move { Ok(tx.select::<IdentityRow>("ORDER BY id", vec![]).await?) }.boxed()
        })
        .await
        .unwrap();
    let found: std::collections::BTreeSet<_> = found.iter().map(|row| row.row.id).collect();
    for number in kept {
        assert!(found.contains(&IdentityId(id(*number))), "{number} was acknowledged");
    }
    // Every lane's chain holds, and what is in the tables is in the record.
    let head = record::integrate(&node).await;
    assert_eq!(record::entries(&node).await.len(), found.len());
    assert!(head.size <= i64::try_from(found.len()).unwrap());
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_killed_process_acknowledged_is_there() {
    let place = Place::sqlite();
    let mut kept = Vec::new();
    for round in 0..4 {
        let mut child = start(&[], &[], &place.file());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = 30 + round * 57;
        for line in lines.map_while(Result::ok) {
            let Some(number) = line.strip_prefix("kept ") else {
                assert!(!line.contains("lost "), "{line}");
                continue;
            };
            kept.push(number.parse().unwrap());
            left -= 1;
            if left == 0 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(left <= 0, "the child ended by itself");
        check(&place, &kept).await;
    }
}

/// Lets a child run into a fault: what it kept, and the first line that says otherwise.
fn run_into(
    wrapper: &[&str],
    disk: &[(&str, OsString)],
    place: &Place,
) -> (Vec<u64>, Option<String>) {
    let mut child = start(wrapper, disk, &place.file());
    let (mut kept, mut lost) = (Vec::new(), None);
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        if let Some(number) = line.strip_prefix("kept ") {
            kept.push(number.parse().unwrap());
        } else if line.contains("lost ") {
            lost = Some(line);
        }
    }
    child.wait().unwrap();
    (kept, lost)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_acknowledges_nothing() {
    let place = Place::sqlite();
    // Files of the process may not grow beyond a limit; the signal for it is ignored.
    let limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 2000; exec \"$0\" \"$@\""];
    let (kept, lost) = run_into(&limited, &[], &place);
    assert!(!kept.is_empty());
    let lost = lost.expect("the limit was met");
    // At the COMMIT itself nobody can tell a write that failed from a sync.
    let told = ["Lost(Unavailable", "Lost(Full)", "Lost(OutcomeUnknown)"];
    assert!(told.iter().any(|told| lost.contains(told)), "{lost}");
    check(&place, &kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_at_commit_is_an_unknown_outcome() {
    let place = Place::sqlite();
    place.node().await.close().await;
    let disk = [("LD_PRELOAD", disk::shim().into()), ("DISK_SYNCS", "40".into())];
    let (kept, lost) = run_into(&[], &disk, &place);
    assert!(!kept.is_empty());
    let lost = lost.expect("the sync failed");
    assert!(lost.ends_with("Lost(OutcomeUnknown)"), "{lost}");
    check(&place, &kept).await;
}
