//! How many instructions a second the interpreters execute in tight loops, in processor time (Linux): `loops`.
#![allow(clippy::restriction, reason = "an example")]

use run::aarch64::A64;
use run::cpu::{Cpu, Stop};
use run::memory::{Memory, PAGE, Protection};
use run::x86_64::{Gpr, X86};

const CODE: u64 = 0x1000;
const DATA: u64 = 0x4000;
const BUDGET: u64 = 200_000_000;

fn main() {
    // Counts down; with a load, a sum and a store; with a call and a return.
    let words: [(&str, &[u32]); 3] = [
        ("counts", &[0xf100_0421, 0x54ff_ffe1]),
        ("memory", &[0xf940_0002, 0x8b02_0063, 0xf900_0403, 0xf100_0421, 0x54ff_ff81]),
        ("calls", &[0x9400_0004, 0xf100_0421, 0x54ff_ffc1, 0xd440_0000, 0xd65f_03c0]),
    ];
    for (name, code) in words {
        let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut cpu = A64::default();
        cpu.set_x(0, DATA);
        cpu.set_x(1, u64::MAX);
        measure("aarch64", name, &mut cpu, &bytes);
    }
    let bytes: [(&str, &[u8]); 3] = [
        ("counts", b"\x48\xff\xc9\x75\xfb"),
        ("memory", b"\x48\x8b\x06\x48\x01\xc3\x48\x89\x5e\x08\x48\xff\xc9\x75\xf1"),
        ("calls", b"\xe8\x06\0\0\0\x48\xff\xc9\x75\xf6\xf4\xc3"),
    ];
    for (name, code) in bytes {
        let mut cpu = X86::default();
        cpu.set_gpr(Gpr(6), DATA);
        cpu.set_gpr(Gpr(1), u64::MAX);
        measure("x86_64", name, &mut cpu, code);
    }
}

fn measure<C: Cpu>(processor: &str, name: &str, cpu: &mut C, code: &[u8]) {
    let mut memory = Memory::new(4 * PAGE);
    assert!(
        memory.map(CODE, PAGE, 0, Protection::CODE) && memory.map(DATA, 2 * PAGE, PAGE, Protection::DATA)
    );
    memory.poke(CODE, code).unwrap();
    cpu.set_sp(DATA + 2 * PAGE);
    cpu.set_pc(CODE);
    let before = nanoseconds();
    let stop = cpu.run(&mut memory, &mut { BUDGET });
    let took = nanoseconds() - before;
    assert_eq!(stop, Stop::Budget);
    println!("{processor} {name}: {} million instructions a second", BUDGET * 1000 / took.max(1));
}

/// Processor time of this thread.
fn nanoseconds() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
