//! What the steps after relocation changed, and what they could not know.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::SectionPlace;

/// A step that changes bytes of a module, in the kernel's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Step {
    /// `sort_extable` (FIN-1).
    SortExtable,
    /// `apply_paravirt` (x86 up to 6.7).
    Paravirt,
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
    /// Its name in maps and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Step::SortExtable => "exception table sorted",
            Step::Paravirt => "paravirt call",
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
}

/// So many things are said to be unknown at most.
const UNKNOWN_MAX: usize = 100;

impl Record {
    /// Is it worth while to find words for another thing that was not known?
    pub fn has_room(&self) -> bool {
        self.unknown.len() < UNKNOWN_MAX
    }

    /// Notes what was not known; a thing said before is not said again.
    pub fn not_known(&mut self, what: &str) {
        if self.has_room() && !self.unknown.iter().any(|u| u == what) {
            self.unknown.push(what.into());
        }
    }
}
