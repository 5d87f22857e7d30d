//! What the bytes of a module depend on besides its file and its place: the kernel that runs.

use alloc::vec::Vec;
use core::fmt::Debug;

use kernel::{Member, Part};

use crate::{coming, struct_module};

/// The running kernel, as far as patching reads it. What it does not know is `None`; a step then leaves
/// the site as it was compiled and says so ([`crate::Record::unknown`]).
pub trait RunningKernel: Debug + Sync {
    /// Address of the kernel's own symbol of that name; `None` too if several have it.
    fn symbol(&self, name: &str) -> Option<u64>;

    /// Addresses of the kernel's own symbols whose names begin so, in any order; names may share one.
    fn symbols_with(&self, prefix: &str) -> Vec<u64>;

    /// Fills `out` with the kernel's memory at `address`; false if not every byte of it is known. Pointers
    /// that come from a kernel image are those before KASLR: read them with [`RunningKernel::pointer`].
    fn read(&self, address: u64, out: &mut [u8]) -> bool;

    /// The pointer at `address`.
    fn pointer(&self, address: u64) -> Option<u64>;

    /// Has the system the capability of that number: on x86 bit `number % 32` of word `number / 32` of
    /// `boot_cpu_data.x86_capability`, on arm64 the number of its line in cpucaps.
    fn capability(&self, number: u32) -> Option<bool>;

    /// Number of CPUs found at boot.
    fn cpus(&self) -> Option<u32>;

    /// The kernel's command line.
    fn cmdline(&self) -> &str;

    /// A member of a struct by the kernel's BTF, dots between the names of `path`. Only what
    /// [`crate::TYPES`] lists can be asked for, so that it can be kept apart from the BTF.
    fn member(&self, of: &str, path: &str) -> Option<Member>;

    /// `sizeof` a struct by the kernel's BTF; [`crate::TYPES`] lists it.
    fn struct_size(&self, of: &str) -> Option<u64>;
}

/// A kernel of which nothing is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unknown;

impl RunningKernel for Unknown {
    fn symbol(&self, _: &str) -> Option<u64> {
        None
    }

    fn symbols_with(&self, _: &str) -> Vec<u64> {
        Vec::new()
    }

    fn read(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }

    fn pointer(&self, _: u64) -> Option<u64> {
        None
    }

    fn capability(&self, _: u32) -> Option<bool> {
        None
    }

    fn cpus(&self) -> Option<u32> {
        None
    }

    fn cmdline(&self) -> &str {
        ""
    }

    fn member(&self, _: &str, _: &str) -> Option<Member> {
        None
    }

    fn struct_size(&self, _: &str) -> Option<u64> {
        None
    }
}

/// What of the kernel's memory the steps read ([`RunningKernel::read`], [`RunningKernel::pointer`]): nothing
/// else, so that it can be kept apart from the image.
pub const MEMORY: &[Part] = &[
    // apply_paravirt, and alternatives with ALT_FLAG_DIRECT_CALL (FIN-25).
    Part::Object("pv_ops"),
    // apply_returns
    Part::Object("x86_return_thunk"),
    // callthunks_patch_module_calls (FIN-77)
    Part::Between("skl_call_thunk_template", "skl_call_thunk_tail"),
    // static_call_add_module: which key a trampoline belongs to (FIN-60), and its function (FIN-61).
    Part::Between("__start_static_call_tramp_key", "__stop_static_call_tramp_key"),
    Part::Prefix("__SCK__", 16),
    // Static keys of jump labels, alone or in a struct tracepoint (FIN-52): modules can only name exports.
    Part::ExportedData(32),
];

/// The structs of which the steps need members or sizes, with the paths of those members: what a
/// [`RunningKernel`] has to know of the kernel's BTF.
pub const TYPES: &kernel::types::StructPaths = &[
    ("cpuinfo_x86", &["x86_capability"]),
    ("module", struct_module::MEMBERS),
    ("module_memory", struct_module::MEMORY_MEMBERS),
    ("module_layout", struct_module::LAYOUT_MEMBERS),
    ("kernel_param", &[]),
    ("kernel_symbol", &[]),
    ("bpf_raw_event_map", &[]),
    ("jump_entry", &[]),
    ("exception_table_entry", &[]),
    ("error_injection_entry", &[]),
    ("static_call_site", &[]),
    ("bug_entry", &[]),
    ("_ddebug", &[]),
    ("ddebug_class_map", &["link", "mod_name"]),
    ("srcu_struct", coming::SRCU_MEMBERS),
    (
        "trace_event_call",
        &[
            "list",
            "class",
            "event.node",
            "event.list",
            "event.type",
            "event.funcs",
            "print_fmt",
            "module",
            "flags",
        ],
    ),
    ("trace_event_class", &["system", "get_fields", "fields", "fields_array", "raw_init"]),
    ("trace_event_fields", &["name", "type", "needs_test"]),
    ("trace_event_functions", &["trace", "raw", "hex", "binary"]),
    ("trace_eval_map", &["system", "eval_string", "eval_value"]),
];
