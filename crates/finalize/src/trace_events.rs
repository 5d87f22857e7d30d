//! `trace_module_notify`, when a module is coming: trace events and the texts of their formats (spec 06, 6.7).

use crate::finalizer::Finalizer;

/// `trace_module_add_events` and `trace_module_add_evals`
pub fn trace_module_notify(_: &mut Finalizer<'_, '_>) {}
