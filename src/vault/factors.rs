//! The factors that a credential proved: kept with it, read with it, over with it.
//!
//! They stand in the credential's own row, and not in a table beside it: that row is read with every
//! caller and is in every fence already, so the warm path costs no statement, a proof moves every
//! decision of its credential and of no other, and nothing has to be ended where a credential is, or
//! its identity contained. The factor's row is read for whoever proved one, and fenced, so that its
//! removal ends the proof at once. A child token does not inherit a proof: whoever passes a token on
//! was not asked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SignIn, Subject, TokenDetail};
use crate::error::{Error, Result, StepUp};
use crate::policy::{CredentialFacts, FactorFacts};
use crate::store::credentials::CredentialRow;
use crate::store::factors::{FACTORS, FactorRow};
use crate::store::{Tx, Versioned};
use crate::types::{
    AuthMethod, CredentialId, CredentialKind, FactorId, FactorKind, FactorState, UnixMillis,
};

/// How long ago a factor may have been proven where somebody changes their own factors, or an
/// administrator another's.
pub const FRESH: Duration = Duration::from_mins(5);

/// That a factor was proven, as the row of a credential holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    factor: String,
    at: i64,
}

/// A factor that the calling credential proved, with the row that says who enrolled it and when.
#[derive(Debug, Clone)]
pub struct ProvenFactor {
    /// When it was proven last.
    pub proven_at: UnixMillis,
    /// When a code of it was first accepted: approvers ask how old it is.
    pub enrolled_at: UnixMillis,
    /// The factor: who made and last changed it, and who vouched for it.
    pub factor: Versioned<FactorRow>,
}

impl ProvenFactor {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> FactorId {
        self.factor.row.id
    }

    /// By what it proves.
    #[must_use]
    pub const fn kind(&self) -> FactorKind {
        self.factor.row.kind
    }

    /// The factor, as facts.
    #[must_use]
    pub const fn facts(&self) -> FactorFacts {
        FactorFacts {
            id: self.id(),
            kind: self.kind(),
            proven_at: self.proven_at,
            enrolled_at: self.enrolled_at,
            vouched_by: self.factor.row.vouched_by,
        }
    }

    fn is_fresh(&self, now: UnixMillis, within: Duration) -> bool {
        now.since(self.proven_at) <= within
    }
}

/// Reads what a credential proved and what of that still stands.
pub(super) async fn load(tx: &mut Tx, row: &CredentialRow) -> Result<Vec<ProvenFactor>> {
    let proofs = read(row)?;
    let mut proven = Vec::with_capacity(proofs.len());
    for proof in proofs {
        let missing = || Error::internal("a proof without its factor");
        let id: FactorId = proof.factor.parse().map_err(Error::internal)?;
        let factor = tx.lookup::<FactorRow>(&id).await?.ok_or_else(missing)?;
        let stands = factor.row.state == FactorState::Active && factor.row.identity == row.identity;
        if let Some(enrolled_at) = factor.row.enrolled_at.filter(|_| stands) {
            proven.push(ProvenFactor { proven_at: UnixMillis(proof.at), enrolled_at, factor });
        }
    }
    Ok(proven)
}

fn read(row: &CredentialRow) -> Result<Vec<Proof>> {
    if row.proofs.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&row.proofs).map_err(Error::internal)
}

/// Notes that a credential proved a factor. It moves the credential's row, and with it what was
/// decided on it: the commit has to bump the authority epoch.
///
/// # Errors
/// [`Error::Precondition`] for a credential that proves nothing: a token whose uses are counted, the
/// handle of a lease; [`Error::Conflict`] when somebody else changed it meanwhile.
pub async fn note_proof(
    tx: &mut Tx,
    credential: CredentialId,
    factor: FactorId,
    now: UnixMillis,
) -> Result<()> {
    let missing = || Error::internal("a caller without its credential");
    let found = tx.lookup::<CredentialRow>(&credential).await?.ok_or_else(missing)?;
    let proves = match found.row.kind {
        CredentialKind::Login => true,
        CredentialKind::Token => TokenDetail::decode(&found.row.detail)?.uses_left.is_none(),
        CredentialKind::Lease | CredentialKind::Certificate | CredentialKind::Enrolment => false,
    };
    if !proves {
        return Err(proves_nothing());
    }
    let mut proofs = read(&found.row)?;
    prove(&mut proofs, factor, now);
    let proofs = serde_json::to_string(&proofs).map_err(Error::internal)?;
    tx.update(found.version, &CredentialRow { proofs, ..found.row }).await?;
    Ok(())
}

fn proves_nothing() -> Error {
    Error::precondition(
        "a factor is proven for a login certificate, or a token whose uses are not counted",
    )
}

/// Adds a proof in the place of an earlier one of the same factor; the oldest give way.
fn prove(proofs: &mut Vec<Proof>, factor: FactorId, now: UnixMillis) {
    let factor = factor.to_string();
    proofs.retain(|proof| proof.factor != factor);
    proofs.push(Proof { factor, at: now.0 });
    let most = usize::try_from(FACTORS).unwrap_or(usize::MAX);
    drop(proofs.drain(..proofs.len().saturating_sub(most)));
}

impl Subject {
    /// The factors that the calling credential proved, whenever that was.
    #[must_use]
    pub fn factors(&self) -> &[ProvenFactor] {
        &self.proven
    }

    /// When whoever holds the credential was last seen to be who it names: the newest proof of a
    /// factor; where there is none, when a provider says that it was, or where none was asked the
    /// issue of the first of the identity's credentials that this one hangs on: what somebody makes
    /// for themselves shows nobody anew.
    #[must_use]
    pub fn auth_time(&self) -> UnixMillis {
        let proven = self.proven.iter().map(|factor| factor.proven_at).max();
        proven.unwrap_or_else(|| {
            let issued_at = self.first().issued_at;
            self.of_provider().map_or(issued_at, |said| said.auth_time().min(issued_at))
        })
    }

    /// What a provider said of who holds the credential, where it is a session that was got by
    /// signing in, or a login that was asked for with one. A token that is made with either is not
    /// who was seen.
    #[must_use]
    pub fn signed_in(&self) -> Option<&SignIn> {
        let own = match self.credential.row.kind {
            CredentialKind::Token => self.ancestors.is_empty(),
            CredentialKind::Login => self.ancestors.len() == 1,
            CredentialKind::Lease | CredentialKind::Certificate | CredentialKind::Enrolment => {
                false
            }
        };
        self.of_provider().filter(|_| own)
    }

    /// The same of whatever else the person made with it.
    fn of_provider(&self) -> Option<&SignIn> {
        let root = self.ancestors.last().map_or(&self.credential.row, |root| &root.row);
        let own = root.identity == self.credential.row.identity;
        self.session.as_ref().filter(|_| own)?.sign_in.as_ref()
    }

    /// The first credential that it hangs on and that is of the same identity.
    fn first(&self) -> &CredentialRow {
        let row = &self.credential.row;
        let same = self.ancestors.iter().rfind(|above| above.row.identity == row.identity);
        same.map_or(row, |above| &above.row)
    }

    /// The credential, as facts.
    #[must_use]
    pub fn credential_facts<'a>(
        &'a self,
        method: AuthMethod,
        factors: &'a [FactorFacts],
    ) -> CredentialFacts<'a> {
        let (expires_at, auth_time) = (Some(self.credential.row.expires_at), self.auth_time());
        let sign_in = self.signed_in().map(SignIn::facts);
        CredentialFacts { method, expires_at, auth_time, factors, sign_in }
    }

    /// Finds the factor of one of these kinds that the calling credential proved last, where that is
    /// not too long ago. What it answers stands on rows that are in the fence of every decision, so
    /// that asking in `prepare` is enough for a commit; a commit that runs later, by another caller,
    /// asks that one.
    ///
    /// # Errors
    /// [`Error::StepUp`], which says what is wanted.
    pub fn require_factor(
        &self,
        now: UnixMillis,
        kinds: &[FactorKind],
        within: Duration,
    ) -> Result<&ProvenFactor> {
        let fits = |one: &&ProvenFactor| kinds.contains(&one.kind()) && one.is_fresh(now, within);
        let newest = self.proven.iter().filter(fits).max_by_key(|one| one.proven_at);
        newest.ok_or_else(|| {
            let kinds = kinds.iter().map(|kind| kind.as_str()).collect();
            Error::StepUp(StepUp { kinds, within_s: within.as_secs() })
        })
    }

    /// The factors, as facts.
    pub(super) fn factor_facts(&self) -> Vec<FactorFacts> {
        self.proven.iter().map(ProvenFactor::facts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Id;

    #[test]
    fn a_factor_is_proven_once_and_the_oldest_proofs_give_way() {
        let id = |byte| FactorId(Id::from_bytes([byte; 16]));
        let mut proofs = Vec::new();
        for n in 0..20 {
            prove(&mut proofs, id(n % 10), UnixMillis(n.into()));
        }
        assert_eq!(proofs.len(), 8);
        assert_eq!(
            proofs.iter().map(|proof| proof.at).collect::<Vec<_>>(),
            (12..20).collect::<Vec<i64>>()
        );
        prove(&mut proofs, id(5), UnixMillis(99));
        assert_eq!(proofs.len(), 8);
        let of_five: Vec<_> = proofs.iter().filter(|p| p.factor == id(5).to_string()).collect();
        assert_eq!((of_five.len(), of_five[0].at), (1, 99));
    }
}
