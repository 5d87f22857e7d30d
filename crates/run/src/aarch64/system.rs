//! System instructions and system registers.

use super::form::{Decoded, Op, bits, source, target};

/// A system register, by the numbers that its instructions have: op0, op1, CRn, CRm, op2.
const fn key(op0: u16, op1: u16, n: u16, m: u16, op2: u16) -> u16 {
    op0 << 14 | op1 << 11 | n << 7 | m << 3 | op2
}

const SP_EL0_KEY: u16 = key(3, 0, 4, 1, 0);
const TPIDR_EL1_KEY: u16 = key(3, 0, 13, 0, 4);
const NZCV_KEY: u16 = key(3, 3, 4, 2, 0);
const DAIF_KEY: u16 = key(3, 3, 4, 2, 1);

/// Slots of registers that others than MRS and MSR use.
pub(super) const SP_EL0: usize = 0;
pub(super) const TPIDR_EL1: usize = 1;
pub(super) const DAIF: usize = 2;
/// Kinds of registers, as `k`: the slot is the immediate.
pub(super) const SLOT: u8 = 0;
/// The flags.
pub(super) const NZCV: u8 = 1;
/// The counter.
pub(super) const COUNTER: u8 = 2;
/// The immediate is what the register reads as.
pub(super) const FIXED: u8 = 3;

/// Registers that are read as they were written, and what they are at first.
const STORED: &[(u16, u64)] = &[
    (SP_EL0_KEY, 0),
    (TPIDR_EL1_KEY, 0),
    (DAIF_KEY, 0),
    // TPIDR_EL0, TPIDRRO_EL0
    (key(3, 3, 13, 0, 2), 0),
    (key(3, 3, 13, 0, 3), 0),
    // SCTLR_EL1: MMU and caches, without pointer authentication and alignment checks
    (key(3, 0, 1, 0, 0), 0x30d0_198d),
    // ACTLR_EL1, CPACR_EL1
    (key(3, 0, 1, 0, 1), 0),
    (key(3, 0, 1, 0, 2), 0),
    // TTBR0_EL1, TTBR1_EL1
    (key(3, 0, 2, 0, 0), 0),
    (key(3, 0, 2, 0, 1), 0),
    // TCR_EL1: 48 bits on both sides, top bytes ignored
    (key(3, 0, 2, 0, 2), 0x0000_0060_b510_3510),
    // SPSR_EL1, ELR_EL1
    (key(3, 0, 4, 0, 0), 0),
    (key(3, 0, 4, 0, 1), 0),
    // AFSR0_EL1, AFSR1_EL1, ESR_EL1, FAR_EL1, PAR_EL1
    (key(3, 0, 5, 1, 0), 0),
    (key(3, 0, 5, 1, 1), 0),
    (key(3, 0, 5, 2, 0), 0),
    (key(3, 0, 6, 0, 0), 0),
    (key(3, 0, 7, 4, 0), 0),
    // MAIR_EL1, AMAIR_EL1, VBAR_EL1, CONTEXTIDR_EL1
    (key(3, 0, 10, 2, 0), 0),
    (key(3, 0, 10, 3, 0), 0),
    (key(3, 0, 12, 0, 0), 0),
    (key(3, 0, 13, 0, 1), 0),
    // CSSELR_EL1, CNTKCTL_EL1
    (key(3, 2, 0, 0, 0), 0),
    (key(3, 0, 14, 1, 0), 0),
    // CNTP_CTL_EL0, CNTP_CVAL_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0
    (key(3, 3, 14, 2, 1), 0),
    (key(3, 3, 14, 2, 2), 0),
    (key(3, 3, 14, 3, 1), 0),
    (key(3, 3, 14, 3, 2), 0),
    // MDSCR_EL1
    (key(2, 0, 0, 2, 2), 0),
    // FPCR, FPSR
    (key(3, 3, 4, 4, 0), 0),
    (key(3, 3, 4, 4, 1), 0),
];

/// Registers that cannot be written, and what they tell.
const READ_ONLY: &[(u16, u64)] = &[
    // CurrentEL: 1
    (key(3, 0, 4, 2, 2), 4),
    // MIDR_EL1: of nobody. MPIDR_EL1, REVIDR_EL1
    (key(3, 0, 0, 0, 0), 0x000f_0000),
    (key(3, 0, 0, 0, 5), 0x8000_0000),
    (key(3, 0, 0, 0, 6), 0),
    // ID_AA64PFR0_EL1: no 32-bit programs; floating point and vectors, of which arithmetic on floating-point numbers stops by name;
    // nothing that others can learn from speculation
    (key(3, 0, 0, 4, 0), 0x1300_0000_0000_0011),
    // ID_AA64ISAR0_EL1: AES and PMULL, SHA1, SHA256 and SHA512, CRC32, LSE, SHA3
    (key(3, 0, 0, 6, 0), 0x0000_0001_0021_2120),
    // CLIDR_EL1, CCSIDR_EL1, AIDR_EL1
    (key(3, 1, 0, 0, 1), 0),
    (key(3, 1, 0, 0, 0), 0),
    (key(3, 1, 0, 0, 7), 0),
    // CTR_EL0: lines of 64 bytes. DCZID_EL0: blocks of 64 bytes. CNTFRQ_EL0
    (key(3, 3, 0, 0, 1), 0x8444_c004),
    (key(3, 3, 0, 0, 7), 4),
    (key(3, 3, 14, 0, 0), 62_500_000),
];

/// Bytes that DC ZVA clears, as DCZID_EL0 tells.
pub(super) const BLOCK: u64 = 64;
/// Slots that there are; more than [`STORED`] has.
pub(super) const SLOTS: usize = 32;

/// What the registers hold at first.
pub(super) fn reset() -> [u64; SLOTS] {
    let mut all = [0; SLOTS];
    for (slot, (_, value)) in all.iter_mut().zip(STORED) {
        *slot = *value;
    }
    all
}

/// What a register is: its kind, and the slot or value.
fn place(register: u16, reads: bool) -> Option<(u8, u64)> {
    if let Some(slot) = STORED.iter().position(|(known, _)| *known == register) {
        return Some((SLOT, slot as u64));
    }
    if register == NZCV_KEY {
        return Some((NZCV, 0));
    }
    if !reads {
        return None;
    }
    // CNTVCT_EL0, CNTPCT_EL0
    if register == key(3, 3, 14, 0, 2) || register == key(3, 3, 14, 0, 1) {
        return Some((COUNTER, 0));
    }
    if let Some((_, value)) = READ_ONLY.iter().find(|(known, _)| *known == register) {
        return Some((FIXED, *value));
    }
    // All other identification registers: no features.
    let features = key(3, 0, 0, 1, 0)..=key(3, 0, 0, 7, 7);
    features.contains(&register).then_some((FIXED, 0))
}

/// C5: what begins with 0xd5.
pub(super) fn decode(word: u32) -> Option<Decoded> {
    if bits(word, 22, 2) != 0 {
        return None;
    }
    let (reads, op0, op1) = (bits(word, 21, 1) == 1, bits(word, 19, 2), bits(word, 16, 3));
    let (n, m, op2) = (bits(word, 12, 4), bits(word, 8, 4), bits(word, 5, 3));
    let nop = Some(Decoded::new(Op::Nop));
    match (op0, reads) {
        (0, false) if bits(word, 0, 5) != 31 => None,
        // Hints; those of pointer authentication have no keys, and of branch targets nothing is checked.
        (0, false) if (op1, n) == (3, 2) => {
            if (m, op2) == (0, 3) {
                return Some(Decoded::new(Op::Wfi));
            }
            nop
        }
        // CLREX, DSB, DMB, ISB, SB
        (0, false) if (op1, n) == (3, 3) => match op2 {
            2 => Some(Decoded::new(Op::ClearExclusive)),
            4..=7 => nop,
            _ => None,
        },
        // DAIFSet, DAIFClr
        (0, false) if (op1, n) == (3, 4) && op2 >= 6 => {
            Some(Decoded { a: m as u8, k: u8::from(op2 == 6), ..Decoded::new(Op::Daif) })
        }
        // IC and DC: there are no caches. TLBI: there are no page tables.
        (1, false) => match (op1, n, m, op2) {
            (3, 7, 4, 1) => Some(Decoded { n: source(word, 0), ..Decoded::new(Op::ZeroBlock) }),
            (0, 7, 1 | 5, 0) | (3, 7, 5, 1) => nop,
            (0, 7, 6, 1 | 2) | (0, 7, 10 | 14, 2) => nop,
            (3, 7, 10..=14, 1) => nop,
            (0, 8, 3 | 7, _) => nop,
            _ => None,
        },
        (2 | 3, _) => {
            let (k, immediate) = place((word >> 5) as u16, reads)?;
            Some(match reads {
                true => Decoded { d: target(word, 0), k, immediate, ..Decoded::new(Op::Mrs) },
                false => Decoded { n: source(word, 0), k, immediate, ..Decoded::new(Op::Msr) },
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_where_they_are_said_to_be() {
        assert!(STORED.len() <= SLOTS);
        for (slot, register) in [(SP_EL0, SP_EL0_KEY), (TPIDR_EL1, TPIDR_EL1_KEY), (DAIF, DAIF_KEY)] {
            assert_eq!(place(register, false), Some((SLOT, slot as u64)));
        }
    }
}
