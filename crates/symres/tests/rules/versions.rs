//! CRCs of imported symbols: matched, missing, forced (spec 03 §3.5 and §3.7).

use elf_layout::config::Flavour;
use elf_layout::{Findings, KernelConfig, KernelVersion};
use kernel::KernelSymbols;
use kernel::Symvers;
use kernel::{Kernel, KernelDescriptionBuilder};
use testkit::elf::{ALLOC, Builder, GLOBAL, UNDEF, WEAK};

use crate::common;

const KALLSYMS: &str = "ffffffff81000000 T _text\nffffffff81000100 T plain\nffffffff81000400 T module_layout\n\
    ffffffff81000500 T zero\n";
const SYMVERS: &str = "0x000000aa\tplain\tvmlinux\tEXPORT_SYMBOL\t\n0x000000dd\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t\n\
    0x00000000\tzero\tvmlinux\tEXPORT_SYMBOL\t\n";
const LAYOUT: (&str, u64) = ("module_layout", 0xdd);
const MISMATCH: &str = "mini: disagrees about version of symbol plain";
const UNKNOWN: &str = "mini: Unknown symbol plain (err -22)";

fn config(flavour: Flavour) -> KernelConfig {
    KernelConfig::new(KernelVersion::new(6, 12, 0)).with(|c| {
        c.flavour = flavour;
        c.module_sig = false;
    })
}

fn kernel(config: KernelConfig) -> Kernel {
    let kernel = KernelDescriptionBuilder::new()
        .config("test", config)
        .release("test", "6.12.0")
        .symbols("test", KernelSymbols::parse(KALLSYMS.as_bytes()).unwrap())
        .symvers("test", Symvers::parse(SYMVERS.as_bytes()).unwrap());
    Kernel::booted(kernel.build(reloc::MACHINES).unwrap())
}

/// A module that imports `plain` and brings these CRCs; none at all with an empty list.
fn module(crcs: &[(&str, u64)]) -> Builder {
    let mut builder = Builder::mini("6.12.0");
    if !crcs.is_empty() {
        builder.versions(crcs);
    }
    builder.symbol("plain", GLOBAL, 0, UNDEF, 0);
    builder
}

fn say(config: KernelConfig, builder: &Builder) -> Findings {
    common::say(&kernel(config), builder)
}

fn outcome(said: &Findings) -> (Option<&'static str>, Vec<&str>) {
    (said.errno().map(|e| e.name()), said.dmesg().collect())
}

#[test]
fn ver_4_to_6_matching_crcs() {
    for flavour in [Flavour::Debian, Flavour::Upstream] {
        for (rule, crcs, good) in [
            ("VER-4: equal", &[LAYOUT, ("plain", 0xaa)][..], true),
            ("VER-4: the first entry counts", &[LAYOUT, ("plain", 0xaa), ("plain", 1)], true),
            ("VER-4: the first entry counts", &[LAYOUT, ("plain", 1), ("plain", 0xaa)], false),
            ("VER-6: another CRC", &[LAYOUT, ("plain", 0xab)], false),
            ("VER-5: the high half must be 0", &[LAYOUT, ("plain", 0x1_0000_00aa)], false),
        ] {
            let said = say(config(flavour), &module(crcs));
            let want = if good { (None, vec![]) } else { (Some("EINVAL"), vec![MISMATCH, UNKNOWN]) };
            assert_eq!(outcome(&said), want, "{rule} ({flavour:?})");
        }
    }
}

#[test]
fn ver_7_no_entry_for_a_symbol() {
    let missing = "mini: no symbol version for plain";
    let said = say(config(Flavour::Debian), &module(&[LAYOUT]));
    assert_eq!(outcome(&said), (Some("EINVAL"), vec![missing, UNKNOWN]), "VER-7, OV-DEB: Debian refuses");
    let said = say(config(Flavour::Upstream), &module(&[LAYOUT]));
    assert_eq!(outcome(&said), (None, vec![missing]), "VER-7, OV-DEB: upstream accepts");
}

/// Upstream warns once in a boot, whatever the symbol.
#[test]
fn ver_7_upstream_warns_once() {
    let mut builder = module(&[LAYOUT]);
    builder.symbol("zero", GLOBAL, 0, UNDEF, 0);
    let said = say(config(Flavour::Upstream), &builder);
    assert_eq!(outcome(&said), (None, vec!["mini: no symbol version for plain"]), "VER-7: once");
}

#[test]
fn ver_1_kernels_without_modversions_do_not_look() {
    let off = config(Flavour::Debian).with(|c| c.modversions = false);
    for crcs in [&[LAYOUT, ("plain", 1)][..], &[LAYOUT], &[]] {
        let mut builder = module(crcs);
        // Its vermagic must say so, too.
        let modinfo = &mut builder.sections[0].data;
        let at = modinfo.windows(12).position(|w| w == b"modversions ").unwrap();
        modinfo.drain(at..at + 12);
        let size = modinfo.len() as u64;
        builder.sections[0].size = size;
        let said = say(off.clone(), &builder);
        assert!(!said.refused(), "VER-1: {crcs:?}: {:?}", outcome(&said));
    }
}

#[test]
fn ver_8_a_crc_of_zero_is_compared_like_any_other() {
    for (crc, good) in [(0, true), (1, false)] {
        let mut builder = module(&[LAYOUT, ("plain", 0xaa), ("zero", crc)]);
        builder.symbol("zero", GLOBAL, 0, UNDEF, 0);
        let said = say(config(Flavour::Debian), &builder);
        assert_eq!(said.refused(), !good, "VER-8: {crc}");
    }
}

#[test]
fn ver_9_versions_of_weak_symbols() {
    let mut builder = module(&[LAYOUT, ("plain", 1)]);
    builder.symbols.last_mut().unwrap().info = WEAK << 4;
    let said = say(config(Flavour::Debian), &builder);
    assert_eq!(
        outcome(&said),
        (Some("EINVAL"), vec![MISMATCH, UNKNOWN]),
        "VER-9, SYM-5b: it exists, so it must match"
    );
    let mut builder = module(&[LAYOUT, ("plain", 0xaa)]);
    builder.symbol("nowhere", WEAK, 0, UNDEF, 0);
    assert!(
        !say(config(Flavour::Debian), &builder).refused(),
        "VER-9: it does not exist, so nothing is compared"
    );
}

#[test]
fn ver_3_and_40_no_crcs_at_all() {
    let mut builder = module(&[]);
    builder.symbol("zero", GLOBAL, 0, UNDEF, 0);
    for flavour in [Flavour::Debian, Flavour::Upstream] {
        let said = say(config(flavour), &builder);
        assert!(!said.refused(), "VER-42: {flavour:?}: forced, not refused: {:?}", outcome(&said));
        let forced =
            said.dmesg().filter(|l| l.starts_with("mini: ") && l.ends_with(": kernel tainted.")).count();
        assert_eq!(forced, 1, "VER-40: {flavour:?}: said once: {:?}", outcome(&said));
    }
    let off = config(Flavour::Debian).with(|c| c.module_force_load = false);
    let said = say(off, &builder);
    assert!(said.refused(), "VER-40: without CONFIG_MODULE_FORCE_LOAD");
    assert!(!said.dmesg().any(|l| l.contains("tainted")), "VER-40: silently: {:?}", outcome(&said));
}

#[test]
fn ver_31_extended_versions_replace_the_others() {
    let newer = config(Flavour::Upstream).with(|c| c.set_version(KernelVersion::new(6, 14, 0)));
    for (crc, good) in [(0xaau32, true), (0xab, false)] {
        // __versions is wrong, and does not count.
        let mut builder = module(&[LAYOUT, ("plain", 1)]);
        let crcs = [0xddu32, crc].iter().flat_map(|c| c.to_le_bytes()).collect();
        builder.section("__version_ext_crcs", ALLOC, 4).data(crcs);
        builder.section("__version_ext_names", ALLOC, 1).data(b"module_layout\0plain\0".to_vec());
        let said = say(newer.clone(), &builder);
        let want = if good { (None, vec![]) } else { (Some("EINVAL"), vec![MISMATCH, UNKNOWN]) };
        assert_eq!(outcome(&said), want, "VER-31: CRC {crc:#x}");
    }
}
