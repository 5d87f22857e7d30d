//! Sections that the kernel does not move: debug information and what else is for tools alone.

use std::borrow::Cow;

use elf_layout::Findings;
use elf_layout::bytes::{array, le32, le64};
use elf_layout::elf::{SHT_NOBITS, SHT_RELA};
use kernel_image::{Compression, decompress};
use object::elf;
use reloc::{Records, RelaSection, Target};

use super::{Content, Options, Section, alignment};
use crate::load::Load;

/// So many bytes come out of all compressed sections of a file at most, as of a compressed module (VAL-4).
const UNPACKED_MAX: usize = i32::MAX as usize;

/// The sections of one load that are not moved.
pub(super) struct Unmoved<'d> {
    load: &'d Load<'d>,
    debug: bool,
    /// Bytes that may still come out of compressed sections.
    left: usize,
    /// By section: the relocation tables that are for it.
    tables: Vec<Vec<usize>>,
}

/// A section that was compressed.
struct Unpacked {
    bytes: Vec<u8>,
    align: u64,
}

impl<'d> Unmoved<'d> {
    pub(super) fn new(load: &'d Load<'_>, options: &Options) -> Self {
        let sechdrs = &load.module.info.sechdrs;
        let mut tables = vec![Vec::new(); sechdrs.len()];
        for (index, table) in sechdrs.iter().enumerate().filter(|(_, s)| s.sh_type == SHT_RELA) {
            if let Some(tables) = tables.get_mut(table.sh_info as usize) {
                tables.push(index);
            }
        }
        Unmoved { load, debug: options.debug, left: UNPACKED_MAX, tables }
    }

    /// The section as the output has it: decompressed, and with its relocations applied. Their symbols are relative to
    /// sections at address 0, or final. `None` for what is left out.
    pub(super) fn section(&mut self, index: usize, section: Section<'d>) -> Option<Section<'d>> {
        let info = &self.load.module.info;
        let is_debug = [&b".debug_"[..], b".zdebug_"].iter().any(|start| section.name.starts_with(start));
        if is_debug && !self.debug {
            return None;
        }
        let bytes = info.file.section_bytes(index);
        let header = info.sechdrs.get(index)?;
        let is_compressed = header.sh_flags & elf::SHF_COMPRESSED.0 != 0;
        let old_name =
            section.name.strip_prefix(b".z").filter(|_| is_debug).map(|rest| [b".", rest].concat());
        let unpacked = match &old_name {
            _ if is_compressed => self.unpack(bytes),
            Some(_) => self.unpack_old(bytes),
            None => None,
        };
        let section = match unpacked {
            // What cannot be decompressed stays as it is: relocations are for what would come out.
            None if is_compressed || old_name.is_some() => {
                let flags = if is_compressed { elf::SHF_COMPRESSED.0 } else { 0 };
                return Some(Section { flags, ..with(section, Cow::Borrowed(bytes)) });
            }
            None => with(section, Cow::Borrowed(bytes)),
            Some(Unpacked { bytes, align }) => {
                let name = old_name.map_or_else(|| section.name.clone(), Cow::Owned);
                let align = alignment(align);
                with(Section { name, align, ..section }, Cow::Owned(bytes))
            }
        };
        let tables = self.tables.get(index).map(Vec::as_slice).unwrap_or_default();
        if tables.is_empty() || header.sh_type == SHT_NOBITS {
            return Some(section);
        }
        let Content::Bytes(bytes) = section.content else { return Some(section) };
        let bytes = relocated(self.load, index, tables, bytes.into_owned());
        Some(Section { content: Content::Bytes(Cow::Owned(bytes)), ..section })
    }

    /// A section with SHF_COMPRESSED: `Elf64_Chdr`, then the compressed bytes.
    fn unpack(&mut self, bytes: &[u8]) -> Option<Unpacked> {
        const CHDR_SIZE: usize = 24;
        let compression = match elf::CompressionType(le32(bytes, 0)?) {
            elf::ELFCOMPRESS_ZLIB => Compression::Zlib,
            elf::ELFCOMPRESS_ZSTD => Compression::Zstd,
            _ => return None,
        };
        let (size, align) = (le64(bytes, 8)?, le64(bytes, 16)?);
        let bytes = self.decompressed(compression, bytes.get(CHDR_SIZE..)?, size)?;
        Some(Unpacked { bytes, align })
    }

    /// `.zdebug_*` of older compilers: `ZLIB`, the size as big-endian u64, then the compressed bytes.
    fn unpack_old(&mut self, bytes: &[u8]) -> Option<Unpacked> {
        let packed = bytes.strip_prefix(b"ZLIB")?;
        let size = u64::from_be_bytes(array(packed, 0)?);
        let bytes = self.decompressed(Compression::Zlib, packed.get(8..)?, size)?;
        Some(Unpacked { bytes, align: 1 })
    }

    /// Just so many bytes.
    fn decompressed(&mut self, compression: Compression, packed: &[u8], size: u64) -> Option<Vec<u8>> {
        let size = usize::try_from(size).ok().filter(|size| *size <= self.left)?;
        let bytes = decompress(compression, packed, size).ok().filter(|bytes| bytes.len() == size)?;
        self.left = self.left.saturating_sub(size);
        Some(bytes)
    }
}

/// With these bytes.
fn with<'d>(section: Section<'d>, bytes: Cow<'d, [u8]>) -> Section<'d> {
    Section { size: bytes.len() as u64, content: Content::Bytes(bytes), ..section }
}

/// The bytes with the records of these tables applied.
fn relocated(load: &Load<'_>, index: usize, tables: &[usize], mut bytes: Vec<u8>) -> Vec<u8> {
    let info = &load.module.info;
    for table in tables {
        let mut section = RelaSection {
            file: info.file,
            config: info.config,
            index: *table,
            target: index,
            in_init: false,
            memory: Target::alone(&mut bytes),
            address: 0,
            values: &load.module.values,
            unknown: &load.module.unknown,
            symtab: 0,
            sechdrs: &[],
        };
        // The kernel does not apply these, so it has nothing to say about them.
        let mut unheard = Findings::new();
        let records = Records::File(info.file.relocations(*table));
        // No slots are taken, but there have to be tables of them.
        load.arch.apply_relocate_add(&mut section, records, &mut load.mod_arch.clone(), &mut unheard);
    }
    bytes
}
