//! aarch64's half of the steps after relocation (spec 06, 6.3).

use alloc::vec::Vec;

use elf_layout::KernelConfig;

use crate::arch::FinalizeArch;
use crate::finalizer::Finalizer;

/// aarch64.
#[derive(Debug)]
pub struct Aarch64;

impl FinalizeArch for Aarch64 {
    fn module_finalize(&self, _: &mut Finalizer<'_, '_>) {}

    fn ftrace_callsites(&self, _: &KernelConfig) -> &'static str {
        "__patchable_function_entries"
    }

    fn ftrace_init_nop(&self, _: &mut Finalizer<'_, '_>, _: u64) -> bool {
        true
    }

    fn jump_label_insn(&self, _: &Finalizer<'_, '_>, _: u64, _: u64, _: bool) -> Option<Vec<u8>> {
        None
    }

    /// arm64 has none.
    fn static_calls(&self, _: &mut Finalizer<'_, '_>) {}
}
