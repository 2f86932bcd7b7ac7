//! An administrator lets a human enrol a factor who has none, or none any more: by a text that works
//! once, for that human alone, for a while. There is one of them at the most; a newer one takes the
//! place of the last.

use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use futures_util::FutureExt as _;

use super::{Somebody, first, require_own};
use crate::audit::Field;
use crate::engines::identities::{LONG, check_text};
use crate::error::{Error, Result};
use crate::store::factors::InvitationRow;
use crate::store::identities::IdentityRow;
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    CredentialId, IdentityId, IdentityName, Invitation, InvitationState, Kind, RequestContext,
    SecretBytes, TokenSecret, UnixMillis,
};
use crate::vault::{
    Decision, Note, Operation, Resource, Subject, Verb, View, WRITES, handle_of, is_active,
};

/// How long an invitation can be used where nobody says.
const USUAL: Duration = Duration::from_hours(24);
/// The longest that anybody may ask for.
const MOST: Duration = Duration::from_hours(7 * 24);

/// Invites a human to enrol a factor.
#[derive(Debug, Clone)]
pub struct InviteFactor {
    /// Who.
    pub identity: IdentityName,
    /// How long it can be used; none for the usual time.
    pub ttl: Option<Duration>,
    /// Why.
    pub reason: String,
}

/// An invitation that is about to be stored.
#[derive(Debug, Clone)]
pub struct Prepared {
    row: InvitationRow,
    text: SecretBytes,
}

/// An invitation that was made.
#[derive(Debug, Clone)]
pub struct Invited {
    /// Its accessor.
    pub accessor: CredentialId,
    /// The invitation itself.
    pub text: SecretBytes,
    /// When it ends.
    pub expires_at: UnixMillis,
}

impl InviteFactor {
    fn span(&self) -> Result<Duration> {
        let span = self.ttl.unwrap_or(USUAL);
        if span > MOST {
            let most = MOST.as_secs();
            return Err(Error::invalid(format!("an invitation lives {most} seconds at the most")));
        }
        Ok(span)
    }
}

/// Checks that somebody may be invited by the caller. Nobody vouches for themselves, by whatever
/// account; under `dev`, where one person plays everybody, anybody does.
fn check(view: &View, subject: &Subject, row: &IdentityRow) -> Result<()> {
    if row.kind != Kind::Human {
        return Err(Error::invalid("only humans have factors"));
    }
    if !is_active(row, view.now()) {
        return Err(Error::precondition("the identity is suspended or over"));
    }
    let own = &subject.identity.row;
    let same = own.id == row.id || (own.person.is_some() && own.person == row.person);
    if same && !view.is_dev() {
        return Err(Error::Denied(
            "nobody invites themselves: ask another administrator for an invitation".into(),
        ));
    }
    Ok(())
}

#[async_trait]
impl Verb for InviteFactor {
    const ACTION: &'static str = "factors.invite";
    type Prepared = Prepared;
    type Output = Invited;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        Somebody::resources(view, &self.identity).await
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Prepared> {
        check_text("a reason", &self.reason, LONG)?;
        let row = Somebody::decided(view, &self.identity, decision.resource()?).await?;
        let subject = view.subject()?;
        check(view, subject, &row)?;
        let (ctx, asks) = (view.ctx().clone(), subject.clone());
        view.read(move |tx| async move { require_own(tx, &ctx, &asks).await }.boxed()).await?;
        let id = CredentialId(view.new_id()?);
        let invitation = Invitation::new(id, TokenSecret::random(view.entropy())?);
        let key = view.keyring().token_key()?;
        let handle = handle_of(&key, Invitation::TYPE, id, invitation.secret());
        let now = view.now();
        let row = InvitationRow {
            id: row.id,
            invitation: id,
            handle: handle.to_vec(),
            state: InvitationState::Live,
            revocation_epoch: row.revocation_epoch,
            expires_at: now.plus(self.span()?)?,
            created_at: now,
            created_by: view.actor(),
            changed_at: now,
            changed_by: view.actor(),
        };
        Ok(Prepared { row, text: invitation.text() })
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        note.credential = Some(prepared.row.invitation);
        if !self.reason.is_empty() {
            note.private.push((Field::Reason, self.reason.clone()));
        }
    }
}

#[async_trait]
impl Operation for InviteFactor {
    const NEEDS: Needs = WRITES;

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        decision: &Decision,
    ) -> Result<Invited> {
        let Prepared { row, text } = prepared;
        let subject = decision.subject.as_ref();
        let subject = subject.ok_or_else(|| Error::internal("a worker invites nobody"))?;
        require_own(tx, ctx, subject).await?;
        match tx.lookup::<InvitationRow>(&row.id).await? {
            Some(last) => tx.update(last.version, row).await?,
            None => tx.insert(row).await.map_err(first)?,
        };
        let (accessor, expires_at) = (row.invitation, row.expires_at);
        Ok(Invited { accessor, text: text.clone(), expires_at })
    }
}

/// Finds the invitation that a human shows, where it is theirs and live. Whatever is wrong, the
/// answer is the same.
pub(super) async fn shown(
    view: &View,
    invitation: &Invitation,
) -> Result<Versioned<InvitationRow>> {
    let handle = {
        let key = view.keyring().token_key()?;
        handle_of(&key, Invitation::TYPE, invitation.id(), invitation.secret())
    };
    let subject = view.subject()?.clone();
    let id = subject.identity.row.id;
    let read =
        view.read(move |tx| async move { Ok(tx.lookup::<InvitationRow>(&id).await?) }.boxed());
    let found = read.await?.filter(|found| {
        found.row.invitation == invitation.id()
            && verify_slices_are_equal(&found.row.handle, &handle).is_ok()
            && is_live(&found.row, &subject, view.now())
    });
    found.ok_or_else(refused)
}

/// Looks at an invitation again, in the commit that needs it.
pub(super) async fn still_live(
    tx: &mut Tx,
    subject: &Subject,
    invitation: CredentialId,
    now: UnixMillis,
) -> Result<Versioned<InvitationRow>> {
    let found = tx.lookup::<InvitationRow>(&subject.identity.row.id).await?;
    let stands = |row: &InvitationRow| row.invitation == invitation && is_live(row, subject, now);
    found.filter(|found| stands(&found.row)).ok_or_else(refused)
}

/// Uses an invitation, or takes it back; of several who do, one does.
pub(super) async fn close(
    ctx: &RequestContext,
    tx: &mut Tx,
    read: Versioned<InvitationRow>,
    state: InvitationState,
) -> Result<()> {
    let (changed_at, changed_by) = (ctx.now, ctx.actor());
    let row = InvitationRow { state, changed_at, changed_by, ..read.row };
    tx.update(read.version, &row).await?;
    Ok(())
}

/// Takes back what was not used yet.
pub(super) async fn take_back(ctx: &RequestContext, tx: &mut Tx, of: IdentityId) -> Result<()> {
    let found = tx.lookup::<InvitationRow>(&of).await?;
    match found.filter(|found| found.row.state == InvitationState::Live) {
        Some(live) => close(ctx, tx, live, InvitationState::Void).await,
        None => Ok(()),
    }
}

/// One from before a restore of the vault may have been used since the backup.
fn is_live(row: &InvitationRow, subject: &Subject, now: UnixMillis) -> bool {
    row.state == InvitationState::Live
        && row.expires_at > now
        && row.revocation_epoch == subject.identity.row.revocation_epoch
        && row.created_at >= subject.restored_at()
}

fn refused() -> Error {
    Error::Denied(
        "the invitation is not accepted: unknown, used, over, replaced or for somebody else".into(),
    )
}
