//! A second opinion: goblin reads the same headers, sections, names, symbols and relocations.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::{Path, PathBuf};

use common::library;
use common::trees::{sampled, trees};
use elf_layout::elf::{Rela, SymFields};
use elf_layout::{KernelConfig, KernelVersion, ModuleFile};
use goblin::elf::Elf;
use kmodld::input::read_decompressed;

/// Compares one value; the complaint names what differs.
macro_rules! same {
    ($ours:expr, $theirs:expr, $($what:tt)*) => {
        let (ours, theirs) = ($ours, $theirs);
        if ours != theirs {
            return Err(format!("{}: {ours:?}, goblin says {theirs:?}", format!($($what)*)));
        }
    };
}

/// How many sections, symbols and relocations agree, or what does not.
fn compare(path: &Path) -> Result<(usize, usize, usize), String> {
    let bytes = read_decompressed(path).map_err(|e| e.to_string())?;
    let config = KernelConfig::new(KernelVersion::new(6, 12, 0));
    let opened = library::open(&bytes, &config);
    let module = opened.module.as_ref().ok_or("no module")?;
    let elf = Elf::parse(&bytes).map_err(|e| format!("goblin: {e}"))?;
    let counts = compare_parsed(module, &elf);
    counts.map_err(|why| format!("{}: {why}", path.display()))
}

fn compare_parsed(module: &ModuleFile<'_>, elf: &Elf<'_>) -> Result<(usize, usize, usize), String> {
    same!(module.e_machine(), elf.header.e_machine, "e_machine");
    same!(module.e_shstrndx(), usize::from(elf.header.e_shstrndx), "e_shstrndx");
    same!(module.sections().len(), elf.section_headers.len(), "number of sections");
    for (i, (a, b)) in module.sections().iter().zip(&elf.section_headers).enumerate() {
        let name = elf.shdr_strtab.get_at(b.sh_name).unwrap_or_default();
        same!(module.section_name(i), name.as_bytes(), "name of section {i}");
        let ours = [a.sh_flags, a.sh_addr, a.sh_offset, a.sh_size, a.sh_addralign, a.sh_entsize];
        let theirs = [b.sh_flags, b.sh_addr, b.sh_offset, b.sh_size, b.sh_addralign, b.sh_entsize];
        same!(ours, theirs, "section {i} {name}: flags, addr, offset, size, addralign, entsize");
        same!(
            [a.sh_type, a.sh_link, a.sh_info],
            [b.sh_type, b.sh_link, b.sh_info],
            "section {i} {name}: type, link, info"
        );
    }
    same!(module.symbols().len(), elf.syms.len(), "number of symbols");
    for (i, (a, b)) in module.symbols().iter().zip(elf.syms.iter()).enumerate() {
        let name = elf.strtab.get_at(b.st_name).unwrap_or_default();
        same!(module.symbol_name(a), name.as_bytes(), "name of symbol {i}");
        same!(a.name_offset() as usize, b.st_name, "symbol {i} {name}: st_name");
        same!((a.bind(), a.kind()), (b.st_bind(), b.st_type()), "symbol {i} {name}: binding, type");
        let (ours, theirs) =
            ((usize::from(a.shndx()), a.value(), a.size()), (b.st_shndx, b.st_value, b.st_size));
        same!(ours, theirs, "symbol {i} {name}: section, value, size");
    }
    let mut relocations = 0;
    for (section, theirs) in &elf.shdr_relocs {
        let ours = module.relocations(*section);
        same!(ours.len(), theirs.len(), "number of relocations of section {section}");
        for (n, (a, b)) in ours.iter().map(Rela::from).zip(theirs.iter()).enumerate() {
            let ours = (a.r_offset, a.r_sym() as usize, a.r_type(), Some(a.r_addend));
            same!(ours, (b.r_offset, b.r_sym, b.r_type, b.r_addend), "relocation {n} of section {section}");
        }
        relocations += ours.len();
    }
    let tables = module.sections().iter().filter(|s| s.sh_type == 4 && s.sh_size != 0).count();
    same!(
        tables,
        elf.shdr_relocs.iter().filter(|(_, r)| !r.is_empty()).count(),
        "number of relocation tables"
    );
    Ok((elf.section_headers.len(), elf.syms.len(), relocations))
}

fn compare_all(files: &[PathBuf]) -> (usize, String, Vec<String>) {
    let (mut read, mut counts, mut wrong) = (0, (0, 0, 0), Vec::new());
    for result in common::in_parallel(files, |f| compare(f)) {
        match result {
            Ok((a, b, c)) => {
                counts = (counts.0 + a, counts.1 + b, counts.2 + c);
                read += 1;
            }
            Err(why) => wrong.push(why),
        }
    }
    let counts = format!("{} sections, {} symbols, {} relocations", counts.0, counts.1, counts.2);
    (read, counts, wrong)
}

#[test]
fn fixtures_as_goblin_reads_them() {
    let files: Vec<PathBuf> = common::KERNELS
        .into_iter()
        .flat_map(|k| common::modules(k).into_iter().map(move |m| common::ko(k, &m)))
        .collect();
    let (read, _, wrong) = compare_all(&files);
    assert!(wrong.is_empty(), "{}", common::first_of(&wrong));
    assert_eq!(read, files.len());
}

#[test]
fn whole_distributions_as_goblin_reads_them() {
    for tree in trees("whole_distributions_as_goblin_reads_them") {
        let modules = sampled(&tree);
        let (read, counts, wrong) = compare_all(&modules);
        common::tell(&format!(
            "{}: {read}/{} modules read as by goblin: {counts}",
            tree.release,
            modules.len()
        ));
        assert!(wrong.is_empty(), "{}: {}", tree.release, common::first_of(&wrong));
    }
}
