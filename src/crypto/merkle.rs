//! The Merkle tree of RFC 6962 over SHA-256: hashes, the compact right edge, verifying proofs.
//!
//! Source: RFC 9162, section 2.1. Proofs are made in `tiles.rs`, from stored tiles.

use aws_lc_rs::digest;

use super::{CryptoError, Result, sha256, to_array};

/// Length of a hash, in bytes.
pub const HASH_BYTES: usize = 32;

/// A leaf's, node's or tree's hash.
pub type Hash = [u8; HASH_BYTES];

/// The root of the tree without leaves: SHA-256 of nothing.
pub const EMPTY_ROOT: Hash = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// Hashes an entry to a leaf: SHA-256 of 0x00 ‖ entry.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&[0]);
    context.update(entry);
    to_array(context.finish().as_ref())
}

/// Hashes two subtrees to their parent: SHA-256 of 0x01 ‖ left ‖ right.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut input = [1; 1 + 2 * HASH_BYTES];
    for (out, byte) in input.iter_mut().skip(1).zip(left.iter().chain(right)) {
        *out = *byte;
    }
    sha256(&input)
}

/// The right edge of a tree: one hash per complete subtree, largest first. It is all that
/// appending and the root need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    edge: Vec<Hash>,
}

impl Frontier {
    /// Begins with the empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes up a stored edge.
    ///
    /// # Errors
    /// [`CryptoError::Tile`] when the number of hashes is not that of the size's one bits.
    pub fn from_parts(size: u64, edge: Vec<Hash>) -> Result<Self> {
        if u32::try_from(edge.len()) == Ok(size.count_ones()) {
            Ok(Self { size, edge })
        } else {
            Err(CryptoError::Tile { level: 0, index: size / 256 })
        }
    }

    /// Counts the leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Shows the hashes to store, largest subtree first.
    #[must_use]
    pub fn edge(&self) -> &[Hash] {
        &self.edge
    }

    /// Appends a leaf hash; one more node hash on average.
    ///
    /// # Errors
    /// [`CryptoError::OutOfRange`] after 2^64 − 1 leaves.
    pub fn append(&mut self, leaf: Hash) -> Result<()> {
        let size = self.size.checked_add(1).ok_or(CryptoError::OutOfRange)?;
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            // The edge holds one hash per one bit, so there is always one to take.
            let left = self.edge.pop().ok_or(CryptoError::OutOfRange)?;
            hash = node_hash(&left, &hash);
        }
        self.edge.push(hash);
        self.size = size;
        Ok(())
    }

    /// Computes the tree's root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let subtrees = self.edge.iter().rev().copied();
        subtrees.reduce(|right, left| node_hash(&left, &right)).unwrap_or(EMPTY_ROOT)
    }
}

/// Verifies that the tree of `size` leaves with this root has this leaf at `index`.
///
/// # Errors
/// [`CryptoError::OutOfRange`] when the index is not below the size, else [`CryptoError::Proof`].
///
/// Source: RFC 9162, section 2.1.3.2.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<()> {
    if index >= size {
        return Err(CryptoError::OutOfRange);
    }
    let mut path = Path::new(index, size);
    let mut hash = *leaf;
    for sibling in proof {
        hash = match path.step()? {
            Side::Left => node_hash(sibling, &hash),
            Side::Right => node_hash(&hash, sibling),
        };
    }
    if path.at_root() && hash == *root { Ok(()) } else { Err(CryptoError::Proof) }
}

/// Verifies that the old tree is a prefix of the new one. The empty tree is one of every tree.
///
/// # Errors
/// [`CryptoError::OutOfRange`] when the old size exceeds the new, else [`CryptoError::Proof`].
///
/// Source: RFC 9162, section 2.1.4.2.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<()> {
    let held = |holds: bool| if holds { Ok(()) } else { Err(CryptoError::Proof) };
    if old_size > new_size {
        return Err(CryptoError::OutOfRange);
    }
    if old_size == new_size {
        let empty_is_empty = old_size > 0 || *old_root == EMPTY_ROOT;
        return held(proof.is_empty() && old_root == new_root && empty_is_empty);
    }
    let Some(last) = old_size.checked_sub(1) else {
        return held(proof.is_empty() && *old_root == EMPTY_ROOT);
    };
    // An old tree that is a complete subtree of the new is where the proof starts from.
    let (start, siblings) = if old_size.is_power_of_two() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or(CryptoError::Proof)?
    };
    let mut path = Path::new(last, new_size);
    path.skip_right_children();
    let (mut old, mut new) = (*start, *start);
    for sibling in siblings {
        match path.step()? {
            Side::Left => {
                old = node_hash(sibling, &old);
                new = node_hash(sibling, &new);
            }
            Side::Right => new = node_hash(&new, sibling),
        }
    }
    held(path.at_root() && old == *old_root && new == *new_root)
}

/// Which side of the path the sibling stands on.
enum Side {
    Left,
    Right,
}

/// The way from a leaf to the root: `fn` and `sn` of RFC 9162.
struct Path {
    node: u64,
    last: u64,
}

impl Path {
    fn new(index: u64, size: u64) -> Self {
        Self { node: index, last: size.saturating_sub(1) }
    }

    fn at_root(&self) -> bool {
        self.last == 0
    }

    fn up(&mut self) {
        self.node >>= 1;
        self.last >>= 1;
    }

    /// Climbs to the root of the complete subtree that ends with the leaf.
    fn skip_right_children(&mut self) {
        while self.node & 1 == 1 {
            self.up();
        }
    }

    /// Climbs over one sibling and says where it stands.
    fn step(&mut self) -> Result<Side> {
        if self.at_root() {
            return Err(CryptoError::Proof);
        }
        let side = if self.node & 1 == 1 || self.node == self.last {
            // Levels at which the last node has no sibling are passed over.
            while self.node & 1 == 0 && self.node != 0 {
                self.up();
            }
            Side::Left
        } else {
            Side::Right
        };
        self.up();
        Ok(side)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;

    /// The definition of RFC 9162, section 2.1.1, word for word.
    fn tree_hash(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => sha256(b""),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                node_hash(&tree_hash(left), &tree_hash(right))
            }
        }
    }

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    #[test]
    fn every_root_is_that_of_the_definition_and_the_edge_comes_back() {
        let all = leaves(300);
        let mut frontier = Frontier::new();
        for (size, leaf) in all.iter().enumerate() {
            assert_eq!(frontier.root(), tree_hash(&all[..size]), "size {size}");
            let stored = Frontier::from_parts(frontier.size(), frontier.edge().to_vec());
            assert_eq!(stored.as_ref(), Ok(&frontier));
            frontier.append(*leaf).unwrap();
        }
    }

    #[test]
    fn roots_are_those_of_the_published_tree_of_eight_leaves() {
        // The test tree of Certificate Transparency implementations.
        let entries: [&[u8]; 8] = [
            b"",
            b"\0",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let mut frontier = Frontier::new();
        assert_eq!(frontier.root(), EMPTY_ROOT);
        for entry in entries {
            frontier.append(leaf_hash(entry)).unwrap();
        }
        assert_eq!(
            hex(&frontier.root()),
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
        );
    }

    #[test]
    fn an_edge_that_does_not_fit_its_size_is_refused() {
        assert!(Frontier::from_parts(3, leaves(1)).is_err());
        assert!(Frontier::from_parts(4, leaves(2)).is_err());
        assert!(Frontier::from_parts(0, leaves(1)).is_err());
    }

    #[test]
    fn proofs_about_empty_and_equal_trees_hold_only_when_empty() {
        let (a, b) = (leaf_hash(b"a"), leaf_hash(b"b"));
        for (old, old_root, new, new_root, proof, holds) in [
            (0, EMPTY_ROOT, 0, EMPTY_ROOT, vec![], true),
            (0, EMPTY_ROOT, 5, a, vec![], true),
            (0, a, 5, a, vec![], false),
            (0, a, 0, a, vec![], false),
            (0, EMPTY_ROOT, 5, a, vec![b], false),
            (5, a, 5, a, vec![], true),
            (5, a, 5, b, vec![], false),
            (5, a, 5, a, vec![a], false),
            (5, a, 4, a, vec![], false),
            (3, a, 5, b, vec![], false),
            (4, a, 5, a, vec![], false),
        ] {
            let verdict = verify_consistency(old, &old_root, new, &new_root, &proof);
            assert_eq!(verdict.is_ok(), holds, "{old} to {new}");
        }
        assert_eq!(verify_inclusion(&a, 0, 0, &[], &a), Err(CryptoError::OutOfRange));
        assert_eq!(verify_inclusion(&a, 0, 1, &[], &a), Ok(()));
        assert_eq!(verify_inclusion(&a, 0, 1, &[b], &a), Err(CryptoError::Proof));
        assert_eq!(verify_inclusion(&a, 7, u64::MAX, &[], &a), Err(CryptoError::Proof));
    }
}
