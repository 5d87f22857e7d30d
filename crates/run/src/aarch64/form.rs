//! What an instruction is once it is decoded, and the fields of words.

use super::vector::operation::V;

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
    // Vectors: v is done with elements of k bytes; those without a sign where a is 1. d, n and m are vectors.
    /// Of n and m: the immediate is 0 for m, 1 for zero in its place, and from 2 on the number of the one element of m that counts
    VectorSame,
    /// To elements twice as wide; the immediate is the same
    VectorLong,
    /// The elements of n are as wide as those of d.
    VectorWide,
    /// The upper halves of elements twice as wide; rounded where a is 1
    VectorUpper,
    VectorPairs,
    VectorByCount,
    /// From elements half as wide
    VectorLongByCount,
    /// To elements half as wide
    VectorNarrowByCount,
    VectorOne,
    /// Sums of neighbours; they are added to d where the immediate is 1
    VectorWideSums,
    /// All elements of n in one, which is twice as wide where the immediate is 1
    VectorAcross,
    VectorMove,
    VectorPermute,
    /// TBL, and TBX where the immediate is 1; a is how many registers more than one
    VectorTable,
    /// The third source is a.
    VectorCipher,
    // At n, with the mode k, and 1 << a bytes
    LoadVector,
    StoreVector,
    // d and a, of 1 << m bytes each, at n, with the mode k
    LoadVectors,
    StoreVectors,
    /// LD1 to LD4 and ST1 to ST4 at n: the word is the immediate
    VectorStructures,
}

impl Op {
    /// May another instruction than the next one follow?
    pub fn ends(self) -> bool {
        use Op::{B, BCond, Bl, Blr, Br, Brk, Cbnz, Cbz, Tbnz, Tbz, Udf, Unknown};
        matches!(self, B | BCond | Bl | Blr | Br | Brk | Cbnz | Cbz | Tbnz | Tbz | Udf | Unknown)
    }
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
    /// What is done with vectors
    pub v: V,
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
        Decoded { op, v: V::Nothing, d: SINK, n: ZERO, m: ZERO, a: 0, k: 0, wide: true, immediate: 0 }
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
