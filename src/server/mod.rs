//! Wiring: what is started in which order, and how it ends.

mod acceptance;
mod assemble;
mod backup;
mod control;
mod dev;
mod doctor;
mod files;
mod found;
mod init;
mod life;
mod listener;
mod migrate;
mod node;
mod pin;
mod recall;
mod recover;
mod recover_vault;
mod recovery;
mod recovery_token;
mod run;
mod serve;
mod shreds;
mod sinks;
mod upkeep;

pub use acceptance::{AcceptOrder, Accepted};
pub use found::{First, Founded, Founding, found};
pub use life::{Life, Occasion};
pub use listener::ListenerTls;
pub use node::{Ingredients, Node};
pub use recover_vault::{VaultRecovered, recover as recover_vault};
pub use recovery::RecoveryOrder;
pub use run::run;
