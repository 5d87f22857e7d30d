//! The ELF checks of `load_module`, in the kernel's order. Up to 6.3 they are
//! `elf_validity_check` and `setup_load_info` (VAL-10 to 25), from 6.4
//! `elf_validity_cache_copy` (VAL-40 to 53); exact for 6.1 and 6.12.
//!
//! One check is one function that names its rule. The kernel leaves at the
//! first failure; here the checks go on as long as what they look at exists.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bytes::{cstr, printed, slice};
use crate::changes::Change;
use crate::config::KernelConfig;
use crate::elf::{
    self, ET_REL, Ehdr, SHDR_SIZE, SHF_ALLOC, SHT_NOBITS, SHT_NULL, SHT_STRTAB, SHT_SYMTAB, Shdr, SymFields,
};
use crate::finding::{Errno, Finding, Findings, Severity, Subject, needs};
use crate::machine::{Machine, machine_name, names_of};
use crate::module_file::{ModuleFile, SectionIndex};
use crate::signature::module_sig_check;

/// Name of the section that holds the module's `struct module`.
pub const THIS_MODULE: &str = ".gnu.linkonce.this_module";
/// Byte offset of `name` in `struct module` (STAT-16; unchanged since 3.x).
pub(crate) const MODULE_NAME: u64 = 0x18;
const UNNAMED: &str = "(missing .modinfo section or name field)";

/// What the checks need to know beside the file.
#[derive(Clone, Debug)]
pub struct Expected<'k> {
    /// The kernel's version and configuration.
    pub config: &'k KernelConfig,
    /// The machine whose modules this kernel takes; `None` if that is not known, and any of those known will do.
    pub machine: Option<&'static Machine>,
    /// All machines known.
    pub known: &'k [&'static Machine],
    /// finit_module flag IGNORE_MODVERSIONS (VER-33).
    pub ignore_modversions: bool,
}

impl<'d> ModuleFile<'d> {
    /// The view of a module for any machine of `known`, where no kernel is asked: the signature is cut off
    /// (`signature::module_sig_check`), and the file passes the ELF checks of a kernel of that configuration.
    ///
    /// # Errors
    ///
    /// What that kernel says.
    pub fn parse(
        file: &'d [u8],
        config: &KernelConfig,
        known: &[&'static Machine],
    ) -> Result<Self, Findings> {
        let mut said = Findings::new();
        let (tail, finding) = module_sig_check(file);
        if let Some(finding) = finding {
            said.push(finding);
        }
        let expected = Expected { config, machine: None, known, ignore_modversions: true };
        let module = elf_validity(tail.module, &expected, &mut said);
        module.filter(|_| !said.refused()).ok_or(said)
    }
}

/// All ELF checks on `file` (its signature already cut off). `None` only if
/// there is no section table or no section names to go on with.
pub fn elf_validity<'d>(
    file: &'d [u8],
    expected: &Expected<'_>,
    said: &mut Findings,
) -> Option<ModuleFile<'d>> {
    said.stage_at_first(|said| check_all(&mut Checks { file, expected, said }))
}

/// `EI_CLASS` of a 32-bit file, which the kernel does not look at.
const ELFCLASS32: u8 = 1;

struct Checks<'d, 'c> {
    file: &'d [u8],
    expected: &'c Expected<'c>,
    said: &'c mut Findings,
}

fn check_all<'d>(c: &mut Checks<'d, '_>) -> Option<ModuleFile<'d>> {
    // Since v6.4 (elf_validity_cache_copy): section bounds before names, uniqueness of single
    // sections; before that elf_validity_check and setup_load_info.
    let config = c.expected.config;
    let cache_copy = config.has(Change::ElfValidityCacheCopy);
    let ehdr = c.elf_validity_ehdr()?;
    let e_shstrndx = usize::from(ehdr.e_shstrndx);
    let sections = c.section_headers(&ehdr)?;
    let mut module = ModuleFile {
        bytes: c.file,
        e_machine: ehdr.e_machine,
        machine: Machine::find(c.expected.known, ehdr.e_machine),
        e_shoff: ehdr.e_shoff,
        e_shstrndx,
        sections,
        secstrings: &[],
        index: SectionIndex::default(),
        symbols: &[],
        strtab: &[],
        strings: &[],
        name: &[],
        info_name: &[],
    };
    if cache_copy {
        c.section_0(&module);
        for (i, s) in c.sections_with_bytes(&module) {
            c.section_in_file(i, s);
        }
        c.secstrings_index(&module)?;
        c.secstrings_type(&module);
        module.secstrings = c.secstrings(&module)?;
        for (i, s) in module.sections.iter().enumerate().filter(|(_, s)| s.sh_type != SHT_NULL) {
            c.section_name("VAL-43", &module, i, s);
        }
        module.index.info = c.only_one_modinfo(&module);
        let named = module_name(&module);
        module.index.module = c.exactly_one_this_module(&module, named);
        (module.index.sym, module.index.str) = c.exactly_one_symtab(&module, named)?;
    } else {
        c.secstrings_index(&module)?;
        c.secstrings_bounds(&module);
        module.secstrings = c.secstrings(&module)?;
        c.section_0(&module);
        c.sections_one_by_one(&module);
        module.index.info = module.find_sec(".modinfo");
        let named = module_name(&module);
        (module.index.sym, module.index.str) = c.first_symtab(&module, named)?;
        module.index.module = c.first_this_module(&module, named);
    }
    if !c.expected.ignore_modversions {
        module.index.vers = module.find_sec("__versions");
        // Since v6.14 (extended modversions).
        if config.has(Change::ExtendedModversions) {
            module.index.vers_ext_crc = module.find_sec("__version_ext_crcs");
            module.index.vers_ext_name = module.find_sec("__version_ext_names");
            c.extended_versions(&module);
        }
    }
    if c.expected.config.smp {
        module.index.pcpu = module.find_sec(".data..percpu");
    }
    module.symbols = elf::records(module.section_bytes(module.index.sym));
    // The kernel reads names in its copy of the file, whatever the type of the table.
    module.strtab = module.copied_bytes(module.index.str);
    module.strings = module.tail_of(module.index.str);
    // Since v6.13 (d979e3dffa93), last of all.
    if config.has(Change::SymbolStringsChecked) {
        c.symbol_strings(&module);
    }
    // VAL-54: the array may be full; the name then ends in what follows it.
    let this_module = module.section_bytes(module.index.module);
    let own = cstr(this_module, MODULE_NAME).filter(|_| module.index.module != 0);
    // VAL-56: before v6.4 it may be too small for a name; zeros follow.
    let no_name = module.index.module != 0 && this_module.len() as u64 <= MODULE_NAME;
    let own = own.or(Some(&[][..]).filter(|_| no_name && !config.has(Change::ElfValidityCacheCopy)));
    let named = module_name(&module);
    module.name = own.or(named).unwrap_or(&[]);
    module.info_name = named.unwrap_or(module.name);
    Some(module)
}

/// modinfo `name`, which the checks use in their messages.
fn module_name<'d>(module: &ModuleFile<'d>) -> Option<&'d [u8]> {
    module.modinfo().get("name")
}

fn refuse(code: &'static str, line: impl Into<String>, why: impl Into<String>) -> Finding {
    Finding::error(code, Errno::ENOEXEC, why.into()).says(line)
}

impl<'d> Checks<'d, '_> {
    fn fail(&mut self, finding: Finding) {
        self.said.push(finding);
    }

    /// VAL-10 to VAL-13: the ELF header.
    fn elf_validity_ehdr(&mut self) -> Option<Ehdr> {
        let len = self.file.len() as u64;
        let Some(ehdr) = self.file.first_chunk().map(Ehdr::from) else {
            // So far only without its signature: before that the system call has refused it (VAL-2).
            self.fail(refuse(
                "VAL-10",
                format!("Invalid ELF header len {len}"),
                "the file is shorter than an ELF header of 64 bytes",
            ));
            return None;
        };
        if ehdr.magic != *b"\x7fELF" {
            let line = "Invalid ELF header magic: != \x7fELF";
            self.fail(refuse(
                "VAL-11",
                line,
                "the file does not begin with the ELF magic: it is not an ELF file",
            ));
            return None;
        }
        let e_type = ehdr.e_type;
        if e_type != ET_REL {
            let line = format!("Invalid ELF header type: {e_type} != {ET_REL}");
            self.fail(refuse(
                "VAL-12",
                line,
                format!("e_type is {e_type}: a module is a relocatable file (ET_REL, 1)"),
            ));
        }
        let machine = ehdr.e_machine;
        let Expected { machine: of_kernel, known, .. } = self.expected;
        let taken = of_kernel.as_ref().map_or(*known, core::slice::from_ref);
        if Machine::find(taken, machine).is_none() {
            let line = format!("Invalid architecture in ELF header: {machine}");
            let class = if ehdr.class == ELFCLASS32 { " (a 32-bit file)" } else { "" };
            let module = format!("the module is for {}{class}", machine_name(machine, known));
            let why = match of_kernel {
                Some(own) => format!("{module}, this kernel takes {}", own.name),
                None => format!("{module}: kmodld knows {}", names_of(known)),
            };
            self.fail(refuse("VAL-13", line, why));
            // What another machine's headers look like is not known: nothing of the file is told.
            Machine::find(known, machine)?;
        }
        Some(ehdr)
    }

    /// VAL-14, VAL-15: the section header table. VAL-41: an empty one has no header 0.
    fn section_headers(&mut self, ehdr: &Ehdr) -> Option<Vec<Shdr>> {
        let size = u64::from(ehdr.e_shentsize);
        if size != SHDR_SIZE {
            let why = format!("e_shentsize is {size}, a section header has {SHDR_SIZE} bytes");
            self.fail(refuse("VAL-14", "Invalid ELF section header size", why));
            return None;
        }
        let (at, count) = (ehdr.e_shoff, u64::from(ehdr.e_shnum));
        let table =
            slice(self.file, at, count.saturating_mul(SHDR_SIZE)).filter(|_| at < self.file.len() as u64);
        let Some(table) = table else {
            let len = self.file.len();
            let why = format!(
                "{count} section headers at {at:#x} do not fit into {len} bytes: the file is truncated or damaged"
            );
            self.fail(refuse("VAL-15", "Invalid ELF section header overflow", why));
            return None;
        };
        if count == 0 && self.expected.config.has(Change::ElfValidityCacheCopy) {
            self.no_headers(ehdr, at);
            return None;
        }
        Some(elf::records(table).iter().map(Shdr::from).collect())
    }

    /// VAL-41: of a table without headers the kernel reads the first all the same.
    fn no_headers(&mut self, ehdr: &Ehdr, at: u64) {
        match slice(self.file, at, SHDR_SIZE).and_then(<[u8]>::first_chunk) {
            Some(zero) => {
                self.null_section(&Shdr::from(zero));
                let _ = self.names_index(usize::from(ehdr.e_shstrndx), 0);
            }
            None => self.fail(Finding::error("VAL-41", Errno::ENOEXEC, "the file has no section headers")),
        }
    }

    /// VAL-20: section 0 is null.
    fn section_0(&mut self, module: &ModuleFile<'d>) {
        if let Some(zero) = module.sections.first() {
            self.null_section(zero);
        }
    }

    fn null_section(&mut self, zero: &Shdr) {
        if zero.sh_type != SHT_NULL || zero.sh_size != 0 || zero.sh_addr != 0 {
            // %d in the kernel.
            let line = format!(
                "ELF Spec violation: section 0 type({})!=SH_NULL or non-zero len or addr",
                zero.sh_type as i32
            );
            self.fail(refuse("VAL-20", line, "section 0 must be null: lookups use index 0 as \"absent\""));
        }
    }

    /// Up to 6.3 one section after the other: VAL-21 for every symbol table, VAL-22, and VAL-23 for
    /// what is to be in memory.
    fn sections_one_by_one(&mut self, module: &ModuleFile<'d>) {
        for (i, s) in self.sections_with_bytes(module) {
            if s.sh_type == SHT_SYMTAB {
                self.symtab_link(module, i, s);
            }
            self.section_in_file(i, s);
            if s.sh_flags & SHF_ALLOC != 0 {
                self.section_name("VAL-23", module, i, s);
            }
        }
    }

    /// Sections that claim to have bytes in the file.
    fn sections_with_bytes<'m>(
        &self,
        module: &'m ModuleFile<'d>,
    ) -> impl Iterator<Item = (usize, &'m Shdr)> + use<'m, 'd> {
        let sections = module.sections.iter().enumerate().skip(1);
        sections.filter(|(_, s)| s.sh_type != SHT_NULL && s.sh_type != SHT_NOBITS)
    }

    /// VAL-22: a section lies inside the file.
    fn section_in_file(&mut self, i: usize, s: &Shdr) {
        let len = self.file.len();
        if slice(self.file, s.sh_offset, s.sh_size).is_none() {
            let line = format!("Invalid ELF section in module (section {i} type {})", s.sh_type);
            let (size, at) = (s.sh_size, s.sh_offset);
            let why = format!("section {i}: {size:#x} bytes at {at:#x} do not fit into {len} bytes");
            self.fail(refuse("VAL-22", line, why).about(subject(i, "")));
        }
    }

    /// VAL-16: e_shstrndx names a section.
    fn secstrings_index(&mut self, module: &ModuleFile<'d>) -> Option<()> {
        self.names_index(module.e_shstrndx, module.sections.len())
    }

    fn names_index(&mut self, at: usize, count: usize) -> Option<()> {
        if at == 0 || at >= count {
            let line =
                format!("Invalid ELF section name index: {at} || e_shstrndx ({at}) >= e_shnum ({count})");
            self.fail(refuse("VAL-16", line, "e_shstrndx does not name a section: sections have no names"));
            return None;
        }
        Some(())
    }

    /// VAL-17 (up to 6.3): the section name table lies inside the file, even if NOBITS.
    fn secstrings_bounds(&mut self, module: &ModuleFile<'d>) {
        let Some(s) = module.sections.get(module.e_shstrndx) else {
            return;
        };
        if slice(self.file, s.sh_offset, s.sh_size).is_none() {
            let line = format!("Invalid ELF section hdr(type {})", s.sh_type);
            self.fail(refuse("VAL-17", line, "the section name table lies outside the file"));
        }
    }

    /// VAL-42: the section name table is a string table. In 6.12.y and upstream from 9a5ff4568932.
    fn secstrings_type(&mut self, module: &ModuleFile<'d>) {
        let Some(s) = module.sections.get(module.e_shstrndx) else {
            return;
        };
        if self.checks_strtab_type() && s.sh_type != SHT_STRTAB {
            let line = format!("Invalid ELF section name table type: {}", s.sh_type);
            self.fail(refuse("VAL-42", line, "the section name table is not of type STRTAB"));
        }
    }

    fn checks_strtab_type(&self) -> bool {
        self.expected.config.has(Change::StringTableTypeChecked)
    }

    /// VAL-18, VAL-19: the section name table is not empty and ends with NUL.
    fn secstrings(&mut self, module: &ModuleFile<'d>) -> Option<&'d [u8]> {
        let s = module.sections.get(module.e_shstrndx)?;
        if s.sh_size == 0 {
            self.fail(refuse("VAL-18", "empty section name table", "the section name table is empty"));
            return None;
        }
        let Some(table) = slice(self.file, s.sh_offset, s.sh_size) else {
            // VAL-41: without the type check of VAL-42 a table that is NOBITS or NULL may lie anywhere.
            if s.sh_type == SHT_NOBITS || s.sh_type == SHT_NULL {
                let why = "the section name table lies outside the file, and is of a type of which the kernel does not check that: it reads what is not its own";
                self.fail(Finding::note("VAL-41", Severity::Oops, why));
            }
            return None;
        };
        match table.last() {
            None | Some(0) => Some(table),
            Some(_) => {
                let line = "ELF Spec violation: section name table isn't null terminated";
                self.fail(refuse("VAL-19", line, "the last byte of the section name table is not NUL"));
                Some(table)
            }
        }
    }

    /// VAL-23, VAL-43: a section's name lies inside the name table.
    fn section_name(&mut self, code: &'static str, module: &ModuleFile<'d>, i: usize, s: &Shdr) {
        if s.sh_name as usize >= module.secstrings.len() {
            let line = format!("Invalid ELF section name in module (section {i} type {})", s.sh_type);
            let why = format!("sh_name {:#x} of section {i} lies outside the section name table", s.sh_name);
            self.fail(refuse(code, line, why).about(subject(i, "")));
        }
    }

    /// VAL-21, VAL-50: sh_link of a symbol table names a section.
    fn symtab_link(&mut self, module: &ModuleFile<'d>, index: usize, s: &Shdr) {
        let (link, count) = (s.sh_link, module.sections.len());
        if link == 0 || link as usize >= count {
            // %d in the kernel.
            let line = format!(
                "Invalid ELF sh_link!=SHN_UNDEF({0}) or (sh_link({0}) >= hdr->e_shnum({count})",
                link as i32
            );
            let why = format!("the symbol table names section {link} as its string table");
            self.fail(refuse("VAL-21", line, why).about(subject(index, ".symtab")));
        }
    }

    /// VAL-24: the first symbol table is used; without one the module is stripped.
    fn first_symtab(&mut self, module: &ModuleFile<'d>, named: Option<&[u8]>) -> Option<(usize, usize)> {
        let found = module.sections.iter().enumerate().skip(1).find(|(_, s)| s.sh_type == SHT_SYMTAB);
        let Some((index, s)) = found else {
            self.fail(no_symbols(named));
            return Some((0, 0));
        };
        Some((index, s.sh_link as usize))
    }

    /// VAL-49, VAL-50: exactly one symbol table, and its string table.
    fn exactly_one_symtab(
        &mut self,
        module: &ModuleFile<'d>,
        named: Option<&[u8]>,
    ) -> Option<(usize, usize)> {
        let mut tables = module.sections.iter().enumerate().skip(1).filter(|(_, s)| s.sh_type == SHT_SYMTAB);
        let first = tables.next();
        if first.is_none() || tables.next().is_some() {
            self.fail(no_symbols(named));
        }
        let Some((index, s)) = first else {
            return Some((0, 0));
        };
        self.symtab_link(module, index, s);
        if let Some(strings) = module.sections.get(s.sh_link as usize).filter(|_| s.sh_link != 0)
            && self.checks_strtab_type()
            && strings.sh_type != SHT_STRTAB
        {
            let line = format!("Invalid ELF symbol string table type: {}", strings.sh_type);
            self.fail(
                refuse("VAL-50", line, "the symbol string table is not of type STRTAB")
                    .about(subject(index, ".symtab")),
            );
        }
        Some((index, s.sh_link as usize))
    }

    /// VAL-44: at most one `.modinfo`, whatever its flags.
    fn only_one_modinfo(&mut self, module: &ModuleFile<'d>) -> usize {
        let (first, count) = count_by_name(module, ".modinfo");
        if count > 1 {
            let why = format!("the file has {count} .modinfo sections");
            self.fail(
                refuse("VAL-44", "Only one .modinfo section must exist.", why)
                    .about(subject(first, ".modinfo")),
            );
        }
        first
    }

    /// VAL-25: an ALLOC `.gnu.linkonce.this_module` exists.
    fn first_this_module(&mut self, module: &ModuleFile<'d>, named: Option<&[u8]>) -> usize {
        let index = module.find_sec(THIS_MODULE);
        if index == 0 {
            let line = format!("{}: No module found in object", printed(named.unwrap_or(UNNAMED.as_bytes())));
            self.fail(refuse(
                "VAL-25",
                line,
                format!("the file has no {THIS_MODULE}: it is an object file but not a module"),
            ));
        } else if module.sections.get(index).is_some_and(|s| s.sh_type == SHT_NOBITS) {
            // VAL-46 came with 6.4.
            let why = "struct module has no bytes in the file (NOBITS), which this kernel does not notice: it crashes";
            self.fail(Finding::note("VAL-46", Severity::Oops, why).about(subject(index, THIS_MODULE)));
        }
        index
    }

    /// VAL-45 to VAL-48: exactly one `.gnu.linkonce.this_module`, in memory, of the kernel's size.
    fn exactly_one_this_module(&mut self, module: &ModuleFile<'d>, named: Option<&[u8]>) -> usize {
        let (index, count) = count_by_name(module, THIS_MODULE);
        let module_says = |what: &str| {
            format!("module {}: {THIS_MODULE} {what}", printed(named.unwrap_or(UNNAMED.as_bytes())))
        };
        if count != 1 {
            let name = printed(named.unwrap_or(UNNAMED.as_bytes()));
            let line = format!("module {name}: Exactly one {THIS_MODULE} section must exist.");
            self.fail(refuse("VAL-45", line, format!("the file has {count} {THIS_MODULE} sections")));
        }
        let Some(s) = module.sections.get(index).filter(|_| index != 0) else {
            return 0;
        };
        if s.sh_type == SHT_NOBITS {
            let why = "struct module has no bytes in the file (NOBITS)";
            self.fail(
                refuse("VAL-46", module_says("section must have a size set"), why)
                    .about(subject(index, THIS_MODULE)),
            );
        }
        if s.sh_flags & SHF_ALLOC == 0 {
            let line = module_says("must occupy memory during process execution");
            self.fail(
                refuse("VAL-47", line, "struct module is not SHF_ALLOC").about(subject(index, THIS_MODULE)),
            );
        }
        let size = self.expected.config.struct_module_size;
        if size.is_none() {
            self.said.unjudged("VAL-48", needs::STRUCT_MODULE);
        }
        if let Some(size) = size.filter(|size| *size != s.sh_size) {
            let line =
                module_says("section size must match the kernel's built struct module size at run time");
            let why =
                format!("struct module has {:#x} bytes in the module and {size:#x} in the kernel", s.sh_size);
            self.fail(refuse("VAL-48", line, why).about(subject(index, THIS_MODULE)));
        }
        index
    }

    /// VAL-53, VER-30: extended version tables come in pairs with a name for every CRC.
    fn extended_versions(&mut self, module: &ModuleFile<'d>) {
        let (crcs, names) = (module.index.vers_ext_crc, module.index.vers_ext_name);
        if (crcs == 0) != (names == 0) {
            let line = "extended version crc+name presence does not match";
            self.fail(refuse(
                "VER-30",
                line,
                "only one of __version_ext_crcs and __version_ext_names exists",
            ));
            return;
        }
        let (crcs, names) = (module.section_bytes(crcs), module.section_bytes(names));
        let count = crcs.len() / 4;
        if names.iter().filter(|b| **b == 0).take(count).count() < count {
            let line = "more extended version crcs than names";
            self.fail(refuse(
                "VER-30",
                line,
                format!("__version_ext_crcs has {count} entries, __version_ext_names fewer"),
            ));
        }
    }

    /// VAL-52: the symbol string table is bounded and every st_name lies inside.
    fn symbol_strings(&mut self, module: &ModuleFile<'d>) {
        let mut say =
            |line: &str| self.fail(refuse("VAL-52", line, line).about(subject(module.index.str, ".strtab")));
        let strtab = module.strtab;
        match (strtab.first(), strtab.last()) {
            (None, _) | (_, None) => return say("empty symbol string table"),
            (Some(0), Some(0)) => {}
            (Some(0), Some(_)) => say("symbol string table isn't NUL terminated"),
            (Some(_), Some(_)) => say("symbol string table missing leading NUL"),
        }
        if module.symbols.iter().any(|s| s.name_offset() as usize >= strtab.len()) {
            say("symbol name out of bounds in string table");
        }
    }
}

fn no_symbols(named: Option<&[u8]>) -> Finding {
    let line = format!("{}: module has no symbols (stripped?)", printed(named.unwrap_or(UNNAMED.as_bytes())));
    refuse("VAL-24", line, "a module needs exactly one symbol table; it was stripped, or the file is damaged")
}

/// (first index, count) of the sections of that name, whatever their flags.
fn count_by_name(module: &ModuleFile<'_>, name: &str) -> (usize, usize) {
    let sections = module.sections.iter().enumerate().skip(1);
    let mut found = sections.filter(|(i, _)| module.section_name(*i) == name.as_bytes()).map(|(i, _)| i);
    let first = found.next();
    let more = found.count();
    (first.unwrap_or(0), if first.is_some() { more.saturating_add(1) } else { 0 })
}

fn subject(index: usize, name: &str) -> Subject {
    Subject::Section { index: u32::try_from(index).unwrap_or(u32::MAX), name: String::from(name) }
}
