//! Notices on their way: rendered from what was written with the transition, sent to each sink in
//! order, until it is taken or too old.
//!
//! What is told, and to whom, is written by [`crate::vault::post_notice`]. Where sinks are is said in
//! the configuration of the node: no administrator, and nobody who breaks the glass, changes it
//! through the API. `docs/notices.md` tells all of it.

mod begin;
mod deliver;
mod letter;
mod mail;
mod overdue;
mod purge;
mod sink;
mod template;
mod webhook;
mod wire;

pub use begin::BeginSink;
pub use deliver::DeliverNotice;
pub use mail::{MailRoute, MailSecurity, MailSink};
pub use overdue::TellOverdue;
pub use purge::PurgeNotices;
pub use sink::{Channel, Sink};
pub use template::Templates;
pub use webhook::{WebhookKey, WebhookSink};
pub use wire::{Roots, Wire};

use crate::error::Result;
use crate::types::ResourceName;
use crate::vault::Resource;

/// Names a sink, or all of this, as a resource.
fn resource(of: &[&str]) -> Result<Vec<Resource>> {
    Ok(vec![Resource::named(ResourceName::join("notices", of)?)])
}
