//! Events of `apply_relocations`: every record with its arithmetic, and the bytes of its place before and after.

use elf_layout::bytes::slice;
use elf_layout::elf::{Rela, SHF_EXECINSTR, SHT_NOBITS, SHT_RELA, STT_FUNC, SymFields};
use reloc::{Formula, Howto};

use super::event::{Address, Bytes, Code, Entered, Event, Relocation, Relocations};
use super::recorder::Copied;
use crate::disassembly::{self, Place};
use crate::document::text;
use crate::load::Load;

/// No instruction is longer.
const INSTRUCTION_MAX: u64 = 16;

/// A section that is relocated.
struct Target<'l, 'd> {
    load: &'l Load<'d>,
    index: usize,
    address: u64,
    /// As it is in the file; nothing if it has no bytes there.
    file: &'l [u8],
    /// As it is on return of `apply_relocations`.
    relocated: &'l [u8],
    is_code: bool,
    /// Where its functions begin, in order.
    functions: Vec<u64>,
}

/// An event for each section of relocations that is applied, in the order of their indices.
pub fn events(load: &Load<'_>, relocated: &Copied, events: &mut Vec<Event>) {
    let info = &load.module.info;
    let names: Vec<String> =
        info.file.symbols().iter().map(|symbol| text(info.file.symbol_or_section_name(symbol))).collect();
    for (index, section) in info.sechdrs.iter().enumerate().filter(|(_, s)| s.sh_type == SHT_RELA) {
        let to = section.sh_info as usize;
        let (Some(place), Some(header)) = (load.module.layout.place(to), info.sechdrs.get(to)) else {
            continue;
        };
        let bytes = relocated.get(&place.region).map_or(&[][..], Vec::as_slice);
        let is_code = header.sh_flags & SHF_EXECINSTR != 0;
        let target = Target {
            load,
            index: to,
            address: header.sh_addr,
            file: if header.sh_type == SHT_NOBITS { &[] } else { info.file.section_bytes(to) },
            relocated: slice(bytes, place.offset, header.sh_size).unwrap_or_default(),
            is_code,
            functions: if is_code { functions(load, to) } else { Vec::new() },
        };
        let records: Vec<Rela> = match info.reordered(index) {
            Some(table) => table.to_vec(),
            None => info.file.relocations(index).iter().map(Rela::from).collect(),
        };
        events.push(Event::Relocations(Relocations {
            section: index,
            name: text(info.file.section_name(index)),
            target: to,
            target_name: text(info.file.section_name(to)),
            target_addr: Address(header.sh_addr),
            records: target.records(&records, &names),
        }));
    }
}

/// Offsets at which functions of a section begin.
fn functions(load: &Load<'_>, section: usize) -> Vec<u64> {
    let symbols = load.module.info.file.symbols().iter();
    let here = symbols.filter(|s| s.kind() == STT_FUNC && usize::from(s.shndx()) == section);
    let mut starts: Vec<u64> = here.map(SymFields::value).collect();
    starts.sort_unstable();
    starts
}

impl Target<'_, '_> {
    fn records(&self, records: &[Rela], names: &[String]) -> Vec<Relocation> {
        let arch = self.load.arch;
        // By place, to find the instructions in one go and what is written twice.
        let mut order: Vec<usize> = (0..records.len()).collect();
        let offset = |at: &usize| records.get(*at).map_or(0, |rela| rela.r_offset);
        order.sort_by_key(offset);
        let mut codes: Vec<Option<Place>> = vec![None; records.len()];
        let mut shared = vec![false; records.len()];
        let mut at = 0;
        let mut last: Option<(usize, u64)> = None;
        for number in &order {
            let Some(rela) = records.get(*number) else { continue };
            let end = rela.r_offset.saturating_add(arch.relocation_width(rela.r_type()));
            if let Some((other, behind)) = last
                && rela.r_offset < behind
                && end != rela.r_offset
            {
                [other, *number].into_iter().for_each(|n| set(&mut shared, n, true));
            }
            last = Some((*number, end.max(last.map_or(0, |(_, behind)| behind))));
            set(&mut codes, *number, self.instruction(rela.r_offset, &mut at));
        }
        let each = records.iter().zip(codes).zip(shared).enumerate();
        each.map(|(entry, ((rela, code), shared))| self.record(entry, rela, code, shared, names)).collect()
    }

    /// The instruction that holds the byte at `offset`, found from the last function before it; `at` is where the search
    /// for the record before has ended.
    fn instruction(&self, offset: u64, at: &mut u64) -> Option<Place> {
        if !self.is_code {
            return None;
        }
        let before = self.functions.partition_point(|start| *start <= offset);
        let function = before.checked_sub(1).and_then(|last| self.functions.get(last)).copied().unwrap_or(0);
        let from = function.max(*at).min(offset);
        let code = self.relocated.get(usize::try_from(from).ok()?..)?;
        let wanted = self.address.wrapping_add(offset);
        let place = disassembly::holding(self.load.arch, code, self.address.wrapping_add(from), wanted)?;
        *at = place.address.wrapping_sub(self.address);
        Some(place)
    }

    fn record(
        &self,
        entry: usize,
        rela: &Rela,
        place: Option<Place>,
        shared: bool,
        names: &[String],
    ) -> Relocation {
        let Target { load, .. } = self;
        let (file, module) = (load.module.info.file, &load.module);
        let (symbol, r_type) = (rela.r_sym() as usize, rela.r_type());
        let width = load.arch.relocation_width(r_type);
        let p = self.address.wrapping_add(rela.r_offset);
        let is_known = module.unknown.get(symbol) == Some(&false);
        let s = module.values.get(symbol).filter(|_| is_known).copied();
        let howto = load.arch.howto(r_type);
        let formula = howto.and_then(|howto| howto.formula);
        let value = s.map(|s| s.wrapping_add_signed(rela.r_addend));
        let result = formula.zip(value).map(|(formula, value)| formula.result(value, p));
        let bytes = |all: &[u8], at: u64, len: u64| slice(all, at, len).map(<[u8]>::to_vec);
        let after = bytes(self.relocated, rela.r_offset, width).unwrap_or_default();
        let before = bytes(self.file, rela.r_offset, width).unwrap_or_else(|| vec![0; after.len()]);
        let code = place.and_then(|place| {
            let at = place.address.wrapping_sub(self.address);
            let size = (place.size as u64).min(INSTRUCTION_MAX);
            let (before, after) = (slice(self.file, at, size)?, slice(self.relocated, at, size)?);
            Some(Code {
                addr: Address(place.address),
                size,
                before: disassembly::text(load.arch, before, place.address),
                after: disassembly::text(load.arch, after, place.address),
            })
        });
        let slot = value.zip(howto).and_then(|(value, howto)| self.slot(value, howto, p));
        Relocation {
            entry,
            offset: rela.r_offset,
            kind: reloc::type_text(file.e_machine(), r_type),
            symbol: rela.r_sym(),
            symbol_name: names.get(symbol).cloned().unwrap_or_default(),
            s: s.map(Address),
            a: rela.r_addend,
            p: Address(p),
            formula: formula.map(Formula::text),
            result: result.map(Address),
            slot: slot.map(Address),
            entered: howto.zip(result).and_then(|(howto, result)| entered(howto, result, slot, p)),
            shared,
            before: Bytes(before),
            after: Bytes(after),
            code,
        }
    }

    /// The slot that a branch to `value` goes through, if that is out of its reach (A64REL-30).
    fn slot(&self, value: u64, howto: Howto, place: u64) -> Option<u64> {
        let field = howto.field.filter(|_| howto.formula == Some(Formula::Relative))?;
        let reach = 1i64.wrapping_shl(field.from.saturating_add(field.count).saturating_sub(1));
        let distance = value.wrapping_sub(place).cast_signed();
        if (reach.saturating_neg()..reach).contains(&distance) || self.index == 0 {
            return None;
        }
        // Code of init has its own table.
        let layout = &self.load.module.layout;
        let in_init = |section| layout.place(section).map(|place| place.region.is_init());
        let tables = self.load.plts().filter(|table| in_init(table.plt_shndx) == in_init(self.index));
        let mut slots = tables.flat_map(|table| table.slots.iter());
        slots.find(|slot| slot.target == value).map(|slot| slot.address)
    }
}

/// What goes into an instruction of a result, or of the distance from `place` to a slot.
fn entered(howto: Howto, result: u64, slot: Option<u64>, place: u64) -> Option<Entered> {
    /// In the last two words of a page an ADRP can become another instruction (A64REL-20).
    const LAST_WORDS: u64 = 0xff8;
    let field = howto.field?;
    if howto.formula == Some(Formula::PageRelative) && place & 0xfff >= LAST_WORDS {
        return None;
    }
    let result = slot.map_or(result, |slot| slot.wrapping_sub(place));
    Some(Entered {
        from: field.from,
        to: field.from.saturating_add(field.count).saturating_sub(1),
        inverted: field.inverts(result),
        value: field.of(result),
    })
}

fn set<T>(all: &mut [T], at: usize, value: T) {
    if let Some(slot) = all.get_mut(at) {
        *slot = value;
    }
}
