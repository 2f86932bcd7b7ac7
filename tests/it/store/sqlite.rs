//! What a disk can do to SQLite: nothing that was acknowledged is lost.

use std::fs;
use std::path::Path;
use std::process::Command;

use strongroom::store::Value;

use super::*;

/// A job that writes a blob and leaves an entry.
pub(super) fn blob(key: i64, bytes: usize) -> Act {
    Act::new(move |tx| {
        let row = vec![Value::Int(key), Value::Bytes(vec![7; bytes])];
        async move {
            Ok(tx.execute("INSERT INTO blobs (id, b) VALUES ($1, $2)", row).await.map(drop)?)
        }
        .boxed()
    })
    .leaf(b"blob")
}

pub(super) async fn blobs(node: &Node) -> Vec<i64> {
    node.reader
        .view(|tx| {
            async move {
                let rows = tx.query("SELECT id FROM blobs ORDER BY id", vec![]).await?;
                let keys = rows.into_iter().map(|mut row| row.take::<i64>());
                Ok(keys.collect::<Result<Vec<_>, _>>()?)
            }
            .boxed()
        })
        .await
        .unwrap()
}

/// Writes blobs until the store is full; the keys that were acknowledged.
async fn fill(node: &Node, first: i64, urgent: bool) -> Vec<i64> {
    let mut kept = Vec::new();
    for key in first..first + 500 {
        let act = blob(key, 60_000);
        match node.commit(if urgent { act.urgent() } else { act }).await {
            Settled::Durable { outcome: Ok(()), .. } => kept.push(key),
            Settled::Lost(StoreError::Full) => return kept,
            other @ (Settled::Durable { .. } | Settled::Moved | Settled::Lost(_)) => {
                panic!("{other:?}")
            }
        }
    }
    panic!("the store never filled");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_must_hear_is_read_while_questions_keep_every_other_reader() {
    let place = Place::sqlite();
    let node = place.node().await;
    let mut kept = Vec::new();
    for _ in 0..8 {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let reader = node.reader.clone();
        let question = async move {
            let view = reader.view(move |_| {
                let _released = held.recv();
                async { Ok(()) }.boxed()
            });
            view.await
        };
        kept.push((release, node.tasks.spawn(question)));
    }
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let heard = node.reader.urgent_view(|tx| async { Ok(tx.epoch().await?) }.boxed());
    let heard = tokio::time::timeout(std::time::Duration::from_secs(5), heard).await;
    assert!(heard.is_ok_and(|epoch| epoch.is_ok()), "it waited for the others");
    assert!(kept.iter().all(|(_, question)| !question.is_finished()));
    let (released, questions): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
    drop(released);
    for question in questions {
        question.await.unwrap().unwrap();
    }
}

pub(super) const BLOBS: &str = "CREATE TABLE blobs (id BIGINT PRIMARY KEY, b BLOB)";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_refuses_ordinary_jobs_and_keeps_room_for_urgent_ones() {
    let place = Place::sqlite();
    let location = Location::Sqlite { path: place.file(), max_mib: 4, reserve_mib: 2 };
    let node = Node::open(&location).await.unwrap();
    place.by_hand(BLOBS).await;
    let mut kept = fill(&node, 0, false).await;
    assert!((10..40).contains(&kept.len()), "{}", kept.len());
    // Ordinary and urgent at once: in one group or not, each gets its own answer.
    let ordinary = node.submit(blob(1_000, 60_000)).await;
    let urgent = node.submit(blob(1_001, 60_000).urgent()).await;
    let ordinary_too = node.submit(blob(1_002, 60_000)).await;
    assert_eq!(ordinary.await, Ok(Settled::Lost(StoreError::Full)));
    assert!(matches!(urgent.await, Ok(Settled::Durable { outcome: Ok(()), .. })));
    assert_eq!(ordinary_too.await, Ok(Settled::Lost(StoreError::Full)));
    kept.push(1_001);
    let reserve = fill(&node, 2_000, true).await;
    assert!((10..40).contains(&reserve.len()), "{}", reserve.len());
    kept.extend(reserve);
    assert_eq!(blobs(&node).await, kept);
    place.by_hand("DELETE FROM blobs WHERE id < 1000").await;
    node.done(blob(3_000, 60_000)).await;
    node.close().await;
    let again = place.node().await;
    kept.retain(|key| *key >= 1_000);
    kept.push(3_000);
    assert_eq!(blobs(&again).await, kept);
    again.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_transaction_takes_nothing_more_and_tells_its_whole_group() {
    let place = Place::sqlite();
    let location = Location::Sqlite { path: place.file(), max_mib: 2, reserve_mib: 0 };
    let node = Node::open(&location).await.unwrap();
    place.by_hand(BLOBS).await;
    let (sender, heard) = std::sync::mpsc::channel();
    let stubborn = Act::new(move |tx| {
        let sender = sender.clone();
        async move {
            let huge = vec![Value::Int(1), Value::Bytes(vec![0; 3_000_000])];
            let sql = "INSERT INTO blobs (id, b) VALUES ($1, $2)";
            let full = tx.execute(sql, huge).await;
            // SQLite has rolled everything back: this would commit by itself.
            let after = tx.execute("INSERT INTO blobs (id, b) VALUES (2, X'00')", vec![]).await;
            sender.send((full, after)).unwrap();
            Ok(())
        }
        .boxed()
    });
    let settled = in_one_group(&node, vec![blob(10, 10), stubborn, blob(11, 10)]).await;
    assert_eq!(heard.recv(), Ok((Err(StoreError::Full), Err(StoreError::Poisoned))));
    assert_eq!(settled, [const { Settled::Lost(StoreError::Full) }; 3]);
    assert_eq!(blobs(&node).await, [0; 0]);
    node.done(blob(12, 10)).await;
    assert_eq!(blobs(&node).await, [12]);
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_removed_or_replaced_acknowledges_nothing_more() {
    for (what, gone) in [("file", "state.db"), ("log", "state.db-wal")] {
        let place = Place::sqlite();
        let Place::Sqlite(dir) = &place else { panic!("not SQLite") };
        let node = place.node().await;
        node.insert(&identity(1, "a")).await;
        let path = dir.path().join(gone);
        fs::remove_file(&path).unwrap();
        let settled = node.commit(insert(identity(2, "b")).leaf(b"b")).await;
        assert!(matches!(settled, Settled::Lost(StoreError::Unavailable(_))), "{what} {settled:?}");
        if what == "file" {
            let settled = node.commit(insert(identity(3, "c")).leaf(b"c")).await;
            assert!(matches!(settled, Settled::Lost(StoreError::Unavailable(_))), "{settled:?}");
            assert!(!path.exists(), "no empty store takes its place");
            fs::write(&path, b"").unwrap();
            let settled = node.commit(insert(identity(3, "c")).leaf(b"c")).await;
            assert!(matches!(settled, Settled::Lost(_)), "{settled:?}");
        }
        node.close().await;
    }
}

/// Fills a disk of 4 MiB: ordinary jobs are refused, and go on being refused, while urgent ones use
/// what was kept.
async fn fill_up(dir: &Path) {
    let path = dir.join("state.db");
    let node = Node::open(&Location::Sqlite { path, max_mib: 0, reserve_mib: 1 }).await.unwrap();
    node.done(sql(BLOBS)).await;
    let mut kept = fill(&node, 0, false).await;
    assert!((10..50).contains(&kept.len()), "{}", kept.len());
    for key in 1_000..1_003 {
        node.done(blob(key, 60_000).urgent()).await;
        assert_eq!(node.commit(blob(2_000, 200_000)).await, Settled::Lost(StoreError::Full));
        kept.push(key);
    }
    let reserve = fill(&node, 3_000, true).await;
    assert!((5..16).contains(&reserve.len()), "{}", reserve.len());
    kept.extend(reserve);
    assert_eq!(blobs(&node).await, kept);
    node.close().await;
}

const SMALL: &str = "STRONGROOM_TEST_SMALL_DISK";

/// The process whose disk is small.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test below, in a process of its own"]
async fn on_a_small_disk() {
    let Some(dir) = std::env::var_os(SMALL) else { return };
    fill_up(Path::new(&dir)).await;
}

#[test]
fn a_full_disk_refuses_ordinary_jobs_and_room_beside_the_store_is_kept_for_urgent_ones() {
    let dir = tempfile::tempdir().unwrap();
    run(Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::sqlite::on_a_small_disk", "--ignored", "--nocapture"])
        .env("LD_PRELOAD", disk::shim())
        .env("DISK_DIR", dir.path())
        .env("DISK_BYTES", (4 << 20).to_string())
        .env(SMALL, dir.path()));
    assert!(dir.path().join("state.db").exists(), "it ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn room_beside_the_store_is_kept_on_a_real_disk_as_well() {
    let Some(disk) = Disk::mount() else { return };
    fill_up(disk.0.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_disk_that_fills_up_or_is_read_only_is_answered_as_such() {
    let Some(disk) = Disk::mount() else { return };
    let path = disk.0.path().join("state.db");
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![1; 1_000_000]).unwrap();
    let node = Node::open(&sqlite_at(&path)).await.unwrap();
    node.done(sql(BLOBS)).await;
    let kept = fill(&node, 0, false).await;
    assert!(!kept.is_empty());
    assert_eq!(blobs(&node).await, kept);
    fs::remove_file(&ballast).unwrap();
    node.done(blob(1_000, 60_000)).await;
    node.close().await;
    disk.read_only();
    assert_eq!(Node::open(&sqlite_at(&path)).await.err(), Some(StoreError::ReadOnly));
}

/// A file system of 4 MiB.
struct Disk(tempfile::TempDir);

impl Disk {
    #[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = ["-t", "tmpfs", "-o", "size=4m", "strongroom-test"];
        let mounted = Command::new("mount").args(options).arg(dir.path()).output();
        if mounted.is_ok_and(|done| done.status.success()) {
            return Some(Self(dir));
        }
        eprintln!("not run: this account may not mount a small disk");
        None
    }

    fn read_only(&self) {
        // The readers' threads end by themselves, a moment after the node.
        for _ in 0..50 {
            let mut remount = Command::new("mount");
            let done = remount.args(["-o", "remount,ro"]).arg(self.0.path()).output().unwrap();
            if done.status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("the disk stays busy");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(self.0.path()));
    }
}

fn run(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_truncated_log_loses_is_a_tail_and_shows_against_what_was_kept() {
    let place = Place::sqlite();
    let node = place.node().await;
    for number in 0..30 {
        let leaf = record::entry(&mut Dice(number + 1), 1).leaf;
        node.done(insert(identity(number, &format!("i{number}"))).leaf(&leaf)).await;
    }
    let head = record::integrate(&node).await;
    let kept = record::entries(&node).await;
    assert_eq!(head.size, 30);
    let own = node.reader.own_lanes();
    let wal = fs::read(wal_of(&place.file())).unwrap();
    let file = fs::read(place.file()).unwrap();
    let mut lost = 0;
    for part in 0..12 {
        let copy = Place::sqlite();
        fs::write(copy.file(), &file).unwrap();
        // Cut anywhere, and once with a byte turned over in what is left.
        let mut rest = wal[..wal.len() * part / 11].to_vec();
        if part == 5 {
            let middle = rest.len() / 2;
            rest[middle] ^= 0xff;
        }
        fs::write(wal_of(&copy.file()), &rest).unwrap();
        let connection = rusqlite::Connection::open(copy.file()).unwrap();
        let verdict: String =
            connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
        drop(connection);
        let again = copy.node().await;
        record::integrate(&again).await;
        let found = record::entries(&again).await;
        assert_eq!(found, kept[..found.len()], "part {part}");
        let (lane, own) = own.first_key_value().unwrap();
        let (lane, seq) = (*lane, *own.batches.last_key_value().unwrap().0);
        let newest = again
            .reader
            .view(|tx| async { Ok(strongroom::store::records::lanes(tx).await?) }.boxed())
            .await
            .unwrap()
            .iter()
            .find(|state| state.lane == lane)
            .map_or(0, |state| state.seq);
        assert_eq!(newest < seq, found.len() < 30, "the lane shows it");
        lost += usize::from(found.len() < 30);
        again.close().await;
    }
    assert!(lost > 5);
    node.close().await;
}

pub(super) fn wal_of(file: &Path) -> PathBuf {
    file.with_extension("db-wal")
}
