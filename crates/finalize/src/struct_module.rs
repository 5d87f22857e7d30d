//! The members of `struct module` that follow from the file, its place and the kernel.

use crate::finalizer::Finalizer;

/// Writes them as they are when init is about to run.
pub fn write_struct_module(_: &mut Finalizer<'_, '_>) {}
