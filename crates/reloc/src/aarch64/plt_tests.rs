//! Linkage tables, from their size to their bytes in memory.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use elf_layout::elf::{Rela, SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, Shdr};
use elf_layout::layout::layout_sections;
use elf_layout::module::{HeapMemory, move_module};
use elf_layout::validity::{Expected, elf_validity};
use elf_layout::{Errno, KernelConfig, ModuleFile, Placement};
use testkit::elf::{self, Builder, EM_AARCH64, ET_REL, Elf, GLOBAL, Sh, UNDEF};
use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::InstDecoder;

use super::insn::{BR_X16, BREAK_FAULT};
use super::plts::{NoSlot, Plts};
use super::*;
use crate::apply_relocations;
use crate::mod_arch::{ModPltSec, Slot};

const SHT_PROGBITS: u32 = 1;
const CODE: u64 = SHF_ALLOC | SHF_EXECINSTR;
const JUMP26: u32 = 282;
const CALL26: u32 = 283;
const ADRP: u32 = 275;
const HIT: Cpu = ERRATUM_843419;

/// Indices in [`Module`].
const TEXT: usize = 1;
const INIT_TEXT: usize = 2;
const PLT: usize = 3;
const INIT_PLT: usize = 4;
const TRAMP: usize = 5;
const INIT_TRAMP: usize = 6;
const RELA_TEXT: usize = 7;
const RELA_INIT: usize = 8;

/// Symbols: 1 in .text, 2 in .init.text, the others undefined.
const IN_TEXT: u32 = 1;
const IN_INIT: u32 = 2;
const SYMBOLS: u32 = 12;

fn rela(r_offset: u64, r_type: u32, symbol: u32, r_addend: i64) -> Rela {
    Rela { r_offset, r_info: u64::from(symbol) << 32 | u64::from(r_type), r_addend }
}

/// A small module: two sections of code with their relocations.
struct Module {
    text: Vec<u8>,
    init_text: Vec<u8>,
    rela_text: Vec<Rela>,
    rela_init: Vec<Rela>,
}

impl Module {
    fn new(rela_text: Vec<Rela>, rela_init: Vec<Rela>) -> Self {
        let code = |words: usize| 0x9400_0000u32.to_le_bytes().repeat(words);
        Module { text: code(0x800), init_text: code(0x400), rela_text, rela_init }
    }

    fn builder(&self) -> Builder {
        let mut b = Builder::new(ET_REL, EM_AARCH64);
        b.section(".text", CODE, 16).data(self.text.clone());
        b.section(".init.text", CODE, 16).data(self.init_text.clone());
        for name in [".plt", ".init.plt", ".text.ftrace_trampoline", ".init.text.ftrace_trampoline"] {
            b.section(name, SHF_ALLOC, 16).zeros(1);
        }
        let record = |r: &Rela| elf::Rela {
            offset: r.r_offset,
            kind: r.r_info as u32,
            symbol: (r.r_info >> 32) as u32,
            addend: r.r_addend,
        };
        for (target, records) in [(".text", &self.rela_text), (".init.text", &self.rela_init)] {
            b.relocations(target, &records.iter().map(record).collect::<Vec<_>>());
        }
        for symbol in 1..SYMBOLS as u16 {
            b.symbol("", GLOBAL, 0, if symbol < 3 { symbol } else { UNDEF }, 0);
        }
        b
    }

    fn bytes(&self) -> Vec<u8> {
        self.builder().build()
    }
}

fn config(release: &str) -> KernelConfig {
    KernelConfig::of_release(release, crate::MACHINES).unwrap()
}

fn parse<'d>(bytes: &'d [u8], config: &KernelConfig) -> ModuleFile<'d> {
    let known = &[&super::MACHINE];
    let expected = Expected { config, machine: None, known, ignore_modversions: false };
    elf_validity(bytes, &expected, &mut Findings::new()).unwrap()
}

struct Frobbed {
    arch: ModArch,
    sechdrs: Vec<Shdr>,
    text: Option<Vec<Rela>>,
    said: Findings,
}

fn frob_with(module: &Module, config: &KernelConfig, cpu: Cpu) -> Frobbed {
    frob_bytes(&module.bytes(), config, cpu)
}

fn frob_bytes(bytes: &[u8], config: &KernelConfig, cpu: Cpu) -> Frobbed {
    let file = parse(bytes, config);
    let mut info = LoadInfo::rewrite_section_headers(&file, config);
    let mut said = Findings::new();
    let arch = Aarch64.module_frob_arch_sections(&mut info, cpu, &mut said);
    let text = info.reordered(RELA_TEXT).map(<[Rela]>::to_vec);
    Frobbed { arch, sechdrs: info.sechdrs, text, said }
}

fn frob(module: &Module, release: &str, cpu: Cpu) -> Frobbed {
    frob_with(module, &config(release), cpu)
}

/// (core, init) slots counted for these relocations of .text.
fn counted(rela_text: Vec<Rela>, release: &str, cpu: Cpu) -> (u64, u64) {
    let frobbed = frob(&Module::new(rela_text, vec![]), release, cpu);
    (frobbed.arch.tables[0].plt_max_entries, frobbed.arch.tables[1].plt_max_entries)
}

#[test]
fn plt_1_and_2_sections_must_be_there() {
    let module = Module::new(vec![], vec![]);
    let renamed = |section: usize| {
        let mut builder = module.builder();
        builder.sections[section - 1].name = ".other".into();
        builder.build()
    };
    // A symbol table that has the name of a PLT section is not taken for one.
    let mut symtab = Elf::new(module.bytes());
    let (plt, at) = (symtab.get(PLT, Sh::Name), symtab.section(".symtab"));
    symtab.set(at, Sh::Name, plt);
    for (bytes, what) in [
        (renamed(PLT), "PLT section(s)"),
        (renamed(INIT_PLT), "PLT section(s)"),
        (symtab.bytes, "symtab section"),
    ] {
        let said = frob_bytes(&bytes, &config("6.12.0"), Cpu::default()).said;
        assert_eq!(said.dmesg().collect::<Vec<_>>(), [format!(": module {what} missing")], "PLT-2");
        assert_eq!(said.errno(), Some(Errno::ENOEXEC), "PLT-2");
    }
}

#[test]
fn plt_12_13_and_15_sections_are_filled_in() {
    let module = Module::new(vec![rela(0, CALL26, 3, 0), rela(4, CALL26, 4, 0)], vec![rela(0, CALL26, 5, 0)]);
    let slots = |release, section: usize, align| {
        let frobbed = frob(&module, release, Cpu::default());
        let section = frobbed.sechdrs[section];
        assert_eq!((section.sh_type, section.sh_flags), (SHT_NOBITS, CODE), "PLT-12, PLT-13");
        assert_eq!(section.sh_addralign, align, "PLT-12, PLT-13");
        section.sh_size / 12
    };
    for release in ["6.1.0", "6.12.0"] {
        assert_eq!(slots(release, PLT, 64), 3, "PLT-15: one more than counted");
        assert_eq!(slots(release, INIT_PLT, 64), 2, "PLT-11, PLT-15");
    }
    assert_eq!(slots("5.4.0", TRAMP, 4), 1, "PLT-13: 5.4");
    assert_eq!(slots("6.1.0", TRAMP, 4), 2, "PLT-13: ftrace with regs");
    assert_eq!(slots("6.12.0", TRAMP, 4), 1, "PLT-13: ftrace with args");
    assert_eq!(slots("6.12.0", INIT_TRAMP, 4), 1, "PLT-13: a7ed7b9d0ebb");
    let old = frob(&module, "6.1.0", Cpu::default()).sechdrs[INIT_TRAMP];
    assert_eq!((old.sh_type, old.sh_flags), (SHT_PROGBITS, SHF_ALLOC), "PLT-13: unknown to 6.1");
}

#[test]
fn plt_4_and_5_partition_leaves_the_last_one_out() {
    let call = |symbol| rela(u64::from(symbol) * 4, CALL26, symbol, 0);
    let other = |n| rela(n, 257, 3, 0);
    // (symbols in table order, sorted front and rest; None: the table stays as it is)
    let cases: [(Vec<Rela>, Option<Vec<Rela>>); 8] = [
        (vec![], None),
        (vec![call(9)], None),
        (vec![other(0), other(1)], None),
        (vec![call(9), call(8)], Some(vec![call(9), call(8)])),
        (vec![call(9), call(8), call(7)], Some(vec![call(8), call(9), call(7)])),
        (vec![other(0), call(9)], Some(vec![call(9), other(0)])),
        (vec![other(0), call(9), other(1), call(8)], Some(vec![call(8), call(9), other(1), other(0)])),
        (
            vec![call(IN_TEXT), call(9), call(8), call(IN_INIT)],
            Some(vec![call(IN_INIT), call(8), call(9), call(IN_TEXT)]),
        ),
    ];
    for (table, want) in cases {
        let got = frob(&Module::new(table.clone(), vec![]), "6.12.0", Cpu::default()).text;
        assert_eq!(got, want, "PLT-4, PLT-5, PLT-6: {table:?}");
    }
}

#[test]
fn plt_7_before_5_9_all_are_sorted() {
    let table =
        vec![rela(0, CALL26, 9, 0), rela(4, 257, 3, 0), rela(8, CALL26, 9, -4), rela(12, JUMP26, 9, 0)];
    let want = vec![table[1], table[3], table[2], table[0]];
    assert_eq!(frob(&Module::new(table, vec![]), "5.4.0", Cpu::default()).text, Some(want), "PLT-6, PLT-7");
}

#[test]
fn plt_8_duplicates_count_once_if_they_are_adjacent() {
    let call = |symbol, addend| rela(0, CALL26, symbol, addend);
    for (table, want) in [
        (vec![call(3, 0)], 1),
        (vec![call(3, 0), call(3, 0), call(3, 0)], 1),
        (vec![call(3, 0), rela(0, JUMP26, 3, 0)], 2),
        (vec![call(3, 8), call(3, 8), call(3, 8)], 3),
        (vec![call(IN_TEXT, 0), call(IN_INIT, 0)], 1),
        // PLT-5: the last one is not sorted to its likes and counts again.
        (vec![call(3, 0), call(4, 0), call(3, 0)], 3),
        (vec![call(3, 0), call(4, 0), call(3, 0), rela(0, 257, 3, 0), rela(0, 257, 3, 0)], 2),
    ] {
        assert_eq!(counted(table.clone(), "6.12.0", Cpu::default()), (want, 0), "PLT-8: {table:?}");
    }
    let mut without_kaslr = config("6.1.0");
    without_kaslr.randomize_base = false;
    let module = Module::new(vec![call(3, 0), call(4, 0)], vec![]);
    let old = frob_with(&module, &without_kaslr, Cpu::default());
    assert_eq!(
        (old.arch.tables[0].plt_max_entries, old.text),
        (0, None),
        "PLT-4, PLT-8: only with RANDOMIZE_BASE"
    );
}

#[test]
fn plt_9_and_10_erratum_raises_alignment_or_count() {
    for (offset, align) in
        [(0, 16), (8, 32), (0x18, 64), (0x3f8, 2048), (0x7f8, 4096), (0x7fc, 4096), (0x17f8, 4096)]
    {
        let module = Module::new(vec![rela(offset, ADRP, 3, 0)], vec![]);
        let hit = frob(&module, "6.12.0", HIT);
        assert_eq!(hit.sechdrs[TEXT].sh_addralign, align, "PLT-9: {offset:#x}");
        assert_eq!(hit.arch.tables[0].plt_max_entries, 0, "PLT-9: {offset:#x}");
        assert_eq!(frob(&module, "6.12.0", Cpu::default()).sechdrs[TEXT].sh_addralign, 16, "PLT-9");
    }
    for offset in [0xff8, 0xffc, 0x1ff8] {
        let table = vec![rela(offset, ADRP, 3, 0)];
        assert_eq!(counted(table.clone(), "6.12.0", HIT), (2, 0), "PLT-9, PLT-10: {offset:#x}");
        assert_eq!(counted(table, "6.12.0", Cpu::default()), (0, 0), "PLT-9: not without the erratum");
    }
    for (calls, want) in [(340, 341), (341, 342), (342, 344)] {
        let table = (0..calls).map(|n| rela(0, CALL26, 3, n + 1)).collect();
        assert_eq!(counted(table, "6.12.0", HIT), (want, 0), "PLT-10: {calls} slots");
    }
}

/// The three words of slot `n`.
fn slot(table: &ModPltSec, n: u64) -> [u32; 3] {
    [0, 4, 8].map(|at| u32::from_le_bytes(table.load(n * 12 + at)))
}

/// Where `adrp; add` at `pc` lead to, in the disassembler's words.
fn text(insn: u32) -> alloc::string::String {
    format!("{}", InstDecoder::default().decode(&mut U8Reader::new(&insn.to_le_bytes())).unwrap())
}

const AT: u64 = 0xffff_8000_7ab3_0000;

#[test]
fn plt_20_to_23_slots() {
    let mut arch = ModArch { tables: vec![ModPltSec::at(AT, 3)], ..ModArch::default() };
    let mut plts = Plts::of(&mut arch, false).unwrap();
    let target = AT + 0x1234_5678;
    assert_eq!(plts.module_emit_plt_entry(target), Ok(AT), "PLT-20");
    assert_eq!(plts.module_emit_plt_entry(target), Ok(AT), "PLT-20: the last slot does");
    assert_eq!(plts.module_emit_plt_entry(target + 4), Ok(AT + 12));
    assert_eq!(plts.module_emit_plt_entry(target), Ok(AT + 24), "PLT-23: only the last slot is looked at");
    assert_eq!(plts.module_emit_plt_entry(target), Ok(AT + 24), "PLT-15: the spare slot holds the candidate");
    assert_eq!(plts.module_emit_plt_entry(target + 8), Err(NoSlot::Full), "PLT-20");
    let table = &arch.tables[0];
    let words = slot(table, 0).map(text);
    assert_eq!(words, ["adrp x16, $+0x12345000", "add x16, x16, #0x678", "br x16"], "PLT-21");
    assert_eq!(slot(table, 2), slot(table, 0));
    let used = [(AT, target), (AT + 12, target + 4), (AT + 24, target)];
    assert_eq!(table.slots, used.map(|(address, target)| Slot { address, target }));
}

#[test]
fn plt_20_forbidden_slots_are_skipped() {
    for (cpu, want) in [(Cpu::default(), 1), (HIT, 2)] {
        let base = AT + 0xff8 - 12;
        let mut arch = ModArch { cpu, tables: vec![ModPltSec::at(base, 4)] };
        let mut plts = Plts::of(&mut arch, false).unwrap();
        assert_eq!(plts.module_emit_plt_entry(AT + 0x1000_0000), Ok(base));
        assert_eq!(plts.module_emit_plt_entry(AT + 0x2000_0000), Ok(base + 12 * want), "PLT-20: {cpu:?}");
        assert_eq!(arch.tables[0].plt_num_entries, want + 1, "PLT-20: a skipped slot counts: {cpu:?}");
        assert_eq!(slot(&arch.tables[0], 1) == [0; 3], want == 2, "PLT-20: and stays empty: {cpu:?}");
    }
    // PLT-22: the same target from another page is the same target.
    let base = AT + 0xff0 - 12;
    let mut arch = ModArch { tables: vec![ModPltSec::at(base, 4)], ..ModArch::default() };
    let mut plts = Plts::of(&mut arch, false).unwrap();
    for _ in 0..3 {
        assert_eq!(plts.module_emit_plt_entry(AT + 0x1000_0000), Ok(base), "PLT-22");
    }
    assert_eq!(plts.module_emit_plt_entry(AT + 0x2000_0000), Ok(base + 12));
    assert_eq!(
        plts.module_emit_plt_entry(AT + 0x2000_0000),
        Ok(base + 12),
        "PLT-22: slot 2 is on the next page"
    );
}

#[test]
fn plt_24_veneers() {
    let base = AT + 0xff8 - 12;
    let mut arch = ModArch { cpu: HIT, tables: vec![ModPltSec::at(base, 3)] };
    let mut plts = Plts::of(&mut arch, false).unwrap();
    let (place, target) = (AT + 0x8ff8, AT + 0x4000_0000);
    let veneer = |plts: &mut Plts<'_>| plts.module_emit_veneer_for_adrp(0x9000_0007, place, target);
    assert_eq!(veneer(&mut plts), Ok(base));
    assert_eq!(veneer(&mut plts), Ok(base + 24), "PLT-24: the forbidden slot is skipped");
    assert_eq!(veneer(&mut plts), Err(NoSlot::Full), "PLT-24");
    let words = slot(&arch.tables[0], 2).map(text);
    // The slot is at page offset 0x4 of the next page, its branch 8 behind.
    assert_eq!(
        words,
        ["adrp x7, $+0x3ffff000", "add x7, x7, #0x0", "b $+0x7ff0"],
        "PLT-24: back to place + 4"
    );
}

#[test]
fn plt_25_targets_out_of_reach() {
    let entry = |target: u64| {
        let mut arch = ModArch { tables: vec![ModPltSec::at(AT, 9)], ..ModArch::default() };
        Plts::of(&mut arch, false).unwrap().module_emit_plt_entry(target).unwrap();
        slot(&arch.tables[0], 0)
    };
    assert_eq!(text(entry(AT + 0xffff_f000)[0]), "adrp x16, $+0xfffff000", "PLT-25: last page");
    assert_eq!(text(entry(AT - (1 << 32))[0]), "adrp x16, $-0x100000000", "PLT-25: first page");
    assert_eq!(entry(AT + (1 << 32)), [BREAK_FAULT, 0x9100_0210, BR_X16], "PLT-25");
    assert_eq!(entry(AT - (1 << 32) - 1)[0], BREAK_FAULT, "PLT-25");
    assert_eq!(entry(AT + (1 << 44))[0], entry(AT)[0], "PLT-25: the kernel counts pages in 32 bits");

    // PLT-22: the kernel decodes an ADRP that is not there.
    let mut arch = ModArch { tables: vec![ModPltSec::at(AT + 0xff4, 9)], ..ModArch::default() };
    let mut plts = Plts::of(&mut arch, false).unwrap();
    assert!(plts.module_emit_plt_entry(AT + (1 << 40)).is_ok());
    assert_eq!(plts.module_emit_plt_entry(AT + (1 << 40)), Err(NoSlot::Bug), "PLT-22");
}

/// Loads a module whose undefined symbols all have the address `far`; the rest of the pipeline as it is.
fn load(
    module: &Module,
    release: &str,
    cpu: Cpu,
    far: u64,
    check: impl FnOnce(&LoadInfo<'_>, &ModArch, &[Vec<u8>], Findings),
) {
    let config = config(release);
    let bytes = module.bytes();
    let file = parse(&bytes, &config);
    let mut info = LoadInfo::rewrite_section_headers(&file, &config);
    let mut said = Findings::new();
    let mut arch = Aarch64.module_frob_arch_sections(&mut info, cpu, &mut said);
    let layout = layout_sections(&info, &mut said).unwrap();
    let placement = Placement::consecutive(&layout, AT);
    let memory = Box::new(HeapMemory::new(&layout));
    let mut module = move_module(info, layout, placement, memory);
    module.values = vec![far; SYMBOLS as usize];
    for (symbol, section) in [(IN_TEXT, TEXT), (IN_INIT, INIT_TEXT)] {
        module.values[symbol as usize] = module.info.sechdrs[section].sh_addr;
    }
    let nothing = |_: &[u8], _| Some(Err(Default::default()));
    apply_relocations(&Aarch64, &mut arch, &mut module, &nothing, &mut said);
    let section =
        |i| module.table(i).and_then(|t| module.read(t.address, t.size)).unwrap_or_default().to_vec();
    let contents: Vec<Vec<u8>> = (0..module.info.sechdrs.len()).map(section).collect();
    check(&module.info, &arch, &contents, said);
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn a64rel_30_33_and_35_calls_go_by_way_of_slots() {
    let calls = vec![
        rela(0, CALL26, 3, 0),
        rela(8, CALL26, 3, 0),
        rela(12, CALL26, 4, 4),
        rela(16, CALL26, IN_TEXT, 0),
    ];
    let module = Module::new(calls, vec![rela(4, CALL26, 3, 0)]);
    for release in ["6.1.0", "6.12.0"] {
        load(&module, release, Cpu::default(), AT + (1 << 30), |info, arch, contents, said| {
            assert_eq!(said.iter().count(), 0, "{release}");
            let distance = |from: usize, at: u64, to: usize, slot: u64| {
                let bytes = info.sechdrs[to].sh_addr + slot * 12 - (info.sechdrs[from].sh_addr + at);
                text(word(&contents[from], at as usize)) == format!("bl $+{bytes:#x}")
            };
            assert!(
                distance(TEXT, 0, PLT, 0) && distance(TEXT, 8, PLT, 0),
                "A64REL-33: one slot per target: {release}"
            );
            assert!(distance(TEXT, 12, PLT, 1), "A64REL-30: {release}");
            assert_eq!(text(word(&contents[TEXT], 16)), "bl $-0x10", "A64REL-30: near enough: {release}");
            assert!(distance(INIT_TEXT, 4, INIT_PLT, 0), "A64REL-35: {release}");
            assert_eq!((arch.tables[0].plt_num_entries, arch.tables[1].plt_num_entries), (2, 1));
            for (table, section) in [(&arch.tables[0], PLT), (&arch.tables[1], INIT_PLT)] {
                for n in 0..table.plt_num_entries {
                    let words = [0, 4, 8].map(|at| word(&contents[section], n as usize * 12 + at));
                    assert_eq!(words, slot(table, n), "slots reach memory: {release}");
                }
            }
        });
    }
    load(&module, "6.12.0", Cpu::default(), AT + (1 << 20), |_, arch, contents, _| {
        assert_eq!(
            (arch.tables[0].plt_num_entries, arch.tables[1].plt_num_entries),
            (0, 0),
            "A64REL-30: direct"
        );
        assert!(contents[PLT].iter().all(|b| *b == 0));
    });
    // A64REL-34: a weak symbol that nobody defines.
    load(&module, "6.12.0", Cpu::default(), 0, |_, arch, _, said| {
        assert_eq!((said.iter().count(), arch.tables[0].slots[0].target), (0, 0), "A64REL-34");
    });
}

#[test]
fn a64rel_22_veneer_in_place() {
    let mut module = Module::new(vec![rela(0xff8, ADRP, 3, 0x123)], vec![]);
    module.text[0xff8..0xffc].copy_from_slice(&0x9000_0007u32.to_le_bytes());
    load(&module, "6.12.0", HIT, AT + (1 << 30), |info, arch, contents, said| {
        assert_eq!(said.iter().count(), 0);
        let slot = arch.tables[0].slots[0];
        assert_eq!((slot.address, slot.target), (info.sechdrs[PLT].sh_addr, AT + (1 << 30)), "PLT-24");
        let place = info.sechdrs[TEXT].sh_addr + 0xff8;
        assert_eq!(
            text(word(&contents[TEXT], 0xff8)),
            format!("b $+{:#x}", slot.address - place),
            "A64REL-22"
        );
        assert_eq!(word(&contents[PLT], 0) & 31, 7, "A64REL-22: Rd of the instruction");
    });
}

#[test]
fn refusals_in_the_kernels_words() {
    let dmesg = |release: &str, record: Rela, far: u64| {
        let mut got = (Vec::new(), None, "");
        load(
            &Module::new(vec![record, rela(0, 257, 0, 0)], vec![]),
            release,
            Cpu::default(),
            far,
            |_, _, _, said| {
                let lines = said.dmesg().map(alloc::string::String::from).collect();
                got = (lines, said.errno(), said.iter().next().map_or("", |f| f.code));
            },
        );
        got
    };
    for (release, prefix) in [("6.1.0", ""), ("6.12.0", "Modules: ")] {
        let (lines, errno, code) = dmesg(release, rela(0, 314, 3, 0), AT);
        assert_eq!(lines, [format!("{prefix}module : unsupported RELA relocation: 314")], "A64REL-12");
        assert_eq!((errno, code), (Some(Errno::ENOEXEC), "A64REL-12"));
        let (lines, errno, code) = dmesg(release, rela(0, 258, 3, 0x10), 0x1_2345_6780);
        assert_eq!(
            lines,
            [format!("{prefix}module : overflow in relocation type 258 val 123456790")],
            "A64REL-7"
        );
        assert_eq!((errno, code), (Some(Errno::ENOEXEC), "A64REL-7"));
    }
    for (r_type, code) in [(262, "A64REL-8"), (263, "A64REL-11"), (280, "A64REL-3"), (ADRP, "A64REL-23")] {
        assert_eq!(dmesg("6.12.0", rela(0, r_type, 3, 0), 1 << 40).2, code);
    }
    // A64REL-32: a branch within its section that is too long has no slot.
    let (lines, errno, code) = dmesg("6.12.0", rela(0, CALL26, IN_TEXT, 1 << 28), AT);
    assert_eq!((lines.len(), errno, code), (0, Some(Errno::ENOEXEC), "A64REL-32"));
}

#[test]
fn overlapping_tables_are_not_applied() {
    let module = Module::new((0..2000).map(|n| rela(n, CALL26, 3, 0)).collect(), vec![]);
    let mut elf = Elf::new(module.bytes());
    // .rela.init.text becomes the same bytes as .rela.text.
    for field in [Sh::Offset, Sh::Size] {
        let value = elf.get(RELA_TEXT, field);
        elf.set(RELA_INIT, field, value);
    }
    let bytes = elf.bytes;
    let config = config("6.12.0");
    let file = parse(&bytes, &config);
    let mut info = LoadInfo::rewrite_section_headers(&file, &config);
    let mut said = Findings::new();
    let mut arch = Aarch64.module_frob_arch_sections(&mut info, Cpu::default(), &mut said);
    assert_eq!((info.reordered(RELA_TEXT), arch.tables[0].plt_max_entries), (None, 0));
    let layout = layout_sections(&info, &mut said).unwrap();
    let nothing = |_: &[u8], _| Some(Err(Default::default()));
    let memory = Box::new(HeapMemory::default());
    let mut module = move_module(info, layout, Placement::default(), memory);
    apply_relocations(&Aarch64, &mut arch, &mut module, &nothing, &mut said);
    assert_eq!(said.iter().map(|f| f.code).collect::<Vec<_>>(), ["RELOC-GEN-10"]);
    assert!(said.refused());
}
