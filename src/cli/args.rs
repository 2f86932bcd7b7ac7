//! The command line of the whole program: what is common to all commands, and the server's own.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::artifacts::ArtifactCommand;
use super::authorities::CaCommand;
use super::backup::BackupCommand;
use super::ceremonies::CeremonyCommand;
use super::database::DatabaseCommand;
use super::elevations::ElevateCommand;
use super::enrolments::EnrolmentCommand;
use super::factors::FactorCommand;
use super::failure::EXIT_CODES;
use super::grants::GrantCommand;
use super::groups::GroupCommand;
use super::identities::IdentityCommand;
use super::issuers::IssuerCommand;
use super::join::JoinArgs;
use super::keys::KeyCommand;
use super::leases::LeaseCommand;
use super::login::LoginArgs;
use super::output::Format;
use super::pki::PkiCommand;
use super::records::RecordCommand;
use super::recovery::RecoveryCommand;
use super::recovery_sets::RecoverySetCommand;
use super::recovery_tokens::{RecoveryTokenArgs, RecoveryTokenCommand};
use super::root::RootCommand;
use super::run::RunArgs;
use super::secrets::SecretCommand;
use super::session::variable;
use super::system::{SealArgs, StatusArgs, UnsealArgs};
use super::tokens::TokenCommand;
use super::wraps::{UnwrapArgs, WrapCommand};

/// Strongroom, an identity-first secrets vault: server and client in one program.
#[derive(Debug, Parser)]
#[command(name = "strongroom", version, after_long_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    /// What is common to all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What is common to all commands; it may stand before the noun as well as after the verb.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// How answers are printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    pub output: Format,
    /// The vault's address, as `https://host:port`; the port is 7200 where it is left out.
    #[arg(
        long,
        global = true,
        env = "STRONGROOM_ADDR",
        default_value = "https://127.0.0.1:7200",
        help_heading = "Connection"
    )]
    pub addr: String,
    /// The authorities that the vault's certificate may come from, a PEM file.
    #[arg(long, global = true, env = "STRONGROOM_CACERT", help_heading = "Connection")]
    pub cacert: Option<PathBuf>,
    /// Your login certificate and its chain, a PEM file.
    #[arg(long, global = true, env = "STRONGROOM_CERT", help_heading = "Connection")]
    pub cert: Option<PathBuf>,
    /// The private key of your login certificate, a PEM file.
    #[arg(long, global = true, env = "STRONGROOM_KEY", help_heading = "Connection")]
    pub key: Option<PathBuf>,
    /// A file that holds a bearer token, or `-` for standard input.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub token_file: Option<PathBuf>,
    /// Where `strongroom login` keeps its session, which commands use that are given neither a
    /// certificate nor a token; `.strongroom-session` in `RUNNER_TEMP` or `HOME` where it is
    /// left out.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "STRONGROOM_SESSION_FILE",
        help_heading = "Connection"
    )]
    pub session_file: Option<PathBuf>,
}

impl Global {
    /// The same of somebody who brings no certificate: what the environment names proves nothing to
    /// whoever is asked for a first credential, and may be over, or not there yet.
    pub(super) fn as_nobody(&self) -> Self {
        Self { cert: None, key: None, ..self.clone() }
    }

    /// Where the session is kept; nowhere where nobody says and no directory is known: the one that
    /// somebody happens to be in may be anybody's.
    pub(super) fn session_path(&self) -> Option<PathBuf> {
        let usual = || {
            let dir = variable("RUNNER_TEMP").or_else(|| variable("HOME"))?;
            Some(PathBuf::from(dir).join(".strongroom-session"))
        };
        self.session_file.clone().or_else(usual)
    }
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A command that asks a running vault.
    #[command(flatten)]
    Client(ClientCommand),
    /// A command that is the vault, or makes one.
    #[command(flatten)]
    Server(ServerCommand),
}

/// The commands that ask a running vault, and those that need none.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Show who you are, how you proved it, and what you may do
    Whoami,
    /// Sign in by your company's provider; or log in with the OIDC token that a CI job, a pod or a
    /// workload has
    Login(LoginArgs),
    /// Make this machine's login from a join token, and renew it when it is due
    ///
    /// The token is read from --token-file. The key is made here and stays here. Run it again, by a
    /// timer, as often as you like: it does nothing until two thirds of the certificate's life are
    /// over.
    Join(JoinArgs),
    /// Run a command with credentials in its environment, which end with it
    Run(RunArgs),
    /// List every action with its RPC and its resource
    Actions,
    /// Register and contain identities
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Show and end the enrolments that `identity enroll` made
    #[command(subcommand)]
    Enrolment(EnrolmentCommand),
    /// Put identities into groups
    #[command(subcommand)]
    Group(GroupCommand),
    /// Say who may do what
    #[command(subcommand)]
    Grant(GrantCommand),
    /// Keep secrets in versions
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Encrypt, sign and compute MACs with keys that stay in the vault
    #[command(subcommand)]
    Key(KeyCommand),
    /// Sign model files and datasets, and verify them
    #[command(subcommand)]
    Artifact(ArtifactCommand),
    /// Get database credentials, configure where they come from
    #[command(subcommand)]
    Db(DatabaseCommand),
    /// Ask for rights for a time, approve what others ask for
    #[command(subcommand)]
    Elevate(ElevateCommand),
    /// Approve what no administrator does alone
    #[command(subcommand)]
    Ceremony(CeremonyCommand),
    /// Enrol and prove second factors
    #[command(subcommand)]
    Factor(FactorCommand),
    /// Make, renew and revoke bearer tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Open what somebody wrapped for you, once
    Unwrap(UnwrapArgs),
    /// See what became of what was wrapped, take it back
    #[command(subcommand)]
    Wrap(WrapCommand),
    /// Believe OIDC tokens of CI, clusters and clouds
    #[command(subcommand)]
    Issuer(IssuerCommand),
    /// Renew and revoke what was issued for a time
    #[command(subcommand)]
    Lease(LeaseCommand),
    /// Get X.509 certificates, configure what they may say
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Read and verify the record
    #[command(subcommand)]
    Audit(RecordCommand),
    /// Rotate the authorities of certificates and of logins
    #[command(subcommand)]
    Ca(CaCommand),
    /// Rotate the root key in the HSM
    #[command(subcommand)]
    Root(RootCommand),
    /// Stop the recovery of an administrator
    #[command(subcommand)]
    Recovery(RecoveryCommand),
    /// Make key pairs whose private half is split or in a second token, for the day that the HSM is
    /// lost
    #[command(subcommand)]
    RecoverySet(RecoverySetCommand),
    /// Show the state of the vault on this machine
    Status(StatusArgs),
    /// Seal the vault: its keys leave memory
    Seal(SealArgs),
    /// Unseal the vault on this machine
    Unseal(UnsealArgs),
    /// Write a completion script for a shell to standard output
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// The commands that are the vault, or make one.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Start everything for a first try, marked as development for ever
    Dev(DevArgs),
    /// Create keys in the HSM, the schema, and a bootstrap certificate
    Init(InitArgs),
    /// Serve
    Server(ServerArgs),
    /// Check the machine, the HSM, the store and the configuration
    Doctor(DoctorArgs),
    /// Give an administrator whose key is lost a login for a new one, an hour after it was asked for
    ///
    /// On the server's machine, as the user that it runs as, while it serves. The PIN of the HSM is
    /// asked for here and proven to the HSM, once; it goes nowhere else. Every administrator is told
    /// in `whoami`, and can stop it with `recovery cancel`. Run it again with the same CSR after the
    /// hour, and within a day of it: it takes effect then, everything that the administrator held is
    /// dead, and the certificate is written.
    RecoverAdmin(RecoverAdminArgs),
    /// Open a vault whose HSM is lost with the shares of a recovery set, or a recovery token, into a
    /// new HSM
    ///
    /// With the server stopped, its store in place, and an empty token named in the configuration.
    /// Every identity key is wrapped for a new root key; secrets, stored credentials and named keys
    /// that are kept sealed open again. Keys that were in the old HSM are gone with it: authorities
    /// are made anew, and what they signed is worth nothing any more. The new HSM may be the recovery
    /// token itself.
    Recover(RecoverArgs),
    /// Prepare a second token that opens the vault on the day that the HSM is lost
    #[command(subcommand)]
    RecoveryToken(RecoveryTokenCommand),
    /// Make, check and restore encrypted copies of the store
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Bring the schema of a store up to date, once it was backed up
    ///
    /// A server does so by itself at its start for SQLite, after it has copied the file beside
    /// itself. A PostgreSQL it leaves as it is: back that up, then run this once.
    Migrate(MigrateArgs),
}

/// What `recover` takes.
#[derive(Debug, Clone, Args)]
pub struct RecoverArgs {
    /// A share that its holder opened, as `recovery-set open-share` wrote it; once for each.
    #[arg(
        long = "share",
        value_name = "FILE",
        required_unless_present = "recovery_token",
        conflicts_with_all = ["recovery_token", "recovery_module", "recovery_pin_file"]
    )]
    pub shares: Vec<PathBuf>,
    /// In the place of shares: a recovery token.
    #[command(flatten)]
    pub token: RecoveryTokenArgs,
    /// The configuration, a TOML file, with the new token.
    #[arg(long)]
    pub config: PathBuf,
    /// A file that holds the PIN of the new token, `-` for standard input; the source of the
    /// configuration where it is left out.
    #[arg(long, value_name = "FILE")]
    pub pin_file: Option<PathBuf>,
}

/// What `migrate` takes.
#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// The configuration, a TOML file.
    #[arg(long)]
    pub config: PathBuf,
    /// Says that a PostgreSQL was backed up just now: nobody else can know.
    #[arg(long)]
    pub backed_up: bool,
}

/// What `recover-admin` takes.
#[derive(Debug, Clone, Args)]
pub struct RecoverAdminArgs {
    /// The administrator: who is in the group `administrators`, or was.
    pub name: String,
    /// The PKCS#10 request in PEM; its private key stays where it is.
    #[arg(long, value_name = "FILE")]
    pub csr: PathBuf,
    /// The configuration of the server, a TOML file.
    #[arg(long)]
    pub config: PathBuf,
    /// A file that holds the PIN of the HSM, `-` for standard input; asked for here where it is left
    /// out. The source that the server is configured with is never taken.
    #[arg(long, value_name = "FILE")]
    pub pin_file: Option<PathBuf>,
    /// A new file for the certificate and its chain, once there is one; standard output where it is
    /// left out.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What `dev` takes.
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Where everything is kept; a new temporary directory where it is left out.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// A file that gets JSON with the addresses and files of the vault once it serves.
    #[arg(long)]
    pub ready_file: Option<PathBuf>,
}

/// What `init` takes.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// The configuration, a TOML file.
    #[arg(long)]
    pub config: PathBuf,
    /// A new directory for the bootstrap certificate and its key; the current one by default.
    #[arg(long, default_value = ".")]
    pub out: PathBuf,
}

/// What `server` takes.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// The configuration, a TOML file.
    #[arg(long)]
    pub config: PathBuf,
    /// A file that gets JSON with the addresses of the vault once it serves.
    #[arg(long)]
    pub ready_file: Option<PathBuf>,
}

/// What `doctor` takes.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// The configuration, a TOML file.
    #[arg(long)]
    pub config: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_output_format_stands_before_the_noun_or_after_the_verb() {
        for line in ["--output json group show ops", "group show ops --output json"] {
            let words = std::iter::once("strongroom").chain(line.split(' '));
            assert_eq!(Cli::try_parse_from(words).unwrap().global.output, Format::Json, "{line}");
        }
    }

    #[test]
    fn no_secret_can_be_given_in_argv() {
        fn flags(command: &clap::Command, found: &mut Vec<String>) {
            found.extend(command.get_arguments().map(|arg| arg.get_id().to_string()));
            for sub in command.get_subcommands() {
                flags(sub, found);
            }
        }
        let mut found = Vec::new();
        flags(&Cli::command(), &mut found);
        for secret in ["password", "pin", "token", "secret"] {
            assert!(!found.iter().any(|flag| flag == secret), "--{secret}");
        }
    }
}
