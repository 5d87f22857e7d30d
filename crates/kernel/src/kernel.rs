//! The kernel that a module is loaded into.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use elf_layout::KernelConfig;

use crate::boot::BootParams;
use crate::btf::BaseBtf;
use crate::exports::{Export, ExportTable, Exports, Lookup};
use crate::kallsyms::{KernelSymbol, KernelSymbols};
use crate::lifecycle::{History, ModuleState};
use crate::symvers::Symvers;
use crate::taint::Taints;

/// The name that a symbol's owner has in `/proc/kallsyms` terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'k> {
    /// The kernel itself.
    Vmlinux,
    /// A loaded module.
    Module(&'k [u8]),
}

impl<'k> Owner<'k> {
    /// `vmlinux`, or the module's name.
    pub fn name(self) -> &'k [u8] {
        match self {
            Owner::Vmlinux => b"vmlinux",
            Owner::Module(name) => name,
        }
    }
}

/// A module in the kernel's list: `struct module`, as far as others see it.
#[derive(Clone, Debug)]
pub struct LoadedModule {
    /// Its name.
    pub name: Box<[u8]>,
    /// What it exports.
    pub exports: ExportTable,
    /// It has taint P (LIC-5).
    pub proprietary: bool,
    /// Only a symbol table lists it; nothing else is known of it.
    pub listed: bool,
    /// Where in its life it is.
    pub state: ModuleState,
    /// `refcnt` as it is held, the loader's own reference included (LIFE-20).
    pub refcnt: i32,
    /// Modules that use this one, newest first (LIFE-23).
    pub source_list: Vec<Box<[u8]>>,
    /// Modules that this one uses, newest first (LIFE-23).
    pub target_list: Vec<Box<[u8]>>,
    /// Has it an init function (LIFE-10)?
    pub has_init: bool,
    /// Has it an exit function?
    pub has_exit: bool,
    /// Its taints, one bit each.
    pub taints: u64,
    /// Address of its code: MOD_TEXT, before v6.4 core_layout. 0 if there is none.
    pub base: u64,
    /// Bytes of its memory without init, as `/proc/modules` counts them.
    pub size: u32,
    /// Bytes of its init memory; 0 once that is freed.
    pub init_size: u32,
}

/// An export of a module that is not loaded, as Module.symvers tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLoaded<'k> {
    /// The module that would export it.
    pub module: &'k [u8],
    /// To GPL-compatible modules only.
    pub gpl_only: bool,
    /// Its namespace, empty if none.
    pub namespace: &'k [u8],
}

/// The pieces that describe a kernel, as far as they are at hand.
#[derive(Clone, Debug, Default)]
pub struct KernelParts {
    /// Release (`uname -r`), empty if not known.
    pub release: String,
    /// Its whole vermagic string.
    pub vermagic: Option<Vec<u8>>,
    /// EM_* of its architecture.
    pub machine: Option<u16>,
    /// kallsyms or System.map.
    pub symbols: Option<KernelSymbols>,
    /// The kernel's own exports with their addresses, read from its image.
    pub exports: Option<Exports>,
    /// Module.symvers.
    pub symvers: Option<Symvers>,
    /// Certificates that are built into it to trust modules by, each as DER.
    pub certificates: Vec<Vec<u8>>,
    /// Those of its other keyrings.
    pub keyring: Vec<Vec<u8>>,
    /// Its BTF.
    pub btf: Option<BaseBtf>,
}

/// A kernel: configuration, symbols, exports, and the modules loaded so far.
/// Loading a module does not change it; [`Kernel::insert_module`] does. Copies share what is large.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Release (`uname -r`), empty if not known.
    pub release: String,
    /// The string that vermagic is compared with, if known (VER-20).
    pub vermagic: Option<Vec<u8>>,
    /// EM_* of its architecture, if known.
    pub machine: Option<u16>,
    /// Version and configuration.
    pub config: KernelConfig,
    /// Certificates that are built into it to trust modules by, each as DER; empty if they are not known.
    pub certificates: Vec<Vec<u8>>,
    /// Those of its other keyrings, such as MOK, as far as they are known.
    pub keyring: Vec<Vec<u8>>,
    /// Its BTF, which that of modules goes on from; `None` if it has none or it is not known.
    pub btf: Option<BaseBtf>,
    /// What its command line says.
    pub boot: BootParams,
    /// Its taints before the next load.
    pub taints: Taints,
    /// What it remembers of modules that came and went.
    pub history: History,
    /// All symbols, where the addresses of non-exported ones are needed.
    pub symbols: Arc<KernelSymbols>,
    exports: Arc<ExportTable>,
    /// Oldest first.
    modules: Vec<Arc<LoadedModule>>,
    unloaded: Arc<Unloaded>,
    /// Are the exports known, or only symbols (KSYM-2)?
    knows_exports: bool,
    addresses: bool,
}

impl Kernel {
    /// Joins the pieces: which names are exported comes from the image, else from Module.symvers,
    /// whose addresses come from kallsyms. Modules that kallsyms lists count as
    /// loaded. Without Module.symvers the `__ksymtab_` labels in kallsyms tell
    /// what is exported, else every global symbol counts as exported (KSYM-2).
    pub fn new(mut config: KernelConfig, parts: KernelParts) -> Self {
        let addresses = parts.symbols.is_some() || parts.exports.is_some();
        let has_symbols = parts.symbols.is_some();
        let symbols = parts.symbols.unwrap_or_default();
        if has_symbols && config.kallsyms_all.is_none() {
            // KSYM-10
            config.kallsyms_all = Some(symbols.has_local_data());
        }
        let knows_exports = parts.symvers.is_some() || parts.exports.is_some();
        let from_image = parts.exports.is_some();
        let loaded: Vec<&[u8]> = symbols.modules().collect();
        let is_loaded: BTreeSet<&[u8]> = loaded.iter().copied().collect();
        let is_unloaded =
            |owner: &Option<Vec<u8>>| owner.as_ref().is_some_and(|name| !is_loaded.contains(name.as_slice()));
        let symvers = parts.symvers.unwrap_or_default();
        let mut described: BTreeMap<Option<Vec<u8>>, Vec<Range<usize>>> = BTreeMap::new();
        for exporter in symvers.exporters().filter(|e| !from_image || e.module().is_some()) {
            described.entry(exporter.module()).or_default().push(exporter.positions);
        }
        let mut all = symvers.into_exports();
        for (owner, parts) in described.iter().filter(|(owner, _)| has_symbols && !is_unloaded(owner)) {
            let address = |export: Export<'_>| symbols.exported_address(export.name, owner.as_deref());
            parts.iter().for_each(|part| all.set_addresses(part.clone(), address));
        }
        let all = Arc::new(all);
        let table = ExportTable::of(Arc::clone(&all));
        // modpost writes what one module exports line after line, and no name twice: then one index serves all owners.
        let part = |parts: &Vec<Range<usize>>| match parts.as_slice() {
            [part] => table.part(part.clone()),
            _ => None,
        };
        let shared: Option<Vec<ExportTable>> = described.values().map(part).collect();
        let own = |parts: &Vec<Range<usize>>| {
            let exports = parts.iter().flat_map(|part| all.part(part.clone()));
            ExportTable::new(exports.collect())
        };
        let is_shared = shared.is_some();
        let tables = shared.unwrap_or_else(|| described.values().map(own).collect());
        let tables = described.into_keys().zip(tables);
        let (of_unloaded, mut of_owner): (BTreeMap<_, _>, BTreeMap<_, _>) =
            tables.partition(|(owner, _)| is_unloaded(owner));
        if let Some(exports) = parts.exports {
            of_owner.insert(None, ExportTable::new(exports));
        }
        let mut of_symtab: BTreeMap<Option<&[u8]>, Vec<KernelSymbol<'_>>> = BTreeMap::new();
        for symbol in symbols.iter() {
            of_symtab.entry(symbol.module).or_default().push(symbol);
        }
        for (owner, own) in &of_symtab {
            // Modules that are not of this build are not in its Module.symvers.
            let known = of_owner.contains_key(&owner.map(<[u8]>::to_vec));
            if !known && (owner.is_some() || !knows_exports) {
                let exports = ExportTable::new(exports_by_label(&symbols, own, *owner));
                of_owner.insert(owner.map(<[u8]>::to_vec), exports);
            }
        }
        let exports = Arc::new(of_owner.remove(&None).unwrap_or_default());
        let module = |name: &[u8], exports, listed| {
            Arc::new(LoadedModule { exports, listed, ..LoadedModule::named(name) })
        };
        let mut exports_of = |name: &[u8]| of_owner.remove(&Some(name.to_vec())).unwrap_or_default();
        let modules = loaded.iter().rev().map(|name| module(name, exports_of(name), true)).collect();
        let unloaded =
            of_unloaded.into_iter().filter_map(|(name, exports)| Some(module(&name?, exports, false)));
        let unloaded = Unloaded::new(unloaded.collect(), is_shared.then_some(table));
        let (release, vermagic, machine) = (parts.release, parts.vermagic, parts.machine);
        Kernel {
            release,
            vermagic,
            machine,
            certificates: parts.certificates,
            keyring: parts.keyring,
            btf: parts.btf,
            boot: BootParams::default(),
            taints: Taints::default(),
            history: History::default(),
            config,
            symbols: Arc::new(symbols),
            exports,
            modules,
            unloaded: Arc::new(unloaded),
            knows_exports,
            addresses,
        }
    }

    /// Is anything known of the kernel's symbols?
    pub fn is_described(&self) -> bool {
        self.knows_exports || self.addresses
    }

    /// All certificates that it is known to trust (SIG-8).
    pub fn trusted(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.certificates.iter().chain(&self.keyring)
    }

    /// Adds a module at the head of the module list (LIFE-4). One of the same name is replaced; who
    /// uses that one uses the new one.
    pub fn insert_module(&mut self, module: impl Into<Arc<LoadedModule>>) {
        let mut module = module.into();
        if let Some(old) = self.remove_module(&module.name) {
            let module = Arc::make_mut(&mut module);
            module.refcnt = module.refcnt.saturating_add(old.refcount().max(0));
            module.source_list.extend(old.source_list);
        }
        self.modules.push(module);
    }

    /// [`Kernel::insert_module`] of several, oldest first.
    pub fn insert_modules(&mut self, modules: impl IntoIterator<Item = Arc<LoadedModule>>) {
        let modules: Vec<Arc<LoadedModule>> = modules.into_iter().collect();
        let mut names: BTreeSet<&[u8]> = self.modules.iter().map(|m| &*m.name).collect();
        if modules.iter().all(|module| names.insert(&module.name)) {
            self.modules.extend(modules);
        } else {
            modules.into_iter().for_each(|module| self.insert_module(module));
        }
    }

    /// Takes a module from the list, and its exports with it.
    pub fn remove_module(&mut self, name: &[u8]) -> Option<LoadedModule> {
        let at = self.modules.iter().position(|m| *m.name == *name)?;
        Some(Arc::unwrap_or_clone(self.modules.remove(at)))
    }

    /// The loaded modules, newest first.
    pub fn modules(&self) -> impl Iterator<Item = &LoadedModule> {
        self.modules.iter().rev().map(|m| &**m)
    }

    /// `find_symbol`: the kernel's tables, then those of each module, newest
    /// first (SYM-30). `but` is the module being loaded, which is not searched (DEP-6).
    pub fn find_symbol(&self, name: &[u8], gplok: bool, but: &[u8]) -> Option<(Owner<'_>, Export<'_>)> {
        let mut lookup = Lookup::new(name);
        if let Some(export) = self.exports.find_next(&mut lookup, gplok) {
            return Some((Owner::Vmlinux, export));
        }
        let mut others = self.modules().filter(|m| *m.name != *but);
        others.find_map(|m| Some((Owner::Module(&m.name), m.exports.find_next(&mut lookup, gplok)?)))
    }

    /// The loaded module of that name.
    pub fn module(&self, name: &[u8]) -> Option<&LoadedModule> {
        self.modules.iter().find(|m| *m.name == *name).map(|m| &**m)
    }

    /// The loaded module of that name, to be changed.
    pub fn module_mut(&mut self, name: &[u8]) -> Option<&mut LoadedModule> {
        self.modules.iter_mut().find(|m| *m.name == *name).map(Arc::make_mut)
    }

    /// Who would export `name` if it were loaded.
    pub fn exporter_not_loaded(&self, name: &[u8]) -> Option<NotLoaded<'_>> {
        let module = self.not_loaded(name)?;
        let export = module.exports.find(name, true)?;
        Some(NotLoaded { module: &module.name, gpl_only: export.gpl_only, namespace: export.namespace })
    }

    /// The modules of Module.symvers that are not loaded.
    pub fn modules_not_loaded(&self) -> impl Iterator<Item = &LoadedModule> {
        self.unloaded.modules.iter().map(|module| &**module)
    }

    /// That module as Module.symvers describes it; the last one if several export `name`.
    pub fn not_loaded(&self, name: &[u8]) -> Option<&Arc<LoadedModule>> {
        self.unloaded.exporter(name)
    }
}

/// The modules of Module.symvers that are not loaded, by what they export.
#[derive(Debug, Default)]
struct Unloaded {
    modules: Vec<Arc<LoadedModule>>,
    /// Which of all exports each has, in order.
    parts: Vec<Range<usize>>,
    /// Those of all modules.
    exports: ExportTable,
}

impl Unloaded {
    /// Of modules whose exports are parts of one table, if there is such a one.
    fn new(mut modules: Vec<Arc<LoadedModule>>, table: Option<ExportTable>) -> Self {
        if let Some(exports) = table {
            modules.sort_by_key(|module| module.exports.positions().start);
            let parts = modules.iter().map(|module| module.exports.positions()).collect();
            return Unloaded { modules, parts, exports };
        }
        let (mut exports, mut parts) = (Exports::default(), Vec::new());
        for module in &modules {
            let from = exports.len();
            module.exports.iter().for_each(|export| exports.push(export));
            parts.push(from..exports.len());
        }
        Unloaded { modules, parts, exports: ExportTable::new(exports) }
    }

    /// The last module that exports `name`.
    fn exporter(&self, name: &[u8]) -> Option<&Arc<LoadedModule>> {
        let position = self.exports.find_last(name)?;
        let at = self.parts.partition_point(|part| part.end <= position);
        self.modules.get(at).filter(|_| self.parts.get(at).is_some_and(|part| part.contains(&position)))
    }
}

/// Exports without a Module.symvers: symbols that have a `__ksymtab_` label. Without
/// CONFIG_KALLSYMS_ALL there are no labels (KSYM-10); then any global symbol of the kernel and any
/// symbol of a module counts. A module's GPL-only exports have lower-case letters (LIFE-51).
fn exports_by_label(symbols: &KernelSymbols, own: &[KernelSymbol<'_>], owner: Option<&[u8]>) -> Exports {
    let globals: BTreeSet<&[u8]> =
        own.iter().filter(|s| s.kind.is_ascii_uppercase()).map(|s| s.name).collect();
    let labels: BTreeSet<&[u8]> = own.iter().filter_map(|s| s.name.strip_prefix(b"__ksymtab_")).collect();
    let by_label = !labels.is_empty() || symbols.has_local_data();
    let candidates = own.iter().filter(|s| owner.is_some() || s.kind.is_ascii_uppercase());
    let names = if by_label { labels } else { candidates.map(|s| s.name).collect() };
    let export = |name| Export {
        name,
        address: symbols.exported_address(name, owner),
        crc: None,
        gpl_only: owner.is_some() && !globals.contains(name),
        namespace: b"",
    };
    names.into_iter().map(export).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use elf_layout::KernelVersion;

    fn kernel(symtab: &[u8], symvers: Option<&[u8]>) -> Kernel {
        let parts = KernelParts {
            symbols: Some(KernelSymbols::parse(symtab).unwrap()),
            symvers: symvers.map(|s| Symvers::parse(s).unwrap()),
            ..KernelParts::default()
        };
        Kernel::new(KernelConfig::new(KernelVersion::new(6, 12, 0)), parts)
    }

    const SYMTAB: &[u8] =
        b"1000 T plain\n1008 r __ksymtab_plain\n1010 t hidden\n2000 t gpl\t[b]\n2008 r __ksymtab_gpl\t[b]\n\
        3000 T plain\t[a]\n3008 r __ksymtab_plain\t[a]\n";

    #[test]
    fn sym_30_kernel_first_then_newest_module() {
        let symvers = b"0x01\tplain\tvmlinux\tEXPORT_SYMBOL\t\n0x02\tgpl\tx/b\tEXPORT_SYMBOL_GPL\tNS\n0x03\tlater\tx/c\tEXPORT_SYMBOL\t\n";
        let kernel = kernel(SYMTAB, Some(symvers));
        let (owner, export) = kernel.find_symbol(b"plain", true, b"me").unwrap();
        assert_eq!((owner, export.address, export.crc), (Owner::Vmlinux, Some(0x1000), Some(1)), "SYM-30");
        let (owner, export) = kernel.find_symbol(b"gpl", true, b"me").unwrap();
        assert_eq!((owner.name(), export.address, export.namespace), (&b"b"[..], Some(0x2000), &b"NS"[..]));
        assert!(kernel.find_symbol(b"gpl", false, b"me").is_none(), "SYM-31");
        assert!(kernel.find_symbol(b"gpl", true, b"b").is_none(), "DEP-6");
        assert_eq!(kernel.exporter_not_loaded(b"later").map(|n| n.module), Some(&b"c"[..]));
    }

    #[test]
    fn ksym_2_labels_stand_in_for_symvers() {
        let kernel = kernel(SYMTAB, None);
        assert!(kernel.find_symbol(b"hidden", true, b"me").is_none(), "KSYM-2: not exported");
        assert!(kernel.find_symbol(b"plain", false, b"me").is_some());
        let (_, export) = kernel.find_symbol(b"gpl", true, b"me").unwrap();
        assert!(export.gpl_only, "LIFE-51: a lower-case export of a module is GPL-only");
    }
}
