//! Moves a part of what is under an identity's old key to the current one; the worker's.
//!
//! What was changed meanwhile is left for the next part.

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{UnderWay, resource_of};
use crate::audit::Field;
use crate::engines::{factors as proofs, keys as named, secrets as values};
use crate::error::{Error, Result};
use crate::keyring::{Place, Rewrapped, Stored, Wrapped};
use crate::store::factors::{self, FactorRow};
use crate::store::keys::KeyOwner;
use crate::store::named_keys::{self, NamedKeyVersionRow};
use crate::store::secrets::{self, SecretVersionRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{Id, RequestContext};
use crate::vault::{Decision, Note, Operation, Resource, Verb, View, WRITES};

/// Rows of each kind in one part: an entry of the record names each that changes.
const PART: i64 = 64;

/// Moves a part of what is under an identity's old key.
#[derive(Debug, Clone)]
pub struct MoveIdentityData {
    /// The rotation.
    pub id: String,
}

/// What is to be written: every row, in the order of its wrap.
#[derive(Debug)]
pub struct Moving {
    under_way: UnderWay,
    part: Part,
    again: Rewrapped,
}

/// What is under a key.
#[derive(Debug, Default)]
struct Part {
    secrets: Vec<Versioned<SecretVersionRow>>,
    keys: Vec<Versioned<NamedKeyVersionRow>>,
    factors: Vec<Versioned<FactorRow>>,
}

impl Part {
    async fn read(tx: &mut Tx, key: Id) -> Result<Self> {
        Ok(Self {
            secrets: secrets::versions_under(tx, key, PART).await?,
            keys: named_keys::versions_under(tx, key, PART).await?,
            factors: factors::secrets_under(tx, key, PART).await?,
        })
    }

    fn len(&self) -> usize {
        self.secrets.len().saturating_add(self.keys.len()).saturating_add(self.factors.len())
    }

    /// The wraps of it all: of the secrets, the keys, the factors.
    fn wrapped(&self, key_id: Id) -> Result<Vec<Wrapped>> {
        let mut wrapped = Vec::with_capacity(self.len());
        for Versioned { row, .. } in &self.secrets {
            let place = values::place(row.secret, row.id, row.version);
            wrapped.push(Wrapped { place, key_id, wrap: row.wrap.clone() });
        }
        for Versioned { row, .. } in &self.keys {
            let place = named::place(row.named_key, row.id, row.version);
            wrapped.push(of_blob(place, key_id, &row.material)?);
        }
        for Versioned { row, .. } in &self.factors {
            let secret = row.secret.as_deref().ok_or_else(no_secret)?;
            wrapped.push(of_blob(proofs::place(row.id), key_id, secret)?);
        }
        Ok(wrapped)
    }
}

fn no_secret() -> Error {
    Error::internal("an authenticator without its secret")
}

fn of_blob(place: Place, key_id: Id, blob: &[u8]) -> Result<Wrapped> {
    let (wrap, _) = Stored { blob, key_id }.parts()?;
    Ok(Wrapped { place, key_id, wrap: wrap.to_vec() })
}

/// A blob with another wrap before its message.
fn with_wrap(blob: &[u8], key_id: Id, wrap: &[u8]) -> Result<Vec<u8>> {
    let (_, message) = Stored { blob, key_id }.parts()?;
    Ok([wrap, message].concat())
}

#[async_trait]
impl Verb for MoveIdentityData {
    const ACTION: &'static str = "identities.move-data";
    type Prepared = Moving;
    type Output = usize;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Ok(vec![resource_of(view, &self.id).await?])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Moving> {
        let id = self.id.clone();
        let read = view.read(move |tx| {
            async move {
                let under_way = UnderWay::find(tx, &id).await?;
                let part = Part::read(tx, under_way.old.row.id).await?;
                Ok((under_way, part))
            }
            .boxed()
        });
        let (under_way, part) = read.await?;
        let owner = KeyOwner::Identity(under_way.owner);
        let wrapped = part.wrapped(under_way.old.row.id)?;
        let again = view.rewrap((owner, owner), &wrapped).await?;
        Ok(Moving { under_way, part, again })
    }

    fn note(&self, it: &Moving, note: &mut Note) {
        note.keys.extend(it.again.used().iter().cloned());
        let rotation = &it.under_way.rotation.row;
        let (from, to) = (rotation.from_version, rotation.to_version);
        let detail = format!("identity key {from} -> {to}: {} data keys", it.part.len());
        note.private.push((Field::Detail, detail));
    }
}

#[async_trait]
impl Operation for MoveIdentityData {
    const NEEDS: Needs = WRITES;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        it: &Moving,
        _: &Decision,
    ) -> Result<usize> {
        let (key, wraps) = it.again.store(tx).await?;
        if wraps.len() != it.part.len() {
            return Err(Error::internal("a data key without its wrap"));
        }
        let mut wraps = wraps.iter();
        for (found, wrap) in it.part.secrets.iter().zip(&mut wraps) {
            let row = SecretVersionRow { wrap: wrap.clone(), wrap_key: key, ..found.row.clone() };
            tx.change(found, &row).await?;
        }
        for (found, wrap) in it.part.keys.iter().zip(&mut wraps) {
            let material = with_wrap(&found.row.material, key, wrap)?;
            let row = NamedKeyVersionRow { material, wrap_key: Some(key), ..found.row.clone() };
            tx.change(found, &row).await?;
        }
        for (found, wrap) in it.part.factors.iter().zip(&mut wraps) {
            let secret = found.row.secret.as_deref().ok_or_else(no_secret)?;
            let secret = Some(with_wrap(secret, key, wrap)?);
            let row = FactorRow { secret, secret_key: Some(key), ..found.row.clone() };
            tx.change(found, &row).await?;
        }
        Ok(it.part.len())
    }
}
