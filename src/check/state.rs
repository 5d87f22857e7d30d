//! What the threads of a run know of the set so far: verdicts that wait for their turn, and which of them stay.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use elf_layout::bytes::printed;
use elf_layout::{Finding, Severity};
use kernel::{Kernel, LoadedModule};

use super::Verdict;
use super::catalog::{Before, Catalog, Facts, Missing};
use super::set::Set;
use crate::document::FindingEntry;
use crate::error::Error;

/// Results that wait for their turn take about this many bytes at most; what does not fit is judged again later.
const HELD_MAX: usize = 48 << 20;
/// So many results are handed over at a time, to wake the thread that takes them less often.
const BATCH: usize = 32;

/// Facts of a judged module that other modules depend on.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    refused: bool,
    proprietary: bool,
}

/// One module on one kernel.
#[derive(Debug, Default)]
struct Cell {
    /// Most are handed over at once: no room for them all.
    verdict: Option<Box<Verdict>>,
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
        Some(*verdict)
    }

    /// A module was judged; the verdict is kept if it is given.
    fn put(&mut self, index: usize, verdict: Option<Verdict>, outcome: Outcome, exact: bool) {
        self.take(index);
        self.held = self.held.saturating_add(verdict.as_ref().map_or(0, Verdict::weight));
        let Some(cell) = self.cells.get_mut(index) else { return };
        cell.verdict = verdict.map(Box::new);
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

/// What all threads share.
#[derive(Debug)]
pub struct State<'s> {
    views: Vec<View<'s>>,
    unreadable: BTreeMap<usize, Error>,
    part: Range<usize>,
    /// The next file to report.
    head: usize,
    pub ready: VecDeque<(Result<Vec<Verdict>, Error>, usize)>,
    pub ready_bytes: usize,
    /// Files that this pass has done, and has in all.
    pub progress: (usize, usize),
    pub finished: bool,
    /// The consumer has gone: no more verdicts are wanted.
    pub stopped: bool,
    /// How many threads wait for something to change, and is the reporting one waiting? A wake-up costs a system call
    /// even if no thread waits.
    pub waiting: usize,
    pub listening: bool,
}

impl<'s> State<'s> {
    /// Nothing known yet; verdicts on the files of `part` are wanted, on each of some kernels.
    pub fn new(set: &'s Set, kernels: impl Iterator<Item = &'s Kernel>, part: Range<usize>) -> Self {
        let views = kernels.map(|kernel| {
            let mut cells = Vec::new();
            cells.resize_with(set.len(), Cell::default);
            View { kernel, catalog: Catalog::new(set), cells, held: 0 }
        });
        State {
            views: views.collect(),
            unreadable: BTreeMap::new(),
            head: part.start,
            progress: (0, part.len()),
            part,
            ready: VecDeque::new(),
            ready_bytes: 0,
            finished: false,
            stopped: false,
            waiting: 0,
            listening: false,
        }
    }

    /// Is there enough to hand over?
    pub fn has_batch(&self) -> bool {
        self.ready.len() >= BATCH || self.ready_bytes > HELD_MAX / 8
    }

    /// Are so many verdicts not fetched yet that threads which make more should wait?
    pub fn is_full(&self) -> bool {
        self.ready_bytes > HELD_MAX / 2
    }

    /// Is there more than is to be kept, and the turn not that of this file?
    pub fn has_to_wait(&self, index: usize) -> bool {
        self.held() > HELD_MAX && self.head != index
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

    /// Takes over what a file says to one of the kernels.
    pub fn insert(&mut self, target: usize, index: usize, facts: Facts) {
        if let Some(view) = self.views.get_mut(target) {
            view.catalog.insert(index, facts);
        }
    }

    /// A file cannot be read: it exports nothing.
    pub fn put_unreadable(&mut self, index: usize, error: Error) {
        for view in &mut self.views {
            view.catalog.insert(index, Facts::default());
            if let Some(cell) = view.cells.get_mut(index) {
                *cell = Cell { outcome: Some(Outcome::default()), exact: true, settled: true, verdict: None };
            }
        }
        self.unreadable.insert(index, error);
    }

    /// Hands over everything whose turn has come.
    pub fn advance(&mut self) {
        while self.part.contains(&self.head) {
            let index = self.head;
            if let Some(error) = self.unreadable.remove(&index) {
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

    /// Keeps the verdict on a module until its turn comes: in any case, or if there is room.
    pub fn put(&mut self, target: usize, index: usize, judged: (Verdict, bool), exact: bool, keep: bool) {
        let (verdict, proprietary) = judged;
        let outcome = Outcome { refused: verdict.is_refused(), proprietary };
        let keep = keep || self.has_room(index, &verdict);
        let Some(view) = self.views.get_mut(target) else { return };
        view.put(index, keep.then_some(verdict), outcome, exact);
        if exact {
            view.settle_one(index);
        }
    }

    pub fn is_settled(&self, target: usize, index: usize) -> bool {
        self.views.get(target).and_then(|v| v.cell(index)).is_some_and(|c| c.settled)
    }

    /// The files of the modules that are loaded before one.
    pub fn before(&mut self, target: usize, index: usize) -> Arc<Before> {
        let view = self.views.get_mut(target);
        view.and_then(|v| v.catalog.before(index, v.kernel).ok()).unwrap_or_default()
    }

    /// Those modules.
    pub fn loaded_before(&mut self, target: usize, index: usize) -> Vec<Arc<LoadedModule>> {
        let before = self.before(target, index);
        let Some(view) = self.views.get(target) else { return Vec::new() };
        before.order.iter().filter_map(|file| view.catalog.loaded(*file).cloned()).collect()
    }

    /// Targets on which there is no lasting verdict on a module at hand.
    pub fn open_targets(&self, index: usize) -> Vec<usize> {
        let is_open = |v: &View<'_>| !v.cell(index).is_some_and(|c| c.settled && c.verdict.is_some());
        self.views.iter().enumerate().filter(|(_, v)| is_open(v)).map(|(at, _)| at).collect()
    }

    /// The files of the part that are to be judged yet.
    pub fn unfinished(&mut self) -> Vec<usize> {
        self.advance();
        (self.head..self.part.end).filter(|f| !self.open_targets(*f).is_empty()).collect()
    }

    /// Files that have to be read before it is known what the part needs, and whether to judge them at once.
    pub fn missing(&mut self) -> (Vec<usize>, bool) {
        let open: Vec<usize> = (self.head..self.part.end).collect();
        let mut files = HashSet::new();
        for view in &mut self.views {
            for index in &open {
                match view.catalog.before(*index, view.kernel) {
                    Err(Missing::All) => {
                        let unread = (0..view.cells.len()).filter(|f| view.catalog.facts(*f).is_none());
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
    pub fn unsettled_providers(&mut self, target: usize) -> Vec<usize> {
        let open = self.head..self.part.end;
        let Some(view) = self.views.get_mut(target) else { return Vec::new() };
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
