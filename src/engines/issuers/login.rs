//! Logs an identity in with a token of an issuer: one session, and the token is used up in the same
//! transaction.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::candidates::{Candidate, Known, Wanted};
use super::keys::IssuerKeys;
use super::memory::{Look, UsedLately};
use super::refused::{Refused, refused};
use super::register;
use super::review::review;
use super::sign_in;
use super::verify::{Believed, SKEW, believe};
use crate::audit::Field;
use crate::crypto::sha256;
use crate::engines::identities::activate;
use crate::engines::tokens;
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::credentials::{self, CredentialRow};
use crate::store::issuers::{self, Use};
use crate::store::{Needs, Reader, Tx, Versioned};
use crate::types::{
    AccessToken, CredentialId, CredentialKind, CredentialState, Id, IdentityId, IdentityName,
    IdentityState, Replay, RequestContext, ResourceName, SecretBytes, SingleUseToken, TokenSecret,
    TokenType, UnixMillis, VaultId,
};
use crate::vault::{
    Answerable, Decision, GOVERNS, Note, Operation, Origin, Resource, SignIn, TokenDetail, Verb,
    View, WRITES, handle_of,
};

/// How long a session lives whose kind uses each token once.
const SINGLE_S: u64 = 300;

/// How long a use is remembered after its token is over by every clock that is believed: the clock of
/// the node that forgets it may be ahead of that of the one that looks at the token.
const REMEMBERED: Duration = Duration::from_mins(5);

/// Who wants to be logged in, and with what.
pub struct LoginRequest<'a> {
    /// The identity.
    pub name: &'a IdentityName,
    /// The token.
    pub token: &'a str,
    /// Of what the `nonce` of a person's token is the hash; empty where there is none.
    pub proof: &'a str,
    /// How long the session is to live; none for as long as the rule says.
    pub ttl: Option<Duration>,
    /// Sessions and other tokens that one identity may have in force.
    pub live: u32,
}

impl fmt::Debug for LoginRequest<'_> {
    /// Shows no token: until it was used, it logs in whoever has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Logs in whom a token is believed for.
#[derive(Debug)]
pub struct Login {
    name: IdentityName,
    believed: Believed,
    known: Known,
    rule: Candidate,
    ttl: Option<Duration>,
    live: u32,
    once: String,
    /// The authority epoch that was seen before any of that was read.
    as_of: i64,
    lately: UsedLately,
}

/// A session that is about to be stored.
#[derive(Debug)]
pub struct Prepared {
    session: CredentialRow,
    bearer: SecretBytes,
    used: Use,
    registers: Option<register::Newcomer>,
    /// Whether it carries one call alone.
    single: bool,
    /// The keys that the cluster's reviewer was opened with.
    keys: Vec<KeyUse>,
    needs: Needs,
}

/// A session that was made.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its row.
    pub row: CredentialRow,
    /// The token that carries it.
    pub bearer: SecretBytes,
    /// Whether it carries one call alone.
    pub single_use: bool,
    /// Whether the identity was registered with it.
    pub registered: bool,
}

impl Login {
    /// Looks at a token, and finds the rule that it matches.
    ///
    /// # Errors
    /// [`Refused`] with what is wrong; nothing of it is for whoever asks, but that a token is too
    /// large.
    pub async fn verify(
        reader: &Reader,
        keys: &IssuerKeys,
        vault: VaultId,
        request: &LoginRequest<'_>,
        now: UnixMillis,
    ) -> Result<Self, Refused> {
        let look = Look::begin(reader.epoch_seen(), now);
        match Self::look(reader, keys, vault, request, &look).await {
            // What is remembered refuses nobody.
            Err(Refused::Token(_)) if look.rests_on_memory() => {
                let anew = Look::anew(reader.epoch_seen(), now);
                Self::look(reader, keys, vault, request, &anew).await
            }
            looked => looked,
        }
    }

    async fn look(
        reader: &Reader,
        keys: &IssuerKeys,
        vault: VaultId,
        request: &LoginRequest<'_>,
        look: &Look,
    ) -> Result<Self, Refused> {
        let (now, as_of) = (look.now(), look.epoch());
        let believed = believe(reader, keys, request.token, look).await?;
        sign_in::check_proof(&believed, request.proof)?;
        let once = once(&believed);
        let wanted = Wanted { vault, issuer: believed.issuer.row.id, name: request.name.clone() };
        let used = (once.clone(), believed.replay);
        let known = Known::read(reader, &keys.memory, wanted, used, look);
        let mut known = known.await?;
        let rule = known.choose(&believed, request.name, now)?;
        known.registers(reader, &rule.1, now).await?;
        let (name, ttl, live) = (request.name.clone(), request.ttl, request.live);
        let lately = keys.memory.used.clone();
        Ok(Self { name, believed, known, rule, ttl, live, once, as_of, lately })
    }

    /// How long the session lives, and how long renewals carry it, within what its kind may.
    fn spans(&self, single: bool) -> Result<(Duration, Duration)> {
        let lives = self.known.lifecycle.as_ref().map(|found| &found.row);
        let lives = lives.ok_or_else(|| Error::internal("an identity of no kind"))?;
        let within = |span_s: u64, most_s: i64| -> Result<u64> {
            Ok(span_s.min(u64::try_from(most_s).map_err(Error::internal)?))
        };
        let rule = &self.rule.1;
        let most_s = within(rule.max_ttl_s, lives.max_age_s)?;
        let asked_s = self.ttl.map_or(rule.ttl_s, |ttl| ttl.as_secs().min(rule.ttl_s).max(1));
        let ttl_s = within(asked_s, lives.max_ttl_s)?.min(most_s);
        if single {
            let ttl = Duration::from_secs(ttl_s.min(SINGLE_S));
            return Ok((ttl, ttl));
        }
        Ok((Duration::from_secs(ttl_s), Duration::from_secs(most_s)))
    }

    /// Tells whether the session carries one call alone.
    fn is_single(&self) -> bool {
        self.known.lifecycle.as_ref().is_some_and(|found| found.row.single_use)
    }

    fn detail(&self, by: String, single: bool, ttl: Duration) -> TokenDetail {
        TokenDetail {
            single_use: single,
            uses_left: single.then_some(1),
            refusals: 0,
            sources: Vec::new(),
            audience: Vec::new(),
            scope: Vec::new(),
            certificate: None,
            restore_epoch: self.known.stand.vault.row.restore_epoch,
            ttl_s: ttl.as_secs(),
            created_by: by,
            spent: None,
            paid: Vec::new(),
            revoked: None,
            session: Some(Origin {
                issuer: self.believed.issuer.row.id.to_string(),
                rule: self.rule.0.row.id.to_string(),
                epoch: self.believed.issuer.row.revocation_epoch,
                used: self.once.clone(),
                sign_in: self.believed.sign_in.clone(),
            }),
        }
    }

    /// Makes the session of an identity: its row, and the token that carries it.
    fn session(&self, view: &View, holder: &Holder) -> Result<(CredentialRow, SecretBytes)> {
        let now = view.now();
        let single = self.is_single();
        let (ttl, most) = self.spans(single)?;
        let cap = |at: UnixMillis| holder.expires_at.map_or(at, |end| end.min(at));
        let max_expires_at = cap(now.plus(most)?);
        let (id, secret) = (CredentialId(view.new_id()?), TokenSecret::random(view.entropy())?);
        let kind = if single { TokenType::SingleUse } else { TokenType::Access };
        let handle = handle_of(&view.keyring().token_key()?, kind, id, &secret);
        let bearer = if single {
            SingleUseToken::new(id, secret).text()
        } else {
            AccessToken::new(id, secret).text()
        };
        let row = CredentialRow {
            id,
            kind: CredentialKind::Token,
            identity: holder.id,
            parent: None,
            elevation: None,
            elevation_too: None,
            handle: Some(handle.to_vec()),
            resource: ResourceName::join("tokens", &[self.name.as_str()])?,
            state: CredentialState::Active,
            revocation_epoch: holder.epoch,
            issued_at: now,
            expires_at: cap(now.plus(ttl)?).min(max_expires_at),
            max_expires_at,
            next_try: None,
            tries: 0,
            trouble: String::new(),
            proofs: String::new(),
            detail: self.detail(view.actor(), single, ttl).encode()?,
        };
        Ok((row, bearer))
    }

    /// Uses the token up, or puts this session into the place of the pod's before.
    async fn use_up(&self, ctx: &RequestContext, tx: &mut Tx, used: &Use) -> Result<()> {
        let Some(before) = self.known.used else {
            return if issuers::take(tx, used).await? { Ok(()) } else { Err(self.raced()) };
        };
        if !issuers::replace(tx, used, before).await? {
            return Err(self.raced());
        }
        // One that is over by itself is dead; what hangs on it goes on to its own end.
        let found = tx.lookup::<CredentialRow>(&before).await?;
        let Some(found) = found.filter(|found| is_alive(&found.row, ctx.now)) else {
            return Ok(());
        };
        // The table alone is not believed: whoever can write to it would end what they like.
        let detail = TokenDetail::decode(&found.row.detail)?;
        if detail.session.is_some_and(|session| session.used == self.once) {
            tokens::revoke(ctx, tx, found).await?;
        }
        Ok(())
    }

    /// Somebody else used it first: a pod's may be used again, another's may not.
    fn raced(&self) -> Error {
        match self.believed.replay {
            Replay::Bound => Error::Conflict("another login of the pod was first; retry".into()),
            Replay::Once | Replay::Hash => {
                self.lately.add(&self.once);
                refused()
            }
        }
    }
}

/// Tells whether a session is neither ended nor over.
fn is_alive(session: &CredentialRow, now: UnixMillis) -> bool {
    session.state == CredentialState::Active && session.expires_at > now
}

/// Whose session it is.
struct Holder {
    id: IdentityId,
    epoch: i64,
    expires_at: Option<UnixMillis>,
}

/// Names what may be used once, of whichever issuer: by what it calls itself and us, so that what was
/// used stays used where it is removed and added again.
pub(super) fn once(believed: &Believed) -> String {
    let Believed { issuer, definition, replay, once, .. } = believed;
    let (url, audience) = (&issuer.row.url, &definition.audience);
    let parts = format!("strongroom/issuer-use/v1\0{url}\0{audience}\0{replay}\0{once}");
    issuers::use_id(&sha256(parts.as_bytes()))
}

#[async_trait]
impl Verb for Login {
    const ACTION: &'static str = "issuers.login";
    type Prepared = Prepared;
    type Output = Session;

    async fn resources(&self, _: &View) -> Result<Vec<Resource>> {
        let name = ResourceName::join("identities", &[self.name.as_str()])?;
        let mut resource = Resource::named(name);
        if let Some(found) = &self.known.stand.identity {
            resource = resource.with_row(found.row.id.0, found);
        }
        let rows = &mut resource.rows;
        rows.extend([
            self.believed.issuer.fence(),
            self.rule.0.fence(),
            self.known.stand.vault.fence(),
        ]);
        rows.extend(self.known.lifecycle.as_ref().map(Versioned::fence));
        rows.extend(self.known.owner.as_ref().and_then(Answerable::fence));
        Ok(vec![resource])
    }

    fn as_of(&self) -> Option<i64> {
        Some(self.as_of)
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        self.review(view).await?;
        let registers = match &self.known.stand.identity {
            Some(_) => None,
            None => Some(register::newcomer(view, self.parts_of_newcomer()?)?),
        };
        let holder = match (&self.known.stand.identity, &registers) {
            (Some(found), _) => Holder {
                id: found.row.id,
                epoch: found.row.revocation_epoch,
                expires_at: found.row.expires_at,
            },
            (None, Some(new)) => {
                Holder { id: new.row.id, epoch: 1, expires_at: new.row.expires_at }
            }
            (None, None) => return Err(Error::internal("a session of nobody")),
        };
        let (session, bearer) = self.session(view, &holder)?;
        let over = self.believed.expires_at.plus(SKEW)?.plus(REMEMBERED)?;
        let used = Use {
            id: self.once.clone(),
            issuer: self.believed.issuer.row.id,
            rule: self.rule.0.row.id,
            credential: session.id,
            epoch: self.believed.issuer.row.revocation_epoch,
            kept_until: over.max(session.max_expires_at),
        };
        let first = |found: &Versioned<_>| {
            let row: &crate::store::identities::IdentityRow = &found.row;
            row.state == IdentityState::Registered
        };
        // A session that is over takes no right away: what others are kept for stays kept.
        let replaces = self.known.before.as_ref();
        let bumps = registers.is_some()
            || replaces.is_some_and(|before| is_alive(&before.row, view.now()))
            || self.known.stand.identity.as_ref().is_some_and(first);
        let needs = if bumps { GOVERNS } else { WRITES };
        let (single, keys) = (self.is_single(), view.used());
        Ok(Prepared { session, bearer, used, registers, single, keys, needs })
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        note.credential = Some(prepared.session.id);
        note.keys.extend(prepared.keys.iter().cloned());
        let text = |name: &str| {
            let value = self.believed.token.text(name).unwrap_or_default();
            value.chars().filter(|c| !c.is_control()).take(256).collect::<String>()
        };
        let (issuer, rule) = (&self.believed.issuer.row.name, self.rule.0.row.id);
        let said =
            format!("issuer {issuer}, rule {rule}, sub {}, jti {}", text("sub"), text("jti"));
        note.private.push((Field::Detail, said));
        let signed_in = self.believed.sign_in.as_ref().map(SignIn::told);
        note.private.extend(signed_in.map(|told| (Field::Detail, told)));
    }
}

impl Login {
    /// Asks the token's cluster, last of all: whoever presents one that nobody believes makes the vault
    /// ask nobody.
    async fn review(&self, view: &View) -> Result<()> {
        match review(view, &self.believed).await {
            Ok(()) => Ok(()),
            Err(Refused::Token(why)) => {
                let (issuer, why) = (&self.believed.issuer.row.name, why.text);
                tracing::warn!(%issuer, why, "a login by a token that is believed is refused");
                Err(refused())
            }
            Err(Refused::Vault(error)) => Err(error),
        }
    }

    fn parts_of_newcomer(&self) -> Result<register::Parts<'_>> {
        let missing = || Error::internal("a rule that registers nobody");
        let template = self.rule.1.template.as_ref().ok_or_else(missing)?;
        let (_, bound) = template.name_of(&self.believed.token.claims).ok_or_else(missing)?;
        let owner = self.known.owner.as_ref().ok_or_else(missing)?.owner;
        Ok(register::Parts { name: &self.name, template, bound, owner, rule: self.rule.0.row.id })
    }
}

#[async_trait]
impl Operation for Login {
    const NEEDS: Needs = WRITES;

    fn needs(&self, prepared: &Prepared) -> Needs {
        prepared.needs
    }

    fn holds(&self, prepared: &Prepared) -> Option<Id> {
        Some(prepared.session.identity.0)
    }

    fn durable(&self, _: &Prepared) {
        self.lately.add(&self.once);
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        _: &Decision,
    ) -> Result<Session> {
        let session = &prepared.session;
        self.use_up(ctx, tx, &prepared.used).await?;
        if let Some(newcomer) = &prepared.registers {
            newcomer.register(ctx, tx).await?;
        } else {
            let of = credentials::Holder {
                identity: session.identity,
                epoch: session.revocation_epoch,
                since: self.known.stand.vault.row.restored_at,
            };
            if credentials::has_live_tokens(tx, of, ctx.now, self.live).await? {
                let full = format!("the identity has {} tokens in force already", self.live);
                return Err(Error::Exhausted(full.into()));
            }
        }
        tx.insert(session).await?;
        if prepared.needs.bumps && prepared.registers.is_none() {
            activate(ctx, tx, session.identity).await?;
        }
        Ok(Session {
            row: session.clone(),
            bearer: prepared.bearer.clone(),
            single_use: prepared.single,
            registered: prepared.registers.is_some(),
        })
    }
}
