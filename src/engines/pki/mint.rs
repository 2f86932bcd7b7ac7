//! Certificates of a role: for a key that the caller keeps (a CSR), or for one that is made here.
//!
//! Signed over a serial that is in the store, then committed with its entry. Nothing is outside the
//! vault before that is durable, so whatever fails only leaves a serial unused.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::certificate::pem;
use super::credential::{Holder, Said, Signed, require_current};
use super::listing::Standing;
use super::publish::REPLACED;
use super::quota::Quota;
use super::roles::{Roles, no_such_role, role_resource};
use super::{AuthoritySlot, GeneratedKey, KeyType, Profile, Request, Role, SubjectName};
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::credentials::CredentialRow;
use crate::store::{Needs, Tx};
use crate::types::{
    CredentialId, CredentialKind, CredentialState, IdentityId, RequestContext, ResourceName,
    SecretBytes, Segment,
};
use crate::vault::{
    Claimed, Decision, Note, Operation, Resource, Resumed, RetryKey, Verb, View, WRITES_ONE,
};

/// What every order for a certificate names.
#[derive(Debug)]
pub struct Order {
    /// Where the authorities are.
    pub authorities: AuthoritySlot,
    /// Where roles are kept.
    pub roles: Roles,
    /// The role.
    pub role: Segment,
    /// How long it lives; none for the role's default.
    pub ttl: Option<Duration>,
    /// How many certificates an identity may have.
    pub quota: Quota,
    /// What makes a retry find it.
    pub retry: Option<RetryKey>,
}

/// Where the key of a certificate comes from.
pub trait Source: std::fmt::Debug + Send + Sync + 'static {
    /// The action of the verb.
    const ACTION: &'static str;

    /// Yields the request, and the private key where it was made here.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a key that is not made here.
    fn request(&self, profile: &Profile) -> Result<(Cow<'_, Request>, Option<Arc<SecretBytes>>)>;
}

/// Signs a certificate for a key that the caller keeps.
pub type Sign = Mint<Request>;
/// Makes a key and a certificate for it.
pub type Issue = Mint<NewKey>;

impl Source for Request {
    const ACTION: &'static str = "pki.sign";

    fn request(&self, _: &Profile) -> Result<(Cow<'_, Request>, Option<Arc<SecretBytes>>)> {
        Ok((Cow::Borrowed(self), None))
    }
}

/// A key to be made, with the names to say.
#[derive(Debug)]
pub struct NewKey {
    /// What kind of key; none for the role's first.
    pub key_type: Option<KeyType>,
    /// The names.
    pub names: Vec<SubjectName>,
}

impl Source for NewKey {
    const ACTION: &'static str = "pki.issue";

    fn request(&self, profile: &Profile) -> Result<(Cow<'_, Request>, Option<Arc<SecretBytes>>)> {
        let key_type = self.key_type.or(profile.key_types.first().copied());
        let key = GeneratedKey::generate(key_type.unwrap_or(KeyType::P256))?;
        let request = Request::of_key(key.public).renamed(self.names.clone())?;
        Ok((Cow::Owned(request), Some(Arc::new(key.private_pem))))
    }
}

/// An order for a certificate.
#[derive(Debug)]
pub struct Mint<S> {
    /// What every order names.
    pub order: Order,
    /// Where its key comes from.
    pub source: S,
}

/// What was issued.
#[derive(Debug)]
pub struct Issued {
    /// Its row.
    pub row: CredentialRow,
    /// What it says.
    pub said: Said,
    /// The name of who holds it.
    pub identity: String,
    /// What has become of it.
    pub standing: Standing,
    /// The authorities above it, nearest first, up to the oldest root that is not retired, which is
    /// left out; PEM.
    pub chain_pem: String,
    /// The private key, PEM, where it was made here; never in a replay.
    pub private_key: Option<Arc<SecretBytes>>,
    /// Whether this repeats the answer of an earlier call.
    pub replayed: bool,
}

impl Issued {
    /// Writes the certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem(&self.row.detail)
    }
}

/// What an order comes to.
#[derive(Debug)]
pub enum Prepared {
    /// A certificate that was signed and that nobody has yet.
    Signed(Arc<Issued>, KeyUse),
    /// An earlier try made this: nothing was signed for another.
    Before(String),
}

#[async_trait]
impl<S: Source> Verb for Mint<S> {
    const ACTION: &'static str = S::ACTION;
    type Prepared = Prepared;
    type Output = Arc<Issued>;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let Order { roles, role, .. } = &self.order;
        Ok(vec![match roles.lookup(view, role).await? {
            Some(kept) => kept.resource.clone(),
            None => Resource::named(role_resource(role)?),
        }])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Prepared> {
        let Order { authorities, roles, role, ttl, quota, .. } = &self.order;
        let role = roles.lookup(view, role).await?.ok_or_else(no_such_role)?;
        if let Claimed::Made(before) = view.claimed(self).await? {
            return Ok(Prepared::Before(before));
        }
        let authorities = authorities.current()?;
        let (request, private_key) = self.source.request(&role.profile)?;
        let ours = authorities.issuing.trust_domain();
        let mut template = role.profile.check(&request, &[], *ttl, ours)?;
        let holder = &view.subject()?.identity.row;
        let most = Duration::from_secs(decision.cap_ttl_s(role.profile.max_ttl_s));
        if ttl.is_some_and(|ttl| ttl > most) {
            return Err(Error::invalid(format!(
                "the TTL is beyond the {} seconds that a certificate of this role may live",
                most.as_secs()
            )));
        }
        template.ttl = template.ttl.min(most);
        if let Some(end) = decision.end(S::ACTION) {
            template.ttl = template.ttl.min(end.since(view.now()));
        }
        quota.take(view, holder).await?;
        // Revoking a token ends what was asked for with it, and so does revoking an enrolment; the end
        // of a login ends nothing.
        let holder_of = Holder {
            kind: CredentialKind::Certificate,
            identity: holder,
            parent: view.subject()?.hook(),
            elevations: decision.elevations()?,
            resource: &role.resource.name,
        };
        let Signed { row, certificate, key } =
            holder_of.sign(view, &authorities.issuing, &template).await?;
        let issued = Issued {
            said: Said {
                serial: certificate.serial.to_string(),
                names: template.names().to_vec(),
                not_before: certificate.not_before,
                not_after: certificate.not_after,
            },
            row,
            identity: holder.name.to_string(),
            standing: Standing::Active,
            chain_pem: authorities.chain_pem(&authorities.issuing),
            private_key,
            replayed: false,
        };
        Ok(Prepared::Signed(Arc::new(issued), key))
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        if let Prepared::Signed(issued, key) = prepared {
            note.keys.push(key.clone());
            note.credential = Some(issued.row.id);
        }
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.order.retry.as_ref()
    }

    fn made(&self, prepared: &Prepared) -> String {
        match prepared {
            Prepared::Signed(issued, _) => issued.row.id.to_string(),
            Prepared::Before(made) => made.clone(),
        }
    }

    async fn replay(&self, view: &View, made: &str) -> Result<Arc<Issued>> {
        let holder = &view.subject()?.identity.row;
        let resource = role_resource(&self.order.role)?;
        let mine = Made { kind: CredentialKind::Certificate, identity: holder.id, resource };
        let row = made_before(view, made, mine).await?;
        let authorities = self.order.authorities.current()?;
        // Its chain is given out anew: not that of a root which was rotated a moment ago.
        require_current(view, &authorities.issuing).await?;
        Ok(Arc::new(Issued {
            said: Said::of_der(&row.detail)?,
            standing: Standing::of(&row, holder.revocation_epoch, view.now()),
            chain_pem: authorities.chain_pem(authorities.above(Role::Issuing, &row.detail)),
            row,
            identity: holder.name.to_string(),
            private_key: None,
            replayed: true,
        }))
    }

    async fn supersede(&self, ctx: &RequestContext, tx: &mut Tx, made: &str) -> Result<Resumed> {
        let id: CredentialId = made.parse()?;
        let caller = ctx.authenticated().ok_or_else(nothing_made)?;
        let mine = Made {
            kind: CredentialKind::Certificate,
            identity: caller.identity,
            resource: role_resource(&self.order.role)?,
        };
        let found = tx.lookup::<CredentialRow>(&id).await?;
        let found = found.filter(|it| mine.is(&it.row)).ok_or_else(nothing_made)?;
        if found.row.state == CredentialState::Ended {
            return Ok(Resumed::Anew);
        }
        let ended = CredentialRow {
            state: CredentialState::Ended,
            next_try: None,
            trouble: REPLACED.to_owned(),
            ..found.row
        };
        tx.update(found.version, &ended).await?;
        Ok(Resumed::Anew)
    }
}

#[async_trait]
impl<S: Source> Operation for Mint<S> {
    const NEEDS: Needs = WRITES_ONE;
    const GOES_ON: bool = true;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        _: &Decision,
    ) -> Result<Arc<Issued>> {
        match prepared {
            Prepared::Signed(issued, _) => {
                tx.insert(&issued.row).await?;
                Ok(Arc::clone(issued))
            }
            Prepared::Before(_) => Err(forgotten()),
        }
    }
}

/// What an earlier try of a call can have made, and nothing else: the row that names it is not
/// sealed, so whoever writes to the database chooses the name.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) kind: CredentialKind,
    pub(super) identity: IdentityId,
    pub(super) resource: ResourceName,
}

impl Made {
    /// Tells whether a credential is what the call makes.
    fn is(&self, row: &CredentialRow) -> bool {
        row.kind == self.kind && row.identity == self.identity && row.resource == self.resource
    }
}

/// Answers a retry that found what an earlier try made, and no longer does.
pub(super) fn forgotten() -> Error {
    Error::unavailable("what the key was used for was forgotten meanwhile; retry")
}

fn nothing_made() -> Error {
    Error::internal("a retry names nothing that its call made")
}

/// Finds what an earlier try made.
pub(super) async fn made_before(view: &View, made: &str, what: Made) -> Result<CredentialRow> {
    let id: CredentialId = made.parse()?;
    let found = view
        .read(move |tx| async move { Ok(tx.lookup::<CredentialRow>(&id).await?) }.boxed())
        .await?
        .filter(|found| what.is(&found.row))
        .ok_or_else(nothing_made)?;
    Ok(found.row)
}
