//! Runs the targets: `cargo run --profile fuzz -p kmodld-fuzz -- all --seconds 60`.
//!
//! Each worker is a process of its own: what kills it (no memory, no stack) is told from its last number, and an
//! input that never ends is told by a watch. Input number N of a seed is always the same one.
#![forbid(unsafe_code)]
#![allow(clippy::restriction, reason = "a tool for development")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use kmodld_fuzz::{TARGETS, Target, run, target};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// An input that takes longer never ends.
const HANGS: Duration = Duration::from_secs(60);

/// Gives hostile input to parsers of kmodld.
#[derive(Debug, Parser)]
struct Options {
    /// Names of targets, or all
    #[arg(required = true)]
    targets: Vec<String>,
    /// How long to run each target
    #[arg(long, default_value_t = 10, conflicts_with = "count")]
    seconds: u64,
    /// How many inputs to give each target, instead of a time
    #[arg(long)]
    count: Option<u64>,
    /// Other seeds make other inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many processes
    #[arg(short, default_value_t = 1)]
    jobs: u64,
    /// Write the slowest input of each target here
    #[arg(long, value_name = "FOLDER")]
    slowest: Option<PathBuf>,
    /// Write the seeds of each target here, a corpus to start from
    #[arg(long, value_name = "FOLDER")]
    write_seeds: Option<PathBuf>,
    /// Run only the input of this number
    #[arg(long)]
    number: Option<u64>,
    /// Run only these files
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Print a row of a Markdown table for each target
    #[arg(long)]
    markdown: bool,
    /// Internal: this process is that worker, and notes its numbers in that file.
    #[arg(long, hide = true, num_args = 2)]
    worker: Vec<String>,
}

/// What a worker did.
#[derive(Clone, Copy, Debug, Default)]
struct Report {
    executions: u64,
    /// Microseconds and number of the slowest input.
    slowest: (u64, u64),
    /// Most bytes of memory that an input took.
    memory: u64,
}

impl Report {
    fn to_line(self) -> String {
        format!("{} {} {} {}", self.executions, self.slowest.0, self.slowest.1, self.memory)
    }

    fn of_line(line: &str) -> Option<Self> {
        let words: Vec<u64> = line.split(' ').map(|word| word.trim().parse().ok()).collect::<Option<_>>()?;
        let [executions, time, number, memory] = words[..] else { return None };
        Some(Report { executions, slowest: (time, number), memory })
    }

    fn add(&mut self, other: Report) {
        self.executions += other.executions;
        self.slowest = self.slowest.max(other.slowest);
        self.memory = self.memory.max(other.memory);
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let all = options.targets.iter().any(|name| name == "all");
    let named: Option<Vec<&Target>> = match all {
        true => Some(TARGETS.iter().collect()),
        false => options.targets.iter().map(|name| target(name)).collect(),
    };
    let Some(targets) = named else {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("there are the targets all, {}", names.join(", "));
        return ExitCode::from(2);
    };
    if let [index, notes] = options.worker.as_slice() {
        let index = index.parse().expect("a number");
        return worker(targets[0], &options, index, Path::new(notes));
    }
    if options.markdown {
        println!("| target | executions | failures | slowest input | most memory |\n|---|---|---|---|---|");
    }
    let mut failed = false;
    for target in targets {
        if let Some(folder) = &options.write_seeds {
            write_seeds(target, folder);
        } else if !options.file.is_empty() {
            for path in &options.file {
                let input = std::fs::read(path).expect("a file to read");
                failed |= !one(target, &input, &path.display().to_string());
            }
        } else if let Some(number) = options.number {
            let input = target.mutant(&(target.seeds)(), options.seed, number);
            failed |= !one(target, &input, &format!("input {number}"));
        } else {
            failed |= !many(target, &options);
        }
    }
    ExitCode::from(u8::from(failed))
}

fn write_seeds(target: &Target, folder: &Path) {
    let folder = folder.join(target.name);
    std::fs::create_dir_all(&folder).expect("a folder to write");
    for (n, seed) in (target.seeds)().iter().enumerate() {
        std::fs::write(folder.join(n.to_string()), seed).expect("a file to write");
    }
}

fn one(target: &Target, input: &[u8], name: &str) -> bool {
    match run::run(target, input, 1) {
        Ok(time) => println!("{}: {name}: {} bytes, {time:?}", target.name, input.len()),
        Err(why) => println!("{}: {name}: {} bytes: {why}", target.name, input.len()),
    }
    run::run(target, input, 1).is_ok()
}

/// Runs a target in several processes; true if nothing broke.
fn many(target: &Target, options: &Options) -> bool {
    let notes = |index: u64| std::env::temp_dir().join(format!("kmodld-fuzz-{}-{index}", std::process::id()));
    let start = |index: u64| {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args([target.name, "--seed", &options.seed.to_string(), "-j", &options.jobs.to_string()]);
        match options.count {
            Some(count) => command.args(["--count", &count.to_string()]),
            None => command.args(["--seconds", &options.seconds.to_string()]),
        };
        command.arg("--worker").arg(index.to_string()).arg(notes(index));
        command.stdout(Stdio::piped()).spawn().expect("a worker")
    };
    let workers: Vec<Child> = (0..options.jobs).map(start).collect();
    let mut report = Report::default();
    let mut broken = 0;
    for (index, worker) in (0..).zip(workers) {
        let output = worker.wait_with_output().expect("a worker ends");
        let text = String::from_utf8_lossy(&output.stdout);
        report.add(text.lines().last().and_then(Report::of_line).unwrap_or_default());
        broken += u64::from(!output.status.success());
        // One that did not end by itself has left the number of its last input.
        if output.status.code().is_none_or(|code| code > 1) {
            let number = std::fs::read(notes(index)).ok().and_then(|bytes| bytes.try_into().ok());
            let number = u64::from_le_bytes(number.unwrap_or_default());
            let input = target.mutant(&(target.seeds)(), options.seed, number);
            broke(target, &input, number, &format!("the process ended: {}", output.status));
        }
        let _ = std::fs::remove_file(notes(index));
    }
    let (micros, number) = report.slowest;
    let input = target.mutant(&(target.seeds)(), options.seed, number);
    if let Some(folder) = &options.slowest {
        std::fs::create_dir_all(folder).expect("a folder to write");
        std::fs::write(folder.join(target.name), &input).expect("a file to write");
    }
    let time = format!("{:.1} ms ({} bytes)", micros as f64 / 1000.0, input.len());
    let memory = format!("{:.1} MiB", report.memory as f64 / f64::from(1 << 20));
    if options.markdown {
        println!("| {} | {} | {broken} | {time} | {memory} |", target.name, report.executions);
    } else {
        println!(
            "{}: {} executions, {broken} failures; slowest: input {number}, {time}; most memory: {memory}",
            target.name, report.executions
        );
    }
    broken == 0
}

/// Says what broke a target, and keeps it.
fn broke(target: &Target, input: &[u8], number: u64, why: &str) {
    let kept = run::keep(target, input).map_or_else(|e| e.to_string(), |path| path.display().to_string());
    eprintln!("{}: input {number} ({} bytes): {why}\n    kept in {kept}", target.name, input.len());
}

/// One process: every `jobs`-th number, from its own index on.
fn worker(target: &'static Target, options: &Options, index: u64, notes: &Path) -> ExitCode {
    let seeds = (target.seeds)();
    let notes = File::create(notes).expect("a file to write");
    let watched = Arc::new(AtomicU64::new(0));
    watch(target, options.seed, Arc::clone(&watched));
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut report = Report::default();
    let mut code = ExitCode::SUCCESS;
    for number in (index..).step_by(usize::try_from(options.jobs.max(1)).expect("few")) {
        match options.count {
            Some(count) if number >= count => break,
            None if Instant::now() >= end => break,
            _ => {}
        }
        // First of all: making the mutant may fail, too.
        notes.write_all_at(&number.to_le_bytes(), 0).expect("a file to write");
        let input = target.mutant(&seeds, options.seed, number);
        watched.store(number, Ordering::Relaxed);
        HEAP.reset_peak_usage();
        let before = HEAP.current_usage();
        let ran = run::run(target, &input, 1);
        let memory = HEAP.peak_usage().saturating_sub(before);
        report.executions += 1;
        report.memory = report.memory.max(memory as u64);
        let why = match ran {
            Ok(time) => {
                report.slowest = report.slowest.max((time.as_micros() as u64, number));
                let limit = run::memory_limit(input.len());
                if memory <= limit {
                    continue;
                }
                format!("{memory} bytes of memory, of {limit}")
            }
            Err(why) => why,
        };
        broke(target, &input, number, &why);
        code = ExitCode::FAILURE;
        break;
    }
    println!("{}", report.to_line());
    code
}

/// Ends the process when one input takes for ever.
fn watch(target: &'static Target, seed: u64, watched: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let mut last = u64::MAX;
        loop {
            std::thread::sleep(HANGS);
            let number = watched.load(Ordering::Relaxed);
            if number == last {
                let input = target.mutant(&(target.seeds)(), seed, number);
                broke(target, &input, number, "it does not end");
                std::process::exit(1);
            }
            last = number;
        }
    });
}
