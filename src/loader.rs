//! A kernel from load to load: its module list and its address space.

use std::borrow::Cow;

use elf_layout::bytes::align_up;
use elf_layout::elf::SymFields;
use elf_layout::layout::PerRegion;
use elf_layout::place::ModuleArea;
use elf_layout::{Findings, Layout, LoadInfo, Placement, Region};
use reloc::Architecture;
use symres::{Kernel, LoadedModule, Taints};

use crate::image::Image;
use crate::load::{Args, Load, Opened, load_module};
use crate::running::{Machine, Running};

/// Where a module is to go.
#[derive(Clone, Debug, Default)]
pub enum Place {
    /// Where the kernel itself would put it (LAYOUT-50).
    #[default]
    Kernel,
    /// Regions after each other from this address.
    Base(u64),
    /// These regions at these addresses, the others where the kernel would put them.
    Regions(Vec<(Region, u64)>),
}

/// Memory that one load leaves to the next, for who loads many modules one after the other.
#[derive(Debug, Default)]
pub struct Workspace {
    pub(crate) image: Option<Image>,
}

impl Workspace {
    /// Takes the memory of a load that is no longer needed.
    pub fn recycle(&mut self, load: Load<'_>) {
        self.image = Some(load.image);
    }
}

/// A kernel with its modules and address space: what persists between loads.
#[derive(Debug)]
pub struct Loader {
    /// The kernel, with the modules loaded so far.
    pub kernel: Kernel,
    /// What is known of how it runs.
    pub machine: Machine,
    area: Option<ModuleArea>,
    /// Next free address of the modules' per-cpu reserve, once known (LAYOUT-54).
    percpu_next: Option<u64>,
    /// Highest symbol of the modules that the symbol table lists.
    last_listed: Option<u64>,
}

impl Loader {
    /// A kernel just booted, with the modules that its symbol table lists.
    pub fn new(kernel: Kernel) -> Self {
        // LAYOUT-54
        let percpu_next = kernel.symbols.address("__per_cpu_end");
        let of_modules = kernel.symbols.iter().filter(|s| s.module.is_some());
        let last_listed = of_modules.map(|s| s.address).max();
        Loader { kernel, machine: Machine::default(), area: None, percpu_next, last_listed }
    }

    /// Loads a module, without adding it to the kernel. `place` and `percpu` override where it
    /// goes. The placement that the kernel itself chooses is that of the next free addresses.
    pub fn load<'d>(
        &'d self,
        opened: &'d Opened<'_>,
        args: &Args<'_>,
        place: &Place,
        percpu: Option<u64>,
        said: &mut Findings,
    ) -> Option<Load<'d>> {
        self.load_in(&mut Workspace::default(), opened, args, place, percpu, said)
    }

    /// As [`Loader::load`], in memory that earlier loads have left ([`Workspace::recycle`]).
    pub fn load_in<'d>(
        &'d self,
        workspace: &mut Workspace,
        opened: &'d Opened<'_>,
        args: &Args<'_>,
        place: &Place,
        percpu: Option<u64>,
        said: &mut Findings,
    ) -> Option<Load<'d>> {
        let choose = |arch: &dyn Architecture, info: &LoadInfo<'_>, layout: &Layout| {
            let bases = match place {
                Place::Base(base) => Placement::consecutive(layout, *base).bases,
                Place::Kernel => self.place(arch, info, layout)?,
                Place::Regions(given) => {
                    let mut bases = self.place(arch, info, layout).unwrap_or_default();
                    for (region, base) in given {
                        *bases.get_mut(*region) = *base;
                    }
                    bases
                }
            };
            let percpu = percpu.or_else(|| Some(self.percpu_place(info)?.0));
            Some(Placement { bases, percpu })
        };
        let running = Running { kernel: &self.kernel, machine: &self.machine };
        load_module(&running, opened, args, choose, workspace, said)
    }

    /// Where the kernel would put a module next (LAYOUT-50); where it lies, if the symbol table
    /// lists it as loaded.
    pub fn place(
        &self,
        arch: &dyn Architecture,
        info: &LoadInfo<'_>,
        layout: &Layout,
    ) -> Option<PerRegion<u64>> {
        let mut bases = self.area(arch).into_owned().place(layout)?;
        if self.kernel.module(info.file.name()).is_some_and(|m| m.listed) {
            for (region, base) in self.listed_bases(info, layout) {
                *bases.get_mut(region) = base;
            }
        }
        Some(bases)
    }

    /// Regions of a module that the symbol table lists, by one symbol in each: its address there less
    /// its place in the region.
    fn listed_bases(&self, info: &LoadInfo<'_>, layout: &Layout) -> Vec<(Region, u64)> {
        let file = info.file;
        let mut bases = Vec::new();
        for symbol in file.symbols().iter().skip(1) {
            let Some(place) = layout.place(usize::from(symbol.shndx())) else { continue };
            if bases.iter().any(|(region, _)| *region == place.region) {
                continue;
            }
            let name = file.symbol_name(symbol);
            let mut of_module = self.kernel.symbols.named(name).filter(|s| s.module == Some(file.name()));
            // A name that the module has twice tells nothing.
            let (Some(found), None) = (of_module.next(), of_module.next()) else { continue };
            let base = found.address.wrapping_sub(place.offset).wrapping_sub(symbol.value());
            if base.is_multiple_of(layout.page_size) {
                bases.push((place.region, base));
            }
        }
        bases
    }

    /// Keeps a module that was loaded: its exports, its memory but for init, its per-cpu area.
    pub fn insert(&mut self, loaded: Kept) {
        let Kept { module, arch, layout, placement, percpu_end, taints } = loaded;
        let mut area = self.area(arch).into_owned();
        for region in layout.regions() {
            let base = placement.bases.get(region);
            let end = base.saturating_add(layout.allocated(region)).saturating_add(layout.page_size);
            area.take(base, end);
        }
        area.free_init(&layout, &placement.bases);
        self.area = Some(area);
        self.percpu_next = percpu_end.or(self.percpu_next);
        self.kernel.taints = taints.after();
        self.kernel.insert_module(module);
    }

    /// The module area: the modules of the symbol table take its lower part up
    /// to their last symbol, as their exact regions are not known.
    fn area(&self, arch: &dyn Architecture) -> Cow<'_, ModuleArea> {
        if let Some(area) = &self.area {
            return Cow::Borrowed(area);
        }
        let config = &self.kernel.config;
        let windows = arch.module_area(config, &|name| self.kernel.symbols.address(name));
        let (start, end) = windows.direct;
        let mut area = ModuleArea::new(windows, config.page_size);
        if let Some(last) = self.last_listed.filter(|a| (start..end).contains(a)) {
            // The page of the last symbol, one more that its end may reach into, a guard page.
            area.take(
                start,
                align_up(last, config.page_size).saturating_add(config.page_size.saturating_mul(2)),
            );
        }
        Cow::Owned(area)
    }

    /// Address and end of the module's per-cpu area: first fit by alignment (LAYOUT-54, LAYOUT-60).
    fn percpu_place(&self, info: &LoadInfo<'_>) -> Option<(u64, u64)> {
        let pcpu = info.file.index().pcpu;
        let section = info.sechdrs.get(pcpu).filter(|s| pcpu != 0 && s.sh_size != 0)?;
        let align = section.sh_addralign.clamp(1, self.kernel.config.page_size);
        let at = align_up(self.percpu_next?, align);
        // PCPU_MIN_ALLOC_SIZE
        Some((at, align_up(at.checked_add(section.sh_size)?, 4)))
    }
}

/// What stays of a load when the module is kept in the kernel.
#[derive(Debug)]
pub struct Kept {
    module: LoadedModule,
    arch: &'static dyn Architecture,
    layout: Layout,
    placement: Placement,
    percpu_end: Option<u64>,
    taints: Taints,
}

impl Loader {
    /// What to keep of a load, so that [`Loader::insert`] can take it once the load is dropped.
    pub fn keep(&self, load: &Load<'_>) -> Kept {
        let percpu_end = self.percpu_place(&load.info).map(|(_, end)| end);
        Kept {
            module: load.loaded_module(),
            arch: load.arch,
            layout: load.layout.clone(),
            placement: load.placement,
            percpu_end,
            taints: load.resolution.taints,
        }
    }
}
