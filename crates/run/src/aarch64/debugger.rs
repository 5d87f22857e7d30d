//! The registers as gdb has them.

use alloc::vec::Vec;

use super::A64;
use crate::cpu::Cpu;
use crate::debugger::{Registers, numbers};

/// PSTATE.M of EL1 with a stack pointer of its own.
const EL1H: u64 = 5;

impl Registers for A64 {
    const TARGET: &'static str = r#"<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0"><architecture>aarch64</architecture><feature name="org.gnu.gdb.aarch64.core"><reg name="x0" bitsize="64"/><reg name="x1" bitsize="64"/><reg name="x2" bitsize="64"/><reg name="x3" bitsize="64"/><reg name="x4" bitsize="64"/><reg name="x5" bitsize="64"/><reg name="x6" bitsize="64"/><reg name="x7" bitsize="64"/><reg name="x8" bitsize="64"/><reg name="x9" bitsize="64"/><reg name="x10" bitsize="64"/><reg name="x11" bitsize="64"/><reg name="x12" bitsize="64"/><reg name="x13" bitsize="64"/><reg name="x14" bitsize="64"/><reg name="x15" bitsize="64"/><reg name="x16" bitsize="64"/><reg name="x17" bitsize="64"/><reg name="x18" bitsize="64"/><reg name="x19" bitsize="64"/><reg name="x20" bitsize="64"/><reg name="x21" bitsize="64"/><reg name="x22" bitsize="64"/><reg name="x23" bitsize="64"/><reg name="x24" bitsize="64"/><reg name="x25" bitsize="64"/><reg name="x26" bitsize="64"/><reg name="x27" bitsize="64"/><reg name="x28" bitsize="64"/><reg name="x29" bitsize="64"/><reg name="x30" bitsize="64"/><reg name="sp" bitsize="64" type="data_ptr"/><reg name="pc" bitsize="64" type="code_ptr"/><reg name="cpsr" bitsize="32"/></feature></target>"#;

    fn all(&self) -> Vec<Option<u8>> {
        let general = (0..31).map(|number| self.x(number));
        let mut bytes: Vec<Option<u8>> =
            general.chain([self.sp(), self.pc()]).flat_map(|value| value.to_le_bytes().map(Some)).collect();
        let state = u64::from(self.flags()) << 28 | self.daif() | EL1H;
        bytes.extend((state as u32).to_le_bytes().map(Some));
        bytes
    }

    fn set_all(&mut self, bytes: &[u8]) -> bool {
        let Some((wide, rest)) = bytes.split_at_checked(33 * 8) else { return false };
        let Some(state) = rest.first_chunk() else { return false };
        for (number, value) in (0..31).zip(numbers(wide)) {
            self.set_x(number, value);
        }
        let mut last = numbers(wide).skip(31);
        if let (Some(sp), Some(pc)) = (last.next(), last.next()) {
            self.set_sp(sp);
            self.set_pc(pc);
        }
        // N, Z, C and V.
        self.set_flags((u32::from_le_bytes(*state) >> 28) as u8);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_in_the_order_of_gdb() {
        let mut cpu = A64::default();
        cpu.set_x(30, 0x1122);
        cpu.set_sp(0x3344);
        cpu.set_pc(0x5566);
        cpu.set_flags(6);
        let all = cpu.all();
        assert_eq!(all.len(), 33 * 8 + 4);
        let known: Vec<u8> = all.iter().map_while(|byte| *byte).collect();
        let values: Vec<u64> = numbers(&known).skip(30).collect();
        assert_eq!(values, [0x1122, 0x3344, 0x5566]);
        let mut other = A64::default();
        assert!(other.set_all(&known));
        assert_eq!(other.all(), all);
        assert!(!other.set_all(known.get(..267).unwrap_or_default()), "the state is cut");
    }
}
