//! Relocation types of x86_64 (spec 04 §4.2).

use alloc::format;
use alloc::string::String;

use elf_layout::bytes::slice_mut;
use elf_layout::elf::{Rela, SHF_ALLOC, SHF_EXECINSTR, Shdr};
use elf_layout::{Change, Errno, Finding, Findings, Severity};

use super::{MACHINE, PMD_SIZE};
use crate::{Formula, Howto, Records, RelaSection, type_text};

const R_X86_64_NONE: u32 = 0;
const R_X86_64_64: u32 = 1;
const R_X86_64_PC32: u32 = 2;
const R_X86_64_PLT32: u32 = 4;
const R_X86_64_32: u32 = 10;
const R_X86_64_32S: u32 = 11;
const R_X86_64_PC64: u32 = 24;

/// X86REL-10: about where the temporary copy is, with page tables of four levels: its addresses have more than 32 bits, whatever they
/// are.
const TEMPORARY_COPY: u64 = 0xffff_c900_0000_0000;

/// What a type stores.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Four,
    Eight,
}

/// Why a record was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    OutOfBounds,
    UnknownType,
    /// The target is not zero; the value to print (X86REL-3).
    NonZero(u64),
    /// The value does not fit (X86REL-4).
    Overflow(u64),
}

/// How one kernel orders its tests (X86REL-5), and what it calls them.
#[derive(Clone, Copy)]
struct Order {
    /// Since v6.3 (0c05e7bd2d01, clear_relocate_add): overflow, zero target, write, and the final
    /// value in the message; before that zero target, write, overflow.
    overflow_first: bool,
}

/// `arch/x86/kernel/module.c: apply_relocate_add`
pub fn apply_relocate_add(section: &mut RelaSection<'_>, records: Records<'_>, said: &mut Findings) {
    match records {
        Records::File(records) => apply_all(section, records.iter().map(Rela::from), said),
        Records::Reordered(records) => apply_all(section, records.iter().copied(), said),
    }
}

/// What a type does (spec 04 §4.2).
pub fn howto(r_type: u32) -> Option<Howto> {
    use Formula::{Absolute, Relative};
    Some(match r_type {
        R_X86_64_NONE => Howto { width: 0, formula: None, field: None },
        R_X86_64_64 => Howto::new(8, Absolute),
        R_X86_64_PC64 => Howto::new(8, Relative),
        R_X86_64_32 | R_X86_64_32S => Howto::new(4, Absolute),
        R_X86_64_PC32 | R_X86_64_PLT32 => Howto::new(4, Relative),
        _ => return None,
    })
}

/// Bytes that a record asks for, of whatever type.
fn width(r_type: u32) -> u64 {
    howto(r_type).map_or(4, |howto| howto.width)
}

/// Does it fit for every symbol (RELOC-GEN-17)? Kernel and modules lie in the upper 2 GiB; per-cpu places are small numbers.
pub fn reaches_every_symbol(r_type: u32) -> bool {
    let fits = [R_X86_64_NONE, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, R_X86_64_32S, R_X86_64_PC64];
    fits.contains(&r_type)
}

fn apply_all(section: &mut RelaSection<'_>, records: impl Iterator<Item = Rela>, said: &mut Findings) {
    let order = Order { overflow_first: section.config.has(Change::OverflowCheckedFirst) };
    for (entry, rela) in records.enumerate() {
        let place = section.address.wrapping_add(rela.r_offset);
        let value = section.value(entry, &rela, said);
        let value = match value {
            Some(value) => value,
            // What is stored is zero, as before: but is there memory, and is it zero?
            None if section.is_unknown(&rela) => match howto(rela.r_type()).and_then(|howto| howto.formula) {
                Some(Formula::Relative) => place,
                _ => 0,
            },
            None => continue,
        };
        if matches!(rela.r_type(), R_X86_64_32 | R_X86_64_32S) && section.is_temporary(&rela) {
            let refusal = Refusal::Overflow(TEMPORARY_COPY.wrapping_add(value));
            said.push(refused(section, entry, &rela, refusal, order));
            continue;
        }
        if apply_usual(section.memory.section(), rela.r_offset, rela.r_type(), value, place) {
            continue;
        }
        let memory = section.memory.section();
        let mut result = apply_one(memory, rela.r_offset, rela.r_type(), value, place, order);
        if result == Err(Refusal::OutOfBounds)
            && let Some(memory) = section.place_outside(entry, &rela, width(rela.r_type()), said)
        {
            result = apply_one(memory, 0, rela.r_type(), value, place, order);
        }
        match result {
            Ok(None) => {}
            Ok(Some(cut)) => said.push(truncated(section, entry, &rela, cut)),
            Err(Refusal::OutOfBounds) if in_block_of_code(section, place) => {
                let needs = "what else lies in the block of memory for code: a relocation goes to it, but not to the module";
                said.may_crash("RELOC-GEN-11", needs);
            }
            Err(refusal) => {
                let mut finding = refused(section, entry, &rela, refusal, order);
                if section.is_unknown(&rela) {
                    without_value(&mut finding);
                }
                said.push(finding);
            }
        }
    }
}

/// Does a place lie in the block that the module's code comes from (LAYOUT-55), where there is memory all over?
fn in_block_of_code(section: &RelaSection<'_>, place: u64) -> bool {
    let block = |address: u64| address & !PMD_SIZE.wrapping_sub(1);
    let is_code = |s: &&Shdr| s.sh_flags & (SHF_ALLOC | SHF_EXECINSTR) == SHF_ALLOC | SHF_EXECINSTR;
    section.config.has(Change::CodeFromCache)
        && section.sechdrs.iter().filter(is_code).any(|s| block(s.sh_addr) == block(place))
}

/// Takes from the kernel's line the value of a symbol that is not known.
fn without_value(finding: &mut Finding) {
    for line in &mut finding.dmesg {
        if let Some(at) = line.find(", val ") {
            line.truncate(at);
            line.push_str(", val ?");
        }
    }
}

/// One record as nearly all are: stores what [`apply_one`] would if that has nothing to say about it; else nothing, and is false.
#[inline]
fn apply_usual(memory: &mut [u8], offset: u64, r_type: u32, value: u64, place: u64) -> bool {
    if r_type == R_X86_64_64 {
        let target = slice_mut(memory, offset, 8).filter(|target| *target == [0; 8]);
        return target.map(|target| target.copy_from_slice(&value.to_le_bytes())).is_some();
    }
    // The bits of P that are subtracted, and what makes of the values that fit those below 2^32.
    let (minus, bias) = match r_type {
        R_X86_64_PC32 | R_X86_64_PLT32 => (u64::MAX, 1 << 31),
        R_X86_64_32S => (0, 1 << 31),
        R_X86_64_32 => (0, 0),
        _ => return false,
    };
    let stored = value.wrapping_sub(place & minus);
    if stored.wrapping_add(bias) > u64::from(u32::MAX) {
        return false;
    }
    let target = slice_mut(memory, offset, 4).filter(|target| *target == [0; 4]);
    target.map(|target| target.copy_from_slice(&(stored as u32).to_le_bytes())).is_some()
}

/// One record: `value` is S + A, `place` is P. Exactly the bytes to be written must be zero (X86REL-2),
/// so that a place can be relocated once (X86REL-6). A value that a PC-relative type
/// cuts silently comes back (X86REL-8).
#[inline]
fn apply_one(
    memory: &mut [u8],
    offset: u64,
    r_type: u32,
    value: u64,
    place: u64,
    order: Order,
) -> Result<Option<i64>, Refusal> {
    let relative = value.wrapping_sub(place);
    let (stored, width, fits) = match r_type {
        R_X86_64_NONE => return Ok(None),
        R_X86_64_64 => (value, Width::Eight, true),
        R_X86_64_32 => (value, Width::Four, value == u64::from(value as u32)),
        R_X86_64_32S => (value, Width::Four, value as i64 == i64::from(value as i32)),
        R_X86_64_PC32 | R_X86_64_PLT32 => (relative, Width::Four, true),
        R_X86_64_PC64 => (relative, Width::Eight, true),
        _ => return Err(Refusal::UnknownType),
    };
    if order.overflow_first && !fits {
        return Err(Refusal::Overflow(stored));
    }
    let non_zero = Refusal::NonZero(if order.overflow_first { stored } else { value });
    match width {
        Width::Four => {
            let target = slice_mut(memory, offset, 4).ok_or(Refusal::OutOfBounds)?;
            if *target != [0; 4] {
                return Err(non_zero);
            }
            target.copy_from_slice(&(stored as u32).to_le_bytes());
        }
        Width::Eight => {
            let target = slice_mut(memory, offset, 8).ok_or(Refusal::OutOfBounds)?;
            if *target != [0; 8] {
                return Err(non_zero);
            }
            target.copy_from_slice(&stored.to_le_bytes());
        }
    }
    if !fits {
        return Err(Refusal::Overflow(stored));
    }
    let pc32 = matches!(r_type, R_X86_64_PC32 | R_X86_64_PLT32);
    let cut = relative as i64;
    Ok((pc32 && cut != i64::from(cut as i32)).then_some(cut))
}

/// The kernel's words for a refused record (X86REL-1, X86REL-3, X86REL-4).
fn refused(section: &RelaSection<'_>, entry: usize, rela: &Rela, refusal: Refusal, order: Order) -> Finding {
    let (me, r_type) = (section.file.name_text(), rela.r_type());
    let (type_name, symbol) = (type_text(MACHINE.e_machine, r_type), section.symbol_text(rela));
    let place = section.address.wrapping_add(rela.r_offset);
    let finding = match refusal {
        Refusal::OutOfBounds => return section.out_of_bounds(entry, rela),
        Refusal::UnknownType => {
            let why = format!("{type_name} against {symbol}: a type that modules may not have");
            let line = format!("module: {me}: Unknown rela relocation: {r_type}");
            let finding = Finding::error("X86REL-1", Errno::ENOEXEC, why).says(line);
            finding.hint("the module was built as position independent code: build it with the kernel's flags (kbuild)")
        }
        Refusal::NonZero(value) => {
            let why =
                format!("{type_name} against {symbol}: the place already holds something, it must be zero");
            let verb = if order.overflow_first { "Invalid" } else { "Skipping invalid" };
            // Since v6.19 (X86REL-11).
            let record = if section.config.has(Change::RelocationNamesRecord) {
                format!("sec {}, idx {entry}, ", section.index)
            } else {
                String::new()
            };
            let line = format!(
                "module: x86/modules: {verb} relocation target, existing value is nonzero for {record}type {r_type}, loc {place:016x}, val {value:x}"
            );
            Finding::error("X86REL-3", Errno::ENOEXEC, why).says(line)
        }
        Refusal::Overflow(value) => {
            let why = format!("{type_name} against {symbol}: {value:#x} does not fit into 32 bits");
            let record = if section.config.has(Change::RelocationNamesRecord) {
                format!(" sec {} idx {entry}", section.index)
            } else {
                String::new()
            };
            Finding::error("X86REL-4", Errno::ENOEXEC, why)
                .says(format!("module: overflow in relocation type {r_type} val {value:x}{record}"))
                .says(format!("module: `{me}' likely not compiled with -mcmodel=kernel"))
        }
    };
    finding.about(section.subject(entry, rela))
}

/// X86REL-8: the kernel does not notice, and the module then jumps elsewhere.
fn truncated(section: &RelaSection<'_>, entry: usize, rela: &Rela, distance: i64) -> Finding {
    let (type_name, symbol) = (type_text(MACHINE.e_machine, rela.r_type()), section.symbol_text(rela));
    let why = format!(
        "{type_name} against {symbol}: a distance of {distance:#x} is cut to 32 bits, which the kernel does not check"
    );
    Finding::note("X86REL-8", Severity::Warning, why).about(section.subject(entry, rela))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Order = Order { overflow_first: false };
    const NEW: Order = Order { overflow_first: true };
    const PLACE: u64 = 0xffff_ffff_c020_1010;

    /// Memory of a place between guard bytes.
    fn run(
        r_type: u32,
        value: u64,
        order: Order,
        before: [u8; 8],
    ) -> (Result<Option<i64>, Refusal>, [u8; 8]) {
        let mut memory = [0xaa; 24];
        memory[8..16].copy_from_slice(&before);
        let mut usual = memory;
        let result = apply_one(&mut memory, 8, r_type, value, PLACE, order);
        let is_usual = ![R_X86_64_NONE, R_X86_64_PC64].contains(&r_type);
        let nothing_said = result == Ok(None) && is_usual;
        assert_eq!(
            apply_usual(&mut usual, 8, r_type, value, PLACE),
            nothing_said,
            "type {r_type} value {value:#x}"
        );
        assert!(usual == memory || !nothing_said, "type {r_type} value {value:#x}: {usual:x?}");
        assert!(nothing_said || usual[8..16] == before, "type {r_type} value {value:#x} wrote");
        assert_eq!(
            (&memory[..8], &memory[16..]),
            (&[0xaa; 8][..], &[0xaa; 8][..]),
            "type {r_type} wrote elsewhere"
        );
        (result, memory[8..16].try_into().unwrap())
    }

    /// (type, bytes, PC relative, lowest and highest value that fits, if checked)
    type Row = (u32, usize, bool, Option<(i128, i128)>);
    const TYPES: [Row; 6] = [
        (R_X86_64_64, 8, false, None),
        (R_X86_64_32, 4, false, Some((0, u32::MAX as i128))),
        (R_X86_64_32S, 4, false, Some((i32::MIN as i128, i32::MAX as i128))),
        (R_X86_64_PC32, 4, true, None),
        (R_X86_64_PLT32, 4, true, None),
        (R_X86_64_PC64, 8, true, None),
    ];

    #[test]
    fn x86rel_4_and_5_every_type_at_every_boundary() {
        for (r_type, bytes, relative, range) in TYPES {
            let (min, max) = range.unwrap_or((i32::MIN as i128, i32::MAX as i128));
            for wanted in [min - 1, min, -1, 0, 1, max, max + 1, i64::MIN as i128, i64::MAX as i128] {
                let wanted = wanted as i64 as u64;
                let value = if relative { wanted.wrapping_add(PLACE) } else { wanted };
                // "fits" as a number, for the checked types
                let as_seen = wanted as i64 as i128;
                let fits = range.is_none_or(|(min, max)| (min..=max).contains(&as_seen));
                let mut stored = [0u8; 8];
                stored[..bytes].copy_from_slice(&wanted.to_le_bytes()[..bytes]);
                let what = format!("type {r_type} value {wanted:#x}");
                for order in [OLD, NEW] {
                    let (result, after) = run(r_type, value, order, [0; 8]);
                    if fits {
                        let cut = (bytes == 4 && relative && wanted as i64 != i64::from(wanted as i32))
                            .then_some(wanted as i64);
                        assert_eq!(result, Ok(cut), "X86REL-8: {what}");
                        assert_eq!(after, stored, "{what}");
                    } else {
                        assert_eq!(result, Err(Refusal::Overflow(wanted)), "X86REL-4: {what}");
                        let want = if order.overflow_first { [0; 8] } else { stored };
                        assert_eq!(after, want, "X86REL-5: {what}: 6.1 writes before it looks");
                    }
                }
            }
        }
    }

    #[test]
    fn x86rel_2_3_and_6_non_zero_target() {
        for (r_type, bytes, relative, range) in TYPES {
            for byte in 0..8 {
                let mut before = [0; 8];
                before[byte] = 1;
                let value = 0x1234;
                let wanted = if relative { value - PLACE as i64 } else { value };
                for order in [OLD, NEW] {
                    let (result, after) = run(r_type, value as u64, order, before);
                    if byte < bytes {
                        let shown = if order.overflow_first { wanted as u64 } else { value as u64 };
                        assert_eq!(result, Err(Refusal::NonZero(shown)), "X86REL-3: type {r_type}");
                        assert_eq!(after, before, "X86REL-3: type {r_type} left the place alone");
                    } else {
                        assert!(result.is_ok(), "X86REL-2: type {r_type} looks at {bytes} bytes only");
                    }
                }
                // X86REL-5: with both faults, 6.1 sees the place first and 6.12 the value.
                if range.is_some() && byte < bytes {
                    let huge = 1u64 << 40;
                    assert_eq!(run(r_type, huge, OLD, before).0, Err(Refusal::NonZero(huge)), "X86REL-5");
                    assert_eq!(run(r_type, huge, NEW, before).0, Err(Refusal::Overflow(huge)), "X86REL-5");
                }
            }
        }
        let mut memory = [0u8; 8];
        assert_eq!(apply_one(&mut memory, 0, R_X86_64_64, 5, PLACE, NEW), Ok(None));
        assert_eq!(
            apply_one(&mut memory, 0, R_X86_64_64, 5, PLACE, NEW),
            Err(Refusal::NonZero(5)),
            "X86REL-6"
        );
    }

    #[test]
    fn x86rel_1_types_that_the_kernel_does_not_know() {
        for r_type in 0..=300 {
            let known = [0, 1, 2, 4, 10, 11, 24].contains(&r_type);
            let (result, after) = run(r_type, 0, NEW, [0; 8]);
            let refused = result == Err(Refusal::UnknownType);
            assert_eq!(refused, !known, "X86REL-1: type {r_type}");
            assert!(!refused || after == [0; 8], "X86REL-1: type {r_type} wrote");
        }
        // NONE looks at nothing, not even at its place.
        assert_eq!(apply_one(&mut [], 99, R_X86_64_NONE, 1, PLACE, NEW), Ok(None));
    }

    #[test]
    fn reloc_gen_11_places_outside() {
        for (r_type, bytes, ..) in TYPES {
            let mut memory = [0u8; 16];
            for offset in [17 - bytes as u64, 16, u64::MAX, u64::MAX - 3] {
                let result = apply_one(&mut memory, offset, r_type, 1, PLACE, NEW);
                assert_eq!(result, Err(Refusal::OutOfBounds), "RELOC-GEN-11: type {r_type} at {offset:#x}");
            }
            assert_eq!(memory, [0; 16]);
        }
    }

    /// What the formula of a type gives is what is stored.
    #[test]
    fn formulas_tell_what_is_stored() {
        for (r_type, bytes, ..) in TYPES {
            for value in [0, 5, 0x7fff_ffff, PLACE + 0x1000] {
                let want = howto(r_type).unwrap().formula.unwrap().result(value, PLACE).to_le_bytes();
                let (result, after) = run(r_type, value, NEW, [0; 8]);
                assert!(result.is_err() || after[..bytes] == want[..bytes], "type {r_type} value {value:#x}");
            }
        }
        assert_eq!(howto(R_X86_64_NONE).unwrap().formula, None);
    }

    #[test]
    fn call_encoding() {
        // e8 00 00 00 00 at P-1, PLT32 with A = -4 to a function 0x100 ahead of the next instruction.
        let mut memory = *b"\xe8\0\0\0\0";
        let (place, function) = (PLACE + 1, PLACE + 5 + 0x100);
        apply_one(&mut memory, 1, R_X86_64_PLT32, function.wrapping_sub(4), place, NEW).unwrap();
        assert_eq!(memory, *b"\xe8\x00\x01\0\0", "spec 04: call encoding");
    }
}
