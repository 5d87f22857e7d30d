//! The program: options, one module per command, and what a person reads.

mod addr;
mod check;
mod explain;
mod gdb;
mod init;
mod inspect;
mod kernel;
mod link;
mod merge;
mod modules;
mod options;
mod packaging;
mod part;
mod report;
mod run;
mod simulate;
mod story;
mod terminal;
mod trace;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::thread;

use clap::{CommandFactory, FromArgMatches};
use elf_layout::{Coverage, Findings, KernelVersion};
use kmodld::check::Ending;
use kmodld::document::{findings, unjudged};
use kmodld::kernel_source::KernelSource;
use kmodld::kernel_source::unread::Unread;
use kmodld::setup::{Prepared, RunningFacts, prepare};
use kmodld::{Error, Loader, threads};

use options::{Cli, Command};
use terminal::Amount;

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
    /// Nothing refused, but something undecided.
    Undecided = 4,
}

impl Outcome {
    /// With one more verdict: a refusal outweighs what is undecided, and what cannot be read outweighs both.
    fn and(self, ending: Ending) -> Self {
        match (self, ending) {
            (Outcome::Done | Outcome::Undecided, Ending::Refused | Ending::Oops) => Outcome::Refused,
            (Outcome::Done, Ending::Undecided) => Outcome::Undecided,
            (outcome, _) => outcome,
        }
    }
}

/// Work on a thread of its own.
struct Beside<T, W> {
    work: W,
    result: OnceLock<T>,
}

impl<T: Send + Sync, W: Fn() -> T + Sync> Beside<T, W> {
    fn new(work: W) -> Self {
        Beside { work, result: OnceLock::new() }
    }

    /// Its result. The caller does the work if no other thread has begun it.
    fn get(&self) -> &T {
        self.result.get_or_init(&self.work)
    }

    /// Does it while something else goes on.
    fn run<R>(&self, meanwhile: impl FnOnce() -> R) -> R {
        thread::scope(|scope| {
            let _ = threads::spawn(scope, || self.get());
            meanwhile()
        })
    }

    fn into_result(self) -> T {
        self.result.into_inner().unwrap_or_else(self.work)
    }
}

/// The kernel that the options describe, with the modules of `--with` loaded. `None`, all said, if it refuses one of them.
fn prepared(
    source: &KernelSource,
    facts: &RunningFacts,
    with: &[PathBuf],
    version: impl FnOnce() -> Option<KernelVersion>,
) -> Result<Option<Loader>, Error> {
    match prepare(source, facts, with, version)? {
        Prepared::Ready { loader, unread, before } => {
            unread.iter().for_each(tell_unread);
            tell_coverage(&loader);
            before.iter().for_each(|(file, said)| tell_before(&file.display().to_string(), said));
            loader.kernel.boot.doubts.iter().for_each(|doubt| report::note(doubt));
            Ok(Some(*loader))
        }
        Prepared::Refused { file, said } => {
            report::refusal(&file, None, &said, false)?;
            Ok(None)
        }
    }
}

/// What the running kernel's system does not show: what, why, and how it does.
fn tell_unread(unread: &Unread) {
    let Unread { what, path, why, way, .. } = unread;
    let way = if way.is_empty() { String::new() } else { format!("; {way}") };
    report::note(&format!("{what} not known: {}: {why}{way}", path.display()));
}

/// Of modules that are taken as loaded it is told what may keep them from that: rules that were not judged, and files that the
/// kernel may not read (DEC-1 to DEC-7).
fn tell_before(file: &str, said: &Findings) {
    let (open, mut notes) = (unjudged(said), findings(said));
    notes.retain(|note| note.code.starts_with("DEC-"));
    if open.is_empty() && notes.is_empty() {
        return;
    }
    report::note(&format!("{file}, which is taken as loaded:"));
    report::unjudged(&open);
    report::Told::default().findings(file, None, &notes, usize::MAX);
}

/// What is said of a kernel that no booted one was compared with is worth less: that is said once.
fn tell_coverage(loader: &Loader) {
    let kernel = &loader.kernel;
    let coverage = kernel.coverage();
    if coverage != Coverage::Exact {
        let release = if kernel.release.is_empty() { "a kernel of unknown release" } else { &kernel.release };
        report::note(&format!("{release}: coverage {}: {}", coverage.word(), coverage.sentence()));
    }
}

/// The command line, with lines of usage that fit the terminal: clap wraps everything else.
fn command() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command.mut_subcommands(|sub| {
        let usage = sub.clone().render_usage().to_string();
        let wrapped = terminal::wrap(&usage, terminal::stdout_width(), USAGE.len());
        match wrapped.strip_prefix(USAGE).filter(|_| wrapped != usage) {
            Some(wrapped) => sub.override_usage(wrapped.to_owned()),
            None => sub,
        }
    })
}

/// What clap's lines of usage begin with.
const USAGE: &str = "Usage: ";

/// Reads the command line, runs the command, and says what kept it from its work.
pub fn main() -> ExitCode {
    let cli = Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
    terminal::set(cli.color, Amount { quiet: cli.quiet, verbose: cli.verbose });
    match dispatch(&cli) {
        Ok(outcome) => ExitCode::from(outcome as u8),
        Err(error) => {
            report::error(&error);
            ExitCode::from(match error {
                Error::Usage(_) => Outcome::Usage,
                _ => Outcome::Input,
            } as u8)
        }
    }
}

/// `schema`
fn schema(args: &options::Schema) -> Result<Outcome, Error> {
    let commands = kmodld::schema::COMMANDS;
    let found = kmodld::schema::schema(&args.command);
    let found = found.ok_or_else(|| {
        Error::Usage(format!("{} prints no JSON; {} do", args.command, commands.join(", ")))
    })?;
    let text = serde_json::to_string_pretty(&found)
        .map_err(|e| Error::write(std::path::Path::new("stdout"), e.into()))?;
    report::print_bytes(format!("{text}\n").as_bytes())?;
    Ok(Outcome::Done)
}

/// Runs the command.
fn dispatch(cli: &Cli) -> Result<Outcome, Error> {
    match &cli.command {
        Command::Inspect(args) => inspect::run(args),
        Command::Link(args) => link::run(args),
        Command::Check(args) => check::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Addr(args) => addr::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Run(args) => run::run(args),
        Command::Kernel(args) => kernel::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Merge(args) => merge::run(args),
        Command::Schema(args) => schema(args),
        Command::Completions(args) => packaging::completions(args),
        Command::Man(args) => packaging::man(args),
    }
}
