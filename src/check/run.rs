//! One run over a set: on one or several kernels, on several threads, with results in the order of the files.
//!
//! A module is judged with those loaded that it needs. Where Module.symvers tells what these export, a first pass is
//! all there is: it reads each file once, judges it by what Module.symvers says, and notes what it exports itself.
//! Only modules for which that was not so are judged again, after those that they need: with a bare kernel image these
//! are all modules that need others.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use elf_layout::ModuleFile;
use kernel::{Kernel, LoadedModule};

use super::catalog::{Facts, described};
use super::set::Set;
use super::state::State;
use super::{Verdict, judge};
use crate::error::Error;
use crate::image::Workspace;
use crate::input::Buffers;
use crate::kernel_source::KernelSource;
use crate::load::{Args, Opened, open};
use crate::loader::Loader;
use crate::threads;

/// How often a caller is told how far the run is.
const TICK: Duration = Duration::from_millis(100);

/// A kernel to check against.
#[derive(Debug)]
pub struct Target<'a> {
    /// How results name it, if not by its release.
    pub label: Option<String>,
    /// The kernel with the modules loaded at the start.
    pub loader: Loader,
    /// How modules are loaded.
    pub args: Args<'a>,
    /// Parameters of modules by name, before those of `args`: what `modprobe.d` gives them.
    pub options: BTreeMap<Box<[u8]>, Vec<u8>>,
}

/// Gives labels to the targets of `kernels` that their releases do not tell apart: their paths.
pub fn tell_apart<'t, 'a: 't>(targets: impl Iterator<Item = &'t mut Target<'a>>, kernels: &[KernelSource]) {
    let mut targets: Vec<&mut Target<'a>> = targets.collect();
    let releases: Vec<String> = targets.iter().map(|t| t.loader.kernel.release.clone()).collect();
    for (target, kernel) in targets.iter_mut().zip(kernels) {
        let release = &target.loader.kernel.release;
        let is_several = releases.iter().filter(|r| *r == release).count() > 1 || release.is_empty();
        target.label = kernel.label().filter(|_| is_several && kernels.len() > 1);
    }
}

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Event {
    /// The next file of the part: a verdict for each kernel, or why it cannot be read.
    Checked(Result<Vec<Verdict>, Error>),
    /// How many files of how many this pass has done.
    Progress(usize, usize),
}

/// Memory of a thread that it uses for one module after the other.
#[derive(Debug, Default)]
struct Memory {
    buffers: Buffers,
    workspace: Workspace,
}

/// Checks the files of `part`, with the rest of the set at hand. Events come in the order of the files, whatever
/// `threads` is; an error from `tell` ends the run.
pub fn run(
    set: &Set,
    targets: &[Target<'_>],
    part: Range<usize>,
    threads: usize,
    tell: &mut dyn FnMut(Event) -> Result<(), Error>,
) -> Result<(), Error> {
    let state = State::new(set, targets.iter().map(|target| &target.loader.kernel), part.clone());
    let run = Run {
        set,
        targets,
        unsigned: targets.iter().map(|t| without_certificates(&t.loader.kernel)).collect(),
        part,
        threads: threads.max(1),
        state: Mutex::new(state),
        changed: Condvar::new(),
        to_tell: Condvar::new(),
    };
    if run.is_alone() {
        run.passes();
        return run.tell(tell);
    }
    thread::scope(|scope| {
        let passes = thread::Builder::new().spawn_scoped(scope, || run.passes());
        let passes = passes.map_err(|e| Error::Usage(format!("cannot start a thread: {e}")))?;
        let told = run.tell(tell);
        let mut state = run.lock();
        state.stopped = true;
        run.unlock(state);
        // Threads do not panic.
        let _ = passes.join();
        told
    })
}

/// A kernel that verifies no signature: enough to learn what a module exports and needs.
fn without_certificates(kernel: &Kernel) -> Kernel {
    Kernel::new(kernel.description.without_certificates(), kernel.state.clone())
}

/// What the threads of a run work with.
#[derive(Debug)]
struct Run<'a> {
    set: &'a Set,
    targets: &'a [Target<'a>],
    /// By target: its kernel without certificates.
    unsigned: Vec<Kernel>,
    part: Range<usize>,
    threads: usize,
    state: Mutex<State<'a>>,
    /// Something that threads wait for has changed.
    changed: Condvar,
    /// There is something to tell.
    to_tell: Condvar,
}

impl<'a> Run<'a> {
    /// Is it about one module? Then a thread beside the one that tells of it would cost more than it saves.
    fn is_alone(&self) -> bool {
        self.set.len() == 1
    }

    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'g>(&self, mut state: MutexGuard<'g, State<'a>>) -> MutexGuard<'g, State<'a>> {
        state.waiting = state.waiting.saturating_add(1);
        let mut state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.waiting = state.waiting.saturating_sub(1);
        state
    }

    /// Something that others may wait for has changed.
    fn unlock(&self, state: MutexGuard<'_, State<'a>>) {
        let (waiting, listening) =
            (state.waiting != 0, state.listening && (state.has_batch() || state.finished));
        drop(state);
        if waiting {
            self.changed.notify_all();
        }
        if listening {
            self.to_tell.notify_all();
        }
    }

    /// Hands events over until all is done.
    fn tell(&self, tell: &mut dyn FnMut(Event) -> Result<(), Error>) -> Result<(), Error> {
        loop {
            let mut state = self.lock();
            if !state.has_batch() && !state.finished {
                state.listening = true;
                let waited = self.to_tell.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner);
                state = waited.0;
                state.listening = false;
            }
            let (done, of) = state.progress;
            let ready = std::mem::take(&mut state.ready);
            let finished = state.finished;
            drop(state);
            if ready.is_empty() && finished {
                return Ok(());
            }
            let mut told = 0usize;
            for (result, weight) in ready {
                tell(Event::Checked(result))?;
                told = told.saturating_add(weight);
            }
            let mut state = self.lock();
            state.ready_bytes = state.ready_bytes.saturating_sub(told);
            self.unlock(state);
            tell(Event::Progress(done, of))?;
        }
    }

    /// All passes.
    fn passes(&self) {
        let unloaded = self.targets.iter().flat_map(|t| t.loader.kernel.modules_not_loaded());
        let exporters: HashSet<usize> = unloaded.flat_map(|m| self.set.all_named(&m.name)).copied().collect();
        // Those that others need come first: then the rest need not wait for them.
        let (mut list, others): (Vec<usize>, Vec<usize>) =
            self.part.clone().partition(|index| exporters.contains(index));
        list.extend(others);
        let mut judges_all = true;
        while !list.is_empty() {
            self.pass(&list, |index, memory| self.first(index, judges_all, memory));
            (list, judges_all) = self.lock().missing();
        }
        for target in 0..self.targets.len() {
            let list = self.lock().unsettled_providers(target);
            let at: HashMap<usize, usize> = list.iter().enumerate().map(|(at, file)| (*file, at)).collect();
            self.pass(&list, |index, memory| {
                let mut state = self.lock();
                let is_earlier = |file: &usize| at.get(file).is_some_and(|p| Some(p) < at.get(&index));
                let needs = state.before(target, index);
                while !state.stopped
                    && needs.order.iter().any(|f| is_earlier(f) && !state.is_settled(target, *f))
                {
                    state = self.wait(state);
                }
                drop(state);
                self.exact(index, &[target], false, memory);
            });
        }
        let list = self.lock().unfinished();
        self.pass(&list, |index, memory| {
            let mut state = self.lock();
            while !state.stopped && state.has_to_wait(index) {
                state = self.wait(state);
            }
            let targets = state.open_targets(index);
            drop(state);
            self.exact(index, &targets, true, memory);
        });
        let mut state = self.lock();
        state.finished = true;
        self.unlock(state);
    }

    /// Does something for every file of a list, on all threads.
    fn pass(&self, list: &[usize], work: impl Fn(usize, &mut Memory) + Sync) {
        self.lock().progress = (0, list.len());
        let next = AtomicUsize::new(0);
        let worker = || {
            let mut memory = Memory::default();
            while let Some(index) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
                work(*index, &mut memory);
                let mut state = self.lock();
                state.progress.0 = state.progress.0.saturating_add(1);
                state.advance();
                // A slow consumer holds the work up; otherwise verdicts would have to be made twice.
                let (stopped, full) = (state.stopped, state.is_full());
                self.unlock(state);
                if full && !self.is_alone() {
                    let mut state = self.lock();
                    while state.is_full() && !state.stopped {
                        state = self.wait(state);
                    }
                }
                if stopped {
                    break;
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.threads.min(list.len()) {
                // This thread alone gets through, too.
                let _ = threads::spawn(scope, worker);
            }
            worker();
        });
    }

    /// Reads a file for the first time, and judges it if all that it needs is described.
    fn first(&self, index: usize, judges_all: bool, memory: &mut Memory) {
        let path = self.set.file(index);
        let Memory { buffers, workspace } = memory;
        let (bytes, packed) = match buffers.read_packed(path) {
            Ok(read) => read,
            Err(error) => return self.lock().put_unreadable(index, error),
        };
        let judges = judges_all || self.part.contains(&index);
        for (at, (target, unsigned)) in self.targets.iter().zip(&self.unsigned).enumerate() {
            let kernel = &target.loader.kernel;
            let knows = self.set.len() == 1 || kernel.modules_not_loaded().next().is_some();
            let opened_on = |on| open(bytes, on, target.args.flags).out_of(packed.as_ref(), &kernel.config);
            let mut opened = opened_on(if knows { kernel } else { unsigned });
            let mut facts =
                opened.module.as_ref().map_or_else(Facts::default, |file| Facts::of(file, kernel));
            let before = described(self.set, index, &mut facts, kernel).filter(|_| judges);
            let judged = before.map(|before| {
                if !knows {
                    opened = opened_on(kernel);
                }
                self.judge(target, index, &opened, before, workspace)
            });
            let mut state = self.lock();
            state.insert(at, index, facts);
            if let Some(judged) = judged {
                state.put(at, index, judged, false, false);
            }
        }
    }

    /// Judges a module after the modules that it needs.
    fn exact(&self, index: usize, targets: &[usize], keep: bool, memory: &mut Memory) {
        let Memory { buffers, workspace } = memory;
        let (bytes, packed) = match buffers.read_packed(self.set.file(index)) {
            Ok(read) => read,
            Err(error) => return self.lock().put_unreadable(index, error),
        };
        for at in targets {
            let Some(target) = self.targets.get(*at) else { continue };
            let before = self.lock().loaded_before(*at, index);
            let kernel = &target.loader.kernel;
            let opened = open(bytes, kernel, target.args.flags).out_of(packed.as_ref(), &kernel.config);
            let judged = self.judge(target, index, &opened, before, workspace);
            self.lock().put(*at, index, judged, true, keep);
        }
    }

    fn judge(
        &self,
        target: &Target<'_>,
        index: usize,
        opened: &Opened<'_>,
        before: Vec<Arc<LoadedModule>>,
        workspace: &mut Workspace,
    ) -> (Verdict, bool) {
        let file = self.set.file(index).display().to_string();
        let name = opened.module.as_ref().map(ModuleFile::name).unwrap_or_default();
        let params =
            target.options.get(name).map(|own| [own, target.args.params.unwrap_or_default()].join(&b' '));
        let mut args = target.args;
        if let Some(params) = &params {
            args.params = Some(params);
        }
        let (mut verdict, proprietary) = if before.is_empty() {
            judge(&target.loader, &file, opened, &args, workspace)
        } else {
            judge(&target.loader.with_modules(before), &file, opened, &args, workspace)
        };
        if target.label.is_some() {
            verdict.kernel.clone_from(&target.label);
        }
        (verdict, proprietary)
    }
}
