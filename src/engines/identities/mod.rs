//! Identities: who they are, who answers for them, whether they may act.

mod administrators;
mod asked;
mod create;
mod facts;
mod holdings;
mod key;
mod labels;
mod lifecycles;
mod list;
mod names;
mod notice;
mod owner;
mod reinstate;
mod retire;
mod rotate;
mod show;
mod shred;
mod shred_again;
mod shredding;
mod shreds;
mod state;
mod text;
mod transfer;
mod update;
mod whoami;

pub use create::CreateIdentity;
pub use holdings::{Holdings, InForce, OnTarget, ShowHoldings};
pub use key::{
    FinishIdentityKey, Finishing, IdentityKeyStatus, IdentityKeyVersion, KeyRotation,
    MoveIdentityData, Moving, RotateIdentityKey, ScheduleIdentityKey, ShowIdentityKey, Step,
};
pub use lifecycles::{DescribedLifecycle, Lifecycle, ListLifecycles, PutLifecycle};
pub use list::{IdentityFilter, IdentityPage, ListIdentities};
pub use notice::TellEnd;
pub use owner::Former;
pub use retire::RetireIdentity;
pub use rotate::{EndLogin, is_overdue};
pub use show::{Described, ShowIdentity};
pub use shred::ShredIdentity;
pub use shred_again::ShredAgain;
pub use shredding::{Losses, Reader, ShowShredding, Shredding};
pub use shreds::{FinishShred, ListShreds, Shred};
pub use state::{Due, ResumeIdentity, SuspendIdentity};
pub use transfer::TransferIdentity;
pub use update::{End, UpdateIdentity};
pub use whoami::{WhoAmI, Whoami};

pub(super) use administrators::keep_an_administrator;
pub(super) use asked::{held_by, whose};
pub(super) use facts::subject_facts;
pub(super) use labels::{check_labels, read_labels, write_labels};
pub(super) use names::Names;
pub(super) use owner::{TEAM, check_team, orphaned, team_full};
pub(super) use reinstate::{administrator_once, never_administered, reinstate};
pub(super) use state::activate;
pub(super) use text::{LONG, SHORT, check_text};
