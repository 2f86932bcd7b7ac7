//! What a lease remembers, so that it can be ended whatever became of its configuration.

use serde::{Deserialize, Serialize};

use crate::engines::database::names::RoleName;
use crate::engines::database::template::Disposal;
use crate::error::{Error, Result};
use crate::types::{ObjectId, UnixMillis, VaultId};

/// Why a lease ended, or is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// Its time was over.
    Expired,
    /// Somebody revoked it.
    Revoked,
    /// Its identity was suspended, contained, or is over.
    IdentitySuspended,
    /// The token that it hangs on was revoked.
    ParentEnded,
    /// The elevation that it was made under is over.
    ElevationEnded,
    /// Another takes its place.
    Replaced,
    /// It never came to be: creating it failed, or its node did.
    Failed,
}

impl EndReason {
    /// Names the reason as the API does.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::IdentitySuspended => "identity-suspended",
            Self::ParentEnded => "parent-ended",
            Self::ElevationEnded => "elevation-ended",
            Self::Replaced => "replaced",
            Self::Failed => "failed",
        }
    }
}

/// The detail of a database lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseDetail {
    /// The account that made the role: the one that can end it.
    target: String,
    /// The role's name on the target.
    role: String,
    /// What becomes of what the role leaves.
    pub disposal: Disposal,
    /// Time to live that a renewal gets where it names none, in seconds.
    pub default_ttl_s: u32,
    /// Whether its creation was recorded: only then is it known to be over on the target.
    pub created: bool,
    /// When it was last renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    renewed_at: Option<i64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_at: Option<i64>,
    /// Why it ended, or is to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
}

impl LeaseDetail {
    /// Begins a lease's detail, before the role is made.
    #[must_use]
    pub fn new(target: ObjectId, role: &RoleName, disposal: Disposal, default_ttl_s: u32) -> Self {
        Self {
            target: target.to_string(),
            role: role.to_string(),
            disposal,
            default_ttl_s,
            created: false,
            renewed_at: None,
            ended_at: None,
            end_reason: None,
        }
    }

    /// Reads it from a row.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(Error::internal)
    }

    /// Writes it for a row.
    ///
    /// # Errors
    /// [`Error::Internal`] when it cannot be written.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(Error::internal)
    }

    /// The account that made the role.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn target(&self) -> Result<ObjectId> {
        self.target.parse().map_err(Error::internal)
    }

    /// The role's name, of this vault.
    ///
    /// # Errors
    /// [`Error::Internal`] for a name that this vault did not mint.
    pub fn role(&self, vault: VaultId) -> Result<RoleName> {
        RoleName::parse(vault, &self.role).map_err(Error::internal)
    }

    /// Shows the role's name.
    #[must_use]
    pub fn accessor(&self) -> &str {
        &self.role
    }

    /// When it was last renewed.
    #[must_use]
    pub fn renewed_at(&self) -> Option<UnixMillis> {
        self.renewed_at.map(UnixMillis)
    }

    /// When it ended.
    #[must_use]
    pub fn ended_at(&self) -> Option<UnixMillis> {
        self.ended_at.map(UnixMillis)
    }

    pub(super) const fn renewed(&mut self, at: UnixMillis) {
        self.renewed_at = Some(at.0);
    }

    pub(super) const fn ended(&mut self, at: UnixMillis) {
        self.ended_at = Some(at.0);
    }
}
