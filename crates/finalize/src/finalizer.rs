//! The module in memory as the steps after relocation see it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::bytes::{le16, le32, le64, printed};
use elf_layout::elf::{SHN_UNDEF, SymFields};
use elf_layout::{Change, Changes, Findings, Layout, LoadInfo, Memory, Placement, SectionPlace};

use reloc::ModArch;

use crate::record::{Choice, Patch, Record, RuntimeState, Step};
use crate::running::RunningKernel;

/// So many sites are kept with all that they may hold: that takes far more memory than an entry in a file.
const CHOICES_MAX: usize = 1 << 18;

/// A section of the module in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its index.
    pub index: usize,
    /// Where it stands.
    pub place: SectionPlace,
    /// Address of its first byte.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

impl Table {
    /// Its records of `size` bytes each by address; what is left at the end is none.
    pub fn records(&self, size: u64) -> impl Iterator<Item = u64> + use<> {
        let (first, step) = (self.address, usize::try_from(size.max(1)).unwrap_or(usize::MAX));
        let whole = self.size.checked_div(size).unwrap_or(0).saturating_mul(size);
        (0..whole).step_by(step).map(move |at| first.wrapping_add(at))
    }
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

/// A relocated module on its way to init: its memory by address, the kernel around it, and what was done.
pub struct Finalizer<'a, 'd> {
    /// The file and the edited section headers, with final addresses.
    pub info: &'a LoadInfo<'d>,
    /// The memory plan.
    pub layout: &'a Layout,
    /// Base addresses.
    pub placement: &'a Placement,
    /// Values of the symbols in the module's symbol table, in its order.
    pub values: &'a [u64],
    /// The memory.
    pub memory: &'a mut dyn Memory,
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
}

impl Finalizer<'_, '_> {
    /// Does the kernel have that change?
    pub fn has(&self, change: Change) -> bool {
        self.info.config.has(change)
    }

    /// All changes that the kernel has.
    pub fn changes(&self) -> Changes {
        self.info.config.changes()
    }

    /// `find_sec` or `section_objs`: the first section of that name that is in memory.
    pub fn section(&self, name: &str) -> Option<Table> {
        self.named(self.info.find_sec(name))
    }

    /// The first section of that name, as architectures look for theirs without a look at flags; `None` too
    /// if that one is not in memory.
    pub fn first_section(&self, name: &str) -> Option<Table> {
        self.named(self.info.file.find_any_sec(name))
    }

    /// The last section of that name, as architectures look for theirs that go over all headers.
    pub fn last_section(&self, name: &str) -> Option<Table> {
        let file = self.info.file;
        let named = |index: &usize| file.section_name(*index) == name.as_bytes();
        self.named((0..self.info.sechdrs.len()).rev().find(named)?)
    }

    /// A section that a step walks.
    fn named(&self, index: usize) -> Option<Table> {
        let table = self.table(index).filter(|table| table.index != 0)?;
        Some(Table { size: self.info.table_size(index), ..table })
    }

    /// A section that is in memory.
    pub fn table(&self, index: usize) -> Option<Table> {
        let place = self.layout.place(index)?;
        let section = self.info.sechdrs.get(index)?;
        let size = section.sh_size;
        Some(Table { index, place, address: self.placement.address(place), size })
    }

    /// Where an address of the module is in its memory.
    pub fn place_of(&self, address: u64) -> Option<SectionPlace> {
        self.layout.regions().find_map(|region| {
            let offset = address.checked_sub(self.placement.bases.get(region))?;
            (offset < self.layout.allocated(region)).then_some(SectionPlace { region, offset })
        })
    }

    /// `within_module_init`
    pub fn within_module_init(&self, address: u64) -> bool {
        self.place_of(address).is_some_and(|place| place.region.is_init())
    }

    /// `within_module`
    pub fn within_module(&self, address: u64) -> bool {
        self.place_of(address).is_some()
    }

    /// `len` bytes of the module at `address`; `None` if not all of them are in one region.
    pub fn read(&self, address: u64, len: u64) -> Option<&[u8]> {
        self.memory.at(self.place_of(address)?, len)
    }

    /// The u16 at an address of the module.
    pub fn u16(&self, address: u64) -> Option<u16> {
        le16(self.read(address, 2)?, 0)
    }

    /// The u32 at an address of the module.
    pub fn u32(&self, address: u64) -> Option<u32> {
        le32(self.read(address, 4)?, 0)
    }

    /// The u64 at an address of the module.
    pub fn u64(&self, address: u64) -> Option<u64> {
        le64(self.read(address, 8)?, 0)
    }

    /// Where the self-relative s32 at an address of the module points to.
    pub fn relative(&self, address: u64) -> Option<u64> {
        Some(address.wrapping_add_signed(i64::from(self.u32(address)?.cast_signed())))
    }

    /// Puts bytes at an address of the module and notes what changed. False if they do not lie in one
    /// region; then nothing is written.
    pub fn write(&mut self, address: u64, bytes: &[u8], step: Step, detail: u64) -> bool {
        let Some(place) = self.place_of(address) else { return false };
        let len = bytes.len() as u64;
        let Some(target) = self.memory.at_mut(place, len) else { return false };
        if target != bytes {
            target.copy_from_slice(bytes);
            self.record.patches.push(Patch { place, len, step, detail });
        }
        true
    }

    /// All bytes of a table, to be changed.
    pub fn table_mut(&mut self, table: &Table) -> Option<&mut [u8]> {
        self.memory.at_mut(table.place, table.size)
    }

    /// Notes that a step changed bytes of a table in place.
    pub fn changed(&mut self, table: &Table, step: Step) {
        self.record.patches.push(Patch { place: table.place, len: table.size, step, detail: 0 });
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
        let imports = file.symbols().iter().zip(self.values).skip(1).filter(|(s, _)| s.shndx() == SHN_UNDEF);
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
        if let Some(place) = self.place_of(address) {
            self.record.runtime.push(RuntimeState { place, len, what: what.into() });
        }
    }

    /// `bytes` of the kernel's memory.
    pub fn of_kernel<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let mut out = [0; N];
        self.kernel.read(address, &mut out).then_some(out)
    }
}
