//! `sort_extable`: the exception table in order of instruction addresses (FIN-1).

use core::cmp::Ordering;

use elf_layout::Module;
use elf_layout::bytes::le32;

use reloc::sort::{Table, sort};

/// Bytes of `struct exception_table_entry`: insn and fixup, both relative to
/// themselves, and 4 bytes that belong to the architecture.
const ENTRY: usize = 12;

/// Sorts `__ex_table` in place.
pub fn sort_extable(module: &mut Module<'_>) {
    let changes = module.info.config.changes();
    let Some(table) = module.section("__ex_table") else { return };
    if let Some(bytes) = module.table_mut(&table) {
        sort(&mut Extable(bytes), changes);
    }
}

struct Extable<'m>(&'m mut [u8]);

impl Extable<'_> {
    /// Address of the instruction, relative to the start of the table.
    fn insn(&self, n: usize) -> i64 {
        let at = (n as u64).wrapping_mul(ENTRY as u64);
        let relative = le32(self.0, at).unwrap_or(0) as i32;
        (at as i64).wrapping_add(i64::from(relative))
    }
}

impl Table for Extable<'_> {
    fn len(&self) -> usize {
        self.0.len() / ENTRY
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        self.insn(a).cmp(&self.insn(b))
    }

    /// What moves stays relative to itself, the rest of the entry moves along.
    fn swap(&mut self, a: usize, b: usize) {
        let (low, high) = (a.min(b), a.max(b));
        let delta = high.wrapping_sub(low).wrapping_mul(ENTRY) as u32;
        let (head, tail) = self.0.split_at_mut(high.wrapping_mul(ENTRY).min(self.0.len()));
        let low = head.get_mut(low.wrapping_mul(ENTRY)..).and_then(|t| t.first_chunk_mut::<ENTRY>());
        let (Some(x), Some(y)) = (low, tail.first_chunk_mut::<ENTRY>()) else {
            return;
        };
        core::mem::swap(x, y);
        shift(x, delta);
        shift(y, delta.wrapping_neg());
    }
}

/// Adds `delta` to insn and fixup of an entry that moved down by that much.
fn shift(entry: &mut [u8; ENTRY], delta: u32) {
    for field in entry.chunks_exact_mut(4).take(2) {
        if let Some(field) = field.first_chunk_mut::<4>() {
            *field = u32::from_le_bytes(*field).wrapping_add(delta).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use elf_layout::{Changes, KernelVersion};

    /// Entries as absolute (insn, fixup, data), relative to the start of the table.
    fn entries(bytes: &[u8]) -> Vec<(i64, i64, u32)> {
        (0..bytes.len() as u64 / 12)
            .map(|n| {
                let at = n * 12;
                let field = |o: u64| i64::from(le32(bytes, at + o).unwrap() as i32) + (at + o) as i64;
                (field(0), field(4), le32(bytes, at + 8).unwrap())
            })
            .collect()
    }

    #[test]
    fn fin_1_sorted_and_still_pointing_at_the_same_places() {
        let wanted: Vec<(i64, i64, u32)> = (0..57).map(|i| (-5000 + i * 37, -90_000 - i, i as u32)).collect();
        for version in [KernelVersion::new(6, 1, 0), KernelVersion::new(6, 12, 0)] {
            let mut bytes = Vec::new();
            // A permutation: 57 and 20 have no common factor.
            for n in 0..57i64 {
                let (insn, fixup, data) = wanted[(n * 20 % 57) as usize];
                let at = n * 12;
                bytes.extend(((insn - at) as i32).to_le_bytes());
                bytes.extend(((fixup - at - 4) as i32).to_le_bytes());
                bytes.extend(data.to_le_bytes());
            }
            sort(&mut Extable(&mut bytes), Changes::of(version));
            assert_eq!(entries(&bytes), wanted, "FIN-1: {version:?}");
        }
    }
}
