//! Where regions go: placement and the module area.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt::Debug;

use crate::bytes::{align_up, slice_mut};
use crate::plan::{Layout, SectionPlace};
use crate::region::{PerRegion, Region};

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
    /// Bytes of the blocks that code comes from, where it comes from a cache of them (LAYOUT-55).
    pub code_block: Option<u64>,
}

impl Windows {
    /// One window, with nothing to fall back on.
    pub const fn new(start: u64, end: u64) -> Self {
        Windows { direct: (start, end), fallback: None, code_block: None }
    }

    /// Does a region of this kind come from the cache of code (`execmem_is_rox`, LAYOUT-55)?
    pub const fn caches(&self, region: Region) -> bool {
        self.code_block.is_some() && matches!(region, Region::Text | Region::InitText)
    }
}

/// Free addresses, lowest first: what the module area and the per-cpu reserve are taken from.
///
/// Holes are kept rather than what is taken: a kernel that has loaded thousands of modules has few of them.
#[derive(Clone, Debug)]
pub struct Holes {
    /// End by start. Holes neither overlap nor touch.
    holes: BTreeMap<u64, u64>,
}

impl Holes {
    /// Everything from `start` to `end` is free.
    pub fn new(start: u64, end: u64) -> Self {
        let mut holes = Holes { holes: BTreeMap::new() };
        holes.free(start, end);
        holes
    }

    /// Marks `[start, end)` as taken, or what of it is free.
    pub fn take(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let touched = self.holes.range(..end).rev().take_while(|(_, hole_end)| **hole_end > start);
        let touched: Vec<(u64, u64)> = touched.map(|(s, e)| (*s, *e)).collect();
        for (hole_start, hole_end) in touched {
            self.holes.remove(&hole_start);
            if hole_start < start {
                self.holes.insert(hole_start, start);
            }
            if end < hole_end {
                self.holes.insert(end, hole_end);
            }
        }
    }

    /// Marks `[start, end)` as free.
    pub fn free(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let touched = self.holes.range(..=end).rev().take_while(|(_, hole_end)| **hole_end >= start);
        let touched: Vec<(u64, u64)> = touched.map(|(s, e)| (*s, *e)).collect();
        let (mut start, mut end) = (start, end);
        for (hole_start, hole_end) in touched {
            self.holes.remove(&hole_start);
            (start, end) = (start.min(hole_start), end.max(hole_end));
        }
        self.holes.insert(start, end);
    }

    /// The lowest place in a window for `size` bytes at a multiple of `align`, if `taken` were taken too;
    /// `None` if there is none.
    pub fn first_fit(
        &self,
        window: (u64, u64),
        size: u64,
        align: u64,
        taken: &[(u64, u64)],
    ) -> Option<(u64, u64)> {
        if window.0 >= window.1 {
            return None;
        }
        // The hole that begins before the window may reach into it.
        let before = self.holes.range(..window.0).next_back();
        let holes = before.into_iter().chain(self.holes.range(window.0..window.1));
        for (start, end) in holes {
            let mut at = align_up((*start).max(window.0), align);
            // Each round passes one of `taken`, or ends.
            for _ in 0..=taken.len() {
                let fit = at.checked_add(size).filter(|fit| at >= *start && *fit <= (*end).min(window.1));
                let Some(fit) = fit else { break };
                match taken.iter().find(|(start, end)| *start < fit && at < *end) {
                    Some((_, taken_end)) => at = align_up(*taken_end, align),
                    None => return Some((at, fit)),
                }
            }
        }
        None
    }
}

/// The kernel's module area: which of its addresses are free. Allocation takes the lowest hole that is
/// large enough (LAYOUT-50); code may come from a cache of blocks (LAYOUT-55). Asking for a place changes nothing; taking it
/// and freeing it are steps of their own.
#[derive(Clone, Debug)]
pub struct ModuleArea {
    windows: Windows,
    page_size: u64,
    holes: Holes,
    /// Ends of the blocks of the cache by their starts, without guard pages.
    blocks: BTreeMap<u64, u64>,
    /// What is free of those blocks.
    cached: Holes,
}

/// Places that are promised and not taken yet.
#[derive(Default)]
struct Promised {
    area: Vec<(u64, u64)>,
    code: Vec<(u64, u64)>,
    blocks: Vec<(u64, u64)>,
}

impl ModuleArea {
    /// An empty area.
    pub fn new(windows: Windows, page_size: u64) -> Self {
        let (holes, cached) = (Holes::new(0, u64::MAX), Holes::new(0, 0));
        ModuleArea { windows, page_size, holes, blocks: BTreeMap::new(), cached }
    }

    /// Marks `[start, end)` as taken.
    pub fn take(&mut self, start: u64, end: u64) {
        match self.block_of(start) {
            Some(_) => self.cached.take(start, end),
            None => self.holes.take(start, end),
        }
    }

    /// Marks what a region of a module holds ([`ModuleArea::ranges`]) as taken. Code that begins a block which could be added
    /// to the cache adds it.
    pub fn take_region(&mut self, region: Region, start: u64, end: u64) {
        if self.windows.caches(region) && self.block_of(start).is_none() {
            let size = end.saturating_sub(start);
            if let Some(block) = self.block(size, Some(start), &[]).filter(|block| block.0 == start) {
                self.add_block(block.0, block.1);
            }
        }
        self.take(start, end);
    }

    /// Adds a block to the cache of code (`execmem_cache_populate`, LAYOUT-55).
    pub fn add_block(&mut self, start: u64, end: u64) {
        self.holes.take(start, end.saturating_add(self.page_size));
        self.blocks.insert(start, end);
        self.cached.free(start, end);
    }

    /// Marks `[start, end)` as free: after init has run (`do_free_init`), when the module goes
    /// (`free_module`), when its load fails (LAYOUT-50). A block of which all is free leaves the cache (`execmem_cache_clean`).
    pub fn free(&mut self, start: u64, end: u64) {
        let Some((block, block_end)) = self.block_of(start) else {
            return self.holes.free(start, end);
        };
        self.cached.free(start, end);
        let size = block_end.saturating_sub(block);
        if self.cached.first_fit((block, block_end), size, self.page_size, &[]).is_some() {
            self.cached.take(block, block_end);
            self.blocks.remove(&block);
            self.holes.free(block, block_end.saturating_add(self.page_size));
        }
    }

    /// The block of the cache that an address lies in.
    fn block_of(&self, address: u64) -> Option<(u64, u64)> {
        let (start, end) = self.blocks.range(..=address).next_back()?;
        (address < *end).then_some((*start, *end))
    }

    /// `size` bytes in the lowest hole of the area that begins at `from` or above.
    fn fit(&self, size: u64, align: u64, from: Option<u64>, taken: &[(u64, u64)]) -> Option<(u64, u64)> {
        let windows = [Some(self.windows.direct), self.windows.fallback];
        let windows =
            windows.into_iter().flatten().map(|(start, end)| (from.unwrap_or(start).max(start), end));
        windows.into_iter().find_map(|window| self.holes.first_fit(window, size, align, taken))
    }

    /// `size` bytes in whole pages.
    fn pages(&self, size: u64) -> Option<u64> {
        Some(align_up(size, self.page_size)).filter(|pages| *pages >= size)
    }

    /// `[start, end)` of `size` bytes and the guard page behind them in the lowest hole of a window.
    fn hole_in(&self, window: (u64, u64), size: u64, taken: &[(u64, u64)]) -> Option<(u64, u64)> {
        self.holes.first_fit(window, self.pages(size)?.checked_add(self.page_size)?, self.page_size, taken)
    }

    /// The same in the lowest hole of the area; `None` if there is none.
    fn hole(&self, size: u64, taken: &[(u64, u64)]) -> Option<(u64, u64)> {
        let size = self.pages(size)?.checked_add(self.page_size)?;
        self.fit(size, self.page_size, None, taken)
    }

    /// The block that the cache would be given for `size` bytes, without its guard page: as many whole blocks as are needed,
    /// or just those bytes where there is no room for them (LAYOUT-55).
    fn block(&self, size: u64, from: Option<u64>, taken: &[(u64, u64)]) -> Option<(u64, u64)> {
        let (code_block, pages) = (self.windows.code_block?, self.pages(size)?);
        let whole = Some(align_up(size, code_block)).filter(|whole| *whole >= size);
        let sizes = [whole.map(|whole| (whole, code_block)), Some((pages, self.page_size))];
        let (start, end) = sizes
            .into_iter()
            .flatten()
            .find_map(|(size, align)| self.fit(size.checked_add(self.page_size)?, align, from, taken))?;
        Some((start, end.saturating_sub(self.page_size)))
    }

    /// The place of `size` bytes of code: the lowest in the cache, else in a block that is added to it.
    fn code(&self, size: u64, promised: &mut Promised) -> Option<u64> {
        let pages = self.pages(size)?;
        let mut lowest = self.cached.first_fit((0, u64::MAX), pages, self.page_size, &promised.code);
        for (start, end) in &promised.blocks {
            let fresh =
                Holes::new(*start, *end).first_fit((*start, *end), pages, self.page_size, &promised.code);
            lowest = [lowest, fresh].into_iter().flatten().min();
        }
        if lowest.is_none() {
            let (start, end) = self.block(size, None, &promised.area)?;
            promised.area.push((start, end.saturating_add(self.page_size)));
            promised.blocks.push((start, end));
            lowest = Some((start, start.checked_add(pages)?));
        }
        promised.code.extend(lowest);
        lowest.map(|(start, _)| start)
    }

    /// Where all regions of a layout would go now, in the kernel's order (LAYOUT-50, LAYOUT-55).
    pub fn place(&self, layout: &Layout) -> Option<PerRegion<u64>> {
        let mut bases = PerRegion::default();
        self.place_regions(layout, layout.regions(), &mut bases)?;
        Some(bases)
    }

    /// The places of some regions.
    fn place_regions(
        &self,
        layout: &Layout,
        regions: impl Iterator<Item = Region>,
        bases: &mut PerRegion<u64>,
    ) -> Option<()> {
        let mut promised = Promised::default();
        for region in regions {
            let size = layout.allocated(region);
            let start = if self.windows.caches(region) {
                self.code(size, &mut promised)?
            } else {
                let (start, end) = self.hole(size, &promised.area)?;
                promised.area.push((start, end));
                start
            };
            *bases.get_mut(region) = start;
        }
        Some(())
    }

    /// Where all regions of a layout go if the first one lies at `base`, and what else is taken below is not known: the others take
    /// the lowest holes behind it (LAYOUT-56). Where something lies at `base` already, nothing is known of what is behind it either.
    pub fn place_behind(&self, layout: &Layout, base: u64) -> Option<PerRegion<u64>> {
        let first = layout.regions().next()?;
        let end = base.checked_add(layout.allocated(first))?.checked_add(self.page_size)?;
        let mut bases = PerRegion::default();
        *bases.get_mut(first) = base;
        // LAYOUT-55: code of init follows in the block; what is not code lies where it would anyhow.
        if let Some(block_size) = self.windows.code_block.filter(|_| self.windows.caches(first)) {
            let mut area = self.clone();
            let block = base & !block_size.saturating_sub(1);
            if area.block_of(base).is_none() {
                area.add_block(block, align_up(end, block_size));
            }
            area.cached.take(block, end.saturating_sub(self.page_size));
            area.place_regions(layout, layout.regions().skip(1), &mut bases)?;
            return Some(bases);
        }
        let windows = [Some(self.windows.direct), self.windows.fallback];
        let own = windows.into_iter().flatten().find(|(start, end)| (*start..*end).contains(&base));
        let window = (base, own.map_or(u64::MAX, |(_, end)| end));
        let is_free =
            self.hole_in(window, layout.allocated(first), &[]).is_some_and(|(start, _)| start == base);
        let other = ModuleArea::new(self.windows, self.page_size);
        let area = if is_free { self } else { &other };
        let mut taken = Vec::from([(base, end)]);
        for region in layout.regions().skip(1) {
            let (start, end) = area.hole_in(window, layout.allocated(region), &taken)?;
            *bases.get_mut(region) = start;
            taken.push((start, end));
        }
        Some(bases)
    }

    /// The addresses `[start, end)` that each region of a placed module holds, guard pages included.
    pub fn ranges(&self, layout: &Layout, bases: &PerRegion<u64>) -> Vec<(Region, u64, u64)> {
        let range = |region| {
            let start = bases.get(region);
            let guard = if self.windows.caches(region) { 0 } else { self.page_size };
            (region, start, start.saturating_add(layout.allocated(region)).saturating_add(guard))
        };
        layout.regions().map(range).collect()
    }
}

/// The memory of a module's regions. Its owner gets it back as [`Any`].
pub trait Memory: Any + Debug + Send + Sync {
    /// All bytes of a region; empty if it has none.
    fn region(&self, region: Region) -> &[u8];
    /// All bytes of a region, to be changed.
    fn region_mut(&mut self, region: Region) -> &mut [u8];
    /// All regions that have bytes, to be changed side by side.
    fn regions_mut(&mut self) -> Vec<(Region, &mut [u8])>;

    /// `len` bytes of a place.
    fn at(&self, place: SectionPlace, len: u64) -> Option<&[u8]> {
        crate::bytes::slice(self.region(place.region), place.offset, len)
    }

    /// `len` bytes of a place, to be changed.
    fn at_mut(&mut self, place: SectionPlace, len: u64) -> Option<&mut [u8]> {
        slice_mut(self.region_mut(place.region), place.offset, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the place of one region.
    fn allocate(area: &mut ModuleArea, size: u64) -> Option<u64> {
        let (start, end) = area.hole(size, &[])?;
        area.take(start, end);
        Some(start)
    }

    #[test]
    fn layout_50_lowest_hole_with_a_guard_page() {
        let mut area = ModuleArea::new(
            Windows { direct: (0x1000, 0x10_0000), fallback: None, code_block: None },
            0x1000,
        );
        assert_eq!(allocate(&mut area, 0x1001), Some(0x1000), "LAYOUT-50: first base");
        assert_eq!(
            allocate(&mut area, 0x1000),
            Some(0x4000),
            "LAYOUT-50: two pages and a guard page lie below"
        );
        assert_eq!(allocate(&mut area, 1), Some(0x6000));
        area.holes.free(0x4000, 0x6000);
        assert_eq!(
            allocate(&mut area, 0x1001),
            Some(0x8000),
            "the hole of two pages is too small for two and a guard"
        );
        assert_eq!(
            area.hole(0x1000, &[(0x4000, 0x6000)]),
            Some((0xb000, 0xd000)),
            "what is promised counts as taken"
        );
        assert_eq!(allocate(&mut area, 0x1000), Some(0x4000), "LAYOUT-50: a freed hole is used again");
        assert_eq!(allocate(&mut area, u64::MAX), None);
        assert_eq!(allocate(&mut area, 0x10_0000), None, "LAYOUT-50: the area is finite");
    }

    #[test]
    fn layout_56_the_others_lie_behind_the_first() {
        let mut layout = Layout::new(crate::Generation::ModMemType, 0x1000, 0);
        for (region, size) in [(Region::Text, 0x1800), (Region::Data, 0x10), (Region::Rodata, 0x2000)] {
            *layout.sizes.get_mut(region) = size;
        }
        let place = |area: &ModuleArea, base| {
            let bases = area.place_behind(&layout, base)?;
            Some([Region::Text, Region::Data, Region::Rodata].map(|region| bases.get(region)))
        };
        let mut area = ModuleArea::new(
            Windows { direct: (0x1_0000, 0x10_0000), fallback: None, code_block: None },
            0x1000,
        );
        assert_eq!(
            place(&area, 0x2_0000),
            Some([0x2_0000, 0x2_3000, 0x2_5000]),
            "LAYOUT-56: a guard page behind each"
        );
        area.take(0x2_5000, 0x3_0000);
        assert_eq!(
            place(&area, 0x2_0000),
            Some([0x2_0000, 0x2_3000, 0x3_0000]),
            "LAYOUT-56: not where others lie"
        );
        area.take(0x2_1000, 0x2_2000);
        assert_eq!(
            place(&area, 0x2_0000),
            Some([0x2_0000, 0x2_3000, 0x2_5000]),
            "LAYOUT-56: what was taken is another time's"
        );
        assert_eq!(
            place(&area, 0x40_0000),
            Some([0x40_0000, 0x40_3000, 0x40_5000]),
            "LAYOUT-56: outside of the area"
        );
        assert_eq!(place(&area, 0xf_f000), None, "LAYOUT-56: the area ends");
        assert_eq!(place(&area, u64::MAX - 0xfff), None, "LAYOUT-56: so do addresses");
        let windows = Windows { direct: (0x1_0000, 0x10_0000), fallback: None, code_block: Some(0x1_0000) };
        let area = ModuleArea::new(windows, 0x1000);
        assert_eq!(
            place(&area, 0x3_4000),
            Some([0x3_4000, 0x1_0000, 0x1_2000]),
            "LAYOUT-55, LAYOUT-56: code lies in a block, the rest where it would anyhow"
        );
    }

    #[test]
    fn layout_52_fallback_window() {
        let windows =
            Windows { direct: (0x8000, 0xc000), fallback: Some((0x1000, 0xc000)), code_block: None };
        let mut area = ModuleArea::new(windows, 0x1000);
        assert_eq!(allocate(&mut area, 0x2000), Some(0x8000));
        assert_eq!(
            allocate(&mut area, 0x1000),
            Some(0x1000),
            "LAYOUT-52: one page is left, and needs a guard page"
        );
        assert_eq!(allocate(&mut area, 0x4000), Some(0x3000), "LAYOUT-52");
        assert_eq!(allocate(&mut area, 0x1000), None, "LAYOUT-52: both are full");
    }

    #[test]
    fn layout_55_code_comes_from_blocks() {
        const BLOCK: u64 = 0x1_0000;
        let windows = Windows { direct: (0x1000, 0x10_0000), fallback: None, code_block: Some(BLOCK) };
        let mut area = ModuleArea::new(windows, 0x1000);
        let code = |area: &ModuleArea, size| area.code(size, &mut Promised::default());
        let take = |area: &mut ModuleArea, size| {
            let start = code(area, size).unwrap();
            area.take_region(Region::Text, start, start + align_up(size, 0x1000));
            start
        };
        assert_eq!(take(&mut area, 1), 0x1_0000, "LAYOUT-55: a block, aligned to its size");
        assert_eq!(take(&mut area, 0x1001), 0x1_1000, "LAYOUT-55: no guard page inside");
        assert_eq!(
            take(&mut area, 0xe000),
            0x3_0000,
            "LAYOUT-55: the next block lies behind the guard page of the first"
        );
        assert_eq!(take(&mut area, 0xd000), 0x1_3000, "LAYOUT-55: the lowest free area that is large enough");
        assert_eq!(area.hole(0x1000, &[]), Some((0x1000, 0x3000)), "LAYOUT-50: data takes what lies between");
        assert_eq!(
            area.hole(0xf000, &[]),
            Some((0x4_1000, 0x5_1000)),
            "LAYOUT-55: a block has one guard page"
        );
        area.free(0x1_1000, 0x1_3000);
        assert_eq!(code(&area, 0x2000), Some(0x1_1000), "LAYOUT-55: what is freed is used again");
        area.free(0x1_0000, 0x1_1000);
        area.free(0x1_3000, 0x2_0000);
        assert_eq!(
            area.hole(0x1_0000, &[]),
            Some((0x1000, 0x1_2000)),
            "LAYOUT-55: a block without code is given back"
        );
        assert_eq!(take(&mut area, 0x2_0001), 0x5_0000, "LAYOUT-55: whole blocks");
        assert_eq!(
            code(&area, 0x7_1000),
            Some(0x8_1000),
            "LAYOUT-55: just what is needed where no block has room"
        );
        assert_eq!(code(&area, 0x10_0000), None, "LAYOUT-55: the area is finite");
    }

    #[test]
    fn layout_50_holes_merge_and_split() {
        let mut holes = Holes::new(0x1000, 0x9000);
        let fit = |holes: &Holes, size| holes.first_fit((0, u64::MAX), size, 0x1000, &[]).map(|(at, _)| at);
        holes.take(0x2000, 0x3000);
        holes.take(0x4000, 0x5000);
        assert_eq!(
            [fit(&holes, 0x1000), fit(&holes, 0x2000)],
            [Some(0x1000), Some(0x5000)],
            "LAYOUT-50: lowest"
        );
        holes.free(0x2000, 0x3000);
        assert_eq!(fit(&holes, 0x3000), Some(0x1000), "LAYOUT-50: neighbours merge");
        holes.take(0, 0x8000);
        assert_eq!([fit(&holes, 0x1000), fit(&holes, 0x1001)], [Some(0x8000), None]);
        holes.free(0x1000, 0x9000);
        assert_eq!(holes.holes, BTreeMap::from([(0x1000, 0x9000)]));
    }
}
