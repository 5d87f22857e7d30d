//! Records of several parts: the length of each in eight bytes, then one after the other. All numbers are little-endian.

use alloc::vec::Vec;

use bytes::Bytes;

/// Joins parts to a record.
pub(crate) fn record_of(parts: &[&[u8]]) -> Vec<u8> {
    let mut record: Vec<u8> = parts.iter().flat_map(|part| (part.len() as u64).to_le_bytes()).collect();
    parts.iter().for_each(|part| record.extend_from_slice(part));
    record
}

/// The parts of a record, without a copy; `None` if they are not all of it.
pub(crate) fn parts<const N: usize>(record: &Bytes) -> Option<[Bytes; N]> {
    let (lengths, _) = record.as_chunks::<8>();
    let mut from = N.checked_mul(8)?;
    let mut all = Vec::with_capacity(N);
    for length in lengths.get(..N)? {
        let to = from.checked_add(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        record.get(from..to)?;
        all.push(record.slice(from..to));
        from = to;
    }
    (from == record.len()).then_some(all)?.try_into().ok()
}

/// Four bytes at a place.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Eight bytes at a place.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// As much of a number as four bytes hold.
pub(crate) fn number(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_its_parts_and_nothing_else() {
        let record = Bytes::from(record_of(&[b"ab", b"", b"c"]));
        assert_eq!(parts(&record), Some([b"ab", &b""[..], b"c"].map(Bytes::copy_from_slice)));
        assert_eq!(parts::<2>(&record), None);
        for len in 0..record.len() {
            assert_eq!(parts::<3>(&record.slice(..len)), None, "cut at {len}");
        }
    }
}
