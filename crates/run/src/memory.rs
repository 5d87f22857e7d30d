//! Memory of a machine: one physical memory, regions of virtual addresses that show parts of it, and snapshots.
//!
//! Snapshots are undo logs: the first write to a page after [`Memory::snapshot`] keeps what the page held, and
//! [`Memory::restore`] puts that back. So a snapshot costs nothing, and going back costs what was written since.

mod packed;
mod shadow;
mod snapshots;

pub use shadow::{Byte, Misuse, Who};

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use packed::Packed;
use shadow::Shadow;
use snapshots::Log;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes of a page, as a length.
const PAGE_LEN: usize = 4096;
/// Entries of each of the two look-aside tables.
const ENTRIES: usize = 1024;
/// Writes of one instruction that are noted at most.
const NOTED_MAX: usize = 64;
/// A page number that no address has.
const NO_PAGE: u64 = u64::MAX;

/// What may be done with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// It may be written.
    pub write: bool,
    /// It may be executed.
    pub execute: bool,
}

impl Protection {
    /// Read and write.
    pub const DATA: Protection = Protection { write: true, execute: false };
    /// Read only.
    pub const READ: Protection = Protection { write: false, execute: false };
    /// Read and execute.
    pub const CODE: Protection = Protection { write: false, execute: true };
    /// Everything.
    pub const ALL: Protection = Protection { write: true, execute: true };
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A read.
    Read,
    /// A write.
    Write,
    /// Fetching an instruction.
    Execute,
}

/// An access that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The first address that cannot be accessed.
    pub address: u64,
    /// What was tried.
    pub access: Access,
    /// Is there memory, with other permissions?
    pub mapped: bool,
}

/// Virtual addresses that show a part of physical memory.
#[derive(Clone, Copy, Debug)]
struct Region {
    start: u64,
    /// The first address behind it.
    end: u64,
    /// Where it begins in physical memory.
    physical: u64,
    protection: Protection,
}

/// A virtual page and where it lies in physical memory.
#[derive(Clone, Copy, Debug)]
struct Entry {
    page: u64,
    physical: u64,
}

impl Region {
    /// Was code decoded from one of its pages?
    fn has_code(&self, code: &Pages) -> bool {
        let (first, count) = (self.physical >> 12, self.end.wrapping_sub(self.start) >> 12);
        (first..first.saturating_add(count)).any(|page| code.has(page))
    }
}

const EMPTY: Entry = Entry { page: NO_PAGE, physical: 0 };

/// A look-aside table that is not in use.
#[derive(Debug, Default)]
pub struct Spare(Option<Box<[Entry; ENTRIES]>>);

/// One bit for each page of physical memory.
#[derive(Clone, Debug, Default)]
struct Pages(Vec<u64>);

impl Pages {
    fn new(pages: u64) -> Self {
        Pages(vec![0; usize::try_from(pages.div_ceil(64)).unwrap_or(0)])
    }

    fn has(&self, page: u64) -> bool {
        let word = usize::try_from(page >> 6).ok().and_then(|word| self.0.get(word));
        word.is_some_and(|word| word.wrapping_shr((page & 63) as u32) & 1 != 0)
    }

    /// False if it was there before.
    fn insert(&mut self, page: u64) -> bool {
        let Some(word) = usize::try_from(page >> 6).ok().and_then(|word| self.0.get_mut(word)) else {
            return false;
        };
        let bit = 1u64.wrapping_shl((page & 63) as u32);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn remove(&mut self, page: u64) {
        if let Some(word) = usize::try_from(page >> 6).ok().and_then(|word| self.0.get_mut(word)) {
            *word &= !1u64.wrapping_shl((page & 63) as u32);
        }
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }
}

/// The memory of a machine.
#[derive(Debug)]
pub struct Memory {
    physical: Vec<u8>,
    regions: Vec<Region>,
    reads: Box<[Entry; ENTRIES]>,
    writes: Box<[Entry; ENTRIES]>,
    /// While writes are noted: the table that is used otherwise. The one in use stays empty then.
    unused: Option<Box<[Entry; ENTRIES]>>,
    /// Writes that are noted: addresses and lengths.
    noted: Vec<(u64, u64)>,
    /// Pages that were ever written: the others are zero.
    written: Pages,
    /// Pages that code was decoded from.
    code: Pages,
    code_written: bool,
    /// May read-only pages be written? So it is on x86 while CR0.WP is clear.
    ignores_protection: bool,
    logs: Vec<Log>,
    /// Pages that are not in `physical` yet.
    packed: Packed,
    /// What may be done with bytes, where that is known; no part of snapshots.
    shadow: Option<Box<Shadow>>,
}

/// Entry number of an address.
fn slot(address: u64) -> usize {
    (address >> 12) as usize & (ENTRIES - 1)
}

impl Memory {
    /// `size` bytes of physical memory, all zero, that no address shows yet. Rounded up to whole pages.
    pub fn new(size: u64) -> Self {
        let pages = size.div_ceil(PAGE);
        let len = usize::try_from(pages.saturating_mul(PAGE)).unwrap_or(0);
        Memory {
            physical: vec![0; len],
            regions: Vec::new(),
            reads: Box::new([EMPTY; ENTRIES]),
            writes: Box::new([EMPTY; ENTRIES]),
            unused: None,
            noted: Vec::new(),
            written: Pages::new(pages),
            code: Pages::new(pages),
            code_written: false,
            ignores_protection: false,
            logs: Vec::new(),
            packed: Packed::default(),
            shadow: None,
        }
    }

    /// Bytes of physical memory.
    pub fn size(&self) -> u64 {
        self.physical.len() as u64
    }

    /// The same memory, independent of this one, without its snapshots. Pages that were never written cost nothing.
    #[must_use]
    pub fn fork(&self) -> Memory {
        let mut other = Memory::new(self.size());
        other.regions.clone_from(&self.regions);
        other.written.clone_from(&self.written);
        other.ignores_protection = self.ignores_protection;
        other.packed = self.packed.fork();
        let pages = other.physical.chunks_mut(PAGE_LEN).zip(self.physical.chunks(PAGE_LEN));
        for (number, (to, from)) in pages.enumerate() {
            if self.written.has(number as u64) && !self.packed.has(number as u64) {
                to.copy_from_slice(from);
            }
        }
        other
    }

    /// `len` bytes from `start` show physical memory from `physical`; both are multiples of a page. What showed there before
    /// does so no longer. False, and nothing done, where there is no such memory.
    #[must_use]
    pub fn map(&mut self, start: u64, len: u64, physical: u64, protection: Protection) -> bool {
        let Some(end) = start.checked_add(len) else { return false };
        let inside = physical.checked_add(len).is_some_and(|end| end <= self.size());
        if !inside || [start, len, physical].iter().any(|n| !n.is_multiple_of(PAGE)) || len == 0 {
            return false;
        }
        self.cut(start, end);
        let at = self.regions.partition_point(|region| region.start < start);
        self.regions.insert(at, Region { start, end, physical, protection });
        self.forget_addresses();
        true
    }

    /// Nothing shows from `start` to `end` any longer.
    pub fn unmap(&mut self, start: u64, end: u64) {
        self.cut(start, end);
        self.forget_addresses();
    }

    /// What may be done with the pages from `start` to `end`, as far as there are any.
    pub fn protect(&mut self, start: u64, end: u64, protection: Protection) {
        let inside = self.cut(start, end);
        for region in inside {
            let at = self.regions.partition_point(|other| other.start < region.start);
            self.regions.insert(at, Region { protection, ..region });
        }
        self.forget_addresses();
    }

    /// What may be done at an address. `None`: there is nothing.
    pub fn protection(&self, address: u64) -> Option<Protection> {
        self.region(address).map(|region| region.protection)
    }

    /// Takes `start..end` out of the regions, and gives what was there.
    fn cut(&mut self, start: u64, end: u64) -> Vec<Region> {
        let mut inside = Vec::new();
        let mut kept = Vec::with_capacity(self.regions.len().saturating_add(2));
        for region in &self.regions {
            let (from, to) = (region.start.max(start), region.end.min(end));
            if from >= to {
                kept.push(*region);
                continue;
            }
            let part = |start: u64, end: u64| Region {
                start,
                end,
                physical: region.physical.wrapping_add(start.wrapping_sub(region.start)),
                ..*region
            };
            if region.start < from {
                kept.push(part(region.start, from));
            }
            if to < region.end {
                kept.push(part(to, region.end));
            }
            inside.push(part(from, to));
        }
        self.regions = kept;
        // Code that was decoded there may be gone, or is to be executed no longer.
        self.code_written |= inside.iter().any(|region| region.has_code(&self.code));
        inside
    }

    fn forget_addresses(&mut self) {
        self.reads.fill(EMPTY);
        self.forget_writes();
    }

    fn forget_writes(&mut self) {
        self.writes.fill(EMPTY);
        if let Some(unused) = &mut self.unused {
            unused.fill(EMPTY);
        }
    }

    /// Notes each write from now on, until [`Memory::noted`]. `spare` is a table that such a call has given, for the next time.
    pub fn note_writes(&mut self, spare: &mut Spare) {
        if self.unused.is_none() {
            let empty = spare.0.take().unwrap_or_else(|| Box::new([EMPTY; ENTRIES]));
            self.unused = Some(core::mem::replace(&mut self.writes, empty));
        }
    }

    /// Moves what was noted so far into a list.
    pub fn take_noted(&mut self, into: &mut Vec<(u64, u64)>) {
        into.clear();
        core::mem::swap(&mut self.noted, into);
    }

    /// Ends [`Memory::note_writes`], and moves what was noted into a list: addresses and lengths, in their order.
    pub fn noted(&mut self, spare: &mut Spare, into: &mut Vec<(u64, u64)>) {
        into.clear();
        if let Some(table) = self.unused.take() {
            spare.0 = Some(core::mem::replace(&mut self.writes, table));
            core::mem::swap(&mut self.noted, into);
        }
    }

    /// Can pages that are read-only be written all the same?
    pub fn ignores_protection(&self) -> bool {
        self.ignores_protection
    }

    fn region(&self, address: u64) -> Option<&Region> {
        let at = self.regions.partition_point(|region| region.start <= address);
        self.regions.get(at.checked_sub(1)?).filter(|region| address < region.end)
    }

    /// Where an address lies in physical memory, whatever may be done there.
    pub fn physical(&self, address: u64) -> Option<u64> {
        let region = self.region(address)?;
        Some(region.physical.wrapping_add(address.wrapping_sub(region.start)))
    }

    /// Where an address lies in physical memory, for an access.
    fn translate(&self, address: u64, access: Access) -> Result<u64, Fault> {
        let fault = |mapped| Fault { address, access, mapped };
        let region = self.region(address).ok_or(fault(false))?;
        let allowed = match access {
            Access::Read => true,
            Access::Write => region.protection.write || self.ignores_protection,
            Access::Execute => region.protection.execute,
        };
        if !allowed {
            return Err(fault(true));
        }
        Ok(region.physical.wrapping_add(address.wrapping_sub(region.start)))
    }

    /// Says whether pages that are read-only can be written all the same.
    pub fn ignore_protection(&mut self, ignores: bool) {
        if self.ignores_protection != ignores {
            self.ignores_protection = ignores;
            self.forget_writes();
        }
    }

    /// Reads `N` bytes, at most eight.
    #[inline(always)]
    pub fn load<const N: usize>(&mut self, address: u64) -> Result<[u8; N], Fault> {
        let entry = self.reads.get(slot(address)).copied().unwrap_or(EMPTY);
        let offset = (address & (PAGE - 1)) as usize;
        if entry.page == address >> 12 && offset <= PAGE_LEN.wrapping_sub(N) {
            let at = (entry.physical as usize).wrapping_add(offset);
            if let Some(bytes) = self.physical.get(at..).and_then(|bytes| bytes.first_chunk::<N>()) {
                return Ok(*bytes);
            }
        }
        self.load_slowly(address)
    }

    #[cold]
    fn load_slowly<const N: usize>(&mut self, address: u64) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.checks(address, N, Access::Read)?;
        self.read_with(address, &mut bytes, Access::Read)?;
        let page = address & !(PAGE - 1);
        let physical = self.translate(page, Access::Read)?;
        self.unpack(physical >> 12);
        if !self.is_shadowed(physical >> 12)
            && let Some(entry) = self.reads.get_mut(slot(address))
        {
            *entry = Entry { page: page >> 12, physical };
        }
        Ok(bytes)
    }

    /// Writes `N` bytes, at most eight: all of them or none.
    #[inline(always)]
    pub fn store<const N: usize>(&mut self, address: u64, bytes: [u8; N]) -> Result<(), Fault> {
        let entry = self.writes.get(slot(address)).copied().unwrap_or(EMPTY);
        let offset = (address & (PAGE - 1)) as usize;
        if entry.page == address >> 12 && offset <= PAGE_LEN.wrapping_sub(N) {
            let at = (entry.physical as usize).wrapping_add(offset);
            if let Some(to) = self.physical.get_mut(at..).and_then(|to| to.first_chunk_mut::<N>()) {
                *to = bytes;
                return Ok(());
            }
        }
        self.store_slowly(address, &bytes)
    }

    #[cold]
    fn store_slowly(&mut self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.checks(address, bytes.len(), Access::Write)?;
        self.write_with(address, bytes, true)?;
        let page = address & !(PAGE - 1);
        let physical = self.translate(page, Access::Write)?;
        // Writes to code have to be seen, each of them.
        if self.unused.is_none()
            && !self.code.has(physical >> 12)
            && !self.is_shadowed(physical >> 12)
            && let Some(entry) = self.writes.get_mut(slot(address))
        {
            *entry = Entry { page: page >> 12, physical };
        }
        Ok(())
    }

    /// Parts of a range that lie in one page each, as `(address, start, end)` in the range.
    fn parts(address: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
        let mut done = 0usize;
        core::iter::from_fn(move || {
            let at = address.wrapping_add(done as u64);
            let rest = len.checked_sub(done).filter(|rest| *rest != 0)?;
            let in_page = PAGE_LEN.saturating_sub((at & (PAGE - 1)) as usize);
            let start = done;
            done = done.saturating_add(rest.min(in_page));
            Some((at, start, done))
        })
    }

    fn read_with(&self, address: u64, out: &mut [u8], access: Access) -> Result<(), Fault> {
        for (at, start, end) in Self::parts(address, out.len()) {
            let physical = self.translate(at, access)?;
            if self.packed.has(physical >> 12) {
                self.packed.read(physical, out.get_mut(start..end).unwrap_or_default());
                continue;
            }
            let physical = usize::try_from(physical).unwrap_or(usize::MAX);
            let from = physical..physical.saturating_add(end.saturating_sub(start));
            let (Some(from), Some(to)) = (self.physical.get(from), out.get_mut(start..end)) else {
                return Err(Fault { address: at, access, mapped: false });
            };
            to.copy_from_slice(from);
        }
        Ok(())
    }

    fn write_with(&mut self, address: u64, bytes: &[u8], obeys: bool) -> Result<(), Fault> {
        let access = if obeys { Access::Write } else { Access::Read };
        // All or nothing.
        for (at, ..) in Self::parts(address, bytes.len()) {
            self.translate(at, access)?;
        }
        if self.unused.is_some() && self.noted.len() < NOTED_MAX {
            self.noted.push((address, bytes.len() as u64));
        }
        for (at, start, end) in Self::parts(address, bytes.len()) {
            let physical = self.translate(at, access)?;
            self.keep(physical >> 12);
            self.is_written(physical, end.saturating_sub(start));
            let physical = usize::try_from(physical).unwrap_or(usize::MAX);
            let to = physical..physical.saturating_add(end.saturating_sub(start));
            let (Some(to), Some(from)) = (self.physical.get_mut(to), bytes.get(start..end)) else {
                return Err(Fault { address: at, access, mapped: false });
            };
            to.copy_from_slice(from);
        }
        Ok(())
    }

    /// A page is about to be written.
    fn keep(&mut self, page: u64) {
        self.unpack(page);
        self.written.insert(page);
        self.code_written |= self.code.has(page);
        let Some(log) = self.logs.last_mut().filter(|log| !log.saved.has(page)) else { return };
        let start = usize::try_from(page.wrapping_mul(PAGE)).unwrap_or(usize::MAX);
        if let Some(bytes) = self.physical.get(start..start.saturating_add(PAGE_LEN)) {
            log.saved.insert(page);
            log.pages.push(page);
            log.bytes.extend_from_slice(bytes);
        }
    }

    /// Reads bytes at an address.
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), Fault> {
        self.read_with(address, out, Access::Read)
    }

    /// Writes bytes at an address, where they may be written.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.write_with(address, bytes, true)
    }

    /// Writes bytes where there is memory, whatever its permissions: for who stands outside of the machine.
    pub fn poke(&mut self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.write_with(address, bytes, false)
    }

    /// Fills `len` bytes with zero, whatever the permissions.
    pub fn zero(&mut self, address: u64, len: u64) -> Result<(), Fault> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        for (at, start, end) in Self::parts(address, len) {
            let physical = self.translate(at, Access::Read)?;
            if self.written.has(physical >> 12) {
                let zeros = [0; PAGE_LEN];
                self.write_with(at, zeros.get(..end.saturating_sub(start)).unwrap_or(&zeros), false)?;
            }
        }
        Ok(())
    }

    /// The bytes to decode instructions from, at most `out`, and how many there are; what writes to them is noted from now on.
    pub(crate) fn fetch(&mut self, address: u64, out: &mut [u8]) -> Result<usize, Fault> {
        let mut read = 0;
        for (at, start, end) in Self::parts(address, out.len()) {
            let physical = match self.translate(at, Access::Execute) {
                Ok(physical) => physical,
                Err(_) if start != 0 => break,
                Err(fault) => return Err(fault),
            };
            self.unpack(physical >> 12);
            if self.code.insert(physical >> 12) {
                self.forget_writes();
            }
            let from = usize::try_from(physical).unwrap_or(usize::MAX);
            let from = self.physical.get(from..from.saturating_add(end.saturating_sub(start)));
            if let (Some(from), Some(to)) = (from, out.get_mut(start..end)) {
                to.copy_from_slice(from);
            }
            read = end;
        }
        Ok(read)
    }

    /// Was code written since it was decoded?
    #[inline(always)]
    pub(crate) fn code_written(&self) -> bool {
        self.code_written
    }

    /// No decoded code is left.
    pub(crate) fn forget_code(&mut self) {
        self.code.clear();
        self.code_written = false;
    }

    /// A little-endian number of eight bytes.
    pub fn u64(&self, address: u64) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A little-endian number of four bytes.
    pub fn u32(&self, address: u64) -> Result<u32, Fault> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// `len` bytes at an address.
    pub fn bytes(&self, address: u64, len: usize) -> Result<Vec<u8>, Fault> {
        // So that a length from the machine cannot ask for more than there is.
        let mut bytes = vec![0; len.min(self.physical.len())];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// The string at an address, without the zero that ends it; cut off after `max` bytes.
    pub fn cstr(&self, address: u64, max: usize) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        for (at, start, end) in Self::parts(address, max) {
            let part = self.bytes(at, end.saturating_sub(start))?;
            match part.iter().position(|byte| *byte == 0) {
                Some(len) => {
                    out.extend_from_slice(part.get(..len).unwrap_or_default());
                    return Ok(out);
                }
                None => out.extend_from_slice(&part),
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
