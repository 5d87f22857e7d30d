//! Export tables of an image that has neither section headers nor the labels
//! in its kallsyms (IMG-23): records are references to names, so whatever
//! refers to the name of a well-known export is looked at, and extended while
//! the names ascend.

use alloc::vec;
use alloc::vec::Vec;

use memchr::memmem;

use super::{Licence, RECORD, Table, identifier, is_zero, target};
use crate::Error;
use crate::bytes::{cstr, le32, prel32_offset, slice};

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
}

impl Run {
    fn end(&self) -> usize {
        self.at.saturating_add(self.count.saturating_mul(RECORD))
    }
}

pub(super) fn scan(data: &[u8]) -> Result<Vec<Table>, Error> {
    let mut nothing = "none of the symbols that every kernel exports is named in the image";
    for known in KNOWN {
        let places: Vec<usize> = memmem::find_iter(data, known).take(PLACES).collect();
        if places.is_empty() {
            continue;
        }
        nothing = "nothing in the image refers to the names of known exports as export records do";
        for at in references(data, &places).take(REFERENCES) {
            let run = run_around(data, at);
            if run.count >= LEAST {
                return tables(data, run);
            }
        }
    }
    Err(Error::NoExports(nothing))
}

/// All records whose name is at one of `places`.
fn references<'a>(data: &'a [u8], places: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    let span = places.first().copied().unwrap_or(1)..=places.last().copied().unwrap_or(0);
    let words = data.chunks_exact(4).zip((0usize..).step_by(4));
    words.filter_map(move |(word, at)| {
        let to = prel32_offset(at, le32(word, 0)?).filter(|to| span.contains(to))?;
        let record = at.checked_sub(4)?;
        (places.contains(&to) && name(data, record).is_some()).then_some(record)
    })
}

/// The name of the record at `at`, if it can be one. Names follow the tables
/// (IMG-20); a namespace is none, or a string of printable characters.
fn name(data: &[u8], at: usize) -> Option<&[u8]> {
    let name_at = target(data, at.checked_add(4)?)?;
    matches!(name_at.checked_sub(at), Some(RECORD..=STRINGS_REACH)).then_some(())?;
    let name = identifier(data, name_at)?;
    let namespace = at.checked_add(8)?;
    if !is_zero(data, namespace) {
        let text = cstr(data.get(target(data, namespace)?..)?, super::NAME_MAX)?;
        text.iter().all(|b| (b' '..=b'~').contains(b)).then_some(())?;
    }
    Some(name)
}

/// The whole run of ascending records that the one at `at` is in.
fn run_around(data: &[u8], at: usize) -> Run {
    let Some(middle) = name(data, at) else {
        return Run { at, count: 0 };
    };
    let (mut start, mut first) = (at, middle);
    while let Some(before) = start.checked_sub(RECORD) {
        match name(data, before) {
            Some(name) if name < first => (start, first) = (before, name),
            _ => break,
        }
    }
    run_from(data, start)
}

/// The run of ascending records from `at` on.
fn run_from(data: &[u8], at: usize) -> Run {
    let mut run = Run { at, count: 0 };
    let mut last: &[u8] = &[];
    while let Some(name) = name(data, run.end()).filter(|name| *name > last) {
        last = name;
        run.count = run.count.saturating_add(1);
    }
    run
}

/// Plain table, GPL table, CRCs or none, flags or none: told by how many bytes
/// lie between the records and the first of their names (IMG-20, IMG-30, IMG-31).
fn tables(data: &[u8], plain: Run) -> Result<Vec<Table>, Error> {
    let gpl = run_from(data, plain.end());
    let records = plain.count.saturating_add(gpl.count);
    let end = gpl.end();
    let names = (0..records)
        .filter_map(|i| target(data, plain.at.checked_add(i.checked_mul(RECORD)?)?.checked_add(4)?));
    let room = names.min().unwrap_or(end).saturating_sub(end);
    let table =
        |run: Run, crcs: Option<usize>, licence| Table { at: run.at, count: run.count, crcs, licence };
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

/// Is `room` what `size` bytes with alignment take?
fn near(room: usize, size: usize) -> bool {
    room.checked_sub(size).is_some_and(|gap| gap < GAP)
}
