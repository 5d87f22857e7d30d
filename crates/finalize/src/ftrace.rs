//! `ftrace_module_init`: the sites of the function tracer (FIN-40 to FIN-47).

use alloc::format;
use alloc::vec::Vec;

use elf_layout::{Finding, Severity};

use crate::arch::FinalizeArch;
use crate::finalizer::{Finalizer, Table};
use crate::record::Step;

/// Sorts the list of sites (FIN-41) and makes each a nop that the tracer can turn into a call.
/// Without CONFIG_DYNAMIC_FTRACE nobody looks at the list (FIN-45).
pub fn ftrace_module_init(module: &mut Finalizer<'_, '_>, arch: &dyn FinalizeArch) {
    let config = module.info.config;
    let section = arch.ftrace_callsites(config);
    let Some(table) = module.section(section).filter(|_| config.dynamic_ftrace) else { return };
    for site in ftrace_process_locs(module, &table) {
        if !arch.ftrace_init_nop(module, site) {
            ftrace_bug(module, section, site);
            return;
        }
    }
}

/// Sorts the list in place, as the kernel does of its modules in every version, and gives the sites.
/// Zeros are what a linker puts between the lists of two objects.
fn ftrace_process_locs(module: &mut Finalizer<'_, '_>, table: &Table) -> Vec<u64> {
    let Some(bytes) = module.read(table.address, table.size) else { return Vec::new() };
    let (entries, _) = bytes.as_chunks();
    let mut sites: Vec<u64> = entries.iter().map(|entry| u64::from_le_bytes(*entry)).collect();
    // Equal ones cannot be told apart, so any sort does.
    sites.sort_unstable();
    let sorted: Vec<u8> = sites.iter().flat_map(|site| site.to_le_bytes()).collect();
    module.write(table.address, &sorted, Step::SortFtraceSites, 0);
    sites.retain(|site| *site != 0);
    sites
}

/// `ftrace_bug` (FIN-47): the tracer is off from here on, the module loads.
fn ftrace_bug(module: &mut Finalizer<'_, '_>, section: &str, site: u64) {
    let why = match module.name_of(site) {
        Some(place) => format!("{section} lists {place}, which does not hold what the compiler puts there"),
        None => format!("{section} lists {site:#x}, which is no code of the module"),
    };
    let finding = Finding::note("FIN-47", Severity::Warning, why)
        .says("------------[ ftrace bug ]------------")
        .hint("the kernel turns its function tracer off until it boots again");
    module.said.push(finding);
}
