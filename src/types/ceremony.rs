//! Where a ceremony is in its life.

use std::fmt;
use std::str::FromStr;

use super::kind::words;
use crate::error::{Error, Result};

words! {
    /// Where a ceremony is in its life. One that waited too long is over by its time, also before a
    /// worker says so.
    CeremonyState, "ceremony state" {
        /// It waits for administrators, or for who asked.
        Open = "open",
        /// What it was about was done, once.
        Performed = "performed",
        /// An administrator denied it.
        Denied = "denied",
        /// Who asked took it back.
        Cancelled = "cancelled",
        /// It waited too long.
        Expired = "expired",
    }
}
