//! The server's half of recovering an administrator: that who asks has the PIN.
//!
//! The socket's file alone proves nothing but an account on this machine. So the server gives a
//! challenge, once, and the HSM answers it for whoever logs in with the PIN.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::crypto::Encoder;
use crate::error::{Error, Result};
use crate::keyring::{Challenge, KeyUse, Keyring};
use crate::types::{IdentityName, SecretBytes};

/// How long a challenge waits for its answer: a PIN was typed before it was asked for.
const WAITS: Duration = Duration::from_mins(2);

/// Whose recovery is asked for, with which key, and the proof that the PIN is known.
#[derive(Debug, Clone)]
pub struct RecoveryOrder {
    /// The administrator.
    pub name: IdentityName,
    /// The request for the new login, PEM.
    pub csr_pem: String,
    /// The challenge's nonce.
    pub nonce: Vec<u8>,
    /// The HSM's answer to it, for [`RecoveryOrder::statement`].
    pub proof: SecretBytes,
}

impl RecoveryOrder {
    /// Encodes what is proven to be asked for.
    #[must_use]
    pub fn statement(name: &IdentityName, csr_pem: &str) -> Vec<u8> {
        Encoder::new("strongroom/recover-admin/v1").text(name.as_str()).text(csr_pem).finish()
    }
}

/// The challenge that was given last.
#[derive(Debug, Default)]
pub(super) struct Given(Mutex<Option<(Challenge, Instant)>>);

impl Given {
    /// Gives another; the one before counts no more.
    pub(super) fn give(&self, keyring: &Keyring, now: Instant) -> Result<Challenge> {
        let challenge = keyring.challenge()?;
        *self.0.lock() = Some((challenge.clone(), now));
        Ok(challenge)
    }

    /// Takes the challenge back, and demands that it was answered.
    ///
    /// # Errors
    /// [`Error::Precondition`] for another challenge than the one that waits; [`Error::Denied`] for
    /// a wrong answer; [`Error::Sealed`]; what the HSM answers.
    pub(super) async fn prove(
        &self,
        keyring: &Keyring,
        order: &RecoveryOrder,
        now: Instant,
    ) -> Result<KeyUse> {
        let given = self.0.lock().take();
        let fits = |(challenge, at): &(Challenge, Instant)| {
            challenge.nonce == *order.nonce && now.saturating_duration_since(*at) < WAITS
        };
        let waits_no_more =
            || Error::precondition("the challenge does not wait any more; ask for another");
        let (challenge, _) = given.filter(fits).ok_or_else(waits_no_more)?;
        let statement = RecoveryOrder::statement(&order.name, &order.csr_pem);
        let proven = keyring.proves(&challenge, &statement, &order.proof).await?;
        proven.ok_or_else(|| {
            tracing::error!(alarm = true, "a recovery was asked for without the PIN");
            Error::Denied("the PIN of the HSM is not proven".into())
        })
    }
}
