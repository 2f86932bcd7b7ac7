//! Words that every room shares: names, ids, times, callers, secrets.
//!
//! Parsing happens here, once, at the edge: past it a value is valid by its type. Knows no other
//! room but [`crate::error`].

mod bytes;
mod ceremony;
mod clock;
mod context;
mod elevation;
mod entropy;
mod federation;
mod id;
mod key;
mod kind;
mod name;
mod notice;
mod owner;
mod pattern;
mod rotation;
mod serial;
mod standing;
mod tasks;
mod token;
mod verbs;

pub use bytes::{SecretBytes, wipe};
pub use ceremony::CeremonyState;
pub use clock::{Clock, SystemClock, UnixMillis};
pub use context::{AuthMethod, Authenticated, Caller, RequestContext};
pub use elevation::{ElevationEvent, ElevationState, TRANSITIONS};
pub use entropy::{Entropy, SystemEntropy};
pub use federation::{Preset, Replay, SignatureAlgorithm};
pub use id::{
    CeremonyId, CredentialId, ElevationId, FactorId, GrantId, GroupId, Id, IdentityId, ObjectId,
    RequestId, VaultId,
};
pub use key::{
    KeyAlgorithm, KeyOrigin, KeyPurpose, KeyUsage, KeyVersionState, NamedKeyState, Placement,
};
pub use kind::{
    CredentialKind, CredentialState, FactorKind, FactorState, IdentityState, InvitationState, Kind,
    RecoveryState, SecretState, Tier, WrapState,
};
pub use name::{IdentityName, KeyName, ResourceName, SecretPath, Segment};
pub use notice::{Audience, NOTICES, NoticeKind, NoticeNumber};
pub use owner::{Owner, OwnerName};
pub use pattern::ResourcePattern;
pub use rotation::{Rotates, RotationState};
pub use serial::Serial;
pub use standing::{News, Standing, State};
pub use tasks::TaskGroup;
pub use token::{
    AccessToken, Bearer, Invitation, JoinToken, LeaseHandle, SingleUseToken, TokenSecret,
    TokenType, WrapHandle,
};
pub use verbs::{VERBS, Verb};
