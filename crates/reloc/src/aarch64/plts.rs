//! Linkage tables: slots for branches that do not reach their target, and
//! veneers around erratum 843419 (spec 02 §2.5).

use alloc::format;
use alloc::vec::Vec;

use elf_layout::elf::{
    Rela, SHDR_SIZE, SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, SHT_RELA, SHT_SYMTAB, SYM_SIZE, Shdr, SymFields,
};
use elf_layout::{Change, Errno, Finding, Findings, KernelConfig, LoadInfo, ModuleFile, Severity, needs};
use object::elf;

use super::ERRATUM_843419;
use super::insn::{self, BR_X16, is_forbidden_offset_for_adrp, page};
use crate::apply::tables_overlap;
use crate::mod_arch::{Cpu, ModArch, ModPltSec, Slot};

const JUMP26: u32 = elf::R_AARCH64_JUMP26.0;
const CALL26: u32 = elf::R_AARCH64_CALL26.0;
const ADRP: u32 = elf::R_AARCH64_ADR_PREL_PG_HI21.0;
const ADRP_NC: u32 = elf::R_AARCH64_ADR_PREL_PG_HI21_NC.0;

/// Bytes of `struct plt_entry`, and its alignment.
pub const PLT_ENTRY_SIZE: u64 = 12;
const PLT_ENTRY_ALIGN: u64 = 4;
/// L1_CACHE_BYTES
const PLT_SECTION_ALIGN: u64 = 64;
/// 4 KiB in whole slots: one of so many stands at a forbidden offset.
const PLT_ENTRIES_PER_PAGE: u64 = 4096 / PLT_ENTRY_SIZE;

/// The linkage tables in `struct mod_arch_specific` (FIN-86).
pub fn mod_arch_specific(arch: &ModArch) -> Vec<(&'static str, u64)> {
    let [core, init] = arch.tables.as_slice() else { return Vec::new() };
    Vec::from([
        ("arch.core.plt_shndx", core.plt_shndx as u64),
        ("arch.core.plt_num_entries", core.plt_num_entries),
        ("arch.core.plt_max_entries", core.plt_max_entries),
        ("arch.init.plt_shndx", init.plt_shndx as u64),
        ("arch.init.plt_num_entries", init.plt_num_entries),
        ("arch.init.plt_max_entries", init.plt_max_entries),
    ])
}

/// Sections that the frob looks for by name; 0 is "absent".
#[derive(Default)]
struct Found {
    plt: usize,
    init_plt: usize,
    tramp: usize,
    init_tramp: usize,
    symtab: usize,
}

/// `module_frob_arch_sections` (PLT-1 to PLT-14).
pub fn module_frob_arch_sections(info: &mut LoadInfo<'_>, cpu: Cpu, said: &mut Findings) -> ModArch {
    let found = find(info);
    let mut arch = ModArch::new(cpu, 2);
    // PLT-2
    let missing = if found.plt == 0 || found.init_plt == 0 {
        Some("PLT section(s)")
    } else if found.symtab == 0 {
        Some("symtab section")
    } else {
        None
    };
    if let Some(what) = missing {
        let line = format!("{}: module {what} missing", info.file.name_text());
        let why = format!("modules for arm64 must have .plt, .init.plt and a symbol table: {what} missing");
        let hint = "link the module with the kernel's scripts/module.lds (kbuild does)";
        said.refuse(Finding::error("PLT-2", Errno::ENOEXEC, why).says(line).hint(hint));
        return arch;
    }
    targets_in_reach(info, said);
    // LAYOUT-1: tables for code are read, and sorted, here.
    let is_read = |s: &Shdr| {
        let target = info.sechdrs.get(s.sh_info as usize);
        s.sh_type == SHT_RELA && target.is_some_and(|target| target.sh_flags & SHF_EXECINSTR != 0)
    };
    if info.sechdrs.iter().any(|s| is_read(s) && info.has_section_headers(s)) {
        said.may_crash("LAYOUT-1", needs::SECTION_HEADERS);
    }
    if !tables_overlap(info) {
        for index in 0..info.sechdrs.len() {
            count_section(info, index, &mut arch, said);
        }
    }
    for (table, index) in arch.tables.iter_mut().zip([found.plt, found.init_plt]) {
        table.plt_shndx = index;
        // PLT-12, PLT-15: one slot more than counted.
        let slots = table.plt_max_entries.saturating_add(1);
        fill_in(info, index, PLT_SECTION_ALIGN, slots);
    }
    // PLT-13: from v5.5 to v6.2 (ftrace with args) ftrace with regs had a trampoline of its own.
    let with_regs = info.config.has(Change::FtraceWithRegs) && !info.config.has(Change::FtraceWithArgs);
    let ftrace_plts = if with_regs { 2 } else { 1 };
    for index in [found.tramp, found.init_tramp] {
        fill_in(info, index, PLT_ENTRY_ALIGN, ftrace_plts);
    }
    arch
}

/// PLT-3: the header of the section that a RELA table is for is read without a look at its number.
fn targets_in_reach(info: &LoadInfo<'_>, said: &mut Findings) {
    let end = elf_layout::bytes::align_up(info.file.bytes().len() as u64, info.config.page_size);
    said.stage_at_first(|said| {
        for (index, section) in info.sechdrs.iter().enumerate().filter(|(_, s)| s.sh_type == SHT_RELA) {
            let header = u64::from(section.sh_info).saturating_mul(SHDR_SIZE);
            if info.file.e_shoff().saturating_add(header) >= end {
                let why = format!(
                    "it is for section {}, whose header would lie far behind the file: the kernel crashes",
                    section.sh_info
                );
                let finding = Finding::note("PLT-3", Severity::Oops, why);
                said.push(finding.about(info.file.section_subject(index)));
            }
        }
    });
}

/// PLT-1: the last of each name.
fn find(info: &LoadInfo<'_>) -> Found {
    // a7ed7b9d0ebb; linker scripts without it make no such section.
    let init_tramp = info.config.has(Change::InitFtracePlt);
    let mut found = Found::default();
    for (i, section) in info.sechdrs.iter().enumerate() {
        match info.file.section_name(i) {
            b".plt" => found.plt = i,
            b".init.plt" => found.init_plt = i,
            b".text.ftrace_trampoline" => found.tramp = i,
            b".init.text.ftrace_trampoline" if init_tramp => found.init_tramp = i,
            _ if section.sh_type == SHT_SYMTAB => found.symtab = i,
            _ => {}
        }
    }
    found
}

/// Makes a section one of `slots` empty slots.
fn fill_in(info: &mut LoadInfo<'_>, index: usize, align: u64, slots: u64) {
    if let Some(section) = info.sechdrs.get_mut(index).filter(|_| index != 0) {
        section.sh_type = SHT_NOBITS;
        section.sh_flags = SHF_EXECINSTR | SHF_ALLOC;
        section.sh_addralign = align;
        section.sh_size = slots.saturating_mul(PLT_ENTRY_SIZE);
    }
}

/// Sorts and counts one RELA table that patches code (PLT-3 to PLT-11).
fn count_section(info: &mut LoadInfo<'_>, index: usize, arch: &mut ModArch, said: &mut Findings) {
    let Some(Shdr { sh_info, .. }) = info.sechdrs.get(index).filter(|s| s.sh_type == SHT_RELA) else {
        return;
    };
    let target = *sh_info as usize;
    if info.sechdrs.get(target).is_none_or(|t| t.sh_flags & SHF_EXECINSTR == 0) {
        return;
    }
    let mut table: Vec<Rela> = info.file.relocations(index).iter().map(Rela::from).collect();
    // Since v6.5 (ea3752ba96c0) PLTs are not optional; before that branches need them only with RANDOMIZE_BASE.
    let branches = info.config.has(Change::PltsMandatory) || info.config.randomize_base;
    // Since v5.9 (d4e0340919fb) only the branches in front are sorted; before that all (PLT-7).
    if branches && let Some(rela) = looked_at(&table, info.config).find(|rela| is_far(info, rela)) {
        let why = format!(
            "a relocation asks for symbol {}, which would lie far behind the file: the kernel crashes as it counts PLT entries",
            rela.r_sym()
        );
        let finding = Finding::note("PLT-8", Severity::Oops, why);
        said.refuse(finding.about(info.file.section_subject(index)));
    }
    let sorted = if !info.config.has(Change::BranchRelasPartitioned) {
        table.len()
    } else if branches {
        partition_branch_plt_relas(info.file, &mut table, target)
    } else {
        0
    };
    if let Some(front) = table.get_mut(..sorted) {
        front.sort_unstable_by_key(sort_key);
    }
    let Count { plts, align } = count_plts(info.file, &table, target, branches, arch.cpu == ERRATUM_843419);
    if sorted != 0 {
        info.set_reordered(index, table);
    }
    if let Some(section) = info.sechdrs.get_mut(target) {
        section.sh_addralign = section.sh_addralign.max(align);
    }
    if let Some(counted) = arch.tables.get_mut(usize::from(info.is_init_section(target))) {
        counted.plt_max_entries = counted.plt_max_entries.saturating_add(plts);
    }
}

/// `cmp_rela`: type, symbol, addend (PLT-6).
fn sort_key(rela: &Rela) -> (u32, u32, i64) {
    (rela.r_type(), rela.r_sym(), rela.r_addend)
}

/// Does the symbol of a record stand in section `target`?
fn is_local(file: &ModuleFile<'_>, rela: &Rela, target: usize) -> bool {
    file.symbols().get(rela.r_sym() as usize).is_some_and(|s| usize::from(s.shndx()) == target)
}

/// The records whose symbols the kernel looks at before it relocates: branches, and where it brings these to the front all but
/// perhaps one (PLT-4, PLT-5).
fn looked_at<'t>(table: &'t [Rela], config: &KernelConfig) -> impl Iterator<Item = &'t Rela> + use<'t> {
    let all = config.has(Change::BranchRelasPartitioned) && table.len() > 1;
    table.iter().filter(move |rela| all || is_branch(rela))
}

/// Is the symbol of a record behind the kernel's copy of the file? Its number is not looked at.
fn is_far(info: &LoadInfo<'_>, rela: &Rela) -> bool {
    let table = info.sechdrs.get(info.file.index().sym).map_or(0, |s| s.sh_offset);
    let at = table.saturating_add(SYM_SIZE.saturating_mul(rela.r_sym().into()));
    at >= elf_layout::bytes::align_up(info.file.bytes().len() as u64, info.config.page_size)
}

fn is_branch(rela: &Rela) -> bool {
    matches!(rela.r_type(), JUMP26 | CALL26)
}

/// Brings the branches to other sections to the front and tells how many there are (PLT-4). The
/// record where both ends meet is not looked at (PLT-5).
fn partition_branch_plt_relas(file: &ModuleFile<'_>, table: &mut [Rela], target: usize) -> usize {
    let needs = |rela: Option<&Rela>| rela.is_some_and(|r| is_branch(r) && !is_local(file, r, target));
    let (mut i, mut j) = (0usize, table.len().saturating_sub(1));
    while i < j {
        if needs(table.get(i)) {
            i = i.saturating_add(1);
        } else if needs(table.get(j)) {
            table.swap(i, j);
        } else {
            j = j.saturating_sub(1);
        }
    }
    i
}

/// What one RELA table asks for.
#[derive(Debug, PartialEq, Eq)]
struct Count {
    /// Slots.
    plts: u64,
    /// Alignment of the section that it patches.
    align: u64,
}

/// `count_plts` (PLT-8 to PLT-10).
fn count_plts(file: &ModuleFile<'_>, table: &[Rela], target: usize, branches: bool, erratum: bool) -> Count {
    let mut count = Count { plts: 0, align: 0 };
    let mut previous = None;
    for rela in table {
        let key = Some(sort_key(rela));
        match rela.r_type() {
            JUMP26 | CALL26 if branches && !is_local(file, rela, target) => {
                // duplicate_rel
                let needed = rela.r_addend != 0 || previous != key;
                count.plts = count.plts.saturating_add(needed.into());
            }
            ADRP | ADRP_NC if erratum => match min_align(rela.r_offset) {
                Some(align) => count.align = count.align.max(align),
                None => count.plts = count.plts.saturating_add(1),
            },
            _ => {}
        }
        previous = key;
    }
    if erratum {
        // PLT-10: room to skip slots at forbidden offsets.
        count.plts = count.plts.saturating_add(count.plts.div_ceil(PLT_ENTRIES_PER_PAGE));
    }
    count
}

/// The section alignment that keeps an ADRP at this offset from the end of a page; `None` if
/// none does, and it may need a veneer (PLT-9).
fn min_align(r_offset: u64) -> Option<u64> {
    match (r_offset | 7).trailing_ones() {
        lowest_zero @ 0..12 => Some(2u64.wrapping_shl(lowest_zero)),
        _ => None,
    }
}

/// `struct plt_entry`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PltEntry {
    adrp: u32,
    add: u32,
    br: u32,
}

impl PltEntry {
    /// `get_plt_entry` (PLT-21). `pc` is the address of the slot.
    fn new(target: u64, pc: u64, rd: u32, br: u32) -> Self {
        PltEntry { adrp: insn::adrp(pc, target, rd), add: insn::add_lo12(rd, target), br }
    }

    fn to_bytes(self) -> [u8; PLT_ENTRY_SIZE as usize] {
        let mut bytes = [0; PLT_ENTRY_SIZE as usize];
        for (word, bytes) in [self.adrp, self.add, self.br].into_iter().zip(bytes.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: [u8; PLT_ENTRY_SIZE as usize]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        PltEntry {
            adrp: u32::from_le_bytes([a, b, c, d]),
            add: u32::from_le_bytes([e, f, g, h]),
            br: u32::from_le_bytes([i, j, k, l]),
        }
    }

    /// `plt_entries_equal` (PLT-22): do the slots at these addresses lead to the same target?
    /// `None` where the kernel runs into a BUG: a slot that does not reach its target has no ADRP.
    fn equal(self, at: u64, other: PltEntry, other_at: u64) -> Option<bool> {
        if self.add != other.add || self.br != other.br {
            return Some(false);
        }
        let (p, q) = (page(at), page(other_at));
        if self.adrp == other.adrp && p == q {
            return Some(true);
        }
        let p = p.wrapping_add_signed(insn::adrp_get_offset(self.adrp)?);
        let q = q.wrapping_add_signed(insn::adrp_get_offset(other.adrp)?);
        Some(p == q)
    }
}

/// The bytes of a slot at address `pc` that leads to `target` by way of x16 (PLT-21).
pub fn get_plt_entry(target: u64, pc: u64) -> [u8; PLT_ENTRY_SIZE as usize] {
    PltEntry::new(target, pc, 16, BR_X16).to_bytes()
}

/// Why there is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// More are needed than were counted; the kernel warns (A64REL-31).
    Full,
    /// The kernel stops with a BUG (PLT-22).
    Bug,
}

/// A table about to be filled.
#[derive(Debug)]
pub struct Plts<'a> {
    table: &'a mut ModPltSec,
    cpu: Cpu,
}

impl<'a> Plts<'a> {
    /// The table for places in init memory or outside it (A64REL-35); `None` without [`module_frob_arch_sections`].
    pub fn of(arch: &'a mut ModArch, in_init: bool) -> Option<Self> {
        let cpu = arch.cpu;
        Some(Plts { table: arch.tables.get_mut(usize::from(in_init))?, cpu })
    }

    /// Is an ADRP at this address hit by the erratum (A64REL-20)?
    pub fn is_forbidden(&self, address: u64) -> bool {
        self.cpu == ERRATUM_843419 && is_forbidden_offset_for_adrp(address)
    }

    fn address_of(&self, slot: u64) -> u64 {
        self.table.address().wrapping_add(slot.wrapping_mul(PLT_ENTRY_SIZE))
    }

    fn load(&self, slot: u64) -> PltEntry {
        PltEntry::from_bytes(self.table.load(slot.wrapping_mul(PLT_ENTRY_SIZE)))
    }

    fn store(&mut self, slot: u64, entry: PltEntry) {
        let room = self.table.plt_max_entries.saturating_add(1).saturating_mul(PLT_ENTRY_SIZE);
        self.table.store(slot.wrapping_mul(PLT_ENTRY_SIZE), &entry.to_bytes(), room);
    }

    fn take(&mut self, slot: u64, target: u64) -> u64 {
        let address = self.address_of(slot);
        self.table.slots.push(Slot { address, target });
        address
    }

    /// `module_emit_plt_entry`: the slot for a target (PLT-20, PLT-23). The entry is written before
    /// the last one is seen to do as well, and then stays where the next one will go (PLT-15).
    pub fn module_emit_plt_entry(&mut self, target: u64) -> Result<u64, NoSlot> {
        let mut i = self.table.plt_num_entries;
        let last = i.checked_sub(1);
        if self.is_forbidden(self.address_of(i)) {
            i = i.saturating_add(1);
        }
        let entry = PltEntry::new(target, self.address_of(i), 16, BR_X16);
        self.store(i, entry);
        if let Some(j) = last {
            let at = self.address_of(j);
            match entry.equal(self.address_of(i), self.load(j), at) {
                Some(true) => return Ok(at),
                Some(false) => {}
                None => return Err(NoSlot::Bug),
            }
        }
        self.table.plt_num_entries = i.saturating_add(1);
        if self.table.plt_num_entries > self.table.plt_max_entries {
            return Err(NoSlot::Full);
        }
        Ok(self.take(i, target))
    }

    /// `module_emit_veneer_for_adrp`: a slot that does in safety what the instruction at `place`
    /// should do, and goes on behind it (PLT-24).
    pub fn module_emit_veneer_for_adrp(&mut self, insn: u32, place: u64, target: u64) -> Result<u64, NoSlot> {
        let mut i = self.table.plt_num_entries;
        let mut taken = i.saturating_add(1);
        self.table.plt_num_entries = taken;
        if taken > self.table.plt_max_entries {
            return Err(NoSlot::Full);
        }
        if self.is_forbidden(self.address_of(i)) {
            i = taken;
            taken = taken.saturating_add(1);
            self.table.plt_num_entries = taken;
        }
        let pc = self.address_of(i);
        let back = insn::branch(pc.wrapping_add(8), place.wrapping_add(4));
        self.store(i, PltEntry::new(target, pc, insn::rd(insn), back));
        Ok(self.take(i, target))
    }
}
