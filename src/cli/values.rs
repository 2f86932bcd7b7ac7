//! What stands beside entries, held to what they commit to.

use crate::audit::{Named, Names, ReadEntry, SideValue, decode_sides};

/// What was found beside the entries so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Values {
    /// Values that are what was committed to.
    pub(super) known: u64,
    /// Values that were erased.
    pub(super) erased: u64,
    /// Entries without anything beside them, in a copy that leaves it out.
    pub(super) left_out: u64,
}

/// What stands beside the entries of one bundle, in their order.
pub(super) enum Sides {
    /// A copy that leaves it out.
    LeftOut,
    /// What the bundle's source gave; none for an entry where it cannot be read.
    Given(std::vec::IntoIter<Option<Vec<SideValue>>>),
}

impl Sides {
    /// Reads what stands beside so many entries.
    pub(super) fn read(bytes: Option<&[u8]>, entries: usize) -> Self {
        let Some(bytes) = bytes else { return Self::LeftOut };
        let sides = decode_sides(bytes).ok().filter(|sides| sides.len() >= entries);
        // Whatever cannot be read stands beside the first entry already.
        Self::Given(sides.unwrap_or_default().into_iter())
    }

    /// Checks what stands beside the next entry.
    ///
    /// # Errors
    /// What is wrong, up to the entry's index.
    pub(super) fn check(&mut self, leaf: &[u8], values: &mut Values) -> Result<(), &'static str> {
        let Self::Given(sides) = self else {
            values.left_out = values.left_out.saturating_add(1);
            return Ok(());
        };
        let side = sides.next().flatten().ok_or("what cannot be read stands beside")?;
        let entry = ReadEntry::decode(leaf).map_err(|_format| "this program cannot read")?;
        let names = Names::of_entry(&entry, Some(&side));
        if !names.is_intact() {
            return Err("what was never committed to stands beside");
        }
        for (_, named) in &names.values {
            match named {
                Named::Known(_) => values.known = values.known.saturating_add(1),
                Named::Erased | Named::Altered => values.erased = values.erased.saturating_add(1),
            }
        }
        Ok(())
    }
}
