//! `strongroom recovery-token …`, and what names a recovery token on any command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `strongroom recovery-token …`
#[derive(Debug, Subcommand)]
pub enum RecoveryTokenCommand {
    /// Make a key in a second token, for `recovery-set create`: the public half is printed
    ///
    /// The private half is made in the token and never leaves it. A key that has this name already is
    /// shown again.
    Make {
        /// A name for the key in the token.
        name: String,
        /// Which token.
        #[command(flatten)]
        at: TokenAt,
    },
    /// Have the token keep what `recovery-set create` wrote for it
    ///
    /// It opens with the key in the token, which shows that it is there and works. From then on the
    /// token opens the vault.
    Accept {
        /// The file, `NAME.share`.
        file: PathBuf,
        /// Which token.
        #[command(flatten)]
        at: TokenAt,
    },
}

/// Where a recovery token is.
#[derive(Debug, Clone, Args)]
pub struct TokenAt {
    /// The configuration, a TOML file: of its `[hsm]`, module and environment.
    #[arg(long)]
    pub config: PathBuf,
    /// The token.
    #[command(flatten)]
    pub token: RecoveryTokenArgs,
}

/// A token that has the private half of a recovery set.
#[derive(Debug, Clone, Args)]
pub struct RecoveryTokenArgs {
    /// The label of the recovery token.
    #[arg(long, value_name = "LABEL")]
    pub recovery_token: Option<String>,
    /// Its PKCS#11 module, where it is not that of the configuration.
    #[arg(long, value_name = "PATH", requires = "recovery_token")]
    pub recovery_module: Option<PathBuf>,
    /// A file that holds its PIN, `-` for standard input; asked for here where it is left out.
    #[arg(long, value_name = "FILE", requires = "recovery_token")]
    pub recovery_pin_file: Option<PathBuf>,
}
