//! Who ever changed a row, as the row holds it: the last alone would let a later change hide an
//! earlier one.

use crate::types::IdentityId;

/// Stands for everybody: more changed it than are kept, and none is forgotten in silence.
pub const MORE: &str = "*";
/// Identities that are kept.
const KEPT: usize = 32;

/// Adds one who changed it. A worker changes what rules say, on nobody's side.
#[must_use]
pub fn with(changers: &str, by: &str) -> String {
    if by.parse::<IdentityId>().is_err() || all(changers).any(|one| one == by || one == MORE) {
        return changers.to_owned();
    }
    match all(changers).count() {
        0 => by.to_owned(),
        KEPT.. => MORE.to_owned(),
        _ => format!("{changers} {by}"),
    }
}

/// Lists them; [`MORE`] alone where it is not known any more who they were.
pub fn all(changers: &str) -> impl Iterator<Item = &str> {
    changers.split_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Id;

    #[test]
    fn each_is_kept_once_and_too_many_stand_for_everybody() {
        let id = |byte| IdentityId(Id::from_bytes([byte; 16])).to_string();
        let two = with(&with(&with("", &id(1)), &id(2)), &id(1));
        assert_eq!(all(&two).collect::<Vec<_>>(), [id(1), id(2)]);
        assert_eq!(with(&two, "lifecycle_keeper"), two);
        let most = (1..=32).fold(String::new(), |kept, byte| with(&kept, &id(byte)));
        assert_eq!(all(&most).count(), 32);
        assert_eq!(with(&most, &id(32)), most);
        let more = with(&most, &id(33));
        assert_eq!((more.as_str(), with(&more, &id(34)).as_str()), (MORE, MORE));
    }
}
