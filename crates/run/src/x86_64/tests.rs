#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use alloc::vec::Vec;

use super::execute::RBX;
use super::*;
use crate::cpu::Exception;
use crate::memory::{Access, PAGE, Protection};
use crate::testing::random;

/// Where code lies, where data, and the end of the stack.
const CODE: u64 = 0xffff_ffff_8100_0000;
const DATA: u64 = 0xffff_8880_0000_0000;
const STACK: u64 = DATA + 8 * PAGE;

fn machine(code: &[u8]) -> (X86, Memory) {
    let mut memory = Memory::new(16 * PAGE);
    assert!(memory.map(DATA, 8 * PAGE, 0, Protection::DATA));
    assert!(memory.map(CODE, 4 * PAGE, 8 * PAGE, Protection::CODE));
    memory.poke(CODE, code).unwrap();
    let mut cpu = X86::default();
    cpu.set_pc(CODE);
    cpu.set_sp(STACK);
    (cpu, memory)
}

/// Runs at most `budget` instructions, up to the end of the code.
fn run(code: &[u8], budget: u64, prepare: impl FnOnce(&mut X86, &mut Memory)) -> (X86, Memory, Stop) {
    let (mut cpu, mut memory) = machine(code);
    prepare(&mut cpu, &mut memory);
    cpu.break_at(CODE + code.len() as u64);
    let stop = cpu.run(&mut memory, &mut { budget });
    (cpu, memory, stop)
}

#[test]
fn loops_run_and_count() {
    // mov ecx, 1000; xor eax, eax; l: add rax, rcx; dec rcx; jnz l
    let code = [0xb9, 0xe8, 3, 0, 0, 0x31, 0xc0, 0x48, 1, 0xc8, 0x48, 0xff, 0xc9, 0x75, 0xf8];
    let (cpu, _, stop) = run(&code, 10_000, |_, _| {});
    assert_eq!((stop, cpu.gpr(Gpr(RAX)), cpu.executed()), (Stop::Breakpoint, 500_500, 3002));
    for budget in [0, 1, 2, 3, 17, 3001] {
        let (cpu, _, stop) = run(&code, budget, |_, _| {});
        assert_eq!((stop, cpu.executed()), (Stop::Budget, budget), "budgets hold to the instruction");
    }
}

#[test]
fn a_fence_stops_whoever_comes_from_outside() {
    // call +1; hlt; mov al, 1; ret
    let code = [0xe8, 1, 0, 0, 0, 0xf4, 0xb0, 1, 0xc3];
    let (mut cpu, mut memory) = machine(&code);
    for round in 0..3 {
        cpu.set_pc(CODE);
        // From the second round on what is behind the fence has been decoded.
        assert!(cpu.fence(if round == 1 { &[] } else { &[(CODE + 6, CODE + 9)] }));
        let stop = cpu.run(&mut memory, &mut 100);
        if round == 1 {
            assert_eq!(stop, Stop::Exception(Exception::Halt), "there is none now");
            continue;
        }
        assert_eq!((stop, cpu.pc()), (Stop::Breakpoint, CODE + 6));
        assert_eq!(
            (cpu.run(&mut memory, &mut 1), cpu.pc()),
            (Stop::Budget, CODE + 8),
            "and goes on from there"
        );
        assert_eq!(cpu.run(&mut memory, &mut 1), Stop::Budget);
        assert_eq!(cpu.pc(), CODE + 5);
    }
}

#[test]
fn calls_return_and_push_what_they_should() {
    // call +1; hlt; push 0x11; pop rax; ret
    let code = [0xe8, 1, 0, 0, 0, 0xf4, 0x6a, 0x11, 0x58, 0xc3];
    let (cpu, _, stop) = run(&code, 100, |_, _| {});
    assert_eq!(stop, Stop::Exception(Exception::Halt));
    assert_eq!((cpu.gpr(Gpr(RAX)), cpu.sp(), cpu.pc()), (0x11, STACK, CODE + 5));
}

#[test]
fn a_fault_leaves_the_instruction_undone() {
    // add [rdi], eax
    let code = [1, 7];
    let (cpu, _, stop) = run(&code, 9, |cpu, _| {
        cpu.set_gpr(Gpr(RDI), CODE);
        cpu.set_gpr(Gpr(RAX), 1);
        cpu.set_rflags(0x8d5);
    });
    let fault = Fault { address: CODE, access: Access::Write, mapped: true };
    assert_eq!((stop, cpu.pc(), cpu.rflags()), (Stop::Fault(fault), CODE, 0x8d7));
    // push [rdi], of an address that is none
    let (cpu, _, stop) = run(&[0xff, 0x37], 9, |cpu, _| cpu.set_gpr(Gpr(RDI), 1 << 60));
    assert_eq!((stop, cpu.sp()), (Stop::Exception(Exception::Protection), STACK));
    // jmp rdi, to data
    let (cpu, _, stop) = run(&[0xff, 0xe7], 9, |cpu, _| cpu.set_gpr(Gpr(RDI), DATA));
    let fault = Fault { address: DATA, access: Access::Execute, mapped: true };
    assert_eq!((stop, cpu.pc()), (Stop::Fault(fault), DATA));
}

#[test]
fn strings_are_moved_round_by_round() {
    // rep movsb
    let code = [0xf3, 0xa4];
    let prepare = |cpu: &mut X86, memory: &mut Memory| {
        memory.write(DATA, b"abcdefgh").unwrap();
        cpu.set_gpr(Gpr(RSI), DATA);
        cpu.set_gpr(Gpr(RDI), DATA + PAGE - 3);
        cpu.set_gpr(Gpr(RCX), 8);
    };
    let (cpu, memory, stop) = run(&code, 100, prepare);
    assert_eq!((stop, cpu.gpr(Gpr(RCX)), cpu.executed()), (Stop::Breakpoint, 0, 8));
    assert_eq!(memory.bytes(DATA + PAGE - 3, 8).unwrap(), b"abcdefgh");
    let (cpu, _, stop) = run(&code, 5, prepare);
    assert_eq!((stop, cpu.gpr(Gpr(RCX)), cpu.pc()), (Stop::Budget, 3, CODE), "it can go on");
    let (cpu, _, stop) = run(&code, 100, |cpu, memory| {
        prepare(cpu, memory);
        cpu.set_gpr(Gpr(RDI), STACK - 3);
    });
    assert!(matches!(stop, Stop::Fault(Fault { address: STACK, .. })), "{stop}");
    assert_eq!((cpu.gpr(Gpr(RCX)), cpu.gpr(Gpr(RSI))), (5, DATA + 3), "three rounds are done");
    // repne scasb: the length of a string
    let (cpu, _, _) = run(&[0xf2, 0xae], 100, |cpu, memory| {
        memory.write(DATA, b"abc\0").unwrap();
        cpu.set_gpr(Gpr(RDI), DATA);
        cpu.set_gpr(Gpr(RCX), u64::MAX);
    });
    assert_eq!((cpu.gpr(Gpr(RDI)), cpu.gpr(Gpr(RCX))), (DATA + 4, u64::MAX - 4));
}

#[test]
fn addresses_are_computed_as_they_are_written() {
    for (code, address) in [
        (&[0x48, 0x8b, 0x44, 0x8b, 0xf8][..], DATA + 0x100 - 8), // mov rax, [rbx+rcx*4-8]
        (&[0x65, 0x48, 0x8b, 0x04, 0x25, 0x10, 0, 0, 0], DATA + 0x210), // mov rax, gs:[0x10]
        (&[0x65, 0x48, 0x8b, 0x41, 8], DATA + 0x208 + 0x40),     // mov rax, gs:[rcx+8]
    ] {
        let (cpu, _, _) = run(code, 1, |cpu, memory| {
            memory.write(address, &77u64.to_le_bytes()).unwrap();
            cpu.set_gpr(Gpr(RBX), DATA);
            cpu.set_gpr(Gpr(RCX), 0x40);
            cpu.set_gs_base(DATA + 0x200);
        });
        assert_eq!(cpu.gpr(Gpr(RAX)), 77, "{code:x?}");
    }
    // lea eax, gs:[rcx+rcx+1]: no segment, four bytes
    let (cpu, _, _) = run(&[0x65, 0x8d, 0x44, 0x09, 1], 1, |cpu, _| {
        cpu.set_gpr(Gpr(RCX), 0xffff_ffff);
        cpu.set_gs_base(DATA);
    });
    assert_eq!(cpu.gpr(Gpr(RAX)), 0xffff_ffff);
    // bt [rdi], rcx with a bit number far outside
    let (cpu, _, _) = run(&[0x48, 0x0f, 0xa3, 0x0f], 1, |cpu, memory| {
        memory.write(DATA + 0x100, &[4]).unwrap();
        cpu.set_gpr(Gpr(RDI), DATA + 0x200);
        cpu.set_gpr(Gpr(RCX), 0u64.wrapping_sub(0x800 - 2));
    });
    assert_eq!(cpu.rflags() & 1, 1);
}

#[test]
fn what_is_not_known_is_named() {
    for (code, name) in
        [(&[0x0f, 0x58, 0xc1][..], "Addps_xmm_xmmm128"), (&[0x0f, 0x01, 0x10], "Lgdt_m1664"), (&[0x06], "06")]
    {
        let (cpu, _, stop) = run(code, 9, |_, _| {});
        match stop {
            Stop::Unknown(what) => assert!(what.starts_with(name), "{what}"),
            other => panic!("{other}"),
        }
        assert_eq!(cpu.pc(), CODE);
    }
    for (code, exception) in [
        (&[0x0f, 0x0b][..], Exception::Undefined),
        (&[0xcc], Exception::Breakpoint),
        (&[0xf4], Exception::Halt),
    ] {
        assert_eq!(run(code, 9, |_, _| {}).2, Stop::Exception(exception));
    }
}

#[test]
fn code_that_is_written_is_decoded_again() {
    // mov byte [rdi], 0x90 writes over the hlt behind it
    let code = [0xc6, 7, 0x90, 0xf4];
    let (mut cpu, mut memory) = machine(&code);
    memory.protect(CODE, CODE + PAGE, Protection::ALL);
    cpu.set_gpr(Gpr(RDI), CODE + 3);
    cpu.break_at(CODE + 3);
    assert_eq!(cpu.run(&mut memory, &mut 100), Stop::Breakpoint);
    cpu.break_at(CODE + 4);
    assert_eq!(cpu.run(&mut memory, &mut 100), Stop::Breakpoint);
    assert_eq!(cpu.pc(), CODE + 4);
}

#[test]
fn functions_are_entered_with_arguments_and_left_with_a_value() {
    let (mut cpu, mut memory) = machine(&[0xc3]);
    let arguments: Vec<u64> = (10..18).collect();
    let call = Call { function: CODE, arguments: &arguments, sp: STACK - 0x108, returns_to: CODE + 1 };
    let after = cpu.enter(&mut memory, &call).unwrap();
    assert_eq!(after % 16, 0);
    for (number, value) in arguments.iter().enumerate() {
        assert_eq!(cpu.argument(&memory, number).unwrap(), *value);
    }
    assert_eq!(cpu.return_address(&memory).unwrap(), CODE + 1);
    cpu.return_with(&mut memory, 5).unwrap();
    assert_eq!((cpu.pc(), cpu.sp(), cpu.returned()), (CODE + 1, after, 5));
}

#[test]
fn random_code_ends_within_its_budget() {
    let mut seed = 0x1234_5678_9abc_def1;
    let rounds = std::env::var("KMODLD_RANDOM_CODE").ok().and_then(|n| n.parse().ok()).unwrap_or(300u32);
    let mut executed = 0;
    for _ in 0..rounds {
        let code: Vec<u8> = (0..0x200).flat_map(|_| random(&mut seed).to_le_bytes()).collect();
        let (mut cpu, mut memory) = machine(&code);
        memory.protect(CODE, CODE + 4 * PAGE, Protection::ALL);
        for _ in 0..40 {
            for register in 0..16 {
                let value = match random(&mut seed) & 3 {
                    0 => DATA + (random(&mut seed) & 0x7fff),
                    1 => CODE + (random(&mut seed) & 0xfff),
                    2 => random(&mut seed) & 0xff,
                    _ => random(&mut seed),
                };
                cpu.set_gpr(Gpr(register), value);
            }
            cpu.set_pc(CODE + (random(&mut seed) & 0xfff));
            let before = cpu.executed();
            let mut budget = 10_000;
            cpu.run(&mut memory, &mut budget);
            let made = cpu.executed() - before;
            assert_eq!(made + budget, 10_000);
            executed += made;
        }
    }
    std::println!("{executed} instructions of random code");
    assert!(executed > u64::from(rounds) * 40, "{executed} instructions only");
}
