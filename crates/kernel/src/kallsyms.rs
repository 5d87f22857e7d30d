//! `/proc/kallsyms` and System.map text (spec 09 §9.1).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::error::Error;
use crate::names::NameIndex;
use crate::parts::{parts, record_of, u32_at, u64_at};

/// Owners in brackets that are not modules.
const PSEUDO_MODULES: [&[u8]; 3] = [b"bpf", b"__builtin__ftrace", b"__builtin__kprobes"];

/// Bytes of an [`Entry`] in a table: its members in their order.
const ENTRY: usize = 17;

/// One line.
#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    name_at: u32,
    name_len: u16,
    /// 0 the kernel, else index + 1 of the module.
    module: u16,
    kind: u8,
}

impl Entry {
    fn of(bytes: &[u8; ENTRY]) -> Self {
        let [.., len_low, len_high, module_low, module_high, kind] = *bytes;
        Entry {
            address: u64_at(bytes, 0).unwrap_or(0),
            name_at: u32_at(bytes, 8).unwrap_or(0),
            name_len: u16::from_le_bytes([len_low, len_high]),
            module: u16::from_le_bytes([module_low, module_high]),
            kind,
        }
    }

    fn put(self, table: &mut Vec<u8>) {
        table.extend_from_slice(&self.address.to_le_bytes());
        table.extend_from_slice(&self.name_at.to_le_bytes());
        table.extend_from_slice(&self.name_len.to_le_bytes());
        table.extend_from_slice(&self.module.to_le_bytes());
        table.push(self.kind);
    }
}

/// One symbol of the kernel or of a loaded module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelSymbol<'t> {
    /// Its name; not unique (KSYM-3).
    pub name: &'t [u8],
    /// Its address.
    pub address: u64,
    /// nm's letter, upper case for global symbols (KSYM-1).
    pub kind: u8,
    /// The module in brackets.
    pub module: Option<&'t [u8]>,
}

/// The symbols of a kernel and of the modules it has loaded, indexed by name. Copies share what is large.
#[derive(Clone, Debug, Default)]
pub struct KernelSymbols {
    /// In which the names stand.
    text: Bytes,
    /// [`ENTRY`] bytes for each.
    entries: Bytes,
    modules: Vec<(u32, u16)>,
    index: NameIndex,
}

impl KernelSymbols {
    /// Reads the text of `/proc/kallsyms` or of a System.map.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let text = text.to_vec();
        if u32::try_from(text.len()).is_err() {
            return Err(Error::TooLarge);
        }
        let mut symbols = KernelSymbols::default();
        let mut entries = Vec::new();
        let mut at = 0usize;
        let mut hidden = true;
        let mut numbers: BTreeMap<&[u8], u16> = BTreeMap::new();
        for (number, line) in text.split(|b| *b == b'\n').enumerate() {
            let line_at = at;
            at = at.saturating_add(line.len()).saturating_add(1);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            let bad = Error::SymbolLine(number.saturating_add(1));
            let Some((address, kind, name, module)) = parse_line(line) else {
                return Err(bad);
            };
            if name.starts_with(b"The real System.map is in the") {
                return Err(Error::Stub);
            }
            hidden &= address == 0;
            let module = match module {
                Some(name) if PSEUDO_MODULES.contains(&name) => continue,
                Some(name) => match numbers.get(name) {
                    Some(number) => *number,
                    None => {
                        let number =
                            symbols.add_module(offset_in(&text, name), name).ok_or(Error::TooLarge)?;
                        numbers.insert(name, number);
                        number
                    }
                },
                None => 0,
            };
            let name_at = line_at.saturating_add(offset_in(line, name));
            let name_at = u32::try_from(name_at).map_err(|_| Error::TooLarge)?;
            let name_len = u16::try_from(name.len()).map_err(|_| bad)?;
            Entry { address, name_at, name_len, module, kind }.put(&mut entries);
        }
        if hidden && !entries.is_empty() {
            return Err(Error::Hidden);
        }
        symbols.indexed(text, entries)
    }

    /// The symbols of a kernel that are known already, as address, letter and name.
    pub fn of_kernel<'n>(all: impl Iterator<Item = (u64, u8, &'n [u8])>) -> Result<Self, Error> {
        let (text, entries) = table_of(all)?;
        KernelSymbols::default().indexed(text, entries)
    }

    /// With a table of entries and the text that the names stand in, and found by name.
    fn indexed(mut self, text: Vec<u8>, entries: Vec<u8>) -> Result<Self, Error> {
        if entries.is_empty() {
            return Err(Error::Empty);
        }
        (self.text, self.entries) = (text.into(), entries.into());
        self.index = NameIndex::new(self.len(), |position| self.name(position));
        Ok(self)
    }

    /// The kernel's own symbols as the record of a SPEC that [`KernelSymbols::of_record`] reads.
    pub fn to_record(&self) -> Vec<u8> {
        let own = self.iter().filter(|symbol| symbol.module.is_none());
        let (text, entries) = table_of(own.map(|s| (s.address, s.kind, s.name))).unwrap_or_default();
        let table = KernelSymbols { text: text.into(), entries: entries.into(), ..KernelSymbols::default() };
        let index = NameIndex::to_store(table.len(), |position| table.name(position));
        let index = index.map(|index| index.to_record()).unwrap_or_default();
        record_of(&[&table.entries, &table.text, &index])
    }

    /// The symbols of such a record, where they lie; `None` if it is none.
    pub fn of_record(record: &Bytes) -> Option<Self> {
        let [entries, text, index] = parts(record)?;
        let mut symbols = KernelSymbols { text, entries, ..KernelSymbols::default() };
        // Names that overlap could be made into more text than there is.
        let names = symbols.entries().iter().map(|entry| u64::from(Entry::of(entry).name_len)).sum::<u64>();
        let is_whole = symbols.entries.len().is_multiple_of(ENTRY) && names <= symbols.text.len() as u64;
        if symbols.is_empty() || !is_whole {
            return None;
        }
        symbols.index = if index.is_empty() {
            NameIndex::new(symbols.len(), |position| symbols.name(position))
        } else {
            NameIndex::of_record(&index, symbols.len())?
        };
        Some(symbols)
    }

    fn entries(&self) -> &[[u8; ENTRY]] {
        self.entries.as_chunks().0
    }

    /// The name at a position, empty behind the last.
    fn name(&self, position: u32) -> &[u8] {
        self.entries().get(position as usize).map_or(&[], |entry| name_in(&self.text, &Entry::of(entry)))
    }

    /// Adds a module whose name stands at `at` in the text; gives its number.
    fn add_module(&mut self, at: usize, name: &[u8]) -> Option<u16> {
        self.modules.push((u32::try_from(at).ok()?, u16::try_from(name.len()).ok()?));
        u16::try_from(self.modules.len()).ok()
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// No symbols at all?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All symbols, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = KernelSymbol<'_>> {
        self.entries().iter().map(|entry| self.symbol(entry))
    }

    /// The modules that the text lists, newest first, as `/proc/kallsyms` has them (LIFE-50).
    pub fn modules(&self) -> impl Iterator<Item = &[u8]> {
        self.modules.iter().map(|(at, len)| {
            self.text.get(*at as usize..).and_then(|t| t.get(..usize::from(*len))).unwrap_or(&[])
        })
    }

    /// All symbols of that name, in the order of the text.
    pub fn named(&self, name: &[u8]) -> impl Iterator<Item = KernelSymbol<'_>> {
        let positions = self.index.find(name, |position| self.name(position));
        positions.filter_map(|p| self.entries().get(p as usize)).map(|e| self.symbol(e))
    }

    /// The only symbol of that name; `None` also if there are several.
    pub fn unique(&self, name: &[u8]) -> Option<KernelSymbol<'_>> {
        let mut named = self.named(name);
        let first = named.next()?;
        named.next().is_none().then_some(first)
    }

    /// Address of the kernel's own symbol `name`, the first if there are several.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.named(name.as_bytes()).find(|s| s.module.is_none()).map(|s| s.address)
    }

    /// Address of the symbol that `owner` (`None`: the kernel) exports as `name`.
    ///
    /// Names are not unique (KSYM-3), but an exported one is global. A global
    /// symbol has an upper-case letter; in a module only if it is not GPL-only
    /// (LIFE-51), but there global symbols follow local ones, so the last is it.
    pub fn exported_address(&self, name: &[u8], owner: Option<&[u8]>) -> Option<u64> {
        let of_owner = || self.named(name).filter(|s| s.module == owner);
        let global = of_owner().find(|s| s.kind.is_ascii_uppercase());
        let chosen = match owner {
            None => global.or_else(|| of_owner().next()),
            Some(_) => global.or_else(|| of_owner().last()),
        };
        chosen.map(|s| s.address)
    }

    /// Does it hold data symbols? Without CONFIG_KALLSYMS_ALL it holds text only (KSYM-10).
    pub fn has_local_data(&self) -> bool {
        let mut entries = self.entries().iter().map(Entry::of);
        entries.any(|e| e.module == 0 && matches!(e.kind, b'd' | b'b' | b'r'))
    }

    fn symbol(&self, entry: &[u8; ENTRY]) -> KernelSymbol<'_> {
        let entry = Entry::of(entry);
        let module = usize::from(entry.module).checked_sub(1).and_then(|i| self.modules.get(i));
        KernelSymbol {
            name: name_in(&self.text, &entry),
            address: entry.address,
            kind: entry.kind,
            module: module.and_then(|(at, len)| self.text.get(*at as usize..)?.get(..usize::from(*len))),
        }
    }
}

/// Names and entries of a table of the kernel's own symbols, as address, letter and name.
fn table_of<'n>(all: impl Iterator<Item = (u64, u8, &'n [u8])>) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let (mut text, mut entries) = (Vec::new(), Vec::new());
    for (address, kind, name) in all {
        let name_at = u32::try_from(text.len()).map_err(|_| Error::TooLarge)?;
        let name_len = u16::try_from(name.len()).map_err(|_| Error::TooLarge)?;
        Entry { address, name_at, name_len, module: 0, kind }.put(&mut entries);
        text.extend_from_slice(name);
    }
    Ok((text, entries))
}

fn name_in<'t>(text: &'t [u8], entry: &Entry) -> &'t [u8] {
    text.get(entry.name_at as usize..).and_then(|t| t.get(..usize::from(entry.name_len))).unwrap_or(&[])
}

/// Byte offset of `part` in `whole`, of which it is a slice.
fn offset_in(whole: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize)
}

/// Address, letter, name and module of a line.
type Fields<'l> = (u64, u8, &'l [u8], Option<&'l [u8]>);

/// `ADDRESS TYPE NAME`, and `[module]` after a tab.
fn parse_line(line: &[u8]) -> Option<Fields<'_>> {
    let (address, rest) = split_once(line, b' ')?;
    let (kind, rest) = split_once(rest, b' ')?;
    let &[kind] = kind else { return None };
    if address.is_empty() || address.len() > 16 || !kind.is_ascii_graphic() || rest.is_empty() {
        return None;
    }
    let address = u64::from_str_radix(core::str::from_utf8(address).ok()?, 16).ok()?;
    match memchr::memchr(b'\t', rest) {
        None => Some((address, kind, rest, None)),
        Some(tab) => {
            let module = rest.get(tab..)?.trim_ascii().strip_prefix(b"[")?.strip_suffix(b"]")?;
            Some((address, kind, rest.get(..tab)?, Some(module)))
        }
    }
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let i = memchr::memchr(at, text)?;
    Some((text.get(..i)?, text.get(i.checked_add(1)?..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_modules() {
        let text = b"0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text\nffffffff81000010 t twice\n\
            ffffffff81000020 T twice\nffffffff82000000 d data\nffffffffc0201000 t f\t[newer]\n\
            ffffffffc0201010 t f\t[newer]\nffffffffc0301000 T g\t[older]\nffffffffc0400000 t bpf_prog\t[bpf]\n";
        let symbols = KernelSymbols::parse(text).unwrap();
        assert_eq!(symbols.len(), 8, "pseudo modules are ignored");
        assert_eq!(symbols.modules().collect::<Vec<_>>(), [&b"newer"[..], b"older"], "LIFE-50: newest first");
        assert_eq!(
            symbols.exported_address(b"twice", None),
            Some(0xffff_ffff_8100_0020),
            "KSYM-3: the global one"
        );
        assert_eq!(symbols.exported_address(b"f", Some(b"newer")), Some(0xffff_ffff_c020_1010), "LIFE-51");
        assert_eq!(symbols.exported_address(b"g", None), None, "a module's symbol is not the kernel's");
        assert_eq!(symbols.address("_text"), Some(0xffff_ffff_8100_0000));
        assert!(symbols.has_local_data(), "KSYM-10");
    }

    #[test]
    fn the_kernels_own_symbols_survive_their_record() {
        let text = b"ffffffff81000000 T _text\nffffffff81000010 t twice\nffffffff81000020 T twice\n\
            ffffffffc0201000 t f\t[module]\nffffffff82000000 d data\n";
        let symbols = KernelSymbols::parse(text).unwrap();
        let record = Bytes::from(symbols.to_record());
        let read = KernelSymbols::of_record(&record).unwrap();
        let own: Vec<_> = symbols.iter().filter(|s| s.module.is_none()).collect();
        assert_eq!(read.iter().collect::<Vec<_>>(), own);
        assert!(read.named(b"twice").eq(symbols.named(b"twice")) && read.unique(b"f").is_none());
        assert_eq!(read.to_record(), record);
        for len in 0..record.len() {
            assert!(KernelSymbols::of_record(&record.slice(..len)).is_none(), "cut at {len}");
        }
        // A name that would stand behind the text is none.
        let mut damaged = record.to_vec();
        damaged[24 + 8] = 0xff;
        let damaged = KernelSymbols::of_record(&damaged.into()).unwrap();
        assert_eq!(damaged.iter().next().map(|s| s.name), Some(&b""[..]));
    }

    #[test]
    fn unusable_texts_are_named() {
        let stub = b"ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n";
        for (text, want) in [
            (&stub[..], Error::Stub),
            (b"0000000000000000 T _text\n0000000000000000 t x\n", Error::Hidden),
            (b"", Error::Empty),
            (b"ffffffff81000000 T a\nrubbish\n", Error::SymbolLine(2)),
            (b"ffffffff81000000 T a\t[open\n", Error::SymbolLine(1)),
            (b"fffffffff81000000 T a\n", Error::SymbolLine(1)),
        ] {
            assert_eq!(KernelSymbols::parse(text).unwrap_err(), want);
        }
    }
}
