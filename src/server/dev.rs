//! `strongroom dev`: everything for a first try in one process, marked as development for ever.

mod second;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use zeroize::Zeroizing;

use super::assemble;
use super::files;
use super::found::{ADMIN, First, Founding, SECOND, found};
use super::life::Life;
use super::node::Node;
use super::run::{environment, failed, in_runtime};
use super::serve::{self, Mark, Signals, start};
use crate::cli::{DevArgs, Failure, Format, Global, Outcome, json_text, print};
use crate::config::{Config, TokenName};
use crate::engines::pki::{GeneratedKey, KeyType, PublicKey, Request};
use crate::engines::system::RenewAdministrator;
use crate::error::{Error, Result};
use crate::grpc::tls::ServerIdentity;
use crate::hsm::softhsm;
use crate::types::{Caller, Clock as _, Entropy as _, SecretBytes, SystemClock, SystemEntropy};

/// The name under which this command acts on the vault.
const WORKER: &str = "dev";
/// How long before its end the administrator's certificate is renewed.
const RENEW_BEFORE: Duration = Duration::from_hours(12);
/// How often that is looked at while it serves.
const RENEW_EVERY: Duration = Duration::from_mins(10);

/// What an administrator of a development vault has.
struct Files {
    name: &'static str,
    cert: PathBuf,
    key: PathBuf,
}

/// Where the authority is that everybody trusts.
fn ca(dir: &Path) -> PathBuf {
    dir.join("ca.pem")
}

/// Where the secret of the second administrator's factor is.
fn totp(dir: &Path) -> PathBuf {
    dir.join("second.totp")
}

/// Starts.
pub(super) fn run(global: &Global, args: &DevArgs) -> Outcome {
    let prepared = prepare(args.dir.as_deref());
    let (dir, config) = prepared.map_err(|error| failed(&error))?;
    let dir_text = dir.to_str().ok_or_else(|| Failure::usage("--dir is not UTF-8"))?;
    let mut again = vec!["dev".to_owned(), "--dir".to_owned(), dir_text.to_owned()];
    if let Some(path) = &args.ready_file {
        let path = path.to_str().ok_or_else(|| Failure::usage("--ready-file is not UTF-8"))?;
        again.extend(["--ready-file".to_owned(), path.to_owned()]);
    }
    if global.output == Format::Json {
        again.extend(["--output".to_owned(), "json".to_owned()]);
    }
    environment(&config, Some(again))?;
    in_runtime(&config, false, async {
        let signals = Signals::watch().map_err(|error| failed(&error))?;
        let _lock = files::lock(&dir).map_err(|error| failed(&error))?;
        let node = begin(&dir, &config).await.map_err(|error| failed(&error))?;
        let [admin, second] = Files::both(&dir);
        let ready = json!({
            "grpc_addr": node.grpc_addr,
            "http_addr": node.http_addr,
            "ca_file": ca(&dir),
            "admin_cert_file": admin.cert,
            "admin_key_file": admin.key,
            "second_cert_file": second.cert,
            "second_key_file": second.key,
            "second_totp_file": totp(&dir),
        });
        match global.output {
            Format::Human => print(&welcome(&dir, &node))?,
            Format::Json => print(&json_text(&ready))?,
        }
        if let Some(path) = &args.ready_file {
            serve::write_ready(path, &ready).map_err(|error| failed(&error))?;
        }
        keep_renewing(&node, dir.clone());
        signals.serve_until_stopped(&config, node).await.map_err(|error| failed(&error))
    })
}

/// Makes the directory with SoftHSM's configuration.
fn prepare(dir: Option<&Path>) -> Result<(PathBuf, Config)> {
    let dir = if let Some(dir) = dir {
        std::path::absolute(dir)
            .map_err(|error| Error::precondition(format!("{}: {error}", dir.display())))?
    } else {
        let mut random = [0; 8];
        SystemEntropy.fill(&mut random)?;
        let name = format!("strongroom-dev-{}", data_encoding::HEXLOWER.encode(&random));
        std::env::temp_dir().join(name)
    };
    files::private_dir(&dir)?;
    let config = Config::for_dev(&dir)?;
    softhsm::write_configuration(&dir).map_err(|error| assemble::explain(&error))?;
    Ok((dir, config))
}

/// Founds what is not there yet, and serves.
async fn begin(dir: &Path, config: &Config) -> Result<Node> {
    let pin = make_token(dir, config)?;
    let token = assemble::token(config)?;
    let parts = assemble::ingredients(config, std::sync::Arc::clone(&token))?;
    let [admin, second] = Files::both(dir);
    let (_, public) = admin.key()?;
    let founding = Founding {
        trust_domain: config.vault.trust_domain.parse()?,
        origin: config.record.origin.clone(),
        dev: true,
        first: First::Administrators(Request::of_key(public)),
    };
    match found(&parts, &founding, pin).await {
        Ok(founded) => {
            files::replace(&admin.cert, founded.certificate_pem.as_bytes(), 0o600)?;
        }
        Err(Error::AlreadyExists(_)) => {}
        Err(error) => return Err(error),
    }
    let node = start(config, token, Mark::Development).await?;
    files::replace(&ca(dir), node.root_pem.as_bytes(), 0o644)?;
    let logins = async {
        renew(&node.life, &admin).await?;
        renew(&node.life, &second).await?;
        second::enrol(&node, &second, &totp(dir)).await
    };
    if let Err(error) = logins.await {
        node.stop().await?;
        return Err(error);
    }
    Ok(node)
}

/// Makes the token and its PIN, where they are not there.
fn make_token(dir: &Path, config: &Config) -> Result<SecretBytes> {
    let path = dir.join("pin");
    let random = || -> Result<SecretBytes> {
        let mut bytes = Zeroizing::new([0; 16]);
        SystemEntropy.fill(&mut *bytes)?;
        Ok(SecretBytes::new(data_encoding::HEXLOWER.encode(&*bytes).into_bytes()))
    };
    if !path.exists() {
        files::replace(&path, random()?.expose(), 0o600)?;
    }
    let source = config.hsm.pin.as_ref().ok_or(Error::Internal)?;
    let pin = source.read()?;
    let tokens = std::fs::read_dir(dir.join("tokens")).map_err(Error::internal)?;
    if tokens.count() == 0 {
        let (TokenName::Label(label) | TokenName::Serial(label)) = &config.hsm.token;
        // Nobody resets a PIN here: who has the directory has everything.
        softhsm::initialise_token(&config.hsm.module, label, &random()?, &pin)
            .map_err(|error| assemble::explain(&error))?;
    }
    Ok(pin)
}

impl Files {
    fn both(dir: &Path) -> [Self; 2] {
        [ADMIN, SECOND].map(|name| {
            let [cert, key] = ["pem", "key"].map(|end| dir.join(format!("{name}.{end}")));
            Self { name, cert, key }
        })
    }

    /// Reads the administrator's key, making it where there is none.
    fn key(&self) -> Result<(Zeroizing<String>, PublicKey)> {
        if !self.key.exists() {
            let key = GeneratedKey::generate(KeyType::P256)?;
            files::replace(&self.key, key.private_pem.expose(), 0o600)?;
        }
        let unfit = |error: &dyn std::fmt::Display| {
            Error::precondition(format!("{}: {error}; remove it", self.key.display()))
        };
        let pem = std::fs::read_to_string(&self.key).map_err(|error| unfit(&error))?;
        let pem = Zeroizing::new(pem);
        let pair = rcgen::KeyPair::from_pem(&pem).map_err(|error| unfit(&error))?;
        let spki = rcgen::PublicKeyData::subject_public_key_info(&pair);
        Ok((pem, PublicKey::from_spki(&spki)?))
    }
}

/// Renews the administrator's certificate where it is missing or near its end. A sealed vault
/// waits.
async fn renew(life: &Life, files: &Files) -> Result<()> {
    if !life.standing().is_serving() {
        return Ok(());
    }
    let (key, public) = files.key()?;
    let now = SystemClock.now();
    let there = std::fs::read(&files.cert).ok();
    let good = there.and_then(|pem| ServerIdentity::from_pem(&pem, key.as_bytes(), now).ok());
    if good.is_some_and(|there| there.not_after().since(now) >= RENEW_BEFORE) {
        return Ok(());
    }
    let authorities = life.authorities().clone();
    let request = Request::of_key(public);
    let vault = life.vault();
    let ctx = vault.context(Caller::System(WORKER), None)?;
    let made = vault
        .run(&ctx, RenewAdministrator { name: files.name.parse()?, authorities, request })
        .await?;
    files::replace(&files.cert, made.pem().as_bytes(), 0o600)
}

fn keep_renewing(node: &Node, dir: PathBuf) {
    let (life, group) = (node.life.clone(), node.tasks().clone());
    drop(node.tasks().spawn(async move {
        let both = Files::both(&dir);
        loop {
            tokio::select! {
                () = group.stopping() => return,
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
            for files in &both {
                if let Err(error) = renew(&life, files).await {
                    let name = files.name;
                    tracing::warn!(%error, name, "an administrator's certificate was not renewed");
                }
            }
        }
    }));
}

fn welcome(dir: &Path, node: &Node) -> String {
    let [admin, second] = Files::both(dir);
    let secret = std::fs::read_to_string(totp(dir)).unwrap_or_default();
    let state = if node.life.standing().is_serving() {
        String::new()
    } else {
        let socket = dir.join("control.sock");
        format!("It is SEALED: strongroom unseal --socket {}\n\n", socket.display())
    };
    let http = node.http_addr.map(|address| address.to_string()).unwrap_or_default();
    format!(
        "A development vault serves, for this machine alone, until you stop it (Ctrl-C).\n\
         SoftHSM keys are files: whoever reads {dir} has every key. Never keep real secrets here.\n\
         The vault is marked as development for ever; `strongroom server` refuses it.\n\n\
         {state}You are the administrator `admin`. In another terminal:\n\n\
         export STRONGROOM_ADDR=https://{grpc}\n\
         export STRONGROOM_CACERT={ca}\n\
         export STRONGROOM_CERT={cert}\n\
         export STRONGROOM_KEY={key}\n\
         strongroom whoami\n\n\
         There is another, `second`, who approves what you ask for. To be that one:\n\n\
         export STRONGROOM_CERT={second_cert}\n\
         export STRONGROOM_KEY={second_key}\n\
         strongroom factor verify      # codes: an authenticator app with the secret {secret}\n\n\
         Metrics and health: http://{http}/metrics, /healthz, /readyz\n\
         Start it again with: strongroom dev --dir {dir}\n",
        dir = dir.display(),
        grpc = node.grpc_addr,
        ca = quote(&ca(dir)),
        cert = quote(&admin.cert),
        key = quote(&admin.key),
        second_cert = quote(&second.cert),
        second_key = quote(&second.key),
    )
}

/// Writes a path as a shell takes it.
fn quote(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+".contains(&b);
    if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
