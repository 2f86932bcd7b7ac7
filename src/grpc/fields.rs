//! Fields of requests that mean the same everywhere.

use std::str::FromStr;
use std::time::Duration;

use prost::Message;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::types::UnixMillis;
use crate::vault::RetryKey;

/// Reads a field that may be left empty.
pub(super) fn optional<T: FromStr<Err = Error>>(text: &str) -> Result<Option<T>> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// Reads a span in seconds; none where it is 0.
pub(super) fn span(what: &'static str, seconds: i64) -> Result<Option<Duration>> {
    match u64::try_from(seconds) {
        Ok(0) => Ok(None),
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
        Err(_negative) => Err(Error::invalid(format!("{what} must not be negative"))),
    }
}

/// Reads the idempotency key of a request, bound to all of it.
pub(super) fn retry<M: Message>(key: &str, request: &M) -> Result<Option<RetryKey>> {
    if key.is_empty() {
        return Ok(None);
    }
    // A request may hold a secret.
    RetryKey::parse(key, &Zeroizing::new(request.encode_to_vec()))
}

/// Shows a moment that may be never.
pub(super) fn ms(at: Option<UnixMillis>) -> i64 {
    at.map_or(0, |at| at.0)
}
