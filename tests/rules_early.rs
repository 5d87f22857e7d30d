//! What comes before what: names that are loaded, layout, relocation, taints, exports (specs 01, 03 and 08). The checks
//! themselves: `crates/symres`.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use common::elf::{ALLOC, Builder, EXEC, GLOBAL, LOCAL, Rela, WRITE};
use common::library;
use elf_layout::{Findings, KernelConfig, KernelVersion};
use kernel::{
    Export, ExportTable, KernelDescriptionBuilder, KernelSymbols, LoadedModule, ModuleState, Symvers, Taint,
    Taints,
};
use kmodld::{Args, Loader, Place};
use reloc::MACHINES;
use symres::LoadFlags;

const KALLSYMS: &str = "ffffffff81000000 T _text\nffffffff81000100 T plain\nffffffff81000200 T gpl\n\
    ffffffff81000300 T spaced\nffffffff81000400 T module_layout\n";
const SYMVERS: &str = "0x000000aa\tplain\tvmlinux\tEXPORT_SYMBOL\t\n0x000000bb\tgpl\tvmlinux\tEXPORT_SYMBOL_GPL\t\n\
    0x000000cc\tspaced\tvmlinux\tEXPORT_SYMBOL\tSPACE\n0x000000dd\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t\n";
const CRCS: [(&str, u64); 3] = [("module_layout", 0xdd), ("plain", 0xaa), ("gpl", 0xbb)];
const OURS: &str = "6.12.0 SMP preempt mod_unload modversions ";
const LOCKDEP: &str = "Disabling lock debugging due to kernel taint";

/// Without signatures, so that nothing is said about their absence.
fn config(major: u16, minor: u16) -> KernelConfig {
    KernelConfig::new(KernelVersion::new(major, minor, 0)).with(|c| c.module_sig = false)
}

fn loader_of(config: KernelConfig, symvers: &str) -> Loader {
    let kernel = KernelDescriptionBuilder::new()
        .config("test", config)
        .release("test", "6.12.0")
        .vermagic("test", OURS)
        .symbols("test", KernelSymbols::parse(KALLSYMS.as_bytes()).unwrap())
        .symvers("test", Symvers::parse(symvers.as_bytes()).unwrap());
    Loader::booted(kernel.build(MACHINES).unwrap())
}

fn loader(config: KernelConfig) -> Loader {
    loader_of(config, SYMVERS)
}

/// A module of that name with these strings and CRCs; no `__versions` with an empty list.
fn module(name: &str, modinfo: &[&str], crcs: &[(&str, u64)]) -> Builder {
    let name = format!("name={name}");
    let mut b = Builder::module(&[&[&*name, "intree=Y", "retpoline=Y"], modinfo].concat());
    if !crcs.is_empty() {
        b.versions(crcs);
    }
    b
}

/// A good GPL module `mini`.
fn mini(crcs: &[(&str, u64)]) -> Builder {
    module("mini", &["license=GPL", &format!("vermagic={OURS}")], crcs)
}

fn run(loader: &Loader, b: &Builder, flags: LoadFlags) -> (Findings, Option<Taints>) {
    let bytes = b.build();
    let opened = kmodld::load::open(&bytes, &loader.kernel, flags);
    let attempt = loader.load(&opened, &Args { flags, ..Args::default() }, &Place::Kernel, None);
    let (load, said) = attempt.whatever_it_says();
    (said, load.map(|l| l.resolution.taints))
}

/// errno and log.
fn outcome(loader: &Loader, b: &Builder, flags: LoadFlags) -> (Option<&'static str>, Vec<String>) {
    let (said, _) = run(loader, b, flags);
    assert_eq!(said.refused(), said.errno().is_some(), "no crash: {said:?}");
    (said.errno().map(|e| e.name()), said.dmesg().map(String::from).collect())
}

fn lines(all: &[&str]) -> Vec<String> {
    all.iter().map(|l| (*l).to_owned()).collect()
}

const NONE: LoadFlags = LoadFlags { ignore_modversions: false, ignore_vermagic: false };

fn loaded(name: &str, listed: bool, exports: &[(&str, &str)]) -> LoadedModule {
    let exports = exports.iter().map(|(symbol, namespace)| Export {
        name: symbol.as_bytes(),
        address: Some(0xffff_ffff_c000_0000),
        crc: None,
        gpl_only: false,
        namespace: namespace.as_bytes(),
    });
    let exports = ExportTable::new(exports.collect());
    LoadedModule { exports, listed, ..LoadedModule::named(name.as_bytes()) }
}

#[test]
fn life_3_when_the_name_is_looked_for() {
    let mut b = mini(&CRCS);
    b.section(".both", ALLOC | WRITE | EXEC, 1).zeros(8);
    // Before v6.4 only once there is memory for the module.
    for (minor, code) in [(1, "LAYOUT-4"), (3, "LAYOUT-4"), (4, "LIFE-2"), (12, "LIFE-2")] {
        let mut on = loader(config(6, minor));
        on.kernel.insert_module(loaded("mini", false, &[]));
        let stop = library::stop(&run(&on, &b, NONE).0).map(|s| s.0);
        assert_eq!(stop, Some(code), "LIFE-3: mini, 6.{minor}: a section of mini is writable and executable");
    }
    // While the other goes, 5.10 waits for it.
    for (version, errno) in [((5, 10), "EINTR"), ((6, 1), "EBUSY"), ((6, 12), "EBUSY")] {
        let mut on = loader(config(version.0, version.1));
        let going = LoadedModule { state: ModuleState::Going, ..loaded("mini", false, &[]) };
        on.kernel.insert_module(going);
        assert_eq!(outcome(&on, &mini(&CRCS), NONE).0, Some(errno), "LIFE-1, LIFE-2: mini, {version:?}");
    }
}

#[test]
fn lic_4_what_is_said_of_the_first_proprietary_module() {
    let b = module("mini", &["license=Own", &format!("vermagic={OURS}")], &CRCS);
    let first = "mini: module license 'Own' taints kernel.";
    let second = "mini: module license taints kernel.";
    for (minor, before, want) in [
        (1, 0, &[first, LOCKDEP][..]),
        (12, 0, &[first, LOCKDEP, second]),
        (1, 1, &[]),
        (12, 1, &[]),
        (12, 1 << Taint::OutOfTreeModule as u8, &[first, LOCKDEP, second]),
    ] {
        let mut on = loader(config(6, minor));
        on.kernel.state.taints = Taints::of_kernel(before);
        assert_eq!(
            outcome(&on, &b, NONE),
            (None, lines(want)),
            "LIC-4: mini on 6.{minor}, tainted {before:#x}"
        );
    }
}

/// Adds an export table; its records point to `target` and to the names by place-relative relocations.
fn export(b: &mut Builder, table: &str, names: &[&str]) {
    let (text, suffix) = (b.index(".text"), table.strip_prefix("__ksymtab").unwrap());
    let strings = format!("__strings{suffix}");
    b.section(&strings, ALLOC, 1).data(names.iter().flat_map(|n| n.bytes().chain([0])).collect());
    b.section(table, ALLOC, 4).zeros(12 * names.len() as u64);
    b.section(&format!("__kcrctab{suffix}"), ALLOC, 4).zeros(4 * names.len() as u64);
    let strings = b.index(&strings);
    let (mut records, mut at) = (Vec::new(), 0);
    for (n, name) in names.iter().enumerate() {
        let value = b.symbol(name, GLOBAL, 2, text, 0);
        let string = b.symbol(&format!("__kstrtab{suffix}_{n}"), LOCAL, 0, strings, at);
        for (field, symbol) in [(0, value), (4, string)] {
            records.push(Rela { offset: 12 * n as u64 + field, kind: 2, symbol, addend: 0 });
        }
        at += name.len() as u64 + 1;
    }
    b.relocations(table, &records);
}

#[test]
fn dup_3_relocation_comes_before_duplicate_names() {
    let mut b = mini(&CRCS);
    b.section(".text", ALLOC | EXEC, 16).zeros(16);
    export(&mut b, "__ksymtab", &["plain"]);
    let on = loader(config(6, 12));
    let stop = library::stop(&run(&on, &b, NONE).0).map(|s| s.0);
    assert_eq!(stop, Some("DUP-1"), "DUP-3: mini: only that is wrong");
    b.relocations(".text", &[Rela { offset: 0, kind: 0x7f, symbol: 0, addend: 0 }]);
    let (code, errno, _) = library::stop(&run(&on, &b, NONE).0).expect("DUP-3: mini is refused");
    assert_eq!((code, errno), ("X86REL-1", Some("ENOEXEC")), "DUP-3: mini: relocation is before it");
}
