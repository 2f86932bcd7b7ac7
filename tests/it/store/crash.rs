//! A process killed, or a disk that stops syncing, in the middle of commits.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

const DIR: &str = "STRONGROOM_TEST_STORE";
/// Rounds that the child goes on for after something was lost.
const AFTER: &str = "STRONGROOM_TEST_AFTER";

/// The process that is killed: commits without end and says what it knows to be durable.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the tests below, in a process of its own"]
#[expect(clippy::print_stdout, reason = "its parent reads it")]
async fn child() {
    let Some(path) = std::env::var_os(DIR) else { return };
    let node = Node::open(&sqlite_at(Path::new(&path))).await.unwrap();
    let first = u64::from(std::process::id()) << 32;
    let after = std::env::var(AFTER).map_or(0, |rounds| rounds.parse().unwrap());
    let mut left = 2_000_u64;
    for round in 0..2_000_u64 {
        if left == 0 {
            return;
        }
        left -= 1;
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
                    left = left.min(after);
                }
            }
        }
    }
}

fn start(wrapper: &[&str], disk: &[(&str, OsString)], path: &Path, after: u32) -> Child {
    let program = std::env::current_exe().unwrap();
    let mut words = wrapper.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
    Command::new(words.next().unwrap())
        .args(words)
        .args(["--exact", "store::crash::child", "--ignored", "--nocapture"])
        .env(DIR, path)
        .env(AFTER, after.to_string())
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
        let mut child = start(&[], &[], &place.file(), 0);
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

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_acknowledged_before_the_power_went_is_on_the_disk() {
    let place = Place::sqlite();
    let mut kept = Vec::new();
    // Long enough in the end for the log to be moved into the file.
    for rounds in [30, 131, 2_600] {
        place.node().await.close().await;
        let (dir, shadow) =
            (place.file().parent().unwrap().to_owned(), tempfile::tempdir().unwrap());
        let before = std::fs::copy(place.file(), shadow.path().join("state.db")).unwrap();
        let disk = [("LD_PRELOAD", disk::shim().into()), ("DISK_SHADOW", shadow.path().into())];
        let mut child = start(&[], &disk, &place.file(), 0);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let kept_lines = lines.map_while(Result::ok).filter_map(|line| {
            assert!(!line.contains("lost "), "{line}");
            line.strip_prefix("kept ").map(|number| number.parse::<u64>().unwrap())
        });
        kept.extend(kept_lines.take(rounds));
        child.kill().unwrap();
        child.wait().unwrap();
        let moved = std::fs::metadata(shadow.path().join("state.db")).unwrap().len();
        assert!(rounds < 2_000 || moved > before, "the log was moved: {before} {moved}");
        // What was written and never synced is gone.
        std::fs::remove_file(dir.join("state.db-shm")).unwrap();
        for name in ["state.db", "state.db-wal"] {
            std::fs::copy(shadow.path().join(name), dir.join(name)).unwrap();
        }
        check(&place, &kept).await;
    }
}

/// What a child said that ran into a fault.
struct Told {
    kept: Vec<u64>,
    /// The first line that says otherwise.
    lost: Option<String>,
    kept_after: Vec<u64>,
}

/// Lets a child run into a fault, and on for some rounds.
fn run_into(wrapper: &[&str], disk: &[(&str, OsString)], place: &Place, after: u32) -> Told {
    let mut child = start(wrapper, disk, &place.file(), after);
    let mut told = Told { kept: Vec::new(), lost: None, kept_after: Vec::new() };
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        if let Some(number) = line.strip_prefix("kept ") {
            let of = if told.lost.is_none() { &mut told.kept } else { &mut told.kept_after };
            of.push(number.parse().unwrap());
        } else if line.contains("lost ") {
            told.lost = told.lost.or(Some(line));
        }
    }
    child.wait().unwrap();
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_acknowledges_nothing() {
    let place = Place::sqlite();
    // Files of the process may not grow beyond a limit; the signal for it is ignored.
    let limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 2000; exec \"$0\" \"$@\""];
    let Told { kept, lost, .. } = run_into(&limited, &[], &place, 0);
    assert!(!kept.is_empty());
    let lost = lost.expect("the limit was met");
    // At the COMMIT itself nobody can tell a write that failed from a sync.
    let told = ["Lost(Unavailable", "Lost(Full)", "Lost(OutcomeUnknown)"];
    assert!(told.iter().any(|told| lost.contains(told)), "{lost}");
    check(&place, &kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_is_an_unknown_outcome_and_nothing_is_kept_until_one_holds() {
    // All from the fortieth on, or that one alone.
    for (fails, heals) in [("DISK_SYNCS", false), ("DISK_SYNC", true)] {
        let place = Place::sqlite();
        place.node().await.close().await;
        let disk = [("LD_PRELOAD", disk::shim().into()), (fails, "40".into())];
        let Told { mut kept, lost, kept_after } = run_into(&[], &disk, &place, 20);
        assert!(!kept.is_empty());
        let lost = lost.expect("the sync failed");
        assert!(lost.ends_with("Lost(OutcomeUnknown)"), "{lost}");
        assert_eq!(!kept_after.is_empty(), heals, "{fails}: {kept_after:?}");
        kept.extend(kept_after);
        check(&place, &kept).await;
    }
}
