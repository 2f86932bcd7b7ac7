//! Tells the record of a backup that somebody on the server made: making it is the server's.

use async_trait::async_trait;

use crate::audit::Field;
use crate::error::Result;
use crate::keyring::KeyUse;
use crate::store::{Needs, Tx};
use crate::types::{RequestContext, ResourceName};
use crate::vault::{Decision, Note, Operation, READS, Resource, Verb, View};

/// Tells of a backup.
#[derive(Debug, Clone)]
pub struct TellBackup {
    /// Its file.
    pub file: String,
    /// What it holds.
    pub content: &'static str,
    /// Entries of the log in it.
    pub log_size: i64,
    /// The key that wraps its own.
    pub used: KeyUse,
}

#[async_trait]
impl Verb for TellBackup {
    const ACTION: &'static str = "system.create-backup";
    type Prepared = ();
    type Output = ();

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        Ok(vec![Resource::named(ResourceName::join("system", &["backup"])?)])
    }

    async fn prepare(&self, _: &View, _: &Decision) -> Result<()> {
        Ok(())
    }

    fn note(&self, (): &(), note: &mut Note) {
        let Self { file, content, log_size, used } = self;
        note.keys.push(used.clone());
        note.private.push((Field::Detail, format!("{content}, {log_size} entries, {file}")));
    }
}

#[async_trait]
impl Operation for TellBackup {
    const NEEDS: Needs = READS;

    async fn commit(&self, _: &RequestContext, _: &mut Tx, (): &(), _: &Decision) -> Result<()> {
        Ok(())
    }
}
