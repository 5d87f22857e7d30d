//! From words to what the interpreter executes: the encoding groups of the Arm architecture, top level, immediates, branches and system.

use super::form::{Decoded, Op, bit, bits, or_sp, signed, source, target};
use super::{memory_forms, register_forms, system, vector};

/// The instruction that a word at an address is.
pub(super) fn decode(word: u32, pc: u64) -> Decoded {
    // C4.1: op0 is bits 28 to 25.
    let found = match bits(word, 25, 4) {
        0b1000 | 0b1001 => immediates(word, pc),
        0b1010 | 0b1011 => branches(word, pc),
        0b0100 | 0b0110 | 0b1100 | 0b1110 => memory_forms::decode(word, pc),
        0b0101 | 0b1101 => register_forms::decode(word),
        0b0111 | 0b1111 => vector::decode::decode(word),
        // UDF
        0b0000 if word >> 16 == 0 => Some(Decoded::new(Op::Udf)),
        _ => None,
    };
    found.unwrap_or(Decoded::word(Op::Unknown, word))
}

/// Which group a word belongs to that is not interpreted.
pub(super) fn group(word: u32) -> &'static str {
    match bits(word, 25, 4) {
        0b0111 | 0b1111 | 0b0110 | 0b1110 => "floating-point or vector instruction",
        0b0010 => "SVE instruction",
        0b0000 => "SME or reserved instruction",
        0b1010 | 0b1011 if word >> 24 == 0xd4 => match (bits(word, 21, 3), bits(word, 0, 5)) {
            (0, 1) => "svc",
            (0, 2) => "hvc",
            (0, 3) => "smc",
            (2, 0) => "hlt",
            _ => "exception instruction",
        },
        0b1010 | 0b1011 if word == 0xd69f_03e0 => "eret",
        0b1010 | 0b1011 if word >> 22 == 0x354 => "system instruction",
        0b1010 | 0b1011 => "branch or system instruction",
        0b1000 | 0b1001 => "instruction with an immediate",
        0b0101 | 0b1101 => "instruction of registers",
        _ => "load or store",
    }
}

/// C4.1.93: data processing with an immediate.
fn immediates(word: u32, pc: u64) -> Option<Decoded> {
    let wide = bit(word, 31);
    let mask = if wide { u64::MAX } else { 0xffff_ffff };
    let (d, n) = (target(word, 0), source(word, 5));
    let new = |op| Decoded { d, n, wide, ..Decoded::new(op) };
    Some(match bits(word, 23, 3) {
        // ADR, ADRP
        0 | 1 => {
            let distance = signed(word, 5, 19) << 2 | u64::from(bits(word, 29, 2));
            let address = match wide {
                true => (pc & !0xfff).wrapping_add(distance << 12),
                false => pc.wrapping_add(distance),
            };
            Decoded { immediate: address, ..new(Op::MovI) }
        }
        // ADD, SUB
        2 => {
            let shift = if bit(word, 22) { 12 } else { 0 };
            let value = u64::from(bits(word, 10, 12)).wrapping_shl(shift);
            let n = or_sp(word, 5);
            match bits(word, 29, 2) {
                0 => Decoded { d: or_sp(word, 0), n, immediate: value, ..new(Op::AddI) },
                1 => Decoded { n, immediate: value, ..new(Op::AddsI) },
                2 => Decoded { d: or_sp(word, 0), n, immediate: value.wrapping_neg(), ..new(Op::AddI) },
                _ => Decoded { n, immediate: value, ..new(Op::SubsI) },
            }
        }
        // AND, ORR, EOR, ANDS
        4 => {
            let (value, _) = bit_masks(bit(word, 22), bits(word, 10, 6), bits(word, 16, 6), wide)?;
            let immediate = value & mask;
            match bits(word, 29, 2) {
                0 => Decoded { d: or_sp(word, 0), immediate, ..new(Op::AndI) },
                1 => Decoded { d: or_sp(word, 0), immediate, ..new(Op::OrrI) },
                2 => Decoded { d: or_sp(word, 0), immediate, ..new(Op::EorI) },
                _ => Decoded { immediate, ..new(Op::AndsI) },
            }
        }
        // MOVN, MOVZ, MOVK
        5 => {
            let shift = bits(word, 21, 2).wrapping_mul(16);
            if !wide && shift >= 32 {
                return None;
            }
            let value = u64::from(bits(word, 5, 16));
            match bits(word, 29, 2) {
                0 => Decoded { immediate: !value.wrapping_shl(shift) & mask, ..new(Op::MovI) },
                2 => Decoded { immediate: value.wrapping_shl(shift), ..new(Op::MovI) },
                3 => Decoded { k: shift as u8, immediate: value, ..new(Op::MovK) },
                _ => return None,
            }
        }
        6 => bit_field(word)?,
        // EXTR
        7 => {
            let low = bits(word, 10, 6);
            let fits = bits(word, 29, 2) == 0 && !bit(word, 21) && bit(word, 22) == wide;
            if !fits || !wide && low >= 32 {
                return None;
            }
            Decoded { m: source(word, 16), a: low as u8, ..new(Op::Extr) }
        }
        _ => return None,
    })
}

/// `DecodeBitMasks`: the masks that an immediate of a logical instruction, or the numbers of a bit field, stand for.
pub(super) fn bit_masks(n: bool, imms: u32, immr: u32, wide: bool) -> Option<(u64, u64)> {
    let len = 31u32.checked_sub((u32::from(n) << 6 | !imms & 0x3f).leading_zeros())?;
    if len == 0 || n && !wide {
        return None;
    }
    let levels = 1u32.wrapping_shl(len).wrapping_sub(1);
    let (s, r) = (imms & levels, immr & levels);
    if s == levels {
        return None;
    }
    let size = 1u32.wrapping_shl(len);
    let ones = u64::MAX.wrapping_shr(63u32.wrapping_sub(s));
    let element = u64::MAX.wrapping_shr(64u32.wrapping_sub(size));
    let turned = match r {
        0 => ones,
        _ => (ones.wrapping_shr(r) | ones.wrapping_shl(size.wrapping_sub(r))) & element,
    };
    let (mut all, mut at) = (0, 0);
    while at < 64 {
        all |= turned.wrapping_shl(at);
        at = at.wrapping_add(size);
    }
    Some((all, element))
}

/// SBFM, BFM, UBFM: what lies from bit immr up to bit imms goes to the bottom, or the lowest bits go up.
fn bit_field(word: u32) -> Option<Decoded> {
    let wide = bit(word, 31);
    let (immr, imms) = (bits(word, 16, 6), bits(word, 10, 6));
    let size = if wide { 64u32 } else { 32 };
    if bit(word, 22) != wide || immr >= size || imms >= size {
        return None;
    }
    let (d, n) = (target(word, 0), source(word, 5));
    let up = 63u32.wrapping_sub(imms);
    let extracts = imms >= immr;
    let bits_of = |count: u32| u64::MAX.wrapping_shr(64u32.wrapping_sub(count));
    let (count, shift) = match extracts {
        true => (imms.wrapping_sub(immr).wrapping_add(1), immr),
        false => (imms.wrapping_add(1), size.wrapping_sub(immr)),
    };
    let op = match (bits(word, 29, 2), extracts) {
        (0, true) => Op::SignedExtract,
        (0, false) => Op::SignedInsert,
        (1, true) => Op::Extract,
        (1, false) => Op::Insert,
        (2, true) => Op::UnsignedExtract,
        (2, false) => Op::UnsignedInsert,
        _ => return None,
    };
    let a = if op == Op::SignedExtract { up.wrapping_add(immr) } else { shift };
    Some(Decoded { d, n, a: a as u8, k: up as u8, wide, immediate: bits_of(count), ..Decoded::new(op) })
}

/// C4.1.94: branches, exceptions and system.
fn branches(word: u32, pc: u64) -> Option<Decoded> {
    let to = |distance: u64| pc.wrapping_add(distance << 2);
    let new = Decoded::new;
    Some(match word >> 24 {
        // B, BL
        0x14..=0x17 => Decoded { immediate: to(signed(word, 0, 26)), ..new(Op::B) },
        0x94..=0x97 => Decoded { immediate: to(signed(word, 0, 26)), ..new(Op::Bl) },
        // B.cond, and BC.cond, which is a hint more
        0x54 => Decoded { immediate: to(signed(word, 5, 19)), k: bits(word, 0, 4) as u8, ..new(Op::BCond) },
        // CBZ, CBNZ
        0x34 | 0x35 | 0xb4 | 0xb5 => {
            let op = if bit(word, 24) { Op::Cbnz } else { Op::Cbz };
            Decoded { n: source(word, 0), wide: bit(word, 31), immediate: to(signed(word, 5, 19)), ..new(op) }
        }
        // TBZ, TBNZ
        0x36 | 0x37 | 0xb6 | 0xb7 => {
            let op = if bit(word, 24) { Op::Tbnz } else { Op::Tbz };
            let number = bits(word, 31, 1) << 5 | bits(word, 19, 5);
            Decoded { n: source(word, 0), a: number as u8, immediate: to(signed(word, 5, 14)), ..new(op) }
        }
        0xd4 => exceptions(word)?,
        0xd5 => system::decode(word)?,
        0xd6 | 0xd7 => registers(word)?,
        _ => return None,
    })
}

/// Exceptions: BRK. SVC, HVC, SMC, HLT and the rest are none of the machine.
fn exceptions(word: u32) -> Option<Decoded> {
    (bits(word, 21, 3) == 1 && bits(word, 0, 5) == 0)
        .then(|| Decoded { immediate: bits(word, 5, 16).into(), ..Decoded::new(Op::Brk) })
}

/// BR, BLR, RET, and those with pointer authentication, whose keys are disabled.
fn registers(word: u32) -> Option<Decoded> {
    let (op, kind, low) = (bits(word, 21, 4), bits(word, 10, 6), bits(word, 0, 5));
    let authenticates = kind == 2 || kind == 3;
    let op = match (bits(word, 16, 5), op) {
        (0x1f, 0 | 2) if kind == 0 && low == 0 => Op::Br,
        (0x1f, 1) if kind == 0 && low == 0 => Op::Blr,
        // BRAAZ, BLRAAZ
        (0x1f, 0) if authenticates && low == 31 => Op::Br,
        (0x1f, 1) if authenticates && low == 31 => Op::Blr,
        // RETAA, RETAB
        (0x1f, 2) if authenticates && low == 31 && bits(word, 5, 5) == 31 => {
            return Some(Decoded { n: 30, ..Decoded::new(Op::Br) });
        }
        // BRAA, BLRAA
        (0x1f, 8) if authenticates => Op::Br,
        (0x1f, 9) if authenticates => Op::Blr,
        _ => return None,
    };
    Some(Decoded { n: source(word, 5), ..Decoded::new(op) })
}
