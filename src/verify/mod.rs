//! Is what lies in memory what should lie there? Every module of a kernel in a dump, or of the one that runs, compared with what
//! its file and this kernel make of it.

pub mod compare;
pub mod extract;
pub mod image;
pub mod modules;
pub mod report;
pub mod sarif;
pub mod sites;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use elf_layout::bytes::printed;
use kernel::{Init, Kernel, KernelState, Taints};
use memory_image::Mapping;
use symres::LoadFlags;

use crate::error::Error;
use crate::input::read_decompressed;
use crate::kernel_source::KernelSource;
use crate::loader::Loader;
use crate::modprobe::tables::{Tables, module_name};

use compare::{Compared, Surroundings, compare};
use image::{MemoryImage, Structs};
use modules::{InMemory, Modules, UNFORMED, Witness};
use report::{Alarm, Kind, ModuleReport, Report, Verdict};
use sites::Changers;

/// What is to be verified.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only these modules; all if there are none.
    pub only: Vec<String>,
    /// Files of modules that the tree does not have.
    pub with: Vec<PathBuf>,
}

/// A kernel in a dump, with the modules that its memory tells of.
#[derive(Debug)]
pub struct Target {
    /// The kernel as it runs there, without modules.
    pub loader: Loader,
    /// Its memory.
    pub image: Arc<MemoryImage>,
    /// Its types.
    pub types: kernel::Types,
    /// Its modules.
    pub modules: Modules,
    /// What changes code in legal ways.
    pub changers: Changers,
    /// What is mapped in the module area.
    pub area: Vec<Mapping>,
}

impl Target {
    /// Opens a dump with the kernel that is given.
    pub fn open(path: &Path, source: &KernelSource) -> Result<Self, Error> {
        let (description, image) = image::open(path, source)?;
        let image = Arc::new(image);
        let btf = image.btf(&description).or_else(|| own_btf(&description));
        let types = btf.as_deref().and_then(image::types_of).ok_or_else(|| {
            let what = "the kernel's types (BTF) are neither in the dump nor in the kernel that was given: structs cannot be read";
            Error::unusable(path, what)
        })?;
        let mut state = KernelState::booted(&description);
        state.whole = Some(Arc::clone(&image) as Arc<dyn kernel::LiveMemory>);
        if let Some(taints) = description.symbols.address("tainted_mask").and_then(|at| image.pointer(at)) {
            state.taints = Taints::of_kernel(taints);
        }
        state.cpus = cpus(&image, &description);
        let loader = Loader::from(Kernel::new(description, state));
        let kernel = &loader.kernel;
        let structs = Structs { image: &image, types: &types };
        let machine = kernel.machine.map(|machine| machine.e_machine);
        let arch = machine.and_then(reloc::architecture);
        let windows = arch.map(|arch| arch.module_area(&kernel.config, &|name| kernel.symbols.address(name)));
        let mut windows: Vec<(u64, u64)> =
            windows.map_or(Vec::new(), |w| [Some(w.direct), w.fallback].into_iter().flatten().collect());
        windows.retain(|(from, to)| from < to);
        let area = modules::module_area(&image, &windows);
        let modules = Modules::find(&structs, kernel, &area);
        let changers = Changers::read(&structs, kernel);
        Ok(Target { loader, image: Arc::clone(&image), types, modules, changers, area })
    }

    /// Verifies the modules. `progress` is told how many of how many are done.
    pub fn verify(
        &self,
        source: &KernelSource,
        wanted: &Wanted,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Report, Error> {
        let kernel = &self.loader.kernel;
        let mut report = Report {
            release: kernel.release.clone(),
            banner: self.image.banner.clone(),
            slide: self.image.slide,
            how: self.image.how.clone(),
            damage: self.image.dump().damage().to_vec(),
            unread: self.modules.unread.clone(),
            ..Report::default()
        };
        report.unread.extend(self.changers.unread.iter().map(|what| (*what).to_owned()));
        let listed: Vec<&InMemory> =
            self.modules.listed.iter().rev().filter_map(|at| Some(&self.modules.all.get(at)?.0)).collect();
        let files = Files::new(source, &kernel.release, &wanted.with)?;
        let mut symbols: Vec<(u64, &[u8])> =
            kernel.symbols.iter().filter(|s| s.module.is_none()).map(|s| (s.address, s.name)).collect();
        symbols.sort_by_key(|(address, _)| *address);
        let bounds = kernel.symbols.address("_stext").zip(kernel.symbols.address("_etext"));
        let around = Surroundings {
            image: &self.image,
            changers: &self.changers,
            modules: &listed,
            text: bounds.unwrap_or_default(),
            symbols: &symbols,
        };
        let mut loader = self.loader.clone();
        let mut led_away = Vec::new();
        let mut depends: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for (done, module) in listed.iter().enumerate() {
            progress(done, listed.len());
            let name = printed(&module.name).into_owned();
            let asked = wanted.only.is_empty() || wanted.only.contains(&name);
            let (entry, compared) = self.module(&mut loader, module, &files, &around)?;
            depends.insert(module.name.clone(), compared.depends);
            if asked {
                report.alarms.extend(compared.alarms);
                led_away.extend(compared.led_away.into_iter().map(|led| (module.name.clone(), led)));
                report.modules.push(entry);
            }
        }
        for (own, led) in led_away {
            // A module that uses this one may have put its own functions there.
            let whose = listed.iter().find(|module| module.holds_code(led.target));
            let uses = whose.and_then(|module| depends.get(&module.name)).is_some_and(|of| of.contains(&own));
            if uses {
                let entry = report.modules.iter_mut().find(|m| m.name.as_bytes() == own);
                let why = led
                    .alarm
                    .leads_to
                    .map_or(String::new(), |(_, words)| format!("it leads to {words}, which uses this one"));
                let change =
                    report::Change { address: led.alarm.address, size: 8, what: "function pointer", why };
                entry.into_iter().for_each(|entry| entry.changes.push(change.clone()));
            } else {
                report.alarms.push(led.alarm);
            }
        }
        self.hidden(&mut report);
        self.unexplained(&mut report, &listed, &symbols);
        report.alarms.sort_by_key(|alarm| alarm.address);
        for entry in &mut report.modules {
            let own = report.alarms.iter().filter(|alarm| alarm.module.as_ref() == Some(&entry.name));
            (entry.alarms, entry.alarm_bytes) = own.fold((0usize, 0u64), |(n, bytes), alarm| {
                (n.saturating_add(1), bytes.saturating_add(alarm.size))
            });
            if entry.alarms != 0 {
                entry.verdict = Verdict::Changed;
            }
        }
        Ok(report)
    }

    /// One module, and adds it to the kernel that the next ones are linked against.
    fn module(
        &self,
        loader: &mut Loader,
        module: &InMemory,
        files: &Files,
        around: &Surroundings<'_>,
    ) -> Result<(ModuleReport, Compared), Error> {
        let name = printed(&module.name).into_owned();
        let mut entry = ModuleReport {
            name: name.clone(),
            address: module.address,
            base: module.regions.first().map_or(0, |(_, base, _)| *base),
            regions: module
                .regions
                .iter()
                .map(|(region, base, size)| (region.name(), *base, *size))
                .collect(),
            file: None,
            proof: None,
            verdict: Verdict::NoFile,
            bytes: 0,
            sites: 0,
            pointers: 0,
            changes: Vec::new(),
            alarms: 0,
            alarm_bytes: 0,
            open: Vec::new(),
        };
        if module.state == UNFORMED {
            entry.verdict = Verdict::Undecided;
            entry.open.push("it is being loaded: its memory is not complete".into());
            return Ok((entry, Compared::default()));
        }
        let Some(path) = files.of(&name) else { return Ok((entry, Compared::default())) };
        let bytes = read_decompressed(&path)?;
        let opened = loader.open(&bytes, LoadFlags::default());
        entry.proof = proof(&opened, module);
        entry.file = Some(path);
        if entry.proof.is_none() {
            entry.verdict = Verdict::NoFile;
            entry.open.push("the file of this name is another build (build id or srcversion differ)".into());
            return Ok((entry, Compared::default()));
        }
        let (mut compared, kept) = compare(loader, &opened, module, around);
        if let Some(kept) = kept {
            loader.insert(kept, Init::Returns(0), &mut elf_layout::Findings::new());
        }
        if compared.holes != 0 {
            compared.open.push(format!("{} bytes of it are not in the dump", compared.holes));
        }
        entry.verdict = if compared.open.is_empty() { Verdict::Clean } else { Verdict::Undecided };
        entry.bytes = compared.bytes;
        entry.sites = compared.sites;
        entry.pointers = compared.pointers;
        entry.changes = std::mem::take(&mut compared.changes);
        entry.open = std::mem::take(&mut compared.open);
        Ok((entry, compared))
    }

    /// What is known of an address, as [`crate::addr::describe`] tells it; the module is linked by itself, where it lies.
    pub fn describe(
        &self,
        source: &KernelSource,
        with: &[PathBuf],
        address: u64,
    ) -> Result<Vec<Vec<String>>, Error> {
        let Some(module) = self.modules.holder(address) else {
            let whose = self.changers.owner(address);
            return Ok(whose.map(|whose| vec![format!("{address:#x}: {whose}")]).into_iter().collect());
        };
        self.linked(source, with, module, |load| {
            let explainer = crate::address::Explainer::new(load);
            let mut lines = crate::addr::describe(load, &explainer, address)?;
            let name = printed(&module.name);
            lines.iter_mut().take(1).for_each(|line| line.push_str(&format!(" [{name}]")));
            Some(lines)
        })
    }

    /// The same of a symbol with a distance in a module that is named.
    pub fn describe_named(
        &self,
        source: &KernelSource,
        with: &[PathBuf],
        name: &str,
        asked: &crate::addr::Asked,
    ) -> Result<Vec<Vec<String>>, Error> {
        let mut all = self.modules.all.values().map(|(module, _)| module);
        let Some(module) = all.find(|module| module.name == name.as_bytes()) else { return Ok(Vec::new()) };
        let mut addresses = Vec::new();
        self.linked(source, with, module, |load| {
            addresses = asked.addresses(&load.module);
            None
        })?;
        let mut found = Vec::new();
        for address in addresses {
            found.extend(self.describe(source, with, address)?);
        }
        Ok(found)
    }

    /// Links one module where it lies, and lets it be looked at; nothing comes of one without a file.
    fn linked(
        &self,
        source: &KernelSource,
        with: &[PathBuf],
        module: &InMemory,
        look: impl FnOnce(&crate::load::Load<'_>) -> Option<Vec<String>>,
    ) -> Result<Vec<Vec<String>>, Error> {
        let files = Files::new(source, &self.loader.kernel.release, with)?;
        let Some(path) = files.of(&printed(&module.name)) else { return Ok(Vec::new()) };
        let bytes = read_decompressed(&path)?;
        let opened = self.loader.open(&bytes, LoadFlags::default());
        let given = module.regions.iter().map(|(region, base, _)| (*region, *base)).collect();
        let args = crate::load::Args::default();
        let attempt = self.loader.load(&opened, &args, &crate::loader::Place::Regions(given), module.percpu);
        let (load, _) = attempt.whatever_it_says();
        Ok(load.as_ref().and_then(look).into_iter().collect())
    }

    /// Modules that not all who should know them know.
    fn hidden(&self, report: &mut Report) {
        for (module, witnesses) in self.modules.all.values() {
            // One that is being loaded or removed is not everywhere yet, or any more.
            let has_list = self.modules.asked.contains(&Witness::List);
            let on_list = witnesses.contains(&Witness::List);
            let missing: Vec<&str> = [Witness::List, Witness::Tree, Witness::Sysfs]
                .into_iter()
                .filter(|w| self.modules.asked.contains(w) && !witnesses.contains(w))
                .map(Witness::name)
                .collect();
            let settled = module.state == modules::LIVE;
            if missing.is_empty() || (on_list && !settled) || (!on_list && !has_list && settled) {
                continue;
            }
            let known: Vec<&str> = witnesses.iter().map(|w| w.name()).collect();
            let name = printed(&module.name).into_owned();
            let base = module.regions.first().map_or(module.address, |(_, base, _)| *base);
            report.alarms.push(Alarm {
                kind: Kind::HiddenModule,
                module: Some(name.clone()),
                address: base,
                size: module.regions.iter().map(|(_, _, size)| *size).fold(0, u64::saturating_add),
                symbol: None,
                section: None,
                expected: Vec::new(),
                found: Vec::new(),
                expected_code: None,
                found_code: None,
                leads_to: None,
                legal: Vec::new(),
                message: format!(
                    "the module {name:?} (struct module at {:#x}) is known by {}, but not by {}",
                    module.address,
                    known.join(" and "),
                    missing.join(" and ")
                ),
            });
        }
    }

    /// Code in the module area that belongs to nothing. `symbols` are the kernel's, by address.
    fn unexplained(&self, report: &mut Report, listed: &[&InMemory], symbols: &[(u64, &[u8])]) {
        if !self.image.knows_permissions() {
            return;
        }
        let page = self.loader.kernel.config.page_size;
        let pages: BTreeSet<u64> = listed.iter().flat_map(|module| module.pages.iter().copied()).collect();
        let whose = |at: u64| {
            let holder = self.modules.holder(at);
            if let Some(module) = holder {
                return Some(listed.iter().any(|known| known.address == module.address));
            }
            let shared = |(start, end, _): &(u64, u64, &str)| *start < at.saturating_add(page) && *end > at;
            (self.changers.code.iter().any(shared) || pages.contains(&at)).then_some(true)
        };
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for mapping in self.area.iter().filter(|mapping| mapping.execute) {
            let mut at = mapping.start;
            while at < mapping.end() {
                let bytes = if whose(at).is_none() { self.image.bytes(at, page) } else { None };
                let fill = bytes.as_ref().and_then(|bytes| bytes.first().copied());
                let used = bytes.is_some_and(|bytes| {
                    bytes.iter().any(|b| Some(*b) != fill) && !self.is_kept_trampoline(at, &bytes, symbols)
                });
                if used {
                    match runs.last_mut() {
                        Some((_, end)) if *end == at => *end = at.saturating_add(page),
                        _ => runs.push((at, at.saturating_add(page))),
                    }
                }
                at = at.saturating_add(page);
            }
        }
        for (start, end) in runs {
            let found = self.image.bytes(start, 64).unwrap_or_default();
            report.alarms.push(Alarm {
                kind: Kind::UnexplainedCode,
                module: None,
                address: start,
                size: end.saturating_sub(start),
                symbol: None,
                section: None,
                expected: Vec::new(),
                found,
                expected_code: None,
                found_code: None,
                leads_to: None,
                legal: Vec::new(),
                message: format!(
                    "{:#x} bytes of executable memory from {start:#x} in the module area belong to no module, tracer, kprobe or BPF program",
                    end.saturating_sub(start)
                ),
            });
        }
    }
}

impl Target {
    /// Is a page the trampoline of an operation of the tracer that is not on the list any more? Those that are the kernel's own
    /// variables keep it when they are switched off (`ftrace_shutdown`, FTRACE_OPS_FL_DYNAMIC): it names the variable, and the
    /// variable names it.
    fn is_kept_trampoline(&self, page: u64, code: &[u8], symbols: &[(u64, &[u8])]) -> bool {
        let structs = Structs { image: &self.image, types: &self.types };
        let is_variable = |at: &u64| symbols.binary_search_by_key(at, |(address, _)| *address).is_ok();
        let words = code.windows(8).filter_map(|w| Some(u64::from_le_bytes(*w.first_chunk()?)));
        words.filter(|at| at >> 63 == 1).filter(is_variable).any(|ops| {
            let size = structs.get(ops, "ftrace_ops", "trampoline_size").unwrap_or(0);
            structs.get(ops, "ftrace_ops", "trampoline") == Some(page)
                && (1..=code.len() as u64).contains(&size)
        })
    }
}

/// The BTF of a kernel image that was read.
fn own_btf(kernel: &kernel::KernelDescription) -> Option<Vec<u8>> {
    match &*kernel.memory {
        kernel::LinkMemory::Image(image) => image.btf().ok().map(|btf| btf.blob().to_vec()),
        _ => None,
    }
}

/// Number of CPUs that there may be (`__cpu_possible_mask`).
fn cpus(image: &MemoryImage, kernel: &kernel::KernelDescription) -> Option<u32> {
    let most = image.number(kernel.symbols.address("nr_cpu_ids")?, 4)?;
    let mask = kernel.symbols.address("__cpu_possible_mask")?;
    let bytes = image.bytes(mask, most.div_ceil(64).min(128).saturating_mul(8))?;
    Some(bytes.iter().map(|byte| byte.count_ones()).sum())
}

/// The files of modules.
struct Files {
    tables: Option<Tables>,
    with: BTreeMap<String, PathBuf>,
}

impl Files {
    fn new(source: &KernelSource, release: &str, with: &[PathBuf]) -> Result<Self, Error> {
        let tree = source.modules_of(release);
        let tables = tree.map(|tree| Tables::open(&tree.folder())).transpose()?;
        let with = with.iter().map(|path| (module_name(path), path.clone())).collect();
        Ok(Files { tables, with })
    }

    fn of(&self, name: &str) -> Option<PathBuf> {
        self.with
            .get(name)
            .cloned()
            .or_else(|| self.tables.as_ref()?.file(name))
            .filter(|path| path.is_file())
    }
}

/// By what a file is proven to be a module's: `None` if it is not its.
fn proof(opened: &crate::load::Opened<'_>, module: &InMemory) -> Option<&'static str> {
    let file = opened.module.as_ref()?;
    let own = build_id(file);
    if let (Some(own), Some(there)) = (&own, &module.build_id) {
        let there = there.get(..own.len()).unwrap_or_default();
        if there.iter().any(|b| *b != 0) {
            return (own == there).then_some("build-id");
        }
    }
    let srcversion = file.modinfo().get("srcversion");
    match (srcversion, &module.srcversion) {
        (Some(own), Some(there)) => (own == &there[..]).then_some("srcversion"),
        _ => Some("fit"),
    }
}

/// The build id in a module's notes.
fn build_id(file: &elf_layout::ModuleFile<'_>) -> Option<Vec<u8>> {
    /// NT_GNU_BUILD_ID
    const BUILD_ID: u32 = 3;
    let index = file.find_any_sec(".note.gnu.build-id");
    let note = (index != 0).then(|| file.section_bytes(index))?;
    let word = |at| elf_layout::bytes::le32(note, at);
    let (name, size, kind) = (u64::from(word(0)?), u64::from(word(4)?), word(8)?);
    let at = 12u64.checked_add(elf_layout::bytes::align_up(name, 4))?;
    (kind == BUILD_ID).then(|| elf_layout::bytes::slice(note, at, size).map(<[u8]>::to_vec))?
}
