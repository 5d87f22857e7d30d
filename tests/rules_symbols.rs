//! What a module exports at its final addresses, and the module list (spec 03).
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use common::elf::{ALLOC, Builder, EXEC, Elf, GLOBAL, LOCAL, Rela, Sh, UNDEF, WEAK, WRITE};
use common::library;
use elf_layout::{KernelConfig, KernelVersion};
use kernel::{KernelDescriptionBuilder, KernelSymbols, Symvers};
use kmodld::Loader;

const KALLSYMS: &str = "0000000000000000 A __per_cpu_start\n0000000000030010 A __per_cpu_end\n\
    ffffffff81000000 T _text\nffffffff81000100 T plain\nffffffff81000200 T gpl\nffffffff81000300 T spaced\n\
    ffffffff81000400 T module_layout\n";
const SYMVERS: &str = "0x000000aa\tplain\tvmlinux\tEXPORT_SYMBOL\t\n0x000000bb\tgpl\tvmlinux\tEXPORT_SYMBOL_GPL\t\n\
    0x000000cc\tspaced\tvmlinux\tEXPORT_SYMBOL\tSPACE\n0x000000dd\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t\n";
const GOOD: [(&str, u64); 5] =
    [("module_layout", 0xdd), ("plain", 0xaa), ("gpl", 0xbb), ("spaced", 0xcc), ("shared", 0xff)];

fn loader(major: u16, minor: u16) -> Loader {
    let config = KernelConfig::new(KernelVersion::new(major, minor, 0)).with(|c| c.module_sig = false);
    let kernel = KernelDescriptionBuilder::new()
        .config("test", config)
        .symbols("test", KernelSymbols::parse(KALLSYMS.as_bytes()).unwrap())
        .symvers("test", Symvers::parse(SYMVERS.as_bytes()).unwrap());
    Loader::booted(kernel.build(reloc::MACHINES).unwrap())
}

/// A module with these CRCs instead of the right ones, importing these names in this order.
fn importing(name: &str, wrong: &[&str], imports: &[&str]) -> Builder {
    let name = format!("name={name}");
    let mut b = Builder::module(&[
        &name,
        "license=GPL",
        "intree=Y",
        "retpoline=Y",
        "vermagic=6.12.0 SMP preempt mod_unload modversions ",
    ]);
    let crcs: Vec<(&str, u64)> =
        GOOD.iter().map(|(name, crc)| (*name, if wrong.contains(name) { 1 } else { *crc })).collect();
    b.versions(&crcs);
    for name in imports {
        b.symbol(name, GLOBAL, 0, UNDEF, 0);
    }
    b
}

#[test]
fn life_4_the_newest_module_comes_first() {
    let mut loader = loader(6, 12);
    for name in ["one", "two", "three"] {
        let b = importing(name, &[], &[]);
        library::keep(&mut loader, &b.build()).unwrap();
    }
    let names: Vec<&[u8]> = loader.kernel.modules().map(|m| &*m.name).collect();
    assert_eq!(names, [&b"three"[..], b"two", b"one"], "LIFE-4");
}

/// A module that exports `function`, its byte 8, and a per-cpu variable, and, in `__ksymtab_gpl`,
/// `function` again as `relic`.
fn exporter(flags: Option<&[u8]>) -> Builder {
    let mut b = importing("exporter", &[], &[]);
    b.section(".text", ALLOC | EXEC, 16).zeros(64);
    b.section(".data..percpu", ALLOC | WRITE, 64).zeros(64);
    b.section("__ksymtab_strings", ALLOC, 1).data(b"function\0middle\0variable\0relic\0".to_vec());
    b.section("__ksymtab", ALLOC, 4).zeros(36);
    b.section("__kcrctab", ALLOC, 4).data((1u32..4).flat_map(|c| (0x10 * c).to_le_bytes()).collect());
    b.section("__ksymtab_gpl", ALLOC, 4).zeros(12);
    b.section("__kcrctab_gpl", ALLOC, 4).data(0x40u32.to_le_bytes().to_vec());
    if let Some(flags) = flags {
        b.section("__kflagstab", ALLOC, 1).data(flags.to_vec());
    }
    let (text, percpu, strings) = (b.index(".text"), b.index(".data..percpu"), b.index("__ksymtab_strings"));
    let function = b.symbol("function", GLOBAL, 2, text, 0x10);
    let variable = b.symbol("variable", GLOBAL, 1, percpu, 0x20);
    let names = b.symbol("", LOCAL, 3, strings, 0);
    let record = |n: u64, symbol, addend, name| {
        let rela = |offset, symbol, addend| Rela { offset: 12 * n + offset, kind: 2, symbol, addend };
        [rela(0, symbol, addend), rela(4, names, name)]
    };
    let plain = [record(0, function, 0, 0), record(1, function, 8, 9), record(2, variable, 0, 16)].concat();
    b.relocations("__ksymtab", &plain);
    b.relocations("__ksymtab_gpl", &record(0, function, 0, 25));
    b
}

/// Name, address, CRC and GPL-only of what the exporter exports; then the address of `.text`.
type Exported = (Vec<(String, Option<u64>, Option<u32>, bool)>, u64);

fn exports(loader: &Loader, b: &Builder) -> Exported {
    let bytes = b.build();
    let opened = library::open_on(loader, &bytes);
    let (load, said) = library::load(loader, &opened);
    assert!(!said.refused(), "exporter: {said:?}");
    let load = load.expect("a load");
    let all = load.exports();
    let all = all.map(|e| (String::from_utf8_lossy(e.name).into_owned(), e.address, e.crc, e.gpl_only));
    (all.collect(), load.module.info.sechdrs[usize::from(b.index(".text"))].sh_addr)
}

#[test]
fn sym_36_and_38_what_records_stand_for() {
    for minor in [1, 12] {
        let (found, text) = exports(&loader(6, minor), &exporter(None));
        let want = [
            ("function", text + 0x10, 0x10, false),
            ("middle", text + 0x18, 0x20, false),
            // LAYOUT-60: the per-cpu area begins at the next multiple of 64 behind 0x30010.
            ("variable", 0x30040 + 0x20, 0x30, false),
            ("relic", text + 0x10, 0x40, true),
        ];
        let want: Vec<_> = want.map(|(n, at, crc, gpl)| (n.to_owned(), Some(at), Some(crc), gpl)).into();
        assert_eq!(found, want, "SYM-36, SYM-38: exporter, __ksymtab, on 6.{minor}");
    }
    let mut loader = loader(6, 12);
    let text = exports(&loader, &exporter(None)).1;
    library::keep(&mut loader, &exporter(None).build()).unwrap();
    let mut b = importing("mini", &[], &[]);
    b.sections.retain(|s| s.name != "__versions");
    for name in ["function", "middle", "variable"] {
        b.symbol(name, WEAK, 0, UNDEF, 0);
    }
    let bytes = b.build();
    let opened = library::open_on(&loader, &bytes);
    let load = library::load(&loader, &opened).0.unwrap();
    let want = [0, text + 0x10, text + 0x18, 0x30060];
    assert_eq!(load.module.values, want, "SYM-36, SYM-38: mini: what an importer gets");
}

#[test]
fn sym_39_one_table_with_flags_since_7_1() {
    let b = exporter(Some(&[0, 1, 0xfe]));
    let gpl = |(major, minor)| -> Vec<(String, bool)> {
        exports(&loader(major, minor), &b).0.into_iter().map(|(name, _, _, gpl)| (name, gpl)).collect()
    };
    let want = [("function", false), ("middle", true), ("variable", false)].map(|(n, g)| (n.to_owned(), g));
    assert_eq!(gpl((7, 1)), want, "SYM-39: exporter on 7.1: by bit 0 of __kflagstab, without __ksymtab_gpl");
}

#[test]
fn sym_39_flags_mean_nothing_before_7_1() {
    let (found, _) = exports(&loader(7, 0), &exporter(Some(&[1, 1, 1])));
    let gpl: Vec<bool> = found.iter().map(|e| e.3).collect();
    assert_eq!(gpl, [false, false, false, true], "SYM-39: exporter on 7.0: by table, __kflagstab is unknown");
}

#[test]
fn a64rel_40_and_fin_78_names_of_exports_in_the_temporary_copy() {
    // The kernel reads the names of exports after relocation. On arm64 they lead from the module into the copy; on x86_64 the
    // distance does not fit.
    for (kernel, crashes) in [("6.12-arm64", false), ("6.12-amd64", true)] {
        let mut elf = Elf::new(testkit::fixtures::read(&testkit::fixtures::ko(kernel, "percpu")));
        let strings = elf.section("__ksymtab_strings");
        elf.set(strings, Sh::Flags, 0);
        let loader = library::loader_with(common::kernel(kernel), &[]);
        let said = library::say(&loader, &elf.bytes);
        let oops = said.iter().any(|f| f.code == "FIN-78");
        assert_eq!(oops, crashes, "A64REL-40, FIN-78: percpu of {kernel}: {said:?}");
    }
}
