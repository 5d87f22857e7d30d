//! `link --format elf`: one ELF file of the module as it lies in memory.
//!
//! Every region is a PT_LOAD segment with all its bytes; every section of the
//! module that was moved points into one, at its final address. All symbols,
//! defined and imported, have their final values, and there is nothing left
//! to relocate. Sections that the kernel does not move (debug information,
//! `.modinfo`...) follow without an address; those that have relocations are
//! relocated as a debugger would want them, once they are decompressed.
//!
//! Over imported addresses lie sections without bytes, so that debuggers find
//! their names (`imports.rs`), and a note says what made the file (`note.rs`).

mod imports;
mod note;
mod unmoved;

use std::borrow::Cow;
use std::io::{self, BufWriter};
use std::path::Path;

use elf_layout::bytes::slice_mut;
use elf_layout::elf::{
    SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHN_ABS, SHN_LORESERVE, SHN_UNDEF, SHT_NOTE, SHT_NULL, SHT_REL,
    SHT_RELA, STB_GLOBAL, STB_LOCAL, SYM_SIZE, SymFields,
};
use elf_layout::{SectionPlace, Segment};
use object::elf;
use object::endian::Endianness;
use object::write::elf::{FileHeader, ProgramHeader, SectionHeader, Writer};
use object::write::{StreamingBuffer, StringId};

use crate::error::Error;
use crate::load::Load;
use crate::raw_output::replace;
use imports::Imports;
use unmoved::Unmoved;

const PAGE: u64 = 4096;
/// Longer section names are cut: a hostile file can share megabytes of name among thousands.
const NAME_MAX: usize = 255;
/// The bits of `st_info` that hold the type of a symbol.
const TYPE_MASK: u8 = 15;

/// What the file is to hold.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Debug information (`.debug_*`), if the module has any.
    pub debug: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { debug: true }
    }
}

impl Options {
    /// The same without debug information.
    #[must_use]
    pub fn without_debug(self) -> Self {
        Options { debug: false, ..self }
    }
}

/// A section of the output.
struct Section<'d> {
    name: Cow<'d, [u8]>,
    kind: elf::SectionType,
    flags: u64,
    addr: u64,
    size: u64,
    align: u64,
    link: u32,
    info: u32,
    entsize: u64,
    content: Content<'d>,
}

/// Where the bytes of a section come from.
enum Content<'d> {
    /// They are part of a region's segment.
    Region(SectionPlace),
    /// The module file, or made here.
    Bytes(Cow<'d, [u8]>),
    /// There are none (SHT_NOBITS).
    None,
}

/// Writes the linked ELF.
///
/// # Errors
///
/// [`Error::Write`], if the file cannot be written, or if regions of the module overlap.
pub fn write(path: &Path, load: &Load<'_>, options: &Options) -> Result<(), Error> {
    replace(path, |file| write_to(file, load, options))
}

/// Writes the linked ELF anywhere.
///
/// # Errors
///
/// Those of `file`, and [`io::ErrorKind::InvalidInput`] if regions of the module overlap: no file can show both.
pub fn write_to(file: &mut impl io::Write, load: &Load<'_>, options: &Options) -> io::Result<()> {
    if let Some([a, b]) = load.module.overlap() {
        let what = format!("regions {} and {} of the module overlap", a.region.name(), b.region.name());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let regions: Vec<Segment> = load.module.segments().collect();
    let mut sections = sections(load, options);
    // What tells this file from others hangs on all that is in it.
    let note = note::note(load, &regions, &sections);
    let noted = sections.len();
    let size = note.len() as u64;
    sections.push(Section { align: note::ALIGN, ..plain(Cow::Borrowed(note::SECTION), elf::SHT_NOTE, note) });
    let mut buffer = StreamingBuffer::new(BufWriter::with_capacity(1 << 20, file));
    let mut writer = Writer::new(Endianness::Little, true, &mut buffer);
    writer.reserve_file_header();
    let headers = regions.len().saturating_add(1);
    writer.reserve_program_headers(u32::try_from(headers).unwrap_or(0));
    let bytes = |segment: &Segment| load.module.memory.region(segment.region);
    let segments: Vec<(Segment, u64)> =
        regions.into_iter().map(|s| (s, writer.reserve(bytes(&s).len() as u64, PAGE))).collect();
    let in_segment = |place: SectionPlace| {
        let start = segments.iter().find(|(s, _)| s.region == place.region).map_or(0, |(_, at)| *at);
        start.wrapping_add(place.offset)
    };
    let mut placed: Vec<(u64, Option<StringId>)> = Vec::with_capacity(sections.len());
    for section in &sections {
        let offset = match &section.content {
            Content::Region(place) => in_segment(*place),
            Content::Bytes(bytes) => writer.reserve(bytes.len() as u64, 8),
            Content::None => 0,
        };
        writer.reserve_section_index();
        placed.push((offset, Some(writer.add_section_name(&section.name))));
    }
    writer.reserve_shstrtab_section_index();
    writer.reserve_shstrtab().map_err(io::Error::other)?;
    writer.reserve_section_headers();

    let header = FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_EXEC,
        e_machine: elf::Machine(load.arch.e_machine()),
        e_entry: load.module.init().unwrap_or(0),
        e_flags: elf::FileFlags(0),
    };
    writer.write_file_header(&header).map_err(io::Error::other)?;
    writer.write_align_program_headers();
    for (segment, offset) in &segments {
        writer.write_program_header(&program_header(segment, *offset));
    }
    let offset = placed.get(noted).map_or(0, |(offset, _)| *offset);
    writer.write_program_header(&ProgramHeader {
        p_type: elf::PT_NOTE,
        p_flags: elf::PF_R,
        p_offset: offset,
        p_vaddr: 0,
        p_paddr: 0,
        p_filesz: size,
        p_memsz: 0,
        p_align: note::ALIGN,
    });
    for (segment, offset) in &segments {
        writer.pad_until(*offset);
        writer.write(bytes(segment));
    }
    for (section, (offset, _)) in sections.iter().zip(&placed) {
        let Content::Bytes(bytes) = &section.content else { continue };
        writer.pad_until(*offset);
        writer.write(bytes);
    }
    writer.write_shstrtab();
    writer.write_null_section_header();
    for (section, (offset, name)) in sections.iter().zip(&placed) {
        let header = SectionHeader {
            sh_name: writer.section_name_offset(*name),
            sh_type: section.kind,
            sh_flags: elf::SectionFlags(section.flags),
            sh_addr: section.addr,
            sh_offset: *offset,
            sh_size: section.size,
            sh_link: section.link,
            sh_info: section.info,
            sh_addralign: section.align,
            sh_entsize: section.entsize,
        };
        writer.write_section_header(&header);
    }
    writer.write_shstrtab_section_header();
    buffer.result()?;
    buffer.flush()
}

fn program_header(segment: &Segment, offset: u64) -> ProgramHeader {
    let Segment { base, size, permissions, .. } = *segment;
    let write = if permissions.write { elf::PF_W } else { elf::ProgramFlags(0) };
    let execute = if permissions.execute { elf::PF_X } else { elf::ProgramFlags(0) };
    ProgramHeader {
        p_type: elf::PT_LOAD,
        p_flags: elf::PF_R | write | execute,
        p_offset: offset,
        p_vaddr: base,
        p_paddr: base,
        p_filesz: size,
        p_memsz: size,
        p_align: PAGE,
    }
}

/// The sections in order: those of the module under their old names and in their old order,
/// then the kernel's symbol tables in memory, what is imported, then the symbol table for tools.
fn sections<'d>(load: &'d Load<'_>, options: &Options) -> Vec<Section<'d>> {
    let info = &load.module.info;
    let index = info.file.index();
    let mut out = Vec::new();
    // New index of every old section; 0 for those that are left out.
    let mut renumbered = vec![0u32; info.sechdrs.len()];
    let mut unmoved = Unmoved::new(load, options);
    for (i, header) in info.sechdrs.iter().enumerate() {
        let old = info.file.section_name(i);
        let name = match i {
            _ if i == 0 => continue,
            _ if i == index.sym => &b".kallsyms.symtab"[..],
            _ if i == index.str => b".kallsyms.strtab",
            _ if matches!(header.sh_type, SHT_NULL | SHT_RELA | SHT_REL) || i == info.file.e_shstrndx() => {
                continue;
            }
            _ => old.get(..NAME_MAX).unwrap_or(old),
        };
        let place = load.module.layout.place(i);
        if place.is_none() && (i == index.sym || i == index.str) {
            continue;
        }
        // NOBITS sections lie inside a segment's bytes, where later stages may have written.
        let kind = if header.sh_type == SHT_NOTE { elf::SHT_NOTE } else { elf::SHT_PROGBITS };
        let section = Section {
            kind,
            align: alignment(header.sh_addralign),
            ..plain(Cow::Borrowed(name), kind, Vec::new())
        };
        let section = match place {
            Some(place) => Section {
                flags: header.sh_flags & (SHF_WRITE | SHF_ALLOC | SHF_EXECINSTR),
                addr: header.sh_addr,
                size: header.sh_size,
                content: Content::Region(place),
                ..section
            },
            // In no segment, so not ALLOC either: the template is copied per CPU, elsewhere.
            None if i == index.pcpu => {
                let bytes = info.file.section_bytes(i);
                Section {
                    flags: SHF_WRITE,
                    addr: load.module.placement.percpu.unwrap_or(0),
                    size: bytes.len() as u64,
                    content: Content::Bytes(Cow::Borrowed(bytes)),
                    ..section
                }
            }
            None => match unmoved.section(i, section) {
                Some(section) => section,
                None => continue,
            },
        };
        if let Some(slot) = renumbered.get_mut(i) {
            *slot = next_index(&out);
        }
        out.push(section);
    }
    out.extend(kallsyms_sections(load));
    let imports = Imports::new(load, next_index(&out));
    out.extend(imports.sections());
    let strtab = next_index(&out);
    let mut strings = info.file.strtab().to_vec();
    // Offset 0 is the empty name, and the last name ends.
    if strings.last() != Some(&0) {
        strings.push(0);
    }
    let (mut symbols, first_global) = symbols(load, &renumbered, &imports);
    for reached in imports.reached() {
        let name = u32::try_from(strings.len()).unwrap_or(0);
        strings.extend(reached.name);
        strings.push(0);
        let info = STB_GLOBAL << 4 | reached.is.symbol_type().unwrap_or(0);
        let shndx = reached.is.section.map_or(SHN_ABS, shndx);
        symbols.extend(record(name, info, 0, shndx, reached.address, 0));
    }
    out.push(plain(Cow::Borrowed(b".strtab"), elf::SHT_STRTAB, strings));
    out.push(Section {
        link: strtab,
        info: first_global,
        entsize: SYM_SIZE,
        align: 8,
        ..plain(Cow::Borrowed(b".symtab"), elf::SHT_SYMTAB, symbols)
    });
    out
}

/// The index that the next section gets: that of SHN_UNDEF comes before the first.
fn next_index(sections: &[Section<'_>]) -> u32 {
    u32::try_from(sections.len()).unwrap_or(0).saturating_add(1)
}

fn plain<'d>(name: Cow<'d, [u8]>, kind: elf::SectionType, bytes: Vec<u8>) -> Section<'d> {
    let size = bytes.len() as u64;
    let content = Content::Bytes(Cow::Owned(bytes));
    Section { name, kind, flags: 0, addr: 0, size, align: 1, link: 0, info: 0, entsize: 0, content }
}

/// Tools refuse alignments that are no powers of two.
fn alignment(align: u64) -> u64 {
    if align.is_power_of_two() { align } else { 1 }
}

/// The tables that `layout_symtab` has made room for, as sections of their own.
fn kallsyms_sections(load: &Load<'_>) -> Vec<Section<'static>> {
    let Some(plan) = &load.module.layout.symtab else {
        return Vec::new();
    };
    let end = |region, start: u64| load.module.layout.sizes.get(region).saturating_sub(start);
    let tables = [
        (&b".core_kallsyms"[..], plan.core_region, plan.symoffs),
        (b".mod_kallsyms", plan.init_region, plan.mod_kallsyms_init_off),
    ];
    let section = |(name, region, offset)| {
        let place = SectionPlace { region, offset };
        Section {
            addr: load.module.placement.address(place),
            size: end(region, offset),
            flags: SHF_ALLOC,
            align: 8,
            content: Content::Region(place),
            ..plain(Cow::Borrowed(name), elf::SHT_PROGBITS, Vec::new())
        }
    };
    tables.into_iter().map(section).collect()
}

/// An index of a section as symbols have it.
fn shndx(index: u32) -> u16 {
    u16::try_from(index).ok().filter(|index| *index < SHN_LORESERVE).unwrap_or(SHN_ABS)
}

/// One record of a symbol table.
fn record(name: u32, info: u8, other: u8, shndx: u16, value: u64, size: u64) -> [u8; SYM_SIZE as usize] {
    let ([n0, n1, n2, n3], [s0, s1]) = (name.to_le_bytes(), shndx.to_le_bytes());
    let [v0, v1, v2, v3, v4, v5, v6, v7] = value.to_le_bytes();
    let [z0, z1, z2, z3, z4, z5, z6, z7] = size.to_le_bytes();
    [n0, n1, n2, n3, info, other, s0, s1, v0, v1, v2, v3, v4, v5, v6, v7, z0, z1, z2, z3, z4, z5, z6, z7]
}

/// The symbol table with final values. Imports get the sections over their addresses and the types that the kernel tells; what
/// is in no section of the file is absolute. Also the index of the first symbol that is not local.
fn symbols(load: &Load<'_>, renumbered: &[u32], imports: &Imports<'_>) -> (Vec<u8>, u32) {
    let symbols = load.module.info.file.symbols();
    let mut table = vec![0u8; symbols.len().saturating_mul(SYM_SIZE as usize)];
    let strings = load.module.info.file.strtab().len();
    let mut first_global = None;
    for (i, (symbol, value)) in (0u32..).zip(symbols.iter().zip(&load.module.values)).skip(1) {
        if symbol.bind() != STB_LOCAL {
            first_global = first_global.or(Some(i));
        }
        let mut info = symbol.info();
        let section = match (symbol.shndx(), imports.get(i)) {
            (SHN_UNDEF, Some(import)) => {
                info = info & !TYPE_MASK | import.symbol_type().unwrap_or(info & TYPE_MASK);
                import.section.map_or(SHN_ABS, shndx)
            }
            (SHN_UNDEF, None) => SHN_UNDEF,
            (old, _) => match renumbered.get(usize::from(old)) {
                Some(0) | None => SHN_ABS,
                Some(new) => shndx(*new),
            },
        };
        let name = if (symbol.name_offset() as usize) < strings { symbol.name_offset() } else { 0 };
        let at = u64::from(i).saturating_mul(SYM_SIZE);
        if let Some(to) = slice_mut(&mut table, at, SYM_SIZE) {
            to.copy_from_slice(&record(name, info, symbol.other(), section, *value, symbol.size()));
        }
    }
    let count = u32::try_from(symbols.len()).unwrap_or(u32::MAX);
    (table, first_global.unwrap_or(count))
}
