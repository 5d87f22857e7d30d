//! A memory that is kept, and taken up again: its pages stay packed until something is done with them.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

use super::{Memory, PAGE, PAGE_LEN, Pages, Protection, Region};
use crate::kept::{Kept, Reader, keep_short, kept, take_up_short};

kept!(Protection { write, execute });
kept!(Region { start, end, physical, protection });

/// Where a page is packed: its number, and its bytes in the pool.
#[derive(Clone, Copy, Debug)]
struct Place {
    page: u64,
    at: usize,
    len: usize,
}

/// Pages that are packed.
#[derive(Debug, Default)]
pub(super) struct Packed {
    /// Those that still are.
    left: Pages,
    /// By number.
    places: Vec<Place>,
    pool: Bytes,
    /// Those that were read by who cannot put them where they belong.
    read: RefCell<HashMap<u64, Box<[u8; PAGE_LEN]>, FixedState>>,
}

impl Packed {
    /// Is a page still packed?
    #[inline(always)]
    pub(super) fn has(&self, page: u64) -> bool {
        self.left.has(page)
    }

    pub(super) fn fork(&self) -> Packed {
        let (left, places, pool) = (self.left.clone(), self.places.clone(), self.pool.clone());
        Packed { left, places, pool, read: RefCell::default() }
    }

    /// What a page holds.
    fn page(&self, page: u64) -> Box<[u8; PAGE_LEN]> {
        let mut out = Box::new([0; PAGE_LEN]);
        let place = self.places.binary_search_by_key(&page, |place| place.page);
        let place = place.ok().and_then(|at| self.places.get(at));
        let from = place.and_then(|place| self.pool.get(place.at..place.at.saturating_add(place.len)));
        match from {
            Some(from) if from.len() == PAGE_LEN => out.copy_from_slice(from),
            // It was looked at when it was taken up.
            Some(from) => drop(decompress_into(from, &mut *out)),
            None => {}
        }
        out
    }

    /// Reads of a page that is packed, from an address in physical memory on, and stays so.
    pub(super) fn read(&self, physical: u64, out: &mut [u8]) {
        let mut read = self.read.borrow_mut();
        let page = read.entry(physical >> 12).or_insert_with(|| self.page(physical >> 12));
        let start = (physical & (PAGE - 1)) as usize;
        if let Some(from) = page.get(start..start.saturating_add(out.len())) {
            out.copy_from_slice(from);
        }
    }
}

impl Memory {
    /// Puts a page where it belongs, if it is packed.
    #[inline(always)]
    pub(super) fn unpack(&mut self, page: u64) {
        if self.packed.has(page) {
            self.unpack_slowly(page);
        }
    }

    #[cold]
    fn unpack_slowly(&mut self, page: u64) {
        self.packed.left.remove(page);
        let read = self.packed.read.get_mut().remove(&page);
        let bytes = read.unwrap_or_else(|| self.packed.page(page));
        let start = usize::try_from(page.wrapping_mul(PAGE)).unwrap_or(usize::MAX);
        if let Some(to) = self.physical.get_mut(start..start.saturating_add(PAGE_LEN)) {
            to.copy_from_slice(&*bytes);
        }
    }

    /// Adds its bytes, without those of its snapshots.
    pub(crate) fn keep_whole(&self, out: &mut Vec<u8>) {
        self.regions.keep(out);
        self.ignores_protection.keep(out);
        let (mut places, mut pool) = (Vec::new(), Vec::new());
        let mut room = alloc::vec![0; get_maximum_output_size(PAGE_LEN)];
        let (mut count, mut before) = (0u64, 0);
        for (page, bytes) in (0u64..).zip(self.physical.chunks(PAGE_LEN)) {
            let unpacked = self.packed.has(page).then(|| self.packed.page(page));
            let bytes = unpacked.as_ref().map_or(bytes, |page| &page[..]);
            // What was never written is zero, and so are others.
            if !self.written.has(page) || bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let packed = compress_into(bytes, &mut room).ok().and_then(|len| room.get(..len));
            let packed = packed.filter(|packed| packed.len() < PAGE_LEN).unwrap_or(bytes);
            keep_short(page.wrapping_sub(before), &mut places);
            keep_short(packed.len() as u64, &mut places);
            pool.extend_from_slice(packed);
            (count, before) = (count.wrapping_add(1), page);
        }
        (count, pool.len()).keep(out);
        out.extend(places);
        out.extend(pool);
    }

    /// Takes up a memory of `size` bytes.
    pub(crate) fn take_up(from: &mut Reader, size: u64) -> Option<Memory> {
        let mut memory = Memory::new(size);
        let pages = memory.size() / PAGE;
        for region in Vec::<Region>::take_up(from)? {
            let Region { start, end, physical, protection } = region;
            if !memory.map(start, end.checked_sub(start)?, physical, protection) {
                return None;
            }
        }
        memory.ignores_protection = bool::take_up(from)?;
        let (count, len) = <(u64, usize)>::take_up(from)?;
        let packed = &mut memory.packed;
        packed.left = Pages::new(pages);
        let (mut page, mut at) = (0u64, 0usize);
        for number in 0..count {
            let distance = take_up_short(from)?;
            page =
                page.checked_add(distance).filter(|page| *page < pages && (distance != 0 || number == 0))?;
            let size = usize::try_from(take_up_short(from)?).ok().filter(|size| *size <= PAGE_LEN)?;
            packed.places.push(Place { page, at, len: size });
            packed.left.insert(page);
            at = at.checked_add(size).filter(|at| *at <= len)?;
        }
        packed.pool = from.bytes(len).filter(|_| at == len)?;
        memory.written = packed.left.clone();
        Some(memory)
    }
}
