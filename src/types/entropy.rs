//! Randomness, injected so that tests can repeat it.

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
}

/// The system's generator through AWS-LC.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        rand::fill(buffer).map_err(|_unspecified| Error::internal("the random generator failed"))
    }
}
