//! Enrols an authenticator: its secret is shown once, and it counts from its first code on.

use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::guard::Guard;
use super::verify::{Guess, Proven, Tried, outcome};
use super::{end, invite, is_active, none_enrolled, own, place, require_fresh, standing, vouched};
use crate::crypto::{OTP_SECRET_BYTES, OtpCode, STEP_S, otp_secret_text};
use crate::error::{Error, Result};
use crate::keyring::SealedValue;
use crate::store::factors::{self, FACTORS, FactorRow};
use crate::store::keys::KeyOwner;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    CredentialId, FactorId, FactorKind, FactorState, IdentityId, Invitation, InvitationState,
    RequestContext, SecretBytes, UnixMillis,
};
use crate::vault::{Decision, GOVERNS, Note, Operation, Resource, Verb, View, WRITES};

/// How long a first code is waited for.
const PENDING: Duration = Duration::from_mins(10);

/// Makes the secret of an authenticator for the caller. Whoever asks again before it is confirmed
/// gets another in its place.
#[derive(Debug, Clone)]
pub struct EnrolFactor {
    /// The invitation of an administrator; none where another factor was proven now.
    pub invitation: Option<Invitation>,
}

/// A factor that is about to be stored.
#[derive(Debug, Clone)]
pub struct Prepared {
    enrolment: Enrolment,
    sealed: SealedValue,
    invitation: Option<CredentialId>,
    vouched_by: Option<IdentityId>,
}

/// What the caller puts into an authenticator app, once.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// Which factor.
    pub id: FactorId,
    /// The secret as apps take it.
    pub secret: SecretBytes,
    /// The same with all that goes with it, as an address.
    pub uri: SecretBytes,
    /// Until when its first code is waited for.
    pub expires_at: UnixMillis,
}

/// Writes the address that apps read (`otpauth://`, the key URI format).
fn uri(issuer: &str, name: &str, secret: &SecretBytes) -> SecretBytes {
    // Nothing else in a name or a trust domain has a meaning in an address.
    let name = name.replace('/', "%2F");
    let start = format!("otpauth://totp/{issuer}:{name}?secret=");
    let end = format!("&issuer={issuer}&algorithm=SHA1&digits=6&period={STEP_S}");
    SecretBytes::new([start.as_bytes(), secret.expose(), end.as_bytes()].concat())
}

#[async_trait]
impl Verb for EnrolFactor {
    const ACTION: &'static str = "factors.enrol";
    type Prepared = Prepared;
    type Output = Enrolment;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        own(view)
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        let subject = view.subject()?;
        let enrolled = standing(view).await?.into_iter().filter(is_active).count();
        if i64::try_from(enrolled).map_err(Error::internal)? >= FACTORS {
            return Err(Error::Exhausted(
                format!("a human has at most {FACTORS} factors: remove one first").into(),
            ));
        }
        let (invitation, vouched_by) = match &self.invitation {
            Some(shown) => {
                let row = invite::shown(view, shown).await?.row;
                let by = row.created_by.parse().map_err(Error::internal)?;
                (Some(row.invitation), Some(by))
            }
            None if enrolled == 0 => return Err(none_enrolled()),
            None => (None, vouched(require_fresh(view)?)),
        };
        let mut bytes = Zeroizing::new(vec![0; OTP_SECRET_BYTES]);
        view.entropy().fill(&mut bytes)?;
        let (id, secret) = (FactorId(view.new_id()?), SecretBytes::from(bytes));
        let owner = KeyOwner::Identity(subject.identity.row.id);
        let now = view.now();
        let sealed = view.seal_for(owner, &place(id), &secret).await?;
        let secret = otp_secret_text(&secret);
        let uri = uri(view.trust_domain(), subject.identity.row.name.as_str(), &secret);
        let enrolment = Enrolment { id, secret, uri, expires_at: now.plus(PENDING)? };
        Ok(Prepared { enrolment, sealed, invitation, vouched_by })
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        note.keys.extend_from_slice(prepared.sealed.used());
        note.credential = prepared.invitation;
    }
}

#[async_trait]
impl Operation for EnrolFactor {
    const NEEDS: Needs = WRITES;
    // The first key of an identity is made in the HSM.
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        decision: &Decision,
    ) -> Result<Enrolment> {
        let subject = decision.subject.as_ref();
        let subject = subject.ok_or_else(|| Error::internal("a worker enrols nothing"))?;
        let identity = &subject.identity.row;
        if let Some(invitation) = prepared.invitation {
            invite::still_live(tx, subject, invitation, ctx.now).await?;
        }
        for other in factors::standing(tx, identity.id).await? {
            if !is_active(&other) {
                end(ctx, tx, other).await?;
            }
        }
        Guard::begin(tx, identity.id).await?;
        let stored = prepared.sealed.store(tx).await?;
        let row = FactorRow {
            id: prepared.enrolment.id,
            identity: identity.id,
            kind: FactorKind::Totp,
            state: FactorState::Pending,
            secret: Some(stored.blob.to_vec()),
            secret_key: Some(stored.key_id),
            invitation: prepared.invitation,
            vouched_by: prepared.vouched_by,
            enrolled_at: None,
            created_at: ctx.now,
            created_by: ctx.actor(),
            changed_at: ctx.now,
            changed_by: ctx.actor(),
        };
        tx.insert(&row).await?;
        Ok(prepared.enrolment.clone())
    }
}

/// Gives the first code of an authenticator: from then on it counts, and is proven now.
#[derive(Debug, Clone)]
pub struct ConfirmFactor {
    /// Which.
    pub id: FactorId,
    /// Its code.
    pub code: OtpCode,
}

#[async_trait]
impl Verb for ConfirmFactor {
    const ACTION: &'static str = "factors.confirm";
    type Prepared = Guess;
    type Output = Tried;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        own(view)
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Guess> {
        let waits = |one: &Versioned<FactorRow>| {
            let waited = view.now().since(one.row.created_at);
            one.row.id == self.id && !is_active(one) && waited < PENDING
        };
        let found = standing(view).await?.into_iter().find(waits).ok_or_else(|| {
            Error::not_found("no factor of that id waits for its first code: enrol another")
        })?;
        Guess::make(view, &self.code, &[found]).await
    }

    fn note(&self, guess: &Guess, note: &mut Note) {
        guess.note(note);
    }
}

#[async_trait]
impl Operation for ConfirmFactor {
    const NEEDS: Needs = GOVERNS;

    fn needs(&self, guess: &Guess) -> Needs {
        guess.needs()
    }

    fn outcome(&self, tried: &Tried) -> &'static str {
        outcome(tried)
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        guess: &Guess,
        decision: &Decision,
    ) -> Result<Tried> {
        let subject = decision.subject.as_ref();
        let subject = subject.ok_or_else(|| Error::internal("a worker proves nothing"))?;
        let Versioned { row, version } = match guess.judge(ctx, tx, subject).await? {
            Ok(accepted) => accepted,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Some(invitation) = row.invitation {
            let live = invite::still_live(tx, subject, invitation, ctx.now).await?;
            invite::close(ctx, tx, live, InvitationState::Used).await?;
        }
        let row = FactorRow {
            state: FactorState::Active,
            enrolled_at: Some(ctx.now),
            changed_at: ctx.now,
            changed_by: ctx.actor(),
            ..row
        };
        tx.update(version, &row).await?;
        Proven::note(ctx, tx, subject, &row, None).await.map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_names_issuer_and_account_and_shows_in_no_debug() {
        let secret = SecretBytes::new(b"GEZDGNBV".to_vec());
        let uri = uri("vault.test", "data/carol", &secret);
        assert_eq!(
            std::str::from_utf8(uri.expose()).unwrap(),
            "otpauth://totp/vault.test:data%2Fcarol?secret=GEZDGNBV&issuer=vault.test\
             &algorithm=SHA1&digits=6&period=30"
        );
        assert!(!format!("{uri:?}").contains("GEZDGNBV"));
    }
}
