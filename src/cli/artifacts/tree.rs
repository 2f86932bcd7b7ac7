//! Files below a directory: found, opened without following a link, and hashed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

use super::manifest::{FILES, check_path};
use crate::crypto::{HASH_BYTES, Sha256};

/// Bytes that are read at once.
const PART: usize = 128 * 1_024;
/// Directories within each other at most.
const DEPTH: usize = 256;

/// A directory, below which everything is.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) digest: [u8; HASH_BYTES],
    pub(super) len_bytes: u64,
}

fn refused(path: &str, why: &str) -> io::Error {
    io::Error::other(format!("{path}: {why}"))
}

/// Says of which path an error is.
fn of(path: &str) -> impl Fn(rustix::io::Errno) -> io::Error {
    move |error| {
        // How the kernel says that something on the way is a link.
        if error == rustix::io::Errno::LOOP {
            return refused(path, "it is a symbolic link, or lies behind one");
        }
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("{path}: {error}"))
    }
}

/// What tells that a file was changed: its inode, its length, and when it last changed.
fn mark(file: &File) -> io::Result<(u64, u64, i64, i64, i64, i64)> {
    let about = file.metadata()?;
    let (ino, len) = (about.ino(), about.len());
    Ok((ino, len, about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec()))
}

impl Tree {
    /// Opens a directory.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(dir, flags, Mode::empty()).map_err(io::Error::from)?;
        Ok(Self { root })
    }

    /// Opens what is at a path, which nothing leads out of the directory, and no link on the way.
    fn at(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve).map_err(of(path))
    }

    /// Hashes a regular file; refuses one that changes meanwhile.
    pub(super) fn hash(&self, path: &str) -> io::Result<Content> {
        // A pipe would keep whoever opens it.
        let mut file = File::from(self.at(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        if !file.metadata()?.is_file() {
            return Err(refused(path, "it is no regular file"));
        }
        let before = mark(&file)?;
        let (mut hash, mut len_bytes, mut part) = (Sha256::new(), 0_u64, vec![0; PART]);
        loop {
            let read = file.read(&mut part)?;
            let Some(data) = part.get(..read).filter(|data| !data.is_empty()) else { break };
            hash.update(data);
            len_bytes = len_bytes.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        }
        if mark(&file)? != before || before.1 != len_bytes {
            return Err(refused(path, "it was changed while it was read"));
        }
        Ok(Content { digest: hash.finish(), len_bytes })
    }

    /// Lists the regular files at and below a path, each once and in the order of their bytes; refuses
    /// links and whatever else is no file.
    pub(super) fn list(&self, path: &str, found: &mut BTreeSet<String>) -> io::Result<()> {
        let at = self.at(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&at).map_err(of(path))?.st_mode);
        if kind == FileType::RegularFile {
            add(found, path.to_owned())
        } else if kind == FileType::Directory {
            walk(at.as_fd(), path, found, 0)
        } else {
            Err(refused(path, "it is no regular file"))
        }
    }

    /// Lists everything.
    pub(super) fn all(&self) -> io::Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        walk(self.root.as_fd(), "", &mut found, 0)?;
        Ok(found)
    }
}

fn add(found: &mut BTreeSet<String>, path: String) -> io::Result<()> {
    if let Err(why) = check_path(&path) {
        return Err(refused(&path, why));
    }
    found.insert(path);
    let most = usize::try_from(FILES).unwrap_or(usize::MAX);
    if found.len() > most {
        Err(io::Error::other("there are more than 1,000,000 files"))
    } else {
        Ok(())
    }
}

fn walk(dir: impl AsFd, path: &str, found: &mut BTreeSet<String>, depth: usize) -> io::Result<()> {
    if depth > DEPTH {
        return Err(refused(path, "it lies too deep"));
    }
    for entry in rustix::fs::Dir::read_from(&dir).map_err(of(path))? {
        let entry = entry.map_err(of(path))?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let name = std::str::from_utf8(name)
            .map_err(|_encoding| refused(path, "it holds a name that is no UTF-8"))?;
        let below = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        let about =
            rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(of(&below))?;
        let kind = FileType::from_raw_mode(about.st_mode);
        if kind == FileType::RegularFile {
            add(found, below)?;
        } else if kind == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = rustix::fs::openat(&dir, name, flags, Mode::empty());
            walk(next.map_err(of(&below))?.as_fd(), &below, found, depth.saturating_add(1))?;
        } else {
            return Err(refused(&below, "it is a symbolic link, or no regular file"));
        }
    }
    Ok(())
}

/// A path as a manifest has it: relative, without `.` and doubled slashes.
pub(super) fn canonical(path: &Path) -> io::Result<String> {
    let shown = path.display().to_string();
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(part) => {
                let part = std::str::from_utf8(part.as_bytes());
                parts.push(part.map_err(|_encoding| refused(&shown, "it is no UTF-8"))?);
            }
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => {
                return Err(refused(&shown, "give paths below --dir, relative to it"));
            }
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::crypto::sha256;

    #[test]
    fn files_are_found_in_order_and_hashed_and_links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("model/deep")).unwrap();
        for (name, text) in [("model/b", "two"), ("model/deep/c", "three"), ("model/a", "")] {
            std::fs::write(at(name), text).unwrap();
        }
        let tree = Tree::open(dir.path()).unwrap();
        let mut found = BTreeSet::new();
        tree.list("model", &mut found).unwrap();
        let listed: Vec<_> = found.iter().map(String::as_str).collect();
        assert_eq!(listed, ["model/a", "model/b", "model/deep/c"]);
        let content = tree.hash("model/b").unwrap();
        assert_eq!((content.digest, content.len_bytes), (sha256(b"two"), 3));
        symlink(at("model/b"), at("model/link")).unwrap();
        symlink(at("model"), at("linked")).unwrap();
        for link in ["model/link", "linked/b", "model/deep", "../x", "missing"] {
            assert!(tree.hash(link).is_err(), "{link}");
        }
        for link in ["model", "linked", "linked/deep", "model/link"] {
            assert!(tree.list(link, &mut BTreeSet::new()).is_err(), "{link}");
        }
        assert!(tree.all().is_err());
        std::fs::remove_file(at("model/link")).unwrap();
        std::fs::remove_file(at("linked")).unwrap();
        assert_eq!(tree.all().unwrap(), found);
        std::fs::write(at("model/new\nline"), "").unwrap();
        assert!(tree.all().is_err());
    }

    #[test]
    fn paths_are_made_canonical_or_refused() {
        for (given, is) in [("a", "a"), ("./a/./b", "a/b"), ("a//b/", "a/b"), (".", "")] {
            assert_eq!(canonical(Path::new(given)).unwrap(), is);
        }
        for bad in ["/a", "../a", "a/../b"] {
            assert!(canonical(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
