//! Which lines of a module's sources were executed, in the format of lcov, which shows them beside the sources.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use gimli::{Dwarf, EndianSlice, LineProgramHeader, LittleEndian, SectionId, Unit};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection};
use run::system::Running;
use run::watch::Loaded;

use super::compared::{Own, linked};
use crate::Error;
use crate::attempt::Failure;

/// Rows of all tables of lines at most.
const ROWS_MAX: usize = 1 << 22;
/// What tables of lines are in.
const TABLES: [&str; 2] = [".debug_line", ".zdebug_line"];

type Slice<'d> = EndianSlice<'d, LittleEndian>;

/// Does a module's file have a table of lines?
pub fn has_lines(file: &[u8]) -> bool {
    let opened = ElfFile64::<object::LittleEndian>::parse(file);
    opened.is_ok_and(|elf| TABLES.iter().any(|name| elf.section_by_name(name).is_some()))
}

/// The lines of the module that has come last, with how often each was executed, in lcov's format. Addresses are found where the kernel's
/// code has put it, by what kmodld itself makes of the same file.
///
/// # Errors
///
/// [`Failure`], if kmodld cannot make it, or if it has no debug information.
pub fn lcov(kernel: &mut dyn Running, own: Own<'_>) -> Result<String, Failure> {
    let name = PathBuf::from(&own.name);
    let unusable = |what: String| Failure::from(Error::unusable(&name, what));
    let (module, _) = linked(kernel, own)?;
    let mut elf = Vec::new();
    module
        .write_elf(&mut elf)
        .map_err(|error| unusable(format!("no ELF file can be made of it: {error}")))?;
    let loaded = kernel.watched().and_then(|watch| watch.loaded.iter().rev().find(|loaded| loaded.watched));
    let rows = rows(&elf).map_err(|error| unusable(format!("its debug information: {error}")))?;
    Ok(told(loaded.unwrap_or(&Loaded::default()), &rows))
}

/// Addresses from and up to, and the line that they are made of.
#[derive(Clone, Debug)]
struct Row {
    start: u64,
    end: u64,
    file: String,
    line: u64,
}

/// The rows of all tables of lines in an ELF file that is linked.
fn rows(elf: &[u8]) -> Result<Vec<Row>, String> {
    let elf = ElfFile64::<object::LittleEndian>::parse(elf).map_err(|error| error.to_string())?;
    let load = |id: SectionId| -> Result<Slice<'_>, gimli::Error> {
        let bytes = elf.section_by_name(id.name()).and_then(|section| section.data().ok());
        Ok(EndianSlice::new(bytes.unwrap_or_default(), LittleEndian))
    };
    let dwarf = Dwarf::load(load).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next().map_err(|error| error.to_string())? {
        let unit = dwarf.unit(header).map_err(|error| error.to_string())?;
        rows_of(&dwarf, &unit, &mut all).map_err(|error| error.to_string())?;
    }
    if all.is_empty() {
        return Err("it has no lines".into());
    }
    Ok(all)
}

fn rows_of(dwarf: &Dwarf<Slice<'_>>, unit: &Unit<Slice<'_>>, all: &mut Vec<Row>) -> Result<(), gimli::Error> {
    let Some(program) = unit.line_program.clone() else { return Ok(()) };
    let mut files = HashMap::new();
    let mut rows = program.rows();
    let mut before: Option<(u64, u64, u64)> = None;
    while let Some((header, row)) = rows.next_row()? {
        if let Some((start, file, line)) = before.take()
            && row.address() > start
            && all.len() < ROWS_MAX
        {
            let file = files.entry(file).or_insert_with(|| path(dwarf, unit, header, file)).clone();
            all.push(Row { start, end: row.address(), file, line });
        }
        if let Some(line) = row.line().filter(|_| !row.end_sequence()) {
            before = Some((row.address(), row.file_index(), line.get()));
        }
    }
    Ok(())
}

/// The path of a file by its number in a table.
fn path(
    dwarf: &Dwarf<Slice<'_>>,
    unit: &Unit<Slice<'_>>,
    header: &LineProgramHeader<Slice<'_>>,
    number: u64,
) -> String {
    let mut path = PathBuf::new();
    let mut push = |part: Option<Slice<'_>>| {
        if let Some(part) = part {
            path.push(&*part.to_string_lossy());
        }
    };
    push(unit.comp_dir);
    if let Some(file) = header.file(number) {
        let text = |value| dwarf.attr_string(unit, value).ok();
        push(file.directory(header).and_then(text));
        push(text(file.path_name()));
    }
    path.display().to_string()
}

/// How often the code of some addresses was executed: that of them which was executed most.
fn count(loaded: &Loaded, start: u64, end: u64) -> u64 {
    let at = |address: u64| {
        // A block has 64 KiB at most.
        let near = loaded.covered.range(address.saturating_sub(1 << 16)..=address);
        let around = near.filter(|(block, (size, _))| address.wrapping_sub(**block) < *size);
        around.fold(0u64, |all, (_, (_, count))| all.saturating_add(*count))
    };
    let begins = loaded.covered.range(start..end.max(start)).map(|(block, _)| *block);
    begins.chain([start]).map(at).max().unwrap_or(0)
}

/// One file.
#[derive(Debug, Default)]
struct Source<'l> {
    lines: BTreeMap<u64, u64>,
    /// Functions: the line that each begins in, its name, and how often it was called.
    functions: BTreeMap<(u64, &'l str), u64>,
}

fn told(loaded: &Loaded, rows: &[Row]) -> String {
    let is_code = |address: u64| loaded.at_first.iter().any(|region| region.code && region.has(address));
    let mut files: BTreeMap<&str, Source<'_>> = BTreeMap::new();
    let mut begins: BTreeMap<u64, &Row> = BTreeMap::new();
    for row in rows.iter().filter(|row| is_code(row.start)) {
        let lines = &mut files.entry(&row.file).or_default().lines;
        let line = lines.entry(row.line).or_default();
        *line = count(loaded, row.start, row.end).max(*line);
        begins.entry(row.start).or_insert(row);
    }
    for symbol in loaded.symbols.iter().filter(|symbol| symbol.size != 0) {
        // The names that init and exit have in every module.
        let is_alias = matches!(symbol.name.as_str(), "init_module" | "cleanup_module")
            && loaded
                .symbols
                .iter()
                .any(|other| other.address == symbol.address && other.name != symbol.name);
        // Some begin with instructions of no line, for who traces them.
        let first = begins.range(symbol.address..symbol.address.saturating_add(symbol.size)).next();
        if let Some((_, row)) = first.filter(|_| !is_alias) {
            let count = count(loaded, symbol.address, row.start.saturating_add(1));
            files.entry(&row.file).or_default().functions.insert((row.line, &symbol.name), count);
        }
    }
    let mut out = String::new();
    for (file, Source { lines, functions }) in files {
        out.push_str(&format!("TN:\nSF:{file}\n"));
        functions.keys().for_each(|(line, name)| out.push_str(&format!("FN:{line},{name}\n")));
        functions.iter().for_each(|((_, name), count)| out.push_str(&format!("FNDA:{count},{name}\n")));
        let hit = |counts: &mut dyn Iterator<Item = &u64>| counts.filter(|count| **count != 0).count();
        out.push_str(&format!("FNF:{}\nFNH:{}\n", functions.len(), hit(&mut functions.values())));
        lines.iter().for_each(|(line, count)| out.push_str(&format!("DA:{line},{count}\n")));
        out.push_str(&format!("LF:{}\nLH:{}\nend_of_record\n", lines.len(), hit(&mut lines.values())));
    }
    out
}

#[cfg(test)]
mod tests {
    use run::watch::{Region, Symbol};

    use super::*;

    #[test]
    fn lines_are_executed_as_often_as_their_code() {
        let mut loaded = Loaded { name: "m".into(), watched: true, ..Loaded::default() };
        loaded.at_first = vec![Region { start: 0x1000, size: 0x100, code: true, init: false, number: 0 }];
        loaded.covered.insert(0x1000, (8, 2));
        loaded.covered.insert(0x1004, (4, 3));
        let symbol = |address, name: &str| Symbol { address, size: 8, name: name.into() };
        loaded.symbols = vec![symbol(0x1000, "f"), symbol(0x1000, "init_module"), symbol(0x1010, "g")];
        let row = |start, end, line| Row { start, end, file: "/a.c".into(), line };
        let rows =
            [row(0x1000, 0x1004, 5), row(0x1004, 0x1008, 6), row(0x1010, 0x1018, 9), row(0x9000, 0x9008, 7)];
        assert_eq!(
            told(&loaded, &rows),
            "TN:\nSF:/a.c\nFN:5,f\nFN:9,g\nFNDA:2,f\nFNDA:0,g\nFNF:2\nFNH:1\nDA:5,2\nDA:6,5\nDA:9,0\nLF:3\nLH:2\nend_of_record\n"
        );
        assert!(!has_lines(b"no ELF file") && rows_are_none(b"no ELF file"));
    }

    fn rows_are_none(file: &[u8]) -> bool {
        super::rows(file).is_err()
    }
}
