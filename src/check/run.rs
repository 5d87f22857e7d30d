//! One run over a set: on one or several kernels, on several threads, with results in the order of the files.
//!
//! A module is judged with those loaded that it needs. Where Module.symvers tells what these export, a first pass is
//! all there is: it reads each file once, judges it by what Module.symvers says, and notes what it exports itself.
//! Only modules for which that was not so are judged again, after those that they need: with a bare kernel image these
//! are all modules that need others.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use elf_layout::bytes::printed;
use elf_layout::{Finding, Severity};
use symres::{Kernel, LoadedModule};

use super::catalog::{Before, Catalog, Facts, Missing, described};
use super::set::Set;
use super::{Verdict, judge};
use crate::document::FindingEntry;
use crate::error::Error;
use crate::input::Buffers;
use crate::load::{Args, open};
use crate::loader::{Loader, Workspace};
use crate::threads;

/// Results that wait for their turn take about this many bytes at most; what does not fit is judged again later.
const HELD_MAX: usize = 48 << 20;
/// So many results are handed over at a time, to wake the thread that takes them less often.
const BATCH: usize = 32;
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
}

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Event {
    /// The next file of the part: a verdict for each kernel, or why it cannot be read.
    Checked(Result<Vec<Verdict>, Error>),
    /// How many files of how many this pass has done.
    Progress(usize, usize),
}

/// What others have to know of a module that was judged.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    refused: bool,
    proprietary: bool,
}

/// One module on one kernel.
#[derive(Debug, Default)]
struct Cell {
    verdict: Option<Verdict>,
    outcome: Option<Outcome>,
    /// The modules loaded before it were those of the files, not those of Module.symvers.
    exact: bool,
    /// The outcome stays.
    settled: bool,
}

/// What is known of the set on one kernel.
#[derive(Debug)]
struct View<'s> {
    kernel: &'s Kernel,
    catalog: Catalog<'s>,
    cells: Vec<Cell>,
    /// Bytes of the verdicts in them.
    held: usize,
}

impl View<'_> {
    fn cell(&self, index: usize) -> Option<&Cell> {
        self.cells.get(index)
    }

    /// Takes the verdict on a module out.
    fn take(&mut self, index: usize) -> Option<Verdict> {
        let verdict = self.cells.get_mut(index)?.verdict.take()?;
        self.held = self.held.saturating_sub(verdict.weight());
        Some(verdict)
    }

    /// A module was judged; the verdict is kept if it is given.
    fn put(&mut self, index: usize, verdict: Option<Verdict>, outcome: Outcome, exact: bool) {
        self.take(index);
        self.held = self.held.saturating_add(verdict.as_ref().map_or(0, Verdict::weight));
        let Some(cell) = self.cells.get_mut(index) else { return };
        cell.verdict = verdict;
        if !cell.settled {
            (cell.outcome, cell.exact) = (Some(outcome), exact);
        }
    }

    /// Does the verdict on this module stay? What Module.symvers promised and files did not keep is dropped.
    fn settle(&mut self, index: usize) -> bool {
        if self.cell(index).is_some_and(|c| c.settled) {
            return true;
        }
        let Ok(before) = self.catalog.before(index, self.kernel) else { return false };
        before.order.iter().copied().chain([index]).all(|file| self.settle_one(file))
    }

    /// The same of a module whose providers are settled.
    fn settle_one(&mut self, index: usize) -> bool {
        let Some(cell) = self.cells.get_mut(index) else { return false };
        if cell.settled {
            return true;
        }
        let Some(outcome) = cell.outcome else { return false };
        if !cell.exact {
            match self.catalog.is_as_described(index, self.kernel) {
                None => return false,
                Some(true) => {}
                Some(false) => {
                    cell.outcome = None;
                    self.take(index);
                    return false;
                }
            }
        }
        cell.settled = true;
        if outcome.proprietary {
            self.catalog.set_proprietary(index);
        }
        true
    }

    /// What is to be said about the modules that are loaded before this one (SET-3, SET-5).
    fn notes(&mut self, index: usize) -> Vec<Finding> {
        let Ok(before) = self.catalog.before(index, self.kernel) else { return Vec::new() };
        let Before { order, circle } = &*before;
        let names = |files: &mut dyn Iterator<Item = usize>| {
            let name =
                |file| self.catalog.facts(file).map(|f| printed(&f.name).into_owned()).unwrap_or_default();
            files.map(name).collect::<Vec<_>>().join(", ")
        };
        let refused = |file: &usize| self.cell(*file).and_then(|c| c.outcome).is_some_and(|o| o.refused);
        let refused = names(&mut order.iter().copied().filter(refused));
        let circle = names(&mut circle.iter().copied());
        let mut notes = Vec::new();
        if !circle.is_empty() {
            let why = format!("it needs {circle}, which in turn need it: modprobe can load none of them");
            notes.push(Finding::note("SET-3", Severity::Note, why));
        }
        if !refused.is_empty() {
            let why = format!("it needs modules that this kernel refuses: {refused}");
            let hint = "the verdict is as if they were loaded; mend them first";
            notes.push(Finding::note("SET-5", Severity::Note, why).hint(hint));
        }
        notes
    }
}

/// Memory of a thread that it uses for one module after the other.
#[derive(Debug, Default)]
struct Memory {
    buffers: Buffers,
    workspace: Workspace,
}

/// What all threads share.
#[derive(Debug)]
struct State<'s> {
    views: Vec<View<'s>>,
    unreadable: Vec<Option<Error>>,
    part: Range<usize>,
    /// The next file to tell about.
    head: usize,
    ready: VecDeque<(Result<Vec<Verdict>, Error>, usize)>,
    ready_bytes: usize,
    /// Files that this pass has done, and has in all.
    progress: (usize, usize),
    finished: bool,
    /// Nobody listens any more.
    stopped: bool,
    /// How many threads wait for something to change, and is the one that tells waiting? Waking nobody costs a system call.
    waiting: usize,
    listening: bool,
}

impl State<'_> {
    /// Is there enough to hand over?
    fn has_batch(&self) -> bool {
        self.ready.len() >= BATCH || self.ready_bytes > HELD_MAX / 8
    }

    /// Bytes of all verdicts that were not handed over yet.
    fn held(&self) -> usize {
        self.views.iter().map(|v| v.held).fold(self.ready_bytes, usize::saturating_add)
    }

    /// Is there room for the verdict on a module until its turn comes, and will it come?
    fn has_room(&self, index: usize, verdict: &Verdict) -> bool {
        let is_wanted = self.part.contains(&index) && index >= self.head;
        is_wanted && (index == self.head || self.held().saturating_add(verdict.weight()) <= HELD_MAX)
    }

    /// A file cannot be read: it exports nothing.
    fn put_unreadable(&mut self, index: usize, error: Error) {
        for view in &mut self.views {
            view.catalog.insert(index, Facts::default());
            if let Some(cell) = view.cells.get_mut(index) {
                *cell = Cell { outcome: Some(Outcome::default()), exact: true, settled: true, verdict: None };
            }
        }
        if let Some(slot) = self.unreadable.get_mut(index) {
            *slot = Some(error);
        }
    }

    /// Hands over everything whose turn has come.
    fn advance(&mut self) {
        while self.part.contains(&self.head) {
            let index = self.head;
            if let Some(error) = self.unreadable.get_mut(index).and_then(Option::take) {
                self.ready.push_back((Err(error), 0));
                self.head = index.saturating_add(1);
                continue;
            }
            let has_verdict = |v: &View<'_>| v.cell(index).is_some_and(|c| c.verdict.is_some());
            let is_final = self.views.iter_mut().all(|view| view.settle(index) && has_verdict(view));
            if !is_final {
                break;
            }
            let mut verdicts = Vec::new();
            for view in &mut self.views {
                let notes = view.notes(index);
                let Some(mut verdict) = view.take(index) else { continue };
                verdict.findings.extend(notes.iter().map(FindingEntry::from));
                verdicts.push(verdict);
            }
            let weight = verdicts.iter().map(Verdict::weight).fold(0, usize::saturating_add);
            self.ready_bytes = self.ready_bytes.saturating_add(weight);
            self.ready.push_back((Ok(verdicts), weight));
            self.head = index.saturating_add(1);
        }
    }
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
    let views = targets.iter().map(|target| {
        let mut cells = Vec::new();
        cells.resize_with(set.len(), Cell::default);
        View { kernel: &target.loader.kernel, catalog: Catalog::new(set), cells, held: 0 }
    });
    let mut unreadable = Vec::new();
    unreadable.resize_with(set.len(), || None);
    let state = State {
        views: views.collect(),
        unreadable,
        head: part.start,
        part: part.clone(),
        ready: VecDeque::new(),
        ready_bytes: 0,
        progress: (0, part.len()),
        finished: false,
        stopped: false,
        waiting: 0,
        listening: false,
    };
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
    let mut kernel = kernel.clone();
    kernel.certificates = Vec::new();
    kernel
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
        let names = |t: &'a Target<'a>| t.loader.kernel.modules_not_loaded().map(|m| &*m.name);
        let exporters: HashSet<&[u8]> = self.targets.iter().flat_map(names).collect();
        let exports = |index: &usize| exporters.contains(&*super::set::name_of(self.set.file(*index)));
        // Those that others need come first: then the rest need not wait for them.
        let (mut list, others): (Vec<usize>, Vec<usize>) = self.part.clone().partition(exports);
        list.extend(others);
        let mut judges_all = true;
        while !list.is_empty() {
            self.pass(&list, |index, memory| self.first(index, judges_all, memory));
            (list, judges_all) = self.missing();
        }
        for target in 0..self.targets.len() {
            let list = self.unsettled_providers(target);
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
            while !state.stopped && state.held() > HELD_MAX && state.head != index {
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
                // Whoever does not listen fast enough holds the work up, instead of having it done twice.
                let is_full = |state: &State<'_>| !state.stopped && state.ready_bytes > HELD_MAX / 2;
                let (stopped, full) = (state.stopped, is_full(&state));
                self.unlock(state);
                if full {
                    let mut state = self.lock();
                    while is_full(&state) {
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
        let bytes = match buffers.read_decompressed(path) {
            Ok(bytes) => bytes,
            Err(error) => return self.lock().put_unreadable(index, error),
        };
        let judges = judges_all || self.part.contains(&index);
        for (at, (target, unsigned)) in self.targets.iter().zip(&self.unsigned).enumerate() {
            let kernel = &target.loader.kernel;
            let knows = self.set.len() == 1 || kernel.modules_not_loaded().next().is_some();
            let mut opened = open(bytes, if knows { kernel } else { unsigned }, target.args.flags);
            let mut facts =
                opened.module.as_ref().map_or_else(Facts::default, |file| Facts::of(file, kernel));
            let before = described(self.set, index, &mut facts, kernel).filter(|_| judges);
            let judged = before.map(|before| {
                if !knows {
                    opened = open(bytes, kernel, target.args.flags);
                }
                self.judge(target, index, &opened, before, workspace)
            });
            let mut state = self.lock();
            let Some(view) = state.views.get_mut(at) else { continue };
            view.catalog.insert(index, facts);
            if let Some(judged) = judged {
                state.put(at, index, judged, false, false);
            }
        }
    }

    /// Judges a module after the modules that it needs.
    fn exact(&self, index: usize, targets: &[usize], keep: bool, memory: &mut Memory) {
        let Memory { buffers, workspace } = memory;
        let bytes = match buffers.read_decompressed(self.set.file(index)) {
            Ok(bytes) => bytes,
            Err(error) => return self.lock().put_unreadable(index, error),
        };
        for at in targets {
            let Some(target) = self.targets.get(*at) else { continue };
            let before = self.lock().loaded_before(*at, index);
            let opened = open(bytes, &target.loader.kernel, target.args.flags);
            let judged = self.judge(target, index, &opened, before, workspace);
            self.lock().put(*at, index, judged, true, keep);
        }
    }

    fn judge(
        &self,
        target: &Target<'_>,
        index: usize,
        opened: &crate::load::Opened<'_>,
        before: Vec<Arc<LoadedModule>>,
        workspace: &mut Workspace,
    ) -> (Verdict, bool) {
        let file = self.set.file(index).display().to_string();
        let (mut verdict, proprietary) = if before.is_empty() {
            judge(&target.loader, &file, opened, &target.args, workspace)
        } else {
            judge(&target.loader.with_modules(before), &file, opened, &target.args, workspace)
        };
        if target.label.is_some() {
            verdict.kernel.clone_from(&target.label);
        }
        (verdict, proprietary)
    }

    /// Files that have to be read before it is known what the part needs, and whether to judge them at once.
    fn missing(&self) -> (Vec<usize>, bool) {
        let mut state = self.lock();
        let open: Vec<usize> = (state.head..self.part.end).collect();
        let mut files = HashSet::new();
        for view in &mut state.views {
            for index in &open {
                match view.catalog.before(*index, view.kernel) {
                    Err(Missing::All) => {
                        let unread = (0..self.set.len()).filter(|f| view.catalog.facts(*f).is_none());
                        return (unread.collect(), false);
                    }
                    Err(Missing::File(file)) => drop(files.insert(file)),
                    Ok(_) => {}
                }
            }
        }
        let mut files: Vec<usize> = files.into_iter().collect();
        files.sort_unstable();
        (files, true)
    }

    /// Modules that others need and on which there is no lasting verdict, each after those that it needs.
    fn unsettled_providers(&self, target: usize) -> Vec<usize> {
        let mut state = self.lock();
        let open = state.head..self.part.end;
        let Some(view) = state.views.get_mut(target) else { return Vec::new() };
        let (mut list, mut seen) = (Vec::new(), HashSet::new());
        for index in open {
            if view.settle(index) {
                continue;
            }
            let Ok(before) = view.catalog.before(index, view.kernel) else { continue };
            list.extend(before.order.iter().copied().filter(|f| seen.insert(*f)));
        }
        list.retain(|file| !view.settle(*file));
        list
    }
}

impl State<'_> {
    /// Keeps the verdict on a module until its turn comes: in any case, or if there is room.
    fn put(&mut self, target: usize, index: usize, judged: (Verdict, bool), exact: bool, keep: bool) {
        let (verdict, proprietary) = judged;
        let outcome = Outcome { refused: !verdict.loads(), proprietary };
        let keep = keep || self.has_room(index, &verdict);
        let Some(view) = self.views.get_mut(target) else { return };
        view.put(index, keep.then_some(verdict), outcome, exact);
        if exact {
            view.settle_one(index);
        }
    }

    fn is_settled(&self, target: usize, index: usize) -> bool {
        self.views.get(target).and_then(|v| v.cell(index)).is_some_and(|c| c.settled)
    }

    /// The files of the modules that are loaded before one.
    fn before(&mut self, target: usize, index: usize) -> Arc<Before> {
        let view = self.views.get_mut(target);
        view.and_then(|v| v.catalog.before(index, v.kernel).ok()).unwrap_or_default()
    }

    /// Those modules.
    fn loaded_before(&mut self, target: usize, index: usize) -> Vec<Arc<LoadedModule>> {
        let before = self.before(target, index);
        let Some(view) = self.views.get(target) else { return Vec::new() };
        before.order.iter().filter_map(|file| view.catalog.loaded(*file).cloned()).collect()
    }

    /// Targets on which there is no lasting verdict on a module at hand.
    fn open_targets(&self, index: usize) -> Vec<usize> {
        let is_open = |v: &View<'_>| !v.cell(index).is_some_and(|c| c.settled && c.verdict.is_some());
        self.views.iter().enumerate().filter(|(_, v)| is_open(v)).map(|(at, _)| at).collect()
    }

    /// The files of the part that are to be judged yet.
    fn unfinished(&mut self) -> Vec<usize> {
        self.advance();
        (self.head..self.part.end).filter(|f| !self.open_targets(*f).is_empty()).collect()
    }
}
