//! What `kmodld check` prints.

use std::ops::Range;

use elf_layout::Errno;
use kmodld::Error;
use kmodld::check::by_kernel::ByKernel;
use kmodld::check::summary::Summary;
use kmodld::check::{Ending, Unreadable, Verdict};
use kmodld::digest::fold;
use kmodld::explain::explain;
use kmodld::sarif::{BEGIN, Sarif};
use serde::Serialize;

use crate::cli::Outcome;
use crate::cli::modules::with_words;
use crate::cli::options::{Check, JudgeArg, Shard};
use crate::cli::report::{self, Told, counted, one_line};
use crate::cli::terminal::amount;

/// Points shown of each module of a directory.
const POINTS_SHOWN: usize = 10;

/// Prints results as they come.
pub struct Printer<'a> {
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
    pub fn new(
        args: &'a Check,
        has_directory: bool,
        modules: usize,
        kernels: Vec<String>,
        shard: Option<Shard>,
    ) -> Self {
        Printer {
            args,
            outcome: Outcome::Done,
            brief: has_directory && !amount().verbose,
            several_modules: has_directory || modules > 1,
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

    pub fn begin(&self) -> Result<(), Error> {
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
    pub fn line(&self, line: &str) -> Result<(), Error> {
        if self.is_text() {
            return report::print(&format!("{}\n", one_line(line)));
        }
        report::note(line);
        Ok(())
    }

    /// Something that was named or found cannot be read.
    pub fn unreadable(&mut self, error: &Error) -> Result<(), Error> {
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
    pub fn print(&mut self, result: Result<Vec<Verdict>, Error>, kernels: Range<usize>) -> Result<(), Error> {
        let verdicts = match result {
            Ok(verdicts) => verdicts,
            Err(error) => {
                report::error(&error);
                // Whoever has the first kernel tells it.
                return if kernels.start == 0 { self.unreadable(&error) } else { Ok(()) };
            }
        };
        let verdicts = verdicts.get(kernels.clone()).unwrap_or_default();
        self.outcome = verdicts.iter().fold(self.outcome, |outcome, verdict| {
            let disputed = verdict.by_kernel.as_ref().is_some_and(|own| !own.differs.is_empty());
            outcome.and(verdict.verdict).and(if disputed { Ending::Undecided } else { Ending::Good })
        });
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

    pub fn flush(&mut self) -> Result<(), Error> {
        report::print_bytes(&std::mem::take(&mut self.documents))
    }

    /// The verdict on stdout, the reasons on stderr.
    fn show(&mut self, v: &Verdict) -> Result<(), Error> {
        if self.brief && v.is_clean() && v.by_kernel.as_ref().is_none_or(|own| own.differs.is_empty()) {
            return Ok(());
        }
        report::print(&format!("{}: {}\n", one_line(&v.file), in_words(v)))?;
        self.show_findings(v);
        if let Some(own) = &v.by_kernel {
            report::print(&report::harmless(&by_kernel(own, self.args.judge == JudgeArg::Both)))?;
        }
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

    pub fn end(mut self) -> Result<Outcome, Error> {
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

/// What the kernel's own code says: its log, and beside the rules its verdict.
fn by_kernel(own: &ByKernel, beside_rules: bool) -> String {
    let mut out = String::new();
    if beside_rules {
        let errno = own.errno.map_or(String::new(), |errno| format!(" with {}", errno.name()));
        let differs = match (own.verdict, own.differs.as_slice()) {
            (Ending::Undecided, _) => String::new(),
            (_, []) => String::from(", as the rules say or cannot say"),
            (_, differs) => format!(", and the rules say otherwise: {}", differs.join(", ")),
        };
        out.push_str(&format!("    the kernel's own code: {}{errno}{differs}\n", own.verdict.word("loads")));
    }
    if let Some(why) = &own.stopped {
        out.push_str(&format!("    {why}\n"));
    }
    own.dmesg.iter().for_each(|line| out.push_str(&format!("    kernel: {line}\n")));
    out
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
pub fn in_sum(summary: &Summary, kernel: &str, unreadable: usize) -> String {
    let Summary { modules, loads, oops, undecided, refused, unjudged, findings, .. } = summary;
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
