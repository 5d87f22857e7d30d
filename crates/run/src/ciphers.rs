//! What instructions for AES, carry-less multiplication and SHA-2 have in common, as FIPS 197 and FIPS 180-4 have it.

/// Products in the field of AES.
const fn product(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut out) = (a, b, 0);
    while b != 0 {
        if b & 1 != 0 {
            out ^= a;
        }
        let carry = a & 0x80 != 0;
        a <<= 1;
        if carry {
            a ^= 0x1b;
        }
        b >>= 1;
    }
    out
}

/// SubBytes and its inverse. The inverses in the field come from powers of its generator: those of 3 go forwards while those of its
/// inverse go back.
#[allow(clippy::indexing_slicing, reason = "at compile time: a byte is an index of 256 entries")]
const fn tables() -> ([u8; 256], [u8; 256]) {
    /// The inverse of 3.
    const BACK: u8 = 0xf6;
    let (mut forward, mut back) = ([0; 256], [0; 256]);
    let (mut power, mut inverse) = (1u8, 1u8);
    loop {
        let i = inverse;
        let value = i ^ i.rotate_left(1) ^ i.rotate_left(2) ^ i.rotate_left(3) ^ i.rotate_left(4) ^ 0x63;
        forward[power as usize] = value;
        back[value as usize] = power;
        (power, inverse) = (product(power, 3), product(inverse, BACK));
        if power == 1 {
            break;
        }
    }
    forward[0] = 0x63;
    back[0x63] = 0;
    (forward, back)
}

const TABLES: ([u8; 256], [u8; 256]) = tables();

/// SubBytes of a byte.
pub(crate) fn substituted(byte: u8) -> u8 {
    TABLES.0.get(usize::from(byte)).copied().unwrap_or(0)
}

/// The inverse of SubBytes.
pub(crate) fn substituted_back(byte: u8) -> u8 {
    TABLES.1.get(usize::from(byte)).copied().unwrap_or(0)
}

/// Each byte from that in the row by so many columns further.
pub(crate) fn shifted_rows(state: u128, step: usize) -> u128 {
    let from = state.to_le_bytes();
    let mut out = [0; 16];
    for (at, byte) in out.iter_mut().enumerate() {
        let row = at & 3;
        let source = at.wrapping_add(row.wrapping_mul(step)) & 15;
        *byte = from.get(source).copied().unwrap_or(0);
    }
    u128::from_le_bytes(out)
}

/// Byte by byte.
pub(crate) fn bytes(state: u128, of: impl Fn(u8) -> u8) -> u128 {
    u128::from_le_bytes(state.to_le_bytes().map(of))
}

/// Each column by a polynomial.
pub(crate) fn mixed(state: u128, by: [u8; 4]) -> u128 {
    let mut out = [0u8; 16];
    let columns = state.to_le_bytes();
    for (column, into) in columns.chunks(4).zip(out.chunks_mut(4)) {
        for (row, byte) in into.iter_mut().enumerate() {
            for (other, value) in column.iter().enumerate() {
                let factor = by.get(other.wrapping_sub(row) & 3).copied().unwrap_or(0);
                *byte ^= product(*value, factor);
            }
        }
    }
    u128::from_le_bytes(out)
}

/// The polynomial of MixColumns.
pub(crate) const MIX: [u8; 4] = [2, 3, 1, 1];
/// That of its inverse.
pub(crate) const MIX_BACK: [u8; 4] = [14, 11, 13, 9];

/// The product of two polynomials over bits.
pub(crate) fn multiplied(a: u64, b: u64) -> u128 {
    let a = u128::from(a);
    (0..64).filter(|bit| b.wrapping_shr(*bit) & 1 != 0).fold(0, |out, bit| out ^ a.wrapping_shl(bit))
}

/// Of the message schedule of SHA-256.
pub(crate) fn sigma_0(word: u32) -> u32 {
    word.rotate_right(7) ^ word.rotate_right(18) ^ word >> 3
}

/// Of the message schedule of SHA-256.
pub(crate) fn sigma_1(word: u32) -> u32 {
    word.rotate_right(17) ^ word.rotate_right(19) ^ word >> 10
}
