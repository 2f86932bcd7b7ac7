//! Encryption as a service: named keys with versions, used here and never given away.
//!
//! A key's one row holds what decisions read and which versions are used; every change of it moves
//! the authority epoch, so what is kept of it in memory needs no look at the store on the way of a
//! request. `docs/keys.md` tells all of it.

mod artifact;
mod backup;
mod batch;
mod cipher;
mod copy;
mod count;
mod create;
mod datakey;
mod export;
mod find;
mod import;
mod list;
mod mac;
mod make;
mod random;
mod rotate;
mod settle;
mod show;
mod sign;
mod stream;
mod transfer;
mod update;
mod usage;

pub use artifact::{SignArtifact, SignedArtifact};
pub use backup::{BackUpKey, RestoreKey};
pub use batch::{Answers, Batch, Fault, ITEMS, Job, Used};
pub use cipher::{Decrypting, Encrypting, OpenItem, Opened, Rewrapping, SealItem};
pub use count::ROTATE_AT;
pub use create::{CreateHsmKey, CreateKey, KeySpec};
pub use datakey::{DataKey, MakeDataKey};
pub use export::{ExportKey, PublicHalf};
pub use find::Keys;
pub use import::ImportKey;
pub use list::{KeyPage, ListKeys};
pub use mac::{Macing, VerifyItem, VerifyingMac};
pub use random::{GetRandom, RANDOM_BYTES};
pub use rotate::RotateKey;
pub use settle::SettleVersion;
pub use show::{KeyDetail, ShowKey, ShownKey, ShownKeyVersion, ShownUse};
pub use sign::{Signing, Verifying};
pub use stream::{Begun, Coder, Input, Opening, Piece, Sealing, StreamKey, Way};
pub use transfer::TransferKey;
pub use update::{Schedule, UpdateKey};
pub use usage::{GetKeyUsage, ShownUsage, UsagePage};

pub(super) use create::every_s;
pub(super) use find::place;
pub(super) use make::rotates_at;
