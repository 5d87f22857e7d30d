//! The validated, zero-copy view of one module: what the ELF checks leave behind.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bytes::{self, cstr, printed, slice};
use crate::elf::{self, RawRela, SHF_ALLOC, SHN_UNDEF, SHT_NOBITS, STT_SECTION, Shdr, Sym, SymFields};
use crate::finding::Subject;
use crate::machine::Machine;
use crate::modinfo::Modinfo;

/// Section indices that the loader looks up once (`info->index`); 0 is "absent" (OV-3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SectionIndex {
    /// `.modinfo`
    pub info: usize,
    /// `.gnu.linkonce.this_module`
    pub module: usize,
    /// The symbol table.
    pub sym: usize,
    /// Its string table.
    pub str: usize,
    /// `__versions`
    pub vers: usize,
    /// `__version_ext_crcs`
    pub vers_ext_crc: usize,
    /// `__version_ext_names`
    pub vers_ext_name: usize,
    /// `.data..percpu`
    pub pcpu: usize,
}

/// One module file after `elf_validity`. Borrows the file; every accessor is
/// bounded, and what lies outside the file reads as empty.
#[derive(Clone, Debug)]
pub struct ModuleFile<'d> {
    pub(crate) bytes: &'d [u8],
    pub(crate) e_machine: u16,
    pub(crate) machine: Option<&'static Machine>,
    pub(crate) e_shoff: u64,
    pub(crate) e_shstrndx: usize,
    pub(crate) sections: Vec<Shdr>,
    pub(crate) secstrings: &'d [u8],
    pub(crate) index: SectionIndex,
    pub(crate) symbols: &'d [Sym],
    pub(crate) strtab: &'d [u8],
    /// The file from the string table on.
    pub(crate) strings: &'d [u8],
    pub(crate) name: &'d [u8],
    /// `info->name`
    pub(crate) info_name: &'d [u8],
}

impl<'d> ModuleFile<'d> {
    /// The file without its signature.
    pub fn bytes(&self) -> &'d [u8] {
        self.bytes
    }

    /// EM_* of the ELF header.
    pub fn e_machine(&self) -> u16 {
        self.e_machine
    }

    /// The machine of that number; `None` if it is none of those that were known to the checks.
    pub fn machine(&self) -> Option<&'static Machine> {
        self.machine
    }

    /// Where the section headers are in the file.
    pub fn e_shoff(&self) -> u64 {
        self.e_shoff
    }

    /// Index of the section name table.
    pub fn e_shstrndx(&self) -> usize {
        self.e_shstrndx
    }

    /// The module's name in the early checks: modinfo `name`, else that of its `struct module` (VAL-51).
    pub fn info_name(&self) -> &'d [u8] {
        self.info_name
    }

    /// [`ModuleFile::info_name`] as text.
    pub fn info_name_text(&self) -> Cow<'d, str> {
        printed(self.info_name)
    }

    /// The module's name: the array in its `struct module` (VAL-54).
    pub fn name(&self) -> &'d [u8] {
        self.name
    }

    /// The module's name as text.
    pub fn name_text(&self) -> Cow<'d, str> {
        printed(self.name)
    }

    /// The section headers as they are on disk.
    pub fn sections(&self) -> &[Shdr] {
        &self.sections
    }

    /// The section indices that the loader uses.
    pub fn index(&self) -> &SectionIndex {
        &self.index
    }

    /// Name of section `index`, empty if it has none; cut after [`bytes::NAME_MAX`] bytes.
    pub fn section_name(&self, index: usize) -> &'d [u8] {
        let offset = self.sections.get(index).map_or(0, |s| s.sh_name);
        bytes::name(self.secstrings, u64::from(offset)).unwrap_or(&[])
    }

    /// File bytes of section `index`; empty for NOBITS and for what is not inside the file.
    pub fn section_bytes(&self, index: usize) -> &'d [u8] {
        match self.sections.get(index) {
            Some(s) if s.sh_type != SHT_NOBITS => slice(self.bytes, s.sh_offset, s.sh_size).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// Bytes of section `index` in the kernel's copy of the file, where it reads tables that it does not move: whatever the
    /// section's type, they stand at its offset.
    pub fn copied_bytes(&self, index: usize) -> &'d [u8] {
        let section = self.sections.get(index);
        section.and_then(|s| slice(self.bytes, s.sh_offset, s.sh_size)).unwrap_or(&[])
    }

    /// All of the file from a section on: strings do not end where their section ends, but at the next NUL.
    pub(crate) fn tail_of(&self, index: usize) -> &'d [u8] {
        let start = self.sections.get(index).and_then(|s| usize::try_from(s.sh_offset).ok());
        start.and_then(|start| self.bytes.get(start..)).unwrap_or(&[])
    }

    /// `find_sec`: the first SHF_ALLOC section of that name by the flags on disk, else 0 (OV-4).
    pub fn find_sec(&self, name: &str) -> usize {
        self.find(|i, s| s.sh_flags & SHF_ALLOC != 0 && self.is_named(i, name))
    }

    /// `find_any_sec`: the first section of that name whatever its flags, else 0.
    pub fn find_any_sec(&self, name: &str) -> usize {
        self.find(|i, _| self.is_named(i, name))
    }

    fn find(&self, wanted: impl Fn(usize, &Shdr) -> bool) -> usize {
        let mut sections = self.sections.iter().enumerate().skip(1);
        sections.find(|(i, s)| wanted(*i, s)).map_or(0, |(i, _)| i)
    }

    /// Is this the name of section `index`? Sooner known than the name itself.
    pub fn is_named(&self, index: usize, name: &str) -> bool {
        let offset = self.sections.get(index).map_or(0, |s| s.sh_name);
        let tail = self.secstrings.get(offset as usize..).unwrap_or(&[]);
        tail.strip_prefix(name.as_bytes()).is_some_and(|rest| matches!(rest, [0, ..] | []))
    }

    /// The symbol table. Index 0 is the null symbol.
    pub fn symbols(&self) -> &'d [Sym] {
        self.symbols
    }

    /// The names that it takes from the kernel or from other modules, in symbol order, weak ones too.
    pub fn imports(&self) -> impl Iterator<Item = &'d [u8]> {
        let undefined = self.symbols.iter().skip(1).filter(|symbol| symbol.shndx() == SHN_UNDEF);
        undefined.map(|symbol| self.symbol_name(symbol)).filter(|name| !name.is_empty())
    }

    /// The symbol string table.
    pub fn strtab(&self) -> &'d [u8] {
        self.strtab
    }

    /// A symbol's name as the kernel reads it: from its place in the string table, or behind that, to the next NUL (SYM-9).
    /// Empty if its offset lies outside of the file; cut after [`bytes::NAME_MAX`] bytes.
    pub fn symbol_name(&self, symbol: &Sym) -> &'d [u8] {
        bytes::name(self.strings, u64::from(symbol.name_offset())).unwrap_or(&[])
    }

    /// For people: a symbol's name, or that of the section that it stands for, if it has none of its own.
    pub fn symbol_or_section_name(&self, symbol: &Sym) -> &'d [u8] {
        match symbol.kind() {
            STT_SECTION if symbol.name_offset() == 0 => self.section_name(usize::from(symbol.shndx())),
            _ => self.symbol_name(symbol),
        }
    }

    /// Is there nothing where a symbol's name should be? Behind the file its copy has zeros up to the end of a page.
    pub fn symbol_name_is_nowhere(&self, symbol: &Sym, page_size: u64) -> bool {
        let len = self.bytes.len() as u64;
        let start = len.saturating_sub(self.strings.len() as u64);
        start.saturating_add(symbol.name_offset().into()) >= bytes::align_up(len, page_size)
    }

    /// A symbol's name to its end, however long it is. The caller must bound the total.
    pub fn whole_symbol_name(&self, symbol: &Sym) -> &'d [u8] {
        cstr(self.strings, u64::from(symbol.name_offset())).unwrap_or(&[])
    }

    /// Records of a RELA section (RELOC-GEN-10: a remainder is ignored).
    pub fn relocations(&self, section: usize) -> &'d [RawRela] {
        elf::records(self.section_bytes(section))
    }

    /// The `.modinfo` strings.
    pub fn modinfo(&self) -> Modinfo<'d> {
        let index = self.index.info;
        // VAL-64: without the section nothing matches.
        let (bytes, size) = match self.sections.get(index) {
            Some(section) if index != 0 => (self.tail_of(index), section.sh_size),
            _ => (&[][..], 0),
        };
        Modinfo::new(bytes, size)
    }

    /// Section `index` as the subject of a finding.
    pub fn section_subject(&self, index: usize) -> Subject {
        Subject::Section {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            name: String::from(printed(self.section_name(index))),
        }
    }
}
