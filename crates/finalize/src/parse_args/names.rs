//! Which parameter a name means (PARAM-15); the level of a module's parameter always fits
//! (PARAM-16). The kernel compares every record with every token;
//! here names are indexed once, and no byte of the file is read more often than a few times,
//! however many records point at it.

use alloc::collections::{BTreeMap, BTreeSet};
use core::cmp::Ordering;

use elf_layout::ModuleFile;
use elf_layout::params::{ParamTable, Place};

/// A name; `-` equals `_`. Ordered by length first, so that names of different length are told
/// apart without a look at them.
#[derive(Clone, Copy, Debug)]
struct Folded<'a>(&'a [u8]);

impl Folded<'_> {
    fn letters(&self) -> impl Iterator<Item = u8> {
        self.0.iter().map(|c| if *c == b'-' { b'_' } else { *c })
    }
}

impl Ord for Folded<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.letters().cmp(other.letters()))
    }
}

impl PartialOrd for Folded<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Folded<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Folded<'_> {}

/// The names of a module's parameters.
#[derive(Debug, Default)]
pub struct Names<'d> {
    records: BTreeMap<Folded<'d>, (u64, &'d [u8])>,
}

impl<'d> Names<'d> {
    /// Of all records whose name can be told from the file.
    pub fn new(file: &'d ModuleFile<'d>, table: &ParamTable<'d>) -> Self {
        let mut strings = Strings { file, ends: BTreeMap::new() };
        let mut seen = BTreeSet::new();
        let mut records = BTreeMap::new();
        for n in 0..table.len() {
            // PARAM-15: the first match counts.
            if let Some(place) = table.name(n).filter(|place| seen.insert(*place))
                && let Some(name) = strings.at(place)
            {
                records.entry(Folded(name)).or_insert((n, name));
            }
        }
        Names { records }
    }

    /// Number and own name of the record that `name` means.
    pub fn find(&self, name: &[u8]) -> Option<(u64, &'d [u8])> {
        self.records.get(&Folded(name)).copied()
    }
}

/// Strings of a file whose ends are looked for only once: names may overlap.
struct Strings<'d> {
    file: &'d ModuleFile<'d>,
    /// Places of NULs (or section ends), and from where on there is none before.
    ends: BTreeMap<Place, u64>,
}

impl<'d> Strings<'d> {
    fn at(&mut self, (section, offset): Place) -> Option<&'d [u8]> {
        let bytes = self.file.section_bytes(section);
        let tail = bytes.get(usize::try_from(offset).ok()?..)?;
        let next = self.ends.range((section, offset)..).next();
        let next = next.filter(|((s, _), _)| *s == section).map(|((_, end), from)| (*end, *from));
        let unknown = match next {
            Some((end, from)) if from <= offset => return head(tail, end, offset),
            Some((_, from)) => head(tail, from, offset)?,
            None => tail,
        };
        let end = match (unknown.iter().position(|c| *c == 0), next) {
            (Some(nul), _) => offset.checked_add(nul as u64)?,
            (None, Some((end, _))) => end,
            (None, None) => bytes.len() as u64,
        };
        self.ends.insert((section, end), offset);
        head(tail, end, offset)
    }
}

/// What of `tail`, which begins at `offset`, lies before `end`.
fn head(tail: &[u8], end: u64, offset: u64) -> Option<&[u8]> {
    tail.get(..usize::try_from(end.checked_sub(offset)?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;
    use elf_layout::validity::{Expected, elf_validity};
    use elf_layout::{Findings, KernelConfig, KernelVersion};
    use testkit::elf::{ALLOC, Builder, EM_X86_64, ET_REL, LOCAL, Rela};

    /// A file of nothing but parameters, whose names begin at these offsets of `strings`.
    fn module(strings: &[u8], names: &[u64]) -> Vec<u8> {
        let mut b = Builder::new(ET_REL, EM_X86_64);
        b.section("__param", ALLOC, 8).zeros(names.len() as u64 * 40);
        b.section(".rodata", ALLOC, 1).data(strings.to_vec());
        let rodata = b.index(".rodata");
        let symbol = b.symbol("", LOCAL, 3, rodata, 0);
        let record = |(n, name): (u64, &u64)| Rela { offset: n * 40, kind: 1, symbol, addend: *name as i64 };
        b.relocations("__param", &(0..).zip(names).map(record).collect::<Vec<_>>());
        b.build()
    }

    fn with_names<T>(strings: &[u8], names: &[u64], then: impl FnOnce(&Names<'_>) -> T) -> T {
        let bytes = module(strings, names);
        let config = KernelConfig::new(KernelVersion::new(6, 1, 0));
        let expected =
            Expected { config: &config, machine: None, known: reloc::MACHINES, ignore_modversions: false };
        let file = elf_validity(&bytes, &expected, &mut Findings::new()).unwrap();
        assert_eq!(file.section_name(1), b"__param");
        let table = ParamTable::new(&file, 1);
        assert_eq!(table.len(), names.len() as u64);
        then(&Names::new(&file, &table))
    }

    #[test]
    fn param_15_names_that_overlap_and_repeat() {
        let strings = b"abc\0ab-c\0ab_c\0\0unterminated";
        let names = [1, 0, 4, 9, 0, 13, 14, 2, 3, 5, 15, 20, 26, 27, 99, 16];
        with_names(strings, &names, |names| {
            for (name, want) in [
                ("abc", Some(1)),
                ("bc", Some(0)),
                ("c", Some(7)),
                ("", Some(5)),
                ("ab_c", Some(2)),
                ("ab-c", Some(2)),
                ("b-c", Some(9)),
                ("unterminated", Some(10)),
                ("inated", None),
                ("nated", None),
                ("minated", Some(11)),
                ("d", Some(12)),
                ("nterminated", Some(15)),
                ("ab", None),
                ("abcd", None),
            ] {
                assert_eq!(names.find(name.as_bytes()).map(|f| f.0), want, "PARAM-15: {name:?}");
            }
            assert_eq!(
                names.find(b"ab_c").map(|f| f.1),
                Some(&b"ab-c"[..]),
                "PARAM-15: the record's own name"
            );
        });
    }

    #[test]
    fn param_15_many_long_names_are_indexed_in_time() {
        // Every name is a suffix of the same long one, in an order that does not help.
        let mut strings = alloc::vec![b'a'; 1 << 20];
        strings.push(0);
        let names: Vec<u64> = (0..100_000u64).map(|n| n * 7919 % (1 << 20)).collect();
        with_names(&strings, &names, |names| {
            assert_eq!(names.find(&strings[..1 << 20]).map(|f| f.0), Some(0), "PARAM-15");
            assert_eq!(names.find(&strings[7919..1 << 20]).map(|f| f.0), Some(1), "PARAM-15");
        });
        // Many records of few long names that differ in their last letter.
        let long = "a".repeat(1 << 16);
        let strings = format!("{long}b\0{long}c\0{long}d\0");
        let names: Vec<u64> = (0..100_000u64).map(|n| n % 3 * ((1 << 16) + 2)).collect();
        with_names(strings.as_bytes(), &names, |names| {
            assert_eq!(names.find(format!("{long}d").as_bytes()).map(|f| f.0), Some(2), "PARAM-15");
        });
    }
}
