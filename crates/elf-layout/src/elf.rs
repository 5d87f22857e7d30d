//! ELF terms: records as they stand in a file, their fields, and the constants that only the kernel's loader knows. No type of another
//! crate is among them.

use object::elf;

macro_rules! plain_constants {
    ($($(#[$doc:meta])* $name:ident: $ty:ty;)*) => {
        $($(#[$doc])* pub const $name: $ty = elf::$name.0;)*
    };
}

plain_constants! {
    /// Relocatable file.
    ET_REL: u16;
    /// Unused header.
    SHT_NULL: u32;
    /// Symbol table.
    SHT_SYMTAB: u32;
    /// String table.
    SHT_STRTAB: u32;
    /// Relocations with addends.
    SHT_RELA: u32;
    /// Note.
    SHT_NOTE: u32;
    /// Occupies memory but no file bytes.
    SHT_NOBITS: u32;
    /// Relocations without addends.
    SHT_REL: u32;
    /// Writable.
    SHF_WRITE: u64;
    /// Occupies memory.
    SHF_ALLOC: u64;
    /// Executable.
    SHF_EXECINSTR: u64;
    /// Undefined symbol.
    SHN_UNDEF: u16;
    /// Absolute symbol.
    SHN_ABS: u16;
    /// Common symbol, which modules may not have.
    SHN_COMMON: u16;
    /// Local binding.
    STB_LOCAL: u8;
    /// Global binding.
    STB_GLOBAL: u8;
    /// Weak binding.
    STB_WEAK: u8;
    /// Data object.
    STT_OBJECT: u8;
    /// Function.
    STT_FUNC: u8;
    /// The symbol that stands for a section.
    STT_SECTION: u8;
}

/// First reserved section index.
pub const SHN_LORESERVE: u16 = 0xff00;
/// Symbols that a livepatch module leaves to the livepatch core (`SHN_LIVEPATCH`).
pub const SHN_LIVEPATCH: u16 = 0xff20;
/// Relocation sections that the livepatch core applies (`SHF_RELA_LIVEPATCH`).
pub const SHF_RELA_LIVEPATCH: u64 = 0x0010_0000;
/// Read-only once init has run; an in-memory flag, never on disk (`SHF_RO_AFTER_INIT`).
pub const SHF_RO_AFTER_INIT: u64 = 0x0020_0000;

/// Bytes of an ELF64 header, a section header, a symbol and a RELA record.
pub const EHDR_SIZE: u64 = 64;
/// Bytes of one section header.
pub const SHDR_SIZE: u64 = 64;
/// Bytes of one symbol.
pub const SYM_SIZE: u64 = 24;
/// Bytes of one RELA record.
pub const RELA_SIZE: u64 = 24;

/// One ELF64 symbol as it stands in the file: [`SymFields`] reads it.
pub type Sym = [u8; SYM_SIZE as usize];
/// One RELA record as it stands in the file: a [`Rela`] is made from it.
pub type RawRela = [u8; RELA_SIZE as usize];
/// One section header as it stands in the file: a [`Shdr`] is made from it.
pub type RawShdr = [u8; SHDR_SIZE as usize];
/// An ELF header as it stands in the file.
pub(crate) type RawEhdr = [u8; EHDR_SIZE as usize];

/// `LEN` bytes of a record; no place behind its end is asked for.
#[inline]
fn field<const LEN: usize>(record: &[u8], at: usize) -> [u8; LEN] {
    record.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; LEN])
}

#[inline]
fn half(record: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(record, at))
}

#[inline]
fn word(record: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(record, at))
}

#[inline]
fn xword(record: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(record, at))
}

/// Native fields of a symbol.
pub trait SymFields {
    /// Offset of the name in the string table.
    fn name_offset(&self) -> u32;
    /// Section index or SHN_*.
    fn shndx(&self) -> u16;
    /// Binding and type in one byte.
    fn info(&self) -> u8;
    /// `st_other`: visibility, and what an architecture marks.
    fn other(&self) -> u8;
    /// STB_*.
    fn bind(&self) -> u8 {
        self.info() >> 4
    }
    /// STT_*.
    fn kind(&self) -> u8 {
        self.info() & 15
    }
    /// Value: in a relocatable file an offset in its section.
    fn value(&self) -> u64;
    /// Bytes.
    fn size(&self) -> u64;
}

impl SymFields for Sym {
    #[inline]
    fn name_offset(&self) -> u32 {
        word(self, 0)
    }
    #[inline]
    fn shndx(&self) -> u16 {
        half(self, 6)
    }
    #[inline]
    fn info(&self) -> u8 {
        self[4]
    }
    #[inline]
    fn other(&self) -> u8 {
        self[5]
    }
    #[inline]
    fn value(&self) -> u64 {
        xword(self, 8)
    }
    #[inline]
    fn size(&self) -> u64 {
        xword(self, 16)
    }
}

/// One RELA record with native fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rela {
    /// Byte offset in the section it patches.
    pub r_offset: u64,
    /// `symbol index << 32 | type`.
    pub r_info: u64,
    /// Addend.
    pub r_addend: i64,
}

impl Rela {
    /// Relocation type.
    pub fn r_type(&self) -> u32 {
        self.r_info as u32
    }
    /// Symbol index.
    pub fn r_sym(&self) -> u32 {
        (self.r_info >> 32) as u32
    }
}

impl From<&RawRela> for Rela {
    #[inline]
    fn from(raw: &RawRela) -> Self {
        Rela { r_offset: xword(raw, 0), r_info: xword(raw, 8), r_addend: xword(raw, 16).cast_signed() }
    }
}

/// All whole records of `SIZE` bytes at the start of `bytes`; a remainder is ignored, as the kernel's `sh_size / sizeof` does.
pub const fn records<const SIZE: usize>(bytes: &[u8]) -> &[[u8; SIZE]] {
    bytes.as_chunks().0
}

/// Section header with native fields: the editable copy that the loader works on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shdr {
    /// Offset of the name in the section name table.
    pub sh_name: u32,
    /// SHT_*.
    pub sh_type: u32,
    /// SHF_*, with the loader's own in-memory flags.
    pub sh_flags: u64,
    /// On disk ignored; the final address after `move_module`.
    pub sh_addr: u64,
    /// Byte offset in the file.
    pub sh_offset: u64,
    /// Bytes.
    pub sh_size: u64,
    /// For SYMTAB the string table, for RELA the symbol table (ignored by the kernel).
    pub sh_link: u32,
    /// For RELA the section it patches.
    pub sh_info: u32,
    /// Bytes; 0 counts as 1.
    pub sh_addralign: u64,
    /// On disk the record size; the kernel keeps the layout offset here, this crate does not.
    pub sh_entsize: u64,
}

impl Shdr {
    /// Has it bytes in the file? Without them `move_module` copies nothing, whatever its size says (LAYOUT-14).
    pub fn has_bytes(&self) -> bool {
        self.sh_type != SHT_NOBITS && self.sh_size != 0
    }
}

impl From<&RawShdr> for Shdr {
    fn from(raw: &RawShdr) -> Self {
        Shdr {
            sh_name: word(raw, 0),
            sh_type: word(raw, 4),
            sh_flags: xword(raw, 8),
            sh_addr: xword(raw, 16),
            sh_offset: xword(raw, 24),
            sh_size: xword(raw, 32),
            sh_link: word(raw, 40),
            sh_info: word(raw, 44),
            sh_addralign: xword(raw, 48),
            sh_entsize: xword(raw, 56),
        }
    }
}

/// What the kernel reads of an ELF header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ehdr {
    pub(crate) magic: [u8; 4],
    pub(crate) class: u8,
    pub(crate) e_type: u16,
    pub(crate) e_machine: u16,
    pub(crate) e_shoff: u64,
    pub(crate) e_shentsize: u16,
    pub(crate) e_shnum: u16,
    pub(crate) e_shstrndx: u16,
}

impl From<&RawEhdr> for Ehdr {
    fn from(raw: &RawEhdr) -> Self {
        Ehdr {
            magic: field(raw, 0),
            class: raw[4],
            e_type: half(raw, 16),
            e_machine: half(raw, 18),
            e_shoff: xword(raw, 40),
            e_shentsize: half(raw, 58),
            e_shnum: half(raw, 60),
            e_shstrndx: half(raw, 62),
        }
    }
}
