//! What `load_module` does of this crate, in its order: no architecture, no memory, no signature.

use elf_layout::bytes::align_up;
use elf_layout::layout::layout_sections;
use elf_layout::module::move_module;
use elf_layout::symtab::layout_symtab;
use elf_layout::validity::{Expected, elf_validity};
use elf_layout::{Change, Findings, HeapMemory, LoadInfo, Placement, ksymtab};
use kernel::{Kernel, Taints};
use symres::LoadFlags;
use symres::btf::btf_module_notify;
use symres::early::{
    already_loaded, blacklisted, check_export_symbol_versions, check_modinfo_taints, early_mod_check,
    find_module_sections, setup_modinfo, signature_and_name_taints, taints_of_file, verify_exported_symbols,
    warn_unsorted,
};
use symres::simplify::simplify_symbols;
use testkit::elf::Builder;

/// Where the first region goes.
pub const BASE: u64 = 0xffff_ffff_c020_1000;
/// No flags of finit_module.
pub const NONE: LoadFlags = LoadFlags { ignore_modversions: false, ignore_vermagic: false };

/// What came of a module that could be laid out.
pub struct Loaded {
    /// Value of every symbol.
    pub values: Vec<u64>,
    /// The modules whose symbols it uses.
    pub depends: Vec<String>,
    pub using_gplonly_symbols: bool,
    pub taints: Taints,
}

/// Loads a file as far as this crate does it.
pub fn load(kernel: &Kernel, bytes: &[u8], flags: LoadFlags) -> (Option<Loaded>, Findings) {
    let mut said = Findings::new();
    let loaded = load_module(kernel, bytes, flags, &mut said);
    (loaded, said)
}

fn load_module(kernel: &Kernel, bytes: &[u8], flags: LoadFlags, said: &mut Findings) -> Option<Loaded> {
    let config = &kernel.config;
    let machine = kernel.machine;
    let ignore_modversions = flags.ignore_modversions;
    let expected = Expected { config, machine, known: reloc::MACHINES, ignore_modversions };
    let file = elf_validity(bytes, &expected, said)?;
    let (mut taints, taints_late) = (kernel.state.taints, config.has(Change::TaintsAfterInsertion));
    taints = taints.with_module(taints_of_file(kernel, &file));
    blacklisted(kernel, &file, said);
    early_mod_check(kernel, &file, flags, &mut taints, said);
    if !taints_late {
        check_modinfo_taints(kernel, &file, &mut taints, said);
    }
    let mut info = LoadInfo::rewrite_section_headers(&file, config);
    info.module_enforce_rwx_sections(said);
    info.edit_flags();
    let mut layout = layout_sections(&info, said)?;
    layout_symtab(&mut info, &mut layout, said)?;
    let mut placement = Placement::consecutive(&layout, BASE);
    let align = info.sechdrs[file.index().pcpu].sh_addralign;
    placement.percpu = kernel.symbols.address("__per_cpu_end").map(|end| align_up(end, align.max(1)));
    let memory = Box::new(HeapMemory::new(&layout));
    let mut module = move_module(info, layout, placement, memory);
    already_loaded(kernel, &file, said);
    if taints_late {
        check_modinfo_taints(kernel, &file, &mut taints, said);
    }
    signature_and_name_taints(kernel, &file, None, &mut taints, said);
    find_module_sections(&file, said);
    check_export_symbol_versions(kernel, &module.info, &mut taints, said);
    setup_modinfo(kernel, &file, said);
    let ignores = |name: &[u8]| name == b"_GLOBAL_OFFSET_TABLE_";
    let mut resolution = simplify_symbols(&mut module, kernel, taints, ignores, said);
    let exports = ksymtab::exports(&file, config.changes());
    verify_exported_symbols(kernel, &file, &exports, said);
    warn_unsorted(kernel, &exports, said);
    btf_module_notify(kernel, &module, &mut resolution.taints, said);
    Some(Loaded {
        depends: resolution.depends.iter().map(|d| String::from_utf8_lossy(d).into_owned()).collect(),
        using_gplonly_symbols: resolution.using_gplonly_symbols,
        taints: resolution.taints,
        values: module.values,
    })
}

/// What a kernel says about a module.
pub fn say(kernel: &Kernel, module: &Builder) -> Findings {
    load(kernel, &module.build(), NONE).1
}

/// (code, errno, dmesg lines) of the finding where the kernel stops.
pub fn stop(said: &Findings) -> Option<(&'static str, Option<&'static str>, Vec<String>)> {
    let finding = said.iter().find(|f| f.stops_here)?;
    Some((finding.code, finding.errno.map(|e| e.name()), finding.dmesg.clone()))
}

/// Codes of all findings in order.
pub fn codes(said: &Findings) -> Vec<&'static str> {
    said.iter().map(|f| f.code).collect()
}
