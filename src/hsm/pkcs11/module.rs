//! The PKCS#11 module: checked, loaded and initialised once a process.
//!
//! Knows files and `C_Initialize`; must not know tokens.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use aws_lc_rs::digest;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use parking_lot::Mutex;

use super::error::map;
use crate::hsm::HsmError;

/// Modules that are initialised; held while one is being initialised or finalised.
static LOADED: Mutex<Vec<(PathBuf, Weak<Module>)>> = Mutex::new(Vec::new());

/// A module that is initialised, until the last owner goes.
///
/// Every thread that may be inside a call owns an `Arc` of it, so `C_Finalize` is never called
/// while somebody is inside, a thread that hangs included.
pub(in crate::hsm) struct Module {
    context: Option<Pkcs11>,
    path: PathBuf,
    sha256: String,
    /// Whether we called `C_Initialize`; who did not, does not finalise.
    owned: bool,
    /// Whether more than one opened it.
    shared: AtomicBool,
    /// Makes keys be made one at a time in this process, so that one of two wins.
    creating: Arc<tokio::sync::Mutex<()>>,
}

impl Module {
    /// Loads and initialises a module, or shares the one that is loaded.
    ///
    /// # Errors
    /// [`HsmError::Configuration`] when the path is relative, not a file, or writable by others;
    /// what the module says to `C_Initialize`.
    pub(in crate::hsm) fn open(path: &Path) -> Result<Arc<Self>, HsmError> {
        let mut loaded = LOADED.lock();
        loaded.retain(|(_, module)| module.strong_count() > 0);
        let known = loaded.iter().find(|(known, _)| known == path);
        if let Some(module) = known.and_then(|(_, module)| module.upgrade()) {
            module.shared.store(true, Ordering::SeqCst);
            return Ok(module);
        }
        let sha256 = inspect(path)?;
        tracing::info!(module = %path.display(), %sha256, "loading the PKCS#11 module");
        let context = Pkcs11::new(path).map_err(|error| {
            HsmError::Configuration(format!("cannot load {}: {error}", path.display()))
        })?;
        let owned = match context.initialize(arguments()) {
            Ok(()) => true,
            Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => false,
            // What it looks for may come yet: who looks for the token begins with this again.
            Err(error) => match map(&error) {
                cause if !matches!(cause, HsmError::Unavailable(_)) => return Err(cause),
                cause => {
                    tracing::warn!(%cause, "the PKCS#11 module does not initialise");
                    true
                }
            },
        };
        let module = Arc::new(Self {
            context: Some(context),
            path: path.to_owned(),
            sha256,
            owned,
            shared: AtomicBool::new(false),
            creating: Arc::default(),
        });
        loaded.push((path.to_owned(), Arc::downgrade(&module)));
        Ok(module)
    }

    /// Gives the loaded module.
    pub(in crate::hsm) fn context(&self) -> Result<&Pkcs11, HsmError> {
        self.context.as_ref().ok_or_else(|| HsmError::Unavailable("module finalised".to_owned()))
    }

    /// Finalises and initialises it anew, for modules that look for tokens only then; not where
    /// somebody else uses it.
    ///
    /// Only for whoever keeps everybody else out of the module.
    ///
    /// # Errors
    /// What the module says to `C_Initialize`; the next call begins with it again.
    pub(super) fn start_over(&self) -> Result<(), HsmError> {
        let _loading = LOADED.lock();
        if !self.owned || self.shared.load(Ordering::SeqCst) {
            return Ok(());
        }
        let context = self.context()?;
        match context.clone().finalize() {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiNotInitialized, _)) => {}
            Err(error) => return Err(map(&error)),
        }
        context.initialize(arguments()).map_err(|error| map(&error))
    }

    /// Gives what is held while a key is made: before a thread is taken, because making one may
    /// take long, and all threads would wait for it.
    pub(super) fn creating(&self) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.creating)
    }

    /// Gives the module's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the SHA-256 of the module's file, in hex.
    pub(super) fn sha256(&self) -> &str {
        &self.sha256
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("path", &self.path)
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _loading = LOADED.lock();
        if let Some(context) = self.context.take().filter(|_| self.owned)
            && let Err(error) = context.finalize()
        {
            tracing::warn!(%error, "the PKCS#11 module did not finalise");
        }
    }
}

fn arguments() -> CInitializeArgs {
    CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)
}

/// Checks who may change the module's file and hashes it.
fn inspect(path: &Path) -> Result<String, HsmError> {
    let refuse = |why: &str| HsmError::Configuration(format!("module {}: {why}", path.display()));
    if !path.is_absolute() {
        return Err(refuse("the path must be absolute"));
    }
    let mut file = File::open(path).map_err(|error| refuse(&error.to_string()))?;
    let metadata = file.metadata().map_err(|error| refuse(&error.to_string()))?;
    if !metadata.is_file() {
        return Err(refuse("not a file"));
    }
    let owner = metadata.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(refuse("must belong to root or to the user that runs the vault"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(refuse("must not be writable by group or others"));
    }
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0_u8; 64 * 1_024];
    loop {
        let read = file.read(&mut buffer).map_err(|error| refuse(&error.to_string()))?;
        match buffer.get(..read) {
            Some([]) | None => break,
            Some(chunk) => hash.update(chunk),
        }
    }
    Ok(data_encoding::HEXLOWER.encode(hash.finish().as_ref()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn modules_that_others_could_change_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let writable = dir.path().join("writable.so");
        fs::write(&writable, b"x").unwrap();
        fs::set_permissions(&writable, fs::Permissions::from_mode(0o666)).unwrap();
        for (path, why) in [
            (Path::new("libsofthsm2.so"), "absolute"),
            (Path::new("/nonexistent/module.so"), "No such file"),
            (dir.path(), "not a file"),
            (&writable, "writable"),
        ] {
            let fault = inspect(path).unwrap_err().to_string();
            assert!(fault.contains(why), "{fault}");
        }
    }

    #[test]
    fn a_file_that_is_no_module_is_a_configuration_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("module.so");
        fs::write(&path, b"abc").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(
            inspect(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(matches!(Module::open(&path), Err(HsmError::Configuration(_))));
    }
}
