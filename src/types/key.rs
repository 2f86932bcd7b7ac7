//! What named keys are: their algorithm, where they are kept, where they are in their life.

use std::fmt;
use std::str::FromStr;

use super::kind::words;
use crate::error::{Error, Result};

words! {
    /// What a named key does, and how.
    KeyAlgorithm, "algorithm" {
        /// AES-256-GCM with random nonces (NIST SP 800-38D): its messages are counted.
        Aes256Gcm = "aes-256-gcm",
        /// ChaCha20-Poly1305 (RFC 8439) with random nonces: its messages are counted.
        ChaCha20Poly1305 = "chacha20-poly1305",
        /// XAES-256-GCM (c2sp.org/XAES-256-GCM): for as many messages as will ever be.
        Xaes256Gcm = "xaes-256-gcm",
        /// HMAC-SHA-256 (RFC 2104).
        HmacSha256 = "hmac-sha-256",
        /// HMAC-SHA-512.
        HmacSha512 = "hmac-sha-512",
        /// Ed25519 (RFC 8032, pure).
        Ed25519 = "ed25519",
        /// ECDSA on P-256 with SHA-256 (FIPS 186-5).
        EcdsaP256 = "ecdsa-p256",
        /// ECDSA on P-384 with SHA-384.
        EcdsaP384 = "ecdsa-p384",
        /// RSA-PSS of 3,072 bits with SHA-256 (RFC 8017), in the HSM alone.
        RsaPss3072 = "rsa-pss-3072",
        /// RSA-PSS of 4,096 bits with SHA-384, in the HSM alone.
        RsaPss4096 = "rsa-pss-4096",
    }
}
words! {
    /// Where a named key is kept.
    Placement, "placement" {
        /// Encrypted in the store under its owner's key, used in memory.
        Sealed = "sealed",
        /// In the HSM, which it never leaves.
        Hsm = "hsm",
    }
}
words! {
    /// Whether a named key is used.
    NamedKeyState, "state" {
        /// It is.
        Active = "active",
        /// It is not, until somebody says so again.
        Disabled = "disabled",
        /// It waits for the key that is to be imported.
        Awaiting = "awaiting",
    }
}
words! {
    /// Where a version of a named key is in its life.
    KeyVersionState, "state" {
        /// It is being made in the HSM.
        Pending = "pending",
        /// It is there.
        Live = "live",
        /// Making it came to nothing.
        Failed = "failed",
        /// It waits for the key that is to be imported, with the key in the HSM that unwraps it.
        Awaiting = "awaiting",
        /// It is not used any more; its key in the HSM is to be destroyed.
        Retired = "retired",
        /// It is not used any more, and its key in the HSM is destroyed.
        Destroyed = "destroyed",
    }
}
words! {
    /// Where a key comes from.
    KeyOrigin, "origin" {
        /// It was made here.
        Made = "made",
        /// It was made elsewhere, and brought here.
        Imported = "imported",
    }
}
words! {
    /// What a key that signs may sign.
    KeyPurpose, "purpose" {
        /// Whatever its users send.
        Any = "any",
        /// Statements on artifacts, which the vault writes, and nothing else.
        Artifacts = "artifacts",
    }
}

/// What a named key is for: each is for one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUsage {
    /// It encrypts and decrypts.
    Encrypts,
    /// It computes and checks MACs.
    Macs,
    /// It signs; its public half verifies.
    Signs,
}

impl KeyAlgorithm {
    /// Tells what it is for.
    #[must_use]
    pub const fn usage(self) -> KeyUsage {
        match self {
            Self::Aes256Gcm | Self::ChaCha20Poly1305 | Self::Xaes256Gcm => KeyUsage::Encrypts,
            Self::HmacSha256 | Self::HmacSha512 => KeyUsage::Macs,
            Self::Ed25519
            | Self::EcdsaP256
            | Self::EcdsaP384
            | Self::RsaPss3072
            | Self::RsaPss4096 => KeyUsage::Signs,
        }
    }

    /// Tells whether its messages are counted: random nonces of 96 bits repeat some day.
    #[must_use]
    pub const fn is_counted(self) -> bool {
        matches!(self, Self::Aes256Gcm | Self::ChaCha20Poly1305)
    }

    /// Where it may be kept, the usual place first.
    #[must_use]
    pub const fn placements(self) -> &'static [Placement] {
        match self {
            Self::Aes256Gcm
            | Self::ChaCha20Poly1305
            | Self::Xaes256Gcm
            | Self::HmacSha256
            | Self::HmacSha512 => &[Placement::Sealed],
            Self::Ed25519 | Self::EcdsaP256 | Self::EcdsaP384 => {
                &[Placement::Hsm, Placement::Sealed]
            }
            Self::RsaPss3072 | Self::RsaPss4096 => &[Placement::Hsm],
        }
    }
}
