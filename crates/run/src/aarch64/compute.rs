//! Instructions of the general registers that are less common.

use super::form::{Decoded, Op};
use super::state::{State, mask};

/// The polynomials of CRC32 and CRC32C, their bits in reverse.
const POLYNOMIALS: [u32; 2] = [0xedb8_8320, 0x82f6_3b78];

fn crc32(crc: u32, value: u64, bytes: u32, polynomial: u32) -> u32 {
    let mut crc = crc;
    for number in 0..bytes {
        crc ^= value.wrapping_shr(number.wrapping_mul(8)) as u32 & 0xff;
        for _ in 0..8 {
            let out = crc & 1;
            crc = crc >> 1 ^ polynomial & out.wrapping_neg();
        }
    }
    crc
}

impl State {
    /// The values of n and m, with their size.
    fn operands(&self, at: &Decoded) -> (u64, u64) {
        (self.x(at.n) & mask(at.wide), self.x(at.m) & mask(at.wide))
    }

    pub(super) fn compute(&mut self, at: &Decoded) {
        let (wide, d) = (at.wide, at.d);
        let (n, m) = self.operands(at);
        let size = if wide { 64u32 } else { 32 };
        let amount = (m as u32) & size.wrapping_sub(1);
        let of_a = || self.x(at.a);
        let wrong = 0;
        let result = match at.op {
            Op::SignedInsert => {
                let field = (n.wrapping_shl(at.k.into()) as i64).wrapping_shr(at.k.into());
                (field as u64).wrapping_shl(at.a.into())
            }
            Op::Extract => self.x(d) & !at.immediate | n.wrapping_shr(at.a.into()) & at.immediate,
            Op::Insert => {
                let field = at.immediate.wrapping_shl(at.a.into());
                self.x(d) & !field | (n & at.immediate).wrapping_shl(at.a.into())
            }
            Op::Extr => {
                let pair = u128::from(n).wrapping_shl(size) | u128::from(m);
                pair.wrapping_shr(at.a.into()) as u64
            }
            Op::ShiftLeft => n.wrapping_shl(amount),
            Op::ShiftRight => n.wrapping_shr(amount),
            Op::ShiftArithmetic if wide => (n as i64).wrapping_shr(amount) as u64,
            Op::ShiftArithmetic => (n as u32 as i32).wrapping_shr(amount) as u64,
            Op::Rotate if wide => n.rotate_right(amount),
            Op::Rotate => (n as u32).rotate_right(amount).into(),
            // Division by zero gives zero.
            Op::UnsignedDivide => n.checked_div(m).unwrap_or(0),
            Op::SignedDivide if m == 0 => 0,
            // The one quotient that is too large is the dividend.
            Op::SignedDivide if wide => {
                (n as i64).checked_div(m as i64).map_or(n, |quotient| quotient as u64)
            }
            Op::SignedDivide => {
                (n as u32 as i32).checked_div(m as u32 as i32).map_or(n, |quotient| quotient as u64)
            }
            Op::Crc32 => {
                let polynomial = POLYNOMIALS.get(usize::from(at.a & 1)).copied().unwrap_or(0);
                crc32(n as u32, self.x(at.m), 1u32.wrapping_shl(at.k.into()), polynomial).into()
            }
            Op::Madd => of_a().wrapping_add(n.wrapping_mul(m)),
            Op::Msub => of_a().wrapping_sub(n.wrapping_mul(m)),
            Op::SignedMadd | Op::SignedMsub => {
                let product = i64::from(n as u32 as i32).wrapping_mul(i64::from(m as u32 as i32)) as u64;
                if at.op == Op::SignedMadd {
                    of_a().wrapping_add(product)
                } else {
                    of_a().wrapping_sub(product)
                }
            }
            Op::UnsignedMadd | Op::UnsignedMsub => {
                let product = (n & 0xffff_ffff).wrapping_mul(m & 0xffff_ffff);
                if at.op == Op::UnsignedMadd {
                    of_a().wrapping_add(product)
                } else {
                    of_a().wrapping_sub(product)
                }
            }
            Op::SignedHigh => (i128::from(n as i64).wrapping_mul(i128::from(m as i64)) >> 64) as u64,
            Op::UnsignedHigh => (u128::from(n).wrapping_mul(u128::from(m)) >> 64) as u64,
            Op::Adc => n.wrapping_add(m).wrapping_add(self.carry().into()),
            Op::Sbc => n.wrapping_add(!m).wrapping_add(self.carry().into()),
            Op::Adcs => self.sum(n, m, self.carry(), wide),
            Op::Sbcs => self.sum(n, !m, self.carry(), wide),
            Op::SelectInvert => {
                if self.holds(at.k) {
                    n
                } else {
                    !m
                }
            }
            Op::SelectNegate => {
                if self.holds(at.k) {
                    n
                } else {
                    m.wrapping_neg()
                }
            }
            Op::CompareR | Op::CompareI | Op::CompareNegatedR | Op::CompareNegatedI => {
                let second = match at.op {
                    Op::CompareI | Op::CompareNegatedI => at.immediate,
                    _ => m,
                };
                if !self.holds(at.k) {
                    self.flags = at.a;
                } else if matches!(at.op, Op::CompareR | Op::CompareI) {
                    self.sum(n, !second, true, wide);
                } else {
                    self.sum(n, second, false, wide);
                }
                return;
            }
            Op::ReverseBits if wide => n.reverse_bits(),
            Op::ReverseBits => (n as u32).reverse_bits().into(),
            Op::ReverseIn16 => (n & 0x00ff_00ff_00ff_00ff) << 8 | n >> 8 & 0x00ff_00ff_00ff_00ff,
            Op::ReverseIn32 => n.swap_bytes().rotate_left(32),
            Op::ReverseIn64 => n.swap_bytes(),
            Op::LeadingZeros => u64::from(n.leading_zeros()).wrapping_sub(64u64.wrapping_sub(size.into())),
            Op::LeadingSigns if wide => {
                u64::from(((n as i64 >> 1) as u64 ^ n).leading_zeros()).wrapping_sub(1)
            }
            Op::LeadingSigns => {
                let value = n as u32;
                u64::from(((value as i32 >> 1) as u32 ^ value).leading_zeros()).wrapping_sub(1)
            }
            // 48 bits of address, for which bit 55 stands; the top byte of data, and of programs, is not of the code.
            Op::Strip => {
                let upper = n >> 55 & 1 != 0;
                let code = if upper && at.a != 0 { 0xffff << 48 } else { 0xff << 48 };
                if upper { n | code } else { n & !code }
            }
            _ => wrong,
        };
        self.set(d, result & mask(wide));
    }
}
