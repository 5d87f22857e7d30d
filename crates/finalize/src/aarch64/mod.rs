//! aarch64's half of the steps after relocation (spec 06, 6.3).

mod alternative;
mod ftrace;

use alloc::vec::Vec;

use elf_layout::KernelConfig;
use reloc::aarch64::insn;

use crate::arch::FinalizeArch;
use crate::finalizer::Finalizer;

/// aarch64.
#[derive(Debug)]
pub struct Aarch64;

impl FinalizeArch for Aarch64 {
    fn module_finalize(&self, module: &mut Finalizer<'_, '_>) {
        alternative::apply_alternatives_module(module);
        scs_patch(module);
        ftrace::module_init_ftrace_plt(module);
    }

    fn ftrace_callsites(&self, config: &KernelConfig) -> &'static str {
        ftrace::callsites(config)
    }

    fn ftrace_init_nop(&self, module: &mut Finalizer<'_, '_>, site: u64) -> bool {
        ftrace::ftrace_init_nop(module, site)
    }

    fn jump_label_insn(
        &self,
        module: &Finalizer<'_, '_>,
        code: u64,
        target: u64,
        jump: bool,
    ) -> Option<Vec<u8>> {
        module.u32(code)?;
        let insn = if jump { insn::branch(code, target) } else { insn::NOP };
        Some(insn.to_le_bytes().to_vec())
    }

    /// arm64 has none.
    fn static_calls(&self, _: &mut Finalizer<'_, '_>) {}
}

/// `scs_patch` (FIN-34): only modules for CONFIG_UNWIND_PATCH_PAC_INTO_SCS have the section, and only some of
/// their kernels patch.
fn scs_patch(module: &mut Finalizer<'_, '_>) {
    if module.first_section(".init.eh_frame").is_some() {
        module.record.not_known("whether paciasp and autiasp become pushes to a shadow call stack");
    }
}

#[cfg(test)]
mod tests;
