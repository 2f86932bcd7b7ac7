//! Hung calls, lost sessions, removed tokens and wrong PINs, through a module that breaks.

use std::time::{Duration, Instant};

use strongroom::hsm::{Hsm, HsmError};
use strongroom::types::SecretBytes;

use super::shim::{Fault, eventually, in_child};

const PROMISED: Duration = Duration::from_secs(5);

#[test]
fn a_hung_call_answers_within_5_s_and_service_resumes_when_the_module_answers() {
    let test = "hsm::faults::\
                a_hung_call_answers_within_5_s_and_service_resumes_when_the_module_answers";
    in_child(test, async |shim| {
        shim.unseal().await;
        shim.set(Fault::Hang);
        let began = Instant::now();
        assert!(matches!(shim.hsm.sign("ca", b"m").await, Err(HsmError::Unavailable(_))));
        assert!(began.elapsed() < PROMISED, "{:?}", began.elapsed());
        eventually("it counts", || shim.hsm.stuck_threads() == 1).await;
        shim.hsm.random(8).await.expect("the other threads serve");

        shim.set(Fault::None);
        shim.hsm.sign("ca", b"m").await.expect("served as soon as the module answers");
        eventually("the stuck thread is back", || shim.hsm.stuck_threads() == 0).await;
        assert_eq!(shim.count("login"), 1, "nothing was lost");
    });
}

#[test]
fn at_most_four_threads_are_stuck_and_further_calls_are_refused_at_once() {
    let test = "hsm::faults::at_most_four_threads_are_stuck_and_further_calls_are_refused_at_once";
    in_child(test, async |shim| {
        shim.unseal().await;
        shim.set(Fault::Hang);
        let began = Instant::now();
        let calls = (0..9).map(|_| shim.hsm.sign("ca", b"m"));
        for result in futures_util::future::join_all(calls).await {
            assert!(matches!(result, Err(HsmError::Unavailable(_))), "{result:?}");
        }
        assert!(began.elapsed() < PROMISED, "{:?}", began.elapsed());
        // A thread counts from when its job began, a little after its caller asked.
        eventually("all four count", || shim.hsm.stuck_threads() == 4).await;
        let threads = std::fs::read_dir("/proc/self/task").unwrap().filter(|task| {
            let name = task.as_ref().unwrap().path().join("comm");
            std::fs::read_to_string(name).is_ok_and(|name| name.trim() == "hsm")
        });
        assert_eq!(threads.count(), 4);

        let began = Instant::now();
        assert!(matches!(shim.hsm.random(8).await, Err(HsmError::Unavailable(_))));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

        shim.set(Fault::None);
        eventually("all are back", || shim.hsm.stuck_threads() == 0).await;
        shim.hsm.sign("ca", b"m").await.unwrap();
    });
}

#[test]
fn a_caller_that_goes_away_leaves_its_stuck_thread_counted() {
    let test = "hsm::faults::a_caller_that_goes_away_leaves_its_stuck_thread_counted";
    in_child(test, async |shim| {
        shim.unseal().await;
        shim.set(Fault::Hang);
        let short = Duration::from_millis(50);
        assert!(tokio::time::timeout(short, shim.hsm.sign("ca", b"m")).await.is_err());
        eventually("it is counted", || shim.hsm.stuck_threads() == 1).await;
        shim.set(Fault::None);
        eventually("it is back", || shim.hsm.stuck_threads() == 0).await;
    });
}

#[test]
fn sealing_a_hung_token_holds_at_once_and_logs_out_when_the_module_answers() {
    let test = "hsm::faults::\
                sealing_a_hung_token_holds_at_once_and_logs_out_when_the_module_answers";
    in_child(test, async |shim| {
        shim.unseal().await;
        shim.set(Fault::Hang);
        let calls = (0..4).map(|_| shim.hsm.sign("ca", b"m"));
        drop(futures_util::future::join_all(calls).await);
        assert!(matches!(shim.hsm.logout().await, Err(HsmError::Unavailable(_))));
        assert_eq!(shim.hsm.random(1).await, Err(HsmError::LoggedOut));

        shim.set(Fault::None);
        eventually("all are back", || shim.hsm.stuck_threads() == 0).await;
        assert_eq!(shim.hsm.sign("ca", b"m").await, Err(HsmError::LoggedOut));
        let wrong = SecretBytes::new(b"00000000".to_vec());
        assert_eq!(shim.hsm.login(wrong).await, Err(HsmError::PinIncorrect), "really out");
        shim.hsm.login(shim.token.pin()).await.unwrap();
        shim.hsm.sign("ca", b"m").await.unwrap();
    });
}

#[test]
fn the_module_is_finalised_only_when_no_call_is_inside() {
    let test = "hsm::faults::the_module_is_finalised_only_when_no_call_is_inside";
    in_child(test, async |shim| {
        shim.unseal().await;
        let second = strongroom::hsm::Pkcs11Hsm::open(
            &shim.token.config_through(&shim.token.dir.join("shim.so")),
        )
        .unwrap();
        assert_eq!(shim.count("initialize"), 1, "once a process");
        drop(second);
        shim.set(Fault::Hang);
        assert!(shim.hsm.sign("ca", b"m").await.is_err());
        assert!(matches!(shim.hsm.close().await, Err(HsmError::Unavailable(_))));
        assert_eq!(shim.count("finalize"), 0, "a call is inside");
        assert_eq!(shim.hsm.sign("ca", b"m").await, Err(HsmError::LoggedOut));
        shim.set(Fault::None);
        eventually("finalised", || shim.count("finalize") == 1).await;
    });
}

#[test]
fn a_lost_session_heals_without_a_restart() {
    in_child("hsm::faults::a_lost_session_heals_without_a_restart", async |shim| {
        shim.unseal().await;
        for round in 1..=3 {
            shim.set(Fault::Lost);
            shim.hsm.sign("ca", b"m").await.expect("signs again after connecting again");
            assert_eq!(shim.count("login"), 1 + round, "logged in again, once");
            shim.set(Fault::None);
            shim.hsm.sign("ca", b"m").await.unwrap();
        }
        assert_eq!(shim.count("initialize"), 1);
    });
}

#[test]
fn a_removed_token_or_a_device_error_is_unavailable_and_heals() {
    let test = "hsm::faults::a_removed_token_or_a_device_error_is_unavailable_and_heals";
    in_child(test, async |shim| {
        shim.unseal().await;
        let before = shim.hsm.lookup_key("ca").await.unwrap();
        for fault in [Fault::Removed, Fault::DeviceError, Fault::Removed] {
            shim.set(fault);
            for _ in 0..3 {
                let began = Instant::now();
                let result = shim.hsm.sign("ca", b"m").await;
                assert!(matches!(result, Err(HsmError::Unavailable(_))), "{fault:?}: {result:?}");
                assert!(began.elapsed() < PROMISED);
            }
            shim.set(Fault::None);
            shim.hsm.sign("ca", b"m").await.unwrap();
            assert_eq!(shim.hsm.lookup_key("ca").await.unwrap(), before);
        }
        assert_eq!((shim.count("initialize"), shim.count("finalize")), (1, 0));
    });
}

#[test]
fn a_wrong_pin_is_tried_exactly_once() {
    in_child("hsm::faults::a_wrong_pin_is_tried_exactly_once", async |shim| {
        for _ in 0..3 {
            let wrong = SecretBytes::new(b"00000000".to_vec());
            assert_eq!(shim.hsm.login(wrong).await, Err(HsmError::PinIncorrect));
            assert_eq!(shim.hsm.random(1).await, Err(HsmError::LoggedOut));
        }
        assert_eq!(shim.count("login"), 1);
        shim.hsm.login(shim.token.pin()).await.unwrap();
        assert_eq!(shim.count("login"), 2, "another PIN may be tried");
        shim.hsm.random(1).await.unwrap();
    });
}

#[test]
fn a_token_that_warns_of_its_last_try_is_refused_without_force() {
    let test = "hsm::faults::a_token_that_warns_of_its_last_try_is_refused_without_force";
    in_child(test, async |shim| {
        for fault in [Fault::FinalTry, Fault::Locked] {
            shim.set(fault);
            let result = shim.hsm.login(shim.token.pin()).await;
            assert_eq!(result, Err(HsmError::PinFinalTry), "{fault:?}");
        }
        assert_eq!(shim.count("login"), 0);
        shim.hsm.login_forced(shim.token.pin()).await.unwrap();
        shim.hsm.random(1).await.unwrap();
    });
}
