//! The program `strongroom`.

use std::process::ExitCode;

use clap::Parser as _;
use strongroom::cli::{self, Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let Command::Client(command) = &cli.command;
    cli::run(&cli.global, command)
}
