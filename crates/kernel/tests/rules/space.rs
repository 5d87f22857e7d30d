//! The addresses that modules take (spec 02 §2.4, §2.6).

use elf_layout::layout::layout_sections;
use elf_layout::place::Windows;
use elf_layout::region::PerRegion;
use elf_layout::validity::{Expected, elf_validity};
use elf_layout::{Findings, KernelConfig, KernelVersion, Layout, LoadInfo, Placement, Region};
use kernel::space::{AddressSpace, PercpuArea, Room};
use testkit::elf::{ALLOC, Builder, EXEC};

use crate::common::symbols;

const PAGE: u64 = 0x1000;
const AREA: (u64, u64) = (0xffff_ffff_c000_0000, 0xffff_ffff_ff00_0000);

fn windows() -> Windows {
    Windows { direct: AREA, fallback: None, code_block: None }
}

fn of_percpu_end(address: u64) -> AddressSpace {
    AddressSpace::booted(&symbols(&format!("{address:016x} A __per_cpu_end\nffffffff81000000 T _text\n")))
}

/// That of a module with so many bytes of code, and of code of init.
fn layout(text: u64, init: u64) -> Layout {
    let mut b = Builder::mini("6.12.0");
    b.section(".text", ALLOC | EXEC, 16).zeros(text);
    b.section(".init.text", ALLOC | EXEC, 16).zeros(init);
    let config = KernelConfig::new(KernelVersion::new(6, 12, 0));
    let expected =
        Expected { config: &config, machine: None, known: reloc::MACHINES, ignore_modversions: false };
    let (bytes, mut said) = (b.build(), Findings::new());
    let file = elf_validity(&bytes, &expected, &mut said).unwrap();
    let mut info = LoadInfo::rewrite_section_headers(&file, &config);
    info.edit_flags();
    layout_sections(&info, &mut said).unwrap()
}

#[test]
fn layout_54_and_60_the_reserve_of_per_cpu_areas() {
    let mut space = of_percpu_end(0x30010);
    for (size, align, want) in [
        (8, 1, (0x30010, 0x30018)),
        (8, 64, (0x30040, 0x30048)),
        (0x100, PAGE, (0x31000, 0x31100)),
        (0, 64, (0x30040, 0x30040)),
    ] {
        let place = space.percpu_place(size, align);
        assert_eq!(place, Some(want), "LAYOUT-54, LAYOUT-60: {size} bytes aligned to {align}");
    }
    let small = layout(16, 0);
    let take = |space: &mut AddressSpace, name: &[u8], percpu| {
        space.take(name, windows, &small, &Placement::consecutive(&small, AREA.0).bases, percpu);
    };
    take(&mut space, b"a", Some(PercpuArea { size: 64, start: Some(0x30040) }));
    assert_eq!(space.percpu_place(64, 64), Some((0x30080, 0x300c0)), "LAYOUT-54: the next one behind it");
    assert_eq!(space.percpu_place(8, 8), Some((0x30010, 0x30018)), "LAYOUT-54: first fit, in the gap before");
    take(&mut space, b"b", Some(PercpuArea { size: 64, start: Some(0x30080) }));
    space.free_init(b"a");
    assert_eq!(space.percpu_place(64, 64), Some((0x300c0, 0x30100)), "LAYOUT-60: init keeps the area");
    space.free(b"a");
    assert_eq!(space.percpu_place(64, 64), Some((0x30040, 0x30080)), "LAYOUT-54: free when the module goes");
    assert_eq!(space.percpu_place(65, 64), Some((0x300c0, 0x30101)), "LAYOUT-54: not where it does not fit");
    space.free(b"a");
    space.free(b"nobody");
    assert_eq!(space.percpu_place(64, 64), Some((0x30040, 0x30080)), "freed once");

    let unknown = AddressSpace::booted(&symbols("ffffffff81000000 T _text\n"));
    assert_eq!(unknown.percpu_place(8, 8), None, "LAYOUT-54: without __per_cpu_end nothing is known");
}

#[test]
fn layout_60_what_is_left_of_the_reserve() {
    const ALL: u64 = 8 << 10;
    let mut space = of_percpu_end(0x30000);
    assert_eq!(space.percpu_reserve(), ALL, "LAYOUT-60");
    assert_eq!(
        (space.percpu_room(ALL, 8), space.percpu_room(ALL + 4, 8)),
        (Room::Fits, Room::Full),
        "LAYOUT-60"
    );
    space.hold_percpu(b"a", Some(PercpuArea { size: ALL - 16, start: Some(0x30000) }));
    space.hold_percpu(b"b", None);
    assert!(space.is_held(b"b") && !space.is_held(b"c"));
    assert_eq!((space.percpu_room(16, 16), space.percpu_room(8, 32)), (Room::Fits, Room::Full), "LAYOUT-60");
    space.free(b"a");
    assert_eq!(space.percpu_room(ALL, 8), Room::Fits, "LAYOUT-60: free when the module goes");

    // Where areas lie at places that are not known, their sizes tell what they can.
    let mut unknown = AddressSpace::booted(&symbols("ffffffff81000000 T _text\n"));
    assert_eq!(unknown.percpu_room(ALL - 8, 8), Room::Fits, "LAYOUT-60: nothing is taken");
    unknown.hold_percpu(b"a", Some(PercpuArea { size: 0x1000, start: None }));
    let room = |size| unknown.percpu_room(size, 8);
    assert_eq!(
        (room(0x7f8), room(0x800), room(0x1004)),
        (Room::Fits, Room::Unknown, Room::Full),
        "LAYOUT-60"
    );
    let profiled = "ffffffff82000000 D mem_alloc_profiling_key\nffffffff81000000 T _text\n";
    assert_eq!(AddressSpace::booted(&symbols(profiled)).percpu_reserve(), 8 * ALL, "LAYOUT-60");
}

#[test]
fn layout_50_modules_take_the_module_area_and_free_it() {
    let layout = layout(0x1001, 0x10);
    let mut space = of_percpu_end(0x30000);
    let place = |space: &AddressSpace| space.area(windows, PAGE).place(&layout).unwrap();
    let first = place(&space);
    assert_eq!(first.get(Region::Text), AREA.0, "LAYOUT-50: lowest first");
    space.take(b"a", windows, &layout, &first, None);
    let second = place(&space);
    let last = layout.regions().map(|r| first.get(r)).max().unwrap();
    assert!(second.get(Region::Text) > last, "LAYOUT-50: behind it: {second:?}");
    space.free_init(b"a");
    let init: PerRegion<u64> = first;
    assert_eq!(
        space.area(windows, PAGE).place(&self::layout(1, 0)).unwrap().get(Region::Text),
        init.get(Region::InitText),
        "LAYOUT-50, LIFE-14: what init had is free"
    );
    space.free(b"a");
    assert_eq!(place(&space), first, "LAYOUT-50, LIFE-37: all is free");
}

/// The regions of the modules that a symbol table lists are not known: all up to their last symbol counts as taken.
#[test]
fn layout_50_modules_of_the_symbol_table_take_the_lower_part() {
    let listed = symbols(
        "ffffffff81000000 T _text\nffffffffc0201000 t f\t[newer]\nffffffffc0305678 T g\t[older]\n\
            ffffffffc0204000 t h\t[older]\n",
    );
    let place = |space: &AddressSpace| space.area(windows, PAGE).place(&layout(16, 0)).unwrap();
    assert_eq!(place(&AddressSpace::booted(&listed)).get(Region::Text), 0xffff_ffff_c030_8000);
    let elsewhere = symbols("ffffffff81000000 T _text\nffffffffb0201000 t f\t[other]\n");
    assert_eq!(place(&AddressSpace::booted(&elsewhere)).get(Region::Text), AREA.0, "outside the area");
}

/// /proc/vmallocinfo lists a block of the cache of code whole: what is free of it is what no module holds.
#[test]
fn layout_55_a_listed_block_of_code_has_room_left() {
    const BLOCK: u64 = 2 << 20;
    let windows = || Windows { direct: AREA, fallback: None, code_block: Some(BLOCK) };
    let (block, guard) = (AREA.0 + 2 * BLOCK, PAGE);
    let place = |space: &AddressSpace, text| {
        space.area(windows, PAGE).place(&layout(text, 0)).unwrap().get(Region::Text)
    };
    let listed =
        format!("ffffffff81000000 T _text\n{block:016x} t f\t[a]\n{:016x} t g\t[a]\n", block + 0x1010);
    let shown = |block_end: u64| {
        let mut space = AddressSpace::booted(&symbols(&listed));
        space.show(vec![(AREA.0, AREA.0 + 2 * PAGE), (block, block_end)]);
        space
    };
    let behind = block + 2 * BLOCK;
    let mut space = shown(block + BLOCK + guard);
    assert_eq!(place(&space, 16), block + 3 * PAGE, "LAYOUT-55: behind the code that is listed");
    assert_eq!(place(&space, BLOCK - PAGE), behind, "LAYOUT-55: what does not fit there gets a block");
    // The files of the modules tell what they hold: text, and nothing of init any more.
    space.forget_listed();
    let held = layout(0x1800, PAGE);
    let mut bases = PerRegion::default();
    held.regions().for_each(|region| *bases.get_mut(region) = AREA.0 + 64 * BLOCK);
    *bases.get_mut(Region::Text) = block;
    *bases.get_mut(Region::InitText) = block + 2 * PAGE;
    space.take(b"a", windows, &held, &bases, None);
    assert_eq!(place(&space, 16), block + 3 * PAGE, "LAYOUT-55: behind text and init");
    space.free_init(b"a");
    assert_eq!(place(&space, 16), block + 2 * PAGE, "LAYOUT-55: what init had is free");
    // What is no block, or has no code of modules, is taken whole.
    assert_eq!(place(&shown(block + BLOCK), 16), behind - BLOCK, "no guard page");
    let bpf = symbols("ffffffff81000000 T _text\n");
    let mut space = AddressSpace::booted(&bpf);
    space.show(vec![(AREA.0, AREA.0 + 2 * PAGE), (block, block + BLOCK + guard)]);
    assert_eq!(place(&space, 16), behind, "LAYOUT-55: programs of BPF");
}
