//! The program `kmodld`.
#![forbid(unsafe_code)]

// Verdicts are made by one thread and freed by another, for which the C library takes locks: 7 % of the time of a tree.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod cli;
mod commands;
mod report;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(&cli) {
        Ok(outcome) => ExitCode::from(outcome as u8),
        Err(error) => {
            report::error(&error);
            ExitCode::from(match error {
                kmodld::Error::Usage(_) => commands::Outcome::Usage,
                _ => commands::Outcome::Input,
            } as u8)
        }
    }
}
