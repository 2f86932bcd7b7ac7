//! `strongroom recovery-set …`: made and destroyed by administrators; holders make their keys and open
//! their shares offline, with no vault. What is done with a token is `recovery-token`.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::args::Global;
use super::failure::{Exit, Failure, Outcome};
use super::files::{read_json, read_secret, write_private, write_public};
use super::output::{Listed, fields, json_text, note, show, show_list, time};
use super::session::{Session, must};
use crate::crypto::{HPKE_KEY_BYTES, hex, hpke_private, hpke_public, parse_hex};
use crate::keyring::Share;
use crate::proto::recovery_set_service_client::RecoverySetServiceClient;
use crate::proto::{
    CreateRecoverySetRequest, DestroyRecoverySetRequest, ListRecoverySetsRequest, RecoveryHolder,
    RecoverySet,
};
use crate::types::{SecretBytes, SystemEntropy};

/// `strongroom recovery-set …`
#[derive(Debug, Subcommand)]
pub enum RecoverySetCommand {
    /// Make a holder's key, offline: the private half stays in the file, the public half is printed
    HolderKey {
        /// A new file, for you alone.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make a set, and write each holder's share to a file, or what a token is to accept
    Create(CreateArgs),
    /// List all sets, and how many keys each opens
    List,
    /// Write the shares of a set to files again
    Shares {
        /// The set's id.
        id: String,
        /// A directory for them.
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
    },
    /// Destroy a set: what is wrapped for it, and its shares
    Destroy {
        /// The set's id.
        id: String,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Open your share, offline, for a recovery
    OpenShare {
        /// The share.
        file: PathBuf,
        /// Your key, as `holder-key` wrote it.
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
        /// A new file, for you alone. Whoever has enough of these has the vault.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// What `recovery-set create` takes.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// How many holders are enough.
    #[arg(long, required_unless_present = "recovery_token")]
    threshold: Option<i32>,
    /// A holder and its public key; once for each.
    #[arg(long = "holder", value_name = "NAME=PUBKEY", required_unless_present = "recovery_token")]
    holders: Vec<String>,
    /// In the place of both: a token that has the private half, as `recovery-token make` showed it.
    #[arg(long, value_name = "NAME=PUBKEY", conflicts_with_all = ["threshold", "holders"])]
    recovery_token: Option<String>,
    /// A directory for the shares, `NAME.share` each.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

/// A share on its way to its holder, or to a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedShare {
    /// The vault.
    pub vault_id: String,
    /// The set.
    pub set: String,
    /// How many are enough.
    pub threshold: u8,
    /// Whose it is.
    pub holder: String,
    /// The share as it is sealed, in base64.
    pub share: String,
}

/// A share that its holder opened.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenShare {
    /// The vault.
    pub vault_id: String,
    /// The set.
    pub set: String,
    /// How many are enough.
    pub threshold: u8,
    /// The share, in base64.
    pub share: String,
}

impl Drop for OpenShare {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.share);
    }
}

impl std::fmt::Debug for OpenShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenShare").field("set", &self.set).finish_non_exhaustive()
    }
}

/// Runs `strongroom recovery-set …`. What holders do needs no vault, and so no connection.
pub(super) async fn run(global: &Global, command: &RecoverySetCommand) -> Outcome {
    match command {
        RecoverySetCommand::HolderKey { out } => holder_key(global, out),
        RecoverySetCommand::OpenShare { file, key_file, out } => {
            open_share(global, file, key_file, out)
        }
        RecoverySetCommand::Create(args) => create(&Session::open(global)?, args).await,
        RecoverySetCommand::List => list(&Session::open(global)?).await,
        RecoverySetCommand::Shares { id, out } => {
            let session = Session::open(global)?;
            let found = sets(&session).await?.into_iter().find(|set| set.id == *id);
            let missing = || Failure::new(Exit::NotFound, "there is no recovery set with that id");
            let set = found.ok_or_else(missing)?;
            write_shares(&set, out)?;
            show(session.format, &set, text)
        }
        RecoverySetCommand::Destroy { id, reason } => {
            let session = Session::open(global)?;
            let request = DestroyRecoverySetRequest { id: id.clone(), reason: reason.clone() };
            let destroyed = session
                .call_once(request, async |wire, request| {
                    RecoverySetServiceClient::new(wire).destroy_recovery_set(request).await
                })
                .await?;
            let set = must(destroyed.set)?;
            show(session.format, &set, text)?;
            note(if is_token(&set) {
                "backups from before still open with its token: destroy its key there"
            } else {
                "backups from before still open with its shares: its holders destroy their keys"
            });
            Ok(())
        }
    }
}

async fn create(session: &Session, args: &CreateArgs) -> Outcome {
    let holder = |text: &String| {
        let (name, key) = text
            .split_once('=')
            .ok_or_else(|| Failure::usage("a holder or a token is NAME=PUBKEY"))?;
        let (name, public_key) = (name.to_owned(), key.to_owned());
        Ok(RecoveryHolder { name, public_key, sealed_share: String::new() })
    };
    let request = CreateRecoverySetRequest {
        threshold: args.threshold.unwrap_or_default(),
        holders: args.holders.iter().map(holder).collect::<Outcome<_>>()?,
        token: args.recovery_token.as_ref().map(holder).transpose()?,
    };
    let made = session
        .call_once(request, async |wire, request| {
            RecoverySetServiceClient::new(wire).create_recovery_set(request).await
        })
        .await?;
    let set = must(made.set)?;
    write_shares(&set, &args.out)?;
    show(session.format, &set, text)?;
    note(if is_token(&set) {
        "have the token take its share with `recovery-token accept`; `recovery-set list` shows when \
         every key is covered"
    } else {
        "give each holder its share; `recovery-set list` shows when every key is covered"
    });
    Ok(())
}

async fn sets(session: &Session) -> Outcome<Vec<RecoverySet>> {
    let listed = session
        .call(ListRecoverySetsRequest {}, async |wire, request| {
            RecoverySetServiceClient::new(wire).list_recovery_sets(request).await
        })
        .await?;
    Ok(listed.sets)
}

async fn list(session: &Session) -> Outcome {
    let sets = Listed { items: sets(session).await?, more: false };
    let headers = ["ID", "STATE", "CUSTODY", "HOLDERS", "KEYS", "MADE"];
    show_list(session.format, &sets, headers, |set| {
        let names: Vec<_> = set.holders.iter().map(|holder| holder.name.as_str()).collect();
        [
            set.id.clone(),
            set.state.clone(),
            custody(set),
            names.join(" "),
            format!("{} of {}", set.keys_covered, set.keys_total),
            time(set.created_at_ms),
        ]
    })
}

fn text(set: &RecoverySet) -> String {
    let names: Vec<_> = set.holders.iter().map(|holder| holder.name.as_str()).collect();
    fields(&[
        ("recovery set", set.id.clone()),
        ("state", set.state.clone()),
        ("custody", custody(set)),
        ("holders", names.join(" ")),
        ("keys", format!("{} of {}", set.keys_covered, set.keys_total)),
        ("made", time(set.created_at_ms)),
    ])
}

fn is_token(set: &RecoverySet) -> bool {
    set.custody == "token"
}

/// Says where the private half is.
fn custody(set: &RecoverySet) -> String {
    if is_token(set) {
        return set.custody.clone();
    }
    format!("{} {}", set.threshold, set.custody)
}

fn write_shares(set: &RecoverySet, dir: &Path) -> Outcome {
    std::fs::create_dir_all(dir).map_err(|error| {
        Failure::new(Exit::Unexpected, format!("{} cannot be made ({error})", dir.display()))
    })?;
    for holder in &set.holders {
        // A name is one segment: the vault lets no other in. This program does not rely on it.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if holder.name.starts_with('.') || !holder.name.chars().all(plain) {
            return Err(Failure::new(Exit::Unexpected, "a holder's name is none"));
        }
        let share = SealedShare {
            vault_id: set.vault_id.clone(),
            set: set.id.clone(),
            threshold: u8::try_from(set.threshold).unwrap_or(u8::MAX),
            holder: holder.name.clone(),
            share: holder.sealed_share.clone(),
        };
        let path = dir.join(format!("{}.share", holder.name));
        write_public(&path, json_text(&share).as_bytes())?;
    }
    Ok(())
}

fn holder_key(global: &Global, out: &Path) -> Outcome {
    let failed = |error: crate::crypto::CryptoError| {
        Failure::new(Exit::Unexpected, format!("no key could be made: {error}"))
    };
    let private = hpke_private(&SystemEntropy).map_err(failed)?;
    let public = hex(&hpke_public(&private).map_err(failed)?);
    let text = Zeroizing::new(format!("{}\n", hex(private.expose())));
    write_private(out, &text)?;
    show(global.output, &json!({ "public_key": public }), |_| {
        fields(&[("public key", public.clone()), ("private key", out.display().to_string())])
    })
}

fn open_share(global: &Global, file: &Path, key_file: &Path, out: &Path) -> Outcome {
    let share: SealedShare = read_json(file)?;
    let key = read_secret(key_file)?;
    let key = parse_hex(key.trim()).ok().filter(|key| key.len() == HPKE_KEY_BYTES);
    let key = key.ok_or_else(|| Failure::usage("the key is none that `holder-key` wrote"))?;
    let opened = opened(&share, &SecretBytes::new(key));
    let opened = opened
        .ok_or_else(|| Failure::new(Exit::Unverified, "the share does not open with this key"))?;
    let open = OpenShare {
        vault_id: share.vault_id.clone(),
        set: share.set.clone(),
        threshold: share.threshold,
        share: STANDARD.encode(opened.expose()),
    };
    write_private(out, &Zeroizing::new(json_text(&open)))?;
    let shown = json!({ "set": share.set, "threshold": share.threshold, "file": out });
    show(global.output, &shown, |_| {
        fields(&[
            ("recovery set", share.set.clone()),
            ("enough", share.threshold.to_string()),
            ("file", out.display().to_string()),
        ])
    })?;
    note("whoever has enough opened shares has the vault: bring it by hand, destroy it afterwards");
    Ok(())
}

fn opened(share: &SealedShare, key: &SecretBytes) -> Option<SecretBytes> {
    let of = Share {
        vault: share.vault_id.parse().ok()?,
        set: share.set.parse().ok()?,
        threshold: share.threshold,
        holder: &share.holder,
    };
    of.open(key, &STANDARD.decode(&share.share).ok()?).ok()
}
