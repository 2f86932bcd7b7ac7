//! One proper request for each RPC: what is refused is refused for who asks.

use std::collections::BTreeMap;

use prost::Message as _;
use strongroom::crypto::{hex, hpke_public};
use strongroom::proto::{
    ActivateElevationRequest, AddGrantRequest, AddMemberRequest, ApproveCeremonyRequest,
    ApproveElevationRequest, CancelCeremonyRequest, CancelRecoveryRequest,
    ConfirmElevationRoleRequest, ConfirmFactorRequest, CreateGroupRequest,
    CreateRecoverySetRequest, CreateTokenRequest, DenyCeremonyRequest, DenyElevationRequest,
    DestroyRecoverySetRequest, ElevationRole, ElevationStep, EnrolFactorRequest,
    ExtendElevationRequest, FinishShredRequest, GetAuthoritiesRequest, GetAuthorityRequest,
    GetCeremonyRequest, GetCertificateRoleRequest, GetCheckpointRequest, GetDatabaseRoleRequest,
    GetElevationRequest, GetElevationRoleRequest, GetGrantRequest, GetGroupRequest,
    GetHoldingsRequest, GetIdentityKeyRequest, GetIdentityRequest, GetRevocationListRequest,
    GetRootRequest, GetShreddingRequest, GetWrapRequest, InspectTokenRequest, InviteFactorRequest,
    IssueCertificateRequest, IssueLoginCertificateRequest, Lifecycle, ListCeremoniesRequest,
    ListCertificateRolesRequest, ListCertificatesRequest, ListConnectionsRequest,
    ListDatabaseRolesRequest, ListElevationRolesRequest, ListElevationsRequest, ListEntriesRequest,
    ListFactorsRequest, ListGrantsRequest, ListGroupsRequest, ListIdentitiesRequest,
    ListLeasesRequest, ListLifecyclesRequest, ListRecoverySetsRequest, ListShredsRequest,
    ListTokensRequest, ListWrapsRequest, MakeRecoveryCodesRequest, MintTokenRequest,
    PutCertificateRoleRequest, PutConnectionRequest, PutDatabaseRoleRequest,
    PutElevationRoleRequest, PutLifecycleRequest, ReadLogRequest, RecoveryHolder,
    RemoveCertificateRoleRequest, RemoveConnectionRequest, RemoveDatabaseRoleRequest,
    RemoveFactorRequest, RemoveGrantRequest, RemoveMemberRequest, RenewLeaseRequest,
    RenewTokenRequest, RequestElevationRequest, ResetFactorsRequest, ResumeIdentityRequest,
    RetireAuthorityRequest, RetireIdentityRequest, RetireRootRequest, ReviewElevationRequest,
    RevokeCertificateRequest, RevokeElevationRequest, RevokeLeaseRequest, RevokeTokenRequest,
    RevokeWrapRequest, RotateAuthorityRequest, RotateIdentityKeyRequest, RotateRootRequest,
    ScheduleAuthorityRequest, ScheduleIdentityKeyRequest, ScheduleRootRequest, SealRequest,
    ShredIdentityRequest, SignCertificateRequest, SubjectNames, SuspendIdentityRequest,
    TailEntriesRequest, TransferIdentityRequest, UnwrapRequest, UpdateIdentityRequest,
    VerifyFactorRequest, VerifyStateRequest, WatchCeremoniesRequest, WatchElevationsRequest,
    WhoAmIRequest, WithdrawElevationRequest, add_grant_request,
};
use strongroom::types::{CredentialId, Id, SecretBytes, TokenSecret, WrapHandle};

use super::{enrolments, issuers, keys, secrets};
use crate::support::logins::registration;
use crate::support::node::csr;
use crate::support::target::ask;

/// What requests speak of.
#[derive(Debug, Clone, Default)]
pub(super) struct Things {
    /// The machine that holds grants, a lease, a certificate.
    pub(super) machine: String,
    /// Whose first login certificate is signed.
    pub(super) bearer: String,
    /// Who owns the machine.
    pub(super) owner: String,
    pub(super) lease: String,
    /// The accessor of its token.
    pub(super) token: String,
    /// The accessor of what it wrapped.
    pub(super) wrap: String,
    pub(super) certificate: String,
    pub(super) grant: String,
    pub(super) connection: PutConnectionRequest,
    pub(super) role: PutDatabaseRoleRequest,
    /// Elevations that the machine asked for, by what is done to them; each with its hash.
    pub(super) elevations: BTreeMap<&'static str, (String, String)>,
    /// The recovery of an administrator, which waits.
    pub(super) recovery: String,
}

const GROUP: &str = "readers";
const VICTIM: &str = "victim";
/// Who is retired, and shredded.
pub(super) const LEAVER: &str = "leaver";
/// The id of a factor, or a ceremony, that there is none of.
const NO_FACTOR: &str = "018f0000-0000-7000-8000-000000000000";
/// What nothing else speaks of, and may be removed: a connection and roles.
pub(super) const SPARE: &str = "spare";

/// Makes the encoded request of an RPC.
pub(super) fn request(rpc: &str, of: &Things) -> Vec<u8> {
    let (service, method) = rpc.split_once('/').unwrap();
    match service {
        "IdentityService" => identities(method, of),
        "GroupService" => groups(method),
        "GrantService" => grants(method, of),
        "DatabaseService" => database(method, of),
        "LeaseService" => leases(method, of),
        "FactorService" => factors(method, of),
        "TokenService" => tokens(method, of),
        "PkiService" => pki(method, of),
        "ElevationService" => elevations(method, of),
        "CeremonyService" => ceremonies(method),
        "SecretService" => secrets::request(method, of),
        "IssuerService" => issuers::request(method, of),
        "EnrolmentService" => enrolments::request(method, of),
        "KeyService" => keys::request(method, of),
        "WrapService" => wraps(method, of),
        "RecordService" => records(method),
        "AuthorityService" => {
            let name = "login".to_owned();
            match method {
                "RotateAuthority" => {
                    RotateAuthorityRequest { name, ..Default::default() }.encode_to_vec()
                }
                "RetireAuthority" => {
                    RetireAuthorityRequest { name, version: 99, force: false }.encode_to_vec()
                }
                "GetAuthority" => GetAuthorityRequest { name }.encode_to_vec(),
                "ScheduleAuthority" => {
                    ScheduleAuthorityRequest { name, rotate_every_s: 0 }.encode_to_vec()
                }
                _ => unknown(method),
            }
        }
        "RootService" => match method {
            "RotateRoot" => RotateRootRequest::default().encode_to_vec(),
            "RetireRoot" => RetireRootRequest { version: 99 }.encode_to_vec(),
            "GetRoot" => GetRootRequest {}.encode_to_vec(),
            "ScheduleRoot" => ScheduleRootRequest::default().encode_to_vec(),
            _ => unknown(method),
        },
        "RecoverySetService" => recovery_sets(method),
        "SystemService" => match method {
            "Seal" => SealRequest::default().encode_to_vec(),
            "CancelRecovery" => {
                let (id, reason) = (of.recovery.clone(), String::new());
                CancelRecoveryRequest { id, reason }.encode_to_vec()
            }
            _ => unknown(method),
        },
        _ => unknown(service),
    }
}

pub(super) fn unknown(what: &str) -> Vec<u8> {
    panic!("give {what} a request here, and its row in the page")
}

fn identities(method: &str, of: &Things) -> Vec<u8> {
    let (name, reason) = (VICTIM.to_owned(), String::new());
    match method {
        "WhoAmI" => WhoAmIRequest {}.encode_to_vec(),
        "CreateIdentity" => registration("newcomer", "human", "").encode_to_vec(),
        "GetIdentity" => GetIdentityRequest { name: of.machine.clone() }.encode_to_vec(),
        "ListIdentities" => ListIdentitiesRequest::default().encode_to_vec(),
        "ListLifecycles" => ListLifecyclesRequest {}.encode_to_vec(),
        "PutLifecycle" => {
            let lifecycle = Lifecycle {
                kind: "model".into(),
                max_ttl_s: 3_600,
                max_age_s: 3_600,
                rotation_s: 3_600,
                ..Default::default()
            };
            PutLifecycleRequest { lifecycle: Some(lifecycle) }.encode_to_vec()
        }
        "RotateIdentityKey" => {
            RotateIdentityKeyRequest { name, expected_version: 0 }.encode_to_vec()
        }
        "GetIdentityKey" => GetIdentityKeyRequest { name }.encode_to_vec(),
        "ScheduleIdentityKey" => {
            ScheduleIdentityKeyRequest { name, rotate_every_s: 0 }.encode_to_vec()
        }
        "GetHoldings" => GetHoldingsRequest { name: of.machine.clone() }.encode_to_vec(),
        "UpdateIdentity" => {
            UpdateIdentityRequest { name, purpose: Some("another".into()), ..Default::default() }
                .encode_to_vec()
        }
        "TransferIdentity" => TransferIdentityRequest {
            name: of.machine.clone(),
            owner: of.owner.clone(),
            ..Default::default()
        }
        .encode_to_vec(),
        "RetireIdentity" => RetireIdentityRequest { name: LEAVER.into(), reason }.encode_to_vec(),
        "ShredIdentity" => {
            let (name, confirm) = (LEAVER.to_owned(), LEAVER.to_owned());
            ShredIdentityRequest { name, confirm, reason }.encode_to_vec()
        }
        "FinishShred" => FinishShredRequest { name: LEAVER.into() }.encode_to_vec(),
        "GetShredding" => GetShreddingRequest { name: LEAVER.into() }.encode_to_vec(),
        "ListShreds" => ListShredsRequest::default().encode_to_vec(),
        "SuspendIdentity" => SuspendIdentityRequest { name, reason }.encode_to_vec(),
        "ResumeIdentity" => ResumeIdentityRequest { name, reason }.encode_to_vec(),
        "IssueLoginCertificate" => IssueLoginCertificateRequest {
            name: of.bearer.clone(),
            csr_pem: csr().1,
            ..Default::default()
        }
        .encode_to_vec(),
        _ => unknown(method),
    }
}

fn groups(method: &str) -> Vec<u8> {
    let (group, identity) = (GROUP.to_owned(), VICTIM.to_owned());
    match method {
        "CreateGroup" => CreateGroupRequest {
            name: GROUP.into(),
            purpose: "a test".into(),
            ..Default::default()
        }
        .encode_to_vec(),
        "GetGroup" => GetGroupRequest { name: group, ..Default::default() }.encode_to_vec(),
        "ListGroups" => ListGroupsRequest::default().encode_to_vec(),
        "AddMember" => AddMemberRequest { group, identity }.encode_to_vec(),
        "RemoveMember" => RemoveMemberRequest { group, identity }.encode_to_vec(),
        _ => unknown(method),
    }
}

fn grants(method: &str, of: &Things) -> Vec<u8> {
    let id = of.grant.clone();
    match method {
        "AddGrant" => AddGrantRequest {
            subject: Some(add_grant_request::Subject::Identity(of.machine.clone())),
            action: "pki.sign".into(),
            resource: "pki/other".into(),
            reason: "a test".into(),
            ..Default::default()
        }
        .encode_to_vec(),
        "GetGrant" => GetGrantRequest { id }.encode_to_vec(),
        "ListGrants" => ListGrantsRequest::default().encode_to_vec(),
        "RemoveGrant" => RemoveGrantRequest { id, reason: String::new() }.encode_to_vec(),
        _ => unknown(method),
    }
}

fn database(method: &str, of: &Things) -> Vec<u8> {
    match method {
        "PutConnection" => of.connection.encode_to_vec(),
        "ListConnections" => ListConnectionsRequest::default().encode_to_vec(),
        "RemoveConnection" => RemoveConnectionRequest { name: SPARE.into() }.encode_to_vec(),
        "RemoveRole" => {
            RemoveDatabaseRoleRequest { connection: "analytics".into(), name: SPARE.into() }
                .encode_to_vec()
        }
        "PutRole" => of.role.encode_to_vec(),
        "GetRole" => {
            GetDatabaseRoleRequest { connection: "analytics".into(), name: "reader".into() }
                .encode_to_vec()
        }
        "ListRoles" => ListDatabaseRolesRequest::default().encode_to_vec(),
        "IssueCredentials" => ask().encode_to_vec(),
        _ => unknown(method),
    }
}

fn leases(method: &str, of: &Things) -> Vec<u8> {
    let id = of.lease.clone();
    match method {
        "ListLeases" => {
            ListLeasesRequest { identity: of.machine.clone(), ..Default::default() }.encode_to_vec()
        }
        "RenewLease" => RenewLeaseRequest { id, ttl_s: 0 }.encode_to_vec(),
        "RevokeLease" => RevokeLeaseRequest { id, reason: String::new() }.encode_to_vec(),
        _ => unknown(method),
    }
}

fn factors(method: &str, of: &Things) -> Vec<u8> {
    let (identity, reason) = (of.owner.clone(), String::new());
    let (id, code) = (NO_FACTOR.to_owned(), "123456".to_owned());
    match method {
        "InviteFactor" => InviteFactorRequest { identity, ttl_s: 0, reason }.encode_to_vec(),
        "EnrolFactor" => EnrolFactorRequest::default().encode_to_vec(),
        "ConfirmFactor" => ConfirmFactorRequest { id, code }.encode_to_vec(),
        "MakeRecoveryCodes" => MakeRecoveryCodesRequest {}.encode_to_vec(),
        "VerifyFactor" => VerifyFactorRequest { code }.encode_to_vec(),
        "ListFactors" => ListFactorsRequest { identity }.encode_to_vec(),
        "RemoveFactor" => RemoveFactorRequest { id }.encode_to_vec(),
        "ResetFactors" => ResetFactorsRequest { identity, reason }.encode_to_vec(),
        _ => unknown(method),
    }
}

fn tokens(method: &str, of: &Things) -> Vec<u8> {
    let (accessor, identity) = (of.token.clone(), of.machine.clone());
    match method {
        "CreateToken" => CreateTokenRequest::default().encode_to_vec(),
        "MintToken" => MintTokenRequest { identity, ..Default::default() }.encode_to_vec(),
        "InspectToken" => InspectTokenRequest { accessor }.encode_to_vec(),
        "RenewToken" => RenewTokenRequest { accessor, ttl_s: 0 }.encode_to_vec(),
        "ListTokens" => ListTokensRequest { identity, ..Default::default() }.encode_to_vec(),
        "RevokeToken" => RevokeTokenRequest { accessor, reason: String::new() }.encode_to_vec(),
        _ => unknown(method),
    }
}

fn wraps(method: &str, of: &Things) -> Vec<u8> {
    let (accessor, identity) = (of.wrap.clone(), of.machine.clone());
    match method {
        "Unwrap" => {
            // A handle that opens nothing: what is opened is so for the first who asks alone.
            let id = CredentialId(Id::from_bytes([7; 16]));
            let handle = WrapHandle::new(id, TokenSecret::derived([7; 32])).text();
            let handle = String::from_utf8(handle.expose().to_vec()).unwrap();
            let path = "secrets/matrix/value".to_owned();
            UnwrapRequest { handle, creator: identity, path, action: String::new() }.encode_to_vec()
        }
        "GetWrap" => GetWrapRequest { accessor }.encode_to_vec(),
        "ListWraps" => ListWrapsRequest { identity, ..Default::default() }.encode_to_vec(),
        "RevokeWrap" => RevokeWrapRequest { accessor, reason: String::new() }.encode_to_vec(),
        _ => unknown(method),
    }
}

/// The certificate role that the machine may use.
pub(super) fn certificate_role() -> PutCertificateRoleRequest {
    PutCertificateRoleRequest {
        name: "etl".into(),
        allowed_dns: vec!["etl.test".into()],
        ..Default::default()
    }
}

fn pki(method: &str, of: &Things) -> Vec<u8> {
    let (role, name) = ("etl".to_owned(), "etl".to_owned());
    let names = Some(SubjectNames { dns: vec!["etl.test".into()], ..Default::default() });
    match method {
        "PutRole" => certificate_role().encode_to_vec(),
        "RemoveRole" => RemoveCertificateRoleRequest { name: SPARE.into() }.encode_to_vec(),
        "GetRole" => GetCertificateRoleRequest { name }.encode_to_vec(),
        "ListRoles" => ListCertificateRolesRequest::default().encode_to_vec(),
        "IssueCertificate" => {
            IssueCertificateRequest { role, names, ..Default::default() }.encode_to_vec()
        }
        "SignCertificate" => {
            SignCertificateRequest { role, names, csr_pem: csr().1, ..Default::default() }
                .encode_to_vec()
        }
        "ListCertificates" => {
            ListCertificatesRequest { identity: of.machine.clone(), ..Default::default() }
                .encode_to_vec()
        }
        "RevokeCertificate" => {
            let id = of.certificate.clone();
            RevokeCertificateRequest { id, reason: String::new() }.encode_to_vec()
        }
        "GetRevocationList" => GetRevocationListRequest::default().encode_to_vec(),
        "GetAuthorities" => GetAuthoritiesRequest {}.encode_to_vec(),
        _ => unknown(method),
    }
}

fn recovery_sets(method: &str) -> Vec<u8> {
    match method {
        "CreateRecoverySet" => {
            let public = |byte: u8| {
                let private = SecretBytes::new(vec![byte; 32]);
                hex(hpke_public(&private).unwrap().as_bytes())
            };
            let holder = |(name, byte): (&str, u8)| RecoveryHolder {
                name: name.into(),
                public_key: public(byte),
                ..Default::default()
            };
            let holders = [("one", 1), ("two", 2)].map(holder).to_vec();
            CreateRecoverySetRequest { threshold: 2, holders, token: None }.encode_to_vec()
        }
        "ListRecoverySets" => ListRecoverySetsRequest {}.encode_to_vec(),
        "DestroyRecoverySet" => {
            let id = "00000000-0000-7000-8000-000000000000".to_owned();
            DestroyRecoverySetRequest { id, ..Default::default() }.encode_to_vec()
        }
        _ => unknown(method),
    }
}

fn records(method: &str) -> Vec<u8> {
    match method {
        "ListEntries" => ListEntriesRequest::default().encode_to_vec(),
        "TailEntries" => TailEntriesRequest { filter: None, last: 1 }.encode_to_vec(),
        "GetCheckpoint" => GetCheckpointRequest {}.encode_to_vec(),
        "ReadLog" => ReadLogRequest { path: "tile/0/000.p/1".into() }.encode_to_vec(),
        "VerifyState" => VerifyStateRequest::default().encode_to_vec(),
        _ => unknown(method),
    }
}

/// An elevation role that the machine may ask for, and dave approves.
pub(super) fn elevation_role() -> ElevationRole {
    ElevationRole {
        name: "night".into(),
        requesters: vec!["data-etl".into()],
        resources: vec!["database/**".into()],
        actions: vec!["database.credentials".into()],
        steps: vec![ElevationStep { approvals: 1, groups: vec!["security".into()], owners: false }],
        ..Default::default()
    }
}

/// What the machine asks for.
pub(super) fn elevation() -> RequestElevationRequest {
    let resources = vec!["database/analytics/writer".into()];
    RequestElevationRequest { role: "night".into(), resources, ..Default::default() }
}

fn ceremonies(method: &str) -> Vec<u8> {
    let (id, reason) = (NO_FACTOR.to_owned(), String::new());
    match method {
        "ListCeremonies" => ListCeremoniesRequest::default().encode_to_vec(),
        "WatchCeremonies" => WatchCeremoniesRequest {}.encode_to_vec(),
        "GetCeremony" => GetCeremonyRequest { id }.encode_to_vec(),
        "ApproveCeremony" => {
            ApproveCeremonyRequest { id, hash: String::new(), reason }.encode_to_vec()
        }
        "DenyCeremony" => DenyCeremonyRequest { id, reason }.encode_to_vec(),
        "CancelCeremony" => CancelCeremonyRequest { id }.encode_to_vec(),
        _ => unknown(method),
    }
}

fn elevations(method: &str, of: &Things) -> Vec<u8> {
    let (id, scope_hash) = of.elevations.get(method).cloned().unwrap_or_default();
    match method {
        "PutRole" => PutElevationRoleRequest { role: Some(elevation_role()) }.encode_to_vec(),
        "ConfirmRole" => {
            ConfirmElevationRoleRequest { name: "night".into(), version: 1 }.encode_to_vec()
        }
        "GetRole" => GetElevationRoleRequest { name: "night".into() }.encode_to_vec(),
        "ListRoles" => ListElevationRolesRequest::default().encode_to_vec(),
        "RequestElevation" => elevation().encode_to_vec(),
        "ListElevations" => ListElevationsRequest::default().encode_to_vec(),
        "WatchElevations" => WatchElevationsRequest {}.encode_to_vec(),
        "ReviewElevation" => {
            let verdict = "accepted".into();
            ReviewElevationRequest { id, verdict, ..Default::default() }.encode_to_vec()
        }
        "GetElevation" => GetElevationRequest { id }.encode_to_vec(),
        "ApproveElevation" => {
            ApproveElevationRequest { id, scope_hash, ..Default::default() }.encode_to_vec()
        }
        "DenyElevation" => DenyElevationRequest { id, ..Default::default() }.encode_to_vec(),
        "WithdrawElevation" => WithdrawElevationRequest { id }.encode_to_vec(),
        "ActivateElevation" => ActivateElevationRequest { id }.encode_to_vec(),
        "ExtendElevation" => ExtendElevationRequest { id, ..Default::default() }.encode_to_vec(),
        "RevokeElevation" => RevokeElevationRequest { id, ..Default::default() }.encode_to_vec(),
        _ => unknown(method),
    }
}
