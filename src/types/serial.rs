//! Serial numbers of certificates.

use std::fmt;

use super::Entropy;
use crate::error::{Error, Result};

/// A serial number: 20 octets, positive, 158 of its bits random.
///
/// Source: RFC 5280, section 4.1.2.2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; Self::LEN_BYTES]);

impl Serial {
    /// Octets of every serial.
    pub const LEN_BYTES: usize = 20;

    /// Draws a serial; it is stored before anything is signed over it.
    ///
    /// # Errors
    /// [`Error::Internal`] when the generator fails.
    pub fn random(entropy: &dyn Entropy) -> Result<Self> {
        let mut bytes = [0; Self::LEN_BYTES];
        entropy.fill(&mut bytes)?;
        let [first, ..] = &mut bytes;
        // Positive, and always of full length.
        *first = *first & 0x3f | 0x40;
        Ok(Self(bytes))
    }

    /// Takes a serial from a certificate or a list.
    ///
    /// # Errors
    /// [`Error::Internal`] when it is none that was drawn here.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        match <[u8; Self::LEN_BYTES]>::try_from(bytes) {
            Ok(serial @ [0x40..=0x7f, ..]) => Ok(Self(serial)),
            Ok(_) | Err(_) => Err(Error::internal("a serial that this vault never draws")),
        }
    }

    /// Shows the 20 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN_BYTES] {
        &self.0
    }
}

impl fmt::Display for Serial {
    /// Writes 40 lowercase hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
