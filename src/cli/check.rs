//! `kmodld check`

use std::mem::ManuallyDrop;

use elf_layout::Errno;
use kmodld::check::run::{Event, Target, run as run_set, tell_apart};
use kmodld::check::set::{Search, Set};
use kmodld::check::summary::Summary;
use kmodld::check::{Ending, Verdict};
use kmodld::load::Args;
use kmodld::sarif::{BEGIN, Sarif};
use kmodld::{Error, Loader};

use super::options::Check;
use super::report::{self, Progress, one_line};
use super::{Beside, Outcome, prepared};

/// Findings shown of each module of a directory.
const FINDINGS_SHOWN: usize = 10;

pub fn run(args: &Check) -> Result<Outcome, Error> {
    // The files are looked for while the kernel is read, and after that by two threads.
    let search = Search::new(&args.paths);
    let targets = Beside::new(|| search.work()).run(|| {
        let targets = targets(args);
        search.work();
        targets
    });
    let mut errors = Vec::new();
    let set = search.into_set(|error| errors.push(error));
    errors.iter().for_each(report::error);
    let targets = if set.is_empty() { Some(Vec::new()) } else { targets? };
    let Some(targets) = targets else { return Ok(Outcome::Refused) };
    // What ends with the process is given back sooner in one piece.
    let targets = ManuallyDrop::new(targets);
    let part = args.shard.map_or(0..set.len(), |shard| set.part(shard.part, shard.of));
    let threads = args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, usize::from);
    let names = targets.iter().map(name).collect();
    let mut printer = Printer::new(args, &set, names);
    errors.iter().for_each(|error| printer.unreadable(error));
    printer.begin()?;
    let mut progress = Progress::new();
    run_set(&set, &targets, part, threads, &mut |event| match event {
        Event::Progress(done, of) => {
            printer.flush()?;
            progress.show(done, of);
            Ok(())
        }
        Event::Checked(result) => {
            progress.hide();
            printer.print(result)
        }
    })?;
    progress.hide();
    printer.end()
}

/// The kernels that the options describe. `None`, all said, if one refuses a module of `--with`.
fn targets(args: &Check) -> Result<Option<Vec<Target<'_>>>, Error> {
    let mut targets = Vec::new();
    let (kernels, facts) =
        (args.kernels.sources()?, args.live.facts(args.kernels.secure_boot));
    for kernel in &kernels {
        let Some(loader) = prepared(kernel, &facts, &args.with, || None)? else { return Ok(None) };
        tell_without_versions(&loader);
        let how = Args::verdict(args.live.flags(), args.params.as_bytes());
        targets.push(Target { label: None, loader, args: how });
    }
    tell_apart(&mut targets, &kernels);
    Ok(Some(targets))
}

/// Without CRCs a verdict is worth less: that is said once.
fn tell_without_versions(loader: &Loader) {
    let kernel = &loader.kernel;
    if !kernel.config.modversions {
        let release = if kernel.release.is_empty() { "this kernel" } else { &kernel.release };
        report::note(&format!(
            "{release} is built without CONFIG_MODVERSIONS: it compares no CRCs, and takes only modules whose vermagic \
             names its very release"
        ));
    }
}

/// How output names a kernel.
fn name(target: &Target<'_>) -> String {
    let release = &target.loader.kernel.release;
    let release = if release.is_empty() { "kernel of unknown release" } else { release };
    target.label.clone().unwrap_or_else(|| release.to_owned())
}

/// Prints results as they come.
struct Printer<'a> {
    args: &'a Check,
    outcome: Outcome,
    /// Is it text that leaves out what is of no interest?
    brief: bool,
    several_modules: bool,
    /// Printed anything of a JSON array yet?
    begun: bool,
    sarif: Sarif,
    kernels: Vec<String>,
    /// Documents that are not printed yet.
    documents: Vec<u8>,
    summaries: Vec<Summary>,
    unreadable: usize,
}

impl<'a> Printer<'a> {
    fn new(args: &'a Check, set: &Set, kernels: Vec<String>) -> Self {
        Printer {
            args,
            outcome: Outcome::Done,
            brief: set.has_directory && !args.verbose,
            several_modules: set.has_directory || set.len() > 1,
            begun: false,
            sarif: Sarif::default(),
            documents: Vec::new(),
            summaries: kernels.iter().map(|_| Summary::default()).collect(),
            kernels,
            unreadable: 0,
        }
    }

    fn is_text(&self) -> bool {
        !(self.args.json || self.args.jsonl || self.args.sarif)
    }

    fn begin(&self) -> Result<(), Error> {
        if self.args.sarif {
            return report::print(BEGIN);
        }
        if self.args.json {
            return report::print("[");
        }
        if self.is_text() && self.kernels.len() > 1 {
            let numbered =
                (1..).zip(&self.kernels).map(|(n, kernel)| format!("kernel {n}: {}\n", one_line(kernel)));
            let numbers: String = (1..).zip(&self.kernels).map(|(n, _)| format!("{n:<13}")).collect();
            return report::print(&format!("{}{numbers}module\n", numbered.collect::<String>()));
        }
        Ok(())
    }

    /// Something that was named or found cannot be read.
    fn unreadable(&mut self, error: &Error) {
        self.sarif.unreadable(&error.to_string());
        self.unreadable = self.unreadable.saturating_add(1);
        self.outcome = Outcome::Input;
    }

    fn print(&mut self, result: Result<Vec<Verdict>, Error>) -> Result<(), Error> {
        let verdicts = match result {
            Ok(verdicts) => verdicts,
            Err(error) => {
                report::error(&error);
                self.unreadable(&error);
                return Ok(());
            }
        };
        self.outcome = match self.outcome {
            Outcome::Done | Outcome::Undecided if verdicts.iter().any(Verdict::is_refused) => {
                Outcome::Refused
            }
            Outcome::Done if verdicts.iter().any(|v| !v.loads()) => Outcome::Undecided,
            outcome => outcome,
        };
        if self.is_text() {
            self.summaries.iter_mut().zip(&verdicts).for_each(|(summary, verdict)| summary.add(verdict));
            return match verdicts.as_slice() {
                [verdict] => self.show(verdict),
                several => self.show_row(several),
            };
        }
        for verdict in &verdicts {
            if self.args.jsonl {
                self.documents.extend_from_slice(report::json_text(verdict)?.as_bytes());
                self.documents.push(b'\n');
            } else if self.args.json {
                self.element(&report::json_text(verdict)?);
            } else {
                for result in self.sarif.results(verdict) {
                    self.element(&report::json_text(&result)?);
                }
            }
        }
        Ok(())
    }

    /// The next element of an array.
    fn element(&mut self, text: &str) {
        if std::mem::replace(&mut self.begun, true) {
            self.documents.push(b',');
        }
        self.documents.extend_from_slice(text.as_bytes());
    }

    fn flush(&mut self) -> Result<(), Error> {
        report::print_bytes(&std::mem::take(&mut self.documents))
    }

    /// The verdict on stdout, the reasons on stderr.
    fn show(&self, v: &Verdict) -> Result<(), Error> {
        if self.brief && v.is_clean() {
            return Ok(());
        }
        self.show_findings(v);
        report::print(&format!("{}: {}\n", one_line(&v.file), in_words(v)))
    }

    fn show_findings(&self, v: &Verdict) {
        let shown = if self.brief { FINDINGS_SHOWN } else { usize::MAX };
        let (shown, rest) = v.findings.split_at(shown.min(v.findings.len()));
        report::findings(&v.file, shown);
        if !self.brief {
            report::unjudged(&v.file, &v.unjudged);
        }
        let more = v.suppressed.saturating_add(rest.len() as u64);
        if more != 0 {
            let how = if rest.is_empty() { "" } else { " (-v shows them)" };
            report::warn(&format!("{}: {more} more findings are not shown{how}", v.file));
        }
    }

    /// One module on several kernels: of directories only if they do not agree.
    fn show_row(&self, verdicts: &[Verdict]) -> Result<(), Error> {
        let same = |a: &Verdict, b: &Verdict| (a.verdict, a.errno) == (b.verdict, b.errno);
        let agree = verdicts.first().is_none_or(|first| verdicts.iter().all(|v| same(v, first)));
        if self.brief && agree {
            return Ok(());
        }
        if self.args.verbose {
            verdicts.iter().for_each(|v| self.show_findings(v));
        }
        let cell = |v: &Verdict| format!("{:<13}", v.errno.map_or(v.word(), Errno::name));
        let cells: String = verdicts.iter().map(cell).collect();
        report::print(&format!("{cells}{}\n", one_line(verdicts.first().map_or("", |v| &v.file))))
    }

    fn end(mut self) -> Result<Outcome, Error> {
        self.flush()?;
        if self.args.sarif {
            report::print_bytes(self.sarif.end().as_bytes())?;
        } else if self.args.json {
            report::print("]\n")?;
        } else if self.is_text() && self.several_modules {
            for (kernel, summary) in self.kernels.iter().zip(&self.summaries) {
                report::print(&in_sum(summary, &one_line(kernel), self.unreadable))?;
            }
        }
        Ok(self.outcome)
    }
}

/// `refused with ENOENT, taints OE`
fn in_words(v: &Verdict) -> String {
    let errno = v.errno.map_or(String::new(), |e| format!(" with {}", e.name()));
    let taints = if v.taints.is_empty() { String::new() } else { format!(", taints {}", v.taints) };
    let verdict = match v.verdict {
        Ending::Oops => "the kernel would crash",
        // What init itself returns is nothing that the kernel decides (LIFE-12).
        Ending::Good => "loads; init not run",
        Ending::Refused | Ending::Undecided => v.word(),
    };
    // The finding says more: kmod 31 and later may get another answer.
    let packed = v.findings.iter().find(|f| v.loads() && f.code.starts_with("DEC-"));
    let packed = packed.map_or(String::new(), |f| format!("; with kmod 31 and later see {}", f.code));
    format!("{verdict}{errno}{taints}{packed}")
}

/// A line with the verdicts, then one for each errno and each code.
fn in_sum(summary: &Summary, kernel: &str, unreadable: usize) -> String {
    let Summary { modules, loads, oops, undecided, refused, unjudged, findings } = summary;
    let plural = if *modules == 1 { "module" } else { "modules" };
    let mut out = format!(
        "{modules} {plural} on {kernel}: {loads} loads, {} refused, {oops} would crash, {undecided} undecided, {unreadable} unreadable\n",
        summary.all_refused()
    );
    for (errno, modules) in refused.values() {
        out.push_str(&format!("  refused with {:<14}{modules:>6} modules\n", errno.name()));
    }
    for ((code, needs), modules) in unjudged {
        out.push_str(&format!("  not judged: {code:<15}{modules:>6} modules: needs {needs}\n"));
    }
    for ((_, code), count) in findings {
        let what = format!("{}[{code}]", count.severity.word());
        out.push_str(&format!("  {what:<27}{:>6} modules, {} times\n", count.modules, count.times));
    }
    out
}
