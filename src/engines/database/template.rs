//! Role definitions: what a credential may do, how long it lives, what becomes of what it leaves.

use serde::{Deserialize, Serialize};

use super::names::TargetRole;
pub use super::statement::{Param, Piece, Statement};
use super::target::{Result, TargetError};

/// Iterations of SCRAM-SHA-256 that every client accepts (RFC 7677, section 4).
pub const SCRAM_ITERATIONS: u32 = 4_096;
const MAX_GROUPS: usize = 16;
const MAX_STATEMENTS: usize = 32;
/// 30 days: a credential that lives longer is no dynamic one.
const LONGEST_TTL_S: u32 = 30 * 86_400;

/// What happens at revocation to what a credential still owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRevoke {
    /// It goes to `owner_role`.
    #[default]
    Reassign,
    /// It is dropped.
    Drop,
}

/// [`OnRevoke`] with its owner: stored with each lease, because the definition may change or go
/// while the lease lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposal {
    /// It goes to this role.
    Reassign(TargetRole),
    /// It is dropped.
    Drop,
}

/// A role of a connection. Either `groups` or `statements` says what a credential gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleDefinition {
    /// Roles of the target that a credential becomes a member of. Where there is exactly one, its
    /// sessions run as that role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<TargetRole>,
    /// Statements that are run, in one transaction, to make a credential. Unless one of them uses
    /// `{{password}}` the login role is created before the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<Statement>,
    /// Who gets what a credential leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_role: Option<TargetRole>,
    /// What happens to what a credential leaves.
    #[serde(default)]
    pub on_revoke: OnRevoke,
    /// SCRAM iterations of the verifier: fewer spare the target, and some clients refuse them.
    #[serde(default = "scram_iterations")]
    pub scram_iterations: u32,
    /// Lifetime of a credential that asks for none, in seconds.
    #[serde(default = "default_ttl_s")]
    pub default_ttl_s: u32,
    /// Longest lifetime of a credential, renewals included, in seconds.
    #[serde(default = "max_ttl_s")]
    pub max_ttl_s: u32,
}

const fn scram_iterations() -> u32 {
    SCRAM_ITERATIONS
}

const fn default_ttl_s() -> u32 {
    3_600
}

const fn max_ttl_s() -> u32 {
    86_400
}

impl RoleDefinition {
    /// Checks what can be checked without the target.
    ///
    /// # Errors
    /// [`TargetError::Invalid`] with what to change.
    pub fn validate(&self) -> Result<()> {
        let invalid = |why: &'static str| Err(TargetError::Invalid(why.into()));
        if self.groups.is_empty() == self.statements.is_empty() {
            return invalid("a role has either groups or statements");
        }
        if self.groups.len() > MAX_GROUPS || self.statements.len() > MAX_STATEMENTS {
            return invalid("a role has at most 16 groups or 32 statements");
        }
        if (1..self.groups.len()).any(|i| {
            self.groups.get(..i).is_some_and(|before| {
                self.groups.get(i).is_some_and(|group| before.contains(group))
            })
        }) {
            return invalid("a group is named twice");
        }
        if !self.statements.is_empty() && !self.uses(Param::Name) {
            return invalid("no statement uses {{name}}");
        }
        if self.uses(Param::Password) && !self.uses(Param::Expiration) {
            return invalid("statements that use {{password}} must use {{expiration}}");
        }
        if !(1..=SCRAM_ITERATIONS).contains(&self.scram_iterations) {
            return invalid("scram_iterations is 1 to 4096");
        }
        if !(1..=LONGEST_TTL_S).contains(&self.max_ttl_s) {
            return invalid("max_ttl_s is 1 second to 30 days");
        }
        if !(1..=self.max_ttl_s).contains(&self.default_ttl_s) {
            return invalid("default_ttl_s is 1 to max_ttl_s");
        }
        self.disposal().map(drop)
    }

    /// Says what becomes of what a credential leaves.
    ///
    /// # Errors
    /// [`TargetError::Invalid`] unless exactly one of `owner_role` and `on_revoke = drop` is said.
    pub fn disposal(&self) -> Result<Disposal> {
        match (self.on_revoke, &self.owner_role) {
            (OnRevoke::Reassign, Some(owner)) => Ok(Disposal::Reassign(owner.clone())),
            (OnRevoke::Drop, None) => Ok(Disposal::Drop),
            (OnRevoke::Reassign, None) => Err(TargetError::Invalid(
                "owner_role is missing: say who gets what a credential leaves, or on_revoke = drop"
                    .into(),
            )),
            (OnRevoke::Drop, Some(_)) => {
                Err(TargetError::Invalid("on_revoke = drop leaves nothing to owner_role".into()))
            }
        }
    }

    /// The role that sessions run as, where there is exactly one group.
    #[must_use]
    pub fn session_role(&self) -> Option<&TargetRole> {
        match self.groups.as_slice() {
            [group] => Some(group),
            [] | [_, _, ..] => None,
        }
    }

    /// Tells whether any statement uses a parameter.
    #[must_use]
    pub fn uses(&self, param: Param) -> bool {
        self.statements.iter().any(|statement| statement.uses(param))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<RoleDefinition, String> {
        let role: RoleDefinition = serde_json::from_str(json).map_err(|e| e.to_string())?;
        role.validate().map_err(|e| e.to_string())?;
        Ok(role)
    }

    #[test]
    fn a_short_definition_gets_the_documented_defaults() {
        let role = parse(r#"{"groups": ["reader"], "owner_role": "owner"}"#).unwrap();
        assert_eq!(
            (role.scram_iterations, role.default_ttl_s, role.max_ttl_s),
            (4_096, 3_600, 86_400)
        );
        assert_eq!(role.session_role().unwrap().as_str(), "reader");
        assert_eq!(role.disposal().unwrap(), Disposal::Reassign("owner".try_into().unwrap()));
        let text = serde_json::to_string(&role).unwrap();
        assert_eq!(parse(&text).unwrap(), role, "what is shown can be put");
    }

    #[test]
    fn definitions_that_say_too_little_or_too_much_are_refused() {
        for (json, why) in [
            (r#"{"owner_role": "o"}"#, "either groups or statements"),
            (
                r#"{"groups": ["g"], "statements": ["GRANT a TO {{name}}"], "owner_role": "o"}"#,
                "either groups or statements",
            ),
            (r#"{"groups": ["g"]}"#, "owner_role is missing"),
            (r#"{"groups": ["g"], "owner_role": "o", "on_revoke": "drop"}"#, "leaves nothing"),
            (r#"{"groups": ["g", "h", "g"], "on_revoke": "drop"}"#, "named twice"),
            (r#"{"groups": ["g"], "on_revoke": "keep"}"#, "unknown variant"),
            (r#"{"groups": ["g"], "on_revoke": "drop", "ttl": 1}"#, "unknown field"),
            (r#"{"groups": ["g\u0000"], "on_revoke": "drop"}"#, "no control characters"),
            (r#"{"groups": ["g"], "on_revoke": "drop", "scram_iterations": 0}"#, "1 to 4096"),
            (r#"{"groups": ["g"], "on_revoke": "drop", "scram_iterations": 4097}"#, "1 to 4096"),
            (r#"{"groups": ["g"], "on_revoke": "drop", "max_ttl_s": 2592001}"#, "30 days"),
            (r#"{"groups": ["g"], "on_revoke": "drop", "default_ttl_s": 86401}"#, "1 to max_ttl_s"),
            (r#"{"groups": ["g"], "on_revoke": "drop", "default_ttl_s": 0}"#, "1 to max_ttl_s"),
            (r#"{"statements": ["SELECT 1"], "on_revoke": "drop"}"#, "no statement uses {{name}}"),
            (
                r#"{"statements": ["CREATE ROLE {{name}} PASSWORD {{password}}"], "on_revoke": "drop"}"#,
                "must use {{expiration}}",
            ),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(why), "{json}: {error}");
        }
    }
}
