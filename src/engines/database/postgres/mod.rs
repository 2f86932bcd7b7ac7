//! The driver for PostgreSQL 13 and later.
//!
//! It needs no superuser: `docs/database-postgresql.md` gives the account's exact grants. Creating
//! a role is one round trip and one commit on the target. It must not know our own store.

mod access;
mod check;
mod connection;
mod pool;
mod revoke;
mod sql;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use access::{Access, ssl_root};
pub use connection::{ConnectionDefinition, Tls};

use self::pool::{Pool, Step};
use super::names::{self, RoleName};
use super::target::{DatabaseTarget, Outage, Result, TargetError};
use super::template::{Disposal, RoleDefinition};
use crate::types::{Entropy, SecretBytes, UnixMillis, VaultId};

const CREATE_TRIES: u32 = 5;
const SWEEP_ROLES: &str = "10000";

/// One PostgreSQL cluster, entered through one of its databases.
#[derive(Debug)]
pub struct PostgresTarget {
    vault: VaultId,
    entropy: Arc<dyn Entropy>,
    pool: Pool,
    /// Held while a template's own statements run: direct grants on one object collide.
    granting: tokio::sync::Mutex<()>,
}

impl PostgresTarget {
    /// Makes a driver; nothing is connected before the first call. Must be called inside a Tokio
    /// runtime.
    ///
    /// # Errors
    /// [`TargetError::Invalid`] when the definition is.
    pub fn new(
        vault: VaultId,
        definition: &ConnectionDefinition,
        password: &SecretBytes,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        let pool = Pool::new(definition, password)?;
        Ok(Self { vault, entropy, pool, granting: tokio::sync::Mutex::new(()) })
    }

    /// Closes every connection, waiting for the calls under way.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Runs one text, again where the target says that somebody else was faster, and once more on
    /// a fresh connection where the first broke: pooled connections die with the target's restart.
    async fn run(&self, step: Step, text: &str) -> Result<()> {
        let mut lost = false;
        let mut tries = 0_u32;
        loop {
            tries = tries.saturating_add(1);
            let mut session =
                if lost { self.pool.acquire_checked().await? } else { self.pool.acquire().await? };
            match session.execute(step, text).await {
                Err(TargetError::Unreachable(Outage::Lost)) if !lost => lost = true,
                Err(error) if tries < CREATE_TRIES && sql::is_collision(&error) => {
                    drop(session);
                    tokio::time::sleep(Duration::from_millis(5 << tries)).await;
                }
                // The first try may have been committed before its connection broke. A name is
                // used once, so the role that stands there is the one just asked for.
                Err(error) if lost && step == Step::Create && sql::is_duplicate(&error) => {
                    return Ok(());
                }
                outcome => return outcome,
            }
        }
    }
}

#[async_trait]
impl DatabaseTarget for PostgresTarget {
    async fn test(&self) -> Result<String> {
        check::account(&mut self.pool.acquire_checked().await?).await
    }

    async fn check_role(&self, role: &RoleDefinition) -> Result<()> {
        role.validate()?;
        let probe = RoleName::probe(self.vault, &*self.entropy)
            .map_err(|_logged_at_its_source| TargetError::Internal)?;
        check::role(&mut self.pool.acquire_checked().await?, role, &probe).await
    }

    async fn create(
        &self,
        role: &RoleDefinition,
        name: &RoleName,
        verifier: &SecretBytes,
        valid_until: UnixMillis,
    ) -> Result<()> {
        let name = name.ours(self.vault)?;
        let text = sql::create(role, name, verifier, valid_until)?.join(";\n");
        if role.statements.is_empty() {
            return self.run(Step::Create, &text).await;
        }
        let _one_at_a_time = self.granting.lock().await;
        // The lock in the database keeps other nodes away; it goes with the transaction.
        self.run(Step::Create, &format!("{};\n{text}", sql::GRANT_LOCK)).await
    }

    async fn extend(&self, name: &RoleName, valid_until: UnixMillis) -> Result<()> {
        let name = name.ours(self.vault)?;
        match self.run(Step::Extend, &sql::extend(name, valid_until)?).await {
            Err(error) if sql::is_missing(&error) => Err(TargetError::Gone),
            outcome => outcome,
        }
    }

    async fn exists(&self, name: &RoleName) -> Result<bool> {
        let name = name.ours(self.vault)?;
        Ok(revoke::oid(&mut self.pool.acquire_checked().await?, name).await?.is_some())
    }

    async fn revoke(&self, name: &RoleName, disposal: &Disposal) -> Result<()> {
        let name = name.ours(self.vault)?;
        revoke::Revocation::new(&self.pool, name, disposal).run().await
    }

    async fn sweep(&self) -> Result<Vec<RoleName>> {
        let prefix = names::prefix(self.vault);
        let mut session = self.pool.acquire_checked().await?;
        let rows = session
            .rows(
                Step::Look,
                "SELECT rolname::text FROM pg_catalog.pg_roles \
                 WHERE pg_catalog.starts_with(rolname::text, $1) ORDER BY 1 LIMIT $2::text::bigint",
                &[&prefix, SWEEP_ROLES],
            )
            .await?;
        // Whoever copies our prefix but not our grammar keeps their role.
        Ok(rows.iter().filter_map(|row| RoleName::parse(self.vault, row.first()?).ok()).collect())
    }
}
