//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use ::kernel::Init;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use kmodld::Stage;
use kmodld::trace::words::Lang;

pub use run::{Run, Traced};

pub use kernel::{Before, Kernel, Kernels, Live, Params, PlaceArgs, With, cache};

use super::terminal::ColorArg;

mod kernel;
mod run;

/// Runs Linux's load_module in user space: what a kernel module looks like in
/// memory, and whether a kernel would take it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// When to colour output
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        global = true,
        display_order = 900,
        hide_possible_values = true,
        help = "When to colour output: auto, always or never"
    )]
    pub color: ColorArg,
    /// Print results and errors only: no findings, no notes
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = 901)]
    pub quiet: bool,
    /// Print everything: each finding by itself, consequences, and of directories modules that load
    #[arg(short, long, global = true, display_order = 902)]
    pub verbose: bool,
}

const EXIT_CODES: &str = "Exit codes: 0 done and nothing refused; 1 the kernel would refuse a module; \
    2 wrong usage; 3 input that cannot be read or parsed, output that cannot be written; \
    4 nothing refused, but something undecided.\n\n\
    Findings have a code, such as VER-6; `kmodld explain VER-6` explains it.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what modules say about themselves: sections and where they would go, modinfo,
    /// parameters with their defaults, imports, exports, signature
    Inspect(Inspect),
    /// Link a module into memory as load_module does
    Link(Box<Link>),
    /// Tell whether a kernel would load modules, and every reason why not
    Check(Box<Check>),
    /// Load and unload modules one after the other, and show what the kernel returns, says and lists
    Simulate(Box<Simulate>),
    /// Tell how a module gets into the kernel, step by step: in the terminal, or as a page
    Trace(Box<Trace>),
    /// Compare every loaded module in memory, of a dump or of the running kernel, with what should lie there
    Verify(Box<Verify>),
    /// Tell what an address of a module is: section, symbol, relocation, patch; also for the lines of an oops
    Addr(Box<Addr>),
    /// Run a module in the kernel image's own code, without booting it: init, what is done with it, exit
    Run(Box<Run>),
    /// Show what a kernel image or tree tells: symbols, exports, facts; or save it as a SPEC
    Kernel(KernelCommand),
    /// Explain a finding, an errno or a line of dmesg: the rule, what the kernel does, what to do about it
    Explain(Explain),
    /// Join the outputs of check --jsonl, of shards or of several kernels, into one summary, SARIF file and exit code
    Merge(Merge),
    /// Print the JSON Schema of what a command prints
    Schema(Schema),
    /// Print the completions of a shell
    Completions(Completions),
    /// Write the man pages into a folder
    Man(Man),
}

/// `merge`
#[derive(Debug, Args)]
pub struct Merge {
    /// Outputs of check --jsonl; - is stdin
    #[arg(required = true, value_name = "FILE.jsonl")]
    pub files: Vec<PathBuf>,
    /// Write all findings as one SARIF 2.1.0 document; - is stdout, which has no summary then
    #[arg(long, value_name = "FILE")]
    pub sarif: Option<PathBuf>,
}

/// `completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: ShellArg,
}

/// Shells that completions are made for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ShellArg {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

impl From<ShellArg> for clap_complete::Shell {
    fn from(shell: ShellArg) -> Self {
        match shell {
            ShellArg::Bash => clap_complete::Shell::Bash,
            ShellArg::Zsh => clap_complete::Shell::Zsh,
            ShellArg::Fish => clap_complete::Shell::Fish,
        }
    }
}

/// `man`
#[derive(Debug, Args)]
pub struct Man {
    /// The folder, which is made if need be
    pub dir: PathBuf,
}

/// `schema`
#[derive(Debug, Args)]
pub struct Schema {
    /// check (a line of --jsonl), inspect, kernel, link, run, simulate, trace (a line) or verify
    pub command: String,
}

/// `inspect`
#[derive(Debug, Args)]
pub struct Inspect {
    /// Modules: names and aliases as modprobe takes them, or files, also compressed (.gz, .xz, .zst); - is stdin
    #[arg(required = true, value_name = "MODULE")]
    pub files: Vec<PathBuf>,
    /// The kernel whose modules are named: a release, or a path to a tree or an image [default: the running kernel]
    #[arg(long, value_name = "KERNEL")]
    pub kernel: Option<OsString>,
    /// Look for modules in an image or chroot, not in /
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Print this field only, as modinfo -F does: filename, license, vermagic, parm, signer...
    #[arg(short = 'F', long, value_name = "FIELD", conflicts_with = "json")]
    pub field: Option<String>,
    /// Print fields as modinfo -0 does: TAG=VALUE, each ended by NUL; with -F the values alone
    #[arg(short = '0', long, conflicts_with = "json")]
    pub null: bool,
    /// Print one JSON document per module, one a line
    #[arg(long)]
    pub json: bool,
}

/// `link`
#[derive(Debug, Args)]
pub struct Link {
    /// The module: a name or alias as modprobe takes it, or a file, also compressed (.gz, .xz, .zst); - is stdin
    #[arg(value_name = "MODULE")]
    pub file: PathBuf,
    /// Module parameters, as on modprobe's command line; only the final stage shows them
    #[arg(value_name = "PARAM=VALUE")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub params: Params,
    /// How far to go; final if not given
    #[arg(long, value_enum)]
    pub stage: Option<StageArg>,
    /// Where to write: a file, - for stdout, or a folder for the raw format
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// One ELF file at final addresses, or one file per region with layout.json
    #[arg(long, value_enum, default_value_t = Format::Elf)]
    pub format: Format,
    /// Whether the ELF file gets the module's debug information (.debug_*)
    #[arg(
        long,
        value_enum,
        value_name = "YES|NO",
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub debug: DebugArg,
    /// Write a load map: regions, sections, symbols and imports by address
    #[arg(long, value_name = "PATH")]
    pub map: Option<PathBuf>,
    /// Print the document of layout.json instead of tables
    #[arg(long)]
    pub json: bool,
    /// Add all symbols to the document
    #[arg(long)]
    pub symbols: bool,
    /// Add all relocations to the document
    #[arg(long)]
    pub relocations: bool,
    #[command(flatten)]
    pub kernel: Kernel,
    #[command(flatten)]
    pub before: Before,
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub live: Live,
}

/// Whose verdicts `check` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum JudgeArg {
    /// The rules that kmodld knows
    #[default]
    Rules,
    /// The kernel's own code
    Kernel,
    /// Both
    Both,
}

/// Debug information in the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DebugArg {
    /// As the module has it
    #[default]
    Yes,
    /// None
    No,
}

/// `check`
#[derive(Debug, Args)]
#[command(after_help = CHECK_HELP)]
pub struct Check {
    /// Modules: names and aliases as modprobe takes them, files, also compressed (.gz, .xz, .zst), and directories with
    /// modules in any depth; - is stdin. What has a slash or ends in .ko is a path; anything else too, if the kernel has no such module.
    /// All of them are one set: a module that needs others of the set, of the kernel's tree or of the folder that it lies
    /// in is checked as if those had been loaded before it, as modprobe does. Words with = that no file is called are
    /// parameters, as on modprobe's command line
    #[arg(required_unless_present = "files_from", value_name = "MODULE|DIR|PARAM=VALUE")]
    pub paths: Vec<PathBuf>,
    #[command(flatten)]
    pub params: Params,
    /// Print one JSON document with all verdicts
    #[arg(long, group = "print")]
    pub json: bool,
    /// Print one JSON document per module, one a line
    #[arg(long, group = "print")]
    pub jsonl: bool,
    /// Print all findings as one SARIF 2.1.0 document
    #[arg(long, group = "print")]
    pub sarif: bool,
    /// Who judges: rules (kmodld's own; if not given), kernel (the image's own load_module, which is executed), or both, with where
    /// they disagree
    #[arg(
        long,
        value_enum,
        value_name = "WHO",
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true,
        conflicts_with = "sarif"
    )]
    pub judge: JudgeArg,
    /// Judge each module by itself: others that are named are not loaded before it
    #[arg(long)]
    pub each: bool,
    /// How many modules to check at a time; 0, as if not given: as many as there are processors
    #[arg(short, long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub jobs: usize,
    /// Read more paths from a file, one a line, or ended by NUL if it has any; - is stdin
    #[arg(long, value_name = "FILE")]
    pub files_from: Option<PathBuf>,
    /// Check only part I of N, from 1, of all modules on all kernels. The parts are blocks of neighbours: their outputs
    /// with --jsonl one after the other are that of the whole, and `kmodld merge` makes one of them
    #[arg(long, value_name = "I/N", value_parser = shard, conflicts_with_all = ["shard_index", "shard_count"])]
    pub shard: Option<Shard>,
    /// The same by a number from 0, such as $SLURM_ARRAY_TASK_ID or $JOB_COMPLETION_INDEX
    #[arg(long, value_name = "I", requires = "shard_count")]
    pub shard_index: Option<usize>,
    /// How many parts there are
    #[arg(long, value_name = "N", requires = "shard_index")]
    pub shard_count: Option<usize>,
    #[command(flatten)]
    pub kernels: Kernels,
    #[command(flatten)]
    pub before: Before,
    #[command(flatten)]
    pub live: Live,
}

const STEPS: &str = "\
Steps, each one argument:
  insmod FILE [PARAM=VALUE...]  load a module, as modprobe does with --force-vermagic or
      --force-modversion; --params \"A=1 B=2\": parameters before the others;
      --init=RESULT tells how its init function ends: 0 (if not given), a positive
      number, an error such as -ENODEV, or crash
  rmmod NAME [-f]               unload a module, by force with -f; --exit=crash if its exit
      function never returns
  get NAME, put NAME            take or drop a reference on a module, as an open file does
  lsmod                         print /proc/modules
  events                        print what happened so far: notifiers, init and exit calls
  dmesg                         print what the kernel has said so far
  print_modules                 print the lines of an oops that list modules
  #...                          nothing: a comment";

/// `simulate`
#[derive(Debug, Args)]
#[command(after_long_help = STEPS, after_help = STEPS)]
pub struct Simulate {
    /// What to do, one after the other: "insmod FILE", "rmmod NAME", "lsmod"... (see below)
    #[arg(value_name = "STEP", required = true)]
    pub steps: Vec<String>,
    /// Print one JSON document with all steps
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub kernel: Kernel,
    #[command(flatten)]
    pub with: With,
    #[command(flatten)]
    pub live: Live,
}

/// `trace`
#[derive(Debug, Args)]
pub struct Trace {
    /// The module: a name or alias as modprobe takes it, or a file, also compressed (.gz, .xz, .zst); - is stdin
    #[arg(value_name = "MODULE")]
    pub file: PathBuf,
    /// Module parameters, as on modprobe's command line
    #[arg(value_name = "PARAM=VALUE")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub params: Params,
    /// Tell this step only, such as layout, symbols or relocations; a page opens at it
    #[arg(long, value_name = "NAME")]
    pub step: Option<String>,
    /// Write the story as one HTML page, which needs nothing else
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub html: Option<PathBuf>,
    /// The language of the story; names, dmesg lines and explanations of findings stay as they are
    #[arg(long, value_parser = lang(), conflicts_with = "json")]
    pub lang: Option<Lang>,
    /// Print the events that the story is made from, one JSON document a line
    #[arg(long)]
    pub json: bool,
    /// How the init function ends: 0 (if not given), a positive number, an error such as -ENODEV, or crash
    #[arg(long, value_name = "RESULT", value_parser = super::init::init_result, default_value = "0", hide_default_value = true, allow_hyphen_values = true)]
    pub init: Init,
    /// What to do afterwards, as `simulate` takes it: "rmmod NAME", "insmod FILE"... Repeatable
    #[arg(long, value_name = "STEP")]
    pub then: Vec<String>,
    /// Unload the module at the end
    #[arg(long)]
    pub unload: bool,
    #[command(flatten)]
    pub kernel: Kernel,
    #[command(flatten)]
    pub before: Before,
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub live: Live,
}

/// `--lang`: the tags of languages.
fn lang() -> impl TypedValueParser<Value = Lang> {
    PossibleValuesParser::new(Lang::ALL.map(Lang::tag)).map(|tag| Lang::of_tag(&tag).unwrap_or_default())
}

const VERIFY_HELP: &str = "Exit codes: 0 everything was judged, and nothing is changed; 1 there are alarms; 2 wrong usage; 3 the dump or a \
    file cannot be read, or the kernel of the dump is another one; 4 no alarm, but something could not be judged.";

/// `verify`
#[derive(Debug, Args)]
#[command(after_help = VERIFY_HELP)]
pub struct Verify {
    /// Names of loaded modules, or files of modules that the kernel's tree does not have [default: all that are loaded]
    #[arg(value_name = "MODULE")]
    pub modules: Vec<String>,
    /// A dump: ELF core, kdump-compressed, LiME, AVML, or raw physical memory
    #[arg(long, value_name = "DUMP", conflicts_with = "live")]
    pub memory_image: Option<PathBuf>,
    /// The memory of the running kernel (/proc/kcore): what is meant without --memory-image
    #[arg(long)]
    pub live: bool,
    /// The file of a loaded module that the kernel's tree does not have; repeatable
    #[arg(long, value_name = "FILE")]
    pub with: Vec<PathBuf>,
    /// Print one JSON document
    #[arg(long, conflicts_with = "sarif")]
    pub json: bool,
    /// Print alarms as SARIF
    #[arg(long)]
    pub sarif: bool,
    /// Write what memory holds of hidden modules into this folder, as ELF files
    #[arg(long, value_name = "DIR")]
    pub extract: Option<PathBuf>,
    #[command(flatten)]
    pub kernel: Kernel,
}

/// `addr`
#[derive(Debug, Args)]
pub struct Addr {
    /// A module: a file, or a name as modprobe takes it; with --memory-image the first address
    #[arg(value_name = "MODULE")]
    pub module: Option<String>,
    /// Addresses, SYMBOL+0xOFFSET, SYMBOL+0xOFFSET/0xSIZE [MODULE] as an oops has it, or SECTION+0xOFFSET; - is a log on
    /// stdin, whose lines are printed with what is known of them
    #[arg(value_name = "ADDR")]
    pub addresses: Vec<String>,
    /// Addresses of a dump: the modules are those that lie there
    #[arg(long, value_name = "DUMP")]
    pub memory_image: Option<PathBuf>,
    /// A module loaded before, in this order; with --memory-image the file of a module that the tree does not have; repeatable
    #[arg(long, value_name = "FILE")]
    pub with: Vec<PathBuf>,
    #[command(flatten)]
    pub kernel: Kernel,
    #[command(flatten)]
    pub place: PlaceArgs,
}

const CHECK_HELP: &str = "Text output has a line for each module with its verdict, on stderr the cause and what else is found, repeats \
    folded, and a summary if there are several modules. Of directories, only modules that are refused or complained about \
    are named; -v shows all, and each finding by itself. With several --kernel it is a table of modules by kernels.\n\n\
    Exit codes: 0 every module loads; 1 at least one is refused or crashes a kernel; 2 wrong usage; 3 a file cannot be \
    read or a directory holds no module, whatever the others are; 4 none is refused, and at least one is undecided, for \
    want of facts that are named.";

/// Part `part` of `of`, from 1.
#[derive(Clone, Copy, Debug)]
pub struct Shard {
    /// From 1.
    pub part: usize,
    /// How many parts there are.
    pub of: usize,
}

/// `I/N`
fn shard(text: &str) -> Result<Shard, String> {
    let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    let (part, of) = numbers.ok_or("not I/N, such as 1/4")?;
    if part == 0 || part > of {
        return Err(format!("there is no part {part} of {of}"));
    }
    Ok(Shard { part, of })
}

impl Check {
    /// The part to check, however it is given.
    pub fn part(&self) -> Result<Option<Shard>, String> {
        match (self.shard, self.shard_index, self.shard_count) {
            (None, Some(index), Some(count)) if index < count => {
                Ok(Some(Shard { part: index.saturating_add(1), of: count }))
            }
            (None, Some(index), Some(count)) => Err(format!(
                "--shard-index {index}: with --shard-count {count} they go from 0 to {count} less 1"
            )),
            (shard, ..) => Ok(shard),
        }
    }
}

/// `kernel`
#[derive(Debug, Args)]
pub struct KernelCommand {
    /// The release of an installed kernel, `running`, or a path: vmlinuz, vmlinux, Image, a SPEC, or a tree (a root with
    /// boot/ and lib/modules/RELEASE, or lib/modules/RELEASE itself) [default: the running kernel]
    #[arg(value_name = "KERNEL")]
    pub kernel: Option<OsString>,
    /// Look for kernels in an image or chroot, not in /
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Print its symbols as /proc/kallsyms does, at link addresses
    #[arg(long, group = "print")]
    pub kallsyms: bool,
    /// Print its exports as Module.symvers does
    #[arg(long, group = "print")]
    pub exports: bool,
    /// Print the facts as one JSON document
    #[arg(long, group = "print")]
    pub json: bool,
    /// Forget the kernels that were read or booted before (in kmodld of the user's cache folder), and do nothing else
    #[arg(long, conflicts_with_all = ["kernel", "print", "output"])]
    pub cache_clear: bool,
    /// Write a SPEC: one compact file that --kernel takes in place of all this
    #[arg(short, long, value_name = "SPEC")]
    pub output: Option<PathBuf>,
}

/// `explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// A code (VER-6), a family (VER), any rule of docs/spec (FIN-9), an errno (ENOEXEC), a line of dmesg, or - for lines
    /// of stdin. Families are listed if nothing is given
    #[arg(value_name = "CODE|ERRNO|LINE", allow_hyphen_values = true)]
    pub words: Vec<String>,
}
/// Stages by name.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum StageArg {
    /// On return of apply_relocations
    Relocated,
    /// On entry to module_finalize: exception table sorted, kallsyms tables filled
    Kallsyms,
    /// On entry to do_init_module: all patched, parameters set
    Final,
}

impl From<StageArg> for Stage {
    fn from(stage: StageArg) -> Stage {
        match stage {
            StageArg::Relocated => Stage::Relocated,
            StageArg::Kallsyms => Stage::Kallsyms,
            StageArg::Final => Stage::Final,
        }
    }
}

/// Output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One ELF file
    Elf,
    /// A folder with one file per region and layout.json
    Raw,
}
