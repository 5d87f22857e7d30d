//! `sort_extable`: the exception table in order of instruction addresses (FIN-1).

use core::cmp::Ordering;

use elf_layout::Module;
use elf_layout::bytes::le32;
use kernel::RunningKernel;

use reloc::sort::{Table, sort};
use reloc::{Architecture, ExtableEntry};

/// Sorts `__ex_table` in place.
pub fn sort_extable(module: &mut Module<'_>, kernel: &dyn RunningKernel, arch: &dyn Architecture) {
    let changes = module.info.config.changes();
    let entry = exception_table_entry(kernel, arch.extable(module.info.config));
    let Some(table) = module.section("__ex_table") else { return };
    if let Some(bytes) = module.table_mut(&table) {
        sort(&mut Extable { bytes, entry }, changes);
    }
}

/// The form of an entry: as the kernel's BTF tells it, else `by_version`.
pub fn exception_table_entry(kernel: &dyn RunningKernel, by_version: ExtableEntry) -> ExtableEntry {
    let member = |path| kernel.member("exception_table_entry", path);
    let has_handler = member("handler").is_some();
    match member("fixup").and(kernel.struct_size("exception_table_entry")) {
        Some(8) => ExtableEntry { size: 8, addresses: 2 },
        Some(12) => ExtableEntry { size: 12, addresses: if has_handler { 3 } else { 2 } },
        _ => by_version,
    }
}

struct Extable<'m> {
    bytes: &'m mut [u8],
    entry: ExtableEntry,
}

impl Extable<'_> {
    /// Address of the instruction, relative to the start of the table.
    fn insn(&self, n: usize) -> i64 {
        let at = (n as u64).wrapping_mul(self.entry.size as u64);
        let relative = le32(self.bytes, at).unwrap_or(0) as i32;
        (at as i64).wrapping_add(i64::from(relative))
    }
}

impl Table for Extable<'_> {
    fn len(&self) -> usize {
        self.bytes.len().checked_div(self.entry.size).unwrap_or(0)
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        self.insn(a).cmp(&self.insn(b))
    }

    /// What moves stays relative to itself, the rest of the entry moves along.
    fn swap(&mut self, a: usize, b: usize) {
        let ExtableEntry { size, addresses } = self.entry;
        let (low, high) = (a.min(b), a.max(b));
        let delta = high.wrapping_sub(low).wrapping_mul(size) as u32;
        let (head, tail) = self.bytes.split_at_mut(high.wrapping_mul(size).min(self.bytes.len()));
        let low = head.get_mut(low.wrapping_mul(size)..).and_then(|t| t.get_mut(..size));
        let (Some(x), Some(y)) = (low, tail.get_mut(..size)) else {
            return;
        };
        x.swap_with_slice(y);
        shift(x, addresses, delta);
        shift(y, addresses, delta.wrapping_neg());
    }
}

/// Adds `delta` to the addresses of an entry that moved down by that much.
fn shift(entry: &mut [u8], addresses: usize, delta: u32) {
    for field in entry.as_chunks_mut::<4>().0.iter_mut().take(addresses) {
        *field = u32::from_le_bytes(*field).wrapping_add(delta).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use elf_layout::{Changes, KernelVersion};
    use reloc::testing::TestKernel;

    /// Entries with absolute addresses, relative to the start of the table; what follows these as it is.
    fn entries(bytes: &[u8], form: ExtableEntry) -> Vec<Vec<i64>> {
        let entry = |(n, entry): (usize, &[u8])| {
            let field = |(number, field): (usize, &[u8])| {
                let value = i64::from(i32::from_le_bytes(field.try_into().unwrap()));
                let at = (n * form.size + number * 4) as i64;
                if number < form.addresses { value + at } else { value }
            };
            entry.chunks(4).enumerate().map(field).collect()
        };
        bytes.chunks(form.size).enumerate().map(entry).collect()
    }

    #[test]
    fn fin_1_sorted_and_still_pointing_at_the_same_places() {
        for form in [(12, 2), (12, 3), (8, 2)] {
            let form = ExtableEntry { size: form.0, addresses: form.1 };
            let fields = form.size / 4;
            let wanted: Vec<Vec<i64>> =
                (0..57i64).map(|i| [-5000 + i * 37, -90_000 - i, 7 + i][..fields].to_vec()).collect();
            for version in [KernelVersion::new(6, 1, 0), KernelVersion::new(6, 12, 0)] {
                let mut bytes = Vec::new();
                // A permutation: 57 and 20 have no common factor.
                for n in 0..57 {
                    for (number, value) in wanted[n * 20 % 57].iter().enumerate() {
                        let at = if number < form.addresses { n * form.size + number * 4 } else { 0 };
                        bytes.extend(((value - at as i64) as i32).to_le_bytes());
                    }
                }
                sort(&mut Extable { bytes: &mut bytes, entry: form }, Changes::of(version));
                assert_eq!(entries(&bytes, form), wanted, "FIN-1: {version:?} {form:?}");
            }
        }
    }

    #[test]
    fn fin_1_the_form_of_an_entry_is_the_kernels() {
        let by_version = ExtableEntry { size: 12, addresses: 2 };
        let of = |paths: &'static [&'static str], size| {
            let types: reloc::testing::Types = Vec::leak(Vec::from([("exception_table_entry", paths)]));
            let mut kernel = TestKernel::with_types(types, &[], &[]);
            kernel.listed = &[];
            kernel.types.get_mut("exception_table_entry").unwrap().size = size;
            let entry = exception_table_entry(&kernel, by_version);
            (entry.size, entry.addresses)
        };
        assert_eq!(of(&["insn", "fixup", "handler"], 12), (12, 3), "FIN-1: x86 up to 5.15");
        assert_eq!(of(&["insn", "fixup", "type", "data"], 12), (12, 2), "FIN-1: since 5.16");
        assert_eq!(of(&["insn", "fixup"], 8), (8, 2), "FIN-1: arm64 up to 5.15");
        let entry = exception_table_entry(&TestKernel::default(), by_version);
        assert_eq!(entry, by_version, "FIN-1: without BTF the version decides");
    }
}
