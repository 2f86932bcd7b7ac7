//! Makes a recovery set.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{DescribedSet, Holder, MOST_ACTIVE, MOST_HOLDERS, holder, parse_public, sets};
use crate::audit::Field;
use crate::crypto::{HpkePublic, hex, hpke_private, hpke_public, split_secret};
use crate::engines::ceremonies::{Solemn, Term};
use crate::error::{Error, Result};
use crate::keyring::{SetKey, Share};
use crate::store::keys::KeyState;
use crate::store::recovery_sets::{self, RecoverySetRow};
use crate::store::{Needs, Tx};
use crate::types::{Id, RequestContext, Segment, VaultId};
use crate::vault::{Decision, GOVERNS, Note, Operation, Resource, Verb, View};

/// A holder, and the key that its share is sealed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderKey {
    name: Segment,
    public: HpkePublic,
}

impl HolderKey {
    /// Reads one.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn parse(name: &str, public: &str) -> Result<Self> {
        Ok(Self { name: name.parse()?, public: parse_public(public)? })
    }
}

/// Makes a set.
#[derive(Debug, Clone)]
pub struct CreateSet {
    threshold: u8,
    holders: Vec<HolderKey>,
}

impl CreateSet {
    /// Checks what is asked for.
    ///
    /// # Errors
    /// [`Error::Invalid`] for fewer than two holders that are enough, or more than there are; for a
    /// name or a key that stands there twice.
    pub fn new(threshold: i32, holders: Vec<HolderKey>) -> Result<Self> {
        let names: BTreeSet<_> = holders.iter().map(|holder| holder.name.as_str()).collect();
        let keys: BTreeSet<_> = holders.iter().map(|holder| holder.public).collect();
        if names.len() != holders.len() || keys.len() != holders.len() {
            return Err(Error::invalid("each holder has a name and a key of its own"));
        }
        let threshold = u8::try_from(threshold).ok().filter(|enough| {
            *enough >= 2 && usize::from(*enough) <= holders.len() && holders.len() <= MOST_HOLDERS
        });
        let threshold = threshold.ok_or_else(|| {
            Error::invalid(format!(
                "two holders at the least are enough, of {MOST_HOLDERS} at the most"
            ))
        })?;
        Ok(Self { threshold, holders })
    }

    /// Makes the key pair and seals each share to its holder; the private half ends here.
    fn split(&self, view: &View, set: Id) -> Result<(HpkePublic, Vec<Holder>)> {
        let entropy = view.keyring().entropy()?;
        let private = hpke_private(&entropy)?;
        let public = hpke_public(&private)?;
        let count = u8::try_from(self.holders.len()).map_err(Error::internal)?;
        let both = SetKey::parts(&private, &view.keyring().shared_key(set)?);
        let shares = split_secret(&both, self.threshold, count, &entropy)?;
        let mut holders = Vec::with_capacity(shares.len());
        for (HolderKey { name, public }, share) in self.holders.iter().zip(&shares) {
            let of = Share {
                vault: view.vault_id(),
                set,
                threshold: self.threshold,
                holder: name.as_str(),
            };
            let sealed = of.seal(public, share, &entropy)?;
            holders.push(holder(name.to_string(), public, &sealed));
        }
        Ok((public, holders))
    }
}

#[async_trait]
impl Verb for CreateSet {
    const ACTION: &'static str = "recovery_sets.create";
    type Prepared = (VaultId, RecoverySetRow);
    type Output = DescribedSet;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        sets()
    }

    // The pair of a call that only asks is forgotten: nobody was told of it.
    async fn prepare(&self, view: &View, _: &Decision) -> Result<Self::Prepared> {
        let id = view.new_id()?;
        let (public, holders) = self.split(view, id)?;
        let row = RecoverySetRow {
            id,
            public_key: public.to_vec(),
            threshold: i64::from(self.threshold),
            shares: serde_json::to_string(&holders).map_err(Error::internal)?,
            state: KeyState::Active,
            created_at: view.now(),
            created_by: view.actor(),
            changed_at: view.now(),
            changed_by: view.actor(),
        };
        Ok((view.vault_id(), row))
    }

    // The set that is made is told with the rows that changed.
    fn note(&self, _: &Self::Prepared, note: &mut Note) {
        let names: Vec<_> = self.holders.iter().map(|holder| holder.name.as_str()).collect();
        let told = format!("{} of {}", self.threshold, names.join(", "));
        note.private.push((Field::Detail, told));
    }
}

impl Solemn for CreateSet {
    fn terms(&self) -> Vec<Term> {
        let holder = |it: &HolderKey| Term::new(&format!("holder {}", it.name), &hex(&it.public));
        let threshold = Term::new("threshold", &self.threshold.to_string());
        [threshold].into_iter().chain(self.holders.iter().map(holder)).collect()
    }
}

#[async_trait]
impl Operation for CreateSet {
    // Whoever can put shares together can do what the vault can.
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        (vault, row): &Self::Prepared,
        _: &Decision,
    ) -> Result<DescribedSet> {
        if recovery_sets::active(tx).await?.len() >= MOST_ACTIVE {
            return Err(Error::precondition("there are four recovery sets; destroy one first"));
        }
        let inserted = tx.insert(row).await?;
        DescribedSet::read(tx, *vault, inserted).await
    }
}
