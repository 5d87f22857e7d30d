//! The kernel's own symbol table, out of the image (KSYM, spec 09 §9.3).

pub(crate) mod addresses;
pub(crate) mod find;

use alloc::vec::Vec;
use core::fmt;

use crate::Error;
use crate::elf::Elf;
use crate::memory::Memory;
use addresses::Addresses;
use find::Tables;

/// Longest name with its type letter that is believed (the kernel's KSYM_NAME_LEN is 512).
const NAME_MAX: usize = 1024;
/// Most bytes of names that are believed.
const NAMES_MAX: usize = 256 << 20;

/// Where the symbols come from, and how their tables lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KallsymsLayout {
    /// Up to 6.3: offsets and relative base first.
    Old,
    /// Up to 6.3 without CONFIG_KALLSYMS_BASE_RELATIVE: 64-bit addresses first.
    OldAbsolute,
    /// 6.4 to 6.19: names first, then offsets and relative base.
    NamesFirst,
    /// 7.0 and later: names first, offsets relative to their own place (KSYM-14).
    PlaceRelative,
    /// No kallsyms tables, but an ELF `.symtab` (IMG-7).
    Symtab,
}

impl fmt::Display for KallsymsLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KallsymsLayout::Old => "kallsyms tables as up to 6.3",
            KallsymsLayout::OldAbsolute => "kallsyms tables as up to 6.3, with whole addresses",
            KallsymsLayout::NamesFirst => "kallsyms tables as since 6.4",
            KallsymsLayout::PlaceRelative => "kallsyms tables as since 7.0",
            KallsymsLayout::Symtab => "the ELF symbol table",
        })
    }
}

/// One symbol of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelSymbol<'k> {
    /// Its name; not unique (KSYM-3).
    pub name: &'k [u8],
    /// Its link address, or its value if it is absolute or per-cpu.
    pub address: u64,
    /// nm's letter, upper case for global symbols (KSYM-1).
    pub kind: u8,
}

/// All symbols, in order of address as `/proc/kallsyms` has them.
#[derive(Clone, Debug)]
pub struct Kallsyms {
    layout: KallsymsLayout,
    relative_base: Option<u64>,
    names: Vec<u8>,
    /// Where each name ends in `names`.
    ends: Vec<u32>,
    kinds: Vec<u8>,
    addresses: Vec<u64>,
}

impl Kallsyms {
    /// Finds and decodes the tables.
    pub(crate) fn read(data: &[u8], memory: &Memory) -> Result<Kallsyms, Error> {
        let tables = find::find(data)?;
        let Addresses { layout, relative_base, values } = addresses::find(data, memory, &tables)?;
        let mut kallsyms = Kallsyms::empty(layout, tables.count);
        kallsyms.relative_base = relative_base;
        kallsyms.addresses = values;
        kallsyms.read_names(data, &tables)?;
        Ok(kallsyms)
    }

    fn empty(layout: KallsymsLayout, count: usize) -> Kallsyms {
        Kallsyms {
            layout,
            relative_base: None,
            names: Vec::with_capacity(count.saturating_mul(24)),
            ends: Vec::with_capacity(count),
            kinds: Vec::with_capacity(count),
            addresses: Vec::new(),
        }
    }

    /// Puts the tokens together; the first character is the type letter.
    fn read_names(&mut self, data: &[u8], tables: &Tables) -> Result<(), Error> {
        let tokens = tables.tokens(data);
        let mut at = tables.names;
        for _ in 0..tables.count {
            let damaged = |what| Error::DamagedKallsyms { what, at: at as u64 };
            let (codes, next) = find::compressed_name(data, at).ok_or(damaged("a name beyond the end"))?;
            let mut rest = codes.iter().filter_map(|code| tokens.get(usize::from(*code)));
            let mut first = rest.next().copied().unwrap_or(&[]);
            while first.is_empty() {
                first = rest.next().ok_or(damaged("a symbol without type letter"))?;
            }
            let (kind, first) = first.split_first().ok_or(damaged("a symbol without type letter"))?;
            if !kind.is_ascii_graphic() {
                return Err(damaged("a type letter that is none"));
            }
            let start = self.names.len();
            self.names.extend_from_slice(first);
            for token in rest {
                self.names.extend_from_slice(token);
                if self.names.len().saturating_sub(start) > NAME_MAX {
                    return Err(damaged("an endless name"));
                }
            }
            if self.names.len() > NAMES_MAX {
                return Err(damaged("endless names"));
            }
            self.ends.push(u32::try_from(self.names.len()).map_err(|_| damaged("endless names"))?);
            self.kinds.push(*kind);
            at = next;
        }
        Ok(())
    }

    /// The symbols of an ELF with `.symtab`, in order of address.
    pub(crate) fn from_symtab(data: &[u8], elf: &Elf) -> Option<Kallsyms> {
        let mut symbols: Vec<_> = elf.symbols(data).collect();
        symbols.sort_by_key(|s| s.address);
        let mut kallsyms = Kallsyms::empty(KallsymsLayout::Symtab, symbols.len());
        for symbol in &symbols {
            kallsyms.names.extend_from_slice(symbol.name);
            if kallsyms.names.len() > NAMES_MAX {
                return None;
            }
            kallsyms.ends.push(u32::try_from(kallsyms.names.len()).ok()?);
            kallsyms.kinds.push(symbol.kind);
            kallsyms.addresses.push(symbol.address);
        }
        (!symbols.is_empty()).then_some(kallsyms)
    }

    /// How the tables lie.
    pub fn layout(&self) -> KallsymsLayout {
        self.layout
    }

    /// `kallsyms_relative_base`, where there is one.
    pub fn relative_base(&self) -> Option<u64> {
        self.relative_base
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// No symbols at all?
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Symbol number `index`, counted in order of address.
    pub fn get(&self, index: usize) -> Option<KernelSymbol<'_>> {
        Some(KernelSymbol {
            name: self.name(index)?,
            address: *self.addresses.get(index)?,
            kind: *self.kinds.get(index)?,
        })
    }

    /// All symbols, in order of address.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = KernelSymbol<'_>> {
        let nothing = KernelSymbol { name: &[], address: 0, kind: b'?' };
        (0..self.len()).map(move |index| self.get(index).unwrap_or(nothing))
    }

    /// The first symbol of that name. This looks at every name: for many lookups, build an index.
    pub fn find(&self, name: &[u8]) -> Option<KernelSymbol<'_>> {
        self.get((0..self.len()).find(|i| self.name(*i) == Some(name))?)
    }

    /// All symbols of that name, in order of address.
    pub fn named<'k, 'n>(&'k self, name: &'n [u8]) -> impl Iterator<Item = KernelSymbol<'k>> + use<'k, 'n> {
        (0..self.len()).filter(move |i| self.name(*i) == Some(name)).filter_map(|i| self.get(i))
    }

    /// Address of the first symbol of that name.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.find(name.as_bytes()).map(|symbol| symbol.address)
    }

    fn name(&self, index: usize) -> Option<&[u8]> {
        let start = index.checked_sub(1).and_then(|i| self.ends.get(i)).copied().unwrap_or(0);
        self.names.get(start as usize..*self.ends.get(index)? as usize)
    }
}
