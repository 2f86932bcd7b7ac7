//! Revocation: no login, no session, nothing owned anywhere in the cluster, no role.
//!
//! Each step is committed and looks at what is there, so that any call goes on from where an
//! interrupted one stopped, and a role that is gone is success.

use std::time::Duration;

use super::pool::{Pool, Session, Step};
use super::sql;
use crate::engines::database::names::RoleName;
use crate::engines::database::target::{Outage, Result, TargetError};
use crate::engines::database::template::Disposal;

/// Rounds of ending sessions, disposing and dropping: work that was under way may add to it.
const ROUNDS: u32 = 3;
/// Looks for sessions, each after a longer pause; 5 s together.
const LOOKS: u32 = 12;
const COLLISIONS: u32 = 5;

/// One run of a revocation.
pub(super) struct Revocation<'a> {
    pool: &'a Pool,
    name: &'a RoleName,
    disposal: &'a Disposal,
}

/// What is left of a role.
struct Found {
    /// None when it is gone.
    oid: Option<String>,
    had_sessions: bool,
    /// Databases where something depends on it, and whether they let anybody in.
    left_in: Vec<(String, bool)>,
}

/// Looks the role up; a name may only be used once, its oid tells its sessions after it is gone.
pub(super) async fn oid(session: &mut Session, name: &RoleName) -> Result<Option<String>> {
    let text = "SELECT oid::text FROM pg_catalog.pg_roles WHERE rolname = $1::text";
    let rows = session.rows(Step::Look, text, &[name.as_str()]).await?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()))
}

impl<'a> Revocation<'a> {
    pub(super) fn new(pool: &'a Pool, name: &'a RoleName, disposal: &'a Disposal) -> Self {
        Self { pool, name, disposal }
    }

    /// Runs until the role is gone, and once more from the start where a connection broke.
    pub(super) async fn run(&self) -> Result<()> {
        let mut known = None;
        match self.attempt(self.pool.acquire().await?, &mut known).await {
            Err(TargetError::Unreachable(Outage::Lost)) => {
                self.attempt(self.pool.acquire_checked().await?, &mut known).await
            }
            outcome => outcome,
        }
    }

    /// `known` is the role's oid, once it was seen: its sessions outlive it.
    async fn attempt(&self, mut session: Session, known: &mut Option<String>) -> Result<()> {
        self.disable(&mut session).await?;
        let mut last = TargetError::StillConnected;
        for _ in 0..ROUNDS {
            let mut found = self.look(&mut session).await?;
            let Some(oid) = found.oid else {
                return match known.as_deref() {
                    Some(oid) => end_sessions(&mut session, oid).await,
                    None => Ok(()),
                };
            };
            *known = Some(oid.clone());
            if found.had_sessions {
                end_sessions(&mut session, &oid).await?;
                found = self.look(&mut session).await?;
            }
            let here = self.dispose_elsewhere(found.left_in).await?;
            let drop = sql::drop_role(self.name);
            let text = if here { format!("{};\n{drop}", self.dispose()) } else { drop };
            match self.insist(&mut session, Step::Drop, &text).await {
                // A login that was under way when logins ended may have come in since.
                Ok(()) => return end_sessions(&mut session, &oid).await,
                Err(error) if sql::is_dependency(&error) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Looks at everything that is left of the role, in one round trip, and ends its sessions.
    /// `pg_shdepend` is shared: it names the databases where something depends on the role,
    /// whichever one asks. What it does not show yet, made by a session that ends meanwhile, the
    /// target itself refuses to drop.
    async fn look(&self, session: &mut Session) -> Result<Found> {
        let rows = session
            .rows(
                Step::Terminate,
                "WITH role AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1::text) \
                 SELECT 'role', oid::text, '' FROM role \
                 UNION ALL SELECT 'session', pg_catalog.pg_terminate_backend(a.pid)::text, '' \
                 FROM pg_catalog.pg_stat_activity a JOIN role ON a.usesysid = role.oid \
                 UNION ALL SELECT DISTINCT 'database', COALESCE(d.datname::text, $2::text), \
                 COALESCE(d.datallowconn, s.dbid = 0)::text \
                 FROM role JOIN pg_catalog.pg_shdepend s ON s.refobjid = role.oid \
                 LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid \
                 WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass \
                 AND (s.dbid = 0 OR d.oid IS NOT NULL)",
                &[self.name.as_str(), self.pool.database()],
            )
            .await?;
        let mut found = Found { oid: None, had_sessions: false, left_in: Vec::new() };
        for row in rows {
            let [what, value, enterable] =
                <[String; 3]>::try_from(row).map_err(|_unlike| TargetError::Internal)?;
            match what.as_str() {
                "role" => found.oid = Some(value),
                "session" => found.had_sessions = true,
                _ => found.left_in.push((value, enterable == "true")),
            }
        }
        Ok(found)
    }

    /// Ends logins, and lets the management account act for the role. What is sent together is one
    /// round trip and one transaction of the target; where the second fails, the first stands.
    async fn disable(&self, session: &mut Session) -> Result<()> {
        let (disable, join) = (sql::disable(self.name), sql::join(self.name));
        let both = format!("{disable};\n{join}");
        match self.insist(session, Step::Disable, &both).await {
            Err(TargetError::Refused { .. }) => {
                self.insist(session, Step::Disable, &disable).await?;
                self.insist(session, Step::Join, &join).await
            }
            outcome => outcome,
        }
    }

    /// Runs a text until it is done, or the role is gone, which is as good.
    async fn insist(&self, session: &mut Session, step: Step, text: &str) -> Result<()> {
        let mut tries = 0_u32;
        loop {
            tries = tries.saturating_add(1);
            match session.execute(step, text).await {
                Err(error) if sql::is_collision(&error) && tries < COLLISIONS => {
                    tokio::time::sleep(Duration::from_millis(5 << tries)).await;
                }
                Err(error) if sql::is_missing(&error) => {
                    // `owner_role` may be what is missing: only the role itself may be.
                    return match oid(session, self.name).await? {
                        None => Ok(()),
                        Some(_) => Err(error),
                    };
                }
                outcome => return outcome,
            }
        }
    }

    /// Writes the statements that leave the role without anything in the database that they run in.
    fn dispose(&self) -> String {
        let mut statements = vec![sql::GRANT_LOCK.to_owned()];
        statements.extend(sql::dispose(self.name, self.disposal));
        statements.join(";\n")
    }

    /// Leaves the role without anything in any other database of the cluster. Tells whether
    /// something depends on it in this one.
    async fn dispose_elsewhere(&self, left_in: Vec<(String, bool)>) -> Result<bool> {
        let mut here = false;
        for (database, enterable) in left_in {
            if database == self.pool.database() {
                here = true;
                continue;
            }
            let leftover = || TargetError::Leftover { database: database.clone() };
            if !enterable {
                return Err(leftover());
            }
            match self.pool.enter(&database).await {
                Ok(mut there) => self.insist(&mut there, Step::Dispose, &self.dispose()).await?,
                // Dropped since: nothing of the role is left in it, as the next look tells.
                Err(TargetError::Refused { sqlstate, .. }) if sqlstate == "3D000" => {}
                Err(TargetError::Refused { .. }) => return Err(leftover()),
                Err(error) => return Err(error),
            }
        }
        Ok(here)
    }
}

/// Ends the sessions of a role until none is seen.
async fn end_sessions(session: &mut Session, oid: &str) -> Result<()> {
    for look in 0..LOOKS {
        let seen = session
            .rows(
                Step::Terminate,
                "SELECT pg_catalog.pg_terminate_backend(pid)::text \
                 FROM pg_catalog.pg_stat_activity WHERE usesysid = $1::text::oid",
                &[oid],
            )
            .await?;
        if seen.is_empty() {
            return Ok(());
        }
        let pause_ms = 5_u64.checked_shl(look).map_or(800, |ms| ms.min(800));
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    Err(TargetError::StillConnected)
}
