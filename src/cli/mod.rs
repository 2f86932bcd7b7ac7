//! The client: command line → RPC → table or JSON. Translation only: it knows no storage and no
//! keys, and decides nothing.

mod acceptance;
mod actions;
mod args;
mod artifacts;
mod authorities;
mod backup;
mod ceremonies;
pub mod control;
mod credentials;
mod database;
mod elevations;
mod enrolments;
mod export;
mod factors;
mod failure;
mod files;
mod grants;
mod groups;
mod identities;
mod issuers;
mod join;
mod keys;
mod leases;
mod login;
mod output;
mod pki;
mod records;
mod recovery;
mod recovery_sets;
mod recovery_tokens;
mod root;
mod run;
mod secrets;
mod session;
mod span;
mod state;
mod system;
mod tokens;
mod values;
mod verify;
mod wraps;

use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;

use clap::CommandFactory as _;

pub use args::{
    Cli, ClientCommand, Command, DevArgs, DoctorArgs, Global, InitArgs, MigrateArgs,
    RecoverAdminArgs, RecoverArgs, ServerArgs, ServerCommand,
};
pub use backup::{AcceptArgs, BackupCommand, BackupOpenArgs, CreateBackupArgs};
pub use failure::{EXIT_CODES, Exit, Failure, Outcome};
pub use output::Format;
pub use recovery_sets::{OpenShare, SealedShare};
pub use recovery_tokens::{RecoveryTokenArgs, RecoveryTokenCommand, TokenAt};
pub use session::DEFAULT_PORT;
pub use span::Span;

pub(crate) use files::{check_new, prompt_secret, read_json, read_secret, read_text, write_public};
pub(crate) use output::{escape_lines, fields, json_text, note, print, show, table, time};
pub(crate) use system::beside_the_point;

use session::Session;

/// Runs a client command to its end and says how the program ends.
#[must_use]
pub fn run(global: &Global, command: &ClientCommand) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match (runtime, command) {
        // It hears signals itself, and ends as its command does.
        (Ok(runtime), ClientCommand::Run(args)) => match runtime.block_on(run::run(global, args)) {
            Ok(code) => return code,
            Err(failure) => Err(failure),
        },
        (Ok(runtime), _) => runtime.block_on(until_interrupted(dispatch(global, command))),
        (Err(error), _) => Err(Failure::new(Exit::Unexpected, format!("no runtime: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure.render(global.output);
            // Nobody can be told where standard error is gone.
            drop(std::io::stderr().lock().write_all(text.as_bytes()));
            ExitCode::from(failure.exit.code())
        }
    }
}

/// Runs `backup create`, which asks the server on this machine.
pub(crate) fn create_backup(global: &Global, args: &CreateBackupArgs) -> Outcome {
    alone(backup::create(global.output, args))
}

/// Runs `backup accept`, which asks the server on this machine.
pub(crate) fn accept_backup(global: &Global, args: &AcceptArgs) -> Outcome {
    alone(backup::accept(global, args))
}

/// Runs a command on a runtime of its own.
fn alone(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(Exit::Unexpected, format!("no runtime: {error}")))?;
    runtime.block_on(until_interrupted(command))
}

/// Ends a command at Ctrl-C; the vault finishes or undoes what it was asked for.
async fn until_interrupted(command: impl Future<Output = Outcome>) -> Outcome {
    tokio::select! {
        outcome = command => outcome,
        interrupted = tokio::signal::ctrl_c() => match interrupted {
            Ok(()) => Err(Failure::new(Exit::Unexpected, "interrupted")),
            Err(error) => Err(Failure::new(Exit::Unexpected, format!("no signals: {error}"))),
        },
    }
}

async fn dispatch(global: &Global, command: &ClientCommand) -> Outcome {
    let session = || Session::open(global);
    match command {
        ClientCommand::Whoami => identities::whoami(&session()?).await,
        ClientCommand::Login(args) => login::login(global, args).await,
        ClientCommand::Join(args) => join::join(global, args).await,
        ClientCommand::Run(args) => run::run(global, args).await.map(drop),
        ClientCommand::Actions => actions::print_all(global.output),
        ClientCommand::Identity(command) => identities::run(&session()?, command).await,
        ClientCommand::Enrolment(command) => enrolments::run(&session()?, command).await,
        ClientCommand::Group(command) => groups::run(&session()?, command).await,
        ClientCommand::Grant(command) => grants::run(&session()?, command).await,
        ClientCommand::Db(command) => database::run(&session()?, command).await,
        ClientCommand::Elevate(command) => elevations::run(&session()?, command).await,
        ClientCommand::Ceremony(command) => ceremonies::run(&session()?, command).await,
        ClientCommand::Factor(command) => factors::run(&session()?, command).await,
        ClientCommand::Secret(command) => secrets::run(&session()?, command).await,
        ClientCommand::Key(command) => keys::run(&session()?, command).await,
        ClientCommand::Artifact(command) => artifacts::run(global, command).await,
        ClientCommand::Token(command) => tokens::run(&session()?, command).await,
        ClientCommand::Unwrap(args) => wraps::unwrap(&session()?, args).await,
        ClientCommand::Wrap(command) => wraps::run(&session()?, command).await,
        ClientCommand::Issuer(command) => issuers::run(&session()?, command).await,
        ClientCommand::Lease(command) => leases::run(&session()?, command).await,
        ClientCommand::Pki(command) => pki::run(&session()?, command).await,
        ClientCommand::Audit(command) => records::run(global, command).await,
        ClientCommand::Ca(command) => authorities::run(&session()?, command).await,
        ClientCommand::Root(command) => root::run(&session()?, command).await,
        ClientCommand::Recovery(command) => recovery::run(&session()?, command).await,
        ClientCommand::RecoverySet(command) => recovery_sets::run(global, command).await,
        ClientCommand::Status(args) => system::status(global.output, args).await,
        ClientCommand::Seal(args) => system::seal(&session()?, args).await,
        ClientCommand::Unseal(args) => system::unseal(global.output, args).await,
        ClientCommand::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "strongroom", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}
