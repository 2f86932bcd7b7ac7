//! The real program, killed while it rotates and encrypts: what was acknowledged opens.

use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::Signal;

use super::{client, decrypt, encrypt, rotate, show};
use crate::support::program::Installation;
use crate::support::target::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_no_version_that_was_acknowledged_and_nothing_that_was_encrypted() {
    let real = Installation::new();
    assert!(real.init().status.success());
    let mut server = real.serve();
    let alice = real.register(&server, &real.bootstrap(), "alice");
    for verb in ["create", "show", "rotate", "encrypt", "decrypt"] {
        let line = format!("grant add alice --action keys.{verb} --resource keys/crash/*");
        real.ask(&server, &alice, &line);
    }
    let made = real.ask(&server, &alice, "key create crash/one --algorithm aes-256-gcm");
    assert!(made.status.success(), "{made:?}");
    // What was answered: the newest version, and every ciphertext.
    let answered = Arc::new(Mutex::new((1_i64, Vec::<Vec<u8>>::new())));
    for round in 0..4_usize {
        let channel = real.connect(&server, &alice.login()).await;
        let work = {
            let (mut client, answered) = (client(&channel), Arc::clone(&answered));
            tokio::spawn(async move {
                loop {
                    let Ok(ciphertext) = encrypt(&mut client, "crash/one", b"canary", b"").await
                    else {
                        break;
                    };
                    answered.lock().1.push(ciphertext);
                    let Ok(version) = rotate(&mut client, "crash/one", 0).await else { break };
                    answered.lock().0 = version;
                }
            })
        };
        let wanted = answered.lock().1.len() + 3 + round;
        until("some are done", async || answered.lock().1.len() >= wanted).await;
        server.signal(Signal::KILL);
        assert_eq!(server.ended(), None);
        work.await.unwrap();
        server = real.serve();
        let mut client = client(&real.connect(&server, &alice.login()).await);
        let (version, ciphertexts) = answered.lock().clone();
        let newest = show(&mut client, "crash/one").await.unwrap().key.unwrap().version;
        assert!(newest == version || newest == version + 1, "{newest} of {version}");
        answered.lock().0 = newest;
        for ciphertext in ciphertexts {
            let (opened, _) = decrypt(&mut client, "crash/one", &ciphertext, b"").await.unwrap();
            assert_eq!(opened, b"canary");
        }
    }
}
