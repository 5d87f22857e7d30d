//! Assembles ELF64 files from sections and symbols.

use super::{ALLOC, Elf, NOBITS, PROGBITS, RELA, Rela, STRTAB, SYMTAB, Sh, Symbol, WRITE};

/// One section to assemble.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// sh_type
    pub kind: u32,
    /// sh_flags
    pub flags: u64,
    /// sh_addr
    pub addr: u64,
    /// Its bytes in the file.
    pub data: Vec<u8>,
    /// sh_size
    pub size: u64,
    /// sh_addralign
    pub align: u64,
    /// sh_info
    pub info: u32,
}

/// Assembles a module, or another ELF file, from its sections and symbols; the symbol table comes last.
#[derive(Clone, Debug)]
pub struct Builder {
    /// e_type
    pub e_type: u16,
    /// e_machine
    pub machine: u16,
    /// The sections after section 0, without those that the builder adds.
    pub sections: Vec<Section>,
    /// The symbols, the empty one first.
    pub symbols: Vec<Symbol>,
    /// The section name table comes first instead of last.
    pub names_first: bool,
}

/// A relocatable file.
pub const ET_REL: u16 = 1;
/// A program that lies where it was linked to: a vmlinux.
pub const ET_EXEC: u16 = 2;
/// x86_64.
pub const EM_X86_64: u16 = 62;
/// arm64.
pub const EM_AARCH64: u16 = 183;

impl Builder {
    /// A file without sections.
    pub fn new(e_type: u16, machine: u16) -> Self {
        let empty = Symbol { name: String::new(), info: 0, shndx: 0, value: 0, size: 0 };
        Builder { e_type, machine, sections: Vec::new(), symbols: vec![empty], names_first: false }
    }

    /// A module with `.modinfo` of these strings and a `struct module`: sections 1 and 2.
    pub fn module(modinfo: &[&str]) -> Self {
        let mut builder = Builder::new(ET_REL, EM_X86_64);
        let strings: Vec<u8> = modinfo.iter().flat_map(|s| s.bytes().chain([0])).collect();
        builder.section(".modinfo", ALLOC, 1).data(strings);
        let mut this_module = vec![0; 0x500];
        if let Some(name) = modinfo.iter().find_map(|s| s.strip_prefix("name=")) {
            this_module[0x18..0x18 + name.len()].copy_from_slice(name.as_bytes());
        }
        builder.section(".gnu.linkonce.this_module", WRITE | ALLOC, 64).data(this_module);
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
            addr: 0,
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
            Section { name: name.to_owned(), kind, flags: 0, addr: 0, data, size, align: 1, info: 0 }
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
            (16, 2, u64::from(self.e_type)),
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
                (Sh::Addr, s.addr),
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

    /// At this address.
    pub fn at(&mut self, addr: u64) -> &mut Self {
        self.addr = addr;
        self
    }

    /// NOBITS of that size.
    pub fn nobits(&mut self, size: u64) -> &mut Self {
        self.kind = NOBITS;
        self.size = size;
        self
    }
}
