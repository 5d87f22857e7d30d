//! What a processor did with single instructions of four bytes, recorded, against the interpreter.
//!
//! A line of `words.txt`: the word; x0 to x8 and NZCV before it; then `signal` if the processor raised an exception, else the registers, the
//! flags, and the FNV-1a of the memory at `DATA` after it. Behind the word lies `add x8, x8, #1`, which branches may skip. All in hex.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

#[path = "rows/mod.rs"]
mod rows;

use run::aarch64::A64;
use run::cpu::{Cpu, Stop};
use run::memory::{Memory, PAGE, Protection};

const CODE: u64 = 0x2000_0100;
const DATA: u64 = 0x1000_0000;
const REGISTERS: u8 = 9;

#[test]
fn single_instructions_do_what_a_processor_does() {
    let rows = rows::each(include_str!("words.txt"), "KMODLD_WORDS_ROWS", row);
    let (count, refused) = (rows.len(), rows.iter().filter(|is_refused| **is_refused).count());
    assert!(count > 2000 && refused * 4 < count, "{refused} of {count} rows are refused");
}

/// Tells whether the processor has refused the instruction, and the interpreter as well.
fn row(line: &str) -> Result<bool, String> {
    let mut words = line.split(' ');
    let code = u32::from_str_radix(words.next().unwrap(), 16).unwrap();
    let mut number = || words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
    let mut memory = Memory::new(2 * PAGE);
    assert!(memory.map(CODE & !0xfff, PAGE, 0, Protection::CODE));
    assert!(memory.map(DATA, PAGE, PAGE, Protection::DATA));
    memory.poke(CODE, &code.to_le_bytes()).unwrap();
    memory.poke(CODE + 4, &0x9100_0508u32.to_le_bytes()).unwrap();
    let bytes: Vec<u8> = (0..PAGE).map(|n| (n * 7 + 3) as u8).collect();
    memory.poke(DATA, &bytes).unwrap();
    let mut cpu = A64::default();
    for register in 0..REGISTERS {
        cpu.set_x(register, number().unwrap());
    }
    cpu.set_flags(number().unwrap() as u8);
    cpu.set_pc(CODE);
    cpu.break_at(CODE + 8);
    let stop = cpu.run(&mut memory, &mut 2);
    let Some(first) = number() else {
        assert!(line.contains("signal"), "{line}");
        // Four is SIGILL. There are more instructions that nobody knows than those that a processor has.
        return match stop {
            Stop::Unknown(_) | Stop::Fault(_) | Stop::Exception(_) => Ok(true),
            _ => Err(format!("ends with {stop}")),
        };
    };
    if cpu.pc() != CODE + 8 || !matches!(stop, Stop::Budget | Stop::Breakpoint) {
        return Err(format!("stops with {stop}, pc {:#x}", cpu.pc()));
    }
    for register in 0..REGISTERS {
        let (is, should) = (cpu.x(register), if register == 0 { first } else { number().unwrap() });
        if is != should {
            return Err(format!("register {register} is {is:x}, not {should:x}"));
        }
    }
    let (is, should) = (u64::from(cpu.flags()), number().unwrap());
    if is != should {
        return Err(format!("flags are {is:x}, not {should:x}"));
    }
    let written = memory.bytes(DATA, PAGE as usize).unwrap();
    let hash = written
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let should = number().unwrap();
    if hash != should { Err(format!("memory is {hash:x}, not {should:x}")) } else { Ok(false) }
}
