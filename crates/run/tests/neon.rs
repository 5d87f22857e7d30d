//! What a processor did with single instructions for vectors of four bytes, recorded, against the interpreter.
//!
//! A line of `neon.txt`: the word; the seed of the state before it; then `signal` if the processor raised an exception, else what has changed:
//! general registers, vectors, and the FNV-1a of the memory at `DATA`. All in hex.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

#[path = "rows/mod.rs"]
mod rows;
#[path = "seed/mod.rs"]
mod seed;

use run::aarch64::A64;
use run::cpu::{Cpu, Stop};
use run::memory::{Memory, PAGE, Protection};
use seed::Seed;

const CODE: u64 = 0x2000_0000;
const DATA: u64 = 0x1000_0000;
/// Where x6 points to.
const BASE: u64 = DATA + 0x100;
const GENERAL: u8 = 8;
const VECTORS: [u8; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 30, 31];

#[test]
fn single_vector_instructions_of_words_do_what_a_processor_does() {
    let rows = rows::each(include_str!("neon.txt"), "KMODLD_NEON_ROWS", row);
    let (count, refused) = (rows.len(), rows.iter().filter(|is_refused| **is_refused).count());
    assert!(count > 1500 && refused * 3 < count, "{refused} of {count} rows are refused");
}

/// Tells whether the processor has refused the instruction, and the interpreter as well.
fn row(line: &str) -> Result<bool, String> {
    let mut words = line.split(' ');
    let code = u32::from_str_radix(words.next().unwrap(), 16).unwrap();
    let mut seed = Seed(u64::from_str_radix(words.next().unwrap(), 16).unwrap());
    let mut general = [(); GENERAL as usize].map(|()| seed.word());
    general[6] = BASE;
    general[7] &= 0x3f;
    let mut vectors = VECTORS.map(|_| seed.half());
    let mut memory = Memory::new(2 * PAGE);
    assert!(memory.map(CODE, PAGE, 0, Protection::CODE));
    assert!(memory.map(DATA, PAGE, PAGE, Protection::DATA));
    memory.poke(CODE, &code.to_le_bytes()).unwrap();
    let bytes: Vec<u8> = (0..PAGE).map(|n| (n * 7 + 3) as u8).collect();
    memory.poke(DATA, &bytes).unwrap();
    let mut cpu = A64::default();
    (0..GENERAL).zip(general).for_each(|(register, value)| cpu.set_x(register, value));
    VECTORS.iter().zip(vectors).for_each(|(register, value)| cpu.set_vector(*register, value));
    cpu.set_pc(CODE);
    let stop = cpu.run(&mut memory, &mut 1);
    let changed: Vec<&str> = words.collect();
    if changed == ["signal"] {
        return match stop {
            Stop::Unknown(_) | Stop::Fault(_) | Stop::Exception(_) => Ok(true),
            _ => Err(format!("ends with {stop}")),
        };
    }
    if stop != Stop::Budget || cpu.pc() != CODE + 4 {
        return Err(format!("stops with {stop}, pc {:#x}", cpu.pc()));
    }
    let mut hash = fnv(&bytes);
    for word in changed {
        let (name, value) = word.split_once('=').unwrap();
        let value = u128::from_str_radix(value, 16).unwrap();
        match name.split_at(1) {
            ("x", number) => general[number.parse::<usize>().unwrap()] = value as u64,
            ("v", number) => {
                let number: u8 = number.parse().unwrap();
                vectors[VECTORS.iter().position(|known| *known == number).unwrap()] = value;
            }
            _ => hash = value as u64,
        }
    }
    let is = (
        [0, 1, 2, 3, 4, 5, 6, 7].map(|register| cpu.x(register)),
        VECTORS.map(|register| cpu.vector(register)),
        fnv(&memory.bytes(DATA, PAGE as usize).unwrap()),
    );
    if is == (general, vectors, hash) { Ok(false) } else { Err(format!("{is:x?}")) }
}

fn fnv(bytes: &[u8]) -> u64 {
    let of = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, of)
}
