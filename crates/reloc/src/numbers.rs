//! Relocations that store plain numbers: what an architecture needs no code for.

use alloc::format;

use elf_layout::bytes::slice_mut;
use elf_layout::{Errno, Finding, Findings};

use crate::{Records, RelaSection, type_text};

/// What a relocation computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formula {
    /// S + A
    Absolute,
    /// S + A - P
    Relative,
    /// Page(S + A) - Page(P), of pages of 4 KiB
    PageRelative,
}

impl Formula {
    /// In the terms of the ABI.
    pub const fn text(self) -> &'static str {
        match self {
            Formula::Absolute => "S + A",
            Formula::Relative => "S + A - P",
            Formula::PageRelative => "Page(S + A) - Page(P)",
        }
    }

    /// What comes of it: `value` is S + A, `place` is P.
    pub const fn result(self, value: u64, place: u64) -> u64 {
        const PAGE: u64 = 0xfff;
        match self {
            Formula::Absolute => value,
            Formula::Relative => value.wrapping_sub(place),
            Formula::PageRelative => (value & !PAGE).wrapping_sub(place & !PAGE),
        }
    }
}

/// What a relocation of one type does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Howto {
    /// How many bytes it writes, or changes bits of.
    pub width: u64,
    /// What it computes, in the terms of the ABI; `None` if it computes nothing.
    pub formula: Option<Formula>,
    /// Which bits of the result go into an instruction; `None` if the result is stored as a number.
    pub field: Option<ResultBits>,
}

/// Bits of a result that go into the immediate of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResultBits {
    /// The lowest one.
    pub from: u32,
    /// How many, at most 26.
    pub count: u32,
    /// Are they inverted if the result is negative?
    pub signed: bool,
}

impl ResultBits {
    /// Are the bits of this result inverted?
    pub const fn inverts(self, result: u64) -> bool {
        self.signed && result.cast_signed() < 0
    }

    /// The immediate that the instruction gets.
    pub const fn of(self, result: u64) -> u64 {
        let result = if self.inverts(result) { !result } else { result };
        result.wrapping_shr(self.from) & 1u64.wrapping_shl(self.count).wrapping_sub(1)
    }
}

impl Howto {
    /// A number of `width` bytes.
    pub const fn new(width: u64, formula: Formula) -> Self {
        Howto { width, formula: Some(formula), field: None }
    }
}

/// `apply_relocate_add` by a table of types (RELOC-GEN-7).
pub(crate) fn apply_relocate_add(
    section: &mut RelaSection<'_>,
    records: Records<'_>,
    howto: &dyn Fn(u32) -> Option<Howto>,
    said: &mut Findings,
) {
    for (entry, rela) in records.iter().enumerate() {
        let value = section.value(entry, &rela, said);
        if value.is_none() && !section.is_unknown(&rela) {
            continue;
        }
        let refused = |section: &RelaSection<'_>, why| {
            Finding::error("RELOC-GEN-7", Errno::ENOEXEC, why).about(section.subject(entry, &rela))
        };
        let Some(howto) = howto(rela.r_type()) else {
            let name = type_text(section.file.e_machine(), rela.r_type());
            said.push(refused(section, format!("the loader does not know relocations of {name}")));
            continue;
        };
        let Some(formula) = howto.formula else { continue };
        let Some(value) = value else {
            if !section.has_place(entry, &rela, howto.width, said) {
                said.push(section.out_of_bounds(entry, &rela));
            }
            continue;
        };
        let number = formula.result(value, section.address.wrapping_add(rela.r_offset));
        let Some(bytes) = fitting(number, howto.width) else {
            let why = format!("{number:#x} does not fit into {} bytes", howto.width);
            said.push(refused(section, why));
            continue;
        };
        let bytes = bytes.to_le_bytes();
        let Some(bytes) = bytes.get(..usize::try_from(howto.width).unwrap_or(0)) else { continue };
        if let Some(place) = slice_mut(section.memory.section(), rela.r_offset, howto.width) {
            place.copy_from_slice(bytes);
        } else if let Some(place) = section.place_outside(entry, &rela, howto.width, said) {
            place.copy_from_slice(bytes);
        } else {
            said.push(section.out_of_bounds(entry, &rela));
        }
    }
}

/// A number that is the same in `width` bytes, with a sign or without.
fn fitting(number: u64, width: u64) -> Option<u64> {
    let spare = u32::try_from(8u64.checked_sub(width)?.checked_mul(8)?).ok()?;
    let unsigned = number.checked_shl(spare)?.checked_shr(spare)?;
    let signed = (number.checked_shl(spare)? as i64).checked_shr(spare)? as u64;
    (number == unsigned || number == signed).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn reloc_gen_7_numbers_fit_with_a_sign_or_without() {
        for (number, width, fits) in [
            (0xffff_ffff, 4, true),
            (0x1_0000_0000, 4, false),
            (-1i64 as u64, 4, true),
            (i64::from(i32::MIN) as u64, 4, true),
            (i64::from(i32::MIN) as u64 - 1, 4, false),
            (0xff, 1, true),
            (0x100, 1, false),
            (u64::MAX, 8, true),
            (0, 9, false),
        ] {
            assert_eq!(fitting(number, width).is_some(), fits, "RELOC-GEN-7: {number:#x} in {width} bytes");
        }
    }
}
