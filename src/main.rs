//! The program `strongroom`.

use std::process::ExitCode;

use clap::Parser as _;
use strongroom::cli::{self, Cli, Command};
use strongroom::server;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        Command::Client(command) => cli::run(&cli.global, command),
        Command::Server(command) => server::run(&cli.global, command),
    }
}
