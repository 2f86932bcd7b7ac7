//! Makes data keys: random keys, with their ciphertexts under a named key.

use std::sync::Arc;

use async_trait::async_trait;

use super::batch::{Used, Work, all_used, check_aad};
use super::count::Reservation;
use super::find::Keys;
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::{Needs, Tx};
use crate::types::{Entropy as _, Id, KeyName, KeyUsage, RequestContext, SecretBytes};
use crate::vault::{Decision, Note, Operation, READS, Resource, Verb, View, WRITES};

/// Makes a data key.
#[derive(Debug)]
pub struct MakeDataKey {
    /// What this node remembers of keys.
    pub keys: Keys,
    /// The key's name.
    pub name: KeyName,
    /// What the data key's ciphertext is bound to.
    pub associated_data: Vec<u8>,
    /// Its length.
    pub len_bytes: usize,
    /// Whether its ciphertext alone is given.
    pub wrapped_only: bool,
}

/// A data key.
#[derive(Debug)]
pub struct DataKey {
    /// The key, where it was asked for.
    pub plaintext: Option<SecretBytes>,
    /// Its ciphertext.
    pub ciphertext: Vec<u8>,
    /// Which key encrypted it.
    pub used: Used,
}

/// What was made, before it is on the record.
#[derive(Debug)]
pub struct Made {
    key: Arc<DataKey>,
    reservation: Option<Reservation>,
    noted: Vec<KeyUse>,
}

#[async_trait]
impl Verb for MakeDataKey {
    const ACTION: &'static str = "keys.datakey";
    type Prepared = Made;
    type Output = Arc<DataKey>;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![self.keys.resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Made> {
        if ![16, 32, 64].contains(&self.len_bytes) {
            return Err(Error::invalid("a data key has 16, 32 or 64 bytes"));
        }
        check_aad(&self.associated_data).map_err(|fault| Error::invalid(fault.message))?;
        let usage = Some(KeyUsage::Encrypts);
        let hot = self.keys.decided(view, decision, &self.name, usage).await?;
        let row = &hot.row.row;
        let work = Work::new(&self.keys, view, &hot, 1)?;
        let reservation = if row.algorithm.is_counted() {
            self.keys.counts.take((view.vault_id(), work.newest.id), 1).await?
        } else {
            None
        };
        let mut plaintext = zeroize::Zeroizing::new(vec![0; self.len_bytes]);
        view.keyring().entropy()?.fill(&mut plaintext)?;
        let plaintext = SecretBytes::from(plaintext);
        let ciphertext = work.seal(plaintext.expose(), &self.associated_data).await?;
        let (id, version) = (row.id, row.newest);
        let used = Used { id, version, placement: row.placement, algorithm: row.algorithm };
        let plaintext = (!self.wrapped_only).then_some(plaintext);
        let key = KeyUse { key: id.to_string(), version, purpose: "datakey/sealed" };
        let noted = all_used(view, vec![key]);
        Ok(Made { key: Arc::new(DataKey { plaintext, ciphertext, used }), reservation, noted })
    }

    fn note(&self, it: &Made, note: &mut Note) {
        note.keys.extend(it.noted.iter().cloned());
        let given = if self.wrapped_only { "wrapped only" } else { "plaintext and wrapped" };
        note.private.push((Field::Detail, format!("{} bytes, {given}", self.len_bytes)));
    }
}

#[async_trait]
impl Operation for MakeDataKey {
    const NEEDS: Needs = WRITES;
    const GOES_ON: bool = true;

    fn needs(&self, it: &Made) -> Needs {
        if it.reservation.is_some() { WRITES } else { READS }
    }

    fn durable(&self, it: &Made) {
        if let Some(reservation) = &it.reservation {
            reservation.durable();
        }
    }

    fn holds(&self, it: &Made) -> Option<Id> {
        it.reservation.as_ref().map(Reservation::holds)
    }

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        it: &Made,
        _: &Decision,
    ) -> Result<Arc<DataKey>> {
        if let Some(reservation) = &it.reservation {
            reservation.reserve(tx).await?;
        }
        Ok(Arc::clone(&it.key))
    }
}
