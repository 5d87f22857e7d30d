//! What the rarer instructions do.

use super::cpuid::cpuid;
use super::execute::{Done, FIXED, Flow, IF, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, State};
use super::flags::{DF, Flags, OF, mask, sign_extended, width};
use super::instruction::{Decoded, Op, Operand};
use crate::cpu::{Exception, Trouble};
use crate::memory::Memory;

/// Model-specific registers that are modelled; the others are zero.
const MSR_FS_BASE: u32 = 0xc000_0100;
const MSR_GS_BASE: u32 = 0xc000_0101;
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;
const MSR_EFER: u32 = 0xc000_0080;
/// EFER: SYSCALL, 64 bits, pages that cannot be executed.
const LONG_MODE: u64 = 0xd01;

/// What is left of a division.
fn rest(number: u32, by: u32) -> u32 {
    number.checked_rem(by).unwrap_or(0)
}

impl State {
    /// The other instructions.
    pub(super) fn step_rarely(&mut self, memory: &mut Memory, at: &Decoded, spare: &mut u64) -> Done<Flow> {
        let size = at.size;
        match at.op {
            Op::Rol | Op::Ror | Op::Rcl | Op::Rcr => self.rotate(memory, at)?,
            Op::Shld | Op::Shrd => self.shift_double(memory, at)?,
            Op::Pushf => self.push(memory, self.rflags())?,
            Op::Popf => {
                let bits = self.pop(memory)?;
                self.set_rflags(bits);
            }
            Op::Leave => {
                let sp = self.register(RBP);
                let value = u64::from_le_bytes(memory.load(sp)?);
                self.set_register(RSP, sp.wrapping_add(8));
                self.set_register(RBP, value);
            }
            Op::Jrcxz | Op::Loop => {
                let count = match at.op {
                    Op::Loop => self.register(RCX).wrapping_sub(1),
                    _ => self.register(RCX),
                };
                self.set_register(RCX, count);
                if (count != 0) == (at.op == Op::Loop)
                    && let Operand::Immediate(target) = at.first
                {
                    self.rip = target;
                    return Ok(Flow::Jumped);
                }
            }
            Op::Imul => {
                let (a, b) = match at.third {
                    Operand::None => self.both(memory, at)?,
                    _ => (self.get(memory, &at.second, size)?, self.get(memory, &at.third, size)?),
                };
                let signed = |v| i128::from(sign_extended(v, size) as i64);
                let product = signed(a).wrapping_mul(signed(b));
                let low = product as u64 & mask(size);
                let lost = product != signed(low);
                let mut flags = self.flags;
                flags.shift(low, size, lost, lost);
                self.finish(memory, at, low, flags)?;
            }
            Op::ImulWide => {
                let (a, b) = (self.low(RAX, size), self.get(memory, &at.first, size)?);
                let signed = |v| i128::from(sign_extended(v, size) as i64);
                let product = signed(a).wrapping_mul(signed(b));
                let lost = product != signed(product as u64 & mask(size));
                self.set_product(product as u128, size, lost);
            }
            Op::Mul => {
                let (a, b) = (self.low(RAX, size), self.get(memory, &at.first, size)?);
                let product = u128::from(a).wrapping_mul(u128::from(b));
                self.set_product(product, size, product.wrapping_shr(width(size)) != 0);
            }
            Op::Div | Op::Idiv => self.divide(memory, at)?,
            Op::ExtendA => {
                let value = sign_extended(self.register(RAX), size >> 1);
                self.set_sized(RAX, value, size);
            }
            Op::ExtendAToD => {
                let sign = sign_extended(self.register(RAX), size) >> 63;
                self.set_sized(RDX, 0u64.wrapping_sub(sign), size);
            }
            Op::Xchg => {
                let (a, b) = self.both(memory, at)?;
                // Memory, which may fault, is first if there is any.
                self.set(memory, &at.first, b, size)?;
                self.set(memory, &at.second, a, size)?;
            }
            Op::Xadd => {
                let ((a, b), mut flags) = (self.both(memory, at)?, self.flags);
                let sum = flags.add(a, b, false, size);
                if matches!(at.first, Operand::Memory(_)) {
                    self.set(memory, &at.first, sum, size)?;
                    self.set(memory, &at.second, a, size)?;
                } else {
                    self.set(memory, &at.second, a, size)?;
                    self.set(memory, &at.first, sum, size)?;
                }
                self.flags = flags;
            }
            Op::Cmpxchg => {
                let (old, new) = self.both(memory, at)?;
                let (expected, mut flags) = (self.low(RAX, size), self.flags);
                flags.sub(expected, old, false, size);
                if expected == old {
                    self.set(memory, &at.first, new, size)?;
                } else {
                    // Memory is written as it was: a page that may not be written faults. A register keeps its upper half.
                    if matches!(at.first, Operand::Memory(_)) {
                        self.set(memory, &at.first, old, size)?;
                    }
                    self.set_sized(RAX, old, size);
                }
                self.flags = flags;
            }
            Op::CmpxchgPair => self.compare_exchange_pair(memory, at)?,
            Op::Bt | Op::Bts | Op::Btr | Op::Btc => self.bit(memory, at)?,
            Op::Bsf | Op::Bsr => {
                let value = self.get(memory, &at.second, size)?;
                self.flags.set_zero(value == 0);
                let found =
                    if at.op == Op::Bsf { value.trailing_zeros() } else { 63 ^ value.leading_zeros() };
                // Without a bit the register stays as it is, upper half included.
                if value != 0 {
                    self.set(memory, &at.first, found.into(), size)?;
                }
            }
            Op::Tzcnt | Op::Lzcnt => {
                let value = self.get(memory, &at.second, size)?;
                let found = match at.op {
                    Op::Tzcnt => value.trailing_zeros().min(width(size)),
                    _ => value.leading_zeros().wrapping_sub(64u32.wrapping_sub(width(size))),
                };
                self.flags.set_carry(value == 0);
                self.flags.set_zero(found == 0);
                self.set(memory, &at.first, found.into(), size)?;
            }
            Op::Bswap => {
                let value = self.get(memory, &at.first, size)?;
                let value = match size {
                    8 => value.swap_bytes(),
                    4 => u64::from((value as u32).swap_bytes()),
                    // Undefined; processors clear the two bytes.
                    _ => 0,
                };
                self.set(memory, &at.first, value, size)?;
            }
            Op::Popcnt => {
                let count = u64::from(self.get(memory, &at.second, size)?.count_ones());
                self.set(memory, &at.first, count, size)?;
                self.flags = Flags::of_bits(if count == 0 { super::flags::ZF } else { 0 });
            }
            Op::Movs | Op::Stos | Op::Lods | Op::Scas | Op::Cmps => return self.string(memory, at, spare),
            Op::Cli => self.others &= !IF,
            Op::Sti => self.others |= IF,
            Op::Cld => self.others &= !DF,
            Op::Std => self.others |= DF,
            Op::Clc => self.flags.set_carry(false),
            Op::Stc => self.flags.set_carry(true),
            Op::Cmc => self.flags.set_carry(!self.flags.carry()),
            Op::Lahf => {
                let value = self.register(RAX) & !0xff00 | (self.rflags() & 0xff) << 8;
                self.set_register(RAX, value);
            }
            Op::Sahf => {
                let bits = self.register(RAX) >> 8 & 0xff;
                self.flags = Flags::of_bits(self.flags.bits() & OF | bits & !FIXED);
            }
            Op::Rdtsc => {
                self.tsc = self.tsc.wrapping_add(1000);
                self.set_register(RAX, self.tsc & 0xffff_ffff);
                self.set_register(RDX, self.tsc >> 32);
                // RDTSCP also gives the number of the processor, which is 0.
                if at.len == 3 {
                    self.set_register(RCX, 0);
                }
            }
            Op::Cpuid => {
                let told = cpuid(self.register(RAX) as u32, self.register(RCX) as u32, self.in_use());
                for (register, value) in [RAX, RBX, RCX, RDX].iter().zip(told) {
                    self.set_register(*register, value.into());
                }
            }
            // Nothing answers at any port.
            Op::In => self.set_sized(RAX, u64::MAX, size),
            Op::Nothing => {}
            Op::Rdmsr => {
                let value = match self.register(RCX) as u32 {
                    MSR_FS_BASE => self.fs_base,
                    MSR_GS_BASE => self.gs_base,
                    MSR_KERNEL_GS_BASE => self.kernel_gs_base,
                    MSR_EFER => LONG_MODE,
                    _ => 0,
                };
                self.set_register(RAX, value & 0xffff_ffff);
                self.set_register(RDX, value >> 32);
            }
            Op::Wrmsr => {
                let value = self.register(RDX) << 32 | self.register(RAX) & 0xffff_ffff;
                match self.register(RCX) as u32 {
                    MSR_FS_BASE => self.fs_base = value,
                    MSR_GS_BASE => self.gs_base = value,
                    MSR_KERNEL_GS_BASE => self.kernel_gs_base = value,
                    _ => {}
                }
            }
            Op::Swapgs => core::mem::swap(&mut self.gs_base, &mut self.kernel_gs_base),
            Op::Hlt => return Err(Trouble::Exception(Exception::Halt)),
            Op::Vector(v) => self.vector(memory, at, v)?,
            Op::SaveState
            | Op::RestoreState
            | Op::SaveComponents
            | Op::RestoreComponents
            | Op::GetComponents
            | Op::SetComponents
            | Op::ResetFloat
            | Op::SaveControl
            | Op::LoadControl => self.whole_state(memory, at)?,
            Op::Breakpoint => return Err(Trouble::Exception(Exception::Breakpoint)),
            Op::Undefined => return Err(Trouble::Exception(Exception::Undefined)),
            _ => return self.step_newer(memory, at),
        }
        Ok(Flow::Next)
    }

    /// RDX:RAX, or AX for bytes. ZF, SF, PF and AF are undefined: those of the low half.
    fn set_product(&mut self, product: u128, size: u8, lost: bool) {
        let low = product as u64 & mask(size);
        if size == 1 {
            self.set_sized(RAX, product as u64, 2);
        } else {
            self.set_sized(RAX, low, size);
            self.set_sized(RDX, product.wrapping_shr(width(size)) as u64, size);
        }
        self.flags.shift(low, size, lost, lost);
    }

    fn divide(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let (size, w) = (at.size, width(at.size));
        let divisor = self.get(memory, &at.first, size)?;
        let overflow = Trouble::Exception(Exception::Divide);
        let dividend = match size {
            1 => u128::from(self.low(RAX, 2)),
            _ => u128::from(self.low(RDX, size)).wrapping_shl(w) | u128::from(self.low(RAX, size)),
        };
        let (quotient, remainder) = if at.op == Op::Div {
            let divisor = u128::from(divisor);
            let quotient = dividend.checked_div(divisor).ok_or(overflow)?;
            if quotient > u128::from(mask(size)) {
                return Err(overflow);
            }
            (quotient as u64, dividend.checked_rem(divisor).ok_or(overflow)? as u64)
        } else {
            // Twice as wide, with its sign.
            let unused = 128u32.wrapping_sub(w.wrapping_mul(2));
            let dividend = (dividend.wrapping_shl(unused) as i128).wrapping_shr(unused);
            let divisor = i128::from(sign_extended(divisor, size) as i64);
            let quotient = dividend.checked_div(divisor).ok_or(overflow)?;
            if i128::from(sign_extended(quotient as u64, size) as i64) != quotient {
                return Err(overflow);
            }
            (quotient as u64, dividend.checked_rem(divisor).ok_or(overflow)? as u64)
        };
        if size == 1 {
            self.set_sized(RAX, quotient & 0xff | (remainder & 0xff) << 8, 2);
        } else {
            self.set_sized(RAX, quotient, size);
            self.set_sized(RDX, remainder, size);
        }
        Ok(())
    }

    /// How far to shift: 5 bits of it, 6 for operands of 8 bytes.
    fn count(&self, memory: &mut Memory, operand: &Operand, size: u8) -> Done<u32> {
        let count = match operand {
            // The form that shifts by one has no operand for it in some encodings.
            Operand::None => 1,
            operand => self.get(memory, operand, 1)?,
        };
        Ok((count & if size == 8 { 63 } else { 31 }) as u32)
    }

    #[inline(always)]
    pub(super) fn shift(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let (size, w) = (at.size, width(at.size));
        let count = self.count(memory, &at.second, size)?;
        let value = self.get(memory, &at.first, size)?;
        if count == 0 {
            // Also then 4 bytes clear the upper half.
            return self.set(memory, &at.first, value, size);
        }
        // One bit further, so that the last bit that goes out is seen.
        let less = count.wrapping_sub(1);
        let mut flags = self.flags;
        let result = match at.op {
            Op::Shl => {
                let before = value.wrapping_shl(less);
                let carry = before.wrapping_shr(w.wrapping_sub(1)) & 1 != 0;
                let result = before << 1 & mask(size);
                let sign = result.wrapping_shr(w.wrapping_sub(1)) & 1 != 0;
                flags.shift(result, size, carry, sign != carry);
                result
            }
            Op::Shr => {
                let before = value.wrapping_shr(less);
                let sign = value.wrapping_shr(w.wrapping_sub(1)) & 1 != 0;
                flags.shift(before >> 1, size, before & 1 != 0, sign);
                before >> 1
            }
            _ => {
                let before = (sign_extended(value, size) as i64).wrapping_shr(less);
                let result = (before >> 1) as u64 & mask(size);
                flags.shift(result, size, before & 1 != 0, false);
                result
            }
        };
        self.finish(memory, at, result, flags)
    }

    fn rotate(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let (size, w) = (at.size, width(at.size));
        let count = self.count(memory, &at.second, size)?;
        let value = self.get(memory, &at.first, size)?;
        if count == 0 {
            return self.set(memory, &at.first, value, size);
        }
        let mut flags = self.flags;
        let top = |v: u64, bit: u32| v.wrapping_shr(w.wrapping_sub(bit)) & 1 != 0;
        let (result, carry) = match at.op {
            Op::Rol | Op::Ror => {
                let by = rest(count, w);
                let left = if at.op == Op::Rol { by } else { rest(w.wrapping_sub(by), w) };
                let wide = u128::from(value).wrapping_shl(left);
                let result = (wide | wide.wrapping_shr(w)) as u64 & mask(size);
                (result, if at.op == Op::Rol { result & 1 != 0 } else { top(result, 1) })
            }
            _ => {
                // The carry is one more bit, above the highest.
                let bits = w.wrapping_add(1);
                let by = rest(count, bits);
                let left = if at.op == Op::Rcl { by } else { rest(bits.wrapping_sub(by), bits) };
                let all = u128::from(value) | u128::from(self.flags.carry()).wrapping_shl(w);
                // 65 bits rotated by up to 64 do not fit: by halves.
                let high = all.wrapping_shr(bits.wrapping_sub(left).min(127));
                let low = all & 1u128.wrapping_shl(bits.wrapping_sub(left)).wrapping_sub(1);
                let rotated = if left == 0 { all } else { low.wrapping_shl(left) | high };
                (rotated as u64 & mask(size), rotated.wrapping_shr(w) & 1 != 0)
            }
        };
        let overflow = match at.op {
            Op::Rol | Op::Rcl => top(result, 1) != carry,
            _ => top(result, 1) != top(result, 2),
        };
        flags.set_carry_overflow(carry, overflow);
        self.finish(memory, at, result, flags)
    }

    fn shift_double(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let (size, w) = (at.size, width(at.size));
        let count = self.count(memory, &at.third, size)?;
        let (a, b) = self.both(memory, at)?;
        if count == 0 {
            return self.set(memory, &at.first, a, size);
        }
        // More than the width is undefined; this takes the bits that come after those of the second operand from the first again,
        // as processors do.
        let (a, b) = (u128::from(a), u128::from(b));
        let (result, carry) = if at.op == Op::Shld {
            let pair = a.wrapping_shl(w) | b;
            let shifted = pair.wrapping_shl(count).wrapping_shr(w);
            let shifted = if count > w {
                b.wrapping_shl(count.wrapping_sub(w)) | a.wrapping_shr(w.wrapping_mul(2).wrapping_sub(count))
            } else {
                shifted
            };
            let carry = pair.wrapping_shr(w.wrapping_mul(2).wrapping_sub(count)) & 1 != 0;
            (shifted as u64 & mask(size), carry)
        } else {
            let pair = b.wrapping_shl(w) | a;
            let shifted = pair.wrapping_shr(count);
            let shifted = if count > w {
                shifted | a.wrapping_shl(w.wrapping_mul(2).wrapping_sub(count))
            } else {
                shifted
            };
            let carry = pair.wrapping_shr(count.wrapping_sub(1)) & 1 != 0;
            (shifted as u64 & mask(size), carry)
        };
        let top = w.wrapping_sub(1);
        let changed = (result ^ a as u64).wrapping_shr(top) & 1 != 0;
        let mut flags = self.flags;
        flags.shift(result, size, carry, changed);
        self.finish(memory, at, result, flags)
    }

    fn compare_exchange_pair(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let Operand::Memory(address) = &at.first else { return Err(Trouble::Unknown) };
        let (address, half) = (self.address(address), at.size);
        let behind = address.wrapping_add(u64::from(half));
        if half == 8 && address & 15 != 0 {
            return Err(Trouble::Exception(Exception::Protection));
        }
        let (low, high) = (Self::load(memory, address, half)?, Self::load(memory, behind, half)?);
        let same = (low, high) == (self.low(RAX, half), self.low(RDX, half));
        let (new_low, new_high) = if same { (self.register(RBX), self.register(RCX)) } else { (low, high) };
        // The halves of 16 bytes lie in one page; those of 8 are written as one.
        if half == 8 {
            Self::store(memory, address, new_low, 8)?;
            Self::store(memory, behind, new_high, 8)?;
        } else {
            Self::store(memory, address, new_low & 0xffff_ffff | new_high << 32, 8)?;
        }
        if !same {
            self.set_sized(RAX, low, half);
            self.set_sized(RDX, high, half);
        }
        self.flags.set_zero(same);
        Ok(())
    }

    fn bit(&mut self, memory: &mut Memory, at: &Decoded) -> Done<()> {
        let (size, w) = (at.size, u64::from(width(at.size)));
        let number = self.get(memory, &at.second, size)?;
        // A number in a register may lie outside of the operand in memory.
        let place = match (&at.first, &at.second) {
            (Operand::Memory(address), Operand::Register(_)) => {
                let units = (sign_extended(number, size) as i64).wrapping_shr(w.trailing_zeros()) as u64;
                Some(self.address(address).wrapping_add(units.wrapping_mul(u64::from(size))))
            }
            (Operand::Memory(address), _) => Some(self.address(address)),
            _ => None,
        };
        let value = match place {
            Some(place) => Self::load(memory, place, size)?,
            None => self.get(memory, &at.first, size)?,
        };
        let bit = 1u64.wrapping_shl((number & w.wrapping_sub(1)) as u32);
        let new = match at.op {
            Op::Bts => value | bit,
            Op::Btr => value & !bit,
            Op::Btc => value ^ bit,
            _ => value,
        };
        if at.op != Op::Bt {
            match place {
                Some(place) => Self::store(memory, place, new, size)?,
                None => self.set(memory, &at.first, new, size)?,
            }
        }
        self.flags.set_carry(value & bit != 0);
        Ok(())
    }

    /// String instructions. Each round counts as an instruction, so that no budget is overdrawn.
    fn string(&mut self, memory: &mut Memory, at: &Decoded, spare: &mut u64) -> Done<Flow> {
        let size = at.size;
        let step = match self.others & DF {
            0 => u64::from(size),
            _ => 0u64.wrapping_sub(u64::from(size)),
        };
        if at.repeat == 0 {
            self.string_round(memory, at.op, size, step)?;
            return Ok(Flow::Next);
        }
        let mut first = true;
        while self.register(RCX) != 0 {
            if !core::mem::take(&mut first) {
                match spare.checked_sub(1) {
                    Some(rest) => *spare = rest,
                    None => return Ok(Flow::Again),
                }
            }
            self.string_round(memory, at.op, size, step)?;
            self.set_register(RCX, self.register(RCX).wrapping_sub(1));
            if matches!(at.op, Op::Scas | Op::Cmps) && self.flags.zero() != (at.repeat == 1) {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn string_round(&mut self, memory: &mut Memory, op: Op, size: u8, step: u64) -> Done<()> {
        let (from, to) = (self.register(RSI), self.register(RDI));
        match op {
            Op::Movs => {
                let value = Self::load(memory, from, size)?;
                Self::store(memory, to, value, size)?;
            }
            Op::Stos => Self::store(memory, to, self.register(RAX), size)?,
            Op::Lods => {
                let value = Self::load(memory, from, size)?;
                self.set_sized(RAX, value, size);
            }
            Op::Scas => {
                let value = Self::load(memory, to, size)?;
                let a = self.low(RAX, size);
                self.flags.sub(a, value, false, size);
            }
            _ => {
                let a = Self::load(memory, from, size)?;
                let b = Self::load(memory, to, size)?;
                self.flags.sub(a, b, false, size);
            }
        }
        if matches!(op, Op::Movs | Op::Lods | Op::Cmps) {
            self.set_register(RSI, from.wrapping_add(step));
        }
        if op != Op::Lods {
            self.set_register(RDI, to.wrapping_add(step));
        }
        Ok(())
    }
}
