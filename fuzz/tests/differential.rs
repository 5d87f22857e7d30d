//! The ELF checks against a second reading of their specification: slow, with plain loops and numbers that cannot
//! wrap, written from `docs/spec/01-elf-validity.md` alone. On mutants of real modules both must refuse the same
//! files with the same errno by the same rule; and what is accepted must read as goblin and object read it.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

use elf_layout::elf::{Rela, SymFields};
use elf_layout::{KernelConfig, KernelVersion, ModuleFile};
use kernel::{Kernel, KernelDescriptionBuilder};
use kmodld::load::open;
use kmodld_fuzz::{seeds, target};
use object::read::elf::{FileHeader, SectionHeader, Sym};
use reloc::MACHINES;
use symres::LoadFlags;

/// Mutants for each kernel.
const MUTANTS: u64 = if cfg!(debug_assertions) { 40_000 } else { 400_000 };

/// The rule that refuses a file first, and its errno; `Ok` if none does.
type Verdict = Result<(), (&'static str, Option<&'static str>)>;

/// A kernel, as far as the ELF checks ask.
struct Rules {
    version: (i128, i128),
    machine: i128,
    struct_module: Option<i128>,
}

/// Fields of a section header.
#[derive(Clone, Copy)]
struct Section {
    name: i128,
    kind: i128,
    flags: i128,
    addr: i128,
    offset: i128,
    size: i128,
    link: i128,
}

fn number(file: &[u8], at: i128, width: i128) -> i128 {
    (0..width).map(|n| i128::from(file[(at + n) as usize]) << (8 * n)).sum()
}

fn noexec(rule: &'static str) -> Verdict {
    Err((rule, Some("ENOEXEC")))
}

/// SIG-2 to SIG-7: what is left of a file for the ELF checks.
fn without_signature(file: &[u8]) -> Result<&[u8], (&'static str, Option<&'static str>)> {
    const MARKER: &[u8] = b"~Module signature appended~\n";
    let len = file.len() as i128;
    if len <= 28 || &file[file.len() - 28..] != MARKER {
        return Ok(file);
    }
    let len = len - 28;
    if len <= 12 {
        return Err(("SIG-3", Some("EBADMSG")));
    }
    let info = &file[(len - 12) as usize..len as usize];
    let sig_len = info[8..].iter().fold(0i128, |sum, byte| sum * 256 + i128::from(*byte));
    if sig_len >= len - 12 {
        return Err(("SIG-4", Some("EBADMSG")));
    }
    if info[2] != 2 {
        return Ok(&file[..len as usize]);
    }
    if [0, 1, 3, 4, 5, 6, 7].into_iter().any(|n| info[n] != 0) {
        return Err(("SIG-6", Some("EBADMSG")));
    }
    Ok(&file[..(len - 12 - sig_len) as usize])
}

/// Sections 1.3 to 1.5 of the specification.
fn reference(whole: &[u8], rules: &Rules) -> Verdict {
    if whole.len() < 64 {
        return noexec("VAL-2");
    }
    let file = without_signature(whole)?;
    let len = file.len() as i128;
    if len < 64 {
        return noexec("VAL-10");
    }
    if file[..4] != [0x7f, b'E', b'L', b'F'] {
        return noexec("VAL-11");
    }
    if number(file, 16, 2) != 1 {
        return noexec("VAL-12");
    }
    if number(file, 18, 2) != rules.machine {
        return noexec("VAL-13");
    }
    if number(file, 58, 2) != 64 {
        return noexec("VAL-14");
    }
    let (shoff, shnum, shstrndx) = (number(file, 40, 8), number(file, 60, 2), number(file, 62, 2));
    if shoff >= len || shnum * 64 > len - shoff {
        return noexec("VAL-15");
    }
    let since = |major, minor| rules.version >= (major, minor);
    let header = |index: i128| {
        let at = shoff + 64 * index;
        Section {
            name: number(file, at, 4),
            kind: number(file, at + 4, 4),
            flags: number(file, at + 8, 8),
            addr: number(file, at + 16, 8),
            offset: number(file, at + 24, 8),
            size: number(file, at + 32, 8),
            link: number(file, at + 40, 4),
        }
    };
    // The first header is read even if there is none.
    if shnum == 0 && since(6, 4) {
        if len - shoff < 64 {
            return noexec("VAL-41");
        }
        let zero = header(0);
        return noexec(if zero.kind != NULL || zero.size != 0 || zero.addr != 0 {
            "VAL-20"
        } else {
            "VAL-16"
        });
    }
    let sections: Vec<Section> = (0..shnum).map(header).collect();
    match since(6, 4) {
        true => since_6_4(file, &sections, shstrndx, rules),
        false => up_to_6_3(file, &sections, shstrndx),
    }
}

const NULL: i128 = 0;
const SYMTAB: i128 = 2;
const STRTAB: i128 = 3;
const NOBITS: i128 = 8;
const ALLOC: i128 = 2;

fn outside(file: &[u8], s: &Section) -> bool {
    s.offset + s.size > file.len() as i128
}

/// A section's name; none where it lies outside of the table.
fn name<'f>(file: &'f [u8], table: &Section, s: &Section) -> &'f [u8] {
    if s.name >= table.size {
        return b"";
    }
    let names = &file[(table.offset + s.name) as usize..(table.offset + table.size) as usize];
    &names[..names.iter().position(|b| *b == 0).unwrap()]
}

const THIS_MODULE: &[u8] = b".gnu.linkonce.this_module";

/// §1.4
fn up_to_6_3(file: &[u8], sections: &[Section], shstrndx: i128) -> Verdict {
    if shstrndx == 0 || shstrndx >= sections.len() as i128 {
        return noexec("VAL-16");
    }
    let names = sections[shstrndx as usize];
    if outside(file, &names) {
        return noexec("VAL-17");
    }
    if names.size == 0 {
        return noexec("VAL-18");
    }
    if file[(names.offset + names.size - 1) as usize] != 0 {
        return noexec("VAL-19");
    }
    if sections[0].kind != NULL || sections[0].size != 0 || sections[0].addr != 0 {
        return noexec("VAL-20");
    }
    for s in &sections[1..] {
        if s.kind == NULL || s.kind == NOBITS {
            continue;
        }
        if s.kind == SYMTAB && (s.link == 0 || s.link >= sections.len() as i128) {
            return noexec("VAL-21");
        }
        if outside(file, s) {
            return noexec("VAL-22");
        }
        if s.flags & ALLOC != 0 && s.name >= names.size {
            return noexec("VAL-23");
        }
    }
    if sections[1..].iter().all(|s| s.kind != SYMTAB) {
        return noexec("VAL-24");
    }
    let this_module = |s: &&Section| s.flags & ALLOC != 0 && name(file, &names, s) == THIS_MODULE;
    match sections[1..].iter().find(this_module) {
        None => noexec("VAL-25"),
        // Not noticed before 6.4: the kernel crashes.
        Some(s) if s.kind == NOBITS => Err(("VAL-46", None)),
        Some(_) => Ok(()),
    }
}

/// §1.5
fn since_6_4(file: &[u8], sections: &[Section], shstrndx: i128, rules: &Rules) -> Verdict {
    let since = |major, minor| rules.version >= (major, minor);
    let strtab_type = rules.version == (6, 12) || since(7, 3);
    if sections[0].kind != NULL || sections[0].size != 0 || sections[0].addr != 0 {
        return noexec("VAL-20");
    }
    for s in &sections[1..] {
        if s.kind != NULL && s.kind != NOBITS && outside(file, s) {
            return noexec("VAL-22");
        }
    }
    if shstrndx == 0 || shstrndx >= sections.len() as i128 {
        return noexec("VAL-16");
    }
    let names = sections[shstrndx as usize];
    if strtab_type && names.kind != STRTAB {
        return noexec("VAL-42");
    }
    if names.size == 0 {
        return noexec("VAL-18");
    }
    if outside(file, &names) {
        // A name table that is NOBITS or NULL escapes VAL-22; the kernel reads anything.
        return Err(("VAL-41", None));
    }
    if file[(names.offset + names.size - 1) as usize] != 0 {
        return noexec("VAL-19");
    }
    for s in sections {
        if s.kind != NULL && s.name >= names.size {
            return noexec("VAL-43");
        }
    }
    let named = |wanted: &[u8]| -> Vec<Section> {
        sections[1..].iter().filter(|s| name(file, &names, s) == wanted).copied().collect()
    };
    if named(b".modinfo").len() > 1 {
        return noexec("VAL-44");
    }
    let this_module = named(THIS_MODULE);
    if this_module.len() != 1 {
        return noexec("VAL-45");
    }
    if this_module[0].kind == NOBITS {
        return noexec("VAL-46");
    }
    if this_module[0].flags & ALLOC == 0 {
        return noexec("VAL-47");
    }
    if rules.struct_module.is_some_and(|size| this_module[0].size != size) {
        return noexec("VAL-48");
    }
    let tables: Vec<&Section> = sections[1..].iter().filter(|s| s.kind == SYMTAB).collect();
    if tables.len() != 1 {
        return noexec("VAL-24");
    }
    if tables[0].link == 0 || tables[0].link >= sections.len() as i128 {
        return noexec("VAL-21");
    }
    let strings = sections[tables[0].link as usize];
    if strtab_type && strings.kind != STRTAB {
        return noexec("VAL-50");
    }
    let bytes = |s: &Section| -> &[u8] {
        if s.kind == NOBITS || outside(file, s) {
            &[]
        } else {
            &file[s.offset as usize..(s.offset + s.size) as usize]
        }
    };
    if since(6, 14) {
        let in_memory = |wanted: &[u8]| named(wanted).into_iter().find(|s| s.flags & ALLOC != 0);
        match (in_memory(b"__version_ext_crcs"), in_memory(b"__version_ext_names")) {
            (None, None) => {}
            (Some(crcs), Some(names)) => {
                let (crcs, names) = (bytes(&crcs).len() / 4, bytes(&names));
                if names.iter().filter(|b| **b == 0).count() < crcs {
                    return noexec("VER-30");
                }
            }
            _ => return noexec("VER-30"),
        }
    }
    if since(6, 13) {
        let strtab = bytes(&strings);
        let symbols = bytes(tables[0]);
        let outside = |n: usize| number(symbols, 24 * n as i128, 4) >= strtab.len() as i128;
        let bad =
            strtab.first() != Some(&0) || strtab.last() != Some(&0) || (0..symbols.len() / 24).any(outside);
        if bad {
            return noexec("VAL-52");
        }
    }
    Ok(())
}

/// What the loader says.
fn ours(file: &[u8], kernel: &Kernel) -> Verdict {
    let opened = open(file, kernel, LoadFlags::default());
    match opened.said.iter().find(|finding| finding.stops_here) {
        // What a signature says is no part of the reference.
        Some(finding) if finding.code == "SIG-10" => ours(opened.signature.module, kernel),
        None => Ok(()),
        Some(finding) => Err((finding.code, finding.errno.map(|errno| errno.name()))),
    }
}

fn kernel(version: (u16, u16), machine: u16, struct_module: Option<u64>) -> Kernel {
    let mut config = KernelConfig::new(KernelVersion::new(version.0, version.1, 0));
    config.struct_module_size = struct_module;
    let kernel = KernelDescriptionBuilder::new().config("test", config).e_machine("test", machine);
    Kernel::booted(kernel.build(MACHINES).unwrap())
}

/// Every kernel that a fork of the checks has, on mutants of modules of its architecture.
#[test]
fn val_1_to_53_as_the_specification_reads() {
    let cases = [
        ((5, 10), 62, None),
        ((6, 1), 62, None),
        ((6, 1), 183, None),
        ((6, 12), 62, Some(0x500)),
        ((6, 12), 183, None),
        ((6, 13), 62, Some(0x500)),
        ((6, 14), 183, None),
        ((7, 3), 62, None),
    ];
    let target = target("module").unwrap();
    let all = (target.seeds)();
    let mut rules_met = std::collections::BTreeMap::new();
    for (n, (version, machine, struct_module)) in (0..).zip(cases) {
        let seeds: Vec<Vec<u8>> =
            all.iter().filter(|file| number(file, 18, 2) == i128::from(machine)).cloned().collect();
        let kernel = kernel(version, machine, struct_module);
        let rules = Rules {
            version: (version.0.into(), version.1.into()),
            machine: machine.into(),
            struct_module: struct_module.map(i128::from),
        };
        for seed in &seeds {
            assert_eq!(ours(seed, &kernel), reference(seed, &rules), "a good module on {version:?}");
        }
        for number in 0..MUTANTS / 2 {
            let mutant = target.mutant(&seeds, 100 + n, number);
            let (ours, theirs) = (ours(&mutant, &kernel), reference(&mutant, &rules));
            // The reference does not read the message of a signature.
            if matches!(ours, Err(("SIG-10", _))) {
                continue;
            }
            assert_eq!(ours, theirs, "{version:?}, machine {machine}, seed {}, mutant {number}", 100 + n);
            *rules_met.entry(theirs.err().map_or("accepted", |(rule, _)| rule)).or_insert(0u64) += 1;
        }
    }
    eprintln!("rules met: {rules_met:?}");
    for rule in
        ["accepted", "VAL-11", "VAL-12", "VAL-13", "VAL-14", "VAL-15", "VAL-16", "VAL-17", "VAL-18", "VAL-19"]
    {
        assert!(rules_met.contains_key(rule), "no mutant is {rule}: the test is blind there");
    }
    for rule in
        ["VAL-20", "VAL-21", "VAL-22", "VAL-23", "VAL-24", "VAL-25", "VAL-42", "VAL-43", "VAL-45", "VAL-52"]
    {
        assert!(rules_met.contains_key(rule), "no mutant is refused by {rule}: the test is blind there");
    }
}

/// As goblin reads it: headers, names, symbols, relocations. None if goblin does not read the file at all.
fn as_goblin(module: &ModuleFile<'_>, file: &[u8]) -> Option<()> {
    let elf = goblin::elf::Elf::parse(file).ok()?;
    assert_eq!(module.sections().len(), elf.section_headers.len());
    for (i, (a, b)) in module.sections().iter().zip(&elf.section_headers).enumerate() {
        let ours = [a.sh_flags, a.sh_addr, a.sh_offset, a.sh_size, a.sh_addralign, a.sh_entsize];
        assert_eq!(
            ours,
            [b.sh_flags, b.sh_addr, b.sh_offset, b.sh_size, b.sh_addralign, b.sh_entsize],
            "section {i}"
        );
        assert_eq!([a.sh_type, a.sh_link, a.sh_info], [b.sh_type, b.sh_link, b.sh_info], "section {i}");
        if let Some(name) = elf.shdr_strtab.get_at(b.sh_name) {
            assert_eq!(module.section_name(i), name.as_bytes(), "name of section {i}");
        }
    }
    // Of several symbol tables goblin reads another one.
    if module.sections().iter().filter(|s| s.sh_type == 2).count() == 1
        && module.symbols().len() == elf.syms.len()
    {
        for (i, (a, b)) in module.symbols().iter().zip(elf.syms.iter()).enumerate() {
            let ours =
                (a.name_offset() as usize, a.bind(), a.kind(), usize::from(a.shndx()), a.value(), a.size());
            let theirs = (b.st_name, b.st_bind(), b.st_type(), b.st_shndx, b.st_value, b.st_size);
            assert_eq!(ours, theirs, "symbol {i}");
        }
    }
    for (section, theirs) in &elf.shdr_relocs {
        let ours = module.relocations(*section);
        if module.sections()[*section].sh_type == 4 && ours.len() == theirs.len() {
            for (n, (a, b)) in ours.iter().map(Rela::from).zip(theirs.iter()).enumerate() {
                let ours = (a.r_offset, a.r_sym() as usize, a.r_type(), Some(a.r_addend));
                assert_eq!(
                    ours,
                    (b.r_offset, b.r_sym, b.r_type, b.r_addend),
                    "relocation {n} of section {section}"
                );
            }
        }
    }
    Some(())
}

/// As object reads it.
fn as_object(module: &ModuleFile<'_>, file: &[u8]) -> Option<()> {
    let header = object::elf::FileHeader64::<object::LittleEndian>::parse(file).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, file).ok()?;
    assert_eq!(module.sections().len(), sections.len());
    for (i, (a, b)) in module.sections().iter().zip(sections.iter()).enumerate() {
        let ours = [a.sh_flags, a.sh_addr, a.sh_offset, a.sh_size, a.sh_addralign, a.sh_entsize];
        let theirs = [
            b.sh_flags.get(endian).0,
            b.sh_addr.get(endian),
            b.sh_offset.get(endian),
            b.sh_size.get(endian),
            b.sh_addralign.get(endian),
            b.sh_entsize.get(endian),
        ];
        assert_eq!(ours, theirs, "section {i}");
        if let Ok(bytes) = b.data(endian, file) {
            assert_eq!(module.section_bytes(i), bytes, "bytes of section {i}");
        }
        if let Ok(name) = sections.section_name(endian, b) {
            assert_eq!(module.section_name(i), name, "name of section {i}");
        }
    }
    let symbols = sections.symbols(endian, file, object::elf::SHT_SYMTAB).ok()?;
    if symbols.section().0 == module.index().sym && symbols.len() == module.symbols().len() {
        for (i, (a, b)) in module.symbols().iter().zip(symbols.iter()).enumerate() {
            assert_eq!((a.value(), a.size()), (b.st_value(endian), b.st_size(endian)), "symbol {i}");
            if let Ok(name) = b.name(endian, symbols.strings()) {
                assert_eq!(module.symbol_name(a), name, "name of symbol {i}");
            }
        }
    }
    Some(())
}

#[test]
fn accepted_mutants_as_goblin_and_object_read_them() {
    let target = target("module").unwrap();
    let seeds = seeds::modules();
    let kernel = Kernel::unknown(KernelConfig::new(KernelVersion::new(6, 12, 0)));
    let (mut accepted, mut by_goblin, mut by_object) = (0u64, 0u64, 0u64);
    for number in 0..MUTANTS {
        let mutant = target.mutant(&seeds, 200, number);
        let opened = open(&mutant, &kernel, LoadFlags::default());
        let Some(module) = opened.module.as_ref().filter(|_| !opened.said.refused()) else { continue };
        let file = module.bytes();
        // The kernel does not look at the class and the byte order, they do.
        if file[4..6] != [2, 1] {
            continue;
        }
        accepted += 1;
        by_goblin += u64::from(as_goblin(module, file).is_some());
        by_object += u64::from(as_object(module, file).is_some());
    }
    eprintln!("{accepted} mutants of {MUTANTS} are accepted; goblin reads {by_goblin}, object {by_object}");
    assert!(accepted > MUTANTS / 3 && by_goblin > accepted / 2 && by_object > accepted / 2);
}
