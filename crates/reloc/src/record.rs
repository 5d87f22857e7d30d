//! What the steps after relocation changed, and what they could not know.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::bytes::slice_mut;
use elf_layout::{Layout, Memory, Region, SectionPlace};

/// A step that changes bytes of a module, in the kernel's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Step {
    /// `sort_extable` (FIN-1).
    SortExtable,
    /// `apply_paravirt` (x86 up to 6.7).
    Paravirt,
    /// `apply_fineibt`, and what `apply_seal_endbr` does to preambles (x86).
    Cfi,
    /// `apply_retpolines` (x86).
    Retpoline,
    /// `apply_returns` (x86).
    Return,
    /// `apply_alternatives` (FIN-20 to FIN-25; arm64 6.3).
    Alternative,
    /// `callthunks_patch_module_calls` (x86).
    CallThunk,
    /// `apply_seal_endbr` (x86).
    SealEndbr,
    /// `alternatives_smp_module_add` (x86).
    SmpLock,
    /// `unwind_module_init`: the ORC tables are sorted (x86).
    SortOrc,
    /// `module_init_ftrace_plt` (arm64).
    FtracePlt,
    /// `ftrace_module_init`: the list of sites is sorted (FIN-41).
    SortFtraceSites,
    /// `ftrace_init_nop` (FIN-42 to FIN-44).
    FtraceSite,
    /// `jump_label_module_notify`: the table is sorted (FIN-50).
    SortJumpTable,
    /// A key of the module points at its first entry (FIN-51).
    JumpKey,
    /// `jump_label_update` of a key that is not in its initial state (FIN-52, FIN-53).
    JumpLabel,
    /// `static_call_add_module`: sites are sorted and point at keys (FIN-60, FIN-61).
    SortStaticCalls,
    /// `arch_static_call_transform` (FIN-61).
    StaticCall,
    /// `trace_module_add_evals`, `trace_module_add_events` (spec 06, 6.7).
    TraceEvent,
    /// `srcu_module_coming` (spec 06, 6.7).
    Srcu,
    /// A member of `struct module`.
    StructModule,
    /// `parse_args` (spec 07).
    Parameter,
}

impl Step {
    /// All of them, in the order in which the kernel comes to them.
    pub const ALL: [Step; 22] = [
        Step::SortExtable,
        Step::Paravirt,
        Step::Cfi,
        Step::Retpoline,
        Step::Return,
        Step::Alternative,
        Step::CallThunk,
        Step::SealEndbr,
        Step::SmpLock,
        Step::SortOrc,
        Step::FtracePlt,
        Step::SortFtraceSites,
        Step::FtraceSite,
        Step::SortJumpTable,
        Step::JumpKey,
        Step::JumpLabel,
        Step::SortStaticCalls,
        Step::StaticCall,
        Step::TraceEvent,
        Step::Srcu,
        Step::StructModule,
        Step::Parameter,
    ];

    /// Its name in maps and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Step::SortExtable => "exception table sorted",
            Step::Paravirt => "paravirt call",
            Step::Cfi => "CFI",
            Step::Retpoline => "retpoline",
            Step::Return => "return",
            Step::Alternative => "alternative",
            Step::CallThunk => "call thunk",
            Step::SealEndbr => "endbr sealed",
            Step::SmpLock => "lock prefix",
            Step::SortOrc => "ORC table sorted",
            Step::FtracePlt => "ftrace PLT",
            Step::SortFtraceSites => "ftrace sites sorted",
            Step::FtraceSite => "ftrace site",
            Step::SortJumpTable => "jump table sorted",
            Step::JumpKey => "jump label key",
            Step::JumpLabel => "jump label",
            Step::SortStaticCalls => "static call sites sorted",
            Step::StaticCall => "static call",
            Step::TraceEvent => "trace event",
            Step::Srcu => "SRCU",
            Step::StructModule => "struct module",
            Step::Parameter => "parameter",
        }
    }
}

/// Bytes that a step changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where they are.
    pub place: SectionPlace,
    /// How many bytes.
    pub len: u64,
    /// The step that changed them.
    pub step: Step,
    /// What distinguishes this patch from others of its step: the capability of an alternative, the target of a
    /// call or jump, the key of a jump label; 0 if there is no such value.
    pub detail: u64,
}

/// A site whose bytes depend on the running system: all that may legally stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choice {
    /// Where it is.
    pub place: SectionPlace,
    /// The step that decides on it.
    pub step: Step,
    /// As in [`Patch::detail`].
    pub detail: u64,
    /// What may stand there, each as long as the site; first as it was before the step.
    pub may: Vec<Vec<u8>>,
}

/// A run of bytes that only the running kernel knows: allocated pointers, list heads, counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeState {
    /// Where it is.
    pub place: SectionPlace,
    /// How many bytes.
    pub len: u64,
    /// What it is.
    pub what: Cow<'static, str>,
}

/// What the steps after relocation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What was changed, in order. Later ones may lie over earlier ones.
    pub patches: Vec<Patch>,
    /// Sites that depend on the running system, with all they may hold; kept only if asked for
    /// ([`crate::Finalizer::choices`]).
    pub choices: Vec<Choice>,
    /// Bytes that are not predicted: only the running kernel has their values.
    pub runtime: Vec<RuntimeState>,
    /// What would have been needed of the running kernel and was not known, each once.
    pub unknown: Vec<String>,
    /// The bytes of the patches; kept only for who watches the load.
    pub journal: Option<Journal>,
}

/// The bytes that patches found and left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    /// The memory after the last patch.
    shadow: Vec<(Region, Vec<u8>)>,
    /// Before and after each patch: one entry for each of [`Record::patches`].
    pub bytes: Vec<PatchBytes>,
}

/// The bytes of one patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchBytes {
    /// What stood there.
    pub before: Vec<u8>,
    /// What stands there.
    pub after: Vec<u8>,
}

impl Journal {
    /// None yet. The regions of `layout` are copied, as they are before the first patch.
    pub fn of(layout: &Layout, memory: &dyn Memory) -> Self {
        let shadow = layout.regions().map(|region| (region, memory.region(region).to_vec())).collect();
        Journal { shadow, bytes: Vec::new() }
    }

    /// Is the memory what the patches have made of it? Then each change of it is among them.
    pub fn is_whole(&self, memory: &dyn Memory) -> bool {
        self.shadow.iter().all(|(region, bytes)| memory.region(*region) == bytes)
    }

    /// The bytes that differ from what the patches have made of the memory: where each run begins, and how long it is.
    pub fn missed(&self, memory: &dyn Memory) -> Vec<(SectionPlace, u64)> {
        let runs = self.shadow.iter().flat_map(|(region, bytes)| {
            let place = |offset: usize| SectionPlace { region: *region, offset: offset as u64 };
            differing(bytes, memory.region(*region)).into_iter().map(move |(at, len)| (place(at), len as u64))
        });
        runs.collect()
    }

    /// The bytes at a place, which become what they are in `memory`.
    fn note(&mut self, place: SectionPlace, len: u64, memory: &dyn Memory) {
        let after = memory.at(place, len).unwrap_or_default().to_vec();
        let shadow = self.shadow.iter_mut().find(|(region, _)| *region == place.region);
        let old = shadow.and_then(|(_, bytes)| slice_mut(bytes, place.offset, len));
        let before = old.map(|old| {
            let before = old.to_vec();
            old.iter_mut().zip(&after).for_each(|(old, new)| *old = *new);
            before
        });
        self.bytes.push(PatchBytes { before: before.unwrap_or_default(), after });
    }

    /// Bytes that a patch has found and left.
    fn note_bytes(&mut self, place: SectionPlace, bytes: PatchBytes) {
        let shadow = self.shadow.iter_mut().find(|(region, _)| *region == place.region);
        let old = shadow.and_then(|(_, shadow)| slice_mut(shadow, place.offset, bytes.after.len() as u64));
        old.into_iter().flatten().zip(&bytes.after).for_each(|(old, new)| *old = *new);
        self.bytes.push(bytes);
    }
}

/// Where two pieces of memory of one size differ: start and length of each run.
pub fn differing(a: &[u8], b: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let differ = a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b);
    for (at, _) in differ {
        match runs.last_mut() {
            Some((start, len)) if start.saturating_add(*len) == at => *len = len.saturating_add(1),
            _ => runs.push((at, 1)),
        }
    }
    runs
}

/// So many things are said to be unknown at most.
const UNKNOWN_MAX: usize = 100;

impl Record {
    /// Is it worth while to find words for another thing that was not known?
    pub fn has_room(&self) -> bool {
        self.unknown.len() < UNKNOWN_MAX
    }

    /// Notes a patch whose bytes are known.
    pub fn patched_with(&mut self, patch: Patch, bytes: PatchBytes) {
        if let Some(journal) = &mut self.journal {
            journal.note_bytes(patch.place, bytes);
        }
        self.patches.push(patch);
    }

    /// Notes a patch that is in `memory`.
    pub fn patched(&mut self, patch: Patch, memory: &dyn Memory) {
        if let Some(journal) = &mut self.journal {
            journal.note(patch.place, patch.len, memory);
        }
        self.patches.push(patch);
    }

    /// Notes what was not known; a thing said before is not said again.
    pub fn not_known(&mut self, what: &str) {
        if self.has_room() && !self.unknown.iter().any(|u| u == what) {
            self.unknown.push(what.into());
        }
    }
}
