//! Where the parts of the record come from, a vault or a copy of it, and how a copy is made.
//!
//! A copy is laid out as C2SP tlog-tiles says: `checkpoint`, `tile/L/N`, `tile/entries/N`. Beside
//! it, `side/N` holds what bundle N's entries name by HMAC alone.

use std::fs;
use std::io;
use std::path::Path;

use tonic::Code;

use super::failure::{Exit, Failure, Outcome};
use super::output::{fields, show};
use super::records::{checkpoint, client};
use super::session::Session;
use crate::crypto::{Checkpoint, TILE_WIDTH, TileId, TilePath, VerifierKey};
use crate::proto::{ReadLogRequest, ReadLogResponse};

/// Where the parts of the record come from.
#[derive(Debug)]
pub(super) enum Source<'a> {
    /// A running vault.
    Live(&'a Session),
    /// A copy in a directory.
    Copy(&'a Path),
}

/// A tile or bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Its bytes.
    pub(super) data: Vec<u8>,
    /// For a bundle, what stands beside its entries; none in a copy that leaves it out.
    pub(super) side: Option<Vec<u8>>,
}

impl Source<'_> {
    /// Reads a tile or bundle; nothing where it is missing. Where a partial one is gone because
    /// it has been filled since, the full one is read in its place.
    pub(super) async fn read(&self, path: TilePath) -> Outcome<Option<Part>> {
        if let Some(bytes) = self.read_exact(path).await? {
            return Ok(Some(bytes));
        }
        let full = match path {
            TilePath::Hashes(id) => TilePath::Hashes(TileId { width: TILE_WIDTH, ..id }),
            TilePath::Entries { index, .. } => TilePath::Entries { index, width: TILE_WIDTH },
        };
        if full == path { Ok(None) } else { self.read_exact(full).await }
    }

    async fn read_exact(&self, path: TilePath) -> Outcome<Option<Part>> {
        match self {
            Self::Live(session) => {
                let part = fetch(session, path).await?;
                let bundle = matches!(path, TilePath::Entries { .. });
                Ok(part.map(|part| Part { data: part.data, side: bundle.then_some(part.side) }))
            }
            Self::Copy(dir) => {
                let Some(data) = read_file(&dir.join(path.to_string()))? else { return Ok(None) };
                let side = match beside(path) {
                    Some(beside) => read_file(&dir.join(beside))?,
                    None => None,
                };
                Ok(Some(Part { data, side }))
            }
        }
    }
}

/// Where a copy holds what stands beside a bundle's entries.
fn beside(path: TilePath) -> Option<String> {
    match path {
        TilePath::Hashes(_) => None,
        TilePath::Entries { .. } => Some(path.to_string().replacen("tile/entries", "side", 1)),
    }
}

fn read_file(path: &Path) -> Outcome<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("{} cannot be read: {error}", path.display()))
}

async fn fetch(session: &Session, path: TilePath) -> Outcome<Option<ReadLogResponse>> {
    let request = ReadLogRequest { path: path.to_string() };
    let answer = session
        .call(request, async |wire, request| match client(wire).read_log(request).await {
            Ok(part) => Ok(part.map(Some)),
            Err(status) if status.code() == Code::NotFound => Ok(tonic::Response::new(None)),
            Err(status) => Err(status),
        })
        .await?;
    Ok(answer)
}

/// Copies the record up to its newest checkpoint into a directory.
pub(super) async fn export(session: &Session, dir: &Path) -> Outcome {
    let newest = checkpoint(session).await?;
    let key: VerifierKey = newest.verifier_key.parse().map_err(unexpected)?;
    let head = Checkpoint::open(&newest.note, &key).map_err(unexpected)?;
    let mut parts: u64 = 0;
    for path in paths(head.size) {
        let file = dir.join(path.to_string());
        // What is full never changes: an earlier copy of it will do. Verifying is another verb.
        let copied = file.is_file() && is_full(path);
        if copied {
            continue;
        }
        let part = fetch(session, path).await?.ok_or_else(|| {
            Failure::new(Exit::Unverified, format!("the vault lacks {path} of its own record"))
        })?;
        write(&file, &part.data)?;
        if let Some(beside) = beside(path) {
            write(&dir.join(beside), &part.side)?;
        }
        parts = parts.saturating_add(1);
    }
    // Last: a copy that was interrupted has the checkpoint of the one before.
    write(&dir.join("checkpoint"), newest.note.as_bytes())?;
    let done = serde_json::json!({
        "dir": dir.display().to_string(),
        "size": head.size,
        "parts_written": parts,
        "verifier_key": newest.verifier_key,
    });
    show(session.format, &done, |_| {
        fields(&[
            ("copied to", dir.display().to_string()),
            ("entries", head.size.to_string()),
            ("parts written", parts.to_string()),
            ("verifier key", newest.verifier_key.clone()),
        ])
    })
}

fn unexpected(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Unverified, format!("the vault's checkpoint is not in order: {error}"))
}

const fn is_full(path: TilePath) -> bool {
    match path {
        TilePath::Hashes(TileId { width, .. }) | TilePath::Entries { width, .. } => {
            width == TILE_WIDTH
        }
    }
}

/// Names every bundle and tile of a tree, the leaves first.
pub(super) fn paths(size: u64) -> impl Iterator<Item = TilePath> {
    let bundles = widths(size).map(|(index, width)| TilePath::Entries { index, width });
    let tiles = (0..8_u8).flat_map(move |level| {
        let hashes = size.checked_shr(8 * u32::from(level)).unwrap_or(0);
        widths(hashes).map(move |(index, width)| TilePath::Hashes(TileId { level, index, width }))
    });
    bundles.chain(tiles)
}

/// Names the tiles that hold so many hashes: index and width, all but the last full.
pub(super) fn widths(hashes: u64) -> impl Iterator<Item = (u64, u16)> {
    let full = hashes / u64::from(TILE_WIDTH);
    let rest = u16::try_from(hashes % u64::from(TILE_WIDTH)).unwrap_or(0);
    let last = (rest > 0).then_some((full, rest));
    (0..full).map(|index| (index, TILE_WIDTH)).chain(last)
}

/// Writes a part so that it is there as a whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Outcome {
    let write = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let unfinished = path.with_extension("unfinished");
        fs::write(&unfinished, bytes)?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|error| {
        Failure::new(Exit::Unexpected, format!("{} cannot be written: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_tree_is_named_once() {
        for (size, named) in [
            (0, vec![]),
            (1, vec!["tile/entries/000.p/1", "tile/0/000.p/1"]),
            (256, vec!["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]),
            (
                257,
                vec![
                    "tile/entries/000",
                    "tile/entries/001.p/1",
                    "tile/0/000",
                    "tile/0/001.p/1",
                    "tile/1/000.p/1",
                ],
            ),
        ] {
            let paths: Vec<_> = paths(size).map(|path| path.to_string()).collect();
            assert_eq!(paths, named, "{size}");
        }
    }

    #[tokio::test]
    async fn a_partial_tile_that_was_filled_since_is_read_from_the_full_one() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("tile/0/000"), b"full").unwrap();
        let source = Source::Copy(dir.path());
        let partial = TilePath::Hashes(TileId { level: 0, index: 0, width: 3 });
        let full = Part { data: b"full".to_vec(), side: None };
        assert_eq!(source.read(partial).await.unwrap(), Some(full));
        let missing = TilePath::Hashes(TileId { level: 0, index: 1, width: 3 });
        assert_eq!(source.read(missing).await.unwrap(), None);
    }
}
