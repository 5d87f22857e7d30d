//! `/proc/kallsyms` and System.map text (spec 09 §9.1).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::error::Error;
use crate::names::NameIndex;

/// Owners in brackets that are not modules.
const PSEUDO_MODULES: [&[u8]; 3] = [b"bpf", b"__builtin__ftrace", b"__builtin__kprobes"];

/// One line.
#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    name_at: u32,
    name_len: u16,
    kind: u8,
    /// 0 the kernel, else index + 1 of the module.
    module: u16,
}

/// One symbol of the kernel or of a loaded module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The symbols of a kernel and of the modules it has loaded, indexed by name.
#[derive(Clone, Debug, Default)]
pub struct KernelSymbols {
    text: Vec<u8>,
    entries: Vec<Entry>,
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
            symbols.entries.push(Entry {
                address,
                name_at: u32::try_from(name_at).map_err(|_| Error::TooLarge)?,
                name_len: u16::try_from(name.len()).map_err(|_| bad)?,
                kind,
                module,
            });
        }
        if hidden && !symbols.is_empty() {
            return Err(Error::Hidden);
        }
        symbols.indexed(text)
    }

    /// The symbols of a kernel that are known already, as address, letter and name.
    pub fn of_kernel<'n>(all: impl Iterator<Item = (u64, u8, &'n [u8])>) -> Result<Self, Error> {
        let mut symbols = KernelSymbols::default();
        let mut text = Vec::new();
        for (address, kind, name) in all {
            symbols.entries.push(Entry {
                address,
                name_at: u32::try_from(text.len()).map_err(|_| Error::TooLarge)?,
                name_len: u16::try_from(name.len()).map_err(|_| Error::TooLarge)?,
                kind,
                module: 0,
            });
            text.extend_from_slice(name);
        }
        symbols.indexed(text)
    }

    /// With the text that the names stand in, and found by name.
    fn indexed(mut self, text: Vec<u8>) -> Result<Self, Error> {
        if self.entries.is_empty() {
            return Err(Error::Empty);
        }
        let name_of = |position: u32| match self.entries.get(position as usize) {
            Some(entry) => name_in(&text, entry),
            None => &[][..],
        };
        self.index = NameIndex::new(self.entries.len(), name_of);
        self.text = text;
        Ok(self)
    }

    /// Adds a module whose name stands at `at` in the text; gives its number.
    fn add_module(&mut self, at: usize, name: &[u8]) -> Option<u16> {
        self.modules.push((u32::try_from(at).ok()?, u16::try_from(name.len()).ok()?));
        u16::try_from(self.modules.len()).ok()
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No symbols at all?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All symbols, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = KernelSymbol<'_>> {
        self.entries.iter().map(|entry| self.symbol(entry))
    }

    /// The modules that the text lists, newest first, as `/proc/kallsyms` has them (LIFE-50).
    pub fn modules(&self) -> impl Iterator<Item = &[u8]> {
        self.modules.iter().map(|(at, len)| {
            self.text.get(*at as usize..).and_then(|t| t.get(..usize::from(*len))).unwrap_or(&[])
        })
    }

    /// All symbols of that name, in the order of the text.
    pub fn named(&self, name: &[u8]) -> impl Iterator<Item = KernelSymbol<'_>> {
        let name_of =
            |position: u32| self.entries.get(position as usize).map_or(&[][..], |e| name_in(&self.text, e));
        let positions = self.index.find(name, name_of);
        positions.filter_map(|p| self.entries.get(p as usize)).map(|e| self.symbol(e))
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
        self.entries.iter().any(|e| e.module == 0 && matches!(e.kind, b'd' | b'b' | b'r'))
    }

    fn symbol(&self, entry: &Entry) -> KernelSymbol<'_> {
        let module = usize::from(entry.module).checked_sub(1).and_then(|i| self.modules.get(i));
        KernelSymbol {
            name: name_in(&self.text, entry),
            address: entry.address,
            kind: entry.kind,
            module: module.and_then(|(at, len)| self.text.get(*at as usize..)?.get(..usize::from(*len))),
        }
    }
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
