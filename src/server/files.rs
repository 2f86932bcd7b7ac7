//! Files that the program keeps: whole or not there, and private where they hold a key.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, FlockOperation};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Makes a directory that only its owner enters; one that is there must be so already.
pub(super) fn private_dir(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| failed(path, "cannot be made", &error))?;
    let about = path.metadata().map_err(|error| failed(path, "cannot be examined", &error))?;
    if about.permissions().mode() & 0o022 != 0 {
        return Err(Error::precondition(format!(
            "others may write to {}; run chmod go-w on it",
            path.display()
        )));
    }
    Ok(())
}

/// Makes a directory that only its owner enters, where it is not there, with those above it; which
/// ones were made, the innermost first.
pub(super) fn new_private_dirs(path: &Path) -> Result<Vec<PathBuf>> {
    let absent = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
    let made: Vec<_> = path.ancestors().take_while(absent).map(Path::to_owned).collect();
    if !made.is_empty() {
        private_dir(path)?;
    }
    Ok(made)
}

/// Removes directories that were made in vain. One that somebody used meanwhile stays.
pub(super) fn remove_empty(dirs: &[PathBuf]) -> Result<()> {
    for dir in dirs {
        match std::fs::remove_dir(dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(dir, "cannot be removed", &error)),
        }
    }
    Ok(())
}

/// Takes a directory for this process alone, until what is returned is dropped.
pub(super) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|error| failed(&path, "cannot be opened", &error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_held) => Err(Error::precondition(format!(
            "another server uses {}; stop it first",
            dir.display()
        ))),
    }
}

/// Demands that a store's file with what `SQLite` keeps beside it, where they are there, and their
/// directory can be written by this process.
pub(super) fn require_writable_store(path: &Path) -> Result<()> {
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let files = [path.to_owned(), beside("-wal"), beside("-shm")];
    for path in parent.map(Path::to_owned).into_iter().chain(files) {
        let may = rustix::fs::accessat(rustix::fs::CWD, &path, Access::WRITE_OK, AtFlags::EACCESS);
        match may {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => {
                return Err(Error::precondition(format!(
                    "{} cannot be written ({}); give it to this user on a writable file system",
                    path.display(),
                    io::Error::from(error)
                )));
            }
        }
    }
    Ok(())
}

/// Replaces a file by another whole one: nobody ever sees half of it.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || -> io::Result<()> {
        if new.symlink_metadata().is_ok() {
            std::fs::remove_file(&new)?;
        }
        create(&new, bytes, mode)?;
        std::fs::rename(&new, path)?;
        sync_parent(path)
    };
    write().map_err(|error| failed(path, "cannot be written", &error))
}

/// Writes a file that must not be there yet.
pub(super) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || create(path, bytes, mode).and_then(|()| sync_parent(path));
    write().map_err(|error| {
        if error.kind() != io::ErrorKind::AlreadyExists {
            return failed(path, "cannot be written", &error);
        }
        let advice = "exists; move it away or choose another directory";
        Error::AlreadyExists(format!("{} {advice}", path.display()).into())
    })
}

/// Gives a file that is whole its name, where nothing has that name yet; the old one stays.
pub(super) fn name(file: &Path, path: &Path) -> Result<()> {
    let named = std::fs::hard_link(file, path).and_then(|()| sync_parent(path));
    named.map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            return Error::AlreadyExists(format!("{} exists", path.display()).into());
        }
        failed(path, "cannot be written", &error)
    })
}

/// Removes a file that may be there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_parent(path).map_err(|error| failed(path, "cannot be removed", &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(path, "cannot be removed", &error)),
    }
}

fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // Whatever the umask says: what is meant for clients must be readable.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}

fn failed(path: &Path, what: &str, error: &io::Error) -> Error {
    Error::precondition(format!("{} {what} ({error})", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_private_and_a_new_one_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for text in ["first", "second"] {
            replace(&path, text.as_bytes(), 0o600).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        let taken = write_new(&path, b"third", 0o600).unwrap_err();
        assert_eq!(taken.reason(), "ALREADY_EXISTS");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second");
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn directories_made_in_vain_go_again_and_those_that_were_there_or_are_used_stay() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b/c");
        let made = new_private_dirs(&inner).unwrap();
        assert_eq!(made.len(), 3);
        assert!(new_private_dirs(&inner).unwrap().is_empty());
        std::fs::write(dir.path().join("a/used"), b"").unwrap();
        remove_empty(&made).unwrap();
        assert!(dir.path().join("a/used").exists() && !dir.path().join("a/b").exists());
        remove_empty(&made).unwrap();
    }

    #[test]
    fn a_directory_that_others_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mine = dir.path().join("a/b");
        private_dir(&mine).unwrap();
        assert_eq!(mine.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::set_permissions(&mine, Permissions::from_mode(0o777)).unwrap();
        assert!(private_dir(&mine).unwrap_err().to_string().contains("chmod"));
    }
}
