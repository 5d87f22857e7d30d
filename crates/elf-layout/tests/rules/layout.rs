//! The memory plan, rule by rule, on modules assembled for the purpose (spec 02).

use elf_layout::layout::layout_sections;
use elf_layout::plan::memory_is_there;
use elf_layout::{Findings, KernelConfig, KernelVersion, Layout, Region};
use testkit::elf::{ALLOC, Builder, EXEC, WRITE};

use crate::common::{codes, lay_out, stop, with_layout};

/// Size of `struct module` in these modules: what lies in data before anything else.
const MODULE: u64 = 0x500;
const AX: u64 = ALLOC | EXEC;
const WA: u64 = WRITE | ALLOC;
const RO_AFTER_INIT: u64 = 0x0020_0000;

fn config(major: u16, minor: u16) -> KernelConfig {
    KernelConfig::new(KernelVersion::new(major, minor, 0))
}

/// Without kallsyms nothing but the sections takes memory.
fn bare(major: u16, minor: u16) -> KernelConfig {
    config(major, minor).with(|c| c.kallsyms = false)
}

/// The plan of a module, and what the kernel says while making it.
fn plan(builder: &Builder, config: &KernelConfig) -> (Option<Layout>, Findings) {
    lay_out(&builder.build(), config)
}

#[track_caller]
fn layout(builder: &Builder, config: &KernelConfig) -> Layout {
    let (layout, said) = plan(builder, config);
    layout.unwrap_or_else(|| panic!("no layout: {said:?}"))
}

/// Region and offset of the section of that name.
fn place(builder: &Builder, layout: &Layout, name: &str) -> Option<(Region, u64)> {
    layout.place(usize::from(builder.index(name))).map(|p| (p.region, p.offset))
}

#[test]
fn layout_10_to_13_which_region_a_section_goes_to() {
    use Region::*;
    let no_unload = |c: KernelConfig| c.with(|c| c.module_unload = false);
    let loose = |c: KernelConfig| c.with(|c| c.strict_module_rwx = false);
    let plain = |c: KernelConfig| c;
    type Change = fn(KernelConfig) -> KernelConfig;
    // (rule, name, flags, configuration, region since 6.4, is it init)
    let cases: [(&str, &str, u64, Change, Region, bool); 21] = [
        ("LAYOUT-10", ".text", AX, plain, Text, false),
        ("LAYOUT-10", ".text.unlikely", AX, plain, Text, false),
        ("LAYOUT-10", ".init.text", AX, plain, InitText, true),
        ("LAYOUT-10", ".initial", AX, plain, InitText, true),
        ("LAYOUT-10", ".exit.text", AX, plain, Text, false),
        ("LAYOUT-10", ".exit.text", AX, no_unload, InitText, true),
        ("LAYOUT-10", ".exit.data", WA, no_unload, InitData, true),
        ("LAYOUT-10", "init.text", AX, plain, Text, false),
        ("LAYOUT-10", ".rodata", ALLOC, plain, Rodata, false),
        ("LAYOUT-10", ".init.rodata", ALLOC, plain, InitRodata, true),
        ("LAYOUT-10", ".init.rodata", WA, plain, InitData, true),
        ("LAYOUT-10", ".init.eh_frame", ALLOC, plain, InitRodata, true),
        ("LAYOUT-10", ".data", WA, plain, Data, false),
        ("LAYOUT-10", ".init.data", WA, plain, InitData, true),
        ("LAYOUT-6", ".data..ro_after_init", WA, plain, RoAfterInit, false),
        ("LAYOUT-6", "__jump_table", WA, plain, RoAfterInit, false),
        ("LAYOUT-12", "__jump_table", ALLOC, plain, Rodata, false),
        ("LAYOUT-12", ".data..ro_after_init", ALLOC, plain, Rodata, false),
        ("LAYOUT-8", ".static_call_sites", WA, plain, Data, false),
        ("LAYOUT-13", ".both", AX | WRITE, loose, Text, false),
        ("LAYOUT-13", ".init.both", AX | WRITE, loose, InitText, true),
    ];
    for (rule, name, flags, change, region, init) in cases {
        let mut builder = Builder::mini("6.12.0");
        builder.section(name, flags, 1).zeros(16);
        let found = place(&builder, &layout(&builder, &change(bare(6, 12))), name).map(|p| p.0);
        assert_eq!(found, Some(region), "{rule}: {name}, flags {flags:#x}, since 6.4");
        let found = place(&builder, &layout(&builder, &change(bare(6, 1))), name).map(|p| p.0);
        let old = if init { Init } else { Core };
        assert_eq!(found, Some(old), "{rule}: {name}, flags {flags:#x}, before 6.4");
    }
}

#[test]
fn layout_8_every_section_of_these_names_since_6_16() {
    let mut builder = Builder::mini("6.16.0");
    builder.section("first", WA, 1).zeros(8);
    builder.section(".static_call_sites", WA, 1).zeros(8);
    builder.section("__jump_table", WA, 1).zeros(8);
    builder.section("__jump_table", WA, 1).zeros(8);
    let (new, old) = (layout(&builder, &bare(6, 16)), layout(&builder, &bare(6, 15)));
    let region = |layout: &Layout, at: usize| layout.place(at).map(|p| p.region);
    let calls = usize::from(builder.index(".static_call_sites"));
    assert_eq!(region(&new, calls), Some(Region::RoAfterInit), "LAYOUT-8: static call sites since 6.16");
    assert_eq!(region(&old, calls), Some(Region::Data), "LAYOUT-8: static call sites before");
    let second = usize::from(builder.index("__jump_table")) + 1;
    assert_eq!(region(&new, second), Some(Region::RoAfterInit), "LAYOUT-8: the second of that name, too");
    assert_eq!(region(&old, second), Some(Region::Data), "LAYOUT-6: only the first of that name");
    assert_eq!(region(&old, second - 1), Some(Region::RoAfterInit), "LAYOUT-6: the first of that name");
}

#[test]
fn layout_6_the_first_one_that_is_alloc() {
    let mut builder = Builder::mini("6.12.0");
    builder.section("__jump_table", WRITE, 1).zeros(8);
    builder.section("__jump_table", WA, 1).zeros(8);
    let layout = layout(&builder, &bare(6, 12));
    let first = usize::from(builder.index("__jump_table"));
    assert_eq!(layout.place(first), None, "LAYOUT-6: not ALLOC, not moved");
    assert_eq!(layout.place(first + 1).map(|p| p.region), Some(Region::RoAfterInit), "LAYOUT-6: find_sec");
}

#[test]
fn layout_4_writable_and_executable() {
    for (name, flags) in [(".wx", AX | WRITE), (".wx", WRITE | EXEC), (".init.wx", AX | WRITE)] {
        for version in [(6, 1), (6, 12)] {
            let mut builder = Builder::mini("6.12.0");
            builder.section(name, flags, 1).zeros(4);
            let (_, said) = plan(&builder, &bare(version.0, version.1));
            let (code, errno, lines) = stop(&said).expect("LAYOUT-4: refused");
            assert_eq!((code, errno), ("LAYOUT-4", Some("ENOEXEC")), "{version:?}: {name}, flags {flags:#x}");
            let line =
                format!("mini: section {name} (index {}) has invalid WRITE|EXEC flags", builder.index(name));
            assert_eq!(lines, [line], "LAYOUT-4: {version:?}");
            let loose = bare(version.0, version.1).with(|c| c.strict_module_rwx = false);
            assert!(!plan(&builder, &loose).1.refused(), "LAYOUT-4: only with STRICT_MODULE_RWX");
        }
    }
}

#[test]
fn layout_2_and_5_what_is_read_but_not_moved() {
    let mut builder = Builder::mini("6.12.0");
    builder.versions(&[("module_layout", 1)]);
    builder.section(".data..percpu", WA, 64).zeros(64);
    builder.section(".comment", 0, 1).zeros(4);
    for version in [(6, 1), (6, 12)] {
        let layout = layout(&builder, &bare(version.0, version.1));
        for (rule, name) in [
            ("LAYOUT-2", "__versions"),
            ("LAYOUT-2", ".modinfo"),
            ("LAYOUT-5", ".data..percpu"),
            ("LAYOUT-43", ".comment"),
        ] {
            assert_eq!(place(&builder, &layout, name), None, "{rule}: {version:?}: {name}");
        }
    }
    let uniprocessor = bare(6, 12).with(|c| c.smp = false);
    let found = place(&builder, &layout(&builder, &uniprocessor), ".data..percpu").map(|p| p.0);
    assert_eq!(found, Some(Region::Data), "LAYOUT-62: ordinary data without SMP");
}

#[test]
fn layout_14_15_and_20_offsets() {
    let mut builder = Builder::mini("6.12.0");
    // (name, align, size, is NOBITS, offset)
    let sections = [
        ("a", 0, 5, false, MODULE),
        ("b", 1, 3, false, MODULE + 5),
        ("c", 16, 1, false, MODULE + 0x10),
        ("empty, at the boundary", 16, 0, false, MODULE + 0x20),
        ("d", 1, 1, true, MODULE + 0x20),
        ("bss", 4096, 0x1234, true, 0x1000),
        ("after bss", 4, 4, false, 0x2234),
        // The kernel's mask for an alignment that is no power of two: (size + 2) & !2.
        ("odd alignment", 3, 8, false, (0x2238 + 2) & !2),
    ];
    for (name, align, size, nobits, _) in sections {
        let section = builder.section(name, WA, align);
        if nobits {
            section.nobits(size);
        } else {
            section.zeros(size);
        }
    }
    let layout = layout(&builder, &bare(6, 12));
    for (name, _, _, _, offset) in sections {
        assert_eq!(place(&builder, &layout, name), Some((Region::Data, offset)), "LAYOUT-14, 15, 20: {name}");
    }
    assert_eq!(layout.sizes.get(Region::Data), ((0x2238 + 2) & !2) + 8, "LAYOUT-18: no page alignment");
    assert_eq!(layout.allocated(Region::Data), 0x3000, "LAYOUT-40: page aligned when allocated");
}

/// ALIGN(0x1800, 2^64 - 0xfff) wraps to 0x800: the region then ends before `.rodata` does, which is copied all the same.
#[test]
fn layout_14_an_alignment_that_wraps() {
    const ALIGN: u64 = 0u64.wrapping_sub(0xfff);
    for (size, offset, crashes) in [(0x900, 0x900, false), (0x1000, 0, false), (0x1800, 0x800, true)] {
        let mut builder = Builder::mini("6.12.0");
        builder.section(".rodata", ALLOC, 1).zeros(size);
        builder.section(".rodata.1", ALLOC, ALIGN).zeros(16);
        let (layout, said) = plan(&builder, &bare(6, 12));
        let layout = layout.unwrap_or_else(|| panic!("no layout: {said:?}"));
        assert_eq!(
            place(&builder, &layout, ".rodata.1"),
            Some((Region::Rodata, offset)),
            "LAYOUT-14: {size:#x}"
        );
        let stop = stop(&said).map(|(code, errno, _)| (code, errno));
        assert_eq!(stop, crashes.then_some(("LAYOUT-14", None)), "LAYOUT-14: {size:#x}: {said:?}");
    }
}

/// The size of a region is an `unsigned int`: a section of nearly 2^64 bytes makes it smaller, an alignment of 2^32 puts a
/// section to its start.
#[test]
fn layout_14_sizes_of_32_bits() {
    let mut builder = Builder::mini("6.12.0");
    builder.section(".rodata", ALLOC, 1).zeros(0x40);
    builder.section(".bss", ALLOC, 16).nobits(0u64.wrapping_sub(16));
    builder.section(".rodata.1", ALLOC, 1).zeros(0x20);
    builder.section(".rodata.2", ALLOC, 1 << 40).zeros(8);
    builder.section(".rodata.3", ALLOC, 4).zeros(8);
    for minor in [1, 12] {
        let (layout, said) = plan(&builder, &bare(6, minor).with(|c| c.strict_module_rwx = false));
        assert!(minor == 1 || stop(&said).is_none_or(|s| s.0 == "LAYOUT-14"), "{said:?}");
        let layout = layout.unwrap_or_else(|| panic!("no layout: {said:?}"));
        let offset = |name| place(&builder, &layout, name).map(|p| p.1);
        let wanted =
            [(".rodata", 0), (".bss", 0x40), (".rodata.1", 0x30), (".rodata.2", 0), (".rodata.3", 8)];
        for (name, want) in wanted {
            assert_eq!(offset(name), Some(want), "LAYOUT-14: {name} on 6.{minor}");
        }
    }
}

#[test]
fn layout_16_areas_of_6_1() {
    let mut builder = Builder::mini("6.1.0");
    builder.section(".text", AX, 16).zeros(0x1001);
    builder.section(".rodata", ALLOC, 16).zeros(0x10);
    builder.section(".data..ro_after_init", WA, 16).zeros(0x20);
    builder.section(".data", WA, 16).zeros(0x30);
    builder.section(".init.text", AX, 16).zeros(0x40);
    builder.section(".init.rodata", ALLOC, 16).zeros(0x50);
    builder.section(".init.data", WA, 16).zeros(0x60);
    // (name, offset with STRICT_MODULE_RWX, offset without); struct module comes before .data.
    let cases = [
        (".text", 0, 0),
        (".rodata", 0x2000, 0x1010),
        (".data..ro_after_init", 0x3000, 0x1020),
        (".gnu.linkonce.this_module", 0x4000, 0x1040),
        (".data", 0x4500, 0x1540),
        (".init.text", 0, 0),
        (".init.rodata", 0x1000, 0x40),
        (".init.data", 0x2000, 0x90),
    ];
    let loose = bare(6, 1).with(|c| c.strict_module_rwx = false);
    let (strict, loose) = (layout(&builder, &bare(6, 1)), layout(&builder, &loose));
    for (name, with, without) in cases {
        assert_eq!(place(&builder, &strict, name).unwrap().1, with, "LAYOUT-16: {name}, strict");
        assert_eq!(place(&builder, &loose, name).unwrap().1, without, "LAYOUT-16: {name}, not strict");
    }
    let [core, init] = strict.marks;
    assert_eq!(
        (core.text_size, core.ro_size, core.ro_after_init_size),
        (0x2000, 0x3000, 0x4000),
        "LAYOUT-16: core"
    );
    assert_eq!(
        (init.text_size, init.ro_size, init.ro_after_init_size),
        (0x1000, 0x2000, 0x2000),
        "LAYOUT-16: init"
    );
    assert_eq!(strict.sizes.get(Region::Core), 0x5000, "LAYOUT-16: core size");
    assert_eq!(strict.sizes.get(Region::Init), 0x3000, "LAYOUT-16: init size");
    assert_eq!(loose.sizes.get(Region::Core), 0x1570, "LAYOUT-16: core size, not strict");
}

#[test]
fn layout_19_init_data_that_is_read_only_after_init() {
    let mut builder = Builder::mini("6.12.0");
    // A flag that only the loader sets, but nothing keeps a file from having it.
    builder.section(".init.odd", WA | RO_AFTER_INIT, 8).zeros(8);
    let (new, said) = plan(&builder, &bare(6, 12));
    assert_eq!(place(&builder, &new.unwrap(), ".init.odd"), None, "LAYOUT-19: no region takes it");
    assert_eq!(codes(&said), ["LAYOUT-19"], "LAYOUT-19: a warning");
    assert!(!said.refused(), "LAYOUT-19: the kernel only warns");
    let (old, said) = plan(&builder, &bare(6, 1));
    assert_eq!(
        place(&builder, &old.unwrap(), ".init.odd").map(|p| p.0),
        Some(Region::Init),
        "LAYOUT-19: 6.1"
    );
    assert_eq!(codes(&said).len(), 0);
}

#[test]
fn layout_40_regions_that_are_not_there() {
    let mut builder = Builder::mini("6.12.0");
    builder.section(".init.text", AX, 16).zeros(4);
    let regions = |c: &KernelConfig| layout(&builder, c).regions().map(Region::name).collect::<Vec<_>>();
    assert_eq!(regions(&bare(6, 12)), ["data", "init_text"], "LAYOUT-40: struct module and init text only");
    assert_eq!(
        regions(&config(6, 12)),
        ["data", "init_text", "init_data"],
        "LAYOUT-30: symbol tables in init_data"
    );
    let builder = Builder::mini("6.1.0");
    let regions = |c: &KernelConfig| layout(&builder, c).regions().map(Region::name).collect::<Vec<_>>();
    assert_eq!(regions(&bare(6, 1)), ["core"], "LAYOUT-40: no init at all");
    assert_eq!(regions(&config(6, 1)), ["core", "init"], "LAYOUT-40: init holds the symbol tables");
}

#[test]
fn layout_40_more_than_any_module_area_holds() {
    for version in [(6, 1), (6, 12)] {
        let large = [(1, 0x8000_0001, true), (1, 0xf000_0000, true)];
        // LAYOUT-14: these wrap.
        let wrapping = [(1, 1 << 40, false), (1, u64::MAX, false), (1 << 63, 1, false)];
        for (align, size, refused) in large.into_iter().chain(wrapping) {
            let mut builder = Builder::mini("6.12.0");
            builder.section(".bss", WA, align).nobits(size);
            let (_, said) = plan(&builder, &config(version.0, version.1));
            let stop = stop(&said).map(|s| s.1);
            assert_eq!(
                stop,
                refused.then_some(Some("ENOMEM")),
                "LAYOUT-40: {version:?}: {size:#x} bytes aligned to {align:#x}"
            );
        }
    }
}

#[test]
fn section_names_need_not_come_last() {
    let mut last = Builder::mini("6.12.0");
    last.section(".text", AX, 16).zeros(0x20);
    last.section(".data", WA, 16).zeros(0x20);
    let mut first = last.clone();
    first.names_first = true;
    let (a, b) = (layout(&last, &bare(6, 12)), layout(&first, &bare(6, 12)));
    for name in [".text", ".data", ".gnu.linkonce.this_module"] {
        assert_eq!(place(&last, &a, name), place(&first, &b, name), "{name}");
        assert!(place(&first, &b, name).is_some(), "{name}");
    }
}

#[test]
fn layout_23_regions_begin_with_the_size_in_the_file() {
    let mut builder = Builder::mini("6.12.0");
    builder.section(".text", AX, 16).zeros(0x20);
    let file = builder.build();
    for (version, region) in [((6, 1), Region::Core), ((6, 12), Region::Text)] {
        let config = bare(version.0, version.1);
        with_layout(&file, &config, |mut info, _, _| {
            *info.begun.get_mut(region) = 0x18;
            let layout = layout_sections(&info, &mut Findings::new()).unwrap();
            let text = layout.place(usize::from(builder.index(".text"))).map(|p| (p.region, p.offset));
            assert_eq!(text, Some((region, 0x20)), "LAYOUT-23: {version:?}");
        });
    }
}

#[test]
fn layout_40_memory_that_a_machine_may_not_have() {
    for (size, open) in [(32 << 20, false), (128 << 20, true)] {
        let mut builder = Builder::mini("6.12.0");
        builder.section(".bss", WA, 1).nobits(size);
        let (layout, mut said) = plan(&builder, &config(6, 12));
        memory_is_there(&layout.unwrap(), &mut said);
        let is_open = said.open_rules().iter().any(|rule| rule.code == "LAYOUT-40" && rule.may_crash);
        assert_eq!((is_open, said.refused()), (open, false), "LAYOUT-40: {size:#x} bytes");
    }
}
