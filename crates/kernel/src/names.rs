//! A hash index from names to positions in a table that owns the names.

use alloc::vec::Vec;
use core::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// No further position of the same name.
const NONE: u32 = u32::MAX;

/// Name to table positions. Positions that share a name form a chain, so that a table of
/// nothing but one name takes no longer to index than any other.
#[derive(Clone, Default)]
pub struct NameIndex {
    /// First and last position of each name.
    table: HashTable<(u32, u32)>,
    /// By position: the next one of the same name. Empty if no name is there twice.
    next: Vec<u32>,
    count: usize,
    state: RandomState,
    longest: usize,
}

impl core::fmt::Debug for NameIndex {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NameIndex").field("len", &self.count).finish_non_exhaustive()
    }
}

impl NameIndex {
    /// Indexes `count` positions; `name_of` gives the name at each.
    pub fn new<'n>(count: usize, name_of: impl Fn(u32) -> &'n [u8]) -> Self {
        let mut index = NameIndex {
            table: HashTable::with_capacity(count),
            next: Vec::new(),
            count,
            state: RandomState::default(),
            longest: 0,
        };
        for (position, _) in (0..NONE).zip(0..count) {
            let name = name_of(position);
            index.longest = index.longest.max(name.len());
            let state = &index.state;
            let same = |entry: &(u32, u32)| name_of(entry.0) == name;
            let rehash = |entry: &(u32, u32)| hash_name(state, name_of(entry.0));
            match index.table.entry(hash_name(state, name), same, rehash) {
                Entry::Vacant(vacant) => {
                    vacant.insert((position, position));
                }
                Entry::Occupied(mut occupied) => {
                    index.next.resize(count, NONE);
                    let (_, last) = occupied.get_mut();
                    if let Some(next) = index.next.get_mut(*last as usize) {
                        *next = position;
                    }
                    *last = position;
                }
            }
        }
        index
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
        if name.len() > self.longest || self.table.is_empty() {
            return None;
        }
        let hash = hash_name(&self.state, name);
        self.table.find(hash, |entry| name_of(entry.0) == name).copied()
    }
}

/// The positions of one name, in order.
#[derive(Clone, Debug)]
pub struct Positions<'i> {
    next: &'i [u32],
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
        // Most names are there once: then the chain is not looked at.
        let next = || self.next.get(at as usize).copied().unwrap_or(NONE);
        self.at = if at == self.last { NONE } else { next() };
        Some(at)
    }
}

fn hash_name(state: &RandomState, name: &[u8]) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write(name);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_form_a_chain() {
        let names: [&[u8]; 6] = [b"a", b"b", b"a", b"", b"a", b"b"];
        let name_of = |p: u32| names[p as usize];
        let index = NameIndex::new(names.len(), name_of);
        let found = |name: &[u8]| index.find(name, name_of).collect::<Vec<_>>();
        assert_eq!(found(b"a"), [0, 2, 4]);
        assert_eq!(found(b"b"), [1, 5]);
        assert_eq!(found(b""), [3]);
        assert_eq!(index.find_last(b"b", name_of), Some(5));
        assert_eq!(found(b"c"), []);
        assert_eq!(found(b"longer than any"), []);
        assert_eq!(NameIndex::default().find(b"a", name_of).count(), 0);
    }
}
