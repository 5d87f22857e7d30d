//! Exports by owner: symbols, the exports of an image and Module.symvers joined into tables, one for each owner.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use crate::exports::{Export, ExportTable, Exports, Told};
use crate::kallsyms::{KernelSymbol, KernelSymbols};
use crate::module::LoadedModule;
use crate::symvers::Symvers;

/// The exports that are known, by owner.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    /// Those of the kernel itself.
    pub(crate) own: Arc<ExportTable>,
    /// The modules that the symbol table lists as loaded, oldest first.
    pub(crate) listed: Vec<Arc<LoadedModule>>,
    /// The modules of Module.symvers that are not loaded.
    pub(crate) not_loaded: Arc<Unloaded>,
}

impl Tables {
    /// Which names are exported comes from the image, else from Module.symvers, whose addresses come from
    /// kallsyms. The records of the image are in the order of its tables, `one_table` or two (SYM-39): where a name is there
    /// twice, the kernel's search decides (SYM-34). Modules that kallsyms lists count as loaded. Without Module.symvers the `__ksymtab_` labels in
    /// kallsyms tell what is exported, else every global symbol counts as exported (KSYM-2).
    pub(crate) fn join(
        symbols: &KernelSymbols,
        from_image: Option<Exports>,
        symvers: Option<Symvers>,
        one_table: bool,
    ) -> Self {
        let has_symbols = !symbols.is_empty();
        let loaded: Vec<&[u8]> = symbols.modules().collect();
        let is_loaded: BTreeSet<&[u8]> = loaded.iter().copied().collect();
        let is_unloaded =
            |owner: &Option<Vec<u8>>| owner.as_ref().is_some_and(|name| !is_loaded.contains(name.as_slice()));
        let symvers = symvers.unwrap_or_default();
        let mut described: BTreeMap<Option<Vec<u8>>, Vec<Range<usize>>> = BTreeMap::new();
        for exporter in symvers.exporters().filter(|e| from_image.is_none() || e.module().is_some()) {
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
        if let Some(exports) = from_image {
            of_owner.insert(None, ExportTable::of_records(exports, one_table));
        }
        let knows_exports = of_owner.contains_key(&None);
        let mut of_symtab: BTreeMap<Option<&[u8]>, Vec<KernelSymbol<'_>>> = BTreeMap::new();
        // The usual case: all that there is to know is known, and the symbols need not be looked at.
        if !knows_exports || !loaded.is_empty() {
            let asked = symbols.iter().filter(|symbol| symbol.module.is_some() || !knows_exports);
            asked.for_each(|symbol| of_symtab.entry(symbol.module).or_default().push(symbol));
        }
        for (owner, of_this) in &of_symtab {
            // Modules that are not of this build are not in its Module.symvers.
            let owner_name = owner.map(<[u8]>::to_vec);
            of_owner.entry(owner_name).or_insert_with(|| exports_by_label(symbols, of_this, *owner));
        }
        let unknown = || ExportTable::default().told_by(Told::Nothing);
        let own = Arc::new(of_owner.remove(&None).unwrap_or_else(unknown));
        let module = |name: &[u8], exports, listed| {
            Arc::new(LoadedModule { exports, listed, ..LoadedModule::named(name) })
        };
        let mut exports_of = |name: &[u8]| of_owner.remove(&Some(name.to_vec())).unwrap_or_default();
        let modules = loaded.iter().rev().map(|name| module(name, exports_of(name), true)).collect();
        let unloaded =
            of_unloaded.into_iter().filter_map(|(name, exports)| Some(module(&name?, exports, false)));
        let unloaded = Unloaded::new(unloaded.collect(), is_shared.then_some(table));
        Tables { own, listed: modules, not_loaded: Arc::new(unloaded) }
    }
}

/// The modules of Module.symvers that are not loaded, by what they export.
#[derive(Debug, Default)]
pub(crate) struct Unloaded {
    pub(crate) modules: Vec<Arc<LoadedModule>>,
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
    pub(crate) fn exporter(&self, name: &[u8]) -> Option<&Arc<LoadedModule>> {
        let position = self.exports.find_last(name)?;
        let at = self.parts.partition_point(|part| part.end <= position);
        self.modules.get(at).filter(|_| self.parts.get(at).is_some_and(|part| part.contains(&position)))
    }
}

/// Exports without a Module.symvers: symbols that have a `__ksymtab_` label. Without
/// CONFIG_KALLSYMS_ALL there are no labels (KSYM-10); then any global symbol of the kernel and any
/// symbol of a module counts. A module's GPL-only exports have lower-case letters (LIFE-51).
fn exports_by_label(symbols: &KernelSymbols, own: &[KernelSymbol<'_>], owner: Option<&[u8]>) -> ExportTable {
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
    let table = ExportTable::new(names.into_iter().map(export).collect());
    table.told_by(if by_label { Told::Labels } else { Told::Globals })
}
