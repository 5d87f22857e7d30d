//! Where the bytes of the file stand at link addresses, and the pointers that only relocation fills in.

use alloc::vec::Vec;

use memchr::memmem;

use crate::bytes::{le64, slice};

/// The upper half, where kernels live.
pub(crate) const KERNEL_HALF: u64 = 0xffff_0000_0000_0000;

/// A run of the file that stands in one piece in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) address: u64,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

impl Extent {
    /// File offset of `address`, and how many bytes follow it in this run.
    fn locate(&self, address: u64) -> Option<(usize, usize)> {
        let within = usize::try_from(address.checked_sub(self.address)?).ok()?;
        let left = self.len.checked_sub(within)?;
        (left != 0).then_some((self.offset.checked_add(within)?, left))
    }

    fn address_of(&self, offset: usize) -> Option<u64> {
        let within = offset.checked_sub(self.offset)?;
        (within < self.len).then_some(self.address.wrapping_add(within as u64))
    }
}

/// Link addresses of a whole image.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) extents: Vec<Extent>,
    pub(crate) rela: Rela,
}

impl Memory {
    /// File offset of `address`, and how many bytes follow it in one piece.
    pub(crate) fn locate(&self, address: u64) -> Option<(usize, usize)> {
        self.extents.iter().find_map(|extent| extent.locate(address))
    }

    pub(crate) fn address_of(&self, offset: usize) -> Option<u64> {
        self.extents.iter().find_map(|extent| extent.address_of(offset))
    }

    pub(crate) fn read<'d>(&self, data: &'d [u8], address: u64, len: usize) -> Option<&'d [u8]> {
        let (offset, left) = self.locate(address)?;
        (len <= left).then(|| slice(data, offset, len)).flatten()
    }

    /// A pointer as the running kernel sees it before KASLR: the addend where a
    /// relocation fills it in (KSYM-12), else what stands there.
    pub(crate) fn pointer(&self, data: &[u8], address: u64) -> Option<u64> {
        match self.rela.addend(data, address) {
            Some(addend) => Some(addend),
            None => le64(self.read(data, address, 8)?, 0),
        }
    }
}

/// The table of records of an architecture's relative relocation (KSYM-12).
#[derive(Clone, Debug, Default)]
pub(crate) struct Rela {
    /// `r_info` of each record: the type, and no symbol.
    info: u64,
    at: usize,
    count: usize,
    /// Record numbers in order of address, if the table itself is not.
    order: Option<Vec<u32>>,
}

const RECORD: usize = 24;

impl Rela {
    /// Finds the longest run of records of type `r_type`.
    pub(crate) fn find(data: &[u8], r_type: u32) -> Rela {
        let info = u64::from(r_type);
        let mut best = Rela { info, ..Rela::default() };
        let mut from = 0usize;
        let needle = info.to_le_bytes();
        let finder = memmem::Finder::new(&needle);
        while let Some(hit) = data.get(from..).and_then(|rest| finder.find(rest)) {
            let info_at = from.saturating_add(hit);
            from = info_at.saturating_add(1);
            let Some(at) = info_at.checked_sub(8).filter(|at| at % 8 == 0) else {
                continue;
            };
            let run = Rela { info, at, count: 0, order: None };
            let count = (0..).take_while(|i| run.record(data, *i).is_some()).count();
            if count > best.count {
                best = Rela { count, ..run };
            }
            from = from.max(at.saturating_add(count.saturating_mul(RECORD)));
        }
        let sorted = best.addresses(data).zip(best.addresses(data).skip(1)).all(|(a, b)| a < b);
        if !sorted {
            let mut order: Vec<u32> = (0u32..).take(best.count).collect();
            order.sort_by_key(|i| best.record(data, *i as usize));
            best.order = Some(order);
        }
        best
    }

    /// Number of records.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Address and addend of record `index`.
    fn record(&self, data: &[u8], index: usize) -> Option<(u64, u64)> {
        let at = self.at.checked_add(index.checked_mul(RECORD)?)?;
        let record = slice(data, at, RECORD)?;
        let address = le64(record, 0)?;
        (address >= KERNEL_HALF && le64(record, 8)? == self.info).then_some((address, le64(record, 16)?))
    }

    fn addresses<'a>(&'a self, data: &'a [u8]) -> impl Iterator<Item = u64> + 'a {
        (0..self.count).filter_map(|i| Some(self.record(data, i)?.0))
    }

    /// The lowest address that is relocated.
    pub(crate) fn lowest(&self, data: &[u8]) -> Option<u64> {
        self.addresses(data).min()
    }

    /// The record with position `position` in order of address.
    fn nth(&self, data: &[u8], position: usize) -> Option<(u64, u64)> {
        let index = match &self.order {
            Some(order) => *order.get(position)? as usize,
            None => position,
        };
        (position < self.count).then(|| self.record(data, index)).flatten()
    }

    /// Position of the first record at or above `address`.
    fn lower_bound(&self, data: &[u8], address: u64) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.nth(data, middle) {
                Some((at, _)) if at < address => low = middle.saturating_add(1),
                _ => high = middle,
            }
        }
        low
    }

    /// What relocation writes at `address`.
    pub(crate) fn addend(&self, data: &[u8], address: u64) -> Option<u64> {
        let (at, addend) = self.nth(data, self.lower_bound(data, address))?;
        (at == address).then_some(addend)
    }

    /// The addresses where relocation writes `addend`.
    pub(crate) fn to<'a>(&'a self, data: &'a [u8], addend: u64) -> impl Iterator<Item = u64> + 'a {
        (0..self.count)
            .filter_map(move |i| self.record(data, i).filter(|(_, to)| *to == addend))
            .map(|(at, _)| at)
    }

    /// All records with `from <= address < end`, in order.
    pub(crate) fn between<'a>(
        &'a self,
        data: &'a [u8],
        from: u64,
        end: u64,
    ) -> impl Iterator<Item = (u64, u64)> + 'a {
        (self.lower_bound(data, from)..self.count)
            .map_while(move |position| self.nth(data, position))
            .take_while(move |(at, _)| *at < end)
    }
}
