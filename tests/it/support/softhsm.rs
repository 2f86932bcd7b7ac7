//! SoftHSM tokens for tests.
//!
//! SoftHSM is one a process and finds its tokens through an environment variable that only a new
//! process can get. So a test that needs a token runs itself again, alone, in a child process with
//! a token of its own:
//!
//! ```ignore
//! #[test]
//! fn a_claim() {
//!     softhsm::in_child("noun::a_claim", |token| { … });
//! }
//! ```

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use strongroom::hsm::softhsm;
use strongroom::hsm::{Pkcs11Config, TokenSelector};
use strongroom::types::SecretBytes;

/// Says to a child process which test it is.
const CHILD: &str = "STRONGROOM_TEST_CHILD";

/// Longest that a child may take; a test that hangs is ended.
const CHILD_LIMIT: Duration = Duration::from_mins(5);

/// A SoftHSM token of this process alone.
#[derive(Debug)]
pub(crate) struct Token {
    /// The directory with everything of it; gone when the test ends.
    pub(crate) dir: PathBuf,
    /// The SoftHSM module.
    pub(crate) module: PathBuf,
    /// The token's label.
    pub(crate) label: String,
    /// The token's serial number.
    pub(crate) serial: String,
    /// The user's PIN.
    pub(crate) pin: SecretBytes,
}

impl Token {
    /// The configuration that opens it.
    pub(crate) fn config(&self) -> Pkcs11Config {
        self.config_through(&self.module)
    }

    /// The configuration that opens it through another module.
    pub(crate) fn config_through(&self, module: &Path) -> Pkcs11Config {
        Pkcs11Config { module: module.to_owned(), token: TokenSelector::Label(self.label.clone()) }
    }
}

/// Runs a test's body in a child process with a fresh token.
///
/// `test` is the test's full name, as `cargo test` prints it.
pub(crate) fn in_child(test: &str, body: impl FnOnce(&Token)) {
    in_child_within(test, CHILD_LIMIT, |_| Vec::new(), body);
}

/// Does the same with more of an environment, computed from the token's directory.
pub(crate) fn in_child_with(
    test: &str,
    environment: impl FnOnce(&Path) -> Vec<(&'static str, PathBuf)>,
    body: impl FnOnce(&Token),
) {
    in_child_within(test, CHILD_LIMIT, environment, body);
}

/// Does the same where it takes longer.
pub(crate) fn in_child_within(
    test: &str,
    limit: Duration,
    environment: impl FnOnce(&Path) -> Vec<(&'static str, PathBuf)>,
    body: impl FnOnce(&Token),
) {
    if env::var_os(CHILD).is_some_and(|name| name == test) {
        let conf = PathBuf::from(env::var_os(softhsm::CONFIGURATION_VARIABLE).unwrap());
        body(&make_token(conf.parent().unwrap()));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let conf = softhsm::write_configuration(dir.path()).unwrap();
    let output = Command::new("timeout")
        .arg(limit.as_secs().to_string())
        .arg(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .env("RUST_BACKTRACE", "0")
        .env(softhsm::CONFIGURATION_VARIABLE, conf)
        .envs(environment(dir.path()))
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && out.contains("1 passed"),
        "the child of {test} failed: {}\n{out}\n{err}",
        output.status
    );
}

fn make_token(dir: &Path) -> Token {
    let module = softhsm::lookup_module().expect("the softhsm2 package is not installed");
    let label = "strongroom".to_owned();
    let pin = SecretBytes::new(b"71839265".to_vec());
    let so_pin = SecretBytes::new(b"19283746".to_vec());
    let serial = softhsm::initialise_token(&module, &label, &so_pin, &pin).unwrap();
    Token { dir: dir.to_owned(), module, label, serial, pin }
}
