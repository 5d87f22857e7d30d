//! Instructions of general registers that came later: BMI, ADX, MOVBE and CRC32.

use super::execute::{Done, Flow, RDX, State};
use super::flags::{mask, width};
use super::instruction::{Decoded, Op, Operand};
use crate::cpu::Trouble;
use crate::memory::Memory;

/// The polynomial of CRC-32C, its bits reversed.
const CRC32C: u32 = 0x82f6_3b78;

/// Bits of `value` where `mask` has some, moved together at the low end.
fn extracted(value: u64, mask: u64) -> u64 {
    let bits = (0..64u32).filter(|bit| mask.wrapping_shr(*bit) & 1 != 0);
    (0u32..).zip(bits).fold(0, |out, (to, from)| out | (value.wrapping_shr(from) & 1).wrapping_shl(to))
}

/// The low bits of `value`, moved to where `mask` has some.
fn deposited(value: u64, mask: u64) -> u64 {
    let bits = (0..64u32).filter(|bit| mask.wrapping_shr(*bit) & 1 != 0);
    (0u32..).zip(bits).fold(0, |out, (from, to)| out | (value.wrapping_shr(from) & 1).wrapping_shl(to))
}

impl State {
    /// The newer instructions.
    pub(super) fn step_newer(&mut self, memory: &mut Memory, at: &Decoded) -> Done<Flow> {
        let size = at.size;
        match at.op {
            Op::Andn => {
                let (a, b) = (self.get(memory, &at.second, size)?, self.get(memory, &at.third, size)?);
                self.logical(at, !a & b & mask(size), false);
            }
            Op::Bextr => {
                let (value, control) =
                    (self.get(memory, &at.second, size)?, self.get(memory, &at.third, size)?);
                let (start, len) = (control as u32 & 0xff, control as u32 >> 8 & 0xff);
                let shifted = value.checked_shr(start).unwrap_or(0);
                let value = if len < 64 { shifted & !u64::MAX.wrapping_shl(len) } else { shifted };
                self.set_register_of(at, value);
                self.flags.logic(value, size);
            }
            Op::Blsr | Op::Blsmsk | Op::Blsi => {
                let value = self.get(memory, &at.second, size)?;
                let less = value.wrapping_sub(1);
                let (result, carry) = match at.op {
                    Op::Blsr => (value & less, value == 0),
                    Op::Blsmsk => ((value ^ less) & mask(size), value == 0),
                    _ => (value & value.wrapping_neg(), value != 0),
                };
                self.logical(at, result, carry);
            }
            Op::Bzhi => {
                let (value, index) =
                    (self.get(memory, &at.second, size)?, self.get(memory, &at.third, size)?);
                let index = index as u32 & 0xff;
                let value = if index < width(size) { value & !u64::MAX.wrapping_shl(index) } else { value };
                self.logical(at, value, index >= width(size));
            }
            Op::Mulx => {
                let (a, b) = (self.low(RDX, size), self.get(memory, &at.third, size)?);
                let product = u128::from(a).wrapping_mul(u128::from(b));
                let (low, high) = (product as u64 & mask(size), product.wrapping_shr(width(size)) as u64);
                // If both go to the same register, it holds the upper half.
                self.set(memory, &at.second, low, size)?;
                self.set(memory, &at.first, high, size)?;
            }
            Op::Pdep | Op::Pext => {
                let (value, bits) = (self.get(memory, &at.second, size)?, self.get(memory, &at.third, size)?);
                let value = if at.op == Op::Pdep { deposited(value, bits) } else { extracted(value, bits) };
                self.set_register_of(at, value);
            }
            Op::Rorx | Op::Shlx | Op::Shrx | Op::Sarx => {
                let (value, by) = (self.get(memory, &at.second, size)?, self.get(memory, &at.third, size)?);
                let by = by as u32 & width(size).wrapping_sub(1);
                let value = match (at.op, size) {
                    (Op::Shlx, _) => value.wrapping_shl(by),
                    (Op::Shrx, _) => value.wrapping_shr(by),
                    (Op::Sarx, 4) => (value as u32 as i32).wrapping_shr(by) as u64,
                    (Op::Sarx, _) => (value as i64).wrapping_shr(by) as u64,
                    (_, 4) => (value as u32).rotate_right(by).into(),
                    _ => value.rotate_right(by),
                };
                self.set_register_of(at, value & mask(size));
            }
            Op::Adcx | Op::Adox => {
                let (a, b) = self.both(memory, at)?;
                let flags = self.flags;
                let carry =
                    if at.op == Op::Adcx { flags.carry() } else { flags.bits() & super::flags::OF != 0 };
                let sum = u128::from(a).wrapping_add(b.into()).wrapping_add(carry.into());
                let out = sum.wrapping_shr(width(size)) != 0;
                self.set_register_of(at, sum as u64 & mask(size));
                let (carry, overflow) = match at.op {
                    Op::Adcx => (out, flags.bits() & super::flags::OF != 0),
                    _ => (flags.carry(), out),
                };
                self.flags.set_carry_overflow(carry, overflow);
            }
            Op::Movbe => {
                let value = self.get(memory, &at.second, size)?;
                let value = value.swap_bytes().wrapping_shr(64u32.wrapping_sub(width(size)));
                self.set(memory, &at.first, value, size)?;
            }
            Op::Crc32 => {
                let data = self.get(memory, &at.second, at.source_size)?;
                let bytes = data.to_le_bytes().into_iter().take(at.source_size.into());
                let start = self.get(memory, &at.first, 4)? as u32;
                let value = bytes.fold(start, |crc, byte| {
                    (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                        crc >> 1 ^ if crc & 1 != 0 { CRC32C } else { 0 }
                    })
                });
                self.set(memory, &at.first, value.into(), 8)?;
            }
            _ => return Err(Trouble::Unknown),
        }
        Ok(Flow::Next)
    }

    fn set_register_of(&mut self, at: &Decoded, value: u64) {
        if let Operand::Register(number) = at.first {
            self.set_sized(number, value, at.size);
        }
    }

    /// A result in a register, with the flags of logical instructions and that carry.
    fn logical(&mut self, at: &Decoded, value: u64, carry: bool) {
        self.set_register_of(at, value);
        self.flags.logic(value, at.size);
        self.flags.set_carry_overflow(carry, false);
    }
}
