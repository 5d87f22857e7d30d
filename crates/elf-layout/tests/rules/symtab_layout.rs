//! Which symbols kallsyms keeps of a module, and where its tables go (spec 02 §2.3).

use elf_layout::plan::SymtabPlan;
use elf_layout::{KernelConfig, KernelVersion, Layout, Region};
use testkit::elf::{ABS, ALLOC, Builder, COMMON, EXEC, Elf, GLOBAL, LOCAL, SYMTAB, Sh, WRITE};

use crate::common::{lay_out, stop};

const OLD: (u16, u16) = (6, 1);
const NEW: (u16, u16) = (6, 12);
const FUNC: u8 = 2;
const NOTYPE: u8 = 0;
const SECTION: u8 = 3;

fn config((major, minor): (u16, u16), all: bool) -> KernelConfig {
    KernelConfig::new(KernelVersion::new(major, minor, 0)).with(|c| c.kallsyms_all = Some(all))
}

fn layout(builder: &Builder, config: &KernelConfig) -> Layout {
    lay_out(&builder.build(), config).0.expect("a layout")
}

fn symtab(builder: &Builder, config: &KernelConfig) -> SymtabPlan {
    layout(builder, config).symtab.expect("LAYOUT-30: a plan of the symbol tables")
}

/// A module with a section of every kind and these symbols: name, type, section (`None`: by number).
fn with_symbols(extra_modinfo: &[&str]) -> Builder {
    let mut modinfo = vec!["name=mini", "license=GPL", "vermagic=6.12.0 SMP "];
    modinfo.extend(extra_modinfo);
    let mut b = Builder::module(&modinfo);
    b.section(".text", ALLOC | EXEC, 16).zeros(64);
    b.section(".init.text", ALLOC | EXEC, 16).zeros(64);
    b.section(".data", ALLOC | WRITE, 16).zeros(64);
    b.section(".rodata", ALLOC, 16).zeros(64);
    b.section(".init.data", ALLOC | WRITE, 16).zeros(64);
    b.section(".data..percpu", ALLOC | WRITE, 16).zeros(64);
    b.section(".comment", 0, 1).zeros(4);
    let at = |b: &Builder, name: &str| b.index(name);
    for (name, kind, section) in [
        ("in_text", FUNC, ".text"),
        ("$x", NOTYPE, ".text"),
        (".text", SECTION, ".text"),
        ("", SECTION, ".text"),
        ("in_init_text", FUNC, ".init.text"),
        ("in_data", 1, ".data"),
        ("in_rodata", 1, ".rodata"),
        ("in_init_data", 1, ".init.data"),
        ("in_percpu", 1, ".data..percpu"),
        ("in_comment", NOTYPE, ".comment"),
        ("in_modinfo", 1, ".modinfo"),
    ] {
        let section = at(&b, section);
        b.symbol(name, LOCAL, kind, section, 0);
    }
    for (name, shndx) in
        [("undefined", 0), ("absolute", ABS), ("common", COMMON), ("beyond", 0x700), ("reserved", 0xff00)]
    {
        b.symbol(name, GLOBAL, NOTYPE, shndx, 0);
    }
    b
}

fn kept(builder: &Builder, config: &KernelConfig) -> Vec<String> {
    let plan = symtab(builder, config);
    plan.core_symbols.iter().map(|i| builder.symbols[*i as usize].name.clone()).collect()
}

#[test]
fn layout_31_and_32_which_symbols_stay() {
    let builder = with_symbols(&[]);
    for version in [OLD, NEW] {
        let all = ["", "in_text", "$x", ".text", "in_data", "in_rodata", "in_percpu"];
        assert_eq!(kept(&builder, &config(version, true)), all, "LAYOUT-31, 32: {version:?}: KALLSYMS_ALL");
        let text = ["", "in_text", "$x", ".text"];
        assert_eq!(
            kept(&builder, &config(version, false)),
            text,
            "LAYOUT-31: {version:?}: without KALLSYMS_ALL"
        );
    }
}

#[test]
fn layout_31_livepatch_modules_keep_all() {
    let builder = with_symbols(&["livepatch=Y"]);
    for version in [OLD, NEW] {
        let plan = symtab(&builder, &config(version, false));
        let all: Vec<u32> = (0..builder.symbols.len() as u32).collect();
        assert_eq!(plan.core_symbols, all, "LAYOUT-31: {version:?}");
    }
}

#[test]
fn layout_36_without_kallsyms_nothing_is_moved() {
    let builder = with_symbols(&[]);
    for version in [OLD, NEW] {
        let config = config(version, true).with(|c| c.kallsyms = false);
        let layout = layout(&builder, &config);
        assert!(layout.symtab.is_none(), "LAYOUT-36: {version:?}");
        let symtab = builder.sections.len() + 1;
        assert_eq!((layout.place(symtab), layout.place(symtab + 1)), (None, None), "LAYOUT-36: {version:?}");
    }
}

#[test]
fn layout_30_and_34_where_the_tables_go_since_6_4() {
    let builder = with_symbols(&[]);
    let (nsrc, kept) = (builder.symbols.len() as u64, 7);
    let names: u64 = ["", "in_text", "$x", ".text", "in_data", "in_rodata", "in_percpu"]
        .iter()
        .map(|n| n.len() as u64 + 1)
        .sum();
    let layout = layout(&builder, &config(NEW, true));
    let plan = layout.symtab.clone().unwrap();
    // Data: struct module, .data, then the core tables.
    assert_eq!((plan.core_region, plan.symoffs), (Region::Data, 0x540), "LAYOUT-34: core symbols");
    assert_eq!(plan.stroffs, 0x540 + 24 * kept, "LAYOUT-34: core names");
    assert_eq!(plan.core_typeoffs, plan.stroffs + names, "LAYOUT-34: core types");
    assert_eq!(layout.sizes.get(Region::Data), plan.core_typeoffs + kept, "LAYOUT-34: data");
    // Init data: .init.data, symbols, names, struct mod_kallsyms and a letter per symbol.
    let symtab = builder.sections.len() + 1;
    let place = |at: usize| layout.place(at).map(|p| (p.region, p.offset)).unwrap();
    assert_eq!(place(symtab), (Region::InitData, 64), "LAYOUT-30: all symbols");
    assert_eq!(place(symtab + 1), (Region::InitData, 64 + 24 * nsrc), "LAYOUT-34: all names");
    let strings: u64 = 1 + builder
        .symbols
        .iter()
        .filter(|s| !s.name.is_empty())
        .map(|s| s.name.len() as u64 + 1)
        .sum::<u64>();
    let end = 64 + 24 * nsrc + strings;
    assert_eq!(plan.mod_kallsyms_init_off, end.next_multiple_of(8), "LAYOUT-34: struct mod_kallsyms");
    assert_eq!(plan.init_typeoffs, plan.mod_kallsyms_init_off + 32, "LAYOUT-34: types");
    assert_eq!(layout.sizes.get(Region::InitData), plan.init_typeoffs + nsrc, "LAYOUT-34: init_data");
}

#[test]
fn layout_34_where_the_tables_go_before_6_4() {
    let builder = with_symbols(&[]);
    let nsrc = builder.symbols.len() as u64;
    let layout = layout(&builder, &config(OLD, true));
    let plan = layout.symtab.clone().unwrap();
    // text, rodata, ro_after_init (empty), data: a page each; core is page aligned before the tables.
    assert_eq!((plan.core_region, plan.symoffs), (Region::Core, 0x3000), "LAYOUT-34: core symbols");
    assert_eq!(layout.sizes.get(Region::Core), 0x4000, "LAYOUT-34: core is page aligned again");
    let symtab = builder.sections.len() + 1;
    let place = |at: usize| layout.place(at).map(|p| (p.region, p.offset)).unwrap();
    // init text, (nothing read-only), init data: page aligned before the symbols.
    assert_eq!(place(symtab), (Region::Init, 0x2000), "LAYOUT-34: all symbols");
    assert_eq!(place(symtab + 1), (Region::Init, 0x2000 + 24 * nsrc), "LAYOUT-34: all names");
    assert_eq!(plan.mod_kallsyms_init_off % 8, 0, "LAYOUT-34");
    assert_eq!(layout.sizes.get(Region::Init), 0x3000, "LAYOUT-34: init is page aligned");
}

#[test]
fn layout_34_names_are_not_shared() {
    let mut builder = Builder::mini("6.12.0");
    builder.section(".text", ALLOC | EXEC, 16).zeros(64);
    let text = builder.index(".text");
    for _ in 0..3 {
        builder.symbol("same_name", LOCAL, FUNC, text, 0);
    }
    let plan = symtab(&builder, &config(NEW, true));
    assert_eq!(plan.core_symbols, [0, 1, 2, 3]);
    assert_eq!(plan.core_typeoffs - plan.stroffs, 1 + 3 * 10, "LAYOUT-34: duplicates are duplicated");
}

#[test]
fn sym_9_and_10_names_behind_the_table() {
    let mut b = Builder::mini("6.12.0");
    b.section(".text", ALLOC | EXEC, 16).zeros(16);
    let text = b.index(".text");
    b.symbol("function", GLOBAL, FUNC, text, 0);
    b.symbol("undefined", GLOBAL, 0, 0, 0);
    let mut elf = Elf::new(b.build());
    let strings = elf.get(elf.of_type(SYMTAB).unwrap(), Sh::Link) as usize;
    let end = elf.range(strings).end;
    // (name, does the kernel crash, what it reads)
    let page = (elf.bytes.len() as u64).next_multiple_of(4096) - elf.range(strings).start as u64;
    let rest: Vec<u8> = elf.bytes[end..].iter().copied().take_while(|b| *b != 0).collect();
    let cases = [
        (elf.range(strings).len() as u64, false, Some(rest.len())),
        (page - 1, false, Some(0)),
        (page, true, None),
        (0xffff_fff0, true, None),
    ];
    for (name, crashes, len) in cases {
        let at = elf.symbol_at(1);
        elf.put(at, 4, name);
        for config in [config(OLD, true), config(NEW, true)] {
            let (layout, said) = lay_out(&elf.bytes, &config);
            let found = stop(&said).map(|(code, errno, _)| (code, errno));
            assert_eq!(found, crashes.then_some(("SYM-10", None)), "SYM-10: {name:#x}: {said:?}");
            let plan = layout.and_then(|l| l.symtab).expect("a plan");
            let names = plan.core_typeoffs - plan.stroffs;
            let want = len.map(|len| len as u64 + 2);
            assert!(want.is_none_or(|want| want == names), "SYM-9: {name:#x}: {names} bytes of names");
        }
    }
    // An undefined symbol is not kept, and its name not copied.
    let at = elf.symbol_at(1);
    elf.put(at, 4, 1);
    let at = elf.symbol_at(2);
    elf.put(at, 4, 0xffff_fff0);
    assert!(!lay_out(&elf.bytes, &config(NEW, true)).1.refused(), "SYM-10: kallsyms does not keep it");
}
