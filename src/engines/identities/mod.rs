//! Identities: who they are, who answers for them, whether they may act.

mod whoami;

pub use whoami::{WhoAmI, Whoami};
