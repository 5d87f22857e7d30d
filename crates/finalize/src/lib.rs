//! What the kernel does to a module after its relocation (spec 06).
//!
//! Steps so far: [`post_relocation`]'s architecture-independent half.
#![no_std]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

extern crate alloc;

pub mod extable;
pub mod kallsyms;
pub mod kstrto;
pub mod module_finalize;
pub mod parse_args;
pub mod sort;

pub use module_finalize::module_finalize;

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
