//! The addresses that modules take: the module area and the per-cpu reserve (spec 02 §2.4).

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use elf_layout::PerRegion;
use elf_layout::bytes::align_up;
use elf_layout::place::{Holes, ModuleArea, Windows};
use elf_layout::{Layout, Region};

use crate::kallsyms::KernelSymbols;

/// What is free of a kernel's module area and of its per-cpu reserve, and which modules hold the rest.
#[derive(Clone, Debug)]
pub struct AddressSpace {
    /// The module area; `None` before the first module, as its bounds depend on the architecture.
    area: Option<ModuleArea>,
    /// The modules' per-cpu reserve.
    percpu: Reserve,
    /// What the modules of the symbol table show of theirs.
    listed: Listed,
    /// Everything in the module area as the running kernel lists it, whoever holds it: `[start, end)`, guard pages included.
    areas: Option<Vec<(u64, u64)>>,
    /// What each module holds of both, by name.
    held: BTreeMap<Box<[u8]>, Held>,
}

/// The per-cpu reserve of modules (LAYOUT-54, LAYOUT-60).
#[derive(Clone, Debug)]
struct Reserve {
    /// Its bytes.
    size: u64,
    /// What is free of it; `None` if it is not known where it lies, or where in it the area of a module does.
    free: Option<Holes>,
    /// Modules hold parts of it that nobody has told.
    is_untold: bool,
}

/// Is there room in the per-cpu reserve?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Fits,
    /// There is none: ENOMEM.
    Full,
    /// That hangs on where the areas of other modules lie.
    Unknown,
}

/// What a module takes of the per-cpu reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PercpuArea {
    /// Bytes.
    pub size: u64,
    /// Its address (`mod->percpu`), if that is known.
    pub start: Option<u64>,
}

impl PercpuArea {
    /// Up to where it reaches.
    fn range(self) -> Option<(u64, u64)> {
        self.start.map(|start| (start, start.saturating_add(self.size)))
    }
}

impl Reserve {
    fn booted(symbols: &KernelSymbols) -> Self {
        // PERCPU_MODULE_RESERVE: more where allocations are profiled.
        let size = if symbols.address("mem_alloc_profiling_key").is_some() { 64 << 10 } else { 8 << 10 };
        let start = symbols.address("__per_cpu_end");
        Reserve {
            size,
            free: start.map(|start| Holes::new(start, start.saturating_add(size))),
            is_untold: false,
        }
    }

    fn take(&mut self, area: PercpuArea) {
        match (&mut self.free, area.range()) {
            (Some(free), Some((start, end))) => free.take(start, end),
            _ => self.free = None,
        }
    }
}

/// How far the modules that a symbol table lists reach: their exact regions are not known.
#[derive(Clone, Debug, Default)]
struct Listed {
    /// Last addresses of pages with code.
    code: BTreeSet<u64>,
    /// Highest address of anything else.
    last_other: Option<u64>,
    /// What they hold is told exactly elsewhere.
    is_forgotten: bool,
}

/// The addresses that a module holds.
#[derive(Clone, Debug)]
struct Held {
    /// Regions with their guard pages.
    ranges: Vec<(Region, u64, u64)>,
    /// What of them is code.
    code: Vec<(u64, u64)>,
    percpu: Option<PercpuArea>,
}

/// The end of the page of the last symbol, and of one more that its end may reach into.
fn reached(last: u64, page_size: u64) -> u64 {
    align_up(last, page_size).saturating_add(page_size)
}

impl AddressSpace {
    /// That of a kernel just booted, with the modules that its symbol table lists.
    pub fn booted(symbols: &KernelSymbols) -> Self {
        let percpu = Reserve::booted(symbols);
        let mut listed = Listed::default();
        // Most tables list none, and have many symbols.
        let lists_any = symbols.modules().next().is_some();
        for symbol in lists_any.then(|| symbols.iter()).into_iter().flatten().filter(|s| s.module.is_some()) {
            if symbol.kind.eq_ignore_ascii_case(&b't') {
                // One of each page is enough.
                listed.code.insert(symbol.address | 0xfff);
            } else {
                listed.last_other = listed.last_other.max(Some(symbol.address));
            }
        }
        AddressSpace { area: None, percpu, listed, areas: None, held: BTreeMap::new() }
    }

    /// What the running kernel lists of its memory (`/proc/vmallocinfo`): ranges `[start, end)` with their guard pages.
    pub fn show(&mut self, areas: Vec<(u64, u64)>) {
        self.area = None;
        self.areas = Some(areas);
    }

    /// What a module that is loaded holds of the per-cpu reserve; `None` if nothing.
    pub fn hold_percpu(&mut self, name: &[u8], area: Option<PercpuArea>) {
        if let Some(area) = area {
            self.percpu.take(area);
        }
        let nothing = Held { ranges: Vec::new(), code: Vec::new(), percpu: None };
        self.held.entry(name.into()).or_insert(nothing).percpu = area;
    }

    /// Is it known what a module holds of the per-cpu reserve?
    pub fn is_held(&self, name: &[u8]) -> bool {
        self.held.contains_key(name)
    }

    /// Modules that are loaded hold parts of the per-cpu reserve, and it is not known which.
    pub fn forget_percpu(&mut self) {
        self.percpu.free = None;
        self.percpu.is_untold = true;
    }

    /// Bytes of the per-cpu reserve, for all modules together.
    pub fn percpu_reserve(&self) -> u64 {
        self.percpu.size
    }

    /// Is there room for a per-cpu area of so many bytes beside those that are held (LAYOUT-60)?
    pub fn percpu_room(&self, size: u64, align: u64) -> Room {
        if self.percpu.free.is_some() {
            return if self.percpu_place(size, align).is_some() { Room::Fits } else { Room::Full };
        }
        let held = || self.held.values().filter_map(|held| held.percpu);
        let taken = held().map(|area| area.size).fold(0, u64::saturating_add);
        let free = self.percpu.size.saturating_sub(taken);
        // So many areas leave at most one piece more; one of these is no smaller than all are in the mean.
        let pieces = (held().count() as u64).saturating_add(1);
        let largest = free.checked_div(pieces).unwrap_or(0);
        match size {
            _ if size > free => Room::Full,
            _ if size.saturating_add(align) <= largest && !self.percpu.is_untold => Room::Fits,
            _ => Room::Unknown,
        }
    }

    /// The modules that the symbol table lists take what [`AddressSpace::take`] says, not all up to their last symbol.
    pub fn forget_listed(&mut self) {
        self.listed.is_forgotten = true;
    }

    /// The module area; `windows` are its bounds, of pages of `page_size` bytes. The modules of the symbol
    /// table take its lower part up to their last symbol, as their exact regions are not known; their code takes so much of
    /// each block of the cache that it is in (LAYOUT-55).
    pub fn area(&self, windows: impl FnOnce() -> Windows, page_size: u64) -> Cow<'_, ModuleArea> {
        if let Some(area) = &self.area {
            return Cow::Borrowed(area);
        }
        let windows = windows();
        let mut area = ModuleArea::new(windows, page_size);
        let (start, end) = windows.direct;
        let inside = |address: &u64| (start..end).contains(address);
        if let Some(areas) = &self.areas {
            let inside = || areas.iter().filter(|(from, _)| inside(from));
            for (from, to) in inside() {
                match windows.code_block.and_then(|size| self.block_of_code(*from, *to, size, page_size)) {
                    Some(last) => {
                        area.add_block(*from, to.saturating_sub(page_size));
                        let held = if self.listed.is_forgotten { *from } else { last.min(*to) };
                        area.take(*from, held);
                    }
                    None => area.take(*from, *to),
                }
            }
            // KASLR leaves a gap in front of the first.
            let lowest = inside().map(|(from, _)| *from).min();
            lowest.iter().for_each(|lowest| area.take(start, *lowest));
            return Cow::Owned(area);
        }
        let reached = |last| reached(last, page_size);
        let code = Some(&self.listed.code).filter(|_| !self.listed.is_forgotten);
        let last_code = code.and_then(|code| code.iter().copied().rfind(inside));
        let last_other = self.listed.last_other.filter(|_| !self.listed.is_forgotten).filter(inside);
        let last = match windows.code_block {
            Some(size) => {
                let pages = code.into_iter().flatten().filter(|page| inside(page));
                let blocks: BTreeSet<u64> = pages.map(|page| page & !size.saturating_sub(1)).collect();
                for block in blocks {
                    let end = block.saturating_add(size);
                    let last = self.listed.code.range(block..end).next_back();
                    area.add_block(block, end);
                    area.take(block, last.map_or(end, |last| reached(*last)));
                }
                last_other
            }
            None => last_code.max(last_other),
        };
        if let Some(last) = last {
            area.take(start, reached(last).saturating_add(page_size));
        }
        Cow::Owned(area)
    }

    /// Is what the kernel lists as `[from, to)` a block of the cache of code (LAYOUT-55)? It is listed whole, with a guard page.
    /// Then so far listed code reaches in it. Other blocks of that size are of BPF programs, which hold no code of modules.
    fn block_of_code(&self, from: u64, to: u64, size: u64, page_size: u64) -> Option<u64> {
        let bytes = to.checked_sub(from)?.checked_sub(page_size)?;
        let is_block = bytes != 0 && bytes.is_multiple_of(size) && from.is_multiple_of(size);
        let last = is_block.then(|| self.listed.code.range(from..to).next_back())?;
        last.map(|last| reached(*last, page_size))
    }

    /// Is there code at an address of a module, or data? `None` if it is not known where the module lies.
    pub fn is_code(&self, module: &[u8], address: u64) -> Option<bool> {
        let held = self.held.get(module)?;
        let holds = |start: u64, end: u64| (start..end).contains(&address);
        held.ranges.iter().find(|(_, start, end)| holds(*start, *end))?;
        Some(held.code.iter().any(|(start, end)| holds(*start, *end)))
    }

    /// `pcpu_alloc_reserved`: address and end of a per-cpu area of so many bytes: first fit by alignment
    /// (LAYOUT-54, LAYOUT-60). `None` if there is no room, or nothing is known of the reserve.
    pub fn percpu_place(&self, size: u64, align: u64) -> Option<(u64, u64)> {
        self.percpu.free.as_ref()?.first_fit((0, u64::MAX), size, align, &[])
    }

    /// A module gets the regions of its layout at these bases, and a per-cpu area. `windows` are the bounds of the
    /// module area, as in [`AddressSpace::area`].
    pub fn take(
        &mut self,
        name: &[u8],
        windows: impl FnOnce() -> Windows,
        layout: &Layout,
        bases: &PerRegion<u64>,
        percpu: Option<PercpuArea>,
    ) {
        let area = self.area.take();
        let mut area = area.unwrap_or_else(|| self.area(windows, layout.page_size).into_owned());
        let ranges = area.ranges(layout, bases);
        ranges.iter().for_each(|(region, start, end)| area.take_region(*region, *start, *end));
        self.area = Some(area);
        if let Some(area) = percpu {
            self.percpu.take(area);
        }
        let code = layout.regions().filter(|region| region.is_executable()).map(|region| {
            // Before v6.4 text is the first part of an area.
            let [core, init] = layout.marks;
            let size = match region {
                Region::Core => core.text_size,
                Region::Init => init.text_size,
                _ => layout.allocated(region),
            };
            let start = bases.get(region);
            (start, start.saturating_add(size))
        });
        self.held.insert(name.into(), Held { ranges, code: code.collect(), percpu });
    }

    /// Frees the memory of init that a module holds (`do_free_init`, LIFE-14).
    pub fn free_init(&mut self, name: &[u8]) {
        if let Some(held) = self.free_ranges(name, Region::is_init) {
            self.held.insert(name.into(), held);
        }
    }

    /// Frees all that a module holds of both (`free_module`, LIFE-37).
    pub fn free(&mut self, name: &[u8]) {
        let held = self.free_ranges(name, |_| true);
        let percpu = held.and_then(|held| held.percpu);
        if let (Some(free), Some((start, end))) = (&mut self.percpu.free, percpu.and_then(PercpuArea::range))
        {
            free.free(start, end);
        }
    }

    /// Frees some regions of a module. What it holds still is given back, and no longer noted.
    fn free_ranges(&mut self, name: &[u8], which: impl Fn(Region) -> bool) -> Option<Held> {
        let mut held = self.held.remove(name)?;
        let (go, stay) = held.ranges.into_iter().partition(|(region, ..)| which(*region));
        held.ranges = stay;
        let go: Vec<(Region, u64, u64)> = go;
        if let Some(area) = &mut self.area {
            go.iter().for_each(|(_, start, end)| area.free(*start, *end));
        }
        Some(held)
    }
}
