//! What is done with the elements of vectors.

use super::operation::V;
use crate::ciphers::multiplied;
use crate::lanes::{each, gather, lowest, pick, signed, width};

/// An element as a number.
fn number(element: u8, unsigned: bool, value: u64) -> i128 {
    if unsigned { value.into() } else { signed(element, value).into() }
}

/// An element by an element, added to what was there.
fn one(v: V, element: u8, a: i128, b: i128, before: i128) -> i128 {
    let flag = |holds: bool| if holds { -1 } else { 0 };
    match v {
        V::Add => a.wrapping_add(b),
        V::Subtract => a.wrapping_sub(b),
        V::HalvingAdd => a.wrapping_add(b) >> 1,
        V::RoundingHalvingAdd => a.wrapping_add(b).wrapping_add(1) >> 1,
        V::HalvingSubtract => a.wrapping_sub(b) >> 1,
        V::Maximum => a.max(b),
        V::Minimum => a.min(b),
        V::Difference => a.wrapping_sub(b).wrapping_abs(),
        V::DifferenceAdd => before.wrapping_add(a.wrapping_sub(b).wrapping_abs()),
        V::Multiply => a.wrapping_mul(b),
        V::MultiplyAdd => before.wrapping_add(a.wrapping_mul(b)),
        V::MultiplySubtract => before.wrapping_sub(a.wrapping_mul(b)),
        V::MultiplyPolynomials => multiplied(a as u64, b as u64) as i128,
        V::Greater => flag(a > b),
        V::GreaterOrEqual => flag(a >= b),
        V::Equal => flag(a == b),
        V::Test => flag(a & b != 0),
        // The count is the lowest byte, which has a sign.
        V::ShiftEach => match i32::from(b as i8) {
            by @ 0.. => shifted_left(element, a, by as u32),
            by => a.wrapping_shr(by.unsigned_abs().min(127)),
        },
        _ => 0,
    }
}

fn shifted_left(element: u8, value: i128, by: u32) -> i128 {
    if by < width(element) { value.wrapping_shl(by) } else { 0 }
}

/// Elements of two vectors, and of what was in the third.
pub(super) fn same(v: V, element: u8, unsigned: bool, [a, b, before]: [u128; 3]) -> u128 {
    match v {
        V::And => return a & b,
        V::AndNot => return a & !b,
        V::Or => return a | b,
        V::OrNot => return a | !b,
        V::Xor => return a ^ b,
        V::Choose => return before & a | !before & b,
        V::ReplaceWhereSet => return before & !b | a & b,
        V::ReplaceWhereClear => return before & b | a & !b,
        _ => {}
    }
    let of = |value| number(element, unsigned, value);
    gather(element, |at| {
        let [a, b, before] = [a, b, before].map(|vector| of(pick(element, vector, at)));
        one(v, element, a, b, before) as u64
    })
}

/// Elements half of a vector twice as wide: of the upper half, or of the lower one.
pub(super) fn widened(element: u8, unsigned: bool, upper: bool, value: u128) -> u128 {
    let value = if upper { value >> 64 } else { value };
    gather(element << 1, |at| number(element, unsigned, pick(element, value, at)) as u64)
}

/// The lower half of each element, side by side, with zeros above.
pub(super) fn narrowed(element: u8, value: u128) -> u128 {
    let count = 64u32.checked_div(width(element)).unwrap_or(0);
    gather(element, |at| if at < count { pick(element << 1, value, at) } else { 0 })
}

/// Pairs of neighbours, of one vector and then of the other, of which so many bytes count.
pub(super) fn pairs(v: V, element: u8, unsigned: bool, bytes: u8, a: u128, b: u128) -> u128 {
    let half = u32::from(bytes).checked_div(u32::from(element) << 1).unwrap_or(1);
    let of = |value| number(element, unsigned, value);
    gather(element, |at| {
        let (from, at) = if at < half { (a, at) } else { (b, at.wrapping_sub(half)) };
        let first = at.wrapping_mul(2);
        let (a, b) = (pick(element, from, first), pick(element, from, first.wrapping_add(1)));
        one(v, element, of(a), of(b), 0) as u64
    })
}

/// Sums of neighbours in elements twice as wide, added to what was there.
pub(super) fn wide_sums(element: u8, unsigned: bool, value: u128, before: u128) -> u128 {
    gather(element << 1, |at| {
        let first = at.wrapping_mul(2);
        let of = |at| number(element, unsigned, pick(element, value, at)) as u64;
        let sum = of(first).wrapping_add(of(first.wrapping_add(1)));
        pick(element << 1, before, at).wrapping_add(sum)
    })
}

/// All elements of so many bytes in one.
pub(super) fn across(v: V, element: u8, unsigned: bool, bytes: u8, value: u128) -> i128 {
    let count = u32::from(bytes).checked_div(element.into()).unwrap_or(1);
    let of = |at| number(element, unsigned, pick(element, value, at));
    (1..count).fold(of(0), |all, at| one(v, element, all, of(at), 0))
}

/// Of elements of one vector.
pub(super) fn unary(v: V, element: u8, container: u64, a: u128) -> u128 {
    let unused = 64u32.wrapping_sub(width(element));
    let flag = |holds: bool| if holds { u64::MAX } else { 0 };
    let zeros = |value: u64| u64::from(value.leading_zeros().wrapping_sub(unused));
    match v {
        V::Not => return !a,
        V::Reverse => {
            // Elements in a container are a power of two: to reverse them is to invert the bits of their numbers.
            let last = (container as u32).checked_div(element.into()).unwrap_or(1).wrapping_sub(1);
            return gather(element, |at| pick(element, a, at ^ last));
        }
        _ => {}
    }
    each(element, a, 0, |a, _| {
        let value = signed(element, a);
        match v {
            V::LessZero => flag(value < 0),
            V::LessOrEqualZero => flag(value <= 0),
            V::Absolute => value.unsigned_abs(),
            V::Negate => a.wrapping_neg(),
            V::ReverseBits => a.reverse_bits().wrapping_shr(unused),
            V::CountBits => a.count_ones().into(),
            V::CountZeros => zeros(a),
            // What is equal to the sign next to it.
            V::CountSigns => zeros(lowest(element, ((value >> 1) ^ value) as u64 as u128)).wrapping_sub(1),
            _ => 0,
        }
    })
}

/// By a count that is the same for all elements.
pub(super) fn shift(v: V, element: u8, unsigned: bool, by: u32, a: u128, before: u128) -> u128 {
    let bits = width(element);
    let ones = lowest(element, u128::MAX);
    each(element, a, before, |a, before| {
        let right = |rounding: i128| {
            (number(element, unsigned, a).wrapping_add(rounding)).wrapping_shr(by.min(127)) as u64
        };
        let half = 1i128.wrapping_shl(by.wrapping_sub(1));
        match v {
            V::ShiftLeft => a.wrapping_shl(by),
            V::ShiftLeftInsert => before & !ones.wrapping_shl(by) | a.wrapping_shl(by),
            V::ShiftRight => right(0),
            V::ShiftRightAdd => before.wrapping_add(right(0)),
            V::RoundingShiftRight => right(half),
            V::RoundingShiftRightAdd => before.wrapping_add(right(half)),
            // By as many bits as there are nothing is inserted.
            _ if by >= bits => before,
            _ => before & !ones.wrapping_shr(by) | a.wrapping_shr(by),
        }
    })
}

/// Elements of two vectors, of which so many bytes count, in another order.
pub(super) fn permuted(v: V, element: u8, bytes: u8, a: u128, b: u128) -> u128 {
    let count = u32::from(bytes).checked_div(element.into()).unwrap_or(1);
    let half = count >> 1;
    gather(element, |at| {
        // The numbers of the elements in a, and behind them those in b.
        let from = match v {
            V::Zip1 => (at >> 1).wrapping_add(if at & 1 != 0 { count } else { 0 }),
            V::Zip2 => (at >> 1).wrapping_add(half).wrapping_add(if at & 1 != 0 { count } else { 0 }),
            V::Unzip1 => at.wrapping_mul(2),
            V::Unzip2 => at.wrapping_mul(2).wrapping_add(1),
            V::Transpose1 => (at & !1).wrapping_add(if at & 1 != 0 { count } else { 0 }),
            _ => (at | 1).wrapping_add(if at & 1 != 0 { count } else { 0 }),
        };
        if from < count { pick(element, a, from) } else { pick(element, b, from.wrapping_sub(count)) }
    })
}

/// Bytes from a table of registers. A number behind it gives that of `otherwise`.
pub(super) fn table(registers: &[u128], numbers: u128, otherwise: u128) -> u128 {
    gather(1, |at| {
        let number = pick(1, numbers, at) as u32;
        let register = registers.get((number >> 4) as usize);
        register.map_or(pick(1, otherwise, at), |register| pick(1, *register, number & 15))
    })
}
