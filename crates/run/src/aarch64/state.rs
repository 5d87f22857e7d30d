//! The registers, and what reads and sets them.

use super::form::{SINK, ZERO};
use super::system::{self, SLOTS};
use super::vector::registers::Vectors;
use crate::cpu::{Registers, Trouble};
use crate::kept::kept;

/// Flags, as bits of NZCV.
pub(super) const N: u8 = 8;
pub(super) const Z: u8 = 4;
pub(super) const C: u8 = 2;
pub(super) const V: u8 = 1;
/// Of each condition: for which flags it holds, one bit for each value of NZCV.
const CONDITIONS: [u16; 16] = conditions();

const fn conditions() -> [u16; 16] {
    let mut all = [0u16; 16];
    let mut flags: u8 = 0;
    while flags < 16 {
        let (n, z, c, v) = (flags & N != 0, flags & Z != 0, flags & C != 0, flags & V != 0);
        let holds = [z, c, n, v, c && !z, n == v, n == v && !z, true];
        let mut rest: &[bool] = &holds;
        let mut all_left: &mut [u16] = &mut all;
        while let ([is, others @ ..], [even, odd, left @ ..]) = (rest, all_left) {
            let bit = 1u16 << flags;
            if *is {
                *even |= bit;
            } else {
                *odd |= bit;
            }
            (rest, all_left) = (others, left);
        }
        flags = flags.wrapping_add(1);
    }
    // NV is as AL.
    let [.., always, never] = &mut all;
    *never = *always;
    all
}

/// The registers.
#[derive(Clone, Debug)]
pub struct State {
    /// The general registers; zero, the stack pointer, and what is written to zero.
    pub(super) general: [u64; 64],
    /// The next instruction.
    pub pc: u64,
    /// Its bits from 3 to 0 are N, Z, C and V.
    pub(super) flags: u8,
    pub(super) system: [u64; SLOTS],
    /// What the counter reads next.
    pub counter: u64,
    /// Address and size of the last exclusive load.
    pub(super) monitor: Option<(u64, u64)>,
    pub(super) vectors: Vectors,
}

impl Registers for State {}

kept!(State { general, pc, flags, system, counter, monitor, vectors });

impl Default for State {
    fn default() -> Self {
        State {
            general: [0; 64],
            pc: 0,
            flags: 0,
            system: system::reset(),
            counter: 0,
            monitor: None,
            vectors: Vectors::default(),
        }
    }
}

pub(super) type Done<T> = Result<T, Trouble>;

pub(super) fn mask(wide: bool) -> u64 {
    if wide { u64::MAX } else { 0xffff_ffff }
}

/// The lowest 8 << size bits, with their sign.
pub(super) fn sign_extended(value: u64, size: u8) -> u64 {
    let unused = 64u32.wrapping_sub(8u32.wrapping_shl(u32::from(size & 3)));
    ((value.wrapping_shl(unused)) as i64).wrapping_shr(unused) as u64
}

/// Does a number have the bit of its size that is its sign?
pub(super) fn sign(value: u64, wide: bool) -> bool {
    let bit = if wide { 63 } else { 31 };
    value.wrapping_shr(bit) & 1 != 0
}

impl State {
    #[inline(always)]
    pub(super) fn x(&self, register: u8) -> u64 {
        self.general.get(usize::from(register & 63)).copied().unwrap_or(0)
    }

    #[inline(always)]
    pub(super) fn set(&mut self, register: u8, value: u64) {
        if let Some(slot) = self.general.get_mut(usize::from(register & 63)) {
            *slot = value;
        }
    }

    /// Sets a register that is known by its number as a source.
    pub(super) fn set_source(&mut self, register: u8, value: u64) {
        self.set(if register == ZERO { SINK } else { register }, value);
    }

    #[inline(always)]
    pub(super) fn holds(&self, condition: u8) -> bool {
        let row = CONDITIONS.get(usize::from(condition & 15)).copied().unwrap_or(0);
        row.wrapping_shr(u32::from(self.flags & 15)) & 1 != 0
    }

    /// `AddWithCarry`: the sum, with its flags set.
    #[inline(always)]
    pub(super) fn sum(&mut self, a: u64, b: u64, carry: bool, wide: bool) -> u64 {
        let carry = u64::from(carry);
        let (result, out, overflow) = if wide {
            let (sum, first) = a.overflowing_add(b);
            let (sum, second) = sum.overflowing_add(carry);
            (sum, first || second, ((a ^ sum) & (b ^ sum)) >> 63 != 0)
        } else {
            let (a, b) = (a & 0xffff_ffff, b & 0xffff_ffff);
            let sum = a.wrapping_add(b).wrapping_add(carry);
            (sum & 0xffff_ffff, sum >> 32 != 0, ((a ^ sum) & (b ^ sum)) >> 31 & 1 != 0)
        };
        self.flags = u8::from(sign(result, wide)) << 3
            | u8::from(result == 0) << 2
            | u8::from(out) << 1
            | u8::from(overflow);
        result
    }

    pub(super) fn carry(&self) -> bool {
        self.flags & C != 0
    }
}

/// A register as an index or an operand: UXTB to SXTX.
pub(super) fn extended(value: u64, kind: u8) -> u64 {
    match kind & 7 {
        0 => value & 0xff,
        1 => value & 0xffff,
        2 => value & 0xffff_ffff,
        4..=6 => sign_extended(value, kind & 3),
        _ => value,
    }
}
