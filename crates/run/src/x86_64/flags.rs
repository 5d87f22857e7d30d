//! The arithmetic flags, kept as what they are computed from.

use crate::kept::kept;

/// Carry.
pub const CF: u64 = 1;
/// Parity of the low byte.
pub const PF: u64 = 1 << 2;
/// Carry out of bit 3.
pub const AF: u64 = 1 << 4;
/// Zero.
pub const ZF: u64 = 1 << 6;
/// Sign.
pub const SF: u64 = 1 << 7;
/// Direction.
pub const DF: u64 = 1 << 10;
/// Overflow.
pub const OF: u64 = 1 << 11;

/// The bits of an operand of this many bytes.
#[inline(always)]
pub fn mask(size: u8) -> u64 {
    match size {
        1 => 0xff,
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

/// The bits of an operand of this many bytes, counted.
#[inline(always)]
pub fn width(size: u8) -> u32 {
    match size {
        1 => 8,
        2 => 16,
        4 => 32,
        _ => 64,
    }
}

/// The number of an operand of this many bytes, with its sign.
#[inline(always)]
pub fn sign_extended(value: u64, size: u8) -> u64 {
    match size {
        1 => value as u8 as i8 as i64 as u64,
        2 => value as u16 as i16 as i64 as u64,
        4 => value as u32 as i32 as i64 as u64,
        _ => value,
    }
}

/// The flags. Writing them is a few stores; what a flag is, is computed when it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    /// The result, sign extended: ZF, and with `delta` SF and PF.
    result: u64,
    /// What the result differs by from one that has these SF and PF.
    delta: u64,
    /// The carries, bit 63 those out of the highest bit: CF, and with bit 62 OF.
    carries: u64,
    /// AF is its bit 4.
    aux: u64,
}

kept!(Flags { result, delta, carries, aux });

impl Default for Flags {
    fn default() -> Self {
        Flags::of_bits(0)
    }
}

impl Flags {
    /// The flags of a word as PUSHF writes it.
    pub fn of_bits(bits: u64) -> Self {
        let mut flags = Flags { result: 0, delta: 0, carries: 0, aux: bits & AF };
        flags.set_results(bits & ZF != 0, bits & SF != 0, bits & PF != 0);
        flags.set_carry_overflow(bits & CF != 0, bits & OF != 0);
        flags
    }

    /// The word as PUSHF writes it, arithmetic flags only.
    pub fn bits(self) -> u64 {
        let bit = |set, flag| if set { flag } else { 0 };
        bit(self.carry(), CF)
            | bit(self.parity(), PF)
            | (self.aux & AF)
            | bit(self.zero(), ZF)
            | bit(self.sign(), SF)
            | bit(self.overflow(), OF)
    }

    fn set_results(&mut self, zero: bool, sign: bool, parity: bool) {
        // A result that is not zero, with a low byte that is.
        self.result = if zero { 0 } else { 1 << 8 };
        self.delta = u64::from(sign) << 63 | u64::from(!parity);
    }

    #[inline(always)]
    pub fn carry(self) -> bool {
        self.carries >> 63 != 0
    }

    #[inline(always)]
    pub fn overflow(self) -> bool {
        (self.carries ^ (self.carries << 1)) >> 63 != 0
    }

    #[inline(always)]
    pub fn zero(self) -> bool {
        self.result == 0
    }

    #[inline(always)]
    pub fn sign(self) -> bool {
        (self.result ^ self.delta) >> 63 != 0
    }

    #[inline(always)]
    pub fn parity(self) -> bool {
        ((self.result ^ self.delta) as u8).count_ones() & 1 == 0
    }

    /// Sets CF and OF only.
    #[inline(always)]
    pub fn set_carry_overflow(&mut self, carry: bool, overflow: bool) {
        self.carries = u64::from(carry) << 63 | u64::from(carry ^ overflow) << 62;
    }

    /// Sets CF only.
    pub fn set_carry(&mut self, carry: bool) {
        let overflow = self.overflow();
        self.set_carry_overflow(carry, overflow);
    }

    /// Sets ZF only.
    pub fn set_zero(&mut self, zero: bool) {
        let (sign, parity) = (self.sign(), self.parity());
        self.set_results(zero, sign, parity);
    }

    /// Those of a logical operation: CF, OF and AF are clear.
    #[inline(always)]
    pub fn logic(&mut self, result: u64, size: u8) {
        *self = Flags { result: sign_extended(result, size), delta: 0, carries: 0, aux: 0 };
    }

    /// Those of a shift with this result.
    #[inline(always)]
    pub fn shift(&mut self, result: u64, size: u8, carry: bool, overflow: bool) {
        self.logic(result, size);
        self.set_carry_overflow(carry, overflow);
    }

    /// `a + b + carry` in an operand of `size` bytes, and its flags. `a` and `b` have no other bits.
    #[inline(always)]
    pub fn add(&mut self, a: u64, b: u64, carry: bool, size: u8) -> u64 {
        let sum = a.wrapping_add(b).wrapping_add(u64::from(carry)) & mask(size);
        let carries = (a & b) | ((a | b) & !sum);
        let top = 64u32.wrapping_sub(width(size));
        *self = Flags {
            result: sign_extended(sum, size),
            delta: 0,
            carries: carries.wrapping_shl(top),
            aux: a ^ b ^ sum,
        };
        sum
    }

    /// `a - b - borrow`, likewise.
    #[inline(always)]
    pub fn sub(&mut self, a: u64, b: u64, borrow: bool, size: u8) -> u64 {
        let difference = a.wrapping_sub(b).wrapping_sub(u64::from(borrow)) & mask(size);
        let borrows = (!a & b) | ((!a | b) & difference);
        let top = 64u32.wrapping_sub(width(size));
        *self = Flags {
            result: sign_extended(difference, size),
            delta: 0,
            carries: borrows.wrapping_shl(top),
            aux: a ^ b ^ difference,
        };
        difference
    }

    /// Does a condition hold? Its number is that of the low four bits of the opcodes of Jcc, SETcc and CMOVcc.
    #[inline(always)]
    pub fn holds(self, condition: u8) -> bool {
        let holds = match condition >> 1 {
            0 => self.overflow(),
            1 => self.carry(),
            2 => self.zero(),
            3 => self.carry() || self.zero(),
            4 => self.sign(),
            5 => self.parity(),
            6 => self.sign() != self.overflow(),
            _ => self.zero() || self.sign() != self.overflow(),
        };
        holds != (condition & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags of `a + b + carry`, or `a - b - carry`, from numbers that hold all of it.
    fn expected(a: u64, b: u64, carry: bool, size: u8, subtract: bool) -> u64 {
        let signed = |v: u64| i128::from(sign_extended(v, size) as i64);
        let (c, w) = (i128::from(carry), width(size));
        let (whole, signed_whole, low) = if subtract {
            (
                i128::from(a) - i128::from(b) - c,
                signed(a) - signed(b) - c,
                i128::from(a & 15) - i128::from(b & 15) - c,
            )
        } else {
            (
                i128::from(a) + i128::from(b) + c,
                signed(a) + signed(b) + c,
                i128::from(a & 15) + i128::from(b & 15) + c,
            )
        };
        let result = whole as u64 & mask(size);
        let mut flags = 0;
        flags |= if whole < 0 || whole >> w != 0 { CF } else { 0 };
        flags |= if signed_whole != signed(result) { OF } else { 0 };
        flags |= if !(0..=15).contains(&low) { AF } else { 0 };
        flags |= if result == 0 { ZF } else { 0 };
        flags |= if result >> (w - 1) & 1 != 0 { SF } else { 0 };
        flags | if (result as u8).count_ones().is_multiple_of(2) { PF } else { 0 }
    }

    /// Numbers at the edges of all sizes, and some from a generator.
    fn numbers() -> Vec<u64> {
        let edges = [0u64, 1, 2, 15, 16, 0x7f, 0x80, 0x81, 0xff];
        let shifts = [0u32, 8, 24, 56];
        let mut all: Vec<u64> = edges.iter().flat_map(|e| shifts.map(|s| e << s)).collect();
        all.extend(edges.iter().map(|e| !e));
        let mut seed = 1u64;
        all.extend((0..60).map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> (seed >> 60)
        }));
        all
    }

    use alloc::vec::Vec;

    #[test]
    fn sums_and_differences_have_the_flags_of_whole_numbers() {
        let numbers = numbers();
        for size in [1, 2, 4, 8] {
            for a in numbers.iter().map(|n| n & mask(size)) {
                for b in numbers.iter().map(|n| n & mask(size)) {
                    for carry in [false, true] {
                        let mut flags = Flags::default();
                        let sum = flags.add(a, b, carry, size);
                        assert_eq!(sum, a.wrapping_add(b).wrapping_add(carry.into()) & mask(size));
                        assert_eq!(
                            flags.bits(),
                            expected(a, b, carry, size, false),
                            "{a:#x}+{b:#x}+{carry} {size}"
                        );
                        let difference = flags.sub(a, b, carry, size);
                        assert_eq!(difference, a.wrapping_sub(b).wrapping_sub(carry.into()) & mask(size));
                        assert_eq!(
                            flags.bits(),
                            expected(a, b, carry, size, true),
                            "{a:#x}-{b:#x}-{carry} {size}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_combination_of_flags_can_be_set_and_read() {
        for number in 0..64u64 {
            let bits = [CF, PF, AF, ZF, SF, OF].iter().enumerate();
            let bits = bits.filter(|(n, _)| number >> n & 1 != 0).fold(0, |all, (_, bit)| all | bit);
            let flags = Flags::of_bits(bits);
            assert_eq!(flags.bits(), bits);
            for (condition, holds) in [
                (0, bits & OF != 0),
                (2, bits & CF != 0),
                (4, bits & ZF != 0),
                (6, bits & (CF | ZF) != 0),
                (8, bits & SF != 0),
                (10, bits & PF != 0),
                (12, (bits & SF != 0) != (bits & OF != 0)),
                (14, bits & ZF != 0 || (bits & SF != 0) != (bits & OF != 0)),
            ] {
                assert_eq!(flags.holds(condition), holds, "{condition} of {bits:#x}");
                assert_eq!(flags.holds(condition + 1), !holds, "{condition} of {bits:#x}");
            }
            let (mut carry, mut zero) = (flags, flags);
            carry.set_carry(bits & CF == 0);
            zero.set_zero(bits & ZF == 0);
            assert_eq!((carry.bits(), zero.bits()), (bits ^ CF, bits ^ ZF));
        }
    }
}
