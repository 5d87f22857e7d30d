//! What each instruction does.

use super::access::aligned;
use super::form::{ASR, Decoded, EXTENDS, LSL, LSR, OFFSET, Op};
use super::state::{Done, State, extended, mask, sign};
use super::system;
use crate::cpu::{Exception, Trouble};
use crate::memory::{Access, Memory};

/// How much further the counter is each time that it is read.
const COUNTER_STEP: u64 = 100;

impl State {
    #[inline(always)]
    fn logical(&mut self, result: u64, wide: bool) -> u64 {
        let result = result & mask(wide);
        self.flags = u8::from(sign(result, wide)) << 3 | u8::from(result == 0) << 2;
        result
    }

    /// The second operand: a register, shifted or extended.
    #[inline(always)]
    fn operand(&self, at: &Decoded) -> u64 {
        let (value, amount) = (self.x(at.m), at.immediate as u32);
        if at.k >= EXTENDS {
            let value = extended(value, at.k.wrapping_sub(EXTENDS));
            return value.wrapping_shl(amount);
        }
        if at.wide {
            return match at.k {
                LSL => value.wrapping_shl(amount),
                LSR => value.wrapping_shr(amount),
                ASR => (value as i64).wrapping_shr(amount) as u64,
                _ => value.rotate_right(amount),
            };
        }
        let value = value as u32;
        u64::from(match at.k {
            LSL => value.wrapping_shl(amount),
            LSR => value.wrapping_shr(amount),
            ASR => (value as i32).wrapping_shr(amount) as u32,
            _ => value.rotate_right(amount),
        })
    }

    /// The second operand of a logical instruction.
    fn logical_operand(&self, at: &Decoded) -> u64 {
        let value = self.operand(at);
        if at.a != 0 { !value } else { value }
    }

    fn read_system(&mut self, at: &Decoded) -> u64 {
        match at.k {
            system::NZCV => u64::from(self.flags) << 28,
            system::COUNTER => {
                self.counter = self.counter.wrapping_add(COUNTER_STEP);
                self.counter
            }
            system::FIXED => at.immediate,
            _ => self.system.get(at.immediate as usize).copied().unwrap_or(0),
        }
    }

    fn write_system(&mut self, at: &Decoded) {
        let value = self.x(at.n);
        match at.k {
            system::NZCV => self.flags = (value >> 28 & 15) as u8,
            _ => {
                if let Some(slot) = self.system.get_mut(at.immediate as usize) {
                    *slot = value;
                }
            }
        }
    }

    /// Executes an instruction at an address, and gives the address of the next one.
    #[inline(always)]
    pub(super) fn step(&mut self, memory: &mut Memory, at: &Decoded, pc: u64) -> Done<u64> {
        let next = pc.wrapping_add(4);
        match at.op {
            Op::Nop => {}
            Op::AddI => self.set(at.d, self.x(at.n).wrapping_add(at.immediate) & mask(at.wide)),
            Op::AddR => self.set(at.d, self.x(at.n).wrapping_add(self.x(at.m)) & mask(at.wide)),
            Op::SubR => self.set(at.d, self.x(at.n).wrapping_sub(self.x(at.m)) & mask(at.wide)),
            Op::AddX => self.set(at.d, self.x(at.n).wrapping_add(self.operand(at)) & mask(at.wide)),
            Op::SubX => self.set(at.d, self.x(at.n).wrapping_sub(self.operand(at)) & mask(at.wide)),
            Op::AddsI => {
                let result = self.sum(self.x(at.n), at.immediate, false, at.wide);
                self.set(at.d, result);
            }
            Op::SubsI => {
                let result = self.sum(self.x(at.n), !at.immediate, true, at.wide);
                self.set(at.d, result);
            }
            Op::AddsR => {
                let result = self.sum(self.x(at.n), self.x(at.m), false, at.wide);
                self.set(at.d, result);
            }
            Op::SubsR => {
                let result = self.sum(self.x(at.n), !self.x(at.m), true, at.wide);
                self.set(at.d, result);
            }
            Op::AddsX => {
                let result = self.sum(self.x(at.n), self.operand(at), false, at.wide);
                self.set(at.d, result);
            }
            Op::SubsX => {
                let result = self.sum(self.x(at.n), !self.operand(at), true, at.wide);
                self.set(at.d, result);
            }
            Op::AndI => self.set(at.d, self.x(at.n) & at.immediate),
            Op::OrrI => self.set(at.d, (self.x(at.n) | at.immediate) & mask(at.wide)),
            Op::EorI => self.set(at.d, (self.x(at.n) ^ at.immediate) & mask(at.wide)),
            Op::AndsI => {
                let result = self.logical(self.x(at.n) & at.immediate, at.wide);
                self.set(at.d, result);
            }
            Op::AndR => self.set(at.d, self.x(at.n) & self.x(at.m) & mask(at.wide)),
            Op::OrrR => self.set(at.d, (self.x(at.n) | self.x(at.m)) & mask(at.wide)),
            Op::EorR => self.set(at.d, (self.x(at.n) ^ self.x(at.m)) & mask(at.wide)),
            Op::AndX => self.set(at.d, self.x(at.n) & self.logical_operand(at) & mask(at.wide)),
            Op::OrrX => self.set(at.d, (self.x(at.n) | self.logical_operand(at)) & mask(at.wide)),
            Op::EorX => self.set(at.d, (self.x(at.n) ^ self.logical_operand(at)) & mask(at.wide)),
            Op::AndsX => {
                let result = self.logical(self.x(at.n) & self.logical_operand(at), at.wide);
                self.set(at.d, result);
            }
            Op::MovI => self.set(at.d, at.immediate),
            Op::MovK => {
                let field = 0xffffu64.wrapping_shl(at.k.into());
                let value = self.x(at.d) & !field | at.immediate.wrapping_shl(at.k.into());
                self.set(at.d, value & mask(at.wide));
            }
            Op::UnsignedExtract => self.set(at.d, self.x(at.n).wrapping_shr(at.a.into()) & at.immediate),
            Op::UnsignedInsert => {
                let value = (self.x(at.n) & at.immediate).wrapping_shl(at.a.into());
                self.set(at.d, value & mask(at.wide));
            }
            Op::SignedExtract => {
                let value = (self.x(at.n).wrapping_shl(at.k.into()) as i64).wrapping_shr(at.a.into());
                self.set(at.d, value as u64 & mask(at.wide));
            }
            Op::B => return Ok(at.immediate),
            Op::Bl => {
                self.set(30, next);
                return Ok(at.immediate);
            }
            Op::BCond => {
                if self.holds(at.k) {
                    return Ok(at.immediate);
                }
            }
            Op::Cbz => {
                if self.x(at.n) & mask(at.wide) == 0 {
                    return Ok(at.immediate);
                }
            }
            Op::Cbnz => {
                if self.x(at.n) & mask(at.wide) != 0 {
                    return Ok(at.immediate);
                }
            }
            Op::Tbz => {
                if self.x(at.n).wrapping_shr(at.a.into()) & 1 == 0 {
                    return Ok(at.immediate);
                }
            }
            Op::Tbnz => {
                if self.x(at.n).wrapping_shr(at.a.into()) & 1 != 0 {
                    return Ok(at.immediate);
                }
            }
            Op::Br => return Ok(self.x(at.n)),
            Op::Blr => {
                let target = self.x(at.n);
                self.set(30, next);
                return Ok(target);
            }
            Op::Ldr8 => {
                let address = self.x(at.n).wrapping_add(at.immediate);
                let value = u8::from_le_bytes(self.load(memory, address)?);
                self.set(at.d, value.into());
            }
            Op::Ldr16 => {
                let address = self.x(at.n).wrapping_add(at.immediate);
                let value = u16::from_le_bytes(self.load(memory, address)?);
                self.set(at.d, value.into());
            }
            Op::Ldr32 => {
                let address = self.x(at.n).wrapping_add(at.immediate);
                let value = u32::from_le_bytes(self.load(memory, address)?);
                self.set(at.d, value.into());
            }
            Op::Ldr64 => {
                let address = self.x(at.n).wrapping_add(at.immediate);
                let value = u64::from_le_bytes(self.load(memory, address)?);
                self.set(at.d, value);
            }
            Op::Str8 => {
                let address = self.x(at.n).wrapping_add(at.immediate);
                self.store(memory, address, (self.x(at.d) as u8).to_le_bytes())?;
            }
            Op::Str16 => {
                let address = self.x(at.n).wrapping_add(at.immediate);
                self.store(memory, address, (self.x(at.d) as u16).to_le_bytes())?;
            }
            Op::Str32 => {
                let address = self.x(at.n).wrapping_add(at.immediate);
                self.store(memory, address, (self.x(at.d) as u32).to_le_bytes())?;
            }
            Op::Str64 => {
                let address = self.x(at.n).wrapping_add(at.immediate);
                self.store(memory, address, self.x(at.d).to_le_bytes())?;
            }
            Op::LdpX64 | Op::LdpX32 | Op::LdpSigned => self.load_pair(memory, at)?,
            Op::StpX64 | Op::StpX32 => self.store_pair(memory, at)?,
            Op::LoadX => self.load_moded(memory, at)?,
            Op::StoreX => self.store_moded(memory, at)?,
            Op::Select => {
                let from = if self.holds(at.k) { at.n } else { at.m };
                self.set(at.d, self.x(from) & mask(at.wide));
            }
            Op::SelectIncrement => {
                let value = if self.holds(at.k) { self.x(at.n) } else { self.x(at.m).wrapping_add(1) };
                self.set(at.d, value & mask(at.wide));
            }
            Op::Mrs => {
                let value = self.read_system(at);
                self.set(at.d, value);
            }
            _ => self.rarely(memory, at)?,
        }
        Ok(next)
    }

    /// Memory, atomically; system registers; what stops.
    fn rarely(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        match at.op {
            Op::LdrSigned => self.load_moded(memory, &Decoded { a: at.a | 4, k: OFFSET, ..*at })?,
            Op::LoadUser => {
                self.of_programs(memory, at, Access::Read)?;
                self.load_moded(memory, at)?;
            }
            Op::StoreUser => {
                self.of_programs(memory, at, Access::Write)?;
                self.store_moded(memory, at)?;
            }
            Op::LoadOrdered => {
                aligned(self.address(at).0, 1u64.wrapping_shl(u32::from(at.a & 3)))?;
                self.load_moded(memory, at)?;
            }
            Op::StoreOrdered => {
                aligned(self.address(at).0, 1u64.wrapping_shl(u32::from(at.a & 3)))?;
                self.store_moded(memory, at)?;
            }
            Op::LoadExclusive | Op::LoadExclusivePair => self.exclusive_load(memory, at)?,
            Op::StoreExclusive | Op::StoreExclusivePair => self.exclusive_store(memory, at)?,
            Op::Cas | Op::CasPair => self.compare_and_swap(memory, at)?,
            Op::Swap
            | Op::AtomicAdd
            | Op::AtomicClear
            | Op::AtomicXor
            | Op::AtomicSet
            | Op::AtomicSignedMax
            | Op::AtomicSignedMin
            | Op::AtomicMax
            | Op::AtomicMin => self.atomic(memory, at)?,
            Op::VectorSame
            | Op::VectorLong
            | Op::VectorWide
            | Op::VectorUpper
            | Op::VectorPairs
            | Op::VectorByCount
            | Op::VectorLongByCount
            | Op::VectorNarrowByCount
            | Op::VectorOne
            | Op::VectorWideSums
            | Op::VectorAcross
            | Op::VectorMove
            | Op::VectorPermute
            | Op::VectorTable
            | Op::VectorCipher => self.vector(at)?,
            Op::LoadVector | Op::StoreVector | Op::LoadVectors | Op::StoreVectors | Op::VectorStructures => {
                self.vector_in_memory(memory, at)?
            }
            Op::Msr => self.write_system(at),
            Op::Daif => {
                let bits = u64::from(at.a) << 6;
                if let Some(daif) = self.system.get_mut(system::DAIF) {
                    *daif = if at.k != 0 { *daif | bits } else { *daif & !bits };
                }
            }
            Op::ZeroBlock => {
                let start = self.x(at.n) & !system::BLOCK.wrapping_sub(1);
                // Lines do not cross pages, so the first bytes tell whether all may be written.
                for number in 0..system::BLOCK >> 4 {
                    self.store(memory, start.wrapping_add(number << 4), [0; 16])?;
                }
            }
            Op::ClearExclusive => self.monitor = None,
            Op::Brk => return Err(Trouble::Exception(Exception::Trap(at.immediate as u16))),
            Op::Udf => return Err(Trouble::Exception(Exception::Undefined)),
            Op::Wfi => return Err(Trouble::Exception(Exception::Halt)),
            Op::Raw | Op::Stops | Op::Unknown => return Err(Trouble::Unknown),
            _ => self.compute(at),
        }
        Ok(())
    }
}
