//! The real program, killed while it writes: what was acknowledged is there, whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rustix::process::Signal;

use super::{client, fetch, get, put, states};
use crate::support::program::Installation;
use crate::support::target::until;

fn value(version: i64) -> Vec<u8> {
    format!("value {version} ").repeat(200).into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_no_version_that_was_acknowledged_and_leaves_none_in_part() {
    let real = Installation::new();
    assert!(real.init().status.success());
    let mut server = real.serve();
    let alice = real.register(&server, &real.bootstrap(), "alice");
    for verb in ["put", "get", "history"] {
        let line = format!("grant add alice --action secrets.{verb} --resource secrets/crash/*");
        real.ask(&server, &alice, &line);
    }
    let mut newest = 0;
    for round in 0..5 {
        let channel = real.connect(&server, &alice.login()).await;
        let acknowledged = Arc::new(AtomicI64::new(newest));
        let writer = {
            let (mut client, acknowledged) = (client(&channel), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                loop {
                    let known = acknowledged.load(Ordering::Acquire);
                    match put(&mut client, "crash/one", &value(known + 1), known).await {
                        Ok(version) => acknowledged.store(version, Ordering::Release),
                        Err(_gone) => break,
                    }
                }
            })
        };
        let wanted = newest + 3 + round;
        until("some are written", async || acknowledged.load(Ordering::Acquire) >= wanted).await;
        server.signal(Signal::KILL);
        assert_eq!(server.ended(), None);
        writer.await.unwrap();
        server = real.serve();
        let mut client = client(&real.connect(&server, &alice.login()).await);
        let known = acknowledged.load(Ordering::Acquire);
        newest = fetch(&mut client, "crash/one", 0).await.unwrap().version;
        assert!(newest == known || newest == known + 1, "{newest} of {known}");
        let live: Vec<_> = states(&mut client, "crash/one").await;
        let live: Vec<_> = live.iter().filter(|(_, state)| state == "live").collect();
        assert_eq!(live.len(), usize::try_from(newest.min(10)).unwrap());
        for (version, _) in live {
            assert_eq!(get(&mut client, "crash/one", *version).await, Ok(value(*version)));
        }
    }
}
