//! Gives an older version's value again, as a new version.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::find::{
    Found, decided, gone, owner_of, readable, require_active, resource_to_write, stale,
};
use super::put::{NewVersion, Origin, Writing, Written, again, end};
use super::room::Room;
use super::sealing::open;
use super::value::SecretValue;
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::secrets;
use crate::store::{Needs, Tx};
use crate::types::{RequestContext, SecretPath};
use crate::vault::{Claimed, Decision, Note, Operation, Resource, RetryKey, Verb, View, WRITES};

/// Gives a version's value again. What is written is as exposed as that is, and ends no later.
#[derive(Debug, Clone)]
pub struct RollbackSecret {
    /// Room for its value.
    pub room: Room,
    /// The secret's name.
    pub path: SecretPath,
    /// The version whose value is wanted.
    pub to: i64,
    /// The number of the newest version, as the caller knows it.
    pub expected: i64,
    /// Makes a retry find what the first try made.
    pub retry: Option<RetryKey>,
}

#[async_trait]
impl Verb for RollbackSecret {
    const ACTION: &'static str = "secrets.rollback";
    type Prepared = (Writing, Vec<KeyUse>);
    type Output = Written;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource_to_write(view, &self.path).await?])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Self::Prepared> {
        if let Claimed::Made(before) = view.claimed(self).await? {
            return Ok((Writing::Before(before), Vec::new()));
        }
        if self.to < 1 {
            return Err(Error::invalid("name the version to go back to, from 1 on"));
        }
        let (id, to, now) = (decided(decision)?, self.to, view.now());
        let room = self.room.clone();
        let read = view.read(move |tx| {
            async move {
                let found = Found::read(tx, id).await?;
                require_active(&owner_of(tx, &found.secret.row).await?.row, now)?;
                let version = found.version(tx, to).await?.row;
                readable(&version, now)?;
                let held =
                    room.take(usize::try_from(version.len_bytes).map_err(Error::internal)?)?;
                let message = secrets::message(tx, version.id).await?;
                let message = message.ok_or_else(|| gone("secret_values", version.id))?;
                Ok((found, version, message, held))
            }
            .boxed()
        });
        let (found, version, message, held) = read.await?;
        if found.head.row.newest != self.expected {
            return Err(stale(found.head.row.newest));
        }
        let secret = found.secret.row.clone();
        let opened = open(view, &secret, &version, &message).await?;
        let value = SecretValue { bytes: opened.plaintext, is_json: version.is_json, _held: held };
        let origin = Origin {
            restored: Some((to, version.root)),
            expires_at: end(view, decision, version.expires_at)?,
        };
        let new = NewVersion::seal(view, Some(found), secret, &value, origin).await?;
        Ok((Writing::New(Box::new(new)), opened.used))
    }

    fn note(&self, (new, used): &Self::Prepared, note: &mut Note) {
        note.keys.extend(used.iter().cloned());
        new.note(note);
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.retry.as_ref()
    }

    fn made(&self, (new, _): &Self::Prepared) -> String {
        new.made()
    }

    async fn replay(&self, view: &View, made: &str) -> Result<Written> {
        again(view, &self.path, made).await
    }
}

#[async_trait]
impl Operation for RollbackSecret {
    const NEEDS: Needs = WRITES;
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        (new, _): &Self::Prepared,
        _: &Decision,
    ) -> Result<Written> {
        new.store(ctx, tx).await
    }
}
