//! The order of the rules for one undefined symbol (spec 03).

use elf_layout::{Findings, KernelConfig, KernelVersion};
use kernel::KernelSymbols;
use kernel::Symvers;
use kernel::{Export, ExportTable, Kernel, KernelDescriptionBuilder, LoadedModule};
use testkit::elf::{Builder, Elf, GLOBAL, LOCAL, UNDEF};

use crate::common::{self, NONE};

const KALLSYMS: &str = "0000000000000000 A __per_cpu_start\n0000000000030010 A __per_cpu_end\n\
    ffffffff81000000 T _text\nffffffff81000100 T plain\nffffffff81000200 T gpl\nffffffff81000300 T spaced\n\
    ffffffff81000400 T module_layout\n";
const SYMVERS: &str = "0x000000aa\tplain\tvmlinux\tEXPORT_SYMBOL\t\n0x000000bb\tgpl\tvmlinux\tEXPORT_SYMBOL_GPL\t\n\
    0x000000cc\tspaced\tvmlinux\tEXPORT_SYMBOL\tSPACE\n0x000000dd\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t\n";
const GOOD: [(&str, u64); 5] =
    [("module_layout", 0xdd), ("plain", 0xaa), ("gpl", 0xbb), ("spaced", 0xcc), ("shared", 0xff)];

fn kernel(major: u16, minor: u16) -> Kernel {
    let config = KernelConfig::new(KernelVersion::new(major, minor, 0)).with(|c| c.module_sig = false);
    let kernel = KernelDescriptionBuilder::new()
        .config("test", config)
        .symbols("test", KernelSymbols::parse(KALLSYMS.as_bytes()).unwrap())
        .symvers("test", Symvers::parse(SYMVERS.as_bytes()).unwrap());
    Kernel::booted(kernel.build(reloc::MACHINES).unwrap())
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

fn owner(name: &str, crc: Option<u32>, gpl_only: bool, proprietary: bool) -> LoadedModule {
    let export =
        Export { name: b"shared", address: Some(0xffff_ffff_c100_0000), crc, gpl_only, namespace: b"" };
    LoadedModule {
        exports: ExportTable::new([export].into_iter().collect()),
        proprietary,
        ..LoadedModule::named(name.as_bytes())
    }
}

/// What a kernel that has loaded `others` says, on whom the module then depends, and whether it uses
/// GPL-only symbols.
fn load(others: Vec<LoadedModule>, file: &[u8]) -> (Findings, Vec<String>, bool) {
    let mut on = kernel(6, 12);
    others.into_iter().for_each(|m| on.insert_module(m));
    let (loaded, said) = common::load(&on, file, NONE);
    let loaded = loaded.expect("a load");
    (said, loaded.depends, loaded.using_gplonly_symbols)
}

fn unknown(name: &str, errno: u8) -> String {
    format!("mini: Unknown symbol {name} (err -{errno})")
}

fn disagrees(name: &str) -> String {
    format!("mini: disagrees about version of symbol {name}")
}

#[test]
fn sym_20_to_26_the_order_of_the_rules_for_one_symbol() {
    let from = |owner: &str| {
        format!("mini: module uses symbols shared from proprietary module {owner}, inheriting taint.")
    };
    let clash = "mini: module using GPL-only symbols uses symbols shared from proprietary module owned.";
    let free = || owner("free", Some(0xff), false, false);
    let owned = || owner("owned", Some(0xff), false, true);
    let owned_gpl = owner("owned", Some(0xff), true, true);
    type Case<'c> =
        (&'c str, Vec<LoadedModule>, &'c [&'c str], &'c [&'c str], Vec<String>, &'c [&'c str], bool);
    let cases: [Case<'_>; 10] = [
        ("SYM-21: nothing of that name", vec![], &[], &["shared"], vec![unknown("shared", 2)], &[], false),
        ("SYM-22: a GPL-only one", vec![], &[], &["gpl"], vec![], &[], true),
        (
            "SYM-22: before the CRC is looked at",
            vec![owned()],
            &["gpl"],
            &["gpl", "shared"],
            vec![disagrees("gpl"), unknown("gpl", 22), clash.into(), unknown("shared", 2)],
            &[],
            true,
        ),
        (
            "SYM-22: before a taint is inherited, so the very symbol is refused",
            vec![owned_gpl],
            &[],
            &["shared"],
            vec![clash.into(), unknown("shared", 2)],
            &[],
            true,
        ),
        (
            "SYM-23: a taint is inherited before the CRC is looked at",
            vec![owned()],
            &["shared"],
            &["shared", "gpl"],
            vec![from("owned"), disagrees("shared"), unknown("shared", 22), unknown("gpl", 2)],
            &[],
            false,
        ),
        (
            "SYM-20: with that taint, GPL-only ones are gone from the next symbol on",
            vec![owned()],
            &[],
            &["gpl", "plain"],
            vec![],
            &[],
            true,
        ),
        (
            "SYM-24: a wrong CRC, before the namespace",
            vec![],
            &["spaced"],
            &["spaced"],
            vec![disagrees("spaced"), unknown("spaced", 22)],
            &[],
            false,
        ),
        (
            "SYM-25: the namespace",
            vec![],
            &[],
            &["spaced"],
            vec![
                "mini: module uses symbol (spaced) from namespace SPACE, but does not import it.".into(),
                unknown("spaced", 22),
            ],
            &[],
            false,
        ),
        ("SYM-26: an edge to its owner", vec![free()], &[], &["shared", "shared"], vec![], &["free"], false),
        (
            "SYM-26: no edge to the owner of what is refused",
            vec![free()],
            &["shared"],
            &["shared"],
            vec![disagrees("shared"), unknown("shared", 22)],
            &[],
            false,
        ),
    ];
    for (rule, others, wrong, imports, log, edges, gplonly) in cases {
        let (said, depends, using) = load(others, &importing("mini", wrong, imports).build());
        assert_eq!(said.dmesg().collect::<Vec<_>>(), log, "{rule}: mini");
        assert_eq!(said.refused(), log.iter().any(|l| l.contains("Unknown")), "{rule}: mini");
        assert_eq!(
            (depends, using),
            (edges.iter().map(|e| (*e).to_owned()).collect(), gplonly),
            "{rule}: mini"
        );
    }
}

#[test]
fn ver_2_exporters_without_crcs_match_anything() {
    for (crc, wrong, good) in
        [(None, true, true), (None, false, true), (Some(0xff), true, false), (Some(1), false, false)]
    {
        let b = importing("mini", if wrong { &["shared"] } else { &[] }, &["shared"]);
        let (said, _, _) = load(vec![owner("other", crc, false, false)], &b.build());
        assert_eq!(!said.refused(), good, "VER-2: mini: exporter's CRC {crc:?}, module's wrong: {wrong}");
    }
}

#[test]
fn dep_4_depends_is_not_read() {
    let mut b = importing("mini", &[], &["shared"]);
    let modinfo = &mut b.sections[0];
    let more = b"depends=absent,other\0softdep=pre: absent\0weakdep=absent\0";
    let data = [&modinfo.data[..], more].concat();
    modinfo.data(data);
    let others = || vec![owner("owner", Some(0xff), false, false), owner("other", Some(0xff), true, false)];
    let (said, depends, _) = load(others(), &b.build());
    assert!(!said.refused(), "DEP-4: mini: absent is not missed: {said:?}");
    assert_eq!(depends, ["other"], "DEP-4: mini: by symbols, from the newest module");
    b.symbols.pop();
    let (said, depends, _) = load(others(), &b.build());
    assert_eq!((said.refused(), depends.len()), (false, 0), "DEP-4: mini: no symbols, no edges");
}

#[test]
fn sym_9_a_name_is_wherever_st_name_points() {
    let mut b = importing("mini", &[], &[]);
    let local = b.symbol("not_plain", LOCAL, 0, 2, 0);
    let tail = b.symbol("whatever", GLOBAL, 0, UNDEF, 0);
    let mut elf = Elf::new(b.build());
    for (skipped, value) in [(4, Some(0xffff_ffff_8100_0100)), (3, None)] {
        let st_name = elf.number(elf.symbol_at(local as usize), 4) + skipped;
        let at = elf.symbol_at(tail as usize);
        elf.put(at, 4, st_name);
        let (loaded, said) = common::load(&kernel(6, 12), &elf.bytes, NONE);
        match value {
            Some(value) => assert_eq!(loaded.unwrap().values[tail as usize], value, "SYM-9: mini: a tail"),
            None => assert_eq!(
                said.dmesg().collect::<Vec<_>>(),
                [unknown("_plain", 2)],
                "SYM-9: mini: another tail"
            ),
        }
    }
}

#[test]
fn val_55_a_name_without_end_and_an_import_from_a_namespace() {
    let name = "x".repeat(60);
    for (minor, fortified, import, crashes) in [
        (16, true, "spaced", true),
        (16, true, "plain", false),
        (16, false, "spaced", false),
        (15, true, "spaced", false),
    ] {
        let symbols =
            format!("{KALLSYMS}{}", if fortified { "ffffffff81000900 T __fortify_panic\n" } else { "" });
        let config = KernelConfig::new(KernelVersion::new(6, minor, 0)).with(|c| c.module_sig = false);
        let kernel = KernelDescriptionBuilder::new()
            .config("test", config)
            .symbols("test", KernelSymbols::parse(symbols.as_bytes()).unwrap())
            .symvers("test", Symvers::parse(SYMVERS.as_bytes()).unwrap());
        let on = Kernel::booted(kernel.build(reloc::MACHINES).unwrap());
        let (_, said) = common::load(&on, &importing(&name, &[], &[import]).build(), NONE);
        let found = said.iter().any(|f| f.code == "VAL-55" && f.stops_here && f.errno.is_none());
        assert_eq!(found, crashes, "VAL-55: 6.{minor} {fortified} {import}: {said:?}");
    }
}
