//! A64 instructions, as far as the loader edits and generates them (spec 05 §5.2, §5.7).

/// An immediate field (`enum aarch64_insn_imm_type`): one or two runs of bits.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    low: Run,
    high: Run,
}

/// `width` bits of the immediate, from bit `from` on, stand at bit `at` of the instruction.
#[derive(Clone, Copy, Debug)]
struct Run {
    from: u32,
    width: u32,
    at: u32,
}

/// A field in one piece.
const fn field(width: u32, at: u32) -> Field {
    Field { low: Run { from: 0, width, at }, high: Run { from: 0, width: 0, at: 0 } }
}

/// B, BL.
pub const IMM_26: Field = field(26, 0);
/// B.cond, CBZ, LDR literal.
pub const IMM_19: Field = field(19, 5);
/// MOVZ, MOVN, MOVK.
pub const IMM_16: Field = field(16, 5);
/// TBZ, TBNZ.
pub const IMM_14: Field = field(14, 5);
/// ADD, and LDR and STR with an unsigned offset.
pub const IMM_12: Field = field(12, 10);
/// ADR, ADRP: immlo, immhi.
pub const IMM_ADR: Field =
    Field { low: Run { from: 0, width: 2, at: 29 }, high: Run { from: 2, width: 19, at: 5 } };

/// `brk #0x100`: what the kernel's generators return when they fail (AARCH64_BREAK_FAULT).
pub const BREAK_FAULT: u32 = 0xd420_2000;
/// `br x16`
pub const BR_X16: u32 = 0xd61f_0200;
/// `nop`
pub const NOP: u32 = 0xd503_201f;
/// `mov x9, x30`
pub const MOV_X9_LR: u32 = 0xaa1e_03e9;

const B: u32 = 0x1400_0000;
const ADD: u32 = 0x9100_0000;
const ADRP: u32 = 0x9000_0000;
/// The bits that tell ADRP from other instructions.
const ADRP_MASK: u32 = 0x9f00_0000;
/// The bit that tells ADRP from ADR.
const ADRP_BIT: u32 = 1 << 31;
/// MOVZ has opc 0b10 and MOVN 0b00 in these bits.
const MOVW_OPC: u32 = 0b11 << 29;
const MOVZ: u32 = 0b10 << 29;

/// Branches reach this far: 128 MiB.
const BRANCH_RANGE: i64 = 128 << 20;
/// ADRP reaches this many pages.
const ADRP_RANGE: i32 = 1 << 20;
/// ADRP counts in pages of 4 KiB, whatever the kernel's are.
const PAGE_MASK: u64 = 0xfff;

/// `width` one bits.
fn ones(width: u32) -> u64 {
    1u64.wrapping_shl(width).wrapping_sub(1)
}

/// Start of the 4 KiB page of an address.
pub fn page(address: u64) -> u64 {
    address & !PAGE_MASK
}

/// Erratum 843419 hits an ADRP in the last two words of a page (A64REL-20).
pub fn is_forbidden_offset_for_adrp(address: u64) -> bool {
    address & PAGE_MASK >= 0xff8
}

impl Run {
    fn encode(self, insn: u32, imm: u64) -> u32 {
        let bits = (imm.wrapping_shr(self.from) & ones(self.width)) as u32;
        insn & !(ones(self.width) as u32).wrapping_shl(self.at) | bits.wrapping_shl(self.at)
    }

    fn decode(self, insn: u32) -> u64 {
        (u64::from(insn).wrapping_shr(self.at) & ones(self.width)).wrapping_shl(self.from)
    }
}

impl Field {
    /// `aarch64_insn_encode_immediate`: other bits of the instruction stay. A failed instruction stays failed.
    pub fn encode(self, insn: u32, imm: u64) -> u32 {
        match insn {
            BREAK_FAULT => insn,
            _ => self.high.encode(self.low.encode(insn, imm), imm),
        }
    }

    /// `aarch64_insn_decode_immediate`, unsigned.
    pub fn decode(self, insn: u32) -> u64 {
        self.low.decode(insn) | self.high.decode(insn)
    }

    /// The same with its highest bit as sign.
    pub fn decode_signed(self, insn: u32) -> i64 {
        let sign = 1u64.wrapping_shl(self.low.width.wrapping_add(self.high.width).wrapping_sub(1));
        (self.decode(insn) ^ sign).wrapping_sub(sign).cast_signed()
    }
}

/// MOVZ for a value that is not negative, else MOVN (A64REL-10).
pub fn set_movz_or_movn(insn: u32, negative: bool) -> u32 {
    insn & !MOVW_OPC | if negative { 0 } else { MOVZ }
}

/// The same instruction as ADR instead of ADRP (A64REL-21).
pub fn adrp_to_adr(insn: u32) -> u32 {
    insn & !ADRP_BIT
}

/// The register in bits 4:0.
pub fn rd(insn: u32) -> u32 {
    insn & 31
}

/// `aarch64_insn_gen_adr` for ADRP. The kernel keeps the distance in pages in 32 bits, so a target
/// 2^44 bytes and more away may come out as another one (PLT-25).
pub fn adrp(pc: u64, target: u64, rd: u32) -> u32 {
    let pages = (target.wrapping_sub(page(pc)) >> 12) as i32;
    if !(-ADRP_RANGE..ADRP_RANGE).contains(&pages) {
        return BREAK_FAULT;
    }
    IMM_ADR.encode(ADRP | rd, pages as u64)
}

/// `aarch64_insn_adrp_get_offset`: bytes, cut to 32 bits. `None`: not an ADRP, which is a BUG there.
pub fn adrp_get_offset(insn: u32) -> Option<i64> {
    let bytes = IMM_ADR.decode(insn) << 12;
    (insn & ADRP_MASK == ADRP).then_some(i64::from(bytes as i32))
}

/// `aarch64_insn_adrp_set_offset`: bytes, in whole pages.
pub fn adrp_set_offset(insn: u32, offset: i32) -> u32 {
    IMM_ADR.encode(insn, (offset >> 12) as u64)
}

/// Where the distance stands, in words, in an instruction for which `aarch64_insn_is_branch_imm` holds.
fn branch_field(insn: u32) -> Option<Field> {
    let is = |mask, value| insn & mask == value;
    // Two rows each: B and BL, CBZ and CBNZ, TBZ and TBNZ differ in one bit.
    if is(0x7c00_0000, B) {
        Some(IMM_26)
    } else if is(0x7e00_0000, 0x3400_0000) || is(0xff00_0000, 0x5400_0000) {
        Some(IMM_19)
    } else if is(0x7e00_0000, 0x3600_0000) {
        Some(IMM_14)
    } else {
        None
    }
}

/// `aarch64_get_branch_offset` in bytes; `None`: no branch with an immediate distance.
pub fn get_branch_offset(insn: u32) -> Option<i64> {
    branch_field(insn).map(|field| field.decode_signed(insn) << 2)
}

/// `aarch64_set_branch_offset`: what does not fit is cut off.
pub fn set_branch_offset(insn: u32, offset: i32) -> u32 {
    branch_field(insn).map_or(insn, |field| field.encode(insn, (offset >> 2) as u64))
}

/// `aarch64_insn_uses_literal`: LDR, LDRSW and PRFM of a literal, ADR and ADRP.
pub fn uses_literal(insn: u32) -> bool {
    let rows = [
        (0xbf00_0000, 0x1800_0000),
        (0xff00_0000, 0x9800_0000),
        (0xff00_0000, 0xd800_0000),
        (ADRP_MASK & !ADRP_BIT, ADRP & !ADRP_BIT),
    ];
    rows.into_iter().any(|(mask, value)| insn & mask == value)
}

/// `aarch64_insn_is_bti`, whatever it lets in.
pub fn is_bti(insn: u32) -> bool {
    insn & !0xc0 == 0xd503_241f
}

/// `add xd, xd, #lo12 of target`
pub fn add_lo12(rd: u32, target: u64) -> u32 {
    IMM_12.encode(ADD | (rd << 5) | rd, target & PAGE_MASK)
}

/// `aarch64_insn_gen_branch_imm` for B.
pub fn branch(pc: u64, target: u64) -> u32 {
    let distance = target.wrapping_sub(pc) as i64;
    if (pc | target) & 3 != 0 || !(-BRANCH_RANGE..BRANCH_RANGE).contains(&distance) {
        return BREAK_FAULT;
    }
    IMM_26.encode(B, (distance >> 2) as u64)
}

/// Where a `bl` (`call`) or `b` leads.
pub fn branch_target(code: &[u8], address: u64, call: bool) -> Option<u64> {
    let word = u32::from_le_bytes(*code.first_chunk::<4>()?);
    let opcode = if call { 0x9400_0000 } else { 0x1400_0000 };
    let distance = i64::from((word << 6).cast_signed() >> 4);
    (word & 0xfc00_0000 == opcode).then(|| address.wrapping_add_signed(distance))
}
