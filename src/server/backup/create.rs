//! Makes a backup of a store that is served: a copy of one moment, encrypted beside it.

use std::fs::{File, OpenOptions};
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::container::{self, About, Header};
use super::work::WorkDir;
use crate::engines::system::{CONTROL_SOCKET, TellBackup};
use crate::error::{Error, Result};
use crate::server::files;
use crate::server::life::Life;
use crate::store::Location;
use crate::store::backup::{Content, copy, summary};
use crate::types::{Caller, Entropy, Id, SecretBytes, UnixMillis};

/// What is asked for.
#[derive(Debug, Clone)]
pub(in crate::server) struct BackupOrder {
    /// A new file.
    pub(in crate::server) out: PathBuf,
    /// What it is to hold.
    pub(in crate::server) content: Content,
}

/// A backup that was made.
#[derive(Debug, Clone)]
pub(in crate::server) struct Made {
    pub(in crate::server) id: Id,
    pub(in crate::server) content: Content,
    pub(in crate::server) created_at: UnixMillis,
    pub(in crate::server) log_size: i64,
    pub(in crate::server) log_root: String,
    pub(in crate::server) bytes: u64,
}

/// What encrypts it.
struct Sealing {
    about: About,
    key: SecretBytes,
    entropy: Arc<dyn Entropy>,
    now: UnixMillis,
}

/// Makes a backup. It is on the record before it stands under its name.
///
/// # Errors
/// [`Error::AlreadyExists`] for a file that is there; [`Error::Precondition`] beside PostgreSQL and
/// while another is made; why nobody is served; what store, disk and HSM answer.
pub(in crate::server) async fn create(life: &Life, order: BackupOrder) -> Result<Made> {
    life.require_serving()?;
    let Location::Sqlite { path, .. } = &life.parts().location else {
        return Err(Error::precondition(
            "a PostgreSQL is backed up by its own tools: docs/backup.md says how",
        ));
    };
    if !order.out.is_absolute() {
        return Err(Error::invalid("the file of a backup is named from the root on"));
    }
    let vault = life.vault();
    let now = vault.now()?;
    let entropy = Arc::clone(&life.parts().entropy);
    let id = Id::ordered(now, entropy.as_ref())?;
    let (key, wrap, used) = life.keyring().backup_key(id).await?;
    let about = About { id, vault: vault.installation().id, content: order.content, wrap };
    let sealing = Sealing { about, key, entropy, now };
    let (store, out) = (path.clone(), order.out.clone());
    let writing = tokio::task::spawn_blocking(move || write(&store, &out, &sealing));
    let (made, new) = writing.await.map_err(Error::internal)??;
    let told = TellBackup {
        file: order.out.display().to_string(),
        content: made.content.as_str(),
        log_size: made.log_size,
        used,
    };
    let ctx = vault.context(Caller::System(CONTROL_SOCKET), None)?;
    let named = match vault.run(&ctx, told).await {
        Ok(()) => files::name(&new, &order.out),
        Err(error) => Err(error),
    };
    files::remove(&new)?;
    named.map(|()| made)
}

/// Writes the backup under a name of its own, synced.
fn write(store: &Path, out: &Path, sealing: &Sealing) -> Result<(Made, PathBuf)> {
    let exists = || Error::AlreadyExists(format!("{} exists", out.display()).into());
    if out.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let work = WorkDir::beside(store)?;
    let copied = work.file("copy");
    copy(store, &copied, sealing.about.content)?;
    let summary = summary(&copied)?;
    let header = Header::new(&sealing.about, &summary, sealing.now);
    let mut name =
        out.file_name().ok_or_else(|| Error::invalid("the backup has no name"))?.to_owned();
    name.push(".new");
    let new = out.with_file_name(name);
    let failed = |error: std::io::Error| {
        Error::precondition(format!("{} cannot be written ({error})", new.display()))
    };
    files::remove(&new)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let file = file.map_err(failed)?;
    let written = || -> Result<u64> {
        let (mut from, mut to) = (File::open(&copied).map_err(failed)?, BufWriter::new(&file));
        let Sealing { about, key, entropy, now: _ } = sealing;
        container::write(&header, about, key, entropy.as_ref(), (&mut from, &mut to))?;
        to.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        Ok(file.metadata().map_err(failed)?.len())
    };
    match written() {
        Ok(bytes) => {
            let made = Made {
                id: sealing.about.id,
                content: sealing.about.content,
                created_at: sealing.now,
                log_size: summary.log_size,
                log_root: crate::crypto::hex(&summary.log_root),
                bytes,
            };
            Ok((made, new))
        }
        // A disk that is full gets its room back.
        Err(error) => {
            files::remove(&new)?;
            Err(error)
        }
    }
}
