//! `kmodld man` and `kmodld completions`: made from the definition of the command line.

use std::fs;

use clap::CommandFactory;
use clap_complete::{Shell, generate};
use kmodld::Error;

use super::Outcome;
use super::options::{Cli, Completions, Man};
use super::report;

/// One page for the program and one for each command.
pub fn man(args: &Man) -> Result<Outcome, Error> {
    fs::create_dir_all(&args.dir).map_err(|e| Error::write(&args.dir, e))?;
    clap_mangen::generate_to(Cli::command(), &args.dir).map_err(|e| Error::write(&args.dir, e))?;
    Ok(Outcome::Done)
}

/// The completions of a shell, on stdout.
pub fn completions(args: &Completions) -> Result<Outcome, Error> {
    let mut out = Vec::new();
    generate(Shell::from(args.shell), &mut Cli::command(), "kmodld", &mut out);
    report::print_bytes(&out)?;
    Ok(Outcome::Done)
}
