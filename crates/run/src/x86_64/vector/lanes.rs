//! What is done with each half of a vector by itself.

use super::ciphers;
use super::operation::V;
use crate::cpu::Trouble;
use crate::lanes::{each, gather, lowest, pick, signed, width};

/// Element by element, as numbers with a sign, and what does not fit becomes the nearest that does.
fn each_within(element: u8, a: u128, b: u128, of: impl Fn(i64, i64) -> i64) -> u128 {
    let top = (u64::MAX.wrapping_shr(65u32.wrapping_sub(width(element)))) as i64;
    each(element, a, b, |a, b| of(signed(element, a), signed(element, b)).clamp(!top, top) as u64)
}

/// Of two vectors one after the other: pairs of neighbours.
fn pairs(element: u8, a: u128, b: u128, of: impl Fn(u64, u64) -> u64) -> u128 {
    let half = 64u32.checked_div(width(element)).unwrap_or(1);
    gather(element, |number| {
        let (from, number) = if number < half { (a, number) } else { (b, number.wrapping_sub(half)) };
        let first = number.wrapping_mul(2);
        of(pick(element, from, first), pick(element, from, first.wrapping_add(1)))
    })
}

/// Elements half as wide: those of the first vector, then those of the second.
fn pack(element: u8, a: u128, b: u128, lowest: i64, highest: i64) -> u128 {
    let half = 128u32.checked_div(width(element)).unwrap_or(1);
    gather(element >> 1, |number| {
        let (from, number) = if number < half { (a, number) } else { (b, number.wrapping_sub(half)) };
        signed(element, pick(element, from, number)).clamp(lowest, highest) as u64
    })
}

/// Two bits of a byte.
fn two_bits(byte: u8, number: u32) -> u32 {
    u32::from(byte).wrapping_shr(number.wrapping_mul(2)) & 3
}

/// Elements of the second vector where the bits are set, else of the first.
pub(super) fn blend(element: u8, a: u128, b: u128, bits: u8) -> u128 {
    gather(element, |number| {
        let from = if u32::from(bits).wrapping_shr(number) & 1 != 0 { b } else { a };
        pick(element, from, number)
    })
}

/// With three sources.
pub(super) fn ternary(v: V, element: u8, a: u128, b: u128, c: u128) -> u128 {
    if v == V::Sha256Rounds {
        return ciphers::sha256_rounds(a, b, c);
    }
    gather(element, |number| {
        let from = if signed(element, pick(element, c, number)) < 0 { b } else { a };
        pick(element, from, number)
    })
}

/// By a count that is the same for all elements.
pub(super) fn shift(v: V, element: u8, a: u128, count: u64) -> u128 {
    let bits = u64::from(width(element));
    let by = count.min(bits) as u32;
    match v {
        V::ShiftBytesLeft | V::ShiftBytesRight => {
            let by = (count.min(16) as u32).wrapping_mul(8);
            let shifted = if v == V::ShiftBytesLeft { a.checked_shl(by) } else { a.checked_shr(by) };
            shifted.unwrap_or(0)
        }
        V::ShiftLeft => each(element, a, 0, |a, _| a.checked_shl(by).unwrap_or(0)),
        V::ShiftRight => each(element, a, 0, |a, _| a.checked_shr(by).unwrap_or(0)),
        _ => each(element, a, 0, |a, _| signed(element, a).wrapping_shr(by.min(63)) as u64),
    }
}

/// With two sources, of which the first may be empty.
pub(super) fn binary(v: V, element: u8, a: u128, b: u128, immediate: u8) -> Result<u128, Trouble> {
    let e = element;
    let flag = |holds: bool| if holds { u64::MAX } else { 0 };
    let low_signed = |value: u64| signed(4, value);
    Ok(match v {
        V::And => a & b,
        V::AndNot => !a & b,
        V::Or => a | b,
        V::Xor => a ^ b,
        V::Add => each(e, a, b, u64::wrapping_add),
        V::AddSigned => each_within(e, a, b, i64::wrapping_add),
        V::AddUnsigned => each(e, a, b, |a, b| a.wrapping_add(b).min(lowest(e, u128::MAX))),
        V::Subtract => each(e, a, b, u64::wrapping_sub),
        V::SubtractSigned => each_within(e, a, b, i64::wrapping_sub),
        V::SubtractUnsigned => each(e, a, b, u64::saturating_sub),
        V::Equal => each(e, a, b, |a, b| flag(a == b)),
        V::Greater => each(e, a, b, |a, b| flag(signed(e, a) > signed(e, b))),
        V::MinimumSigned => each_within(e, a, b, i64::min),
        V::MaximumSigned => each_within(e, a, b, i64::max),
        V::MinimumUnsigned => each(e, a, b, u64::min),
        V::MaximumUnsigned => each(e, a, b, u64::max),
        V::Average => each(e, a, b, |a, b| a.wrapping_add(b).wrapping_add(1) >> 1),
        V::Sign => each(e, a, b, |a, b| match signed(e, b) {
            0 => 0,
            1.. => a,
            _ => a.wrapping_neg(),
        }),
        V::Absolute => each(e, 0, b, |_, b| signed(e, b).unsigned_abs()),
        V::MultiplyLow => each(e, a, b, u64::wrapping_mul),
        V::MultiplyHighUnsigned => each(e, a, b, |a, b| a.wrapping_mul(b) >> 16),
        V::MultiplyHighSigned => each(e, a, b, |a, b| (signed(e, a).wrapping_mul(signed(e, b)) >> 16) as u64),
        V::MultiplyRounded => each(e, a, b, |a, b| {
            ((signed(e, a).wrapping_mul(signed(e, b)) >> 14).wrapping_add(1) >> 1) as u64
        }),
        V::MultiplyWideSigned => {
            each(8, a, b, |a, b| low_signed(a & 0xffff_ffff).wrapping_mul(low_signed(b & 0xffff_ffff)) as u64)
        }
        V::MultiplyWideUnsigned => each(8, a, b, |a, b| (a & 0xffff_ffff).wrapping_mul(b & 0xffff_ffff)),
        V::MultiplyAdd => each(4, a, b, |a, b| {
            let product = |at: u32| {
                let (a, b) = (a.wrapping_shr(at) & 0xffff, b.wrapping_shr(at) & 0xffff);
                signed(2, a).wrapping_mul(signed(2, b))
            };
            product(0).wrapping_add(product(16)) as u64
        }),
        V::MultiplyAddBytes => each(2, a, b, |a, b| {
            // Bytes without a sign by bytes with one.
            let product = |at: u32| {
                let (a, b) = (a.wrapping_shr(at) & 0xff, b.wrapping_shr(at) & 0xff);
                (a as i64).wrapping_mul(signed(1, b))
            };
            product(0).wrapping_add(product(8)).clamp(i16::MIN.into(), i16::MAX.into()) as u64
        }),
        V::Differences => each(8, a, b, |a, b| {
            let bytes = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
            bytes.fold(0, |sum: u64, (a, b)| sum.wrapping_add(a.abs_diff(b).into()))
        }),
        V::HorizontalAdd => pairs(e, a, b, u64::wrapping_add),
        V::HorizontalSubtract => pairs(e, a, b, u64::wrapping_sub),
        V::HorizontalAddSigned => pairs(e, a, b, |a, b| within_word(signed(e, a).wrapping_add(signed(e, b)))),
        V::HorizontalSubtractSigned => {
            pairs(e, a, b, |a, b| within_word(signed(e, a).wrapping_sub(signed(e, b))))
        }
        V::ShiftLeftEach => {
            each(e, a, b, |a, b| if b < width(e).into() { a.wrapping_shl(b as u32) } else { 0 })
        }
        V::ShiftRightEach => {
            each(e, a, b, |a, b| if b < width(e).into() { a.wrapping_shr(b as u32) } else { 0 })
        }
        V::ShiftSignedEach => each(e, a, b, |a, b| signed(e, a).wrapping_shr(b.min(63) as u32) as u64),
        V::PackSigned if e == 2 => pack(e, a, b, i8::MIN.into(), i8::MAX.into()),
        V::PackSigned => pack(e, a, b, i16::MIN.into(), i16::MAX.into()),
        V::PackUnsigned if e == 2 => pack(e, a, b, 0, u8::MAX.into()),
        V::PackUnsigned => pack(e, a, b, 0, u16::MAX.into()),
        V::UnpackLow | V::UnpackHigh => {
            let half = 64u32.checked_div(width(e)).unwrap_or(1);
            let first = if v == V::UnpackHigh { half } else { 0 };
            gather(e, |number| {
                let from = if number & 1 == 0 { a } else { b };
                pick(e, from, first.wrapping_add(number >> 1))
            })
        }
        V::ShuffleBytes => each(1, 0, b, |_, b| if b & 0x80 != 0 { 0 } else { pick(1, a, (b & 15) as u32) }),
        V::Align => {
            // The second source lies below the first.
            let by = u32::from(immediate).wrapping_mul(8);
            let low = b.checked_shr(by).unwrap_or(0);
            let high = if by < 128 {
                a.checked_shl(128u32.wrapping_sub(by)).unwrap_or(0)
            } else {
                a.checked_shr(by.wrapping_sub(128)).unwrap_or(0)
            };
            low | high
        }
        V::Shuffle32 => gather(4, |number| pick(4, b, two_bits(immediate, number))),
        V::PermuteInHalf if e == 4 => gather(4, |number| pick(4, b, two_bits(immediate, number))),
        V::PermuteInHalf => gather(8, |number| pick(8, b, u32::from(immediate).wrapping_shr(number) & 1)),
        V::ShuffleLow => {
            gather(2, |number| pick(2, b, if number < 4 { two_bits(immediate, number) } else { number }))
        }
        V::ShuffleHigh => gather(2, |number| {
            let above = |number| two_bits(immediate, number).wrapping_add(4);
            pick(2, b, if number < 4 { number } else { above(number.wrapping_sub(4)) })
        }),
        V::ShufflePair if e == 4 => {
            gather(4, |number| pick(4, if number < 2 { a } else { b }, two_bits(immediate, number)))
        }
        V::ShufflePair => gather(8, |number| {
            pick(8, if number < 1 { a } else { b }, u32::from(immediate).wrapping_shr(number) & 1)
        }),
        V::DuplicateLow => gather(e, |number| pick(e, b, number & !1)),
        V::DuplicateHigh => gather(e, |number| pick(e, b, number | 1)),
        _ => return ciphers::binary(v, a, b, immediate),
    })
}

fn within_word(value: i64) -> u64 {
    value.clamp(i16::MIN.into(), i16::MAX.into()) as u64
}
