//! Unsealed, sealed, and the ways between: what a node takes up, drops, and obeys.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::acceptance::{self, AcceptOrder, Accepted, read_rollback};
use super::listener::{self, ListenerTls};
use super::node::Ingredients;
use super::recovery::{Given, RecoveryOrder};
use super::shreds;
use crate::audit::RecordCodec;
use crate::cli::control::Rollback;
use crate::engines::database::Databases;
use crate::engines::pki::{Authorities, Authority, AuthoritySlot, Request, Role, TrustDomain};
use crate::engines::recovery_sets::DescribedSet;
use crate::engines::system::{CONTROL_SOCKET, RecoverAdministrator, Recovered, Unseal};
use crate::error::{Error, Result};
use crate::grpc::tls::{Tls, Trust};
use crate::keyring::{Challenge, FinalTry, Keyring};
use crate::store::Reader;
use crate::store::keys::{self, Check, Foundation, VaultRow};
use crate::types::{Caller, SecretBytes, Standing, State, UnixMillis};
use crate::vault::{Anchored, Installation, Recovery, Vault};

/// Why a vault is unsealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// It starts: a `seal` on record is obeyed.
    Start,
    /// Somebody asked on the server's own socket: a `seal` on record is taken off.
    Asked,
}

/// What seals and unseals a node; clones share it.
#[derive(Debug, Clone)]
pub struct Life(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Ingredients,
    reader: Reader,
    codec: Arc<RecordCodec>,
    keyring: Keyring,
    vault: Vault,
    authorities: AuthoritySlot,
    databases: Databases,
    tls: Arc<Tls>,
    standing: Standing,
    /// Seals, unseals and reloads go one after the other.
    gate: tokio::sync::Mutex<()>,
    listener_ends: Mutex<UnixMillis>,
    /// Since when it serves without a break.
    serves_since: Mutex<Option<Instant>>,
    /// The challenge for who asks for a recovery.
    challenge: Given,
}

/// What a life is made of.
#[derive(Debug)]
pub(super) struct Organs {
    pub(super) parts: Ingredients,
    pub(super) reader: Reader,
    pub(super) codec: Arc<RecordCodec>,
    pub(super) keyring: Keyring,
    pub(super) vault: Vault,
    pub(super) authorities: AuthoritySlot,
    pub(super) databases: Databases,
    pub(super) tls: Arc<Tls>,
    pub(super) standing: Standing,
}

impl Life {
    pub(super) fn new(organs: Organs) -> Self {
        let Organs { parts, reader, codec, keyring, vault, .. } = organs;
        let Organs { authorities, databases, tls, standing, .. } = organs;
        Self(Arc::new(Inner {
            parts,
            reader,
            codec,
            keyring,
            vault,
            authorities,
            databases,
            tls,
            standing,
            gate: tokio::sync::Mutex::new(()),
            listener_ends: Mutex::new(UnixMillis(i64::MAX)),
            serves_since: Mutex::new(None),
            challenge: Given::default(),
        }))
    }

    /// Whether the node serves.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.0.standing
    }

    /// The vault.
    #[must_use]
    pub fn vault(&self) -> &Vault {
        &self.0.vault
    }

    pub(super) fn parts(&self) -> &Ingredients {
        &self.0.parts
    }

    pub(super) fn keyring(&self) -> &Keyring {
        &self.0.keyring
    }

    /// Where the authorities are while the vault is unsealed.
    #[must_use]
    pub fn authorities(&self) -> &AuthoritySlot {
        &self.0.authorities
    }

    /// Unseals and serves.
    ///
    /// # Errors
    /// [`Error::Sealed`] at a start with a `seal` on record; [`Error::Precondition`] for a PIN that
    /// the token refuses, and for a vault that is unsealed already; what HSM and store answer.
    /// The node is as sealed as before then.
    pub async fn unseal(
        &self,
        pin: SecretBytes,
        final_try: FinalTry,
        occasion: Occasion,
    ) -> Result<()> {
        let _gate = self.0.gate.lock().await;
        if !self.0.keyring.is_sealed() {
            return Err(Error::precondition("the vault is unsealed already"));
        }
        if occasion == Occasion::Start && self.seal_on_record().await? {
            self.0.standing.set(State::Sealed(ON_RECORD.to_owned()));
            return Err(Error::Sealed);
        }
        let master = self.0.keyring.unseal(&self.0.reader, pin, final_try).await?;
        self.0.codec.set_key(Some(master.batch.clone()));
        match self.open(occasion).await {
            Ok(state) => {
                self.serve_as(state);
                tracing::info!(vault = %self.0.vault.installation().id, "unsealed");
                Ok(())
            }
            Err(error) => {
                self.drop_keys().await;
                Err(error)
            }
        }
    }

    /// Drops every key and logs the HSM out.
    ///
    /// # Errors
    /// What the HSM answers to the logout; the keys are gone all the same.
    pub async fn seal(&self, because: &str) -> Result<()> {
        let _gate = self.0.gate.lock().await;
        self.seal_gated(because).await;
        Ok(())
    }

    /// Obeys a `seal` on record, whichever node wrote it.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn obey_seal(&self) -> Result<()> {
        if self.0.keyring.is_sealed() || !self.seal_on_record().await? {
            return Ok(());
        }
        // Not while an unsealing is about to take it off, and not for what one took off since.
        let Ok(_gate) = self.0.gate.try_lock() else { return Ok(()) };
        if !self.0.keyring.is_sealed() && self.seal_on_record().await? {
            self.seal_gated(ON_RECORD).await;
        }
        Ok(())
    }

    /// Takes the listener's certificate and trust anew, for handshakes to come.
    ///
    /// # Errors
    /// What is wrong with them; what served before serves on.
    pub async fn reload_tls(&self) -> Result<()> {
        let _gate = self.0.gate.lock().await;
        match self.0.authorities.current() {
            Ok(authorities) => self.show(&authorities).await,
            Err(_sealed) => {
                let found = foundation(&self.0.reader, Check::Nothing).await?;
                let identity = listener::identity_while_sealed(&self.0.parts)?;
                self.0.tls.replace(&identity, trust_unchecked(&found)?)
            }
        }
    }

    /// Renews the listener's certificate where it is near its end.
    ///
    /// # Errors
    /// As [`Life::reload_tls`].
    pub async fn renew_listener(&self) -> Result<()> {
        let left = self.0.listener_ends.lock().since(self.0.parts.clock.now());
        if left < listener::RENEW_BEFORE && !self.0.vault.is_sealed() {
            return self.reload_tls().await;
        }
        Ok(())
    }

    /// Ends: nothing is let in, and every key is dropped.
    pub(super) async fn end(&self) -> Result<()> {
        let _gate = self.0.gate.lock().await;
        self.0.authorities.set(None);
        Ok(self.0.keyring.seal().await?)
    }

    /// Seals for whoever holds the gate.
    async fn seal_gated(&self, because: &str) {
        self.0.standing.set(State::Sealed(because.to_owned()));
        self.drop_keys().await;
        tracing::warn!(because, "sealed");
    }

    async fn seal_on_record(&self) -> Result<bool> {
        let reader = &self.0.reader;
        reader.urgent_view(|tx| async move { Ok(keys::seal_on_record(tx).await?) }.boxed()).await
    }

    /// Shows the rollback that waits for acceptance.
    ///
    /// # Errors
    /// [`Error::Precondition`] when none does; what HSM and store answer.
    pub async fn rollback(&self) -> Result<Rollback> {
        let _gate = self.0.gate.lock().await;
        self.require_held()?;
        Ok(read_rollback(&self.0.vault).await?.shown)
    }

    /// Takes an administrator's acceptance of a log that does not extend what the HSM keeps of it, or
    /// whose head is altered: in its ceremony, as many as that takes.
    ///
    /// # Errors
    /// [`Error::Precondition`] when nothing waits for acceptance; [`Error::Unauthenticated`] for a
    /// login or signature that is not accepted; [`Error::StepUp`] where a factor is to be proven;
    /// [`Error::Denied`] with the rule that is against it; what HSM and store answer.
    pub async fn accept(&self, order: AcceptOrder) -> Result<Accepted> {
        let _gate = self.0.gate.lock().await;
        self.require_held()?;
        let accepted = acceptance::accept(&self.0.vault, order).await?;
        if accepted == Accepted::Wholly {
            if let Err(error) = shreds::again(&self.0.vault, self.list()).await {
                // Accepted it is: the next unsealing goes on from here.
                self.seal_gated("who was shredded since could not be shredded again").await;
                return Err(error);
            }
            self.serve_as(State::Serving);
            tracing::warn!(alarm = true, "the restored store is accepted");
        }
        Ok(accepted)
    }

    fn serve_as(&self, state: State) {
        let now = self.0.parts.clock.monotonic();
        let serves = state == State::Serving;
        *self.0.serves_since.lock() = serves.then_some(now);
        if serves {
            // At a start, and of a store that was accepted: nobody knows what was done to it.
            self.0.vault.state().ask();
        }
        self.0.standing.set(state);
    }

    /// Gives what the HSM is to answer for whoever asks for a recovery with its PIN.
    ///
    /// # Errors
    /// Why nobody is served.
    pub fn challenge(&self) -> Result<Challenge> {
        self.require_serving()?;
        self.0.challenge.give(&self.0.keyring, self.0.parts.clock.monotonic())
    }

    /// Recovers an administrator: begins it, tells when it is due, or yields the login.
    ///
    /// # Errors
    /// As [`Given::prove`] and [`RecoverAdministrator`]; why nobody is served.
    pub async fn recover(&self, order: RecoveryOrder) -> Result<Recovered> {
        self.require_serving()?;
        let now = self.0.parts.clock.monotonic();
        let request = Request::parse(order.csr_pem.as_bytes())?;
        let proven = self.0.challenge.prove(&self.0.keyring, &order, now).await?;
        let since = *self.0.serves_since.lock();
        let op = RecoverAdministrator {
            authorities: self.0.authorities.clone(),
            limits: self.0.parts.limits.login,
            name: order.name,
            request,
            served: since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
            proven,
        };
        let ctx = self.0.vault.context(Caller::System(CONTROL_SOCKET), None)?;
        let recovered = self.0.vault.run(&ctx, op).await?;
        let Recovery { id, name, state, due_at, .. } = &recovered.recovery;
        tracing::warn!(recovery = %id, %name, %state, due = %due_at, "recovering an administrator");
        Ok(recovered)
    }

    pub(super) fn require_serving(&self) -> Result<()> {
        self.0.standing.refusal().map_or(Ok(()), Err)
    }

    /// How many restores were accepted; none where that cannot be verified now.
    pub(super) async fn restores(&self) -> Option<i64> {
        let id = self.0.vault.installation().id;
        let row = self
            .0
            .reader
            .urgent_view(move |tx| async move { Ok(tx.lookup::<VaultRow>(&id).await?) }.boxed());
        row.await.ok().flatten().map(|found| found.row.restore_epoch)
    }

    /// What opens the vault once the HSM is lost; none where that cannot be verified now.
    pub(super) async fn recovery_sets(&self) -> Option<Vec<DescribedSet>> {
        let id = self.0.vault.installation().id;
        let read =
            self.0.reader.view(move |tx| async move { DescribedSet::active(tx, id).await }.boxed());
        read.await.ok()
    }

    fn require_held(&self) -> Result<()> {
        match self.0.standing.state() {
            State::Held(_) => Ok(()),
            State::Serving | State::Sealed(_) | State::Unheard | State::Stopping => {
                Err(Error::precondition("nothing waits for acceptance"))
            }
        }
    }

    async fn open(&self, occasion: Occasion) -> Result<State> {
        // What the vault was built from was not verified then; this is.
        let found = foundation(&self.0.reader, Check::InForce).await?;
        if installation(&found) != *self.0.vault.installation() {
            tracing::error!(alarm = true, "the vault's row changed while it was sealed");
            return Err(Error::precondition("the vault's row changed; start the server again"));
        }
        self.0.vault.mark_clock().await?;
        let ours: TrustDomain = found.vault.trust_domain.parse()?;
        self.take_authorities(&ours).await?;
        let anchored = self.0.vault.check_anchor().await?;
        if occasion == Occasion::Asked {
            let ctx = self.0.vault.context(Caller::System(CONTROL_SOCKET), None)?;
            self.0.vault.run(&ctx, Unseal).await?;
        }
        let because = match anchored {
            Anchored::Extends { .. } | Anchored::Unknown => {
                shreds::again(&self.0.vault, self.list()).await?;
                return Ok(State::Serving);
            }
            Anchored::RolledBack { kept, found } => format!(
                "the HSM knows a log of {} entries that this store, with {}, does not extend",
                kept.size, found.size
            ),
            Anchored::Altered { found, .. } => format!(
                "the head of the log, of {} entries, is none that this vault wrote",
                found.size
            ),
        };
        let undone = self.0.vault.shreds_undone().await?;
        let unnamed = shreds::unnamed(&undone, self.list());
        Ok(State::Held(
            [Some(because), unnamed].into_iter().flatten().collect::<Vec<_>>().join("; "),
        ))
    }

    /// The file that lists who was shredded.
    fn list(&self) -> Option<&Path> {
        self.0.parts.shredded.as_deref()
    }

    async fn take_authorities(&self, ours: &TrustDomain) -> Result<()> {
        let hsm = self.0.parts.hsm.as_ref();
        let crl_url = self.0.parts.crl_url.clone();
        let loaded = Authorities::load(&self.0.keyring, hsm, ours, crl_url).await?;
        let authorities = Arc::new(loaded);
        self.0.authorities.set(Some(Arc::clone(&authorities)));
        self.show(&authorities).await
    }

    /// Takes up authorities that were rotated, and lets go of those that were retired, whichever node
    /// did it.
    ///
    /// # Errors
    /// What is wrong with them.
    pub async fn follow_authorities(&self) -> Result<()> {
        let are_loaded = || -> Result<bool> {
            Ok(self.0.authorities.current()?.are_of(&self.0.keyring.hsm_keys()?))
        };
        if are_loaded()? {
            return Ok(());
        }
        let _gate = self.0.gate.lock().await;
        if are_loaded()? {
            return Ok(());
        }
        let ours: TrustDomain = self.0.vault.installation().trust_domain.parse()?;
        self.take_authorities(&ours).await
    }

    async fn show(&self, authorities: &Authorities) -> Result<()> {
        let ours: TrustDomain = self.0.vault.installation().trust_domain.parse()?;
        let Inner { parts, vault, authorities: slot, .. } = &*self.0;
        let (identity, ends) = match listener::identity(parts, vault, slot).await {
            Ok(identity) => {
                let ends = identity.not_after();
                (identity, ends)
            }
            // Files are the operator's to mend. What we sign is recorded first, and a store that
            // takes no record must not keep the vault sealed; renewing tries again.
            Err(error) if matches!(parts.tls, ListenerTls::Issued { .. }) => {
                tracing::warn!(%error, "the listener's certificate could not be issued");
                (listener::identity_while_sealed(parts)?, UnixMillis(0))
            }
            Err(error) => return Err(error),
        };
        let logins = authorities.of(Role::Login).map(Authority::certificate_der);
        let trust = Trust::of(&ours, logins)?;
        self.0.tls.replace(&identity, trust)?;
        *self.0.listener_ends.lock() = ends;
        Ok(())
    }

    async fn drop_keys(&self) {
        *self.0.serves_since.lock() = None;
        self.0.authorities.set(None);
        self.0.vault.forget();
        if let Err(error) = self.0.keyring.seal().await {
            tracing::warn!(%error, "the keys are gone, but the HSM could not be logged out");
        }
        self.0.codec.set_key(None);
        // Without keys nobody opens another.
        self.0.databases.forget_all();
    }
}

/// Why a node is sealed that found a `seal` on record.
const ON_RECORD: &str = "a seal is on record; `strongroom unseal` takes it off";

/// Reads what the hierarchy hangs on; with [`Check::Nothing`] nothing of it may be believed.
pub(super) async fn foundation(reader: &Reader, check: Check) -> Result<Foundation> {
    let found = reader
        .view(move |tx| async move { Ok(keys::foundation(tx, &check).await?) }.boxed())
        .await?;
    found.ok_or_else(|| Error::precondition("the store holds no vault; run `strongroom init`"))
}

/// Trusts what an unverified row names: while nothing but health is answered, to let handshakes
/// come to their end.
pub(super) fn trust_unchecked(found: &Foundation) -> Result<Trust> {
    let logins = found.hsm_keys.iter().filter(|key| {
        key.purpose == keys::HsmPurpose::CaLogin && key.state != keys::KeyState::Destroyed
    });
    let logins = logins.filter_map(|key| key.certificate.as_deref());
    Trust::of(&found.vault.trust_domain.parse()?, logins)
}

pub(super) fn installation(found: &Foundation) -> Installation {
    let row = &found.vault;
    Installation {
        id: row.id,
        trust_domain: row.trust_domain.clone(),
        dev: row.dev,
        origin: row.origin.clone(),
    }
}
