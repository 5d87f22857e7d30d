//! `lib/sort.c`: an in-place heapsort that is not stable. Tables with equal
//! keys come out in an order that only the same algorithm gives (FIN-9).

use core::cmp::Ordering;

use elf_layout::{Change, Changes};

/// What is sorted: elements are compared and swapped by position.
pub trait Table {
    /// Number of elements.
    fn len(&self) -> usize;
    /// No elements?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Compares two elements.
    fn compare(&self, a: usize, b: usize) -> Ordering;
    /// Swaps two elements.
    fn swap(&mut self, a: usize, b: usize);
}

/// `sort()` of a kernel with these changes.
pub fn sort(table: &mut impl Table, changes: Changes) {
    // Since v6.10 two elements are extracted per step and equal children go right; before that
    // one, and left.
    if changes.has(Change::SortTakesTwo) { sort_two(table) } else { sort_one(table) }
}

/// Up to 6.9.
fn sort_one(table: &mut impl Table) {
    let mut n = table.len();
    for a in (0..n / 2).rev() {
        sift_down(table, a, n, |o| o.is_ge());
    }
    while n > 1 {
        n = n.saturating_sub(1);
        table.swap(0, n);
        sift_down(table, 0, n, |o| o.is_ge());
    }
}

/// From 6.10.
fn sort_two(table: &mut impl Table) {
    let mut n = table.len();
    if n < 2 {
        return;
    }
    for a in (0..n / 2).rev() {
        sift_down(table, a, n, |o| o.is_gt());
    }
    while n > 3 {
        n = n.saturating_sub(1);
        table.swap(0, n);
        // The larger child of the old root is the next largest.
        let next = if table.compare(1, 2).is_le() { 2 } else { 1 };
        n = n.saturating_sub(1);
        table.swap(next, n);
        sift_down(table, next, n, |o| o.is_gt());
        sift_down(table, 0, n, |o| o.is_gt());
    }
    n = n.saturating_sub(1);
    table.swap(0, n);
    if n == 2 && table.compare(0, 1).is_gt() {
        table.swap(0, 1);
    }
}

/// Sifts element `a` of a heap of `n` down: to the leaf along the larger children, then back up to
/// where it belongs. `left` tells whether the left child is taken.
fn sift_down(table: &mut impl Table, a: usize, n: usize, left: impl Fn(Ordering) -> bool) {
    let parent = |b: usize| b.saturating_sub(1) / 2;
    let mut b = a;
    loop {
        let c = b.saturating_mul(2).saturating_add(1);
        let d = c.saturating_add(1);
        if d >= n {
            // A last leaf without a sibling.
            if d == n {
                b = c;
            }
            break;
        }
        b = if left(table.compare(c, d)) { c } else { d };
    }
    while b != a && table.compare(a, b).is_ge() {
        b = parent(b);
    }
    let place = b;
    while b != a {
        b = parent(b);
        table.swap(b, place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use elf_layout::KernelVersion;

    #[derive(Clone)]
    struct Keyed(Vec<(u32, u32)>);

    impl Table for Keyed {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn compare(&self, a: usize, b: usize) -> Ordering {
            self.0[a].0.cmp(&self.0[b].0)
        }
        fn swap(&mut self, a: usize, b: usize) {
            self.0.swap(a, b);
        }
    }

    #[test]
    fn fin_9_sorts_at_every_length() {
        let mut state = 7u32;
        for len in 0..200u32 {
            let keys: Vec<(u32, u32)> = (0..len)
                .map(|i| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 28, i)
                })
                .collect();
            for version in [KernelVersion::new(6, 1, 0), KernelVersion::new(6, 12, 0)] {
                let mut table = Keyed(keys.clone());
                sort(&mut table, Changes::of(version));
                assert!(table.0.is_sorted_by_key(|k| k.0), "FIN-9: {len} elements, {version:?}");
                let mut all = table.0.clone();
                all.sort_by_key(|k| k.1);
                assert_eq!(all, keys, "FIN-9: nothing lost");
            }
        }
    }

    #[test]
    fn fin_9_order_of_equal_keys() {
        // From a transcription of lib/sort.c of either kernel that is proven on captured tables.
        let (old, new) = (KernelVersion::new(6, 1, 0), KernelVersion::new(6, 12, 0));
        let keys = [0, 2, 0, 1, 0, 1, 1, 1, 2, 1, 0, 0];
        let cases: [(KernelVersion, &[u32], &[u32]); 6] = [
            (old, &[0; 3], &[1, 2, 0]),
            (old, &[0; 7], &[1, 2, 3, 4, 5, 6, 0]),
            (old, &keys, &[11, 0, 10, 4, 2, 6, 5, 9, 3, 7, 8, 1]),
            (new, &[0; 3], &[2, 1, 0]),
            (new, &[0; 7], &[3, 1, 4, 5, 6, 2, 0]),
            (new, &keys, &[4, 2, 10, 11, 0, 7, 3, 9, 5, 6, 8, 1]),
        ];
        for (version, keys, want) in cases {
            let mut table = Keyed(keys.iter().copied().zip(0..).collect());
            sort(&mut table, Changes::of(version));
            let order: Vec<u32> = table.0.iter().map(|k| k.1).collect();
            assert_eq!(order, want, "FIN-9: {version:?}, keys {keys:?}");
        }
    }
}
