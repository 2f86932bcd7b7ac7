//! The SQL that targets get. Every name and string goes through [`identifier`] or [`literal`].

use crate::engines::database::names::RoleName;
use crate::engines::database::target::{Result, TargetError};
use crate::engines::database::template::{Disposal, Param, Piece, RoleDefinition, Statement};
use crate::types::{SecretBytes, UnixMillis};

/// Keeps direct grants apart: two at once on one object fail with `tuple concurrently updated`.
/// Ends with its transaction; the number is arbitrary and counts per database of the target.
pub(super) const GRANT_LOCK: &str = "SELECT pg_catalog.pg_advisory_xact_lock(7598252614219)";

/// 9999-12-31T23:59:59.999Z, beyond which a date has more digits than PostgreSQL's ISO form.
const LAST_MOMENT: UnixMillis = UnixMillis(253_402_300_799_999);

/// Quotes an identifier: quotes around it, those inside doubled (PostgreSQL manual, 4.1.1).
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string: quotes doubled, and where there is a backslash the `E''` form with it doubled,
/// which reads the same whatever `standard_conforming_strings` is (PostgreSQL manual, 4.1.2).
pub(super) fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// Writes the statements that make a credential, in order.
pub(super) fn create(
    role: &RoleDefinition,
    name: &RoleName,
    verifier: &SecretBytes,
    valid_until: UnixMillis,
) -> Result<Vec<String>> {
    let values = Values {
        name: identifier(name.as_str()),
        password: literal(scram(verifier)?),
        expiration: literal(&moment(valid_until)?),
    };
    let mut statements = Vec::new();
    if !role.uses(Param::Password) {
        let groups: Vec<_> = role.groups.iter().map(|group| identifier(group.as_str())).collect();
        let member = if groups.is_empty() {
            String::new()
        } else {
            format!(" IN ROLE {}", groups.join(", "))
        };
        statements.push(format!(
            "CREATE ROLE {} LOGIN PASSWORD {} VALID UNTIL {}{member}",
            values.name, values.password, values.expiration
        ));
    }
    if let Some(group) = role.session_role() {
        statements.push(format!(
            "ALTER ROLE {} SET role TO {}",
            values.name,
            literal(group.as_str())
        ));
    }
    statements.extend(role.statements.iter().map(|statement| fill(statement, &values)));
    Ok(statements)
}

struct Values {
    name: String,
    password: String,
    expiration: String,
}

fn fill(statement: &Statement, values: &Values) -> String {
    let parts = statement.pieces().iter().map(|piece| match piece {
        Piece::Text(text) => text.as_str(),
        Piece::Param(Param::Name) => &values.name,
        Piece::Param(Param::Password) => &values.password,
        Piece::Param(Param::Expiration) => &values.expiration,
    });
    parts.collect()
}

/// Writes the statement that moves the end of a credential.
pub(super) fn extend(name: &RoleName, valid_until: UnixMillis) -> Result<String> {
    let until = literal(&moment(valid_until)?);
    Ok(format!("ALTER ROLE {} VALID UNTIL {until}", identifier(name.as_str())))
}

/// Writes the statement that ends logins.
pub(super) fn disable(name: &RoleName) -> String {
    format!("ALTER ROLE {} NOLOGIN", identifier(name.as_str()))
}

/// Writes the statement that lets the management account act for the role: only its members may
/// end its sessions and dispose of what it owns. On PostgreSQL 16 its creator holds the ADMIN
/// option that this takes.
pub(super) fn join(name: &RoleName) -> String {
    format!("GRANT {} TO CURRENT_USER", identifier(name.as_str()))
}

/// Writes the statements that leave the role without anything in the current database.
pub(super) fn dispose(name: &RoleName, disposal: &Disposal) -> Vec<String> {
    let role = identifier(name.as_str());
    let reassign = match disposal {
        Disposal::Reassign(owner) => {
            Some(format!("REASSIGN OWNED BY {role} TO {}", identifier(owner.as_str())))
        }
        Disposal::Drop => None,
    };
    let privileges_or_all = format!("DROP OWNED BY {role}");
    reassign.into_iter().chain([privileges_or_all]).collect()
}

/// Writes the statement that removes the role.
pub(super) fn drop_role(name: &RoleName) -> String {
    format!("DROP ROLE {}", identifier(name.as_str()))
}

/// Tells that another transaction was faster: run it again.
pub(super) fn is_collision(error: &TargetError) -> bool {
    // XX000 is `tuple concurrently updated` here: nothing else of these statements is internal.
    // 23505 comes from the catalogue, where two make the same membership at once.
    has_state(error, &["XX000", "23505", "40001", "40P01"])
}

/// Tells that the role is there already.
pub(super) fn is_duplicate(error: &TargetError) -> bool {
    has_state(error, &["42710"])
}

/// Tells that the role is not there.
pub(super) fn is_missing(error: &TargetError) -> bool {
    has_state(error, &["42704"])
}

/// Tells that something still depends on the role.
pub(super) fn is_dependency(error: &TargetError) -> bool {
    has_state(error, &["2BP01"])
}

fn has_state(error: &TargetError, states: &[&str]) -> bool {
    matches!(error, TargetError::Refused { sqlstate, .. } if states.contains(&sqlstate.as_str()))
}

fn moment(at: UnixMillis) -> Result<String> {
    if (UnixMillis(0)..=LAST_MOMENT).contains(&at) {
        Ok(at.to_string())
    } else {
        Err(TargetError::Invalid("the time of expiry is out of range".into()))
    }
}

/// Passes a verifier: whatever is none PostgreSQL would take for a password in clear, and hash.
fn scram(verifier: &SecretBytes) -> Result<&str> {
    let text = std::str::from_utf8(verifier.expose()).ok();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-$:+/=".contains(c);
    text.filter(|text| {
        let fields: Vec<_> = text.split('$').collect();
        matches!(fields.as_slice(), ["SCRAM-SHA-256", salt, keys]
            if salt.contains(':') && keys.contains(':'))
            && text.chars().all(plain)
    })
    .ok_or_else(|| TargetError::Invalid("what stands for the password is no SCRAM verifier".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Id, SystemEntropy, VaultId};

    fn probe() -> RoleName {
        RoleName::probe(VaultId(Id::from_bytes([7; 16])), &SystemEntropy).unwrap()
    }

    fn verifier() -> SecretBytes {
        SecretBytes::new(b"SCRAM-SHA-256$1:c2FsdA==$a2V5:a2V5".to_vec())
    }

    #[test]
    fn quoting_leaves_no_way_out() {
        for (name, quoted) in [("a", "\"a\""), ("a\"; DROP", "\"a\"\"; DROP\""), ("A'b", "\"A'b\"")]
        {
            assert_eq!(identifier(name), quoted);
        }
        for (text, quoted) in [
            ("a", "'a'"),
            ("a'; DROP", "'a''; DROP'"),
            ("a\\", "E'a\\\\'"),
            ("\\'; DROP", "E'\\\\''; DROP'"),
        ] {
            assert_eq!(literal(text), quoted);
        }
    }

    #[test]
    fn a_group_credential_is_two_statements_and_runs_as_its_group() {
        let role: RoleDefinition =
            serde_json::from_str(r#"{"groups": ["re\"ader"], "on_revoke": "drop"}"#).unwrap();
        let name = probe();
        let text = create(&role, &name, &verifier(), UnixMillis(0)).unwrap();
        assert_eq!(
            text,
            [
                format!(
                    "CREATE ROLE \"{name}\" LOGIN PASSWORD 'SCRAM-SHA-256$1:c2FsdA==$a2V5:a2V5' \
                 VALID UNTIL '1970-01-01T00:00:00.000Z' IN ROLE \"re\"\"ader\""
                ),
                format!("ALTER ROLE \"{name}\" SET role TO 're\"ader'"),
            ]
        );
    }

    #[test]
    fn what_is_no_verifier_and_no_date_never_reaches_the_target() {
        let role: RoleDefinition =
            serde_json::from_str(r#"{"groups": ["reader"], "on_revoke": "drop"}"#).unwrap();
        for bad in ["", "hunter2", "md5abc", "SCRAM-SHA-256$x", "SCRAM-SHA-256$1:a$b:c' OR 1"] {
            let bad = SecretBytes::new(bad.as_bytes().to_vec());
            assert!(create(&role, &probe(), &bad, UnixMillis(0)).is_err());
        }
        for bad in [-1, i64::MIN, i64::MAX, 253_402_300_800_000] {
            assert!(create(&role, &probe(), &verifier(), UnixMillis(bad)).is_err(), "{bad}");
        }
    }
}
