//! Makes tokens: for oneself, or, as its owner or an administrator, for a machine.
//!
//! One row and one entry. What a child may at the most is what its parent may; nothing of it is
//! taken from who mints.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::{Token, replace, resource_name};
use crate::engines::identities::activate;
use crate::error::{Error, Result};
use crate::policy::{Cidr, SubjectFacts};
use crate::store::credentials::{self, CredentialRow};
use crate::store::identities::{self, IdentityRow};
use crate::store::lifecycles::{self, LifecycleRow};
use crate::store::{Needs, Tx, Versioned};
use crate::types::{
    AccessToken, CredentialId, CredentialKind, CredentialState, Id, IdentityName, IdentityState,
    RequestContext, SecretBytes, SingleUseToken, TokenSecret, TokenType, UnixMillis,
};
use crate::vault::{
    Answerable, Decision, GOVERNS, Note, Operation, Resource, Resumed, RetryKey, Scope, Subject,
    TokenDetail, Verb, View, WRITES_ONE, handle_of, is_active,
};

/// Entries of each list of an order.
const LISTED: usize = 64;
/// Uses that a token can have.
const USES: u32 = 1_000_000;

/// How long tokens live, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLimits {
    /// How long one lives where nobody says.
    pub usual: Duration,
    /// How long one with a single use does.
    pub usual_single: Duration,
    /// How long renewals carry one where nobody says.
    pub usual_most: Duration,
    /// The longest that anybody may ask for.
    pub most: Duration,
    /// How many an identity may have in force.
    pub live: u32,
}

impl Default for TokenLimits {
    fn default() -> Self {
        Self {
            usual: Duration::from_mins(15),
            usual_single: Duration::from_mins(5),
            usual_most: Duration::from_hours(24),
            most: Duration::from_hours(30 * 24),
            live: 10_000,
        }
    }
}

/// What a token is to be.
#[derive(Debug, Clone)]
pub struct Order {
    /// What is allowed.
    pub limits: TokenLimits,
    /// How long it lives; none for the usual time.
    pub ttl: Option<Duration>,
    /// How long renewals carry it.
    pub max_ttl: Option<Duration>,
    /// How often it can be used; none for any number of times.
    pub uses: Option<u32>,
    /// Where it may be used from.
    pub sources: Vec<Cidr>,
    /// Which nodes accept it.
    pub audience: Vec<String>,
    /// What it may be used for.
    pub scope: Vec<Scope>,
    /// The client certificate that it must come with.
    pub certificate: Option<String>,
    /// What makes a retry find it.
    pub retry: Option<RetryKey>,
}

/// Makes a token for the caller.
#[derive(Debug, Clone)]
pub struct CreateToken(pub Order);

/// Makes a token for a machine.
#[derive(Debug, Clone)]
pub struct MintToken {
    /// The machine.
    pub name: IdentityName,
    /// What it is to be.
    pub order: Order,
}

/// A token that is about to be stored.
#[derive(Debug, Clone)]
pub struct Prepared {
    token: Token,
    bearer: SecretBytes,
    /// Whether nothing was issued to its holder before.
    activates: bool,
    /// When the vault was last restored.
    restored_at: UnixMillis,
    needs: Needs,
}

/// A token that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// What it is.
    pub token: Token,
    /// The token itself; none in a replay.
    pub bearer: Option<SecretBytes>,
}

impl Order {
    fn check(&self) -> Result<()> {
        let lists = [self.sources.len(), self.audience.len(), self.scope.len()];
        if lists.iter().any(|length| *length > LISTED) {
            return Err(Error::invalid(format!(
                "a token names at most {LISTED} networks, nodes and scopes"
            )));
        }
        if self.uses.is_some_and(|uses| uses > USES) {
            return Err(Error::invalid(format!(
                "a token has at most {USES} uses that are counted"
            )));
        }
        let hex = |text: &String| text.len() == 64 && text.bytes().all(is_hex);
        if !self.certificate.as_ref().is_none_or(hex) {
            return Err(Error::invalid(
                "a certificate is named by its SHA-256, 64 lowercase hexadecimal digits",
            ));
        }
        Ok(())
    }

    /// How long it lives, and how long renewals carry it, within what its holder's kind may.
    fn spans(&self, decision: &Decision, lives: &LifecycleRow) -> Result<(Duration, Duration)> {
        let limits = self.limits;
        let single = self.uses == Some(1);
        let usual = if single { limits.usual_single } else { limits.usual };
        let usual = usual.min(self.max_ttl.unwrap_or(limits.most));
        let ttl = self.ttl.unwrap_or(usual);
        let usual_most = if self.uses.is_some() { ttl } else { limits.usual_most.max(ttl) };
        let most = self.max_ttl.unwrap_or(usual_most);
        if ttl > most || most > limits.most {
            return Err(Error::invalid(format!(
                "a token lives no longer than its maximum, and that is at most {} seconds",
                limits.most.as_secs()
            )));
        }
        let cap = |span: Duration, most_s: i64| -> Result<Duration> {
            let most_s = u64::try_from(most_s).map_err(Error::internal)?;
            Ok(Duration::from_secs(decision.oblige_ttl_s(span.as_secs().min(most_s))))
        };
        let most = cap(most, lives.max_age_s)?;
        Ok((cap(ttl, lives.max_ttl_s)?.min(most), most))
    }

    /// Makes it for a holder, below what asks. The holder's own token passes on at most what it
    /// may; somebody else's lends it no more than its time.
    fn make(
        &self,
        view: &View,
        decision: &Decision,
        holder: &IdentityRow,
        lives: &LifecycleRow,
    ) -> Result<Prepared> {
        self.check()?;
        if lives.single_use && self.uses != Some(1) {
            return Err(Error::precondition(format!(
                "each token of a {} can be used once alone: ask for one use",
                holder.kind
            )));
        }
        let (subject, now) = (view.subject()?, view.now());
        let (ttl, most) = self.spans(decision, lives)?;
        let (above, own) = (subject.bond(), subject.identity.row.id == holder.id);
        // Whoever is elevated makes no token that outlives that.
        let mut under = decision.under();
        under.add(subject.elevated().filter(|_| own));
        let [elevation, elevation_too] = under.ids([None, None])?;
        subject.require_room_below()?;
        let cap = |at: UnixMillis, above: Option<UnixMillis>| {
            [holder.expires_at, above].into_iter().flatten().fold(at, UnixMillis::min)
        };
        let max_expires_at = cap(now.plus(most)?, above.map(|up| up.max_expires_at));
        let expires_at = cap(now.plus(ttl)?, above.map(|up| up.expires_at)).min(max_expires_at);
        let expires_at = under.end().map_or(expires_at, |end| end.min(expires_at));
        let detail = self.detail(subject, ttl);
        let detail = match subject.token.as_ref().filter(|_| own) {
            Some(parent) => detail.under(parent)?,
            None => detail,
        };
        let parent = if own { Some(&subject.credential.row) } else { above };
        let id = CredentialId(view.new_id()?);
        let secret = TokenSecret::random(view.entropy())?;
        let kind = if detail.single_use { SingleUseToken::TYPE } else { AccessToken::TYPE };
        let handle = handle_of(&view.keyring().token_key()?, kind, id, &secret);
        let bearer = match kind {
            TokenType::SingleUse => SingleUseToken::new(id, secret).text(),
            TokenType::Access
            | TokenType::Handle
            | TokenType::Invitation
            | TokenType::Join
            | TokenType::Wrapped => AccessToken::new(id, secret).text(),
        };
        let row = CredentialRow {
            id,
            kind: CredentialKind::Token,
            identity: holder.id,
            parent: parent.map(|parent| parent.id),
            elevation,
            elevation_too,
            handle: Some(handle.to_vec()),
            resource: resource_name(&holder.name)?,
            state: CredentialState::Active,
            revocation_epoch: holder.revocation_epoch,
            issued_at: now,
            expires_at,
            max_expires_at,
            next_try: None,
            tries: 0,
            trouble: String::new(),
            proofs: String::new(),
            detail: detail.encode()?,
        };
        let token = Token {
            row,
            detail,
            identity: holder.name.clone(),
            void: false,
            created_by: subject.identity.row.name.to_string(),
        };
        let activates = holder.state == IdentityState::Registered;
        let needs = if activates { GOVERNS } else { WRITES_ONE };
        Ok(Prepared { token, bearer, activates, restored_at: subject.restored_at(), needs })
    }

    fn detail(&self, by: &Subject, ttl: Duration) -> TokenDetail {
        TokenDetail {
            single_use: self.uses == Some(1),
            uses_left: self.uses,
            refusals: 0,
            sources: self.sources.clone(),
            audience: self.audience.clone(),
            scope: self.scope.clone(),
            certificate: self.certificate.clone(),
            restore_epoch: by.restore_epoch(),
            ttl_s: ttl.as_secs(),
            created_by: by.identity.row.id.to_string(),
            spent: None,
            paid: Vec::new(),
            revoked: None,
            session: None,
        }
    }

    /// Stores it, where its holder has not too many.
    async fn store(&self, ctx: &RequestContext, tx: &mut Tx, made: &Prepared) -> Result<Made> {
        let (row, live) = (&made.token.row, self.limits.live);
        let of = credentials::Holder {
            identity: row.identity,
            epoch: row.revocation_epoch,
            since: made.restored_at,
        };
        if credentials::has_live_tokens(tx, of, ctx.now, live).await? {
            return Err(Error::Exhausted(
                format!("the identity has {live} tokens in force, the most that it may have")
                    .into(),
            ));
        }
        tx.insert(row).await?;
        if made.activates {
            activate(ctx, tx, row.identity).await?;
        }
        Ok(Made { token: made.token.clone(), bearer: Some(made.bearer.clone()) })
    }
}

const fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn note(prepared: &Prepared, note: &mut Note) {
    note.credential = Some(prepared.token.row.id);
}

#[async_trait]
impl Verb for CreateToken {
    const ACTION: &'static str = "tokens.create";
    type Prepared = Prepared;
    type Output = Made;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let subject = view.subject()?;
        let row = &subject.identity.row;
        let mut resource =
            Resource::named(resource_name(&row.name)?).with_row(row.id.0, &subject.identity);
        resource.owner = Some(row.owner);
        resource.identity = Some(subject.own_facts(view.now()));
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Prepared> {
        let subject = view.subject()?;
        let (holder, lives) = (&subject.identity.row, &subject.lifecycle.row);
        let made = self.0.make(view, decision, holder, lives)?;
        Ok(Prepared { needs: replace::needs(view, self, made.needs).await?, ..made })
    }

    fn note(&self, prepared: &Prepared, to: &mut Note) {
        note(prepared, to);
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.0.retry.as_ref()
    }

    fn made(&self, prepared: &Prepared) -> String {
        prepared.token.row.id.to_string()
    }

    async fn replay(&self, view: &View, made: &str) -> Result<Made> {
        replace::replay(view, self, made).await
    }

    async fn supersede(&self, ctx: &RequestContext, tx: &mut Tx, made: &str) -> Result<Resumed> {
        replace::supersede(ctx, tx, made, None).await
    }
}

#[async_trait]
impl Operation for CreateToken {
    const NEEDS: Needs = WRITES_ONE;

    fn needs(&self, prepared: &Prepared) -> Needs {
        prepared.needs
    }

    fn holds(&self, prepared: &Prepared) -> Option<Id> {
        Some(prepared.token.row.identity.0)
    }

    fn token<'a>(&self, prepared: &'a Prepared) -> Option<&'a CredentialRow> {
        // One that is used again and again is read once anyway.
        let soon = prepared.token.detail.uses_left.is_some() && !prepared.activates;
        soon.then_some(&prepared.token.row)
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        _: &Decision,
    ) -> Result<Made> {
        self.0.store(ctx, tx, prepared).await
    }
}

/// Whose token it is to be, as of one snapshot.
struct Holder {
    identity: Versioned<IdentityRow>,
    owner: Answerable,
    lifecycle: Versioned<LifecycleRow>,
}

impl Holder {
    async fn load(tx: &mut Tx, name: &IdentityName) -> Result<Option<Self>> {
        let Some(identity) = identities::identity_named(tx, name).await? else { return Ok(None) };
        let owner = Answerable::of(tx, &identity).await?;
        let lifecycle = lifecycles::of_kind(tx, identity.row.kind).await?;
        Ok(Some(Self { identity, owner, lifecycle }))
    }

    async fn find(view: &View, name: &IdentityName) -> Result<Option<Self>> {
        let name = name.clone();
        view.read(move |tx| async move { Self::load(tx, &name).await }.boxed()).await
    }
}

#[async_trait]
impl Verb for MintToken {
    const ACTION: &'static str = "tokens.mint";
    type Prepared = Prepared;
    type Output = Made;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let resource = Resource::named(resource_name(&self.name)?);
        let Some(holder) = Holder::find(view, &self.name).await? else { return Ok(vec![resource]) };
        let row = &holder.identity.row;
        let mut resource = resource.with_row(row.id.0, &holder.identity);
        resource.rows.push(holder.lifecycle.fence());
        resource.rows.extend(holder.owner.fence());
        resource.owner = Some(row.owner);
        resource.labels = serde_json::from_str(&row.labels).map_err(Error::internal)?;
        resource.identity = Some(SubjectFacts {
            id: Some(row.id),
            kind: row.kind,
            administrator: false,
            registered_by: row.created_by.parse().ok(),
            has_certificate: true,
            owner_active: holder.owner.is_active(view.now()),
            owner_expires_at: holder.owner.expires_at(),
        });
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Prepared> {
        let found = Holder::find(view, &self.name).await?;
        let holder = found.ok_or_else(|| Error::not_found("there is no such identity"))?;
        let (rows, row) = (&decision.resource()?.rows, &holder.identity.row);
        // Read again since it was decided on: the fence holds what was.
        if !rows.contains(&holder.identity.fence()) || !rows.contains(&holder.lifecycle.fence()) {
            return Err(Error::Conflict("the identity changed; retry".into()));
        }
        if !is_active(row, view.now()) {
            return Err(Error::precondition("the identity is suspended or over"));
        }
        let made = self.order.make(view, decision, row, &holder.lifecycle.row)?;
        Ok(Prepared { needs: replace::needs(view, self, made.needs).await?, ..made })
    }

    fn note(&self, prepared: &Prepared, to: &mut Note) {
        note(prepared, to);
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.order.retry.as_ref()
    }

    fn made(&self, prepared: &Prepared) -> String {
        prepared.token.row.id.to_string()
    }

    async fn replay(&self, view: &View, made: &str) -> Result<Made> {
        replace::replay(view, self, made).await
    }

    async fn supersede(&self, ctx: &RequestContext, tx: &mut Tx, made: &str) -> Result<Resumed> {
        replace::supersede(ctx, tx, made, Some(&self.name)).await
    }
}

#[async_trait]
impl Operation for MintToken {
    const NEEDS: Needs = WRITES_ONE;

    fn needs(&self, prepared: &Prepared) -> Needs {
        prepared.needs
    }

    fn holds(&self, prepared: &Prepared) -> Option<Id> {
        Some(prepared.token.row.identity.0)
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        _: &Decision,
    ) -> Result<Made> {
        self.order.store(ctx, tx, prepared).await
    }
}
