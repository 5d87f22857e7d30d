//! The kernel's address space: virtual addresses by the segments of a dump, and by page tables.

use alloc::sync::Arc;
use alloc::vec::Vec;

use elf_layout::bytes::le64;
use kernel_image::{PageEntry, PageTables};

use crate::dump::Dump;
use crate::range::Range;
use crate::read_at::ReadAt;

/// Entries that one walk over mappings looks at, whatever the tables say: those of 8 GiB in pages of 4 KiB, which is four times as
/// much as any kernel has for modules.
const ENTRIES_MAX: u64 = 1 << 21;

/// Memory that is mapped: virtual addresses that follow each other and lead to physical ones that follow each other, with the same
/// permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Virtual address of its first byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// Physical address of its first byte.
    pub physical: u64,
    /// The kernel may write to it.
    pub write: bool,
    /// The kernel may execute it.
    pub execute: bool,
}

impl Mapping {
    /// The address behind it.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

/// The kernel's half of the address space of a dump.
#[derive(Debug)]
pub struct AddressSpace<R> {
    dump: Arc<Dump<R>>,
    tables: Option<(&'static PageTables, u64)>,
}

impl<R: ReadAt> AddressSpace<R> {
    /// That of a dump which holds all of it by virtual address.
    pub fn of_segments(dump: Arc<Dump<R>>) -> Self {
        AddressSpace { dump, tables: None }
    }

    /// By page tables of this form whose topmost one lies at a physical address.
    pub fn of_tables(dump: Arc<Dump<R>>, tables: &'static PageTables, root: u64) -> Self {
        AddressSpace { dump, tables: Some((tables, root)) }
    }

    /// The dump.
    pub fn dump(&self) -> &Dump<R> {
        &self.dump
    }

    /// The form of its page tables and the physical address of the topmost one.
    pub fn tables(&self) -> Option<(&'static PageTables, u64)> {
        self.tables
    }

    /// Fills `out` with memory at a virtual address; false if not all of it is there.
    pub fn read(&self, address: u64, out: &mut [u8]) -> bool {
        let mut done = 0usize;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(at) = address.checked_add(done as u64) else { return false };
            let read = match self.dump.segment(at, rest) {
                0 => self.read_mapped(at, rest).unwrap_or(0),
                read => read,
            };
            if read == 0 {
                return false;
            }
            done = done.saturating_add(read);
        }
        true
    }

    /// The u64 at a virtual address.
    pub fn u64(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes).then(|| u64::from_le_bytes(bytes))
    }

    fn read_mapped(&self, address: u64, out: &mut [u8]) -> Option<usize> {
        let mapping = self.mapping(address)?;
        let from = address.checked_sub(mapping.start)?;
        let left = usize::try_from(mapping.size.checked_sub(from)?).unwrap_or(usize::MAX);
        let len = out.len().min(left);
        self.dump.physical(mapping.physical.checked_add(from)?, out.get_mut(..len)?).then_some(len)
    }

    /// The physical address of a virtual one, by the page tables.
    pub fn physical(&self, address: u64) -> Option<u64> {
        let mapping = self.mapping(address)?;
        mapping.physical.checked_add(address.checked_sub(mapping.start)?)
    }

    /// The page or block that an address lies in; `None` if it is not mapped.
    pub fn mapping(&self, address: u64) -> Option<Mapping> {
        let (tables, root) = self.tables?;
        if address < tables.lowest() {
            return None;
        }
        let (mut table, mut shift) = (root, tables.address_bits());
        for (bits, level) in tables.index_bits.iter().zip((0..tables.index_bits.len()).rev()) {
            shift = shift.checked_sub(*bits)?;
            let index = address.checked_shr(shift)? & 1u64.checked_shl(*bits)?.wrapping_sub(1);
            let mut raw = [0; 8];
            if !self.dump.physical(table.checked_add(index.checked_mul(8)?)?, &mut raw) {
                return None;
            }
            match (tables.entry)(u64::from_le_bytes(raw), u32::try_from(level).ok()?) {
                PageEntry::Nothing => return None,
                PageEntry::Table(next) => table = next,
                PageEntry::Mapped { address: physical, write, execute } => {
                    let size = 1u64.checked_shl(shift)?;
                    let start = address & size.wrapping_neg();
                    return Some(Mapping { start, size, physical, write, execute });
                }
            }
        }
        None
    }

    /// What is mapped from one address up to another, by address. Pages that follow each other are one mapping. Of segments
    /// permissions are not known: they count as both.
    pub fn mappings(&self, from: u64, to: u64) -> Vec<Mapping> {
        let mut found: Vec<Mapping> = Vec::new();
        let mut add = |mut next: Mapping| {
            let cut = from.saturating_sub(next.start);
            next.start = next.start.saturating_add(cut);
            next.physical = next.physical.saturating_add(cut);
            next.size = next.size.saturating_sub(cut).min(to.saturating_sub(next.start));
            if next.size == 0 {
                return;
            }
            match found.last_mut() {
                Some(last)
                    if last.end() == next.start
                        && last.physical.saturating_add(last.size) == next.physical
                        && (last.write, last.execute) == (next.write, next.execute) =>
                {
                    last.size = last.size.saturating_add(next.size);
                }
                _ => found.push(next),
            }
        };
        match self.tables {
            Some((tables, root)) => {
                let mut walk = Walk { space: self, tables, from, to, left: ENTRIES_MAX, add: &mut add };
                let base = tables.base();
                let top = u32::try_from(tables.index_bits.len()).unwrap_or(0).saturating_sub(1);
                walk.table(root, base, tables.address_bits(), top);
            }
            None => {
                for range in self.dump.segments() {
                    if range.start < to && range.start.saturating_add(range.size) > from {
                        let Range { start, size, at } = *range;
                        // A segment has no physical address; its place in the file keeps those apart that do not follow each other.
                        add(Mapping { start, size, physical: at, write: true, execute: true });
                    }
                }
            }
        }
        found
    }
}

/// A walk over all that is mapped.
struct Walk<'w, R> {
    space: &'w AddressSpace<R>,
    tables: &'static PageTables,
    from: u64,
    to: u64,
    left: u64,
    add: &'w mut dyn FnMut(Mapping),
}

impl<R: ReadAt> Walk<'_, R> {
    /// The entries of one table, which maps what begins at `base` and is `1 << bits` large. A table of the kernel is entered at
    /// most once for each level, so depth is bounded by the form.
    fn table(&mut self, table: u64, base: u64, bits: u32, level: u32) -> Option<()> {
        let index_bits = self.tables.index_bits.iter().rev().nth(level as usize)?;
        let shift = bits.checked_sub(*index_bits)?;
        let size = 1u64.checked_shl(shift)?;
        let count = 1u64.checked_shl(*index_bits)?;
        let skip = self.from.saturating_sub(base).checked_shr(shift)?.min(count);
        let mut raw = alloc::vec![0u8; usize::try_from(count.checked_mul(8)?).ok()?];
        if !self.space.dump.physical(table, &mut raw) {
            return None;
        }
        for index in skip..count {
            let start = base.wrapping_add(index.wrapping_mul(size));
            if start >= self.to || start < base {
                break;
            }
            self.left = self.left.checked_sub(1)?;
            match (self.tables.entry)(le64(&raw, index.checked_mul(8)?)?, level) {
                PageEntry::Nothing => {}
                PageEntry::Table(next) if level != 0 => {
                    self.table(next, start, shift, level.checked_sub(1)?);
                }
                PageEntry::Table(_) => {}
                PageEntry::Mapped { address: physical, write, execute } => {
                    (self.add)(Mapping { start, size, physical, write, execute });
                }
            }
        }
        Some(())
    }
}
