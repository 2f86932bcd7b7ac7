//! Groups: names that several identities share, so that a grant can name them together.

mod create;
mod list;
mod members;
mod show;

pub use create::CreateGroup;
pub use list::ListGroups;
pub use members::{AddMember, Added, RemoveMember};
pub use show::{DescribedGroup, DescribedMember, GroupPage, ShowGroup};
