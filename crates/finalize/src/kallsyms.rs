//! `add_kallsyms`: the symbol tables that `/proc/kallsyms` reads (FIN-3, FIN-4).

use alloc::format;
use alloc::vec::Vec;

use elf_layout::bytes::slice_mut;
use elf_layout::elf::{
    SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHN_ABS, SHN_LORESERVE, SHN_UNDEF, SHT_NOBITS, STB_WEAK, STT_OBJECT,
    SYM_SIZE, Sym, SymFields,
};
use elf_layout::{Finding, LoadInfo, Module, SectionPlace, Severity};

use reloc::{Architecture, Finalizer};

/// Fills the tables that `layout_symtab` made room for: `struct mod_kallsyms`
/// and type letters of all symbols in init memory, and the core symbols with
/// names of their own in core memory.
pub fn add_kallsyms(module: &mut Module<'_>) {
    let Module { info, layout, placement, values, memory, .. } = module;
    let info = &*info;
    let Some(plan) = &layout.symtab else { return };
    let file = info.file;
    let address = |index: usize| info.sechdrs.get(index).map_or(0, |s| s.sh_addr);
    let in_init = |offset| placement.address(SectionPlace { region: plan.init_region, offset });

    let init = memory.region_mut(plan.init_region);
    let header = [
        address(file.index().sym),
        // num_symtab is 32 bits wide, then padding.
        file.symbols().len() as u64 & u64::from(u32::MAX),
        address(file.index().str),
        in_init(plan.init_typeoffs),
    ];
    for (at, word) in (plan.mod_kallsyms_init_off..).step_by(8).zip(header) {
        write(init, at, &word.to_le_bytes());
    }
    for (at, symbol) in (plan.init_typeoffs..).zip(file.symbols()) {
        write(init, at, &[elf_type(info, symbol)]);
    }

    let core = memory.region_mut(plan.core_region);
    let mut name_at = plan.stroffs;
    for (n, index) in (0u64..).zip(&plan.core_symbols) {
        let Some(symbol) = file.symbols().get(*index as usize) else {
            continue;
        };
        let name = file.whole_symbol_name(symbol);
        // FIN-5: the copy stops where the string area ends, which the layout made large enough.
        let name_end = name_at.saturating_add(name.len() as u64);
        if name_end >= plan.core_typeoffs {
            break;
        }
        let at = plan.symoffs.saturating_add(n.saturating_mul(SYM_SIZE));
        if let Some(record) = slice_mut(core, at, SYM_SIZE) {
            let value = values.get(*index as usize).copied().unwrap_or_else(|| symbol.value());
            let st_name = name_at.wrapping_sub(plan.stroffs) as u32;
            write(record, 0, &st_name.to_le_bytes());
            write(record, 4, &[symbol.info(), symbol.other()]);
            write(record, 6, &symbol.shndx().to_le_bytes());
            write(record, 8, &value.to_le_bytes());
            write(record, 16, &symbol.size().to_le_bytes());
        }
        write(core, name_at, name);
        write(core, plan.core_typeoffs.saturating_add(n), &[elf_type(info, symbol)]);
        name_at = name_end.saturating_add(1);
    }
}

fn write(memory: &mut [u8], at: u64, bytes: &[u8]) {
    if let Some(target) = slice_mut(memory, at, bytes.len() as u64) {
        target.copy_from_slice(bytes);
    }
}

/// The names of the core symbols are copied from the string table in memory, by what the symbol table in memory says by now
/// (FIN-78): one that begins behind the strings is what stands there. False if the kernel crashes.
pub fn names_in_reach(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) -> bool {
    let file = module.info.file;
    let strings = module.info.sechdrs.get(file.index().str).map_or(0, |s| s.sh_addr);
    let (Some(plan), Some(table)) = (&module.layout.symtab, module.table(file.index().sym)) else {
        return true;
    };
    let record = |index: &u32| table.address.wrapping_add(u64::from(*index).wrapping_mul(SYM_SIZE));
    let names = plan.core_symbols.iter().filter_map(|index| module.u32(record(index)));
    let size = file.strtab().len() as u64;
    let behind: Vec<u64> = names.map(u64::from).filter(|name| *name >= size).collect();
    behind.into_iter().all(|name| module.touches(arch, strings.wrapping_add(name), 1, "the name of a symbol"))
}

/// FIN-79: `elf_type` looks up the section of every symbol. All but symbol 0 have been checked. False if the kernel
/// crashes.
pub fn section_of_symbol_0(module: &mut Finalizer<'_, '_>) -> bool {
    /// Bytes of a section header, and where its flags are.
    const SHDR: (u64, u64) = (64, 8);
    let file = module.info.file;
    let Some(symbol) = file.symbols().first().filter(|_| module.layout.symtab.is_some()) else { return true };
    let shndx = symbol.shndx();
    let known = [0, file.index().pcpu].contains(&usize::from(shndx));
    if symbol.bind() == STB_WEAK
        || known
        || shndx >= SHN_LORESERVE
        || usize::from(shndx) < file.sections().len()
    {
        return true;
    }
    let flags = file.e_shoff().saturating_add(u64::from(shndx).saturating_mul(SHDR.0)).saturating_add(SHDR.1);
    let end = elf_layout::bytes::align_up(file.bytes().len() as u64, module.layout.page_size);
    if flags < end {
        return true;
    }
    let why = format!(
        "symbol 0 is in section {shndx}, whose header would lie far behind the file: the kernel crashes"
    );
    module.said.refuse(Finding::note("FIN-79", Severity::Oops, why));
    false
}

/// Symbols of sections that are not kept have values in the temporary copy, which is freed after the load
/// (LAYOUT-43): its address is not known.
pub fn symbols_of_the_temporary_copy(module: &mut Finalizer<'_, '_>) {
    let file = module.info.file;
    let pcpu = file.index().pcpu;
    let lost = |symbol: &Sym| {
        let shndx = usize::from(symbol.shndx());
        let section = shndx != usize::from(SHN_UNDEF) && symbol.shndx() < SHN_LORESERVE;
        section && shndx != pcpu && module.layout.place(shndx).is_none()
    };
    let Some(plan) = &module.layout.symtab else { return };
    let full = module.table(file.index().sym).map(|table| table.address);
    let core = module.placement.address(SectionPlace { region: plan.core_region, offset: plan.symoffs });
    let in_full = full.into_iter().flat_map(|table| (0u64..).zip(file.symbols()).map(move |s| (table, s)));
    let in_core = (0u64..).zip(&plan.core_symbols);
    let in_core = in_core.filter_map(|(n, index)| Some((core, (n, file.symbols().get(*index as usize)?))));
    let lost: Vec<u64> = in_full
        .chain(in_core)
        .filter(|(_, (_, symbol))| lost(symbol))
        .map(|(table, (n, _))| table.wrapping_add(n.wrapping_mul(SYM_SIZE)).wrapping_add(8))
        .collect();
    for value in lost {
        module.runtime(value, 8, "value of a symbol whose section is not kept");
    }
}

/// `elf_type`: nm's letter by the loader's flags, never upper case but for undefined symbols (FIN-4).
pub fn elf_type(info: &LoadInfo<'_>, symbol: &Sym) -> u8 {
    let shndx = symbol.shndx();
    if symbol.bind() == STB_WEAK {
        return if symbol.kind() == STT_OBJECT { b'v' } else { b'w' };
    }
    if shndx == SHN_UNDEF {
        return b'U';
    }
    if shndx == SHN_ABS || usize::from(shndx) == info.file.index().pcpu {
        return b'a';
    }
    let Some(section) = info.sechdrs.get(usize::from(shndx)).filter(|_| shndx < SHN_LORESERVE) else {
        return b'?';
    };
    if section.sh_flags & SHF_EXECINSTR != 0 {
        b't'
    } else if section.sh_flags & SHF_ALLOC != 0 && section.sh_type != SHT_NOBITS {
        if section.sh_flags & SHF_WRITE == 0 { b'r' } else { b'd' }
    } else if section.sh_type == SHT_NOBITS {
        b'b'
    } else if info.file.section_name(usize::from(shndx)).starts_with(b".debug") {
        b'n'
    } else {
        b'?'
    }
}
