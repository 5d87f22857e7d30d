//! The memory that relocations of a section can reach: the section, and all else that the kernel does not keep them from.

use alloc::vec::Vec;
use core::ops::Range;

use elf_layout::bytes::{le64, slice, slice_mut};
use elf_layout::{Memory, Placement, SectionPlace};

/// A section that is relocated, in the memory of its module.
#[derive(Debug)]
pub struct Target<'a> {
    /// The region of the section.
    region: &'a mut [u8],
    /// Address of that region.
    base: u64,
    /// The section in it.
    section: Range<usize>,
    /// The other regions, by address.
    others: Vec<(u64, &'a mut [u8])>,
}

impl<'a> Target<'a> {
    /// A section of `size` bytes at `place`.
    pub fn of(memory: &'a mut dyn Memory, placement: &Placement, place: SectionPlace, size: u64) -> Self {
        let mut own: (u64, &mut [u8]) = (0, &mut []);
        let mut others = Vec::new();
        for (region, bytes) in memory.regions_mut() {
            let base = placement.bases.get(region);
            if region == place.region {
                own = (base, bytes);
            } else {
                others.push((base, bytes));
            }
        }
        let (base, region) = own;
        let start = usize::try_from(place.offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        Target { region, base, section: start..end, others }
    }

    /// A section by itself, at address 0.
    pub fn alone(bytes: &'a mut [u8]) -> Self {
        let section = 0..bytes.len();
        Target { region: bytes, base: 0, section, others: Vec::new() }
    }

    /// The bytes of the section.
    #[inline]
    pub fn section(&mut self) -> &mut [u8] {
        self.region.get_mut(self.section.clone()).unwrap_or_default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.section.len()
    }

    /// Has the section no bytes?
    pub fn is_empty(&self) -> bool {
        self.section.is_empty()
    }

    /// `len` bytes anywhere in the module, if all are in one region: behind a region is a page without memory.
    pub fn anywhere(&mut self, address: u64, len: u64) -> Option<&mut [u8]> {
        let own = (self.base, &mut *self.region);
        let others = self.others.iter_mut().map(|(base, bytes)| (*base, &mut **bytes));
        core::iter::once(own)
            .chain(others)
            .find_map(|(base, bytes)| slice_mut(bytes, address.checked_sub(base)?, len))
    }

    /// The u64 at an address of the module.
    pub fn word(&self, address: u64) -> Option<u64> {
        let own = (self.base, &*self.region);
        let others = self.others.iter().map(|(base, bytes)| (*base, &**bytes));
        core::iter::once(own)
            .chain(others)
            .find_map(|(base, bytes)| le64(slice(bytes, address.checked_sub(base)?, 8)?, 0))
    }
}
