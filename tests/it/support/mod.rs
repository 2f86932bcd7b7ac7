//! What several suites share.

pub(crate) mod softhsm;
//! What several suites need.

pub(crate) mod postgres;
