//! Who was shredded, in a private data object of the HSM: a restore of the store does not reach it.
//!
//! It holds how many there are and names the newest of them, because an object of an HSM is small and
//! a store that is restored knows the older ones itself.

use super::{HeadKept, Keyring, KeyringError, Result, names};
use crate::hsm::{HsmError, MAX_DATA_BYTES};
use crate::types::{Id, IdentityId};

/// First byte of the data object.
const LAYOUT: u8 = 1;
/// Length of an id, in bytes.
const ID_BYTES: usize = 16;
/// Length of what stands before the ids, in bytes.
const BEFORE_BYTES: usize = 9;

/// Who was shredded, as far as the HSM tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shredded {
    /// How many there are.
    pub count: i64,
    /// The newest of them, the oldest of these first; at most [`Shredded::NAMED`].
    pub newest: Vec<IdentityId>,
}

impl Shredded {
    /// Most identities that are named.
    pub const NAMED: usize = (MAX_DATA_BYTES - BEFORE_BYTES) / ID_BYTES;
}

impl Keyring {
    /// Writes who was shredded into a private data object of the HSM.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`], or what the HSM answers.
    pub async fn write_shredded(&self, shredded: &Shredded) -> Result<HeadKept> {
        let open = self.open_state()?;
        let mut value = vec![LAYOUT];
        value.extend_from_slice(&shredded.count.to_be_bytes());
        for id in &shredded.newest {
            value.extend_from_slice(id.0.as_bytes());
        }
        match self.0.hsm.write_data(&names::shredded_label(open.vault), &value).await {
            Ok(()) => Ok(HeadKept::InHsm),
            Err(HsmError::Unsupported(_)) => Ok(HeadKept::Nowhere),
            Err(other) => Err(other.into()),
        }
    }

    /// Reads what was written last; none where the HSM keeps none.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`]; [`KeyringError::Unfit`] when the object is not one of ours.
    pub async fn read_shredded(&self) -> Result<Option<Shredded>> {
        let open = self.open_state()?;
        let label = names::shredded_label(open.vault);
        match self.0.hsm.read_data(&label).await {
            Ok(None) | Err(HsmError::Unsupported(_)) => Ok(None),
            Ok(Some(value)) => {
                parse(&value).map(Some).ok_or_else(|| KeyringError::Unfit(format!("`{label}`")))
            }
            Err(other) => Err(other.into()),
        }
    }
}

fn parse(value: &[u8]) -> Option<Shredded> {
    let (layout, rest) = value.split_first()?;
    let (count, rest) = rest.split_first_chunk::<8>()?;
    let (ids, left) = rest.as_chunks::<ID_BYTES>();
    let newest = ids.iter().map(|id| IdentityId(Id::from_bytes(*id))).collect();
    let count = i64::from_be_bytes(*count);
    let fits = *layout == LAYOUT && count >= 0 && left.is_empty();
    fits.then_some(Shredded { count, newest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_another_length_or_layout_is_refused() {
        let good = [&[1][..], &[0, 0, 0, 0, 0, 0, 1, 2], &[7; 16], &[8; 16]].concat();
        let id = |n| IdentityId(Id::from_bytes([n; 16]));
        assert_eq!(parse(&good), Some(Shredded { count: 258, newest: vec![id(7), id(8)] }));
        assert_eq!(parse(&good[..9]), Some(Shredded { count: 258, newest: vec![] }));
        for len in (0..good.len()).filter(|len| ![9, 25].contains(len)) {
            assert_eq!(parse(&good[..len]), None, "{len}");
        }
        for (at, byte) in [(0, 2), (1, 0x80)] {
            let mut other = good.clone();
            other[at] = byte;
            assert_eq!(parse(&other), None, "{at}");
        }
        const { assert!(BEFORE_BYTES + Shredded::NAMED * ID_BYTES <= MAX_DATA_BYTES) };
    }
}
