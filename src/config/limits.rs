//! `[limits]`: what a caller may send, and how long it may take; checked before parsing.

use std::time::Duration;

use super::ConfigError;
use super::reader::Document;

pub(super) const SECTION: &str = "limits";
pub(super) const KEYS: &[&str] = &[
    "message_max_kib",
    "header_max_kib",
    "connections_max",
    "streams_per_connection",
    "requests_in_flight_max",
    "request_deadline_s",
    "handshake_timeout_s",
    "unread_timeout_s",
    "ping_interval_s",
    "ping_timeout_s",
    "tokens_per_identity_max",
    "certificates_per_identity_max",
    "wrapped_per_identity_max_mib",
];

/// Bounds on connections and requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest message, a batch counted as a whole.
    pub message_max_kib: u32,
    /// Largest set of headers.
    pub header_max_kib: u32,
    /// Connections at once; more are closed at once, and counted.
    pub connections_max: u32,
    /// Streams on one connection at once.
    pub streams_per_connection: u32,
    /// Requests at once over all connections; more are told to come back.
    pub requests_in_flight_max: u32,
    /// Longest a request may take, whatever the client allows.
    pub request_deadline: Duration,
    /// Longest a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// Longest a client may leave unread what is sent to it.
    pub unread_timeout: Duration,
    /// How often a client is asked whether it is still there.
    pub ping_interval: Duration,
    /// Longest it may take to say so.
    pub ping_timeout: Duration,
    /// Tokens in force that one identity may have.
    pub tokens_per_identity_max: u32,
    /// Certificates whose time is not over, revoked or not, that one identity may have.
    pub certificates_per_identity_max: u32,
    /// MiB of what one identity wrapped that may wait to be opened.
    pub wrapped_per_identity_max_mib: u32,
}

pub(super) fn read(document: &Document<'_>) -> Result<Limits, ConfigError> {
    let section = document.section(SECTION);
    let seconds = |key, most, default| -> Result<Duration, ConfigError> {
        Ok(Duration::from_secs(section.integer(key, 1..=most, default)?))
    };
    Ok(Limits {
        message_max_kib: section.small("message_max_kib", 64..=1088, 1088)?,
        header_max_kib: section.small("header_max_kib", 4..=64, 16)?,
        connections_max: section.small("connections_max", 8..=1_000_000, 4096)?,
        streams_per_connection: section.small("streams_per_connection", 1..=1000, 100)?,
        requests_in_flight_max: section.small("requests_in_flight_max", 8..=100_000, 1024)?,
        request_deadline: seconds("request_deadline_s", 300, 30)?,
        handshake_timeout: seconds("handshake_timeout_s", 60, 5)?,
        unread_timeout: seconds("unread_timeout_s", 300, 30)?,
        ping_interval: seconds("ping_interval_s", 3_600, 30)?,
        ping_timeout: seconds("ping_timeout_s", 300, 10)?,
        certificates_per_identity_max: section.small(
            "certificates_per_identity_max",
            1..=100_000,
            10_000,
        )?,
        // One answer of the largest fits in two.
        wrapped_per_identity_max_mib: section.small(
            "wrapped_per_identity_max_mib",
            2..=4_096,
            64,
        )?,
        tokens_per_identity_max: section.small("tokens_per_identity_max", 1..=1_000_000, 10_000)?,
    })
}
