//! `strongroom backup`: made by the server that serves the store, looked at and restored by a process
//! of its own with the PIN of the HSM.

mod container;
mod create;
mod restore;
mod verify;
mod work;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::assemble;
use super::files;
use super::pin::PinMemory;
use super::recover_vault::Remains;
use super::run::{environment, failed};
use crate::cli::{
    self, BackupCommand, BackupOpenArgs, Global, Outcome, prompt_secret, read_secret,
};
use crate::config::{Config, Store};
use crate::error::{Error, Result};
use crate::hsm::{Hsm as _, HsmError, Pkcs11Hsm};
use crate::types::SecretBytes;

pub(super) use create::{BackupOrder, create};

/// Runs `strongroom backup …`.
pub(super) fn run(global: &Global, command: &BackupCommand) -> Outcome {
    match command {
        BackupCommand::Accept(args) => cli::accept_backup(global, args),
        BackupCommand::Create(args) => cli::create_backup(global, args),
        BackupCommand::Verify(args) => verify::run(global, args),
        BackupCommand::Restore(args) => restore::run(global, args),
    }
}

/// The PIN, and whether a refusal of it is to be remembered: that of the configured source is.
#[derive(Debug)]
pub(super) struct Pin {
    pin: SecretBytes,
    memory: Option<PinMemory>,
}

impl Pin {
    pub(super) fn of(config: &Config, file: Option<&Path>) -> Outcome<Self> {
        let secret = |text: Zeroizing<String>| SecretBytes::new(text.as_bytes().to_vec());
        if let Some(file) = file {
            return Ok(Self { pin: secret(read_secret(file)?), memory: None });
        }
        let Some(source) = &config.hsm.pin else {
            return Ok(Self { pin: secret(prompt_secret("PIN of the HSM token")?), memory: None });
        };
        let memory = PinMemory::new(&config.server.data_dir);
        memory.require_unmarked().map_err(|error| failed(&error))?;
        let pin = source.read().map_err(|error| failed(&error.into()))?;
        Ok(Self { pin, memory: Some(memory) })
    }

    pub(super) fn secret(&self) -> SecretBytes {
        self.pin.clone()
    }

    /// Runs what tries the PIN.
    pub(super) async fn remembered<T>(
        &self,
        config: &Config,
        attempt: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Some(memory) = &self.memory else { return attempt.await };
        files::private_dir(&config.server.data_dir)?;
        memory.guard(attempt).await
    }

    /// Logs into the token, once.
    async fn log_in(&self, config: &Config) -> Result<Arc<Pkcs11Hsm>> {
        let token = assemble::token(config)?;
        let attempt = async {
            token.login(self.pin.clone()).await.map_err(|error| {
                if matches!(error, HsmError::PinIncorrect | HsmError::PinFinalTry) {
                    // Told by its words: that is what is remembered.
                    Error::from(error)
                } else {
                    assemble::explain(&error)
                }
            })
        };
        self.remembered(config, attempt).await?;
        Ok(token)
    }
}

/// Removes what a backup that was cut off left beside the store, before that is served.
pub(super) fn sweep(config: &Config) {
    if let Store::Sqlite(sqlite) = &config.store {
        work::WorkDir::sweep(&sqlite.path);
    }
}

/// Names the store of a configuration.
fn store_of(config: &Config) -> Result<PathBuf> {
    match &config.store {
        Store::Sqlite(sqlite) => Ok(sqlite.path.clone()),
        Store::Postgres(_) => Err(Error::precondition(
            "a PostgreSQL is backed up and restored by its own tools: docs/backup.md says how",
        )),
    }
}

/// What opens a backup.
#[derive(Debug)]
enum Opener {
    /// The HSM of its vault, with the PIN.
    Hsm(Pin),
    /// What a recovery set is opened with.
    Remains(Remains),
}

/// Loads what `verify` and `restore` take.
fn load(args: &BackupOpenArgs) -> Outcome<(Config, Opener)> {
    let config = Config::load(&args.config).map_err(|error| failed(&error.into()))?;
    environment(&config, None)?;
    let opener = match Remains::of(&config, &args.shares, &args.token)? {
        Some(remains) => Opener::Remains(remains),
        None => Opener::Hsm(Pin::of(&config, args.pin_file.as_deref())?),
    };
    Ok((config, opener))
}
