//! One module per command.

mod check;
mod explain;
mod inspect;
mod kernel;
mod kernel_args;
mod link;
mod simulate;
mod summary;

use kmodld::Error;

use crate::cli::{Cli, Command};

/// How a run ended: the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// Done, nothing refused.
    Done = 0,
    /// A module would be refused.
    Refused = 1,
    /// Wrong usage.
    Usage = 2,
    /// Input that cannot be read or parsed, output that cannot be written.
    Input = 3,
}

/// Runs the command.
pub fn run(cli: &Cli) -> Result<Outcome, Error> {
    match &cli.command {
        Command::Inspect(args) => inspect::run(args),
        Command::Link(args) => link::run(args),
        Command::Check(args) => check::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::Kernel(args) => kernel::run(args),
        Command::Explain(args) => explain::run(args),
    }
}
