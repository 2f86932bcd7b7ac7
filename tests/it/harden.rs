//! Process hardening: what is reported is what the kernel says.

use std::fs;
use std::process::Command;

use strongroom::harden::{Measure, harden};

/// Set in the child: hardening is for ever, so it must not happen to the other tests' process.
const CHILD: &str = "STRONGROOM_TEST_HARDEN";

#[test]
fn what_is_reported_is_what_the_kernel_says() {
    if std::env::var_os(CHILD).is_some() {
        return in_the_child();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "harden::what_is_reported_is_what_the_kernel_says", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}

fn in_the_child() {
    let report = harden();
    assert_eq!(report.core_dumps, Measure::Done);
    assert_eq!(report.tracing, Measure::Done);
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    let dumpable = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(dumpable, rustix::process::DumpableBehavior::NotDumpable);

    let status = fs::read_to_string("/proc/self/status").unwrap();
    let locked = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
    let locked_kib: u64 = locked.split_whitespace().nth(1).unwrap().parse().unwrap();
    match report.memory {
        Measure::Done => assert!(locked_kib > 0, "{locked}"),
        Measure::NotDone(why) => {
            assert_eq!(locked_kib, 0, "{locked}");
            assert!(why.contains("RLIMIT_MEMLOCK") || why.contains("refused"), "{why}");
        }
    }
    // Still able to allocate and start threads afterwards: a limit that is reached would kill us.
    let sum: usize = (0..8)
        .map(|_| std::thread::spawn(|| vec![1_u8; 1 << 20].len()))
        .map(|thread| thread.join().unwrap())
        .sum();
    assert_eq!(sum, 8 << 20);
}
