//! What several suites share.

pub(crate) mod softhsm;
