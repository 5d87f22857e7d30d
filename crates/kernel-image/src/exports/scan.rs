//! Export tables of an image that has neither section headers nor the labels
//! in its kallsyms (IMG-23): records are references to names, so whatever
//! refers to the name of a well-known export is looked at, and extended while
//! the names ascend.

use alloc::vec;
use alloc::vec::Vec;

use memchr::memmem;

use super::record::Form;
use super::{Licence, Table, identifier, is_zero, target};
use crate::Error;
use crate::bytes::{cstr, le32, prel32_offset, slice};
use crate::memory::Memory;

/// Exports that every kernel has, without GPL restriction.
const KNOWN: [&[u8]; 5] =
    [b"module_layout\0", b"memcpy\0", b"strlen\0", b"kfree\0", b"register_chrdev_region\0"];
/// Places of one name that are tried: it may be the tail of others (IMG-24).
const PLACES: usize = 32;
/// References to them that are tried.
const REFERENCES: usize = 1 << 14;
/// Fewer exports than this are no kernel's.
const LEAST: usize = 100;
/// The strings begin at most so far behind the tables.
const STRINGS_REACH: usize = 64 << 20;
/// Alignment between the tables and behind them.
const GAP: usize = 64;

/// A run of records with ascending names.
#[derive(Clone, Copy)]
struct Run {
    at: usize,
    count: usize,
    form: Form,
}

impl Run {
    fn end(&self) -> usize {
        self.at.saturating_add(self.count.saturating_mul(self.form.size()))
    }
}

/// An image that is looked through for records of one form.
#[derive(Clone, Copy)]
struct Scan<'d, 'm> {
    data: &'d [u8],
    memory: &'m Memory,
    form: Form,
}

pub(super) fn scan(data: &[u8], memory: &Memory) -> Result<Vec<Table>, Error> {
    let mut nothing = "none of the symbols that every kernel exports is named in the image";
    for form in Form::ALL {
        let scan = Scan { data, memory, form };
        for known in KNOWN {
            let places: Vec<usize> = memmem::find_iter(data, known).take(PLACES).collect();
            if places.is_empty() {
                continue;
            }
            nothing = "nothing in the image refers to the names of known exports as export records do";
            for at in scan.references(&places) {
                let run = scan.run_around(at);
                if run.count >= LEAST {
                    return scan.tables(run);
                }
            }
        }
    }
    Err(Error::NoExports(nothing))
}

impl<'d> Scan<'d, '_> {
    /// Records whose name is at one of `places`: so many at most.
    fn references(&self, places: &[usize]) -> Vec<usize> {
        match self.form {
            Form::Namespaced | Form::Relative => self.relative_references(places),
            Form::Pointers => self.pointers(places),
        }
    }

    fn relative_references(&self, places: &[usize]) -> Vec<usize> {
        let span = places.first().copied().unwrap_or(1)..=places.last().copied().unwrap_or(0);
        let words = self.data.chunks_exact(4).zip((0usize..).step_by(4));
        let records = words.filter_map(|(word, at)| {
            let to = prel32_offset(at, le32(word, 0)?).filter(|to| span.contains(to))?;
            let record = at.checked_sub(self.form.name_at())?;
            (places.contains(&to) && self.name(record).is_some()).then_some(record)
        });
        records.take(REFERENCES).collect()
    }

    /// Those before 4.19: a pointer stands there, or a relocation fills it in (KSYM-12).
    fn pointers(&self, places: &[usize]) -> Vec<usize> {
        let mut records = Vec::new();
        for address in places.iter().filter_map(|place| self.memory.address_of(*place)) {
            let stand = memmem::find_iter(self.data, &address.to_le_bytes()).collect::<Vec<_>>();
            let filled = self.memory.rela.to(self.data, address);
            let filled = filled.filter_map(|at| Some(self.memory.locate(at)?.0));
            let at = stand.into_iter().chain(filled).filter_map(|at| at.checked_sub(self.form.name_at()));
            let room = REFERENCES.saturating_sub(records.len());
            records.extend(at.filter(|record| self.name(*record).is_some()).take(room));
        }
        records
    }

    /// The name of the record at `at`, if it can be one. Names follow the tables
    /// (IMG-20); a namespace is none, or a string of printable characters.
    fn name(&self, at: usize) -> Option<&'d [u8]> {
        if self.form == Form::Pointers {
            return identifier(self.data, self.name_place(at)?);
        }
        let name_at = target(self.data, at.checked_add(self.form.name_at())?)?;
        let distance = name_at.checked_sub(at)?;
        (self.form.size()..=STRINGS_REACH).contains(&distance).then_some(())?;
        let name = identifier(self.data, name_at)?;
        let namespace = at.checked_add(8)?;
        if self.form == Form::Namespaced && !is_zero(self.data, namespace) {
            let text = cstr(self.data.get(target(self.data, namespace)?..)?, super::NAME_MAX)?;
            text.iter().all(|b| (b' '..=b'~').contains(b)).then_some(())?;
        }
        Some(name)
    }

    /// The whole run of ascending records that the one at `at` is in.
    fn run_around(&self, at: usize) -> Run {
        let Some(middle) = self.name(at) else {
            return Run { at, count: 0, form: self.form };
        };
        let (mut start, mut first, mut twice) = (at, middle, false);
        while let Some(before) = start.checked_sub(self.form.size()) {
            match self.name(before) {
                Some(name) if name < first || name == first && !twice => {
                    (start, first, twice) = (before, name, name == first);
                }
                _ => break,
            }
        }
        self.run_from(start)
    }

    /// The run of ascending records from `at` on. A name may be there twice: arm64's copy_page, memcpy and memset are in 5.10.
    fn run_from(&self, at: usize) -> Run {
        let mut run = Run { at, count: 0, form: self.form };
        let (mut last, mut twice): (&[u8], bool) = (&[], true);
        while let Some(name) = self.name(run.end()) {
            if name < last || name == last && twice {
                break;
            }
            (last, twice) = (name, name == last);
            run.count = run.count.saturating_add(1);
        }
        run
    }

    /// File offset of the name of the record at `at`.
    fn name_place(&self, at: usize) -> Option<usize> {
        match self.form {
            Form::Namespaced | Form::Relative => target(self.data, at.checked_add(self.form.name_at())?),
            Form::Pointers => self.form.name_place(self.data, self.memory, at),
        }
    }

    /// Plain table, GPL table, CRCs or none, flags or none: told by how many bytes
    /// lie between the records and the first of their names (IMG-20, IMG-30, IMG-31).
    fn tables(&self, plain: Run) -> Result<Vec<Table>, Error> {
        let data = self.data;
        let gpl = self.run_from(plain.end());
        let records = plain.count.saturating_add(gpl.count);
        let end = gpl.end();
        let names = (0..records)
            .filter_map(|i| self.name_place(plain.at.checked_add(i.checked_mul(self.form.size())?)?));
        let room = names.min().unwrap_or(end).saturating_sub(end);
        let table = |run: Run, crcs: Option<usize>, licence| Table {
            at: run.at,
            count: run.count,
            form: run.form,
            crcs,
            licence,
        };
        if gpl.count == 0 {
            let flags = end.saturating_add(records.saturating_mul(4));
            let are_flags = slice(data, flags, records).is_some_and(|f| f.iter().all(|b| *b <= 1));
            if are_flags && near(room, records.saturating_mul(5)) {
                return Ok(vec![table(plain, Some(end), Licence::Flags(flags))]);
            }
            return Err(Error::NoExports(
                "one table of ascending names: where the GPL-only ones begin cannot be told",
            ));
        }
        let crcs = if near(room, records.saturating_mul(4)) {
            Some(end)
        } else if near(room, 0) {
            None
        } else {
            return Err(Error::NoExports("ascending records, but neither CRCs nor names follow them"));
        };
        let gpl_crcs = crcs.map(|at| at.saturating_add(plain.count.saturating_mul(4)));
        Ok(vec![table(plain, crcs, Licence::All), table(gpl, gpl_crcs, Licence::GplOnly)])
    }
}

/// Is `room` what `size` bytes with alignment take?
fn near(room: usize, size: usize) -> bool {
    room.checked_sub(size).is_some_and(|gap| gap < GAP)
}
