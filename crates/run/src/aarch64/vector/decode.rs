//! Decoding of data processing with vectors. Arithmetic on floating-point numbers, and what saturates or doubles, is not interpreted.

use super::super::form::{Decoded, Op, bit, bits, source, target};
use super::operation::V;

/// What most instructions for vectors have in the same place.
struct Fields {
    word: u32,
    /// All 16 bytes count.
    wide: bool,
    unsigned: bool,
    /// Bytes of an element, as a power of two
    size: u8,
}

impl Fields {
    fn of(word: u32) -> Self {
        let size = bits(word, 22, 2) as u8;
        Fields { word, wide: bit(word, 30), unsigned: bit(word, 29), size }
    }

    fn decoded(&self, op: Op, v: V) -> Decoded {
        let word = self.word;
        Decoded {
            v,
            d: bits(word, 0, 5) as u8,
            n: bits(word, 5, 5) as u8,
            m: bits(word, 16, 5) as u8,
            a: self.unsigned.into(),
            k: 1u8.wrapping_shl(self.size.into()),
            wide: self.wide,
            ..Decoded::new(op)
        }
    }

    /// Are there no elements of that size, or but one?
    fn is_single(&self) -> bool {
        self.size == 3 && !self.wide
    }
}

/// C4.1.97
pub(in super::super) fn decode(word: u32) -> Option<Decoded> {
    match (bit(word, 31), bits(word, 24, 5)) {
        (false, 0b01110) => vectors(word),
        (false, 0b01111) if !bit(word, 23) && bit(word, 10) => match bits(word, 19, 4) {
            0 => constant(word),
            _ => by_count(&Fields::of(word)),
        },
        (false, 0b01111) if !bit(word, 10) => by_element(&Fields::of(word)),
        (false, 0b11110) if bit(word, 30) => scalars(word),
        (false, 0b11111) if bit(word, 30) && !bit(word, 23) && bit(word, 10) && bit(word, 22) => {
            // A vector of one element of 64 bits.
            by_count(&Fields { wide: false, ..Fields::of(word) }).filter(|at| at.op == Op::VectorByCount)
        }
        (true, 0b01110) if word >> 24 == 0xce => four_registers(word),
        (_, 0b11110) if !bit(word, 30) => moves(word),
        _ => None,
    }
}

fn vectors(word: u32) -> Option<Decoded> {
    let f = Fields::of(word);
    if bit(word, 21) {
        return match bits(word, 10, 2) {
            1 | 3 => three_same(&f),
            0 => three_different(&f),
            _ => match bits(word, 17, 4) {
                0b0000 => two(&f),
                0b1000 => across(&f),
                0b0100 if f.wide && !f.unsigned && f.size == 0 => aes(&f),
                _ => None,
            },
        };
    }
    match (f.unsigned, bit(word, 15), bits(word, 10, 2)) {
        (_, false, 1 | 3) if f.size == 0 => copy(&f),
        (false, false, 0) if f.size == 0 => {
            // TBL and TBX: how many registers, and whether d stays.
            let (a, immediate) = (bits(word, 13, 2) as u8, bits(word, 12, 1).into());
            Some(Decoded { a, immediate, ..f.decoded(Op::VectorTable, V::Nothing) })
        }
        (false, false, 2) if !f.is_single() => {
            let v = match bits(word, 12, 3) {
                1 => V::Unzip1,
                2 => V::Transpose1,
                3 => V::Zip1,
                5 => V::Unzip2,
                6 => V::Transpose2,
                7 => V::Zip2,
                _ => return None,
            };
            Some(f.decoded(Op::VectorPermute, v))
        }
        (true, false, 0 | 2) if f.size == 0 && (f.wide || !bit(word, 14)) => {
            let immediate = bits(word, 11, 4).into();
            Some(Decoded { immediate, ..f.decoded(Op::VectorPermute, V::Extract) })
        }
        _ => None,
    }
}

/// The first if the bit for "unsigned" is clear, else the second.
fn either(f: &Fields, clear: V, set: V) -> V {
    if f.unsigned { set } else { clear }
}

fn three_same(f: &Fields) -> Option<Decoded> {
    let opcode = bits(f.word, 11, 5);
    let v = match opcode {
        0b00000 => V::HalvingAdd,
        0b00010 => V::RoundingHalvingAdd,
        0b00011 => {
            let of = [V::And, V::AndNot, V::Or, V::OrNot, V::Xor, V::Choose];
            let of = of.into_iter().chain([V::ReplaceWhereSet, V::ReplaceWhereClear]);
            let number = f.size | u8::from(f.unsigned) << 2;
            let v = of.into_iter().nth(number.into())?;
            return Some(Decoded { k: 8, ..f.decoded(Op::VectorSame, v) });
        }
        0b00100 => V::HalvingSubtract,
        0b00110 => V::Greater,
        0b00111 => V::GreaterOrEqual,
        0b01000 => V::ShiftEach,
        0b01100 | 0b10100 => V::Maximum,
        0b01101 | 0b10101 => V::Minimum,
        0b01110 => V::Difference,
        0b01111 => V::DifferenceAdd,
        0b10000 => either(f, V::Add, V::Subtract),
        0b10001 => either(f, V::Test, V::Equal),
        0b10010 => either(f, V::MultiplyAdd, V::MultiplySubtract),
        0b10011 if f.unsigned && f.size != 0 => return None,
        0b10011 => either(f, V::Multiply, V::MultiplyPolynomials),
        0b10111 if !f.unsigned => V::Add,
        _ => return None,
    };
    // Of 64 bits there are comparisons, shifts, sums and differences.
    let has_64 = matches!(opcode, 0b00110 | 0b00111 | 0b01000 | 0b10000 | 0b10001 | 0b10111);
    if f.size == 3 && !(has_64 && f.wide) {
        return None;
    }
    let is_pairs = matches!(opcode, 0b10100 | 0b10101 | 0b10111);
    Some(f.decoded(if is_pairs { Op::VectorPairs } else { Op::VectorSame }, v))
}

fn three_different(f: &Fields) -> Option<Decoded> {
    let (op, v) = match bits(f.word, 12, 4) {
        0 => (Op::VectorLong, V::Add),
        1 => (Op::VectorWide, V::Add),
        2 => (Op::VectorLong, V::Subtract),
        3 => (Op::VectorWide, V::Subtract),
        4 => (Op::VectorUpper, V::Add),
        5 => (Op::VectorLong, V::DifferenceAdd),
        6 => (Op::VectorUpper, V::Subtract),
        7 => (Op::VectorLong, V::Difference),
        8 => (Op::VectorLong, V::MultiplyAdd),
        10 => (Op::VectorLong, V::MultiplySubtract),
        12 => (Op::VectorLong, V::Multiply),
        // PMULL: of bytes, or of 64 bits
        14 if !f.unsigned && matches!(f.size, 0 | 3) => {
            return Some(Decoded { a: 1, ..f.decoded(Op::VectorLong, V::MultiplyPolynomials) });
        }
        _ => return None,
    };
    (f.size != 3).then(|| f.decoded(op, v))
}

/// Two registers.
fn two(f: &Fields) -> Option<Decoded> {
    let opcode = bits(f.word, 12, 5);
    let of = |v| f.decoded(Op::VectorOne, v);
    let reverses = |container: u8| {
        let fits = 1u8.wrapping_shl(f.size.into()) < container;
        fits.then(|| Decoded { immediate: container.into(), ..of(V::Reverse) })
    };
    match (opcode, f.unsigned) {
        (0, false) => return reverses(8),
        (0, true) => return reverses(4),
        (1, false) => return reverses(2),
        // SADDLP and SADALP, and those without a sign
        (2 | 6, _) if f.size != 3 => {
            let immediate = u64::from(opcode == 6);
            return Some(Decoded { immediate, ..f.decoded(Op::VectorWideSums, V::Add) });
        }
        (4, _) if f.size != 3 => return Some(of(either(f, V::CountSigns, V::CountZeros))),
        (5, false) if f.size == 0 => return Some(of(V::CountBits)),
        (5, true) if f.size == 0 => return Some(of(V::Not)),
        (5, true) if f.size == 1 => return Some(Decoded { k: 1, ..of(V::ReverseBits) }),
        // XTN and SHLL
        (0b10010, false) if f.size != 3 => {
            return Some(Decoded { immediate: 0, ..f.decoded(Op::VectorNarrowByCount, V::ShiftRight) });
        }
        (0b10011, true) if f.size != 3 => {
            let immediate = 8u64.wrapping_shl(f.size.into());
            return Some(Decoded { immediate, ..f.decoded(Op::VectorLongByCount, V::ShiftLeft) });
        }
        _ => {}
    }
    zeros(f, opcode).filter(|_| !f.is_single())
}

/// Comparisons with zero, and signs: those that a single element of 64 bits has as well.
fn zeros(f: &Fields, opcode: u32) -> Option<Decoded> {
    let zero = |v| Decoded { a: 0, immediate: 1, ..f.decoded(Op::VectorSame, v) };
    let one = |v| f.decoded(Op::VectorOne, v);
    Some(match (opcode, f.unsigned) {
        (0b01000, false) => zero(V::Greater),
        (0b01000, true) => zero(V::GreaterOrEqual),
        (0b01001, false) => zero(V::Equal),
        (0b01001, true) => one(V::LessOrEqualZero),
        (0b01010, false) => one(V::LessZero),
        (0b01011, false) => one(V::Absolute),
        (0b01011, true) => one(V::Negate),
        _ => return None,
    })
}

fn across(f: &Fields) -> Option<Decoded> {
    // SADDLV: the sum has twice as many bits, which the immediate says.
    let (v, immediate) = match (bits(f.word, 12, 5), f.unsigned) {
        (0b00011, _) => (V::Add, 1),
        (0b01010, _) => (V::Maximum, 0),
        (0b11010, _) => (V::Minimum, 0),
        (0b11011, false) => (V::Add, 0),
        _ => return None,
    };
    // Two elements are too few.
    let enough = f.size < 2 || f.size == 2 && f.wide;
    enough.then(|| Decoded { immediate, ..f.decoded(Op::VectorAcross, v) })
}

fn aes(f: &Fields) -> Option<Decoded> {
    let v = match bits(f.word, 12, 5) {
        0b00100 => V::AesEncrypt,
        0b00101 => V::AesDecrypt,
        0b00110 => V::AesMix,
        0b00111 => V::AesMixBack,
        _ => return None,
    };
    Some(f.decoded(Op::VectorCipher, v))
}

/// DUP, INS, UMOV, SMOV.
fn copy(f: &Fields) -> Option<Decoded> {
    let (word, low) = (f.word, bits(f.word, 16, 5));
    let size = low.trailing_zeros();
    if size > 3 {
        return None;
    }
    let (to, from) = (low.wrapping_shr(size.wrapping_add(1)), bits(word, 11, 4).wrapping_shr(size));
    let new = |v| Decoded {
        k: 1u8.wrapping_shl(size),
        immediate: u64::from(to | from << 8),
        ..f.decoded(Op::VectorMove, v)
    };
    let general = source(word, 5);
    Some(match (f.unsigned, bits(word, 11, 4)) {
        (true, _) => new(V::InsertElement),
        (_, 0b0000) if size < 3 || f.wide => new(V::Duplicate),
        (_, 0b0001) if size < 3 || f.wide => Decoded { n: general, ..new(V::DuplicateGeneral) },
        (_, 0b0011) if f.wide => Decoded { n: general, ..new(V::InsertGeneral) },
        (_, 0b0101) if size < 2 || size == 2 && f.wide => {
            Decoded { d: target(word, 0), ..new(V::TakeSigned) }
        }
        (_, 0b0111) if f.wide == (size == 3) => Decoded { d: target(word, 0), ..new(V::Take) },
        _ => return None,
    })
    .filter(|_| f.wide || !f.unsigned)
}

/// MOVI, MVNI, ORR and BIC with a constant; what is a floating-point number is not interpreted.
fn constant(word: u32) -> Option<Decoded> {
    let f = Fields::of(word);
    let (inverts, mode) = (f.unsigned, bits(word, 12, 4));
    if bit(word, 11) || mode == 15 || f.size != 0 {
        return None;
    }
    let byte = u64::from(bits(word, 16, 3) << 5 | bits(word, 5, 5));
    let repeated = |value: u64, bits: u32| match bits {
        32 => value | value << 32,
        _ => value.wrapping_mul(0x0001_0001_0001_0001),
    };
    let value = match mode {
        0..=7 => repeated(byte.wrapping_shl(mode >> 1 << 3), 32),
        8..=11 => repeated(byte.wrapping_shl((mode >> 1 & 1) << 3), 16),
        12 => repeated(byte << 8 | 0xff, 32),
        13 => repeated(byte << 16 | 0xffff, 32),
        _ if inverts => (0..8).filter(|at| byte >> at & 1 != 0).fold(0, |all, at| all | 0xff << (at << 3)),
        _ => byte.wrapping_mul(0x0101_0101_0101_0101),
    };
    let (v, immediate) = match (mode, inverts) {
        (1 | 3 | 5 | 7 | 9 | 11, false) => (V::OrConstant, value),
        (1 | 3 | 5 | 7 | 9 | 11, true) => (V::ClearConstant, value),
        (14, _) | (_, false) => (V::Constant, value),
        _ => (V::Constant, !value),
    };
    Some(Decoded { immediate, ..f.decoded(Op::VectorMove, v) })
}

/// Shifts by a number.
fn by_count(f: &Fields) -> Option<Decoded> {
    let (whole, opcode) = (bits(f.word, 16, 7), bits(f.word, 11, 5));
    let size = 31u32.checked_sub((whole >> 3).leading_zeros())?;
    let elements = 8u32.wrapping_shl(size);
    let (right, left) = (elements.wrapping_mul(2).wrapping_sub(whole), whole.wrapping_sub(elements));
    let f = &Fields { size: size as u8, ..*f };
    let of = |op, v, by: u32| Some(Decoded { immediate: by.into(), ..f.decoded(op, v) });
    let narrows = size < 3;
    // One element of 64 bits is a scalar, whose encoding has another bit set.
    let single = f.is_single() && f.word >> 28 & 1 == 0;
    match (opcode, f.unsigned) {
        (0b10000, false) if narrows => return of(Op::VectorNarrowByCount, V::ShiftRight, right),
        (0b10001, false) if narrows => return of(Op::VectorNarrowByCount, V::RoundingShiftRight, right),
        (0b10100, _) if narrows => return of(Op::VectorLongByCount, V::ShiftLeft, left),
        _ if single => return None,
        _ => {}
    }
    let (v, by) = match (opcode, f.unsigned) {
        (0b00000, _) => (V::ShiftRight, right),
        (0b00010, _) => (V::ShiftRightAdd, right),
        (0b00100, _) => (V::RoundingShiftRight, right),
        (0b00110, _) => (V::RoundingShiftRightAdd, right),
        (0b01000, true) => (V::ShiftRightInsert, right),
        (0b01010, false) => (V::ShiftLeft, left),
        (0b01010, true) => (V::ShiftLeftInsert, left),
        _ => return None,
    };
    of(Op::VectorByCount, v, by)
}

/// With one element of m, of 16 or 32 bits.
fn by_element(f: &Fields) -> Option<Decoded> {
    let word = f.word;
    let (l, m, h) = (bits(word, 21, 1), bits(word, 20, 1), bits(word, 11, 1));
    let (index, register) = match f.size {
        1 => (h << 2 | l << 1 | m, bits(word, 16, 4)),
        2 => (h << 1 | l, bits(word, 16, 5)),
        _ => return None,
    };
    let (op, v) = match (bits(word, 12, 4), f.unsigned) {
        (0b0000, true) => (Op::VectorSame, V::MultiplyAdd),
        (0b0100, true) => (Op::VectorSame, V::MultiplySubtract),
        (0b1000, false) => (Op::VectorSame, V::Multiply),
        (0b0010, _) => (Op::VectorLong, V::MultiplyAdd),
        (0b0110, _) => (Op::VectorLong, V::MultiplySubtract),
        (0b1010, _) => (Op::VectorLong, V::Multiply),
        _ => return None,
    };
    Some(Decoded { m: register as u8, immediate: u64::from(index).wrapping_add(2), ..f.decoded(op, v) })
}

/// Single elements, of 64 bits each, and the instructions for SHA that lie among them.
fn scalars(word: u32) -> Option<Decoded> {
    let f = &Fields { wide: false, ..Fields::of(word) };
    let (lowest, opcode) = (bits(word, 10, 2), bits(word, 12, 5));
    if bit(word, 21) {
        let is_64 = f.size == 3;
        return match (lowest, bits(word, 17, 4)) {
            (1 | 3, _) if is_64 => three_same(&Fields { wide: true, ..*f })
                .filter(|at| at.op == Op::VectorSame && at.v as u8 >= V::Add as u8)
                .map(|at| Decoded { wide: false, ..at }),
            (2, 0b0000) if is_64 => zeros(f, opcode),
            (2, 0b1000) if is_64 && !f.unsigned && opcode == 0b11011 => {
                Some(Decoded { wide: true, ..f.decoded(Op::VectorAcross, V::Add) })
            }
            (2, 0b0100) if f.size == 0 && !f.unsigned => {
                let v = match opcode {
                    0 => V::Sha1Rotate,
                    1 => V::Sha1Schedule1,
                    2 => V::Sha256Schedule0,
                    _ => return None,
                };
                Some(Decoded { wide: true, ..f.decoded(Op::VectorCipher, v) })
            }
            _ => None,
        };
    }
    if f.size != 0 || f.unsigned || bit(word, 15) {
        return None;
    }
    match lowest {
        0 => {
            let v = match bits(word, 12, 3) {
                0 => V::Sha1Choose,
                1 => V::Sha1Parity,
                2 => V::Sha1Majority,
                3 => V::Sha1Schedule0,
                4 => V::Sha256Hash,
                5 => V::Sha256Hash2,
                6 => V::Sha256Schedule1,
                _ => return None,
            };
            Some(Decoded { wide: true, ..f.decoded(Op::VectorCipher, v) })
        }
        1 | 3 if bits(word, 11, 4) == 0 => {
            copy(&Fields { wide: true, ..*f }).map(|at| Decoded { v: V::Scalar, ..at })
        }
        _ => None,
    }
}

/// SHA-3 and SHA-512.
fn four_registers(word: u32) -> Option<Decoded> {
    let f = Fields::of(word);
    let of = |v| Decoded { k: 8, wide: true, ..f.decoded(Op::VectorCipher, v) };
    Some(match (bits(word, 21, 3), bits(word, 10, 6)) {
        (0, 0..=31) => Decoded { a: bits(word, 10, 5) as u8, ..of(V::Xor3) },
        (1, 0..=31) => Decoded { a: bits(word, 10, 5) as u8, ..of(V::ClearXor) },
        (3, 0b100000) => of(V::Sha512Hash),
        (3, 0b100001) => of(V::Sha512Hash2),
        (3, 0b100010) => of(V::Sha512Schedule1),
        (3, 0b100011) => of(V::RotateXor),
        (4, by) => Decoded { immediate: by.into(), ..of(V::XorRotate) },
        (6, 0b100000) if bits(word, 16, 5) == 0 => of(V::Sha512Schedule0),
        _ => return None,
    })
}

/// FMOV without a conversion.
fn moves(word: u32) -> Option<Decoded> {
    let f = Fields::of(word);
    let (general, into) = (source(word, 5), target(word, 0));
    let new = |v, k, at| Decoded { k, immediate: at, ..f.decoded(Op::VectorMove, v) };
    Some(match word >> 10 {
        // 32 and 64 bits to and from general registers, and the upper half
        0x0007_8980 => Decoded { d: into, ..new(V::Take, 4, 0) },
        0x0007_89c0 => Decoded { n: general, ..new(V::FromGeneral, 4, 0) },
        0x0027_9980 => Decoded { d: into, ..new(V::Take, 8, 0) },
        0x0027_99c0 => Decoded { n: general, ..new(V::FromGeneral, 8, 0) },
        0x0027_ab80 => Decoded { d: into, ..new(V::Take, 8, 1) },
        0x0027_abc0 => Decoded { n: general, ..new(V::InsertGeneral, 8, 1) },
        // Between registers
        0x0007_8810 => new(V::Scalar, 4, 0),
        0x0007_9810 => new(V::Scalar, 8, 0),
        _ => return None,
    })
}
