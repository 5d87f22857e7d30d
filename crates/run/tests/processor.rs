//! What a processor did with single instructions, recorded, against the interpreter.
//!
//! A line of `processor.txt`: the bytes of an instruction; rax, rcx, rdx, rbx, rsi, rdi, r8, r9 and RFLAGS before it; then `divide`
//! if the processor raised a divide error, else which flags are defined after it, the registers, and the flags. All in hex.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

#[path = "rows/mod.rs"]
mod rows;

use run::cpu::{Cpu, Exception, Stop};
use run::memory::{Memory, PAGE, Protection};
use run::x86_64::{Gpr, X86};

const CODE: u64 = 0x1000;
const REGISTERS: [Gpr; 8] = [Gpr(0), Gpr(1), Gpr(2), Gpr(3), Gpr(6), Gpr(7), Gpr(8), Gpr(9)];

#[test]
fn single_instructions_do_what_a_processor_does() {
    let count = rows::each(include_str!("processor.txt"), "KMODLD_PROCESSOR_ROWS", row).len();
    assert!(count > 2000, "{count} rows");
}

fn row(line: &str) -> Result<(), String> {
    let mut words = line.split(' ');
    let code = words.next().unwrap();
    let code: Vec<u8> =
        (0..code.len()).step_by(2).map(|at| u8::from_str_radix(&code[at..at + 2], 16).unwrap()).collect();
    let mut number = || words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
    let mut memory = Memory::new(PAGE);
    assert!(memory.map(CODE, PAGE, 0, Protection::CODE));
    memory.poke(CODE, &code).unwrap();
    let mut cpu = X86::default();
    for register in REGISTERS {
        cpu.set_gpr(register, number().unwrap());
    }
    cpu.set_rflags(number().unwrap());
    cpu.set_pc(CODE);
    let mask = number();
    let stop = cpu.run(&mut memory, &mut 1);
    let Some(mask) = mask else {
        assert!(line.ends_with("divide"), "{line}");
        let expected = Stop::Exception(Exception::Divide);
        return if stop == expected { Ok(()) } else { Err(format!("stops with {stop}, pc {:#x}", cpu.pc())) };
    };
    if stop != Stop::Budget || cpu.pc() != CODE + code.len() as u64 {
        return Err(format!("stops with {stop}, pc {:#x}", cpu.pc()));
    }
    for register in REGISTERS {
        let (is, should) = (cpu.gpr(register), number().unwrap());
        if is != should {
            return Err(format!("register {} is {is:x}, not {should:x}", register.0));
        }
    }
    let (is, should) = (cpu.rflags() & mask, number().unwrap() & mask);
    if is != should { Err(format!("flags are {is:x}, not {should:x} (of {mask:x})")) } else { Ok(()) }
}
