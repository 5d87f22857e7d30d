//! The checks before and around the layout: vermagic, the CRC of `module_layout`, forced loads, names that
//! taint, modules and exports that are there already (specs 01, 03 and 08).

use elf_layout::{Findings, KernelConfig, KernelVersion};
use kernel::KernelSymbols;
use kernel::Symvers;
use kernel::{
    Export, ExportTable, Kernel, KernelDescriptionBuilder, LoadedModule, ModuleState, Taint, Taints,
};
use symres::LoadFlags;
use testkit::elf::{ALLOC, Builder, EXEC, Elf, GLOBAL, LOCAL, Rela, Sh, UNDEF};

use crate::common::{self, NONE, codes, stop};

const KALLSYMS: &str = "ffffffff81000000 T _text\nffffffff81000100 T plain\nffffffff81000200 T gpl\n\
    ffffffff81000300 T spaced\nffffffff81000400 T module_layout\n";
const SYMVERS: &str = "0x000000aa\tplain\tvmlinux\tEXPORT_SYMBOL\t\n0x000000bb\tgpl\tvmlinux\tEXPORT_SYMBOL_GPL\t\n\
    0x000000cc\tspaced\tvmlinux\tEXPORT_SYMBOL\tSPACE\n0x000000dd\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t\n";
const CRCS: [(&str, u64); 3] = [("module_layout", 0xdd), ("plain", 0xaa), ("gpl", 0xbb)];
const OURS: &str = "6.12.0 SMP preempt mod_unload modversions ";
const IGNORE_VERMAGIC: LoadFlags = LoadFlags { ignore_modversions: false, ignore_vermagic: true };
const IGNORE_MODVERSIONS: LoadFlags = LoadFlags { ignore_modversions: true, ignore_vermagic: false };
const LOCKDEP: &str = "Disabling lock debugging due to kernel taint";

/// Without signatures, so that nothing is said about their absence.
fn config(major: u16, minor: u16) -> KernelConfig {
    KernelConfig::new(KernelVersion::new(major, minor, 0)).with(|c| c.module_sig = false)
}

fn builder_of(config: KernelConfig, symvers: &str) -> KernelDescriptionBuilder {
    KernelDescriptionBuilder::new()
        .config("test", config)
        .release("test", "6.12.0")
        .vermagic("test", OURS)
        .symbols("test", KernelSymbols::parse(KALLSYMS.as_bytes()).unwrap())
        .symvers("test", Symvers::parse(symvers.as_bytes()).unwrap())
}

fn kernel_of(config: KernelConfig, symvers: &str) -> Kernel {
    Kernel::booted(builder_of(config, symvers).build(reloc::MACHINES).unwrap())
}

fn kernel(config: KernelConfig) -> Kernel {
    kernel_of(config, SYMVERS)
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

fn run(kernel: &Kernel, b: &Builder, flags: LoadFlags) -> (Findings, Option<Taints>) {
    let (loaded, said) = common::load(kernel, &b.build(), flags);
    (said, loaded.map(|l| l.taints))
}

/// errno and log.
fn outcome(kernel: &Kernel, b: &Builder, flags: LoadFlags) -> (Option<&'static str>, Vec<String>) {
    let (said, _) = run(kernel, b, flags);
    assert_eq!(said.refused(), said.errno().is_some(), "no crash: {said:?}");
    (said.errno().map(|e| e.name()), said.dmesg().map(String::from).collect())
}

fn lines(all: &[&str]) -> Vec<String> {
    all.iter().map(|l| (*l).to_owned()).collect()
}

#[test]
fn ver_20_what_the_kernels_own_string_tells() {
    for (vermagic, smp, unload, modversions) in [
        (OURS, true, true, true),
        ("6.12.0 SMP preempt mod_unload modversions aarch64", true, true, true),
        ("6.12.0 preempt mod_unload ", false, true, false),
        ("6.12.0-SMP modversions ", false, false, true),
    ] {
        let mut config = config(6, 12);
        config.apply_vermagic(vermagic.as_bytes());
        let found = (config.smp, config.module_unload, config.modversions);
        assert_eq!(found, (smp, unload, modversions), "VER-20: {vermagic}");
    }
}

#[test]
fn ver_22_to_24_which_vermagic_is_right() {
    const OTHER: &str = "vermagic=6.12.99 SMP preempt mod_unload modversions ";
    let right = format!("vermagic={OURS}");
    for (rule, vermagic, crcs, modversions, good) in [
        ("VER-22: equal", &[&*right][..], true, true, true),
        ("VER-22: equal, no CRCs", &[&right], false, true, true),
        ("VER-22: another release, with CRCs", &[OTHER], true, true, true),
        ("VER-22: another release, no CRCs", &[OTHER], false, true, false),
        ("VER-22: another release, MODVERSIONS=n", &[OTHER], true, false, false),
        ("VER-20: not SMP", &["vermagic=6.12.0 preempt mod_unload modversions "], true, true, false),
        ("VER-20: real-time", &["vermagic=6.12.0 SMP preempt_rt mod_unload modversions "], true, true, false),
        ("VER-20: arm64", &["vermagic=6.12.0 SMP preempt mod_unload modversions aarch64"], true, true, false),
        ("VER-20: no blank at the end", &[right.trim_end()], true, true, false),
        ("VER-22: the release alone", &["vermagic=6.12.0"], true, true, false),
        ("VER-24: the first one counts", &[&right, "vermagic=nonsense"], true, true, true),
        ("VER-24: the first one counts", &["vermagic=nonsense", &right], true, true, false),
    ] {
        let on = kernel(config(6, 12).with(|c| c.modversions = modversions));
        let b = module("mini", &[&["license=GPL"], vermagic].concat(), if crcs { &CRCS } else { &[] });
        let (said, _) = run(&on, &b, NONE);
        if good {
            assert!(!said.refused(), "{rule}: mini, {vermagic:?}: {:?}", codes(&said));
            continue;
        }
        let (code, errno, last) = stop(&said).unwrap_or_else(|| panic!("{rule}: mini loads"));
        let theirs = vermagic[0].strip_prefix("vermagic=").unwrap();
        let line = format!("mini: version magic '{theirs}' should be '{OURS}'");
        assert_eq!((code, errno, last), ("VER-23", Some("ENOEXEC"), vec![line]), "VER-23: {rule}: mini");
    }
}

#[test]
fn ver_21_no_vermagic_is_a_forced_load() {
    let absent = module("mini", &["license=GPL"], &CRCS);
    let wrong = module("mini", &["license=GPL", "vermagic=nonsense"], &CRCS);
    let forced = lines(&["mini: bad vermagic: kernel tainted.", LOCKDEP]);
    for (what, b, flags) in
        [("VAL-65: absent", &absent, NONE), ("VER-21: IGNORE_VERMAGIC", &wrong, IGNORE_VERMAGIC)]
    {
        let on = kernel(config(6, 12));
        assert_eq!(outcome(&on, b, flags), (None, forced.clone()), "{what}: mini");
        let taints = run(&on, b, flags).1.unwrap();
        assert!(taints.module_has(Taint::ForcedModule), "{what}: mini: taint F");
        let off = kernel(config(6, 12).with(|c| c.module_force_load = false));
        assert_eq!(outcome(&off, b, flags), (Some("ENOEXEC"), vec![]), "{what}: mini: silently");
    }
}

#[test]
fn ver_10_the_crc_of_module_layout_comes_first() {
    let disagrees = lines(&["mini: disagrees about version of symbol module_layout"]);
    let b = module("mini", &["license=GPL", "vermagic=nonsense"], &[("module_layout", 0xde)]);
    for minor in [1, 12] {
        let found = outcome(&kernel(config(6, minor)), &b, NONE);
        assert_eq!(found, (Some("ENOEXEC"), disagrees.clone()), "VER-10: mini on 6.{minor}, before vermagic");
    }
    let off = kernel(config(6, 12).with(|c| c.modversions = false));
    let stop = stop(&run(&off, &b, NONE).0).map(|s| s.0);
    assert_eq!(stop, Some("VER-23"), "VER-1: mini: MODVERSIONS=n does not look");
}

#[test]
fn ver_41_a_force_that_fails() {
    let off = config(6, 12).with(|c| c.module_force_load = false);
    let mut b = mini(&[]);
    b.symbol("plain", GLOBAL, 0, UNDEF, 0);
    let found = outcome(&kernel(off.clone()), &b, NONE);
    assert_eq!(found, (Some("ENOEXEC"), vec![]), "VER-41: mini: module_layout");
    let without: String =
        SYMVERS.lines().filter(|l| !l.contains("module_layout")).map(|l| format!("{l}\n")).collect();
    let unknown = lines(&["mini: Unknown symbol plain (err -22)"]);
    let found = outcome(&kernel_of(off, &without), &b, NONE);
    assert_eq!(found, (Some("EINVAL"), unknown), "VER-41: mini: a symbol");
}

#[test]
fn ver_33_ignored_versions_are_as_if_absent() {
    let on = kernel(config(6, 12));
    let mut wrong = mini(&[("module_layout", 1), ("plain", 1)]);
    wrong.symbol("plain", GLOBAL, 0, UNDEF, 0);
    assert_eq!(outcome(&on, &wrong, NONE).0, Some("ENOEXEC"), "VER-33: mini: its CRCs are wrong");
    let forced = lines(&["mini: module_layout: kernel tainted.", LOCKDEP]);
    assert_eq!(outcome(&on, &wrong, IGNORE_MODVERSIONS), (None, forced), "VER-33: mini: but not looked at");
    let other =
        module("mini", &["license=GPL", "vermagic=6.12.99 SMP preempt mod_unload modversions "], &CRCS);
    assert_eq!(outcome(&on, &other, NONE).0, None, "VER-22: mini: the release does not count");
    let stop = stop(&run(&on, &other, IGNORE_MODVERSIONS).0).map(|s| s.0);
    assert_eq!(stop, Some("VER-23"), "VER-33: mini: without CRCs it does");
}

#[test]
fn ver_11_exports_without_crcs() {
    let forced = lines(&["mini: no versions for exported symbols: kernel tainted.", LOCKDEP]);
    for (table, crcs, version, modversions, accused) in [
        ("__ksymtab", None, (6, 12), true, true),
        ("__ksymtab_gpl", None, (6, 12), true, true),
        ("__ksymtab_gpl", Some("__kcrctab"), (6, 12), true, true),
        ("__ksymtab_gpl", None, (7, 1), true, false),
        ("__ksymtab", None, (7, 1), true, true),
        ("__ksymtab", Some("__kcrctab"), (6, 12), true, false),
        ("__ksymtab_gpl", Some("__kcrctab_gpl"), (6, 12), true, false),
        ("__ksymtab", None, (6, 12), false, false),
    ] {
        let what = format!("VER-11: mini on {version:?}, MODVERSIONS={modversions}: {table} and {crcs:?}");
        let mut b = mini(&CRCS);
        b.section(table, ALLOC, 4).zeros(12);
        if let Some(crcs) = crcs {
            b.section(crcs, ALLOC, 4).zeros(4);
        }
        if table == "__ksymtab" && version == (7, 1) {
            b.section("__kflagstab", ALLOC, 1).zeros(1);
        }
        let on = config(version.0, version.1).with(|c| c.modversions = modversions);
        let found = outcome(&kernel(on.clone()), &b, NONE);
        let said_so = found.1.iter().filter(|l| forced.contains(l)).count();
        assert_eq!((found.0, said_so), (None, if accused { 2 } else { 0 }), "{what}");
        let off = on.with(|c| c.module_force_load = false);
        let found = outcome(&kernel(off), &b, NONE).0;
        assert_eq!(found, accused.then_some("ENOEXEC"), "{what}, MODULE_FORCE_LOAD=n");
    }
}

#[test]
fn sym_39_exports_as_before_7_1() {
    let flags = "mini: no flags for exported symbols";
    let obsolete = |s: &str| format!("mini: ignoring obsolete section {s}");
    for (sections, version, errno, want) in [
        (&["__ksymtab", "__kcrctab"][..], (7, 1), Some("ENOEXEC"), vec![String::from(flags)]),
        (&["__ksymtab", "__kcrctab"], (7, 0), None, vec![]),
        (&["__ksymtab", "__kcrctab", "__kflagstab"], (7, 1), None, vec![]),
        (&["__ksymtab_gpl", "__kcrctab_gpl"], (7, 0), None, vec![]),
        (
            &["__ksymtab_gpl", "__kcrctab_gpl"],
            (7, 1),
            None,
            vec![obsolete("__ksymtab_gpl"), obsolete("__kcrctab_gpl")],
        ),
    ] {
        let mut b = mini(&CRCS);
        for section in sections {
            b.section(section, ALLOC, 4).zeros(12);
        }
        let found = outcome(&kernel(config(version.0, version.1)), &b, NONE);
        assert_eq!(found, (errno, want), "SYM-39: mini on {version:?} with {sections:?}");
    }
}

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
fn life_2_a_module_of_that_name_is_loaded() {
    for (name, listed, errno) in
        [("mini", false, Some("EEXIST")), ("mini", true, None), ("min", false, None), ("mini2", false, None)]
    {
        let mut on = kernel(config(6, 12));
        on.insert_module(loaded(name, listed, &[]));
        assert_eq!(outcome(&on, &mini(&CRCS), NONE), (errno, vec![]), "LIFE-2: mini beside {name}, {listed}");
        let bad = module("mini", &["license=GPL", "vermagic=nonsense"], &CRCS);
        let stop = stop(&run(&on, &bad, NONE).0).map(|s| s.0);
        assert_eq!(stop, Some("VER-23"), "LIFE-2: mini beside {name}: after vermagic");
    }
}

/// While the other goes, 5.10 waits for it.
#[test]
fn life_1_a_module_of_that_name_is_going() {
    for (version, errno) in [((5, 10), "EINTR"), ((6, 1), "EBUSY"), ((6, 12), "EBUSY")] {
        let mut on = kernel(config(version.0, version.1));
        on.insert_module(LoadedModule { state: ModuleState::Going, ..loaded("mini", false, &[]) });
        assert_eq!(outcome(&on, &mini(&CRCS), NONE).0, Some(errno), "LIFE-1, LIFE-2: mini, {version:?}");
    }
}

#[test]
fn sym_27_a_module_that_is_still_loading() {
    let mut b = mini(&[("module_layout", 0xdd), ("shared", 0xff)]);
    b.symbol("shared", GLOBAL, 0, UNDEF, 0);
    let of = |state| {
        let mut on = kernel(config(6, 12));
        on.insert_module(LoadedModule { state, ..loaded("owner", false, &[("shared", "")]) });
        outcome(&on, &b, NONE)
    };
    assert_eq!(of(ModuleState::Live), (None, vec![]), "SYM-27: live");
    let (errno, log) = of(ModuleState::Coming);
    assert_eq!(errno, Some("EBUSY"), "SYM-27: its init does not end");
    let gave_up = "mini: gave up waiting for init of module owner.";
    assert_eq!(log, lines(&[gave_up, "mini: Unknown symbol shared (err -16)"]), "SYM-27");
    let (errno, log) = of(ModuleState::Going);
    assert_eq!(
        (errno, log),
        (Some("ENOENT"), lines(&["mini: Unknown symbol shared (err -2)"])),
        "SYM-26: going"
    );
}

#[test]
fn layout_31_a_livepatch_module_taints() {
    let b = module("mini", &["license=GPL", "livepatch=Y", &format!("vermagic={OURS}")], &CRCS);
    let (said, taints) = run(&kernel(config(6, 12)), &b, NONE);
    assert!(taints.unwrap().module_has(Taint::Livepatch), "LAYOUT-31: taint K");
    let log: Vec<&str> = said.dmesg().collect();
    assert!(log.contains(&"mini: tainting kernel with TAINT_LIVEPATCH"), "LAYOUT-31: {log:?}");
}

#[test]
fn lic_3_modules_known_by_name() {
    for (name, module_p, kernel_p) in [
        ("ndiswrapper", false, true),
        ("driverloader", true, true),
        ("lve", true, true),
        ("lve2", false, false),
    ] {
        for minor in [1, 12] {
            let mut b = module(name, &["license=GPL", &format!("vermagic={OURS}")], &CRCS);
            let on = kernel(config(6, minor));
            let (said, taints) = run(&on, &b, NONE);
            let taints = taints.unwrap();
            let found =
                (taints.module_has(Taint::ProprietaryModule), taints.kernel_has(Taint::ProprietaryModule));
            assert_eq!(found, (module_p, kernel_p), "LIC-3: {name} on 6.{minor}: taint P of module, kernel");
            let line = format!("{name}: module license taints kernel.");
            let want = if kernel_p { lines(&[LOCKDEP, &line]) } else { vec![] };
            assert_eq!(said.dmesg().collect::<Vec<_>>(), want, "LIC-4: {name} on 6.{minor}");
            b.symbol("gpl", GLOBAL, 0, UNDEF, 0);
            assert_eq!(
                run(&on, &b, NONE).0.refused(),
                module_p,
                "LIC-3: {name} on 6.{minor}: GPL-only symbols"
            );
        }
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
fn dup_1_and_2_names_that_are_exported_already() {
    let exporting = |plain: &[&str], gpl: &[&str]| {
        let mut b = mini(&CRCS);
        b.section(".text", ALLOC | EXEC, 16).zeros(16);
        for (table, names) in [("__ksymtab", plain), ("__ksymtab_gpl", gpl)] {
            if !names.is_empty() {
                export(&mut b, table, names);
            }
        }
        b
    };
    let mut on = kernel(config(6, 12));
    on.insert_module(loaded("older", false, &[("shared", ""), ("older_only", "SPACE")]));
    on.insert_module(loaded("newer", false, &[("shared", "")]));
    let owned =
        |symbol: &str, owner: &str| format!("mini: exports duplicate symbol {symbol} (owned by {owner})");
    for (rule, plain, gpl, want) in [
        ("DUP-1: new names", &["fresh"][..], &["crisp"][..], None),
        ("DUP-1: the kernel's", &["plain"], &[], Some(owned("plain", "kernel"))),
        ("DUP-1: the kernel's GPL-only one", &["gpl"], &[], Some(owned("gpl", "kernel"))),
        (
            "DUP-1: another module's, the newest first (LIFE-4)",
            &["shared"],
            &[],
            Some(owned("shared", "newer")),
        ),
        ("DUP-1: in __ksymtab_gpl", &["fresh"], &["shared"], Some(owned("shared", "newer"))),
        ("DUP-1: __ksymtab comes first", &["fresh", "gpl"], &["plain"], Some(owned("gpl", "kernel"))),
        ("DUP-2: in a namespace", &["spaced"], &[], Some(owned("spaced", "kernel"))),
        ("DUP-2: in a module's namespace", &["older_only"], &[], Some(owned("older_only", "older"))),
        ("DUP-2: twice in one module", &["fresh"], &["fresh"], None),
    ] {
        let errno = want.as_ref().map(|_| "ENOEXEC");
        let log: Vec<String> = want.into_iter().collect();
        assert_eq!(outcome(&on, &exporting(plain, gpl), NONE), (errno, log), "{rule}: mini");
    }
    let own = loaded("mini", true, &[("fresh", "")]);
    on.insert_module(own);
    assert_eq!(outcome(&on, &exporting(&["fresh"], &[]), NONE), (None, vec![]), "DEP-6: mini: not its own");
}

#[test]
fn dup_5_names_that_modules_export_which_are_not_loaded() {
    let symvers = format!(
        "{SYMVERS}0x01\tone\tdrivers/a\tEXPORT_SYMBOL\t\n0x02\ttwo\tdrivers/a\tEXPORT_SYMBOL_GPL\tNS\n0x03\tmine\tdrivers/mini\tEXPORT_SYMBOL\t\n\
         0x04\tthree\tdrivers/a\tEXPORT_SYMBOL\t\n0x05\tfour\tdrivers/a\tEXPORT_SYMBOL\t\n0x06\tfive\tdrivers/b\tEXPORT_SYMBOL\t\n"
    );
    let mut on = Kernel::booted(builder_of(config(6, 12), &symvers).build(reloc::MACHINES).unwrap());
    let notes = |on: &Kernel, names: &[&str]| {
        let mut b = mini(&CRCS);
        b.section(".text", ALLOC | EXEC, 16).zeros(16);
        export(&mut b, "__ksymtab", names);
        let said = run(on, &b, NONE).0;
        let dup = said.iter().filter(|f| f.code.starts_with("DUP-"));
        dup.map(|f| (f.code, f.explanation.split(" too (").next().unwrap().to_owned())).collect::<Vec<_>>()
    };
    let note = |text: &str| ("DUP-5", text.to_owned());
    assert_eq!(notes(&on, &["fresh"]), [], "DUP-5: nobody's");
    assert_eq!(notes(&on, &["mine"]), [], "DUP-5: its own");
    assert_eq!(notes(&on, &["mine", "one"]), [note("a exports one")], "DUP-5");
    let all = [note("a exports one, two, three and 1 more"), note("b exports five")];
    assert_eq!(notes(&on, &["one", "two", "three", "four", "five"]), all, "DUP-5: two modules");
    on.insert_module(loaded("a", false, &[("one", "")]));
    let found = notes(&on, &["one"]);
    assert_eq!(found.iter().map(|(code, _)| *code).collect::<Vec<_>>(), ["DUP-1"], "DUP-5: it is loaded now");
}

#[test]
fn val_70_names_on_module_blacklist() {
    for (name, list, refused) in [
        ("mini", "mini", true),
        ("mini", "other,mini", true),
        ("mini", "mini,other", true),
        ("mini", "min", false),
        ("mini", "mini2", false),
        ("mini", "MINI", false),
        ("mini", "", false),
        ("mi_ni", "mi_ni", true),
        ("mi_ni", "mi-ni", false),
        ("mi_ni", "mi", false),
    ] {
        for minor in [1, 12] {
            let what = format!("VAL-70: {name} on 6.{minor} with module_blacklist={list}");
            let cmdline = format!("quiet module_blacklist={list} ro");
            let on = builder_of(config(6, minor), SYMVERS).cmdline("test", &cmdline);
            let on = Kernel::booted(on.build(reloc::MACHINES).unwrap());
            let good = module(name, &["license=GPL", &format!("vermagic={OURS}")], &CRCS);
            let want = match refused {
                true => (Some("EPERM"), vec![format!("Module {name} is blacklisted")]),
                false => (None, vec![]),
            };
            assert_eq!(outcome(&on, &good, NONE), want, "{what}");
            let bad = module(name, &["license=GPL", "vermagic=nonsense"], &CRCS);
            let code = stop(&run(&on, &bad, NONE).0).map(|s| s.0);
            assert_eq!(code, Some(if refused { "VAL-70" } else { "VER-23" }), "{what}: before vermagic");
        }
    }
}

#[test]
fn sym_33_exports_that_are_not_sorted() {
    // Probes of b, c, a: c first, so a is looked for before it, and missed.
    for (plain, gpl, missed) in [
        (&["a", "b", "c"][..], &[][..], &[][..]),
        (&["b", "c", "a"], &[], &["a"]),
        (&["c", "b", "a"], &[], &["c", "a"]),
        (&["z"], &["b", "c", "a"], &["a"]),
        // Each table is sorted by itself.
        (&["b"], &["a"], &[]),
    ] {
        let mut b = mini(&CRCS);
        b.section(".text", ALLOC | EXEC, 16).zeros(16);
        for (table, names) in [("__ksymtab", plain), ("__ksymtab_gpl", gpl)] {
            if !names.is_empty() {
                export(&mut b, table, names);
            }
        }
        let (said, _) = run(&kernel(config(6, 12)), &b, NONE);
        let found: Vec<&str> = said.iter().filter(|f| f.code == "SYM-33").map(|f| &*f.explanation).collect();
        let what = format!("SYM-33: mini exports {plain:?} and {gpl:?}");
        assert!(!said.refused() && said.dmesg().count() == 0, "{what}: the kernel does not say it: {said:?}");
        let why = format!(
            "its exports are not sorted by name: the kernel's binary search misses {} of them ({})",
            missed.len(),
            missed.join(", ")
        );
        assert_eq!(found, if missed.is_empty() { vec![] } else { vec![&*why] }, "{what}");

        // And nobody finds them.
        let names = plain.iter().map(|name| (name, false)).chain(gpl.iter().map(|name| (name, true)));
        let records = names.map(|(name, gpl_only)| Export {
            name: name.as_bytes(),
            address: Some(1),
            crc: None,
            gpl_only,
            namespace: b"",
        });
        let exports = ExportTable::of_records(records.collect(), false);
        let mut on = kernel(config(6, 12));
        on.insert_module(LoadedModule { exports, ..LoadedModule::named(b"exporter") });
        for name in plain.iter().chain(gpl) {
            let mut user = mini(&CRCS);
            user.symbol(name, GLOBAL, 0, UNDEF, 0);
            let unknown = format!("mini: Unknown symbol {name} (err -2)");
            let want = match missed.contains(name) {
                true => (Some("ENOENT"), vec![unknown]),
                false => (None, vec![]),
            };
            assert_eq!(outcome(&on, &user, NONE), want, "{what}: {name}");
        }
    }
}

#[test]
fn val_55_a_name_without_end() {
    let fortified = format!("{KALLSYMS}ffffffff81000900 T fortify_panic\n");
    let name = "x".repeat(60);
    for (minor, symbols, crashes) in
        [(1, &*fortified, true), (1, KALLSYMS, false), (12, &*fortified, false), (16, &*fortified, false)]
    {
        let builder = builder_of(config(6, minor), SYMVERS);
        let builder = builder.symbols("test", KernelSymbols::parse(symbols.as_bytes()).unwrap());
        let on = Kernel::booted(builder.build(reloc::MACHINES).unwrap());
        let b = module(&name, &["license=GPL", &format!("vermagic={OURS}")], &CRCS);
        let (said, _) = run(&on, &b, NONE);
        let stop = said.iter().find(|f| f.stops_here).map(|f| (f.code, f.errno));
        assert_eq!(stop, crashes.then_some(("VAL-55", None)), "VAL-55: 6.{minor}: {said:?}");
    }
}

#[test]
fn ns_4_module_namespaces_are_not_imported() {
    for (minor, namespace, refused) in
        [(16, "module:kvm", true), (16, "MODULE:kvm", false), (12, "module:kvm", false)]
    {
        let import = format!("import_ns={namespace}");
        let b = module("mini", &["license=GPL", &format!("vermagic={OURS}"), &import], &CRCS);
        let (errno, log) = outcome(&kernel(config(6, minor)), &b, NONE);
        let want = refused.then_some("EPERM");
        assert_eq!(errno, want, "NS-4: 6.{minor} {namespace}");
        let line = "mini: module tries to import module namespace: module:kvm";
        assert_eq!(log.last().is_some_and(|l| l == line), refused, "NS-4: {log:?}");
    }
}

#[test]
fn ns_7_modinfo_ends_within_import_ns() {
    for (minor, size, crashes) in
        [(16, 0, true), (16, 9, true), (16, 10, false), (16, 12, false), (12, 0, false)]
    {
        let mut b = Builder::module(&["import_ns=A", "name=mini", "license=GPL"]);
        b.versions(&CRCS);
        let mut file = Elf::new(b.build());
        let modinfo = file.section(".modinfo");
        file.set(modinfo, Sh::Size, size);
        let mut config = config(6, minor);
        config.module_force_load = true;
        let (_, said) = common::load(&kernel(config), &file.bytes, NONE);
        let stop = said.iter().find(|f| f.stops_here).map(|f| (f.code, f.errno));
        assert_eq!(stop, crashes.then_some(("NS-7", None)), "NS-7: 6.{minor}, {size} bytes: {said:?}");
    }
}

#[test]
fn lic_8_livepatches_need_config_livepatch() {
    let b = module("mini", &["license=GPL", &format!("vermagic={OURS}"), "livepatch=Y"], &CRCS);
    for minor in [1, 12] {
        for (livepatch, errno) in [(true, None), (false, Some("ENOEXEC"))] {
            let on = kernel(config(6, minor).with(|c| c.livepatch = livepatch));
            let (found, log) = outcome(&on, &b, NONE);
            assert_eq!(found, errno, "LIC-8: 6.{minor}: {log:?}");
            let line = "mini: module is marked as livepatch module, but livepatch support is disabled";
            assert_eq!(log.last().is_some_and(|l| l == line), !livepatch, "LIC-8: 6.{minor}: {log:?}");
        }
    }
    let unknown = kernel(config(6, 12).with_settings_assumed());
    let (said, _) = run(&unknown, &b, NONE);
    assert!(said.open_rules().iter().any(|rule| rule.code == "LIC-8"), "LIC-8: {said:?}");
}

/// What the file has in `taints` and `klp` of its `struct module`.
#[test]
fn lic_7_taints_of_the_file() {
    let types = kernel::types::Types::parse("module.taints 1152 8\nmodule.klp 1160 1\n");
    for (minor, taints, klp) in [(12, 1u64, 0u8), (12, 0, 1), (12, 0, 0), (1, 0, 1)] {
        let builder = builder_of(config(6, minor), SYMVERS).types("test", types.clone());
        let on = Kernel::booted(builder.build(reloc::MACHINES).unwrap());
        let mut b = mini(&CRCS);
        b.symbol("gpl", GLOBAL, 0, UNDEF, 0);
        let mut file = Elf::new(b.build());
        let this = file.section(".gnu.linkonce.this_module");
        file.data_mut(this)[1152..1160].copy_from_slice(&taints.to_le_bytes());
        file.data_mut(this)[1160] = klp;
        let (_, said) = common::load(&on, &file.bytes, NONE);
        let missing = said.errno().map(|e| e.name());
        assert_eq!(missing, (taints != 0).then_some("ENOENT"), "LIC-7: GPL-only symbols: {said:?}");
        let line = "mini: tainting kernel with TAINT_LIVEPATCH";
        let told = said.dmesg().any(|l| l == line);
        assert_eq!(told, klp != 0 && minor == 12, "LIC-7: 6.{minor}, klp {klp}: {said:?}");
    }
}
