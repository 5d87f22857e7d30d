//! `apply_relocations`: the driver that all architectures share (spec 04 §4.1).

use alloc::format;
use alloc::string::String;

use elf_layout::bytes::{printed, slice_mut};
use elf_layout::elf::{
    RELA_SIZE, RawRela, Rela, SHF_ALLOC, SHF_RELA_LIVEPATCH, SHT_REL, SHT_RELA, SYM_SIZE, Shdr,
};
use elf_layout::module::is_temporary;
use elf_layout::{Change, Errno, Finding, Findings, LoadInfo, Module, Setting, Severity, Subject, needs};

use crate::livepatch::{KallsymsLookup, klp_apply_section_relocs};
use crate::target::Target;
use crate::{Architecture, ModArch, Records, RelaSection};

/// Offset of `st_value` in a symbol.
const ST_VALUE: u64 = 8;

/// Applies every relocation section whose target is in memory, in index order
/// (RELOC-GEN-1 to RELOC-GEN-10). A place has its final address (RELOC-GEN-12), a symbol that weakly found
/// nothing its value in the file (RELOC-GEN-13), and NOBITS targets are zero and writable (RELOC-GEN-14). `mod_arch` comes from `module_frob_arch_sections`.
/// Symbols of livepatch sections for the kernel itself get their values here, by `kallsyms`.
pub fn apply_relocations(
    arch: &dyn Architecture,
    mod_arch: &mut ModArch,
    module: &mut Module<'_>,
    kallsyms: KallsymsLookup<'_>,
    said: &mut Findings,
) {
    let Module { info, layout, values, unknown, memory, placement, .. } = module;
    let (info, memory) = (&*info, &mut **memory);
    if tables_overlap(info) {
        let why = "its relocation tables overlap: they have more records than the file has room for, and are not applied";
        said.refuse(Finding::note("RELOC-GEN-10", Severity::Oops, why));
        return;
    }
    mod_arch.locate(info);
    if hangs_on_unknown(arch, info, unknown) {
        said.unjudged("RELOC-GEN-17", needs::SYMBOLS);
    }
    let symtab = info.sechdrs.get(info.file.index().sym).map_or(0, |s| s.sh_addr);
    let ends_in_headers = said.stage_at_first(|said| {
        for (index, section) in info.sechdrs.iter().enumerate().skip(1) {
            // RELOC-GEN-1, RELOC-GEN-2: the target must be ALLOC by the loader's flags.
            let target = section.sh_info as usize;
            let Some(patched) = info.sechdrs.get(target).filter(|t| t.sh_flags & SHF_ALLOC != 0) else {
                warn_percpu(info, index, target, said);
                continue;
            };
            if section.sh_flags & SHF_RELA_LIVEPATCH != 0 {
                match info.config.known(Setting::Livepatch) {
                    // Without CONFIG_LIVEPATCH nothing applies it, and nothing looks at it.
                    Some(false) => continue,
                    None => {
                        said.unjudged("RELOC-GEN-5", needs::CONFIG);
                        continue;
                    }
                    Some(true) if klp_apply_section_relocs(info, index, values, kallsyms, said) => {}
                    Some(true) => continue,
                }
            }
            match section.sh_type {
                SHT_REL => said.push(rel_unsupported(info, index)),
                SHT_RELA => {
                    let Some(place) = layout.place(target) else { continue };
                    let mut section = RelaSection {
                        file: info.file,
                        config: info.config,
                        index,
                        target,
                        in_init: place.region.is_init(),
                        memory: Target::of(memory, placement, place, patched.sh_size),
                        address: patched.sh_addr,
                        values,
                        unknown,
                        symtab,
                        sechdrs: &info.sechdrs,
                    };
                    let (before, whole) = before_headers(info, index);
                    let records = info.reordered(index).map_or(Records::File(before), Records::Reordered);
                    arch.apply_relocate_add(&mut section, records, mod_arch, said);
                    mod_arch.flush(layout, memory);
                    if !whole {
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    });
    // Nothing is open behind a refusal.
    if ends_in_headers {
        said.may_crash("LAYOUT-1", needs::SECTION_HEADERS);
    }
}

/// LAYOUT-1: the records of a table up to the first one that lies in section headers, and whether these are all. The kernel has changed the
/// headers by then, so nobody knows what the others are.
fn before_headers<'f>(info: &LoadInfo<'f>, index: usize) -> (&'f [RawRela], bool) {
    let records = info.file.relocations(index);
    let section = info.sechdrs.get(index).filter(|section| info.has_section_headers(section));
    let Some(section) = section else { return (records, true) };
    let bytes = info.section_headers().start.saturating_sub(section.sh_offset);
    let count = usize::try_from(bytes / RELA_SIZE).unwrap_or(usize::MAX);
    (records.get(..count).unwrap_or(records), false)
}

/// RELOC-GEN-17: does a record that is applied ask for a symbol whose value is not known, and does that decide whether it
/// fits?
fn hangs_on_unknown(arch: &dyn Architecture, info: &LoadInfo<'_>, unknown: &[bool]) -> bool {
    /// Symbols are no larger than that: a place so far from one is as good as the symbol.
    const NEAR: u64 = 1 << 20;
    if !unknown.contains(&true) {
        return false;
    }
    let sections = info.sechdrs.iter().enumerate().skip(1);
    let mut applied = sections.filter(|(_, s)| {
        let target = info.sechdrs.get(s.sh_info as usize);
        s.sh_type == SHT_RELA && target.is_some_and(|target| target.sh_flags & SHF_ALLOC != 0)
    });
    applied.any(|(index, _)| {
        let mut records = info.file.relocations(index).iter().map(Rela::from);
        records.any(|rela| {
            let is_unknown = unknown.get(rela.r_sym() as usize) == Some(&true);
            is_unknown && !(arch.reaches_every_symbol(rela.r_type()) && rela.r_addend.unsigned_abs() <= NEAR)
        })
    })
}

/// Do RELA tables share bytes of the file? No linker does that, and it would let a small file ask
/// for any amount of work.
pub(crate) fn tables_overlap(info: &LoadInfo<'_>) -> bool {
    let is_applied =
        |s: &Shdr| info.sechdrs.get(s.sh_info as usize).is_some_and(|t| t.sh_flags & SHF_ALLOC != 0);
    let tables = info.sechdrs.iter().filter(|s| s.sh_type == SHT_RELA && is_applied(s));
    let sizes = tables.map(|s| s.sh_size);
    sizes.fold(0u64, u64::saturating_add) > info.file.bytes().len() as u64
}

/// RELOC-GEN-6.
fn rel_unsupported(info: &LoadInfo<'_>, index: usize) -> Finding {
    let line = format!("module {}: REL relocation unsupported", info.file.name_text());
    let why = "relocations without addends (SHT_REL): this architecture has only RELA";
    Finding::error("RELOC-GEN-6", Errno::ENOEXEC, why).says(line).about(info.file.section_subject(index))
}

/// RELOC-GEN-4: the per-cpu template is copied unrelocated before 6.16 (570db4b39f53).
fn warn_percpu(info: &LoadInfo<'_>, index: usize, target: usize, said: &mut Findings) {
    let pcpu = info.file.index().pcpu;
    if info.config.has(Change::PercpuRelocated)
        || pcpu == 0
        || target != pcpu
        || info.file.relocations(index).is_empty()
        || info.file.section_bytes(index).is_empty()
    {
        return;
    }
    if info.sechdrs.get(index).is_some_and(|s| s.sh_type == SHT_RELA) {
        let why = "relocations of .data..percpu are never applied: its pointers stay as they are in the file";
        said.push(
            Finding::note("RELOC-GEN-4", Severity::Warning, why).about(info.file.section_subject(index)),
        );
    }
}

impl RelaSection<'_> {
    /// S + A of a record; `None` if the record is to be left out. A finding says why, unless the value of its symbol
    /// is not known.
    #[inline]
    pub(crate) fn value(&self, entry: usize, rela: &Rela, said: &mut Findings) -> Option<u64> {
        let Some(value) = self.values.get(rela.r_sym() as usize) else {
            return self.no_symbol(entry, rela, said);
        };
        (!self.is_unknown(rela)).then(|| value.wrapping_add_signed(rela.r_addend))
    }

    /// Is there the symbol of a record, and nobody knows its value?
    #[inline]
    pub(crate) fn is_unknown(&self, rela: &Rela) -> bool {
        self.unknown.get(rela.r_sym() as usize) == Some(&true)
    }

    /// Has the module memory for `width` bytes at the place of a record?
    pub(crate) fn has_place(&mut self, entry: usize, rela: &Rela, width: u64, said: &mut Findings) -> bool {
        slice_mut(self.memory.section(), rela.r_offset, width).is_some()
            || self.place_outside(entry, rela, width, said).is_some()
    }

    /// Is the symbol of a record in a section that is not moved? Its value is an address in the temporary copy, which counts
    /// as 0 here (X86REL-10, A64REL-40).
    pub(crate) fn is_temporary(&self, rela: &Rela) -> bool {
        is_temporary(self.file, self.sechdrs, rela.r_sym())
    }

    /// The record as the subject of a finding.
    pub fn subject(&self, entry: usize, rela: &Rela) -> Subject {
        Subject::Relocation {
            section: u32::try_from(self.index).unwrap_or(u32::MAX),
            entry: u32::try_from(entry).unwrap_or(u32::MAX),
            target: String::from(printed(self.file.section_name(self.target))),
            offset: rela.r_offset,
        }
    }

    /// Name of the symbol of a record, or of its section if it has none.
    pub fn symbol_text(&self, rela: &Rela) -> String {
        let symbol = self.file.symbols().get(rela.r_sym() as usize);
        symbol.map_or("?".into(), |symbol| printed(self.file.symbol_or_section_name(symbol)).into())
    }

    /// RELOC-GEN-11: a symbol behind the table is what stands there: in the module's memory its bytes are known.
    #[cold]
    fn no_symbol(&self, entry: usize, rela: &Rela, said: &mut Findings) -> Option<u64> {
        let at = u64::from(rela.r_sym()).wrapping_mul(SYM_SIZE).wrapping_add(ST_VALUE);
        let value = self.memory.word(self.symtab.wrapping_add(at));
        let symbol = rela.r_sym();
        said.push(match value {
            Some(value) => self.outside(entry, rela, format!("symbol {symbol} does not exist; the kernel reads past its symbol table and takes {value:#x} for its value")),
            None => self.out_of_bounds(entry, rela),
        });
        value.map(|value| value.wrapping_add_signed(rela.r_addend))
    }

    /// RELOC-GEN-11: the place of a record that lies outside of its section, `width` bytes: the kernel relocates what is
    /// there all the same. `None` if the module has no memory there.
    #[cold]
    pub(crate) fn place_outside(
        &mut self,
        entry: usize,
        rela: &Rela,
        width: u64,
        said: &mut Findings,
    ) -> Option<&mut [u8]> {
        let place = self.address.wrapping_add(rela.r_offset);
        self.memory.anywhere(place, width)?;
        let (offset, size) = (rela.r_offset, self.memory.len());
        let why = format!(
            "the place at offset {offset:#x} lies outside its section of {size:#x} bytes; the kernel relocates what is there all the same"
        );
        said.push(self.outside(entry, rela, why));
        self.memory.anywhere(place, width)
    }

    /// RELOC-GEN-11: the place of a record once these bits of its address are set, if that is one of the module.
    pub(crate) fn place_but_for(&mut self, bits: u64, rela: &Rela, width: u64) -> Option<&mut [u8]> {
        let place = self.address.wrapping_add(rela.r_offset);
        if place | bits == place {
            return None;
        }
        self.memory.anywhere(place | bits, width)
    }

    fn outside(&self, entry: usize, rela: &Rela, why: String) -> Finding {
        Finding::note("RELOC-GEN-11", Severity::Warning, why).about(self.subject(entry, rela))
    }

    /// RELOC-GEN-11: the kernel looks neither at the place nor at the symbol, and there is no memory.
    pub fn out_of_bounds(&self, entry: usize, rela: &Rela) -> Finding {
        let why = if (rela.r_sym() as usize) < self.values.len() {
            format!(
                "the place at offset {:#x} lies outside its section of {:#x} bytes, where the module has no memory: the kernel crashes",
                rela.r_offset,
                self.memory.len()
            )
        } else {
            format!(
                "symbol {} does not exist; the kernel reads far past its symbol table and crashes",
                rela.r_sym()
            )
        };
        Finding::note("RELOC-GEN-11", Severity::Oops, why).about(self.subject(entry, rela))
    }
}
