//! The module in memory as the steps after relocation see it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use core::ops::Deref;

use elf_layout::bytes::{le32, printed};
use elf_layout::elf::{SHN_UNDEF, Shdr, SymFields};
use elf_layout::{Change, Changes, Findings, Module, Table};

use crate::mod_arch::ModArch;
use crate::record::{Choice, Patch, Record, RuntimeState, Step};
use kernel::RunningKernel;

/// So many sites are kept with all that they may hold: that takes far more memory than an entry in a file.
const CHOICES_MAX: usize = 1 << 18;

/// FIN-88: do all distances of a list lead to bytes of the file, with all that is read of an instruction there? The last one may be
/// completed by what follows the list.
fn lead_into(file: &[u8], list: u64, size: u64) -> bool {
    const RECORD: u64 = 4;
    /// The longest instruction, and what is looked at behind it.
    const READ: u64 = 24;
    let len = file.len() as u64;
    let mut records = (list..list.saturating_add(size)).step_by(RECORD as usize);
    let leads = |at: u64| {
        let target = at.checked_add_signed(i64::from(le32(file, at)?.cast_signed()))?;
        target.checked_add(READ).filter(|end| *end <= len)
    };
    size <= len && records.all(|at| leads(at).is_some())
}

/// What earlier stages of a load found, as far as `struct module` shows it.
#[derive(Clone, Copy, Debug)]
pub struct LoadFacts<'a> {
    /// What the architecture keeps of the module: its linkage tables.
    pub mod_arch: &'a ModArch,
    /// `mod->taints`
    pub taints: u64,
    /// `mod->using_gplonly_symbols`
    pub using_gplonly_symbols: bool,
    /// `mod->sig_ok`
    pub sig_ok: bool,
}

/// A relocated module on its way to init: the module in memory, the kernel around it, and what was done. It is the module,
/// for all that only reads.
#[derive(Debug)]
pub struct Finalizer<'a, 'd> {
    /// The module in memory.
    pub module: &'a mut Module<'d>,
    /// What its load came to before.
    pub load: LoadFacts<'a>,
    /// The kernel that runs.
    pub kernel: &'a dyn RunningKernel,
    /// What was done so far.
    pub record: &'a mut Record,
    /// What the kernel would say.
    pub said: &'a mut Findings,
    /// Keep [`Record::choices`]?
    pub choices: bool,
    /// Is only asked what the kernel would say? Then steps that say nothing may be left out, and the record stays empty but
    /// for what is not known.
    pub verdict_only: bool,
}

impl<'d> Deref for Finalizer<'_, 'd> {
    type Target = Module<'d>;

    fn deref(&self) -> &Module<'d> {
        self.module
    }
}

impl<'d> Finalizer<'_, 'd> {
    /// A stage that the kernel leaves at its first refusal ([`Findings::stage_at_first`]).
    pub fn stage_at_first<T>(&mut self, stage: impl FnOnce(&mut Finalizer<'_, 'd>) -> T) -> T {
        let Finalizer { module, load, kernel, record, said, choices, verdict_only } = self;
        said.stage_at_first(|said| {
            stage(&mut Finalizer {
                module,
                load: *load,
                kernel: *kernel,
                record,
                said,
                choices: *choices,
                verdict_only: *verdict_only,
            })
        })
    }
}

impl Finalizer<'_, '_> {
    /// A list of sites that the architecture walks after relocation: the last section of that name, or the `first`. It walks one
    /// that is not moved as well, where it lies in the temporary copy: what it finds from there is not known (FIN-88).
    pub fn list_of_sites(&mut self, name: &str, first: bool) -> Option<Table> {
        let found = if first { self.first_section(name) } else { self.last_section(name) };
        if found.is_none() && self.lists_in_copy(name).next().is_some() {
            self.leads_from_copy(name);
        }
        found
    }

    /// The same, of a list whose records are 4 bytes, the distance to an instruction that is read, and patched if it is the one
    /// that is looked for. None in the temporary copy is: it does no harm there.
    pub fn list_of_instructions(&mut self, name: &str) -> Option<Table> {
        let found = self.last_section(name);
        let bytes = self.info.file.bytes();
        let strays = |section: &Shdr| !lead_into(bytes, section.sh_offset, section.sh_size);
        if found.is_none() && self.lists_in_copy(name).any(strays) {
            self.leads_from_copy(name);
        }
        found
    }

    /// Sections of that name that are not moved.
    fn lists_in_copy(&self, name: &str) -> impl Iterator<Item = &Shdr> {
        let (file, layout) = (self.info.file, &self.layout);
        let sections = self.info.sechdrs.iter().enumerate().skip(1);
        let is_list = move |index| file.section_name(index) == name.as_bytes();
        let lists = sections.filter(move |(index, section)| {
            section.sh_size != 0 && is_list(*index) && layout.place(*index).is_none()
        });
        lists.map(|(_, section)| section)
    }

    fn leads_from_copy(&mut self, name: &str) {
        let needs = format!(
            "the address of the kernel's temporary copy of the file: {name} is not moved into memory, and leads from there to anywhere"
        );
        self.said.may_crash("FIN-88", needs);
    }

    /// Does the kernel have that change?
    pub fn has(&self, change: Change) -> bool {
        self.info.config.has(change)
    }

    /// All changes that the kernel has.
    pub fn changes(&self) -> Changes {
        self.info.config.changes()
    }

    /// Puts bytes at an address of the module and notes what changed. False if they do not lie in one
    /// region; then nothing is written.
    pub fn write(&mut self, address: u64, bytes: &[u8], step: Step, detail: u64) -> bool {
        let Some(place) = self.place_of(address) else { return false };
        let len = bytes.len() as u64;
        let Some(target) = self.module.memory.at_mut(place, len) else { return false };
        if target != bytes {
            target.copy_from_slice(bytes);
            if !self.verdict_only {
                self.record.patched(Patch { place, len, step, detail }, &*self.module.memory);
            }
        }
        true
    }

    /// All bytes of a table, to be changed.
    pub fn table_mut(&mut self, table: &Table) -> Option<&mut [u8]> {
        self.module.table_mut(table)
    }

    /// Notes that a step changed bytes of a table in place.
    pub fn changed(&mut self, table: &Table, step: Step) {
        if !self.verdict_only {
            let patch = Patch { place: table.place, len: table.size, step, detail: 0 };
            self.record.patched(patch, &*self.module.memory);
        }
    }

    /// Words for an address: section and offset, or outside of the module the import at it or shortly
    /// before it. It looks at all sections and symbols.
    pub fn name_of(&self, address: u64) -> Option<String> {
        /// Objects that are larger are not taken for the place of an address.
        const NEAR: u64 = 4096;
        let plus = |name: &[u8], offset| match offset {
            0 => printed(name).into_owned(),
            offset => format!("{}+{offset:#x}", printed(name)),
        };
        let file = self.info.file;
        let tables = (1..self.info.sechdrs.len()).filter_map(|index| self.table(index));
        let mut within = tables.map(|table| (table, address.wrapping_sub(table.address)));
        if let Some((table, offset)) = within.find(|(table, offset)| *offset < table.size) {
            return Some(plus(file.section_name(table.index), offset));
        }
        let imports = file.symbols().iter().zip(&self.values).skip(1).filter(|(s, _)| s.shndx() == SHN_UNDEF);
        let distance = imports.map(|(symbol, value)| (address.wrapping_sub(*value), symbol));
        let (offset, symbol) = distance.min_by_key(|(distance, _)| *distance)?;
        (offset < NEAR).then(|| plus(file.symbol_name(symbol), offset))
    }

    /// Notes all that a site may hold: what it holds now, and `others`.
    pub fn choice(
        &mut self,
        address: u64,
        others: impl IntoIterator<Item = Vec<u8>>,
        step: Step,
        detail: u64,
    ) {
        if !self.choices {
            return;
        }
        if self.record.choices.len() >= CHOICES_MAX {
            self.record.not_known("what the last of very many sites may hold");
            return;
        }
        let others: Vec<Vec<u8>> = others.into_iter().collect();
        let len = others.first().map_or(0, Vec::len) as u64;
        let Some((place, now)) = self.place_of(address).zip(self.read(address, len).map(<[u8]>::to_vec))
        else {
            return;
        };
        let mut may = Vec::from([now]);
        for other in others {
            if !may.contains(&other) {
                may.push(other);
            }
        }
        self.record.choices.push(Choice { place, step, detail, may });
    }

    /// Notes bytes that only the running kernel knows.
    pub fn runtime(&mut self, address: u64, len: u64, what: &'static str) {
        if let Some(place) = self.place_of(address).filter(|_| !self.verdict_only) {
            self.record.runtime.push(RuntimeState { place, len, what: what.into() });
        }
    }

    /// `bytes` of the kernel's memory.
    pub fn of_kernel<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let mut out = [0; N];
        self.kernel.read(address, &mut out).then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fin_88_where_a_list_in_the_temporary_copy_leads() {
        let mut file = [0; 64];
        assert!(lead_into(&file, 8, 8), "FIN-88: to itself");
        for (distance, leads) in
            [(-9, false), (-8, true), (32, true), (33, false), (i32::MAX, false), (i32::MIN, false)]
        {
            file[8..12].copy_from_slice(&i32::to_le_bytes(distance));
            assert_eq!(lead_into(&file, 8, 4), leads, "FIN-88: {distance}");
            assert_eq!(lead_into(&file, 4, 8), leads, "FIN-88: {distance}, the second record");
            assert_eq!(lead_into(&file, 4, 5), leads, "FIN-88: {distance}, cut off");
            assert!(lead_into(&file, 12, 4), "FIN-88: {distance} belongs to no record");
        }
        assert!(!lead_into(&file, 60, 8), "FIN-88: behind the file");
        assert!(!lead_into(&file, 0, u64::MAX), "FIN-88");
    }
}
