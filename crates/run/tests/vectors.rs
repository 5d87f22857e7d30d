//! What a processor did with single instructions for vectors and newer ones for general registers, recorded, against the interpreter.
//!
//! A line of `vectors.txt`: the bytes of an instruction; the seed of the state before it; which flags are defined after it; and what has
//! changed: general registers, flags, YMM registers by their numbers (upper half first), and words of memory. All in hex.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

#[path = "rows/mod.rs"]
mod rows;
#[path = "seed/mod.rs"]
mod seed;

use run::cpu::{Cpu, Stop};
use run::memory::{Memory, PAGE, Protection};
use run::x86_64::{Gpr, X86};
use seed::Seed;

const CODE: u64 = 0x1000;
/// Where RSI points to.
const DATA: u64 = 0x20000;
const WORDS: u64 = 8;
const REGISTERS: [(&str, Gpr); 4] = [("rax", Gpr(0)), ("rcx", Gpr(1)), ("rdx", Gpr(2)), ("r8", Gpr(8))];
const VECTORS: [u8; 4] = [0, 1, 2, 9];
/// CF, PF, AF, ZF, SF, OF
const FLAGS: u64 = 0x8d5;

/// What can be seen of a machine.
#[derive(PartialEq)]
struct State {
    general: [u64; 4],
    flags: u64,
    vectors: [[u128; 2]; 4],
    memory: [u64; 8],
}

#[test]
fn single_vector_instructions_do_what_a_processor_does() {
    let count = rows::each(include_str!("vectors.txt"), "KMODLD_VECTOR_ROWS", row).len();
    assert!(count > 1500, "{count} rows");
}

fn hex(word: &str) -> u64 {
    u64::from_str_radix(word, 16).unwrap()
}

fn row(line: &str) -> Result<(), String> {
    let mut words = line.split(' ');
    let code = words.next().unwrap();
    let code: Vec<u8> = (0..code.len()).step_by(2).map(|at| hex(&code[at..at + 2]) as u8).collect();
    let (mut seed, mask) = (Seed(hex(words.next().unwrap())), hex(words.next().unwrap()));
    let general = [(); 4].map(|()| seed.word());
    let flags = seed.word() & FLAGS;
    let vectors = [(); 4].map(|()| [seed.half(), seed.half()]);
    let mut should = State { general, flags, vectors, memory: [(); 8].map(|()| seed.word()) };
    let mut memory = Memory::new(2 * PAGE);
    assert!(memory.map(CODE, PAGE, 0, Protection::CODE));
    assert!(memory.map(DATA, PAGE, PAGE, Protection::DATA));
    memory.poke(CODE, &code).unwrap();
    for (number, word) in (0..).zip(should.memory) {
        memory.poke(DATA + number * 8, &word.to_le_bytes()).unwrap();
    }
    let mut cpu = X86::default();
    REGISTERS.iter().zip(should.general).for_each(|((_, register), value)| cpu.set_gpr(*register, value));
    VECTORS.iter().zip(should.vectors).for_each(|(number, value)| cpu.set_vector(*number, value));
    cpu.set_gpr(Gpr(6), DATA);
    cpu.set_rflags(should.flags);
    cpu.set_pc(CODE);
    let stop = cpu.run(&mut memory, &mut 1);
    if stop != Stop::Budget || cpu.pc() != CODE + code.len() as u64 {
        return Err(format!("stops with {stop}, pc {:#x}", cpu.pc()));
    }
    should.flags &= mask;
    for word in words {
        let (name, value) = word.split_once('=').unwrap();
        if let Some(at) = REGISTERS.iter().position(|(register, _)| *register == name) {
            should.general[at] = hex(value);
        } else if name == "flags" {
            should.flags = hex(value);
        } else if let Some(word) = name.strip_prefix('m') {
            should.memory[hex(word) as usize] = hex(value);
        } else {
            let at = VECTORS.iter().position(|number| number.to_string() == name).unwrap();
            let (high, low) = value.split_once(':').unwrap();
            should.vectors[at] = [low, high].map(|half| u128::from_str_radix(half, 16).unwrap());
        }
    }
    let words = (0..WORDS).map(|number| memory.u64(DATA + number * 8).unwrap());
    let is = State {
        general: REGISTERS.map(|(_, register)| cpu.gpr(register)),
        flags: cpu.rflags() & mask,
        vectors: VECTORS.map(|number| cpu.vector(number)),
        memory: words.collect::<Vec<_>>().try_into().unwrap(),
    };
    if is == should {
        return Ok(());
    }
    Err(format!(
        "general {:x?}, flags {:x}, vectors {:x?}, memory {:x?}",
        is.general, is.flags, is.vectors, is.memory
    ))
}
