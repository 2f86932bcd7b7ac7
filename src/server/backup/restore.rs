//! Puts a backup where no store is. What was written since is not in it: the vault finds that by the
//! head that its HSM keeps, and waits for administrators.

use std::fs::File;
use std::path::Path;

use serde_json::json;

use super::verify;
use super::work::WorkDir;
use super::{load, store_of};
use crate::cli::{BackupOpenArgs, Exit, Failure, Global, Outcome, note, show};
use crate::error::Error;
use crate::server::assemble::shredded;
use crate::server::files;
use crate::server::run::{failed, in_runtime};

/// Restores.
pub(super) fn run(global: &Global, args: &BackupOpenArgs) -> Outcome {
    let (config, opener) = load(args)?;
    let store = store_of(&config).map_err(|error| failed(&error))?;
    in_runtime(&config, true, async {
        let told = |error: Error| failed(&error);
        files::private_dir(&config.server.data_dir).map_err(told)?;
        let _lock = files::lock(&config.server.data_dir).map_err(told)?;
        require_empty(&store)?;
        let work = WorkDir::beside(&store).map_err(told)?;
        let verified = verify::open(&config, &opener, &work, args).await?;
        if !verified.opens {
            return Err(Failure::usage("what has no wraps is restored with --key-wraps FILE"));
        }
        let synced = File::open(&verified.copy).and_then(|copy| copy.sync_all());
        synced.map_err(|error| Failure::new(Exit::Unexpected, error.to_string()))?;
        files::name(&verified.copy, &store).map_err(told)?;
        let shown = json!({
            "store": store.display().to_string(),
            "backup": verified.finding,
        });
        show(global.output, &shown, |_| verify::text(&verified.finding))?;
        note(
            "start the server: where the HSM knows a longer log, administrators accept it with \
             `strongroom backup accept`",
        );
        note(&format!(
            "who was shredded since is shredded again before anybody is served, as far as the HSM and \
             {} name them",
            shredded(&config).display()
        ));
        Ok(())
    })
}

/// Refuses a place where a store is, or something of one.
fn require_empty(store: &Path) -> Outcome {
    for end in ["", "-wal", "-shm", "-journal"] {
        let mut name = store.as_os_str().to_owned();
        name.push(end);
        let path = Path::new(&name);
        if path.symlink_metadata().is_ok() {
            let message = format!("{} exists; move the old store away first", path.display());
            return Err(failed(&Error::AlreadyExists(message.into())));
        }
    }
    Ok(())
}
