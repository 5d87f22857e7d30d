//! `jump_label_module_notify`, when a module is coming (FIN-50 to FIN-54).

use crate::arch::FinalizeArch;
use crate::finalizer::Finalizer;

/// `jump_label_add_module`
pub fn jump_label_add_module(_: &mut Finalizer<'_, '_>, _: &dyn FinalizeArch) {}
