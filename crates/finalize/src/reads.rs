//! What the steps read of the running kernel, whatever its architecture: SPEC files keep it, and what the architecture
//! adds ([`reloc::Architecture::kernel_memory`], [`reloc::Architecture::kernel_types`]).

use kernel::types::StructPaths;
use kernel::{Needs, Part};
use reloc::Architecture;

use crate::{coming, struct_module};

/// All that the steps read of a kernel of one of these architectures.
pub fn needs(architectures: &[&dyn Architecture]) -> Needs {
    let types = architectures.iter().flat_map(|arch| arch.kernel_types()).chain(TYPES);
    let memory = architectures.iter().flat_map(|arch| arch.kernel_memory()).chain(MEMORY);
    Needs { types: types.copied().collect(), memory: memory.copied().collect() }
}

/// What of the kernel's memory the steps read ([`kernel::RunningKernel::read`], [`kernel::RunningKernel::pointer`]): nothing
/// else, so that it can be kept apart from the image.
const MEMORY: &[Part] = &[
    // static_call_add_module: which key a trampoline belongs to (FIN-60), and its function (FIN-61).
    Part::Between("__start_static_call_tramp_key", "__stop_static_call_tramp_key"),
    Part::Prefix("__SCK__", 16),
    // Static keys of jump labels, alone or in a struct tracepoint (FIN-52): modules can only name exports.
    Part::ExportedData(32),
];

/// The structs of which the steps need members or sizes, with the paths of those members: what a
/// [`kernel::RunningKernel`] has to know of the kernel's BTF.
pub const TYPES: &StructPaths = &[
    ("module", struct_module::MEMBERS),
    ("module_memory", struct_module::MEMORY_MEMBERS),
    ("module_layout", struct_module::LAYOUT_MEMBERS),
    ("kernel_param", &[]),
    ("kernel_symbol", &[]),
    ("bpf_raw_event_map", &[]),
    ("jump_entry", &[]),
    ("exception_table_entry", &["fixup", "handler"]),
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
            "mod",
            "flags",
        ],
    ),
    ("trace_event_class", &["system", "get_fields", "fields", "fields_array", "raw_init"]),
    ("trace_event_fields", &["name", "type", "needs_test"]),
    ("trace_event_functions", &["trace", "raw", "hex", "binary"]),
    ("trace_eval_map", &["system", "eval_string", "eval_value"]),
];
