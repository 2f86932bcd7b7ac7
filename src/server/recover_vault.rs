//! `strongroom recover`: a vault whose HSM is lost gets a new one, with the shares of a recovery set or
//! with a recovery token.
//!
//! Offline: the server is stopped, and nothing listens. What is wrapped for the new root is committed
//! some at a time and counts for nothing until the last commit, which puts the new keys in the place
//! of the old ones and is on the record.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::sync::oneshot;

use super::assemble;
use super::backup::Pin;
use super::files;
use super::found::make_authorities;
use super::node::Ingredients;
use super::recovery_token::RecoveryToken;
use super::run::{environment, failed, in_runtime};
use crate::audit::{self, CallerFact, DecisionFact, Draft, Ending, EntryFacts, Field, RecordCodec};
use crate::cli::{
    Failure, Global, OpenShare, Outcome, RecoverArgs, RecoveryTokenArgs, fields, note, read_text,
    show,
};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::keyring::{Keyring, Recovered, SetKey, SetOpener};
use crate::store::keys::{HsmPurpose, VaultRow, WrapRow};
use crate::store::{
    BatchCodec, Change, Entry, Job, Needs, Reader, RowSealer, Settled, Store, StoreError, Tx, Work,
    Writer, Writes, named_keys, records, recovery_sets,
};
use crate::types::{Id, RequestId, SecretBytes, TaskGroup, UnixMillis, VaultId};

/// Keys that are wrapped again in one commit.
const STEP: i64 = 200;
/// Names of keys that are told at the most.
const TOLD: usize = 20;

/// What became of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultRecovered {
    /// Its id.
    pub vault: VaultId,
    /// Keys that are wrapped for the new root.
    pub wrapped: u64,
    /// Keys that were not wrapped for the set: nothing opens them any more.
    pub lost: u64,
    /// Named keys that were in the HSM that is lost, as far as they are told.
    pub gone: Vec<String>,
}

/// Recovers.
pub(super) fn run(global: &Global, args: &RecoverArgs) -> Outcome {
    let config = Config::load(&args.config).map_err(|error| failed(&error.into()))?;
    environment(&config, None)?;
    let remains = Remains::of(&config, &args.shares, &args.token)?;
    let remains = remains.ok_or_else(|| Failure::usage("there is no share"))?;
    let pin = Pin::of(&config, args.pin_file.as_deref())?;
    in_runtime(&config, true, async {
        let told = |error: Error| failed(&error);
        files::private_dir(&config.server.data_dir).map_err(told)?;
        let _lock = files::lock(&config.server.data_dir).map_err(told)?;
        let token = assemble::token(&config).map_err(told)?;
        let parts = assemble::ingredients(&config, token).map_err(told)?;
        let opener = remains.opener().await.map_err(told)?;
        let recovering = recover(&parts, &opener, pin.secret());
        let done = pin.remembered(&config, recovering).await.map_err(told)?;
        let VaultRecovered { vault, wrapped, lost, gone } = &done;
        let vault = vault.to_string();
        let shown = json!({
            "vault_id": vault,
            "keys_wrapped": wrapped,
            "keys_lost": lost,
            "hsm_keys_lost": gone,
        });
        show(global.output, &shown, |_| {
            fields(&[
                ("vault", vault.clone()),
                ("keys wrapped", wrapped.to_string()),
                ("keys lost", if *lost == 0 { String::new() } else { lost.to_string() }),
                ("gone with the HSM", gone.join(" ")),
            ])
        })?;
        note(
            "start the server, and get an administrator in with `strongroom recover-admin`: the \
             authorities are new, so that nobody's login is worth anything any more",
        );
        note(&format!(
            "the HSM that knew who was shredded is gone: whoever was since this store was copied is \
             shredded again at that start if {} names them; write the ids of others there first, \
             one a line",
            assemble::shredded(&config).display()
        ));
        Ok(())
    })
}

/// What remains of a vault whose HSM is lost, beside its store.
#[derive(Debug)]
pub(super) enum Remains {
    /// Enough shares of a recovery set.
    Shares(SetKey),
    /// A recovery token.
    Token(RecoveryToken),
}

impl Remains {
    /// Reads what was given; none where nothing was.
    pub(super) fn of(
        config: &Config,
        shares: &[PathBuf],
        token: &RecoveryTokenArgs,
    ) -> Outcome<Option<Self>> {
        if !shares.is_empty() {
            return Ok(Some(Self::Shares(join(shares)?)));
        }
        Ok(RecoveryToken::of(config, token)?.map(Self::Token))
    }

    /// Makes it ready: the PIN of a token is tried.
    pub(super) async fn opener(&self) -> Result<SetOpener> {
        Ok(match self {
            Self::Shares(key) => SetOpener::Shares(key.clone()),
            Self::Token(token) => SetOpener::Token(token.open().await?),
        })
    }
}

/// Puts shares together.
fn join(files: &[PathBuf]) -> Outcome<SetKey> {
    let mut shares = Vec::with_capacity(files.len());
    for file in files {
        let text = read_text(file)?;
        let share: Option<OpenShare> = serde_json::from_str(&text).ok();
        let unfit = || Failure::usage(format!("{} holds no opened share", file.display()));
        shares.push(share.ok_or_else(unfit)?);
    }
    let first = shares.first().ok_or_else(|| Failure::usage("there is no share"))?;
    let (vault, set) = (first.vault_id.clone(), first.set.clone());
    if shares.iter().any(|share| share.vault_id != vault || share.set != set) {
        return Err(Failure::usage("the shares are of different sets"));
    }
    if shares.len() < usize::from(first.threshold) {
        let message = format!("{} shares are enough, not {}", first.threshold, shares.len());
        return Err(Failure::usage(message));
    }
    let unfit = || Failure::usage("a share that is none");
    let mut parts = Vec::with_capacity(shares.len());
    for share in &shares {
        let bytes = STANDARD.decode(&share.share).map_err(|_malformed| unfit())?;
        parts.push(SecretBytes::new(bytes));
    }
    let set = set.parse::<Id>().map_err(|_none| unfit())?;
    let vault = vault.parse::<VaultId>().map_err(|_none| unfit())?;
    SetKey::join((vault, set), &parts).map_err(|_malformed| unfit())
}

/// Recovers a vault into the HSM of a node that does not run.
///
/// # Errors
/// [`Error::AlreadyExists`] where the HSM holds the vault's root key: nothing is lost;
/// [`Error::Precondition`] for shares or a token that are not those of a set of this vault, and for a
/// store that was not wrapped for it; what store and HSM answer.
pub async fn recover(
    parts: &Ingredients,
    opener: &SetOpener,
    pin: SecretBytes,
) -> Result<VaultRecovered> {
    let (sealer, codec) = (Arc::new(RowSealer::default()), Arc::new(RecordCodec::default()));
    let tasks = TaskGroup::default();
    let batches = Arc::clone(&codec) as Arc<dyn BatchCodec>;
    let (reader, writer) =
        Store::open(&parts.location, &parts.node, Arc::clone(&sealer), batches, &tasks).await?;
    let keyring = Keyring::new(Arc::clone(&parts.hsm), Arc::clone(&parts.entropy), sealer);
    let done = async {
        let now = parts.clock.now();
        let recovered = keyring.recover(&reader, opener, pin, now).await?;
        codec.set_key(Some(recovered.keys.batch.clone()));
        let (wrapped, lost) = wrap(&reader, &writer, &keyring, &recovered.key).await?;
        let gone = gone(&reader).await?;
        let id = recovered.vault.id;
        commit(parts, &keyring, &codec, &writer, recovered, (wrapped, lost)).await?;
        Ok(VaultRecovered { vault: id, wrapped, lost, gone })
    };
    let done: Result<VaultRecovered> = done.await;
    drop((reader, writer));
    let forgotten = keyring.seal().await;
    tasks.shutdown().await;
    let done = done?;
    forgotten?;
    Ok(done)
}

/// Wraps every key for the new root.
async fn wrap(
    reader: &Reader,
    writer: &Writer,
    keyring: &Keyring,
    key: &SetKey,
) -> Result<(u64, u64)> {
    let (mut after, mut wrapped, mut lost) = (String::new(), 0_u64, 0_u64);
    loop {
        let behind = after.clone();
        let view = reader.view(move |tx| {
            Box::pin(async move { Ok(recovery_sets::keys_after(tx, &behind, STEP).await?) })
        });
        let rows: Vec<_> = view.await?.into_iter().map(|found| found.row).collect();
        let Some(end) = rows.last() else { return Ok((wrapped, lost)) };
        after = end.id.to_string();
        let (wraps, without) = keyring.wrap_again(reader, key, &rows).await?;
        lost = lost.saturating_add(without);
        wrapped = wrapped.saturating_add(u64::try_from(wraps.len()).unwrap_or(u64::MAX));
        let (reply, settled) = oneshot::channel();
        let work = Box::new(Wraps { wraps, reply });
        let needs = Needs { writes: Writes::Many, bumps: false, urgent: false };
        writer.submit(Job { fence: None, needs, work }).await?;
        durable(settled).await?;
    }
}

/// The named keys that were in the HSM that is lost.
async fn gone(reader: &Reader) -> Result<Vec<String>> {
    let view = reader.view(|tx| {
        Box::pin(async move {
            let limit = i64::try_from(TOLD).map_err(Error::internal)?;
            Ok(named_keys::in_hsm(tx, limit).await?)
        })
    });
    Ok(view.await?.into_iter().map(|found| found.row.name.to_string()).collect())
}

async fn commit(
    parts: &Ingredients,
    keyring: &Keyring,
    codec: &Arc<RecordCodec>,
    writer: &Writer,
    mut recovered: Recovered,
    (wrapped, lost): (u64, u64),
) -> Result<()> {
    let now = parts.clock.now();
    let VaultRow { id, trust_domain, dev, .. } = recovered.vault.clone();
    let made = make_authorities(parts, (&trust_domain.parse()?, dev), keyring, id, now).await?;
    for purpose in [HsmPurpose::CaRoot, HsmPurpose::CaIssuing, HsmPurpose::CaLogin] {
        let authority = made.get(&purpose).ok_or(Error::Internal)?;
        recovered.set_certificate(purpose, authority.certificate_der());
    }
    let told = format!("{wrapped} keys wrapped for the new root, {lost} lost");
    let facts = EntryFacts {
        at: now,
        request: RequestId(Id::ordered(now, parts.entropy.as_ref())?),
        caller: CallerFact::System("recover"),
        action: "system.recover",
        resources: Vec::new(),
        decision: DecisionFact { allowed: true, reason: "allowed", by: "recovery set".into() },
        factors: Vec::new(),
        private: vec![(Field::Detail, told.into())],
    };
    let entry = facts.draft(parts.entropy.as_ref())?;
    let (reply, settled) = oneshot::channel();
    let work = Box::new(Last { recovered, codec: Arc::clone(codec), now, entry, reply });
    let needs = Needs { writes: Writes::Many, bumps: true, urgent: false };
    writer.submit(Job { fence: None, needs, work }).await?;
    durable(settled).await
}

async fn durable(settled: oneshot::Receiver<Settled>) -> Result<()> {
    match settled.await.map_err(|_dropped| Error::OutcomeUnknown)? {
        Settled::Durable { outcome, .. } => outcome,
        Settled::Moved => Err(Error::internal("a recovery has no fence")),
        Settled::Lost(error) => Err(error.into()),
    }
}

/// Wraps on their way to the store: they change nothing yet, so that they leave no entry.
struct Wraps {
    wraps: Vec<WrapRow>,
    reply: oneshot::Sender<Settled>,
}

#[async_trait]
impl Work for Wraps {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        recovery_sets::put_wraps(tx, &self.wraps).await?;
        Ok(())
    }

    fn entry(&mut self, _: Result<&[Change], &Error>) -> Option<Entry> {
        None
    }

    fn settle(self: Box<Self>, settled: Settled) {
        // The recovery waits for it.
        let _gone = self.reply.send(settled);
    }
}

/// The commit after which the vault is that of the new HSM.
struct Last {
    recovered: Recovered,
    codec: Arc<RecordCodec>,
    now: UnixMillis,
    entry: Draft,
    reply: oneshot::Sender<Settled>,
}

#[async_trait]
impl Work for Last {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        self.recovered.store(tx).await?;
        // The store may be a backup: what was handed out for a while only is void, as after one.
        let found = tx.lookup::<VaultRow>(&self.recovered.vault.id).await?;
        let found = found.ok_or(StoreError::Malformed)?;
        let restore_epoch = found.row.restore_epoch.checked_add(1).ok_or(StoreError::Malformed)?;
        let row = VaultRow { restore_epoch, restored_at: self.now, ..found.row };
        tx.update(found.version, &row).await?;
        // What the lost key signed does not verify with the new one: the next checkpoint is its first.
        let head = audit::head(tx, &self.codec).await?;
        records::store_checkpoint(tx, head.checkpoint, String::new(), self.now.0).await?;
        tx.bump_authority()
    }

    fn entry(&mut self, outcome: Result<&[Change], &Error>) -> Option<Entry> {
        let changes = outcome.ok()?;
        let ending = Ending { keys: &self.recovered.used, changes, ..Ending::plain("OK") };
        // One that cannot be encoded is left empty, which no batch accepts.
        Some(self.entry.end(&ending).unwrap_or_default())
    }

    fn settle(self: Box<Self>, settled: Settled) {
        // The recovery waits for it.
        let _gone = self.reply.send(settled);
    }
}
