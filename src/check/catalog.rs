//! What the modules of a set give each other, on one kernel: who exports what, whom each needs, and which of them
//! would be loaded before it (SET-2 to SET-4).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use elf_layout::ModuleFile;
use elf_layout::elf::{SHN_UNDEF, SymFields};
use elf_layout::ksymtab;
use symres::{Export, ExportTable, Kernel, LoadedModule};

use super::set::Set;

/// Symbols have names shorter than this (KSYM_NAME_LEN, from v6.1); what is longer is nobody's export.
const NAME_MAX: usize = 512;

/// What a set remembers of one of its modules.
#[derive(Debug, Default)]
pub struct Facts {
    /// Its name, empty if it tells none.
    pub name: Box<[u8]>,
    /// Its exports, if it has any, as the module that is loaded before others.
    pub loaded: Option<Arc<LoadedModule>>,
    /// Names that it takes and that neither the kernel nor the modules loaded at the start export.
    pub needs: Box<[Box<[u8]>]>,
    /// The files that Module.symvers says all those come from, if it does.
    described: Option<Box<[usize]>>,
    /// modinfo `depends=`
    depends: Box<[u8]>,
}

impl Facts {
    /// Reads them from a module.
    pub fn of(file: &ModuleFile<'_>, kernel: &Kernel) -> Self {
        // Names of hostile files may overlap: together they get no more room than the file.
        let mut room = file.bytes().len();
        let mut fits = |name: &[u8]| {
            let left = room.checked_sub(name.len()).filter(|_| name.len() < NAME_MAX);
            room = left.unwrap_or(room);
            left.is_some()
        };
        let mut exports = Vec::new();
        for export in ksymtab::exports(file, kernel.config.version) {
            if fits(export.name) && fits(export.namespace) {
                exports.push(Export {
                    name: export.name.into(),
                    address: None,
                    crc: export.crc,
                    gpl_only: export.gpl_only,
                    namespace: export.namespace.into(),
                });
            }
        }
        let has_exports = !exports.is_empty();
        let mut needs = Vec::new();
        let mut seen = HashSet::new();
        for symbol in file.symbols().iter().skip(1).filter(|s| s.shndx() == SHN_UNDEF) {
            let name = file.symbol_name(symbol);
            let foreign = !name.is_empty() && kernel.find_symbol(name, true, file.name()).is_none();
            if foreign && seen.insert(name) && fits(name) {
                needs.push(Box::from(name));
            }
        }
        let loaded =
            || LoadedModule { exports: ExportTable::new(exports), ..LoadedModule::named(file.name()) };
        Facts {
            name: file.name().into(),
            loaded: has_exports.then(loaded).map(Arc::new),
            needs: needs.into(),
            described: None,
            depends: file.modinfo().get("depends").unwrap_or_default().into(),
        }
    }

    fn export(&self, name: &[u8]) -> Option<&Export> {
        self.loaded.as_ref()?.exports.find(name, true)
    }

    fn depends_on(&self, module: &[u8]) -> bool {
        let same = |a: &u8, b: &u8| a == b || (*a == b'-' && *b == b'_');
        let names = self.depends.split(|b| *b == b',');
        names.into_iter().any(|n| n.len() == module.len() && n.iter().zip(module).all(|(a, b)| same(a, b)))
    }
}

/// Who exports a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    /// This file.
    File(usize),
    /// No file of the set.
    Nobody,
}

/// Files that have to be read before an answer is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// This one.
    File(usize),
    /// All of the set: any of them may export the name.
    All,
}

/// The facts of a set on one kernel, as far as its files were read.
#[derive(Debug)]
pub struct Catalog<'s> {
    set: &'s Set,
    facts: Vec<Option<Facts>>,
    unread: usize,
    /// By name: the files that export it, in no order.
    exporters: HashMap<Box<[u8]>, Vec<usize>>,
    /// By file: the files it takes names from, once known.
    providers: Vec<Option<Box<[usize]>>>,
    /// By file: does it export exactly what Module.symvers says? Once that is known.
    as_described: Vec<Option<bool>>,
}

impl<'s> Catalog<'s> {
    /// Nothing read yet.
    pub fn new(set: &'s Set) -> Self {
        let (mut facts, mut providers) = (Vec::new(), Vec::new());
        facts.resize_with(set.len(), || None);
        providers.resize_with(set.len(), || None);
        let as_described = vec![None; set.len()];
        Catalog { set, facts, unread: set.len(), exporters: HashMap::new(), providers, as_described }
    }

    /// Takes over what a file says; what it said before stays, should it have changed since.
    pub fn insert(&mut self, index: usize, facts: Facts) {
        let Some(slot) = self.facts.get_mut(index).filter(|slot| slot.is_none()) else { return };
        for export in facts.loaded.iter().flat_map(|module| module.exports.iter()) {
            self.exporters.entry(export.name.clone()).or_default().push(index);
        }
        *slot = Some(facts);
        self.unread = self.unread.saturating_sub(1);
    }

    /// What a file said, if it was read.
    pub fn facts(&self, index: usize) -> Option<&Facts> {
        self.facts.get(index)?.as_ref()
    }

    /// A module turned out to be proprietary: who uses its symbols inherits that (LIC-5).
    pub fn set_proprietary(&mut self, index: usize) {
        let Some(module) = self.facts.get_mut(index).and_then(|f| f.as_mut()?.loaded.as_mut()) else {
            return;
        };
        *module = Arc::new(LoadedModule { proprietary: true, ..LoadedModule::clone(module) });
        if let Some(known) = self.as_described.get_mut(index) {
            *known = Some(false);
        }
    }

    /// As which module others see a file, if it exports anything.
    pub fn loaded(&self, index: usize) -> Option<&Arc<LoadedModule>> {
        self.facts(index)?.loaded.as_ref()
    }

    /// Which file of the set `name` is taken from (SET-2): that of the module which Module.symvers names; else, of
    /// those that export it, one that `depends=` names, one under `updates`, the first.
    fn provider(&self, index: usize, name: &[u8], kernel: &Kernel) -> Result<Provider, Missing> {
        if let Some(file) = described_provider(self.set, index, name, kernel) {
            let facts = self.facts(file).ok_or(Missing::File(file))?;
            if facts.export(name).is_some() {
                return Ok(Provider::File(file));
            }
        }
        if self.unread != 0 {
            return Err(Missing::All);
        }
        let facts = self.facts(index);
        let own_name = facts.map(|f| &f.name);
        let candidates = self.exporters.get(name).into_iter().flatten().copied();
        let others = candidates.filter(|c| *c != index && self.facts(*c).map(|f| &f.name) != own_name);
        let rank = |candidate: &usize| {
            let module = self.facts(*candidate).map_or(&[][..], |f| &f.name);
            let named = facts.is_some_and(|f| f.depends_on(module));
            (!named, !self.set.is_update(*candidate), *candidate)
        };
        Ok(others.min_by_key(rank).map_or(Provider::Nobody, Provider::File))
    }

    /// Does a file export exactly what Module.symvers says of its module, and nothing that it says of another?
    fn exports_as_described(&mut self, file: usize, kernel: &Kernel) -> Option<bool> {
        if let Some(known) = self.as_described.get(file).copied().flatten() {
            return Some(known);
        }
        let module = self.facts(file)?.loaded.as_ref()?;
        let same = |export: &Export| {
            kernel.not_loaded(&export.name).is_some_and(|told| exports_alike(module, told, &export.name))
        };
        let told = module.exports.iter().next().and_then(|e| kernel.not_loaded(&e.name));
        let all = told.is_some_and(|told| told.exports.iter().count() == module.exports.iter().count());
        let known = all && !module.proprietary && module.exports.iter().all(same);
        if let Some(slot) = self.as_described.get_mut(file) {
            *slot = Some(known);
        }
        Some(known)
    }

    /// The files that a file takes names from, if they are those that Module.symvers names, and as it says they are.
    fn providers_as_described(&mut self, index: usize, kernel: &Kernel) -> Option<Box<[usize]>> {
        let files = self.facts(index)?.described.clone()?;
        files.iter().all(|file| self.exports_as_described(*file, kernel) == Some(true)).then_some(files)
    }

    /// The files that a file takes names from.
    fn providers(&mut self, index: usize, kernel: &Kernel) -> Result<&[usize], Missing> {
        if self.providers.get(index).is_some_and(Option::is_none) {
            let described = self.providers_as_described(index, kernel);
            let facts = self.facts(index).ok_or(Missing::File(index))?;
            let mut all: Vec<usize> = described.as_deref().unwrap_or_default().into();
            let undescribed = if described.is_some() { &[][..] } else { &facts.needs };
            for name in undescribed {
                if let Provider::File(file) = self.provider(index, name, kernel)?
                    && !all.contains(&file)
                {
                    all.push(file);
                }
            }
            if let Some(slot) = self.providers.get_mut(index) {
                *slot = Some(all.into());
            }
        }
        Ok(self.providers.get(index).and_then(Option::as_deref).unwrap_or_default())
    }

    /// The modules that are loaded before a module: all that it needs, directly or not, each after those that it
    /// needs itself. Without those that need it in turn (SET-3), which are told apart.
    pub fn before(&mut self, index: usize, kernel: &Kernel) -> Result<Before, Missing> {
        let mut order = Vec::new();
        let mut edges = Vec::new();
        let mut seen = HashSet::from([index]);
        // Depth first, without recursion: a file and how many of its providers were looked at.
        let mut path = vec![(index, 0usize)];
        while let Some((file, at)) = path.last_mut() {
            let (user, here) = (*file, *at);
            *at = at.saturating_add(1);
            match self.providers(user, kernel)?.get(here).copied() {
                None => {
                    order.push(user);
                    path.pop();
                }
                Some(provider) => {
                    edges.push((user, provider));
                    if seen.insert(provider) {
                        path.push((provider, 0));
                    }
                }
            }
        }
        order.pop();
        let circle = reaching(index, &edges);
        let name = |file: usize| self.facts(file).map(|f| &f.name);
        order.retain(|file| !circle.contains(file) && name(*file) != name(index));
        let mut circle: Vec<usize> = circle.into_iter().collect();
        circle.sort_unstable();
        Ok(Before { order, circle })
    }

    /// Does everything that this module needs look as Module.symvers says it does (SET-7)? `None` as long as that is not known.
    pub fn is_as_described(&mut self, index: usize, kernel: &Kernel) -> Option<bool> {
        let before = self.before(index, kernel).ok()?;
        let described = self.providers_as_described(index, kernel).is_some();
        let facts = self.facts(index)?;
        let same = |name: &[u8]| -> Option<bool> {
            let provider = match self.provider(index, name, kernel).ok()? {
                Provider::File(file) => file,
                Provider::Nobody => return Some(described_provider(self.set, index, name, kernel).is_none()),
            };
            let Some(described) = kernel.not_loaded(name) else { return Some(false) };
            let loaded = self.loaded(provider)?;
            Some(exports_alike(loaded, described, name) && !loaded.proprietary)
        };
        for name in facts.needs.iter().filter(|_| !described) {
            if !same(name)? {
                return Some(false);
            }
        }
        // SET-4: what the module exports itself may be there already.
        let own = facts.loaded.iter().flat_map(|module| module.exports.iter());
        let is_there = |name: &[u8]| {
            before
                .order
                .iter()
                .any(|file| self.exporters.get(name).is_some_and(|exporters| exporters.contains(file)))
        };
        Some(before.circle.is_empty() && !own.into_iter().any(|e| is_there(&e.name)))
    }
}

/// What is loaded before a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// In this order.
    pub order: Vec<usize>,
    /// Modules that it needs and that need it.
    pub circle: Vec<usize>,
}

/// The file of the module that Module.symvers says exports `name`, if it is in the set, and not the very module that asks.
fn described_provider(set: &Set, index: usize, name: &[u8], kernel: &Kernel) -> Option<usize> {
    file_of(set, index, kernel.not_loaded(name)?)
}

/// The file of a module of Module.symvers, if it is in the set, and not the very module that asks.
fn file_of(set: &Set, index: usize, module: &LoadedModule) -> Option<usize> {
    set.named(&module.name).filter(|file| *file != index)
}

/// Are these one module by name, and do both export `name` alike, or not at all?
fn exports_alike(one: &LoadedModule, other: &LoadedModule, name: &[u8]) -> bool {
    let alike = |gplok| one.exports.find(name, gplok) == other.exports.find(name, gplok);
    one.name == other.name && alike(true) && alike(false)
}

/// Before anything but a module itself was read: the modules that Module.symvers says its needs come from. `None` if
/// it does not tell that for all of them, while others could.
pub fn described(
    set: &Set,
    index: usize,
    facts: &mut Facts,
    kernel: &Kernel,
) -> Option<Vec<Arc<LoadedModule>>> {
    let mut modules: Vec<Arc<LoadedModule>> = Vec::new();
    let mut files = Vec::new();
    for name in &facts.needs {
        let module = kernel.not_loaded(name);
        if module.is_some_and(|module| modules.iter().any(|m| Arc::ptr_eq(m, module))) {
            continue;
        }
        match module.and_then(|module| Some((module, file_of(set, index, module)?))) {
            Some((module, file)) => {
                files.push(file);
                modules.push(Arc::clone(module));
            }
            None if set.len() == 1 => {}
            None => return None,
        }
    }
    if set.len() != 1 {
        facts.described = Some(files.into());
    }
    Some(modules)
}

/// The users and their users from which edges lead to `target`, without it.
fn reaching(target: usize, edges: &[(usize, usize)]) -> HashSet<usize> {
    let mut found = HashSet::new();
    let mut users: HashMap<usize, Vec<usize>> = HashMap::new();
    // The usual case: nobody that it needs needs it.
    if edges.iter().any(|(_, provider)| *provider == target) {
        edges.iter().for_each(|(user, provider)| users.entry(*provider).or_default().push(*user));
    }
    let mut pending = vec![target];
    while let Some(file) = pending.pop() {
        let of_file = users.get(&file).into_iter().flatten().copied();
        pending.extend(of_file.filter(|user| *user != target && found.insert(*user)));
    }
    found
}
