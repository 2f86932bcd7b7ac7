//! What every token must do, and what becomes of one that does not.

mod conformance;
mod faults;
mod shim;
mod trust;
