//! From words to what the interpreter executes: the encoding groups of the Arm architecture, top level, immediates, branches and system.

use super::system;
use super::{memory_forms, register_forms};

/// The number that stands for the register that reads as zero.
pub(super) const ZERO: u8 = 31;
/// The number of the stack pointer.
pub(super) const SP: u8 = 32;
/// What is written to the zero register goes here, and is never read.
pub(super) const SINK: u8 = 33;

/// What is executed. `d`, `n`, `m` and `a` of [`Decoded`] are registers unless another meaning is said here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Not decoded yet: the word is the immediate.
    Raw,
    /// A breakpoint of the machine lies here: the word is the immediate.
    Stops,
    /// Nothing that is interpreted: the word is the immediate.
    Unknown,
    Nop,
    // d = n op immediate
    AddI,
    AddsI,
    SubsI,
    AndI,
    OrrI,
    EorI,
    AndsI,
    /// d = immediate
    MovI,
    /// The 16 bits of d from bit k on = immediate
    MovK,
    // d = n op m
    AddR,
    SubR,
    AddsR,
    SubsR,
    AndR,
    OrrR,
    EorR,
    // d = n op m, shifted or extended as k says, by immediate
    AddX,
    SubX,
    AddsX,
    SubsX,
    // As those, with m inverted where a is 1
    AndX,
    OrrX,
    EorX,
    AndsX,
    Adc,
    Adcs,
    Sbc,
    Sbcs,
    // Bit fields: the shift is a, the mask of the field the immediate
    /// d = n >> a, masked
    UnsignedExtract,
    /// d = (n masked) << a
    UnsignedInsert,
    /// d = n << k, then arithmetically back by a
    SignedExtract,
    /// d = n << k, arithmetically back by k, then << a
    SignedInsert,
    /// As [`Op::UnsignedExtract`], into d
    Extract,
    /// As [`Op::UnsignedInsert`], into d
    Insert,
    /// The pair n:m, from bit a on
    Extr,
    ShiftLeft,
    ShiftRight,
    ShiftArithmetic,
    Rotate,
    UnsignedDivide,
    SignedDivide,
    /// CRC32 of 1 << k bytes; a is 1 for the Castagnoli polynomial
    Crc32,
    // d = a op n * m
    Madd,
    Msub,
    SignedMadd,
    SignedMsub,
    UnsignedMadd,
    UnsignedMsub,
    SignedHigh,
    UnsignedHigh,
    // The condition is k
    Select,
    SelectIncrement,
    SelectInvert,
    SelectNegate,
    // The condition is k, the flags otherwise are a, the second operand m or the immediate
    CompareR,
    CompareI,
    CompareNegatedR,
    CompareNegatedI,
    ReverseBits,
    ReverseIn16,
    ReverseIn32,
    ReverseIn64,
    LeadingZeros,
    LeadingSigns,
    /// d without its authentication code: XPACI where a is 1, else XPACD
    Strip,
    // Branches: the target is the immediate
    B,
    Bl,
    /// The condition is k
    BCond,
    Cbz,
    Cbnz,
    // The bit is a
    Tbz,
    Tbnz,
    // The target is n
    Br,
    Blr,
    // The kind of system register is k; its slot, or its value, the immediate
    Mrs,
    Msr,
    /// MSR DAIFSet and DAIFClr: a is the mask, k is 1 to set
    Daif,
    /// DC ZVA
    ZeroBlock,
    ClearExclusive,
    Brk,
    Udf,
    Wfi,
    // Loads of d at n + immediate
    Ldr8,
    Ldr16,
    Ldr32,
    Ldr64,
    // Stores of d
    Str8,
    Str16,
    Str32,
    Str64,
    /// Loads that extend signs: the size is 1 << a
    LdrSigned,
    // At n, with the mode k, and the size a (bits 0 and 1, signed where bit 2 is set)
    LoadX,
    StoreX,
    // Pairs d and a, with the mode k
    LdpX64,
    LdpX32,
    LdpSigned,
    StpX64,
    StpX32,
    /// Ordinary loads and stores of programs: as [`Op::LoadX`], for addresses of programs only
    LoadUser,
    StoreUser,
    /// LDAR, STLR and the like: as [`Op::LoadX`], at addresses that are multiples of the size
    LoadOrdered,
    StoreOrdered,
    /// LDXR: the size is k
    LoadExclusive,
    /// STXR: m is what it tells
    StoreExclusive,
    /// LDXP of d and a
    LoadExclusivePair,
    StoreExclusivePair,
    /// Compares with m, of 1 << k bytes, and swaps
    Cas,
    /// CASP of m and the next with d and the next
    CasPair,
    // Atomic operations on n with m; d is what was there; the size is k
    Swap,
    AtomicAdd,
    AtomicClear,
    AtomicXor,
    AtomicSet,
    AtomicSignedMax,
    AtomicSignedMin,
    AtomicMax,
    AtomicMin,
}

/// Modes of addresses, as `k` of [`Op::LoadX`] and of pairs.
pub(super) const OFFSET: u8 = 0;
/// The base is changed first.
pub(super) const BEFORE: u8 = 1;
/// The base is changed afterwards.
pub(super) const AFTER: u8 = 2;
/// The base and a register; its extension is the immediate: kind, and by how much it is shifted from bit 8 on.
pub(super) const INDEX: u8 = 3;

/// Shifts of a second operand, as `k`.
pub(super) const LSL: u8 = 0;
pub(super) const LSR: u8 = 1;
pub(super) const ASR: u8 = 2;
/// Extensions of a second operand begin here: UXTB, UXTH, UXTW, UXTX, SXTB, SXTH, SXTW, SXTX.
pub(super) const EXTENDS: u8 = 4;

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoded {
    pub op: Op,
    pub d: u8,
    pub n: u8,
    pub m: u8,
    pub a: u8,
    pub k: u8,
    /// Are its operands of 64 bits?
    pub wide: bool,
    pub immediate: u64,
}

impl Decoded {
    pub fn new(op: Op) -> Self {
        Decoded { op, d: SINK, n: ZERO, m: ZERO, a: 0, k: 0, wide: true, immediate: 0 }
    }

    pub fn word(op: Op, word: u32) -> Self {
        Decoded { immediate: word.into(), ..Decoded::new(op) }
    }
}

/// The `count` bits from bit `low` on.
pub(super) fn bits(word: u32, low: u32, count: u32) -> u32 {
    word.wrapping_shr(low) & 1u32.wrapping_shl(count).wrapping_sub(1)
}

pub(super) fn bit(word: u32, number: u32) -> bool {
    word.wrapping_shr(number) & 1 != 0
}

/// The register in the 5 bits from `low` on, where 31 reads as zero.
pub(super) fn source(word: u32, low: u32) -> u8 {
    bits(word, low, 5) as u8
}

/// The same, to be written.
pub(super) fn target(word: u32, low: u32) -> u8 {
    match bits(word, low, 5) as u8 {
        ZERO => SINK,
        register => register,
    }
}

/// The same, where 31 is the stack pointer.
pub(super) fn or_sp(word: u32, low: u32) -> u8 {
    match bits(word, low, 5) as u8 {
        31 => SP,
        register => register,
    }
}

/// The `count` bits from `low` on, with their sign.
pub(super) fn signed(word: u32, low: u32, count: u32) -> u64 {
    let unused = 64u32.wrapping_sub(count);
    let value = u64::from(bits(word, low, count)).wrapping_shl(unused) as i64;
    value.wrapping_shr(unused) as u64
}

/// The instruction that a word at an address is.
pub(super) fn decode(word: u32, pc: u64) -> Decoded {
    // C4.1: op0 is bits 28 to 25.
    let found = match bits(word, 25, 4) {
        0b1000 | 0b1001 => immediates(word, pc),
        0b1010 | 0b1011 => branches(word, pc),
        0b0100 | 0b0110 | 0b1100 | 0b1110 => memory_forms::decode(word, pc),
        0b0101 | 0b1101 => register_forms::decode(word),
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
