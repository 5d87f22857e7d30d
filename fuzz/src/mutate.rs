//! How good inputs are changed: modules by their structure, texts by lines and words, everything else by bytes.
//! The same generator gives the same mutants.

use fastrand::Rng;
use testkit::elf::damaged::{EHDR, SHDR, Section, number, put, sections};
use testkit::elf::{NOBITS, RELA, SYMTAB};

use crate::words::MODINFO;

/// No mutant is larger.
const SIZE_MAX: usize = 1 << 18;

/// Numbers at which arithmetic goes wrong.
const EDGES: [u64; 28] = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    0x18,
    0x40,
    0x7f,
    0x80,
    0xff,
    0xff00,
    0xff20,
    0xfff1,
    0xfff2,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
    0xffff_ffff_8100_0000,
    u64::MAX,
    u64::MAX - 15,
    u64::MAX - 4095,
];

/// Sections that are tables, with the size of a record: what a loader walks.
const TABLES: [(&[u8], usize); 32] = [
    (b"__versions", 64),
    (b"__version_ext_crcs", 4),
    (b"__ksymtab", 12),
    (b"__ksymtab_gpl", 12),
    (b"__kcrctab", 4),
    (b"__kcrctab_gpl", 4),
    (b"__kflagstab", 1),
    (b".gnu.linkonce.this_module", 8),
    (b"__param", 40),
    (b"__ex_table", 12),
    (b"__bug_table", 12),
    (b"__jump_table", 16),
    (b".altinstructions", 14),
    (b".static_call_sites", 8),
    (b".static_call.text", 8),
    (b".retpoline_sites", 4),
    (b".return_sites", 4),
    (b".call_sites", 4),
    (b".ibt_endbr_seal", 4),
    (b".parainstructions", 16),
    (b".smp_locks", 4),
    (b".orc_unwind", 6),
    (b".orc_unwind_ip", 4),
    (b"__mcount_loc", 8),
    (b"__patchable_function_entries", 8),
    (b"__tracepoints_ptrs", 4),
    (b"_ftrace_events", 8),
    (b"_ftrace_eval_map", 8),
    (b"__dyndbg", 56),
    (b".plt", 4),
    (b".data..percpu", 8),
    (b"__bpf_raw_tp_map", 32),
];

fn of<'c, T>(random: &mut Rng, choices: &'c [T]) -> &'c T {
    &choices[random.usize(..choices.len())]
}

/// An edge, a small number, something near what is there, or anything.
fn value(random: &mut Rng, now: u64) -> u64 {
    match random.u8(..8) {
        0..3 => *of(random, &EDGES),
        3 => random.u64(..256),
        4 => now.wrapping_add(random.u64(..17)).wrapping_sub(8),
        5 => now ^ (1 << random.u64(..64)),
        6 => now.wrapping_shl(random.u32(..64)),
        _ => random.u64(..),
    }
}

fn change(random: &mut Rng, file: &mut [u8], at: usize, width: usize) {
    let now = number(file, at, width).unwrap_or(0);
    put(file, at, width, value(random, now));
}

/// A changed module. What is where comes from the good file, so that many changes can meet in one mutant.
pub fn module(random: &mut Rng, good: &[u8], other: &[u8]) -> Vec<u8> {
    let mut file = good.to_vec();
    let sections = sections(good);
    for _ in 0..*of(random, &[1, 1, 1, 1, 2, 2, 3, 5, 12]) {
        if sections.is_empty() {
            return blob(random, &file, other);
        }
        match random.u8(..32) {
            0 => {
                let (at, width) = *of(random, &EHDR);
                change(random, &mut file, at, width);
            }
            1..5 => header(random, &mut file, &sections),
            5..9 => symbol(random, &mut file, &sections),
            9..14 => relocation(random, &mut file, &sections),
            14..17 => modinfo(random, &mut file, &sections),
            17..24 => table(random, &mut file, &sections),
            24..27 => {
                // Anywhere in a section.
                let bytes = &of(random, &sections).bytes;
                if !bytes.is_empty() {
                    let at = random.usize(bytes.clone());
                    let width = *of(random, &[1, 2, 4, 8]);
                    change(random, &mut file, at, width);
                }
            }
            27 => graft(random, &mut file, &sections, other),
            28 => swap_headers(random, &mut file, &sections),
            29 => name(random, &mut file, &sections),
            30 if random.bool() => append(random, &mut file, &sections),
            30 => nobits(random, &mut file, &sections),
            _ => file = bytes(random, file, other),
        }
    }
    file.truncate(SIZE_MAX);
    file
}

/// A field of a section header.
fn header(random: &mut Rng, file: &mut [u8], sections: &[Section]) {
    let section = of(random, sections);
    let (field, (offset, width)) = {
        let field = random.usize(..SHDR.len());
        (field, SHDR[field])
    };
    let at = section.header + offset;
    let now = number(file, at, width).unwrap_or(0);
    let new = match (field, random.u8(..4)) {
        // The field of another section: names that mean something, places that overlap.
        (_, 0) => number(file, of(random, sections).header + offset, width).unwrap_or(0),
        (1, 1) => *of(random, &[0, 1, 2, 3, 4, 7, 8, 9, 14]),
        (2, _) => now ^ of(random, &[1, 2, 4, 0x10, 0x200, 0x10_0000, 0x20_0000]),
        (3..6, 1) => (file.len() as u64).wrapping_sub(random.u64(..2)),
        (4 | 5, 2) => random.u64(..file.len().max(1) as u64),
        (6 | 7, 1) => random.u64(..sections.len() as u64 + 2),
        (8, 1 | 2) => 1 << random.u64(..64),
        _ => value(random, now),
    };
    put(file, at, width, new);
}

fn swap_headers(random: &mut Rng, file: &mut [u8], sections: &[Section]) {
    let (one, two) = (of(random, sections).header, of(random, sections).header);
    for at in 0..64 {
        let copy = random.u8(..8) != 0;
        if let (Some(a), Some(b)) = (file.get(one + at).copied(), file.get(two + at).copied()) {
            file[one + at] = b;
            if copy {
                file[two + at] = a;
            }
        }
    }
}

/// Start of a record of a random table of that type.
fn record(random: &mut Rng, sections: &[Section], kind: u32, size: usize) -> Option<usize> {
    let tables: Vec<&Section> = sections.iter().filter(|s| s.kind == kind && s.bytes.len() >= size).collect();
    let table = tables.get(random.usize(..tables.len().max(1)))?;
    Some(table.bytes.start + size * random.usize(..table.bytes.len() / size))
}

fn symbol(random: &mut Rng, file: &mut [u8], sections: &[Section]) {
    let Some(at) = record(random, sections, SYMTAB, 24) else { return };
    let Some(donor) = record(random, sections, SYMTAB, 24) else { return };
    match random.u8(..7) {
        0 => change(random, file, at, 4),
        1 => put(file, at, 4, number(file, donor, 4).unwrap_or(0)),
        2 => put(file, at + 4, 1, (random.u64(..4) << 4) | random.u64(..12)),
        3 => {
            let shndx = match random.u8(..3) {
                0 => random.u64(..sections.len() as u64 + 2),
                _ => *of(random, &[0, 0xfff1, 0xfff2, 0xff00, 0xff20, 0xffff]),
            };
            put(file, at + 6, 2, shndx);
        }
        4 => change(random, file, at + 8, 8),
        5 => change(random, file, at + 16, 8),
        _ => copy(file, donor, at, 24),
    }
}

fn relocation(random: &mut Rng, file: &mut [u8], sections: &[Section]) {
    let Some(at) = record(random, sections, RELA, 24) else { return };
    let Some(donor) = record(random, sections, RELA, 24) else { return };
    match random.u8(..8) {
        0 | 1 => change(random, file, at, 8),
        2 => put(file, at + 8, 4, random.u64(..44)),
        3 => put(file, at + 8, 4, 256 + random.u64(..60)),
        4 => change(random, file, at + 12, 4),
        5 => put(file, at + 12, 4, number(file, donor + 12, 4).unwrap_or(0)),
        6 => change(random, file, at + 16, 8),
        _ => copy(file, donor, at, 24),
    }
}

/// A string of `.modinfo`: replaced by one that means something, torn, or doubled.
fn modinfo(random: &mut Rng, file: &mut [u8], sections: &[Section]) {
    let Some(section) = sections.iter().find(|s| s.name == b".modinfo" && !s.bytes.is_empty()) else {
        return;
    };
    let Some(bytes) = file.get_mut(section.bytes.clone()) else { return };
    let starts: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes[*at] != 0 && (*at == 0 || bytes[*at - 1] == 0)).collect();
    let Some(start) = starts.get(random.usize(..starts.len().max(1))).copied() else { return };
    let length = bytes[start..].iter().position(|b| *b == 0).unwrap_or(bytes.len() - start);
    match random.u8(..5) {
        0..3 => {
            // Over the string and whatever follows it; what is left of a longer one becomes zero.
            let word = of(random, MODINFO).as_bytes();
            let room = &mut bytes[start..];
            let len = word.len().min(room.len());
            room[..len].copy_from_slice(&word[..len]);
            room[len..].iter_mut().take(length.saturating_sub(len)).for_each(|b| *b = 0);
        }
        3 => bytes[start + random.usize(..length)] = *of(random, b"\0=\n\xff "),
        _ => {
            let end = (start + length).min(bytes.len() - 1);
            bytes[end] = random.u8(..);
        }
    }
}

/// A record of one of the tables that the loader walks.
fn table(random: &mut Rng, file: &mut [u8], sections: &[Section]) {
    let known = |s: &Section| {
        let table = TABLES.iter().find(|(name, _)| *name == s.name);
        table.map(|(_, size)| (s.bytes.clone(), *size)).filter(|(bytes, size)| bytes.len() >= *size)
    };
    let tables: Vec<_> = sections.iter().filter_map(known).collect();
    let Some((bytes, size)) = tables.get(random.usize(..tables.len().max(1))).cloned() else { return };
    let count = bytes.len() / size;
    let at = bytes.start + size * random.usize(..count);
    match random.u8(..8) {
        0..5 => {
            let width = *of(random, &[1, 2, 4, 8]);
            let offset = random.usize(..size) / width * width;
            change(random, file, at + offset, width);
        }
        5 => copy(file, bytes.start + size * random.usize(..count), at, size),
        6 => {
            let byte = *of(random, &[0, 0xff, 0x41]);
            if let Some(record) = file.get_mut(at..at + size) {
                record.fill(byte);
            }
        }
        _ => {
            // A table that ends inside of a record.
            if let Some(section) = sections.iter().find(|s| s.bytes == bytes) {
                put(file, section.header + 32, 8, random.u64(..=bytes.len() as u64));
            }
        }
    }
}

/// A section's bytes become those of the other module's section of that name.
fn graft(random: &mut Rng, file: &mut [u8], sections: &[Section], other: &[u8]) {
    let section = of(random, sections);
    let donors = testkit::elf::damaged::sections(other);
    let Some(donor) = donors.iter().find(|d| d.name == section.name) else { return };
    let len = donor.bytes.len().min(section.bytes.len());
    let range = section.bytes.start..section.bytes.start + len;
    if let (Some(room), Some(from)) = (file.get_mut(range), other.get(donor.bytes.clone())) {
        room.copy_from_slice(&from[..len]);
    }
}

/// A section gets the name of a table, in place of its own: in the name table, so that others may share it.
fn name(random: &mut Rng, file: &mut [u8], sections: &[Section]) {
    let index = number(file, 62, 2).unwrap_or(0) as usize;
    let Some(names) = sections.get(index).map(|s| s.bytes.clone()) else { return };
    let section = of(random, sections);
    let offset = number(file, section.header, 4).unwrap_or(0) as usize;
    let (table, _) = of(random, &TABLES);
    let room = names.start.saturating_add(offset)..names.end;
    if let Some(room) = file.get_mut(room).filter(|room| room.len() > table.len()) {
        room[..table.len()].copy_from_slice(table);
        room[table.len()] = 0;
    }
}

/// A section, often a table, becomes one without bytes, and a large one.
fn nobits(random: &mut Rng, file: &mut [u8], sections: &[Section]) {
    let tables: Vec<&Section> =
        sections.iter().filter(|s| TABLES.iter().any(|(name, _)| *name == s.name)).collect();
    let any = of(random, sections);
    let section = tables.get(random.usize(..tables.len() + 2)).copied().unwrap_or(any);
    put(file, section.header + 4, 4, u64::from(NOBITS));
    put(file, section.header + 32, 8, (1 << random.u64(8..32)) + random.u64(..9));
}

/// A section moves to the end of the file, with more or less bytes than it had: room for longer tables.
fn append(random: &mut Rng, file: &mut Vec<u8>, sections: &[Section]) {
    let section = of(random, sections);
    let old = file.get(section.bytes.clone()).unwrap_or_default().to_vec();
    if old.is_empty() || file.len() > SIZE_MAX / 2 {
        return;
    }
    let times = *of(random, &[1, 2, 3, 16]);
    let mut new = old.repeat(times.min(1 + 0x1_0000 / old.len()));
    new.truncate(new.len() - random.usize(..old.len().min(9)));
    file.resize(file.len().next_multiple_of(16), 0);
    let at = file.len() as u64;
    let size = new.len() as u64;
    file.append(&mut new);
    put(file, section.header + 24, 8, at);
    put(file, section.header + 32, 8, size);
}

fn copy(file: &mut [u8], from: usize, to: usize, len: usize) {
    if from + len <= file.len() && to + len <= file.len() {
        file.copy_within(from..from + len, to);
    }
}

/// So many times, or as often as fits into 16 KiB.
fn repeated(piece: &[u8], times: usize) -> Vec<u8> {
    piece.repeat(times.min(1 + 0x4000 / piece.len().max(1)))
}

/// Changed bytes of an unknown structure.
pub fn blob(random: &mut Rng, good: &[u8], other: &[u8]) -> Vec<u8> {
    let mut file = good.to_vec();
    for _ in 0..*of(random, &[1, 1, 1, 2, 3, 8, 32]) {
        file = bytes(random, file, other);
    }
    file.truncate(SIZE_MAX);
    file
}

/// One change of bytes.
fn bytes(random: &mut Rng, mut file: Vec<u8>, other: &[u8]) -> Vec<u8> {
    if file.is_empty() {
        return other.to_vec();
    }
    let at = random.usize(..file.len());
    let len = 1 + random.usize(..(file.len() - at).min(256));
    match random.u8(..12) {
        0 | 1 => file[at] ^= 1 << random.u8(..8),
        2 => file[at] = *of(random, &[0, 1, 0x7f, 0x80, 0xff]),
        3 => file[at..at + len].iter_mut().for_each(|b| *b = random.u8(..)),
        4..7 => {
            let width = *of(random, &[1, 2, 4, 8]);
            let at = if random.bool() { at / width * width } else { at };
            change(random, &mut file, at, width);
        }
        7 => file.truncate(at),
        8 => {
            let from = random.usize(..file.len());
            let len = len.min(file.len() - from);
            let to = at.min(file.len() - len);
            file.copy_within(from..from + len, to);
        }
        9 => {
            let piece = file[at..at + len].to_vec();
            let times = *of(random, &[1, 1, 2, 64]);
            file.splice(at..at, repeated(&piece, times));
        }
        10 => {
            let _ = file.drain(at..at + len);
        }
        _ => {
            // This one's start, the other one's end.
            let from = random.usize(..=other.len());
            file.truncate(at);
            file.extend_from_slice(&other[from..]);
        }
    }
    file
}

/// A changed text.
pub fn text(random: &mut Rng, good: &[u8], other: &[u8], words: &[&str]) -> Vec<u8> {
    let mut text = good.to_vec();
    for _ in 0..*of(random, &[1, 1, 2, 3, 8, 24]) {
        if text.is_empty() {
            text = other.to_vec();
        }
        if text.is_empty() {
            break;
        }
        let at = random.usize(..text.len());
        match random.u8(..12) {
            0 => text[at] = random.u8(..),
            1 => text[at] = *of(random, b"\n\t \0[]\"=,.-0f\xff"),
            2 => text.insert(at, *of(random, b"\n\t \0[]\"=,.-0f\xff")),
            3 => drop(text.remove(at)),
            4..7 if !words.is_empty() => {
                let word = of(random, words).bytes();
                text.splice(at..at, word);
            }
            7 if !words.is_empty() => {
                let word = of(random, words).as_bytes();
                let end = (at + word.len()).min(text.len());
                text.splice(at..end, word.iter().copied());
            }
            8 | 9 => {
                // A line goes, comes twice, or moves.
                let line = line_at(&text, at);
                let copy = text[line.clone()].to_vec();
                if random.bool() {
                    text.drain(line);
                }
                if random.bool() && text.len() < SIZE_MAX {
                    let to = random.usize(..=text.len());
                    let to = line_at(&text, to).start;
                    let times = *of(random, &[1, 1, 1, 100]);
                    text.splice(to..to, repeated(&copy, times));
                }
            }
            10 => {
                let line = line_at(other, random.usize(..=other.len()));
                text.splice(at..at, other[line].iter().copied());
            }
            _ => text = bytes(random, text, other),
        }
    }
    text.truncate(SIZE_MAX);
    text
}

/// The line around a place, with its end.
fn line_at(text: &[u8], at: usize) -> std::ops::Range<usize> {
    let at = at.min(text.len());
    let start = text[..at].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
    let end = text[at..].iter().position(|b| *b == b'\n').map_or(text.len(), |n| at + n + 1);
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, TARGETS};

    /// A change before may have left nothing of the file.
    #[test]
    fn nothing_is_changed_as_well() {
        let module = TARGETS.iter().find(|target| target.kind == Kind::Module).unwrap();
        let (good, other) = ((module.seeds)().remove(0), (module.seeds)().remove(1));
        let sections = sections(&good);
        type Step = fn(&mut Rng, &mut [u8], &[Section]);
        let steps: [Step; 8] = [header, swap_headers, symbol, relocation, modinfo, table, name, nobits];
        for seed in 0..2000 {
            let mut random = Rng::with_seed(seed);
            steps.iter().for_each(|step| step(&mut random, &mut [], &sections));
            graft(&mut random, &mut [], &sections, &other);
            append(&mut random, &mut Vec::new(), &sections);
            bytes(&mut random, Vec::new(), &other);
        }
    }

    /// Mutants must differ from what they were made of, come again for the same number, and most modules must
    /// still be ones: else nothing behind the first checks is ever reached.
    #[test]
    fn mutants_are_worth_something() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{}: no seeds", target.name);
            let mut changed = 0;
            let mut modules = 0;
            for n in 0..300 {
                let mutant = target.mutant(&seeds, 1, n);
                assert_eq!(mutant, target.mutant(&seeds, 1, n), "{}: mutant {n}", target.name);
                changed += usize::from(!seeds.contains(&mutant));
                modules += usize::from(sections(&mutant).iter().any(|s| s.kind == SYMTAB));
            }
            assert!(changed > 240, "{}: only {changed} of 300 mutants differ", target.name);
            if target.kind == Kind::Module {
                assert!(modules > 200, "{}: only {modules} of 300 mutants have symbols", target.name);
            }
        }
    }
}
