//! What a dump is read from.

use alloc::vec::Vec;

use elf_layout::bytes::slice;

/// A file, or whatever else holds a dump. Whoever has files implements it; it is read piece by piece, from several threads.
pub trait ReadAt: Sync {
    /// Bytes in all; `u64::MAX` if that is not known.
    fn size(&self) -> u64;

    /// Fills `out` with what is at `offset`; false if not all of it can be read.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> bool;

    /// `N` bytes at `offset`.
    fn array<const N: usize>(&self, offset: u64) -> Option<[u8; N]>
    where
        Self: Sized,
    {
        let mut out = [0; N];
        self.read_at(offset, &mut out).then_some(out)
    }

    /// At most `len` bytes at `offset`: those up to the end of the file.
    fn up_to(&self, offset: u64, len: usize) -> Vec<u8>
    where
        Self: Sized,
    {
        let left = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut out = alloc::vec![0; len.min(left)];
        if !self.read_at(offset, &mut out) {
            out.clear();
        }
        out
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> bool {
        let bytes = slice(self, offset, out.len() as u64);
        bytes.map(|bytes| out.copy_from_slice(bytes)).is_some()
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> bool {
        self.as_slice().read_at(offset, out)
    }
}

impl<R: ReadAt + ?Sized> ReadAt for &R {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> bool {
        (**self).read_at(offset, out)
    }
}

/// `SIGNATURE` of makedumpfile's flattened format, and the size of its header.
const SIGNATURE: &[u8; 16] = b"makedumpfile\0\0\0\0";
const HEADER: u64 = 4096;
/// More records than this has no dump.
const RECORDS_MAX: usize = 1 << 24;

/// A record of a flattened file.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// Offset in the file that was flattened.
    offset: u64,
    /// How many bytes.
    size: u64,
    /// Where they are.
    at: u64,
}

/// A file that was written as a stream of records, each with the offset where its bytes belong (makedumpfile -F, QEMU).
#[derive(Debug)]
pub struct Flattened<R> {
    inner: R,
    /// By offset; they do not overlap.
    records: Vec<Record>,
    size: u64,
}

/// Does a file begin as a flattened one?
pub fn is_flattened(file: &(impl ReadAt + ?Sized)) -> bool {
    let mut magic = [0; 16];
    file.read_at(0, &mut magic) && &magic == SIGNATURE
}

impl<R: ReadAt> Flattened<R> {
    /// Indexes the records. What follows a damaged one is left out.
    pub fn new(inner: R) -> Self {
        let mut records = Vec::new();
        let (mut at, mut end) = (HEADER, 0u64);
        while let Some([offset, size]) = inner.array::<16>(at).and_then(|raw| {
            let (offset, size) = raw.split_first_chunk::<8>()?;
            Some([u64::from_be_bytes(*offset), u64::from_be_bytes(*size.first_chunk::<8>()?)])
        }) {
            let data = at.saturating_add(16);
            let (Some(next), Some(stop)) = (data.checked_add(size), offset.checked_add(size)) else { break };
            // The last record has -1 for both.
            if offset >> 63 != 0 || size == 0 || records.len() >= RECORDS_MAX {
                break;
            }
            // What is cut off has no bytes there.
            let size = size.min(inner.size().saturating_sub(data));
            records.push(Record { offset, size, at: data });
            end = end.max(stop);
            at = next;
        }
        Flattened { inner, records: without_overlaps(records), size: end }
    }
}

/// Pieces of the records by offset, where a later record comes before an earlier one.
fn without_overlaps(mut records: Vec<Record>) -> Vec<Record> {
    let in_order = |pair: &[Record]| {
        let [a, b] = pair else { return true };
        a.offset.saturating_add(a.size) <= b.offset
    };
    if records.windows(2).all(in_order) {
        return records;
    }
    // Headers are written once more at the end: only these lie over others. Newest first, each takes what is left free.
    let mut taken = alloc::collections::BTreeMap::<u64, Record>::new();
    while let Some(record) = records.pop() {
        let end = record.offset.saturating_add(record.size);
        let mut from = record.offset;
        if let Some((_, before)) = taken.range(..=from).next_back() {
            from = from.max(before.offset.saturating_add(before.size));
        }
        while from < end {
            let next =
                taken.range(from..end).next().map(|(_, r)| (r.offset, r.offset.saturating_add(r.size)));
            let (until, then) = next.unwrap_or((end, end));
            if from < until {
                let at = record.at.saturating_add(from.saturating_sub(record.offset));
                taken.insert(from, Record { offset: from, size: until.saturating_sub(from), at });
            }
            from = then;
        }
    }
    taken.into_values().collect()
}

impl<R: ReadAt> ReadAt for Flattened<R> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> bool {
        let Some(end) = offset.checked_add(out.len() as u64).filter(|end| *end <= self.size) else {
            return false;
        };
        // What no record holds is zero.
        out.fill(0);
        let first = self.records.partition_point(|r| r.offset.saturating_add(r.size) <= offset);
        for record in self.records.get(first..).unwrap_or(&[]).iter().take_while(|r| r.offset < end) {
            let from = record.offset.max(offset);
            let until = record.offset.saturating_add(record.size).min(end);
            let at = record.at.saturating_add(from.saturating_sub(record.offset));
            let place = usize::try_from(from.saturating_sub(offset)).ok();
            let len = usize::try_from(until.saturating_sub(from)).ok();
            let part = place.zip(len).and_then(|(place, len)| out.get_mut(place..)?.get_mut(..len));
            if !part.is_some_and(|part| self.inner.read_at(at, part)) {
                return false;
            }
        }
        true
    }
}
