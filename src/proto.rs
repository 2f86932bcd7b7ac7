//! What goes over the wire: the messages, clients and servers that `build.rs` makes from
//! `proto/strongroom/v1/`, and the descriptors that the reflection service shows.
//!
//! Knows no room. Messages with fields marked `secret` print `[REDACTED]` for them.

/// The encoded `FileDescriptorSet`, custom options and comments included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/strongroom.v1.bin"));

#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::default_trait_access,
    clippy::doc_markdown,
    clippy::too_many_lines,
    unused_qualifications,
    reason = "generated code"
)]
mod v1 {
    include!(concat!(env!("OUT_DIR"), "/strongroom.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/redacted.rs"));
}

pub use v1::*;
