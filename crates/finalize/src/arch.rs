//! What is special to an architecture after relocation. One is a module of this crate and a line here.

use alloc::vec::Vec;

use elf_layout::KernelConfig;
use elf_layout::elf::{EM_AARCH64, EM_X86_64};

use crate::finalizer::Finalizer;
use crate::{aarch64, x86_64};

/// The architecture's own half of the steps after relocation.
pub trait FinalizeArch: Sync {
    /// `module_finalize`
    fn module_finalize(&self, module: &mut Finalizer<'_, '_>);

    /// The section that lists the sites of the function tracer (FIN-40).
    fn ftrace_callsites(&self, config: &KernelConfig) -> &'static str;

    /// `ftrace_init_nop` and what goes before it (`ftrace_call_adjust`), for one site of the list (FIN-42 to
    /// FIN-44). False where the kernel would warn and turn its function tracer off.
    fn ftrace_init_nop(&self, module: &mut Finalizer<'_, '_>, site: u64) -> bool;

    /// What `arch_jump_label_transform` puts at `code`: a jump to `target`, or a nop (FIN-53). `None` if
    /// there is nothing that could be patched.
    fn jump_label_insn(
        &self,
        module: &Finalizer<'_, '_>,
        code: u64,
        target: u64,
        jump: bool,
    ) -> Option<Vec<u8>>;

    /// `static_call_module_notify`, where the architecture has static calls (FIN-60 to FIN-63).
    fn static_calls(&self, module: &mut Finalizer<'_, '_>);
}

/// The steps of an architecture by its EM_* number.
pub fn arch(e_machine: u16) -> Option<&'static dyn FinalizeArch> {
    match e_machine {
        EM_X86_64 => Some(&x86_64::X86_64),
        EM_AARCH64 => Some(&aarch64::Aarch64),
        _ => None,
    }
}
