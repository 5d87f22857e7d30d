//! What is moved where, and the per-cpu area (spec 02).
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use common::elf::{ALLOC, Builder, EXEC, Elf, GLOBAL, LOCAL, Sh, WRITE};
use common::library;
use elf_layout::{Findings, KernelConfig, KernelVersion};
use kernel::{KernelDescriptionBuilder, KernelSymbols};
use kmodld::load::Args;
use kmodld::{Load, Loader, Place};
use reloc::MACHINES;
use symres::LoadFlags;

const AX: u64 = ALLOC | EXEC;
const WA: u64 = ALLOC | WRITE;
const BASE: u64 = 0xffff_ffff_c010_0000;

fn config(minor: u16) -> KernelConfig {
    let version = KernelVersion::new(6, minor, 0);
    KernelConfig::new(version).with(|c| {
        c.module_sig = false;
        c.modversions = false;
        c.kallsyms_all = Some(true);
    })
}

/// A kernel whose per-cpu areas of modules begin at 0x30010.
fn loader(config: KernelConfig) -> Loader {
    let symbols = b"0000000000000000 A __per_cpu_start\n0000000000030010 A __per_cpu_end\n\
        ffffffff81000000 T _text\nffffffff81000010 b local_data\n";
    let symbols = KernelSymbols::parse(symbols).unwrap();
    let kernel = KernelDescriptionBuilder::new().config("test", config).symbols("test", symbols);
    Loader::booted(kernel.build(MACHINES).unwrap())
}

/// Loads a good module up to the last stage and shows it.
#[track_caller]
fn with_load<R>(config: KernelConfig, file: &[u8], show: impl FnOnce(&Load<'_>, &Findings) -> R) -> R {
    let loader = loader(config);
    let opened = library::open_on(&loader, file);
    let attempt = loader.load(&opened, &Args::default(), &Place::Base(BASE), None);
    let (load, said) = attempt.whatever_it_says();
    assert!(!said.refused(), "{said:?}");
    let load = load.expect("a load");
    show(&load, &said)
}

/// A module of sections with bytes of their own; `address` is what its headers claim.
fn patterns(address: u64) -> (Builder, Elf) {
    let mut b = Builder::mini("6.12.0");
    for (name, flags, byte) in [
        (".text", AX, 1u8),
        (".init.text", AX, 2),
        (".rodata", ALLOC, 3),
        (".data", WA, 4),
        (".comment", 0, 5),
        (".data..percpu", WA, 6),
    ] {
        b.section(name, flags, 16).data((0..40).map(|i| byte * 32 + i).collect());
    }
    b.section(".bss", WA, 16).nobits(40);
    for name in [".text", ".data", ".comment", ".bss"] {
        let index = b.index(name);
        b.symbol(name, LOCAL, 0, index, 8);
    }
    let mut elf = Elf::new(b.build());
    for section in 1..elf.shnum() {
        elf.set(section, Sh::Addr, address);
    }
    (b, elf)
}

#[test]
fn layout_1_addresses_of_the_file_are_dropped() {
    for minor in [1, 12] {
        let at = |address| {
            let (_, elf) = patterns(address);
            with_load(config(minor), &elf.bytes, |load, _| {
                let addresses: Vec<u64> = load.module.info.sechdrs.iter().map(|s| s.sh_addr).collect();
                (addresses, load.module.values.clone(), load.module.layout.sizes)
            })
        };
        let (b, _) = patterns(0);
        let found = at(0);
        assert_eq!(found, at(0xdead_beef_0000), "LAYOUT-1: mini on 6.{minor}: sh_addr is not looked at");
        let comment = usize::from(b.index(".comment"));
        assert_eq!(
            (found.0[0], found.0[comment]),
            (0, 0),
            "LAYOUT-1: mini on 6.{minor}: section 0, .comment"
        );
        assert_eq!(found.1[3], 8, "LAYOUT-1: mini on 6.{minor}: a symbol of .comment");
    }
}

#[test]
fn layout_35_flags_count_as_they_are_by_then() {
    for minor in [1, 12] {
        for (machine, code_only, want) in [
            (62, false, &["in_text", "in_percpu"][..]),
            (62, true, &["in_text"]),
            (183, false, &["in_text", "in_percpu", "in_plt"]),
            (183, true, &["in_text", "in_plt"]),
        ] {
            let mut b = Builder::mini("6.12.0");
            b.machine = machine;
            b.section(".text", AX, 16).zeros(16);
            b.section("__versions", ALLOC, 1).zeros(64);
            b.section(".data..percpu", WA, 1).zeros(8);
            for name in [".plt", ".init.plt", ".text.ftrace_trampoline"] {
                b.section(name, 0, 1).zeros(1);
            }
            for (name, section) in [
                ("in_text", ".text"),
                ("in_modinfo", ".modinfo"),
                ("in_versions", "__versions"),
                ("in_percpu", ".data..percpu"),
                ("in_plt", ".plt"),
            ] {
                let section = b.index(section);
                b.symbol(name, GLOBAL, 0, section, 0);
            }
            let config = config(minor).with(|c| c.kallsyms_all = Some(!code_only));
            let (layout, said) = library::lay_out(&b.build(), &config);
            let plan = layout.unwrap_or_else(|| panic!("{said:?}")).symtab.unwrap();
            let kept = plan.core_symbols.iter().skip(1).map(|i| &*b.symbols[*i as usize].name);
            let what = format!("mini of {machine} on 6.{minor}, KALLSYMS_ALL={}", !code_only);
            assert_eq!(kept.collect::<Vec<_>>(), want, "LAYOUT-35: {what}");
        }
    }
}

#[test]
fn layout_60_the_per_cpu_area() {
    for (size, align, want, warned) in [
        (0, 64, None, false),
        (8, 0, Some(0x30010), false),
        (8, 64, Some(0x30040), false),
        (8, 4096, Some(0x31000), false),
        (8, 8192, Some(0x31000), true),
    ] {
        let mut b = Builder::mini("6.12.0");
        b.section(".data..percpu", WA, align).zeros(size);
        let (at, said) =
            with_load(config(12), &b.build(), |load, said| (load.module.placement.percpu, said.clone()));
        assert_eq!(at, want, "LAYOUT-60: mini, .data..percpu of {size} bytes aligned to {align}");
        let log = warned.then_some("mini: per-cpu alignment 8192 > 4096");
        assert_eq!(
            said.dmesg().collect::<Vec<_>>(),
            Vec::from_iter(log),
            "LAYOUT-60: mini, .data..percpu: {align}"
        );
    }
}

#[test]
fn layout_60_what_the_reserve_does_not_give() {
    let failed = |size: u64, align: u64| {
        format!(
            "percpu: allocation failed, size={size} align={align} atomic=0, alloc from reserved chunk failed"
        )
    };
    for (size, align, lines) in [
        // The reserve begins at 0x30010.
        (8 << 10, 16, None),
        (0x1fd0, 64, None),
        (0x1fd4, 64, Some(vec![failed(0x1fd4, 64)])),
        ((8 << 10) + 1, 64, Some(vec![failed((8 << 10) + 4, 64)])),
        ((8 << 10) + 4, 0, Some(vec![failed((8 << 10) + 4, 4)])),
        (64 << 10, 64, Some(vec![])),
        (8, 3, None),
        (8, 12, Some(vec![])),
    ] {
        let mut b = Builder::mini("6.12.0");
        b.section(".data..percpu", WA, align).zeros(size);
        let loader = loader(config(12));
        let said = library::say(&loader, &b.build());
        let want = lines.as_ref().map(|_| "ENOMEM");
        let what = format!("LAYOUT-60: {size:#x} bytes aligned to {align}: {said:?}");
        assert_eq!(said.errno().map(|e| e.name()), want, "{what}");
        let last = lines.map(|lines| {
            [lines, vec![format!("mini: Could not allocate {size} bytes percpu data")]].concat()
        });
        assert_eq!(said.dmesg().collect::<Vec<_>>(), last.unwrap_or_default(), "{what}");
    }
}

#[test]
fn layout_60_modules_share_the_reserve() {
    let module = |name: &str, size: u64| {
        let vermagic = "vermagic=6.12.0 SMP preempt mod_unload modversions ";
        let name = format!("name={name}");
        let mut b = Builder::module(&[&name, "license=GPL", "intree=Y", "retpoline=Y", vermagic]);
        b.section(".data..percpu", WA, 16).zeros(size);
        b.build()
    };
    let mut loader = loader(config(12));
    let insmod = |loader: &mut Loader, file: &[u8]| {
        let opened = loader.open(file, LoadFlags::default());
        let args = Args::verdict(LoadFlags::default(), b"");
        loader.insmod(&opened, &args, kernel::Init::Returns(0))
    };
    let said = insmod(&mut loader, &module("first", 0x1800));
    assert!(!said.refused(), "LAYOUT-60: {said:?}");
    assert_eq!(library::say(&loader, &module("fits", 0x800)).errno(), None, "LAYOUT-60");
    let said = library::say(&loader, &module("large", 0x810));
    assert_eq!(said.errno().map(|e| e.name()), Some("ENOMEM"), "LAYOUT-60: {said:?}");
    assert_eq!(
        said.dmesg().collect::<Vec<_>>(),
        [
            "percpu: allocation failed, size=2064 align=16 atomic=0, alloc from reserved chunk failed",
            "large: Could not allocate 2064 bytes percpu data"
        ]
    );
    loader.rmmod(b"first", false, kernel::Exit::Returns);
    assert_eq!(library::say(&loader, &module("large", 0x810)).errno(), None, "LAYOUT-60: freed with it");
}
