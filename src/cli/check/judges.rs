//! Kernels whose own code judges, on several threads, while the rules do.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use kmodld::check::by_kernel::ByKernel;
use kmodld::check::run::Target;
use kmodld::check::{Ending, Verdict};
use kmodld::input::read_decompressed;
use kmodld::judge::{Judge, Limits};
use kmodld::modprobe::Modprobe;
use kmodld::{Error, threads};

use super::{Run, kernels_of};
use crate::cli::options::{Check, JudgeArg};
use crate::cli::part::Part;
use crate::cli::report;

/// What is judged, and what is known of it.
pub struct Judges<'r> {
    args: &'r Check,
    targets: &'r [Target<'r>],
    runs: &'r [Run],
    part: &'r Part,
    /// The pairs of a file and a kernel, in their order.
    jobs: Vec<(usize, usize)>,
    next: AtomicUsize,
    done: Mutex<HashMap<(usize, usize), ByKernel>>,
    changed: Condvar,
    is_over: AtomicBool,
}

/// By kernel: as many machines as there are threads.
pub type Machines = Vec<Vec<Judge>>;

/// Boots the kernels, if their code is to judge.
pub fn boot(args: &Check, count: usize) -> Result<Option<Machines>, Error> {
    if args.judge == JudgeArg::Rules {
        return Ok(None);
    }
    let limits = Limits::of(&args.live.facts(args.kernels.facts.secure_boot));
    let mut all = Vec::new();
    for source in args.kernels.sources()? {
        let (judges, report) = Judge::boot(&source.image()?, &limits, count, source.cache.as_ref())?;
        for (name, stopped) in report.failed() {
            report::note(&format!("{name} of the kernel's boot is left out: {stopped}"));
        }
        all.push(judges);
    }
    Ok(Some(all))
}

impl<'r> Judges<'r> {
    pub fn new(args: &'r Check, targets: &'r [Target<'r>], runs: &'r [Run], part: &'r Part) -> Self {
        let pairs = part.files.clone().flat_map(|file| part.kernels(file).map(move |kernel| (file, kernel)));
        Judges {
            args,
            targets,
            runs,
            part,
            jobs: pairs.collect(),
            next: AtomicUsize::new(0),
            done: Mutex::new(HashMap::new()),
            changed: Condvar::new(),
            is_over: AtomicBool::new(false),
        }
    }

    /// Judges on threads of their own while something else goes on.
    pub fn beside<T>(&self, machines: Machines, meanwhile: impl FnOnce() -> T) -> T {
        let count = machines.first().map_or(0, Vec::len);
        let mut sets: Vec<Vec<Judge>> = (0..count).map(|_| Vec::new()).collect();
        for of_kernel in machines {
            sets.iter_mut().zip(of_kernel).for_each(|(set, judge)| set.push(judge));
        }
        thread::scope(|scope| {
            for mut set in sets {
                let _ = threads::spawn(scope, move || self.work(&mut set));
            }
            let result = meanwhile();
            self.is_over.store(true, Ordering::Relaxed);
            result
        })
    }

    fn work(&self, judges: &mut [Judge]) {
        while let Some(job) = self.jobs.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let (file, kernel) = *job;
            let judged = match (judges.get_mut(kernel), self.targets.get(kernel), self.runs.get(kernel)) {
                (Some(judge), Some(target), Some(run)) => self.judge(judge, target, run, run.set.file(file)),
                _ => ByKernel::undecided("there is no such kernel"),
            };
            self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(*job, judged);
            self.changed.notify_all();
        }
    }

    fn judge(&self, judge: &mut Judge, target: &Target<'_>, run: &Run, file: &Path) -> ByKernel {
        let before = self.args.before.with.files.iter().map(|file| (file.clone(), String::new()));
        let steps = run.ways.steps(file).iter();
        let steps = steps.filter_map(|step| Some((step.file.clone()?, step.options.clone())));
        let before: Vec<(PathBuf, String)> = before.chain(steps).collect();
        let own = run.ways.options.get(Modprobe::name_of(file).as_bytes());
        let parameters = [own.map_or("", String::as_str), &run.params].join(" ");
        match read_decompressed(file) {
            Ok(bytes) => {
                let opened = target.loader.open(&bytes, target.args.flags);
                judge.judge(&before, &opened, &bytes, parameters.trim(), target.args.flags)
            }
            Err(error) => ByKernel::undecided(error.to_string()),
        }
    }

    /// Adds to the verdicts on a file what the kernels' own code says.
    pub fn add_to(&self, file: usize, verdicts: &mut [Verdict]) {
        for kernel in kernels_of(self.part, file, verdicts.len()) {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            let mut judged = loop {
                match done.remove(&(file, kernel)) {
                    Some(judged) => break judged,
                    None => done = self.changed.wait(done).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(done);
            let Some(verdict) = verdicts.get_mut(kernel) else { continue };
            if self.args.judge == JudgeArg::Kernel {
                take(verdict, &judged);
            } else {
                judged.compare(verdict);
            }
            verdict.by_kernel = Some(judged);
        }
    }
}

/// The kernel's own code has the word: nothing of what the rules say is left.
fn take(verdict: &mut Verdict, judged: &ByKernel) {
    (verdict.verdict, verdict.errno) = (judged.verdict, judged.errno);
    verdict.dmesg.clone_from(&judged.dmesg);
    if judged.verdict == Ending::Undecided {
        verdict.dmesg.clear();
    }
    verdict.taints.clone_from(&judged.taints);
    (verdict.cause, verdict.suppressed) = (None, 0);
    verdict.unjudged.clear();
    verdict.findings.clear();
}
