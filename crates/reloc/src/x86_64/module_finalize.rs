//! `arch/x86/kernel/module.c: module_finalize` (spec 06, 6.2).

use alloc::vec::Vec;

use elf_layout::Change;

use super::{alternatives, callthunks, fineibt, ibt, orc, paravirt, retpolines, returns, sites, smp_locks};
use crate::finalizer::Finalizer;

/// Its steps in the kernel's order.
pub fn module_finalize(module: &mut Finalizer<'_, '_>) {
    // Since v6.8 (f7af6977621a) paravirt calls are alternatives. Before v5.13 it came after them.
    let last = !module.has(Change::ParavirtCallsOnly);
    if !last && !module.has(Change::ParavirtIsAlternatives) {
        paravirt::apply_paravirt(module);
    }
    let mut cfi = fineibt::apply_fineibt(module);
    retpolines::apply_retpolines(module, &cfi);
    returns::apply_returns(module);
    // Since v6.15, and in 6.14 too, calls are counted before alternatives are applied, and sites of
    // alternatives no longer; from v6.8 to there the sites of alternatives, before that those of paravirt.
    let before_alternatives = module.has(Change::CallsPatchedBeforeAlternatives);
    let whole = !module.verdict_only;
    if before_alternatives && whole {
        callthunks::callthunks_patch_module_calls(module, core::iter::empty());
    }
    alternatives::apply_alternatives(module);
    if !before_alternatives && whole {
        let others: Vec<u64> = if module.has(Change::ParavirtIsAlternatives) {
            alternatives::sites(module)
        } else {
            paravirt::sites(module)
        };
        callthunks::callthunks_patch_module_calls(module, others.into_iter());
    }
    ibt::apply_seal_endbr(module, &mut cfi);
    cfi.tell(module);
    if whole {
        smp_locks::alternatives_smp_module_add(module);
    }
    if last {
        paravirt::apply_paravirt(module);
    }
    sites::jump_label_apply_nops(module);
    orc::unwind_module_init(module);
}
