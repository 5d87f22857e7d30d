//! What the kernel exports to modules (spec 09 §9.4).

mod record;
mod scan;

use alloc::vec::Vec;
use core::fmt;

use crate::Error;
use crate::bytes::{cstr, le32, prel32_offset};
use crate::elf::Elf;
use crate::kallsyms::Kallsyms;
use crate::memory::Memory;
use record::Form;

/// Longest name or namespace that is believed.
const NAME_MAX: usize = 512;
/// Most records of one table that are believed.
const COUNT_MAX: usize = 1 << 20;

/// One exported symbol of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Export<'i> {
    /// Its name.
    pub name: &'i [u8],
    /// Its link address; a per-cpu symbol's offset where per-cpu symbols are absolute.
    pub address: u64,
    /// Its CRC, if the kernel has MODVERSIONS (IMG-30).
    pub crc: Option<u32>,
    /// Exported to GPL-compatible modules only.
    pub gpl_only: bool,
    /// Its namespace; `None` if it has none or an empty one (IMG-25).
    pub namespace: Option<&'i [u8]>,
}

/// How the tables were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExportSource {
    /// By the ELF's sections.
    Sections,
    /// By the linker's labels in kallsyms.
    Symbols,
    /// By looking for records that name known symbols (IMG-23).
    Scan,
}

impl fmt::Display for ExportSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ExportSource::Sections => "by their sections",
            ExportSource::Symbols => "by the linker's labels",
            ExportSource::Scan => "by records that name symbols",
        })
    }
}

/// A table of records, and the CRCs beside it. All are file offsets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    at: usize,
    count: usize,
    form: Form,
    crcs: Option<usize>,
    licence: Licence,
}

/// To whom the symbols of a table are exported.
#[derive(Clone, Copy, Debug)]
enum Licence {
    All,
    GplOnly,
    /// As the flag bytes say that stand there (SYM-39, 7.1 and later).
    Flags(usize),
}

/// All exports of an image.
#[derive(Clone, Debug)]
pub struct Exports<'i> {
    source: ExportSource,
    records: Vec<Export<'i>>,
}

impl<'i> Exports<'i> {
    /// How the tables were found.
    pub fn source(&self) -> ExportSource {
        self.source
    }

    /// Number of exports.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// No exports at all?
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The exports in the order in which the kernel looks them up: the plain
    /// table, then the GPL one, each sorted by name (SYM-30, SYM-33).
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Export<'i>> + '_ {
        self.records.iter().copied()
    }
}

impl<'d> Exports<'d> {
    pub(crate) fn find(
        data: &'d [u8],
        memory: &Memory,
        elf: Option<&Elf>,
        kallsyms: Option<&Kallsyms>,
    ) -> Result<Exports<'d>, Error> {
        let by_section = || Some((ExportSource::Sections, by_section(data, memory, elf?)));
        let by_symbol = || Some((ExportSource::Symbols, by_symbol(data, memory, kallsyms?)));
        let some = |found: &(ExportSource, Vec<Table>)| !found.1.is_empty();
        let found = by_section().filter(some).or_else(|| by_symbol().filter(some));
        let (source, tables) = match found {
            Some(found) => found,
            None => (ExportSource::Scan, scan::scan(data, memory)?),
        };
        let reader = Reader { data, memory, crcs_are_places: crcs_look_like_places(data, &tables) };
        let mut records = Vec::new();
        for table in &tables {
            let damaged = |what, index: usize| {
                let address = memory.address_of(table.at).unwrap_or(0);
                Error::DamagedExports { what, address, index: index as u64 }
            };
            if table.count > COUNT_MAX {
                return Err(damaged("endless records", table.count));
            }
            records.reserve(table.count);
            for index in 0..table.count {
                match reader.record(table, index) {
                    Some(record) if !record.name.is_empty() => records.push(record),
                    Some(_) => return Err(damaged("an empty name", index)),
                    None => return Err(damaged("a name, namespace or CRC outside the image", index)),
                }
            }
        }
        Ok(Exports { source, records })
    }
}

/// Reads records of one image.
struct Reader<'d, 'm> {
    data: &'d [u8],
    memory: &'m Memory,
    crcs_are_places: bool,
}

impl<'d> Reader<'d, '_> {
    /// SYM-35, SYM-36.
    fn record(&self, table: &Table, index: usize) -> Option<Export<'d>> {
        let at = table.at.checked_add(index.checked_mul(table.form.size())?)?;
        let fields = table.form.read(self.data, self.memory, at)?;
        let gpl_only = match table.licence {
            Licence::All => false,
            Licence::GplOnly => true,
            Licence::Flags(flags) => *self.data.get(flags.checked_add(index)?)? & 1 != 0,
        };
        let crc = match table.crcs {
            Some(crcs) => Some(self.crc(crcs.checked_add(index.checked_mul(4)?)?)?),
            None => None,
        };
        Some(Export { name: fields.name, address: fields.value, crc, gpl_only, namespace: fields.namespace })
    }

    fn crc(&self, at: usize) -> Option<u32> {
        match self.crcs_are_places {
            true => le32(self.data, target(self.data, at)?),
            false => le32(self.data, at),
        }
    }
}

/// With CONFIG_MODULE_REL_CRCS (up to 5.18) the table holds PREL32 references
/// to the CRCs. Real CRCs all over a table never all point into the file at
/// multiples of four.
fn crcs_look_like_places(data: &[u8], tables: &[Table]) -> bool {
    const ENOUGH: usize = 32;
    let mut seen = 0usize;
    for table in tables {
        let Some(crcs) = table.crcs else { return false };
        for at in (0..table.count).map(|i| crcs.saturating_add(i.saturating_mul(4))) {
            if target(data, at).is_none_or(|place| place % 4 != 0) {
                return false;
            }
            seen = seen.saturating_add(1);
        }
    }
    seen >= ENOUGH
}

/// IMG-22: section headers say it all.
fn by_section(data: &[u8], memory: &Memory, elf: &Elf) -> Vec<Table> {
    let range = |name: &[u8]| elf.section(data, name).map(|s| (s.offset, s.size));
    tables(data, memory, |suffix, what| match (suffix, what) {
        (false, Part::Records) => range(b"__ksymtab"),
        (true, Part::Records) => range(b"__ksymtab_gpl"),
        (false, Part::Crcs) => range(b"__kcrctab"),
        (true, Part::Crcs) => range(b"__kcrctab_gpl"),
        (_, Part::Flags) => range(b"__kflagstab"),
    })
}

/// IMG-22: with KALLSYMS_ALL the linker's labels are there.
fn by_symbol(data: &[u8], memory: &Memory, kallsyms: &Kallsyms) -> Vec<Table> {
    const LABELS: [(bool, Part, &[u8], &[u8]); 5] = [
        (false, Part::Records, b"__start___ksymtab", b"__stop___ksymtab"),
        (true, Part::Records, b"__start___ksymtab_gpl", b"__stop___ksymtab_gpl"),
        (false, Part::Crcs, b"__start___kcrctab", b"__stop___kcrctab"),
        (true, Part::Crcs, b"__start___kcrctab_gpl", b"__stop___kcrctab_gpl"),
        (false, Part::Flags, b"__start___kflagstab", b"__stop___kflagstab"),
    ];
    let mut at = [(None, None); LABELS.len()];
    for symbol in kallsyms.iter().filter(|s| s.name.starts_with(b"__st")) {
        for ((start, stop), (_, _, start_label, stop_label)) in at.iter_mut().zip(LABELS) {
            if symbol.name == start_label {
                start.get_or_insert(symbol.address);
            } else if symbol.name == stop_label {
                stop.get_or_insert(symbol.address);
            }
        }
    }
    tables(data, memory, |gpl, part| {
        let ((start, stop), _) =
            at.iter().zip(LABELS).find(|(_, label)| label.0 == gpl && label.1 == part)?;
        let (offset, left) = memory.locate((*start)?)?;
        let len = usize::try_from((*stop)?.checked_sub((*start)?)?).ok()?;
        (len <= left).then_some((offset, len))
    })
}

/// The arrays that belong together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Records,
    Crcs,
    Flags,
}

/// Puts the tables together from (offset, length) of each part, plain or GPL.
fn tables(data: &[u8], memory: &Memory, part: impl Fn(bool, Part) -> Option<(usize, usize)>) -> Vec<Table> {
    let mut all = Vec::new();
    for gpl in [false, true] {
        let Some((at, len)) = part(gpl, Part::Records) else {
            continue;
        };
        let form = Form::of_table(data, memory, at, len, part(gpl, Part::Crcs).map(|(_, len)| len));
        let count = len.checked_div(form.size()).unwrap_or(0);
        let enough = |each: usize| move |(_, len): &(usize, usize)| *len >= count.saturating_mul(each);
        let crcs = part(gpl, Part::Crcs).filter(enough(4)).map(|(at, _)| at);
        // SYM-39: where there are flags, they have the licence.
        let licence = match part(false, Part::Flags).filter(enough(1)) {
            Some((flags, _)) if !gpl => Licence::Flags(flags),
            _ if gpl => Licence::GplOnly,
            _ => Licence::All,
        };
        if count != 0 {
            all.push(Table { at, count, form, crcs, licence });
        }
    }
    all
}

/// The identifier at file offset `at`, if one stands there.
fn identifier(data: &[u8], at: usize) -> Option<&[u8]> {
    let name = cstr(data.get(at..)?, NAME_MAX)?;
    let first = name.first()?;
    let word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$');
    (!first.is_ascii_digit() && name.iter().all(word)).then_some(name)
}

/// File offset that the PREL32 at file offset `at` points to, in one piece of file.
fn target(data: &[u8], at: usize) -> Option<usize> {
    prel32_offset(at, le32(data, at)?).filter(|to| *to < data.len())
}

/// Does a zero stand at `at`?
fn is_zero(data: &[u8], at: usize) -> bool {
    le32(data, at) == Some(0)
}
