//! Every verb: its RPC, action and resource. `strongroom actions` prints this table, grants are
//! checked against it, and the authorization matrix of the tests covers each row of it.

/// One verb of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verb {
    /// The action that a grant names.
    pub action: &'static str,
    /// The RPC, as `Service/Method` in package `strongroom.v1`.
    pub rpc: &'static str,
    /// The resource that is decided on; `<…>` stands for a part of a name.
    pub resource: &'static str,
    /// Administrative: only an active human may hold it, and no wildcard ever covers it.
    pub administrative: bool,
    /// It makes what stands by itself: an elevated call does not, unless the role says so.
    pub standing: bool,
    /// Several administrators do it together: nothing of it is committed without a ceremony.
    pub ceremony: bool,
}

impl Verb {
    /// Finds a verb by its action.
    #[must_use]
    pub fn lookup(action: &str) -> Option<&'static Self> {
        VERBS.iter().chain(LOCAL).find(|verb| verb.action == action)
    }

    const fn standing(mut self) -> Self {
        self.standing = true;
        self
    }

    const fn ceremony(mut self) -> Self {
        self.ceremony = true;
        self
    }
}

const fn verb(
    action: &'static str,
    rpc: &'static str,
    resource: &'static str,
    administrative: bool,
) -> Verb {
    Verb { action, rpc, resource, administrative, standing: false, ceremony: false }
}

/// Every verb, by noun.
pub const VERBS: &[Verb] = &[
    verb("identities.whoami", "IdentityService/WhoAmI", "identities/<self>", false),
    verb("identities.create", "IdentityService/CreateIdentity", "identities/<name>", true)
        .standing(),
    verb("identities.show", "IdentityService/GetIdentity", "identities/<name>", true),
    verb("identities.list", "IdentityService/ListIdentities", "identities", true),
    verb("identities.list-policies", "IdentityService/ListLifecycles", "identities", true),
    verb("identities.put-policy", "IdentityService/PutLifecycle", "identities", true).standing(),
    verb("identities.holdings", "IdentityService/GetHoldings", "identities/<name>", true),
    verb("identities.update", "IdentityService/UpdateIdentity", "identities/<name>", true)
        .standing(),
    verb("identities.transfer", "IdentityService/TransferIdentity", "identities/<name>", true)
        .standing(),
    verb("identities.suspend", "IdentityService/SuspendIdentity", "identities/<name>", true),
    verb("identities.resume", "IdentityService/ResumeIdentity", "identities/<name>", true)
        .standing(),
    verb("identities.retire", "IdentityService/RetireIdentity", "identities/<name>", true),
    verb("identities.shred", "IdentityService/ShredIdentity", "identities/<name>", true).ceremony(),
    verb("identities.finish-shred", "IdentityService/FinishShred", "identities/<name>", true),
    verb("identities.shredding", "IdentityService/GetShredding", "identities/<name>", true),
    verb("identities.list-shreds", "IdentityService/ListShreds", "identities", true),
    verb(
        "identities.issue-cert",
        "IdentityService/IssueLoginCertificate",
        "identities/<name>",
        true,
    )
    .standing(),
    verb("identities.rotate-key", "IdentityService/RotateIdentityKey", "identities/<name>", true)
        .standing(),
    verb("identities.show-key", "IdentityService/GetIdentityKey", "identities/<name>", true),
    verb(
        "identities.schedule-key",
        "IdentityService/ScheduleIdentityKey",
        "identities/<name>",
        true,
    )
    .standing(),
    verb("groups.create", "GroupService/CreateGroup", "groups/<name>", true).standing(),
    verb("groups.show", "GroupService/GetGroup", "groups/<name>", true),
    verb("groups.list", "GroupService/ListGroups", "groups", true),
    verb("groups.add", "GroupService/AddMember", "groups/<name>", true).standing(),
    verb("groups.remove", "GroupService/RemoveMember", "groups/<name>", true),
    verb("grants.add", "GrantService/AddGrant", "grants/<identity or group>", true).standing(),
    verb("grants.show", "GrantService/GetGrant", "grants/<identity or group>", true),
    verb("grants.list", "GrantService/ListGrants", "grants", true),
    verb("grants.remove", "GrantService/RemoveGrant", "grants/<identity or group>", true),
    verb("database.connect", "DatabaseService/PutConnection", "database/<connection>", true)
        .standing(),
    verb("database.list", "DatabaseService/ListConnections", "database/connections", true),
    verb("database.remove", "DatabaseService/RemoveConnection", "database/<connection>", true),
    verb("database.put-role", "DatabaseService/PutRole", "database/<connection>/<role>", true)
        .standing(),
    verb("database.show-role", "DatabaseService/GetRole", "database/<connection>/<role>", true),
    verb("database.list-roles", "DatabaseService/ListRoles", "database/<connection>/roles", true),
    verb(
        "database.remove-role",
        "DatabaseService/RemoveRole",
        "database/<connection>/<role>",
        true,
    ),
    verb(
        "database.credentials",
        "DatabaseService/IssueCredentials",
        "database/<connection>/<role>",
        false,
    ),
    verb("leases.list", "LeaseService/ListLeases", "leases/identities/<identity>", false),
    verb("leases.renew", "LeaseService/RenewLease", "leases/<resource of the lease>", false),
    verb("leases.revoke", "LeaseService/RevokeLease", "leases/<resource of the lease>", false),
    verb("factors.invite", "FactorService/InviteFactor", "factors/<identity>", true).standing(),
    verb("factors.enrol", "FactorService/EnrolFactor", "factors/<self>", false).standing(),
    verb("factors.confirm", "FactorService/ConfirmFactor", "factors/<self>", false).standing(),
    verb("factors.recovery-codes", "FactorService/MakeRecoveryCodes", "factors/<self>", false)
        .standing(),
    verb("factors.verify", "FactorService/VerifyFactor", "factors/<self>", false),
    verb("factors.list", "FactorService/ListFactors", "factors/<identity>", false),
    verb("factors.remove", "FactorService/RemoveFactor", "factors/<self>", false),
    verb("factors.reset", "FactorService/ResetFactors", "factors/<identity>", true).standing(),
    verb("tokens.create", "TokenService/CreateToken", "tokens/<self>", false),
    verb("tokens.mint", "TokenService/MintToken", "tokens/<identity>", true),
    verb("tokens.inspect", "TokenService/InspectToken", "tokens/<identity>", false),
    verb("tokens.renew", "TokenService/RenewToken", "tokens/<identity>", false),
    verb("tokens.revoke", "TokenService/RevokeToken", "tokens/<identity>", false),
    verb("tokens.list", "TokenService/ListTokens", "tokens/<identity>", false),
    verb("issuers.add", "IssuerService/AddIssuer", "issuers/<issuer>", true).standing(),
    verb("issuers.show", "IssuerService/GetIssuer", "issuers/<issuer>", true),
    verb("issuers.list", "IssuerService/ListIssuers", "issuers", true),
    verb("issuers.update", "IssuerService/UpdateIssuer", "issuers/<issuer>", true).standing(),
    verb("issuers.remove", "IssuerService/RemoveIssuer", "issuers/<issuer>", true),
    verb("issuers.add-rule", "IssuerService/AddRule", "issuers/<issuer>", true).standing(),
    verb("issuers.list-rules", "IssuerService/ListRules", "issuers/<issuer>", true),
    verb("issuers.remove-rule", "IssuerService/RemoveRule", "issuers/<issuer>", true),
    verb("issuers.test", "IssuerService/TestToken", "issuers", true),
    verb("issuers.login", "IssuerService/Login", "identities/<identity>", false),
    verb("issuers.list-providers", "IssuerService/ListProviders", "issuers", false),
    verb("enrolments.create", "EnrolmentService/CreateEnrolment", "enrolments/<identity>", true)
        .standing(),
    verb("enrolments.list", "EnrolmentService/ListEnrolments", "enrolments/<identity>", true),
    verb("enrolments.revoke", "EnrolmentService/RevokeEnrolment", "enrolments/<identity>", true),
    verb("enrolments.join", "EnrolmentService/Join", "enrolments/<identity>", false),
    verb("enrolments.renew", "EnrolmentService/RenewLogin", "enrolments/<self>", false),
    verb("pki.put-role", "PkiService/PutRole", "pki/<role>", true).standing(),
    verb("pki.show-role", "PkiService/GetRole", "pki/<role>", true),
    verb("pki.list-roles", "PkiService/ListRoles", "pki/<role>", true),
    verb("pki.remove-role", "PkiService/RemoveRole", "pki/<role>", true),
    verb("pki.issue", "PkiService/IssueCertificate", "pki/<role>", false),
    verb("pki.sign", "PkiService/SignCertificate", "pki/<role>", false),
    verb("pki.list", "PkiService/ListCertificates", "pki/<role>", false),
    verb("pki.revoke", "PkiService/RevokeCertificate", "pki/<role>", false),
    verb("pki.ca", "PkiService/GetAuthorities", "pki/authorities", false),
    verb("pki.crl", "PkiService/GetRevocationList", "pki/crl", false),
    verb("elevations.put-role", "ElevationService/PutRole", "elevations/<role>", true).standing(),
    verb("elevations.confirm-role", "ElevationService/ConfirmRole", "elevations/<role>", true),
    verb("elevations.show-role", "ElevationService/GetRole", "elevations/<role>", false),
    verb("elevations.list-roles", "ElevationService/ListRoles", "elevations/roles", false),
    verb("elevations.request", "ElevationService/RequestElevation", "elevations/<role>", false),
    verb("elevations.list", "ElevationService/ListElevations", "elevations", false),
    verb("elevations.watch", "ElevationService/WatchElevations", "elevations", false),
    verb("elevations.show", "ElevationService/GetElevation", "elevations/<role>", false),
    verb("elevations.approve", "ElevationService/ApproveElevation", "elevations/<role>", false),
    verb("elevations.deny", "ElevationService/DenyElevation", "elevations/<role>", false),
    verb("elevations.withdraw", "ElevationService/WithdrawElevation", "elevations/<role>", false),
    verb("elevations.activate", "ElevationService/ActivateElevation", "elevations/<role>", false),
    verb("elevations.extend", "ElevationService/ExtendElevation", "elevations/<role>", false),
    verb("elevations.review", "ElevationService/ReviewElevation", "elevations/<role>", false),
    verb("elevations.revoke", "ElevationService/RevokeElevation", "elevations/<role>", false),
    verb("ceremonies.list", "CeremonyService/ListCeremonies", "ceremonies", true),
    verb("ceremonies.watch", "CeremonyService/WatchCeremonies", "ceremonies", true),
    verb("ceremonies.show", "CeremonyService/GetCeremony", "ceremonies/<ceremony>", true),
    verb("ceremonies.approve", "CeremonyService/ApproveCeremony", "ceremonies/<ceremony>", true),
    verb("ceremonies.deny", "CeremonyService/DenyCeremony", "ceremonies/<ceremony>", true),
    verb("ceremonies.cancel", "CeremonyService/CancelCeremony", "ceremonies/<ceremony>", true),
    verb("secrets.put", "SecretService/PutSecret", "secrets/<path>", false).standing(),
    verb("secrets.get", "SecretService/GetSecret", "secrets/<path>", false),
    verb("secrets.list", "SecretService/ListSecrets", "secrets", false),
    verb("secrets.search", "SecretService/SearchSecrets", "secrets", false),
    verb("secrets.history", "SecretService/ListVersions", "secrets/<path>", false),
    verb("secrets.rollback", "SecretService/RollbackSecret", "secrets/<path>", false).standing(),
    verb("secrets.delete", "SecretService/DeleteSecret", "secrets/<path>", false),
    verb("secrets.undelete", "SecretService/UndeleteSecret", "secrets/<path>", false),
    verb("secrets.destroy", "SecretService/DestroySecret", "secrets/<path>", false),
    verb("secrets.metadata", "SecretService/GetMetadata", "secrets/<path>", false),
    verb("secrets.update", "SecretService/UpdateSecret", "secrets/<path>", false).standing(),
    verb("secrets.transfer", "SecretService/TransferSecret", "secrets/<path>", false).standing(),
    verb("keys.create", "KeyService/CreateKey", "keys/<name>", false).standing(),
    verb("keys.show", "KeyService/GetKey", "keys/<name>", false),
    verb("keys.list", "KeyService/ListKeys", "keys", false),
    verb("keys.rotate", "KeyService/RotateKey", "keys/<name>", false).standing(),
    verb("keys.update", "KeyService/UpdateKey", "keys/<name>", false).standing(),
    verb("keys.encrypt", "KeyService/Encrypt", "keys/<name>", false),
    verb("keys.decrypt", "KeyService/Decrypt", "keys/<name>", false),
    verb("keys.encrypt-stream", "KeyService/EncryptStream", "keys/<name>", false),
    verb("keys.decrypt-stream", "KeyService/DecryptStream", "keys/<name>", false),
    verb("keys.rewrap", "KeyService/Rewrap", "keys/<name>", false),
    verb("keys.datakey", "KeyService/MakeDataKey", "keys/<name>", false),
    verb("keys.mac", "KeyService/Mac", "keys/<name>", false),
    verb("keys.verify-mac", "KeyService/VerifyMac", "keys/<name>", false),
    verb("keys.sign", "KeyService/Sign", "keys/<name>", false),
    verb("keys.verify", "KeyService/Verify", "keys/<name>", false),
    verb("keys.export", "KeyService/ExportKey", "keys/<name>", false),
    verb("keys.import", "KeyService/ImportKey", "keys/<name>", false).standing(),
    verb("keys.transfer", "KeyService/TransferKey", "keys/<name>", false).standing(),
    verb("keys.backup", "KeyService/BackUpKey", "keys/<name>", false),
    verb("keys.restore", "KeyService/RestoreKey", "keys/<name>", false).standing(),
    verb("keys.sign-artifact", "KeyService/SignArtifact", "keys/<name>", false),
    verb("keys.usage", "KeyService/GetKeyUsage", "keys/<name>", false),
    verb("keys.random", "KeyService/GetRandom", "keys", false),
    verb("wraps.unwrap", "WrapService/Unwrap", "wraps/<creator>", false),
    verb("wraps.show", "WrapService/GetWrap", "wraps/<creator>", false),
    verb("wraps.list", "WrapService/ListWraps", "wraps/<identity>", false),
    verb("wraps.revoke", "WrapService/RevokeWrap", "wraps/<creator>", false),
    verb("records.list", "RecordService/ListEntries", "records/log", true),
    verb("records.tail", "RecordService/TailEntries", "records/log", true),
    verb("records.read", "RecordService/ReadLog", "records/log", true),
    verb("records.checkpoint", "RecordService/GetCheckpoint", "records/checkpoint", false),
    verb("authorities.rotate", "AuthorityService/RotateAuthority", "authorities/<authority>", true)
        .standing(),
    verb("authorities.retire", "AuthorityService/RetireAuthority", "authorities/<authority>", true)
        .ceremony(),
    verb("authorities.show", "AuthorityService/GetAuthority", "authorities/<authority>", true),
    verb(
        "authorities.schedule",
        "AuthorityService/ScheduleAuthority",
        "authorities/<authority>",
        true,
    )
    .standing(),
    verb("root.rotate", "RootService/RotateRoot", "root/key", true).standing().ceremony(),
    verb("root.retire", "RootService/RetireRoot", "root/key", true).ceremony(),
    verb("root.show", "RootService/GetRoot", "root/key", true),
    verb("root.schedule", "RootService/ScheduleRoot", "root/key", true).standing().ceremony(),
    verb("records.verify-state", "RecordService/VerifyState", "records/log", true),
    verb("recovery_sets.create", "RecoverySetService/CreateRecoverySet", "recovery_sets", true)
        .standing()
        .ceremony(),
    verb("recovery_sets.list", "RecoverySetService/ListRecoverySets", "recovery_sets", true),
    verb(
        "recovery_sets.destroy",
        "RecoverySetService/DestroyRecoverySet",
        "recovery_sets/<set>",
        true,
    )
    .ceremony(),
    verb("system.seal", "SystemService/Seal", "system/seal", true),
    verb("system.cancel-recovery", "SystemService/CancelRecovery", "system/recovery", true),
];

/// What is asked for on the server's own socket by somebody who signs for it, and by no RPC.
const LOCAL: &[Verb] = &[verb("system.accept-rollback", "", "system/log", true).ceremony()];

#[cfg(test)]
mod tests {
    use super::*;

    /// What administers and makes nothing that stands: it shows, or takes away. A new verb that
    /// administers is in this list, or says [`Verb::standing`].
    const SHOWS_OR_ENDS: &[&str] = &[
        "identities.show",
        "identities.list",
        "identities.list-policies",
        "identities.holdings",
        "identities.suspend",
        "identities.retire",
        "identities.shred",
        "identities.finish-shred",
        "identities.shredding",
        "identities.list-shreds",
        "identities.show-key",
        "groups.show",
        "groups.list",
        "groups.remove",
        "grants.show",
        "grants.list",
        "grants.remove",
        "database.list",
        "database.remove",
        "database.show-role",
        "database.list-roles",
        "database.remove-role",
        // What it makes hangs on the elevation, and ends with it.
        "tokens.mint",
        "issuers.show",
        "issuers.list",
        "issuers.remove",
        "issuers.list-rules",
        "issuers.remove-rule",
        "issuers.test",
        "enrolments.list",
        "enrolments.revoke",
        "pki.show-role",
        "pki.list-roles",
        "pki.remove-role",
        // Never elevated, as all that governs elevations.
        "elevations.confirm-role",
        "ceremonies.list",
        "ceremonies.watch",
        "ceremonies.show",
        // By whoever is in the group of administrators alone.
        "ceremonies.approve",
        "ceremonies.deny",
        "ceremonies.cancel",
        "records.list",
        "records.tail",
        "records.read",
        "authorities.retire",
        "authorities.show",
        "root.retire",
        "root.show",
        "records.verify-state",
        "recovery_sets.list",
        "recovery_sets.destroy",
        "system.seal",
        "system.cancel-recovery",
    ];

    #[test]
    fn every_verb_that_administers_is_known_to_make_what_stands_or_not_to() {
        let administers = VERBS.iter().filter(|verb| verb.administrative && !verb.standing);
        let administers: Vec<_> = administers.map(|verb| verb.action).collect();
        assert_eq!(administers, SHOWS_OR_ENDS);
    }
}
