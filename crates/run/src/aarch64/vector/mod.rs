//! Vectors: integers, permutations, AES, carry-less multiplication and SHA, of 8 and 16 bytes, and their loads and stores.

mod ciphers;
pub(super) mod decode;
mod lanes;
pub(super) mod memory;
pub(super) mod operation;
pub(super) mod registers;

use super::form::{Decoded, Op};
use super::state::{Done, State, mask};
use crate::ciphers::multiplied;
use crate::cpu::Trouble;
use crate::lanes::{gather, pick, signed, width};
use operation::V;

/// Registers of a table at most.
const TABLE: usize = 4;

impl State {
    /// An instruction for vectors that has no operand in memory.
    pub(super) fn vector(&mut self, at: &Decoded) -> Done<()> {
        let (element, unsigned) = (at.k, at.a != 0);
        let [before, n, m] = [at.d, at.n, at.m].map(|register| self.vectors.get(register));
        let by = at.immediate as u32;
        let bytes = if at.wide { 16 } else { 8 };
        let wide = |value| lanes::widened(element, unsigned, at.wide, value);
        let result = match at.op {
            Op::VectorSame => {
                let second = if at.immediate == 0 { m } else { by_number(at, m) };
                lanes::same(at.v, element, unsigned, [n, second, before])
            }
            // Of these the whole target is written.
            Op::VectorLong => {
                let second = if at.immediate == 0 { m } else { by_number(at, m) };
                let value = if element == 8 {
                    let half = |value: u128| if at.wide { value >> 64 } else { value } as u64;
                    multiplied(half(n), half(m))
                } else {
                    lanes::same(at.v, element << 1, unsigned, [wide(n), wide(second), before])
                };
                self.vectors.set(at.d, value);
                return Ok(());
            }
            Op::VectorWide => {
                let value = lanes::same(at.v, element << 1, unsigned, [n, wide(m), before]);
                self.vectors.set(at.d, value);
                return Ok(());
            }
            Op::VectorLongByCount => {
                let value = lanes::shift(at.v, element << 1, unsigned, by, wide(n), before);
                self.vectors.set(at.d, value);
                return Ok(());
            }
            Op::VectorUpper => {
                // The upper half of each element; RADDHN and RSUBHN are rounded.
                let whole = lanes::same(at.v, element << 1, true, [n, m, 0]);
                let v = if unsigned { V::RoundingShiftRight } else { V::ShiftRight };
                self.narrow(at, lanes::shift(v, element << 1, true, width(element), whole, 0));
                return Ok(());
            }
            Op::VectorNarrowByCount => {
                self.narrow(at, lanes::shift(at.v, element << 1, true, by, n, 0));
                return Ok(());
            }
            Op::VectorByCount => lanes::shift(at.v, element, unsigned, by, n, before),
            Op::VectorPairs => lanes::pairs(at.v, element, unsigned, bytes, n, m),
            Op::VectorOne => lanes::unary(at.v, element, at.immediate, n),
            Op::VectorWideSums => {
                lanes::wide_sums(element, unsigned, n, if at.immediate == 0 { 0 } else { before })
            }
            Op::VectorAcross => {
                let result = lanes::across(at.v, element, unsigned, bytes, n) as u128;
                u128::from(pick(element.wrapping_shl(by), result, 0))
            }
            Op::VectorPermute if at.v == V::Extract => {
                let last = u32::from(bytes).wrapping_sub(1);
                gather(1, |number| {
                    let from = number.wrapping_add(by);
                    pick(1, if from <= last { n } else { m }, from & last)
                })
            }
            Op::VectorPermute => lanes::permuted(at.v, element, bytes, n, m),
            Op::VectorTable => {
                let mut registers = [0; TABLE];
                for (number, register) in (0..).zip(&mut registers) {
                    *register = self.vectors.get(at.n.wrapping_add(number));
                }
                let len = usize::from(at.a).wrapping_add(1);
                let otherwise = if at.immediate == 0 { 0 } else { before };
                lanes::table(registers.get(..len).unwrap_or_default(), m, otherwise)
            }
            Op::VectorCipher => ciphers::ciphered(at.v, [before, n, m, self.vectors.get(at.a)], at.immediate),
            Op::VectorMove => return self.move_element(at),
            _ => return Err(Trouble::Unknown),
        };
        self.set_vector(at, result);
        Ok(())
    }

    /// As many bytes of the target as the instruction is for; those above are zero.
    fn set_vector(&mut self, at: &Decoded, value: u128) {
        let value = if at.wide { value } else { value & u128::from(u64::MAX) };
        self.vectors.set(at.d, value);
    }

    /// The lower halves of elements: to the upper half of the target, or to the lower one with zeros above.
    fn narrow(&mut self, at: &Decoded, value: u128) {
        let value = lanes::narrowed(at.k, value);
        let before = self.vectors.get(at.d) & u128::from(u64::MAX);
        self.vectors.set(at.d, if at.wide { value << 64 | before } else { value });
    }

    /// Moves between registers.
    fn move_element(&mut self, at: &Decoded) -> Done<()> {
        let (to, from) = (at.immediate as u32 & 0xff, at.immediate as u32 >> 8 & 0xff);
        let (before, n) = (self.vectors.get(at.d), self.vectors.get(at.n));
        let constant = u128::from(at.immediate) << 64 | u128::from(at.immediate);
        let result = match at.v {
            V::Duplicate => gather(at.k, |_| pick(at.k, n, to)),
            V::DuplicateGeneral => gather(at.k, |_| self.x(at.n)),
            V::InsertElement => inserted(at.k, before, to, pick(at.k, n, from)),
            V::InsertGeneral => {
                // The whole register, however many bytes the instruction is for.
                self.vectors.set(at.d, inserted(at.k, before, to, self.x(at.n)));
                return Ok(());
            }
            V::Scalar => pick(at.k, n, to).into(),
            V::FromGeneral => pick(at.k, self.x(at.n).into(), 0).into(),
            V::Take => {
                self.set(at.d, pick(at.k, n, to));
                return Ok(());
            }
            V::TakeSigned => {
                self.set(at.d, signed(at.k, pick(at.k, n, to)) as u64 & mask(at.wide));
                return Ok(());
            }
            V::Constant => constant,
            V::OrConstant => before | constant,
            V::ClearConstant => before & !constant,
            _ => return Err(Trouble::Unknown),
        };
        self.set_vector(at, result);
        Ok(())
    }
}

/// The second operand where it is not the register m: zero, or one element of it for all.
fn by_number(at: &Decoded, m: u128) -> u128 {
    match (at.immediate as u32).checked_sub(2) {
        None => 0,
        Some(number) => gather(at.k, |_| pick(at.k, m, number)),
    }
}

/// With one element replaced.
fn inserted(element: u8, value: u128, number: u32, new: u64) -> u128 {
    gather(element, |at| if at == number { new } else { pick(element, value, at) })
}
