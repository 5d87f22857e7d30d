//! The driver of relocations, and what arm64 does before and after it (spec 04 §4.1, 02 §2.5, 06).

use elf_layout::{Findings, KernelConfig, KernelVersion};
use testkit::elf::{ALLOC, Builder, EXEC, Elf, GLOBAL, LOCAL, REL, RELA, Rela, Sh, UNDEF, WEAK, WRITE};

use crate::common::{stop, with_load, with_load_of};

const ABS64: u32 = 1;
const PC32: u32 = 2;
/// A type that no architecture has.
const NO_TYPE: u32 = 0x7f;
const CALL26: u32 = 283;
const BASE: u64 = 0xffff_ffff_c010_0000;
const ARM64_BASE: u64 = 0xffff_8000_8800_0000;

fn config(minor: u16) -> KernelConfig {
    let version = KernelVersion::new(6, minor, 0);
    KernelConfig::new(version).with(|c| {
        c.module_sig = false;
        c.modversions = false;
    })
}

/// What is said, and the memory and address of the sections named.
type Outcome = (Findings, Vec<(Vec<u8>, u64)>);

fn link(config: KernelConfig, b: &Builder, base: u64, sections: &[&str]) -> Outcome {
    with_load(config, b, base, |module, _, said| {
        let found = sections.iter().map(|name| {
            let section = &module.info.sechdrs[usize::from(b.index(name))];
            let place = module.layout.place(usize::from(b.index(name)));
            let bytes = place.and_then(|p| module.memory.at(p, section.sh_size)).unwrap_or(&[]);
            (bytes.to_vec(), section.sh_addr)
        });
        (said.clone(), found.collect())
    })
}

/// Sections of many kinds, `.text` first, all of zeros.
fn mini() -> Builder {
    let mut b = Builder::mini("6.12.0");
    b.section(".text", ALLOC | EXEC, 16).zeros(64);
    b.section(".data", ALLOC | WRITE, 16).zeros(64);
    b.section(".bss", ALLOC | WRITE, 16).nobits(64);
    b.section(".comment", 0, 1).zeros(64);
    b.section(".data..percpu", ALLOC | WRITE, 16).zeros(64);
    b
}

fn rela(offset: u64, kind: u32, symbol: u32, addend: i64) -> Rela {
    Rela { offset, kind, symbol, addend }
}

#[test]
fn reloc_gen_1_to_4_whose_relocations_are_left_out() {
    for (rule, target) in [
        ("RELOC-GEN-1: beyond the last section", None),
        ("RELOC-GEN-3: section 0", Some("")),
        ("RELOC-GEN-2: .comment is not ALLOC", Some(".comment")),
        ("RELOC-GEN-2: .modinfo is no longer ALLOC", Some(".modinfo")),
        ("RELOC-GEN-4: nor is .data..percpu", Some(".data..percpu")),
    ] {
        let mut b = mini();
        let info = match target {
            None => 0xffff,
            Some("") => 0,
            Some(name) => u32::from(b.index(name)),
        };
        b.relocations(".text", &[rela(0, NO_TYPE, 0, 0), rela(8, ABS64, 0, 0x1234)]).info = info;
        for minor in [1, 12] {
            let (said, found) = link(config(minor), &b, BASE, &[".text", ".data", ".bss"]);
            assert!(!said.refused(), "{rule}: mini, .rela.text on 6.{minor}: {said:?}");
            assert!(
                found.iter().all(|f| f.0 == [0; 64]),
                "{rule}: mini, .rela.text on 6.{minor}: no byte changes"
            );
            let warned = said.iter().any(|f| f.code == "RELOC-GEN-4");
            assert_eq!(warned, target == Some(".data..percpu"), "RELOC-GEN-4: mini on 6.{minor}: {target:?}");
        }
    }
}

#[test]
fn reloc_gen_3_and_6_to_8_by_type_of_section() {
    let records = [rela(0, ABS64, 0, 0x1234)];
    for (rule, kind, written, errno) in [
        ("RELOC-GEN-7: RELA", RELA, true, None),
        ("RELOC-GEN-6: REL", REL, false, Some("ENOEXEC")),
        ("RELOC-GEN-8: PROGBITS", 1, false, None),
        ("RELOC-GEN-3, RELOC-GEN-8: NOTE", 7, false, None),
        ("RELOC-GEN-8: RELR", 19, false, None),
    ] {
        for machine in [62, 183] {
            let mut b = if machine == 62 { mini() } else { arm64(0) };
            let records = records.map(|r| if machine == 62 { r } else { Rela { kind: 257, ..r } });
            b.relocations(".data", &records).kind = kind;
            let (said, found) = link(config(12), &b, BASE, &[".data"]);
            let want = if written { 0x1234u64 } else { 0 };
            assert_eq!(found[0].0[..8], want.to_le_bytes(), "{rule}: mini of {machine}, .rela.data");
            let log = errno.map(|_| "module mini: REL relocation unsupported");
            assert_eq!(said.errno().map(|e| e.name()), errno, "{rule}: mini of {machine}, .rela.data");
            assert_eq!(said.dmesg().collect::<Vec<_>>(), Vec::from_iter(log), "{rule}: mini of {machine}");
        }
    }
}

#[test]
fn reloc_gen_17_what_hangs_on_a_value_that_is_not_known() {
    for (machine, kind, addend, open) in [
        (62, ABS64, 0, false),
        (62, PC32, -4, false),
        (62, 4, -4, false),
        (62, 11, 0, false),
        (62, 24, 0, false),
        (62, PC32, 1 << 30, true),
        // R_X86_64_32 reaches no address of the kernel.
        (62, 10, 0, true),
        (183, 257, 0, false),
        (183, 261, 0, false),
        (183, 275, 0, false),
        (183, 286, 0, false),
        (183, CALL26, 0, false),
        (183, CALL26, 1 << 40, true),
        // R_AARCH64_ABS32, ADR_PREL_LO21, CONDBR19
        (183, 258, 0, true),
        (183, 274, 0, true),
        (183, 280, 0, true),
    ] {
        for (name, target) in [("unplaced", ".text"), ("first", ".text"), ("unplaced", ".comment")] {
            let mut b = if machine == 62 { mini() } else { arm64(0) };
            if machine != 62 {
                b.section(".comment", 0, 1).zeros(64);
            }
            let symbol = b.symbol(name, GLOBAL, 0, UNDEF, 0);
            b.relocations(target, &[rela(8, kind, symbol, addend)]);
            let (said, _) = link(config(12), &b, if machine == 62 { BASE } else { ARM64_BASE }, &[]);
            let found = said.open_rules().iter().any(|rule| rule.code == "RELOC-GEN-17");
            let want = open && name == "unplaced" && target == ".text";
            assert_eq!(found, want, "RELOC-GEN-17: type {kind} of {machine} to {name} in {target}: {said:?}");
        }
    }
}

#[test]
fn reloc_gen_9_the_first_failure_ends_it() {
    let mut b = mini();
    b.relocations(".text", &[rela(0, ABS64, 0, 1), rela(8, NO_TYPE, 0, 0)]);
    b.relocations(".data", &[rela(0, ABS64, 0, 1)]).kind = REL;
    let (said, _) = link(config(12), &b, BASE, &[]);
    let (code, errno, log) = stop(&said).expect("RELOC-GEN-9: mini is refused");
    assert_eq!((code, errno), ("X86REL-1", Some("ENOEXEC")), "RELOC-GEN-9: mini, .rela.text");
    assert_eq!(said.dmesg().collect::<Vec<_>>(), log, "RELOC-GEN-9: mini: of .rela.data nothing is logged");
    let (text, data) = (b.sections.len() - 2, b.sections.len() - 1);
    b.sections.swap(text, data);
    let (said, _) = link(config(12), &b, BASE, &[]);
    assert_eq!(stop(&said).map(|s| s.0), Some("RELOC-GEN-6"), "RELOC-GEN-9: mini: in order of index");
}

#[test]
fn reloc_gen_12_to_14_the_terms() {
    let mut b = mini();
    let (text, data) = (b.index(".text"), b.index(".data"));
    let function = b.symbol("function", LOCAL, 2, text, 0x10);
    let variable = b.symbol("variable", LOCAL, 1, data, 0x20);
    let nowhere = b.symbol("nowhere", WEAK, 0, UNDEF, 0);
    let odd = b.symbol("odd", WEAK, 0, UNDEF, 0x5000);
    b.relocations(
        ".data",
        &[
            rela(0, ABS64, function, 3),
            rela(8, ABS64, variable, -0x30),
            rela(16, PC32, function, -4),
            rela(24, ABS64, nowhere, 0x77),
            rela(32, ABS64, odd, 0x77),
            rela(40, ABS64, nowhere, -1),
            rela(48, ABS64, variable, i64::MIN),
        ],
    );
    b.relocations(".bss", &[rela(8, ABS64, function, 0), rela(32, PC32, variable, 0)]);
    for minor in [1, 12] {
        let (said, found) = link(config(minor), &b, BASE, &[".text", ".data", ".bss"]);
        assert!(!said.refused(), "mini on 6.{minor}: {said:?}");
        let [(_, text), (data, data_at), (bss, bss_at)] = &found[..] else { panic!() };
        let (function, variable) = (text + 0x10, data_at + 0x20);
        let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        for (rule, at, want) in [
            ("RELOC-GEN-12: S + A", 0, function + 3),
            ("RELOC-GEN-12: A is signed", 8, variable - 0x30),
            ("RELOC-GEN-12: S + A - P", 16, u64::from(function.wrapping_sub(4 + data_at + 16) as u32)),
            ("RELOC-GEN-13: nothing found", 24, 0x77),
            ("RELOC-GEN-13: its value in the file", 32, 0x5077),
            ("RELOC-GEN-12: wraps", 40, u64::MAX),
            ("RELOC-GEN-12: wraps", 48, variable ^ 1 << 63),
        ] {
            assert_eq!(word(data, at), want, "{rule}: mini on 6.{minor}, .data+{at:#x}");
        }
        assert_eq!(word(bss, 8), function, "RELOC-GEN-14: mini on 6.{minor}, .bss+8");
        let want = u64::from(variable.wrapping_sub(bss_at + 32) as u32);
        assert_eq!(word(bss, 32), want, "RELOC-GEN-14: mini on 6.{minor}, .bss+0x20");
        assert_eq!(word(bss, 0), 0, "RELOC-GEN-14: mini on 6.{minor}, .bss: zero elsewhere");
    }
}

#[test]
fn reloc_gen_11_places_outside_of_their_section() {
    let mut b = mini();
    b.section(".data.1", ALLOC | WRITE, 16).data(vec![0, 0, 0, 0, 0, 0, 0, 0, 7]);
    let data = b.index(".data");
    let variable = b.symbol("variable", LOCAL, 1, data, 0x20);
    // Nobody knows its address, which decides nothing here.
    let unplaced = b.symbol("unplaced", GLOBAL, 0, UNDEF, 0);
    // .data, .bss and .data.1 follow each other; behind the region is nothing.
    for (what, offset, code, errno) in [
        ("the last one inside", 56, None, None),
        ("half outside", 60, Some("RELOC-GEN-11"), None),
        ("the next section", 64, Some("RELOC-GEN-11"), None),
        ("the section before", 0u64.wrapping_sub(8), Some("RELOC-GEN-11"), None),
        ("what is not zero", 129, Some("X86REL-3"), Some("ENOEXEC")),
        ("behind the regions", 0x10_0000, Some("RELOC-GEN-11"), None),
        ("far away", 1 << 40, Some("RELOC-GEN-11"), None),
    ] {
        let crashes = offset == 0x10_0000 || offset == 1 << 40;
        let of_unplaced = {
            let mut b = b.clone();
            b.relocations(".data", &[rela(offset, ABS64, unplaced, 0)]);
            stop(&link(config(12), &b, BASE, &[]).0).map(|(code, errno, _)| (code, errno))
        };
        let mut b = b.clone();
        b.relocations(".data", &[rela(offset, ABS64, variable, 0)]);
        let (said, found) = link(config(12), &b, BASE, &[".data", ".bss"]);
        let stop = stop(&said).map(|(code, errno, _)| (code, errno));
        let refused = crashes || errno.is_some();
        assert_eq!(
            stop,
            code.filter(|_| refused).map(|code| (code, errno)),
            "RELOC-GEN-11: {what}: {said:?}"
        );
        assert_eq!(of_unplaced, stop, "RELOC-GEN-11: {what}: of a symbol without address");
        let told = said.iter().any(|f| f.code == "RELOC-GEN-11");
        assert_eq!(told, code.is_some(), "RELOC-GEN-11: {what}: {said:?}");
        if offset == 64 {
            assert_eq!(
                found[1].0[..8],
                (found[0].1 + 0x20).to_le_bytes(),
                "RELOC-GEN-11: it is written there"
            );
        }
    }
}

#[test]
fn reloc_gen_11_symbols_behind_their_table() {
    let mut b = mini();
    let symbols = b.symbols.len() as u32;
    b.relocations(".data", &[rela(0, ABS64, symbols, 0), rela(8, ABS64, u32::MAX, 0)]);
    let kallsyms = config(12).with(|c| c.kallsyms = true);
    let (said, found) = link(kallsyms, &b, BASE, &[".data"]);
    // The string table follows: one NUL, and nothing else.
    assert_eq!(found[0].0[..8], [0; 8], "RELOC-GEN-11");
    let said: Vec<_> = said.iter().filter(|f| f.code == "RELOC-GEN-11").map(|f| f.severity.word()).collect();
    assert_eq!(said, ["warning", "oops"], "RELOC-GEN-11: what stands there, and what is nowhere");
}

#[test]
fn x86rel_10_symbols_of_the_temporary_copy() {
    for (kind, errno) in [(ABS64, None), (10, Some("ENOEXEC")), (11, Some("ENOEXEC")), (PC32, None)] {
        let mut b = mini();
        let comment = b.index(".comment");
        let text = b.symbol("text", LOCAL, 0, comment, 4);
        b.relocations(".data", &[rela(0, kind, text, 0)]);
        let (said, _) = link(config(12), &b, BASE, &[".data"]);
        let want = errno.map(|errno| ("X86REL-4", Some(errno)));
        assert_eq!(
            stop(&said).map(|(code, errno, _)| (code, errno)),
            want,
            "X86REL-10: type {kind}: {said:?}"
        );
    }
}

#[test]
fn x86rel_11_lines_that_name_the_record() {
    let newest = KernelConfig::new(KernelVersion::new(7, 3, 0)).with(|c| c.modversions = false);
    let mut b = mini();
    b.section(".data.1", ALLOC | WRITE, 16).data(vec![1; 16]);
    for (kind, addend, lines) in [
        (ABS64, 5, vec!["existing value is nonzero for sec 9, idx 1, type 1, loc "]),
        (11, 1 << 40, vec!["module: overflow in relocation type 11 val 10000000000 sec 9 idx 1", "likely"]),
    ] {
        let mut b = b.clone();
        b.relocations(".data.1", &[rela(0, 0, 0, 0), rela(0, kind, 0, addend)]);
        for config in [newest.clone(), config(12)] {
            let new = config.version().minor == 3;
            let (said, _) = link(config, &b, BASE, &[]);
            let log: Vec<&str> = said.dmesg().collect();
            assert_eq!(log.len(), lines.len(), "X86REL-11: {said:?}");
            assert_eq!(log[0].contains(lines[0]), new, "X86REL-11: {log:?}");
        }
    }
}

#[test]
fn a64rel_40_symbols_of_the_temporary_copy() {
    // ABS64, PREL32, ABS32
    for (kind, errno) in [(257, None), (261, None), (258, Some("ENOEXEC"))] {
        let mut b = arm64(0);
        b.section(".comment", 0, 1).zeros(64);
        let comment = b.index(".comment");
        let text = b.symbol("text", LOCAL, 0, comment, 4);
        b.relocations(".data", &[rela(0, kind, text, 0)]);
        let (said, _) = link(config(12), &b, ARM64_BASE, &[".data"]);
        assert_eq!(said.errno().map(|e| e.name()), errno, "A64REL-40: type {kind}: {said:?}");
    }
}

/// The symbol is read before the type is looked at.
#[test]
fn reloc_gen_11_neither_symbol_nor_type() {
    for (kind, symbol, code) in [
        (999, 0, Some("A64REL-12")),
        (999, u32::MAX, Some("RELOC-GEN-11")),
        (257, u32::MAX, Some("RELOC-GEN-11")),
    ] {
        let mut b = arm64(0);
        b.relocations(".data", &[rela(0, kind, symbol, 0)]);
        let (said, _) = link(config(12), &b, ARM64_BASE, &[".data"]);
        let found = stop(&said).map(|(code, _, _)| code);
        assert_eq!(found, code, "RELOC-GEN-11: type {kind}, symbol {symbol:#x}: {said:?}");
        let is_open = said.open_rules().iter().any(|rule| rule.code == "RELOC-GEN-11");
        assert!(!is_open, "RELOC-GEN-11: type {kind}, symbol {symbol:#x}");
    }
}

#[test]
fn reloc_gen_11_places_with_another_top_byte() {
    // With TBI1 an address of 0x7fff... is the same as that of 0xffff...; PREL32 then does not fit.
    for (version, mte, offset, kind, want) in [
        ((6, 12), None, 1 << 63, 257, (true, false, None)),
        ((6, 12), None, 1 << 62, 257, (true, false, None)),
        ((6, 12), None, 1 << 50, 257, (false, true, None)),
        ((6, 12), Some(true), 1 << 63, 257, (false, false, None)),
        ((6, 12), Some(true), 1 << 63, 261, (false, true, Some("ENOEXEC"))),
        ((6, 12), Some(true), 1 << 50, 257, (false, true, None)),
        ((6, 12), Some(false), 1 << 63, 257, (false, true, None)),
        ((5, 10), Some(true), 1 << 63, 257, (false, true, None)),
    ] {
        let mut b = arm64(0);
        b.relocations(".data", &[rela(offset, kind, 0, 0)]);
        let config = KernelConfig::new(KernelVersion::new(version.0, version.1, 0)).with(|c| {
            c.module_sig = false;
            c.modversions = false;
            c.mte = mte;
        });
        let (said, _) = link(config, &b, ARM64_BASE, &[".data"]);
        let open = said.open_rules().iter().any(|rule| rule.code == "RELOC-GEN-11");
        let found = (open, said.refused(), said.errno().map(|e| e.name()));
        assert_eq!(found, want, "RELOC-GEN-11: {version:?} {mte:?} {offset:#x} type {kind}: {said:?}");
    }
}

#[test]
fn fin_47_what_lies_in_the_temporary_copy() {
    const DATA64: u32 = 257;
    for (of, kind, at, known) in [
        (".comment", DATA64, 8, true),
        (".comment", DATA64, 16, false),
        (".comment", 260, 8, false),
        (".data", DATA64, 8, false),
    ] {
        let mut b = arm64(0);
        b.section(".comment", 0, 1).zeros(64);
        let section = b.index(of);
        let symbol = b.symbol("site", LOCAL, 0, section, 4);
        b.relocations(".data", &[rela(8, kind, symbol, 12)]);
        let data = usize::from(b.index(".data"));
        let found = with_load(config(12), &b, ARM64_BASE, |module, _, _| {
            let sections = &module.info.sechdrs;
            let place = sections[usize::from(section)].sh_offset + 4 + 12;
            let found = module.copied_from(data, sections[data].sh_addr + at, DATA64);
            assert!(found.is_none_or(|found| found == place), "FIN-47: {of}: type {kind} at {at}");
            found.is_some()
        });
        assert_eq!(found, known, "FIN-47: {of}: type {kind} at {at}");
    }
}

#[test]
fn plt_3_a_target_that_does_not_exist() {
    for (info, crashes) in [(0x10, false), (0x8000_0000u32, true)] {
        let mut b = arm64(0);
        b.relocations(".text", &calls(&[1])).info = info;
        let (said, _) = link(config(12), &b, ARM64_BASE, &[]);
        assert_eq!(stop(&said).map(|s| s.0), crashes.then_some("PLT-3"), "PLT-3: {info:#x}: {said:?}");
    }
}

#[test]
fn sym_5_the_got_is_ignored_on_x86() {
    for (machine, name, refused) in [
        (62, "_GLOBAL_OFFSET_TABLE_", false),
        (62, "_GLOBAL_OFFSET_TABLE", true),
        (183, "_GLOBAL_OFFSET_TABLE_", true),
    ] {
        let mut b = arm64(0);
        b.machine = machine;
        b.symbol(name, GLOBAL, 0, UNDEF, 0);
        let (said, _) = link(config(12), &b, ARM64_BASE, &[]);
        let want = refused.then(|| format!("mini: Unknown symbol {name} (err -2)"));
        assert_eq!(said.dmesg().collect::<Vec<_>>(), Vec::from_iter(want), "SYM-5: mini of {machine}");
    }
}

/// A module for arm64 with the sections it must have, and three functions of the kernel to import;
/// `flags` are those of the sections that the loader fills.
fn arm64(flags: u64) -> Builder {
    let mut b = Builder::mini("6.12.0");
    b.machine = 183;
    b.section(".text", ALLOC | EXEC, 16).zeros(64);
    b.section(".init.text", ALLOC | EXEC, 16).zeros(64);
    b.section(".data", ALLOC | WRITE, 16).zeros(64);
    for name in [".plt", ".init.plt", ".text.ftrace_trampoline"] {
        b.section(name, flags, 1).data(vec![0xaa; 1]);
    }
    for name in ["first", "second", "third"] {
        b.symbol(name, GLOBAL, 0, UNDEF, 0);
    }
    b
}

/// Calls of these symbols, one a word.
fn calls(symbols: &[u32]) -> Vec<Rela> {
    symbols.iter().zip(0u64..).map(|(symbol, n)| rela(4 * n, CALL26, *symbol, 0)).collect()
}

#[test]
fn layout_3_only_arm64_changes_sections() {
    for (machine, arm) in [(62, false), (183, true)] {
        let mut b = arm64(ALLOC);
        b.machine = machine;
        b.symbols.truncate(1);
        for minor in [1, 12] {
            let (said, found) =
                link(config(minor), &b, BASE, &[".plt", ".init.plt", ".text.ftrace_trampoline"]);
            assert!(!said.refused(), "LAYOUT-3: mini of {machine} on 6.{minor}: {said:?}");
            let sizes: Vec<usize> = found.iter().map(|f| f.0.len()).collect();
            let trampoline = if minor == 1 { 24 } else { 12 };
            let want = if arm { [12, 12, trampoline] } else { [1, 1, 1] };
            assert_eq!(
                sizes, want,
                "LAYOUT-3, PLT-12, PLT-13: mini of {machine} on 6.{minor}: .plt and others"
            );
            if !arm {
                assert!(found.iter().all(|f| f.0 == [0xaa]), "LAYOUT-3: mini of {machine}: their bytes stay");
            }
        }
    }
}

#[test]
fn plt_3_only_tables_that_patch_code_count() {
    for (what, target, symbols, slots) in [
        ("code", ".text", &[1, 2, 3][..], (3, 0)),
        ("code, twice the same", ".text", &[1, 1, 1], (1, 0)),
        ("init code", ".init.text", &[1, 2], (0, 2)),
        ("data", ".data", &[1, 2, 3], (0, 0)),
        ("nothing that exists", "", &[1, 2, 3], (0, 0)),
    ] {
        let mut b = arm64(0);
        let records = b.relocations(if target.is_empty() { ".text" } else { target }, &calls(symbols));
        if target.is_empty() {
            records.info = 0xffff;
        }
        let (_, found) = link(config(12), &b, ARM64_BASE, &[".plt", ".init.plt"]);
        let found = (found[0].0.len() / 12 - 1, found[1].0.len() / 12 - 1);
        assert_eq!(found, slots, "PLT-3: mini, relocations of {what}: slots of .plt, .init.plt");
    }
}

#[test]
fn plt_14_the_sorted_tables_are_applied() {
    // As PLT-4 has it, the first two are sorted, and the third stays where it is.
    let mut b = arm64(0);
    b.relocations(".text", &calls(&[2, 1, 3]));
    with_load(config(12), &b, ARM64_BASE, |module, mod_arch, said| {
        assert!(!said.refused(), "PLT-14: mini: {said:?}");
        let table = b.sections.len();
        let order: Vec<u32> = module.info.reordered(table).unwrap().iter().map(|r| r.r_sym()).collect();
        assert_eq!(order, [1, 2, 3], "PLT-14: mini, .rela.text in the temporary copy");
        let targets: Vec<u64> = mod_arch.tables[0].slots.iter().map(|s| s.target & 0xfff).collect();
        assert_eq!(targets, [0x100, 0x200, 0x300], "PLT-14: mini, .plt: slots in the sorted order");
        let place = module.layout.place(usize::from(b.index(".text"))).unwrap();
        let text = module.memory.at(place, 12).unwrap();
        let branch = |n: usize| u32::from_le_bytes(text[4 * n..4 * n + 4].try_into().unwrap()) & 0x03ff_ffff;
        let plt = module.info.sechdrs[usize::from(b.index(".plt"))].sh_addr;
        let at = module.info.sechdrs[usize::from(b.index(".text"))].sh_addr;
        for (n, slot) in [(0, 1u64), (1, 0), (2, 2)] {
            let want = (plt + 12 * slot).wrapping_sub(at + 4 * n as u64) >> 2 & 0x03ff_ffff;
            assert_eq!(u64::from(branch(n)), want, "PLT-14: mini, .text+{:#x} goes to slot {slot}", 4 * n);
        }
    });
}

#[test]
fn fin_30_a_section_for_the_way_to_the_tracer() {
    for (machine, ftrace, name, errno) in [
        (183, true, ".text.ftrace_trampoline", None),
        (183, true, ".text.ftrace_trampolin", Some("ENOEXEC")),
        (183, false, ".text.ftrace_trampolin", None),
        (62, true, ".text.ftrace_trampolin", None),
    ] {
        for flags in [0, ALLOC | EXEC] {
            let mut b = arm64(flags);
            b.machine = machine;
            b.symbols.truncate(1);
            b.sections.iter_mut().find(|s| s.name == ".text.ftrace_trampoline").unwrap().name = name.into();
            let config = config(12).with(|c| c.dynamic_ftrace = ftrace);
            let (said, _) = link(config, &b, BASE, &[]);
            let found = stop(&said).map(|s| (s.0, s.1, s.2));
            let want = errno.map(|e| ("FIN-30", Some(e), vec![]));
            assert_eq!(found, want, "FIN-30: mini of {machine}, {name} with flags {flags}, ftrace {ftrace}");
        }
    }
}

#[test]
fn layout_1_relocations_in_section_headers() {
    // (bytes of the table before the headers, type of its first record, errno, open)
    for (machine, before, kind, errno, open) in [
        (62, 0, 1, None, true),
        (62, 48, 1, None, true),
        (62, 48, 99, Some("ENOEXEC"), false),
        (62, 47, 99, Some("ENOEXEC"), false),
        (62, 23, 99, None, true),
        (183, 48, 257, None, true),
    ] {
        let mut b = arm64(ALLOC | EXEC);
        b.machine = machine;
        b.symbols.truncate(1);
        b.relocations(".text", &[Rela { offset: 0, symbol: 0, kind, addend: 0 }; 2]);
        let mut elf = Elf::new(b.build());
        let (table, records_at) = (elf.section(".rela.text"), elf.bytes.len());
        let records = elf.data(table)[..before].to_vec();
        let headers = elf.bytes[elf.shoff()..][..64 * elf.shnum()].to_vec();
        elf.bytes.extend([records, headers].concat());
        // e_shoff
        elf.put(0x28, 8, (records_at + before) as u64);
        elf.set(table, Sh::Offset, records_at as u64).set(table, Sh::Size, 72);
        with_load_of(config(12), &elf.bytes, BASE, |_, _, said| {
            let what = format!("LAYOUT-1: mini of {machine}, {before} bytes before the headers, type {kind}");
            assert_eq!(
                said.open_rules().iter().any(|rule| rule.code == "LAYOUT-1"),
                open,
                "{what}: {said:?}"
            );
            assert_eq!(stop(said).and_then(|stop| stop.1), errno, "{what}");
        });
    }
}
