//! How every symbol gets its value, and by which rules a name may be used (spec 03).

use elf_layout::{Findings, KernelConfig, KernelVersion};
use kernel::KernelSymbols;
use kernel::Symvers;
use kernel::{Export, ExportTable, Kernel, KernelDescriptionBuilder, LoadedModule};
use testkit::elf::{ABS, ALLOC, Builder, COMMON, EXEC, Elf, GLOBAL, LOCAL, UNDEF, WEAK, WRITE};

use crate::common::{NONE, load, say, stop};

const KALLSYMS: &str = "0000000000000000 A __per_cpu_start\n0000000000030000 A __per_cpu_end\n\
    ffffffff81000000 T _text\nffffffff81000100 T plain\nffffffff81000200 T gpl\nffffffff81000300 T spaced\n\
    ffffffff81000400 T module_layout\nffffffff81000500 t hidden\n";
const SYMVERS: &str = "0x000000aa\tplain\tvmlinux\tEXPORT_SYMBOL\t\n0x000000bb\tgpl\tvmlinux\tEXPORT_SYMBOL_GPL\t\n\
    0x000000cc\tspaced\tvmlinux\tEXPORT_SYMBOL\tSPACE\n0x000000dd\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t\n\
    0x000000ee\telsewhere\tdrivers/else-where\tEXPORT_SYMBOL\t\n";
const CRCS: [(&str, u64); 4] = [("module_layout", 0xdd), ("plain", 0xaa), ("gpl", 0xbb), ("spaced", 0xcc)];

/// Without signatures, so that nothing is said about their absence.
fn config() -> KernelConfig {
    KernelConfig::new(KernelVersion::new(6, 12, 0)).with(|c| c.module_sig = false)
}

fn kernel(config: KernelConfig) -> Kernel {
    let kernel = KernelDescriptionBuilder::new()
        .config("test", config)
        .release("test", "6.12.0")
        .symbols("test", KernelSymbols::parse(KALLSYMS.as_bytes()).unwrap())
        .symvers("test", Symvers::parse(SYMVERS.as_bytes()).unwrap());
    Kernel::booted(kernel.build(reloc::MACHINES).unwrap())
}

/// A module of another owner that exports one symbol with CRC 0xff.
fn exporter(name: &str, symbol: &str, address: u64, gpl_only: bool, proprietary: bool) -> LoadedModule {
    let export =
        Export { name: symbol.as_bytes(), address: Some(address), crc: Some(0xff), gpl_only, namespace: b"" };
    LoadedModule {
        exports: ExportTable::new([export].into_iter().collect()),
        proprietary,
        ..LoadedModule::named(name.as_bytes())
    }
}

/// A module with these CRCs, more modinfo strings and nothing else.
fn with_versions(modinfo: &[&str], crcs: &[(&str, u64)]) -> Builder {
    let mut all =
        vec!["name=mini", "intree=Y", "retpoline=Y", "vermagic=6.12.0 SMP preempt mod_unload modversions "];
    all.extend(modinfo);
    let mut builder = Builder::module(&all);
    if !crcs.is_empty() {
        builder.versions(crcs);
    }
    builder
}

/// A GPL module that imports these symbols, in this order.
fn importing(names: &[(&str, u8)]) -> Builder {
    let mut builder = with_versions(&["license=GPL"], &[&CRCS[..], &[("shared", 0xff)]].concat());
    for (name, bind) in names {
        builder.symbol(name, *bind, 0, UNDEF, 0);
    }
    builder
}

fn dmesg(said: &Findings) -> Vec<&str> {
    said.dmesg().collect()
}

/// errno and all lines of a refusal.
#[track_caller]
fn refused(said: &Findings) -> (&'static str, Vec<&str>) {
    (said.errno().unwrap_or_else(|| panic!("not refused: {said:?}")).name(), dmesg(said))
}

/// Value of every symbol, imports and dependencies of a module that loads.
#[track_caller]
fn values(kernel: &Kernel, builder: &Builder) -> (Vec<u64>, Vec<String>) {
    let (loaded, said) = load(kernel, &builder.build(), NONE);
    assert!(!said.refused(), "{said:?}");
    let loaded = loaded.expect("a load");
    (loaded.values, loaded.depends)
}

#[test]
fn sym_2_to_7_values_by_section_index() {
    let mut b = importing(&[
        ("plain", GLOBAL),
        ("plain", LOCAL),
        ("missing", WEAK),
        ("_GLOBAL_OFFSET_TABLE_", GLOBAL),
    ]);
    b.section(".text", ALLOC | EXEC, 16).zeros(64);
    b.section(".data..percpu", ALLOC | WRITE, 16).zeros(64);
    b.section(".comment", 0, 1).zeros(64);
    let (text, percpu, comment) = (b.index(".text"), b.index(".data..percpu"), b.index(".comment"));
    for (name, shndx) in
        [("abs", ABS), ("livepatch", 0xff20), ("text", text), ("percpu", percpu), ("comment", comment)]
    {
        b.symbol(name, GLOBAL, 0, shndx, 0x10);
    }
    b.symbol("__gnu_lto_slim", GLOBAL, 1, COMMON, 1);
    let (found, _) = values(&kernel(config()), &b);
    for (name, want) in [
        ("SYM-4: found", 0xffff_ffff_8100_0100),
        ("SYM-4: binding is irrelevant", 0xffff_ffff_8100_0100),
        ("SYM-5: weak and missing", 0),
        ("SYM-5: _GLOBAL_OFFSET_TABLE_", 0),
        ("SYM-2: ABS", 0x10),
        ("SYM-3: LIVEPATCH", 0x10),
        ("SYM-7: .text, the first region", 0xffff_ffff_c020_1010),
        ("SYM-7: per-cpu", 0x30010),
        ("SYM-7: not moved, relative to its section", 0x10),
        ("SYM-1: __gnu_lto is ignored", 1),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, (what, want))| ((what, found[i + 1]), want))
    {
        assert_eq!(name.1, want, "{}", name.0);
    }
}

#[test]
fn sym_1_5_and_6_what_is_refused() {
    let on = kernel(config());
    let max = |b: &Builder| b.sections.len() + 3;
    for (rule, name, shndx, errno) in [
        ("SYM-1", "tentative", COMMON, "ENOEXEC"),
        ("SYM-5", "missing", UNDEF, "ENOENT"),
        ("SYM-5", "hidden", UNDEF, "ENOENT"),
        ("SYM-5", "elsewhere", UNDEF, "ENOENT"),
        ("SYM-6", "extended", 0xffff, "ENOEXEC"),
        ("SYM-6", "reserved", 0xff00, "ENOEXEC"),
        ("SYM-6", "one too many", 7, "ENOEXEC"),
    ] {
        let mut b = importing(&[]);
        let shnum = max(&b) + 1;
        let shndx = if name == "one too many" { shnum as u16 } else { shndx };
        b.symbol(name, GLOBAL, 0, shndx, 0);
        let line = match rule {
            "SYM-1" => "mini: please compile with -fno-common".to_owned(),
            "SYM-5" => format!("mini: Unknown symbol {name} (err -2)"),
            _ => format!("mini: Symbol {name} has an invalid section index {shndx} (max {})", max(&b)),
        };
        let said = say(&on, &b);
        assert_eq!(refused(&said), (errno, vec![&*line]), "{rule}: {name}");
        assert_eq!(stop(&said).unwrap().0, rule, "{name}");
        b.symbols[0] = b.symbols.pop().unwrap();
        let first = say(&on, &b);
        assert!(!first.refused(), "{rule}: {name}: symbol 0 is never looked at");
    }
}

#[test]
fn sym_10_the_name_of_an_undefined_symbol() {
    let on = kernel(config());
    // One in no section is told by name, too (SYM-6).
    for (index, kind) in [("plain", UNDEF), ("common", COMMON), ("nowhere", 0x7000)] {
        let mut b = importing(&[]);
        b.symbol(index, GLOBAL, 0, kind, 0);
        let mut elf = Elf::new(b.build());
        let at = elf.symbol_at(1);
        elf.put(at, 4, 0xffff_fff0);
        let (_, said) = load(&on, &elf.bytes, NONE);
        assert!(said.refused() && said.errno().is_none(), "SYM-10: {index}: {said:?}");
        assert_eq!(said.iter().find(|f| f.stops_here).map(|f| f.code), Some("SYM-10"), "{index}");
    }
}

#[test]
fn sym_40_obsolete_parameters() {
    let mut b = importing(&[]);
    b.section("__obsparm", ALLOC, 8).zeros(8);
    let opened = b.build();
    let (_, said) = load(&kernel(config()), &opened, NONE);
    assert_eq!(dmesg(&said), ["mini: Ignoring obsolete parameters"], "SYM-40");
    b.sections.last_mut().unwrap().flags = 0;
    let (_, said) = load(&kernel(config()), &b.build(), NONE);
    assert!(dmesg(&said).is_empty(), "SYM-40: not in memory");
}

#[test]
fn sym_8_all_are_told_and_the_last_one_decides() {
    let on = kernel(config());
    for order in [["missing", "common"], ["common", "missing"]] {
        let mut b = importing(&[]);
        for name in order {
            b.symbol(name, GLOBAL, 0, if name == "common" { COMMON } else { UNDEF }, 0);
        }
        b.symbol("plain", GLOBAL, 0, UNDEF, 0);
        let said = say(&on, &b);
        let lines = order.map(|n| match n {
            "common" => "mini: please compile with -fno-common",
            _ => "mini: Unknown symbol missing (err -2)",
        });
        let errno = if order[1] == "common" { "ENOEXEC" } else { "ENOENT" };
        assert_eq!(refused(&said), (errno, lines.to_vec()), "SYM-8: {order:?}");
    }
}

#[test]
fn lic_1_and_2_which_licences_see_gpl_only_symbols() {
    let on = kernel(config());
    for (licences, free) in [
        (&["license=GPL"][..], true),
        (&["license=GPL v2"], true),
        (&["license=GPL and additional rights"], true),
        (&["license=Dual BSD/GPL"], true),
        (&["license=Dual MIT/GPL"], true),
        (&["license=Dual MPL/GPL"], true),
        (&["license=Proprietary"], false),
        (&["license=GPL v3"], false),
        (&["license=gpl"], false),
        (&["license="], false),
        (&[], false),
        (&["license=GPL", "license=Proprietary"], true),
        (&["license=Proprietary", "license=GPL"], false),
    ] {
        let mut b = with_versions(licences, &CRCS);
        b.symbol("plain", GLOBAL, 0, UNDEF, 0);
        assert!(!say(&on, &b).refused(), "LIC-6: {licences:?}: plain exports are for all");
        b.symbol("gpl", GLOBAL, 0, UNDEF, 0);
        let said = say(&on, &b);
        assert_eq!(said.refused(), !free, "LIC-1, LIC-2: {licences:?}");
        if !free {
            let (errno, lines) = refused(&said);
            assert_eq!(
                (errno, lines.last()),
                ("ENOENT", Some(&"mini: Unknown symbol gpl (err -2)")),
                "SYM-31: {licences:?}"
            );
        }
        b.symbols.last_mut().unwrap().info = WEAK << 4;
        assert!(!say(&on, &b).refused(), "SYM-5: {licences:?}: a weak symbol counts as missing");
    }
}

#[test]
fn sym_30_and_31_who_is_asked_first() {
    let mut on = kernel(config());
    on.insert_module(exporter("older", "shared", 0x1000, false, false));
    on.insert_module(exporter("newer", "shared", 0x2000, true, false));
    let b = importing(&[("shared", GLOBAL)]);
    assert_eq!(values(&on, &b), (vec![0, 0x2000], vec!["newer".into()]), "SYM-30: the newest module first");
    let mut b = with_versions(&["license=Proprietary"], &[("module_layout", 0xdd), ("shared", 0xff)]);
    b.symbol("shared", GLOBAL, 0, UNDEF, 0);
    assert_eq!(values(&on, &b), (vec![0, 0x1000], vec!["older".into()]), "SYM-31: GPL-only ones are skipped");
    on.insert_module(exporter("imposter", "plain", 0x3000, false, false));
    let (found, depends) = values(&on, &importing(&[("plain", GLOBAL)]));
    assert_eq!((found[1], depends.len()), (0xffff_ffff_8100_0100, 0), "SYM-30: the kernel first");
}

#[test]
fn lic_5_taint_is_inherited_in_symbol_order() {
    let mut on = kernel(config());
    on.insert_module(exporter("owned", "shared", 0x1000, false, true));
    let said = say(&on, &importing(&[("shared", GLOBAL), ("plain", GLOBAL)]));
    let inherits = "mini: module uses symbols shared from proprietary module owned, inheriting taint.";
    assert_eq!((said.refused(), dmesg(&said)), (false, vec![inherits]), "LIC-5: loads, tainted");

    let said = say(&on, &importing(&[("shared", GLOBAL), ("gpl", GLOBAL)]));
    let unknown = "mini: Unknown symbol gpl (err -2)";
    assert_eq!(
        refused(&said),
        ("ENOENT", vec![inherits, unknown]),
        "LIC-5: from then on GPL-only ones are invisible"
    );

    let said = say(&on, &importing(&[("gpl", GLOBAL), ("shared", GLOBAL)]));
    let clash = "mini: module using GPL-only symbols uses symbols shared from proprietary module owned.";
    let unknown = "mini: Unknown symbol shared (err -2)";
    assert_eq!(refused(&said), ("ENOENT", vec![clash, unknown]), "LIC-5: the other order");

    let said = say(&on, &importing(&[("gpl", GLOBAL), ("shared", WEAK)]));
    assert_eq!(
        (said.refused(), dmesg(&said)),
        (false, vec![clash]),
        "SYM-23: missing is fine for a weak symbol"
    );
}

#[test]
fn dep_1_and_2_one_edge_per_module_in_order_of_first_use() {
    let mut on = kernel(config());
    on.insert_module(exporter("first", "a", 0x1000, false, false));
    on.insert_module(exporter("second", "b", 0x2000, false, false));
    let mut b = with_versions(&["license=GPL"], &[("module_layout", 0xdd), ("a", 0xff), ("b", 0xff)]);
    for name in ["b", "a", "b"] {
        b.symbol(name, GLOBAL, 0, UNDEF, 0);
    }
    assert_eq!(values(&on, &b).1, ["second", "first"], "DEP-1, DEP-2");
}

#[test]
fn ns_1_and_2_namespaces() {
    let importing_ns = |modinfo: &[&str], bind| {
        let mut b = with_versions(&[&["license=GPL"], modinfo].concat(), &CRCS);
        b.symbol("spaced", bind, 0, UNDEF, 0);
        b
    };
    let strict = kernel(config());
    let line = "mini: module uses symbol (spaced) from namespace SPACE, but does not import it.";
    let unknown = "mini: Unknown symbol spaced (err -22)";
    for (modinfo, allowed) in [
        (&["import_ns=SPACE"][..], true),
        (&["import_ns=OTHER", "import_ns=SPACE"], true),
        (&[], false),
        (&["import_ns=SPAC"], false),
        (&["import_ns=SPACES"], false),
        (&["import_ns=space"], false),
    ] {
        let said = say(&strict, &importing_ns(modinfo, GLOBAL));
        if allowed {
            assert!(!said.refused(), "NS-2: {modinfo:?}");
        } else {
            assert_eq!(refused(&said), ("EINVAL", vec![line, unknown]), "NS-2: {modinfo:?}");
        }
    }
    let said = say(&strict, &importing_ns(&[], WEAK));
    assert_eq!(
        refused(&said),
        ("EINVAL", vec![line, unknown]),
        "SYM-5b: a weak symbol that is forbidden is refused"
    );
    let lenient = kernel(config().with(|c| c.allow_missing_namespace_imports = true));
    let said = say(&lenient, &importing_ns(&[], GLOBAL));
    assert_eq!((said.refused(), dmesg(&said)), (false, vec![line]), "NS-2: only a warning");
}

#[test]
fn ns_3_module_namespaces_since_6_16() {
    for (minor, namespace, allowed) in [
        (16, "module:mini", true),
        (16, "module:other,mi*", true),
        (16, "module:other", false),
        (12, "module:mini", false),
    ] {
        let config = config().with(|c| c.set_version(KernelVersion::new(6, minor, 0)));
        let mut module = exporter("owner", "shared", 0x1000, true, false);
        let mut export = module.exports.iter().next().unwrap();
        export.namespace = namespace.as_bytes();
        module.exports = ExportTable::new([export].into_iter().collect());
        let mut on = kernel(config);
        on.insert_module(module);
        let said = say(&on, &importing(&[("shared", GLOBAL)]));
        assert_eq!(said.refused(), !allowed, "NS-3, NS-5: 6.{minor}: {namespace}");
    }
}
