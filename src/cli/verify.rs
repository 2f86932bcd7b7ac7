//! `strongroom audit verify`: the whole record against a signed checkpoint.
//!
//! Every entry is hashed and compared with the tree's own hash of it, so that the first wrong one
//! has a name; what stands beside it is compared with what it commits to; every tile is compared
//! with what is below it; the root that comes out must be the one that was signed. Needs nothing
//! from the vault but bytes.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::args::Global;
use super::export::{Part, Source, widths};
use super::failure::{Exit, Failure, Outcome};
use super::files::read_text;
use super::output::{Format, fields, note, show};
use super::records::checkpoint;
use super::session::Session;
use super::state;
use super::values::{Sides, Values};
use crate::crypto::{
    Checkpoint, Frontier, HASH_BYTES, Hash, TILE_WIDTH, TileId, TilePath, VerifierKey,
    decode_bundle, hex, leaf_hash,
};

/// What `audit verify` takes.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Verify a copy in this directory, made by `audit export`, in place of a running vault.
    #[arg(long, value_name = "DIR", requires = "public_key")]
    export: Option<PathBuf>,
    /// A file that holds the verifier key of the record's checkpoints (`audit checkpoint
    /// --key-out`). Without it the key is the one that the vault itself gives.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// A file that holds an older checkpoint, kept somewhere else: the record must extend it.
    #[arg(long, visible_alias = "since", value_name = "FILE")]
    kept: Option<PathBuf>,
    /// Have the vault hold what the record says of every sealed row against its tables, and name
    /// the rows that are missing, inserted, older or altered.
    #[arg(long, conflicts_with_all = ["export", "public_key", "kept"])]
    state: bool,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    verified: bool,
    origin: String,
    /// Entries that the checkpoint covers.
    size: u64,
    /// The root that the checkpoint signs, in lowercase hexadecimal.
    root: String,
    /// Entries of the kept checkpoint that the record extends.
    extends_size: Option<u64>,
    /// Names and other values beside the entries that are what these commit to.
    values_known: u64,
    /// Values that were erased, as the entries still tell; nothing is wrong with that.
    values_erased: u64,
    /// Entries whose values the copy leaves out.
    entries_without_values: u64,
    fault: Option<Fault>,
}

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Fault {
    /// The first entry that may be wrong; nothing where no place can be named.
    first_entry: Option<u64>,
    /// The last entry that may be wrong: the same where the place is certain.
    last_entry: Option<u64>,
    /// What is wrong.
    problem: String,
}

impl Fault {
    fn at(entry: u64, problem: impl Into<String>) -> Self {
        Self::among(entry, entry, problem)
    }

    fn among(first: u64, last: u64, problem: impl Into<String>) -> Self {
        Self { first_entry: Some(first), last_entry: Some(last), problem: problem.into() }
    }

    fn whole(problem: impl Into<String>) -> Self {
        Self { first_entry: None, last_entry: None, problem: problem.into() }
    }
}

/// Either the first fault, or a failure to look.
enum Stop {
    Fault(Fault),
    Failure(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Verifies a running vault or a copy, prints what came out, and fails where something is wrong.
pub(super) async fn verify(global: &Global, args: &VerifyArgs) -> Outcome {
    if args.state {
        return state::verify(&Session::open(global)?).await;
    }
    let given = args.public_key.as_deref().map(read_text).transpose()?;
    let given = given.as_ref().map(|text| text.trim().to_owned());
    if let Some(dir) = &args.export {
        let signed = read_text(&dir.join("checkpoint"))?;
        return check(global.output, &Source::Copy(dir), &signed, given.as_deref(), args).await;
    }
    let session = Session::open(global)?;
    let newest = checkpoint(&session).await?;
    if given.is_none() {
        note(
            "checked with the key that the vault itself gives; keep it with `audit checkpoint \
             --key-out FILE` and give it as --public-key from then on",
        );
    }
    let key = given.or(Some(newest.verifier_key));
    check(global.output, &Source::Live(&session), &newest.note, key.as_deref(), args).await
}

async fn check(
    format: Format,
    source: &Source<'_>,
    signed: &str,
    key: Option<&str>,
    args: &VerifyArgs,
) -> Outcome {
    let key = key.ok_or_else(|| Failure::usage("a copy is verified with --public-key"))?;
    let key: VerifierKey = key.parse().map_err(|error| {
        Failure::usage(format!("the public key is not in order: {error}"))
            .hint("it is one line, `name+hash+key`, as `audit checkpoint --key-out` writes it")
    })?;
    let head = open(signed, &key, "the checkpoint")?;
    let kept = match &args.kept {
        Some(path) => Some(open(&read_text(path)?, &key, "the kept checkpoint")?),
        None => None,
    };
    let read = async |path| source.read(path).await;
    let mut values = Values::default();
    let fault = match walk(&head, kept.as_ref(), read, &mut values).await {
        Ok(()) => None,
        Err(Stop::Fault(fault)) => Some(fault),
        Err(Stop::Failure(failure)) => return Err(failure),
    };
    let finding = Finding {
        verified: fault.is_none(),
        origin: head.origin.clone(),
        size: head.size,
        root: hex(&head.root),
        extends_size: kept.filter(|_| fault.is_none()).map(|kept| kept.size),
        values_known: values.known,
        values_erased: values.erased,
        entries_without_values: values.left_out,
        fault,
    };
    show(format, &finding, text)?;
    match finding.fault {
        None => Ok(()),
        Some(fault) => Err(Failure::new(Exit::Unverified, fault.problem)
            .hint("keep the store as it is and compare it with a copy or a backup")
            .told()),
    }
}

fn open(signed: &str, key: &VerifierKey, what: &str) -> Outcome<Checkpoint> {
    Checkpoint::open(signed, key)
        .map_err(|error| Failure::new(Exit::Unverified, format!("{what} is not in order: {error}")))
}

fn text(finding: &Finding) -> String {
    let verified = if finding.verified { "yes" } else { "NO" };
    let fault = finding.fault.as_ref();
    let place = match fault.map(|fault| (fault.first_entry, fault.last_entry)) {
        Some((Some(first), Some(last))) if first == last => format!("entry {first}"),
        Some((Some(first), Some(last))) => format!("among entries {first} to {last}"),
        Some(_) | None => String::new(),
    };
    fields(&[
        ("verified", verified.into()),
        ("record", finding.origin.clone()),
        ("entries", finding.size.to_string()),
        ("root", finding.root.clone()),
        ("extends", finding.extends_size.map(|s| format!("{s} entries kept")).unwrap_or_default()),
        ("values", finding.values_known.to_string()),
        ("values erased", some(finding.values_erased)),
        ("without values", some(finding.entries_without_values)),
        ("first wrong", place),
        ("problem", fault.map(|fault| fault.problem.clone()).unwrap_or_default()),
    ])
}

/// Shows a count that is usually none.
fn some(count: u64) -> String {
    if count == 0 { String::new() } else { count.to_string() }
}

/// Walks over every entry and every tile.
async fn walk(
    head: &Checkpoint,
    kept: Option<&Checkpoint>,
    read: impl AsyncFn(TilePath) -> Outcome<Option<Part>>,
    values: &mut Values,
) -> Result<(), Stop> {
    let mut tree = Frontier::new();
    if let Some(kept) = kept {
        if kept.size > head.size {
            return Err(Fault::whole(format!(
                "the record was cut off: it has {} entries, the kept checkpoint {}",
                head.size, kept.size
            ))
            .into());
        }
        check_kept(&tree, kept)?;
    }
    let mut above = Vec::new();
    for (index, width) in widths(head.size) {
        let leaves = check_bundle(index, width, &read, values).await?;
        let mut below = Frontier::new();
        for leaf in &leaves {
            append(&mut tree, *leaf)?;
            append(&mut below, *leaf)?;
            if let Some(kept) = kept {
                check_kept(&tree, kept)?;
            }
        }
        if usize::from(width) == TILE_HASHES {
            above.push(below.root());
        }
    }
    check_tiles(above, &read).await?;
    if tree.root() == head.root {
        Ok(())
    } else {
        Err(Fault::whole("the record is not the one that the checkpoint signs").into())
    }
}

/// Hashes in a full tile.
const TILE_HASHES: usize = TILE_WIDTH as usize;

fn append(tree: &mut Frontier, leaf: Hash) -> Result<(), Stop> {
    tree.append(leaf).map_err(|error| Failure::new(Exit::Unexpected, error.to_string()).into())
}

fn check_kept(tree: &Frontier, kept: &Checkpoint) -> Result<(), Stop> {
    if tree.size() != kept.size || tree.root() == kept.root {
        return Ok(());
    }
    let last = kept.size.saturating_sub(1);
    let problem = "the record does not extend the kept checkpoint: it was written anew";
    Err(Fault::among(0, last, problem).into())
}

/// Hashes the entries of a bundle and compares each with the tree's own hash of it.
async fn check_bundle(
    index: u64,
    width: u16,
    read: &impl AsyncFn(TilePath) -> Outcome<Option<Part>>,
    values: &mut Values,
) -> Result<Vec<Hash>, Stop> {
    let first = index.saturating_mul(u64::from(TILE_WIDTH));
    let last = first.saturating_add(u64::from(width)).saturating_sub(1);
    let path = TilePath::Entries { index, width };
    let bundle =
        read(path).await?.ok_or_else(|| Fault::among(first, last, format!("{path} is missing")))?;
    let entries = decode_bundle(&bundle.data)
        .map_err(|_malformed| Fault::among(first, last, format!("{path} is malformed")))?;
    let tile = check_tile(TileId { level: 0, index, width }, (first, last), read).await?;
    let mut sides = Sides::read(bundle.side.as_deref(), entries.len());
    let mut entries = entries.into_iter();
    for (at, stored) in (first..).zip(&tile) {
        let problem = match entries.next() {
            None | Some([]) => format!("entry {at} is missing"),
            Some(entry) if leaf_hash(entry) != *stored => {
                format!("entry {at} is not the one that the tree holds")
            }
            Some(entry) => match sides.check(entry, values) {
                Ok(()) => continue,
                Err(problem) => format!("{problem} entry {at}"),
            },
        };
        return Err(Fault::at(at, problem).into());
    }
    Ok(tile)
}

/// Reads the hashes of a tile that covers these entries.
async fn check_tile(
    id: TileId,
    (first, last): (u64, u64),
    read: &impl AsyncFn(TilePath) -> Outcome<Option<Part>>,
) -> Result<Vec<Hash>, Stop> {
    let path = TilePath::Hashes(id);
    let bytes =
        read(path).await?.ok_or_else(|| Fault::among(first, last, format!("{path} is missing")))?;
    let (hashes, _) = bytes.data.as_chunks::<HASH_BYTES>();
    let hashes = hashes.get(..usize::from(id.width));
    Ok(hashes.ok_or_else(|| Fault::among(first, last, format!("{path} is cut off")))?.to_vec())
}

/// Compares the tiles above the leaves with what is below them. `above` are the roots of the full
/// tiles of level 0.
async fn check_tiles(
    mut above: Vec<Hash>,
    read: &impl AsyncFn(TilePath) -> Outcome<Option<Part>>,
) -> Result<(), Stop> {
    let mut covers: u64 = u64::from(TILE_WIDTH);
    let mut level = 1;
    while !above.is_empty() {
        let mut next = Vec::new();
        let count = u64::try_from(above.len()).unwrap_or(u64::MAX);
        for ((index, width), below) in widths(count).zip(above.chunks(TILE_HASHES)) {
            let begin = index.saturating_mul(u64::from(TILE_WIDTH));
            let span = |hash: u64, hashes: u64| {
                let first = begin.saturating_add(hash).saturating_mul(covers);
                (first, first.saturating_add(hashes.saturating_mul(covers)).saturating_sub(1))
            };
            let id = TileId { level, index, width };
            let tile = check_tile(id, span(0, u64::from(width)), read).await?;
            let mut root = Frontier::new();
            for ((at, stored), computed) in (0_u64..).zip(&tile).zip(below) {
                if stored != computed {
                    let (first, last) = span(at, 1);
                    let path = TilePath::Hashes(id);
                    let problem = format!("{path} does not cover what is below it");
                    return Err(Fault::among(first, last, problem).into());
                }
                append(&mut root, *computed)?;
            }
            if below.len() == TILE_HASHES {
                next.push(root.root());
            }
        }
        above = next;
        covers = covers.saturating_mul(u64::from(TILE_WIDTH));
        level += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cli::export::paths;
    use crate::crypto::encode_bundle;

    type Parts = BTreeMap<String, Vec<u8>>;

    fn entry(at: u64) -> Vec<u8> {
        format!("entry {at}").into_bytes()
    }

    /// Builds the parts of a record by the definition, level by level.
    fn record(size: u64) -> (Checkpoint, Parts) {
        let entries: Vec<_> = (0..size).map(entry).collect();
        let mut parts = Parts::new();
        for ((index, width), bundle) in widths(size).zip(entries.chunks(TILE_HASHES)) {
            let path = TilePath::Entries { index, width };
            parts.insert(path.to_string(), encode_bundle(bundle).unwrap());
        }
        let mut hashes: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let root = root_of(&hashes);
        for level in 0..8 {
            for ((index, width), tile) in
                widths(hashes.len() as u64).zip(hashes.chunks(TILE_HASHES))
            {
                let path = TilePath::Hashes(TileId { level, index, width });
                parts.insert(path.to_string(), tile.concat());
            }
            let full = hashes.chunks(TILE_HASHES).filter(|tile| tile.len() == TILE_HASHES);
            hashes = full.map(root_of).collect();
        }
        assert_eq!(parts.len(), paths(size).count());
        (Checkpoint { origin: "test".into(), size, root }, parts)
    }

    fn root_of(leaves: &[Hash]) -> Hash {
        let mut tree = Frontier::new();
        for leaf in leaves {
            tree.append(*leaf).unwrap();
        }
        tree.root()
    }

    async fn fault(
        head: &Checkpoint,
        kept: Option<&Checkpoint>,
        parts: &Parts,
    ) -> Option<(Option<u64>, Option<u64>)> {
        let read = async |path: TilePath| {
            let part = |data: &Vec<u8>| Part { data: data.clone(), side: None };
            Ok(parts.get(&path.to_string()).map(part))
        };
        match walk(head, kept, read, &mut Values::default()).await {
            Ok(()) => None,
            Err(Stop::Fault(fault)) => Some((fault.first_entry, fault.last_entry)),
            Err(Stop::Failure(failure)) => panic!("{failure:?}"),
        }
    }

    fn rewrite_entry(parts: &mut Parts, path: &str, at: usize) {
        let bundle = parts[path].clone();
        let mut entries: Vec<_> =
            decode_bundle(&bundle).unwrap().into_iter().map(<[u8]>::to_vec).collect();
        entries[at] = b"forged".to_vec();
        parts.insert(path.to_owned(), encode_bundle(&entries).unwrap());
    }

    #[tokio::test]
    async fn a_record_that_nobody_touched_is_verified() {
        for size in [0, 1, 2, 255, 256, 257, 700, 65_536 + 300] {
            let (head, parts) = record(size);
            assert_eq!(fault(&head, None, &parts).await, None, "{size}");
        }
    }

    #[tokio::test]
    async fn the_first_altered_entry_is_named() {
        let (head, mut parts) = record(700);
        rewrite_entry(&mut parts, "tile/entries/002.p/188", 3);
        assert_eq!(fault(&head, None, &parts).await, Some((Some(515), Some(515))));
        rewrite_entry(&mut parts, "tile/entries/000", 17);
        assert_eq!(fault(&head, None, &parts).await, Some((Some(17), Some(17))));
    }

    #[tokio::test]
    async fn an_entry_altered_with_its_hash_is_found_by_the_tile_above() {
        let (head, mut parts) = record(700);
        rewrite_entry(&mut parts, "tile/entries/001", 0);
        let forged = leaf_hash(b"forged");
        parts.get_mut("tile/0/001").unwrap()[..HASH_BYTES].copy_from_slice(&forged);
        assert_eq!(fault(&head, None, &parts).await, Some((Some(256), Some(511))));
    }

    #[tokio::test]
    async fn a_record_altered_throughout_is_not_the_one_that_was_signed() {
        let (head, _) = record(700);
        let (_, mut parts) = record(700);
        rewrite_entry(&mut parts, "tile/entries/002.p/188", 187);
        let tile = parts.get_mut("tile/0/002.p/188").unwrap();
        tile[187 * HASH_BYTES..].copy_from_slice(&leaf_hash(b"forged"));
        assert_eq!(fault(&head, None, &parts).await, Some((None, None)));
    }

    #[tokio::test]
    async fn a_part_that_is_missing_cut_off_or_malformed_is_named() {
        let (head, whole) = record(300);
        for (path, bytes, named) in [
            ("tile/entries/001.p/44", None, (256, 299)),
            ("tile/entries/000", None, (0, 255)),
            ("tile/0/000", None, (0, 255)),
            ("tile/1/000.p/1", None, (0, 255)),
            ("tile/0/001.p/44", Some(vec![0; 43 * HASH_BYTES]), (256, 299)),
            ("tile/entries/000", Some(vec![0, 9, 1]), (0, 255)),
            ("tile/entries/000", Some(whole["tile/entries/001.p/44"].clone()), (0, 0)),
        ] {
            let mut parts = whole.clone();
            match bytes {
                Some(bytes) => parts.insert(path.into(), bytes),
                None => parts.remove(path),
            };
            let (first, last) = named;
            let named = Some((Some(first), Some(last)));
            assert_eq!(fault(&head, None, &parts).await, named, "{path}");
        }
    }

    #[tokio::test]
    async fn a_kept_checkpoint_finds_a_record_that_was_cut_off_or_written_anew() {
        let (head, parts) = record(700);
        for size in [0, 1, 256, 300, 700] {
            let (kept, _) = record(size);
            assert_eq!(fault(&head, Some(&kept), &parts).await, None, "{size}");
        }
        let (longer, _) = record(701);
        assert_eq!(fault(&head, Some(&longer), &parts).await, Some((None, None)));
        let anew = Checkpoint { root: [7; 32], ..record(300).0 };
        assert_eq!(fault(&head, Some(&anew), &parts).await, Some((Some(0), Some(299))));
    }
}
