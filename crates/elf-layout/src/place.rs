//! Where regions go: placement, `move_module` and the second rewrite.

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

/// The addresses `[start, end)` that modules may have: where they go at first, and where they go
/// when that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Tried first.
    pub direct: (u64, u64),
    /// Tried when there is no hole in the first.
    pub fallback: Option<(u64, u64)>,
}

/// The kernel's module area: who holds which addresses. Allocation takes the
/// lowest hole that is large enough (LAYOUT-50).
#[derive(Clone, Debug)]
pub struct ModuleArea {
    windows: Windows,
    page_size: u64,
    /// Taken ranges `[start, end)`, ordered, guard pages included.
    taken: Vec<(u64, u64)>,
}

impl ModuleArea {
    /// An empty area.
    pub fn new(windows: Windows, page_size: u64) -> Self {
        ModuleArea { windows, page_size, taken: Vec::new() }
    }

    /// Marks `[start, end)` as taken.
    pub fn take(&mut self, start: u64, end: u64) {
        let at = self.taken.partition_point(|(taken, _)| *taken < start);
        self.taken.insert(at, (start, end));
    }

    /// The lowest hole of `size` bytes and one guard page; `None` if there is none.
    pub fn allocate(&mut self, size: u64) -> Option<u64> {
        let windows = [Some(self.windows.direct), self.windows.fallback];
        let (start, end) = windows.into_iter().flatten().find_map(|window| self.hole(window, size))?;
        self.take(start, end);
        Some(start)
    }

    fn hole(&self, (start, limit): (u64, u64), size: u64) -> Option<(u64, u64)> {
        if size > limit.saturating_sub(start) {
            return None;
        }
        let size = align_up(size, self.page_size).checked_add(self.page_size)?;
        let mut at = start;
        for (start, end) in &self.taken {
            if start.checked_sub(at).is_some_and(|hole| hole >= size) {
                break;
            }
            at = at.max(*end);
        }
        let end = at.checked_add(size).filter(|end| *end <= limit)?;
        Some((at, end))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_50_lowest_hole_with_a_guard_page() {
        let mut area = ModuleArea::new(Windows { direct: (0x1000, 0x10_0000), fallback: None }, 0x1000);
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

    #[test]
    fn layout_52_fallback_window() {
        let windows = Windows { direct: (0x8000, 0xc000), fallback: Some((0x1000, 0xc000)) };
        let mut area = ModuleArea::new(windows, 0x1000);
        assert_eq!(area.allocate(0x2000), Some(0x8000));
        assert_eq!(
            area.allocate(0x1000),
            Some(0x1000),
            "LAYOUT-52: one page is left, and needs a guard page"
        );
        assert_eq!(area.allocate(0x4000), Some(0x3000), "LAYOUT-52");
        assert_eq!(area.allocate(0x1000), None, "LAYOUT-52: both are full");
    }
}
