//! The tree as C2SP tlog-tiles: rows of up to 256 hashes, and proofs made from them.
//!
//! Source: c2sp.org/tlog-tiles, RFC 9162, sections 2.1.3.1 and 2.1.4.1. Knows no storage: the
//! caller reads the tiles that a [`ProofPlan`] or [`TileEdge::tiles_at`] names, and writes those
//! that [`TileEdge::append`] yields.

use std::ops::Range;

use super::merkle::{HASH_BYTES, Hash, node_hash};
use super::{CryptoError, Result};

/// Hashes in a full tile.
pub const TILE_WIDTH: u16 = 256;
const TILE_BITS: u32 = 8;
/// Tile levels in a tree of up to 2^64 − 1 leaves.
const LEVELS: u8 = 8;
const TILE_BYTES: usize = 256 * HASH_BYTES;

/// Which tile, and how wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// 0 for leaf hashes; a hash of a higher level is the root of a full tile of the level below.
    pub level: u8,
    /// The index within the level.
    pub index: u64,
    /// Hashes in the tile, 1 to 256; below 256 the tile is partial.
    pub width: u16,
}

impl TileId {
    /// Tells how wide the tile is in a tree of `size` leaves; nothing when it is not part of it.
    fn in_tree(level: u8, index: u64, size: u64) -> Option<Self> {
        let before = index.checked_mul(u64::from(TILE_WIDTH))?;
        let hashes = hashes_at(level, size).checked_sub(before)?;
        let width = u16::try_from(hashes.min(u64::from(TILE_WIDTH))).ok()?;
        (width > 0).then_some(Self { level, index, width })
    }

    fn damaged(self) -> CryptoError {
        CryptoError::Tile { level: self.level, index: self.index }
    }
}

/// A tile to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Which tile.
    pub id: TileId,
    /// Its hashes, 32 bytes each.
    pub bytes: Vec<u8>,
}

/// Reads tiles.
pub trait TileReader {
    /// Reads a tile; one that has grown since (more hashes than `id.width`) serves as well.
    ///
    /// # Errors
    /// [`CryptoError::Tile`] when it is missing.
    fn read_tile(&self, id: TileId) -> Result<Vec<u8>>;
}

impl<F: Fn(TileId) -> Result<Vec<u8>>> TileReader for F {
    fn read_tile(&self, id: TileId) -> Result<Vec<u8>> {
        self(id)
    }
}

/// The partial tiles at the right edge of the tree: what appending needs to yield new tiles.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TileEdge {
    size: u64,
    /// By level, each below 256 hashes.
    rows: [Vec<u8>; LEVELS as usize],
}

impl TileEdge {
    /// Names the partial tiles of a tree, to be read for [`TileEdge::load`].
    #[must_use]
    pub fn tiles_at(size: u64) -> Vec<TileId> {
        let last = |level| TileId::in_tree(level, hashes_at(level, size) >> TILE_BITS, size);
        (0..LEVELS).filter_map(last).collect()
    }

    /// Reads the right edge of a tree of `size` leaves.
    ///
    /// # Errors
    /// [`CryptoError::Tile`] for a tile that is missing or too short.
    pub fn load(size: u64, reader: &impl TileReader) -> Result<Self> {
        let mut edge = Self { size, ..Self::default() };
        for (level, row) in (0..).zip(&mut edge.rows) {
            if let Some(id) = TileId::in_tree(level, hashes_at(level, size) >> TILE_BITS, size) {
                *row = read_checked(id, reader)?;
            }
        }
        Ok(edge)
    }

    /// Counts the leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends leaf hashes and yields each tile that is new or has changed, in its newest form.
    ///
    /// The edge moves ahead at once: where writing the tiles fails, drop it and load it again.
    ///
    /// # Errors
    /// [`CryptoError::OutOfRange`] after 2^64 − 1 leaves.
    pub fn append(&mut self, leaves: &[Hash]) -> Result<Vec<Tile>> {
        let old_size = self.size;
        let mut changed = Vec::new();
        for leaf in leaves {
            self.size = self.size.checked_add(1).ok_or(CryptoError::OutOfRange)?;
            self.push(leaf, &mut changed);
        }
        for (level, row) in (0..).zip(&self.rows) {
            let hashes = hashes_at(level, self.size);
            let partial = TileId::in_tree(level, hashes >> TILE_BITS, self.size);
            if let Some(id) = partial.filter(|_| hashes != hashes_at(level, old_size)) {
                changed.push(Tile { id, bytes: row.clone() });
            }
        }
        Ok(changed)
    }

    /// Pushes a leaf, and the root of each tile that it fills to the level above.
    fn push(&mut self, leaf: &Hash, changed: &mut Vec<Tile>) {
        let mut hash = *leaf;
        for (level, row) in (0..).zip(&mut self.rows) {
            row.extend_from_slice(&hash);
            if row.len() < TILE_BYTES {
                return;
            }
            let bytes = std::mem::take(row);
            hash = subtree_root(hashes_of(&bytes));
            let index = (hashes_at(level, self.size) >> TILE_BITS).saturating_sub(1);
            changed.push(Tile { id: TileId { level, index, width: TILE_WIDTH }, bytes });
        }
    }
}

/// The subtrees whose hashes make a proof, or a root, in a tree of a given size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofPlan {
    size: u64,
    ranges: Vec<Range<u64>>,
}

impl ProofPlan {
    /// Plans the proof that a leaf is in the tree (RFC 9162, section 2.1.3.1).
    ///
    /// # Errors
    /// [`CryptoError::OutOfRange`] when the index is not below the size.
    pub fn inclusion(index: u64, size: u64) -> Result<Self> {
        if index >= size {
            return Err(CryptoError::OutOfRange);
        }
        let (mut lo, mut hi) = (0, size);
        let mut ranges = Vec::new();
        while let Some(mid) = split(lo, hi) {
            if index < mid {
                ranges.push(mid..hi);
                hi = mid;
            } else {
                ranges.push(lo..mid);
                lo = mid;
            }
        }
        ranges.reverse();
        Ok(Self { size, ranges })
    }

    /// Plans the proof that the old tree is a prefix of the new (RFC 9162, section 2.1.4.1); it is
    /// empty for equal sizes and for an empty old tree.
    ///
    /// # Errors
    /// [`CryptoError::OutOfRange`] when the old size exceeds the new.
    pub fn consistency(old_size: u64, new_size: u64) -> Result<Self> {
        if old_size > new_size {
            return Err(CryptoError::OutOfRange);
        }
        let (mut lo, mut hi) = (0, new_size);
        let mut ranges = Vec::new();
        // The verifier knows the old root: while that is the subtree's own, it is left out.
        while let Some(mid) = split(lo, hi).filter(|_| old_size != hi && old_size > 0) {
            if old_size <= mid {
                ranges.push(mid..hi);
                hi = mid;
            } else {
                ranges.push(lo..mid);
                lo = mid;
            }
        }
        if lo > 0 {
            ranges.push(lo..hi);
        }
        ranges.reverse();
        Ok(Self { size: new_size, ranges })
    }

    /// Plans the root of a tree of at least one leaf: [`ProofPlan::prove`] yields it alone.
    ///
    /// # Errors
    /// [`CryptoError::OutOfRange`] for the empty tree.
    pub fn root(size: u64) -> Result<Self> {
        if size == 0 {
            return Err(CryptoError::OutOfRange);
        }
        Ok(Self { size, ranges: vec![Range { start: 0, end: size }] })
    }

    /// Names every tile that [`ProofPlan::prove`] will read, each once: at most two per tile level
    /// (one on the way to the leaf, one at the right edge), so 16 in the largest tree.
    #[must_use]
    pub fn tiles(&self) -> Vec<TileId> {
        let nodes = self.ranges.iter().cloned().flat_map(nodes);
        let mut ids: Vec<_> = nodes.filter_map(|node| node.tile(self.size)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Computes the proof's hashes, in the order of RFC 9162.
    ///
    /// # Errors
    /// What the reader answers; [`CryptoError::Tile`] for a tile that is too short.
    pub fn prove(&self, reader: &impl TileReader) -> Result<Vec<Hash>> {
        let mut proof = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            let mut hashes = Vec::new();
            for node in nodes(range.clone()) {
                hashes.push(node.read(self.size, reader)?);
            }
            let subtrees = hashes.into_iter().rev();
            let hash = subtrees.reduce(|right, left| node_hash(&left, &right));
            proof.push(hash.ok_or(CryptoError::OutOfRange)?);
        }
        Ok(proof)
    }
}

/// A complete subtree of 2^height leaves, the `index`-th of its height.
#[derive(Debug, Clone, Copy)]
struct Node {
    height: u32,
    index: u64,
}

impl Node {
    /// The node's height above the hashes of its tile, below 8.
    fn inner_height(self) -> u32 {
        self.height % TILE_BITS
    }

    fn tile(self, size: u64) -> Option<TileId> {
        let level = u8::try_from(self.height / TILE_BITS).ok()?;
        TileId::in_tree(level, self.index >> (TILE_BITS - self.inner_height()), size)
    }

    fn read(self, size: u64, reader: &impl TileReader) -> Result<Hash> {
        let id = self.tile(size).ok_or(CryptoError::OutOfRange)?;
        let bytes = read_checked(id, reader)?;
        let below = 1_usize << self.inner_height();
        let within = self.index & ((1 << (TILE_BITS - self.inner_height())) - 1);
        let skipped = usize::try_from(within).map_err(|_wide| id.damaged())? * below;
        let hashes = hashes_of(&bytes).get(skipped..skipped + below).ok_or(id.damaged())?;
        Ok(subtree_root(hashes))
    }
}

/// Reads a tile and cuts it to the width that was asked for.
fn read_checked(id: TileId, reader: &impl TileReader) -> Result<Vec<u8>> {
    let mut bytes = reader.read_tile(id)?;
    let wanted = usize::from(id.width) * HASH_BYTES;
    if bytes.len() < wanted || bytes.len() > TILE_BYTES || bytes.len() % HASH_BYTES != 0 {
        return Err(id.damaged());
    }
    bytes.truncate(wanted);
    Ok(bytes)
}

/// Counts the hashes at a tile level of a tree of `size` leaves.
fn hashes_at(level: u8, size: u64) -> u64 {
    size.checked_shr(u32::from(level) * TILE_BITS).unwrap_or(0)
}

/// Splits a subtree of two leaves or more: the left side is the largest power of two below it.
fn split(lo: u64, hi: u64) -> Option<u64> {
    let last = hi.checked_sub(lo)?.checked_sub(1)?;
    Some(lo + (1 << last.checked_ilog2()?))
}

/// Cuts a range into its complete subtrees, largest first.
fn nodes(range: Range<u64>) -> impl Iterator<Item = Node> {
    let mut lo = range.start;
    std::iter::from_fn(move || {
        let height = range.end.checked_sub(lo)?.checked_ilog2()?;
        let node = Node { height, index: lo >> height };
        lo += 1 << height;
        Some(node)
    })
}

/// Views a tile as hashes.
fn hashes_of(bytes: &[u8]) -> &[Hash] {
    bytes.as_chunks().0
}

/// Computes the root over a power of two of hashes.
fn subtree_root(hashes: &[Hash]) -> Hash {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row.as_chunks().0.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    row.pop().unwrap_or(super::EMPTY_ROOT)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::crypto::{Frontier, leaf_hash, verify_consistency, verify_inclusion};

    type Stored = HashMap<(u8, u64), Vec<u8>>;

    /// Grows a tree by steps and keeps the newest form of each tile, as a store does; yields the
    /// tiles, the leaves and the roots by size.
    fn grow(steps: &[u64]) -> (Stored, Vec<Hash>, Vec<Hash>) {
        let (mut edge, mut frontier) = (TileEdge::default(), Frontier::new());
        let (mut stored, mut roots, mut leaves) = (Stored::new(), vec![frontier.root()], vec![]);
        for step in steps {
            let start = frontier.size();
            let added: Vec<_> =
                (start..start + step).map(|i| leaf_hash(&i.to_be_bytes())).collect();
            for leaf in &added {
                frontier.append(*leaf).unwrap();
                roots.push(frontier.root());
            }
            leaves.extend_from_slice(&added);
            for tile in edge.append(&added).unwrap() {
                assert_eq!(tile.bytes.len(), usize::from(tile.id.width) * HASH_BYTES);
                stored.insert((tile.id.level, tile.id.index), tile.bytes);
            }
            let reloaded = TileEdge::load(edge.size(), &reader(&stored)).unwrap();
            assert_eq!(reloaded, edge, "an edge that is loaded is the one that was kept");
        }
        (stored, leaves, roots)
    }

    fn reader(stored: &Stored) -> impl TileReader {
        |id: TileId| stored.get(&(id.level, id.index)).cloned().ok_or(id.damaged())
    }

    #[test]
    fn every_proof_of_every_smaller_tree_verifies_from_the_newest_tiles() {
        let (stored, leaves, roots) = grow(&[1, 2, 50, 200, 3, 256, 300]);
        let size = leaves.len() as u64;
        for tree in [1, 2, 3, 7, 255, 256, 257, 511, 512, 513, 600, size] {
            let root = &roots[usize::try_from(tree).unwrap()];
            let planned = ProofPlan::root(tree).unwrap().prove(&reader(&stored)).unwrap();
            assert_eq!(planned, vec![*root]);
            for index in 0..tree {
                let plan = ProofPlan::inclusion(index, tree).unwrap();
                let proof = plan.prove(&reader(&stored)).unwrap();
                let leaf = &leaves[usize::try_from(index).unwrap()];
                verify_inclusion(leaf, index, tree, &proof, root).unwrap();
            }
            for old in 0..=tree {
                let plan = ProofPlan::consistency(old, tree).unwrap();
                let proof = plan.prove(&reader(&stored)).unwrap();
                let old_root = &roots[usize::try_from(old).unwrap()];
                verify_consistency(old, old_root, tree, root, &proof).unwrap();
            }
        }
    }

    #[test]
    fn a_proof_with_any_hash_index_or_size_changed_is_refused() {
        let (stored, leaves, roots) = grow(&[300]);
        let (tree, old, root) = (300, 77, &roots[300]);
        for index in [0, 1, 127, 255, 256, 299] {
            let proof = ProofPlan::inclusion(index, tree).unwrap().prove(&reader(&stored)).unwrap();
            let leaf = &leaves[usize::try_from(index).unwrap()];
            for i in 0..proof.len() {
                let mut bad = proof.clone();
                bad[i][31] ^= 1;
                assert!(verify_inclusion(leaf, index, tree, &bad, root).is_err());
                bad.remove(i);
                assert!(verify_inclusion(leaf, index, tree, &bad, root).is_err());
            }
            let longer = [proof.as_slice(), &[[0; 32]]].concat();
            assert!(verify_inclusion(leaf, index, tree, &longer, root).is_err());
            assert!(verify_inclusion(leaf, index ^ 1, tree, &proof, root).is_err());
            assert!(verify_inclusion(&[0; 32], index, tree, &proof, root).is_err());
            assert!(verify_inclusion(leaf, index, tree, &proof, &roots[299]).is_err());
        }
        let proof = ProofPlan::consistency(old, tree).unwrap().prove(&reader(&stored)).unwrap();
        let old_root = &roots[77];
        for i in 0..proof.len() {
            let mut bad = proof.clone();
            bad[i][0] ^= 1;
            assert!(verify_consistency(old, old_root, tree, root, &bad).is_err(), "hash {i}");
            bad.remove(i);
            assert!(verify_consistency(old, old_root, tree, root, &bad).is_err(), "without {i}");
        }
        assert!(verify_consistency(old, &roots[78], tree, root, &proof).is_err());
        assert!(verify_consistency(old + 1, old_root, tree, root, &proof).is_err());
        assert!(verify_consistency(old, old_root, tree, &roots[299], &proof).is_err());
    }

    #[test]
    fn a_tree_of_70000_has_the_tiles_that_the_specification_counts() {
        let ids = TileEdge::tiles_at(70_000);
        let wanted = [(0, 273, 112), (1, 1, 17), (2, 0, 1)];
        assert_eq!(ids, wanted.map(|(level, index, width)| TileId { level, index, width }));
        let at_256 = TileEdge::tiles_at(256);
        assert_eq!(at_256, [TileId { level: 1, index: 0, width: 1 }]);
        assert_eq!(TileEdge::tiles_at(0), []);
        assert_eq!(TileEdge::tiles_at(u64::MAX).len(), 8);
    }

    #[test]
    fn only_changed_tiles_are_yielded() {
        let mut edge = TileEdge::default();
        let ids = |tiles: Vec<Tile>| -> Vec<_> {
            tiles.iter().map(|tile| (tile.id.level, tile.id.index, tile.id.width)).collect()
        };
        assert_eq!(ids(edge.append(&[]).unwrap()), []);
        assert_eq!(ids(edge.append(&[[1; 32]; 255]).unwrap()), [(0, 0, 255)]);
        assert_eq!(ids(edge.append(&[[1; 32]; 1]).unwrap()), [(0, 0, 256), (1, 0, 1)]);
        assert_eq!(ids(edge.append(&[[1; 32]; 1]).unwrap()), [(0, 1, 1)]);
        let many = ids(edge.append(&vec![[1; 32]; 65_536 - 257]).unwrap());
        assert_eq!(many.len(), 255 + 2);
        assert_eq!(many[254..], [(0, 255, 256), (1, 0, 256), (2, 0, 1)]);
    }

    #[test]
    fn a_tile_that_is_missing_short_or_odd_is_named() {
        let short = CryptoError::Tile { level: 0, index: 0 };
        for bytes in [vec![], vec![0; 31], vec![0; 32], vec![0; 65], vec![0; TILE_BYTES + 32]] {
            let reader = |_: TileId| Ok(bytes.clone());
            assert_eq!(TileEdge::load(2, &reader), Err(short));
            assert_eq!(ProofPlan::inclusion(0, 2).unwrap().prove(&reader), Err(short));
        }
    }

    #[test]
    fn plans_outside_the_tree_are_refused_and_the_largest_tree_is_planned() {
        assert_eq!(ProofPlan::inclusion(0, 0), Err(CryptoError::OutOfRange));
        assert_eq!(ProofPlan::inclusion(5, 5), Err(CryptoError::OutOfRange));
        assert_eq!(ProofPlan::consistency(6, 5), Err(CryptoError::OutOfRange));
        assert_eq!(ProofPlan::root(0), Err(CryptoError::OutOfRange));
        for plan in [
            ProofPlan::inclusion(u64::MAX - 1, u64::MAX),
            ProofPlan::inclusion(0, u64::MAX),
            ProofPlan::inclusion(1 << 63, u64::MAX),
            ProofPlan::root(u64::MAX),
            ProofPlan::consistency((1 << 62) + 12_345, u64::MAX),
        ] {
            let tiles = plan.unwrap().tiles().len();
            assert!((8..=16).contains(&tiles), "{tiles}");
        }
    }
}
