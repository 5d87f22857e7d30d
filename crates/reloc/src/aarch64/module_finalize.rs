//! `arch/arm64/kernel/module.c: module_finalize` (spec 06, 6.3).

use super::{alternative, ftrace};
use crate::finalizer::Finalizer;

/// Its steps in the kernel's order.
pub fn module_finalize(module: &mut Finalizer<'_, '_>) {
    alternative::apply_alternatives_module(module);
    scs_patch(module);
    ftrace::module_init_ftrace_plt(module);
}

/// `scs_patch` (FIN-34): only modules for CONFIG_UNWIND_PATCH_PAC_INTO_SCS have the section, and only some of
/// their kernels patch.
fn scs_patch(module: &mut Finalizer<'_, '_>) {
    if module.first_section(".init.eh_frame").is_some() {
        module.record.not_known("whether paciasp and autiasp become pushes to a shadow call stack");
    }
}
