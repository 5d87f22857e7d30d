//! The first and the second rewrite of section headers, and what is copied where (spec 02).

use elf_layout::elf::Rela;
use elf_layout::module::move_module;
use elf_layout::{HeapMemory, KernelConfig, KernelVersion, Placement, Region, SectionPlace, Table};
use testkit::elf::{ALLOC, Builder, EXEC, Elf, GLOBAL, LOCAL, Sh, UNDEF, WRITE};

use crate::common::{lay_out, move_to, with_layout};

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
    let mut elf = Elf::new(b.build());
    for section in 1..elf.shnum() {
        elf.set(section, Sh::Addr, address);
    }
    (b, elf)
}

#[test]
fn fin_88_incomplete_records() {
    let place = SectionPlace { region: Region::Data, offset: 0 };
    for (size, whole, begun) in [(0, 0, 0), (3, 0, 1), (4, 1, 1), (8, 2, 2), (9, 2, 3)] {
        let table = Table { index: 1, address: 0x1000, place, size };
        assert_eq!(table.records(4).count(), whole, "FIN-88: {size} bytes");
        assert_eq!(table.records_begun(4).count(), begun, "FIN-88: {size} bytes");
        assert_eq!(
            table.records_begun(4).last(),
            begun.checked_sub(1).map(|n| 0x1000 + 4 * n as u64),
            "FIN-88"
        );
    }
}

#[test]
fn layout_1_and_43_addresses_of_the_file_are_dropped() {
    for minor in [1, 12] {
        let at = |address| {
            let moved = move_to(BASE, &patterns(address).1.bytes, &config(minor));
            (moved.addresses, moved.layout.sizes)
        };
        let (b, _) = patterns(0);
        let found = at(0);
        assert_eq!(found, at(0xdead_beef_0000), "LAYOUT-1: mini on 6.{minor}: sh_addr is not looked at");
        let comment = usize::from(b.index(".comment"));
        let stay = (found.0[0], found.0[comment]);
        assert_eq!(stay, (0, 0), "LAYOUT-1, LAYOUT-43: mini on 6.{minor}: section 0, .comment");
    }
}

#[test]
fn layout_41_what_is_copied_where() {
    let (b, elf) = patterns(0x1000);
    for minor in [1, 12] {
        let moved = move_to(BASE, &elf.bytes, &config(minor));
        for (name, want) in [
            (".text", Some(1u8)),
            (".init.text", Some(2)),
            (".rodata", Some(3)),
            (".data", Some(4)),
            (".comment", None),
            (".modinfo", None),
            (".data..percpu", None),
            (".bss", Some(0)),
        ] {
            let index = usize::from(b.index(name));
            let what = format!("LAYOUT-41: mini on 6.{minor}, {name}");
            let (place, address) = (moved.layout.place(index), moved.addresses[index]);
            let Some(byte) = want else {
                assert_eq!((place, address), (None, 0), "{what}: is not moved");
                continue;
            };
            let place = place.unwrap_or_else(|| panic!("{what}: is moved"));
            let bytes: Vec<u8> = (0..40).map(|i| if byte == 0 { 0 } else { byte * 32 + i }).collect();
            assert_eq!(moved.memory.at(place, 40), Some(&*bytes), "{what}: its bytes");
            assert_eq!(
                address,
                moved.placement.bases.get(place.region) + place.offset,
                "{what}: its address"
            );
        }
    }
}

/// What an architecture adds to the flags before: `rules_memory.rs` of the root.
#[test]
fn layout_35_flags_count_as_they_are_by_then() {
    for minor in [1, 12] {
        for (code_only, want) in [(false, &["in_text", "in_percpu"][..]), (true, &["in_text"])] {
            let mut b = Builder::mini("6.12.0");
            b.section(".text", AX, 16).zeros(16);
            b.section("__versions", ALLOC, 1).zeros(64);
            b.section(".data..percpu", WA, 1).zeros(8);
            for (name, section) in [
                ("in_text", ".text"),
                ("in_modinfo", ".modinfo"),
                ("in_versions", "__versions"),
                ("in_percpu", ".data..percpu"),
            ] {
                let section = b.index(section);
                b.symbol(name, GLOBAL, 0, section, 0);
            }
            let config = config(minor).with(|c| c.kallsyms_all = Some(!code_only));
            let (layout, said) = lay_out(&b.build(), &config);
            let plan = layout.unwrap_or_else(|| panic!("{said:?}")).symtab.unwrap();
            let kept = plan.core_symbols.iter().skip(1).map(|i| &*b.symbols[*i as usize].name);
            let what = format!("mini on 6.{minor}, KALLSYMS_ALL={}", !code_only);
            assert_eq!(kept.collect::<Vec<_>>(), want, "LAYOUT-35: {what}");
        }
    }
}

#[test]
fn plt_14_a_reordered_table_is_kept_beside_the_files() {
    let (b, elf) = patterns(0);
    with_layout(&elf.bytes, &config(12), |mut info, _, _| {
        let text = usize::from(b.index(".text"));
        assert!(info.reordered(text).is_none(), "PLT-14: the file's own");
        let record = Rela { r_offset: 8, r_info: 1 << 32 | 283, r_addend: -4 };
        info.set_reordered(text, vec![record]);
        assert_eq!(info.reordered(text), Some(&[record][..]), "PLT-14: the table in the temporary copy");
        assert!(info.reordered(text + 1).is_none(), "PLT-14: no other");
    });
}

#[test]
fn life_53_and_54_the_name_of_an_address() {
    let mut b = Builder::mini("6.12.0");
    b.section(".text", AX, 16).zeros(64);
    let text = b.index(".text");
    let named = [("$x", 0), (".Lx", 0), ("", 0), ("local", 0), ("alias", 0), ("$d", 8), ("later", 16)];
    for (name, value) in named {
        b.symbol(name, LOCAL, 0, text, value);
    }
    b.symbol("nobodys", GLOBAL, 0, UNDEF, 0);
    with_layout(&b.build(), &config(12), |info, layout, said| {
        let layout = layout.unwrap_or_else(|| panic!("no layout: {said:?}"));
        let placement = Placement::consecutive(&layout, BASE);
        let memory = Box::new(HeapMemory::new(&layout));
        let mut module = move_module(info, layout, placement, memory);
        let start = module.section(".text").unwrap().address;
        module.values =
            [0].into_iter().chain(named.iter().map(|n| start + n.1)).chain([start + 20]).collect();
        let name = |at| module.symbol_at(start + at).map(|name| String::from_utf8_lossy(name).into_owned());
        assert_eq!(name(0).as_deref(), Some("local"), "LIFE-53, LIFE-54: the first that is a name");
        assert_eq!(name(15).as_deref(), Some("local"), "LIFE-54");
        assert_eq!(name(60).as_deref(), Some("later"), "LIFE-54: no import");
        assert_eq!(module.symbol_at(start - 1), None, "LIFE-54: before all of them");
        for (at, text) in [(4, "local+0x4/0x10 [mini]"), (20, "later+0x4/0xff0 [mini]")] {
            assert_eq!(module.symbol_text(start + at), text, "LIFE-54: up to the next, or to the end");
        }
    });
}

#[test]
fn life_54_the_size_of_a_symbol_behind_the_code() {
    let mut b = Builder::mini("6.1.0");
    b.section(".text", AX, 16).zeros(64);
    b.section(".data", WA, 16).zeros(64);
    let data = b.index(".data");
    for (name, value) in [("first", 0), ("second", 16)] {
        b.symbol(name, LOCAL, 0, data, value);
    }
    with_layout(&b.build(), &config(1), |info, layout, said| {
        let layout = layout.unwrap_or_else(|| panic!("no layout: {said:?}"));
        let code = layout.marks[0].text_size;
        let placement = Placement::consecutive(&layout, BASE);
        let memory = Box::new(HeapMemory::new(&layout));
        let mut module = move_module(info, layout, placement, memory);
        let [text, start] = [".text", ".data"].map(|name| module.section(name).unwrap().address);
        module.values = vec![0, start, start + 16];
        let size = (text + code).wrapping_sub(start);
        assert_eq!(
            module.symbol_text(start + 4),
            format!("first+0x4/{size:#x} [mini]"),
            "LIFE-54: before 6.4 it ends with the code"
        );
    });
}
