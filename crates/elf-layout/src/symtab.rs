//! `layout_symtab`: the symbol tables that kallsyms keeps of a module (spec 02 §2.3).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bytes::align_up;
use crate::elf::{SHF_ALLOC, SHF_EXECINSTR, SHN_UNDEF, SYM_SIZE, Sym, SymFields};
use crate::finding::{Finding, Findings, Severity, Subject};
use crate::load_info::LoadInfo;
use crate::plan::{Layout, MODULE_AREA_MAX, SymtabPlan, align_size, bounded};
use crate::region::{Generation, Region};

/// Bytes of `struct mod_kallsyms`: symtab, num_symtab, strtab, typetab.
pub const MOD_KALLSYMS_SIZE: u64 = 32;
/// Its alignment.
const MOD_KALLSYMS_ALIGN: u64 = 8;

/// Adds the symbol tables to the layout, with CONFIG_KALLSYMS (LAYOUT-30 to LAYOUT-36).
pub fn layout_symtab(info: &mut LoadInfo<'_>, layout: &mut Layout, said: &mut Findings) -> Option<()> {
    if !info.config.kallsyms {
        return Some(());
    }
    let (core_region, init_region) = match layout.generation {
        Generation::CoreInit => (Region::Core, Region::Init),
        Generation::ModMemType => (Region::Data, Region::InitData),
    };
    let strict = layout.generation == Generation::CoreInit && info.config.strict_module_rwx;
    let (sym, str) = (info.file.index().sym, info.file.index().str);

    // (1) the full symbol table
    put_in_init(info, layout, sym, init_region);
    // (2) core: symbols, their names, their type letters. Livepatch modules keep all: their symbols
    // are resolved later.
    let livepatch = info.file.modinfo().get("livepatch").is_some();
    let core: Vec<bool> =
        (0..info.sechdrs.len()).map(|index| has_core_symbols(info, layout, index)).collect();
    let is_core = |s: &Sym| s.name_offset() != 0 && core.get(usize::from(s.shndx())) == Some(&true);
    let mut core_symbols = Vec::with_capacity(info.file.symbols().len());
    let symbols = (0u32..).zip(info.file.symbols());
    core_symbols.extend(symbols.filter(|(i, s)| *i == 0 || livepatch || is_core(s)).map(|(i, _)| i));
    core_names(info, &core_symbols, said);
    let align = info.sechdrs.get(sym).map_or(1, |s| s.sh_addralign);
    let symoffs = align_size(layout.sizes.get(core_region), align);
    lies_over(info, layout, core_region, symoffs, said);
    let stroffs = symoffs.saturating_add(SYM_SIZE.saturating_mul(core_symbols.len() as u64));
    let mut core_typeoffs = stroffs;
    for &index in &core_symbols {
        let symbol = info.file.symbols().get(index as usize);
        let len = symbol.map_or(0, |s| info.file.whole_symbol_name(s).len()) as u64;
        core_typeoffs = core_typeoffs.saturating_add(len).saturating_add(1);
        // Names may overlap, so their sum is not bounded by the file.
        if core_typeoffs > MODULE_AREA_MAX {
            break;
        }
    }
    *layout.sizes.get_mut(core_region) = core_typeoffs.saturating_add(core_symbols.len() as u64);
    if strict {
        layout.strict_align(core_region, true);
    }
    // (3) the full string table
    put_in_init(info, layout, str, init_region);
    // (4) struct mod_kallsyms and the type letters of all symbols
    let mod_kallsyms_init_off = align_up(layout.sizes.get(init_region), MOD_KALLSYMS_ALIGN);
    lies_over(info, layout, init_region, mod_kallsyms_init_off, said);
    let init_typeoffs = mod_kallsyms_init_off.saturating_add(MOD_KALLSYMS_SIZE);
    *layout.sizes.get_mut(init_region) = init_typeoffs.saturating_add(info.file.symbols().len() as u64);
    if strict {
        layout.strict_align(init_region, true);
    }
    layout.symtab = Some(SymtabPlan {
        core_symbols,
        core_region,
        symoffs,
        stroffs,
        core_typeoffs,
        init_region,
        mod_kallsyms_init_off,
        init_typeoffs,
    });
    bounded(info.config, layout, said)
}

/// LAYOUT-14: an alignment that is none may leave a region smaller than its sections. Does what kallsyms keeps lie over them then?
fn lies_over(info: &LoadInfo<'_>, layout: &Layout, region: Region, from: u64, said: &mut Findings) {
    let ends = info.sechdrs.iter().enumerate().filter(|(_, section)| section.has_bytes());
    let mut ends = ends.filter_map(|(index, section)| {
        let place = layout.place(index).filter(|place| place.region == region)?;
        Some(place.offset.saturating_add(section.sh_size))
    });
    if ends.any(|end| from < end) {
        let needs = "what becomes of the module's data once the kernel has written symbols over it: the alignment of a section puts them there";
        said.may_crash("LAYOUT-14", needs);
    }
}

/// SYM-10: the lengths of all names that are kept are summed up.
fn core_names(info: &LoadInfo<'_>, core_symbols: &[u32], said: &mut Findings) {
    let symbols = core_symbols.iter().filter_map(|i| Some((*i, info.file.symbols().get(*i as usize)?)));
    let lost = symbols.filter(|(_, s)| info.file.symbol_name_is_nowhere(s, info.config.page_size));
    said.stage_at_first(|said| lost.for_each(|(index, symbol)| said.push(name_is_nowhere(index, symbol))));
}

/// SYM-10: the kernel does not look whether a name lies in the string table, and reads it where there is no memory.
pub fn name_is_nowhere(index: u32, symbol: &Sym) -> Finding {
    let why = format!(
        "the name of symbol {index}, at {:#x} of the string table, lies far behind the file: the kernel crashes",
        symbol.name_offset()
    );
    let subject = Subject::Symbol { index, name: String::new() };
    Finding::note("SYM-10", Severity::Oops, why).about(subject)
}

/// The symbol and string tables become ALLOC and go to the end of init (LAYOUT-30).
fn put_in_init(info: &mut LoadInfo<'_>, layout: &mut Layout, index: usize, region: Region) {
    if let Some(section) = info.sechdrs.get_mut(index).filter(|_| index != 0) {
        section.sh_flags |= SHF_ALLOC;
        let section = *section;
        layout.put(index, &section, region);
    }
}

/// `is_core_symbol` of all symbols of a section that have a name (LAYOUT-31, LAYOUT-32).
fn has_core_symbols(info: &LoadInfo<'_>, layout: &Layout, index: usize) -> bool {
    if index == usize::from(SHN_UNDEF) {
        return false;
    }
    let all = info.config.keeps_data_symbols();
    if all && info.file.index().pcpu != 0 && index == info.file.index().pcpu {
        return true;
    }
    let flags = info.sechdrs.get(index).map_or(0, |s| s.sh_flags);
    if flags & SHF_ALLOC == 0 || (!all && flags & SHF_EXECINSTR == 0) {
        return false;
    }
    // A section without a place has sh_entsize all ones: up to 6.3 that reads as init.
    match layout.place(index) {
        Some(place) => !place.region.is_init(),
        None => layout.generation == Generation::ModMemType,
    }
}
