#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use alloc::vec::Vec;

use super::*;
use crate::cpu::Exception;
use crate::kept::{Kept, Reader};
use crate::memory::{Access, Protection};
use crate::testing::random;

/// Where code lies, where data, where a program's memory, and the end of the stack.
const CODE: u64 = 0xffff_8000_8000_0000;
const DATA: u64 = 0xffff_0000_0000_0000;
const USER: u64 = 0x1000_0000;
const STACK: u64 = DATA + 8 * PAGE;

fn machine(code: &[u32]) -> (A64, Memory) {
    let mut memory = Memory::new(16 * PAGE);
    assert!(memory.map(DATA, 8 * PAGE, 0, Protection::DATA));
    assert!(memory.map(CODE, 4 * PAGE, 8 * PAGE, Protection::CODE));
    assert!(memory.map(USER, PAGE, 12 * PAGE, Protection::DATA));
    for (at, word) in (CODE..).step_by(4).zip(code) {
        memory.poke(at, &word.to_le_bytes()).unwrap();
    }
    let mut cpu = A64::default();
    cpu.set_pc(CODE);
    cpu.set_sp(STACK);
    (cpu, memory)
}

/// Runs at most `budget` instructions, up to the end of the code.
fn run(code: &[u32], budget: u64, prepare: impl FnOnce(&mut A64, &mut Memory)) -> (A64, Memory, Stop) {
    let (mut cpu, mut memory) = machine(code);
    prepare(&mut cpu, &mut memory);
    cpu.break_at(CODE + 4 * code.len() as u64);
    let stop = cpu.run(&mut memory, &mut { budget });
    (cpu, memory, stop)
}

#[test]
fn loops_run_and_count() {
    // mov x1, #1000; mov x0, #0; l: add x0, x0, x1; subs x1, x1, #1; b.ne l
    let code = [0xd280_7d01, 0xd280_0000, 0x8b01_0000, 0xf100_0421, 0x54ff_ffc1];
    let (cpu, _, stop) = run(&code, 10_000, |_, _| {});
    assert_eq!((stop, cpu.x(0), cpu.executed()), (Stop::Breakpoint, 500_500, 3002));
    for budget in [0, 1, 2, 3, 17, 3001] {
        let (cpu, _, stop) = run(&code, budget, |_, _| {});
        assert_eq!((stop, cpu.executed()), (Stop::Budget, budget), "budgets hold to the instruction");
    }
}

#[test]
fn conditions_hold_for_the_flags_that_they_name() {
    // cset x0, COND, of a comparison of two numbers
    type Row = (u32, fn(i64, i64) -> bool);
    let conditions: [Row; 10] = [
        (0, |a, b| a == b),
        (1, |a, b| a != b),
        (2, |a, b| a as u64 >= b as u64),
        (3, |a, b| (a as u64) < b as u64),
        (8, |a, b| a as u64 > b as u64),
        (9, |a, b| a as u64 <= b as u64),
        (10, |a, b| a >= b),
        (11, |a, b| a < b),
        (12, |a, b| a > b),
        (13, |a, b| a <= b),
    ];
    let values = [0, 1, -1, i64::MAX, i64::MIN, i64::MIN + 1, 5, 1 << 32];
    for (condition, holds) in conditions {
        for (a, b) in values.into_iter().flat_map(|a| values.map(|b| (a, b))) {
            // cmp x1, x2; csinc x0, xzr, xzr, not COND
            let code = [0xeb02_003f, 0x9a9f_07e0 | (condition ^ 1) << 12];
            let (cpu, ..) = run(&code, 9, |cpu, _| {
                cpu.set_x(1, a as u64);
                cpu.set_x(2, b as u64);
            });
            assert_eq!(cpu.x(0) != 0, holds(a, b), "{a} {b}, condition {condition}");
        }
    }
}

#[test]
fn calls_keep_the_way_back() {
    // bl +8; hlt; mov x0, #17; ret
    let code = [0x9400_0002, 0xd440_0000, 0xd280_0220, 0xd65f_03c0];
    let (cpu, _, stop) = run(&code, 100, |_, _| {});
    assert!(matches!(&stop, Stop::Unknown(what) if what == "d4400000, hlt"), "{stop}");
    assert_eq!((cpu.x(0), cpu.x(30), cpu.pc()), (17, CODE + 4, CODE + 4));
}

#[test]
fn a_fault_leaves_the_instruction_undone() {
    // str x1, [x0], #8
    let (cpu, _, stop) = run(&[0xf800_8401], 9, |cpu, _| cpu.set_x(0, CODE));
    let fault = Fault { address: CODE, access: Access::Write, mapped: true };
    assert_eq!((stop, cpu.pc(), cpu.x(0)), (Stop::Fault(fault), CODE, CODE));
    // stp x1, x2, [x0, #-16]!: the second register has no room
    let (cpu, memory, stop) = run(&[0xa9bf_0801], 9, |cpu, _| {
        cpu.set_x(0, STACK + 8);
        cpu.set_x(1, 7);
    });
    assert!(matches!(stop, Stop::Fault(Fault { address: STACK, .. })), "{stop}");
    assert_eq!((cpu.x(0), memory.u64(STACK - 8).unwrap()), (STACK + 8, 0));
    // br x0, to data, and to no instruction
    let (cpu, _, stop) = run(&[0xd61f_0000], 9, |cpu, _| cpu.set_x(0, DATA + 4));
    let fault = Fault { address: DATA + 4, access: Access::Execute, mapped: true };
    assert_eq!((stop, cpu.pc()), (Stop::Fault(fault), DATA + 4));
    let (.., stop) = run(&[0xd61f_0000], 9, |cpu, _| cpu.set_x(0, CODE + 2));
    assert_eq!(stop, Stop::Exception(Exception::Alignment));
}

#[test]
fn the_top_byte_of_an_address_is_ignored() {
    // ldr x1, [x0]
    for tag in [0, 0x7f, 0xff] {
        let (cpu, ..) = run(&[0xf940_0001], 1, |cpu, memory| {
            memory.write(DATA, &7u64.to_le_bytes()).unwrap();
            cpu.set_x(0, DATA << 8 >> 8 | tag << 56);
        });
        assert_eq!(cpu.x(1), 7);
    }
    // Bit 55 says to which half it belongs.
    let (.., stop) = run(&[0xf940_0001], 1, |cpu, _| cpu.set_x(0, DATA ^ 1 << 55));
    assert!(matches!(stop, Stop::Fault(Fault { mapped: false, .. })), "{stop}");
}

#[test]
fn programs_have_no_part_of_the_kernels_memory() {
    // ldtr x1, [x0]; sttr x1, [x0]
    for (code, access) in [(0xf840_0801, Access::Read), (0xf800_0801, Access::Write)] {
        let (.., stop) = run(&[code], 9, |cpu, _| cpu.set_x(0, DATA));
        assert_eq!(stop, Stop::Fault(Fault { address: DATA, access, mapped: true }));
        let (.., stop) = run(&[code], 9, |cpu, _| cpu.set_x(0, USER));
        assert_eq!(stop, Stop::Breakpoint);
    }
}

#[test]
fn exclusive_stores_need_the_load_before_them() {
    // ldxr x1, [x0]; add x1, x1, #1; stxr w2, x1, [x0]; stxr w3, x1, [x0]
    let code = [0xc85f_7c01, 0x9100_0421, 0xc802_7c01, 0xc803_7c01];
    let (cpu, memory, _) = run(&code, 9, |cpu, _| cpu.set_x(0, DATA));
    assert_eq!((memory.u64(DATA).unwrap(), cpu.x(2), cpu.x(3)), (1, 0, 1));
    // clrex between them
    let code = [0xc85f_7c01, 0xd503_3f5f, 0xc802_7c01];
    let (cpu, ..) = run(&code, 9, |cpu, _| cpu.set_x(0, DATA));
    assert_eq!(cpu.x(2), 1);
    let (.., stop) = run(&code, 9, |cpu, _| cpu.set_x(0, DATA + 4));
    assert_eq!(stop, Stop::Exception(Exception::Alignment));
}

#[test]
fn system_registers_hold_what_is_written() {
    // msr tpidr_el1, x0; mrs x1, tpidr_el1; msr daifset, #2; mrs x2, daif; mrs x3, id_aa64pfr0_el1; mrs x4, currentel
    let code = [0xd518_d080, 0xd538_d081, 0xd503_42df, 0xd53b_4222, 0xd538_0403, 0xd538_4244];
    let (cpu, _, stop) = run(&code, 9, |cpu, _| cpu.set_x(0, 77));
    assert_eq!((stop, cpu.x(1), cpu.tpidr_el1()), (Stop::Breakpoint, 77, 77));
    assert_eq!((cpu.x(2) & 0x80, cpu.x(3), cpu.x(4)), (0x80, 0x1300_0000_0000_0011, 4));
    // dc zva, x0
    let (_, memory, _) = run(&[0xd50b_7420], 9, |cpu, memory| {
        memory.write(DATA, &[1; 128]).unwrap();
        cpu.set_x(0, DATA + 0x47);
    });
    let bytes = memory.bytes(DATA, 128).unwrap();
    assert_eq!(bytes.iter().position(|byte| *byte == 0), Some(64));
}

#[test]
fn vectors_are_registers_like_others() {
    // ld1 {v0.16b-v1.16b}, [x0], #32; st1 {v0.16b-v1.16b}, [x1]
    let code = [0x4cdf_a000, 0x4c00_a020];
    let (mut cpu, memory, stop) = run(&code, 9, |cpu, memory| {
        memory.write(DATA, &[7; 32]).unwrap();
        cpu.set_x(0, DATA);
        // The last page that there is.
        cpu.set_x(1, DATA + 8 * PAGE - 16);
    });
    assert!(matches!(stop, Stop::Fault(fault) if fault.access == Access::Write), "{stop}");
    assert_eq!((cpu.x(0), cpu.vector(1)), (DATA + 32, u128::from_le_bytes([7; 16])));
    let last = memory.bytes(DATA + 8 * PAGE - 16, 16).unwrap();
    assert_eq!(last, [0; 16], "a store that faults has stored nothing");
    let mut kept = Vec::new();
    cpu.registers().keep(&mut kept);
    cpu.set_vector(1, 0);
    let taken = State::take_up(&mut Reader::new(kept.into())).unwrap();
    cpu.set_registers(&taken);
    assert_eq!(cpu.vector(1), u128::from_le_bytes([7; 16]), "kept with the others");
}

#[test]
fn what_is_not_known_is_named() {
    for (code, what) in [
        (0x1e60_2820, "1e602820, floating-point or vector instruction"),
        (0xd400_0002, "d4000002, hvc"),
        (0xd400_0001, "d4000001, svc"),
        (0xd69f_03e0, "d69f03e0, eret"),
        (0xd538_fff0, "d538fff0, system instruction"),
        (0x0420_0000, "04200000, SVE instruction"),
        (0x1900_0400, "19000400, load or store"),
    ] {
        let (cpu, _, stop) = run(&[code], 9, |_, _| {});
        assert!(matches!(&stop, Stop::Unknown(is) if is == what), "{stop}");
        assert_eq!(cpu.pc(), CODE);
    }
    for (code, exception) in
        [(0, Exception::Undefined), (0xd421_0000, Exception::Trap(0x800)), (0xd503_207f, Exception::Halt)]
    {
        assert_eq!(run(&[code], 9, |_, _| {}).2, Stop::Exception(exception));
    }
}

#[test]
fn code_that_is_written_is_decoded_again() {
    // str w1, [x0] writes over the hlt behind the branch: str; b +4; hlt
    let code = [0xb900_0001, 0x1400_0001, 0xd440_0000];
    let (mut cpu, mut memory) = machine(&code);
    memory.protect(CODE, CODE + PAGE, Protection::ALL);
    cpu.set_x(0, CODE + 8);
    cpu.set_x(1, 0xd503_201f);
    for stop in [8, 12] {
        cpu.break_at(CODE + stop);
        assert_eq!(cpu.run(&mut memory, &mut 100), Stop::Breakpoint);
        assert_eq!(cpu.pc(), CODE + stop);
    }
}

#[test]
fn a_fence_stops_whoever_comes_from_another_page() {
    // bl to the next page; hlt; there: mov x0, #1; ret
    let mut code = [0xd440_0000; 0x402];
    code[0] = 0x9400_0400;
    (code[0x400], code[0x401]) = (0xd280_0020, 0xd65f_03c0);
    let (mut cpu, mut memory) = machine(&code);
    for round in 0..3 {
        cpu.set_pc(CODE);
        // From the second round on what is behind the fence has been decoded.
        assert!(cpu.fence(if round == 1 { &[] } else { &[(CODE + PAGE, CODE + PAGE + 8)] }));
        let stop = cpu.run(&mut memory, &mut 100);
        if round == 1 {
            assert!(matches!(stop, Stop::Unknown(_)), "there is none now: {stop}");
            continue;
        }
        assert_eq!((stop, cpu.pc()), (Stop::Breakpoint, CODE + PAGE));
        assert_eq!((cpu.run(&mut memory, &mut 1), cpu.pc()), (Stop::Budget, CODE + PAGE + 4), "and goes on");
        assert_eq!((cpu.run(&mut memory, &mut 1), cpu.pc()), (Stop::Budget, CODE + 4));
    }
}

#[test]
fn functions_are_entered_with_arguments_and_left_with_a_value() {
    let (mut cpu, mut memory) = machine(&[0xd65f_03c0]);
    let arguments: Vec<u64> = (10..20).collect();
    let before = cpu.registers();
    let call = Call { function: CODE, arguments: &arguments, sp: STACK - 0x108, returns_to: CODE + 4 };
    let after = cpu.enter(&mut memory, &call).unwrap();
    assert_eq!(after % 16, 0);
    for (number, value) in arguments.iter().enumerate() {
        assert_eq!(cpu.argument(&memory, number).unwrap(), *value);
    }
    assert_eq!(cpu.return_address(&memory).unwrap(), CODE + 4);
    cpu.return_with(&mut memory, 5).unwrap();
    assert_eq!((cpu.pc(), cpu.sp(), cpu.returned()), (CODE + 4, after, 5));
    cpu.leave(&before);
    assert_eq!(
        (cpu.sp(), cpu.x(30), cpu.returned()),
        (STACK, 0, 5),
        "the way back of who was interrupted is kept"
    );
}

#[test]
fn random_code_ends_within_its_budget() {
    let mut seed = 0x1234_5678_9abc_def1;
    let rounds = std::env::var("KMODLD_RANDOM_CODE").ok().and_then(|n| n.parse().ok()).unwrap_or(200u32);
    let mut executed = 0;
    for _ in 0..rounds {
        // Most of the words are of groups that are interpreted.
        let code: Vec<u32> = (0..0x400)
            .map(|_| {
                let word = random(&mut seed) as u32;
                let groups = [8, 9, 10, 11, 4, 12, 5, 13, 6, 14, 7, 15];
                let group = groups[random(&mut seed) as usize % groups.len()];
                if random(&mut seed) & 7 == 0 { word } else { word & !(15 << 25) | group << 25 }
            })
            .collect();
        let (mut cpu, mut memory) = machine(&code);
        memory.protect(CODE, CODE + 4 * PAGE, Protection::ALL);
        for _ in 0..200 {
            for register in 0..31 {
                let value = match random(&mut seed) & 3 {
                    0 => DATA + (random(&mut seed) & 0x7fff),
                    1 => CODE + (random(&mut seed) & 0xffc),
                    2 => random(&mut seed) & 0xff,
                    _ => random(&mut seed),
                };
                cpu.set_x(register, value);
            }
            cpu.set_pc(CODE + (random(&mut seed) & 0xffc));
            let before = cpu.executed();
            let mut budget = 10_000;
            cpu.run(&mut memory, &mut budget);
            let made = cpu.executed() - before;
            assert_eq!(made + budget, 10_000);
            executed += made;
        }
    }
    std::println!("{executed} instructions of random code");
    assert!(executed > u64::from(rounds) * 200, "{executed} instructions only");
}
