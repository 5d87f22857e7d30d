//! The symbols of a kernel, by name and by address.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// How far behind a symbol an address may lie and still be told by it.
const FAR: u64 = 1 << 20;

/// The symbols of a kernel image.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    by_name: HashMap<String, u64, FixedState>,
    /// Sorted by address.
    by_address: Vec<(u64, String)>,
}

impl Symbols {
    /// Of a name that occurs several times the first is taken.
    pub fn new<'n>(all: impl Iterator<Item = (u64, &'n [u8])>) -> Self {
        let mut symbols = Symbols::default();
        for (address, name) in all {
            let name = String::from_utf8_lossy(name).into_owned();
            symbols.by_address.push((address, name.clone()));
            symbols.by_name.entry(name).or_insert(address);
        }
        symbols.by_address.sort_by_key(|(address, _)| *address);
        symbols
    }

    /// The address of a symbol.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
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
        let (start, name) = self.by_address.get(first)?;
        let offset = address.wrapping_sub(*start);
        (offset < FAR).then_some((name.as_str(), offset))
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
    }
}
