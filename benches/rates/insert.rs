//! The fastest durable store of bytes that was measured here: one blob for each group of what waits.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// What is stored, and who waits for it.
pub(crate) type Insert = (Bytes, oneshot::Sender<()>);

/// Starts a thread that stores what it is sent in groups; it ends with the last sender.
pub(crate) fn start(most: usize) -> (mpsc::Sender<Insert>, std::thread::JoinHandle<()>) {
    let (sender, mut receiver) = mpsc::channel::<Insert>(4_096);
    let writer = std::thread::spawn(move || {
        let dir = tempfile::tempdir().unwrap();
        let connection = rusqlite::Connection::open(dir.path().join("bare.db")).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.pragma_update(None, "synchronous", "FULL").unwrap();
        connection
            .execute("CREATE TABLE blobs (id INTEGER PRIMARY KEY, body BLOB NOT NULL)", [])
            .unwrap();
        while let Some(first) = receiver.blocking_recv() {
            let mut waiting = vec![first];
            while waiting.len() < most
                && let Ok(next) = receiver.try_recv()
            {
                waiting.push(next);
            }
            let mut body = Vec::new();
            for (bytes, _) in &waiting {
                body.extend_from_slice(bytes);
            }
            let mut insert =
                connection.prepare_cached("INSERT INTO blobs (body) VALUES (?1)").unwrap();
            insert.execute([body]).unwrap();
            for (_, reply) in waiting {
                reply.send(()).unwrap();
            }
        }
    });
    (sender, writer)
}

/// Stores bytes and waits until they are durable.
pub(crate) async fn call(sender: &mpsc::Sender<Insert>, bytes: Bytes) {
    let (reply, done) = oneshot::channel();
    sender.send((bytes, reply)).await.unwrap();
    done.await.unwrap();
}
