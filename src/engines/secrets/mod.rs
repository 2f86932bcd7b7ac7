//! Secrets: values with versions, each encrypted under a data key of its own, under its owner's key.
//!
//! A secret's row holds what decisions read; which version is the newest stands in another, so that
//! writing one disturbs nobody. `docs/secrets.md` tells all of it.

mod delete;
mod destroy;
mod find;
mod get;
mod history;
mod list;
mod mask;
mod metadata;
mod put;
mod rollback;
mod room;
mod sealing;
mod transfer;
mod value;

pub(super) use find::nameable;
pub(super) use sealing::place;

pub use delete::{Changed, Chosen, DeleteSecret, Taking, UndeleteSecret};
pub use destroy::{DestroySecret, PurgeVersion};
pub use get::{Early, GetSecret, Given, Opened, Reads};
pub use history::{History, ListVersions, ShownVersion};
pub use list::{ListSecrets, SearchSecrets, SecretPage, ShownSecret};
pub use metadata::{Metadata, ShowMetadata, UpdateSecret};
pub use put::{NewVersion, PutSecret, Standing, Writing, Written};
pub use rollback::RollbackSecret;
pub use room::{Held, Room};
pub use transfer::TransferSecret;
pub use value::{SecretValue, VALUE_BYTES};
