//! Relocation types of aarch64 (spec 05).

use alloc::format;

use elf_layout::bytes::slice_mut;
use elf_layout::elf::{Rela, SymFields};
use elf_layout::{Change, Errno, Finding, Findings, Severity};

use super::MACHINE;
use super::howto::{Op, Routine, howto};
use super::insn::{self, Field, IMM_16, IMM_26, IMM_ADR, page};
use super::plts::{NoSlot, Plts};
use crate::mod_arch::ModArch;
use crate::{Formula, Howto, Records, RelaSection, ResultBits, type_text};

/// Why a record was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    OutOfBounds,
    UnknownType,
    /// The value does not fit; what the kernel prints of it.
    Overflow(u64),
    /// No linkage table slot for a branch.
    Branch(NoSlot),
    /// No linkage table slot for an ADRP.
    Veneer(NoSlot),
}

/// What the kernel did with a record, and whether it noticed all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Applied {
    /// As the ABI has it.
    Whole,
    /// Low bits that are not zero were dropped (A64REL-4).
    Unaligned,
}

/// `arch/arm64/kernel/module.c: apply_relocate_add`
pub fn apply_relocate_add(
    section: &mut RelaSection<'_>,
    records: Records<'_>,
    arch: &mut ModArch,
    said: &mut Findings,
) {
    let Some(mut plts) = Plts::of(arch, section.in_init) else { return };
    match records {
        Records::File(records) => apply_all(section, records.iter().map(Rela::from), &mut plts, said),
        Records::Reordered(records) => apply_all(section, records.iter().copied(), &mut plts, said),
    }
}

/// About how far the temporary copy is from the module: vmalloc space follows the module area.
const TEMPORARY_COPY: u64 = 0x100_0000;

/// What the processor ignores of an address in the upper half with TBI1, which the kernel sets where it has MTE.
pub const TOP_BYTE: u64 = 0xff << 56;

/// What a type does (spec 05 §5.1).
pub fn howto_of(r_type: u32) -> Option<Howto> {
    let row = howto(r_type)?;
    let width = match row.routine {
        Routine::Nothing => 0,
        Routine::Data(width) => width,
        _ => 4,
    };
    let formula = match (row.routine, row.op) {
        (Routine::Nothing, _) => None,
        (Routine::Adrp, _) => Some(Formula::PageRelative),
        (_, Op::Abs) => Some(Formula::Absolute),
        (_, Op::Prel) => Some(Formula::Relative),
    };
    let bits = |from, count, signed| Some(ResultBits { from, count, signed });
    let field = match row.routine {
        Routine::Nothing | Routine::Data(_) => None,
        Routine::Movw { lsb, signed } => bits(lsb, 16, signed),
        Routine::Imm { lsb, len, .. } => bits(lsb, len, false),
        Routine::Adrp => bits(12, 21, false),
        Routine::Branch => bits(2, 26, false),
    };
    Some(Howto { width, formula, field })
}

/// Bytes that a record asks for, of whatever type.
fn width(r_type: u32) -> u64 {
    howto_of(r_type).map_or(4, |howto| howto.width)
}

/// Does it fit for every symbol (RELOC-GEN-17)? Modules lie within 2 GiB of the kernel and of each other, branches that do not
/// reach go through a table.
pub fn reaches_every_symbol(r_type: u32) -> bool {
    match r_type {
        // R_AARCH64_NONE, ABS64, PREL64, PREL32
        0 | 256 | 257 | 260 | 261 => true,
        // R_AARCH64_ADR_PREL_PG_HI21, ADR_PREL_PG_HI21_NC, ADD_ABS_LO12_NC, LDST8_ABS_LO12_NC
        275..=278 => true,
        // R_AARCH64_JUMP26, CALL26; LDST16_ABS_LO12_NC, LDST32, LDST64, LDST128
        282..=286 | 299 => true,
        _ => false,
    }
}

fn apply_all(
    section: &mut RelaSection<'_>,
    records: impl Iterator<Item = Rela>,
    plts: &mut Plts<'_>,
    said: &mut Findings,
) {
    for (entry, rela) in records.enumerate() {
        let Some(value) = section.value(entry, &rela, said) else {
            let width = width(rela.r_type());
            if section.is_unknown(&rela)
                && !section.has_place(entry, &rela, width, said)
                && section.place_but_for(TOP_BYTE, &rela, width).is_none()
            {
                said.push(section.out_of_bounds(entry, &rela));
            }
            continue;
        };
        let place = section.address.wrapping_add(rela.r_offset);
        let temporary = section.is_temporary(&rela);
        // A64REL-40: an address of the temporary copy, in reach of the module but never of 32 bits.
        let value = if temporary { value.wrapping_add(section.address | TEMPORARY_COPY) } else { value };
        let memory = section.memory.section();
        let mut result = apply_one(memory, rela.r_offset, rela.r_type(), value, place, plts);
        if result == Err(Refusal::OutOfBounds)
            && let Some(memory) = section.place_outside(entry, &rela, width(rela.r_type()), said)
        {
            result = apply_one(memory, 0, rela.r_type(), value, place, plts);
        }
        if result == Err(Refusal::OutOfBounds) {
            let ignored = section.config.ignores_top_byte();
            let memory = section.place_but_for(TOP_BYTE, &rela, width(rela.r_type()));
            match memory.filter(|_| ignored != Some(false)) {
                Some(memory) if ignored == Some(true) => {
                    result = apply_one(memory, 0, rela.r_type(), value, place, plts);
                }
                Some(_) => {
                    let needs = "whether the processor ignores the top byte of addresses (TBI1): a relocation goes to a place of the module with another top byte";
                    said.may_crash("RELOC-GEN-11", needs);
                    continue;
                }
                None => {}
            }
        }
        match result {
            Ok(Applied::Whole) => {}
            Ok(Applied::Unaligned) => said.push(unaligned(section, entry, &rela, value)),
            Err(refusal) => said.push(refused(section, entry, &rela, refusal)),
        }
    }
}

/// One record: `value` is S + A, `place` is P. The store comes before the check (A64REL-2).
fn apply_one(
    memory: &mut [u8],
    offset: u64,
    r_type: u32,
    value: u64,
    place: u64,
    plts: &mut Plts<'_>,
) -> Result<Applied, Refusal> {
    let howto = howto(r_type).ok_or(Refusal::UnknownType)?;
    let result = match howto.op {
        Op::Abs => value,
        Op::Prel => value.wrapping_sub(place),
    } as i64;
    let outcome = match howto.routine {
        Routine::Nothing => return Ok(Applied::Whole),
        Routine::Data(width) => {
            let target = slice_mut(memory, offset, width).ok_or(Refusal::OutOfBounds)?;
            in_range(reloc_data(target, howto.op, result), value)
        }
        routine => {
            let target = slice_mut(memory, offset, 4).ok_or(Refusal::OutOfBounds)?;
            let mut insn = u32::from_le_bytes((&*target).try_into().map_err(|_| Refusal::OutOfBounds)?);
            let outcome = reloc_insn(&mut insn, routine, result, value, place, plts);
            target.copy_from_slice(&insn.to_le_bytes());
            outcome
        }
    };
    match outcome {
        Err(Refusal::Overflow(_)) if !howto.checked => {}
        outcome => outcome?,
    }
    let dropped = low_bits(result, howto.routine.dropped_bits());
    Ok(if dropped == 0 { Applied::Whole } else { Applied::Unaligned })
}

/// ERANGE, with what the kernel prints, unless the value fits.
fn in_range(fits: bool, shown: u64) -> Result<(), Refusal> {
    if fits { Ok(()) } else { Err(Refusal::Overflow(shown)) }
}

/// One instruction. `result` is what is to be encoded, `value` is S + A.
fn reloc_insn(
    insn: &mut u32,
    routine: Routine,
    result: i64,
    value: u64,
    place: u64,
    plts: &mut Plts<'_>,
) -> Result<(), Refusal> {
    match routine {
        Routine::Nothing | Routine::Data(_) => Ok(()),
        Routine::Movw { lsb, signed } => in_range(reloc_insn_movw(insn, result, lsb, signed), value),
        Routine::Imm { lsb, len, field } => in_range(reloc_insn_imm(insn, result, lsb, len, field), value),
        Routine::Adrp => reloc_insn_adrp(insn, value, place, plts),
        // A64REL-30, A64REL-33: by way of a slot only if out of reach, as a weak symbol at 0 is (A64REL-34)
        Routine::Branch if reloc_insn_imm(insn, result, 2, 26, IMM_26) => Ok(()),
        Routine::Branch => {
            let slot = plts.module_emit_plt_entry(value).map_err(Refusal::Branch)?;
            in_range(reloc_insn_imm(insn, slot.wrapping_sub(place) as i64, 2, 26, IMM_26), slot)
        }
    }
}

fn low_bits(value: i64, count: u32) -> i64 {
    value & 1i64.wrapping_shl(count).wrapping_sub(1)
}

/// `reloc_data` (A64REL-6 to A64REL-8): does the value fit into the bytes of the target?
fn reloc_data(target: &mut [u8], op: Op, value: i64) -> bool {
    for (to, from) in target.iter_mut().zip(value.to_le_bytes()) {
        *to = from;
    }
    match (target.len(), op) {
        (2, Op::Abs) => u16::try_from(value).is_ok(),
        (2, Op::Prel) => i16::try_from(value).is_ok(),
        (4, Op::Abs) => u32::try_from(value).is_ok(),
        (4, Op::Prel) => i32::try_from(value).is_ok(),
        _ => true,
    }
}

/// `reloc_insn_movw` (A64REL-9 to A64REL-11).
fn reloc_insn_movw(insn: &mut u32, value: i64, lsb: u32, signed: bool) -> bool {
    let mut imm = value.wrapping_shr(lsb);
    if signed {
        *insn = insn::set_movz_or_movn(*insn, value < 0);
        if value < 0 {
            imm = !imm;
        }
    }
    *insn = IMM_16.encode(*insn, imm as u64);
    u16::try_from(imm).is_ok()
}

/// `reloc_insn_imm` (A64REL-1 to A64REL-5): the field may be wider than `len`, its upper bits become 0.
fn reloc_insn_imm(insn: &mut u32, value: i64, lsb: u32, len: u32, field: Field) -> bool {
    let value = value.wrapping_shr(lsb);
    *insn = field.encode(*insn, low_bits(value, len) as u64);
    matches!(value.wrapping_shr(len.saturating_sub(1)), 0 | -1)
}

/// `reloc_insn_adrp` (A64REL-20 to A64REL-23).
fn reloc_insn_adrp(insn: &mut u32, value: u64, place: u64, plts: &mut Plts<'_>) -> Result<(), Refusal> {
    let target = page(value);
    if !plts.is_forbidden(place) {
        let distance = target.wrapping_sub(page(place)) as i64;
        return in_range(reloc_insn_imm(insn, distance, 12, 21, IMM_ADR), value);
    }
    if reloc_insn_imm(insn, target.wrapping_sub(place) as i64, 0, 21, IMM_ADR) {
        *insn = insn::adrp_to_adr(*insn);
    } else {
        let veneer = plts.module_emit_veneer_for_adrp(*insn, place, target).map_err(Refusal::Veneer)?;
        *insn = insn::branch(place, veneer);
    }
    Ok(())
}

/// The kernel's words for a refused record.
fn refused(section: &RelaSection<'_>, entry: usize, rela: &Rela, refusal: Refusal) -> Finding {
    let (me, r_type) = (section.file.name_text(), rela.r_type());
    let (type_name, symbol) = (type_text(MACHINE.e_machine, r_type), section.symbol_text(rela));
    // Since v6.5 (e46b7103aef3) module.c has a pr_fmt.
    let prefix = if section.config.has(Change::ModulesLogPrefix) { "Modules: " } else { "" };
    let finding = match refusal {
        Refusal::OutOfBounds => return section.out_of_bounds(entry, rela),
        Refusal::UnknownType => {
            let why = format!("{type_name} against {symbol}: a type that modules may not have");
            let line = format!("{prefix}module {me}: unsupported RELA relocation: {r_type}");
            let hint =
                "build the module with the kernel's flags (kbuild): no position independent code, no GOT";
            Finding::error("A64REL-12", Errno::ENOEXEC, why).says(line).hint(hint)
        }
        Refusal::Overflow(value) => {
            let why = format!("{type_name} against {symbol}: {value:#x} is out of reach of its place");
            let line = format!("{prefix}module {me}: overflow in relocation type {r_type} val {value:x}");
            Finding::error(overflow_rule(r_type), Errno::ENOEXEC, why).says(line)
        }
        Refusal::Branch(NoSlot::Full) if is_own(section, rela) => {
            let why = format!(
                "{type_name} against {symbol}: too far away in its own section, for which no PLT slot is counted"
            );
            Finding::error("A64REL-32", Errno::ENOEXEC, why)
        }
        Refusal::Branch(NoSlot::Full) => {
            let why = format!("{type_name} against {symbol}: more PLT slots are needed than were counted");
            Finding::error("A64REL-31", Errno::ENOEXEC, why)
        }
        Refusal::Veneer(_) => {
            let why = format!(
                "{type_name} against {symbol}: no PLT slot left for the veneer that erratum 843419 calls for"
            );
            Finding::error("A64REL-22", Errno::ENOEXEC, why)
        }
        Refusal::Branch(NoSlot::Bug) => {
            let why = format!(
                "{type_name} against {symbol}: no PLT slot reaches its target; the kernel stops with a BUG when it compares two such slots"
            );
            Finding::note("PLT-22", Severity::Oops, why)
        }
    };
    finding.about(section.subject(entry, rela))
}

/// Does the symbol stand in the section that the record patches?
fn is_own(section: &RelaSection<'_>, rela: &Rela) -> bool {
    let symbol = section.file.symbols().get(rela.r_sym() as usize);
    symbol.is_some_and(|s| usize::from(s.shndx()) == section.target)
}

/// The rule that a value of this type broke.
fn overflow_rule(r_type: u32) -> &'static str {
    match howto(r_type).map(|h| h.routine) {
        Some(Routine::Data(2)) => "A64REL-8",
        Some(Routine::Data(_)) => "A64REL-7",
        Some(Routine::Movw { .. }) => "A64REL-11",
        Some(Routine::Adrp) => "A64REL-23",
        Some(Routine::Branch) => "A64REL-30",
        _ => "A64REL-3",
    }
}

/// A64REL-4: the kernel does not notice, and the module then uses another address.
fn unaligned(section: &RelaSection<'_>, entry: usize, rela: &Rela, value: u64) -> Finding {
    let (type_name, symbol) = (type_text(MACHINE.e_machine, rela.r_type()), section.symbol_text(rela));
    let why = format!(
        "{type_name} against {symbol}: {value:#x} is not aligned as the instruction needs it; the kernel drops the low bits without a word"
    );
    Finding::note("A64REL-4", Severity::Warning, why).about(section.subject(entry, rela))
}

#[cfg(test)]
#[path = "relocate_tests.rs"]
mod tests;
