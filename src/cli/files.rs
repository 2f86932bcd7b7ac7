//! Files that commands read and write: bounded, and private where they hold a secret.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::failure::{Exit, Failure, Outcome};

/// Largest file that is read, in bytes: the largest message of the vault.
const MOST_BYTES: u64 = 1024 * 1024;

/// Reads a file of text, or standard input for `-`.
pub(super) fn read_text(path: &Path) -> Outcome<Zeroizing<String>> {
    let failed =
        |error: &io::Error| Failure::usage(format!("{} cannot be read: {error}", path.display()));
    let mut text = Zeroizing::new(String::new());
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|error| failed(&error))?)
    };
    let read = source.take(MOST_BYTES + 1).read_to_string(&mut text);
    let read = read.map_err(|error| failed(&error))?;
    if u64::try_from(read).is_ok_and(|read| read <= MOST_BYTES) {
        Ok(text)
    } else {
        Err(Failure::usage(format!("{} is larger than {MOST_BYTES} bytes", path.display())))
    }
}

/// Reads a secret: the first line of a file, or of standard input for `-`.
pub(super) fn read_secret(path: &Path) -> Outcome<Zeroizing<String>> {
    let text = read_text(path)?;
    let mut lines = text.lines();
    match (lines.next(), lines.next()) {
        (Some(line), None) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => Err(Failure::usage(format!("{} must hold one line, the secret", path.display()))),
    }
}

/// Asks for a secret on the terminal, without showing it.
pub(super) fn prompt_secret(question: &str) -> Outcome<Zeroizing<String>> {
    let failed = |what: &dyn std::fmt::Display| {
        Failure::usage(format!("no secret can be asked for here: {what}"))
    };
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(failed(&"standard input is no terminal")
            .hint("give it in a file, or through standard input as `-`"));
    }
    let shown = tcgetattr(&stdin).map_err(|error| failed(&error))?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question}: ").map_err(|error| failed(&error))?;
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(|error| failed(&error))?;
    let mut line = Zeroizing::new(String::new());
    let read = stdin.read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &shown).map_err(|error| failed(&error))?;
    writeln!(stderr).map_err(|error| failed(&error))?;
    read.map_err(|error| failed(&error))?;
    let secret = line.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(Failure::usage("no secret was given"));
    }
    Ok(Zeroizing::new(secret.to_owned()))
}

/// Reads what `show --output json` printed.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Outcome<T> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("{} does not fit: {error}", path.display()))
            .hint("it takes what `show --output json` prints")
    })
}

/// Writes a new file that only its owner can read; one that exists is left alone.
pub(super) fn write_private(path: &Path, text: &str) -> Outcome {
    write_new(path, text.as_bytes(), 0o600)
}

/// Writes a new file that everybody can read; one that exists is left alone.
pub(super) fn write_public(path: &Path, bytes: &[u8]) -> Outcome {
    write_new(path, bytes, 0o644)
}

/// Checks that a file can be made, before something is issued whose answer it is to hold.
pub(super) fn check_new(path: &Path) -> Outcome {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if path.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!("{} exists; it is left alone", path.display())));
    }
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return Err(Failure::usage(format!("{} is in no directory", path.display())));
    }
    Ok(())
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
        assert!(check_new(&dir.path().join("missing/new")).is_err());
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
    fn a_file_beyond_the_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        std::fs::write(&path, vec![b'a'; 1024 * 1024 + 1]).unwrap();
        assert_eq!(read_text(&path).unwrap_err().exit, Exit::Usage);
    }
}
