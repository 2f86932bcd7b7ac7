//! The log beside SQLite's file: moved beside the writer, emptied after a shredding, and kept where the
//! file cannot be trusted with what it holds.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use super::sqlite::{BLOBS, blob, blobs, wal_of};
use super::*;
use crate::support::log;

const FILE: &str = "DISK_FILE";
const BROKEN: &str = "DISK_BROKEN";
/// Whether the child shreds.
const SHREDS: &str = "STRONGROOM_TEST_SHREDS";
/// Enough for the log to be moved many times.
const COMMITS: i64 = 1_600;
const BYTES: usize = 60_000;

/// A job after which nothing of what was deleted is left.
fn wipe() -> Act {
    Act::new(|tx| {
        tx.wipe();
        async { Ok(()) }.boxed()
    })
}

/// The process whose file stops being synced: it commits on, ends in good order, and leaves beside the
/// store a copy of the file as it was when it last was synced.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the tests below, in a process of its own"]
async fn child() {
    let Some(file) = std::env::var_os(FILE) else { return };
    let file = PathBuf::from(file);
    log::Log::begin();
    let shreds = std::env::var_os(SHREDS).is_some();
    let node = Node::open(&sqlite_at(&file)).await.unwrap();
    node.done(sql(BLOBS)).await;
    node.done(wipe()).await;
    assert_eq!(fs::metadata(wal_of(&file)).unwrap().len(), 0, "all of it is in the file");
    fs::copy(&file, synced(&file)).unwrap();
    fs::write(std::env::var_os(BROKEN).unwrap(), "").unwrap();
    for key in 0..COMMITS {
        node.done(blob(key, BYTES)).await;
        if shreds && key == 20 {
            node.done(wipe()).await;
        }
    }
    node.close().await;
}

/// Where the child leaves its copy.
fn synced(file: &Path) -> PathBuf {
    file.with_extension("synced")
}

/// What the child leaves, after a crash that lost what was never synced.
async fn after_a_crash(shreds: bool) {
    let place = Place::sqlite();
    let file = fs::canonicalize(place.file().parent().unwrap()).unwrap().join("state.db");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "store::log::child", "--ignored", "--nocapture"])
        .env("LD_PRELOAD", disk::shim())
        .env(FILE, &file)
        .env(BROKEN, file.with_extension("broken"));
    if shreds {
        child.env(SHREDS, "yes");
    }
    let done = child.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}");
    let alarm = "the store's log cannot be moved into its file";
    assert_eq!(said.matches(alarm).count(), 1, "{said}");
    let kept = fs::metadata(wal_of(&file)).unwrap().len();
    let written = u64::try_from(COMMITS).unwrap() * u64::try_from(BYTES).unwrap();
    assert!(kept > written, "the log keeps {kept} of {written} bytes");
    fs::rename(synced(&file), &file).unwrap();
    fs::remove_file(file.with_extension("db-shm")).unwrap();
    let node = place.node().await;
    assert_eq!(blobs(&node).await, (0..COMMITS).collect::<Vec<_>>());
    // Whoever opens it next, on a file that is synced again, keeps the log short as ever.
    node.done(wipe()).await;
    assert_eq!(fs::metadata(wal_of(&file)).unwrap().len(), 0);
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_file_is_not_synced_the_log_is_kept_with_an_alarm() {
    after_a_crash(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_file_is_not_synced_after_a_shredding_the_log_is_kept_with_an_alarm() {
    after_a_crash(true).await;
}

const ROOMLESS: &str = "STRONGROOM_TEST_ROOMLESS";
/// Bytes of the disk of that process.
const DISK: u64 = 16 << 20;

/// The process whose disk has no room for the log's pages in the file, for a while.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test below, in a process of its own"]
async fn without_room() {
    let Some(file) = std::env::var_os(ROOMLESS).map(PathBuf::from) else { return };
    log::Log::begin();
    let node = Node::open(&sqlite_at(&file)).await.unwrap();
    node.done(sql(BLOBS)).await;
    for key in 0..42 {
        node.done(blob(key, BYTES)).await;
    }
    let logged = || fs::metadata(wal_of(&file)).unwrap().len();
    assert!(logged() > 2 << 20);
    let held = fs::read_dir(file.parent().unwrap()).unwrap();
    let held: u64 = held.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    let ballast = file.with_extension("ballast");
    let left = DISK.checked_sub(held + (1 << 19)).unwrap();
    fs::write(&ballast, vec![1; usize::try_from(left).unwrap()]).unwrap();
    node.done(wipe()).await;
    assert!(logged() > 2 << 20, "there is no room to move it");
    fs::remove_file(&ballast).unwrap();
    node.done(blob(100, 10)).await;
    assert_eq!(logged(), 0, "it is tried again");
    assert_eq!(blobs(&node).await.len(), 43);
    node.close().await;
}

#[test]
fn where_there_is_no_room_to_empty_the_log_it_is_emptied_once_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.db");
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::log::without_room", "--ignored", "--nocapture"])
        .env("LD_PRELOAD", disk::shim())
        .env("DISK_DIR", dir.path())
        .env("DISK_BYTES", DISK.to_string())
        .env(ROOMLESS, &file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}");
    assert!(!said.contains("alarm"), "{said}");
    assert!(file.exists(), "it ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shredding_empties_the_log_at_once_also_while_it_is_being_moved() {
    let place = Place::sqlite();
    let node = place.node().await;
    place.by_hand(BLOBS).await;
    let mut key = 0;
    // Around as many as make the log long enough to be moved.
    for commits in 250..262 {
        for _ in 0..commits {
            node.done(blob(key, BYTES)).await;
            key += 1;
        }
        node.done(wipe()).await;
        let left = fs::metadata(wal_of(&place.file())).unwrap().len();
        assert_eq!(left, 0, "after {commits} commits");
    }
    assert_eq!(blobs(&node).await, (0..key).collect::<Vec<_>>());
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_begins_anew_while_others_read_and_write() {
    let place = Place::sqlite();
    let node = place.node().await;
    place.by_hand(BLOBS).await;
    let (reader, stop) = (node.reader.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let reads = tokio::spawn(async move {
        let mut views = 0_u32;
        while !stopped.load(Ordering::Relaxed) {
            let read = reader.view(|tx| async { Ok(tx.epoch().await?) }.boxed());
            read.await.unwrap();
            views += 1;
        }
        views
    });
    let mut longest = 0;
    for key in 0..COMMITS {
        node.done(blob(key, BYTES)).await;
        longest = longest.max(fs::metadata(wal_of(&place.file())).unwrap().len());
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reads.await.unwrap() > 100, "somebody read all the while");
    let written = u64::try_from(COMMITS).unwrap() * u64::try_from(BYTES).unwrap();
    assert!(longest < written / 2, "the log took {longest} bytes of {written}");
    assert_eq!(blobs(&node).await, (0..COMMITS).collect::<Vec<_>>());
    node.close().await;
}
