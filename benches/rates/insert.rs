//! Durable stores without a server: the fastest of bytes that was measured here, one blob for each group
//! of what waits, and one of rows.

use bytes::Bytes;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

/// What is to be stored, and who waits for it.
pub(crate) type Asked<S> = (S, oneshot::Sender<()>);
/// How to ask for it.
pub(crate) type Asking<S> = mpsc::Sender<Asked<S>>;

/// Starts a thread that stores the bytes that it is sent in groups; it ends with the last sender.
pub(crate) fn start(most: usize) -> (Asking<Bytes>, std::thread::JoinHandle<()>) {
    grouped(most, "", |group, waiting: &[Bytes]| {
        let mut insert = group.prepare_cached("INSERT INTO blobs (body) VALUES (?1)").unwrap();
        insert.execute([waiting.concat()]).unwrap();
    })
}

/// Starts a thread that commits what it is sent in groups, each in one transaction over these tables
/// and one of blobs; it ends with the last sender.
pub(crate) fn grouped<S: Send + 'static>(
    most: usize,
    schema: &'static str,
    commit: fn(&Transaction<'_>, &[S]),
) -> (Asking<S>, std::thread::JoinHandle<()>) {
    let (sender, mut receiver) = mpsc::channel::<Asked<S>>(4_096);
    let writer = std::thread::spawn(move || {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = Connection::open(dir.path().join("bare.db")).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.pragma_update(None, "synchronous", "FULL").unwrap();
        connection.execute_batch(schema).unwrap();
        connection
            .execute("CREATE TABLE blobs (id INTEGER PRIMARY KEY, body BLOB NOT NULL)", [])
            .unwrap();
        while let Some((first, reply)) = receiver.blocking_recv() {
            let (mut waiting, mut replies) = (vec![first], vec![reply]);
            while waiting.len() < most
                && let Ok((next, reply)) = receiver.try_recv()
            {
                waiting.push(next);
                replies.push(reply);
            }
            let group = connection.transaction_with_behavior(TransactionBehavior::Immediate);
            let group = group.unwrap();
            commit(&group, &waiting);
            group.commit().unwrap();
            for reply in replies {
                reply.send(()).unwrap();
            }
        }
    });
    (sender, writer)
}

/// Asks for something to be stored, and waits until it is durable.
pub(crate) async fn call<S>(sender: &Asking<S>, what: S) {
    let (reply, done) = oneshot::channel();
    assert!(sender.send((what, reply)).await.is_ok(), "the writer ended");
    done.await.unwrap();
}
