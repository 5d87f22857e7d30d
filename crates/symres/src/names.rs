//! A hash index from names to positions in a table that owns the names.

use core::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Name to table positions; several positions may share a name.
#[derive(Clone, Default)]
pub struct NameIndex {
    table: HashTable<u32>,
    state: RandomState,
    longest: usize,
}

impl core::fmt::Debug for NameIndex {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NameIndex").field("len", &self.table.len()).finish_non_exhaustive()
    }
}

impl NameIndex {
    /// An index with room for `count` names.
    pub fn with_capacity(count: usize) -> Self {
        NameIndex { table: HashTable::with_capacity(count), state: RandomState::default(), longest: 0 }
    }

    fn hash(&self, name: &[u8]) -> u64 {
        hash_name(&self.state, name)
    }

    /// Adds `name` at `position`. `name_of` gives the name at a position that was added before.
    pub fn insert<'n>(&mut self, name: &[u8], position: u32, name_of: impl Fn(u32) -> &'n [u8]) {
        self.longest = self.longest.max(name.len());
        let hash = self.hash(name);
        let state = &self.state;
        self.table.insert_unique(hash, position, |p| hash_name(state, name_of(*p)));
    }

    /// All positions whose name is `name`, in no order.
    pub fn find<'i, 'n: 'i>(
        &'i self,
        name: &'i [u8],
        name_of: impl Fn(u32) -> &'n [u8] + 'i,
    ) -> impl Iterator<Item = u32> + 'i {
        // A name longer than any in the table is not hashed: hostile files hold huge ones.
        let candidates = (name.len() <= self.longest).then(|| self.table.iter_hash(self.hash(name)));
        candidates.into_iter().flatten().copied().filter(move |p| name_of(*p) == name)
    }
}

fn hash_name(state: &RandomState, name: &[u8]) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write(name);
    hasher.finish()
}
