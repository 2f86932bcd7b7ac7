//! Puts a backup where no store is. What was written since is not in it: the vault finds that by the
//! head that its HSM keeps, and waits for administrators.

use std::fs::File;
use std::path::Path;

use serde_json::json;

use super::verify;
use super::work::WorkDir;
use super::{load, store_of};
use crate::cli::{Exit, Failure, Global, Outcome, RestoreArgs, note, read_text, show};
use crate::error::Error;
use crate::server::files;
use crate::server::run::{failed, in_runtime};
use crate::store::backup::leave_out;
use crate::types::IdentityId;

/// Identities that are left out at the most.
const MOST: usize = 100_000;

/// Restores.
pub(super) fn run(global: &Global, args: &RestoreArgs) -> Outcome {
    let (config, opener) = load(&args.open)?;
    let store = store_of(&config).map_err(|error| failed(&error))?;
    let shredded = args.shredded.as_deref().map(identities).transpose()?.unwrap_or_default();
    in_runtime(&config, true, async {
        let told = |error: Error| failed(&error);
        files::private_dir(&config.server.data_dir).map_err(told)?;
        let _lock = files::lock(&config.server.data_dir).map_err(told)?;
        require_empty(&store)?;
        let work = WorkDir::beside(&store).map_err(told)?;
        let verified = verify::open(&config, &opener, &work, &args.open).await?;
        if !verified.opens {
            return Err(Failure::usage("what has no wraps is restored with --key-wraps FILE"));
        }
        let gone = leave_out(&verified.copy, &shredded).map_err(|error| told(error.into()))?;
        let synced = File::open(&verified.copy).and_then(|copy| copy.sync_all());
        synced.map_err(|error| Failure::new(Exit::Unexpected, error.to_string()))?;
        files::name(&verified.copy, &store).map_err(told)?;
        let shown = json!({
            "store": store.display().to_string(),
            "wraps_left_out": gone,
            "backup": verified.finding,
        });
        show(global.output, &shown, |_| verify::text(&verified.finding))?;
        note(
            "start the server: where the HSM knows a longer log, administrators accept it with \
             `strongroom backup accept`",
        );
        if gone > 0 {
            note(
                "nothing opens what was shredded; put it on record: `identity shred` each of them",
            );
        }
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

/// Reads the ids of identities, one a line.
fn identities(file: &Path) -> Outcome<Vec<IdentityId>> {
    let text = read_text(file)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let ids: Vec<_> = lines
        .take(MOST.saturating_add(1))
        .map(|line| {
            let unfit = || Failure::usage("a line that is no id of an identity");
            line.parse::<IdentityId>().map_err(|_none| unfit())
        })
        .collect::<Outcome<_>>()?;
    if ids.len() > MOST {
        return Err(Failure::usage(format!("there are more than {MOST} identities")));
    }
    Ok(ids)
}
