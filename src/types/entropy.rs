//! Randomness, injected so that tests can repeat it.

use std::cell::RefCell;
use std::fmt;

use aws_lc_rs::rand;

use crate::error::{Error, Result};

/// Fills buffers with unpredictable bytes.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills the whole buffer.
    ///
    /// # Errors
    /// [`Error::Internal`] when the generator fails; nothing may be issued then.
    fn fill(&self, buffer: &mut [u8]) -> Result<()>;

    /// Fills the buffer with bytes that need to be unpredictable no longer once they are used, as
    /// ids and salts are; they may have been drawn a little before.
    ///
    /// # Errors
    /// As [`Entropy::fill`].
    fn fill_public(&self, buffer: &mut [u8]) -> Result<()> {
        self.fill(buffer)
    }
}

/// Bytes drawn ahead for ids and salts, by each thread for itself; each is handed out once.
struct Drawn {
    bytes: [u8; 1_024],
    used: usize,
}

thread_local! {
    static DRAWN: RefCell<Drawn> = const { RefCell::new(Drawn { bytes: [0; 1_024], used: 1_024 }) };
}

/// The system's generator through AWS-LC.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        rand::fill(buffer).map_err(|_unspecified| Error::internal("the random generator failed"))
    }

    /// Draws for many calls at once: a draw costs as much as hashing an entry.
    fn fill_public(&self, buffer: &mut [u8]) -> Result<()> {
        DRAWN.with_borrow_mut(|drawn| {
            if buffer.len() > drawn.bytes.len() {
                return self.fill(buffer);
            }
            let end = match drawn.used.checked_add(buffer.len()) {
                Some(end) if end <= drawn.bytes.len() => end,
                Some(_) | None => {
                    self.fill(&mut drawn.bytes)?;
                    drawn.used = 0;
                    buffer.len()
                }
            };
            let taken = drawn.bytes.get_mut(drawn.used..end).ok_or(Error::Internal)?;
            buffer.copy_from_slice(taken);
            taken.fill(0);
            drawn.used = end;
            Ok(())
        })
    }
}
