//! What `strongroom dev` and tests need to make a SoftHSM token of their own.
//!
//! SoftHSM keeps its keys in files: whoever reads them has the keys. It finds its configuration
//! through `SOFTHSM2_CONF` only, and a process cannot safely change its own environment: it runs
//! itself once more with the variable set ([`with_environment`]).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use cryptoki::context::Pkcs11;
use cryptoki::error::Error;
use cryptoki::session::UserType;
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use super::HsmError;
use super::pkcs11::module::Module;
use crate::types::SecretBytes;

/// Names the file that SoftHSM reads its configuration from.
pub const CONFIGURATION_VARIABLE: &str = "SOFTHSM2_CONF";

/// Marks a process that was run again for its environment, so that it never loops.
pub const AGAIN_VARIABLE: &str = "STRONGROOM_ENVIRONMENT_SET";

/// Where distributions put the module.
const MODULES: &[&str] = &[
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
];

/// Finds the SoftHSM module where distributions put it.
#[must_use]
pub fn lookup_module() -> Option<PathBuf> {
    MODULES.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// Makes `softhsm2.conf` (mode 0600) and the token directory (mode 0700) in `dir`, and gives the
/// path of the former. Made anew each time, tokens are kept.
///
/// # Errors
/// [`HsmError::Configuration`] when `dir` is relative or cannot be written.
pub fn write_configuration(dir: &Path) -> Result<PathBuf, HsmError> {
    let refuse = |error: &dyn std::fmt::Display| {
        HsmError::Configuration(format!("cannot prepare {}: {error}", dir.display()))
    };
    if !dir.is_absolute() {
        return Err(refuse(&"the path must be absolute"));
    }
    let tokens = dir.join("tokens");
    DirBuilder::new().recursive(true).mode(0o700).create(&tokens).map_err(|e| refuse(&e))?;
    let path = dir.join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n\
         slots.removable = false\n",
        tokens.display()
    );
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| refuse(&e))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| refuse(&e))?;
    Ok(path)
}

/// Makes a token in a free slot and sets its user PIN; gives its serial number.
///
/// Blocks, and wants [`CONFIGURATION_VARIABLE`] set before the process began.
///
/// # Errors
/// [`HsmError::Configuration`] when a token of that label is there already, no slot is free, or a
/// PIN is not UTF-8.
pub fn initialise_token(
    module: &Path,
    label: &str,
    security_officer_pin: &SecretBytes,
    user_pin: &SecretBytes,
) -> Result<String, HsmError> {
    if label.is_empty() || label.len() > 32 || label.trim() != label {
        return Err(HsmError::Configuration("a token's label has 1 to 32 bytes".to_owned()));
    }
    let so_pin = auth_pin(security_officer_pin)?;
    let module = Module::open(module)?;
    let context = module.context()?;
    let (labelled, free) = slots(context, label)?;
    if labelled.is_some() {
        return Err(HsmError::Configuration(format!("a token `{label}` is there already")));
    }
    let free = free.ok_or_else(|| HsmError::Configuration("no slot is free".to_owned()))?;
    context.init_token(free, &so_pin, label).map_err(failed)?;
    // SoftHSM gives the token another slot number.
    let (slot, _) = slots(context, label)?;
    let slot = slot.ok_or_else(|| HsmError::Failed("the new token is not there".to_owned()))?;
    let session = context.open_rw_session(slot).map_err(failed)?;
    session.login(UserType::So, Some(&so_pin)).map_err(failed)?;
    session.init_pin(&auth_pin(user_pin)?).map_err(failed)?;
    session.logout().map_err(failed)?;
    session.close().map_err(failed)?;
    let token = context.get_token_info(slot).map_err(failed)?;
    Ok(token.serial_number().to_owned())
}

/// Finds the slot of a label and a slot whose token is not initialised.
fn slots(context: &Pkcs11, label: &str) -> Result<(Option<Slot>, Option<Slot>), HsmError> {
    let mut labelled = None;
    let mut free = None;
    for slot in context.get_slots_with_token().map_err(failed)? {
        let token = context.get_token_info(slot).map_err(failed)?;
        if !token.token_initialized() {
            free = Some(slot);
        } else if token.label() == label {
            labelled = Some(slot);
        }
    }
    Ok((labelled, free))
}

fn auth_pin(pin: &SecretBytes) -> Result<AuthPin, HsmError> {
    let text = Zeroizing::new(pin.expose().to_vec());
    let text = std::str::from_utf8(&text)
        .map_err(|_not_text| HsmError::Configuration("a PIN must be UTF-8".to_owned()))?;
    Ok(AuthPin::new(text.into()))
}

#[expect(clippy::needless_pass_by_value, reason = "stands as a function in map_err")]
fn failed(error: Error) -> HsmError {
    HsmError::Failed(error.to_string())
}

/// Computes the command that runs this program again with the module's environment set.
///
/// None when every variable has its value already. `current` tells a variable's present value. The
/// caller replaces itself (`CommandExt::exec`), first thing in `main`, before any thread.
///
/// # Errors
/// [`HsmError::Configuration`] when it ran again already and the values are still others.
pub fn with_environment(
    program: &Path,
    arguments: impl IntoIterator<Item = OsString>,
    wanted: &BTreeMap<String, String>,
    current: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<Command>, HsmError> {
    let holds = |(name, value): (&String, &String)| {
        current(name).is_some_and(|present| present == value.as_str())
    };
    if wanted.iter().all(holds) {
        return Ok(None);
    }
    if current(AGAIN_VARIABLE).is_some() {
        return Err(HsmError::Configuration(
            "the environment of the PKCS#11 module could not be set".to_owned(),
        ));
    }
    let mut command = Command::new(program);
    command.args(arguments).envs(wanted).env(AGAIN_VARIABLE, "1");
    Ok(Some(command))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_token_directory_is_readable_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let conf = write_configuration(&dir.path().join("hsm")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&conf), 0o600);
        assert_eq!(mode(&dir.path().join("hsm/tokens")), 0o700);
        assert_eq!(mode(&dir.path().join("hsm")), 0o700);
        let again = write_configuration(&dir.path().join("hsm")).unwrap();
        assert_eq!(fs::read(conf).unwrap(), fs::read(again).unwrap());
        assert!(write_configuration(Path::new("relative")).is_err());
    }

    #[test]
    fn a_program_runs_itself_again_once_and_never_loops() {
        let wanted = BTreeMap::from([("SOFTHSM2_CONF".to_owned(), "/a".to_owned())]);
        let run = |current: &dyn Fn(&str) -> Option<OsString>| {
            with_environment(Path::new("/bin/self"), ["server".into()], &wanted, current)
        };
        let command = run(&|_| None).unwrap().unwrap();
        assert_eq!(command.get_program(), "/bin/self");
        let envs: Vec<_> = command.get_envs().collect();
        assert!(envs.contains(&("SOFTHSM2_CONF".as_ref(), Some("/a".as_ref()))));
        assert!(run(&|name| (name == "SOFTHSM2_CONF").then(|| "/a".into())).unwrap().is_none());
        assert!(run(&|name| (name == AGAIN_VARIABLE).then(|| "1".into())).is_err());
    }
}
