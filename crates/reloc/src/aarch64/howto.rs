//! How each relocation type is computed, checked and stored (spec 05 §5.4).

use object::elf::{self, RelocationType};

use super::insn::{Field, IMM_12, IMM_14, IMM_19, IMM_ADR};

/// What is computed (spec 05 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// S + A
    Abs,
    /// S + A - P
    Prel,
}

/// Where it goes.
#[derive(Clone, Copy, Debug)]
pub enum Routine {
    /// Nowhere.
    Nothing,
    /// `reloc_data`: that many bytes.
    Data(u64),
    /// `reloc_insn_movw`: 16 bits from bit `lsb` on. With `signed` the opcode follows the sign.
    Movw {
        /// Lowest bit.
        lsb: u32,
        /// MOVNZ; else MOVKZ.
        signed: bool,
    },
    /// `reloc_insn_imm`: `len` bits from bit `lsb` on.
    Imm {
        /// Lowest bit.
        lsb: u32,
        /// How many bits.
        len: u32,
        /// Where they go.
        field: Field,
    },
    /// `reloc_insn_adrp`
    Adrp,
    /// B and BL, by way of a PLT slot if the target is too far.
    Branch,
}

impl Routine {
    /// How many low bits it drops that should be 0 (A64REL-4). MOVW and ADRP drop theirs by design.
    pub fn dropped_bits(self) -> u32 {
        match self {
            Routine::Imm { lsb, .. } => lsb,
            Routine::Branch => 2,
            _ => 0,
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Howto {
    /// What is computed.
    pub op: Op,
    /// Where it goes.
    pub routine: Routine,
    /// A value that does not fit is an error.
    pub checked: bool,
}

use Op::{Abs, Prel};

const fn row(op: Op, routine: Routine) -> Howto {
    Howto { op, routine, checked: true }
}

const fn movw(op: Op, lsb: u32, signed: bool) -> Howto {
    row(op, Routine::Movw { lsb, signed })
}

const fn imm(op: Op, lsb: u32, len: u32, field: Field) -> Howto {
    row(op, Routine::Imm { lsb, len, field })
}

impl Howto {
    /// `_NC`: no check.
    const fn nc(self) -> Howto {
        Howto { checked: false, ..self }
    }
}

/// R_AARCH64_NONE as the first ABI had it; 0 is today's.
const R_AARCH64_NONE_256: RelocationType = RelocationType(256);

/// The row of a type; `None` if modules may not have it.
pub fn howto(r_type: u32) -> Option<Howto> {
    Some(match RelocationType(r_type) {
        elf::R_AARCH64_NONE | R_AARCH64_NONE_256 => row(Abs, Routine::Nothing),

        elf::R_AARCH64_ABS64 => row(Abs, Routine::Data(8)).nc(),
        elf::R_AARCH64_ABS32 => row(Abs, Routine::Data(4)),
        elf::R_AARCH64_ABS16 => row(Abs, Routine::Data(2)),
        elf::R_AARCH64_PREL64 => row(Prel, Routine::Data(8)).nc(),
        elf::R_AARCH64_PREL32 => row(Prel, Routine::Data(4)),
        elf::R_AARCH64_PREL16 => row(Prel, Routine::Data(2)),

        elf::R_AARCH64_MOVW_UABS_G0 => movw(Abs, 0, false),
        elf::R_AARCH64_MOVW_UABS_G0_NC => movw(Abs, 0, false).nc(),
        elf::R_AARCH64_MOVW_UABS_G1 => movw(Abs, 16, false),
        elf::R_AARCH64_MOVW_UABS_G1_NC => movw(Abs, 16, false).nc(),
        elf::R_AARCH64_MOVW_UABS_G2 => movw(Abs, 32, false),
        elf::R_AARCH64_MOVW_UABS_G2_NC => movw(Abs, 32, false).nc(),
        elf::R_AARCH64_MOVW_UABS_G3 => movw(Abs, 48, false).nc(),
        elf::R_AARCH64_MOVW_SABS_G0 => movw(Abs, 0, true),
        elf::R_AARCH64_MOVW_SABS_G1 => movw(Abs, 16, true),
        elf::R_AARCH64_MOVW_SABS_G2 => movw(Abs, 32, true),
        elf::R_AARCH64_MOVW_PREL_G0 => movw(Prel, 0, true),
        elf::R_AARCH64_MOVW_PREL_G0_NC => movw(Prel, 0, false).nc(),
        elf::R_AARCH64_MOVW_PREL_G1 => movw(Prel, 16, true),
        elf::R_AARCH64_MOVW_PREL_G1_NC => movw(Prel, 16, false).nc(),
        elf::R_AARCH64_MOVW_PREL_G2 => movw(Prel, 32, true),
        elf::R_AARCH64_MOVW_PREL_G2_NC => movw(Prel, 32, false).nc(),
        elf::R_AARCH64_MOVW_PREL_G3 => movw(Prel, 48, true).nc(),

        elf::R_AARCH64_LD_PREL_LO19 => imm(Prel, 2, 19, IMM_19),
        elf::R_AARCH64_ADR_PREL_LO21 => imm(Prel, 0, 21, IMM_ADR),
        elf::R_AARCH64_ADR_PREL_PG_HI21 => row(Prel, Routine::Adrp),
        elf::R_AARCH64_ADR_PREL_PG_HI21_NC => row(Prel, Routine::Adrp).nc(),
        elf::R_AARCH64_ADD_ABS_LO12_NC | elf::R_AARCH64_LDST8_ABS_LO12_NC => imm(Abs, 0, 12, IMM_12).nc(),
        elf::R_AARCH64_LDST16_ABS_LO12_NC => imm(Abs, 1, 11, IMM_12).nc(),
        elf::R_AARCH64_LDST32_ABS_LO12_NC => imm(Abs, 2, 10, IMM_12).nc(),
        elf::R_AARCH64_LDST64_ABS_LO12_NC => imm(Abs, 3, 9, IMM_12).nc(),
        elf::R_AARCH64_LDST128_ABS_LO12_NC => imm(Abs, 4, 8, IMM_12).nc(),
        elf::R_AARCH64_TSTBR14 => imm(Prel, 2, 14, IMM_14),
        elf::R_AARCH64_CONDBR19 => imm(Prel, 2, 19, IMM_19),
        elf::R_AARCH64_JUMP26 | elf::R_AARCH64_CALL26 => row(Prel, Routine::Branch),

        _ => return None,
    })
}
