//! Login certificates: one URI, signed by the login CA from the bearer's own CSR.
//!
//! Who may ask is policy's (administrators, a machine's owner, the bootstrap certificate for the
//! first login of a human that it registered); who may receive one is looked at here.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::certificate::pem;
use super::credential::{Holder, Said, Signed};
use super::mint::{Made, forgotten, made_before};
use super::profile::MIN_TTL;
use super::{AuthoritySlot, Request, Role, SpiffeId, SubjectName, Template};
use crate::crypto::sha256;
use crate::engines::identities::{activate, subject_facts};
use crate::error::{Error, Result};
use crate::policy::SubjectFacts;
use crate::store::credentials::CredentialRow;
use crate::store::identities::{self, IdentityRow};
use crate::store::lifecycles::{self, LifecycleRow};
use crate::store::{Needs, Tx, Versioned, logins, pki as rows};
use crate::types::{
    CredentialKind, Id, IdentityName, IdentityState, Kind, RequestContext, ResourceName, UnixMillis,
};
use crate::vault::{
    Answerable, Claimed, Decision, GOVERNS, Note, Operation, Resource, RetryKey, Verb, View,
    WRITES, is_active,
};

/// How long login certificates live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginTtl {
    /// Where nobody asks for another.
    pub usual: Duration,
    /// The longest that anybody may ask for.
    pub most: Duration,
}

impl Default for LoginTtl {
    fn default() -> Self {
        Self { usual: super::LOGIN_TTL, most: Duration::from_hours(30 * 24) }
    }
}

impl LoginTtl {
    /// The longest that anybody may ask for, of an identity whose kind lives like this.
    ///
    /// # Errors
    /// [`Error::Internal`] when a row holds what it must not.
    pub(in crate::engines) fn most_of(
        self,
        lives: &LifecycleRow,
        identity: &IdentityRow,
    ) -> Result<Duration> {
        let rotation_s = lives.rotation_of(identity)?;
        let most = lives.max_ttl_s.min(lives.max_age_s).min(rotation_s);
        let most = u64::try_from(most).map_err(Error::internal)?;
        Ok(self.most.min(Duration::from_secs(most)))
    }

    /// How long a key may be logged in with from now on that has been since a moment: a new login
    /// for it is no other secret.
    ///
    /// # Errors
    /// [`Error::Precondition`] when it has to be replaced.
    pub(in crate::engines) fn left_of_key(
        since: Option<UnixMillis>,
        lives: &LifecycleRow,
        identity: &IdentityRow,
        now: UnixMillis,
    ) -> Result<Duration> {
        let rotation_s = lives.rotation_of(identity)?;
        let rotation = Duration::from_secs(u64::try_from(rotation_s).map_err(Error::internal)?);
        let left = since.unwrap_or(now).plus(rotation)?.since(now);
        if left < MIN_TTL {
            return Err(Error::precondition(format!(
                "{} has logged in with this key for as long as it may: make a new key and request",
                identity.name
            )));
        }
        Ok(left)
    }
}

/// Issues a login certificate.
#[derive(Debug)]
pub struct IssueLogin {
    /// Where the authorities are.
    pub authorities: AuthoritySlot,
    /// How long it may live.
    pub limits: LoginTtl,
    /// Whose it is.
    pub name: IdentityName,
    /// The bearer's request.
    pub request: Request,
    /// How long it lives; none for the usual time.
    pub ttl: Option<Duration>,
    /// What makes a retry find it.
    pub retry: Option<RetryKey>,
}

/// A login certificate that was issued.
#[derive(Debug)]
pub struct LoginIssued {
    /// Its row.
    pub row: CredentialRow,
    /// What it says.
    pub said: Said,
    /// The login CA's certificate, PEM.
    pub chain_pem: String,
}

impl LoginIssued {
    /// Writes the certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem(&self.row.detail)
    }
}

/// What an order for a login comes to.
#[derive(Debug)]
pub enum PreparedLogin {
    /// A login certificate that was signed and that nobody has yet.
    Signed(Box<SignedLogin>),
    /// An earlier try made this: nothing was signed for another.
    Before(String),
}

/// A login certificate that was signed, with what its commit looks at.
#[derive(Debug)]
pub struct SignedLogin {
    signed: Signed,
    names: Vec<SubjectName>,
    chain_pem: String,
    key_hash: [u8; 32],
    /// Whether it may be the bearer's first login certificate alone.
    first: bool,
    /// Whether nothing was issued to the bearer before.
    activates: bool,
}

/// An identity, with what a decision about its login stands on.
struct Bearer {
    identity: Versioned<IdentityRow>,
    owner: Answerable,
    lifecycle: Versioned<LifecycleRow>,
    facts: SubjectFacts,
    /// Since when it logs in with the key that is asked for.
    key_since: Option<UnixMillis>,
}

impl IssueLogin {
    async fn bearer(&self, view: &View) -> Result<Option<Bearer>> {
        let (name, key, now) = (self.name.clone(), self.key_hash(), view.now());
        view.read(move |tx| async move { Bearer::load(tx, &name, &key, now).await }.boxed()).await
    }

    fn key_hash(&self) -> [u8; 32] {
        sha256(self.request.key().spki_der())
    }

    fn resource(&self) -> Result<ResourceName> {
        ResourceName::join("identities", &[self.name.as_str()])
    }

    fn ttl(&self, view: &View, decision: &Decision, bearer: &Bearer) -> Result<Duration> {
        let most = self.limits.most_of(&bearer.lifecycle.row, &bearer.identity.row)?;
        let most = Duration::from_secs(decision.oblige_ttl_s(most.as_secs()));
        if self.ttl.is_some_and(|ttl| ttl > most) {
            return Err(Error::invalid(format!(
                "a login certificate of {} lives for at most {} seconds",
                bearer.identity.row.name,
                most.as_secs()
            )));
        }
        let (lives, identity) = (&bearer.lifecycle.row, &bearer.identity.row);
        let left = LoginTtl::left_of_key(bearer.key_since, lives, identity, view.now())?;
        let ttl = self.ttl.unwrap_or(self.limits.usual).min(most).min(left);
        // What a token asks for ends with it.
        let asks = view.subject()?.bond().map(|asks| asks.expires_at);
        let ends = bearer.identity.row.expires_at.into_iter().chain(asks);
        Ok(ends.fold(ttl, |ttl, end| ttl.min(end.since(view.now()))))
    }
}

fn unknown() -> Error {
    Error::not_found("there is no such identity")
}

impl Bearer {
    async fn load(
        tx: &mut Tx,
        name: &IdentityName,
        key: &[u8; 32],
        now: UnixMillis,
    ) -> Result<Option<Self>> {
        let Some(identity) = identities::identity_named(tx, name).await? else { return Ok(None) };
        let (facts, owner) = subject_facts(tx, &identity, now).await?;
        let lifecycle = lifecycles::of_kind(tx, identity.row.kind).await?;
        let key_since = logins::key_since(tx, identity.row.id, key).await?;
        Ok(Some(Self { identity, owner, lifecycle, facts, key_since }))
    }

    /// What bounds its life is in the fence: whoever tightens it is answered after the last login
    /// that it did not bound.
    fn resource(&self, name: ResourceName) -> Resource {
        let row = &self.identity.row;
        let mut resource = Resource::named(name).with_row(row.id.0, &self.identity);
        resource.rows.extend(self.owner.fence());
        resource.rows.push(self.lifecycle.fence());
        resource.owner = Some(row.owner);
        resource.identity = Some(self.facts);
        resource
    }

    /// Refuses who may not receive one, whoever asks.
    fn check(&self, view: &View) -> Result<()> {
        let row = &self.identity.row;
        if row.kind == Kind::Bootstrap {
            return Err(Error::precondition("the bootstrap identity gets no other certificate"));
        }
        match row.state {
            IdentityState::Registered | IdentityState::Active => {}
            IdentityState::Suspended => {
                return Err(Error::precondition("the identity is suspended; resume it first"));
            }
            IdentityState::Retired => return Err(Error::precondition("the identity is retired")),
        }
        if !is_active(row, view.now()) {
            return Err(Error::precondition("the identity has expired; give it another end first"));
        }
        Ok(())
    }
}

#[async_trait]
impl Verb for IssueLogin {
    const ACTION: &'static str = "identities.issue-cert";
    type Prepared = PreparedLogin;
    type Output = LoginIssued;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let name = self.resource()?;
        Ok(vec![match self.bearer(view).await? {
            Some(bearer) => bearer.resource(name),
            None => Resource::named(name),
        }])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<PreparedLogin> {
        let bearer = self.bearer(view).await?.ok_or_else(unknown)?;
        bearer.check(view)?;
        if let Claimed::Made(before) = view.claimed(self).await? {
            return Ok(PreparedLogin::Before(before));
        }
        let asks = view.subject()?;
        asks.require_room_below()?;
        let authorities = self.authorities.current()?;
        let row = &bearer.identity.row;
        let spiffe = SpiffeId {
            trust_domain: authorities.login.trust_domain().clone(),
            kind: row.kind,
            name: row.name.clone(),
        };
        let ttl = self.ttl(view, decision, &bearer)?;
        let template = Template::login(&self.request, &spiffe, Some(ttl))?;
        let holder = Holder {
            kind: CredentialKind::Login,
            identity: row,
            parent: asks.hook_of(row.id),
            elevations: decision.elevations()?,
            resource: &decision.resource()?.name,
        };
        Ok(PreparedLogin::Signed(Box::new(SignedLogin {
            signed: holder.sign(view, &authorities.login, &template).await?,
            names: template.names().to_vec(),
            chain_pem: authorities.login.pem(),
            key_hash: self.key_hash(),
            first: asks.identity.row.kind == Kind::Bootstrap,
            activates: row.state == IdentityState::Registered,
        })))
    }

    fn note(&self, prepared: &PreparedLogin, note: &mut Note) {
        if let PreparedLogin::Signed(login) = prepared {
            note.keys.push(login.signed.key.clone());
            note.credential = Some(login.signed.row.id);
        }
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.retry.as_ref()
    }

    fn made(&self, prepared: &PreparedLogin) -> String {
        match prepared {
            PreparedLogin::Signed(login) => login.signed.row.id.to_string(),
            PreparedLogin::Before(made) => made.clone(),
        }
    }

    async fn replay(&self, view: &View, made: &str) -> Result<LoginIssued> {
        let bearer = self.bearer(view).await?.ok_or_else(unknown)?;
        let theirs = Made {
            kind: CredentialKind::Login,
            identity: bearer.identity.row.id,
            resource: self.resource()?,
        };
        let row = made_before(view, made, theirs).await?;
        let chain_pem = self.authorities.current()?.above(Role::Login, &row.detail).pem();
        Ok(LoginIssued { said: Said::of_der(&row.detail)?, row, chain_pem })
    }
}

#[async_trait]
impl Operation for IssueLogin {
    const NEEDS: Needs = WRITES;
    const GOES_ON: bool = true;

    fn needs(&self, prepared: &PreparedLogin) -> Needs {
        match prepared {
            PreparedLogin::Signed(login) if login.activates => GOVERNS,
            PreparedLogin::Signed(_) | PreparedLogin::Before(_) => WRITES,
        }
    }

    /// Every login does: that there is none yet is a fact without a row of its own.
    fn holds(&self, prepared: &PreparedLogin) -> Option<Id> {
        match prepared {
            PreparedLogin::Signed(login) => Some(login.signed.row.identity.0),
            PreparedLogin::Before(_) => None,
        }
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &PreparedLogin,
        _: &Decision,
    ) -> Result<LoginIssued> {
        let PreparedLogin::Signed(login) = prepared else { return Err(forgotten()) };
        let Signed { row, certificate, .. } = &login.signed;
        if login.first && rows::has_login(tx, row.identity).await? {
            return Err(Error::Conflict("the identity got its first login certificate".into()));
        }
        tx.insert(row).await?;
        logins::note_key(tx, row.identity, &login.key_hash, row.issued_at).await?;
        if login.activates {
            activate(ctx, tx, row.identity).await?;
        }
        Ok(LoginIssued {
            said: Said {
                serial: certificate.serial.to_string(),
                names: login.names.clone(),
                not_before: certificate.not_before,
                not_after: certificate.not_after,
            },
            row: row.clone(),
            chain_pem: login.chain_pem.clone(),
        })
    }
}
