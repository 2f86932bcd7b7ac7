//! Gives the public half of a version.

use async_trait::async_trait;

use super::batch::{Used, Work};
use super::find::{Keys, gone};
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::store::{Needs, Tx};
use crate::types::{KeyName, KeyUsage, RequestContext};
use crate::vault::{Decision, Note, Operation, READS, Resource, Verb, View};

/// Gives the public half of a version.
#[derive(Debug)]
pub struct ExportKey {
    /// What this node remembers of keys.
    pub keys: Keys,
    /// The key's name.
    pub name: KeyName,
    /// The version; 0 for the newest.
    pub version: i64,
}

/// The public half of a version.
#[derive(Debug, Clone)]
pub struct PublicHalf {
    /// DER of the `SubjectPublicKeyInfo`.
    pub spki_der: Vec<u8>,
    /// Which key it is of.
    pub used: Used,
}

#[async_trait]
impl Verb for ExportKey {
    const ACTION: &'static str = "keys.export";
    type Prepared = PublicHalf;
    type Output = PublicHalf;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![self.keys.resource(view, &self.name).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<PublicHalf> {
        let hot = self.keys.decided(view, decision, &self.name, None).await?;
        let row = &hot.row.row;
        if row.algorithm.usage() != KeyUsage::Signs {
            return Err(Error::invalid(format!("a key of {} has no public half", row.algorithm)));
        }
        let work = Work::new(&self.keys, view, &hot, 1)?;
        let version = work.version(self.version).await?;
        let version = version.map_err(|fault| Error::not_found(fault.message))?;
        let spki_der = version.public_key.clone();
        let spki_der = spki_der.ok_or_else(|| gone("named_key_versions", version.id))?;
        let (id, version) = (row.id, version.version);
        let used = Used { id, version, placement: row.placement, algorithm: row.algorithm };
        Ok(PublicHalf { spki_der, used })
    }

    fn note(&self, it: &PublicHalf, note: &mut Note) {
        note.private.push((Field::Detail, format!("version {}", it.used.version)));
    }
}

#[async_trait]
impl Operation for ExportKey {
    const NEEDS: Needs = READS;

    async fn commit(
        &self,
        _: &RequestContext,
        _: &mut Tx,
        it: &PublicHalf,
        _: &Decision,
    ) -> Result<PublicHalf> {
        Ok(it.clone())
    }
}
