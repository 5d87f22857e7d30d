//! Pointers that a module's data will hold: read from its relocations, so that
//! tables can be followed without loading the module anywhere.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::bytes::slice;
use crate::elf::{Rela, SHN_ABS, SHN_LORESERVE, SHN_UNDEF, SHT_NOBITS, SHT_RELA, SymFields};
use crate::module_file::ModuleFile;

/// What a pointer points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'d> {
    /// A byte of a section of this module.
    Section {
        /// Section index.
        section: usize,
        /// Byte offset in it.
        offset: u64,
    },
    /// A symbol of another module or the kernel.
    Import {
        /// Its name.
        name: &'d [u8],
        /// Bytes added to it.
        addend: i64,
    },
    /// A constant.
    Absolute(u64),
}

/// One relocated place.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    symbol: u32,
    addend: i64,
}

/// The relocated places of a module, per section, indexed when first asked for.
#[derive(Debug)]
pub struct Pointers<'d> {
    file: &'d ModuleFile<'d>,
    places: RefCell<BTreeMap<usize, Vec<Place>>>,
}

impl<'d> Pointers<'d> {
    /// For one module.
    pub fn new(file: &'d ModuleFile<'d>) -> Self {
        Pointers { file, places: RefCell::new(BTreeMap::new()) }
    }

    /// Where the pointer at `offset` of `section` points to; `None` if no relocation fills it.
    pub fn target(&self, section: usize, offset: u64) -> Option<Target<'d>> {
        let (symbol, addend) = self.symbol(section, offset)?;
        let symbol = self.file.symbols().get(symbol as usize)?;
        Some(match symbol.shndx() {
            SHN_UNDEF => Target::Import { name: self.file.symbol_name(symbol), addend },
            SHN_ABS => Target::Absolute(symbol.value().wrapping_add_signed(addend)),
            SHN_LORESERVE.. => return None,
            shndx => Target::Section {
                section: usize::from(shndx),
                offset: symbol.value().wrapping_add_signed(addend),
            },
        })
    }

    /// Symbol index and addend of the relocation at `offset` of `section`.
    pub fn symbol(&self, section: usize, offset: u64) -> Option<(u32, i64)> {
        let mut all = self.places.borrow_mut();
        let places = all.entry(section).or_insert_with(|| places_of(self.file, section));
        let at = places.partition_point(|p| p.offset < offset);
        places.get(at).filter(|p| p.offset == offset).map(|p| (p.symbol, p.addend))
    }

    /// `len` bytes of a section's initial contents; NOBITS sections are zero and read as `None`
    /// only outside their size.
    pub fn initial_bytes(&self, section: usize, offset: u64, len: usize) -> Option<Vec<u8>> {
        let header = self.file.sections().get(section)?;
        let end = offset.checked_add(len as u64)?;
        if end > header.sh_size {
            return None;
        }
        if header.sh_type == SHT_NOBITS {
            return Some(alloc::vec![0; len]);
        }
        slice(self.file.section_bytes(section), offset, len as u64).map(<[u8]>::to_vec)
    }
}

fn places_of(file: &ModuleFile<'_>, section: usize) -> Vec<Place> {
    let mut places = Vec::new();
    for (index, header) in file.sections().iter().enumerate() {
        if header.sh_type == SHT_RELA && header.sh_info as usize == section {
            places.extend(file.relocations(index).iter().map(Rela::from).map(|rela| Place {
                offset: rela.r_offset,
                symbol: rela.r_sym(),
                addend: rela.r_addend,
            }));
        }
    }
    places.sort_by_key(|p| p.offset);
    places
}
