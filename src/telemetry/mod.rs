//! What operators see: logs, traces, metrics. Nothing secret, and no names of identities.
//!
//! Must not know what is logged or measured.

mod log;
mod metrics;

pub use log::{SPANS, Tracing, start};
pub use metrics::{Gauges, Metrics, OTHER_RPC};
