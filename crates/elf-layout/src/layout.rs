//! `layout_sections`: which section goes to which region, at which offset.

use alloc::format;
use alloc::vec;
use core::ops::Range;

use crate::changes::Change;
use crate::elf::{Rela, SHF_ALLOC, SHF_EXECINSTR, SHF_RO_AFTER_INIT, SHF_WRITE, SHT_RELA, Shdr};
use crate::finding::{Finding, Findings, Severity, needs};
use crate::load_info::LoadInfo;
use crate::plan::{Layout, bounded};
use crate::region::{Generation, Region};

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
    let mut layout = Layout::new(generation, info.config.page_size, info.sechdrs.len());
    // LAYOUT-23: nobody clears them.
    layout.sizes = info.begun;
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
    bounded(info.config, &layout, said)?;
    Some(layout)
}

/// LAYOUT-14: an alignment near 2^64 wraps, puts a section at a lower offset than the end of the one before it, and the
/// region then ends before its sections do. The kernel does not notice, and copies beyond what it has allocated.
pub fn sections_inside(info: &LoadInfo<'_>, layout: &Layout, said: &mut Findings) {
    let outside = (0..info.sechdrs.len()).filter_map(|index| section_outside(info, layout, index));
    said.stage_at_first(|said| {
        for (region, finding) in outside {
            // LAYOUT-55: behind code is other code, not a page without memory.
            if info.config.has(Change::CodeFromCache) && matches!(region, Region::Text | Region::InitText) {
                let needs = "what lies behind the module's code in the block that it comes from: the kernel writes there";
                said.may_crash("LAYOUT-14", needs);
            } else {
                said.push(finding);
            }
        }
    });
    // LAYOUT-1: by the time when sections are moved, their headers hold addresses of the temporary copy.
    let over_headers = |index: usize| {
        let section = info.sechdrs.get(index).filter(|_| layout.place(index).is_some());
        section.is_some_and(|section| info.has_section_headers(section))
    };
    let symbols = info.sechdrs.get(info.file.index().sym);
    if symbols.is_some_and(|symbols| info.has_section_headers(symbols)) {
        said.may_crash("LAYOUT-1", needs::SECTION_HEADERS);
    }
    if tables_in_struct_module(info, layout) {
        let needs = "what the kernel has written into its temporary copy of struct module, in which a table lies that it reads";
        said.unjudged("LAYOUT-1", needs);
    }
    let needs = "the address of the kernel's temporary copy of the file: a section has section headers for its bytes, and the \
                 kernel writes that address into them before it moves the section";
    // In struct module they are sizes and places (LAYOUT-23): with what errno it ends then is open as well.
    if over_headers(info.file.index().module) {
        said.may_crash("LAYOUT-1", needs);
    } else if (0..info.sechdrs.len()).any(over_headers) {
        said.unjudged("LAYOUT-1", needs);
    }
}

/// LAYOUT-1: in the temporary copy, struct module has sizes and places of regions by the time when sections are moved. Do its bytes belong
/// to the symbol table as well, to relocations, or to a section that is relocated?
fn tables_in_struct_module(info: &LoadInfo<'_>, layout: &Layout) -> bool {
    let range = |section: &Shdr| (section.sh_offset, section.sh_offset.saturating_add(section.sh_size));
    let index = info.file.index();
    let Some((from, to)) = info.sechdrs.get(index.module).filter(|_| index.module != 0).map(range) else {
        return false;
    };
    let has_bytes_there = |section: &Shdr| {
        let (start, end) = range(section);
        section.has_bytes() && start < to && from < end
    };
    // A relocation may find something else there than the file has.
    let meets = |at: usize, target: usize, section: &Shdr| {
        let mut records = info.file.relocations(at).iter().map(Rela::from);
        target != index.module
            && layout.place(target).is_some()
            && has_bytes_there(section)
            && records.any(|rela| {
                let place = section.sh_offset.saturating_add(rela.r_offset);
                place < to && from < place.saturating_add(8)
            })
    };
    info.sechdrs.iter().enumerate().skip(1).any(|(at, section)| {
        let relocated =
            relocated_by(info, section).is_some_and(|target| meets(at, section.sh_info as usize, target));
        relocated || is_read_in_copy(info, at, section) && has_bytes_there(section)
    })
}

/// The section in memory that this one has relocations for.
fn relocated_by<'i>(info: &'i LoadInfo<'_>, section: &Shdr) -> Option<&'i Shdr> {
    let target = info.sechdrs.get(section.sh_info as usize)?;
    (section.sh_type == SHT_RELA && target.sh_flags & SHF_ALLOC != 0).then_some(target)
}

/// The first section other than struct module with bytes at one of `places` in the file which the kernel reads once it has
/// laid out the module: it is moved, or read in the temporary copy.
pub fn read_later(info: &LoadInfo<'_>, layout: &Layout, places: &[Range<u64>]) -> Option<usize> {
    let index = info.file.index();
    let mut sections = info.sechdrs.iter().enumerate().skip(1);
    let found = sections.find(|(at, section)| {
        let end = section.sh_offset.saturating_add(section.sh_size);
        let has_bytes =
            section.has_bytes() && places.iter().any(|p| p.start < end && section.sh_offset < p.end);
        let is_read = layout.place(*at).is_some()
            || is_read_in_copy(info, *at, section)
            || [index.info, index.vers, index.str].contains(at);
        has_bytes && *at != index.module && is_read
    });
    found.map(|(at, _)| at)
}

/// Does the kernel read a section in its temporary copy once sections are moved: as the symbol table, or as relocations?
fn is_read_in_copy(info: &LoadInfo<'_>, index: usize, section: &Shdr) -> bool {
    index == info.file.index().sym || relocated_by(info, section).is_some()
}

/// Does this section end after what is allocated for its region?
fn section_outside(info: &LoadInfo<'_>, layout: &Layout, index: usize) -> Option<(Region, Finding)> {
    let (section, place) = (info.sechdrs.get(index)?, layout.place(index)?);
    let (end, allocated) = (place.offset.checked_add(section.sh_size), layout.allocated(place.region));
    if !section.has_bytes() || end.is_some_and(|end| end <= allocated) {
        return None;
    }
    let why = format!(
        "{:#x} bytes at {:#x} of region {}, for which the kernel allocates {allocated:#x}: it writes beyond them",
        section.sh_size,
        place.offset,
        place.region.name()
    );
    let finding = Finding::note("LAYOUT-14", Severity::Oops, why).about(info.file.section_subject(index));
    Some((place.region, finding))
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
