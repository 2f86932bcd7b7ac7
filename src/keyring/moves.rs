//! Identity keys that are wrapped again for the newest root key: the keys stay, and with them all that
//! is under them.

use super::identity::wrap_aad;
use super::{HsmKey, KeyUse, Keyring, KeyringError, Result};
use crate::crypto::{SALT_BYTES, SUITE_HMAC_KDF, kdf_input, unwrap_key, wrap_key, wrap_salt};
use crate::hsm::Hsm;
use crate::store::keys::{HsmPurpose, IdentityKeyRow, WrapRow};
use crate::types::{Entropy as _, SecretBytes};

/// Keys that are asked of the HSM in one call: others wait for a thread no longer than these take.
const AT_ONCE: usize = 16;

/// A wrap that takes the place of another of the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedWrap {
    /// As it was read.
    pub was: WrapRow,
    /// Under the newest root key.
    pub is: WrapRow,
}

/// A wrap on its way.
struct Step {
    key: IdentityKeyRow,
    was: WrapRow,
    salt: [u8; SALT_BYTES],
    /// What the wrap under the old root key, and that under the new one, are bound to.
    aads: [Vec<u8>; 2],
}

impl Keyring {
    /// Wraps keys again that one root key has wrapped, for the newest.
    ///
    /// A wrap that does not open is left out, with an alarm: it holds up itself alone.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`]; [`KeyringError::NoKey`] where the HSM holds no such root key, or it is
    /// the newest; what the HSM answers.
    pub async fn move_wraps(
        &self,
        recipient: &str,
        wraps: Vec<(IdentityKeyRow, WrapRow)>,
    ) -> Result<Vec<MovedWrap>> {
        let open = self.open_state()?;
        let keys = open.hsm_keys();
        let is_from = |key: &&HsmKey| key.purpose == HsmPurpose::Root && key.label == recipient;
        let from = keys.iter().find(is_from).ok_or(KeyringError::NoKey)?;
        let to = open.active(HsmPurpose::Root)?;
        if to.label == from.label {
            return Err(KeyringError::NoKey);
        }
        let (mut steps, mut unwrapped, mut wrapped) = (Vec::new(), Vec::new(), Vec::new());
        for (key, was) in wraps {
            let Ok(old_salt) = wrap_salt(&was.blob) else {
                does_not_open(&key);
                continue;
            };
            if was.recipient != from.label || was.suite != SUITE_HMAC_KDF {
                return Err(KeyringError::UnknownSuite(was.suite));
            }
            let mut salt = [0; SALT_BYTES];
            open.mixer.fill(&mut salt)?;
            let aads = [from, &to].map(|root| wrap_aad(open.vault, &key, root));
            let [was_aad, is_aad] = &aads;
            unwrapped.push(kdf_input(was_aad, old_salt));
            wrapped.push(kdf_input(is_aad, &salt));
            steps.push(Step { key, was, salt, aads });
        }
        // Neither waits for the other.
        let hsm = self.0.hsm.as_ref();
        let (olds, news) = tokio::try_join!(hmacs(hsm, from, unwrapped), hmacs(hsm, &to, wrapped))?;
        let mut moved = Vec::with_capacity(steps.len());
        for ((step, old), new) in steps.into_iter().zip(olds).zip(news) {
            let Step { key, was, salt, aads: [was_aad, is_aad] } = step;
            let Ok(bytes) = unwrap_key(&old, &was_aad, &was.blob) else {
                does_not_open(&key);
                continue;
            };
            let blob = wrap_key(&new, &salt, &is_aad, &bytes, &open.mixer)?;
            let (key_id, recipient) = (was.key_id, to.label.clone());
            moved.push(MovedWrap {
                was,
                is: WrapRow { key_id, recipient, suite: SUITE_HMAC_KDF, blob },
            });
        }
        Ok(moved)
    }

    /// Names the keys that [`Keyring::move_wraps`] uses, for the record.
    ///
    /// # Errors
    /// [`KeyringError::Sealed`].
    pub fn moves_from(&self, recipient: &str) -> Result<Vec<KeyUse>> {
        let open = self.open_state()?;
        let keys = open.hsm_keys();
        let from = keys.iter().find(|key| key.label == recipient);
        let to = open.active(HsmPurpose::Root)?.used_for("wrap");
        Ok(from.map(|key| key.used_for("unwrap")).into_iter().chain([to]).collect())
    }
}

fn does_not_open(key: &IdentityKeyRow) {
    tracing::error!(alarm = true, key = %key.id, "the wrap of a key does not open at its place");
}

async fn hmacs(hsm: &dyn Hsm, key: &HsmKey, inputs: Vec<Vec<u8>>) -> Result<Vec<SecretBytes>> {
    let mut tags = Vec::with_capacity(inputs.len());
    for some in inputs.chunks(AT_ONCE) {
        tags.extend(hsm.hmac_many(&key.label, some.to_vec()).await?);
    }
    Ok(tags)
}
