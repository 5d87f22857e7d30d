//! Decoding of data processing with registers.

use super::form::{Decoded, EXTENDS, LSL, Op, bit, bits, or_sp, source, target};

/// C4.1.95
pub(super) fn decode(word: u32) -> Option<Decoded> {
    let wide = bit(word, 31);
    match (bit(word, 28), bits(word, 21, 4)) {
        (false, 0..=7) => logical(word, wide),
        (false, 8 | 10 | 12 | 14) => shifted(word, wide),
        (false, _) => extended(word, wide),
        (true, 0) => with_carry(word, wide),
        (true, 2) => conditional_compare(word, wide),
        (true, 4) => select(word, wide),
        (true, 6) if bit(word, 30) => one_source(word, wide),
        (true, 6) => two_sources(word, wide),
        (true, 8..=15) => three_sources(word, wide),
        _ => None,
    }
}

fn three(op: Op, word: u32, wide: bool) -> Decoded {
    Decoded { d: target(word, 0), n: source(word, 5), m: source(word, 16), wide, ..Decoded::new(op) }
}

/// AND, BIC, ORR, ORN, EOR, EON, ANDS, BICS of a shifted register.
fn logical(word: u32, wide: bool) -> Option<Decoded> {
    let (kind, amount, inverts) = (bits(word, 22, 2) as u8, bits(word, 10, 6), bit(word, 21));
    if !wide && amount >= 32 {
        return None;
    }
    let is_plain = kind == LSL && amount == 0 && !inverts;
    let op = match (bits(word, 29, 2), is_plain) {
        (0, true) => Op::AndR,
        (1, true) => Op::OrrR,
        (2, true) => Op::EorR,
        (0, false) => Op::AndX,
        (1, false) => Op::OrrX,
        (2, false) => Op::EorX,
        _ => Op::AndsX,
    };
    Some(Decoded { a: inverts.into(), k: kind, immediate: amount.into(), ..three(op, word, wide) })
}

/// ADD, ADDS, SUB, SUBS of a shifted register.
fn shifted(word: u32, wide: bool) -> Option<Decoded> {
    let (kind, amount) = (bits(word, 22, 2) as u8, bits(word, 10, 6));
    if kind == 3 || !wide && amount >= 32 {
        return None;
    }
    let op = match (bits(word, 29, 2), kind == LSL && amount == 0) {
        (0, true) => Op::AddR,
        (1, true) => Op::AddsR,
        (2, true) => Op::SubR,
        (_, true) => Op::SubsR,
        (0, false) => Op::AddX,
        (1, false) => Op::AddsX,
        (2, false) => Op::SubX,
        (_, false) => Op::SubsX,
    };
    Some(Decoded { k: kind, immediate: amount.into(), ..three(op, word, wide) })
}

/// ADD, ADDS, SUB, SUBS of an extended register.
fn extended(word: u32, wide: bool) -> Option<Decoded> {
    let amount = bits(word, 10, 3);
    if bits(word, 22, 2) != 0 || amount > 4 {
        return None;
    }
    let (op, d) = match bits(word, 29, 2) {
        0 => (Op::AddX, or_sp(word, 0)),
        1 => (Op::AddsX, target(word, 0)),
        2 => (Op::SubX, or_sp(word, 0)),
        _ => (Op::SubsX, target(word, 0)),
    };
    let k = EXTENDS.wrapping_add(bits(word, 13, 3) as u8);
    Some(Decoded { d, n: or_sp(word, 5), k, immediate: amount.into(), ..three(op, word, wide) })
}

fn with_carry(word: u32, wide: bool) -> Option<Decoded> {
    // RMIF, SETF8 and the like lie beside them.
    if bits(word, 10, 6) != 0 {
        return None;
    }
    let op = match bits(word, 29, 2) {
        0 => Op::Adc,
        1 => Op::Adcs,
        2 => Op::Sbc,
        _ => Op::Sbcs,
    };
    Some(three(op, word, wide))
}

fn conditional_compare(word: u32, wide: bool) -> Option<Decoded> {
    if bit(word, 10) || bit(word, 4) || !bit(word, 29) {
        return None;
    }
    let op = match (bit(word, 30), bit(word, 11)) {
        (true, false) => Op::CompareR,
        (true, true) => Op::CompareI,
        (false, false) => Op::CompareNegatedR,
        (false, true) => Op::CompareNegatedI,
    };
    Some(Decoded {
        n: source(word, 5),
        m: source(word, 16),
        a: bits(word, 0, 4) as u8,
        k: bits(word, 12, 4) as u8,
        wide,
        immediate: bits(word, 16, 5).into(),
        ..Decoded::new(op)
    })
}

fn select(word: u32, wide: bool) -> Option<Decoded> {
    if bit(word, 29) || bit(word, 11) {
        return None;
    }
    let op = match (bit(word, 30), bit(word, 10)) {
        (false, false) => Op::Select,
        (false, true) => Op::SelectIncrement,
        (true, false) => Op::SelectInvert,
        (true, true) => Op::SelectNegate,
    };
    Some(Decoded { k: bits(word, 12, 4) as u8, ..three(op, word, wide) })
}

fn one_source(word: u32, wide: bool) -> Option<Decoded> {
    if bit(word, 29) {
        return None;
    }
    let new = |op| Decoded { d: target(word, 0), n: source(word, 5), wide, ..Decoded::new(op) };
    Some(match (bits(word, 16, 5), bits(word, 10, 6)) {
        (0, 0) => new(Op::ReverseBits),
        (0, 1) => new(Op::ReverseIn16),
        // REV of 32 bits, and REV32
        (0, 2) => new(Op::ReverseIn32),
        (0, 3) if wide => new(Op::ReverseIn64),
        (0, 4) => new(Op::LeadingZeros),
        (0, 5) => new(Op::LeadingSigns),
        // PACIA to AUTDZB: the keys are disabled, so the pointer stays.
        (1, 0..=7) if wide => Decoded::new(Op::Nop),
        (1, 8..=15) if wide && bits(word, 5, 5) == 31 => Decoded::new(Op::Nop),
        (1, 16 | 17) if wide && bits(word, 5, 5) == 31 => {
            Decoded { n: source(word, 0), a: u8::from(bits(word, 10, 6) == 16), ..new(Op::Strip) }
        }
        _ => return None,
    })
}

fn two_sources(word: u32, wide: bool) -> Option<Decoded> {
    if bit(word, 29) {
        return None;
    }
    let kind = bits(word, 10, 6);
    let op = match kind {
        2 => Op::UnsignedDivide,
        3 => Op::SignedDivide,
        8 => Op::ShiftLeft,
        9 => Op::ShiftRight,
        10 => Op::ShiftArithmetic,
        11 => Op::Rotate,
        // Only that of 8 bytes has operands of 64 bits.
        16..=23 if wide == (kind & 3 == 3) => {
            let (k, a) = ((kind & 3) as u8, (kind >> 2 & 1) as u8);
            return Some(Decoded { k, a, ..three(Op::Crc32, word, wide) });
        }
        _ => return None,
    };
    Some(three(op, word, wide))
}

fn three_sources(word: u32, wide: bool) -> Option<Decoded> {
    if bits(word, 29, 2) != 0 {
        return None;
    }
    let op = match (bits(word, 21, 3), bit(word, 15)) {
        (0, false) => Op::Madd,
        (0, true) => Op::Msub,
        (1, false) if wide => Op::SignedMadd,
        (1, true) if wide => Op::SignedMsub,
        (2, false) if wide => Op::SignedHigh,
        (5, false) if wide => Op::UnsignedMadd,
        (5, true) if wide => Op::UnsignedMsub,
        (6, false) if wide => Op::UnsignedHigh,
        _ => return None,
    };
    Some(Decoded { a: source(word, 10), ..three(op, word, wide) })
}
