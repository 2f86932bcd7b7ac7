//! What `strongroom secret …` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::identities::label;
use crate::cli::span::Span;
use crate::cli::wraps::WrapArgs;

/// `strongroom secret …`
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Write a version, and with the first one the secret
    Put(Put),
    /// Print a value
    Get(Get),
    /// List the secrets that you may do something with
    List {
        /// Only names that begin so.
        #[arg(default_value = "")]
        prefix: String,
        /// How many at most.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Search them by name and labels
    Search {
        /// A part of the name, or of a label.
        #[arg(default_value = "")]
        text: String,
        /// Only those with this label, KEY=VALUE; with all of them where there are several.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        /// How many at most.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// List the versions of a secret
    History {
        /// The secret's name.
        path: String,
        /// How many at most.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Write an older version's value again, as a new version
    Rollback {
        /// The secret's name.
        path: String,
        /// The version whose value is wanted.
        #[arg(long, value_name = "N")]
        to: i64,
        /// The newest version, as you know it.
        #[arg(long, value_name = "N")]
        cas: i64,
    },
    /// Delete versions: they can be undeleted until their window closes
    Delete {
        /// Which.
        #[command(flatten)]
        chosen: Chosen,
        /// How long they can be undeleted; the secret's own window where it is left out.
        #[arg(long, value_name = "SPAN")]
        window: Option<Span>,
    },
    /// Bring deleted versions back
    Undelete(Chosen),
    /// Destroy versions for ever
    Destroy {
        /// Which.
        #[command(flatten)]
        chosen: Chosen,
        /// All versions.
        #[arg(long, conflicts_with = "versions", required_unless_present = "versions")]
        all: bool,
    },
    /// Show what is known of a secret besides its values, and change it
    Metadata(Metadata),
    /// Give a secret to another owner
    Transfer {
        /// The secret's name.
        path: String,
        /// The new owner.
        owner: String,
        /// The newest version, as you know it; whatever it is where it is left out.
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        cas: i64,
    },
}

/// What `secret put` takes.
#[derive(Debug, Clone, Args)]
pub struct Put {
    /// The secret's name, like ci/deploy-key.
    pub(super) path: String,
    /// Where the value comes from: `-` for standard input.
    #[arg(value_name = "-", value_parser = ["-"], conflicts_with_all = ["value", "from_file"])]
    pub(super) stdin: Option<String>,
    /// The value itself; whoever may list processes on this machine sees it, so only for a try.
    #[arg(long, conflicts_with = "from_file")]
    pub(super) value: Option<String>,
    /// A file with the value, byte for byte.
    #[arg(long, value_name = "FILE")]
    pub(super) from_file: Option<PathBuf>,
    /// The value is a JSON object; fields of it can be masked.
    #[arg(long)]
    pub(super) json: bool,
    /// The newest version, as you know it; the secret has to be new where it is left out.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(super) cas: i64,
    /// Whose data a new secret is; yours where it is left out.
    #[arg(long, value_name = "IDENTITY", default_value = "")]
    pub(super) owner: String,
    /// How long the version is read; until it is taken away where it is left out.
    #[arg(long, value_name = "SPAN")]
    pub(super) ttl: Option<Span>,
}

/// What `secret get` takes.
#[derive(Debug, Clone, Args)]
pub struct Get {
    /// The secret's name.
    pub(super) path: String,
    /// The version; the newest where it is left out.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(super) version: i64,
    /// One field of a JSON value.
    #[arg(long, value_name = "NAME")]
    pub(super) field: Option<String>,
    /// A new file for the value, which you alone can read; printed where it is left out.
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// How the answer is wrapped.
    #[command(flatten)]
    pub(super) wrap: WrapArgs,
}

/// A secret and versions of it.
#[derive(Debug, Clone, Args)]
pub struct Chosen {
    /// The secret's name.
    pub(super) path: String,
    /// Which versions, like 3,4; all that it can be done to where it is left out.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub(super) versions: Vec<i64>,
    /// The newest version, as you know it; whatever it is where it is left out.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(super) cas: i64,
}

/// What `secret metadata` takes; what is left out stays.
#[derive(Debug, Clone, Args)]
pub struct Metadata {
    /// The secret's name.
    pub(super) path: String,
    /// A label to set, KEY=VALUE; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(super) labels: Vec<(String, String)>,
    /// The key of a label to take away; may be given several times.
    #[arg(long = "no-label", value_name = "KEY")]
    pub(super) no_labels: Vec<String>,
    /// How many versions keep their value, 1 to 100.
    #[arg(long, value_name = "N")]
    pub(super) max_versions: Option<i64>,
    /// How long versions can be undeleted.
    #[arg(long, value_name = "SPAN")]
    pub(super) window: Option<Span>,
    /// The revision that is to be changed; the present one where it is left out.
    #[arg(long, value_name = "N")]
    pub(super) revision: Option<i64>,
}
