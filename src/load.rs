//! The kernel's `load_module` on one page, and the [`Loader`] that keeps what
//! outlives one load: the module list and the address space.

use std::borrow::Cow;

use elf_layout::bytes::align_up;
use elf_layout::elf::{RELA_SIZE, SHT_RELA};
use elf_layout::ksymtab;
use elf_layout::layout::{PerRegion, layout_sections};
use elf_layout::place::{ModuleArea, move_module};
use elf_layout::signature::{SignatureTail, module_sig_check};
use elf_layout::symtab::layout_symtab;
use elf_layout::validity::{Expected, elf_validity};
use elf_layout::{Errno, Finding, Findings, KernelConfig, Layout, LoadInfo, ModuleFile, Placement, Region};
use finalize::post_relocation;
use reloc::{ARCHITECTURES, Architecture, apply_relocations, architecture};
use symres::simplify::{simplify_symbols, write_symtab};
use symres::{Export, ExportTable, Kernel, LoadedModule, Resolution};

use crate::image::Image;

/// How far a load goes. Named after the points at which real kernels were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// On return of `apply_relocations`.
    Relocated,
    /// On entry to `module_finalize`.
    Kallsyms,
}

impl Stage {
    /// The furthest stage there is.
    pub const LAST: Stage = Stage::Kallsyms;

    /// Its name in options and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Relocated => "relocated",
            Stage::Kallsyms => "kallsyms",
        }
    }
}

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

/// A module file, its signature cut off and its ELF checks done.
#[derive(Debug)]
pub struct Opened<'d> {
    /// The tail of the file.
    pub signature: SignatureTail<'d>,
    /// The module; `None` if the file has no readable section table.
    pub module: Option<ModuleFile<'d>>,
    /// What the kernel would say so far.
    pub said: Findings,
}

/// `module_sig_check` (its first half) and the ELF checks. `machine` is EM_* of the kernel,
/// `None` takes every architecture there is.
pub fn open<'d>(file: &'d [u8], config: &KernelConfig, machine: Option<u16>) -> Opened<'d> {
    let mut said = Findings::new();
    let mark = said.mark();
    let mut signature = SignatureTail { module: file, marker: false, pkcs7: None };
    // SIG-13: without CONFIG_MODULE_SIG nothing is cut off.
    if config.module_sig {
        let (tail, finding) = module_sig_check(file);
        signature = tail;
        finding.into_iter().for_each(|f| said.push(f));
    }
    said.end_stage_at_first(mark);
    let all: Vec<u16> = ARCHITECTURES.iter().map(|a| a.e_machine()).collect();
    let machines = machine.map_or(all, |m| vec![m]);
    let expected = Expected { config, machines: &machines, ignore_modversions: false };
    let module = elf_validity(signature.module, &expected, &mut said);
    Opened { signature, module, said }
}

/// A module in memory, as far as its load went.
#[derive(Debug)]
pub struct Load<'d> {
    /// Its architecture.
    pub arch: &'static dyn Architecture,
    /// The file and the edited section headers; `sh_addr` is final.
    pub info: LoadInfo<'d>,
    /// The memory plan.
    pub layout: Layout,
    /// Base addresses.
    pub placement: Placement,
    /// The memory itself.
    pub image: Image,
    /// Symbol values and imports.
    pub resolution: Resolution,
    /// The stage that the memory shows.
    pub stage: Stage,
}

/// The half of `load_module` that needs no kernel: from the first rewrite to the memory plan.
/// `None` if there is nothing to lay out; `said` tells why.
pub fn lay_out<'d>(
    config: &'d KernelConfig,
    file: &'d ModuleFile<'d>,
    said: &mut Findings,
) -> Option<(&'static dyn Architecture, LoadInfo<'d>, Layout)> {
    let arch = architecture(file.e_machine())?;
    let mut info = LoadInfo::rewrite_section_headers(file, config);
    arch.module_frob_arch_sections(&mut info, said);
    info.module_enforce_rwx_sections(said);
    info.edit_flags();
    let mut layout = layout_sections(&info, said)?;
    layout_symtab(&mut info, &mut layout, said)?;
    Some((arch, info, layout))
}

/// `load_module` from the first rewrite on, up to `stage`: the file is already checked ([`open`]). `place`
/// chooses addresses once the layout is known. `None` if there is nothing to lay out or no room
/// for it; `said` tells why.
pub fn load_module<'d>(
    kernel: &'d Kernel,
    file: &'d ModuleFile<'d>,
    stage: Stage,
    place: impl FnOnce(&dyn Architecture, &LoadInfo<'_>, &Layout) -> Option<Placement>,
    said: &mut Findings,
) -> Option<Load<'d>> {
    let (arch, mut info, layout) = lay_out(&kernel.config, file, said)?;
    let (placement, mut image) = allocate(arch, &info, &layout, place, said)?;
    // The second rewrite: every address is final from here on.
    move_module(&mut info, &layout, &placement, &mut image);
    let ignores = |name: &[u8]| arch.ignores_undefined(name);
    let mut resolution = simplify_symbols(&info, &placement, kernel, ignores, said);
    write_symtab(&info, &layout, &resolution.values, &mut image);
    let kallsyms = |name: &[u8], position| klp_find_object_symbol(kernel, name, position);
    apply_relocations(arch, &info, &layout, &mut resolution.values, &kallsyms, &mut image, said);
    if stage >= Stage::Kallsyms {
        post_relocation(&info, &layout, &placement, &resolution.values, &mut image);
    }
    Some(Load { arch, info, layout, placement, image, resolution, stage })
}

/// Memory for all regions (LAYOUT-40); without room for them the kernel's ENOMEM.
fn allocate(
    arch: &dyn Architecture,
    info: &LoadInfo<'_>,
    layout: &Layout,
    place: impl FnOnce(&dyn Architecture, &LoadInfo<'_>, &Layout) -> Option<Placement>,
    said: &mut Findings,
) -> Option<(Placement, Image)> {
    let mark = said.mark();
    let placement = place(arch, info, layout);
    let image = Image::new(layout);
    match (placement, image) {
        (Some(placement), Ok(image)) => Some((placement, image)),
        (None, _) => {
            let why = "the module area has no hole that is large enough for the module";
            said.push(Finding::error("LAYOUT-50", Errno::ENOMEM, why));
            said.end_stage(mark);
            None
        }
        (_, Err(error)) => {
            let why = format!("no memory for the module: {error}");
            said.push(Finding::error("LAYOUT-40", Errno::ENOMEM, why));
            said.end_stage(mark);
            None
        }
    }
}

/// Address of the kernel's symbol at a position among those of its name (RELOC-GEN-5).
fn klp_find_object_symbol(kernel: &Kernel, name: &[u8], position: u64) -> Result<u64, String> {
    let named = kernel.symbols.named(name);
    let candidates: Vec<u64> = named.iter().filter(|s| s.module.is_none()).map(|s| s.address).collect();
    let text = elf_layout::bytes::printed(name);
    match (candidates.as_slice(), position) {
        ([only], 0) => Ok(*only),
        ([], 0) => Err(format!("symbol '{text}' not found in symbol table")),
        (_, 0) => Err(format!("unresolvable ambiguity for symbol '{text}' in object 'vmlinux'")),
        (all, n) => {
            let at = usize::try_from(n).ok().and_then(|n| all.get(n.checked_sub(1)?));
            at.copied().ok_or_else(|| {
                format!("symbol position {n} for symbol '{text}' in object 'vmlinux' not found")
            })
        }
    }
}

/// A kernel with its modules and address space: what persists between loads.
#[derive(Debug)]
pub struct Loader {
    /// The kernel, with the modules loaded so far.
    pub kernel: Kernel,
    area: Option<ModuleArea>,
    /// Next free address of the modules' per-cpu reserve, once known (LAYOUT-54).
    percpu_next: Option<u64>,
}

impl Loader {
    /// A kernel just booted, with the modules that its symbol table lists.
    pub fn new(kernel: Kernel) -> Self {
        // LAYOUT-54
        let percpu_next = kernel.symbols.address("__per_cpu_end");
        Loader { kernel, area: None, percpu_next }
    }

    /// Loads a module, without adding it to the kernel. `place` and `percpu` override where it
    /// goes. The placement that the kernel itself chooses is that of the next free addresses.
    pub fn load<'d>(
        &'d self,
        module: &'d ModuleFile<'d>,
        place: &Place,
        percpu: Option<u64>,
        stage: Stage,
        said: &mut Findings,
    ) -> Option<Load<'d>> {
        let choose = |arch: &dyn Architecture, info: &LoadInfo<'_>, layout: &Layout| {
            let bases = match place {
                Place::Base(base) => Placement::consecutive(layout, *base).bases,
                Place::Kernel => self.place(arch, layout)?,
                Place::Regions(given) => {
                    let mut bases = self.place(arch, layout).unwrap_or_default();
                    for (region, base) in given {
                        *bases.get_mut(*region) = *base;
                    }
                    bases
                }
            };
            let percpu = percpu.or_else(|| Some(self.percpu_place(info)?.0)).unwrap_or(0);
            Some(Placement { bases, percpu })
        };
        load_module(&self.kernel, module, stage, choose, said)
    }

    /// Where the kernel would put a module next (LAYOUT-50).
    pub fn place(&self, arch: &dyn Architecture, layout: &Layout) -> Option<PerRegion<u64>> {
        self.area(arch).into_owned().place(layout)
    }

    /// Keeps a module that was loaded: its exports, its memory but for init, its per-cpu area.
    pub fn insert(&mut self, loaded: Kept) {
        let Kept { module, arch, layout, placement, percpu_end } = loaded;
        let mut area = self.area(arch).into_owned();
        for region in layout.regions() {
            let base = placement.bases.get(region);
            let end = base.saturating_add(layout.allocated(region)).saturating_add(layout.page_size);
            area.take(base, end);
        }
        area.free_init(&layout, &placement.bases);
        self.area = Some(area);
        self.percpu_next = percpu_end.or(self.percpu_next);
        self.kernel.insert_module(module);
    }

    /// The module area: the modules of the symbol table take its lower part up
    /// to their last symbol, as their exact regions are not known.
    fn area(&self, arch: &dyn Architecture) -> Cow<'_, ModuleArea> {
        if let Some(area) = &self.area {
            return Cow::Borrowed(area);
        }
        let config = &self.kernel.config;
        let (start, end) = arch.module_area(config, &|name| self.kernel.symbols.address(name));
        let mut area = ModuleArea::new(start, end, config.page_size);
        let of_modules = self.kernel.symbols.iter().filter(|s| s.module.is_some()).map(|s| s.address);
        if let Some(last) = of_modules.filter(|a| (start..end).contains(a)).max() {
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
        }
    }
}

impl Load<'_> {
    /// The exports of the module at their final addresses.
    pub fn exports(&self) -> Vec<Export> {
        let value = |symbol: u32| self.resolution.values.get(symbol as usize).copied();
        let of_file = ksymtab::exports(self.info.file, self.info.config.version);
        let exports = of_file.into_iter().map(|e| Export {
            name: e.name.into(),
            address: value(e.symbol).map(|v| v.wrapping_add_signed(e.addend)),
            crc: e.crc,
            gpl_only: e.gpl_only,
            namespace: e.namespace.into(),
        });
        exports.collect()
    }

    /// The module as the kernel keeps it in its list.
    pub fn loaded_module(&self) -> LoadedModule {
        LoadedModule {
            name: self.info.file.name().into(),
            exports: ExportTable::new(self.exports()),
            proprietary: self.resolution.proprietary,
        }
    }

    /// Imports whose exporter is known but not their address: the memory is not
    /// what the kernel would have.
    pub fn unknown_addresses(&self) -> usize {
        self.resolution.imports.iter().filter(|i| i.address.is_none()).count()
    }

    /// How many relocations were applied.
    pub fn relocations(&self) -> u64 {
        let sections = self.info.sechdrs.iter().filter(|s| s.sh_type == SHT_RELA);
        let applied = sections.filter(|s| self.layout.place(s.sh_info as usize).is_some());
        applied.map(|s| s.sh_size.checked_div(RELA_SIZE).unwrap_or(0)).fold(0, u64::saturating_add)
    }

    /// Base addresses of the regions.
    pub fn bases(&self) -> &PerRegion<u64> {
        &self.placement.bases
    }
}
