//! A kernel from load to load: its module list and its address space.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use elf_layout::bytes::align_up;
use elf_layout::elf::SymFields;
use elf_layout::layout::PerRegion;
use elf_layout::place::{Holes, ModuleArea};
use elf_layout::{Findings, Generation, Layout, LoadInfo, Placement, Region};
use reloc::Architecture;
use symres::{Exit, Init, Kernel, LoadedModule, Taint, Taints};

use crate::image::{Image, Spare, Touching};
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
    pub(crate) spare: Option<Spare>,
}

impl Workspace {
    /// Takes the memory of a load that is no longer needed.
    pub fn recycle(&mut self, load: Load<'_>) {
        let memory: Box<dyn Any> = load.module.memory;
        self.spare = memory.downcast::<Image>().ok().map(|image| Spare::from(*image));
    }

    /// With memory for a first load, none of it there yet.
    pub fn fresh() -> Self {
        Workspace { spare: Spare::fresh() }
    }

    /// Lets threads bring that memory in.
    pub fn touching(&mut self) -> Touching<'_> {
        Touching::new(self.spare.as_mut())
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
    /// What is free of the modules' per-cpu reserve, if it is known where that is (LAYOUT-54).
    percpu: Option<Holes>,
    /// Highest symbol of the modules that the symbol table lists.
    last_listed: Option<u64>,
    /// What each module holds of both, by name.
    held: BTreeMap<Box<[u8]>, Held>,
}

/// The addresses that a module holds.
#[derive(Debug)]
struct Held {
    /// Regions with their guard pages.
    ranges: Vec<(Region, u64, u64)>,
    percpu: Option<(u64, u64)>,
}

impl Loader {
    /// A kernel just booted, with the modules that its symbol table lists.
    pub fn new(kernel: Kernel) -> Self {
        // LAYOUT-54
        let percpu = kernel.symbols.address("__per_cpu_end").map(|start| Holes::new(start, u64::MAX));
        let of_modules = kernel.symbols.iter().filter(|s| s.module.is_some());
        let last_listed = of_modules.map(|s| s.address).max();
        let machine = Machine::default();
        Loader { kernel, machine, area: None, percpu, last_listed, held: BTreeMap::new() }
    }

    /// The same kernel with these modules loaded as well, oldest first. Where they lie is not known: they take
    /// no room in its address space; nor do they taint it (SET-6).
    #[must_use]
    pub fn with_modules(&self, modules: impl IntoIterator<Item = Arc<LoadedModule>>) -> Loader {
        let mut kernel = self.kernel.clone();
        kernel.insert_modules(modules);
        let (area, percpu, last_listed) = (self.area.clone(), self.percpu.clone(), self.last_listed);
        let (errata, cpu_caps) = (self.machine.errata.clone(), self.machine.cpu_caps.clone());
        let machine = Machine { errata, cpu_caps, ..Machine::default() };
        Loader { kernel, machine, area, percpu, last_listed, held: BTreeMap::new() }
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
        let mut bases = self.area(arch).place(layout)?;
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

    /// `init_module`: loads a module where the kernel would put it, and calls its init function, which
    /// ends as `init` says. What is refused leaves nothing behind but what it made of the kernel's taints.
    pub fn insmod(&mut self, opened: &Opened<'_>, args: &Args<'_>, init: Init) -> Findings {
        let mut said = opened.said.clone();
        let kept = self.load(opened, args, &Place::Kernel, None, &mut said).map(|load| self.keep(&load));
        if let Some(kept) = kept {
            self.insert(kept, init, &mut said);
        }
        said
    }

    /// `delete_module`: removes a module, whose exit function ends as `exit` says.
    pub fn rmmod(&mut self, name: &[u8], force: bool, exit: Exit) -> Findings {
        let mut said = Findings::new();
        if self.kernel.delete_module(name, force, exit, &mut said) {
            self.free(name, |_| true);
        }
        said
    }

    /// What follows the loading itself: the module gets its memory, enters the list, and its init function
    /// is called (LIFE-10 to LIFE-15). A load that was refused ends here (LIFE-45).
    pub fn insert(&mut self, loaded: Kept, init: Init, said: &mut Findings) {
        let Kept { module, depends, arch, layout, placement, percpu, taints, coming } = loaded;
        self.kernel.taints = taints.after();
        if !coming {
            return;
        }
        let name = module.name.clone();
        self.kernel.prepare_coming_module(module, &depends);
        if said.refused() {
            return self.kernel.coming_cleanup(&name);
        }
        let mut area = self.area.take().unwrap_or_else(|| self.area(arch).into_owned());
        let ranges = area.ranges(&layout, &placement.bases);
        ranges.iter().for_each(|(_, start, end)| area.take(*start, *end));
        self.area = Some(area);
        if let (Some(reserve), Some((start, end))) = (&mut self.percpu, percpu) {
            reserve.take(start, end);
        }
        self.held.insert(name.clone(), Held { ranges, percpu });
        if self.kernel.do_init_module(&name, init, said) {
            self.free(&name, Region::is_init);
        } else if self.kernel.module(&name).is_none() {
            self.free(&name, |_| true);
        }
    }

    /// Frees what a module holds of the module area; with its last region its per-cpu area goes too.
    fn free(&mut self, name: &[u8], which: impl Fn(Region) -> bool) {
        let Some(mut held) = self.held.remove(name) else { return };
        let (go, stay) = held.ranges.into_iter().partition(|(region, ..)| which(*region));
        held.ranges = stay;
        let go: Vec<(Region, u64, u64)> = go;
        if let Some(area) = &mut self.area {
            go.iter().for_each(|(_, start, end)| area.free(*start, *end));
        }
        if self.kernel.module(name).is_some() {
            self.held.insert(name.into(), held);
        } else if let (Some(reserve), Some((start, end))) = (&mut self.percpu, held.percpu) {
            reserve.free(start, end);
        }
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
        // PCPU_MIN_ALLOC_SIZE
        let align = section.sh_addralign.clamp(4, self.kernel.config.page_size);
        let size = Some(align_up(section.sh_size, 4)).filter(|size| *size != 0)?;
        self.percpu.as_ref()?.first_fit((0, u64::MAX), size, align, &[])
    }
}

/// What stays of a load when the module is kept in the kernel.
#[derive(Debug)]
pub struct Kept {
    module: LoadedModule,
    depends: Vec<Box<[u8]>>,
    arch: &'static dyn Architecture,
    layout: Layout,
    placement: Placement,
    percpu: Option<(u64, u64)>,
    taints: Taints,
    coming: bool,
}

impl Loader {
    /// What to keep of a load, so that [`Loader::insert`] can take it once the load is dropped.
    pub fn keep(&self, load: &Load<'_>) -> Kept {
        Kept {
            module: loaded_module(load),
            depends: load.resolution.depends.iter().map(|d| Box::from(*d)).collect(),
            arch: load.arch,
            layout: load.module.layout.clone(),
            placement: load.module.placement,
            percpu: self.percpu_place(&load.module.info),
            taints: load.taints,
            coming: load.coming,
        }
    }
}

/// The module as the kernel keeps it in its list.
fn loaded_module(load: &Load<'_>) -> LoadedModule {
    let (layout, bases) = (&load.module.layout, load.bases());
    // Since v6.4 (mod_mem_type) regions are as large as their pages.
    let (text, whole_pages) = match layout.generation {
        Generation::ModMemType => (Region::Text, true),
        Generation::CoreInit => (Region::Core, false),
    };
    let size = |region| if whole_pages { layout.allocated(region) } else { layout.sizes.get(region) };
    let sum = |init| {
        let regions = layout.regions().filter(|r| r.is_init() == init);
        regions.map(|r| size(r) as u32).fold(0, u32::wrapping_add)
    };
    LoadedModule {
        exports: load.export_table(),
        proprietary: load.taints.module_has(Taint::ProprietaryModule),
        has_init: load.module.init().is_some(),
        has_exit: load.module.exit().is_some(),
        taints: load.taints.module_mask(),
        base: bases.get(text),
        size: sum(false),
        init_size: sum(true),
        ..LoadedModule::named(load.module.info.file.name())
    }
}
