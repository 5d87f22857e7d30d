//! What is loaded before a module: of the kernel's tree, of the folder that the module lies in, and what is loaded already.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use elf_layout::elf::{SHN_UNDEF, SymFields};
use elf_layout::ksymtab;
use elf_layout::{Change, KernelConfig, ModuleFile};
use kernel::{Export, ExportTable, Exports, Kernel, LoadedModule, Told};
use symres::LoadFlags;

use super::settings::{Setting, Softdep};
use super::tables::{module_name, names};
use super::{Chosen, Meant, Modprobe, Plan, Step};
use crate::error::Error;
use crate::input::read_decompressed;
use crate::kernel_source::KernelSource;
use crate::kernel_source::running::Running;
use crate::kernel_source::tree::Tree;
use crate::kernel_source::unread::Unread;
use crate::load::{Opened, open};
use crate::loader::Loader;

/// So many modules beside a file are looked at.
const NEIGHBOURS_MAX: usize = 1000;

/// Where the modules of a kernel are, and which of them are loaded.
#[derive(Debug)]
pub struct Home {
    /// modprobe for its tree; `None` if it has none.
    pub modprobe: Option<Modprobe>,
    running: Option<Running>,
    /// Loaded modules whose exports were looked for.
    learned: HashSet<String>,
    /// By folder: the modules in it, and who exports what.
    neighbours: HashMap<PathBuf, Neighbours>,
}

/// How a module gets into the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Way {
    /// What is loaded before it, in this order. What is loaded already is left out.
    pub before: Vec<Step>,
    /// Its parameters by `modprobe.d` and the kernel's command line.
    pub options: String,
    /// What modprobe runs instead of loading it.
    pub command: Option<Setting>,
    /// Is it loaded already?
    pub is_loaded: bool,
}

/// The modules of one folder.
#[derive(Debug, Default)]
struct Neighbours {
    files: BTreeMap<String, PathBuf>,
    exporters: HashMap<Vec<u8>, String>,
}

/// What a file says of what it needs.
#[derive(Debug, Default)]
struct Needs {
    /// Names that the kernel and the loaded modules are not known to export.
    symbols: Vec<String>,
    /// `depends=`, the first last.
    depends: Vec<String>,
    /// What is loaded before it where that is possible.
    softdeps: Vec<String>,
}

impl Needs {
    fn of(path: &Path, kernel: &Kernel) -> Result<Self, Error> {
        let bytes = read_decompressed(path)?;
        let unsigned = Kernel::unknown(kernel.config.clone());
        let opened = open(&bytes, &unsigned, LoadFlags::default());
        let Some(file) = &opened.module else { return Ok(Needs::default()) };
        let text = |key| String::from_utf8_lossy(file.modinfo().get(key).unwrap_or_default()).into_owned();
        let mut seen = HashSet::new();
        let undefined = file.symbols().iter().skip(1).filter(|s| s.shndx() == SHN_UNDEF);
        let names_of =
            undefined.map(|s| file.symbol_name(s)).filter(|name| !name.is_empty() && seen.insert(*name));
        let foreign = names_of.filter(|name| kernel.find_symbol(name, true, file.name()).is_none());
        Ok(Needs {
            symbols: foreign.map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
            depends: names(&text("depends")),
            softdeps: Softdep::parse(&text("softdep")).pre,
        })
    }
}

/// The exports of a module's file, without addresses.
fn exports_of(file: &ModuleFile<'_>, kernel: &Kernel) -> Exports {
    ksymtab::exports(file, kernel.config.changes()).iter().map(Export::from).collect()
}

impl Home {
    /// That of a kernel that was described by `source`.
    pub fn new(source: &KernelSource, kernel: &Kernel) -> Result<Self, Error> {
        let cmdline = source.running.as_ref().map(|_| &*kernel.cmdline);
        let tree = source.modules_of(&kernel.release);
        let modprobe = tree.map(|tree| Modprobe::open(tree, cmdline)).transpose()?;
        let running = source.running.clone();
        Ok(Home { modprobe, running, learned: HashSet::new(), neighbours: HashMap::new() })
    }

    /// That of a tree alone, if there is one: enough to look names up.
    pub fn of_tree(tree: Option<Tree>) -> Result<Self, Error> {
        let modprobe = tree.map(|tree| Modprobe::open(tree, None)).transpose()?;
        Ok(Home { modprobe, running: None, learned: HashSet::new(), neighbours: HashMap::new() })
    }

    /// What a name means; without a tree, nothing.
    pub fn lookup(&self, name: &str) -> Result<Meant, Error> {
        self.modprobe
            .as_ref()
            .map_or(Ok(Meant::Nothing { without_aliases: true }), |modprobe| modprobe.lookup(name))
    }

    /// How a module of the tree that has this name gets into the kernel. What the loaded modules export that it needs is
    /// learned.
    pub fn way_of(
        &mut self,
        chosen: &Chosen,
        alias: Option<&str>,
        loader: &mut Loader,
    ) -> Result<Way, Error> {
        let plan = match &self.modprobe {
            Some(modprobe) => modprobe.plan(&chosen.name, alias)?,
            None => Plan::default(),
        };
        let is_loaded = self.is_loaded(&chosen.name, loader);
        self.learn_what_it_may_meet(&chosen.file, loader)?;
        let before = self.not_loaded(plan.before, loader)?;
        Ok(Way { before, options: plan.options, command: plan.command, is_loaded })
    }

    /// Has the running kernel loaded a module of this name?
    fn is_loaded(&self, name: &str, loader: &Loader) -> bool {
        self.running.is_some() && loader.kernel.module(name.as_bytes()).is_some()
    }

    /// The steps that are still to be taken.
    fn not_loaded(&mut self, steps: Vec<Step>, loader: &mut Loader) -> Result<Vec<Step>, Error> {
        let mut left = Vec::new();
        for step in steps {
            if loader.kernel.module(step.name.as_bytes()).is_some() {
                self.learn(&step.name, loader)?;
            } else {
                left.push(step);
            }
        }
        Ok(left)
    }

    /// How the module of a file gets into the kernel: what it needs is taken from the folder that it lies in, then from the
    /// tree.
    pub fn way_of_file(&mut self, path: &Path, loader: &mut Loader) -> Result<Way, Error> {
        let name = module_name(path);
        if let Some(chosen) = self.in_tree(path, &name) {
            return self.way_of(&chosen, None, loader);
        }
        let mut steps = Vec::new();
        let mut seen = HashSet::from([name.clone()]);
        self.learn_what_it_may_meet(path, loader)?;
        self.visit(path, loader, &mut steps, &mut seen, 0)?;
        let settings = self.modprobe.as_ref().map(|modprobe| &modprobe.settings);
        Ok(Way {
            options: settings.map(|s| s.options_of(&name, None)).unwrap_or_default(),
            command: settings.and_then(|s| s.install_of(&name)).cloned(),
            is_loaded: self.is_loaded(&name, loader),
            before: steps,
        })
    }

    /// The module of the tree whose file this is.
    fn in_tree(&self, path: &Path, name: &str) -> Option<Chosen> {
        let file = self.modprobe.as_ref()?.file(name)?;
        let is_it = path.canonicalize().ok()? == file.canonicalize().ok()?;
        is_it.then(|| Chosen { name: name.to_owned(), file, by_alias: false })
    }

    /// Adds what a file outside of the tree needs, each after what that needs.
    fn visit(
        &mut self,
        path: &Path,
        loader: &mut Loader,
        steps: &mut Vec<Step>,
        seen: &mut HashSet<String>,
        depth: usize,
    ) -> Result<(), Error> {
        let mut needs = Needs::of(path, &loader.kernel)?;
        let configured = self.modprobe.as_ref().and_then(|m| m.settings.softdep_of(&module_name(path)));
        configured.into_iter().for_each(|softdep| needs.softdeps = softdep.pre);
        if needs.symbols.is_empty() && needs.depends.is_empty() && needs.softdeps.is_empty()
            || depth > NEIGHBOURS_MAX
        {
            return Ok(());
        }
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let mut providers = self.providers(&folder, &needs, loader)?;
        if providers.left {
            // It may come from a loaded module whose exports nobody asked for yet.
            self.learn_all(loader)?;
            needs.symbols = Needs::of(path, &loader.kernel)?.symbols;
            providers = self.providers(&folder, &needs, loader)?;
        }
        for (name, required) in providers.names {
            if !seen.insert(name.clone()) {
                continue;
            }
            if loader.kernel.module(name.as_bytes()).is_some() {
                self.learn(&name, loader)?;
                continue;
            }
            let neighbour = self.neighbours.get(&folder).and_then(|all| all.files.get(&name)).cloned();
            let settings = self.modprobe.as_ref().map(|modprobe| &modprobe.settings);
            if let Some(file) = neighbour {
                let step = Step {
                    options: settings.map(|s| s.options_of(&name, None)).unwrap_or_default(),
                    command: settings.and_then(|s| s.install_of(&name)).cloned(),
                    file: Some(file.clone()),
                    name,
                    required,
                    is_neighbour: true,
                };
                self.visit(&file, loader, steps, seen, depth.saturating_add(1))?;
                steps.push(step);
                continue;
            }
            let Some(modprobe) = self.modprobe.as_ref().filter(|modprobe| modprobe.file(&name).is_some())
            else {
                continue;
            };
            let plan = modprobe.plan(&name, None)?;
            let own = modprobe.step(&name, false, required);
            let all =
                self.not_loaded(plan.before.into_iter().chain([own]).chain(plan.after).collect(), loader)?;
            for step in all {
                seen.insert(step.name.clone());
                if !steps.iter().any(|s| s.name == step.name) {
                    steps.push(step);
                }
            }
        }
        Ok(())
    }

    /// The modules that names come from: first those of `depends=`, in its order of loading.
    fn providers(&mut self, folder: &Path, needs: &Needs, loader: &Loader) -> Result<Providers, Error> {
        self.look_around(folder, &loader.kernel);
        let around = self.neighbours.get(folder);
        let mut names: Vec<(String, bool)> =
            needs.depends.iter().rev().map(|name| (name.clone(), true)).collect();
        let mut left: Vec<&str> = Vec::new();
        for symbol in &needs.symbols {
            match around.and_then(|all| all.exporters.get(symbol.as_bytes())) {
                Some(module) => names.push((module.clone(), true)),
                None => left.push(symbol),
            }
        }
        let wanted: HashSet<&str> = left.iter().copied().collect();
        let table =
            self.modprobe.as_ref().filter(|_| !wanted.is_empty()).map(|m| m.tables.exporters(&wanted));
        let table = table.transpose()?.flatten();
        let kernel = &loader.kernel;
        let described = |symbol: &str| {
            let module = kernel.not_loaded(symbol.as_bytes())?;
            Some(String::from_utf8_lossy(&module.name).into_owned())
        };
        let mut found = Vec::new();
        left.retain(|symbol| {
            let of_table = table.as_ref().and_then(|table| table.get(*symbol).cloned());
            let module = of_table.or_else(|| described(symbol));
            let is_found = module.is_some();
            found.extend(module);
            !is_found
        });
        names.extend(found.into_iter().map(|name| (name, true)));
        for softdep in &needs.softdeps {
            if let Meant::Modules(all) = self.lookup(softdep)? {
                names.extend(all.into_iter().map(|chosen| (chosen.name, false)));
            }
        }
        if !left.is_empty() {
            let named: Vec<String> = names.iter().map(|(name, _)| name.clone()).collect();
            left.retain(|symbol| !self.one_exports(&named, symbol, kernel));
        }
        Ok(Providers { names, left: !left.is_empty() })
    }

    /// Does the file of one of these modules export a name?
    fn one_exports(&self, modules: &[String], symbol: &str, kernel: &Kernel) -> bool {
        let files = modules.iter().filter_map(|name| self.modprobe.as_ref()?.file(name));
        files.into_iter().any(|file| {
            let Ok(bytes) = read_decompressed(&file) else { return false };
            let unsigned = Kernel::unknown(kernel.config.clone());
            let opened = open(&bytes, &unsigned, LoadFlags::default());
            let exports =
                |file: &ModuleFile<'_>| exports_of(file, kernel).iter().any(|e| e.name == symbol.as_bytes());
            opened.module.as_ref().is_some_and(exports)
        })
    }

    /// Looks at the modules of a folder.
    fn look_around(&mut self, folder: &Path, kernel: &Kernel) {
        if self.neighbours.contains_key(folder) {
            return;
        }
        let mut all = Neighbours::default();
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let mut files: Vec<PathBuf> =
            fs::read_dir(here).into_iter().flatten().flatten().map(|e| e.path()).collect();
        files.sort();
        let is_module = |path: &PathBuf| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            [".ko", ".ko.gz", ".ko.xz", ".ko.zst"].iter().any(|ending| name.ends_with(ending))
                && path.is_file()
        };
        for path in files.into_iter().filter(is_module).take(NEIGHBOURS_MAX) {
            let Ok(bytes) = read_decompressed(&path) else { continue };
            let unsigned = Kernel::unknown(kernel.config.clone());
            let opened = open(&bytes, &unsigned, LoadFlags::default());
            let Some(file) = &opened.module else { continue };
            let name = module_name(&path);
            for export in exports_of(file, kernel).iter() {
                all.exporters.entry(export.name.to_vec()).or_insert_with(|| name.clone());
            }
            all.files.insert(name, path);
        }
        self.neighbours.insert(folder.to_owned(), all);
    }

    /// The loaded modules of a running kernel hold the addresses that it shows, so that the next one goes where it will: by
    /// `/proc/vmallocinfo`, else by their files and the symbol table. What is not shown is noted.
    pub fn hold_places(&mut self, loader: &mut Loader, unread: &mut Vec<Unread>) -> Result<(), Error> {
        let Some(running) = self.running.clone() else { return Ok(()) };
        let mut told = Vec::new();
        let areas = running.areas(&mut told);
        let has_areas = areas.is_some();
        areas.into_iter().for_each(|areas| loader.kernel.state.space.show(areas));
        let names: Vec<String> =
            loader.kernel.modules().map(|m| String::from_utf8_lossy(&m.name).into_owned()).collect();
        let mut held = loader.clone();
        held.kernel.state.space.forget_listed();
        let mut all = true;
        for name in names.iter().rev() {
            let config = held.kernel.config.clone();
            all &= self.with_file(name, &running, &config, |file| held.hold(file, has_areas))?;
        }
        // With KASLR the area begins anywhere: only what lies there shows where (LAYOUT-51).
        let is_anywhere = loader.kernel.slide != 0;
        if !has_areas && (is_anywhere || !all) {
            unread.append(&mut told);
        } else if is_anywhere && names.is_empty() {
            let why = "no module was loaded since KASLR chose where they begin";
            unread.push(Unread::because(
                "places that modules take",
                running.root.at("proc/modules"),
                why,
                "load one, or give --base",
            ));
        }
        if all {
            *loader = held;
        } else if has_areas && loader.kernel.config.has(Change::CodeFromCache) {
            let why = "it lists blocks of code whole (LAYOUT-55), and the files of loaded modules do not all tell what is free of them";
            let path = running.root.at("proc/vmallocinfo");
            unread.push(Unread::because("places that code of modules takes", path, why, "give --base"));
        }
        self.hold_percpu(loader)
    }

    /// The loaded modules of a running kernel hold what their files have of the per-cpu reserve. Of one without its file nothing is
    /// known, and then not of the reserve, either.
    fn hold_percpu(&self, loader: &mut Loader) -> Result<(), Error> {
        let Some(running) = &self.running else { return Ok(()) };
        let space = &loader.kernel.state.space;
        let names = loader.kernel.modules().map(|m| &*m.name).filter(|name| !space.is_held(name));
        let names: Vec<String> = names.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let config = loader.kernel.config.clone();
        for name in names.iter().rev() {
            if !self.with_file(name, running, &config, |file| loader.hold_percpu(file))? {
                loader.kernel.state.space.forget_percpu();
            }
        }
        Ok(())
    }

    /// Lets the file of a loaded module be looked at; false if there is none that is it.
    fn with_file(
        &self,
        name: &str,
        running: &Running,
        config: &KernelConfig,
        look: impl FnOnce(&Opened<'_>) -> bool,
    ) -> Result<bool, Error> {
        let Some(file) = self.modprobe.as_ref().and_then(|modprobe| modprobe.file(name)) else {
            return Ok(false);
        };
        let bytes = read_decompressed(&file)?;
        let unsigned = Kernel::unknown(config.clone());
        let opened = open(&bytes, &unsigned, LoadFlags::default());
        let is_it = opened.module.as_ref().is_some_and(|module| is_what_runs(module, name, running));
        Ok(is_it && look(&opened))
    }

    /// What a module exports itself must not be exported by any loaded one (DUP-1), and its per-cpu data has to fit beside theirs
    /// (LAYOUT-60).
    fn learn_what_it_may_meet(&mut self, path: &Path, loader: &mut Loader) -> Result<(), Error> {
        if self.running.is_none() {
            return Ok(());
        }
        let bytes = read_decompressed(path)?;
        let unsigned = Kernel::unknown(loader.kernel.config.clone());
        let opened = open(&bytes, &unsigned, LoadFlags::default());
        let Some(file) = &opened.module else { return Ok(()) };
        let pcpu = file.index().pcpu;
        if file.sections().get(pcpu).is_some_and(|section| pcpu != 0 && section.sh_size != 0) {
            self.hold_percpu(loader)?;
        }
        if exports_of(file, &loader.kernel).is_empty() { Ok(()) } else { self.learn_all(loader) }
    }

    /// What every loaded module exports, as far as its file is there.
    fn learn_all(&mut self, loader: &mut Loader) -> Result<(), Error> {
        let nothing = |m: &&LoadedModule| m.exports.told() == Told::Nothing;
        let all = loader.kernel.modules().filter(nothing);
        let all: Vec<String> = all.map(|m| String::from_utf8_lossy(&m.name).into_owned()).collect();
        all.iter().try_for_each(|name| self.learn(name, loader))
    }

    /// What a loaded module exports: of its file, if the running kernel shows that this is what was loaded.
    fn learn(&mut self, name: &str, loader: &mut Loader) -> Result<(), Error> {
        let known = loader.kernel.module(name.as_bytes()).is_none_or(|m| m.exports.told() == Told::Records);
        let Some((running, file)) =
            self.running.as_ref().zip(self.modprobe.as_ref().and_then(|m| m.file(name)))
        else {
            return Ok(());
        };
        if known || !self.learned.insert(name.to_owned()) {
            return Ok(());
        }
        let bytes = read_decompressed(&file)?;
        let unsigned = Kernel::unknown(loader.kernel.config.clone());
        let opened = open(&bytes, &unsigned, LoadFlags::default());
        let Some(module) = opened.module.as_ref().filter(|module| is_what_runs(module, name, running)) else {
            return Ok(());
        };
        let symbols = Arc::clone(&loader.kernel.description.symbols);
        let with_address = |export: Export<'_>, to: &mut Exports| {
            let address = symbols.exported_address(export.name, Some(name.as_bytes()));
            to.push(Export { address, ..export });
        };
        let mut exports = Exports::default();
        exports_of(module, &loader.kernel).iter().for_each(|export| with_address(export, &mut exports));
        if let Some(loaded) = loader.kernel.state.module_mut(name.as_bytes()) {
            loaded.exports = ExportTable::new(exports);
        }
        Ok(())
    }
}

/// The modules that names come from.
#[derive(Debug)]
struct Providers {
    names: Vec<(String, bool)>,
    /// Is there a name that none of them is known to export?
    left: bool,
}

/// Is a file what was loaded under a name: has it the build id, or else the `srcversion`, that the kernel shows?
fn is_what_runs(file: &ModuleFile<'_>, name: &str, running: &Running) -> bool {
    let folder = running.sysfs(name);
    if let Ok(note) = fs::read(folder.join("notes/.note.gnu.build-id")) {
        let sections = file.sections().iter().enumerate();
        let mut own = sections
            .map(|(index, _)| index)
            .filter(|index| file.section_name(*index) == b".note.gnu.build-id");
        return own.next().is_some_and(|index| file.section_bytes(index) == note);
    }
    let shown = fs::read(folder.join("srcversion")).unwrap_or_default();
    let shown = shown.trim_ascii();
    !shown.is_empty() && file.modinfo().get("srcversion") == Some(shown)
}
