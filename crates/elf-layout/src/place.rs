//! Where regions go: placement, `move_module` and the second rewrite.

use alloc::string::String;
use alloc::vec::Vec;

use crate::bytes::{align_up, slice_mut};
use crate::elf::{SHF_ALLOC, SHT_NOBITS};
use crate::layout::{Layout, PerRegion, Region, SectionPlace};
use crate::load_info::LoadInfo;

/// Base addresses of a module's regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Address of the first byte of each region.
    pub bases: PerRegion<u64>,
    /// `mod->percpu`: a pointer in the per-cpu offset space (LAYOUT-61); `None` if it is not known.
    pub percpu: Option<u64>,
}

impl Placement {
    /// Regions one after the other from `base`, each page aligned.
    pub fn consecutive(layout: &Layout, base: u64) -> Self {
        let mut at = base;
        let mut placement = Placement::default();
        for region in layout.regions() {
            *placement.bases.get_mut(region) = at;
            at = at.wrapping_add(layout.allocated(region));
        }
        placement
    }

    /// Address of a place.
    pub fn address(&self, place: SectionPlace) -> u64 {
        self.bases.get(place.region).wrapping_add(place.offset)
    }
}

/// The kernel's module area: who holds which addresses. Allocation takes the
/// lowest hole that is large enough (LAYOUT-50).
#[derive(Clone, Debug)]
pub struct ModuleArea {
    start: u64,
    end: u64,
    page_size: u64,
    /// Taken ranges `[start, end)`, ordered, guard pages included.
    taken: Vec<(u64, u64)>,
}

impl ModuleArea {
    /// An empty area of the addresses `[start, end)`.
    pub fn new(start: u64, end: u64, page_size: u64) -> Self {
        ModuleArea { start, end, page_size, taken: Vec::new() }
    }

    /// Marks `[start, end)` as taken.
    pub fn take(&mut self, start: u64, end: u64) {
        let at = self.taken.partition_point(|(taken, _)| *taken < start);
        self.taken.insert(at, (start, end));
    }

    /// The lowest hole of `size` bytes and one guard page; `None` if there is none.
    pub fn allocate(&mut self, size: u64) -> Option<u64> {
        if size > self.end.saturating_sub(self.start) {
            return None;
        }
        let size = align_up(size, self.page_size).checked_add(self.page_size)?;
        let mut at = self.start;
        for (start, end) in &self.taken {
            if start.checked_sub(at).is_some_and(|hole| hole >= size) {
                break;
            }
            at = at.max(*end);
        }
        let end = at.checked_add(size).filter(|end| *end <= self.end)?;
        self.take(at, end);
        Some(at)
    }

    /// Places all regions of a layout, in the kernel's order (LAYOUT-50).
    pub fn place(&mut self, layout: &Layout) -> Option<PerRegion<u64>> {
        let mut bases = PerRegion::default();
        for region in layout.regions() {
            *bases.get_mut(region) = self.allocate(layout.allocated(region))?;
        }
        Some(bases)
    }

    /// Frees the init regions of a module whose init has run (LAYOUT-50).
    pub fn free_init(&mut self, layout: &Layout, bases: &PerRegion<u64>) {
        for region in layout.regions().filter(|r| r.is_init()) {
            let base = bases.get(region);
            self.taken.retain(|(start, _)| *start != base);
        }
    }
}

/// The memory of a module's regions, as far as the stages of this workspace need it.
pub trait Memory {
    /// All bytes of a region; empty if it has none.
    fn region(&self, region: Region) -> &[u8];
    /// All bytes of a region, to be changed.
    fn region_mut(&mut self, region: Region) -> &mut [u8];

    /// `len` bytes of a place.
    fn at(&self, place: SectionPlace, len: u64) -> Option<&[u8]> {
        crate::bytes::slice(self.region(place.region), place.offset, len)
    }

    /// `len` bytes of a place, to be changed.
    fn at_mut(&mut self, place: SectionPlace, len: u64) -> Option<&mut [u8]> {
        slice_mut(self.region_mut(place.region), place.offset, len)
    }
}

/// `move_module` without its allocation: copies every section that has a place
/// and file bytes (LAYOUT-41), and sets its final address: the second rewrite.
/// The memory is zero before.
pub fn move_module(
    info: &mut LoadInfo<'_>,
    layout: &Layout,
    placement: &Placement,
    memory: &mut impl Memory,
) {
    for (i, section) in info.sechdrs.iter_mut().enumerate() {
        let Some(place) = layout.place(i).filter(|_| section.sh_flags & SHF_ALLOC != 0) else {
            continue;
        };
        section.sh_addr = placement.address(place);
        if section.sh_type == SHT_NOBITS {
            continue;
        }
        let bytes = info.file.section_bytes(i);
        if let Some(target) = memory.at_mut(place, bytes.len() as u64) {
            target.copy_from_slice(bytes);
        }
    }
}

/// What stands at an address of a placed module, for messages and maps.
pub fn describe(info: &LoadInfo<'_>, layout: &Layout, address: u64) -> Option<String> {
    let (i, section) = info.sechdrs.iter().enumerate().find(|(i, s)| {
        layout.place(*i).is_some() && address.checked_sub(s.sh_addr).is_some_and(|o| o < s.sh_size)
    })?;
    let offset = address.wrapping_sub(section.sh_addr);
    Some(alloc::format!("{}+{offset:#x}", crate::bytes::printed(info.file.section_name(i))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_50_lowest_hole_with_a_guard_page() {
        let mut area = ModuleArea::new(0x1000, 0x10_0000, 0x1000);
        assert_eq!(area.allocate(0x1001), Some(0x1000), "LAYOUT-50: first base");
        assert_eq!(area.allocate(0x1000), Some(0x4000), "LAYOUT-50: two pages and a guard page lie below");
        assert_eq!(area.allocate(1), Some(0x6000));
        area.taken.retain(|(start, _)| *start != 0x4000);
        assert_eq!(
            area.allocate(0x1001),
            Some(0x8000),
            "the hole of two pages is too small for two and a guard"
        );
        assert_eq!(area.allocate(0x1000), Some(0x4000), "LAYOUT-50: a freed hole is used again");
        assert_eq!(area.allocate(u64::MAX), None);
        assert_eq!(area.allocate(0x10_0000), None, "LAYOUT-50: the area is finite");
    }
}
