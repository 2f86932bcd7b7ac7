//! Labels: what policies, filters and people sort identities and secrets by.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::types::Segment;

/// Labels of one thing at most.
const MOST: usize = 32;

/// Checks that there are not too many labels, and that keys and values are canonical.
///
/// # Errors
/// [`Error::Invalid`].
pub(in crate::engines) fn check_labels(labels: &BTreeMap<String, String>) -> Result<()> {
    if labels.len() > MOST {
        return Err(Error::invalid(format!("there are at most {MOST} labels")));
    }
    let canonical = |text: &String| text.parse::<Segment>().is_ok();
    if labels.iter().all(|(key, value)| canonical(key) && canonical(value)) {
        return Ok(());
    }
    Err(Error::invalid(
        "a label is KEY=VALUE, each of 1 to 63 characters a-z 0-9 . _ - beginning with a letter or \
         digit",
    ))
}

/// Reads the labels of a row.
///
/// # Errors
/// [`Error::Internal`] when the row holds what it must not.
pub(in crate::engines) fn read_labels(json: &str) -> Result<BTreeMap<String, String>> {
    serde_json::from_str(json).map_err(Error::internal)
}

/// Writes the labels of a row, in the order of their keys.
///
/// # Errors
/// [`Error::Internal`], which this type excludes.
pub(in crate::engines) fn write_labels(labels: &BTreeMap<String, String>) -> Result<String> {
    serde_json::to_string(labels).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn labels_come_back_in_one_order_and_what_is_not_canonical_is_refused() {
        let some = labels(&[("team", "data"), ("env", "prod-eu.1")]);
        assert_eq!(check_labels(&some), Ok(()));
        let json = write_labels(&some).unwrap();
        assert_eq!(json, r#"{"env":"prod-eu.1","team":"data"}"#);
        assert_eq!(read_labels(&json), Ok(some));
        for (key, value) in [("", "x"), ("x", ""), ("Team", "x"), ("a=b", "x"), ("x", "a b")] {
            assert!(check_labels(&labels(&[(key, value)])).is_err(), "{key:?}={value:?}");
        }
        let many: BTreeMap<_, _> = (0..=MOST).map(|i| (format!("k{i}"), "v".to_owned())).collect();
        assert!(check_labels(&many).is_err());
    }
}
