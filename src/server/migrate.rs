//! `strongroom migrate`: brings the schema of a store up to date that was backed up.

use serde_json::json;

use super::assemble;
use super::files;
use super::run::{failed, in_runtime};
use crate::cli::{Global, MigrateArgs, Outcome, fields, show};
use crate::config::{Config, Store as Configured};
use crate::error::{Error, Result};
use crate::store::Store;

/// Migrates.
pub(super) fn run(global: &Global, args: &MigrateArgs) -> Outcome {
    let config = Config::load(&args.config).map_err(|error| failed(&error.into()))?;
    in_runtime(&config, true, async {
        let migrated = migrate(&config, args.backed_up).await;
        let (from, to) = migrated.map_err(|error| failed(&error))?;
        show(global.output, &json!({ "from": from, "to": to }), |_| {
            fields(&[("schema", to.to_string()), ("before", from.to_string())])
        })
    })
}

async fn migrate(config: &Config, backed_up: bool) -> Result<(i64, i64)> {
    files::private_dir(&config.server.data_dir)?;
    // A server of this directory is stopped; others on a PostgreSQL wait for its lock.
    let _lock = files::lock(&config.server.data_dir)?;
    if let Configured::Sqlite(sqlite) = &config.store {
        files::require_writable_store(&sqlite.path)?;
        if !sqlite.path.exists() {
            return Err(Error::precondition("there is no store; run `strongroom init`"));
        }
    }
    let location = assemble::location(&config.store)?;
    let (found, known) = Store::schema(&location).await?;
    let found =
        found.ok_or_else(|| Error::precondition("the store is empty; run `strongroom init`"))?;
    Store::migrate(&location, backed_up).await?;
    Ok((found, known))
}
