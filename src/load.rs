//! The kernel's `load_module` on one page. What outlives one load is in [`crate::loader`].

use elf_layout::elf::{EHDR_SIZE, RELA_SIZE, SHF_ALLOC, SHF_RELA_LIVEPATCH, SHT_RELA};
use elf_layout::ksymtab;
use elf_layout::layout::{layout_sections, sections_inside};
use elf_layout::module::move_module;
use elf_layout::plan::{memory_is_there, no_memory};
use elf_layout::signature::SignatureTail;
use elf_layout::symtab::layout_symtab;
use elf_layout::validity::{Expected, elf_validity};
use elf_layout::{
    Change, Errno, Finding, Findings, KernelConfig, KernelVersion, Layout, LoadInfo, Machine, Module,
    ModuleFile, PerRegion, Placement, Setting, needs,
};
use finalize::initcall::initcall_blacklisted;
use finalize::parse_args::{ParamEnv, parse_args};
use finalize::struct_module::{
    sizes_in_file, small_struct_module, struct_module_has_places, struct_module_layout,
};
use finalize::sysfs::mod_sysfs_setup;
use finalize::{
    complete_formation, export_names_in_reach, module_finalize, post_relocation, prepare_coming_module,
    sort_extable, struct_module,
};
use kernel::{Export, ExportTable, Fact, Kernel, RunningKernel, Taints, newest};
use kernel_image::Packed;
use module_signature::{Unsigned, module_signature};
use reloc::{
    Architecture, Cpu, Finalizer, Journal, LoadFacts, MACHINES, ModArch, ModPltSec, Patch, Record,
    RuntimeState, Step, apply_relocations,
};
use symres::btf::btf_module_notify;
use symres::early::{
    already_loaded, blacklisted, check_export_symbol_versions, check_modinfo_taints, early_mod_check,
    find_module_sections, setup_modinfo, signature_and_name_taints, taints_of_file, verify_exported_symbols,
    warn_unsorted,
};
use symres::simplify::{simplify_symbols, write_symtab};
use symres::{LoadFlags, Resolution};

use crate::decompression::module_decompress;
use crate::image::{Image, Workspace};
use crate::percpu::{PercpuOfFile, percpu_modalloc};
use crate::watch::{Point, Scene, Watch};

/// How far a load goes. Named after the points at which real kernels were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// On return of `apply_relocations`.
    Relocated,
    /// On entry to `module_finalize`.
    Kallsyms,
    /// On entry to `do_init_module`.
    Final,
}

impl Stage {
    /// The furthest stage there is.
    pub const LAST: Stage = Stage::Final;

    /// Its name in options and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Relocated => "relocated",
            Stage::Kallsyms => "kallsyms",
            Stage::Final => "final",
        }
    }
}

/// How a module is to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// finit_module flags.
    pub flags: LoadFlags,
    /// How far to go.
    pub stage: Stage,
    /// Parameters to set once all else is done, whatever the stage; `None` sets none.
    pub params: Option<&'a [u8]>,
    /// Keep all that sites which depend on the running system may hold ([`Record::choices`])?
    pub choices: bool,
    /// Is only asked what the kernel would say? All rules up to `stage` are judged; memory and record then show no stage after
    /// [`Stage::Relocated`].
    pub verdict_only: bool,
}

impl<'a> Args<'a> {
    /// For who asks only what the kernel would say of a module with these parameters: up to the call of its init function.
    pub fn verdict(flags: LoadFlags, params: &'a [u8]) -> Self {
        Args { flags, params: Some(params), verdict_only: true, ..Args::default() }
    }
}

impl Default for Args<'_> {
    fn default() -> Self {
        Args {
            params: None,
            choices: false,
            verdict_only: false,
            flags: LoadFlags::default(),
            stage: Stage::LAST,
        }
    }
}

/// A module file, its signature looked at and its ELF checks done.
#[derive(Debug)]
pub struct Opened<'d> {
    /// The tail of the file.
    pub signature: SignatureTail<'d>,
    /// What is against the signature; `None` if nothing is.
    pub unsigned: Option<Unsigned>,
    /// The module; `None` if the file has no readable section table.
    pub module: Option<ModuleFile<'d>>,
    /// What the kernel would say so far.
    pub said: Findings,
    /// How many findings there were before the ELF checks.
    #[cfg_attr(not(feature = "trace"), allow(dead_code, reason = "for stories"))]
    pub(crate) before_elf: usize,
}

impl Opened<'_> {
    /// `info->sig_ok`: is there nothing against the signature? False for an unsigned module.
    pub fn sig_ok(&self) -> bool {
        self.unsigned.is_none()
    }

    /// The same out of a compressed file: what the kernel makes of that is said too (DEC-1 to DEC-7).
    #[must_use]
    pub fn out_of(mut self, packed: Option<&Packed>, config: &KernelConfig) -> Self {
        let note = packed.and_then(|packed| module_decompress(packed, config));
        note.into_iter().for_each(|note| self.said.push(note));
        self
    }
}

/// `module_sig_check` and the ELF checks, for a kernel. Without certificates a well-formed signature
/// counts as good.
pub fn open<'d>(file: &'d [u8], kernel: &Kernel, flags: LoadFlags) -> Opened<'d> {
    open_for(file, kernel, flags, MACHINES)
}

/// As [`open`], where the machines `known` are those that modules may be of.
pub fn open_for<'d>(
    file: &'d [u8],
    kernel: &Kernel,
    flags: LoadFlags,
    known: &[&'static Machine],
) -> Opened<'d> {
    let mut said = Findings::new();
    let config = &kernel.config;
    said.cut_lines(config);
    // VAL-1: without CONFIG_MODULES there is no such system call.
    if config.assumes(Setting::Modules) {
        said.unjudged("VAL-1", needs::CONFIG);
    } else if !config.modules {
        let why = "this kernel is built without CONFIG_MODULES: it has no modules at all";
        let hint = "take a kernel with CONFIG_MODULES=y, or build the driver into this one";
        said.refuse(Finding::error("VAL-1", Errno::ENOSYS, why).hint(hint));
    }
    if !config.is_version_known() {
        said.unjudged("OV-5", needs::RELEASE);
    }
    if kernel.machine.is_none() {
        said.unjudged("VAL-13", needs::SYMBOLS);
    }
    // VAL-1: may_init_module
    if kernel.boot.shown.modules_disabled && !kernel.boot.modules_disabled {
        let why = "kernel.modules_disabled is set on this machine: it loads no module any more";
        said.refuse(
            Finding::error("VAL-1", Errno::EPERM, why)
                .hint("start the machine anew; nothing else sets it back"),
        );
    }
    if kernel.boot.modules_disabled {
        let why = "nomodule is on the kernel's command line: it loads no module";
        said.refuse(Finding::error("VAL-1", Errno::EPERM, why).hint("start the kernel without nomodule"));
    }
    // VAL-2: the system call refuses what cannot hold an ELF header, before it looks at anything.
    let has_header = file.len() as u64 >= EHDR_SIZE;
    if !has_header {
        let why = format!("{} bytes are no ELF header, which has {EHDR_SIZE}", file.len());
        said.refuse(Finding::error("VAL-2", Errno::ENOEXEC, why));
    }
    let (signature, unsigned) = module_signature(file, kernel, flags, &mut said);
    let ignore_modversions = flags.ignore_modversions;
    let expected = Expected { config, machine: kernel.machine, known, ignore_modversions };
    let before_elf = said.kept();
    let module = has_header.then(|| elf_validity(signature.module, &expected, &mut said)).flatten();
    Opened { signature, unsigned, module, said, before_elf }
}

/// About how many bytes of memory a module will fill: those that its file has for it.
pub fn moved_bytes(file: &[u8]) -> usize {
    let opened = open(file, &Kernel::unknown(newest()), LoadFlags::default());
    let moved = opened.module.iter().flat_map(|module| {
        let tables = [module.index().sym, module.index().str];
        let sections = module.sections().iter().enumerate();
        sections.filter(move |(i, s)| s.sh_flags & SHF_ALLOC != 0 || tables.contains(i))
    });
    let size = moved.fold(0u64, |sum, (_, section)| sum.saturating_add(section.sh_size));
    usize::try_from(size).unwrap_or(usize::MAX).min(file.len())
}

/// The version that a module's vermagic begins with.
pub fn vermagic_version(module: &[u8]) -> Option<KernelVersion> {
    KernelVersion::parse(&vermagic_release(module)?)
}

/// The release that a module's vermagic begins with.
pub fn vermagic_release(module: &[u8]) -> Option<String> {
    // Only to learn which rules apply: the checks themselves come later.
    let opened = open(module, &Kernel::unknown(newest()), LoadFlags::default());
    let vermagic = opened.module.as_ref()?.modinfo().get("vermagic")?;
    let vermagic = String::from_utf8_lossy(vermagic).into_owned();
    Some(vermagic.split(' ').next().unwrap_or_default().to_owned())
}

/// A module in memory, as far as its load went.
#[derive(Debug)]
#[non_exhaustive]
pub struct Load<'d> {
    /// The kernel that it was loaded into.
    pub kernel: &'d Kernel,
    /// Its architecture.
    pub arch: &'static dyn Architecture,
    /// What the architecture keeps of it: its linkage tables.
    pub mod_arch: ModArch,
    /// The module in memory.
    pub module: Module<'d>,
    /// Imports and dependencies.
    pub resolution: Resolution<'d>,
    /// The stage that the memory shows.
    pub stage: Stage,
    /// What was done after relocation.
    pub record: Record,
    /// Taints of kernel and module at the end, or where the kernel stops.
    pub taints: Taints,
    /// Did it come to `prepare_coming_module`: is it announced, and waits for its parameters and init?
    pub coming: bool,
    /// Did all go well until its init function was not called for its name (LIFE-16)?
    pub initcall_blacklisted: bool,
}

/// A module that has a memory plan, but no addresses yet.
#[derive(Debug)]
#[non_exhaustive]
pub struct LaidOut<'d> {
    /// Its architecture.
    pub arch: &'static dyn Architecture,
    /// What the architecture keeps of it.
    pub mod_arch: ModArch,
    /// The file and the edited section headers.
    pub info: LoadInfo<'d>,
    /// The memory plan.
    pub layout: Layout,
}

/// The half of `load_module` that needs no kernel: from the first rewrite to the memory plan.
/// `None` if there is nothing to lay out; a finding says why.
pub fn lay_out<'d>(
    config: &'d KernelConfig,
    file: &'d ModuleFile<'d>,
    arch: &'static dyn Architecture,
    cpu: Cpu,
    said: &mut Findings,
) -> Option<LaidOut<'d>> {
    lay_out_watched(config, file, arch, cpu, None, said, &mut Watch::default())
}

fn lay_out_watched<'d>(
    config: &'d KernelConfig,
    file: &'d ModuleFile<'d>,
    arch: &'static dyn Architecture,
    cpu: Cpu,
    kernel: Option<&dyn RunningKernel>,
    said: &mut Findings,
    watch: &mut Watch<'_>,
) -> Option<LaidOut<'d>> {
    let mut info = LoadInfo::rewrite_section_headers(file, config);
    if let Some(kernel) = kernel {
        info.begun = sizes_in_file(kernel, &info);
    }
    watch.tell(Point::Rewrite, said, || Scene { info: Some(&info), ..Scene::default() });
    let mod_arch = arch.module_frob_arch_sections(&mut info, cpu, said);
    watch.tell(Point::Frob, said, || Scene {
        info: Some(&info),
        mod_arch: Some(&mod_arch),
        ..Scene::default()
    });
    info.module_enforce_rwx_sections(said);
    info.edit_flags();
    watch.tell(Point::Flags, said, || Scene { info: Some(&info), ..Scene::default() });
    let mut layout = layout_sections(&info, said)?;
    layout_symtab(&mut info, &mut layout, said)?;
    sections_inside(&info, &layout, said);
    if let Some(kernel) = kernel {
        small_struct_module(kernel, &info, &layout, said);
    }
    watch.tell(Point::Layout, said, || Scene {
        info: Some(&info),
        layout: Some(&layout),
        ..Scene::default()
    });
    Some(LaidOut { arch, mod_arch, info, layout })
}

/// `kernel/module/main.c: load_module` after the ELF checks ([`open`]), up to `stage`. `arch` is the architecture of the
/// module, if it is known. `place` chooses addresses once the layout is known. `watch` is told of each step. `None` if there is nothing
/// to lay out or no room for it; `said` tells why.
#[allow(clippy::too_many_arguments, reason = "the kernel's function, with who watches it")]
pub(crate) fn load_module<'d>(
    kernel: &'d Kernel,
    arch: Option<&'static dyn Architecture>,
    opened: &'d Opened<'_>,
    args: &Args<'_>,
    place: impl FnOnce(&dyn Architecture, &LoadInfo<'_>, &Layout) -> Option<Placement>,
    workspace: &mut Workspace,
    said: &mut Findings,
    watch: &mut Watch<'_>,
) -> Option<Load<'d>> {
    let file = opened.module.as_ref()?;
    // VAL-13: by the rules of another architecture nothing more can be told of it.
    if kernel.machine.is_some_and(|machine| machine.e_machine != file.e_machine()) {
        return None;
    }
    let mut taints = kernel.state.taints.with_module(taints_of_file(kernel, file));
    let mut at_stop = None;
    let mut reached = |taints: &Taints, said: &Findings| {
        if said.refused() {
            at_stop.get_or_insert(*taints);
        }
    };
    reached(&taints, said);
    // Since v6.4 everything that taints comes after the module is in the list
    // (module_augment_kernel_taints); before that check_modinfo does most of it.
    let taints_late = kernel.config.has(Change::TaintsAfterInsertion);
    blacklisted(kernel, file, said);
    watch.tell(Point::Blacklist, said, Scene::default);
    early_mod_check(kernel, file, args.flags, &mut taints, said);
    reached(&taints, said);
    if !taints_late {
        check_modinfo_taints(kernel, file, &mut taints, said);
    }
    watch.tell(Point::Versions, said, || Scene { taints: Some(taints), ..Scene::default() });
    let arch = arch?;
    let cpu = arch.cpu(&kernel.config, kernel);
    let LaidOut { mut mod_arch, info, layout, .. } =
        lay_out_watched(&kernel.config, file, arch, cpu, Some(kernel), said, watch)?;
    let (placement, image) = allocate(arch, &info, &layout, place, workspace, said)?;
    // The second rewrite: every address is final from here on.
    let mut module = move_module(info, layout, placement, Box::new(image));
    watch.tell(Point::Move, said, || Scene::of(&module));
    let mut percpu = PercpuOfFile::default();
    percpu.look(kernel, &module, said);
    already_loaded(kernel, file, said);
    if !taints_late {
        taints = keeps_taints(kernel, &module, taints);
    }
    reached(&taints, said);
    if taints_late {
        check_modinfo_taints(kernel, file, &mut taints, said);
    }
    let unsigned = opened.unsigned.as_ref().map(|u| (&*u.why, &*u.hint));
    signature_and_name_taints(kernel, file, unsigned, &mut taints, said);
    if !said.refused() {
        percpu.allocated(&module.info);
    }
    percpu_modalloc(kernel, &module.info, said);
    watch.tell(Point::Unformed, said, || Scene { taints: Some(taints), ..Scene::of(&module) });
    module.info.section_names_up_to_btf(said);
    find_module_sections(file, said);
    check_export_symbol_versions(kernel, &module.info, &mut taints, said);
    setup_modinfo(kernel, file, said);
    watch.tell(Point::Tables, said, || Scene { taints: Some(taints), ..Scene::of(&module) });
    reached(&taints, said);
    let ignores = |name: &[u8]| arch.ignores_undefined(name);
    let mut resolution = simplify_symbols(&mut module, kernel, taints, ignores, said);
    watch.tell(Point::Symbols, said, || Scene { resolution: Some(&resolution), ..Scene::of(&module) });
    let kallsyms = |name: &[u8], position| {
        kernel.known(Fact::Symbols).map(|_| klp_find_object_symbol(kernel, name, position))
    };
    let mut record = Record::default();
    let (before, crashes) = struct_module_layout(
        &mut Finalizer {
            module: &mut module,
            load: LoadFacts {
                mod_arch: &mod_arch,
                taints: resolution.taints.module_mask(),
                using_gplonly_symbols: resolution.using_gplonly_symbols,
                sig_ok: opened.sig_ok(),
            },
            kernel,
            record: &mut record,
            said,
            choices: false,
            verdict_only: false,
        },
        arch,
    );
    // Relocations may lead there, on purpose or not.
    write_symtab(&mut module);
    apply_relocations(arch, &mut mod_arch, &mut module, &kallsyms, said);
    crashes.into_iter().for_each(|crash| said.refuse(crash));
    percpu.look(kernel, &module, said);
    if let Some(before) = before {
        before.take_back(&mut module);
        record = Record::default();
    }
    // Livepatch symbols have got their values only now (RELOC-GEN-5).
    if module.info.sechdrs.iter().any(|section| section.sh_flags & SHF_RELA_LIVEPATCH != 0) {
        write_symtab(&mut module);
    }
    watch.tell(Point::Relocations, said, || Scene {
        mod_arch: Some(&mod_arch),
        resolution: Some(&resolution),
        ..Scene::of(&module)
    });
    if args.stage >= Stage::Kallsyms {
        if args.verdict_only {
            // Later steps judge code, which the table may be.
            sort_extable(&mut module, kernel, arch);
        } else {
            post_relocation(&mut module, kernel, arch);
        }
    }
    watch.tell(Point::PostRelocation, said, || Scene::of(&module));
    if watch.is_on() {
        record.journal = Some(Journal::of(&module.layout, &*module.memory));
    }
    module.info.section_names_in_reach(said);
    arch.refuse_in_module_finalize(&module.info, said);
    let exports = ksymtab::exports(file, kernel.config.changes());
    // What was refused has no memory that the kernel would patch.
    let patched = args.stage >= Stage::Final && !said.refused();
    let mut patching = Finalizer {
        module: &mut module,
        load: LoadFacts {
            mod_arch: &mod_arch,
            taints: resolution.taints.module_mask(),
            using_gplonly_symbols: resolution.using_gplonly_symbols,
            sig_ok: opened.sig_ok(),
        },
        kernel,
        record: &mut record,
        said,
        choices: args.choices,
        verdict_only: args.verdict_only,
    };
    if patched {
        struct_module_has_places(&mut patching);
    }
    if patched && !patching.said.refused() {
        module_finalize(&mut patching, arch);
    }
    watch.tell(Point::Finalize, patching.said, || Scene {
        record: Some(patching.record),
        ..Scene::of(patching.module)
    });
    if patched && !patching.said.refused() {
        export_names_in_reach(&mut patching, arch);
    }
    verify_exported_symbols(kernel, file, &exports, patching.said);
    warn_unsorted(kernel, &exports, patching.said);
    if patched {
        complete_formation(&mut patching);
    }
    watch.tell(Point::Formation, patching.said, || Scene {
        record: Some(patching.record),
        ..Scene::of(patching.module)
    });
    let coming = !patching.said.refused();
    if patched && coming {
        prepare_coming_module(&mut patching, arch);
    }
    btf_module_notify(kernel, &module, &mut resolution.taints, said);
    watch.tell(Point::Coming, said, || Scene {
        record: Some(&record),
        taints: Some(resolution.taints),
        ..Scene::of(&module)
    });
    let taints = at_stop.unwrap_or(resolution.taints);
    let stage = if args.verdict_only { Stage::Relocated } else { args.stage };
    let mut load = Load {
        kernel,
        arch,
        mod_arch,
        module,
        resolution,
        stage,
        record,
        taints,
        coming,
        initcall_blacklisted: false,
    };
    if let Some(params) = args.params {
        load.parse_args(params, said);
    }
    watch.tell(Point::Parameters, said, || Scene { record: Some(&load.record), ..Scene::of(&load.module) });
    if args.stage >= Stage::Final && !said.refused() {
        mod_sysfs_setup(&load.module, kernel, arch, said);
    }
    if args.stage >= Stage::Final && !said.refused() {
        load.initcall_blacklisted = initcall_blacklisted(&load.module, &kernel.boot.initcall_blacklist, said);
    }
    watch.tell(Point::Sysfs, said, || Scene {
        record: Some(&load.record),
        taints: Some(load.taints),
        ..Scene::of(&load.module)
    });
    percpu.module_deallocate(said);
    Some(load)
}

/// VAL-56: before v6.4 a piece of `struct module` that ends before its taints takes none with it when it is moved.
fn keeps_taints(kernel: &Kernel, module: &Module<'_>, taints: Taints) -> Taints {
    let own = module.table(module.info.file.index().module).map_or(0, |table| table.size);
    let member = kernel.member("module", "taints");
    let lost = member.is_some_and(|m| own < m.offset.saturating_add(m.size));
    if lost { taints.with_module(0) } else { taints }
}

/// Memory for all regions (LAYOUT-40); without room for them the kernel's ENOMEM.
fn allocate(
    arch: &dyn Architecture,
    info: &LoadInfo<'_>,
    layout: &Layout,
    place: impl FnOnce(&dyn Architecture, &LoadInfo<'_>, &Layout) -> Option<Placement>,
    workspace: &mut Workspace,
    said: &mut Findings,
) -> Option<(Placement, Image)> {
    let placement = place(arch, info, layout);
    let image = Image::reusing(workspace.take(), layout);
    match (placement, image) {
        (Some(placement), Ok(image)) => {
            memory_is_there(layout, said);
            Some((placement, image))
        }
        (None, _) => {
            let why = "the module area has no hole that is large enough for the module".into();
            said.refuse(no_memory(info.config, "LAYOUT-50", why));
            None
        }
        (_, Err(error)) => {
            let why = format!("no memory for the module: {error}");
            said.refuse(Finding::error("LAYOUT-40", Errno::ENOMEM, why));
            None
        }
    }
}

/// Address of the kernel's symbol at a position among those of its name (RELOC-GEN-5).
fn klp_find_object_symbol(kernel: &Kernel, name: &[u8], position: u64) -> Result<u64, String> {
    let of_kernel = kernel.symbols.named(name).filter(|s| s.module.is_none());
    let candidates: Vec<u64> = of_kernel.map(|s| s.address).collect();
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

impl Load<'_> {
    /// `parse_args`, and what it leaves in the record.
    fn parse_args(&mut self, params: &[u8], said: &mut Findings) {
        // Both levels of lockdown are above that of hardware parameters (PARAM-18).
        let lockdown = self.kernel.locked_down_by().map(|_| "insmod");
        let env = ParamEnv { lockdown, ..ParamEnv::default() };
        let set = parse_args(&mut self.module, params, &env, said);
        for w in set.written {
            let patch = Patch { place: w.place, len: w.len, step: Step::Parameter, detail: w.record };
            self.record.patched_with(patch, w.bytes);
        }
        if let Some(requested) = set.async_probe {
            let path = "async_probe_requested";
            let this = self.module.table(self.module.info.file.index().module);
            if let Some((this, member)) = this.zip(self.kernel.member("module", path)) {
                let at = this.address.saturating_add(member.offset);
                if let Some(place) = self.module.write(at, &[u8::from(requested)]) {
                    let detail = struct_module::detail_of(path);
                    let patch = Patch { place, len: 1, step: Step::StructModule, detail };
                    self.record.patched(patch, &*self.module.memory);
                }
            }
        }
        for pointer in set.pointers {
            let what = "parameter: a copy of its string".into();
            self.record.runtime.push(RuntimeState { place: pointer.place, len: 8, what });
        }
        if !set.dyndbg.is_empty() {
            self.record.not_known("what a dyndbg query switches on: give no dyndbg parameter");
        }
        if !set.not_run.is_empty() {
            self.record.not_known("what a parameter writes that is set by code of the module");
        }
    }

    /// The exports of the module at their final addresses.
    pub fn exports(&self) -> impl Iterator<Item = Export<'_>> {
        let Module { info, values, unknown, .. } = &self.module;
        let is_unknown = |symbol: u32| unknown.get(symbol as usize) == Some(&true);
        let value = move |symbol: u32| values.get(symbol as usize).copied().filter(|_| !is_unknown(symbol));
        let of_file = ksymtab::exports(info.file, info.config.changes());
        of_file.into_iter().map(move |e| Export {
            address: value(e.symbol).map(|v| v.wrapping_add_signed(e.addend)),
            ..Export::from(&e)
        })
    }

    /// Its exports as the kernel finds them.
    pub(crate) fn export_table(&self) -> ExportTable {
        ExportTable::of_records(self.exports().collect(), self.module.info.config.has(Change::OneExportTable))
    }

    /// The linkage tables, of code that stays and of code that goes after init.
    pub fn plts(&self) -> impl Iterator<Item = &ModPltSec> {
        self.mod_arch.tables.iter()
    }

    /// How many relocations were applied.
    pub fn relocations(&self) -> u64 {
        let sections = self.module.info.sechdrs.iter().filter(|s| s.sh_type == SHT_RELA);
        let applied = sections.filter(|s| self.module.layout.place(s.sh_info as usize).is_some());
        applied.map(|s| s.sh_size.checked_div(RELA_SIZE).unwrap_or(0)).fold(0, u64::saturating_add)
    }

    /// Base addresses of the regions.
    pub fn bases(&self) -> &PerRegion<u64> {
        &self.module.placement.bases
    }
}
