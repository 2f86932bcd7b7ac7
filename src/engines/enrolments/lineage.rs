//! What the certificates of one enrolment stand on, and how the next of them is signed.

use std::time::Duration;

use super::detail::{EnrolmentDetail, Made, Over, Step, Why};
use crate::audit::Field;
use crate::crypto::{hex, sha256};
use crate::engines::elevations::tell_of_identity;
use crate::engines::identities::Names;
use crate::engines::pki::{
    AuthoritySlot, Holder, LoginIssued, LoginTtl, MIN_TTL, Request, Said, Signed, SpiffeId,
    Template,
};
use crate::engines::tokens::end_with_below;
use crate::error::{Error, Result};
use crate::store::credentials::CredentialRow;
use crate::store::identities::IdentityRow;
use crate::store::keys::VaultRow;
use crate::store::lifecycles::{self, LifecycleRow};
use crate::store::{Tx, Versioned, logins};
use crate::types::{
    CredentialId, CredentialKind, NoticeKind, RequestContext, ResourceName, UnixMillis, VaultId,
};
use crate::vault::{Answerable, Note, NoticeFacts, View};

/// What is asked for with a join token or with a certificate.
#[derive(Debug, Clone)]
pub struct Asks {
    /// Where the authorities are.
    pub authorities: AuthoritySlot,
    /// How long login certificates live.
    pub limits: LoginTtl,
    /// The bearer's request.
    pub request: Request,
}

/// What came of it.
#[derive(Debug)]
pub enum Came {
    /// A login certificate.
    Certificate {
        /// The certificate.
        issued: Box<LoginIssued>,
        /// Whether an earlier call made it, which this one repeats.
        again: bool,
    },
    /// The end of the enrolment: another key was shown before.
    Locked,
    /// Nothing but an entry: the token was used, and its time is over.
    Late,
}

impl Came {
    /// What the record calls it.
    pub(super) const fn outcome(&self) -> &'static str {
        match self {
            Self::Certificate { again: false, .. } => "OK",
            Self::Certificate { again: true, .. } => "REPLAY",
            Self::Locked => "LOCKED",
            Self::Late => "SPENT",
        }
    }

    /// Says what whoever asked hears.
    ///
    /// # Errors
    /// [`Error::Spent`] for all but a certificate.
    pub fn told(self) -> Result<LoginIssued> {
        match self {
            Self::Certificate { issued, .. } => Ok(*issued),
            Self::Locked => Err(Error::Spent(
                "this was used before, with another key: the enrolment is locked, and everything \
                 that came of it is over; ask for another, and who else had this one"
                    .into(),
            )),
            Self::Late => Err(used()),
        }
    }
}

pub(super) fn used() -> Error {
    Error::Spent("the join token was used, and its time is over; ask for another".into())
}

/// What is signed by a certificate's key, in short.
pub(super) fn key_of(request: &Request) -> [u8; 32] {
    sha256(request.key().spki_der())
}

/// An enrolment with everything that a certificate of it stands on, as of one snapshot.
#[derive(Debug)]
pub(super) struct Lineage {
    pub(super) enrolment: Versioned<CredentialRow>,
    pub(super) detail: EnrolmentDetail,
    pub(super) identity: Versioned<IdentityRow>,
    pub(super) owner: Answerable,
    pub(super) lifecycle: Versioned<LifecycleRow>,
    pub(super) vault: Versioned<VaultRow>,
    /// Since when the identity logs in with the key that is asked for.
    key_since: Option<UnixMillis>,
}

/// A login certificate that was signed and that nobody has yet.
#[derive(Debug)]
pub(super) struct SignedLogin {
    signed: Signed,
    key: [u8; 32],
    chain_pem: String,
}

/// What is about to be done.
#[derive(Debug)]
pub(super) enum Does {
    /// A certificate is given.
    Gives(Box<SignedLogin>),
    /// What only needs the enrolment's row.
    Step(Step),
}

impl Does {
    /// Says in the entry which enrolment it is about, and which key was shown.
    pub(super) fn note(&self, enrolment: CredentialId, asks: &Asks, note: &mut Note) {
        let key = hex(&key_of(&asks.request));
        let mut said = format!("enrolment {enrolment}, key {key}");
        note.credential = Some(enrolment);
        if let Self::Gives(login) = self {
            let id = login.signed.row.id;
            said = format!("{said}, login {id}");
            note.keys.push(login.signed.key.clone());
            note.credential = Some(id);
        }
        note.private.push((Field::Detail, said));
    }

    /// Raises the alarm where there are two keys. Once it is durable, and not where it is answered:
    /// whoever was second may have hung up.
    pub(super) fn alarm(&self, enrolment: CredentialId) {
        if let Self::Step(Step::Locks(why)) = self {
            tracing::error!(alarm = true, %enrolment, ?why, "an enrolment is locked");
        }
    }
}

impl Lineage {
    /// Reads what hangs together with the row of an enrolment.
    pub(super) async fn load(
        tx: &mut Tx,
        enrolment: Versioned<CredentialRow>,
        key: &[u8; 32],
        vault: VaultId,
    ) -> Result<Self> {
        let missing = |what: &str| Error::internal(format!("an enrolment without its {what}"));
        let id = enrolment.row.identity;
        let identity = tx.lookup::<IdentityRow>(&id).await?.ok_or_else(|| missing("identity"))?;
        let vault = tx.lookup::<VaultRow>(&vault).await?.ok_or_else(|| missing("vault"))?;
        Ok(Self {
            detail: EnrolmentDetail::decode(&enrolment.row.detail)?,
            owner: Answerable::of(tx, &identity).await?,
            lifecycle: lifecycles::of_kind(tx, identity.row.kind).await?,
            key_since: logins::key_since(tx, id, key).await?,
            enrolment,
            identity,
            vault,
        })
    }

    /// When its certificates end at the latest, however often they are renewed.
    pub(super) fn end(&self, now: UnixMillis) -> Result<UnixMillis> {
        let max_age_s = u64::try_from(self.lifecycle.row.max_age_s).map_err(Error::internal)?;
        let since = self.detail.joined.as_ref().map_or(now, |made| UnixMillis(made.at));
        let end = since.plus(Duration::from_secs(max_age_s))?;
        Ok(end.min(self.enrolment.row.max_expires_at))
    }

    /// Says what the next certificate will carry.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a request that asks for more than it may; [`Error::Precondition`] where
    /// the key, the identity or the enrolment has lasted for as long as it may.
    pub(super) fn template(&self, asks: &Asks, now: UnixMillis) -> Result<Template> {
        let (row, lives) = (&self.identity.row, &self.lifecycle.row);
        let most = asks.limits.most_of(lives, row)?;
        let left = LoginTtl::left_of_key(self.key_since, lives, row, now)?;
        let ends = row.expires_at.into_iter().chain([self.end(now)?]);
        let ttl = asks.limits.usual.min(most).min(left);
        let ttl = ends.fold(ttl, |ttl, end| ttl.min(end.since(now)));
        if ttl < MIN_TTL {
            return Err(Error::precondition(
                "the identity or its enrolment has lasted for as long as it may: enrol it again",
            ));
        }
        let authorities = asks.authorities.current()?;
        let trust_domain = authorities.login.trust_domain().clone();
        let id = SpiffeId { trust_domain, kind: row.kind, name: row.name.clone() };
        Template::login(&asks.request, &id, Some(ttl))
    }

    /// Has the next certificate signed.
    pub(super) async fn sign(&self, view: &View, asks: &Asks) -> Result<SignedLogin> {
        let template = self.template(asks, view.now())?;
        let authorities = asks.authorities.current()?;
        let row = &self.identity.row;
        let above = &self.enrolment.row;
        let holder = Holder {
            kind: CredentialKind::Login,
            identity: row,
            parent: Some(above.id),
            elevations: [above.elevation, above.elevation_too],
            resource: &ResourceName::join("identities", &[row.name.as_str()])?,
        };
        Ok(SignedLogin {
            signed: holder.sign(view, &authorities.login, &template).await?,
            key: key_of(&asks.request),
            chain_pem: authorities.login.pem(),
        })
    }
}

impl SignedLogin {
    /// Stores it; its enrolment says so in the same commit.
    pub(super) async fn store(&self, tx: &mut Tx) -> Result<Came> {
        let row = &self.signed.row;
        tx.insert(row).await?;
        logins::note_key(tx, row.identity, &self.key, row.issued_at).await?;
        let said = Said::of_der(&row.detail)?;
        let (row, chain_pem) = (row.clone(), self.chain_pem.clone());
        let issued = Box::new(LoginIssued { row, said, chain_pem });
        Ok(Came::Certificate { issued, again: false })
    }

    /// What its enrolment says of it.
    pub(super) fn made(&self) -> Made {
        let row = &self.signed.row;
        Made { at: row.issued_at.0, id: row.id.to_string(), key: hex(&self.key) }
    }
}

/// Answers what an enrolment gave before.
pub(super) async fn again(
    tx: &mut Tx,
    asks: &Asks,
    enrolment: CredentialId,
    id: CredentialId,
) -> Result<Came> {
    let ours =
        |row: &CredentialRow| row.kind == CredentialKind::Login && row.parent == Some(enrolment);
    let found = tx.lookup::<CredentialRow>(&id).await?.filter(|found| ours(&found.row));
    let row = found.ok_or_else(|| Error::internal("an enrolment without its login"))?.row;
    let chain_pem = asks.authorities.current()?.login.pem();
    let issued = Box::new(LoginIssued { said: Said::of_der(&row.detail)?, row, chain_pem });
    Ok(Came::Certificate { issued, again: true })
}

/// Locks an enrolment: ends it with everything below it, and tells who answers for its identity.
pub(super) async fn lock(
    ctx: &RequestContext,
    tx: &mut Tx,
    read: Versioned<CredentialRow>,
    detail: EnrolmentDetail,
    why: Why,
) -> Result<Came> {
    let (enrolment, identity) = (read.row.id, read.row.identity);
    end(ctx, tx, read, detail, why).await?;
    let missing = || Error::internal("an enrolment of nobody");
    let who = tx.lookup::<IdentityRow>(&identity).await?.ok_or_else(missing)?.row;
    let what = match why {
        Why::Revoked => "it was revoked",
        Why::JoinedTwice => "its join token was used with two keys",
        Why::RenewedTwice => "a certificate of it was renewed with two keys",
    };
    let facts = NoticeFacts {
        requester: who.name.to_string(),
        by: Names::default().actor(tx, &ctx.actor()).await?,
        state: "locked".to_owned(),
        why: what.to_owned(),
        detail: enrolment.to_string(),
        ..NoticeFacts::default()
    };
    tell_of_identity(ctx, tx, &who, NoticeKind::EnrolmentLocked, &facts).await?;
    Ok(Came::Locked)
}

/// Ends an enrolment with everything below it.
pub(super) async fn end(
    ctx: &RequestContext,
    tx: &mut Tx,
    read: Versioned<CredentialRow>,
    mut detail: EnrolmentDetail,
    why: Why,
) -> Result<CredentialRow> {
    detail.over = Some(Over { at: ctx.now.0, by: ctx.actor(), why });
    let detail = detail.encode()?;
    end_with_below(ctx, tx, read, detail).await
}

pub(super) fn moved() -> Error {
    Error::Conflict("somebody else used it at the same time; retry".into())
}
