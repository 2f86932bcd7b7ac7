//! What several suites need.

pub(crate) mod aged;
pub(crate) mod factors;
pub(crate) mod hand;
pub(crate) mod job;
pub(crate) mod log;
pub(crate) mod logins;
pub(crate) mod node;
pub(crate) mod oidc;
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod receiver;
pub(crate) mod recovery;
pub(crate) mod restored;
pub(crate) mod softhsm;
pub(crate) mod target;
pub(crate) mod terminal;
pub(crate) mod tokens;
