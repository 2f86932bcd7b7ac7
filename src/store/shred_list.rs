//! The list of who was shredded, in a file of this node: a restore of the store does not reach it.
//!
//! Ids of identities, one a line; people may add some. Knows nothing of what becomes of them.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::types::IdentityId;

/// Longest list, in bytes: 1.8 million lines.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// Length of an id as it is written.
const ID_BYTES: usize = 36;
/// How much of its end is looked at before more is written: longer than a line.
const END_BYTES: u64 = 64;

/// The file, and who is in it.
#[derive(Debug)]
pub struct ShredList {
    path: PathBuf,
    /// None before it was read.
    known: Option<HashSet<IdentityId>>,
}

impl ShredList {
    /// Names the file; it need not be there.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path, known: None }
    }

    /// Reads who is in it, in its order. Blocks.
    ///
    /// # Errors
    /// [`Error::Precondition`] with what is wrong with it.
    pub fn read(&mut self) -> Result<Vec<IdentityId>> {
        let ids = self.parse(&self.text()?)?;
        self.known = Some(ids.iter().copied().collect());
        Ok(ids)
    }

    /// Adds whoever is not in it yet, and has it on the disk. Blocks.
    ///
    /// # Errors
    /// As [`ShredList::read`].
    pub fn add(&mut self, ids: &[IdentityId]) -> Result<()> {
        if self.known.is_none() {
            self.read()?;
        }
        // Where this fails, it is read again.
        let mut known = self.known.take().unwrap_or_default();
        let new: Vec<_> = ids.iter().filter(|id| known.insert(**id)).collect();
        if !new.is_empty() {
            let lines = new.into_iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            let written = self.append(&format!("{lines}\n"));
            written.map_err(|error| self.failed("cannot be written", &error))?;
        }
        self.known = Some(known);
        Ok(())
    }

    fn append(&self, lines: &str) -> io::Result<()> {
        let is_there = self.path.try_exists()?;
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let mut file = options.open(&self.path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(END_BYTES)))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        let cut = end.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        if cut.is_empty() {
            file.write_all(lines.as_bytes())?;
        } else if is_cut_off(cut) {
            let cut = u64::try_from(cut.len()).map_err(io::Error::other)?;
            file.set_len(len.saturating_sub(cut))?;
            file.write_all(lines.as_bytes())?;
        } else {
            // Somebody wrote a line and did not end it.
            file.write_all(format!("\n{lines}").as_bytes())?;
        }
        file.sync_all()?;
        match self.path.parent() {
            Some(parent) if !is_there && !parent.as_os_str().is_empty() => {
                File::open(parent)?.sync_all()
            }
            Some(_) | None => Ok(()),
        }
    }

    fn text(&self) -> Result<String> {
        let mut text = String::new();
        let read = match File::open(&self.path) {
            Ok(file) => file.take(MOST_BYTES.saturating_add(1)).read_to_string(&mut text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        };
        let len = read.map_err(|error| self.failed("cannot be read", &error))?;
        if u64::try_from(len).is_ok_and(|len| len > MOST_BYTES) {
            return Err(self.failed("cannot be read", &io::ErrorKind::FileTooLarge.into()));
        }
        Ok(text)
    }

    fn parse(&self, text: &str) -> Result<Vec<IdentityId>> {
        let mut ids = Vec::new();
        for (line, at) in text.split_inclusive('\n').zip(1_usize..) {
            let word = line.trim();
            match word.parse() {
                Ok(id) => ids.push(id),
                Err(_none) if word.is_empty() || is_cut_off(line.as_bytes()) => {}
                Err(_none) => {
                    return Err(Error::precondition(format!(
                        "line {at} of {} is no id of an identity; correct it",
                        self.path.display()
                    )));
                }
            }
        }
        Ok(ids)
    }

    fn failed(&self, what: &str, error: &io::Error) -> Error {
        Error::precondition(format!("{} {what} ({error})", self.path.display()))
    }
}

/// Tells whether a crash cut a line off: what it was about had not been answered.
fn is_cut_off(line: &[u8]) -> bool {
    let of_an_id = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'-';
    line.len() < ID_BYTES && line.iter().all(of_an_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Id;

    fn id(n: u8) -> IdentityId {
        IdentityId(Id::from_bytes([n; 16]))
    }

    #[test]
    fn whoever_is_added_stands_in_it_once_whatever_a_crash_or_a_hand_left_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shredded");
        assert_eq!(ShredList::at(path.clone()).read(), Ok(vec![]));
        for (before, expected) in [
            (String::new(), vec![id(7), id(8)]),
            (format!("{}\n", id(1)), vec![id(1), id(7), id(8)]),
            // By a hand that ended no line, and left some empty.
            (format!("\n  {}  \n\n{}", id(1), id(7)), vec![id(1), id(7), id(8)]),
            // By a crash.
            (format!("{}\n{}", id(1), &id(2).to_string()[..35]), vec![id(1), id(7), id(8)]),
            ("0707".to_owned(), vec![id(7), id(8)]),
        ] {
            std::fs::write(&path, &before).unwrap();
            let mut list = ShredList::at(path.clone());
            list.add(&[id(7)]).unwrap();
            list.add(&[id(7), id(8), id(8)]).unwrap();
            assert_eq!(ShredList::at(path.clone()).read(), Ok(expected), "{before:?}");
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}\n{}\n", id(7), id(8)));
    }

    #[test]
    fn a_line_that_is_no_id_is_named_and_nothing_is_added_to_such_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shredded");
        for bad in ["alice\n", "0707\n1", &format!("{}x\n", id(1)), "ABCDEF\n", "alice"] {
            std::fs::write(&path, format!("{}\n{bad}", id(1))).unwrap();
            let refused = ShredList::at(path.clone()).add(&[id(2)]).unwrap_err();
            assert!(refused.to_string().contains("line 2 of"), "{refused}");
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text, format!("{}\n{bad}", id(1)), "it is as it was");
        }
        assert!(ShredList::at(dir.path().join("none/shredded")).add(&[id(2)]).is_err());
    }
}
