//! Identities: who they are, who answers for them, whether they may act.

mod administrators;
mod create;
mod list;
mod names;
mod show;
mod state;
mod text;
mod whoami;

pub use create::CreateIdentity;
pub use list::{IdentityPage, ListIdentities};
pub use show::{Described, ShowIdentity};
pub use state::{ResumeIdentity, SuspendIdentity};
pub use whoami::{WhoAmI, Whoami};

pub(super) use administrators::keep_an_administrator;
pub(super) use names::Names;
pub(super) use text::{LONG, SHORT, check_text};
