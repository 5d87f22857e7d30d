//! The symbols of a kernel, by name and by address.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::hash::BuildHasher;

use foldhash::fast::FixedState;

use crate::kept::kept;

/// How far behind a symbol an address may lie and still be told by it.
const FAR: u64 = 1 << 20;

/// No symbol.
const NONE: u32 = u32::MAX;

/// The symbols of a kernel image.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    /// Their names, one behind the other, in the order of their addresses.
    names: String,
    /// Sorted by address: where a symbol lies, and where its name ends.
    by_address: Vec<(u64, u32)>,
    /// A hash table of numbers of symbols, by name: a symbol lies in the slot of its hash, or in the next one that was free.
    by_name: Vec<u32>,
}

kept!(Symbols { names, by_address, by_name });

impl Symbols {
    /// Of a name that occurs several times the first is taken.
    pub fn new<'n>(all: impl Iterator<Item = (u64, &'n [u8])>) -> Self {
        let mut all: Vec<(u64, usize, Cow<'n, str>)> = all
            .enumerate()
            .map(|(number, (address, name))| (address, number, String::from_utf8_lossy(name)))
            .collect();
        all.sort_by_key(|(address, number, _)| (*address, *number));
        let mut symbols = Symbols::default();
        for (address, _, name) in &all {
            symbols.names.push_str(name);
            // A kernel's names have some megabytes.
            symbols.by_address.push((*address, u32::try_from(symbols.names.len()).unwrap_or(u32::MAX)));
        }
        // The first ones come first.
        let mut order: Vec<(usize, u32)> = all.iter().map(|(_, number, _)| *number).zip(0u32..).collect();
        order.sort_unstable();
        symbols.by_name = vec![NONE; all.len().saturating_mul(2).next_power_of_two()];
        for (_, number) in order {
            let slot = symbols.slot(symbols.name(number));
            if let Some(slot) = symbols.by_name.get_mut(slot).filter(|slot| **slot == NONE) {
                *slot = number;
            }
        }
        symbols
    }

    /// The name of a symbol by its number.
    fn name(&self, number: u32) -> &str {
        let number = number as usize;
        let end = |number: usize| self.by_address.get(number).map_or(0, |(_, end)| *end as usize);
        let start = number.checked_sub(1).map_or(0, end);
        self.names.get(start..end(number)).unwrap_or_default()
    }

    /// The slot with a name, or the free one where it would be.
    fn slot(&self, name: &str) -> usize {
        let mask = self.by_name.len().wrapping_sub(1);
        let mut slot = FixedState::default().hash_one(name) as usize & mask;
        // Half of the slots are free.
        for _ in 0..self.by_name.len() {
            match self.by_name.get(slot) {
                Some(number) if *number != NONE && self.name(*number) != name => {
                    slot = slot.wrapping_add(1) & mask;
                }
                _ => break,
            }
        }
        slot
    }

    /// The address of a symbol.
    pub fn address(&self, name: &str) -> Option<u64> {
        let number = self.by_name.get(self.slot(name)).filter(|number| **number != NONE)?;
        self.by_address.get(*number as usize).map(|(address, _)| *address)
    }

    /// The next address that another symbol has.
    pub fn next(&self, address: u64) -> Option<u64> {
        let at = self.by_address.partition_point(|(other, _)| *other <= address);
        self.by_address.get(at).map(|(address, _)| *address)
    }

    /// The symbol at an address, or before it, and how far. `None` where none is near.
    pub fn lookup(&self, address: u64) -> Option<(&str, u64)> {
        let at = self.by_address.partition_point(|(other, _)| *other <= address);
        let (start, _) = self.by_address.get(at.checked_sub(1)?)?;
        let first = self.by_address.partition_point(|(other, _)| other < start);
        let offset = address.wrapping_sub(*start);
        (offset < FAR).then(|| (self.name(first as u32), offset))
    }

    /// An address as the kernel prints it: `symbol+0x10`, or the number.
    pub fn text(&self, address: u64) -> String {
        match self.lookup(address) {
            Some((name, 0)) => String::from(name),
            Some((name, offset)) => format!("{name}+{offset:#x}"),
            None => format!("{address:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_by_the_symbol_before_them() {
        let all = [(0x30, "c"), (0x10, "a"), (0x10, "b"), (0x40, "a")];
        let symbols = Symbols::new(all.iter().map(|(address, name)| (*address, name.as_bytes())));
        assert_eq!(symbols.address("a"), Some(0x10), "the first of its name");
        assert_eq!(symbols.text(0x10), "a");
        assert_eq!(symbols.text(0x2f), "a+0x1f");
        assert_eq!(symbols.text(0xf), "0xf");
        assert_eq!(symbols.text(0x40 + FAR), "0x100040");
        assert_eq!((symbols.next(0x10), symbols.next(0x40)), (Some(0x30), None));
        assert_eq!((symbols.address("d"), Symbols::default().address("a")), (None, None));
    }

    #[test]
    fn names_of_many_are_found_by_their_hash() {
        let all: Vec<(u64, String)> = (0..3000u64).map(|n| (n * 7919 % 3001, format!("s{n}"))).collect();
        let symbols = Symbols::new(all.iter().map(|(address, name)| (*address, name.as_bytes())));
        for (address, name) in &all {
            assert_eq!(symbols.address(name), Some(*address));
            assert_eq!(symbols.lookup(*address), Some((name.as_str(), 0)));
        }
        assert_eq!(symbols.address("s3000"), None);
    }
}
