//! Instructions of the vector units: SSE to SSE4.1 and AVX2 on integers, moves, AES, carry-less multiplication and SHA. Arithmetic on floating-point
//! numbers is not interpreted.

mod ciphers;
pub mod decode;
mod lanes;
mod moves;
pub mod operation;
pub mod registers;
mod state;

use super::execute::{Done, State};
use super::flags::{CF, Flags, ZF};
use super::instruction::{Decoded, Operand};
use crate::cpu::{Exception, Trouble};
use crate::memory::Memory;
use operation::V;
use registers::Halves;

impl State {
    /// Executes an instruction of the vector units.
    pub(super) fn vector(&mut self, memory: &mut Memory, at: &Decoded, v: V) -> Done<()> {
        match v {
            V::MoveAligned | V::Move => {
                let value = self.source(memory, &at.third, at, v == V::MoveAligned)?;
                return self.put(memory, at, value, v == V::MoveAligned);
            }
            V::MoveLow
            | V::MoveScalar
            | V::MoveToLow
            | V::MoveToHigh
            | V::MoveHighToLow
            | V::MoveLowToHigh
            | V::Insert
            | V::Extract
            | V::InsertHalf
            | V::ExtractHalf
            | V::PermuteHalves
            | V::Permute64
            | V::Permute32
            | V::Broadcast
            | V::ExtendZero
            | V::ExtendSign
            | V::Mask
            | V::LoadMasked
            | V::ZeroUpper
            | V::ZeroAll => return self.vector_move(memory, at, v),
            _ => {}
        }
        // Without VEX, operands of 16 bytes in memory have to be aligned.
        let aligned = at.repeat == 0 && at.source_size == 16;
        let [a, high] = self.source(memory, &at.second, at, aligned)?;
        let [b, other] = self.source(memory, &at.third, at, aligned)?;
        let immediate = at.condition;
        let halves = match v {
            V::Test => {
                self.test(at, b, other);
                return Ok(());
            }
            V::BlendBy | V::Sha256Rounds => {
                let [c, third] = self.vectors.get(at.condition);
                [lanes::ternary(v, at.element, a, b, c), lanes::ternary(v, at.element, high, other, third)]
            }
            V::ShiftLeft | V::ShiftRight | V::ShiftSigned | V::ShiftBytesLeft | V::ShiftBytesRight => {
                // The count is the same for both halves.
                let shift = |value| lanes::shift(v, at.element, value, b as u64);
                [shift(a), shift(high)]
            }
            V::Blend => {
                // Of words each half has the same eight bits.
                let per_half = 16u32.checked_div(at.element.into()).unwrap_or(1);
                let upper = if at.element == 2 { immediate } else { immediate.wrapping_shr(per_half) };
                [lanes::blend(at.element, a, b, immediate), lanes::blend(at.element, high, other, upper)]
            }
            V::ShufflePair | V::PermuteInHalf if at.element == 8 => [
                lanes::binary(v, at.element, a, b, immediate)?,
                lanes::binary(v, at.element, high, other, immediate >> 2)?,
            ],
            _ => [
                lanes::binary(v, at.element, a, b, immediate)?,
                if at.size == 32 { lanes::binary(v, at.element, high, other, immediate)? } else { 0 },
            ],
        };
        self.put(memory, at, halves, false)
    }

    /// PTEST: ZF of the conjunction of first and second operand, CF of that with the first negated.
    fn test(&mut self, at: &Decoded, b: u128, other: u128) {
        let Operand::Vector(number) = at.first else { return };
        let [a, high] = self.vectors.get(number);
        let (high, other) = if at.size == 32 { (high, other) } else { (0, 0) };
        let zero = a & b == 0 && high & other == 0;
        let carry = !a & b == 0 && !high & other == 0;
        self.flags = Flags::of_bits(if zero { ZF } else { 0 } | if carry { CF } else { 0 });
    }

    /// A source operand. Memory gives as many bytes as the instruction reads, with zeros above.
    fn source(&self, memory: &mut Memory, operand: &Operand, at: &Decoded, aligned: bool) -> Done<Halves> {
        Ok(match operand {
            Operand::Vector(number) => self.vectors.get(*number),
            Operand::Immediate(value) => [(*value).into(), 0],
            Operand::Memory(address) => {
                let address = self.address(address);
                if aligned && address & u64::from(at.source_size).wrapping_sub(1) != 0 {
                    return Err(Trouble::Exception(Exception::Protection));
                }
                match at.source_size {
                    16 => [u128::from_le_bytes(memory.load(address)?), 0],
                    32 => [
                        u128::from_le_bytes(memory.load(address)?),
                        u128::from_le_bytes(memory.load(address.wrapping_add(16))?),
                    ],
                    size => [Self::load(memory, address, size)?.into(), 0],
                }
            }
            Operand::None => [0; 2],
            other => [self.get(memory, other, at.element.min(8))?.into(), 0],
        })
    }

    /// Writes the destination: a register as a whole, or without VEX its lower half; memory as many bytes as the instruction writes.
    fn put(&mut self, memory: &mut Memory, at: &Decoded, [low, high]: Halves, aligned: bool) -> Done<()> {
        match &at.first {
            Operand::Vector(number) if at.repeat == 0 => self.vectors.set_low(*number, low),
            Operand::Vector(number) => {
                self.vectors.set(*number, [low, if at.size == 32 { high } else { 0 }]);
            }
            Operand::Memory(address) => {
                let address = self.address(address);
                if aligned && address & u64::from(at.source_size).wrapping_sub(1) != 0 {
                    return Err(Trouble::Exception(Exception::Protection));
                }
                match at.source_size {
                    16 => memory.store(address, low.to_le_bytes())?,
                    32 => {
                        let mut bytes = [0; 32];
                        let all = low.to_le_bytes().into_iter().chain(high.to_le_bytes());
                        bytes.iter_mut().zip(all).for_each(|(byte, new)| *byte = new);
                        memory.store(address, bytes)?;
                    }
                    size => Self::store(memory, address, low as u64, size)?,
                }
            }
            _ => return Err(Trouble::Unknown),
        }
        Ok(())
    }
}
