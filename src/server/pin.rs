//! A PIN is tried once, across restarts: before the token is asked, a mark is written; it goes
//! away when the PIN was right, or when the token was never asked. While it stands, only somebody
//! on this machine tries again.

use std::future::Future;
use std::path::{Path, PathBuf};

use super::files;
use super::life::{Life, Occasion};
use crate::error::{Error, Result};
use crate::keyring::FinalTry;
use crate::types::SecretBytes;

/// What the mark says to whoever looks into the directory.
const TEXT: &str = "The HSM refused a PIN, or the server ended while one was being tried.\n\
    No PIN is tried at a start while this file is here. Correct the PIN's source, then run\n\
    `strongroom unseal --force`; or give a PIN with `strongroom unseal --prompt`.\n";

/// Remembers that a PIN was tried.
#[derive(Debug, Clone)]
pub(super) struct PinMemory(PathBuf);

impl PinMemory {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("pin-refused"))
    }

    /// Tells whether the configured source must not be tried.
    pub(super) fn is_marked(&self) -> bool {
        // What cannot be looked at counts as there.
        self.0.try_exists().unwrap_or(true)
    }

    /// Refuses while the mark stands.
    pub(super) fn require_unmarked(&self) -> Result<()> {
        if self.is_marked() {
            return Err(Error::precondition(
                "the HSM refused the configured PIN before; it is not tried again by itself: \
                 correct it, then run `strongroom unseal --force`, or give one with --prompt",
            ));
        }
        Ok(())
    }

    /// Refuses to found with the configured PIN while the mark stands: there is no server yet that
    /// could be told of a better one.
    pub(super) fn require_unmarked_to_found(&self) -> Result<()> {
        if self.is_marked() {
            let path = self.0.display();
            return Err(Error::precondition(format!(
                "the HSM refused the configured PIN before; it is not tried again by itself: \
                 correct it, then remove {path}"
            )));
        }
        Ok(())
    }

    /// Unseals, with the mark around the attempt.
    ///
    /// # Errors
    /// As [`Life::unseal`].
    pub(super) async fn unseal(
        &self,
        life: &Life,
        pin: SecretBytes,
        final_try: FinalTry,
        occasion: Occasion,
    ) -> Result<()> {
        self.guard(life.unseal(pin, final_try, occasion)).await
    }

    /// Puts the mark around an attempt.
    ///
    /// # Errors
    /// What the attempt answers, or the file system.
    pub(super) async fn guard<T>(&self, attempt: impl Future<Output = Result<T>>) -> Result<T> {
        let was_marked = self.is_marked();
        files::replace(&self.0, TEXT.as_bytes(), 0o600)?;
        let done = attempt.await;
        let refused = matches!(&done, Err(Error::Precondition(why)) if is_refusal(why));
        // An attempt that never reached the PIN says nothing about it.
        if done.is_ok() || !(refused || was_marked) {
            files::remove(&self.0)?;
        }
        done
    }
}

/// Tells the token's refusals of a PIN from every other precondition.
fn is_refusal(message: &str) -> bool {
    use crate::hsm::HsmError::{PinFinalTry, PinIncorrect};
    [PinIncorrect, PinFinalTry].iter().any(|refusal| refusal.to_string() == message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hsm::HsmError;

    #[tokio::test]
    async fn only_a_refused_pin_leaves_the_mark_and_only_a_right_one_removes_it() {
        let dir = tempfile::tempdir().unwrap();
        let memory = PinMemory::new(dir.path());
        let gone = || Err(Error::unavailable("the HSM does not answer"));
        let refused = || Err(Error::from(HsmError::PinIncorrect));
        for (attempt, marked) in [
            (Ok(()), false),
            (gone(), false),
            (refused(), true),
            (gone(), true),
            (Err(Error::Sealed), true),
            (Ok(()), false),
            (Err(HsmError::PinFinalTry.into()), true),
        ] {
            let during = async {
                assert!(memory.is_marked(), "a crash would leave it");
                attempt.clone()
            };
            assert_eq!(memory.guard(during).await, attempt);
            assert_eq!(memory.is_marked(), marked, "{attempt:?}");
            assert_eq!(memory.require_unmarked().is_err(), marked);
        }
    }
}
