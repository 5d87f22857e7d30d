//! `kmodld check`

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

use elf_layout::Errno;
use kmodld::check::run::{Event, Target, run as run_set, tell_apart};
use kmodld::check::set::{Search, Set};
use kmodld::check::summary::Summary;
use kmodld::check::{Ending, Verdict};
use kmodld::load::Args;
use kmodld::modprobe::may_be_name;
use kmodld::modprobe::providers::Home;
use kmodld::sarif::{BEGIN, Sarif};
use kmodld::{Error, Loader};

use super::modules::{Meaning, Ways, judge_loaded_ones, with_words};
use super::options::Check;
use super::report::{self, Progress, one_line};
use super::{Beside, Outcome, prepared};

/// Findings shown of each module of a directory.
const FINDINGS_SHOWN: usize = 10;

pub fn run(args: &Check) -> Result<Outcome, Error> {
    let is_named = args.paths.iter().any(|path| may_be_name(path).is_some());
    let mut errors = Vec::new();
    let complain = |error| errors.push(error);
    // Files are looked for while the kernel is read, and after that by two threads; names need the kernel first.
    let (kernels, set) = if is_named {
        (kernels(args)?, None)
    } else {
        let search = Search::new(&args.paths);
        let kernels = Beside::new(|| search.work()).run(|| {
            let kernels = kernels(args);
            search.work();
            kernels
        });
        let set = search.into_set(complain);
        (if set.is_empty() { Some(Vec::new()) } else { kernels? }, Some(set))
    };
    let Some(mut kernels) = kernels else { return Ok(Outcome::Refused) };
    let mut runs = Vec::new();
    for kernel in &mut kernels {
        runs.push(prepare_run(args, kernel, set.as_ref(), &mut errors)?);
    }
    errors.iter().for_each(report::error);
    let named = runs.first().map_or(0, |run| run.named);
    if runs.iter().any(|run| run.named != named) {
        let what =
            "these kernels do not have the same modules of these names: ask for one kernel after the other";
        return Err(Error::Usage(what.into()));
    }
    let names = kernels.iter().map(|kernel| name(&kernel.target)).collect();
    let has_directory = runs.iter().any(|run| run.set.has_directory);
    let mut printer = Printer::new(args, has_directory, named, names);
    errors.iter().for_each(|error| printer.unreadable(error));
    printer.begin()?;
    if let Some(run) = runs.first() {
        run.lines.iter().try_for_each(|line| printer.line(line))?;
    }
    // What ends with the process is given back sooner in one piece.
    let (targets, homes): (Vec<Target<'_>>, Vec<_>) =
        kernels.into_iter().map(|kernel| (kernel.target, kernel.home)).unzip();
    let (targets, _homes) = (ManuallyDrop::new(targets), ManuallyDrop::new(homes));
    let threads = args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, usize::from);
    for (run, target) in runs.iter_mut().zip(targets.iter()) {
        judge_before(args, run, target, threads)?;
    }
    judge_all(args, &targets, &runs, threads, &mut printer)?;
    printer.end()
}

/// What is checked on one kernel.
#[derive(Debug, Default)]
struct Run {
    /// The modules that are asked for, and behind them those that are loaded before.
    set: Set,
    /// How many are asked for.
    named: usize,
    ways: Ways,
    /// Of what is loaded before: the files that do not load.
    before: BTreeMap<PathBuf, Verdict>,
    /// About names that mean no file.
    lines: Vec<String>,
}

/// Names become files, and what they need comes along.
fn prepare_run(
    args: &Check,
    kernel: &mut OneKernel<'_>,
    found: Option<&Set>,
    errors: &mut Vec<Error>,
) -> Result<Run, Error> {
    let OneKernel { target, home } = kernel;
    let (mut meaning, mut set) = (Meaning::default(), found.cloned());
    if found.is_none() {
        let release = name(target);
        meaning = Meaning::of(&args.paths, home.as_ref(), &release)?;
        errors.append(&mut meaning.errors);
        let search = Search::new(&meaning.paths);
        set = Some(search.into_set(|error| errors.push(error)));
    }
    let mut set = set.unwrap_or_default();
    let named = set.len();
    let mut ways = Ways::default();
    if let Some(home) = home.as_mut().filter(|_| !args.no_deps) {
        judge_loaded_ones(&mut target.loader, &args.with);
        // The whole tree has all that it needs.
        let has_all = home.modprobe.as_ref().is_some_and(|m| covers(&args.paths, &m.tables.folder));
        for index in (0..named).filter(|_| !has_all) {
            let file = set.file(index).to_owned();
            // What cannot be read is told when it is judged.
            if let Ok(way) = meaning.way(&file, home, &mut target.loader) {
                ways.add(&file, way);
            }
        }
        set.add(ways.before.iter().cloned());
        target.options =
            ways.options.iter().map(|(name, text)| (name.clone(), text.clone().into_bytes())).collect();
    }
    Ok(Run { set, named, ways, before: BTreeMap::new(), lines: meaning.lines })
}

/// Is a folder below one of these directories, or one of them?
fn covers(paths: &[PathBuf], folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else { return false };
    paths
        .iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| path.canonicalize().ok())
        .any(|path| folder.starts_with(path))
}

/// Judges on all kernels: at once where the files are the same.
fn judge_all(
    args: &Check,
    targets: &[Target<'_>],
    runs: &[Run],
    threads: usize,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let [first, others @ ..] = runs else { return Ok(()) };
    let part =
        args.shard.map_or(0..first.named, |shard| first.set.part_of(first.named, shard.part, shard.of));
    let mut progress = Progress::new();
    if others.iter().all(|run| run.set.has_same_files(&first.set)) {
        run_set(&first.set, targets, part, threads, &mut |event| match event {
            Event::Progress(done, of) => {
                printer.flush()?;
                progress.show(done, of);
                Ok(())
            }
            Event::Checked(result) => {
                progress.hide();
                printer.print(result.map(|verdicts| with_names(verdicts, runs)))
            }
        })?;
    } else {
        let mut rows: Vec<Result<Vec<Verdict>, Error>> = part.clone().map(|_| Ok(Vec::new())).collect();
        for (run, target) in runs.iter().zip(targets) {
            let mut at = rows.iter_mut();
            run_set(&run.set, std::slice::from_ref(target), part.clone(), threads, &mut |event| {
                let Event::Checked(result) = event else { return Ok(()) };
                match (at.next(), result) {
                    (Some(Ok(row)), Ok(verdicts)) => {
                        row.extend(with_names(verdicts, std::slice::from_ref(run)))
                    }
                    (Some(row), Err(error)) => *row = Err(error),
                    _ => {}
                }
                Ok(())
            })?;
        }
        rows.into_iter().try_for_each(|row| printer.print(row))?;
    }
    progress.hide();
    Ok(())
}

/// Judges what is loaded before the modules that are asked for.
fn judge_before(args: &Check, run: &mut Run, target: &Target<'_>, threads: usize) -> Result<(), Error> {
    let part = run.named..run.set.len();
    let mut before = BTreeMap::new();
    run_set(&run.set, std::slice::from_ref(target), part, threads, &mut |event| {
        match event {
            Event::Checked(Ok(verdicts)) => {
                for verdict in verdicts.into_iter().filter(|verdict| !verdict.loads()) {
                    if !(args.json || args.jsonl || args.sarif) {
                        report::findings(&verdict.file, &verdict.findings);
                    }
                    before.insert(PathBuf::from(&verdict.file), verdict);
                }
            }
            // What it exports is missing then, which is a finding of who needs it.
            Event::Checked(Err(error)) => report::error(&error),
            Event::Progress(..) => {}
        }
        Ok(())
    })?;
    run.before = before;
    Ok(())
}

/// With what is loaded before each, on the kernel of each run.
fn with_names(mut verdicts: Vec<Verdict>, runs: &[Run]) -> Vec<Verdict> {
    for (verdict, run) in verdicts.iter_mut().zip(runs) {
        verdict.with = run.ways.with(&verdict.file);
        let needed = run.ways.steps(Path::new(&verdict.file)).iter().filter(|step| step.required);
        for step in needed {
            if let Some(other) = step.file.as_ref().and_then(|file| run.before.get(file)) {
                verdict.is_loaded_after(&step.name, other);
            }
        }
    }
    verdicts
}

/// A kernel to check against, and where its modules are.
#[derive(Debug)]
struct OneKernel<'a> {
    target: Target<'a>,
    home: Option<Home>,
}

/// The kernels that the options describe. `None`, all said, if one refuses a module of `--with`.
fn kernels(args: &Check) -> Result<Option<Vec<OneKernel<'_>>>, Error> {
    let mut all = Vec::new();
    let (sources, facts) = (args.kernels.sources()?, args.live.facts(args.kernels.secure_boot));
    for source in &sources {
        let Some(loader) = prepared(source, &facts, &args.with, || None)? else { return Ok(None) };
        tell_without_versions(&loader);
        let home = Home::new(source, &loader.kernel)?;
        let how = Args::verdict(args.live.flags(), args.params.as_bytes());
        let target = Target { label: None, loader, args: how, options: BTreeMap::new() };
        all.push(OneKernel { target, home: Some(home) });
    }
    tell_apart(all.iter_mut().map(|kernel| &mut kernel.target), &sources);
    Ok(Some(all))
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
    fn new(args: &'a Check, has_directory: bool, modules: usize, kernels: Vec<String>) -> Self {
        Printer {
            args,
            outcome: Outcome::Done,
            brief: has_directory && !args.verbose,
            several_modules: has_directory || modules > 1,
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

    /// A line about what is no module to judge.
    fn line(&self, line: &str) -> Result<(), Error> {
        if self.is_text() {
            return report::print(&format!("{}\n", one_line(line)));
        }
        report::note(line);
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
    format!("{verdict}{errno}{taints}{}{packed}", with_words(&v.with))
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
