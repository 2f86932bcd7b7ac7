//! Room on the disk that only suspending, revoking and sealing may use: a file beside the store
//! that holds it, and that is freed when nothing else is left.
//!
//! The bound on the size of the store keeps room within the store alone; a disk may be full before
//! that, by somebody else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};

/// How often it is tried to get what is missing.
const AGAIN: Duration = Duration::from_secs(30);
/// Parts in which it is taken where not all of it is there, in bytes.
const STEP: u64 = 64 * 1_024;

/// The room that is kept.
#[derive(Debug)]
pub(super) struct Room {
    path: PathBuf,
    bytes: u64,
    /// When it was last tried to get what is missing; none where nothing is.
    short: Option<Instant>,
}

impl Room {
    /// Says where it is; whoever only looks into a store takes none.
    pub(super) fn beside(store: &Path, mib: u64) -> Self {
        let mut path = store.as_os_str().to_owned();
        path.push("-reserve");
        Self { path: path.into(), bytes: mib.saturating_mul(1_048_576), short: None }
    }

    /// Takes what is missing of it, as much as there is: what an urgent job left of it is nobody
    /// else's.
    pub(super) fn keep(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let was_short = self.short.is_some();
        self.short = match self.take() {
            Ok(kept) if kept >= self.bytes => None,
            Ok(_) | Err(_) if was_short => Some(Instant::now()),
            Ok(kept) => {
                tracing::warn!(kept, wanted = self.bytes, "the store's reserve is not whole");
                Some(Instant::now())
            }
            Err(error) => {
                tracing::warn!(%error, "no room is kept beside the store");
                Some(Instant::now())
            }
        };
    }

    /// The same, where something is missing and a while is over.
    pub(super) fn keep_again(&mut self) {
        if self.short.is_some_and(|tried| tried.elapsed() >= AGAIN) {
            self.keep();
        }
    }

    /// Gives it to whoever writes next.
    pub(super) fn free(&mut self) {
        if self.bytes == 0 {
            return;
        }
        self.short = Some(Instant::now());
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(%error, "the store's reserve cannot be freed");
        }
    }

    fn take(&self) -> io::Result<u64> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)?;
        let mut kept = file.metadata()?.len();
        if kept > self.bytes {
            file.set_len(self.bytes)?;
            kept = self.bytes;
        }
        let mut step = self.bytes.saturating_sub(kept);
        while kept < self.bytes && step >= STEP {
            let by = step.min(self.bytes.saturating_sub(kept));
            match grow(&file, kept, by) {
                Ok(()) => kept = kept.saturating_add(by),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => step /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(kept)
    }
}

/// Has blocks of the disk put aside for the file, or leaves it as it is.
fn grow(file: &File, kept: u64, by: u64) -> io::Result<()> {
    let grown = fallocate(file, FallocateFlags::empty(), kept, by);
    if grown.is_err() {
        file.set_len(kept)?;
    }
    grown.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_as_configured_and_is_nobodys_once_freed() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("vault.db");
        let file = dir.path().join("vault.db-reserve");
        let size = || file.metadata().map(|about| about.len()).ok();
        let mut room = Room::beside(&store, 2);
        assert_eq!(size(), None);
        room.keep();
        assert_eq!(size(), Some(2 << 20));
        // Blocks, not a hole.
        let blocks = std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
        assert!(blocks * 512 >= 2 << 20, "{blocks}");
        room.free();
        assert_eq!(size(), None);
        room.keep_again();
        assert_eq!(size(), None, "not at once");
        room.keep();
        assert_eq!(size(), Some(2 << 20));
        Room::beside(&store, 1).keep();
        assert_eq!(size(), Some(1 << 20), "it follows the configuration");
        Room::beside(&dir.path().join("other.db"), 0).keep();
        assert!(!dir.path().join("other.db-reserve").exists());
    }
}
