//! What `strongroom key …` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::identities::label;
use crate::cli::span::Span;
use crate::cli::wraps::WrapArgs;

/// `strongroom key …`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key
    Create(Create),
    /// Show a key and its versions
    Show {
        /// The key's name.
        name: String,
    },
    /// List the keys that you may do something with
    List {
        /// Only names that begin so.
        #[arg(default_value = "")]
        prefix: String,
        /// How many at most.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
        /// Only keys that nobody used for so long, nor made.
        #[arg(long, value_name = "SPAN")]
        unused_for: Option<Span>,
    },
    /// Show who used a key, which version, what for and how often, by day
    Usage {
        /// The key's name.
        name: String,
        /// How many rows at most.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Print what to wrap a key for that is to be imported, PEM
    WrappingKey {
        /// The key's name: one that was made with `key create --import`.
        name: String,
    },
    /// Bring a key that was made elsewhere, wrapped for the name that awaits it
    Import {
        /// The key's name: one that was made with `key create --import`.
        name: String,
        /// A file with an AES-256 key under RSA-OAEP, and behind it the key under that, wrapped with
        /// padding (RFC 5649).
        #[arg(long, value_name = "FILE")]
        wrapped: PathBuf,
    },
    /// Give a key to another owner
    Transfer {
        /// The key's name.
        name: String,
        /// The new owner.
        #[arg(value_name = "IDENTITY")]
        owner: String,
        /// The newest version, as you know it; whatever it is where it is left out.
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        cas: i64,
    },
    /// Back a key up by itself, encrypted, for this vault alone
    Backup {
        /// The key's name: one that was made with `key create --allow-backup`.
        name: String,
        /// A new file for the backup.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Restore a key that is gone, under its name and for its owner
    Restore {
        /// The key's name.
        name: String,
        /// The file that `key backup` wrote.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
    /// Make a key's next version; what is new uses it at once
    Rotate {
        /// The key's name.
        name: String,
        /// The newest version, as you know it; whatever it is where it is left out.
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        cas: i64,
    },
    /// Change what a key may still do, how often it rotates, and its labels
    Update(Update),
    /// Stop every use of a key, until it is enabled again
    Disable {
        /// The key's name.
        name: String,
    },
    /// Let a key be used again
    Enable {
        /// The key's name.
        name: String,
    },
    /// Encrypt with the newest version
    Encrypt(Piece),
    /// Decrypt
    Decrypt(Decrypt),
    /// Decrypt, and encrypt with the newest version; what is inside stays in the vault
    Rewrap(Piece),
    /// Make a data key; prints its ciphertext
    Datakey {
        /// The key's name.
        name: String,
        /// A new file for the data key itself, which you alone can read; only its ciphertext is made
        /// where it is left out.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// How long it is, in bytes: 16, 32 or 64.
        #[arg(long, value_name = "N", default_value_t = 32)]
        bytes: i32,
        /// What its ciphertext is bound to.
        #[arg(long, value_name = "TEXT", default_value = "")]
        aad: String,
        /// How the answer is wrapped, with the data key.
        #[command(flatten)]
        wrap: WrapArgs,
    },
    /// Compute a MAC with the newest version
    Mac(Message),
    /// Check a MAC
    VerifyMac(Check),
    /// Sign with the newest version
    Sign(Message),
    /// Check a signature
    Verify(Check),
    /// Print the public half of a key
    Export {
        /// The key's name.
        name: String,
        /// The version; the newest where it is left out.
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        version: i64,
    },
    /// Print random bytes, in base64
    Random {
        /// How many.
        #[arg(default_value_t = 32)]
        bytes: i32,
        /// A new file for the bytes themselves, which you alone can read.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// How the answer is wrapped.
        #[command(flatten)]
        wrap: WrapArgs,
    },
}

/// What `key decrypt` takes.
#[derive(Debug, Clone, Args)]
pub struct Decrypt {
    /// What is decrypted.
    #[command(flatten)]
    pub(super) piece: Piece,
    /// How the answer is wrapped.
    #[command(flatten)]
    pub(super) wrap: WrapArgs,
}

/// What `key create` takes.
#[derive(Debug, Clone, Args)]
pub struct Create {
    /// The key's name, like apps/orders.
    pub(super) name: String,
    /// aes-256-gcm, chacha20-poly1305, xaes-256-gcm, hmac-sha-256, hmac-sha-512, ed25519, ecdsa-p256,
    /// ecdsa-p384, rsa-pss-3072 or rsa-pss-4096.
    #[arg(long, default_value = "xaes-256-gcm")]
    pub(super) algorithm: String,
    /// Where it is kept: sealed or hsm; what signs is in the HSM where it is left out.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) placement: String,
    /// Whose it is; yours where it is left out.
    #[arg(long, value_name = "IDENTITY", default_value = "", hide_default_value = true)]
    pub(super) owner: String,
    /// It signs statements on artifacts and nothing else.
    #[arg(long)]
    pub(super) for_artifacts: bool,
    /// Its first key is to be imported: until then it awaits that.
    #[arg(long, conflicts_with = "for_artifacts")]
    pub(super) import: bool,
    /// It may be backed up by itself, for ever; never what is in the HSM.
    #[arg(long, conflicts_with = "for_artifacts")]
    pub(super) allow_backup: bool,
    /// How often it rotates by itself.
    #[arg(long, value_name = "SPAN")]
    pub(super) rotate_every: Option<Span>,
    /// A label, KEY=VALUE; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(super) labels: Vec<(String, String)>,
}

/// What `key update` takes; what is left out stays.
#[derive(Debug, Clone, Args)]
pub struct Update {
    /// The key's name.
    pub(super) name: String,
    /// The oldest version that is still used; it only ever rises.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(super) min_version: i64,
    /// How often it rotates by itself.
    #[arg(long, value_name = "SPAN", conflicts_with = "no_rotation")]
    pub(super) rotate_every: Option<Span>,
    /// It does not rotate by itself any more.
    #[arg(long)]
    pub(super) no_rotation: bool,
    /// A label to set, KEY=VALUE; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(super) labels: Vec<(String, String)>,
    /// The key of a label to take away; may be given several times.
    #[arg(long = "no-label", value_name = "KEY")]
    pub(super) no_labels: Vec<String>,
    /// The revision that is to be changed; the present one where it is left out.
    #[arg(long, value_name = "N")]
    pub(super) revision: Option<i64>,
}

/// Something to encrypt or decrypt.
#[derive(Debug, Clone, Args)]
pub struct Piece {
    /// The key's name.
    pub(super) name: String,
    /// Where it is: a file, or `-` for standard input. A ciphertext may be in base64.
    #[arg(long = "in", value_name = "FILE", default_value = "-")]
    pub(super) input: PathBuf,
    /// A file of any size in place of `--in`, encrypted or decrypted as a stream.
    #[arg(long, value_name = "FILE", conflicts_with = "input", requires = "out")]
    pub(super) file: Option<PathBuf>,
    /// A new file for what comes of it; without one a ciphertext is printed in base64, and a
    /// plaintext as it is.
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// What it is bound to: decrypting asks for the same.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) aad: String,
}

/// Something to sign.
#[derive(Debug, Clone, Args)]
pub struct Message {
    /// The key's name.
    pub(super) name: String,
    /// Where it is: a file, or `-` for standard input.
    #[arg(long = "in", value_name = "FILE", default_value = "-")]
    pub(super) input: PathBuf,
    /// A new file for the bytes of it; printed in base64 where it is left out.
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
}

/// Something to check.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// The key's name.
    pub(super) name: String,
    /// Where the message is: a file, or `-` for standard input.
    #[arg(long = "in", value_name = "FILE", default_value = "-")]
    pub(super) input: PathBuf,
    /// A file with the bytes of the MAC or signature.
    #[arg(long, value_name = "FILE")]
    pub(super) proof: PathBuf,
    /// The version that made it; the newest where it is left out.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(super) version: i64,
}
