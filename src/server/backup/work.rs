//! A directory for what a backup is made from or opened into: this user's alone, and gone afterwards.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::error::{Error, Result};

/// The directory; it is removed when this is dropped.
#[derive(Debug)]
pub(super) struct WorkDir {
    path: PathBuf,
    /// Held as long as the directory is.
    _lock: File,
}

impl WorkDir {
    /// Makes the directory beside a store: what was left there by a crash goes.
    ///
    /// # Errors
    /// [`Error::Precondition`] where another backup is under way, or it cannot be made.
    pub(super) fn beside(store: &Path) -> Result<Self> {
        let path = place(store);
        let failed = |error: io::Error| {
            Error::precondition(format!("{} cannot be made ({error})", path.display()))
        };
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            Ok(()) | Err(_) => {}
        }
        let lock = File::open(&path).map_err(failed)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_held| Error::precondition("another backup is under way"))?;
        for left in std::fs::read_dir(&path).map_err(failed)? {
            std::fs::remove_file(left.map_err(failed)?.path()).map_err(failed)?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// Removes what one that was cut off left beside a store: a copy with its wraps, which no
    /// shredding would reach.
    pub(super) fn sweep(store: &Path) {
        if place(store).symlink_metadata().is_err() {
            return;
        }
        match Self::beside(store) {
            Ok(left) => drop(left),
            Err(error) => tracing::warn!(%error, "what a backup left is not removed"),
        }
    }

    /// A file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn place(store: &Path) -> PathBuf {
    let mut name = store.file_name().unwrap_or_default().to_owned();
    name.push("-backup");
    store.with_file_name(name)
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a copy of the store is left");
        }
    }
}
