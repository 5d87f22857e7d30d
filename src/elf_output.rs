//! `link --format elf`: one ELF file of the module as it lies in memory.
//!
//! Every region is a PT_LOAD segment with all its bytes; every section of the
//! module that was moved points into one, at its final address. All symbols,
//! defined and imported, have their final values, and there is nothing left
//! to relocate. Sections that the kernel does not move (debug information,
//! `.modinfo`...) follow without an address; those that have relocations are
//! relocated as a debugger would want them.

use std::io::{self, BufWriter};
use std::path::Path;

use elf_layout::bytes::slice_mut;
use elf_layout::elf::{
    SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHN_ABS, SHN_UNDEF, SHT_NOBITS, SHT_NOTE, SHT_NULL, SHT_REL,
    SHT_RELA, STB_LOCAL, SYM_SIZE, SymFields,
};
use elf_layout::{Findings, SectionPlace, Segment};
use object::elf;
use object::endian::Endianness;
use object::write::elf::{FileHeader, ProgramHeader, SectionHeader, Writer};
use object::write::{StreamingBuffer, StringId};
use reloc::{ModArch, Records, RelaSection, Target};

use crate::error::Error;
use crate::load::Load;
use crate::raw_output::replace;

const PAGE: u64 = 4096;
/// Longer section names are cut: a hostile file can share megabytes of name among thousands.
const NAME_MAX: usize = 255;

/// A section of the output.
struct Section<'d> {
    name: &'d [u8],
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
    /// The module file.
    File(&'d [u8]),
    /// Made here.
    Own(Vec<u8>),
}

/// Writes the linked ELF.
pub fn write(path: &Path, load: &Load<'_>) -> Result<(), Error> {
    replace(path, |file| write_to(file, load))
}

/// Writes the linked ELF anywhere.
pub fn write_to(file: &mut impl io::Write, load: &Load<'_>) -> io::Result<()> {
    let regions: Vec<Segment> = load.module.segments().collect();
    let sections = sections(load);
    let mut buffer = StreamingBuffer::new(BufWriter::with_capacity(1 << 20, file));
    let mut writer = Writer::new(Endianness::Little, true, &mut buffer);
    writer.reserve_file_header();
    writer.reserve_program_headers(u32::try_from(regions.len()).unwrap_or(0));
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
            Content::File(bytes) => writer.reserve(bytes.len() as u64, 8),
            Content::Own(bytes) => writer.reserve(bytes.len() as u64, 8),
        };
        writer.reserve_section_index();
        placed.push((offset, Some(writer.add_section_name(section.name))));
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
    for (segment, offset) in &segments {
        writer.pad_until(*offset);
        writer.write(bytes(segment));
    }
    for (section, (offset, _)) in sections.iter().zip(&placed) {
        let bytes = match &section.content {
            Content::Region(_) => continue,
            Content::File(bytes) => bytes,
            Content::Own(bytes) => bytes.as_slice(),
        };
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
/// then the kernel's symbol tables in memory, then the symbol table for tools.
fn sections<'d>(load: &'d Load<'_>) -> Vec<Section<'d>> {
    let info = &load.module.info;
    let index = info.file.index();
    let mut out = Vec::new();
    // New index of every old section; 0 for those that are left out.
    let mut renumbered = vec![0u32; info.sechdrs.len()];
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
        let percpu = i == index.pcpu;
        let (flags, addr) = match place {
            Some(_) => (header.sh_flags & (SHF_WRITE | SHF_ALLOC | SHF_EXECINSTR), header.sh_addr),
            // In no segment, so not ALLOC either: the template is copied per CPU, elsewhere.
            None if percpu => (SHF_WRITE, load.module.placement.percpu.unwrap_or(0)),
            None => (0, 0),
        };
        let content = match place {
            Some(place) => Content::Region(place),
            None if percpu => Content::File(info.file.section_bytes(i)),
            None => unmoved(load, i),
        };
        let size = match &content {
            Content::Region(_) => header.sh_size,
            Content::File(bytes) => bytes.len() as u64,
            Content::Own(bytes) => bytes.len() as u64,
        };
        // NOBITS sections lie inside a segment's bytes, where later stages may have written.
        let kind = if header.sh_type == SHT_NOTE { elf::SHT_NOTE } else { elf::SHT_PROGBITS };
        if let Some(slot) = renumbered.get_mut(i) {
            *slot = u32::try_from(out.len()).unwrap_or(0).saturating_add(1);
        }
        out.push(Section {
            name,
            kind,
            flags,
            addr,
            size,
            align: alignment(header.sh_addralign),
            link: 0,
            info: 0,
            entsize: 0,
            content,
        });
    }
    out.extend(kallsyms_sections(load));
    let strtab = u32::try_from(out.len()).unwrap_or(0).saturating_add(1);
    let mut strings = info.file.strtab().to_vec();
    // Offset 0 is the empty name, and the last name ends.
    if strings.last() != Some(&0) {
        strings.push(0);
    }
    out.push(plain(b".strtab", elf::SHT_STRTAB, strings));
    let (symbols, first_global) = symbols(load, &renumbered);
    out.push(Section {
        link: strtab,
        info: first_global,
        entsize: SYM_SIZE,
        align: 8,
        ..plain(b".symtab", elf::SHT_SYMTAB, symbols)
    });
    out
}

fn plain(name: &[u8], kind: elf::SectionType, bytes: Vec<u8>) -> Section<'_> {
    let size = bytes.len() as u64;
    let content = Content::Own(bytes);
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
            ..plain(name, elf::SHT_PROGBITS, Vec::new())
        }
    };
    tables.into_iter().map(section).collect()
}

/// A section that the kernel does not move, with its relocations applied: their symbols are
/// relative to sections at address 0, or final.
fn unmoved<'d>(load: &'d Load<'_>, index: usize) -> Content<'d> {
    let info = &load.module.info;
    let bytes = info.file.section_bytes(index);
    let targets_it = |s: &elf_layout::elf::Shdr| s.sh_type == SHT_RELA && s.sh_info as usize == index;
    let tables: Vec<usize> =
        info.sechdrs.iter().enumerate().filter(|(_, s)| targets_it(s)).map(|(i, _)| i).collect();
    if tables.is_empty() || info.sechdrs.get(index).is_some_and(|s| s.sh_type == SHT_NOBITS) {
        return Content::File(bytes);
    }
    let mut own = bytes.to_vec();
    for table in tables {
        let mut section = RelaSection {
            file: info.file,
            config: info.config,
            index: table,
            target: index,
            in_init: false,
            memory: Target::alone(&mut own),
            address: 0,
            values: &load.module.values,
            unknown: &load.module.unknown,
            symtab: 0,
            sechdrs: &[],
        };
        // The kernel does not apply these, so it has nothing to say about them.
        let mut unheard = Findings::new();
        let records = Records::File(info.file.relocations(table));
        load.arch.apply_relocate_add(&mut section, records, &mut ModArch::default(), &mut unheard);
    }
    Content::Own(own)
}

/// The symbol table with final values; imports become absolute. Also the index of the first
/// symbol that is not local.
fn symbols(load: &Load<'_>, renumbered: &[u32]) -> (Vec<u8>, u32) {
    let symbols = load.module.info.file.symbols();
    let mut table = vec![0u8; symbols.len().saturating_mul(SYM_SIZE as usize)];
    let imported: std::collections::HashSet<u32> = load.resolution.imports.iter().map(|i| i.symbol).collect();
    let strings = load.module.info.file.strtab().len();
    let mut first_global = None;
    for (i, (symbol, value)) in (0u32..).zip(symbols.iter().zip(&load.module.values)).skip(1) {
        if symbol.bind() != STB_LOCAL {
            first_global = first_global.or(Some(i));
        }
        let shndx = match symbol.shndx() {
            SHN_UNDEF if imported.contains(&i) => SHN_ABS,
            SHN_UNDEF => SHN_UNDEF,
            shndx => match renumbered.get(usize::from(shndx)) {
                Some(0) | None => SHN_ABS,
                Some(new) => u16::try_from(*new).unwrap_or(SHN_ABS),
            },
        };
        let name = if (symbol.name_offset() as usize) < strings { symbol.name_offset() } else { 0 };
        let record = slice_mut(&mut table, u64::from(i).saturating_mul(SYM_SIZE), SYM_SIZE);
        if let Some([n0, n1, n2, n3, info, other, s0, s1, rest @ ..]) = record {
            [*n0, *n1, *n2, *n3] = name.to_le_bytes();
            (*info, *other) = (symbol.st_info.0, symbol.st_other.0);
            [*s0, *s1] = shndx.to_le_bytes();
            let (at, size) = rest.split_at_mut(8.min(rest.len()));
            at.copy_from_slice(&value.to_le_bytes());
            size.copy_from_slice(&symbol.size().to_le_bytes());
        }
    }
    let count = u32::try_from(symbols.len()).unwrap_or(u32::MAX);
    (table, first_global.unwrap_or(count))
}
