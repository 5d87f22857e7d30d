//! What the kernel does to a module between its relocation and its init (spec 06, 07).
//!
//! [`module_finalize()`] and [`prepare_coming_module`] are the order of it; every step is a function of its own that says what it changed
//! ([`reloc::Record`]). What depends on the running system comes through [`kernel::RunningKernel`].
//!
//! Parameters are read as the kernel reads them:
//!
//! ```
//! use finalize::kstrto::kstrtoull;
//! use finalize::parse_args::tokens::next_arg;
//!
//! let (first, rest) = next_arg(b"irq=0x1f name=\"two words\"");
//! assert_eq!((first.param, first.val), (&b"irq"[..], Some(&b"0x1f"[..])));
//! assert_eq!(kstrtoull(b"0x1f"), Ok(31));
//! assert_eq!(next_arg(rest).0.val, Some(&b"two words"[..]));
//! ```
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
pub mod sysfs;
pub mod trace_events;

pub use extable::sort_extable;
pub use reads::{TYPES, needs};

use alloc::vec::Vec;

use elf_layout::{Change, Module};
use kernel::RunningKernel;
use reloc::{Architecture, Finalizer};

/// `kernel/module/main.c: post_relocation` up to the call of `module_finalize`: the exception table is
/// sorted (FIN-1) and the symbol tables for kallsyms are filled (FIN-3). The
/// per-cpu template is copied to every CPU as it stands in the file (FIN-2),
/// which no region shows.
pub fn post_relocation(module: &mut Module<'_>, kernel: &dyn RunningKernel, arch: &dyn Architecture) {
    sort_extable(module, kernel, arch);
    kallsyms::add_kallsyms(module);
}

/// `kernel/module/main.c: module_finalize` of the architecture, and `ftrace_module_init`.
pub fn module_finalize(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) {
    // Some steps are stages of their own; this is for the others.
    module.stage_at_first(|module| {
        if !kallsyms::section_of_symbol_0(module) || !kallsyms::names_in_reach(module, arch) {
            return;
        }
        arch.module_finalize(module);
        ftrace::ftrace_module_init(module, arch);
    });
}

/// The names of the exports, which `verify_exported_symbols` compares with those of all others (FIN-78).
pub fn export_names_in_reach(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) {
    /// Bytes of `struct kernel_symbol`, and where its name is.
    const RECORD: (u64, u64) = (12, 4);
    let merged = module.has(Change::OneExportTable);
    let tables: &[&str] = if merged { &["__ksymtab"] } else { &["__ksymtab", "__ksymtab_gpl"] };
    for name in tables {
        let Some(table) = module.section(name) else { continue };
        // Names in the temporary copy are read there.
        let copied = if arch.reaches_temporary_copy() { module.left_out(table.index) } else { Vec::new() };
        for record in table.records(RECORD.0) {
            let at = record.wrapping_add(RECORD.1);
            let name = module.relative(at).filter(|_| copied.binary_search(&at).is_err());
            if name.is_some_and(|name| !module.touches(arch, name, 1, "the name of an export")) {
                return;
            }
        }
    }
}

/// `kernel/module/main.c: complete_formation`: code and constants become read-only, and then `mod->state` is set (FIN-87).
pub fn complete_formation(module: &mut Finalizer<'_, '_>) {
    if let Some(this) = module.table(module.info.file.index().module) {
        module.writes_place(this.place, "struct module");
    }
}

/// `kernel/module/main.c: prepare_coming_module`: notifiers by priority, then in the order of their registration; and the
/// members of `struct module`. Parameters are set after it ([`parse_args::parse_args`]).
pub fn prepare_coming_module(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) {
    // Some steps are stages of their own; this is for the others.
    module.stage_at_first(|module| {
        let whole = !module.verdict_only;
        ftrace::ftrace_module_enable(module, arch);
        coming::klp_module_coming(module);
        jump_label::jump_label_add_module(module, arch);
        trace_events::trace_module_notify(module, arch);
        arch.static_calls(module);
        let reached = coming::srcu_structs_in_reach(module, arch)
            && coming::trace_printk_formats_in_reach(module, arch)
            && coming::class_maps_in_reach(module, arch);
        if reached && whole {
            coming::module_coming(module);
            struct_module::write_struct_module(module, arch);
            kallsyms::symbols_of_the_temporary_copy(module);
        }
    });
}
