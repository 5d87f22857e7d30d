//! Events of `simplify_symbols`: what the module brings along, and what it takes from elsewhere.

use std::collections::HashMap;

use elf_layout::elf::{SHN_UNDEF, STB_WEAK, SymFields};
use elf_layout::{Change, ModuleFile};

use super::event::{Address, AskedOwner, Event, Import, Symbol, Symbols};
use crate::document::{crc, some_text, text};
use crate::load::Load;

/// The tables of an owner, in the order in which they are searched.
const BOTH: &[&str] = &["__ksymtab", "__ksymtab_gpl"];
/// Where one table has all exports, and for modules that may not use those of the second one.
const FIRST: &[&str] = &["__ksymtab"];

/// A CRC as the module holds it: all 64 bits count (VER-5).
pub fn wide_crc(value: u64) -> String {
    u32::try_from(value).map_or_else(|_| format!("{value:#018x}"), crc)
}

/// The CRCs that a module brings along, by name: the first record of each counts (VER-4).
pub fn expected_crcs<'d>(file: &ModuleFile<'d>) -> HashMap<&'d [u8], u64> {
    let mut all = HashMap::new();
    for record in file.versions() {
        all.entry(record.name).or_insert(record.crc);
    }
    all
}

/// An export that answers a question for its name.
#[derive(Clone, Copy)]
struct Answer<'k> {
    owner: &'k [u8],
    address: Option<u64>,
    crc: Option<u32>,
    gpl_only: bool,
    namespace: &'k [u8],
}

impl<'k> From<&symres::Import<'k>> for Answer<'k> {
    fn from(import: &symres::Import<'k>) -> Self {
        let symres::Import { owner, address, crc, gpl_only, namespace, .. } = *import;
        Answer { owner, address, crc, gpl_only, namespace }
    }
}

impl<'k> Answer<'k> {
    /// What `find_symbol` finds.
    fn of(load: &'k Load<'_>, name: &[u8], gplok: bool) -> Option<Self> {
        let (owner, export) = load.kernel.find_symbol(name, gplok, load.module.info.file.name())?;
        let kernel::Export { address, crc, gpl_only, namespace, .. } = export;
        Some(Answer { owner: owner.name(), address, crc, gpl_only, namespace })
    }
}

/// What became of each symbol. `gplok`: may the module use GPL-only symbols when the first one is looked up?
pub fn events(load: &Load<'_>, mut gplok: bool) -> Vec<Event> {
    let module = &load.module;
    let file = module.info.file;
    let value = |index: usize| {
        let is_known = module.unknown.get(index) == Some(&false);
        module.values.get(index).filter(|_| is_known).map(|value| Address(*value))
    };
    let all = file.symbols().iter().enumerate().skip(1);
    let symbols = all.clone().map(|(index, symbol)| Symbol {
        index,
        name: text(file.symbol_or_section_name(symbol)),
        section: symbol.shndx(),
        file_value: symbol.value(),
        value: value(index),
        size: symbol.size(),
    });
    let mut events = vec![Event::Symbols(Symbols { symbols: symbols.collect() })];
    let expected = expected_crcs(file);
    let namespaces: Vec<&[u8]> = file.modinfo().all("import_ns").collect();
    // Since v7.1 (SYM-39) one table.
    let one_table = module.info.config.has(Change::OneExportTable);
    let is_proprietary = |owner: &[u8]| load.kernel.module(owner).is_some_and(|module| module.proprietary);
    let owners: Vec<String> =
        load.kernel.searched(file.name()).map(|(owner, _)| text(owner.name())).collect();
    let mut imports = load.resolution.imports.iter().peekable();
    for (index, symbol) in all.filter(|(_, symbol)| symbol.shndx() == SHN_UNDEF) {
        let found = imports.next_if(|import| import.symbol as usize == index);
        let name = file.symbol_name(symbol);
        if name.is_empty() {
            continue;
        }
        let tables = if gplok && !one_table { BOTH } else { FIRST };
        // What a CRC or a namespace forbids is there all the same.
        let answer = found.map(Answer::from).or_else(|| Answer::of(load, name, gplok));
        // LIC-5: using a proprietary module makes a module proprietary from the next symbol on.
        gplok &= !found.is_some_and(|import| is_proprietary(import.owner));
        let owner = answer.map(|answer| text(answer.owner));
        let is_gpl_only = answer.is_some_and(|answer| answer.gpl_only);
        let answers = if is_gpl_only { tables } else { FIRST };
        let last = owners.iter().position(|asked| Some(asked) == owner.as_ref());
        let count = last.map_or(owners.len(), |last| last.saturating_add(1));
        let asked = owners.iter().take(count).enumerate().map(|(n, owner)| AskedOwner {
            owner: owner.clone(),
            tables: if Some(n) == last { answers } else { tables },
        });
        events.push(Event::Import(Import {
            index,
            name: text(name),
            weak: symbol.bind() == STB_WEAK,
            asked: asked.collect(),
            taken: found.is_some(),
            table: owner.as_ref().and_then(|_| answers.last().copied()),
            owner,
            addr: answer.and_then(|answer| answer.address).map(Address),
            gpl_only: is_gpl_only,
            crc: answer.and_then(|answer| answer.crc).map(crc),
            expected_crc: expected.get(name).map(|value| wide_crc(*value)),
            namespace: answer.and_then(|answer| some_text(answer.namespace)),
            namespace_imported: answer.is_some_and(|answer| namespaces.contains(&answer.namespace)),
        }));
    }
    events
}
