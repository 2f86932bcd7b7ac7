//! Opens a backup and looks at all of it: what it encrypts, the file that comes out, the vault in it
//! and its keys in the HSM.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt as _;
use serde::Serialize;

use super::container::{self, About, Header, damaged};
use super::work::WorkDir;
use super::{Opener, Pin, load, store_of};
use crate::audit::{self, RecordCodec};
use crate::cli::{BackupOpenArgs, Exit, Failure, Global, Outcome, fields, show, time};
use crate::config::Config;
use crate::error::Error;
use crate::hsm::{Hsm, HsmError, Pkcs11Hsm};
use crate::keyring::{FinalTry, Keyring, KeyringError, SetOpener};
use crate::server::run::{failed, in_runtime};
use crate::server::{files, life};
use crate::store::backup::{Content, is_whole, join_wraps, summary, wraps_in};
use crate::store::keys::Check;
use crate::store::{BatchCodec, RowSealer, Store, StoreError};
use crate::types::{SecretBytes, SystemEntropy, VaultId};

/// What came out.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) content: &'static str,
    pub(super) vault_id: String,
    pub(super) created_at_ms: i64,
    pub(super) program: String,
    pub(super) schema: i64,
    pub(super) log_size: i64,
    pub(super) log_root: String,
    /// Wraps of identity keys in it.
    pub(super) key_wraps: i64,
    /// Whether a key of an identity was opened through the HSM; it cannot be without wraps.
    pub(super) key_opened: bool,
}

/// Verifies.
pub(super) fn run(global: &Global, args: &BackupOpenArgs) -> Outcome {
    let (config, opener) = load(args)?;
    let store = store_of(&config).map_err(|error| failed(&error))?;
    in_runtime(&config, true, async {
        files::private_dir(&config.server.data_dir).map_err(|error| failed(&error))?;
        let work = WorkDir::beside(&store).map_err(|error| failed(&error))?;
        let verified = open(&config, &opener, &work, args).await?;
        show(global.output, &verified.finding, text)
    })
}

/// A backup that is in order.
pub(super) struct Verified {
    /// The store that came out of it.
    pub(super) copy: PathBuf,
    /// Whether it has the wraps without which nothing in it opens.
    pub(super) opens: bool,
    pub(super) finding: Finding,
}

/// Opens a backup into a directory, with its wraps where they are apart, and looks at all of it.
pub(super) async fn open(
    config: &Config,
    opener: &Opener,
    work: &WorkDir,
    args: &BackupOpenArgs,
) -> Outcome<Verified> {
    let (file, wraps) = (args.file.as_path(), args.key_wraps.as_deref());
    // Before the PIN is tried: what is no backup costs no attempt.
    let content = read_header(file)?.about.content;
    if let Some(wraps) = wraps {
        let apart = content == Content::WithoutWraps
            && read_header(wraps)?.about.content == Content::WrapsAlone;
        if !apart {
            return Err(Failure::usage(
                "--key-wraps takes a backup of the wraps alone, beside one that has none",
            ));
        }
    }
    match opener {
        Opener::Remains(remains) => {
            let opener = remains.opener().await.map_err(|error| failed(&error))?;
            examine(&With::Set(&opener), work, (file, wraps)).await
        }
        Opener::Hsm(pin) => {
            let token = pin.log_in(config).await.map_err(|error| failed(&error))?;
            let done = examine(&With::Hsm(&token, pin), work, (file, wraps)).await;
            if let Err(error) = token.logout().await {
                tracing::warn!(%error, "the HSM could not be logged out");
            }
            done
        }
    }
}

/// What a backup is opened with.
enum With<'a> {
    Hsm(&'a Arc<Pkcs11Hsm>, &'a Pin),
    Set(&'a SetOpener),
}

impl With<'_> {
    /// Opens the key of a backup.
    async fn key(&self, about: &About) -> Outcome<SecretBytes> {
        let opened = match self {
            Self::Hsm(token, _) => about.wrap.open(token.as_ref(), about.vault, about.id).await,
            Self::Set(opener) => about.wrap.open_with(opener, about.vault, about.id).await,
        };
        opened.map_err(|error| {
            if let KeyringError::Hsm(HsmError::KeyMissing(key)) = &error {
                Failure::new(Exit::Unverified, format!("the token has no key `{key}`"))
                    .hint("a backup opens with the HSM of its vault, or a copy of its keys")
            } else if error == KeyringError::NoKey {
                damaged("it was not made for this recovery set")
            } else if matches!(error, KeyringError::Misplaced(_)) {
                damaged("its key does not open")
            } else {
                failed(&error.into())
            }
        })
    }
}

async fn examine(
    with: &With<'_>,
    work: &WorkDir,
    (file, wraps): (&Path, Option<&Path>),
) -> Outcome<Verified> {
    let (copy, header) = decrypt(with, file, work.file("copy")).await?;
    let about = header.about().ok_or_else(|| damaged("its header is none"))?;
    if let Some(wraps) = wraps {
        let (wraps, other) = decrypt(with, wraps, work.file("wraps")).await?;
        if other.about().map(|other| other.vault) != Some(about.vault) {
            return Err(damaged("its wraps are those of another vault"));
        }
        join_wraps(&copy, &wraps).map_err(|error| failed(&error.into()))?;
    }
    let key_wraps = wraps_in(&copy).map_err(|_none| damaged("it holds no store"))?;
    let opens = match about.content {
        Content::Whole => true,
        Content::WithoutWraps => wraps.is_some(),
        Content::WrapsAlone => false,
    };
    let key_opened = match with {
        With::Hsm(token, pin) if opens => chain(token, pin, &copy, &header, about.vault).await?,
        With::Hsm(..) | With::Set(_) => false,
    };
    let finding = Finding {
        content: about.content.as_str(),
        vault_id: about.vault.to_string(),
        created_at_ms: header.created_at_ms,
        program: header.program.clone(),
        schema: header.schema,
        log_size: header.log_size,
        log_root: header.log_root.clone(),
        key_wraps,
        key_opened,
    };
    Ok(Verified { copy, opens, finding })
}

fn read_header(file: &Path) -> Outcome<container::Opened<BufReader<File>>> {
    let opened = File::open(file).map_err(|error| {
        Failure::new(Exit::NotFound, format!("{} cannot be read ({error})", file.display()))
    })?;
    container::open(BufReader::new(opened))
}

/// Decrypts a backup into a new file, and compares that with what the header says.
async fn decrypt(with: &With<'_>, file: &Path, to: PathBuf) -> Outcome<(PathBuf, Header)> {
    let opened = read_header(file)?;
    let header = opened.header.clone();
    let key = with.key(&opened.about).await?;
    let expected = header.clone();
    let decrypting = tokio::task::spawn_blocking(move || -> Outcome<PathBuf> {
        let unable = |error: io::Error| {
            Failure::new(Exit::Unexpected, format!("{} cannot be written ({error})", to.display()))
        };
        let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to);
        let out = out.map_err(unable)?;
        let mut buffered = BufWriter::new(&out);
        opened.decrypt(&key, &mut buffered)?;
        buffered.into_inner().map_err(|error| unable(error.into_error()))?;
        out.sync_all().map_err(unable)?;
        let none = |error: StoreError| damaged(&error.to_string());
        if !is_whole(&to).map_err(none)? {
            return Err(damaged("its pages are not what SQLite writes"));
        }
        if !expected.describes(&summary(&to).map_err(none)?) {
            return Err(damaged("its store is not the one that its header says"));
        }
        Ok(to)
    });
    let copy = decrypting.await.map_err(|error| failed(&Error::internal(error)))??;
    Ok((copy, header))
}

/// Walks the chain from the HSM to the rows of a copy, as an unsealing does, and opens a key of an
/// identity.
async fn chain(
    token: &Arc<Pkcs11Hsm>,
    pin: &Pin,
    copy: &Path,
    header: &Header,
    vault: VaultId,
) -> Outcome<bool> {
    let told = |error: Error| failed(&error);
    let (sealer, codec) = (Arc::new(RowSealer::default()), Arc::new(RecordCodec::default()));
    let batches = Arc::clone(&codec) as Arc<dyn BatchCodec>;
    let reader = Store::open_copy(copy, &sealer, batches).map_err(|error| told(error.into()))?;
    let hsm = Arc::clone(token) as Arc<dyn Hsm>;
    let keyring = Keyring::new(hsm, Arc::new(SystemEntropy), sealer);
    let unsealed = keyring.unseal(&reader, pin.secret(), FinalTry::Refuse).await;
    let master = unsealed.map_err(|error| told(error.into()))?;
    codec.set_key(Some(master.batch.clone()));
    let looked = async {
        let seen = Arc::clone(&codec);
        let head =
            reader.view(move |tx| async move { Ok(audit::seen_head(tx, &seen).await?) }.boxed());
        let (head, vouched) = head.await?;
        let found = life::foundation(&reader, Check::InForce).await?;
        let ours = found.vault.id == vault && head.size == header.log_size;
        // The key of `system` is open by now; that of an identity is one step further.
        keyring.open_newest(&reader).await?;
        Ok::<_, Error>(ours && vouched)
    };
    let fits = looked.await.map_err(told);
    let forgotten = keyring.seal().await;
    if !fits? {
        return Err(damaged("its log's head is none that this vault wrote"));
    }
    forgotten.map(|()| true).map_err(|error| told(error.into()))
}

pub(super) fn text(finding: &Finding) -> String {
    let opened = if finding.key_opened { "yes" } else { "not looked at" };
    fields(&[
        ("content", finding.content.to_owned()),
        ("vault", finding.vault_id.clone()),
        ("made", time(finding.created_at_ms)),
        ("by version", finding.program.clone()),
        ("schema", finding.schema.to_string()),
        ("entries", finding.log_size.to_string()),
        ("root", finding.log_root.clone()),
        ("key wraps", finding.key_wraps.to_string()),
        ("key opened", opened.to_owned()),
    ])
}
