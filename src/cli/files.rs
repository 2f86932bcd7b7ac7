//! Files that commands read and write: bounded, and private where they hold a secret.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::failure::{Exit, Failure, Outcome};

/// Largest file that is read, in bytes: the largest message of the vault.
const MOST_BYTES: u64 = 1024 * 1024;

/// Longest secret that is typed, in bytes; the buffer never grows, so nothing is left behind.
const MOST_KEYS: usize = 256;

/// Reads a file of text, or standard input for `-`.
pub(crate) fn read_text(path: &Path) -> Outcome<Zeroizing<String>> {
    text_of(read_bytes(path)?, path)
}

fn text_of(mut bytes: Zeroizing<Vec<u8>>, path: &Path) -> Outcome<Zeroizing<String>> {
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(Failure::usage(format!("{} cannot be read: it is no text", path.display())))
        }
    }
}

/// Reads a file, or standard input for `-`.
pub(super) fn read_bytes(path: &Path) -> Outcome<Zeroizing<Vec<u8>>> {
    if path.as_os_str() == "-" {
        return read_bounded(io::stdin().lock(), path);
    }
    read_bounded(File::open(path).map_err(|error| unreadable(path, &error))?, path)
}

fn unreadable(path: &Path, why: &dyn Display) -> Failure {
    Failure::usage(format!("{} cannot be read: {why}", path.display()))
}

fn read_bounded(source: impl Read, path: &Path) -> Outcome<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = source.take(MOST_BYTES + 1).read_to_end(&mut bytes);
    let read = read.map_err(|error| unreadable(path, &error))?;
    if u64::try_from(read).is_ok_and(|read| read <= MOST_BYTES) {
        Ok(bytes)
    } else {
        Err(Failure::usage(format!("{} is larger than {MOST_BYTES} bytes", path.display())))
    }
}

/// Reads a secret: the first line of a file, or of standard input for `-`.
pub(crate) fn read_secret(path: &Path) -> Outcome<Zeroizing<String>> {
    line_of(&read_text(path)?, path)
}

/// As [`read_text`], from a file that is this user's own and that nobody else can read: another's
/// could hold whatever they like.
pub(super) fn read_own_text(path: &Path) -> Outcome<Zeroizing<String>> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let about = file.metadata().map_err(|error| unreadable(path, &error))?;
    if about.uid() != rustix::process::geteuid().as_raw() || about.mode() & 0o077 != 0 {
        return Err(unreadable(path, &"it is not yours alone"));
    }
    text_of(read_bounded(file, path)?, path)
}

fn line_of(text: &str, path: &Path) -> Outcome<Zeroizing<String>> {
    let mut lines = text.lines();
    match (lines.next(), lines.next()) {
        (Some(line), None) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => Err(Failure::usage(format!("{} must hold one line, the secret", path.display()))),
    }
}

/// Asks for a secret on the terminal, without showing it.
pub(crate) fn prompt_secret(question: &str) -> Outcome<Zeroizing<String>> {
    let failed = |what: &dyn Display| {
        Failure::usage(format!("no secret can be asked for here: {what}"))
            .hint("give it in a file, or through standard input as `-`")
    };
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(failed(&"standard input is no terminal"));
    }
    let shown = tcgetattr(&stdin).map_err(|error| failed(&error))?;
    let mut hidden = shown.clone();
    // Without signals too: an interrupted prompt must not leave a terminal that shows nothing.
    hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    // Before the question, so that nothing is lost or shown of what is typed as soon as it stands.
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(|error| failed(&error))?;
    let asked = write_stderr(&format!("{question}: "));
    let line = asked.and_then(|()| read_keys(&mut stdin.lock()));
    tcsetattr(&stdin, OptionalActions::Flush, &shown).map_err(|error| failed(&error))?;
    write_stderr("\n").map_err(|error| failed(&error))?;
    match line {
        Ok(Some(line)) if !line.is_empty() => Ok(line),
        Ok(Some(_) | None) => Err(Failure::usage("no secret was given")),
        Err(error) => Err(failed(&error)),
    }
}

fn write_stderr(text: &str) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    stderr.write_all(text.as_bytes())?;
    stderr.flush()
}

/// Reads what is typed up to a line break; nothing where it is broken off (Ctrl-C, Ctrl-D).
fn read_keys(keys: &mut impl Read) -> io::Result<Option<Zeroizing<String>>> {
    const BREAK: [u8; 2] = [0x03, 0x04];
    const BACK: [u8; 2] = [0x08, 0x7f];
    let mut line = Zeroizing::new(Vec::with_capacity(MOST_KEYS));
    let mut key = Zeroizing::new([0]);
    loop {
        let read = keys.read(&mut *key)?;
        let [byte] = *key;
        if read == 0 || BREAK.contains(&byte) {
            return Ok(None);
        }
        if matches!(byte, b'\n' | b'\r') {
            break;
        } else if BACK.contains(&byte) {
            line.pop();
        } else if line.len() < MOST_KEYS {
            line.push(byte);
        } else {
            return Err(io::Error::other("it is too long"));
        }
    }
    let text = std::str::from_utf8(&line).map_err(io::Error::other)?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}

/// Reads what `show --output json` printed.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Outcome<T> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("{} does not fit: {error}", path.display()))
            .hint("it takes what `show --output json` prints")
    })
}

/// Writes a new file that only its owner can read; one that exists is left alone.
pub(super) fn write_private(path: &Path, text: &str) -> Outcome {
    write_private_bytes(path, text.as_bytes())
}

/// As [`write_private`], for what may be no text.
pub(super) fn write_private_bytes(path: &Path, bytes: &[u8]) -> Outcome {
    write_new(path, bytes, 0o600)
}

/// Writes a new file that everybody can read; one that exists is left alone.
pub(crate) fn write_public(path: &Path, bytes: &[u8]) -> Outcome {
    write_new(path, bytes, 0o644)
}

/// Checks that a file can be made, before something is issued whose answer it is to hold.
pub(crate) fn check_new(path: &Path) -> Outcome {
    if path.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!("{} exists; it is left alone", path.display())));
    }
    check_folder(path)
}

/// Checks that a file can be put where it is to be, new or in the place of another.
pub(super) fn check_folder(path: &Path) -> Outcome {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(Failure::usage(format!("{} is in no directory", path.display())));
    }
    let allowed = access(folder, Access::WRITE_OK | Access::EXEC_OK);
    allowed.map_err(|why| Failure::usage(format!("{} cannot be written: {why}", path.display())))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Outcome {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| {
        let exists = error.kind() == io::ErrorKind::AlreadyExists;
        let exit = if exists { Exit::Usage } else { Exit::Unexpected };
        Failure::new(exit, format!("{} cannot be written: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_private_file_is_its_owners_alone_and_never_replaces_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write_private(&path, "first").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(write_private(&path, "second").unwrap_err().exit, Exit::Usage);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first");
        assert!(check_new(&path).is_err());
        assert!(check_new(&dir.path().join("new")).is_ok());
        for nowhere in ["missing/new", "key.pem/new"] {
            assert!(check_new(&dir.path().join(nowhere)).is_err(), "{nowhere}");
        }
    }

    #[test]
    fn a_secret_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        for (text, secret) in [
            ("hunter2\n", Some("hunter2")),
            ("hunter2", Some("hunter2")),
            (" spaces stay \n", Some(" spaces stay ")),
            ("", None),
            ("\n", None),
            ("two\nlines\n", None),
        ] {
            std::fs::write(&path, text).unwrap();
            let read = read_secret(&path).ok();
            assert_eq!(read.as_ref().map(|read| read.as_str()), secret, "{text:?}");
        }
        assert!(read_secret(&dir.path().join("none")).is_err());
    }

    #[test]
    fn a_session_is_its_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session");
        write_private(&path, "secret\n").unwrap();
        assert_eq!(read_own_text(&path).unwrap().as_str(), "secret\n");
        for mode in [0o640, 0o604] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_own_text(&path).unwrap_err().exit, Exit::Usage, "{mode:o}");
        }
    }

    #[test]
    fn what_is_typed_ends_with_the_line_and_can_be_taken_back_or_broken_off() {
        for (typed, line) in [
            ("1234\n", Some("1234")),
            ("1234\r", Some("1234")),
            ("12x\x7f34\n", Some("1234")),
            ("\x7f1\n", Some("1")),
            ("12\x03", None),
            ("12\x04", None),
            ("12", None),
        ] {
            let read = read_keys(&mut typed.as_bytes()).unwrap();
            assert_eq!(read.as_ref().map(|read| read.as_str()), line, "{typed:?}");
        }
        assert!(read_keys(&mut "1".repeat(257).as_bytes()).is_err());
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        std::fs::write(&path, vec![b'a'; 1024 * 1024 + 1]).unwrap();
        assert_eq!(read_text(&path).unwrap_err().exit, Exit::Usage);
    }
}
