//! Where a secret comes from, and reading it: a file, a file descriptor, a systemd credential.
//!
//! A secret is read when it is needed and not before, so that a PIN is in memory only while the
//! token is being logged into. It is never a value in the configuration, in the environment or on
//! a command line.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use super::ConfigError;
use super::reader::{Section, absolute};
use crate::types::SecretBytes;

/// Largest secret that is read, in bytes.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// A place that holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSource {
    file: PathBuf,
    key: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Fd(u32),
    Credential(PathBuf),
}

impl SecretSource {
    /// Names a file; `key` is what errors blame.
    #[must_use]
    pub fn file(key: &str, path: PathBuf) -> Self {
        Self { file: path.clone(), key: key.to_owned(), place: Place::File(path) }
    }

    /// Reads the secret, without one trailing line break. A file descriptor gives it once.
    ///
    /// # Errors
    /// [`ConfigError`] when it is not there, empty, longer than [`MAX_SECRET_BYTES`], or when
    /// anybody but the owner (this user or root) may read it.
    pub fn read(&self) -> Result<SecretBytes, ConfigError> {
        let mut file = self.open()?;
        // One allocation of the final size: growing would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES.saturating_add(64)));
        let limit = u64::try_from(MAX_SECRET_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        file.by_ref()
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|e| self.fault(format!("cannot be read ({e})")))?;
        if bytes.len() > MAX_SECRET_BYTES {
            return Err(self.fault(format!("holds more than {MAX_SECRET_BYTES} bytes")));
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if bytes.is_empty() {
            return Err(self.fault("is empty; put the secret in it"));
        }
        Ok(SecretBytes::from(bytes))
    }

    fn open(&self) -> Result<File, ConfigError> {
        match &self.place {
            Place::File(path) => self.open_file(path, 0o077),
            // systemd grants a unit's user access by an ACL, which shows as group bits.
            Place::Credential(path) => self.open_file(path, 0o007),
            Place::Fd(fd) => File::open(format!("/proc/self/fd/{fd}")).map_err(|e| {
                self.fault(format!("cannot be opened ({e}); pass an open pipe or file to read"))
            }),
        }
    }

    fn open_file(&self, path: &Path, forbidden: u32) -> Result<File, ConfigError> {
        let name = path.display();
        // Without O_NONBLOCK a FIFO in its place would hang the start.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, Mode::empty()).map(File::from).map_err(|e| {
            self.fault(format!("{name} cannot be opened ({e}); create it, readable by this user"))
        })?;
        let about =
            file.metadata().map_err(|e| self.fault(format!("{name} cannot be examined ({e})")))?;
        if !about.is_file() {
            return Err(self.fault(format!("{name} is not a file")));
        }
        if about.mode() & forbidden != 0 {
            return Err(self.fault(format!("{name} may be read by others; run chmod 600 on it")));
        }
        let me = rustix::process::geteuid().as_raw();
        if about.uid() != 0 && about.uid() != me {
            return Err(self.fault(format!("{name} belongs to another user; run chown on it")));
        }
        Ok(file)
    }

    fn fault(&self, fault: impl Into<String>) -> ConfigError {
        ConfigError::of_key(&self.file, None, &self.key, fault)
    }
}

/// Takes the source of a secret: at most one of `<stem>_file`, `<stem>_fd`, `<stem>_credential`.
pub(super) fn read(section: &Section<'_>, stem: &str) -> Result<Option<SecretSource>, ConfigError> {
    let names = ["file", "fd", "credential"].map(|kind| format!("{stem}_{kind}"));
    let mut there = names.iter().filter(|name| section.has(name));
    let Some(key) = there.next() else { return Ok(None) };
    if let Some(second) = there.next() {
        return Err(section.fault(second, format!("{key} is there too; keep one of the two")));
    }
    let place = if key.ends_with("_file") {
        section.path(key)?.map(Place::File)
    } else if key.ends_with("_fd") {
        Some(Place::Fd(section.small(key, 0..=65_535, 0)?))
    } else {
        credential(section, key)?.map(Place::Credential)
    };
    let file = section.file().to_owned();
    Ok(place.map(|place| SecretSource { file, key: section.full_key(key), place }))
}

fn credential(section: &Section<'_>, key: &str) -> Result<Option<PathBuf>, ConfigError> {
    let plain = |name: &str| {
        let fits = !name.is_empty() && name.len() <= 255 && !name.starts_with('.');
        (fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)))
            .then(|| name.to_owned())
    };
    let expected = "the name of a systemd credential, as in LoadCredential=NAME:PATH";
    let Some(name) = section.parsed(key, expected, plain)? else { return Ok(None) };
    let dir = section.environment().credentials_dir.as_deref().and_then(Path::to_str);
    let path = dir.and_then(absolute).map(|dir| dir.join(name));
    path.map(Some).ok_or_else(|| {
        section.fault(
            key,
            "systemd passed no credentials; start the server as a unit with LoadCredential=, or \
             name a file instead",
        )
    })
}
