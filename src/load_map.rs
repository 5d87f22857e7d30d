//! `link --map`: where everything went, as text ordered by address.

use std::fmt::Write;

use elf_layout::bytes::printed;
use elf_layout::elf::{SHF_EXECINSTR, SHF_WRITE, SHN_ABS, SHN_UNDEF, SymFields};

use reloc::Patch;

use crate::address::Explainer;
use crate::load::Load;

/// The load map of a module: regions, sections, symbols, and what wrote which bytes.
pub fn load_map(load: &Load<'_>, release: &str) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_map(&mut out, load, release);
    out
}

fn write_map(out: &mut String, load: &Load<'_>, release: &str) -> std::fmt::Result {
    let info = &load.module.info;
    writeln!(
        out,
        "module {} ({}, {release}), stage {}",
        info.file.name_text(),
        load.arch.name(),
        load.stage.name()
    )?;
    writeln!(out, "\nregions\n  {:<18}  {:>9}  name", "base", "size")?;
    for region in load.module.layout.regions() {
        let size = load.module.memory.region(region).len();
        writeln!(out, "  {:#018x}  {size:>#9x}  {}", load.bases().get(region), region.name())?;
    }
    let mut sections: Vec<usize> =
        (0..info.sechdrs.len()).filter(|i| load.module.layout.place(*i).is_some()).collect();
    sections.sort_by_key(|i| info.sechdrs.get(*i).map(|s| s.sh_addr));
    writeln!(out, "\nsections\n  {:<18}  {:>9}  {:<13}  flags  index  name", "address", "size", "region")?;
    for index in sections {
        let (Some(s), Some(place)) = (info.sechdrs.get(index), load.module.layout.place(index)) else {
            continue;
        };
        let flag = |bit, letter| if s.sh_flags & bit != 0 { letter } else { '-' };
        let flags = [flag(SHF_WRITE, 'W'), 'A', flag(SHF_EXECINSTR, 'X')].iter().collect::<String>();
        let name = printed(info.file.section_name(index));
        writeln!(
            out,
            "  {:#018x}  {:>#9x}  {:<13}  {flags}    {index:>5}  {name}",
            s.sh_addr,
            s.sh_size,
            place.region.name()
        )?;
    }
    if let Some(at) = load.module.placement.percpu.filter(|_| info.file.index().pcpu != 0) {
        writeln!(out, "\nper-cpu area at {at:#x} of the per-cpu offset space")?;
    }
    let mut symbols: Vec<(u64, &[u8], u16)> = info
        .file
        .symbols()
        .iter()
        .zip(&load.module.values)
        .filter(|(s, _)| !matches!(s.shndx(), SHN_UNDEF | SHN_ABS) && s.name_offset() != 0)
        .filter(|(s, _)| load.module.layout.place(usize::from(s.shndx())).is_some())
        .map(|(s, value)| (*value, info.file.symbol_name(s), s.shndx()))
        .collect();
    symbols.sort_unstable();
    writeln!(out, "\nsymbols")?;
    for (value, name, shndx) in symbols {
        writeln!(
            out,
            "  {value:#018x}  {}  ({})",
            printed(name),
            printed(info.file.section_name(usize::from(shndx)))
        )?;
    }
    for table in load.plts().filter(|table| !table.slots.is_empty()) {
        let name = printed(info.file.section_name(table.plt_shndx));
        writeln!(out, "\n{name}: {} of {} slots taken", table.plt_num_entries, table.plt_max_entries)?;
        for slot in &table.slots {
            writeln!(out, "  {:#018x}  -> {:#018x}", slot.address, slot.target)?;
        }
    }
    writeln!(out, "\nimports")?;
    for import in &load.resolution.imports {
        let at = import.address.map_or(String::from("(not known)"), |a| format!("{a:#018x}"));
        writeln!(out, "  {at:<18}  {}  ({})", printed(import.name), printed(import.owner))?;
    }
    let explainer = Explainer::new(load);
    write_relocations(out, &explainer)?;
    write_record(out, load, &explainer)
}

/// Where an address is, for the end of a line.
fn whereabouts(explainer: &Explainer<'_, '_>, address: u64) -> String {
    explainer.symbol(address).map_or(String::new(), |symbol| format!("  ({symbol})"))
}

/// A line per relocation, by address: how much it writes, its type and target, where it lies.
fn write_relocations(out: &mut String, explainer: &Explainer<'_, '_>) -> std::fmt::Result {
    writeln!(out, "\nrelocations")?;
    for relocation in explainer.relocations() {
        let (at, len) = (relocation.address, relocation.len);
        let text = explainer.relocation_text(relocation);
        writeln!(out, "  {at:#018x}  {len}  {text}{}", whereabouts(explainer, at))?;
    }
    Ok(())
}

/// A line per patch and per run of run-time state, by address; then what was not known.
fn write_record(out: &mut String, load: &Load<'_>, explainer: &Explainer<'_, '_>) -> std::fmt::Result {
    let record = &load.record;
    let mut patches: Vec<(u64, &Patch)> =
        record.patches.iter().map(|p| (load.module.placement.address(p.place), p)).collect();
    // Stable: of two at an address, the later one is below.
    patches.sort_by_key(|(at, _)| *at);
    if !patches.is_empty() {
        writeln!(out, "\npatches\n  {:<18}  {:>7}  what", "address", "bytes")?;
    }
    for (at, patch) in patches {
        let detail = explainer.detail(patch).map_or(String::new(), |detail| format!(": {detail}"));
        let symbol = whereabouts(explainer, at);
        writeln!(out, "  {at:#018x}  {:>7}  {}{detail}{symbol}", patch.len, patch.step.name())?;
    }
    let mut runtime: Vec<_> =
        record.runtime.iter().map(|r| (load.module.placement.address(r.place), r)).collect();
    runtime.sort_by_key(|(at, _)| *at);
    if !runtime.is_empty() {
        writeln!(out, "\nknown to the running kernel only\n  {:<18}  {:>7}  what", "address", "bytes")?;
    }
    for (at, state) in runtime {
        writeln!(out, "  {at:#018x}  {:>7}  {}{}", state.len, state.what, whereabouts(explainer, at))?;
    }
    if !record.unknown.is_empty() {
        writeln!(out, "\nnot known")?;
    }
    record.unknown.iter().try_for_each(|what| writeln!(out, "  {what}"))
}
