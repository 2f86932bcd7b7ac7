//! The server's commands: from the command line to a process that is ready for them.

use std::future::Future;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use super::{backup, dev, doctor, init, migrate, recover, recover_vault, recovery_token, serve};
use crate::cli::{Exit, Failure, Global, Outcome, ServerCommand};
use crate::config::{self, Config};
use crate::error::Error;
use crate::harden::{self, Hardening, Measure};
use crate::hsm::softhsm;
use crate::{store, telemetry};

/// Runs a server's command to its end and says how the program ends.
#[must_use]
pub fn run(global: &Global, command: &ServerCommand) -> ExitCode {
    let done = without_postgres().and_then(|()| match command {
        ServerCommand::Dev(args) => dev::run(global, args),
        ServerCommand::Init(args) => init::run(global, args),
        ServerCommand::Server(args) => serve::run(args),
        ServerCommand::Doctor(args) => doctor::run(global, args),
        ServerCommand::RecoverAdmin(args) => recover::run(global, args),
        ServerCommand::Recover(args) => recover_vault::run(global, args),
        ServerCommand::RecoveryToken(command) => recovery_token::run(global, command),
        ServerCommand::Backup(command) => backup::run(global, command),
        ServerCommand::Migrate(args) => migrate::run(global, args),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure.render(global.output);
            // Nobody can be told where standard error is gone.
            drop(std::io::stderr().lock().write_all(text.as_bytes()));
            ExitCode::from(failure.exit.code())
        }
    }
}

/// Says how a server's command ends for an error.
pub(super) fn failed(error: &Error) -> Failure {
    Failure::from_reason(error.reason(), error.to_string())
}

/// Runs this program again without the variables from which the driver of PostgreSQL would take
/// settings that nobody configured. Comes back only when there are none.
fn without_postgres() -> Outcome {
    let names = config::of_postgres();
    if names.is_empty() {
        return Ok(());
    }
    let unable = |error: std::io::Error| {
        Failure::new(Exit::Unexpected, format!("cannot leave PG* variables out: {error}"))
    };
    let mut command = Command::new(std::env::current_exe().map_err(unable)?);
    command.args(std::env::args_os().skip(1));
    for name in names {
        command.env_remove(name);
    }
    Err(unable(command.exec()))
}

/// Runs this program again where the PKCS#11 module needs another environment: a process cannot
/// safely change its own. Comes back only when there is nothing to change.
///
/// Before any thread: the arguments are those of this process unless others are given.
pub(super) fn environment(config: &Config, arguments: Option<Vec<String>>) -> Outcome {
    if config.hsm.environment_missing().is_empty() {
        return Ok(());
    }
    let arguments: Vec<_> = match arguments {
        Some(arguments) => arguments.into_iter().map(Into::into).collect(),
        None => std::env::args_os().skip(1).collect(),
    };
    let unable = |what: &dyn std::fmt::Display| {
        Failure::new(Exit::Unexpected, format!("cannot set the PKCS#11 environment: {what}"))
    };
    let program = std::env::current_exe().map_err(|error| unable(&error))?;
    let wanted = &config.hsm.environment;
    match softhsm::with_environment(&program, arguments, wanted, config::variable) {
        Ok(None) => Ok(()),
        Ok(Some(mut command)) => Err(unable(&command.exec())),
        Err(error) => Err(unable(&error)),
    }
}

/// Hardens the process, starts the log, and runs what serves or asks.
pub(super) fn in_runtime<F>(config: &Config, quiet: bool, work: F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let hardened = harden::harden();
    // The store and all that stands beside it is this user's alone.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    store::tell_of_idle_workers(&mut runtime);
    let runtime = runtime.enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(Exit::Unexpected, format!("no runtime: {error}")))?;
    let done = runtime.block_on(async {
        let tracing = if quiet {
            None
        } else {
            let started = telemetry::start(&config.log, &config.telemetry);
            Some(started.map_err(|error| failed(&error))?)
        };
        report(&hardened);
        let done = work.await;
        if let Some(tracing) = tracing {
            // It blocks while what waits is sent.
            drop(tokio::task::spawn_blocking(|| tracing.stop()).await);
        }
        done
    });
    // A thread that is stuck in the PKCS#11 module must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done
}

fn report(hardened: &Hardening) {
    for (name, measure) in hardened.measures() {
        match measure {
            Measure::Done => tracing::debug!(measure = name, "hardened"),
            Measure::NotDone(why) => tracing::warn!(measure = name, %why, "not hardened"),
        }
    }
}
