//! The HTTP listener, which strangers may reach: connections have a bound, and each an end.

use std::sync::Arc;
use std::time::Duration;

use strongroom::engines::pki::CrlSlot;
use strongroom::http::{Front, Limits, serve};
use strongroom::telemetry::{Gauges, Metrics};
use strongroom::types::TaskGroup;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::node::Fixture;

/// A listener over a vault, with bounds of the test's own.
async fn listener(f: &Fixture, limits: Limits, metrics: &Arc<Metrics>, tasks: &TaskGroup) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let front = Front {
        vault: f.node().vault.clone(),
        standing: f.node().life.standing().clone(),
        metrics: Arc::clone(metrics),
        hsm: f.hsm.clone(),
        crls: CrlSlot::default(),
    };
    drop(tasks.spawn(serve(listener, front, limits, tasks.clone())));
    port
}

/// What a path is answered with, where it is.
pub(crate) async fn ask(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

/// Waits until the other end is closed, which it has to be soon.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let ended = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
    drop(ended.expect("the connection stays open"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_nothing_or_takes_too_long_gives_up_its_place() {
    let f = Fixture::new().await;
    let (metrics, tasks) = (Arc::new(Metrics::default()), TaskGroup::default());
    let (header, whole) = (Duration::from_millis(300), Duration::from_secs(2));
    let limits = Limits { connections: 2, header, whole, ..Limits::default() };
    let port = listener(&f, limits, &metrics, &tasks).await;
    assert!(ask(port, "/healthz").await.is_some());
    let connect = async || TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut silent, mut slow) = (connect().await, connect().await);
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: lo").await.unwrap();
    let mut third = connect().await;
    closed(&mut third).await;
    assert!(metrics.render(&Gauges::default()).contains("connections_refused_total 1"));
    closed(&mut silent).await;
    closed(&mut slow).await;
    assert!(ask(port, "/healthz").await.is_some());
    // One that goes on asking ends as well.
    let mut busy = connect().await;
    let asking = async {
        let mut buffer = [0; 1_024];
        while busy.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.is_ok() {
            if busy.read(&mut buffer).await.unwrap_or_default() == 0 {
                return;
            }
        }
    };
    timeout(Duration::from_secs(10), asking).await.expect("it asks for ever");
    tasks.stop();
    timeout(Duration::from_secs(10), tasks.shutdown()).await.expect("it does not stop");
}
