//! The memory plan of a module, which [`crate::layout`] and [`crate::symtab`] fill in.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use alloc::string::String;

use crate::bytes::align_up;
use crate::changes::Change;
use crate::config::KernelConfig;
use crate::elf::Shdr;
use crate::finding::{Errno, Finding, Findings};
use crate::region::{Generation, PerRegion, Region};

/// Where a section stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionPlace {
    /// In which region.
    pub region: Region,
    /// At which byte offset in it.
    pub offset: u64,
}

/// Cumulative sizes that 6.1 keeps of an area, in bytes (LAYOUT-16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AreaMarks {
    /// End of the text, page aligned.
    pub text_size: u64,
    /// End of the read-only data, page aligned.
    pub ro_size: u64,
    /// End of the data that is read-only after init, page aligned.
    pub ro_after_init_size: u64,
}

/// Where the symbol tables go: all symbols to init memory, the core symbols
/// to core memory. Offsets are bytes in their region.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SymtabPlan {
    /// Indices of the symbols that stay after init, in order; 0 is always first.
    pub core_symbols: Vec<u32>,
    /// The region of the core tables: data, or core up to 6.3.
    pub core_region: Region,
    /// Core symbol table.
    pub symoffs: u64,
    /// Core string table.
    pub stroffs: u64,
    /// One type letter per core symbol.
    pub core_typeoffs: u64,
    /// The region of the full tables: init_data, or init up to 6.3.
    pub init_region: Region,
    /// `struct mod_kallsyms` of the full tables.
    pub mod_kallsyms_init_off: u64,
    /// One type letter per symbol.
    pub init_typeoffs: u64,
}

/// The memory plan of one module.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Layout {
    /// The generation it was made for.
    pub generation: Generation,
    /// PAGE_SIZE in bytes.
    pub page_size: u64,
    /// Bytes in use per region, before page alignment; 0 where there is none.
    pub sizes: PerRegion<u64>,
    /// Place of every section by index; `None` for those that are not moved.
    pub sections: Vec<Option<SectionPlace>>,
    /// Plan of the symbol tables, with CONFIG_KALLSYMS.
    pub symtab: Option<SymtabPlan>,
    /// Up to 6.3: marks of the core and of the init area.
    pub marks: [AreaMarks; 2],
}

/// No module area of any supported kernel is larger (x86_64: 1.5 GiB, aarch64: 2 GiB). What
/// does not fit fails to allocate there, and is not attempted here.
pub const MODULE_AREA_MAX: u64 = 2 << 30;

/// `ALIGN` of the size of a region, which is an `unsigned int`: so the alignment is one too, and 0 if its low 32 bits are
/// (LAYOUT-14). Only an alignment that is 0 altogether counts as 1.
pub(crate) fn align_size(size: u64, align: u64) -> u64 {
    let mask = (align.max(1) as u32).wrapping_sub(1);
    u64::from((size as u32).wrapping_add(mask) & !mask)
}

impl Layout {
    /// A plan for a module with so many sections, none of which has a place yet.
    pub fn new(generation: Generation, page_size: u64, sections: usize) -> Self {
        Layout {
            generation,
            page_size,
            sizes: PerRegion::default(),
            sections: vec![None; sections],
            symtab: None,
            marks: [AreaMarks::default(); 2],
        }
    }

    /// Place of section `index`.
    pub fn place(&self, index: usize) -> Option<SectionPlace> {
        self.sections.get(index).copied().flatten()
    }

    /// Bytes that the kernel allocates for a region (LAYOUT-40).
    pub fn allocated(&self, region: Region) -> u64 {
        align_up(self.sizes.get(region), self.page_size)
    }

    /// Bytes in use of the largest region.
    fn largest(&self) -> u64 {
        self.generation.regions().iter().map(|r| self.sizes.get(*r)).max().unwrap_or(0)
    }

    /// The regions that are allocated, in order of allocation. Up to 6.3 core always is.
    pub fn regions(&self) -> impl Iterator<Item = Region> + '_ {
        let regions = self.generation.regions().iter().copied();
        regions.filter(|r| self.sizes.get(*r) != 0)
    }

    /// `module_get_offset_and_type`: puts a section at the end of a region (LAYOUT-14, LAYOUT-15).
    pub(crate) fn put(&mut self, index: usize, section: &Shdr, region: Region) {
        let size = self.sizes.get_mut(region);
        let offset = align_size(*size, section.sh_addralign);
        *size = u64::from(offset.wrapping_add(section.sh_size) as u32);
        if let Some(slot) = self.sections.get_mut(index) {
            *slot = Some(SectionPlace { region, offset });
        }
    }

    /// Up to 6.3: `strict_align` of an area.
    pub(crate) fn strict_align(&mut self, region: Region, strict: bool) -> u64 {
        let page_size = self.page_size;
        let size = self.sizes.get_mut(region);
        if strict {
            *size = align_up(*size, page_size);
        }
        *size
    }
}

/// So much memory every machine has; the largest modules have regions of 20 MiB.
const SURELY_THERE: u64 = 64 << 20;

/// LAYOUT-40: has the machine the memory for it? Where that is not sure, whatever would refuse the module later may not be come to.
pub fn memory_is_there(layout: &Layout, said: &mut Findings) {
    let needed = layout.largest();
    if needed > SURELY_THERE {
        said.may_crash(
            "LAYOUT-40",
            format!("whether the machine has {needed:#x} bytes of memory for a region"),
        );
    }
}

/// What a kernel says that has no memory for a module: ENOMEM, since v6.10 (execmem, 12af2b83d0b1) with a line.
pub fn no_memory(config: &KernelConfig, code: &'static str, why: String) -> Finding {
    let finding = Finding::error(code, Errno::ENOMEM, why);
    if config.has(Change::Execmem) { finding.says("execmem: unable to allocate memory") } else { finding }
}

/// The module area is finite: a region beyond [`MODULE_AREA_MAX`] is the kernel's failed allocation.
pub(crate) fn bounded(config: &KernelConfig, layout: &Layout, said: &mut Findings) -> Option<()> {
    let needed = layout.largest();
    if needed <= MODULE_AREA_MAX {
        return Some(());
    }
    let why = format!("the module needs a region of {needed:#x} bytes, more than any module area holds");
    said.refuse(no_memory(config, "LAYOUT-40", why));
    None
}
