//! Vectors as numbers of 128 bits, and their elements. Elements are 1, 2, 4 or 8 bytes wide; the lowest has the number 0.

/// Bits of an element of so many bytes.
pub(crate) const fn width(element: u8) -> u32 {
    (element as u32).wrapping_mul(8)
}

/// The lowest element.
pub(crate) fn lowest(element: u8, value: u128) -> u64 {
    let mask = u64::MAX.wrapping_shr(64u32.wrapping_sub(width(element)));
    value as u64 & mask
}

/// Its value as a number with a sign.
pub(crate) fn signed(element: u8, value: u64) -> i64 {
    let unused = 64u32.wrapping_sub(width(element));
    (value.wrapping_shl(unused) as i64).wrapping_shr(unused)
}

/// Element by element.
pub(crate) fn each(element: u8, a: u128, b: u128, of: impl Fn(u64, u64) -> u64) -> u128 {
    let (mut out, mut at) = (0, 0);
    while at < 128 {
        let value = of(lowest(element, a.wrapping_shr(at)), lowest(element, b.wrapping_shr(at)));
        out |= u128::from(lowest(element, value.into())).wrapping_shl(at);
        at = at.wrapping_add(width(element));
    }
    out
}

/// The element of that number.
pub(crate) fn pick(element: u8, value: u128, number: u32) -> u64 {
    lowest(element, value.wrapping_shr(number.wrapping_mul(width(element))))
}

/// A vector of elements by their numbers.
pub(crate) fn gather(element: u8, of: impl Fn(u32) -> u64) -> u128 {
    let count = 128u32.checked_div(width(element)).unwrap_or(0);
    (0..count).fold(0, |out, number| {
        out | u128::from(lowest(element, of(number).into())).wrapping_shl(number.wrapping_mul(width(element)))
    })
}

/// Words of a vector, the lowest first.
pub(crate) fn words(value: u128) -> [u32; 4] {
    [value as u32, (value >> 32) as u32, (value >> 64) as u32, (value >> 96) as u32]
}

/// The vector of these words.
pub(crate) fn vector(words: [u32; 4]) -> u128 {
    words.iter().rev().fold(0, |all, word| all << 32 | u128::from(*word))
}
