//! Every relocation type at every boundary, read back with an independent disassembler.

use alloc::vec;
use alloc::vec::Vec;

use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::{InstDecoder, Instruction, Opcode, Operand};

use elf_layout::{Changes, KernelConfig, KernelVersion};

use super::*;
use crate::Architecture;
use crate::Cpu;
use crate::aarch64::area::module_area;
use crate::aarch64::cpu::workaround_843419;
use crate::aarch64::{Aarch64, ERRATUM_843419};
use crate::mod_arch::ModPltSec;
use crate::testing::TestKernel;

const PLACE: u64 = 0xffff_8000_7ab3_1000;
const CALL26: u32 = 283;
const ADRP: u32 = 275;
const ADRP_NC: u32 = 276;

/// One record on a machine with or without the erratum, with no slots at all.
fn run_at(r_type: u32, before: u64, value: u64, place: u64, cpu: Cpu) -> (Result<Applied, Refusal>, u64) {
    let mut arch = ModArch { cpu, tables: vec![ModPltSec::at(PLACE + 0x8000, 0)] };
    let mut memory = [0xaa; 24];
    // Not aligned: the kernel does not ask for it (A64REL-8).
    memory[9..17].copy_from_slice(&before.to_le_bytes());
    let result = apply_one(&mut memory, 9, r_type, value, place, &mut Plts::of(&mut arch, false).unwrap());
    assert_eq!(
        (&memory[..9], &memory[17..]),
        (&[0xaa; 9][..], &[0xaa; 7][..]),
        "type {r_type} wrote elsewhere"
    );
    (result, u64::from_le_bytes(memory[9..17].try_into().unwrap()))
}

fn run(r_type: u32, before: u32, value: u64) -> (Result<Applied, Refusal>, u32) {
    let guard = 0x5555_5555 << 32;
    let (result, after) = run_at(r_type, u64::from(before) | guard, value, PLACE, Cpu::default());
    assert_eq!(after & guard, guard, "type {r_type} wrote more than an instruction");
    (result, after as u32)
}

fn disassemble(insn: u32) -> Instruction {
    InstDecoder::default().decode(&mut U8Reader::new(&insn.to_le_bytes())).unwrap()
}

/// The immediate that the disassembler reads.
fn immediate(insn: u32) -> i64 {
    let operands = disassemble(insn).operands;
    let found = operands.iter().rev().find_map(|operand| match *operand {
        Operand::PCOffset(offset) => Some(offset),
        Operand::RegPreIndex(_, offset, _) => Some(offset.into()),
        Operand::Immediate(value) => Some(value.into()),
        Operand::ImmShift(value, _) => Some(value.into()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{insn:#x} has no immediate: {operands:?}"))
}

#[test]
fn a64rel_1_to_4_pc_relative_immediates() {
    // (type, instruction with an empty field, the field's bits, bits of a byte distance, alignment)
    const TYPES: [(u32, u32, u32, u32, i64); 8] = [
        (273, 0x5800_0003, 0x00ff_ffe0, 21, 4),
        (274, 0x1000_0003, 0x60ff_ffe0, 21, 1),
        (275, 0x9000_0003, 0x60ff_ffe0, 33, 4096),
        (276, 0x9000_0003, 0x60ff_ffe0, 33, 4096),
        (279, 0x3620_0003, 0x0007_ffe0, 16, 4),
        (280, 0x5400_0003, 0x00ff_ffe0, 21, 4),
        (282, 0x1400_0000, 0x03ff_ffff, 28, 4),
        (283, 0x9400_0000, 0x03ff_ffff, 28, 4),
    ];
    for (r_type, insn, mask, bits, align) in TYPES {
        let (min, max) = (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - align);
        for wanted in [min - align, min, -align, 0, align, max, max + align, i64::MIN, i64::MAX - align + 1] {
            let value = PLACE.wrapping_add_signed(wanted);
            let what = format!("type {r_type} distance {wanted:#x}");
            let fits = (min..=max).contains(&wanted);
            // A64REL-2, A64REL-5: what was in the field does not matter.
            for before in [insn, insn | mask] {
                let (result, after) = run(r_type, before, value);
                assert_eq!(after & !mask, insn, "spec 5.2: other bits stay: {what}");
                if fits {
                    assert_eq!(result, Ok(Applied::Whole), "A64REL-3: {what}");
                    assert_eq!(immediate(after), wanted, "A64REL-1: {what}");
                } else {
                    let refusal = match r_type {
                        276 => Ok(Applied::Whole),
                        282 | 283 => Err(Refusal::Branch(NoSlot::Full)),
                        _ => Err(Refusal::Overflow(value)),
                    };
                    assert_eq!(result, refusal, "A64REL-3, A64REL-23, A64REL-31: {what}");
                    let cut = wanted << (64 - bits) >> (64 - bits);
                    assert_eq!(immediate(after), cut, "A64REL-2: written before the check: {what}");
                }
            }
            if fits && align > 1 {
                let (result, after) = run(r_type, insn, value + 1);
                let noticed = if align == 4096 { Applied::Whole } else { Applied::Unaligned };
                assert_eq!((result, immediate(after)), (Ok(noticed), wanted), "A64REL-4: {what} + 1");
            }
        }
    }
}

#[test]
fn a64rel_5_low_12_bits() {
    const TYPES: [(u32, u32, u64); 6] = [
        (277, 0x9100_0041, 1),
        (278, 0x3940_0041, 1),
        (284, 0x7940_0041, 2),
        (285, 0xb940_0041, 4),
        (286, 0xf940_0041, 8),
        (299, 0x3dc0_0041, 16),
    ];
    for (r_type, insn, align) in TYPES {
        for value in [0, 1, 0x458, 0xff0, 0xfff, 0x1000, PLACE | 0xff0, u64::MAX, 1 << 63] {
            let (result, after) = run(r_type, insn | 0x3f_fc00, value);
            let what = format!("type {r_type} value {value:#x}");
            let dropped = value % align != 0;
            assert_eq!(
                result,
                Ok(if dropped { Applied::Unaligned } else { Applied::Whole }),
                "A64REL-4: {what}"
            );
            assert_eq!(after & !0x3f_fc00, insn, "{what}");
            assert_eq!(immediate(after) as u64, value & 0xfff & !(align - 1), "A64REL-5: {what}");
        }
    }
}

#[test]
fn a64rel_9_to_11_movw() {
    // (type, lowest bit, sign decides the opcode, relative, checked)
    const TYPES: [(u32, u32, bool, bool, bool); 17] = [
        (263, 0, false, false, true),
        (264, 0, false, false, false),
        (265, 16, false, false, true),
        (266, 16, false, false, false),
        (267, 32, false, false, true),
        (268, 32, false, false, false),
        (269, 48, false, false, false),
        (270, 0, true, false, true),
        (271, 16, true, false, true),
        (272, 32, true, false, true),
        (287, 0, true, true, true),
        (288, 0, false, true, false),
        (289, 16, true, true, true),
        (290, 16, false, true, false),
        (291, 32, true, true, true),
        (292, 32, false, true, false),
        (293, 48, true, true, false),
    ];
    for (r_type, lsb, signed, relative, checked) in TYPES {
        for units in [-0x1_0001i64, -0x1_0000, -0xffff, -1, 0, 1, 0x7fff, 0x8000, 0xffff, 0x1_0000] {
            // The bits below the lowest one are dropped by design.
            let wanted = units.wrapping_shl(lsb) | (1i64 << lsb).wrapping_sub(1);
            let units = wanted >> lsb;
            let value = if relative { PLACE.wrapping_add_signed(wanted) } else { wanted as u64 };
            let what = format!("type {r_type} value {wanted:#x}");
            // movk, or movn to be turned into movz, in both cases with a full field
            let (result, after) = run(r_type, if signed { 0x929f_ffe5 } else { 0xf29f_ffe5 }, value);
            let (opcode, imm) = match (signed, wanted < 0) {
                (false, _) => (Opcode::MOVK, units),
                (true, false) => (Opcode::MOVZ, units),
                (true, true) => (Opcode::MOVN, !units),
            };
            let fits = (0..=0xffff).contains(&imm);
            let want = if fits || !checked { Ok(Applied::Whole) } else { Err(Refusal::Overflow(value)) };
            assert_eq!(result, want, "A64REL-11: {what}");
            assert_eq!(disassemble(after).opcode, opcode, "A64REL-10: {what}");
            assert_eq!(immediate(after), imm & 0xffff, "A64REL-9: {what}");
            assert_eq!(after & 31, 5, "{what}");
        }
    }
}

#[test]
fn a64rel_6_to_8_data() {
    // (type, bytes, relative, lowest and highest value that fits)
    const TYPES: [(u32, usize, bool, i64, i64); 6] = [
        (257, 8, false, i64::MIN, i64::MAX),
        (258, 4, false, 0, u32::MAX as i64),
        (259, 2, false, 0, u16::MAX as i64),
        (260, 8, true, i64::MIN, i64::MAX),
        (261, 4, true, i32::MIN as i64, i32::MAX as i64),
        (262, 2, true, i16::MIN as i64, i16::MAX as i64),
    ];
    for (r_type, bytes, relative, min, max) in TYPES {
        for wanted in [min.wrapping_sub(1), min, -1, 0, 1, max, max.wrapping_add(1), i64::MIN, i64::MAX] {
            let value = if relative { PLACE.wrapping_add_signed(wanted) } else { wanted as u64 };
            let before = 0x5a5a_5a5a_5a5a_5a5a;
            let (result, after) = run_at(r_type, before, value, PLACE, Cpu::default());
            let fits = (min..=max).contains(&wanted);
            let want = if fits { Ok(Applied::Whole) } else { Err(Refusal::Overflow(value)) };
            assert_eq!(result, want, "A64REL-6 to A64REL-8: type {r_type} value {wanted:#x}");
            let mut stored = before.to_le_bytes();
            stored[..bytes].copy_from_slice(&wanted.to_le_bytes()[..bytes]);
            assert_eq!(
                after.to_le_bytes(),
                stored,
                "type {r_type} value {wanted:#x}: stored cut, whatever was there"
            );
        }
    }
}

#[test]
fn a64rel_12_types_that_the_kernel_does_not_know() {
    let known: Vec<u32> = [0].into_iter().chain(256..=280).chain(282..=293).chain([299]).collect();
    for r_type in 0..=1100 {
        let (result, after) = run_at(r_type, 0x1400_0000, PLACE, PLACE, Cpu::default());
        assert_eq!(result == Err(Refusal::UnknownType), !known.contains(&r_type), "spec 5.4: type {r_type}");
        assert!(result != Err(Refusal::UnknownType) || after == 0x1400_0000, "type {r_type} wrote");
    }
    let mut arch = ModArch::new(Cpu::default(), 2);
    for r_type in [0, 256] {
        let result = apply_one(&mut [], 99, r_type, 1, PLACE, &mut Plts::of(&mut arch, false).unwrap());
        assert_eq!(result, Ok(Applied::Whole), "NONE looks at nothing, not even at its place");
    }
}

#[test]
fn reloc_gen_11_places_outside() {
    let mut arch = ModArch::new(Cpu::default(), 2);
    for (r_type, bytes) in [(257, 8), (258, 4), (259, 2), (264, 4), (ADRP, 4), (CALL26, 4), (286, 4)] {
        let mut memory = [0u8; 16];
        for offset in [17 - bytes, 16, u64::MAX, u64::MAX - 3] {
            let result =
                apply_one(&mut memory, offset, r_type, 1, PLACE, &mut Plts::of(&mut arch, false).unwrap());
            assert_eq!(result, Err(Refusal::OutOfBounds), "RELOC-GEN-11: type {r_type} at {offset:#x}");
        }
        assert_eq!(memory, [0; 16]);
    }
}

#[test]
fn vectors_of_spec_5_7() {
    let page = |offset: u64| 0xffff_8000_0000_0000 + offset;
    let cpu = Cpu::default();
    let insn = |r_type, before, value, place| run_at(r_type, before, value, place, cpu).1;
    assert_eq!(insn(ADRP, 0x9000_0000, page(0x3456), page(0x1000)), 0xd000_0000);
    assert_eq!(insn(277, 0x9100_0000, page(0x3456), page(0x1004)), 0x9111_5800);
    assert_eq!(insn(286, 0xf940_0000, page(0x3458), page(0x1004)), 0xf940_0000 | 0x8b << 10);
    assert_eq!(insn(CALL26, 0x9400_0000, page(0x1008), page(0x1004)), 0x9400_0001);
    // An instruction that a generator has failed on stays so.
    assert_eq!(insn(CALL26, 0xd420_2000, page(0x1008), page(0x1004)), 0xd420_2000);
}

#[test]
fn a64rel_20_to_22_erratum_843419() {
    let hit = ERRATUM_843419;
    let near = PLACE + 0xf_f123;
    let far = PLACE + 0x100_0123;
    for r_type in [ADRP, ADRP_NC] {
        for offset in [0xff4, 0xff8, 0xffc, 0x1000] {
            let place = PLACE + offset;
            let forbidden = offset & 0xff8 == 0xff8;
            let what = format!("type {r_type} at page offset {offset:#x}");
            for (cpu, forbidden) in [(Cpu::default(), false), (hit, forbidden)] {
                let (result, after) = run_at(r_type, 0x9000_0007, near, place, cpu);
                let insn = disassemble(after as u32);
                let (opcode, from) =
                    if forbidden { (Opcode::ADR, place) } else { (Opcode::ADRP, page(place)) };
                assert_eq!(
                    (result, insn.opcode),
                    (Ok(Applied::Whole), opcode),
                    "A64REL-20, A64REL-21: {what}"
                );
                assert_eq!(
                    from.wrapping_add_signed(immediate(after as u32)),
                    page(near),
                    "A64REL-21: {what}"
                );
                assert_eq!(after & 31, 7, "{what}");
            }
            // There is no slot for a veneer.
            let want = if forbidden { Err(Refusal::Veneer(NoSlot::Full)) } else { Ok(Applied::Whole) };
            assert_eq!(run_at(r_type, 0x9000_0007, far, place, hit).0, want, "A64REL-22: {what}");
        }
    }
}

#[test]
fn layout_52_module_area() {
    let of = |minor, symbols: &[(&str, u64)]| {
        module_area(Changes::of(KernelVersion::new(6, minor, 0)), &|name| {
            symbols.iter().find(|s| s.0 == name).map(|s| s.1)
        })
    };
    let image = [
        ("_stext", 0xffff_8000_8001_0000),
        ("_etext", 0xffff_8000_80f5_0000),
        ("_end", 0xffff_8000_82b3_0000),
    ];
    let debian = of(12, &image);
    assert_eq!(debian.direct, (0xffff_8000_7ab3_0000, 0xffff_8000_8001_0000), "LAYOUT-52: Debian 6.12");
    assert_eq!(debian.fallback.map(|f| f.0), Some(0xffff_8000_02b3_0000), "LAYOUT-52: Debian 6.12");
    let image = [("_stext", 0xffff_8000_0801_0000), ("_etext", 0xffff_8000_08d0_0000)];
    assert_eq!(of(1, &image).direct, (0xffff_8000_00d0_0000, 0xffff_8000_0801_0000), "LAYOUT-52: Debian 6.1");
    assert_eq!(of(12, &[]).direct, (0xffff_8000_7800_0000, 0xffff_8000_8000_0000), "symbols unknown");
    assert_eq!(of(1, &[]).direct, (0xffff_8000_0000_0000, 0xffff_8000_0800_0000), "symbols unknown");
    let image = [("_stext", 0xffff_8000_8001_0000), ("_end", 0xffff_8000_8901_0000)];
    assert_eq!(of(12, &image).direct.0, 0xffff_8000_0901_0000, "LAYOUT-52: an image of more than 128 MiB");
}

#[test]
fn capability_of_erratum_843419() {
    // As measured on a Cortex-A53 and on a Cortex-A72.
    for (version, words, want) in [
        ((6, 1, 192), [0x00c0_0080_0000_421b, 0x0], Some(true)),
        ((6, 1, 0), [0x2003_c080_0000_421b, 0x0002_0000], Some(false)),
        ((6, 12, 117), [0x0020_0000_0200_421b, 0xc0], Some(true)),
        ((6, 12, 117), [0xc020_0000_0200_421b, 0x0004_0000_2003], Some(false)),
        ((6, 1, 20), [u64::MAX; 2], None),
        ((6, 6, 50), [u64::MAX; 2], None),
    ] {
        let (major, minor, patch) = version;
        let version = KernelVersion::new(major, minor, patch);
        let has = |number: u32| words[number as usize / 64] >> (number % 64) & 1 != 0;
        let silent = TestKernel::default();
        assert_eq!(workaround_843419(Changes::of(version), &silent).map(has), want, "{version:?}");
        let capabilities = (0..128).map(|number| (number, has(number))).collect();
        let kernel = TestKernel { capabilities, ..TestKernel::default() };
        let cpu = Aarch64.cpu(&KernelConfig::new(version), &kernel);
        assert_eq!(cpu == ERRATUM_843419, want == Some(true), "{version:?}");
    }
}

/// PLT-26: the kernel's table of errata tells the number, whatever the release.
#[test]
fn plt_26_the_table_of_errata_numbers_them() {
    const TABLE: u64 = 0xffff_8000_8100_0000;
    const TEXTS: u64 = 0xffff_8000_8200_0000;
    let member = |offset, size| kernel::Member { offset, size };
    let mut entries = vec![0u8; 4 * 32];
    let texts = b"ARM erratum 845719\0ARM erratum 843419\0".to_vec();
    for (n, (text, number)) in [(0, 70u16), (0, 71), (19, 79)].into_iter().enumerate() {
        entries[32 * n..][..8].copy_from_slice(&(TEXTS + text).to_le_bytes());
        entries[32 * n + 8..][..2].copy_from_slice(&number.to_le_bytes());
    }
    let types = [
        ("arm64_cpu_capabilities".into(), member(0, 32)),
        ("arm64_cpu_capabilities.desc".into(), member(0, 8)),
        ("arm64_cpu_capabilities.capability".into(), member(8, 2)),
    ];
    let kernel = TestKernel {
        symbols: [("arm64_errata", TABLE)].into(),
        memory: vec![(TABLE, entries), (TEXTS, texts)],
        types: types.into(),
        capabilities: [(70, true), (79, false)].into(),
        ..TestKernel::default()
    };
    let changes = Changes::of(KernelVersion::new(6, 12, 117));
    assert_eq!(workaround_843419(changes, &kernel), Some(79), "PLT-26: not the number of the release");
    let mut other = TestKernel { capabilities: [(70, false), (79, true)].into(), ..kernel };
    let config = KernelConfig::new(KernelVersion::new(7, 3, 4));
    assert_eq!(Aarch64.cpu(&config, &other), ERRATUM_843419, "PLT-26");
    other.memory.pop();
    assert_eq!(Aarch64.cpu(&config, &other), crate::Cpu::default(), "PLT-26: no texts");
}

#[test]
fn an_erratum_is_named() {
    let config = KernelConfig::new(KernelVersion::new(6, 6, 50));
    let cpu =
        |name: &str| Aarch64.cpu(&config, &TestKernel { errata: vec![name.into()], ..TestKernel::default() });
    assert_eq!((cpu("843419"), cpu("1")), (ERRATUM_843419, Cpu::default()), "PLT-9");
}
