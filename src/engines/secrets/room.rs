//! Room for values that are under way.
//!
//! A call that writes or reads a value goes on when its caller hangs up, and then no longer counts
//! among the requests at the door: without a bound of their own, values would fill the memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::VALUE_BYTES;
use crate::error::{Error, Result};

/// Values of the largest size that may be under way at once: 64 MiB of plaintext.
const LARGEST: usize = 64;
/// Bytes that one place stands for.
const PLACE_BYTES: usize = 1_024;

/// The room of a node; its clones share it.
#[derive(Debug, Clone)]
pub struct Room(Arc<Semaphore>);

/// Places that are taken until this is dropped.
#[derive(Debug, Clone)]
pub struct Held {
    _places: Arc<OwnedSemaphorePermit>,
}

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LARGEST * VALUE_BYTES / PLACE_BYTES)))
    }
}

impl Room {
    /// Takes room for a value, or refuses at once: whoever waits would hold its value meanwhile.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where there is none.
    pub(super) fn take(&self, bytes: usize) -> Result<Held> {
        let places = u32::try_from(bytes.div_ceil(PLACE_BYTES)).map_err(Error::internal)?;
        let taken = Arc::clone(&self.0).try_acquire_many_owned(places);
        let full = |_none| Error::unavailable("too many values are under way; retry with back-off");
        Ok(Held { _places: Arc::new(taken.map_err(full)?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_room_are_refused_until_others_are_gone() {
        let room = Room::default();
        let mut held: Vec<_> = (0..LARGEST).map(|_| room.take(VALUE_BYTES).unwrap()).collect();
        assert!(matches!(room.clone().take(1), Err(Error::Unavailable(_))));
        let still_read = held.pop().unwrap();
        let again = still_read.clone();
        drop(still_read);
        assert!(room.take(1).is_err(), "a part of it is under way yet");
        drop(again);
        assert!(room.take(VALUE_BYTES).is_ok());
    }
}
