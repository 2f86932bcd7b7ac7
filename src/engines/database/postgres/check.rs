//! Trials at configuration time: the account, and a role's whole life in a transaction that is
//! rolled back.

use super::pool::{Attempt, Session, Step};
use super::sql;
use crate::engines::database::names::{RoleName, TargetRole};
use crate::engines::database::target::{Result, TargetError};
use crate::engines::database::template::{Disposal, RoleDefinition};
use crate::types::{SecretBytes, UnixMillis};

const OLDEST_VERSION: i64 = 130_000;
/// 2100-01-01T00:00:00Z.
const TRIAL_END: UnixMillis = UnixMillis(4_102_444_800_000);
/// A verifier that no password fits: its keys are not the hashes of anything known.
const TRIAL_VERIFIER: &[u8] = b"SCRAM-SHA-256$1:AAAAAAAAAAAAAAAAAAAAAA==$\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
/// Characters of the target's message that are passed on.
const SAID_CHARS: usize = 300;

/// Checks that the management account may mint roles here; answers the server's version.
pub(super) async fn account(session: &mut Session) -> Result<String> {
    let rows = session
        .rows(
            Step::Look,
            "SELECT pg_catalog.current_setting('server_version_num'), \
             pg_catalog.current_setting('server_version'), \
             pg_catalog.pg_is_in_recovery()::text, (rolcreaterole OR rolsuper)::text \
             FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER",
            &[],
        )
        .await?;
    let Some([number, version, replica, may]) = rows.first().map(Vec::as_slice) else {
        return Err(TargetError::Internal);
    };
    let rejected = |why: &str| Err(TargetError::Rejected(why.to_owned()));
    if number.parse().is_ok_and(|number: i64| number < OLDEST_VERSION) {
        return rejected("the target is older than PostgreSQL 13");
    }
    if replica != "false" {
        return rejected("the target is a read-only replica");
    }
    if may != "true" {
        return rejected("the management account lacks CREATEROLE");
    }
    Ok(version.clone())
}

/// Plays a role's life: made, looked at, disposed of, dropped; then everything is rolled back.
pub(super) async fn role(
    session: &mut Session,
    role: &RoleDefinition,
    probe: &RoleName,
) -> Result<()> {
    let disposal = role.disposal()?;
    for group in &role.groups {
        stands(session, group, "group").await?;
    }
    if let Disposal::Reassign(owner) = &disposal {
        stands(session, owner, "owner_role").await?;
        acts_for(session, owner).await?;
    }
    let verifier = SecretBytes::new(TRIAL_VERIFIER.to_vec());
    let making = sql::create(role, probe, &verifier, TRIAL_END)?;
    let own = making.len().saturating_sub(role.statements.len());
    let outcome = trial(session, role, &disposal, probe, &making, own).await;
    // Also after a refusal, so that nothing of the trial holds locks for longer than it must.
    match session.attempt("ROLLBACK").await {
        Ok(()) => session.sound(),
        Err(_) if outcome.is_err() => {}
        Err(failed) => return Err(told(failed, "roll the trial back")),
    }
    outcome
}

async fn trial(
    session: &mut Session,
    role: &RoleDefinition,
    disposal: &Disposal,
    probe: &RoleName,
    making: &[String],
    own: usize,
) -> Result<()> {
    let run = async |session: &mut Session, text: &str, what: &str| {
        session.attempt(text).await.map_err(|failed| told(failed, what))
    };
    run(session, "BEGIN", "begin a trial").await?;
    if !role.statements.is_empty() {
        run(session, sql::GRANT_LOCK, "take the grants' lock").await?;
    }
    for (i, statement) in making.iter().enumerate() {
        let what = match i.checked_sub(own) {
            None => "create a role with these groups".to_owned(),
            Some(nth) => format!("run statement {}", nth.saturating_add(1)),
        };
        run(session, statement, &what).await?;
    }
    lasts_as_said(session, probe).await?;
    run(session, &sql::join(probe), "act for a role it created").await?;
    for statement in sql::dispose(probe, disposal) {
        run(session, &statement, "dispose of what a role leaves").await?;
    }
    run(session, &sql::drop_role(probe), "drop a role it created").await
}

/// Checks that the role which the statements made is one that expires.
async fn lasts_as_said(session: &mut Session, probe: &RoleName) -> Result<()> {
    let rows = session
        .rows(
            Step::Check,
            "SELECT (rolcanlogin AND rolvaliduntil = \
             pg_catalog.to_timestamp($2::text::double precision))::text \
             FROM pg_catalog.pg_roles WHERE rolname = $1::text",
            &[probe.as_str(), &TRIAL_END.seconds().to_string()],
        )
        .await?;
    if rows.first().is_some_and(|row| row.first().is_some_and(|yes| yes == "true")) {
        return Ok(());
    }
    Err(TargetError::Rejected(
        "the statements do not leave a role {{name}} that may log in until {{expiration}}".into(),
    ))
}

async fn stands(session: &mut Session, role: &TargetRole, what: &str) -> Result<()> {
    let text = "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname = $1::text";
    if session.rows(Step::Look, text, &[role.as_str()]).await?.is_empty() {
        return Err(TargetError::Rejected(format!("{what} {role:?} does not exist on the target")));
    }
    Ok(())
}

async fn acts_for(session: &mut Session, owner: &TargetRole) -> Result<()> {
    let text = "SELECT pg_catalog.pg_has_role($1::text::name, 'USAGE')::text";
    let rows = session.rows(Step::Look, text, &[owner.as_str()]).await?;
    if rows.first().is_some_and(|row| row.first().is_some_and(|yes| yes == "true")) {
        return Ok(());
    }
    Err(TargetError::Rejected(format!(
        "the management account is no member of owner_role {owner:?}, to which it must reassign"
    )))
}

/// Passes on what the target said, on one line and bounded; the trial holds nothing secret.
fn told(failed: Attempt, what: &str) -> TargetError {
    match failed {
        Attempt::Refused { sqlstate, said } => {
            let said: String = said
                .chars()
                .take(SAID_CHARS)
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            TargetError::Rejected(format!("cannot {what}: {said} (SQLSTATE {sqlstate})"))
        }
        Attempt::Failed(error) => error,
    }
}
