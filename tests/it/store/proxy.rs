//! A TCP proxy in front of PostgreSQL that cuts a connection at its COMMIT.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What happens to the next COMMIT that carries a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Nothing,
    /// The server never sees it.
    Before,
    /// The server commits, its answer never arrives.
    After,
    /// The server never sees it, and cannot be asked again.
    BeforeAndGone,
}

/// The proxy; it ends with the test's runtime.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    pub(super) port: u16,
    cut: Arc<AtomicU8>,
    cuts: Arc<AtomicU8>,
}

const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
const GONE: u8 = 100;

impl Proxy {
    pub(super) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Self { port, cut: Arc::default(), cuts: Arc::default() };
        let shared = proxy.clone();
        super::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.cut.load(Ordering::SeqCst) == GONE {
                    continue;
                }
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                super::spawn(shared.clone().carry(client, server));
            }
        });
        proxy
    }

    /// Cuts the next COMMIT.
    pub(super) fn arm(&self, cut: Cut) {
        self.cut.store(cut as u8, Ordering::SeqCst);
    }

    /// Counts the cuts so far.
    pub(super) fn cuts(&self) -> u8 {
        self.cuts.load(Ordering::SeqCst)
    }

    async fn carry(self, mut client: TcpStream, mut server: TcpStream) {
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            tokio::select! {
                read = client.read(&mut up) => {
                    let Ok(count @ 1..) = read else { return };
                    let bytes = &up[..count];
                    if bytes.ends_with(COMMIT) {
                        let cut = self.take();
                        if cut == Cut::After as u8 {
                            server.write_all(bytes).await.unwrap();
                            // Its answer is read and swallowed.
                            let swallowed = server.read(&mut down).await.unwrap();
                            assert!(swallowed > 0);
                        }
                        if cut != Cut::Nothing as u8 {
                            self.cuts.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                    }
                    if server.write_all(bytes).await.is_err() { return }
                }
                read = server.read(&mut down) => {
                    let Ok(count @ 1..) = read else { return };
                    if client.write_all(&down[..count]).await.is_err() { return }
                }
            }
        }
    }

    fn take(&self) -> u8 {
        let gone = Cut::BeforeAndGone as u8;
        let cut = self.cut.load(Ordering::SeqCst);
        let next = if cut == gone { GONE } else { Cut::Nothing as u8 };
        self.cut.store(next, Ordering::SeqCst);
        cut
    }
}
