//! A hash index from names to positions in a table that owns the names.
//!
//! It is a few arrays of bytes, so that a SPEC can hold it: whoever reads the SPEC searches it where it lies.

use alloc::vec::Vec;
use core::hash::{BuildHasher, Hasher};

use bytes::Bytes;
use foldhash::fast::RandomState;
use siphasher::sip::SipHasher13;

use crate::parts::{number, parts, record_of, u32_at};

/// No further position of the same name.
const NONE: u32 = u32::MAX;
/// Bytes of an entry: tag, first and last position.
const ENTRY: usize = 12;
/// Names that one bucket of a stored index may hold: who reads it does no more work for one name.
const BUCKET_MAX: u32 = 64;
/// Keys that are tried for a stored index.
const KEYS: u64 = 4;

/// Name to table positions. Positions that share a name form a chain, so that a table of
/// nothing but one name takes no longer to index than any other.
#[derive(Clone, Default)]
pub struct NameIndex {
    /// Of the hash function.
    key: u64,
    /// Bytes of the longest name.
    longest: usize,
    /// There are two to the power of this many buckets: the highest bits of a hash choose one.
    bits: u32,
    /// Where the entries of each bucket begin, and where those of the last one end.
    buckets: Bytes,
    /// The names by bucket: the low half of the hash, first and last position.
    entries: Bytes,
    /// By position: the next one of the same name. Empty if no name is there twice.
    next: Bytes,
}

impl core::fmt::Debug for NameIndex {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NameIndex").field("names", &(self.entries.len() / ENTRY)).finish_non_exhaustive()
    }
}

/// An entry while the index is made.
#[derive(Clone, Copy)]
struct Name {
    tag: u32,
    first: u32,
    last: u32,
}

impl NameIndex {
    /// Indexes `count` positions; `name_of` gives the name at each.
    pub fn new<'n>(count: usize, name_of: impl Fn(u32) -> &'n [u8]) -> Self {
        let key = RandomState::default().build_hasher().finish();
        NameIndex::with_key(key, NONE, count, name_of).unwrap_or_default()
    }

    /// An index that is the same whenever it is made, to be stored. `None` if these names are such that some share too much of
    /// their hashes: then whoever reads the table has to index it.
    pub fn to_store<'n>(count: usize, name_of: impl Fn(u32) -> &'n [u8]) -> Option<Self> {
        (0..KEYS).find_map(|key| NameIndex::with_key(key, BUCKET_MAX, count, &name_of))
    }

    fn with_key<'n>(
        key: u64,
        bucket_max: u32,
        count: usize,
        name_of: impl Fn(u32) -> &'n [u8],
    ) -> Option<Self> {
        let bits = count.next_power_of_two().trailing_zeros();
        let mut index = NameIndex { key, bits, ..NameIndex::default() };
        let hashes: Vec<u64> = (0..NONE).zip(0..count).map(|(p, _)| hash_name(key, name_of(p))).collect();
        // The positions by bucket, in order within each.
        let mut ends = alloc::vec![0u32; (1usize << bits).saturating_add(1)];
        for hash in &hashes {
            if let Some(end) = ends.get_mut(bucket_of(*hash, bits).saturating_add(1)) {
                *end = end.saturating_add(1);
            }
        }
        let mut sum = 0u32;
        for end in &mut ends {
            sum = sum.saturating_add(*end);
            *end = sum;
        }
        let mut places = ends.clone();
        let mut order = alloc::vec![0u32; hashes.len()];
        for (position, hash) in (0..NONE).zip(&hashes) {
            let Some(place) = places.get_mut(bucket_of(*hash, bits)) else { continue };
            if let Some(slot) = order.get_mut(*place as usize) {
                *slot = position;
            }
            *place = place.saturating_add(1);
        }
        // Each name once.
        let mut buckets = Vec::with_capacity(ends.len().saturating_mul(4));
        let mut entries: Vec<u8> = Vec::with_capacity(hashes.len().saturating_mul(ENTRY));
        let mut next: Vec<u32> = Vec::new();
        let mut names: Vec<Name> = Vec::new();
        let mut longest = 0usize;
        buckets.extend_from_slice(&0u32.to_le_bytes());
        for pair in ends.windows(2) {
            let [from, to] = *pair else { continue };
            names.clear();
            for position in order.get(from as usize..to as usize).unwrap_or(&[]) {
                let name = name_of(*position);
                longest = longest.max(name.len());
                let tag = hashes.get(*position as usize).map_or(0, |hash| tag_of(*hash));
                let is_full = names.len() >= bucket_max as usize;
                match names.iter_mut().find(|n| n.tag == tag && name_of(n.first) == name) {
                    Some(known) => {
                        next.resize(hashes.len(), NONE);
                        if let Some(next) = next.get_mut(known.last as usize) {
                            *next = *position;
                        }
                        known.last = *position;
                    }
                    None if is_full => return None,
                    None => names.push(Name { tag, first: *position, last: *position }),
                }
            }
            for Name { tag, first, last } in &names {
                [tag, first, last].iter().for_each(|word| entries.extend_from_slice(&word.to_le_bytes()));
            }
            buckets.extend_from_slice(&number(entries.len() / ENTRY).to_le_bytes());
        }
        index.longest = longest;
        index.buckets = buckets.into();
        index.entries = entries.into();
        index.next = next.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>().into();
        Some(index)
    }

    /// The bytes that [`NameIndex::of_record`] reads.
    pub fn to_record(&self) -> Vec<u8> {
        let head = [self.key, self.longest as u64, u64::from(self.bits)];
        let head: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
        record_of(&[&head, &self.buckets, &self.entries, &self.next])
    }

    /// The index of a table of `count` names that was stored; `None` if it is not such a one. What it says of positions is
    /// looked at when a name is looked up.
    pub fn of_record(record: &Bytes, count: usize) -> Option<Self> {
        let [head, buckets, entries, next] = parts(record)?;
        let word = |at: usize| Some(u64::from_le_bytes(*head.as_chunks::<8>().0.get(at)?));
        let index = NameIndex {
            key: word(0)?,
            longest: usize::try_from(word(1)?).ok()?,
            bits: u32::try_from(word(2)?).ok().filter(|bits| *bits <= 32)?,
            buckets,
            entries,
            next,
        };
        let is_whole = index.entries.len().is_multiple_of(ENTRY)
            && index.entries.len() / ENTRY <= count
            && [0, count.checked_mul(4)?].contains(&index.next.len())
            && index.buckets.len() == (1usize.checked_shl(index.bits)?).checked_add(1)?.checked_mul(4)?;
        let ends = || index.buckets.as_chunks::<4>().0.iter().map(|end| u32::from_le_bytes(*end));
        let last = ends().next_back()?;
        let fits = |(from, to): (u32, u32)| to.checked_sub(from).is_some_and(|len| len <= BUCKET_MAX);
        let is_sound = last as usize == index.entries.len() / ENTRY && ends().zip(ends().skip(1)).all(fits);
        (is_whole && is_sound).then_some(index)
    }

    /// Is no name there twice?
    pub fn is_unique(&self) -> bool {
        self.next.is_empty()
    }

    /// All positions whose name is `name`, in order.
    pub fn find<'i, 'n>(&'i self, name: &[u8], name_of: impl Fn(u32) -> &'n [u8]) -> Positions<'i> {
        let (first, last) = self.ends(name, name_of).unwrap_or((NONE, NONE));
        self.between(first, last)
    }

    /// The positions of one name, by its first and last.
    pub fn between(&self, first: u32, last: u32) -> Positions<'_> {
        Positions { next: &self.next, at: first, last }
    }

    /// The last position whose name is `name`.
    pub fn find_last<'n>(&self, name: &[u8], name_of: impl Fn(u32) -> &'n [u8]) -> Option<u32> {
        self.ends(name, name_of).map(|(_, last)| last)
    }

    /// First and last position of a name.
    pub fn ends<'n>(&self, name: &[u8], name_of: impl Fn(u32) -> &'n [u8]) -> Option<(u32, u32)> {
        // A name longer than any in the table is not hashed: hostile files hold huge ones.
        if name.len() > self.longest || self.entries.is_empty() {
            return None;
        }
        let hash = hash_name(self.key, name);
        let (bucket, tag) = (bucket_of(hash, self.bits), tag_of(hash));
        let ends = self.buckets.as_chunks::<4>().0;
        let end = |at: usize| ends.get(at).map(|end| u32::from_le_bytes(*end) as usize);
        let entries = self.entries.as_chunks::<ENTRY>().0;
        let of_bucket = entries.get(end(bucket)?..end(bucket.checked_add(1)?)?)?;
        of_bucket.iter().find_map(|entry| {
            let word = |at| u32_at(entry, at).unwrap_or(NONE);
            (word(0) == tag && name_of(word(4)) == name).then(|| (word(4), word(8)))
        })
    }
}

/// The positions of one name, in order.
#[derive(Clone, Debug)]
pub struct Positions<'i> {
    next: &'i [u8],
    at: u32,
    last: u32,
}

impl Iterator for Positions<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let at = self.at;
        if at == NONE {
            return None;
        }
        // Most names are there once: then the chain is not looked at. It leads forward, or ends: one that was stored may be wrong.
        let next = || u32_at(self.next, (at as usize).checked_mul(4)?).filter(|next| *next > at);
        self.at = if at == self.last { NONE } else { next().unwrap_or(NONE) };
        Some(at)
    }
}

/// SipHash-1-3: names of hostile files do not meet in one bucket as long as the key is not known.
fn hash_name(key: u64, name: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key, 0);
    hasher.write(name);
    hasher.finish()
}

fn bucket_of(hash: u64, bits: u32) -> usize {
    usize::try_from(hash.checked_shr(64u32.saturating_sub(bits)).unwrap_or(0)).unwrap_or(0)
}

/// The half of a hash that does not choose the bucket.
fn tag_of(hash: u64) -> u32 {
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    const NAMES: [&[u8]; 6] = [b"a", b"b", b"a", b"", b"a", b"b"];

    fn name_of(position: u32) -> &'static [u8] {
        NAMES.get(position as usize).copied().unwrap_or(b"?")
    }

    fn assert_finds(index: &NameIndex) {
        let found = |name: &[u8]| index.find(name, name_of).collect::<Vec<_>>();
        assert_eq!(found(b"a"), [0, 2, 4]);
        assert_eq!(found(b"b"), [1, 5]);
        assert_eq!(found(b""), [3]);
        assert_eq!(index.find_last(b"b", name_of), Some(5));
        assert_eq!(found(b"c"), []);
        assert_eq!(found(b"longer than any"), []);
    }

    #[test]
    fn equal_names_form_a_chain() {
        assert_finds(&NameIndex::new(NAMES.len(), name_of));
        assert_eq!(NameIndex::default().find(b"a", name_of).count(), 0);
    }

    #[test]
    fn one_that_was_stored_finds_the_same() {
        let index = NameIndex::to_store(NAMES.len(), name_of).unwrap();
        let record = Bytes::from(index.to_record());
        assert_finds(&NameIndex::of_record(&record, NAMES.len()).unwrap());
        assert_eq!(NameIndex::to_store(NAMES.len(), name_of).unwrap().to_record(), record, "always the same");
        assert!(NameIndex::of_record(&record, 2).is_none(), "of a smaller table");
        let many: Vec<Vec<u8>> = (0..5000u32).map(|n| n.to_string().into_bytes()).collect();
        let of_many = |p: u32| many.get(p as usize).map_or(&[][..], Vec::as_slice);
        let record = Bytes::from(NameIndex::to_store(many.len(), of_many).unwrap().to_record());
        let index = NameIndex::of_record(&record, many.len()).unwrap();
        assert!(index.is_unique());
        for position in 0..5000u32 {
            assert_eq!(index.find_last(of_many(position), of_many), Some(position));
        }
        assert_eq!(index.find_last(b"5000", of_many), None);
    }

    #[test]
    fn whatever_is_stored_searches_end() {
        let good = NameIndex::to_store(NAMES.len(), name_of).unwrap().to_record();
        for at in 0..good.len() {
            for value in [0, 1, 4, 0xff] {
                let mut record = good.clone();
                record[at] = value;
                let Some(index) = NameIndex::of_record(&record.into(), NAMES.len()) else { continue };
                for name in [&b"a"[..], b"b", b"", b"c"] {
                    assert!(index.find(name, name_of).count() <= NAMES.len() + 1, "byte {at}");
                }
            }
        }
        for len in 0..good.len() {
            let cut = Bytes::copy_from_slice(&good[..len]);
            assert!(NameIndex::of_record(&cut, NAMES.len()).is_none(), "cut at {len}");
        }
    }
}
