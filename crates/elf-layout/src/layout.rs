//! `layout_sections`: which section goes to which region, at which offset.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use crate::bytes::align_up;
use crate::elf::{SHF_ALLOC, SHF_EXECINSTR, SHF_RO_AFTER_INIT, SHF_WRITE, Shdr};
use crate::finding::{Errno, Finding, Findings, Severity};
use crate::load_info::LoadInfo;
use crate::symtab::SymtabPlan;
use crate::version::Generation;

/// One area of a module's memory: `enum mod_mem_type` from 6.4, `core_layout`
/// and `init_layout` before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Region {
    /// MOD_TEXT
    Text,
    /// MOD_DATA
    Data,
    /// MOD_RODATA
    Rodata,
    /// MOD_RO_AFTER_INIT
    RoAfterInit,
    /// MOD_INIT_TEXT
    InitText,
    /// MOD_INIT_DATA
    InitData,
    /// MOD_INIT_RODATA
    InitRodata,
    /// core_layout (up to 6.3)
    Core,
    /// init_layout (up to 6.3)
    Init,
}

/// How many regions there are over all generations.
pub const REGIONS: usize = 9;

impl Region {
    /// All regions, in the order of their numbers.
    pub const ALL: [Region; REGIONS] = [
        Region::Text,
        Region::Data,
        Region::Rodata,
        Region::RoAfterInit,
        Region::InitText,
        Region::InitData,
        Region::InitRodata,
        Region::Core,
        Region::Init,
    ];

    /// Its name in options, file names and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Region::Text => "text",
            Region::Data => "data",
            Region::Rodata => "rodata",
            Region::RoAfterInit => "ro_after_init",
            Region::InitText => "init_text",
            Region::InitData => "init_data",
            Region::InitRodata => "init_rodata",
            Region::Core => "core",
            Region::Init => "init",
        }
    }

    /// The region of that name.
    pub fn from_name(name: &str) -> Option<Region> {
        Region::ALL.into_iter().find(|r| r.name() == name)
    }

    /// Is it freed after init has run?
    pub const fn is_init(self) -> bool {
        matches!(self, Region::InitText | Region::InitData | Region::InitRodata | Region::Init)
    }

    /// Holds machine code.
    pub const fn is_executable(self) -> bool {
        matches!(self, Region::Text | Region::InitText | Region::Core | Region::Init)
    }
}

/// One value per region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerRegion<T>([T; REGIONS]);

impl<T: Copy + Default> PerRegion<T> {
    /// The value of a region.
    pub fn get(&self, region: Region) -> T {
        self.0.get(region as usize).copied().unwrap_or_default()
    }

    /// The value of a region, to be changed.
    pub fn get_mut(&mut self, region: Region) -> &mut T {
        let [a, b, c, d, e, f, g, h, i] = &mut self.0;
        match region {
            Region::Text => a,
            Region::Data => b,
            Region::Rodata => c,
            Region::RoAfterInit => d,
            Region::InitText => e,
            Region::InitData => f,
            Region::InitRodata => g,
            Region::Core => h,
            Region::Init => i,
        }
    }
}

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
pub struct AreaMarks {
    /// End of the text, page aligned.
    pub text_size: u64,
    /// End of the read-only data, page aligned.
    pub ro_size: u64,
    /// End of the data that is read-only after init, page aligned.
    pub ro_after_init_size: u64,
}

/// The memory plan of one module.
#[derive(Clone, Debug)]
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
    /// The furthest end that anything placed so far has in its region, before any of it wraps.
    needed: u64,
}

/// No module area of any supported kernel is larger (x86_64: 1.5 GiB, aarch64: 2 GiB). What
/// does not fit fails to allocate there, and is not attempted here.
pub const MODULE_AREA_MAX: u64 = 2 << 30;

impl Layout {
    /// Place of section `index`.
    pub fn place(&self, index: usize) -> Option<SectionPlace> {
        self.sections.get(index).copied().flatten()
    }

    /// Bytes that the kernel allocates for a region (LAYOUT-40).
    pub fn allocated(&self, region: Region) -> u64 {
        align_up(self.sizes.get(region), self.page_size)
    }

    /// The regions that are allocated, in order of allocation. Up to 6.3 core always is.
    pub fn regions(&self) -> impl Iterator<Item = Region> + '_ {
        let regions = self.generation.regions().iter().copied();
        regions.filter(|r| self.sizes.get(*r) != 0)
    }

    /// `module_get_offset_and_type`: puts a section at the end of a region (LAYOUT-14, LAYOUT-15).
    pub(crate) fn put(&mut self, index: usize, section: &Shdr, region: Region) {
        let size = self.sizes.get_mut(region);
        let offset = align_up(*size, section.sh_addralign);
        *size = offset.saturating_add(section.sh_size);
        // An alignment that is no power of two can wrap an offset back to 0.
        self.needed = self.needed.max(*size).max(offset);
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

/// The flags a pass asks for and those it shuns. Writable code goes with code (LAYOUT-13), what is not
/// writable with read-only data even if it is to be read-only after init (LAYOUT-12); ARCH_SHF_SMALL
/// is 0, which leaves the fifth pass what no other pass took (LAYOUT-11).
const PASSES: [(u64, u64); 5] = [
    (SHF_EXECINSTR | SHF_ALLOC, 0),
    (SHF_ALLOC, SHF_WRITE),
    (SHF_RO_AFTER_INIT | SHF_ALLOC, 0),
    (SHF_WRITE | SHF_ALLOC, 0),
    (SHF_ALLOC, 0),
];

/// `layout_sections`: five passes over all sections in index order (LAYOUT-20), first for
/// core, then for init (spec 02 §2.2); pages are aligned in between only up to 6.3 (LAYOUT-16, LAYOUT-18). `None`, with a finding, if a region
/// would be larger than any module area.
pub fn layout_sections(info: &LoadInfo<'_>, said: &mut Findings) -> Option<Layout> {
    let generation = info.config.generation();
    let mut layout = Layout {
        generation,
        page_size: info.config.page_size,
        sizes: PerRegion::default(),
        sections: vec![None; info.sechdrs.len()],
        symtab: None,
        marks: [AreaMarks::default(); 2],
        needed: 0,
    };
    // LAYOUT-19: a section that no region of its kind exists for is offered to no later pass.
    let mut skipped = vec![false; info.sechdrs.len()];
    for init in [false, true] {
        for (pass, (need, shun)) in PASSES.into_iter().enumerate() {
            let region = region_of(generation, pass, init);
            for (i, section) in info.sechdrs.iter().enumerate() {
                let taken = layout.place(i).is_some() || skipped.get(i).copied().unwrap_or(true);
                let fits = section.sh_flags & need == need && section.sh_flags & shun == 0;
                if !fits || taken || info.is_init_section(i) != init {
                    continue;
                }
                match region {
                    Some(region) => layout.put(i, section, region),
                    None => {
                        if let Some(slot) = skipped.get_mut(i) {
                            *slot = true;
                        }
                        let why = "a section of init that is read-only after init has no region; the kernel warns and does not move it";
                        said.push(
                            Finding::note("LAYOUT-19", Severity::Warning, why)
                                .about(info.file.section_subject(i)),
                        );
                    }
                }
            }
            if generation == Generation::CoreInit {
                align_area(&mut layout, pass, init, info.config.strict_module_rwx);
            }
        }
    }
    bounded(&layout, said)?;
    Some(layout)
}

/// LAYOUT-14: an alignment near 2^64 wraps, puts a section at a lower offset than the end of the one before it, and the
/// region then ends before its sections do. The kernel does not notice, and copies beyond what it has allocated.
pub fn sections_inside(info: &LoadInfo<'_>, layout: &Layout, said: &mut Findings) {
    let outside = (0..info.sechdrs.len()).filter_map(|index| section_outside(info, layout, index));
    said.stage_at_first(|said| outside.for_each(|finding| said.push(finding)));
}

/// Does this section end after what is allocated for its region?
fn section_outside(info: &LoadInfo<'_>, layout: &Layout, index: usize) -> Option<Finding> {
    let (section, place) = (info.sechdrs.get(index)?, layout.place(index)?);
    let (end, allocated) = (place.offset.checked_add(section.sh_size), layout.allocated(place.region));
    if end.is_some_and(|end| end <= allocated) {
        return None;
    }
    let why = format!(
        "{:#x} bytes at {:#x} of region {}, for which the kernel allocates {allocated:#x}: it writes beyond them",
        section.sh_size,
        place.offset,
        place.region.name()
    );
    Some(Finding::note("LAYOUT-14", Severity::Oops, why).about(info.file.section_subject(index)))
}

/// The module area is finite: a region beyond [`MODULE_AREA_MAX`] is the kernel's failed allocation.
pub(crate) fn bounded(layout: &Layout, said: &mut Findings) -> Option<()> {
    let used = layout.generation.regions().iter().map(|r| layout.sizes.get(*r));
    let needed = used.max().unwrap_or(0).max(layout.needed);
    if needed <= MODULE_AREA_MAX {
        return Some(());
    }
    let why = format!("the module needs a region of {needed:#x} bytes, more than any module area holds");
    said.refuse(Finding::error("LAYOUT-40", Errno::ENOMEM, why));
    None
}

/// The region that a pass fills.
fn region_of(generation: Generation, pass: usize, init: bool) -> Option<Region> {
    match (generation, init, pass) {
        (Generation::CoreInit, false, _) => Some(Region::Core),
        (Generation::CoreInit, true, _) => Some(Region::Init),
        (Generation::ModMemType, false, 0) => Some(Region::Text),
        (Generation::ModMemType, false, 1) => Some(Region::Rodata),
        (Generation::ModMemType, false, 2) => Some(Region::RoAfterInit),
        (Generation::ModMemType, false, _) => Some(Region::Data),
        (Generation::ModMemType, true, 0) => Some(Region::InitText),
        (Generation::ModMemType, true, 1) => Some(Region::InitRodata),
        (Generation::ModMemType, true, 2) => None,
        (Generation::ModMemType, true, _) => Some(Region::InitData),
    }
}

/// Up to 6.3 an area is page aligned after text, read-only data, data that is read-only after
/// init (core only) and the rest, and remembers the first three (LAYOUT-16).
fn align_area(layout: &mut Layout, pass: usize, init: bool, strict: bool) {
    let region = if init { Region::Init } else { Region::Core };
    let size = match (pass, init) {
        (3, _) => return,
        (2, true) => 0,
        _ => layout.strict_align(region, strict),
    };
    let [core, init_marks] = &mut layout.marks;
    let marks = if init { init_marks } else { core };
    match pass {
        0 => marks.text_size = size,
        1 => marks.ro_size = size,
        2 if init => marks.ro_after_init_size = marks.ro_size,
        2 => marks.ro_after_init_size = size,
        _ => {}
    }
}
