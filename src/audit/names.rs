//! Holds the values beside an entry to what the entry commits to.

use super::entry::{Field, ReadEntry, SideValue};

/// What became of a value that an entry commits to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// It is what was committed to.
    Known(String),
    /// It was erased; the entry still says that there was one.
    Erased,
    /// Something else stands in its place, or what stands there cannot be read.
    Altered,
}

/// The values that an entry commits to, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Each commitment's value.
    pub values: Vec<(Field, Named)>,
    /// Values beside the entry that it does not commit to.
    pub foreign: usize,
}

impl Names {
    /// Checks what stands beside an entry; `side` is none where it cannot be read.
    #[must_use]
    pub fn of_entry(entry: &ReadEntry, side: Option<&[SideValue]>) -> Self {
        let mut left: Vec<_> =
            side.unwrap_or_default().iter().map(|value| (value.commitment(), value)).collect();
        let mut known = Vec::new();
        for (field, commitment) in &entry.commitments {
            let Some(field) = Field::parse(field) else { continue };
            let place = left.iter().position(|(computed, value)| {
                value.field == field && computed.as_slice() == commitment.as_slice()
            });
            known.push((field, place.map(|place| left.swap_remove(place).1.value.clone())));
        }
        // What fits nothing stands where something else was.
        let gone = |field| match side {
            Some(_) if left.iter().all(|(_, value)| value.field != field) => Named::Erased,
            Some(_) | None => Named::Altered,
        };
        let values = known
            .into_iter()
            .map(|(field, value)| (field, value.map_or_else(|| gone(field), Named::Known)))
            .collect();
        Self { values, foreign: left.len() }
    }

    /// Tells whether every value is what was committed to, or was erased.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        let altered = |value: &(Field, Named)| matches!(value.1, Named::Altered);
        self.foreign == 0 && !self.values.iter().any(altered)
    }

    /// The values of one field.
    pub fn of(&self, field: Field) -> impl Iterator<Item = &Named> {
        self.values.iter().filter(move |value| value.0 == field).map(|value| &value.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::vectors::encode;

    fn beside() -> (ReadEntry, Vec<SideValue>) {
        let stored = encode(&[]);
        let sides = super::super::entry::read_side(&mut minicbor::Decoder::new(&stored.side));
        (ReadEntry::decode(&stored.leaf).unwrap(), sides.unwrap())
    }

    #[test]
    fn values_are_known_erased_or_altered_by_what_the_entry_commits_to() {
        let (entry, side) = beside();
        let all = Names::of_entry(&entry, Some(&side));
        assert!(all.is_intact());
        let values: Vec<_> = side.iter().map(|value| value.value.clone()).collect();
        let known: Vec<_> = values.iter().cloned().map(Named::Known).collect();
        assert_eq!(all.values.iter().map(|value| value.1.clone()).collect::<Vec<_>>(), known);

        for at in 0..side.len() {
            let field = side[at].field;
            let mut erased = side.clone();
            erased.remove(at);
            let names = Names::of_entry(&entry, Some(&erased));
            assert!(names.is_intact());
            assert_eq!(names.values[at], (field, Named::Erased));

            for altered in [
                SideValue { value: "other".into(), ..side[at].clone() },
                SideValue { salt: [9; 16], ..side[at].clone() },
            ] {
                let mut side = side.clone();
                side[at] = altered;
                let names = Names::of_entry(&entry, Some(&side));
                assert!(!names.is_intact());
                assert_eq!(names.values[at], (field, Named::Altered));
            }
        }
        assert!(!Names::of_entry(&entry, None).is_intact());
    }

    #[test]
    fn a_value_that_nobody_committed_to_is_foreign() {
        let (entry, mut side) = beside();
        side.push(SideValue { field: Field::Detail, salt: [1; 16], value: "more".into() });
        let names = Names::of_entry(&entry, Some(&side));
        assert_eq!((names.foreign, names.is_intact()), (1, false));
        assert!(names.values.iter().all(|value| matches!(value.1, Named::Known(_))));
    }
}
