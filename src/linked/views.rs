//! The parts of a linked module, as its methods give them out.

use std::borrow::Cow;

use elf_layout::bytes::printed;
use elf_layout::elf::{SHN_UNDEF, STB_LOCAL, STT_FUNC, STT_OBJECT, STT_SECTION, SymFields};
use elf_layout::{Permissions, Region};
use reloc::Step;

use crate::address::{self, Explainer};
use crate::load::Load;

/// A region of a module's memory.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MemoryRegion<'m> {
    /// Which one.
    pub region: Region,
    /// Address of its first byte.
    pub base: u64,
    /// What may be done with it while init runs.
    pub permissions: Permissions,
    /// All its bytes, whole pages.
    pub bytes: &'m [u8],
}

/// A section.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Section<'m> {
    /// Its index in the section header table.
    pub index: usize,
    /// Its name.
    pub name: Cow<'m, str>,
    /// Its region; `None` if the kernel does not move it.
    pub region: Option<Region>,
    /// Its final address; `None` if the kernel does not move it.
    pub address: Option<u64>,
    bytes: &'m [u8],
}

impl<'m> Section<'m> {
    pub(super) fn of(load: &'m Load<'_>, index: usize) -> Option<Self> {
        let module = &load.module;
        let size = module.info.sechdrs.get(index)?.sh_size;
        let place = module.layout.place(index);
        let bytes = match place {
            Some(place) => module.memory.at(place, size).unwrap_or_default(),
            None => module.info.file.section_bytes(index),
        };
        Some(Section {
            index,
            name: printed(module.info.file.section_name(index)),
            region: place.map(|place| place.region),
            address: place.map(|place| module.placement.address(place)),
            bytes,
        })
    }

    /// Its bytes in memory; those of the file, if the kernel does not move it.
    pub fn bytes(&self) -> &'m [u8] {
        self.bytes
    }
}

/// What a symbol stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SymbolKind {
    /// `STT_FUNC`
    Function,
    /// `STT_OBJECT`
    Object,
    /// `STT_SECTION`
    Section,
    /// Any other, such as that of a label.
    Other(u8),
}

/// A symbol of the module.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Symbol<'m> {
    /// Its name.
    pub name: Cow<'m, str>,
    /// Its value, which is an address but for absolute symbols; `None` if that is not known.
    pub address: Option<u64>,
    /// Bytes, 0 if not told.
    pub size: u64,
    /// What it stands for.
    pub kind: SymbolKind,
    /// Other files see it.
    pub is_global: bool,
    /// It is taken from elsewhere, or is nowhere.
    pub is_undefined: bool,
    /// Index of its section, or a special one (`SHN_*`).
    pub section: u16,
}

impl<'m> Symbol<'m> {
    pub(super) fn of(load: &'m Load<'_>, index: usize) -> Option<Self> {
        let module = &load.module;
        let symbol = module.info.file.symbols().get(index)?;
        let is_unknown = module.unknown.get(index) == Some(&true);
        Some(Symbol {
            name: printed(module.info.file.symbol_name(symbol)),
            address: module.values.get(index).copied().filter(|_| !is_unknown),
            size: symbol.size(),
            kind: match symbol.kind() {
                STT_FUNC => SymbolKind::Function,
                STT_OBJECT => SymbolKind::Object,
                STT_SECTION => SymbolKind::Section,
                other => SymbolKind::Other(other),
            },
            is_global: symbol.bind() != STB_LOCAL,
            is_undefined: symbol.shndx() == SHN_UNDEF,
            section: symbol.shndx(),
        })
    }
}

/// What a module takes from the kernel or from another module.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Import<'m> {
    /// Its name.
    pub name: Cow<'m, str>,
    /// Its address; `None` if that is not known.
    pub address: Option<u64>,
    /// `vmlinux`, or the module that exports it.
    pub owner: Cow<'m, str>,
    /// The exporter's CRC.
    pub crc: Option<u32>,
    /// For GPL-compatible modules only.
    pub gpl_only: bool,
    /// Its namespace, empty if none.
    pub namespace: Cow<'m, str>,
}

impl<'m> From<&symres::Import<'m>> for Import<'m> {
    fn from(import: &symres::Import<'m>) -> Self {
        Import {
            name: printed(import.name),
            address: import.address,
            owner: printed(import.owner),
            crc: import.crc,
            gpl_only: import.gpl_only,
            namespace: printed(import.namespace),
        }
    }
}

/// What a module exports.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Export<'m> {
    /// Its name.
    pub name: Cow<'m, str>,
    /// Its address; `None` if that is not known.
    pub address: Option<u64>,
    /// Its CRC, if the module has one.
    pub crc: Option<u32>,
    /// For GPL-compatible modules only.
    pub gpl_only: bool,
    /// Its namespace, empty if none.
    pub namespace: Cow<'m, str>,
}

impl<'m> From<kernel::Export<'m>> for Export<'m> {
    fn from(export: kernel::Export<'m>) -> Self {
        Export {
            name: printed(export.name),
            address: export.address,
            crc: export.crc,
            gpl_only: export.gpl_only,
            namespace: printed(export.namespace),
        }
    }
}

/// A relocation that was applied.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Relocation<'m> {
    /// Address of the first byte that it writes.
    pub address: u64,
    /// How many.
    pub size: u64,
    /// Its type by the name of the psABI.
    pub kind: Cow<'static, str>,
    /// The name of its symbol, or of the section that this stands for.
    pub symbol: Cow<'m, str>,
    /// Its addend.
    pub addend: i64,
}

impl<'m> Relocation<'m> {
    pub(super) fn of(load: &'m Load<'_>, relocation: &address::Relocation) -> Self {
        let file = load.module.info.file;
        Relocation {
            address: relocation.address,
            size: relocation.len,
            kind: reloc::type_text(file.e_machine(), relocation.r_type),
            symbol: relocation.symbol_text(file),
            addend: relocation.addend,
        }
    }
}

/// Bytes that a step after relocation changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Patch {
    /// Address of the first one.
    pub address: u64,
    /// How many.
    pub size: u64,
    /// The step.
    pub step: Step,
    /// What distinguishes it from others of its step: a target, a key, a capability.
    pub detail: Option<String>,
    /// Where it is: `fat_get_entry+0x4`.
    pub symbol: Option<String>,
}

impl Patch {
    pub(super) fn of(load: &Load<'_>, explainer: &Explainer<'_, '_>, patch: &reloc::Patch) -> Self {
        let address = load.module.placement.address(patch.place);
        Patch {
            address,
            size: patch.len,
            step: patch.step,
            detail: explainer.detail(patch),
            symbol: explainer.symbol(address),
        }
    }
}
