//! Reads a value, and notes who did in the commit of the entry that says so.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::find::{Found, decided, gone, of, readable};
use super::mask::{Hashes, mask};
use super::room::{Held, Room};
use super::sealing::open;
use crate::audit::Field;
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::secrets::{self, LastRead, SecretHeadRow, SecretRow, SecretVersionRow};
use crate::store::{Needs, Tx};
use crate::types::{IdentityId, ObjectId, RequestContext, SecretBytes, SecretPath, UnixMillis};
use crate::vault::{Decision, Note, Operation, READS, Resource, Verb, View, WRITES, WRITES_ONE};

/// How long what is noted of who read a secret last stands while nobody else does, in milliseconds.
const NOTED_MS: i64 = 60_000;
/// Secrets of which this node remembers who read them.
const KEPT: usize = 50_000;
/// The size up to which a value is read with its secret's row, before the decision: a second look at
/// the store costs more than that. Nobody has larger ones read who may not have them.
const EARLY: i64 = 16 * 1_024;

/// Who this node noted last as a reader of each secret, so that a reader who comes again within the
/// minute costs no statement.
#[derive(Debug, Clone, Default)]
pub struct Reads(Arc<Mutex<HashMap<ObjectId, LastRead>>>);

impl Reads {
    /// Tells whether a read says something that was not noted yet.
    fn is_news(&self, secret: ObjectId, read: LastRead) -> bool {
        self.0.lock().get(&secret).is_none_or(|kept| {
            (kept.by, kept.version) != (read.by, read.version)
                || read.at.0.saturating_sub(kept.at.0) >= NOTED_MS
        })
    }

    fn keep(&self, secret: ObjectId, read: LastRead) {
        let mut kept = self.0.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(secret, read);
    }
}

/// Reads a version's value.
#[derive(Debug)]
pub struct GetSecret {
    /// Who this node noted as readers.
    pub reads: Reads,
    /// Room for its value.
    pub room: Room,
    /// The secret's name.
    pub path: SecretPath,
    /// The version; the newest for 0.
    pub version: i64,
    /// What was read of it with the secret's row, if anything.
    pub early: Early,
}

/// What was read of a version before it was decided on.
#[derive(Debug, Default)]
pub struct Early(Mutex<Option<Result<Sealed>>>);

/// A version's value as it is stored.
#[derive(Debug)]
struct Sealed {
    secret: SecretRow,
    row: SecretVersionRow,
    message: Vec<u8>,
    held: Held,
}

/// A value as it is given.
#[derive(Debug)]
pub struct Given {
    /// Its version.
    pub row: SecretVersionRow,
    /// The value, without what the grant hides.
    pub value: SecretBytes,
    /// What that is, each `FIELD=HOW`.
    pub masked: Vec<String>,
    /// The room that it takes up.
    _held: Held,
}

/// What is given, and what is to be noted of it.
#[derive(Debug)]
pub struct Opened {
    given: Arc<Given>,
    used: Vec<KeyUse>,
    read: LastRead,
    news: bool,
    exposes: bool,
}

#[async_trait]
impl Verb for GetSecret {
    const ACTION: &'static str = "secrets.get";
    type Prepared = Opened;
    type Output = Arc<Given>;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let (path, version, now) = (self.path.clone(), self.version, view.now());
        let room = self.room.clone();
        let read = view.read(move |tx| {
            async move {
                let found = secrets::secret_named(tx, &path).await?;
                let resource = of(&path, found.as_ref())?;
                let Some(secret) = found else { return Ok((resource, None)) };
                let early = async {
                    let found = Found::of(tx, secret).await?;
                    Sealed::read(tx, found, version, now, &room, EARLY).await
                };
                Ok((resource, early.await.transpose()))
            }
            .boxed()
        });
        let (resource, early) = read.await?;
        *self.early.0.lock() = early;
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Opened> {
        if self.version < 0 {
            return Err(Error::invalid("versions are numbered from 1 on; 0 is the newest"));
        }
        let (id, version, now) = (decided(decision)?, self.version, view.now());
        let early = self.early.0.lock().take().transpose()?;
        let Sealed { secret, row, message, held } = if let Some(early) = early {
            early
        } else {
            let room = self.room.clone();
            let read = view.read(move |tx| {
                async move {
                    let found = Found::read(tx, id).await?;
                    let read = Sealed::read(tx, found, version, now, &room, i64::MAX).await?;
                    read.ok_or_else(|| Error::internal("a value of more than there is"))
                }
                .boxed()
            });
            read.await?
        };
        let masks = decision.verdict.obligations.masks.as_slice();
        if !masks.is_empty() && !row.is_json {
            return Err(Error::precondition(
                "your grant masks fields of JSON values; this is none, so it is not given at all",
            ));
        }
        let opened = open(view, &secret, &row, &message).await?;
        let value = if masks.is_empty() {
            opened.plaintext
        } else {
            let hashes = Hashes { key: view.keyring().mask_key()?, secret: id };
            mask(&opened.plaintext, masks, &hashes)?
        };
        let masked = masks.iter().map(ToString::to_string).collect();
        let read = last_read(view.identity()?, &row, now);
        Ok(Opened {
            news: self.reads.is_news(id, read),
            exposes: decision.under().end().is_some() && row.exposed_at.is_none(),
            given: Arc::new(Given { row, value, masked, _held: held }),
            used: opened.used,
            read,
        })
    }

    fn note(&self, it: &Opened, note: &mut Note) {
        note.keys.extend(it.used.iter().cloned());
        let masked = if it.given.masked.is_empty() { "" } else { ", masked" };
        note.private.push((Field::Detail, format!("version {}{masked}", it.read.version)));
    }
}

impl Sealed {
    /// Reads a version's value, where it is not larger than that.
    async fn read(
        tx: &mut Tx,
        found: Found,
        version: i64,
        now: UnixMillis,
        room: &Room,
        most: i64,
    ) -> Result<Option<Self>> {
        let row = found.version(tx, version).await?.row;
        readable(&row, now)?;
        if row.len_bytes > most {
            return Ok(None);
        }
        let held = room.take(usize::try_from(row.len_bytes).map_err(Error::internal)?)?;
        let message = secrets::message(tx, row.id).await?;
        let message = message.ok_or_else(|| gone("secret_values", row.id))?;
        Ok(Some(Self { secret: found.secret.row, row, message, held }))
    }
}

const fn last_read(by: IdentityId, row: &SecretVersionRow, at: UnixMillis) -> LastRead {
    LastRead { at, by, version: row.version }
}

#[async_trait]
impl Operation for GetSecret {
    const NEEDS: Needs = WRITES;
    const GOES_ON: bool = true;

    /// Who was noted already costs no statement.
    fn needs(&self, it: &Opened) -> Needs {
        match (it.exposes, it.news) {
            (true, _) => WRITES,
            (false, true) => WRITES_ONE,
            (false, false) => READS,
        }
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        it: &Opened,
        decision: &Decision,
    ) -> Result<Arc<Given>> {
        if it.exposes {
            expose(ctx, tx, &it.given.row, decision).await?;
        }
        if it.exposes || it.news {
            secrets::note_read(tx, it.given.row.secret, it.read).await?;
        }
        Ok(Arc::clone(&it.given))
    }

    fn durable(&self, it: &Opened) {
        if it.exposes || it.news {
            self.reads.keep(it.given.row.secret, it.read);
        }
    }
}

/// Marks the versions with the value that an elevated call has read: it is to be replaced.
async fn expose(
    ctx: &RequestContext,
    tx: &mut Tx,
    version: &SecretVersionRow,
    decision: &Decision,
) -> Result<()> {
    let head = tx.lookup::<SecretHeadRow>(&version.secret).await?;
    let head = head.ok_or_else(|| gone("secret_heads", version.secret))?.row;
    // Of several that it was read under, the mark names one.
    let exposed_under = decision.under().each().next();
    for found in secrets::of_root(tx, &head, version.root).await? {
        if found.row.exposed_at.is_none() {
            let row =
                SecretVersionRow { exposed_at: Some(ctx.now), exposed_under, ..found.row.clone() };
            tx.change(&found, &row).await?;
        }
    }
    Ok(())
}
