//! What page tables of an architecture look like: facts for who reads physical memory.

/// One form of an architecture's page tables: 4-level or 5-level, with pages of 4 or 64 KiB...
#[derive(Debug)]
pub struct PageTables {
    /// What it is called in messages.
    pub title: &'static str,
    /// The symbol of the table that the kernel's half of the address space begins with.
    pub root: &'static str,
    /// Bits of an offset in a page.
    pub page_bits: u32,
    /// Bits of the index into a table, from the topmost table to the lowest.
    pub index_bits: &'static [u32],
    /// Does the topmost table serve user space as well? Then the topmost bit that is translated is one in the kernel's half.
    pub both_halves: bool,
    /// What an entry says. The level counts from the lowest table, which is 0.
    pub entry: fn(entry: u64, level: u32) -> PageEntry,
}

/// An entry of a page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageEntry {
    /// Nothing is mapped.
    Nothing,
    /// The physical address of the next table.
    Table(u64),
    /// The physical address of memory that is mapped: a page, or a block of the size that the level has.
    Mapped {
        /// Physical address of its first byte.
        address: u64,
        /// The kernel may write to it.
        write: bool,
        /// The kernel may execute it.
        execute: bool,
    },
}

impl PageTables {
    /// Bits of an address that are translated; those above are all ones in the kernel's half.
    pub fn address_bits(&self) -> u32 {
        self.index_bits.iter().fold(self.page_bits, |sum, bits| sum.saturating_add(*bits))
    }

    /// What the address of the first entry of the topmost table begins with, if all bits that are not translated are ones.
    pub fn base(&self) -> u64 {
        u64::MAX.checked_shl(self.address_bits()).unwrap_or(0)
    }

    /// The first address of the kernel's half.
    pub fn lowest(&self) -> u64 {
        let bits = self.address_bits().saturating_sub(u32::from(self.both_halves));
        u64::MAX.checked_shl(bits).unwrap_or(0)
    }
}
