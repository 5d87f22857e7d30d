//! x86_64's half of the steps after relocation (spec 06, 6.2).

mod alternatives;
mod callthunks;
mod cpu;
mod ibt;
mod insn;
mod nops;
mod orc;
mod paravirt;
mod retpolines;
mod returns;
mod sites;
mod smp_locks;
mod static_calls;
#[cfg(test)]
mod tests;
mod text;

use alloc::vec::Vec;

use elf_layout::{Change, KernelConfig};

use crate::arch::FinalizeArch;
use crate::finalizer::Finalizer;

/// x86_64.
#[derive(Debug)]
pub struct X86_64;

impl FinalizeArch for X86_64 {
    fn module_finalize(&self, module: &mut Finalizer<'_, '_>) {
        // Since v6.8 (f7af6977621a) paravirt calls are alternatives. Before v5.13 some have code of their own
        // in a table of the kernel, which is not modelled.
        if module.has(Change::ParavirtCallsOnly) && !module.has(Change::ParavirtIsAlternatives) {
            paravirt::apply_paravirt(module);
        } else if !module.has(Change::ParavirtCallsOnly) && module.last_section(".parainstructions").is_some()
        {
            module.record.not_known("paravirt patches of kernels before 5.13");
        }
        // CONFIG_FINEIBT has kernels built with Clang only.
        if module.last_section(".cfi_sites").is_some() && module.kernel.symbol("cfi_mode").is_some() {
            module.record.not_known("cfi_mode (FineIBT)");
        }
        retpolines::apply_retpolines(module);
        returns::apply_returns(module);
        // Since v6.15, and in 6.14 too, calls are counted before alternatives are applied, and sites of
        // alternatives no longer; from v6.8 to there the sites of alternatives, before that those of paravirt.
        let before_alternatives = module.has(Change::CallsPatchedBeforeAlternatives);
        if before_alternatives {
            callthunks::callthunks_patch_module_calls(module, core::iter::empty());
        }
        alternatives::apply_alternatives(module);
        if !before_alternatives {
            let others: Vec<u64> = if module.has(Change::ParavirtIsAlternatives) {
                alternatives::sites(module)
            } else {
                paravirt::sites(module)
            };
            callthunks::callthunks_patch_module_calls(module, others.into_iter());
        }
        ibt::apply_seal_endbr(module);
        smp_locks::alternatives_smp_module_add(module);
        orc::unwind_module_init(module);
    }

    fn ftrace_callsites(&self, _: &KernelConfig) -> &'static str {
        "__mcount_loc"
    }

    fn ftrace_init_nop(&self, module: &mut Finalizer<'_, '_>, site: u64) -> bool {
        sites::ftrace_init_nop(module, site)
    }

    fn jump_label_insn(
        &self,
        module: &Finalizer<'_, '_>,
        code: u64,
        target: u64,
        jump: bool,
    ) -> Option<Vec<u8>> {
        sites::jump_label_insn(module, code, target, jump)
    }

    fn static_calls(&self, module: &mut Finalizer<'_, '_>) {
        static_calls::static_call_add_module(module);
    }
}
