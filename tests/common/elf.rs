//! A small ELF64 editor and assembler, made for the tests alone: it shares no code with the loader.

pub const WRITE: u64 = 1;
pub const ALLOC: u64 = 2;
pub const EXEC: u64 = 4;
pub const PROGBITS: u32 = 1;
pub const SYMTAB: u32 = 2;
pub const STRTAB: u32 = 3;
pub const RELA: u32 = 4;
pub const NOBITS: u32 = 8;
pub const REL: u32 = 9;
pub const UNDEF: u16 = 0;
pub const ABS: u16 = 0xfff1;
pub const COMMON: u16 = 0xfff2;
pub const LOCAL: u8 = 0;
pub const GLOBAL: u8 = 1;
pub const WEAK: u8 = 2;

/// Byte offset and width of the fields of a section header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sh {
    Name,
    Type,
    Flags,
    Addr,
    Offset,
    Size,
    Link,
    Info,
    Align,
    Entsize,
}

impl Sh {
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
    pub name: String,
    pub info: u8,
    pub shndx: u16,
    pub value: u64,
    pub size: u64,
}

impl Symbol {
    pub fn is_weak(&self) -> bool {
        self.info >> 4 == WEAK
    }
}

/// One relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rela {
    pub offset: u64,
    pub kind: u32,
    pub symbol: u32,
    pub addend: i64,
}

/// An ELF64 little-endian file to be read and patched.
#[derive(Clone, Debug)]
pub struct Elf {
    pub bytes: Vec<u8>,
}

impl Elf {
    pub fn new(bytes: Vec<u8>) -> Self {
        Elf { bytes }
    }

    /// A little-endian number of `width` bytes.
    pub fn number(&self, at: usize, width: usize) -> u64 {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(&self.bytes[at..at + width]);
        u64::from_le_bytes(wide)
    }

    pub fn put(&mut self, at: usize, width: usize, value: u64) {
        self.bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }

    pub fn shoff(&self) -> usize {
        self.number(40, 8) as usize
    }

    pub fn shnum(&self) -> usize {
        self.number(60, 2) as usize
    }

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

    pub fn data(&self, section: usize) -> &[u8] {
        &self.bytes[self.range(section)]
    }

    pub fn data_mut(&mut self, section: usize) -> &mut [u8] {
        let range = self.range(section);
        &mut self.bytes[range]
    }

    /// The first section of a type.
    pub fn of_type(&self, kind: u32) -> Option<usize> {
        (1..self.shnum()).find(|i| self.get(*i, Sh::Type) == u64::from(kind))
    }

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

/// One section to assemble.
#[derive(Clone, Debug)]
pub struct Section {
    pub name: String,
    pub kind: u32,
    pub flags: u64,
    pub data: Vec<u8>,
    pub size: u64,
    pub align: u64,
    pub info: u32,
}

/// Assembles a module from its sections and symbols; the symbol table comes last.
#[derive(Clone, Debug)]
pub struct Builder {
    pub machine: u16,
    pub sections: Vec<Section>,
    pub symbols: Vec<Symbol>,
    /// The section name table comes first instead of last.
    pub names_first: bool,
}

impl Builder {
    /// A module with `.modinfo` of these strings and a `struct module`: sections 1 and 2.
    pub fn module(modinfo: &[&str]) -> Self {
        let mut builder =
            Builder { machine: 62, sections: Vec::new(), symbols: Vec::new(), names_first: false };
        builder.symbols.push(Symbol { name: String::new(), info: 0, shndx: 0, value: 0, size: 0 });
        let strings: Vec<u8> = modinfo.iter().flat_map(|s| s.bytes().chain([0])).collect();
        builder.section(".modinfo", ALLOC, 1).data(strings);
        builder.section(".gnu.linkonce.this_module", WRITE | ALLOC, 64).data(vec![0; 0x500]);
        builder
    }

    /// The usual strings: name `mini`, GPL, vermagic of that release.
    pub fn mini(release: &str) -> Self {
        let vermagic = format!("vermagic={release} SMP preempt mod_unload modversions ");
        Builder::module(&["name=mini", "license=GPL", "intree=Y", "retpoline=Y", &vermagic])
    }

    /// Adds an empty PROGBITS section.
    pub fn section(&mut self, name: &str, flags: u64, align: u64) -> &mut Section {
        self.sections.push(Section {
            name: name.to_owned(),
            kind: PROGBITS,
            flags,
            data: Vec::new(),
            size: 0,
            align,
            info: 0,
        });
        self.sections.last_mut().unwrap()
    }

    /// Index that the section of that name will have.
    #[track_caller]
    pub fn index(&self, name: &str) -> u16 {
        let at = self.sections.iter().position(|s| s.name == name);
        at.unwrap_or_else(|| panic!("no section {name}")) as u16 + 1 + u16::from(self.names_first)
    }

    /// Adds a symbol and returns its index.
    pub fn symbol(&mut self, name: &str, bind: u8, kind: u8, shndx: u16, value: u64) -> u32 {
        self.symbols.push(Symbol { name: name.to_owned(), info: bind << 4 | kind, shndx, value, size: 0 });
        self.symbols.len() as u32 - 1
    }

    /// Adds the relocations of a section, at the end of the sections.
    pub fn relocations(&mut self, target: &str, records: &[Rela]) -> &mut Section {
        let info = u32::from(self.index(target));
        let mut data = Vec::new();
        for r in records {
            data.extend(r.offset.to_le_bytes());
            data.extend((u64::from(r.symbol) << 32 | u64::from(r.kind)).to_le_bytes());
            data.extend(r.addend.to_le_bytes());
        }
        let section = self.section(&format!(".rela{target}"), 0, 8);
        section.kind = RELA;
        section.info = info;
        section.data(data)
    }

    /// `__versions` with these CRCs.
    pub fn versions(&mut self, records: &[(&str, u64)]) -> &mut Section {
        let mut data = Vec::new();
        for (name, crc) in records {
            data.extend(crc.to_le_bytes());
            data.extend(name.bytes());
            data.resize(data.len().next_multiple_of(64), 0);
        }
        self.section("__versions", ALLOC, 32).data(data)
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let plain = |name: &str, kind, data: Vec<u8>| {
            let size = data.len() as u64;
            Section { name: name.to_owned(), kind, flags: 0, data, size, align: 1, info: 0 }
        };
        let (symtab, strtab) = self.symbol_table();
        let mut sections = self.sections.clone();
        sections.push(Section { align: 8, ..plain(".symtab", SYMTAB, symtab) });
        sections.push(plain(".strtab", STRTAB, strtab));
        let names_at = if self.names_first { 0 } else { sections.len() };
        sections.insert(names_at, plain(".shstrtab", STRTAB, Vec::new()));
        let mut names = vec![0u8];
        let mut name_offsets = Vec::new();
        for section in &sections {
            name_offsets.push(names.len() as u64);
            names.extend(section.name.bytes().chain([0]));
        }
        sections[names_at].size = names.len() as u64;
        sections[names_at].data = names;

        let mut elf = Elf::new(vec![0; 64]);
        elf.bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        let strtab_index = 1 + sections.iter().position(|s| s.name == ".strtab").unwrap();
        let mut offsets = Vec::new();
        for section in &sections {
            elf.bytes.resize(elf.bytes.len().next_multiple_of(16), 0);
            offsets.push(elf.bytes.len() as u64);
            if section.kind != NOBITS {
                elf.bytes.extend(&section.data);
            }
        }
        elf.bytes.resize(elf.bytes.len().next_multiple_of(16), 0);
        let shoff = elf.bytes.len();
        elf.bytes.resize(shoff + 64 * (sections.len() + 1), 0);
        for (at, width, value) in [
            (16, 2, 1),
            (18, 2, u64::from(self.machine)),
            (20, 4, 1),
            (40, 8, shoff as u64),
            (52, 2, 64),
            (58, 2, 64),
            (60, 2, sections.len() as u64 + 1),
            (62, 2, names_at as u64 + 1),
        ] {
            elf.put(at, width, value);
        }
        for (i, s) in sections.iter().enumerate() {
            let link = if s.kind == SYMTAB { strtab_index } else { 0 };
            for (field, value) in [
                (Sh::Name, name_offsets[i]),
                (Sh::Type, u64::from(s.kind)),
                (Sh::Flags, s.flags),
                (Sh::Offset, offsets[i]),
                (Sh::Size, s.size),
                (Sh::Link, link as u64),
                (Sh::Info, u64::from(s.info)),
                (Sh::Align, s.align),
            ] {
                elf.set(i + 1, field, value);
            }
        }
        elf.bytes
    }

    fn symbol_table(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut table, mut names) = (Vec::new(), vec![0u8]);
        for s in &self.symbols {
            let name = if s.name.is_empty() { 0 } else { names.len() as u32 };
            if name != 0 {
                names.extend(s.name.bytes().chain([0]));
            }
            table.extend(name.to_le_bytes());
            table.extend([s.info, 0]);
            table.extend(s.shndx.to_le_bytes());
            table.extend(s.value.to_le_bytes());
            table.extend(s.size.to_le_bytes());
        }
        (table, names)
    }
}

impl Section {
    /// With these bytes.
    pub fn data(&mut self, data: Vec<u8>) -> &mut Self {
        self.size = data.len() as u64;
        self.data = data;
        self
    }

    /// With so many zero bytes.
    pub fn zeros(&mut self, size: u64) -> &mut Self {
        self.data(vec![0; size as usize])
    }

    /// NOBITS of that size.
    pub fn nobits(&mut self, size: u64) -> &mut Self {
        self.kind = NOBITS;
        self.size = size;
        self
    }
}
