//! What an architecture keeps of a module from one step of the load to the
//! next: the kernel's `struct mod_arch_specific`.

use alloc::vec;
use alloc::vec::Vec;

use elf_layout::bytes::{slice, slice_mut};
use elf_layout::{Layout, LoadInfo, Memory};

/// What of the running machine's CPUs changes layout and relocation: bits that the architecture gives their meaning
/// ([`crate::Architecture::cpu`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu(pub u64);

/// `struct mod_arch_specific`. An architecture without linkage tables leaves it as it is by default.
#[derive(Clone, Debug, Default)]
pub struct ModArch {
    /// The machine that the module was laid out for.
    pub cpu: Cpu,
    /// Its linkage tables. Their order is defined by the architecture.
    pub tables: Vec<ModPltSec>,
}

/// `struct mod_plt_sec`: one linkage table, whose slots appear while relocations are applied.
#[derive(Clone, Debug, Default)]
pub struct ModPltSec {
    /// Its section; 0 if there is none.
    pub plt_shndx: usize,
    /// Slots taken so far, those that had to be skipped included.
    pub plt_num_entries: u64,
    /// Slots that `module_frob_arch_sections` has counted.
    pub plt_max_entries: u64,
    /// The slots in use, in the order in which they were taken.
    pub slots: Vec<Slot>,
    address: u64,
    contents: Vec<u8>,
    /// How much of `contents` is final and in memory.
    flushed: usize,
}

/// A slot in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its address.
    pub address: u64,
    /// Where it leads.
    pub target: u64,
}

impl ModArch {
    /// With so many linkage tables, all empty.
    pub fn new(cpu: Cpu, tables: usize) -> Self {
        ModArch { cpu, tables: vec![ModPltSec::default(); tables] }
    }

    /// Takes over where the tables have got to: the sections have moved.
    pub(crate) fn locate(&mut self, info: &LoadInfo<'_>) {
        for table in &mut self.tables {
            if let Some(section) = info.sechdrs.get(table.plt_shndx).filter(|_| table.plt_shndx != 0) {
                table.address = section.sh_addr;
            }
        }
    }

    /// Writes what is new in the tables into memory.
    pub(crate) fn flush(&mut self, layout: &Layout, memory: &mut dyn Memory) {
        for table in &mut self.tables {
            let Some(news) = table.contents.get(table.flushed..).filter(|news| !news.is_empty()) else {
                continue;
            };
            let room =
                layout.place(table.plt_shndx).and_then(|p| memory.at_mut(p, table.contents.len() as u64));
            if let Some(target) = room.and_then(|m| m.get_mut(table.flushed..)) {
                target.copy_from_slice(news);
            }
            table.flushed = table.contents.len();
        }
    }
}

impl ModPltSec {
    /// Address of the table.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// `N` bytes at an offset; zeros where nothing was stored yet.
    pub(crate) fn load<const N: usize>(&self, at: u64) -> [u8; N] {
        slice(&self.contents, at, N as u64).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }

    /// Stores an entry at an offset. The table grows up to `room` bytes; what lies beyond is
    /// dropped, where the kernel writes over the next section.
    pub(crate) fn store(&mut self, at: u64, entry: &[u8], room: u64) {
        let Some(end) = at.checked_add(entry.len() as u64).filter(|end| *end <= room) else { return };
        let (Ok(start), Ok(end)) = (usize::try_from(at), usize::try_from(end)) else { return };
        if self.contents.len() < end {
            self.contents.resize(end, 0);
        }
        if let Some(target) = slice_mut(&mut self.contents, at, entry.len() as u64) {
            target.copy_from_slice(entry);
            self.flushed = self.flushed.min(start);
        }
    }

    /// An empty table at an address.
    #[cfg(test)]
    pub(crate) fn at(address: u64, max_entries: u64) -> Self {
        ModPltSec { plt_shndx: 1, plt_max_entries: max_entries, address, ..ModPltSec::default() }
    }
}
