//! A small ELF64 editor and assembler. It shares no code with the loader.

mod build;
pub mod damaged;
mod vmlinux;

pub use build::{Builder, EM_AARCH64, EM_X86_64, ET_EXEC, ET_REL, Section};
pub use vmlinux::{Flat, vmlinux};

/// SHF_WRITE
pub const WRITE: u64 = 1;
/// SHF_ALLOC
pub const ALLOC: u64 = 2;
/// SHF_EXECINSTR
pub const EXEC: u64 = 4;
/// SHT_PROGBITS
pub const PROGBITS: u32 = 1;
/// SHT_SYMTAB
pub const SYMTAB: u32 = 2;
/// SHT_STRTAB
pub const STRTAB: u32 = 3;
/// SHT_RELA
pub const RELA: u32 = 4;
/// SHT_NOBITS
pub const NOBITS: u32 = 8;
/// SHT_REL
pub const REL: u32 = 9;
/// SHN_UNDEF
pub const UNDEF: u16 = 0;
/// SHN_ABS
pub const ABS: u16 = 0xfff1;
/// SHN_COMMON
pub const COMMON: u16 = 0xfff2;
/// STB_LOCAL
pub const LOCAL: u8 = 0;
/// STB_GLOBAL
pub const GLOBAL: u8 = 1;
/// STB_WEAK
pub const WEAK: u8 = 2;

/// Byte offset and width of the fields of a section header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sh {
    /// sh_name
    Name,
    /// sh_type
    Type,
    /// sh_flags
    Flags,
    /// sh_addr
    Addr,
    /// sh_offset
    Offset,
    /// sh_size
    Size,
    /// sh_link
    Link,
    /// sh_info
    Info,
    /// sh_addralign
    Align,
    /// sh_entsize
    Entsize,
}

impl Sh {
    /// Offset in the header, and width.
    pub const fn place(self) -> (usize, usize) {
        match self {
            Sh::Name => (0, 4),
            Sh::Type => (4, 4),
            Sh::Flags => (8, 8),
            Sh::Addr => (16, 8),
            Sh::Offset => (24, 8),
            Sh::Size => (32, 8),
            Sh::Link => (40, 4),
            Sh::Info => (44, 4),
            Sh::Align => (48, 8),
            Sh::Entsize => (56, 8),
        }
    }
}

/// One symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// st_info
    pub info: u8,
    /// st_shndx
    pub shndx: u16,
    /// st_value
    pub value: u64,
    /// st_size
    pub size: u64,
}

impl Symbol {
    /// Is it STB_WEAK?
    pub fn is_weak(&self) -> bool {
        self.info >> 4 == WEAK
    }
}

/// One relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rela {
    /// r_offset
    pub offset: u64,
    /// Type, the low half of r_info.
    pub kind: u32,
    /// Index of the symbol, the high half of r_info.
    pub symbol: u32,
    /// r_addend
    pub addend: i64,
}

/// An ELF64 little-endian file to be read and patched.
#[derive(Clone, Debug)]
pub struct Elf {
    /// The whole file.
    pub bytes: Vec<u8>,
}

impl Elf {
    /// A file of these bytes; nothing is checked.
    pub fn new(bytes: Vec<u8>) -> Self {
        Elf { bytes }
    }

    /// A little-endian number of `width` bytes.
    pub fn number(&self, at: usize, width: usize) -> u64 {
        damaged::number(&self.bytes, at, width).expect("a number in the file")
    }

    /// Sets a little-endian number of `width` bytes.
    pub fn put(&mut self, at: usize, width: usize, value: u64) {
        self.bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }

    /// e_shoff
    pub fn shoff(&self) -> usize {
        self.number(40, 8) as usize
    }

    /// e_shnum
    pub fn shnum(&self) -> usize {
        self.number(60, 2) as usize
    }

    /// e_shstrndx
    pub fn shstrndx(&self) -> usize {
        self.number(62, 2) as usize
    }

    /// A field of a section header.
    pub fn get(&self, section: usize, field: Sh) -> u64 {
        let (at, width) = field.place();
        self.number(self.shoff() + 64 * section + at, width)
    }

    /// Sets a field of a section header.
    pub fn set(&mut self, section: usize, field: Sh, value: u64) -> &mut Self {
        let (at, width) = field.place();
        self.put(self.shoff() + 64 * section + at, width, value);
        self
    }

    /// Name of a section.
    pub fn name(&self, section: usize) -> String {
        let at = self.get(self.shstrndx(), Sh::Offset) + self.get(section, Sh::Name);
        self.string(at as usize)
    }

    fn string(&self, at: usize) -> String {
        let tail = &self.bytes[at..];
        let end = tail.iter().position(|b| *b == 0).unwrap();
        String::from_utf8_lossy(&tail[..end]).into_owned()
    }

    /// The first section of that name.
    #[track_caller]
    pub fn section(&self, name: &str) -> usize {
        self.find(name).unwrap_or_else(|| panic!("no section {name}"))
    }

    /// The first section of that name, if there is one.
    pub fn find(&self, name: &str) -> Option<usize> {
        (1..self.shnum()).find(|i| self.name(*i) == name)
    }

    /// Where a section's bytes lie in the file; empty for NOBITS.
    pub fn range(&self, section: usize) -> std::ops::Range<usize> {
        let at = self.get(section, Sh::Offset) as usize;
        let size =
            if self.get(section, Sh::Type) == u64::from(NOBITS) { 0 } else { self.get(section, Sh::Size) };
        at..at + size as usize
    }

    /// Bytes of a section.
    pub fn data(&self, section: usize) -> &[u8] {
        &self.bytes[self.range(section)]
    }

    /// Bytes of a section, to be changed.
    pub fn data_mut(&mut self, section: usize) -> &mut [u8] {
        let range = self.range(section);
        &mut self.bytes[range]
    }

    /// The first section of a type.
    pub fn of_type(&self, kind: u32) -> Option<usize> {
        (1..self.shnum()).find(|i| self.get(*i, Sh::Type) == u64::from(kind))
    }

    /// All symbols of the first symbol table.
    pub fn symbols(&self) -> Vec<Symbol> {
        let table = self.of_type(SYMTAB).expect("a symbol table");
        let names = self.get(self.get(table, Sh::Link) as usize, Sh::Offset) as usize;
        let records = self.range(table).step_by(24);
        records
            .map(|at| Symbol {
                name: self.string(names + self.number(at, 4) as usize),
                info: self.bytes[at + 4],
                shndx: self.number(at + 6, 2) as u16,
                value: self.number(at + 8, 8),
                size: self.number(at + 16, 8),
            })
            .collect()
    }

    /// Index of the symbol of that name.
    #[track_caller]
    pub fn symbol(&self, name: &str) -> usize {
        let found = self.symbols().iter().position(|s| s.name == name);
        found.unwrap_or_else(|| panic!("no symbol {name}"))
    }

    /// File offset of a symbol's record.
    pub fn symbol_at(&self, index: usize) -> usize {
        self.range(self.of_type(SYMTAB).expect("a symbol table")).start + 24 * index
    }

    /// The whole records of a RELA section.
    pub fn relocations(&self, section: usize) -> Vec<Rela> {
        let whole = self.data(section).len() / 24;
        let start = self.range(section).start;
        let record = |n: usize| {
            let at = start + 24 * n;
            Rela {
                offset: self.number(at, 8),
                kind: self.number(at + 8, 4) as u32,
                symbol: self.number(at + 12, 4) as u32,
                addend: self.number(at + 16, 8) as i64,
            }
        };
        (0..whole).map(record).collect()
    }

    /// Replaces the first occurrence of `from` in a section by `to`, of the same length.
    #[track_caller]
    pub fn replace(&mut self, section: &str, from: &[u8], to: &[u8]) -> &mut Self {
        assert_eq!(from.len(), to.len());
        let data = self.section(section);
        let data = self.data_mut(data);
        let at = data.windows(from.len()).position(|w| w == from);
        let at = at.unwrap_or_else(|| panic!("{} is not in {section}", from.escape_ascii()));
        data[at..at + to.len()].copy_from_slice(to);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read() {
        for names_first in [false, true] {
            let mut builder = Builder { names_first, ..Builder::mini("6.12.0") };
            builder.section(".text", ALLOC | EXEC, 16).data(vec![7; 5]);
            builder.section(".bss", ALLOC | WRITE, 8).nobits(1 << 40).at(0x1000);
            let text = builder.index(".text");
            let symbol = builder.symbol("start", GLOBAL, 2, text, 3);
            let record = Rela { offset: 1, kind: 2, symbol, addend: -4 };
            builder.relocations(".text", &[record]);
            let elf = Elf::new(builder.build());
            assert_eq!((elf.section(".text"), elf.name(0)), (usize::from(text), String::new()));
            assert_eq!(elf.data(elf.section(".text")), [7; 5]);
            assert_eq!(elf.data(elf.section(".bss")), [0; 0]);
            assert_eq!(elf.get(elf.section(".bss"), Sh::Addr), 0x1000);
            assert_eq!(elf.symbols()[elf.symbol("start")].value, 3);
            assert_eq!(elf.relocations(elf.section(".rela.text")), [record]);
            let lenient = damaged::sections(&elf.bytes);
            assert_eq!(lenient.len(), elf.shnum());
            let found = lenient.iter().find(|s| s.name == b".text").expect(".text");
            assert_eq!(found.bytes, elf.range(usize::from(text)));
        }
    }

    #[test]
    fn damage_is_no_panic() {
        let good = Builder::mini("6.12.0").build();
        for len in 0..good.len() {
            damaged::sections(&good[..len]);
        }
        for at in 0..64 {
            let mut bytes = good.clone();
            damaged::put(&mut bytes, at, 8, u64::MAX);
            damaged::sections(&bytes);
        }
        assert_eq!(damaged::number(&good, usize::MAX, 8), None);
    }

    #[test]
    fn a_vmlinux_has_its_memory_where_its_headers_say() {
        let mut memory = Flat::new(0xffff_ffff_8100_0000);
        let at = memory.put(b"table");
        let address = memory.base + at as u64;
        let elf = Elf::new(vmlinux(EM_X86_64, &memory, Some(&[("__ksymtab", address, 5)])));
        let table = elf.section("__ksymtab");
        assert_eq!((elf.data(table), elf.get(table, Sh::Addr)), (&b"table"[..], address));
        assert_eq!(vmlinux(EM_X86_64, &memory, None)[0x1000..], memory.bytes);
    }
}
