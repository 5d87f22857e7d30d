//! Events of `simplify_symbols`: what the module brings along, and what it takes from elsewhere.

use std::collections::HashMap;

use elf_layout::elf::{SHN_UNDEF, STB_WEAK, SymFields};
use elf_layout::{Change, ModuleFile};

use super::event::{Address, Event, Import, Symbol, Symbols};
use crate::document::{crc, some_text, text};
use crate::load::Load;

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
        let tables: &[&'static str] = match (one_table, gplok) {
            (false, true) => &["__ksymtab", "__ksymtab_gpl"],
            _ => &["__ksymtab"],
        };
        // LIC-5: using a proprietary module makes a module proprietary from the next symbol on.
        gplok &= !found.is_some_and(|import| is_proprietary(import.owner));
        let owner = found.map(|import| text(import.owner));
        let asked = match owners.iter().position(|asked| Some(asked) == owner.as_ref()) {
            Some(last) => owners.iter().take(last.saturating_add(1)),
            None => owners.iter().take(owners.len()),
        };
        let table = found.map(|import| match import.gpl_only && !one_table {
            true => "__ksymtab_gpl",
            false => "__ksymtab",
        });
        events.push(Event::Import(Import {
            index,
            name: text(name),
            weak: symbol.bind() == STB_WEAK,
            asked: asked.cloned().collect(),
            tables: tables.to_vec(),
            owner,
            table,
            addr: found.and_then(|import| import.address).map(Address),
            gpl_only: found.is_some_and(|import| import.gpl_only),
            crc: found.and_then(|import| import.crc).map(crc),
            expected_crc: expected.get(name).map(|value| wide_crc(*value)),
            namespace: found.and_then(|import| some_text(import.namespace)),
            namespace_imported: found.is_some_and(|import| namespaces.contains(&import.namespace)),
        }));
    }
    events
}
