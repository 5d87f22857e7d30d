//! The symbols that the kernel or a module exports.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;
use elf_layout::ksymtab::ModuleExport;

use crate::names::NameIndex;
use crate::parts::{number, parts, record_of, u32_at, u64_at};

/// What is known of the exports of a kernel or a module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// All: which there are, their licences, CRCs and namespaces.
    #[default]
    Records,
    /// Which there are, by the labels in a symbol table.
    Labels,
    /// Not even that: global symbols are taken for exports, and variables are missing (KSYM-10).
    Globals,
    /// Nothing.
    Nothing,
}

/// One `struct kernel_symbol` and what stands beside it in other tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export<'t> {
    /// Its name.
    pub name: &'t [u8],
    /// Its address; `None` if it is not known.
    pub address: Option<u64>,
    /// Its CRC; `None` if the exporter has no CRC table, or it is not known (VER-2).
    pub crc: Option<u32>,
    /// In `__ksymtab_gpl`: for GPL-compatible modules only, whatever the exporter's own licence (LIC-6).
    pub gpl_only: bool,
    /// Its namespace, empty if none (NS-1).
    pub namespace: &'t [u8],
}

/// Where there is none.
const NONE: Export<'static> = Export { name: b"", address: None, crc: None, gpl_only: false, namespace: b"" };

/// As a module's file tells it: its address follows from where the module is placed.
impl<'d> From<&ModuleExport<'d>> for Export<'d> {
    fn from(export: &ModuleExport<'d>) -> Self {
        Export {
            name: export.name,
            address: None,
            crc: export.crc,
            gpl_only: export.gpl_only,
            namespace: export.namespace,
        }
    }
}

/// Exports in some order. A kernel has tens of thousands: their names share one piece of memory.
#[derive(Clone, Debug, Default)]
pub struct Exports {
    all: Kept,
    /// By name, if it is at hand already.
    index: Option<Arc<NameIndex>>,
}

impl PartialEq for Exports {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Exports {}

/// Bytes of a record in the record of a SPEC: where its name begins, the lengths of name and namespace, CRC, flags, address.
const STORED: usize = 28;
const HAS_ADDRESS: u32 = 1;
const HAS_CRC: u32 = 2;
const GPL_ONLY: u32 = 4;

/// An export without its texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    /// Where its name begins; its namespace follows.
    at: usize,
    /// Bytes of both. No file that names could come from has 4 GiB.
    name: u32,
    namespace: u32,
    /// Zero if not known.
    address: u64,
    crc: u32,
    has_address: bool,
    has_crc: bool,
    gpl_only: bool,
}

/// Names and records.
#[derive(Clone, Debug)]
enum Kept {
    Own {
        text: Vec<u8>,
        records: Vec<Record>,
    },
    /// As the record of a SPEC has them, where they lie.
    Stored {
        text: Bytes,
        records: Bytes,
    },
}

impl Default for Kept {
    fn default() -> Self {
        Kept::Own { text: Vec::new(), records: Vec::new() }
    }
}

impl Kept {
    fn len(&self) -> usize {
        match self {
            Kept::Own { records, .. } => records.len(),
            Kept::Stored { records, .. } => records.as_chunks::<STORED>().0.len(),
        }
    }

    fn text(&self) -> &[u8] {
        match self {
            Kept::Own { text, .. } => text,
            Kept::Stored { text, .. } => text,
        }
    }

    fn record(&self, position: usize) -> Option<Record> {
        match self {
            Kept::Own { records, .. } => records.get(position).copied(),
            Kept::Stored { records, .. } => records.as_chunks().0.get(position).map(Record::of),
        }
    }

    /// To be changed.
    fn own(&mut self) -> (&mut Vec<u8>, &mut Vec<Record>) {
        if let Kept::Stored { text, records } = self {
            let records = records.as_chunks().0.iter().map(Record::of).collect();
            *self = Kept::Own { text: text.to_vec(), records };
        }
        match self {
            Kept::Own { text, records } => (text, records),
            // It was replaced above.
            Kept::Stored { .. } => {
                *self = Kept::default();
                self.own()
            }
        }
    }
}

impl Record {
    fn of(stored: &[u8; STORED]) -> Self {
        let word = |at| u32_at(stored, at).unwrap_or(0);
        let flags = word(16);
        Record {
            at: word(0) as usize,
            name: word(4),
            namespace: word(8),
            crc: word(12),
            address: u64_at(stored, 20).unwrap_or(0),
            has_address: flags & HAS_ADDRESS != 0,
            has_crc: flags & HAS_CRC != 0,
            gpl_only: flags & GPL_ONLY != 0,
        }
    }
}

impl Exports {
    /// None yet; room for `count`, and for `text` bytes of names.
    pub fn with_capacity(count: usize, text: usize) -> Self {
        let all = Kept::Own { text: Vec::with_capacity(text), records: Vec::with_capacity(count) };
        Exports { all, index: None }
    }

    /// The record of a SPEC that [`Exports::of_record`] reads.
    pub fn to_record(&self) -> Vec<u8> {
        let mut records = Vec::with_capacity(self.len().saturating_mul(STORED));
        for r in (0..self.len()).filter_map(|position| self.all.record(position)) {
            let flag = |on: bool, flag: u32| if on { flag } else { 0 };
            let flags =
                flag(r.has_address, HAS_ADDRESS) | flag(r.has_crc, HAS_CRC) | flag(r.gpl_only, GPL_ONLY);
            for word in [number(r.at), r.name, r.namespace, r.crc, flags] {
                records.extend_from_slice(&word.to_le_bytes());
            }
            records.extend_from_slice(&r.address.to_le_bytes());
        }
        let index = NameIndex::to_store(self.len(), |position| self.name(position as usize));
        let index = index.map(|index| index.to_record()).unwrap_or_default();
        record_of(&[&records, self.all.text(), &index])
    }

    /// Reads such a record; `None` if it is none.
    pub fn of_record(record: &Bytes) -> Option<Self> {
        let [records, text, index] = parts(record)?;
        let (stored, []) = records.as_chunks::<STORED>() else { return None };
        // Names that overlap could be made into more text than there is.
        let names =
            stored.iter().map(Record::of).map(|r| u64::from(r.name).saturating_add(u64::from(r.namespace)));
        if names.fold(0, u64::saturating_add) > text.len() as u64 {
            return None;
        }
        let index = match index.is_empty() {
            true => None,
            false => Some(Arc::new(NameIndex::of_record(&index, stored.len())?)),
        };
        Some(Exports { all: Kept::Stored { text, records }, index })
    }

    /// Makes [`Exports::find`] fast, if it is not.
    pub fn make_index(&mut self) {
        self.index = Some(self.index());
    }

    /// By name.
    fn index(&self) -> Arc<NameIndex> {
        let new = || Arc::new(NameIndex::new(self.len(), |position| self.name(position as usize)));
        self.index.clone().unwrap_or_else(new)
    }

    /// The first export of that name, if an index is at hand; without one the search takes long.
    pub fn find(&self, name: &[u8]) -> Option<Export<'_>> {
        match &self.index {
            Some(index) => {
                let found = index.find(name, |position| self.name(position as usize)).next();
                found.and_then(|position| self.get(position as usize))
            }
            None => self.iter().find(|export| export.name == name),
        }
    }

    /// Adds one.
    pub fn push(&mut self, export: Export<'_>) {
        self.index = None;
        let len = |text: &[u8]| u32::try_from(text.len()).unwrap_or(u32::MAX);
        let (text, records) = self.all.own();
        records.push(Record {
            at: text.len(),
            name: len(export.name),
            namespace: len(export.namespace),
            address: export.address.unwrap_or(0),
            crc: export.crc.unwrap_or(0),
            has_address: export.address.is_some(),
            has_crc: export.crc.is_some(),
            gpl_only: export.gpl_only,
        });
        text.extend_from_slice(export.name);
        text.extend_from_slice(export.namespace);
    }

    /// Gives each of some the address that `address` tells for it.
    pub fn set_addresses(&mut self, positions: Range<usize>, address: impl Fn(Export<'_>) -> Option<u64>) {
        let (text, records) = self.all.own();
        for record in records.get_mut(positions).unwrap_or(&mut []) {
            let to = address(view(text, record));
            (record.address, record.has_address) = (to.unwrap_or(0), to.is_some());
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The export at a position.
    pub fn get(&self, position: usize) -> Option<Export<'_>> {
        self.all.record(position).map(|record| view(self.all.text(), &record))
    }

    /// The name at a position, empty behind the last.
    fn name(&self, position: usize) -> &[u8] {
        self.all.record(position).map_or(&[], |r| piece(self.all.text(), r.at, r.name))
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Export<'_>> {
        self.part(0..self.len())
    }

    /// Those at some positions.
    pub fn part(&self, positions: Range<usize>) -> impl ExactSizeIterator<Item = Export<'_>> {
        let there = if positions.end <= self.len() { positions } else { 0..0 };
        // Each of them is there.
        there.map(|position| self.get(position).unwrap_or(NONE))
    }
}

impl<'e> FromIterator<Export<'e>> for Exports {
    fn from_iter<I: IntoIterator<Item = Export<'e>>>(exports: I) -> Self {
        let mut all = Exports::default();
        exports.into_iter().for_each(|export| all.push(export));
        all
    }
}

/// Bytes of a text.
fn piece(text: &[u8], at: usize, len: u32) -> &[u8] {
    text.get(at..at.saturating_add(len as usize)).unwrap_or(&[])
}

fn view<'t>(text: &'t [u8], record: &Record) -> Export<'t> {
    Export {
        name: piece(text, record.at, record.name),
        address: record.has_address.then_some(record.address),
        crc: record.has_crc.then_some(record.crc),
        gpl_only: record.gpl_only,
        namespace: piece(text, record.at.saturating_add(record.name as usize), record.namespace),
    }
}

/// The exports of one owner, found by name. Copies share what is large.
#[derive(Clone, Debug, Default)]
pub struct ExportTable {
    told: Told,
    /// In which its own are among those of others.
    exports: Arc<Exports>,
    positions: Range<usize>,
    /// By position in `exports`.
    index: Arc<NameIndex>,
    /// Its two tables, if the kernel's binary search and the index do not find the same.
    unsorted: Option<[Range<usize>; 2]>,
}

impl ExportTable {
    /// Indexes these exports, in whatever order they are listed; each can be found.
    pub fn new(exports: Exports) -> Self {
        ExportTable::of(Arc::new(exports))
    }

    /// As [`ExportTable::new`], of exports that others have as well.
    pub(crate) fn of(exports: Arc<Exports>) -> Self {
        let (told, index) = (Told::Records, exports.index());
        ExportTable { told, positions: 0..exports.len(), exports, index, unsorted: None }
    }

    /// The same, of which only so much is known.
    #[must_use]
    pub(crate) fn told_by(self, told: Told) -> Self {
        ExportTable { told, ..self }
    }

    /// What is known of these exports.
    pub fn told(&self) -> Told {
        self.told
    }

    /// The table of one of several owners, which has the exports at these positions and shares the index.
    /// `None` if a name is there twice: a lookup would have to pass the exports of other owners.
    pub(crate) fn part(&self, positions: Range<usize>) -> Option<Self> {
        self.index.is_unique().then(|| ExportTable { positions, ..self.clone() })
    }

    /// The positions of such a part.
    pub(crate) fn positions(&self) -> Range<usize> {
        self.positions.clone()
    }

    /// Indexes the records of a module or of the kernel in their order: `__ksymtab`, then `__ksymtab_gpl`; all in one table
    /// since v7.1 (SYM-39). Where they are not sorted, what the kernel misses is missed (SYM-33).
    pub fn of_records(exports: Exports, one_table: bool) -> Self {
        let plain = exports.iter().take_while(|e| !e.gpl_only).count();
        let tables = tables(exports.len(), plain, one_table);
        let sorted = tables.iter().all(|table| is_sorted(table.clone(), |at| exports.name(at)));
        ExportTable { unsorted: (!sorted).then_some(tables), ..ExportTable::new(exports) }
    }

    /// All exports.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Export<'_>> {
        self.exports.part(self.positions.clone())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The name at a position of [`ExportTable::iter`].
    pub(crate) fn name(&self, position: usize) -> &[u8] {
        self.exports.name(self.positions.start.saturating_add(position))
    }

    /// The last position among [`ExportTable::iter`] that has this name.
    pub(crate) fn find_last(&self, name: &[u8]) -> Option<usize> {
        let last = self.index.find_last(name, |p| self.exports.name(p as usize));
        last.and_then(|p| (p as usize).checked_sub(self.positions.start)).filter(|at| *at < self.len())
    }

    /// Looks `name` up in `__ksymtab`, then, for GPL-compatible modules, in
    /// `__ksymtab_gpl` (SYM-30, SYM-31).
    pub fn find(&self, name: &[u8], gplok: bool) -> Option<Export<'_>> {
        self.find_next(&mut Lookup::new(name), gplok)
    }

    /// As [`ExportTable::find`], for a lookup in several tables, one after the other.
    pub(crate) fn find_next<'t>(&'t self, lookup: &mut Lookup<'t, '_>, gplok: bool) -> Option<Export<'t>> {
        let name = lookup.name;
        let usable = |export: &Export<'_>| gplok || !export.gpl_only;
        if let Some(tables) = &self.unsorted {
            let search = |table: &Range<usize>| bsearch(table.clone(), |at| self.name(at), name);
            // A GPL-only hit counts as none where one table has both (SYM-39).
            let at = |position: usize| self.exports.get(self.positions.start.saturating_add(position));
            return tables.iter().filter_map(search).filter_map(at).find(usable);
        }
        if !lookup.index.is_some_and(|index| Arc::ptr_eq(index, &self.index)) {
            lookup.index = Some(&self.index);
            lookup.ends = self.index.ends(name, |p| self.exports.name(p as usize));
        }
        let (first, last) = lookup.ends?;
        let own = |p: u32| {
            self.exports.get(p as usize).filter(|_| self.positions.contains(&(p as usize))).filter(usable)
        };
        // Nearly every name is there once.
        if first == last {
            return own(first);
        }
        self.index.between(first, last).filter_map(own).min_by_key(|e| e.gpl_only)
    }
}

/// A name to be looked up in several tables: in an index that they share it is looked up once.
pub(crate) struct Lookup<'t, 'n> {
    name: &'n [u8],
    /// The last index that was asked, and its answer.
    index: Option<&'t Arc<NameIndex>>,
    ends: Option<(u32, u32)>,
}

impl<'n> Lookup<'_, 'n> {
    pub(crate) fn new(name: &'n [u8]) -> Self {
        Lookup { name, index: None, ends: None }
    }
}

/// `count` records as the kernel's tables, the first `plain` of them in `__ksymtab`.
fn tables(count: usize, plain: usize, one_table: bool) -> [Range<usize>; 2] {
    let split = if one_table { count } else { plain };
    [0..split, split..count]
}

fn is_sorted<'n>(table: Range<usize>, name_at: impl Fn(usize) -> &'n [u8]) -> bool {
    table.map(name_at).is_sorted_by(|a, b| a < b)
}

/// The records of a module, in their order, that the kernel's binary search does not come to (SYM-33).
pub fn missed<'e>(
    exports: &'e [ModuleExport<'e>],
    one_table: bool,
) -> impl Iterator<Item = &'e ModuleExport<'e>> {
    let name_at = |at: usize| exports.get(at).map_or(&[][..], |e| e.name);
    let plain = exports.iter().take_while(|e| !e.gpl_only).count();
    let tables = tables(exports.len(), plain, one_table);
    let all = if tables.iter().all(|table| is_sorted(table.clone(), name_at)) { &[] } else { exports };
    all.iter().filter(move |e| !tables.iter().any(|t| bsearch(t.clone(), name_at, e.name).is_some()))
}

/// The kernel's `bsearch` over one table (SYM-33, SYM-34): which of several records of a name it
/// finds, and which it misses in a table that is not sorted, follows from its order of probes.
fn bsearch<'n>(table: Range<usize>, name_at: impl Fn(usize) -> &'n [u8], name: &[u8]) -> Option<usize> {
    let (mut base, mut num) = (table.start, table.len());
    while num > 0 {
        let pivot = base.saturating_add(num >> 1);
        match name.cmp(name_at(pivot)) {
            core::cmp::Ordering::Equal => return Some(pivot),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_survive_their_record() {
        let export =
            |(name, address, crc, gpl_only, namespace)| Export { name, address, crc, gpl_only, namespace };
        let all = [
            (&b"a"[..], Some(1), Some(2), true, &b"NS"[..]),
            (b"b", None, None, false, b""),
            (b"a", Some(0), Some(0), false, b""),
        ];
        let exports: Exports = all.into_iter().map(export).collect();
        let record = Bytes::from(exports.to_record());
        let read = Exports::of_record(&record).unwrap();
        assert_eq!((&read, read.to_record()), (&exports, record.to_vec()));
        for name in [&b"a"[..], b"b", b"c"] {
            assert_eq!(read.find(name), exports.find(name));
        }
        for len in 0..record.len() {
            assert!(Exports::of_record(&record.slice(..len)).is_none(), "cut at {len}");
        }
    }

    #[test]
    fn sym_30_and_31_plain_before_gpl() {
        let export = |(name, gpl_only, address)| Export {
            name,
            address: Some(address),
            crc: None,
            gpl_only,
            namespace: b"",
        };
        let all = [(&b"a"[..], true, 1), (b"a", false, 2), (b"g", true, 3)];
        let table = ExportTable::new(all.into_iter().map(export).collect());
        let address = |name: &[u8], gplok| table.find(name, gplok).and_then(|e| e.address);
        assert_eq!(address(b"a", true), Some(2), "SYM-30: __ksymtab before __ksymtab_gpl");
        assert_eq!(address(b"g", true), Some(3));
        assert_eq!(address(b"g", false), None, "SYM-31: GPL-only tables are invisible");
        assert_eq!(address(b"nothing at all", true), None);
    }

    #[test]
    fn sym_33_and_34_binary_search_as_the_kernel_does_it() {
        let table = |names: &[&str], gpl: usize, one_table| {
            let exports = names.iter().enumerate().map(|(at, name)| {
                let (name, address) = (name.as_bytes(), Some(at as u64));
                Export { name, address, crc: None, gpl_only: at >= gpl, namespace: b"" }
            });
            ExportTable::of_records(exports.collect(), one_table)
        };
        let at = |t: &ExportTable, name: &str, gplok| t.find(name.as_bytes(), gplok).and_then(|e| e.address);
        // Probes of b, c, a: c first, so a is looked for before it, and missed.
        let unsorted = table(&["b", "c", "a"], 3, false);
        assert_eq!(
            [at(&unsorted, "b", true), at(&unsorted, "c", true), at(&unsorted, "a", true)],
            [Some(0), Some(1), None]
        );
        let record =
            |name| ModuleExport { name, symbol: 1, addend: 0, crc: None, gpl_only: false, namespace: b"" };
        let records = [&b"b"[..], b"c", b"a"].map(record);
        assert_eq!(missed(&records, false).map(|e| e.name).collect::<Vec<_>>(), [b"a"], "SYM-33");
        // Of equal names the first probe wins: the one in the middle.
        assert_eq!(at(&table(&["a", "a", "a"], 3, false), "a", true), Some(1), "SYM-34");
        assert_eq!(at(&table(&["a", "a", "a", "a"], 4, false), "a", true), Some(2), "SYM-34");
        // Every name of a sorted table of any size is found, also by the search itself.
        let names: Vec<alloc::string::String> = (0..70).map(|n| alloc::format!("s{n:02}")).collect();
        for count in 0..names.len() {
            let names: Vec<&str> = names.iter().take(count).map(|n| n.as_str()).collect();
            let sorted = table(&names, count / 2, false);
            assert!(sorted.unsorted.is_none(), "SYM-33: {count} are sorted");
            let all = &sorted;
            assert!(
                (0..count).all(|i| bsearch(0..count, |at| all.name(at), all.name(i)) == Some(i)),
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
