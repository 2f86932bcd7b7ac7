//! The store, the vault in it, its keys in the token, the clock.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::Finding;
use crate::audit::RecordCodec;
use crate::config::{self, Config};
use crate::engines::ceremonies::administrators_apart;
use crate::engines::pki::{MANY, Said, listed};
use crate::engines::recovery_sets::DescribedSet;
use crate::error::Error;
use crate::hsm::{Hsm, Pkcs11Hsm};
use crate::keyring::{FinalTry, Keyring, KeyringError};
use crate::server::assemble;
use crate::server::files;
use crate::server::life;
use crate::server::pin::PinMemory;
use crate::store::keys::{Check, Foundation, HsmKeyRow, KeyState, VaultRow};
use crate::store::{BatchCodec, Location, Reader, RowSealer, Store, StoreError, clock, crls, keys};
use crate::types::{Clock as _, SystemClock, SystemEntropy, TaskGroup, VaultId};

/// How far this clock may be from the nodes' mark.
const SKEW: Duration = Duration::from_secs(5);
/// How long before its end an authority is to be rotated: whoever trusts a root has to hear of the next.
const ROTATE_BEFORE: Duration = Duration::from_hours(180 * 24);

/// Looks at all of it, as far as it goes.
pub(super) async fn examine(config: &Config, token: Option<Arc<Pkcs11Hsm>>) -> Vec<Finding> {
    let location = match assemble::location(&config.store) {
        Ok(location) => location,
        Err(error) => {
            let advice = "correct the password's source in [store]";
            return vec![Finding::wrong("store", error.to_string(), advice)];
        }
    };
    if let config::Store::Sqlite(sqlite) = &config.store
        && !sqlite.path.exists()
    {
        let found = format!("{} is not there", sqlite.path.display());
        return vec![Finding::warning("store", found, "`strongroom init` makes it")];
    }
    // Looking into one would leave files beside it that nobody can write either.
    if let config::Store::Sqlite(sqlite) = &config.store
        && let Err(error) = files::require_writable_store(&sqlite.path)
    {
        return vec![Finding::wrong("store", error.to_string(), STORE)];
    }
    let mut findings = vec![schema(config, &location).await];
    if findings.iter().any(|finding| finding.level != super::Level::Ok) {
        return findings;
    }
    let (tasks, sealer) = (TaskGroup::default(), Arc::new(RowSealer::default()));
    let codec = Arc::new(RecordCodec::default()) as Arc<dyn BatchCodec>;
    match Store::open(&location, "doctor", Arc::clone(&sealer), codec, &tasks).await {
        Ok((reader, writer)) => {
            drop(writer);
            findings.extend(inside(config, token, reader, sealer).await);
        }
        Err(error) => findings.push(Finding::wrong("store", error.to_string(), STORE)),
    }
    findings
}

/// What to do about a store that does not answer.
const STORE: &str = "check store.url, its rights and its disk";

async fn schema(config: &Config, location: &Location) -> Finding {
    match Store::schema(location).await {
        Ok((Some(found), known)) if found == known => {
            Finding::ok("store", format!("{}, schema {found}", config.store))
        }
        Ok((Some(found), known)) => Finding::warning(
            "store",
            format!("{}, schema {found} of {known}", config.store),
            "the server brings a SQLite up to date when it starts; a PostgreSQL, `strongroom migrate`",
        ),
        Ok((None, _)) => {
            Finding::warning("store", format!("{} is empty", config.store), "run `strongroom init`")
        }
        Err(StoreError::Newer { found, known }) => Finding::wrong(
            "store",
            format!("its schema {found} is newer than this program's {known}"),
            "run the newer program",
        ),
        Err(StoreError::ReadOnly) => {
            Finding::wrong("store", "it is read-only", "give the server's user the right to write")
        }
        Err(error) => Finding::wrong("store", error.to_string(), STORE),
    }
}

async fn inside(
    config: &Config,
    token: Option<Arc<Pkcs11Hsm>>,
    reader: Reader,
    sealer: Arc<RowSealer>,
) -> Vec<Finding> {
    let found = match life::foundation(&reader, Check::Nothing).await {
        Ok(found) => found,
        Err(error) => {
            return vec![Finding::warning("vault", error.to_string(), "run `strongroom init`")];
        }
    };
    let mut findings = vec![vault(config, &found), seal(&reader).await, time(&reader).await];
    findings.extend([authorities(&found), revocation_list(&reader).await]);
    if let Some(token) = token {
        findings.extend(keys_in(config, token, (&reader, &found.vault), sealer).await);
    }
    findings
}

fn vault(config: &Config, found: &Foundation) -> Finding {
    let row = &found.vault;
    if row.dev {
        return Finding::wrong(
            "vault",
            "it is marked as development, for ever",
            "`strongroom dev` serves it; found another with `strongroom init` for real use",
        );
    }
    if row.trust_domain != config.vault.trust_domain || row.origin != config.record.origin {
        return Finding::wrong(
            "vault",
            format!("its trust domain is {}, its log {}", row.trust_domain, row.origin),
            "write these into the configuration: they cannot change",
        );
    }
    Finding::ok("vault", format!("{}, {}", row.id, row.trust_domain))
}

async fn seal(reader: &Reader) -> Finding {
    let read = reader.view(|tx| async move { Ok(keys::seal_on_record(tx).await?) }.boxed());
    match read.await {
        Ok(false) => Finding::ok("seal", "none on record"),
        Ok(true) => Finding::warning("seal", "on record", "`strongroom unseal` takes it off"),
        Err(error) => Finding::wrong("seal", error.to_string(), STORE),
    }
}

async fn time(reader: &Reader) -> Finding {
    const CHECK: &str = "clock";
    let read = reader.view(|tx| async move { Ok(clock::mark(tx).await?) }.boxed()).await;
    let now = SystemClock.now();
    match read {
        Ok(Some((_, mark))) if mark.since(now) > SKEW => Finding::wrong(
            CHECK,
            format!("it is {} s behind what the nodes saw", mark.since(now).as_secs()),
            "set the clock; run an NTP client",
        ),
        Ok(_) => Finding::ok(CHECK, now.to_string()),
        Err(error) => Finding::wrong(CHECK, error.to_string(), STORE),
    }
}

/// Tells what authorities there are and until when, as the rows say: whether they are what was sealed is
/// looked at with the keys.
fn authorities(found: &Foundation) -> Finding {
    const CHECK: &str = "authorities";
    let (mut told, mut ends) = (Vec::new(), false);
    for HsmKeyRow { purpose, version, state, certificate, .. } in &found.hsm_keys {
        let Some(der) = certificate else { continue };
        let Ok(said) = Said::of_der(der) else {
            let found = format!("the certificate of {purpose} {version} does not parse");
            return Finding::wrong(CHECK, found, "the store was changed by hand: find out by whom");
        };
        match state {
            KeyState::Active => {
                ends |= said.not_after.since(SystemClock.now()) < ROTATE_BEFORE;
                told.push(format!("{purpose} {version} until {}", said.not_after));
            }
            KeyState::Retired => told.push(format!("{purpose} {version} retiring")),
            KeyState::Destroyed => {}
        }
    }
    let told = told.join(", ");
    if ends {
        Finding::warning(CHECK, told, "`strongroom ca rotate` what ends; see docs/rotation.md")
    } else {
        Finding::ok(CHECK, told)
    }
}

async fn revocation_list(reader: &Reader) -> Finding {
    const CHECK: &str = "revocation list";
    let read = reader.view(|tx| async move { Ok(crls::outlook(tx).await?) }.boxed());
    let (until, kept) = match read.await {
        Ok(Some(outlook)) => outlook,
        Ok(None) => return Finding::ok(CHECK, "none yet; the server has it signed when it starts"),
        Err(error) => return Finding::wrong(CHECK, error.to_string(), STORE),
    };
    let certificates = listed(usize::try_from(kept).unwrap_or_default());
    let found = format!("{certificates} certificates, to be used until {until}");
    if certificates >= MANY {
        let advice = "find out who has so many revoked: beyond 200,000 none is signed";
        Finding::warning(CHECK, found, advice)
    } else if until <= SystemClock.now() {
        let advice = "the server has another signed when it starts; look into its log if not";
        Finding::warning(CHECK, found, advice)
    } else {
        Finding::ok(CHECK, found)
    }
}

/// Logs in and follows the chain from the HSM to the rows, as a start does.
async fn keys_in(
    config: &Config,
    token: Arc<Pkcs11Hsm>,
    (reader, vault): (&Reader, &VaultRow),
    sealer: Arc<RowSealer>,
) -> Vec<Finding> {
    const CHECK: &str = "keys";
    let memory = PinMemory::new(&config.server.data_dir);
    let source = config.hsm.pin.as_ref().filter(|_| !memory.is_marked());
    let Some(Ok(pin)) = source.map(config::SecretSource::read) else {
        return vec![Finding::warning(
            CHECK,
            "not looked at: there is no PIN to log in with",
            "`strongroom unseal` looks at them",
        )];
    };
    let keyring = Keyring::new(token as Arc<dyn Hsm>, Arc::new(SystemEntropy), sealer);
    let mut problem = None;
    let attempt = async {
        let done = keyring.unseal(reader, pin, FinalTry::Refuse).await;
        done.map(drop).map_err(|error| {
            problem = Some(advise(&error));
            Error::from(error)
        })
    };
    let done = memory.guard(attempt).await;
    // Rows are believed as long as their key is there.
    let mut more = Vec::new();
    if done.is_ok() {
        more.extend(recovery(reader, vault.id).await);
        // In a vault for development one administrator is enough.
        if !vault.dev {
            more.push(ceremonies(reader, config.ceremonies.administrators).await);
        }
    }
    // What is learned here is forgotten here.
    drop(keyring.seal().await);
    let keys = match (done, problem) {
        (Ok(()), _) => Finding::ok(CHECK, "attributes, pins and rows are as they must be"),
        (Err(_), Some((found, advice))) => Finding::wrong(CHECK, found, advice),
        (Err(error), None) => Finding::wrong(CHECK, error.to_string(), STORE),
    };
    [keys].into_iter().chain(more).collect()
}

/// What opens the vault once the HSM is lost, and whether all of it.
async fn recovery(reader: &Reader, vault: VaultId) -> Vec<Finding> {
    const CHECK: &str = "recovery";
    let read = reader.view(move |tx| async move { DescribedSet::active(tx, vault).await }.boxed());
    let sets = match read.await {
        Ok(sets) => sets,
        Err(error) => return vec![Finding::wrong(CHECK, error.to_string(), STORE)],
    };
    if sets.is_empty() {
        let advice = "make a recovery set or a recovery token, unless the HSM's keys have a backup \
                      of their own: docs/disaster.md";
        return vec![Finding::warning(CHECK, "nothing brings back a lost HSM", advice)];
    }
    let one = |set: &DescribedSet| {
        let names: Vec<_> = set.holders.iter().map(|holder| holder.name.as_str()).collect();
        let (custody, names) = (set.custody.as_str(), names.join(" "));
        let found = format!("{custody} {names}: {} of {} keys", set.covered, set.keys);
        if set.covered < set.keys {
            let advice = "a server wraps the rest within moments; look into its log if not";
            return Finding::warning(CHECK, found, advice);
        }
        Finding::ok(CHECK, found)
    };
    sets.iter().map(one).collect()
}

/// Whether enough administrators could hold a ceremony today: what takes one is refused otherwise, and
/// nobody accepts a restored store.
async fn ceremonies(reader: &Reader, needed: u32) -> Finding {
    const CHECK: &str = "ceremonies";
    let (wanted, now) = (usize::try_from(needed).unwrap_or(usize::MAX), SystemClock.now());
    let read =
        reader.view(move |tx| async move { administrators_apart(tx, wanted, now).await }.boxed());
    match read.await {
        Ok(apart) if apart >= wanted => {
            Finding::ok(CHECK, format!("{needed} administrators can hold one"))
        }
        Ok(apart) => Finding::warning(
            CHECK,
            format!("{apart} administrators could hold one together, and it takes {needed}"),
            "have another, whom none of the others made, with a login and a factor of a day ago: \
             nobody accepts a restored store otherwise; see docs/ceremonies.md",
        ),
        Err(error) => Finding::wrong(CHECK, error.to_string(), STORE),
    }
}

fn advise(error: &KeyringError) -> (String, &'static str) {
    let advice = match error {
        KeyringError::Hsm(_) => "check the token and its PIN; no wrong PIN is tried twice",
        KeyringError::Replaced(_) => "the token is another, or was changed: find out by whom",
        KeyringError::Unfit(_) | KeyringError::Misplaced(_) | KeyringError::Store(_) => {
            "the store was changed by hand, or belongs to another token: find out by whom"
        }
        KeyringError::Sealed
        | KeyringError::Unsealed
        | KeyringError::NotFounded
        | KeyringError::Exists(_)
        | KeyringError::NoKey
        | KeyringError::Shredded
        | KeyringError::UnknownSuite(_)
        | KeyringError::Crypto(_)
        | KeyringError::Other(_) => "look into the server's log",
    };
    (error.to_string(), advice)
}
