//! Makes a recovery set.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{Custody, DescribedSet, Holder, MOST_ACTIVE, MOST_HOLDERS, holder, parse_public, sets};
use crate::audit::Field;
use crate::crypto::{HpkePublic, hex, hpke_private, hpke_public, split_secret};
use crate::engines::ceremonies::{Solemn, Term};
use crate::error::{Error, Result};
use crate::keyring::{SetKey, Share};
use crate::store::keys::KeyState;
use crate::store::recovery_sets::{self, RecoverySetRow};
use crate::store::{Needs, Tx};
use crate::types::{Entropy, Id, RequestContext, SecretBytes, Segment, VaultId};
use crate::vault::{Decision, GOVERNS, Note, Operation, Resource, Verb, View};

/// A holder, and the key that its share is sealed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderKey {
    name: Segment,
    public: HpkePublic,
}

impl HolderKey {
    /// Reads one, for what it is to hold.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn parse(name: &str, public: &str, custody: Custody) -> Result<Self> {
        Ok(Self { name: name.parse()?, public: parse_public(public, custody)? })
    }
}

/// Makes a set.
#[derive(Debug, Clone)]
pub struct CreateSet(Half);

/// Where the private half is to be.
#[derive(Debug, Clone)]
enum Half {
    /// Split among holders, of whom so many are enough.
    Split { threshold: u8, holders: Vec<HolderKey> },
    /// In the token that made it: nobody else has a part in it.
    Token(HolderKey),
}

impl CreateSet {
    /// Checks what is asked for of one that is split.
    ///
    /// # Errors
    /// [`Error::Invalid`] for fewer than two holders that are enough, or more than there are; for a
    /// name or a key that stands there twice.
    pub fn split(threshold: i32, holders: Vec<HolderKey>) -> Result<Self> {
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
        Ok(Self(Half::Split { threshold, holders }))
    }

    /// Asks for one in a token.
    #[must_use]
    pub fn in_token(token: HolderKey) -> Self {
        Self(Half::Token(token))
    }

    fn threshold(&self) -> u8 {
        match self.0 {
            Half::Split { threshold, .. } => threshold,
            Half::Token(_) => 1,
        }
    }

    fn holders(&self) -> &[HolderKey] {
        match &self.0 {
            Half::Split { holders, .. } => holders,
            Half::Token(token) => std::slice::from_ref(token),
        }
    }

    /// Tells the public half, and what each holder is to have: a share of a private half that is made
    /// here and ends here, or, of a token that has it already, what the vault shares with it.
    fn shares(
        &self,
        psk: SecretBytes,
        entropy: &dyn Entropy,
    ) -> Result<(HpkePublic, Vec<SecretBytes>)> {
        match &self.0 {
            Half::Token(token) => Ok((token.public, vec![psk])),
            Half::Split { threshold, holders } => {
                let private = hpke_private(entropy)?;
                let count = u8::try_from(holders.len()).map_err(Error::internal)?;
                let both = SetKey::parts(&private, &psk);
                let shares = split_secret(&both, *threshold, count, entropy)?;
                Ok((hpke_public(&private)?, shares))
            }
        }
    }

    /// Seals to each holder what it is to have.
    fn seal(&self, view: &View, set: Id) -> Result<(HpkePublic, Vec<Holder>)> {
        let entropy = view.keyring().entropy()?;
        let (set_public, shares) = self.shares(view.keyring().shared_key(set)?, &entropy)?;
        let mut holders = Vec::with_capacity(shares.len());
        for (HolderKey { name, public }, share) in self.holders().iter().zip(&shares) {
            let of = Share {
                vault: view.vault_id(),
                set,
                threshold: self.threshold(),
                holder: name.as_str(),
            };
            let sealed = of.seal(public, share, &entropy)?;
            holders.push(holder(name.to_string(), public, &sealed));
        }
        Ok((set_public, holders))
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
        let (public, holders) = self.seal(view, id)?;
        let row = RecoverySetRow {
            id,
            public_key: public.as_bytes().to_vec(),
            threshold: i64::from(self.threshold()),
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
        let told = match &self.0 {
            Half::Split { threshold, holders } => {
                let names: Vec<_> = holders.iter().map(|holder| holder.name.as_str()).collect();
                format!("{threshold} of {}", names.join(", "))
            }
            Half::Token(token) => format!("token {}", token.name),
        };
        note.private.push((Field::Detail, told));
    }
}

impl Solemn for CreateSet {
    fn terms(&self) -> Vec<Term> {
        let term = |what: &str, it: &HolderKey| {
            Term::new(&format!("{what} {}", it.name), &hex(it.public.as_bytes()))
        };
        match &self.0 {
            Half::Split { threshold, holders } => {
                let threshold = Term::new("threshold", &threshold.to_string());
                let holders = holders.iter().map(|holder| term("holder", holder));
                [threshold].into_iter().chain(holders).collect()
            }
            Half::Token(token) => vec![term("token", token)],
        }
    }
}

#[async_trait]
impl Operation for CreateSet {
    // Whoever can put shares together, or has the token, can do what the vault can.
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
