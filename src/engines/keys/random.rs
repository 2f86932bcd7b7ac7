//! Gives random bytes.

use async_trait::async_trait;

use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::{Needs, Tx};
use crate::types::{Entropy as _, RequestContext, SecretBytes};
use crate::vault::{Decision, Note, Operation, READS, Resource, Verb, View};

/// Bytes of one call, at most.
pub const RANDOM_BYTES: usize = 64 * 1_024;

/// Gives random bytes, of the system's and the HSM's generator mixed.
#[derive(Debug, Clone, Copy)]
pub struct GetRandom {
    /// How many.
    pub len_bytes: usize,
}

#[async_trait]
impl Verb for GetRandom {
    const ACTION: &'static str = "keys.random";
    type Prepared = SecretBytes;
    type Output = SecretBytes;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named("keys".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<SecretBytes> {
        if !(1..=RANDOM_BYTES).contains(&self.len_bytes) {
            return Err(Error::invalid(format!("ask for 1 to {RANDOM_BYTES} bytes")));
        }
        let entropy = view.keyring().entropy()?;
        let mut bytes = zeroize::Zeroizing::new(vec![0; self.len_bytes]);
        entropy.fill(&mut bytes)?;
        Ok(bytes.into())
    }

    fn note(&self, _: &SecretBytes, note: &mut Note) {
        note.private.push((Field::Detail, format!("{} bytes", self.len_bytes)));
    }
}

#[async_trait]
impl Operation for GetRandom {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        bytes: &SecretBytes,
        _: &Decision,
    ) -> Result<SecretBytes> {
        Ok(bytes.clone())
    }
}
