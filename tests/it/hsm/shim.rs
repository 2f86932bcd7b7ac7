//! Compiles and drives the module that breaks on command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use strongroom::hsm::{Hsm, KeyKind, Pkcs11Hsm, softhsm as library};

use crate::support::softhsm::{self, Token};

/// What the shim does now.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    None,
    Hang,
    Lost,
    Removed,
    DeviceError,
    FinalTry,
    Locked,
}

/// A token behind the shim.
pub(super) struct Shim<'a> {
    pub(super) token: &'a Token,
    pub(super) hsm: Pkcs11Hsm,
}

impl Shim<'_> {
    /// Turns a fault on; the shim sees it at its next call.
    pub(super) fn set(&self, fault: Fault) {
        let word = match fault {
            Fault::None => "",
            Fault::Hang => "hang",
            Fault::Lost => "lost",
            Fault::Removed => "removed",
            Fault::DeviceError => "device_error",
            Fault::FinalTry => "final_try",
            Fault::Locked => "locked",
        };
        // Renamed into place: the shim never reads half a word.
        let next = self.token.dir.join("control.next");
        fs::write(&next, word).unwrap();
        fs::rename(next, self.token.dir.join("control")).unwrap();
    }

    /// Counts the calls of a function so far.
    pub(super) fn count(&self, function: &str) -> usize {
        let log = fs::read_to_string(self.token.dir.join("log")).unwrap_or_default();
        log.lines().filter(|line| *line == function).count()
    }

    /// Logs in and makes a key to sign with.
    pub(super) async fn unseal(&self) {
        self.hsm.login(self.token.pin()).await.unwrap();
        self.hsm.create_key("ca", KeyKind::EcdsaP256).await.unwrap();
    }
}

/// Runs a test's body in a child process with a token behind the shim.
pub(super) fn in_child(test: &str, body: impl AsyncFnOnce(Shim<'_>)) {
    let environment = |dir: &Path| {
        vec![
            ("SHIM_MODULE", library::lookup_module().unwrap()),
            ("SHIM_CONTROL", dir.join("control")),
            ("SHIM_LOG", dir.join("log")),
        ]
    };
    softhsm::in_child_with(test, environment, |token| {
        let hsm = Pkcs11Hsm::open(&token.config_through(&module(&token.dir))).unwrap();
        super::conformance::block_on(body(Shim { token, hsm }));
    });
}

/// Waits until something holds that another thread brings about, at most 10 s.
pub(super) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn module(dir: &Path) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let path = dir.join("shim.so");
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/pkcs11_shim.c");
            let output = Command::new("cc")
                .args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
                .arg(&path)
                .arg(source)
                .arg("-ldl")
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            path
        })
        .clone()
}
