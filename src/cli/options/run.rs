//! Options of `run`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::super::gdb;
use super::kernel::{Kernel, Live};

/// What a trace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Traced {
    /// Calls between the module and the kernel, with arguments and results
    Calls,
    /// Instructions that are executed one after the other
    Blocks,
    /// Each instruction
    Instructions,
}

/// The format of `--coverage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CoverageFormat {
    /// Blocks of instructions, for disassemblers
    Drcov,
    /// Lines of sources
    Lcov,
}

const ACTIONS: &str = "Actions:\n  \
    open PATH [r|w|rw] [nonblock]    prints the number of the open file\n  \
    read FD|PATH [COUNT], write FD|PATH TEXT, close FD\n  \
    ioctl FD|PATH REQUEST [NUMBER|int:NUMBER|bytes:TEXT]\n  \
    mknod PATH c MAJOR|NAME MINOR    NAME is that of a registered device\n  \
    poll FD [MILLISECONDS]          for what the file is ready\n  \
    call NAME [NUMBER]...           a system call\n  \
    cat PATH, echo TEXT > PATH\n  \
    sleep SECONDS                    of the kernel's time\n  \
    insmod FILE [PARAM=VALUE]..., rmmod NAME\n\n\
    In TEXT, \\n, \\t, \\0, \\\\ and \\xHH are bytes.\n\n\
    Exit codes: 0 the module was loaded; 1 the kernel refused it, or one before it; 2 wrong usage; 3 input that cannot be \
    read or parsed, or a kernel that cannot be run; 4 the machine stopped, so that the rest is not known.";

/// `run`
#[derive(Debug, Args)]
#[command(after_long_help = ACTIONS, after_help = ACTIONS)]
pub struct Run {
    /// The module: a name or alias as modprobe takes it, or a file, also compressed (.gz, .xz, .zst)
    #[arg(value_name = "MODULE")]
    pub file: PathBuf,
    /// Its parameters
    #[arg(value_name = "PARAM=VALUE")]
    pub words: Vec<String>,
    /// What is done once the module is loaded; repeatable (see below)
    #[arg(short = 'e', long = "action", value_name = "ACTION")]
    pub actions: Vec<String>,
    /// A file of actions, one a line, done before those of -e; # begins a comment
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Load the module only: the verdict of the kernel's own load_module, without calling the init function
    #[arg(long, conflicts_with_all = ["actions", "script"])]
    pub load_only: bool,
    /// Load the module only, and compare its memory with what kmodld itself makes of it, byte by byte
    #[arg(long, conflicts_with_all = ["actions", "script"])]
    pub compare: bool,
    /// Show what the module's code does: `calls` between it and the kernel, `blocks` of instructions, `instructions`; repeatable
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub trace: Vec<Traced>,
    /// Write the trace to FILE; else it stands between the messages, or in the JSON document
    #[arg(long, value_name = "FILE", requires = "trace")]
    pub trace_file: Option<PathBuf>,
    /// How many entries of the trace are kept, the first ones; what is cut is said
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "trace")]
    pub trace_limit: usize,
    /// Tell of memory that is misused: accesses out of bounds or after free, wrong frees, uses of what nobody has written
    #[arg(long)]
    pub sanitize: bool,
    /// Write to FILE which of the module's code was executed
    #[arg(long, value_name = "FILE")]
    pub coverage: Option<PathBuf>,
    /// What FILE holds: blocks of code (`drcov`), or lines of sources (`lcov`), for which the module has to have debug information
    /// [default: lcov if the name of FILE ends in .info or .lcov, else drcov]
    #[arg(long, value_name = "FORMAT", requires = "coverage")]
    pub coverage_format: Option<CoverageFormat>,
    /// Wait for gdb at the module's init function: on this port of this machine (`:PORT` or `127.0.0.1:PORT`; 0 is any)
    #[arg(long, value_name = "ADDRESS", value_parser = gdb::address, conflicts_with_all = ["load_only", "compare"])]
    pub gdb: Option<SocketAddr>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Instructions that each system call may take
    #[arg(long, value_name = "N", default_value_t = 2_000_000_000)]
    pub budget: u64,
    #[command(flatten)]
    pub kernel: Kernel,
    #[command(flatten)]
    pub live: Live,
}

impl Run {
    /// Are lines of sources to be written?
    pub fn wants_lines(&self) -> bool {
        let Some(file) = &self.coverage else { return false };
        let by_name = || file.extension().is_some_and(|ending| ending == "info" || ending == "lcov");
        self.coverage_format.map_or_else(by_name, |format| format == CoverageFormat::Lcov)
    }
}
