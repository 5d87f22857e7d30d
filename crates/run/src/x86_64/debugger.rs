//! The registers as gdb has them.

use alloc::vec::Vec;

use super::{Gpr, X86};
use crate::cpu::Cpu;
use crate::debugger::{Registers, numbers};

/// gdb's order of the general registers, by their numbers in the encoding.
const ORDER: [u8; 16] = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];
/// Bytes of the segment registers, of the registers of the floating-point unit, and of those that control it.
const MISSING: usize = 6 * 4 + 8 * 10 + 8 * 4;

impl Registers for X86 {
    const TARGET: &'static str = r#"<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0"><architecture>i386:x86-64</architecture><feature name="org.gnu.gdb.i386.core"><reg name="rax" bitsize="64" type="int64"/><reg name="rbx" bitsize="64" type="int64"/><reg name="rcx" bitsize="64" type="int64"/><reg name="rdx" bitsize="64" type="int64"/><reg name="rsi" bitsize="64" type="int64"/><reg name="rdi" bitsize="64" type="int64"/><reg name="rbp" bitsize="64" type="data_ptr"/><reg name="rsp" bitsize="64" type="data_ptr"/><reg name="r8" bitsize="64" type="int64"/><reg name="r9" bitsize="64" type="int64"/><reg name="r10" bitsize="64" type="int64"/><reg name="r11" bitsize="64" type="int64"/><reg name="r12" bitsize="64" type="int64"/><reg name="r13" bitsize="64" type="int64"/><reg name="r14" bitsize="64" type="int64"/><reg name="r15" bitsize="64" type="int64"/><reg name="rip" bitsize="64" type="code_ptr"/><reg name="eflags" bitsize="32" type="int32"/><reg name="cs" bitsize="32" type="int32"/><reg name="ss" bitsize="32" type="int32"/><reg name="ds" bitsize="32" type="int32"/><reg name="es" bitsize="32" type="int32"/><reg name="fs" bitsize="32" type="int32"/><reg name="gs" bitsize="32" type="int32"/><reg name="st0" bitsize="80" type="i387_ext"/><reg name="st1" bitsize="80" type="i387_ext"/><reg name="st2" bitsize="80" type="i387_ext"/><reg name="st3" bitsize="80" type="i387_ext"/><reg name="st4" bitsize="80" type="i387_ext"/><reg name="st5" bitsize="80" type="i387_ext"/><reg name="st6" bitsize="80" type="i387_ext"/><reg name="st7" bitsize="80" type="i387_ext"/><reg name="fctrl" bitsize="32" type="int" group="float"/><reg name="fstat" bitsize="32" type="int" group="float"/><reg name="ftag" bitsize="32" type="int" group="float"/><reg name="fiseg" bitsize="32" type="int" group="float"/><reg name="fioff" bitsize="32" type="int" group="float"/><reg name="foseg" bitsize="32" type="int" group="float"/><reg name="fooff" bitsize="32" type="int" group="float"/><reg name="fop" bitsize="32" type="int" group="float"/></feature></target>"#;

    fn all(&self) -> Vec<Option<u8>> {
        let mut bytes = Vec::new();
        for number in ORDER {
            bytes.extend(self.gpr(Gpr(number)).to_le_bytes().map(Some));
        }
        bytes.extend(self.pc().to_le_bytes().map(Some));
        bytes.extend((self.rflags() as u32).to_le_bytes().map(Some));
        bytes.resize(bytes.len().saturating_add(MISSING), None);
        bytes
    }

    fn set_all(&mut self, bytes: &[u8]) -> bool {
        let Some((wide, rest)) = bytes.split_at_checked(17 * 8) else { return false };
        let Some(flags) = rest.first_chunk() else { return false };
        for (number, value) in ORDER.into_iter().zip(numbers(wide)) {
            self.set_gpr(Gpr(number), value);
        }
        if let Some(pc) = numbers(wide).last() {
            self.set_pc(pc);
        }
        self.set_rflags(u32::from_le_bytes(*flags).into());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_in_the_order_of_gdb() {
        let mut cpu = X86::default();
        cpu.set_gpr(Gpr(3), 0x1122);
        cpu.set_sp(0x3344);
        cpu.set_pc(0x5566);
        let all = cpu.all();
        assert_eq!(all.len(), 17 * 8 + 4 + MISSING);
        let known: Vec<u8> = all.iter().map_while(|byte| *byte).collect();
        let values: Vec<u64> = numbers(&known).collect();
        // rbx, rsp, rip
        assert_eq!(
            (values.get(1), values.get(7), values.get(16)),
            (Some(&0x1122), Some(&0x3344), Some(&0x5566))
        );
        let mut other = X86::default();
        assert!(other.set_all(&known));
        assert_eq!(other.all(), all);
        assert!(!other.set_all(known.get(..139).unwrap_or_default()), "the flags are cut");
    }
}
