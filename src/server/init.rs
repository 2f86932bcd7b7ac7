//! `strongroom init`: founds a vault, once.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::PublicKeyData as _;
use serde_json::json;
use zeroize::Zeroizing;

use super::assemble;
use super::files;
use super::found::{First, Founded, Founding, found};
use super::pin::PinMemory;
use super::recall::recall;
use super::run::{environment, failed, in_runtime};
use crate::cli::{Format, Global, InitArgs, Outcome, json_text, print, prompt_secret};
use crate::config::Config;
use crate::engines::pki::{GeneratedKey, KeyType, PublicKey, Request};
use crate::error::{Error, Result};
use crate::types::SecretBytes;

/// What is handed to whoever founds.
struct Files {
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

/// Founds.
pub(super) fn run(global: &Global, args: &InitArgs) -> Outcome {
    let config = Config::load(&args.config).map_err(|error| failed(&error.into()))?;
    environment(&config, None)?;
    let pin = match &config.hsm.pin {
        Some(source) => source.read().map_err(|error| failed(&error.into()))?,
        None => SecretBytes::new(prompt_secret("PIN of the HSM token")?.as_bytes().to_vec()),
    };
    in_runtime(&config, false, async {
        let files = Files::of(&args.out);
        let done = begin(&config, &files, pin).await;
        let founded = done.map_err(|error| failed(&error))?;
        let text = match global.output {
            Format::Human => welcome(&founded, &files, &args.config),
            Format::Json => json_text(&json!({
                "vault_id": founded.vault.to_string(),
                "ca_file": files.ca,
                "bootstrap_cert_file": files.cert,
                "bootstrap_key_file": files.key,
            })),
        };
        print(&text)
    })
}

impl Files {
    fn of(dir: &Path) -> Self {
        Self {
            cert: dir.join("bootstrap.pem"),
            key: dir.join("bootstrap.key"),
            ca: dir.join("ca.pem"),
        }
    }
}

async fn begin(config: &Config, files: &Files, pin: SecretBytes) -> Result<Founded> {
    let interrupted = exists(&files.key) && !exists(&files.cert);
    for path in [&files.cert, &files.key, &files.ca] {
        if exists(path) && !interrupted {
            return Err(Error::AlreadyExists(
                format!("{} exists; choose another directory with --out", path.display()).into(),
            ));
        }
    }
    files::private_dir(&config.server.data_dir)?;
    let memory = PinMemory::new(&config.server.data_dir);
    if config.hsm.pin.is_some() {
        memory.require_unmarked_to_found()?;
    }
    let _lock = files::lock(&config.server.data_dir)?;
    let token = assemble::token(config)?;
    let probe = token.probe().await.map_err(|error| assemble::explain(&error))?;
    probe.require().map_err(|error| assemble::explain(&error))?;
    let parts = assemble::ingredients(config, token)?;
    let made = match files.key.parent() {
        Some(out) => files::new_private_dirs(out)?,
        None => Vec::new(),
    };
    let key = if interrupted { kept_key(&files.key)? } else { new_key(&files.key)? };
    let founding = Founding {
        trust_domain: config.vault.trust_domain.parse()?,
        origin: config.record.origin.clone(),
        dev: false,
        first: First::Bootstrap(Request::of_key(key)),
    };
    let founded = match memory.guard(found(&parts, &founding, pin.clone())).await {
        Err(Error::AlreadyExists(_)) if interrupted => {
            memory.guard(recall(&parts, &founding, pin)).await?
        }
        // Nothing was founded for this key. After any other error something may have been.
        Err(error @ Error::AlreadyExists(_)) => {
            files::remove(&files.key)?;
            files::remove_empty(&made)?;
            return Err(error);
        }
        done => done?,
    };
    // The certificate last: with it, all of it is there.
    files::replace(&files.ca, founded.root_pem.as_bytes(), 0o644)?;
    files::replace(&files.cert, founded.certificate_pem.as_bytes(), 0o600)?;
    Ok(founded)
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Makes the key, before the vault is there: a certificate without its key would be worth nothing.
fn new_key(path: &Path) -> Result<PublicKey> {
    let key = GeneratedKey::generate(KeyType::P256)?;
    files::write_new(path, key.private_pem.expose(), 0o600)?;
    Ok(key.public)
}

/// Takes the key of an `init` that did not come to its end.
fn kept_key(path: &Path) -> Result<PublicKey> {
    let unfit = |why: &str| {
        let path = path.display();
        Error::precondition(format!("{path} {why}; choose another directory with --out"))
    };
    let about = path.symlink_metadata().map_err(|_error| unfit("cannot be examined"))?;
    if !about.is_file() || about.permissions().mode() & 0o077 != 0 {
        return Err(unfit("is there already, and not its owner's alone"));
    }
    let text = std::fs::read_to_string(path).map_err(|_error| unfit("cannot be read"))?;
    let pair = rcgen::KeyPair::from_pem(&Zeroizing::new(text))
        .map_err(|_error| unfit("is there already, and holds no key"))?;
    PublicKey::from_spki(&pair.subject_public_key_info())
}

fn welcome(founded: &Founded, files: &Files, config: &Path) -> String {
    format!(
        "The vault {vault} is founded. Its keys are in the HSM.\n\n\
         {cert} and {key} are the bootstrap certificate: within 24 hours it registers\n\
         administrators and signs the first request of each, and nothing else.\n\
         {ca} is what clients trust.\n\n\
         Next: strongroom server --config {config}\n",
        vault = founded.vault,
        cert = files.cert.display(),
        key = files.key.display(),
        ca = files.ca.display(),
        config = config.display(),
    )
}
