//! Memory that a kernel asks for: what is free is never given out again, so that late uses of freed memory harm nothing else.

use alloc::vec::Vec;

use crate::kept::{Kept, Reader, keep_short, take_up_short};

/// A piece of memory.
#[derive(Clone, Copy, Debug)]
struct Object {
    address: u64,
    size: u64,
    freed: bool,
}

/// Addresses in a row, given out one after the other.
#[derive(Clone, Debug, Default)]
pub struct Heap {
    next: u64,
    end: u64,
    /// In the order of their addresses.
    objects: Vec<Object>,
    /// Numbers of the objects that were freed, in that order.
    freed: Vec<u32>,
    /// Bytes between two objects at least.
    gap: u64,
}

/// Bytes between two objects at least, so that they do not touch one another.
const GAP: u64 = 16;

/// A state of a heap to go back to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    next: u64,
    objects: usize,
    freed: usize,
}

impl Heap {
    /// The addresses from `start` up to `end`.
    pub fn new(start: u64, end: u64) -> Self {
        Heap { next: start, end, gap: GAP, ..Heap::default() }
    }

    /// `size` bytes at a multiple of `align`, a power of two. `None`: there is no room.
    pub fn take(&mut self, size: u64, align: u64) -> Option<u64> {
        let address = self.next.checked_add(align.wrapping_sub(1))? & !align.wrapping_sub(1);
        let size = size.max(1);
        let next = address.checked_add(size)?.checked_add(self.gap)?;
        if next > self.end {
            return None;
        }
        self.next = next;
        self.objects.push(Object { address, size, freed: false });
        Some(address)
    }

    fn find(&self, address: u64) -> Option<usize> {
        self.objects.binary_search_by_key(&address, |object| object.address).ok()
    }

    /// The size of what begins at an address and is not freed.
    pub fn size(&self, address: u64) -> Option<u64> {
        let object = self.objects.get(self.find(address)?)?;
        (!object.freed).then_some(object.size)
    }

    /// Where the object begins that an address lies in, free or not.
    pub fn around(&self, address: u64) -> Option<u64> {
        let at = self.objects.partition_point(|object| object.address <= address);
        let object = self.objects.get(at.checked_sub(1)?)?;
        (address.wrapping_sub(object.address) < object.size).then_some(object.address)
    }

    /// Sets how many bytes there are between objects from now on, and no fewer than ever.
    pub fn set_gap(&mut self, bytes: u64) {
        self.gap = bytes.max(GAP);
    }

    /// Of an object, which may be free: its size, and where the one before ends.
    pub fn place(&self, address: u64) -> Option<(u64, u64)> {
        let at = self.find(address)?;
        let end = |object: &Object| object.address.saturating_add(object.size);
        let before = at.checked_sub(1).and_then(|before| self.objects.get(before)).map_or(0, end);
        Some((self.objects.get(at)?.size, before))
    }

    /// False if nothing begins there, or if it is free already.
    pub fn free(&mut self, address: u64) -> bool {
        let Some(at) = self.find(address) else { return false };
        let Some(object) = self.objects.get_mut(at).filter(|object| !object.freed) else { return false };
        object.freed = true;
        self.freed.extend(u32::try_from(at));
        true
    }

    /// The bytes that are in use, and how many pieces.
    pub fn in_use(&self) -> (u64, usize) {
        let used = self.objects.iter().filter(|object| !object.freed);
        used.fold((0, 0), |(bytes, count), object| {
            (object.size.saturating_add(bytes), 1usize.saturating_add(count))
        })
    }

    /// What was taken since a mark and is not freed: address and size.
    pub fn taken_since(&self, mark: Mark) -> impl Iterator<Item = (u64, u64)> {
        let since = self.objects.get(mark.objects..).unwrap_or_default();
        since.iter().filter(|object| !object.freed).map(|object| (object.address, object.size))
    }

    /// The state as it is now.
    pub fn mark(&self) -> Mark {
        Mark { next: self.next, objects: self.objects.len(), freed: self.freed.len() }
    }

    /// Goes back to an earlier state.
    pub fn back_to(&mut self, mark: Mark) {
        for at in self.freed.drain(mark.freed.min(self.freed.len())..) {
            if let Some(object) = self.objects.get_mut(at as usize) {
                object.freed = false;
            }
        }
        self.objects.truncate(mark.objects);
        self.next = mark.next;
    }
}

/// Objects are kept by how far each lies from the one before: there are very many.
impl Kept for Heap {
    fn keep(&self, out: &mut Vec<u8>) {
        self.next.keep(out);
        self.end.keep(out);
        self.objects.len().keep(out);
        let mut before = 0;
        for object in &self.objects {
            keep_short(object.address.wrapping_sub(before), out);
            keep_short(object.size, out);
            before = object.address;
        }
        self.freed.len().keep(out);
        self.freed.iter().for_each(|number| keep_short((*number).into(), out));
    }

    fn take_up(from: &mut Reader) -> Option<Self> {
        let mut heap = Heap::new(u64::take_up(from)?, u64::take_up(from)?);
        let mut address = 0u64;
        for number in 0..usize::take_up(from)? {
            let distance = take_up_short(from)?;
            address = address.checked_add(distance).filter(|_| number == 0 || distance != 0)?;
            heap.objects.push(Object { address, size: take_up_short(from)?, freed: false });
        }
        for _ in 0..usize::take_up(from)? {
            let number = u32::try_from(take_up_short(from)?).ok()?;
            heap.objects.get_mut(number as usize).filter(|object| !object.freed)?.freed = true;
            heap.freed.push(number);
        }
        Some(heap)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pieces_are_aligned_apart_and_known() {
        let mut heap = Heap::new(0x1001, 0x2000);
        let a = heap.take(3, 16).unwrap();
        let b = heap.take(0x100, 0x100).unwrap();
        assert_eq!((a, b), (0x1010, 0x1100));
        assert_eq!((heap.size(a), heap.size(b), heap.size(b + 1)), (Some(3), Some(0x100), None));
        assert_eq!((heap.around(a + 2), heap.around(a + 3), heap.around(b + 9)), (Some(a), None, Some(b)));
        assert!(heap.free(a) && !heap.free(a) && !heap.free(7));
        assert_eq!((heap.size(a), heap.in_use()), (None, (0x100, 1)));
        assert_eq!(heap.take(0x1000, 16), None);
        assert_eq!(heap.take(u64::MAX, 16), None);
    }

    #[test]
    fn a_mark_brings_all_of_it_back() {
        let mut heap = Heap::new(0x1000, 0x9000);
        let a = heap.take(1, 16).unwrap();
        let mark = heap.mark();
        let b = heap.take(2, 16).unwrap();
        assert!(heap.free(a) && heap.free(b));
        let c = heap.take(5, 16).unwrap();
        assert_eq!(heap.taken_since(mark).collect::<Vec<_>>(), [(c, 5)]);
        heap.back_to(mark);
        assert_eq!((heap.size(a), heap.size(b), heap.in_use()), (Some(1), None, (1, 1)));
        assert_eq!(heap.take(2, 16), Some(b));
    }

    #[test]
    fn it_is_kept_whole() {
        let mut heap = Heap::new(0x1000, 0x9000);
        let a = heap.take(1, 16).unwrap();
        let b = heap.take(0x200, 64).unwrap();
        assert!(heap.free(a));
        let mut bytes = Vec::new();
        heap.keep(&mut bytes);
        let mut taken = Heap::take_up(&mut Reader::new(bytes.into())).unwrap();
        assert_eq!((taken.size(a), taken.size(b)), (None, Some(0x200)));
        assert_eq!(taken.take(5, 16), heap.take(5, 16));
        taken.back_to(Mark { next: 0x1001, objects: 1, freed: 0 });
        assert_eq!(taken.size(a), Some(1), "what was freed is known in its order");
    }
}
