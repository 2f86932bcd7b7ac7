//! `strongroom recovery-token`: a second token, which has the private half of a recovery set. Offline:
//! no vault is asked.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::assemble;
use super::run::{environment, failed, in_runtime};
use crate::cli::{
    Exit, Failure, Global, Outcome, RecoveryTokenArgs, RecoveryTokenCommand, SealedShare, TokenAt,
    fields, note, prompt_secret, read_json, read_secret, show,
};
use crate::config::Config;
use crate::crypto::{CryptoError, hex};
use crate::error::{Error, Result};
use crate::hsm::{Hsm, Pkcs11Config, TokenSelector};
use crate::keyring::{KeyringError, Share, accept_share, make_token_key};
use crate::types::{SecretBytes, Segment};

/// A recovery token that was named, and its PIN.
#[derive(Debug)]
pub(super) struct RecoveryToken {
    at: Pkcs11Config,
    pin: SecretBytes,
}

impl RecoveryToken {
    /// Reads which token is meant, and its PIN; none where none is named.
    pub(super) fn of(config: &Config, args: &RecoveryTokenArgs) -> Outcome<Option<Self>> {
        let Some(label) = &args.recovery_token else { return Ok(None) };
        let at = Pkcs11Config {
            module: args.recovery_module.as_ref().unwrap_or(&config.hsm.module).clone(),
            token: TokenSelector::Label(label.clone()),
        };
        let pin = match &args.recovery_pin_file {
            Some(file) => read_secret(file)?,
            None => prompt_secret("PIN of the recovery token")?,
        };
        Ok(Some(Self { at, pin: SecretBytes::new(pin.as_bytes().to_vec()) }))
    }

    /// Logs into it, once: the PIN was given just now. The process logs out by its end.
    pub(super) async fn open(&self) -> Result<Arc<dyn Hsm>> {
        let token = assemble::token_at(&self.at)?;
        token.login(self.pin.clone()).await.map_err(|error| assemble::explain(&error))?;
        Ok(token as Arc<dyn Hsm>)
    }
}

/// Runs it.
pub(super) fn run(global: &Global, command: &RecoveryTokenCommand) -> Outcome {
    match command {
        RecoveryTokenCommand::Make { name, at } => {
            let name: Segment = name.parse()?;
            on(at, async |token| make(global, token.as_ref(), &name).await)
        }
        RecoveryTokenCommand::Accept { file, at } => {
            let share: SealedShare = read_json(file)?;
            on(at, async |token| accept(global, &token, &share).await)
        }
    }
}

/// Does something with a token that somebody is logged into.
fn on(at: &TokenAt, work: impl AsyncFnOnce(Arc<dyn Hsm>) -> Outcome) -> Outcome {
    let config = Config::load(&at.config).map_err(|error| failed(&error.into()))?;
    environment(&config, None)?;
    let token = RecoveryToken::of(&config, &at.token)?;
    let token = token.ok_or_else(|| Failure::usage("name the token with --recovery-token"))?;
    in_runtime(&config, true, async {
        work(token.open().await.map_err(|error| failed(&error))?).await
    })
}

async fn make(global: &Global, token: &dyn Hsm, name: &Segment) -> Outcome {
    let public = make_token_key(token, name).await.map_err(told)?;
    let public = hex(public.as_bytes());
    show(global.output, &json!({ "name": name.as_str(), "public_key": public }), |_| {
        fields(&[("name", name.to_string()), ("public key", public.clone())])
    })
}

async fn accept(global: &Global, token: &Arc<dyn Hsm>, sealed: &SealedShare) -> Outcome {
    let share = Share {
        vault: sealed.vault_id.parse()?,
        set: sealed.set.parse()?,
        threshold: sealed.threshold,
        holder: &sealed.holder,
    };
    let unfit = |_malformed| Failure::usage("the file is none that `recovery-set create` wrote");
    let bytes = STANDARD.decode(&sealed.share).map_err(unfit)?;
    accept_share(token, &share, &bytes).await.map_err(|error| {
        if error == KeyringError::Crypto(CryptoError::Open) {
            Failure::new(Exit::Unverified, "it does not open with the key in this token")
        } else {
            told(error)
        }
    })?;
    show(global.output, &json!({ "set": sealed.set, "name": sealed.holder }), |_| {
        fields(&[("recovery set", sealed.set.clone()), ("key", sealed.holder.clone())])
    })?;
    note("whoever has this token and its PIN has the vault: keep it where the HSM is not");
    Ok(())
}

/// Tells an operator what the token said.
fn told(error: KeyringError) -> Failure {
    failed(&if let KeyringError::Hsm(error) = error {
        assemble::explain(&error)
    } else {
        Error::from(error)
    })
}
