//! Loading and removing modules: what the system calls do.

use std::borrow::Cow;
use std::sync::Arc;

use elf_layout::bytes::align_up;
use elf_layout::elf::SymFields;
use elf_layout::place::{ModuleArea, Windows};
use elf_layout::{Findings, Generation, Layout, LoadInfo, Machine, ModuleFile, PerRegion, Placement, Region};
use kernel::space::PercpuArea;
use kernel::{Exit, Init, Kernel, KernelDescription, KernelState, LoadedModule, Taint, Taints};
use reloc::{ARCHITECTURES, Architecture, Cpu};
use symres::LoadFlags;

use crate::attempt::Attempt;
use crate::image::Workspace;
use crate::load::{Args, LaidOut, Load, Opened, lay_out, load_module, open_for};
use crate::watch::Watch;

/// Where a module is to go.
#[derive(Clone, Debug, Default)]
pub enum Place {
    /// Where the kernel itself would put it (LAYOUT-50).
    #[default]
    Kernel,
    /// The first region at this address, the others where the kernel would then put them (LAYOUT-56).
    Base(u64),
    /// These regions at these addresses, the others where the kernel would put them.
    Regions(Vec<(Region, u64)>),
}

/// A kernel from load to load: as it is described, and as it runs with the modules that were loaded.
#[derive(Clone, Debug)]
pub struct Loader {
    /// The kernel, with the modules loaded so far.
    pub kernel: Kernel,
    /// The architectures that it can load modules of.
    architectures: &'static [&'static dyn Architecture],
}

impl From<Kernel> for Loader {
    fn from(kernel: Kernel) -> Self {
        Loader { kernel, architectures: ARCHITECTURES }
    }
}

impl Loader {
    /// A kernel of this description in this state.
    pub fn new(description: impl Into<Arc<KernelDescription>>, state: KernelState) -> Self {
        Loader::from(Kernel::new(description, state))
    }

    /// A kernel just booted, with the modules that its symbol table lists.
    pub fn booted(description: impl Into<Arc<KernelDescription>>) -> Self {
        Loader::from(Kernel::booted(description))
    }

    /// The same with these architectures instead of those of this project ([`reloc::ARCHITECTURES`]): any may come from
    /// elsewhere.
    #[must_use]
    pub fn with_architectures(self, architectures: &'static [&'static dyn Architecture]) -> Self {
        Loader { architectures, ..self }
    }

    /// `module_sig_check` and the ELF checks, as [`crate::load::open`], for the architectures of this loader.
    pub fn open<'d>(&self, file: &'d [u8], flags: LoadFlags) -> Opened<'d> {
        let machines: Vec<&'static Machine> = self.architectures.iter().map(|arch| arch.machine()).collect();
        open_for(file, &self.kernel, flags, &machines)
    }

    /// The same kernel with these modules loaded as well, oldest first. Where they lie is not known: they take
    /// no room in its address space; nor do they taint it (SET-6).
    #[must_use]
    pub fn with_modules(&self, modules: impl IntoIterator<Item = Arc<LoadedModule>>) -> Loader {
        let mut kernel = self.kernel.clone();
        kernel.state.insert_modules(modules);
        Loader { kernel, ..*self }
    }

    /// Loads a module, without adding it to the kernel. `place` and `percpu` override where it
    /// goes. The placement that the kernel itself chooses is that of the next free addresses.
    pub fn load<'d>(
        &'d self,
        opened: &'d Opened<'_>,
        args: &Args<'_>,
        place: &Place,
        percpu: Option<u64>,
    ) -> Attempt<'d> {
        self.load_in(&mut Workspace::default(), opened, args, place, percpu)
    }

    /// As [`Loader::load`], in memory that earlier loads have left ([`Workspace::recycle`]).
    pub fn load_in<'d>(
        &'d self,
        workspace: &mut Workspace,
        opened: &'d Opened<'_>,
        args: &Args<'_>,
        place: &Place,
        percpu: Option<u64>,
    ) -> Attempt<'d> {
        self.load_watched(workspace, opened, args, place, percpu, Watch::default())
    }

    /// As [`Loader::load_in`], where `watch` is told of each step.
    pub fn load_watched<'d>(
        &'d self,
        workspace: &mut Workspace,
        opened: &'d Opened<'_>,
        args: &Args<'_>,
        place: &Place,
        percpu: Option<u64>,
        mut watch: Watch<'_>,
    ) -> Attempt<'d> {
        let mut said = opened.said.clone();
        let choose = |arch: &dyn Architecture, info: &LoadInfo<'_>, layout: &Layout| {
            let bases = match place {
                Place::Base(base) => self.place_at(arch, info, layout, *base)?,
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
        let machine = opened.module.as_ref().map(ModuleFile::e_machine);
        let arch = self.architectures.iter().copied().find(|arch| Some(arch.e_machine()) == machine);
        let load = load_module(&self.kernel, arch, opened, args, choose, workspace, &mut said, &mut watch);
        Attempt::new(load, said)
    }

    /// Where the kernel would put a module next (LAYOUT-50); where it lies, if the symbol table
    /// lists it as loaded.
    pub fn place(
        &self,
        arch: &dyn Architecture,
        info: &LoadInfo<'_>,
        layout: &Layout,
    ) -> Option<PerRegion<u64>> {
        let is_listed = self.kernel.module(info.file.name()).is_some_and(|m| m.listed);
        let listed = if is_listed { self.listed_bases(info, layout) } else { Vec::new() };
        let mut area = self.area(arch);
        // The regions of which nothing is listed do not lie over those of which something is.
        for (region, base) in &listed {
            area.to_mut().take(*base, base.saturating_add(layout.allocated(*region)));
        }
        let mut bases = area.place(layout)?;
        for (region, base) in listed {
            *bases.get_mut(region) = base;
        }
        Some(bases)
    }

    /// A module that is loaded holds what its file has of the per-cpu reserve, where the symbol table shows it. False if that is no
    /// module.
    pub fn hold_percpu(&mut self, opened: &Opened<'_>) -> bool {
        let Some(file) = &opened.module else { return false };
        let info = LoadInfo::rewrite_section_headers(file, &self.kernel.config);
        let area = self.percpu_area(&info, self.listed_percpu(&info));
        self.kernel.state.space.hold_percpu(file.name(), area);
        true
    }

    /// A module that is loaded holds the regions that the symbol table shows of it. False if the table
    /// does not show all that stays of it, or if that is no module. With `areas_are_shown` the running kernel lists
    /// everything in the module area: then code in blocks of a cache is all that has to be found.
    pub fn hold(&mut self, opened: &Opened<'_>, areas_are_shown: bool) -> bool {
        let Some(file) = &opened.module else { return false };
        let machine = file.e_machine();
        let Some(arch) = self.architectures.iter().copied().find(|arch| arch.e_machine() == machine) else {
            return false;
        };
        let mut said = Findings::new();
        let config = &self.kernel.config;
        let Some(LaidOut { info, layout, .. }) = lay_out(config, file, arch, Cpu::default(), &mut said)
        else {
            return false;
        };
        let shown = self.listed_bases(&info, &layout);
        let mut bases = PerRegion::default();
        shown.iter().for_each(|(region, base)| *bases.get_mut(*region) = *base);
        let windows = module_area(arch, &self.kernel.description);
        // LAYOUT-55: of an area that is shown, only what is free of a block of code is not known.
        let is_shown = |region| areas_are_shown && windows.code_block.is_some() && !windows.caches(region);
        let is_asked = |region: &Region| !region.is_init() && !is_shown(*region);
        if layout.regions().filter(is_asked).any(|region| shown.iter().all(|(known, _)| *known != region)) {
            return false;
        }
        let percpu = self.percpu_area(&info, self.listed_percpu(&info));
        let space = &mut self.kernel.state.space;
        space.take(file.name(), || windows, &layout, &bases, percpu);
        space.free_init(file.name());
        true
    }

    /// Where the regions lie if the first one lies at `base`: where the kernel would put them if it puts that one there, else
    /// behind it (LAYOUT-56).
    fn place_at(
        &self,
        arch: &dyn Architecture,
        info: &LoadInfo<'_>,
        layout: &Layout,
        base: u64,
    ) -> Option<PerRegion<u64>> {
        let first = layout.regions().next()?;
        let own = self.place(arch, info, layout).filter(|bases| bases.get(first) == base);
        own.or_else(|| self.area(arch).place_behind(layout, base))
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
            // A name that the module has twice shows no address.
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
        let (load, mut said) = self.load(opened, args, &Place::Kernel, None).whatever_it_says();
        let kept = load.map(|load| self.keep(&load));
        if let Some(kept) = kept {
            self.insert(kept, init, &mut said);
        }
        said
    }

    /// `delete_module`: removes a module, whose exit function ends as `exit` says.
    pub fn rmmod(&mut self, name: &[u8], force: bool, exit: Exit) -> Findings {
        let mut said = Findings::new();
        if self.kernel.delete_module(name, force, exit, &mut said) {
            self.kernel.state.space.free(name);
        }
        said
    }

    /// What follows the loading itself: the module gets its memory, enters the list, and its init function
    /// is called (LIFE-10 to LIFE-15). A load that was refused ends here (LIFE-45).
    pub fn insert(&mut self, loaded: Kept, init: Init, said: &mut Findings) {
        let Kept { module, depends, arch, layout, placement, percpu, taints, coming, initcall_blacklisted } =
            loaded;
        self.kernel.state.taints = taints.after();
        if !coming {
            return;
        }
        let name = module.name.clone();
        self.kernel.prepare_coming_module(module, &depends);
        if initcall_blacklisted {
            return self.kernel.fail_init(&name);
        }
        if said.refused() {
            return self.kernel.coming_cleanup(&name);
        }
        let Kernel { description, state } = &mut self.kernel;
        let windows = || module_area(arch, description);
        state.space.take(&name, windows, &layout, &placement.bases, percpu);
        if self.kernel.do_init_module(&name, init, said) {
            self.kernel.state.space.free_init(&name);
        } else if self.kernel.module(&name).is_none() {
            self.kernel.state.space.free(&name);
        }
    }

    /// The module area as it is now.
    fn area(&self, arch: &dyn Architecture) -> Cow<'_, ModuleArea> {
        let windows = || module_area(arch, &self.kernel);
        self.kernel.state.space.area(windows, self.kernel.config.page_size)
    }

    /// What the module takes of the per-cpu reserve, from there on; `None` if nothing.
    fn percpu_area(&self, info: &LoadInfo<'_>, start: Option<u64>) -> Option<PercpuArea> {
        let pcpu = info.file.index().pcpu;
        let section = info.sechdrs.get(pcpu).filter(|s| pcpu != 0 && s.sh_size != 0)?;
        Some(PercpuArea { size: align_up(section.sh_size, 4), start })
    }

    /// Address and end of the module's per-cpu area: as the symbol table lists a variable of it, else first fit by alignment
    /// (LAYOUT-54, LAYOUT-60).
    fn percpu_place(&self, info: &LoadInfo<'_>) -> Option<(u64, u64)> {
        let pcpu = info.file.index().pcpu;
        let section = info.sechdrs.get(pcpu).filter(|s| pcpu != 0 && s.sh_size != 0)?;
        // PCPU_MIN_ALLOC_SIZE
        let align = section.sh_addralign.clamp(4, self.kernel.config.page_size);
        let size = Some(align_up(section.sh_size, 4)).filter(|size| *size != 0)?;
        if let Some(start) = self.listed_percpu(info) {
            return Some((start, start.checked_add(size)?));
        }
        self.kernel.state.space.percpu_place(size, align)
    }

    /// The per-cpu area of a module that the symbol table lists: the address of a variable there less its place in the area.
    fn listed_percpu(&self, info: &LoadInfo<'_>) -> Option<u64> {
        let (file, pcpu) = (info.file, info.file.index().pcpu);
        let own = file.symbols().iter().skip(1).filter(|symbol| usize::from(symbol.shndx()) == pcpu);
        own.filter(|symbol| !file.symbol_name(symbol).is_empty()).find_map(|symbol| {
            let named = self.kernel.symbols.named(file.symbol_name(symbol));
            let mut listed = named.filter(|s| s.module == Some(file.name()));
            // A name that the module has twice shows no address.
            let (Some(found), None) = (listed.next(), listed.next()) else { return None };
            found.address.checked_sub(symbol.value())
        })
    }
}

/// Where the kernel puts modules, if it is of this architecture.
fn module_area(arch: &dyn Architecture, kernel: &KernelDescription) -> Windows {
    arch.module_area(&kernel.config, &|name| kernel.symbols.address(name))
}

/// What stays of a load when the module is kept in the kernel.
#[derive(Debug)]
pub struct Kept {
    module: LoadedModule,
    depends: Vec<Box<[u8]>>,
    arch: &'static dyn Architecture,
    layout: Layout,
    placement: Placement,
    percpu: Option<PercpuArea>,
    taints: Taints,
    coming: bool,
    initcall_blacklisted: bool,
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
            percpu: self.percpu_area(&load.module.info, load.module.placement.percpu),
            taints: load.taints,
            coming: load.coming,
            initcall_blacklisted: load.initcall_blacklisted,
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
        read_only: load.module.read_only().collect(),
        ..LoadedModule::named(load.module.info.file.name())
    }
}
