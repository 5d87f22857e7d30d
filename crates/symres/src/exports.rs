//! The symbols that the kernel or a module exports.

use alloc::boxed::Box;
use alloc::vec::Vec;

use elf_layout::ksymtab::ModuleExport;

use crate::names::NameIndex;

/// One `struct kernel_symbol` and what stands beside it in other tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its name.
    pub name: Box<[u8]>,
    /// Its address; `None` if the description of the kernel does not tell it.
    pub address: Option<u64>,
    /// Its CRC; `None` if the exporter has no CRC table, or it is not known (VER-2).
    pub crc: Option<u32>,
    /// In `__ksymtab_gpl`: for GPL-compatible modules only, whatever the exporter's own licence (LIC-6).
    pub gpl_only: bool,
    /// Its namespace, empty if none (NS-1).
    pub namespace: Box<[u8]>,
}

/// The exports of one owner, found by name.
#[derive(Clone, Debug, Default)]
pub struct ExportTable {
    exports: Vec<Export>,
    index: NameIndex,
    /// Where its second table begins, if the kernel's binary search and the index do not find the same.
    unsorted: Option<usize>,
}

impl ExportTable {
    /// Indexes these exports, in whatever order they are listed; each can be found.
    pub fn new(exports: Vec<Export>) -> Self {
        let index = NameIndex::new(exports.len(), |p| name_at(&exports, p));
        ExportTable { exports, index, unsorted: None }
    }

    /// Indexes the records of a module in their order: `__ksymtab`, then `__ksymtab_gpl`; all in one table
    /// since v7.1 (SYM-39). Where they are not sorted, what the kernel misses is missed (SYM-33).
    pub fn of_records(exports: Vec<Export>, one_table: bool) -> Self {
        let [first, second] = tables(&exports, one_table);
        let unsorted = (!is_sorted(first) || !is_sorted(second)).then_some(first.len());
        ExportTable { unsorted, ..ExportTable::new(exports) }
    }

    /// The two tables, if they have to be told apart.
    fn tables(&self) -> [&[Export]; 2] {
        let split = self.unsorted.and_then(|at| self.exports.split_at_checked(at));
        split.map_or([&[], &[]], |(first, second)| [first, second])
    }

    /// All exports.
    pub fn iter(&self) -> impl Iterator<Item = &Export> {
        self.exports.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.exports.len()
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.exports.is_empty()
    }

    /// The export at a position of [`ExportTable::iter`].
    pub(crate) fn at(&self, position: usize) -> Option<&Export> {
        self.exports.get(position)
    }

    /// Looks `name` up in `__ksymtab`, then, for GPL-compatible modules, in
    /// `__ksymtab_gpl` (SYM-30, SYM-31).
    pub fn find(&self, name: &[u8], gplok: bool) -> Option<&Export> {
        if self.unsorted.is_some() {
            // A GPL-only hit counts as none where one table has both (SYM-39).
            let mut found = self.tables().into_iter().filter_map(|table| bsearch(table, name));
            return found.find(|e| gplok || !e.gpl_only);
        }
        let found = self.index.find(name, |p| name_at(&self.exports, p));
        let usable = found.filter_map(|p| self.exports.get(p as usize)).filter(|e| gplok || !e.gpl_only);
        usable.min_by_key(|e| e.gpl_only)
    }
}

/// What orders an export table and tells its two halves apart.
pub trait Record {
    /// The name of the export.
    fn name(&self) -> &[u8];
    /// In `__ksymtab_gpl`.
    fn gpl_only(&self) -> bool;
}

impl Record for Export {
    fn name(&self) -> &[u8] {
        &self.name
    }
    fn gpl_only(&self) -> bool {
        self.gpl_only
    }
}

impl Record for ModuleExport<'_> {
    fn name(&self) -> &[u8] {
        self.name
    }
    fn gpl_only(&self) -> bool {
        self.gpl_only
    }
}

/// The records of a module as the kernel's tables.
fn tables<R: Record>(exports: &[R], one_table: bool) -> [&[R]; 2] {
    let plain = exports.iter().take_while(|e| !e.gpl_only()).count();
    let split = if one_table { exports.len() } else { plain };
    let (first, second) = exports.split_at_checked(split).unwrap_or((exports, &[]));
    [first, second]
}

fn is_sorted<R: Record>(table: &[R]) -> bool {
    table.is_sorted_by(|a, b| a.name() < b.name())
}

/// The records of a module, in their order, that the kernel's binary search does not come to (SYM-33).
pub fn missed<R: Record>(exports: &[R], one_table: bool) -> impl Iterator<Item = &R> {
    let tables = tables(exports, one_table);
    let all = if tables.iter().all(|t| is_sorted(t)) { &[] } else { exports };
    all.iter().filter(move |e| !tables.iter().any(|t| bsearch(t, e.name()).is_some()))
}

/// The kernel's `bsearch` over one table (SYM-33, SYM-34): which of several records of a name it
/// finds, and which it misses in a table that is not sorted, follows from its order of probes.
fn bsearch<'e, R: Record>(table: &'e [R], name: &[u8]) -> Option<&'e R> {
    let (mut base, mut num) = (0usize, table.len());
    while num > 0 {
        let pivot = base.saturating_add(num >> 1);
        let probe = table.get(pivot)?;
        match name.cmp(probe.name()) {
            core::cmp::Ordering::Equal => return Some(probe),
            core::cmp::Ordering::Greater => {
                base = pivot.saturating_add(1);
                num = num.saturating_sub(1);
            }
            core::cmp::Ordering::Less => {}
        }
        num >>= 1;
    }
    None
}

fn name_at(exports: &[Export], position: u32) -> &[u8] {
    exports.get(position as usize).map_or(&[], |e| &e.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn sym_30_and_31_plain_before_gpl() {
        let export = |name: &[u8], gpl_only, address| Export {
            name: name.into(),
            address: Some(address),
            crc: None,
            gpl_only,
            namespace: Box::from(&b""[..]),
        };
        let table =
            ExportTable::new(vec![export(b"a", true, 1), export(b"a", false, 2), export(b"g", true, 3)]);
        let address = |name: &[u8], gplok| table.find(name, gplok).and_then(|e| e.address);
        assert_eq!(address(b"a", true), Some(2), "SYM-30: __ksymtab before __ksymtab_gpl");
        assert_eq!(address(b"g", true), Some(3));
        assert_eq!(address(b"g", false), None, "SYM-31: GPL-only tables are invisible");
        assert_eq!(address(b"nothing at all", true), None);
    }

    #[test]
    fn sym_33_and_34_binary_search_as_the_kernel_does_it() {
        let table = |names: &[&str], gpl: usize, one_table| {
            let export = |(at, name): (usize, &&str)| Export {
                name: name.as_bytes().into(),
                address: Some(at as u64),
                crc: None,
                gpl_only: at >= gpl,
                namespace: Box::from(&b""[..]),
            };
            ExportTable::of_records(names.iter().enumerate().map(export).collect(), one_table)
        };
        let at = |t: &ExportTable, name: &str, gplok| t.find(name.as_bytes(), gplok).and_then(|e| e.address);
        // Probes of b, c, a: c first, so a is looked for before it, and missed.
        let unsorted = table(&["b", "c", "a"], 3, false);
        assert_eq!(
            [at(&unsorted, "b", true), at(&unsorted, "c", true), at(&unsorted, "a", true)],
            [Some(0), Some(1), None]
        );
        let missed: Vec<&[u8]> = missed(&unsorted.exports, false).map(|e| &*e.name).collect();
        assert_eq!(missed, [b"a"], "SYM-33");
        // Of equal names the first probe wins: the one in the middle.
        assert_eq!(at(&table(&["a", "a", "a"], 3, false), "a", true), Some(1), "SYM-34");
        assert_eq!(at(&table(&["a", "a", "a", "a"], 4, false), "a", true), Some(2), "SYM-34");
        // Every name of a sorted table of any size is found, also by the search itself.
        let names: Vec<alloc::string::String> = (0..70).map(|n| alloc::format!("s{n:02}")).collect();
        for count in 0..names.len() {
            let names: Vec<&str> = names.iter().take(count).map(|n| n.as_str()).collect();
            let sorted = table(&names, count / 2, false);
            assert!(sorted.unsorted.is_none(), "SYM-33: {count} are sorted");
            let all = &sorted.exports;
            assert!(
                names.iter().enumerate().all(|(i, n)| bsearch(all, n.as_bytes()) == all.get(i)),
                "{count}"
            );
        }
        // Two tables, each sorted by itself; in one table that is no order.
        assert!(table(&["b", "a"], 1, false).unsorted.is_none());
        let one = table(&["b", "a"], 1, true);
        assert_eq!(
            (at(&one, "a", true), at(&one, "b", true)),
            (Some(1), None),
            "SYM-39: probes a, then nothing"
        );
        assert_eq!(at(&one, "a", false), None, "SYM-39: GPL-only");
    }
}
