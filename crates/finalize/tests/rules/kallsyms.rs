//! The tables of kallsyms, which init memory and core memory hold (spec 06).

use elf_layout::layout::layout_sections;
use elf_layout::module::move_module;
use elf_layout::symtab::layout_symtab;
use elf_layout::validity::{Expected, elf_validity};
use elf_layout::{Findings, HeapMemory, KernelConfig, KernelVersion, LoadInfo, Module, Placement, Region};
use finalize::kallsyms::symbols_of_the_temporary_copy;
use finalize::post_relocation;
use finalize::{ftrace, kallsyms};
use kernel::Kernel;
use reloc::testing::{TestKernel, runtime};
use reloc::x86_64::X86_64;
use reloc::{Finalizer, LoadFacts, MACHINES, ModArch, Record};
use symres::simplify::{simplify_symbols, write_symtab};
use testkit::elf::{ABS, ALLOC, Builder, EXEC, Elf, GLOBAL, LOCAL, UNDEF, WEAK, WRITE};

const AX: u64 = ALLOC | EXEC;
const WA: u64 = ALLOC | WRITE;
const BASE: u64 = 0xffff_ffff_c010_0000;
/// Where the per-cpu area goes.
const PERCPU: u64 = 0x30010;

fn config(minor: u16) -> KernelConfig {
    let version = KernelVersion::new(6, minor, 0);
    KernelConfig::new(version).with(|c| {
        c.module_sig = false;
        c.modversions = false;
        c.kallsyms_all = Some(true);
    })
}

/// Brings a module that has no relocations into memory, and shows it after `post_relocation`.
fn with_load<R>(config: KernelConfig, bytes: &[u8], show: impl FnOnce(&mut Module<'_>) -> R) -> R {
    let kernel = Kernel::unknown(config);
    let (config, mut said) = (&kernel.config, Findings::new());
    let expected = Expected { config, machine: None, known: MACHINES, ignore_modversions: false };
    let file = elf_validity(bytes, &expected, &mut said).expect("a module");
    let mut info = LoadInfo::rewrite_section_headers(&file, config);
    info.edit_flags();
    let mut layout = layout_sections(&info, &mut said).expect("a layout");
    layout_symtab(&mut info, &mut layout, &mut said).expect("room for the symbols");
    let placement = Placement { percpu: Some(PERCPU), ..Placement::consecutive(&layout, BASE) };
    let memory = Box::new(HeapMemory::new(&layout));
    let mut module = move_module(info, layout, placement, memory);
    simplify_symbols(&mut module, &kernel, kernel.state.taints, |_| false, &mut said);
    write_symtab(&mut module);
    assert!(!said.refused(), "the module is good: {said:?}");
    post_relocation(&mut module, &kernel, &X86_64);
    show(&mut module)
}

/// Symbols of every kind, each with the letter it gets.
fn letters() -> (Builder, Vec<u8>) {
    let mut b = Builder::mini("6.12.0");
    b.section(".text", AX, 16).zeros(64);
    b.section(".init.text", AX, 16).zeros(64);
    b.section(".rodata", ALLOC, 16).zeros(64);
    b.section(".data", WA, 16).zeros(64);
    b.section(".bss", WA, 16).nobits(64);
    b.section(".data..percpu", WA, 16).zeros(64);
    b.section(".debug_info", 0, 1).zeros(4);
    b.section(".comment", 0, 1).zeros(4);
    b.section(".text.bss", AX, 1).nobits(4);
    let mut want = vec![b'U'];
    for (bind, kind, section, letter) in [
        (GLOBAL, 2, ".text", b't'),
        (WEAK, 2, ".text", b'w'),
        (WEAK, 1, ".data", b'v'),
        (WEAK, 0, "", b'w'),
        (WEAK, 1, "", b'v'),
        (LOCAL, 2, ".init.text", b't'),
        (GLOBAL, 1, ".rodata", b'r'),
        (GLOBAL, 1, ".data", b'd'),
        (GLOBAL, 1, ".bss", b'b'),
        (LOCAL, 1, ".data..percpu", b'a'),
        (LOCAL, 0, "absolute", b'a'),
        (LOCAL, 3, ".debug_info", b'n'),
        (LOCAL, 3, ".comment", b'?'),
        (LOCAL, 1, ".modinfo", b'?'),
        (LOCAL, 0, "livepatch", b'?'),
        (LOCAL, 2, ".text.bss", b't'),
    ] {
        let shndx = match section {
            "" => UNDEF,
            "absolute" => ABS,
            "livepatch" => 0xff20,
            name => b.index(name),
        };
        b.symbol(&format!("symbol_{}", want.len()), bind, kind, shndx, 0x10);
        want.push(letter);
    }
    (b, want)
}

#[test]
fn fin_3_to_5_the_tables_of_kallsyms() {
    let (b, want) = letters();
    for minor in [1, 12] {
        with_load(config(minor), &b.build(), |module| {
            let (plan, info) = (module.layout.symtab.as_ref().unwrap(), &module.info);
            let (init, core) =
                (module.memory.region(plan.init_region), module.memory.region(plan.core_region));
            let init_base = module.placement.bases.get(plan.init_region);
            let word =
                |memory: &[u8], at: u64| u64::from_le_bytes(memory[at as usize..][..8].try_into().unwrap());
            let what = format!("mini on 6.{minor}");
            let header: Vec<u64> = (0..4).map(|n| word(init, plan.mod_kallsyms_init_off + 8 * n)).collect();
            let (sym, str) = (info.file.index().sym, info.file.index().str);
            let (symtab, strtab) = (info.sechdrs[sym].sh_addr, info.sechdrs[str].sh_addr);
            let typetab = init_base + plan.init_typeoffs;
            let fields = [symtab, want.len() as u64, strtab, typetab];
            assert_eq!(header, fields, "FIN-3: {what}: symtab, num_symtab, strtab, typetab");
            let types = &init[plan.init_typeoffs as usize..][..want.len()];
            assert_eq!(types, want, "FIN-4: {what}: {}", types.escape_ascii());
            let place = module.layout.place(sym).unwrap();
            assert_eq!(
                place.region,
                if minor == 1 { Region::Init } else { Region::InitData },
                "FIN-3: {what}"
            );
            let table = module.memory.at(place, 24 * want.len() as u64).unwrap();

            let mut name_at = 0;
            assert!(plan.core_symbols.len() > 5, "FIN-3: {what}: symbols that stay");
            for (n, index) in (0u64..).zip(&plan.core_symbols) {
                let (index, name) = (*index as usize, &b.symbols[*index as usize].name);
                let record = &core[(plan.symoffs + 24 * n) as usize..][..24];
                let full = &table[24 * index..][..24];
                assert_eq!(record[4..], full[4..], "FIN-3: {what}, {name}: as in the full table");
                assert_eq!(word(record, 8), module.values[index], "FIN-3: {what}, {name}: the final value");
                assert_eq!(
                    word(record, 0) as u32,
                    name_at,
                    "FIN-3: {what}, {name}: st_name in the core strings"
                );
                let text = &core[(plan.stroffs + u64::from(name_at)) as usize..][..=name.len()];
                assert_eq!(text, [name.as_bytes(), &[0]].concat(), "FIN-3: {what}, {name}: its name");
                let letter = core[(plan.core_typeoffs + n) as usize];
                assert_eq!(letter, want[index], "FIN-4: {what}, {name}: in the core table");
                name_at += name.len() as u32 + 1;
            }
            let room = plan.core_typeoffs - plan.stroffs;
            assert_eq!(u64::from(name_at), room, "FIN-5: {what}: the string area is just used up");
        });
    }
}

#[test]
fn layout_43_values_in_the_temporary_copy_are_not_told() {
    let (b, _) = letters();
    for minor in [1, 12] {
        with_load(config(minor), &b.build(), |module| {
            let (sym, plan) = (module.info.file.index().sym, module.layout.symtab.clone().unwrap());
            let full = module.info.sechdrs[sym].sh_addr;
            let core = module.placement.bases.get(plan.core_region) + plan.symoffs;
            let lost = [".debug_info", ".comment", ".modinfo"].map(|name| b.index(name));
            let is_lost = |index: usize| lost.contains(&b.symbols[index].shndx);
            let of_full = (0..b.symbols.len()).filter(|i| is_lost(*i)).map(|i| full + 24 * i as u64 + 8);
            let of_core = (0u64..).zip(&plan.core_symbols).filter(|(_, i)| is_lost(**i as usize));
            let want: Vec<(u64, u64)> =
                of_full.chain(of_core.map(|(n, _)| core + 24 * n + 8)).map(|at| (at, 8)).collect();
            assert!(want.len() >= lost.len(), "mini has such symbols");
            let told = patching(module, false, |m| {
                symbols_of_the_temporary_copy(m);
                runtime(m)
            });
            assert_eq!(told, want, "LAYOUT-43: mini on 6.{minor}: values that nothing tells");
        });
    }
}

/// Does something to a module on a kernel of which nothing is known.
fn patching<R>(
    module: &mut Module<'_>,
    verdict_only: bool,
    step: impl FnOnce(&mut Finalizer<'_, '_>) -> R,
) -> R {
    step(&mut Finalizer {
        module,
        load: LoadFacts {
            mod_arch: &ModArch::default(),
            taints: 0,
            using_gplonly_symbols: false,
            sig_ok: false,
        },
        kernel: &TestKernel::default(),
        record: &mut Record::default(),
        said: &mut Findings::new(),
        choices: false,
        verdict_only,
    })
}

/// The codes of what a step says of a module with one function, whose symbol table was changed.
fn said(change: impl FnOnce(&mut Elf), step: impl FnOnce(&mut Finalizer<'_, '_>)) -> Vec<&'static str> {
    let mut b = Builder::mini("6.12.0");
    b.section(".text", AX, 16).zeros(64);
    b.section("__mcount_loc", ALLOC, 8).zeros(8);
    let text = b.index(".text");
    b.symbol("function", GLOBAL, 2, text, 0);
    b.symbol("undefined", WEAK, 0, UNDEF, 0);
    let mut elf = Elf::new(b.build());
    change(&mut elf);
    let config = config(12).with(|c| c.dynamic_ftrace = true);
    with_load(config, &elf.bytes, |module| {
        patching(module, true, |m| {
            step(m);
            let (said, open) = (m.said.iter(), m.said.open_rules().iter());
            said.map(|f| f.code).chain(open.map(|rule| rule.code)).collect()
        })
    })
}

#[test]
fn fin_78_and_48_names_behind_the_strings() {
    // Behind the file's end, but still in its last page: the moved table has other memory there, and then none.
    for (symbol, name, copied, looked_up) in
        [(1, 1, false, false), (1, 0xd00, false, false), (2, 0x4000, false, false), (1, 0x1fff, true, true)]
    {
        let change = |elf: &mut Elf| {
            // Room, so that the name is not nowhere in the file.
            elf.bytes.resize(0x8000, 0);
            let at = elf.symbol_at(symbol);
            elf.put(at, 4, name);
        };
        let found = said(change, |m| {
            kallsyms::names_in_reach(m, &X86_64);
        });
        assert_eq!(found.contains(&"FIN-78"), copied, "FIN-78: {name:#x} of {symbol}: {found:?}");
        let found = said(change, |m| ftrace::ftrace_module_enable(m, &X86_64));
        assert_eq!(found.contains(&"FIN-78"), looked_up, "FIN-48: {name:#x} of {symbol}: {found:?}");
    }
}

#[test]
fn fin_79_the_section_of_symbol_0() {
    for (shndx, info, crashes) in [
        (0, 0, false),
        (1, 0, false),
        (0x7fff, 0, true),
        (0x7fff, 0x20, false),
        (0xfff1, 0, false),
        (9, 0, false),
    ] {
        let change = |elf: &mut Elf| {
            let at = elf.symbol_at(0);
            elf.put(at + 4, 1, info);
            elf.put(at + 6, 2, shndx);
        };
        let found = said(change, |m| {
            kallsyms::section_of_symbol_0(m);
        });
        let want: &[&str] = if crashes { &["FIN-79"] } else { &[] };
        assert_eq!(found, want, "FIN-79: {shndx:#x} {info:#x}");
    }
}
