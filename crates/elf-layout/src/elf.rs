//! ELF terms: the raw records of the `object` crate, and the constants that
//! only the kernel's loader knows.

use object::elf;
pub use object::elf::{FileHeader64, Rela64, SectionHeader64, Sym64};
pub use object::endian::LittleEndian as LE;
use object::pod;

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

/// One ELF64 symbol as it stands in the file.
pub type Sym = Sym64<LE>;

/// Native fields of a symbol.
pub trait SymFields {
    /// Offset of the name in the string table.
    fn name_offset(&self) -> u32;
    /// Section index or SHN_*.
    fn shndx(&self) -> u16;
    /// STB_*.
    fn bind(&self) -> u8;
    /// STT_*.
    fn kind(&self) -> u8;
    /// Value: in a relocatable file an offset in its section.
    fn value(&self) -> u64;
    /// Bytes.
    fn size(&self) -> u64;
}

impl SymFields for Sym {
    fn name_offset(&self) -> u32 {
        self.st_name.get(LE)
    }
    fn shndx(&self) -> u16 {
        self.st_shndx.get(LE).0
    }
    fn bind(&self) -> u8 {
        self.st_info.0 >> 4
    }
    fn kind(&self) -> u8 {
        self.st_info.0 & 15
    }
    fn value(&self) -> u64 {
        self.st_value.get(LE)
    }
    fn size(&self) -> u64 {
        self.st_size.get(LE)
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

impl From<&Rela64<LE>> for Rela {
    #[inline]
    fn from(raw: &Rela64<LE>) -> Self {
        Rela { r_offset: raw.r_offset.get(LE), r_info: raw.r_info.get(LE), r_addend: raw.r_addend.get(LE) }
    }
}

/// All whole records of `T` at the start of `bytes`; a remainder is ignored, as
/// the kernel's `sh_size / sizeof` does.
pub fn records<T: pod::Pod>(bytes: &[u8]) -> &[T] {
    let count = bytes.len().checked_div(size_of::<T>()).unwrap_or(0);
    pod::slice_from_bytes(bytes, count).map(|(records, _)| records).unwrap_or(&[])
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

impl From<&SectionHeader64<LE>> for Shdr {
    fn from(raw: &SectionHeader64<LE>) -> Self {
        Shdr {
            sh_name: raw.sh_name.get(LE),
            sh_type: raw.sh_type.get(LE).0,
            sh_flags: raw.sh_flags.get(LE).0,
            sh_addr: raw.sh_addr.get(LE),
            sh_offset: raw.sh_offset.get(LE),
            sh_size: raw.sh_size.get(LE),
            sh_link: raw.sh_link.get(LE),
            sh_info: raw.sh_info.get(LE),
            sh_addralign: raw.sh_addralign.get(LE),
            sh_entsize: raw.sh_entsize.get(LE),
        }
    }
}
