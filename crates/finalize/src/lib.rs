//! What the kernel does to a module between its relocation and its init (spec 06, 07).
//!
//! [`module_finalize()`] and [`prepare_coming_module`] are the order of it; every step is a function of its own that says what it changed
//! ([`Record`]). What depends on the running system comes through [`RunningKernel`].
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

extern crate alloc;

pub mod aarch64;
pub mod arch;
pub mod coming;
pub mod extable;
pub mod finalizer;
pub mod ftrace;
pub mod jump_label;
pub mod kallsyms;
pub mod kstrto;
pub mod module_finalize;
pub mod parse_args;
pub mod record;
pub mod running;
pub mod sort;
pub mod struct_module;
#[cfg(test)]
mod testing;
pub mod trace_events;
pub mod x86_64;

pub use finalizer::Finalizer;
pub use module_finalize::refuse_without_ftrace_plt;
pub use record::{Choice, Patch, Record, RuntimeState, Step};
pub use running::{MEMORY, RunningKernel, TYPES};

use elf_layout::{Layout, LoadInfo, Memory, Placement};

/// `post_relocation` up to the call of `module_finalize`: the exception table is
/// sorted (FIN-1) and the symbol tables for kallsyms are filled (FIN-3). The
/// per-cpu template is copied to every CPU as it stands in the file (FIN-2),
/// which no region shows.
pub fn post_relocation(
    info: &LoadInfo<'_>,
    layout: &Layout,
    placement: &Placement,
    values: &[u64],
    memory: &mut impl Memory,
) {
    extable::sort_extable(info, layout, memory);
    kallsyms::add_kallsyms(info, layout, placement, values, memory);
}

/// `module_finalize` of the architecture, and `ftrace_module_init`.
pub fn module_finalize(module: &mut Finalizer<'_, '_>) {
    let Some(arch) = arch::arch(module.info.file.e_machine()) else { return };
    let mark = module.said.mark();
    arch.module_finalize(module);
    ftrace::ftrace_module_init(module, arch);
    // Where a step has not said so itself.
    module.said.end_stage_at_first(mark);
}

/// `prepare_coming_module`: notifiers by priority, then in the order of their registration; and the members of
/// `struct module`. Parameters are set after it ([`parse_args::parse_args`]).
pub fn prepare_coming_module(module: &mut Finalizer<'_, '_>) {
    let Some(arch) = arch::arch(module.info.file.e_machine()) else { return };
    let mark = module.said.mark();
    jump_label::jump_label_add_module(module, arch);
    trace_events::trace_module_notify(module);
    arch.static_calls(module);
    coming::module_coming(module);
    struct_module::write_struct_module(module);
    kallsyms::symbols_of_the_temporary_copy(module);
    // Where a step has not said so itself.
    module.said.end_stage_at_first(mark);
}
