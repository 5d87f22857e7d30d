//! `kmodld check`

use std::ffi::OsStr;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use elf_layout::Errno;
use kmodld::check::run::{Event, Target, run as run_set, tell_apart};
use kmodld::check::set::{Search, Set, module_name, share};
use kmodld::check::summary::Summary;
use kmodld::check::{Ending, Unreadable, Verdict};
use kmodld::digest::fold;
use kmodld::explain::explain;
use kmodld::input::read;
use kmodld::load::Args;
use kmodld::sarif::{BEGIN, Sarif};
use kmodld::setup::parameters;
use kmodld::{Error, Loader};
use serde::Serialize;

use super::options::{Check, Shard};
use super::report::{self, Progress, Told, counted, one_line};
use super::terminal::amount;
use super::{Beside, Outcome, prepared};

/// Points shown of each module of a directory.
const POINTS_SHOWN: usize = 10;

pub fn run(args: &Check) -> Result<Outcome, Error> {
    let (paths, params) = words(args)?;
    let shard = args.part().map_err(Error::Usage)?;
    // The files are looked for while the kernel is read, and after that by two threads.
    let search = Search::new(&paths);
    let targets = Beside::new(|| search.work()).run(|| {
        let targets = targets(args, &params);
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
    let part = Part::of(shard, set.len(), targets.len());
    let threads = match args.jobs {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    };
    let names = targets.iter().map(name).collect();
    let mut printer = Printer::new(args, &set, names, shard);
    // Of several parts, the first one tells what is in none.
    if part.is_first {
        errors.iter().try_for_each(|error| printer.unreadable(error))?;
    }
    printer.begin()?;
    let mut progress = Progress::new();
    let mut file = part.files.start;
    run_set(&set, &targets, part.files.clone(), threads, &mut |event| match event {
        Event::Progress(done, of) => {
            printer.flush()?;
            progress.show(done, of);
            Ok(())
        }
        Event::Checked(result) => {
            progress.hide();
            let kernels = part.kernels(file);
            file = file.saturating_add(1);
            printer.print(result, kernels)
        }
    })?;
    progress.hide();
    printer.end()
}

/// Paths and parameters among the words of the command line, and the paths of `--files-from`.
fn words(args: &Check) -> Result<(Vec<PathBuf>, String), Error> {
    let is_param = |path: &&PathBuf| {
        let text = path.as_os_str().as_encoded_bytes();
        text.contains(&b'=') && !module_name(text) && std::fs::symlink_metadata(path).is_err()
    };
    let (given, mut paths): (Vec<&PathBuf>, Vec<&PathBuf>) = args.paths.iter().partition(is_param);
    let mut listed = Vec::new();
    if let Some(list) = &args.files_from {
        listed = names_in(&read(list)?);
    }
    paths.extend(&listed);
    if paths.is_empty() && args.files_from.is_none() {
        return Err(Error::Usage(String::from("no module: all words are parameters")));
    }
    let given: Vec<String> = given.iter().map(|param| param.display().to_string()).collect();
    Ok((paths.into_iter().cloned().collect(), parameters(&args.params, &given)))
}

/// The names that a list of files holds: ended by NUL, as `find -print0` writes them, or one a line.
fn names_in(list: &[u8]) -> Vec<PathBuf> {
    let end = if list.contains(&0) { 0 } else { b'\n' };
    let names = list.split(|byte| *byte == end).filter(|name| !name.is_empty());
    names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect()
}

/// The part of all modules on all kernels that is to be checked, in the order of the output.
#[derive(Debug)]
struct Part {
    /// Module by module, the kernels of each.
    pairs: Range<usize>,
    targets: usize,
    files: Range<usize>,
    is_first: bool,
}

impl Part {
    fn of(shard: Option<Shard>, files: usize, targets: usize) -> Self {
        let all = files.saturating_mul(targets);
        let pairs = shard.map_or(0..all, |shard| share(all, shard.part, shard.of));
        let targets = targets.max(1);
        let first = pairs.start.checked_div(targets).unwrap_or(0);
        let files = if pairs.is_empty() { first..first } else { first..pairs.end.div_ceil(targets) };
        Part { pairs, targets, files, is_first: shard.is_none_or(|shard| shard.part == 1) }
    }

    /// The kernels for which a file is of this part.
    fn kernels(&self, file: usize) -> Range<usize> {
        let start = file.saturating_mul(self.targets);
        let end = start.saturating_add(self.targets);
        let within = |pair: usize| pair.clamp(start, end).saturating_sub(start);
        within(self.pairs.start)..within(self.pairs.end)
    }
}

/// The kernels that the options describe. `None`, all said, if one refuses a module of `--with`.
fn targets<'a>(args: &'a Check, params: &'a str) -> Result<Option<Vec<Target<'a>>>, Error> {
    let mut targets = Vec::new();
    let (kernels, facts) =
        (args.kernels.sources().map_err(Error::Usage)?, args.live.facts(args.kernels.secure_boot));
    for kernel in &kernels {
        let Some(loader) = prepared(kernel, &facts, &args.with, || None)? else { return Ok(None) };
        tell_without_versions(&loader);
        let how = Args::verdict(args.live.flags(), params.as_bytes());
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
    told: Told,
}

impl<'a> Printer<'a> {
    fn new(args: &'a Check, set: &Set, kernels: Vec<String>, shard: Option<Shard>) -> Self {
        Printer {
            args,
            outcome: Outcome::Done,
            brief: set.has_directory && !amount().verbose,
            several_modules: set.has_directory || set.len() > 1,
            begun: false,
            sarif: Sarif::new(shard.map(|shard| (shard.part, shard.of))),
            documents: Vec::new(),
            summaries: kernels.iter().map(|_| Summary::default()).collect(),
            kernels,
            unreadable: 0,
            told: Told::default(),
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
    fn unreadable(&mut self, error: &Error) -> Result<(), Error> {
        self.sarif.unreadable(&error.to_string());
        self.unreadable = self.unreadable.saturating_add(1);
        self.outcome = Outcome::Input;
        self.document(&Unreadable::of(error))
    }

    /// A document on a line or as an element; text and SARIF have other forms.
    fn document(&mut self, document: &impl Serialize) -> Result<(), Error> {
        if self.args.jsonl {
            self.documents.extend_from_slice(report::json_text(document)?.as_bytes());
            self.documents.push(b'\n');
        } else if self.args.json {
            self.element(&report::json_text(document)?);
        }
        Ok(())
    }

    /// The verdicts on a file, of which those on `kernels` belong to this part.
    fn print(&mut self, result: Result<Vec<Verdict>, Error>, kernels: Range<usize>) -> Result<(), Error> {
        let verdicts = match result {
            Ok(verdicts) => verdicts,
            Err(error) => {
                report::error(&error);
                // Whoever has the first kernel tells it.
                return if kernels.start == 0 { self.unreadable(&error) } else { Ok(()) };
            }
        };
        let verdicts = verdicts.get(kernels.clone()).unwrap_or_default();
        self.outcome = verdicts.iter().fold(self.outcome, |outcome, verdict| outcome.and(verdict.verdict));
        if self.is_text() {
            let summaries = self.summaries.iter_mut().skip(kernels.start);
            summaries.zip(verdicts).for_each(|(summary, verdict)| summary.add(verdict));
            return match verdicts {
                [verdict] if self.kernels.len() == 1 => self.show(verdict),
                several => self.show_row(several, kernels.start),
            };
        }
        for verdict in verdicts {
            if self.args.sarif {
                for result in self.sarif.results(verdict) {
                    self.element(&report::json_text(&result)?);
                }
            } else {
                self.document(verdict)?;
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
    fn show(&mut self, v: &Verdict) -> Result<(), Error> {
        if self.brief && v.is_clean() {
            return Ok(());
        }
        report::print(&format!("{}: {}\n", one_line(&v.file), in_words(v)))?;
        self.show_findings(v);
        Ok(())
    }

    fn show_findings(&mut self, v: &Verdict) {
        let most = if self.brief { POINTS_SHOWN } else { usize::MAX };
        // What is not known comes first where the verdict hangs on it, and does not matter where it does not.
        if v.verdict == Ending::Undecided && !self.brief || amount().verbose {
            report::unjudged(&v.unjudged);
        }
        let name = report::short_name(v.module.as_deref(), &v.file);
        self.told.findings(name, v.cause.as_ref(), &v.findings, most);
        if v.suppressed != 0 {
            report::warn(&format!("{name}: {} more findings are not kept", v.suppressed));
        }
    }

    /// One module on several kernels: of directories only if one of them does not load it. `first` is the number of the
    /// kernel of the first verdict.
    fn show_row(&mut self, verdicts: &[Verdict], first: usize) -> Result<(), Error> {
        let is_undecided = verdicts.iter().all(|v| v.verdict == Ending::Undecided);
        if self.brief && (is_undecided || verdicts.iter().all(Verdict::loads)) {
            return Ok(());
        }
        let cell = |v: &Verdict| format!("{:<13}", v.errno.map_or(v.word(), Errno::name));
        let none = std::iter::repeat_n(format!("{:<13}", "-"), first);
        let cells: String = none.chain(verdicts.iter().map(cell)).collect();
        let file = one_line(verdicts.first().map_or("", |v| &v.file)).into_owned();
        let mut out = format!("{cells}{file}\n");
        for (reason, kernels) in reasons(verdicts, first) {
            let numbers: Vec<String> = kernels.iter().map(ToString::to_string).collect();
            out.push_str(&format!("    {}: {}\n", numbers.join(", "), one_line(&reason)));
        }
        report::print(&out)?;
        if amount().verbose {
            for (verdict, kernel) in verdicts.iter().zip(self.kernels.iter().skip(first)) {
                report::note(&format!("on {kernel}:"));
                let name = report::short_name(verdict.module.as_deref(), &verdict.file);
                self.told.findings(name, verdict.cause.as_ref(), &verdict.findings, usize::MAX);
            }
        }
        Ok(())
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

/// The first reason of each refusal, with the numbers of the kernels that have it.
fn reasons(verdicts: &[Verdict], first: usize) -> Vec<(String, Vec<usize>)> {
    let mut reasons: Vec<(String, Vec<usize>)> = Vec::new();
    for (at, verdict) in verdicts.iter().enumerate().filter(|(_, verdict)| verdict.is_refused()) {
        let digest = fold(&verdict.findings, verdict.cause.is_some());
        let of_point = || digest.points.first().map(|point| format!("[{}] {}", point.code, point.text));
        // Which kernels these are stands above.
        let of_cause = verdict.cause.as_ref().map(|cause| match &cause.built_for {
            Some(release) => format!("it was built for {release}"),
            None => cause.text.clone(),
        });
        let Some(reason) = of_cause.or_else(of_point) else {
            continue;
        };
        let number = first.saturating_add(at).saturating_add(1);
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, kernels)) => kernels.push(number),
            None => reasons.push((reason, vec![number])),
        }
    }
    reasons
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
pub fn in_sum(summary: &Summary, kernel: &str, unreadable: usize) -> String {
    let Summary { modules, loads, oops, undecided, refused, unjudged, findings } = summary;
    let of_modules = |count: usize| counted(count, "module", "modules");
    let mut out = format!(
        "{} on {kernel}: {loads} {}, {} refused",
        of_modules(*modules),
        if *loads == 1 { "loads" } else { "load" },
        summary.all_refused()
    );
    // What is rare is told where there is any.
    for (count, what) in [(*oops, "would crash"), (*undecided, "undecided"), (unreadable, "unreadable")] {
        if count != 0 {
            out.push_str(&format!(", {count} {what}"));
        }
    }
    out.push('\n');
    for (errno, modules) in refused.values() {
        out.push_str(&format!("  refused with {:<14}{}\n", errno.name(), right(*modules)));
    }
    for ((code, needs), modules) in unjudged {
        out.push_str(&format!("  not judged: {code:<15}{}: needs {needs}\n", right(*modules)));
    }
    for ((_, code), count) in findings {
        let what = format!("{}[{code}]", count.severity.word());
        let title = explain(code).map_or("", |e| e.title);
        let times = if count.times == count.modules as u64 {
            String::new()
        } else {
            format!(", {} times", count.times)
        };
        out.push_str(&format!("  {what:<27}{}{times}: {title}\n", right(count.modules)));
    }
    out
}

/// Modules in a column of numbers.
fn right(modules: usize) -> String {
    format!("{modules:>6} {}", if modules == 1 { "module" } else { "modules" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_modules_on_kernels_are_the_whole() {
        for (files, targets) in [(0, 0), (0, 2), (1, 3), (5, 1), (7, 3)] {
            for of in 1..30 {
                let mut seen = Vec::new();
                for part in 1..=of {
                    let part = Part::of(Some(Shard { part, of }), files, targets);
                    for file in part.files.clone() {
                        let kernels = part.kernels(file);
                        assert!(!kernels.is_empty(), "nothing is read in vain");
                        seen.extend(kernels.map(|kernel| (file, kernel)));
                    }
                }
                let all = (0..files).flat_map(|file| (0..targets).map(move |kernel| (file, kernel)));
                assert_eq!(seen, all.collect::<Vec<_>>(), "{files} files, {targets} kernels, {of} parts");
            }
        }
    }

    #[test]
    fn names_of_a_list() {
        let names = |list: &[u8]| names_in(list).iter().map(|p| p.display().to_string()).collect::<Vec<_>>();
        assert_eq!(names(b"a.ko\n\nb c.ko\n"), ["a.ko", "b c.ko"]);
        assert_eq!(names(b"a\nb.ko\0c.ko\0"), ["a\nb.ko", "c.ko"]);
        assert_eq!(names(b""), [""; 0]);
    }
}
