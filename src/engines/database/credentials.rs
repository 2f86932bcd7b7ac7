//! Credentials: a role on the target for each lease.
//!
//! The intent, with the role's name, is committed before the role is created; a lease that was
//! not recorded as created is ended by the worker, whatever happened in between. So that the
//! worker can tell when a target will not create the role any more, everything up to the last
//! statement happens in bounded time: what is sent is sent within 25 s of the request, the target
//! itself gives a statement up after 30 s, and the worker believes that a role is not there after
//! 60 s.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use data_encoding::BASE64URL_NOPAD;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::limits::Limits;
use super::names::RoleName;
use super::postgres::{Access, PostgresTarget};
use super::roles::resource_of;
use super::target::DatabaseTarget as _;
use super::targets::{Databases, KnownRole, settings};
use crate::crypto::scram_sha_256_verifier;
use crate::engines::leases::{self, EndReason, LeaseDetail};
use crate::error::{Error, Result};
use crate::keyring::KeyUse;
use crate::store::credentials::CredentialRow;
use crate::store::database::TargetRow;
use crate::store::{Needs, Tx};
use crate::types::{
    CredentialId, CredentialKind, CredentialState, Entropy, RequestContext, ResourceName,
    SecretBytes, Segment,
};
use crate::vault::{
    Decision, EffectOperation, Note, Resource, Resumed, RetryKey, TokenDetail, Verb, View,
    WRITES_ONE, lease_handle,
};

/// The action; a renewal asks whether it is still held.
pub(super) const ACTION: &str = "database.credentials";
/// A request that is older does not begin to act.
const BEGINS_WITHIN: Duration = Duration::from_secs(15);
/// How long creating the role may take, connecting included.
const ACTS_WITHIN: Duration = Duration::from_secs(10);
/// When the worker looks at an intent that nobody brought to its end.
const RECOVERED_AFTER: Duration = leases::MAY_STILL_COME;
const PASSWORD_BYTES: usize = 32;
const SALT_BYTES: usize = 16;

/// Makes a credential for the caller alone.
#[derive(Debug)]
pub struct IssueCredentials {
    databases: Databases,
    connection: Segment,
    role: Segment,
    ttl_s: i64,
    retry: Option<RetryKey>,
    began: Instant,
}

/// What the caller gets.
#[derive(Debug)]
pub struct Credential {
    /// The lease.
    pub lease: CredentialRow,
    /// All that connecting takes; the password is empty in a replay.
    pub access: Access,
    /// What renews and revokes the lease by itself, where a token asked; none in a replay.
    pub handle: Option<SecretBytes>,
    /// Whether this repeats the answer of an earlier call.
    pub replayed: bool,
}

/// A role that is about to be made.
#[derive(Debug)]
pub struct Prepared {
    known: Arc<KnownRole>,
    target: Arc<PostgresTarget>,
    used: Vec<KeyUse>,
    lease: CredentialRow,
    name: RoleName,
    password: SecretBytes,
    handle: Option<SecretBytes>,
    verifier: Mutex<Option<JoinHandle<Result<SecretBytes>>>>,
}

impl IssueCredentials {
    /// Asks for a credential of a role, for `ttl_s` seconds or, with 0, for the role's default.
    #[must_use]
    pub fn new(
        databases: Databases,
        (connection, role): (Segment, Segment),
        ttl_s: i64,
        retry: Option<RetryKey>,
    ) -> Self {
        Self { databases, connection, role, ttl_s, retry, began: Instant::now() }
    }

    /// The pending lease, its life cut to what is allowed.
    fn lease(
        &self,
        view: &View,
        decision: &Decision,
        known: &KnownRole,
        name: &RoleName,
    ) -> Result<CredentialRow> {
        let (subject, now) = (view.subject()?, view.now());
        let definition = &known.definition;
        let most = decision.cap_age_s(u64::from(definition.max_ttl_s));
        let once = decision.cap_ttl_s(most);
        let ttl_s = match u64::try_from(self.ttl_s) {
            Ok(0) => u64::from(definition.default_ttl_s).min(once),
            Ok(ttl_s) if ttl_s <= once => ttl_s,
            Ok(_) => {
                return Err(Error::invalid(format!(
                    "ttl_s is beyond the {once} seconds that a credential of this role may live"
                )));
            }
            Err(_negative) => return Err(Error::invalid("ttl_s must not be negative")),
        };
        let limits = Limits::of_decision(decision);
        let detail = LeaseDetail::new(
            known.target.row.id,
            name,
            definition.disposal()?,
            definition.default_ttl_s,
        );
        let parts = [self.connection.as_str(), self.role.as_str()];
        let [elevation, elevation_too] = decision.elevations()?;
        Ok(CredentialRow {
            id: CredentialId(view.new_id()?),
            kind: CredentialKind::Lease,
            identity: subject.identity.row.id,
            parent: Some(subject.credential.row.id),
            elevation,
            elevation_too,
            handle: None,
            resource: ResourceName::join("database", &parts)?,
            state: CredentialState::Pending,
            revocation_epoch: subject.identity.row.revocation_epoch,
            issued_at: now,
            expires_at: limits.cap(now.plus(Duration::from_secs(ttl_s))?),
            max_expires_at: limits.cap(now.plus(Duration::from_secs(most))?),
            next_try: Some(now.plus(RECOVERED_AFTER)?),
            tries: 0,
            trouble: String::new(),
            proofs: String::new(),
            detail: detail.encode()?,
        })
    }
}

#[async_trait]
impl Verb for IssueCredentials {
    const ACTION: &'static str = ACTION;
    type Prepared = Prepared;
    type Output = Credential;

    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        resource_of(&self.databases, view, &self.connection, &self.role).await
    }

    async fn prepare(&self, view: &View, decision: &Decision) -> Result<Prepared> {
        let known = self.databases.role(view, &self.connection, &self.role).await?;
        let known = known.ok_or_else(|| Error::not_found("there is no such database role"))?;
        let subject = view.subject()?;
        let name = RoleName::mint(view.vault_id(), &subject.identity.row.name, view.entropy())?;
        let lease = self.lease(view, decision, &known, &name)?;
        let (target, used) = self.databases.pool(view, &known.target).await?;
        let (password, verifier) =
            make_password(view.entropy(), known.definition.scram_iterations)?;
        let verifier = Mutex::new(Some(verifier));
        let handle = match subject.token {
            Some(_) => Some(lease_handle(view.keyring(), lease.id)?.text()),
            None => None,
        };
        Ok(Prepared { known, target, used, lease, name, password, handle, verifier })
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        note.credential = Some(prepared.lease.id);
        note.keys.extend(prepared.used.iter().cloned());
    }

    fn retry_key(&self) -> Option<&RetryKey> {
        self.retry.as_ref()
    }

    fn made(&self, prepared: &Prepared) -> String {
        prepared.lease.id.to_string()
    }

    async fn replay(&self, view: &View, made: &str) -> Result<Credential> {
        let id: CredentialId = made.parse().map_err(Error::internal)?;
        let subject = view.subject()?;
        let token = subject.is_counted().then_some(subject.credential.row.id);
        let made = made.to_owned();
        let read = view.read(move |tx| {
            async move {
                let missing = || Error::internal("a key made what is not there");
                let lease = tx.lookup::<CredentialRow>(&id).await?.ok_or_else(missing)?.row;
                let detail = LeaseDetail::decode(&lease.detail)?;
                let target = tx.lookup::<TargetRow>(&detail.target()?).await?;
                let goes_on = match token {
                    Some(token) => paid_for(tx, &token, &made).await?,
                    None => false,
                };
                Ok((lease, detail, settings(&target.ok_or_else(missing)?.row)?, goes_on))
            }
            .boxed()
        });
        let (lease, detail, settings, goes_on) = read.await?;
        match (lease.state, detail.end_reason) {
            (CredentialState::Active, _) => {
                let access =
                    Access::new(&settings, detail.accessor(), SecretBytes::new(Vec::new()));
                Ok(Credential { lease, access, handle: None, replayed: true })
            }
            (CredentialState::Pending, _) => Err(Error::unavailable(
                "the first call with this idempotency key is under way; retry",
            )),
            // Of a counted use, the call may go on once it is gone: which it may be since this call
            // committed that it is to go.
            (
                CredentialState::Revoking | CredentialState::Ended,
                Some(EndReason::Failed | EndReason::Replaced),
            ) if goes_on => {
                Err(Error::unavailable("what the first call made is being taken back; retry"))
            }
            (CredentialState::Revoking | CredentialState::Ended, Some(EndReason::Failed)) => {
                Err(Error::precondition(
                    "the first call with this idempotency key made nothing; use a new key",
                ))
            }
            (CredentialState::Revoking | CredentialState::Ended | CredentialState::Spent, _) => {
                Err(Error::precondition(
                    "what the first call with this idempotency key made is over; use a new key",
                ))
            }
        }
    }

    async fn supersede(&self, ctx: &RequestContext, tx: &mut Tx, earlier: &str) -> Result<Resumed> {
        leases::supersede(ctx, tx, earlier.parse().map_err(Error::internal)?).await?;
        Ok(Resumed::Anew)
    }
}

#[async_trait]
impl EffectOperation for IssueCredentials {
    type Effect = ();
    const NEEDS: Needs = WRITES_ONE;

    async fn intend(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        _: &Decision,
    ) -> Result<()> {
        tx.insert(&prepared.lease).await?;
        Ok(())
    }

    async fn resume(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        earlier: &str,
        replace: bool,
    ) -> Result<Resumed> {
        leases::resume(ctx, tx, earlier.parse().map_err(Error::internal)?, replace).await
    }

    async fn act(&self, _: &View, prepared: &Prepared) -> Result<()> {
        if self.began.elapsed() > BEGINS_WITHIN {
            return Err(Error::unavailable("the request waited too long; retry"));
        }
        let Prepared { known, target, lease, name, verifier, .. } = prepared;
        let verifier = verifier.lock().take();
        let verifier = verifier.ok_or_else(|| Error::internal("a verifier was used before"))?;
        let verifier = verifier.await.map_err(Error::internal)??;
        let created = target.create(&known.definition, name, &verifier, lease.expires_at);
        match tokio::time::timeout(ACTS_WITHIN, created).await {
            Ok(outcome) => Ok(outcome?),
            Err(_elapsed) => Err(Error::unavailable("the target database did not answer in time")),
        }
    }

    async fn record(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        (): &(),
    ) -> Result<Credential> {
        let mut detail = LeaseDetail::decode(&prepared.lease.detail)?;
        detail.created = true;
        let row = CredentialRow {
            state: CredentialState::Active,
            next_try: Some(prepared.lease.expires_at),
            detail: detail.encode()?,
            ..prepared.lease.clone()
        };
        let lease = tx.update(1, &row).await?.row;
        let Prepared { known, name, password, handle, .. } = prepared;
        let access = Access::new(&known.settings, name.as_str(), password.clone());
        Ok(Credential { lease, access, handle: handle.clone(), replayed: false })
    }

    async fn abandon(&self, ctx: &RequestContext, tx: &mut Tx, prepared: &Prepared) -> Result<()> {
        leases::hand_over(ctx, tx, prepared.lease.id).await
    }
}

/// Tells whether a counted use of a token paid for what a call made before.
async fn paid_for(tx: &mut Tx, token: &CredentialId, made: &str) -> Result<bool> {
    let Some(token) = tx.lookup::<CredentialRow>(token).await? else { return Ok(false) };
    Ok(TokenDetail::decode(&token.row.detail)?.paid.iter().any(|paid| paid == made))
}

/// Makes a password of 256 random bits, and begins to make the verifier that the target stores for
/// it, which is done by the time that the intent is durable.
fn make_password(
    entropy: &dyn Entropy,
    iterations: u32,
) -> Result<(SecretBytes, JoinHandle<Result<SecretBytes>>)> {
    let mut bytes = Zeroizing::new([0; PASSWORD_BYTES]);
    entropy.fill(bytes.as_mut())?;
    let mut salt = [0; SALT_BYTES];
    entropy.fill(&mut salt)?;
    let mut text = vec![0; BASE64URL_NOPAD.encode_len(PASSWORD_BYTES)];
    BASE64URL_NOPAD.encode_mut(bytes.as_ref(), &mut text);
    let password = SecretBytes::new(text);
    let iterations = NonZeroU32::new(iterations).ok_or_else(|| Error::internal("no iterations"))?;
    // 0.8 ms at 4,096 iterations: too long for a thread that others wait for.
    let kept = password.clone();
    let verifier = tokio::task::spawn_blocking(move || {
        let verifier = scram_sha_256_verifier(&kept, &salt, iterations)?;
        Ok(SecretBytes::new(verifier.as_bytes().to_vec()))
    });
    Ok((password, verifier))
}
