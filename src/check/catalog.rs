//! The dependencies between the modules of a set, on one kernel: the exporter of each name, and the modules that would
//! be loaded before each (SET-2 to SET-4).

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use elf_layout::ModuleFile;
use elf_layout::elf::{SHN_UNDEF, SymFields};
use elf_layout::ksymtab::{self, ModuleExport};
use foldhash::fast::RandomState;
use kernel::{Export, ExportTable, Exports, Kernel, LoadedModule};

use super::set::Set;

/// Symbols have names shorter than this (KSYM_NAME_LEN, from v6.1); longer names are no exports.
const NAME_MAX: usize = 512;

/// What a set remembers of one of its modules.
#[derive(Debug, Default)]
pub struct Facts {
    /// Its name, empty if it has none.
    pub name: Box<[u8]>,
    /// Its exports, if it has any, as the module that is loaded before others.
    pub loaded: Option<Arc<LoadedModule>>,
    /// Does it export exactly what Module.symvers says, and nothing that it says of another?
    as_described: bool,
    /// Names that it takes and that neither the kernel nor the modules loaded at the start export.
    needs: Names,
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
        let exports = ksymtab::exports(file, kernel.config.changes());
        let described = described_exporter(file.name(), &exports, kernel);
        let loaded = described.cloned().or_else(|| {
            let exports = exports.iter().filter(|e| fits(e.name) && fits(e.namespace)).map(Export::from);
            let exports = Some(exports.collect::<Exports>()).filter(|exports| !exports.is_empty())?;
            let exports = ExportTable::new(exports);
            Some(Arc::new(LoadedModule { exports, ..LoadedModule::named(file.name()) }))
        });
        let mut needs = Names::default();
        let mut seen = HashSet::with_hasher(RandomState::default());
        for symbol in file.symbols().iter().skip(1).filter(|s| s.shndx() == SHN_UNDEF) {
            let name = file.symbol_name(symbol);
            let foreign = !name.is_empty() && kernel.find_symbol(name, true, file.name()).is_none();
            if foreign && seen.insert(name) && fits(name) {
                needs.push(name);
            }
        }
        Facts {
            name: file.name().into(),
            as_described: described.is_some(),
            loaded,
            needs,
            described: None,
            depends: file.modinfo().get("depends").unwrap_or_default().into(),
        }
    }

    fn exports(&self, name: &[u8]) -> bool {
        self.loaded.as_ref().is_some_and(|module| module.exports.find(name, true).is_some())
    }

    fn depends_on(&self, module: &[u8]) -> bool {
        let same = |a: &u8, b: &u8| a == b || (*a == b'-' && *b == b'_');
        let names = self.depends.split(|b| *b == b',');
        names.into_iter().any(|n| n.len() == module.len() && n.iter().zip(module).all(|(a, b)| same(a, b)))
    }
}

/// The module of Module.symvers that has exactly these exports, if none of these names has another exporter.
fn described_exporter<'k>(
    name: &[u8],
    exports: &[ModuleExport<'_>],
    kernel: &'k Kernel,
) -> Option<&'k Arc<LoadedModule>> {
    let told = kernel.not_loaded(exports.first()?.name).filter(|told| *told.name == *name)?;
    // In the order of the tables; so no name is there twice.
    let in_order = |a: &ModuleExport<'_>, b: &ModuleExport<'_>| (a.gpl_only, a.name) < (b.gpl_only, b.name);
    let same = |e: &ModuleExport<'_>| {
        kernel.not_loaded(e.name).is_some_and(|exporter| Arc::ptr_eq(exporter, told))
            && told.exports.find(e.name, true) == Some(Export::from(e))
    };
    let all =
        told.exports.len() == exports.len() && exports.is_sorted_by(in_order) && exports.iter().all(same);
    all.then_some(told)
}

/// Names one after the other in one piece of memory.
#[derive(Debug, Default)]
struct Names {
    text: Vec<u8>,
    lengths: Vec<u16>,
}

impl Names {
    /// Adds a name, which is shorter than [`NAME_MAX`].
    fn push(&mut self, name: &[u8]) {
        self.text.extend_from_slice(name);
        self.lengths.push(u16::try_from(name.len()).unwrap_or(u16::MAX));
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.text.as_slice();
        self.lengths.iter().map_while(move |len| rest.split_off(..usize::from(*len)))
    }
}

/// The exporter of a name.
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
    /// By name: the files that export it, once all were read and one is looked up.
    exporters: OnceCell<HashMap<Box<[u8]>, Vec<usize>, RandomState>>,
    /// By file: the files it takes names from, once known.
    providers: Vec<Option<Box<[usize]>>>,
    /// The last answer, which is often needed again: a file, and what is loaded before it.
    last: Option<(usize, Arc<Before>)>,
}

impl<'s> Catalog<'s> {
    /// Nothing read yet.
    pub fn new(set: &'s Set) -> Self {
        let (mut facts, mut providers) = (Vec::new(), Vec::new());
        facts.resize_with(set.len(), || None);
        providers.resize_with(set.len(), || None);
        Catalog { set, facts, unread: set.len(), exporters: OnceCell::new(), providers, last: None }
    }

    /// Takes over what a file says; what it said before stays, should it have changed since.
    pub fn insert(&mut self, index: usize, facts: Facts) {
        let Some(slot) = self.facts.get_mut(index).filter(|slot| slot.is_none()) else { return };
        *slot = Some(facts);
        self.unread = self.unread.saturating_sub(1);
    }

    /// What a file said, if it was read.
    pub fn facts(&self, index: usize) -> Option<&Facts> {
        self.facts.get(index)?.as_ref()
    }

    /// A module turned out to be proprietary: modules that use its symbols inherit that (LIC-5).
    pub fn set_proprietary(&mut self, index: usize) {
        let Some(Some(facts)) = self.facts.get_mut(index) else { return };
        facts.as_described = false;
        if let Some(module) = &mut facts.loaded {
            *module = Arc::new(LoadedModule { proprietary: true, ..LoadedModule::clone(module) });
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
            if facts.exports(name) {
                return Ok(Provider::File(file));
            }
        }
        if self.unread != 0 {
            return Err(Missing::All);
        }
        let facts = self.facts(index);
        let own_name = facts.map(|f| &f.name);
        let candidates = self.exporters().get(name).into_iter().flatten().copied();
        let others = candidates.filter(|c| *c != index && self.facts(*c).map(|f| &f.name) != own_name);
        let rank = |candidate: &usize| {
            let module = self.facts(*candidate).map_or(&[][..], |f| &f.name);
            let named = facts.is_some_and(|f| f.depends_on(module));
            (!named, !self.set.is_update(*candidate), *candidate)
        };
        Ok(others.min_by_key(rank).map_or(Provider::Nobody, Provider::File))
    }

    fn exporters(&self) -> &HashMap<Box<[u8]>, Vec<usize>, RandomState> {
        self.exporters.get_or_init(|| {
            let mut exporters: HashMap<Box<[u8]>, Vec<usize>, RandomState> = HashMap::default();
            for index in (0..self.facts.len()).filter(|index| self.set.is_at_hand(*index)) {
                for export in self.loaded(index).iter().flat_map(|module| module.exports.iter()) {
                    exporters.entry(export.name.into()).or_default().push(index);
                }
            }
            exporters
        })
    }

    fn exports_as_described(&self, file: &usize) -> bool {
        self.facts(*file).is_some_and(|facts| facts.as_described)
    }

    /// The files that a file takes names from, if they are those that Module.symvers names, and as it says they are.
    fn providers_as_described(&self, index: usize) -> Option<&[usize]> {
        let files = self.facts(index)?.described.as_deref()?;
        files.iter().all(|file| self.exports_as_described(file)).then_some(files)
    }

    /// The files that a file takes names from.
    fn providers(&mut self, index: usize, kernel: &Kernel) -> Result<&[usize], Missing> {
        if self.providers.get(index).is_some_and(Option::is_none) {
            let described = self.providers_as_described(index);
            let facts = self.facts(index).ok_or(Missing::File(index))?;
            let mut all: Vec<usize> = described.unwrap_or_default().into();
            for name in facts.needs.iter().filter(|_| described.is_none()) {
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
    pub fn before(&mut self, index: usize, kernel: &Kernel) -> Result<Arc<Before>, Missing> {
        if let Some((_, before)) = self.last.as_ref().filter(|(last, _)| *last == index) {
            return Ok(Arc::clone(before));
        }
        let before = Arc::new(self.find_before(index, kernel)?);
        self.last = Some((index, Arc::clone(&before)));
        Ok(before)
    }

    fn find_before(&mut self, index: usize, kernel: &Kernel) -> Result<Before, Missing> {
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
        let described = self.providers_as_described(index).is_some();
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
        Some(before.circle.is_empty() && !self.is_exported_before(facts, &before))
    }

    /// SET-4: is something that the module exports itself there already?
    fn is_exported_before(&self, facts: &Facts, before: &Before) -> bool {
        // Module.symvers has one exporter for each name.
        let Some(module) = &facts.loaded else { return false };
        if facts.as_described && before.order.iter().all(|file| self.exports_as_described(file)) {
            return false;
        }
        let others = before.order.iter().filter_map(|file| self.loaded(*file));
        let theirs = others.flat_map(|other| other.exports.iter()).map(|export| export.name);
        let theirs: HashSet<&[u8], RandomState> = theirs.collect();
        module.exports.iter().any(|export| theirs.contains(export.name))
    }
}

/// What is loaded before a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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
    for name in facts.needs.iter() {
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
    // The usual case: no module that it needs needs it in turn.
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
