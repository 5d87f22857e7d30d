//! As much of ELF64 as a vmlinux needs: segments, sections, symbols.

use alloc::vec::Vec;

use crate::bytes::{cstr, le16, le32, le64, size32, size64, slice};
use crate::memory::Extent;
use crate::{Error, ImageArch};

const PT_LOAD: u32 = 1;
const SHT_NOBITS: u32 = 8;
const SHT_SYMTAB: u32 = 2;
const SHF_WRITE: u64 = 1;
const SHF_ALLOC: u64 = 2;
const SHF_EXECINSTR: u64 = 4;
const PHENTSIZE: usize = 56;
const SHENTSIZE: usize = 64;
const SYMENTSIZE: usize = 24;
/// Most pieces of memory that are believed, and most symbols.
const EXTENTS_MAX: usize = 1024;
const SYMBOLS_MAX: usize = 1 << 22;

/// One section header that means something here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    name_at: usize,
    name_len: usize,
    kind: u32,
    flags: u64,
    link: usize,
    pub(crate) address: u64,
    pub(crate) offset: usize,
    pub(crate) size: usize,
}

impl Section {
    fn allocated(&self) -> bool {
        self.flags & SHF_ALLOC != 0 && self.kind != SHT_NOBITS
    }

    /// Its bytes in memory; `None` if it has none.
    fn extent(&self) -> Option<Extent> {
        let Section { address, offset, size, .. } = *self;
        (size != 0).then_some(Extent { address, offset, len: size })
    }
}

/// A vmlinux.
#[derive(Clone, Debug, Default)]
pub(crate) struct Elf {
    pub(crate) extents: Vec<Extent>,
    sections: Vec<Section>,
}

/// One symbol of `.symtab` that a kallsyms would have.
pub(crate) struct ElfSymbol<'d> {
    pub(crate) name: &'d [u8],
    pub(crate) address: u64,
    pub(crate) kind: u8,
}

impl Elf {
    /// Reads the headers, and tells for which of the architectures in `known` it is.
    pub(crate) fn parse(
        data: &[u8],
        known: &[&'static dyn ImageArch],
    ) -> Result<(Elf, &'static dyn ImageArch), Error> {
        let cut = |what, need: usize| Error::Truncated { what, need: need as u64, have: data.len() as u64 };
        if data.get(4) != Some(&2) {
            return Err(Error::Elf("not 64-bit"));
        }
        if data.get(5) != Some(&1) {
            return Err(Error::BigEndian);
        }
        let header = slice(data, 0, 64).ok_or(cut("ELF header", 64))?;
        let half = |at| le16(header, at).unwrap_or(0);
        let word = |at| size64(header, at).unwrap_or(0);
        let number = half(0x12);
        let arch = known.iter().copied().find(|arch| arch.machine().e_machine == number);
        let arch = arch.ok_or_else(|| Error::unknown_machine(number, known))?;
        if !matches!(half(0x10), 2 | 3) {
            return Err(Error::Elf("neither ET_EXEC nor ET_DYN: not a linked kernel"));
        }
        let mut elf = Elf::default();
        elf.read_segments(data, word(0x20), usize::from(half(0x38)), usize::from(half(0x36)))?;
        elf.read_sections(
            data,
            word(0x28),
            usize::from(half(0x3c)),
            usize::from(half(0x3a)),
            usize::from(half(0x3e)),
        );
        if elf.extents.is_empty() {
            elf.extents = elf.sections.iter().filter(|s| s.allocated()).filter_map(Section::extent).collect();
        }
        if elf.extents.len() > EXTENTS_MAX {
            return Err(Error::Elf("endless loadable segments or sections"));
        }
        if elf.extents.is_empty() {
            return Err(Error::Elf("neither loadable segments nor allocated sections"));
        }
        Ok((elf, arch))
    }

    fn read_segments(&mut self, data: &[u8], at: usize, count: usize, entry: usize) -> Result<(), Error> {
        if count == 0 || entry < PHENTSIZE {
            return Ok(());
        }
        for index in 0..count {
            let at = at.saturating_add(index.saturating_mul(entry));
            let need = at.saturating_add(PHENTSIZE);
            let cut =
                |what, need: usize| Error::Truncated { what, need: need as u64, have: data.len() as u64 };
            let header = slice(data, at, PHENTSIZE).ok_or(cut("ELF program headers", need))?;
            if le32(header, 0) != Some(PT_LOAD) {
                continue;
            }
            let (Some(offset), Some(address), Some(len)) =
                (size64(header, 8), le64(header, 16), size64(header, 32))
            else {
                return Err(Error::Elf("segment beyond the address space"));
            };
            if slice(data, offset, len).is_none() {
                return Err(cut("ELF segment", offset.saturating_add(len)));
            }
            self.extents.push(Extent { address, offset, len });
        }
        Ok(())
    }

    /// Section headers are optional (IMG-3): what cannot be read is as if it were not there.
    fn read_sections(&mut self, data: &[u8], at: usize, count: usize, entry: usize, names: usize) {
        if entry < SHENTSIZE {
            return;
        }
        let header = |index: usize| slice(data, at.checked_add(index.checked_mul(entry)?)?, SHENTSIZE);
        let Some(names) = header(names).and_then(|h| slice(data, size64(h, 24)?, size64(h, 32)?)) else {
            return;
        };
        let names_at = (names.as_ptr() as usize).wrapping_sub(data.as_ptr() as usize);
        for index in 0..count {
            let section = header(index).and_then(|h| {
                let name_at = size32(h, 0)?;
                let name_len = cstr(names.get(name_at..)?, 256)?.len();
                let section = Section {
                    name_at: names_at.checked_add(name_at)?,
                    name_len,
                    kind: le32(h, 4)?,
                    flags: le64(h, 8)?,
                    address: le64(h, 16)?,
                    offset: size64(h, 24)?,
                    size: size64(h, 32)?,
                    link: size32(h, 40)?,
                };
                let readable =
                    section.kind == SHT_NOBITS || slice(data, section.offset, section.size).is_some();
                readable.then_some(section)
            });
            // A place is kept, because symbols name sections by number.
            self.sections.push(section.unwrap_or(Section {
                name_at: 0,
                name_len: 0,
                kind: 0,
                flags: 0,
                link: 0,
                address: 0,
                offset: 0,
                size: 0,
            }));
        }
    }

    /// The allocated section `name` with bytes in the file.
    pub(crate) fn section(&self, data: &[u8], name: &[u8]) -> Option<Section> {
        let named = |s: &&Section| s.allocated() && slice(data, s.name_at, s.name_len) == Some(name);
        self.sections.iter().find(named).copied()
    }

    /// The symbols of `.symtab` that kallsyms would keep, unsorted.
    pub(crate) fn symbols<'d>(&'d self, data: &'d [u8]) -> impl Iterator<Item = ElfSymbol<'d>> + 'd {
        let table = self.sections.iter().find(|s| s.kind == SHT_SYMTAB);
        let entries = table.and_then(|t| slice(data, t.offset, t.size)).unwrap_or(&[]);
        let strings = table.and_then(|t| self.sections.get(t.link));
        let strings = strings.and_then(|s| slice(data, s.offset, s.size)).unwrap_or(&[]);
        entries.chunks_exact(SYMENTSIZE).take(SYMBOLS_MAX).filter_map(|entry| self.symbol(entry, strings))
    }

    fn symbol<'d>(&self, entry: &[u8], strings: &'d [u8]) -> Option<ElfSymbol<'d>> {
        const LOCAL: u8 = 0;
        const WEAK: u8 = 2;
        let name = cstr(strings.get(size32(entry, 0)?..)?, 1024)?;
        let info = *entry.get(4)?;
        let (bind, kind) = (info >> 4, info & 15);
        let index = le16(entry, 6)?;
        let address = le64(entry, 8)?;
        let ignored: [&[u8]; 8] =
            [b"$", b".L", b"L0", b"__kstrtab_", b"__kstrtabns_", b"__crc_", b"__pi_$", b"__cfi_"];
        if name.is_empty() || kind > 2 || index == 0 || ignored.iter().any(|prefix| name.starts_with(prefix))
        {
            return None;
        }
        let letter = match (index, self.sections.get(usize::from(index))) {
            (0xfff1, _) => b'a',
            (0xff00.., _) | (_, None) => return None,
            _ if bind == WEAK => {
                if kind == 1 {
                    b'V'
                } else {
                    b'W'
                }
            }
            (_, Some(s)) if s.flags & SHF_EXECINSTR != 0 => b't',
            (_, Some(s)) if s.kind == SHT_NOBITS => b'b',
            (_, Some(s)) if s.flags & SHF_WRITE != 0 => b'd',
            (_, Some(s)) if s.flags & SHF_ALLOC != 0 => b'r',
            _ => return None,
        };
        let kind = if bind == LOCAL { letter } else { letter.to_ascii_uppercase() };
        Some(ElfSymbol { name, address, kind })
    }
}
