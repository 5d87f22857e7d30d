//! What the kernel does to a module between its relocation and its init (spec 06, 07).
//!
//! [`module_finalize()`] and [`prepare_coming_module`] are the order of it; every step is a function of its own that says what it changed
//! ([`reloc::Record`]). What depends on the running system comes through [`kernel::RunningKernel`].
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

extern crate alloc;

pub mod coming;
pub mod extable;
pub mod ftrace;
pub mod initcall;
pub mod jump_label;
pub mod kallsyms;
pub mod kstrto;
pub mod parse_args;
pub mod reads;
pub mod struct_module;
pub mod trace_events;

pub use reads::{TYPES, needs};

use elf_layout::Module;
use reloc::{Architecture, Finalizer};

/// `kernel/module/main.c: post_relocation` up to the call of `module_finalize`: the exception table is
/// sorted (FIN-1) and the symbol tables for kallsyms are filled (FIN-3). The
/// per-cpu template is copied to every CPU as it stands in the file (FIN-2),
/// which no region shows.
pub fn post_relocation(module: &mut Module<'_>) {
    extable::sort_extable(module);
    kallsyms::add_kallsyms(module);
}

/// `kernel/module/main.c: module_finalize` of the architecture, and `ftrace_module_init`.
pub fn module_finalize(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) {
    // Some steps are stages of their own; this is for the others.
    module.stage_at_first(|module| {
        arch.module_finalize(module);
        ftrace::ftrace_module_init(module, arch);
    });
}

/// `kernel/module/main.c: prepare_coming_module`: notifiers by priority, then in the order of their registration; and the
/// members of `struct module`. Parameters are set after it ([`parse_args::parse_args`]).
pub fn prepare_coming_module(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) {
    // Some steps are stages of their own; this is for the others.
    module.stage_at_first(|module| {
        let whole = !module.verdict_only;
        if whole {
            jump_label::jump_label_add_module(module, arch);
        }
        trace_events::trace_module_notify(module);
        arch.static_calls(module);
        if whole {
            coming::module_coming(module);
            struct_module::write_struct_module(module, arch);
            kallsyms::symbols_of_the_temporary_copy(module);
        }
    });
}
