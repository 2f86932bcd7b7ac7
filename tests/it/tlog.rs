//! The log's tiles, proofs and notes before independent readers of the same specifications.

use std::collections::HashMap;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use signed_note::{StandardVerifier, VerifierList};
use strongroom::crypto::{
    Checkpoint, CryptoError, Frontier, Hash, ProofPlan, TileEdge, TileId, TilePath, VerifierKey,
    encode_bundle, leaf_hash, note_body, sign_note,
};

/// A log as a store would keep it: each tile in every width that was published.
#[derive(Default)]
struct Log {
    edge: TileEdge,
    frontier: Frontier,
    leaves: Vec<Hash>,
    roots: Vec<Hash>,
    tiles: HashMap<TileId, Vec<u8>>,
}

impl Log {
    fn grow(&mut self, count: u64) {
        let start = self.frontier.size();
        let added: Vec<_> = (start..start + count).map(|i| leaf_hash(&entry(i))).collect();
        for leaf in &added {
            self.frontier.append(*leaf).unwrap();
            self.roots.push(self.frontier.root());
        }
        self.leaves.extend_from_slice(&added);
        for tile in self.edge.append(&added).unwrap() {
            self.tiles.insert(tile.id, tile.bytes);
        }
    }

    fn root(&self, size: u64) -> tlog_tiles::Hash {
        tlog_tiles::Hash(self.roots[usize::try_from(size).unwrap() - 1])
    }

    fn prove(&self, plan: &ProofPlan) -> Vec<tlog_tiles::Hash> {
        let tiles = plan.tiles();
        let reader = |id: TileId| {
            assert!(tiles.contains(&id), "{id:?} was read without having been planned");
            let missing = CryptoError::Tile { level: id.level, index: id.index };
            self.tiles.get(&id).cloned().ok_or(missing)
        };
        plan.prove(&reader).unwrap().into_iter().map(tlog_tiles::Hash).collect()
    }
}

impl tlog_tiles::TileReader for Log {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = tiles.iter().map(|tile| {
            let width = u16::try_from(tile.width()).unwrap();
            let id = TileId { level: tile.level(), index: tile.level_index(), width };
            // Its paths carry the height as well; the rest must be the same.
            assert_eq!(TilePath::Hashes(id).to_string(), tile.path().replacen("/8/", "/", 1));
            self.tiles.get(&id).cloned().ok_or(tlog_tiles::Error::BadMath)
        });
        read.collect()
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

/// Has `tlog_tiles` authenticate our tiles, make the same proofs from them and check ours.
fn check(log: &Log, size: u64, indexes: &[u64], old_sizes: &[u64]) {
    let root = log.root(size);
    let reader = tlog_tiles::TileHashReader::new(size, root, log);
    for &index in indexes.iter().filter(|index| **index < size) {
        let proof = log.prove(&ProofPlan::inclusion(index, size).unwrap());
        let leaf = tlog_tiles::Hash(log.leaves[usize::try_from(index).unwrap()]);
        assert_eq!(leaf, tlog_tiles::record_hash(&entry(index)));
        tlog_tiles::check_record(&proof, size, root, index, leaf).unwrap();
        assert_eq!(proof, tlog_tiles::prove_record(size, index, &reader).unwrap());
    }
    for &old in old_sizes.iter().filter(|old| (1..=size).contains(*old)) {
        let proof = log.prove(&ProofPlan::consistency(old, size).unwrap());
        tlog_tiles::check_tree(&proof, size, root, old, log.root(old)).unwrap();
        assert_eq!(proof, tlog_tiles::prove_tree(size, old, &reader).unwrap());
    }
}

#[test]
fn tlog_tiles_accepts_tiles_and_proofs_of_every_tree_up_to_600() {
    let mut log = Log::default();
    for size in 1..=600 {
        log.grow(1);
        let near = [0, 1, size / 3, size / 2, size - 1, 127, 128, 255, 256, 257, 511, 512];
        check(&log, size, &near, &near);
    }
}

#[test]
fn tlog_tiles_accepts_trees_of_three_tile_levels_grown_in_uneven_steps() {
    let mut log = Log::default();
    for step in [1, 254, 2, 513, 64_766, 1, 3_000, 1_463] {
        log.grow(step);
        let size = log.frontier.size();
        let near = [0, 255, 256, 65_535, 65_536, 65_537, size / 2, size - 1];
        check(&log, size, &near, &near);
    }
    assert_eq!(log.frontier.size(), 70_000);
}

#[test]
fn signed_note_and_tlog_tiles_read_our_checkpoint() {
    let mut log = Log::default();
    log.grow(300);
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
    let prefix = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
    let spki = [&prefix, pair.public_key().as_ref()].concat();
    let key = VerifierKey::from_spki("vault.example.com/log", &spki).unwrap();
    let body = note_body(key.name(), 300, &log.frontier.root()).unwrap();
    let note = sign_note(&body, &key, pair.sign(body.as_bytes()).as_ref()).unwrap();

    let theirs = StandardVerifier::new(&key.to_string()).unwrap();
    let read = signed_note::Note::from_bytes(note.as_bytes()).unwrap();
    let (verified, rest) = read.verify(&VerifierList::new(vec![Box::new(theirs)])).unwrap();
    assert_eq!((verified.len(), rest.len()), (1, 0));
    assert_eq!(read.to_bytes(), note.as_bytes());

    let checkpoint = tlog_tiles::Checkpoint::from_bytes(read.text()).unwrap();
    assert_eq!(checkpoint.origin(), "vault.example.com/log");
    assert_eq!(checkpoint.size(), 300);
    assert_eq!(*checkpoint.hash(), log.root(300));
    assert_eq!(checkpoint.to_bytes(), body.as_bytes());
    assert_eq!(Checkpoint::open(&note, &key).unwrap().root, log.frontier.root());
}

#[test]
fn an_independent_reader_finds_every_entry_under_its_leaf() {
    let mut log = Log::default();
    log.grow(600);
    let mut published = HashMap::new();
    for (index, start) in [(0, 0), (1, 256), (2, 512)] {
        let entries: Vec<_> = (start..(start + 256).min(600)).map(entry).collect();
        let path = TilePath::Entries { index, width: u16::try_from(entries.len()).unwrap() };
        published.insert(path.to_string(), encode_bundle(&entries).unwrap());
    }
    for (id, bytes) in &log.tiles {
        published.insert(TilePath::Hashes(*id).to_string(), bytes.clone());
    }
    assert_eq!(reader::entries(&published, 600), Ok((0..600).map(entry).collect()));

    for path in ["tile/entries/001", "tile/0/001"] {
        let mut altered = published.clone();
        altered.get_mut(path).unwrap()[300] ^= 1;
        assert!(reader::entries(&altered, 600).unwrap_err().starts_with("entry "), "{path}");
    }
    let mut cut = published.clone();
    cut.get_mut("tile/entries/002.p/88").unwrap().pop();
    assert_eq!(reader::entries(&cut, 600), Err("entry 599 is cut off".to_owned()));
}

/// Reads a published log by the specification alone: nothing of the vault's code, 40 lines.
pub(crate) mod reader {
    use std::collections::HashMap;

    pub(crate) fn entries(
        files: &HashMap<String, Vec<u8>>,
        size: usize,
    ) -> Result<Vec<Vec<u8>>, String> {
        let mut found: Vec<Vec<u8>> = Vec::new();
        for tile in 0..size.div_ceil(256) {
            let width = (size - tile * 256).min(256);
            let partial = if width < 256 { format!(".p/{width}") } else { String::new() };
            let file = |kind: &str| {
                let path = format!("tile/{kind}/{tile:03}{partial}");
                files.get(&path).ok_or_else(|| format!("{path} is missing"))
            };
            let (mut bundle, leaves) = (file("entries")?.as_slice(), file("0")?);
            for leaf in leaves.chunks(32) {
                let cut = || format!("entry {} is cut off", found.len());
                let (len, rest) = bundle.split_at_checked(2).ok_or_else(cut)?;
                let len = usize::from(len[0]) * 256 + usize::from(len[1]);
                let (entry, rest) = rest.split_at_checked(len).ok_or_else(cut)?;
                let hashed = [&[0], entry].concat();
                let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &hashed);
                if hash.as_ref() != leaf {
                    return Err(format!("entry {} is not what was hashed", found.len()));
                }
                found.push(entry.to_vec());
                bundle = rest;
            }
            if !bundle.is_empty() {
                return Err(format!("bundle {tile} goes on after its last entry"));
            }
        }
        if found.len() == size { Ok(found) } else { Err("entries are missing".to_owned()) }
    }
}
