//! `strongroom backup create|verify|restore|accept`: what the command line takes, and what the server
//! on this machine is asked for over its own socket.

use std::io::{IsTerminal as _, stderr, stdin};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::acceptance;
use super::args::Global;
use super::control::{Reply, Request, Secret, ask, ask_within};
use super::failure::{Exit, Failure, Outcome, STEP_UP};
use super::files::{prompt_secret, read_secret};
use super::output::{Format, fields, note, show, time};
use super::recovery_tokens::RecoveryTokenArgs;
use super::system::{StatusArgs, beside_the_point, done};

/// How long a copy of a large store may take.
const PATIENCE: Duration = Duration::from_hours(6);

/// `strongroom backup …`
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Write an encrypted copy of the store to a new file, while the server serves
    ///
    /// It is the server that writes the file, so that what it may not write to cannot be named. The
    /// copy opens with the HSM of this vault and with nothing else.
    Create(CreateBackupArgs),
    /// Open a backup and look at all of it, with the PIN of the HSM
    Verify(BackupOpenArgs),
    /// Put a backup where the configuration has its store, and where none is yet
    Restore(BackupOpenArgs),
    /// Accept, as an administrator, a store whose log does not extend what was kept of it
    ///
    /// It takes a ceremony of administrators: one opens it, another approves it with --ceremony, and
    /// the first accepts once more; of a development vault one accepts. What is accepted (the vault,
    /// the head that was kept, the head that was found) is signed here with the key of your login
    /// certificate (--cert and --key); the key goes nowhere. Each proves a factor.
    Accept(AcceptArgs),
}

/// What `backup create` takes.
#[derive(Debug, Clone, Args)]
pub struct CreateBackupArgs {
    /// Where the server listens.
    #[command(flatten)]
    pub at: StatusArgs,
    /// A new file.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Leave out the wraps of identity keys, without which nothing opens: back them up apart.
    #[arg(long, conflicts_with = "only_key_wraps")]
    pub without_key_wraps: bool,
    /// The wraps of identity keys alone.
    #[arg(long)]
    pub only_key_wraps: bool,
}

/// What `backup verify` and `backup restore` take.
#[derive(Debug, Clone, Args)]
pub struct BackupOpenArgs {
    /// The backup.
    pub file: PathBuf,
    /// The backup of the wraps, for one that was made without them.
    #[arg(long, value_name = "FILE")]
    pub key_wraps: Option<PathBuf>,
    /// The configuration of the server, a TOML file.
    #[arg(long)]
    pub config: PathBuf,
    /// A file that holds the PIN of the HSM, `-` for standard input; the source of the configuration
    /// where it is left out.
    #[arg(long, value_name = "FILE", conflicts_with = "recovery_token")]
    pub pin_file: Option<PathBuf>,
    /// A share of a recovery set that its holder opened; once for each. Where the HSM is lost: it is
    /// not asked then, and `strongroom recover` goes on with the store.
    #[arg(
        long = "share",
        value_name = "FILE",
        conflicts_with_all = ["pin_file", "recovery_token", "recovery_module", "recovery_pin_file"]
    )]
    pub shares: Vec<PathBuf>,
    /// The same with a recovery token.
    #[command(flatten)]
    pub token: RecoveryTokenArgs,
}

/// What `backup accept` takes.
#[derive(Debug, Clone, Args)]
pub struct AcceptArgs {
    /// Where the server listens.
    #[command(flatten)]
    pub at: StatusArgs,
    /// The head that you accept: its entries and its root. Without it nothing is signed, and the
    /// command says which head the vault found.
    #[arg(long, value_name = "ENTRIES:ROOT")]
    pub found: Option<String>,
    /// Accept a head of the log that this vault did not write: nothing that a backup does.
    #[arg(long)]
    pub altered: bool,
    /// Approve the ceremony that another administrator opened, and told you the id of.
    #[arg(long, value_name = "ID")]
    pub ceremony: Option<String>,
    /// A file that holds a code of your factor, `-` for standard input; on a terminal it is asked for
    /// where it is left out.
    #[arg(long, value_name = "FILE")]
    pub code_file: Option<PathBuf>,
}

/// A backup that the server made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupReport {
    /// The backup's id.
    pub id: String,
    /// Its file.
    pub file: String,
    /// `whole`, `without-key-wraps` or `key-wraps`.
    pub content: String,
    /// When it was made, in Unix milliseconds.
    pub created_at_ms: i64,
    /// Entries of the log in it.
    pub log_size: i64,
    /// The root over them, in lowercase hexadecimal.
    pub log_root: String,
    /// Its length.
    pub bytes: u64,
}

/// Has the server make a backup.
pub(super) async fn create(format: Format, args: &CreateBackupArgs) -> Outcome {
    let content = match (args.without_key_wraps, args.only_key_wraps) {
        (true, _) => "without-key-wraps",
        (false, true) => "key-wraps",
        (false, false) => "whole",
    };
    let request = Request::Backup { out: absolute(&args.out)?, content: content.to_owned() };
    let Reply::Backup(made) = ask_within(&args.at.socket, &request, PATIENCE).await? else {
        return Err(beside_the_point());
    };
    show(format, &made, |made| {
        fields(&[
            ("backup", made.id.clone()),
            ("file", made.file.clone()),
            ("content", made.content.clone()),
            ("made", time(made.created_at_ms)),
            ("entries", made.log_size.to_string()),
            ("root", made.log_root.clone()),
            ("bytes", made.bytes.to_string()),
        ])
    })
}

/// Names a file from the root on: the server stands elsewhere.
fn absolute(path: &Path) -> Outcome<String> {
    let path = std::path::absolute(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", path.display())))?;
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::usage("the name of a backup is a text"))
}

/// Accepts a restored store.
pub(super) async fn accept(global: &Global, args: &AcceptArgs) -> Outcome {
    let socket = &args.at.socket;
    let Reply::Rollback(rollback) = ask(socket, &Request::Rollback).await? else {
        return Err(beside_the_point());
    };
    let signed = acceptance::sign(global, &rollback, args.found.as_deref(), args.altered)?;
    let request = |code: Option<Zeroizing<String>>| Request::Accept {
        certificate: signed.certificate.clone(),
        signature: signed.signature.clone(),
        ceremony: args.ceremony.clone(),
        code: code.map(Secret::new),
    };
    let code = args.code_file.as_deref().map(read_secret).transpose()?;
    let asked = code.is_none() && stdin().is_terminal() && stderr().is_terminal();
    let reply = match ask(socket, &request(code)).await {
        Err(failure) if failure.reason.as_deref() != Some(STEP_UP) => return Err(failure),
        Err(failure) if asked => {
            note(&failure.message);
            ask(socket, &request(Some(prompt_secret("code")?))).await?
        }
        reply => reply.map_err(|failure| {
            failure.hint("give a code with --code-file; on a terminal it is asked for")
        })?,
    };
    done(global.output, reply)
}
