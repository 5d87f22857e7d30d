//! The module in memory: what a module is from `move_module` on, when every address is final.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::bytes::{cstr, le16, le32, le64, printed};
use crate::elf::{Rela, SHF_ALLOC, SHN_UNDEF, SHT_NOBITS, SHT_RELA, Shdr, SymFields};
use crate::load_info::LoadInfo;
use crate::module_file::ModuleFile;
use crate::place::{Memory, Placement};
use crate::plan::{Layout, SectionPlace};
use crate::region::{PerRegion, Region};
use crate::validity::MODULE_NAME;

/// A module in memory: the file, its edited section headers with final addresses, the memory plan, the base addresses,
/// the values of its symbols, and its bytes. It is `struct module` and the memory that this describes, as far as they do
/// not depend on the kernel; [`move_module`] makes it, and all later stages take it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Module<'d> {
    /// The file and the edited section headers; `sh_addr` is final.
    pub info: LoadInfo<'d>,
    /// The memory plan.
    pub layout: Layout,
    /// Base addresses.
    pub placement: Placement,
    /// `st_value` of every symbol, by index; empty until `simplify_symbols` (SYM-1 to SYM-9).
    pub values: Vec<u64>,
    /// By index: is this a symbol whose value is not known? Exports without an address, per-cpu symbols where the per-cpu
    /// area is not known, and unresolved symbols. Their relocations are left out.
    pub unknown: Vec<bool>,
    /// The bytes of its regions.
    pub memory: Box<dyn Memory>,
}

/// A section of a module in memory.
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
    /// The addresses of its records of `size` bytes each; an incomplete one at the end is none.
    pub fn records(&self, size: u64) -> impl Iterator<Item = u64> + use<> {
        let (first, step) = (self.address, usize::try_from(size.max(1)).unwrap_or(usize::MAX));
        let whole = self.size.checked_div(size).unwrap_or(0).saturating_mul(size);
        (0..whole).step_by(step).map(move |at| first.wrapping_add(at))
    }

    /// As [`Table::records`], with an incomplete one at the end: a loop from the start to the end of a table takes it, with the
    /// bytes that follow in memory (FIN-88).
    pub fn records_begun(&self, size: u64) -> impl Iterator<Item = u64> + use<> {
        let (first, step) = (self.address, usize::try_from(size.max(1)).unwrap_or(usize::MAX));
        (0..self.size).step_by(step).map(move |at| first.wrapping_add(at))
    }
}

/// What may be done with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// It may be written to.
    pub write: bool,
    /// It may be executed. All of it may be read.
    pub execute: bool,
}

impl Region {
    /// Permissions while init runs. Up to 6.3 an area holds code and data, page by page; all of it counts as both.
    pub const fn permissions(self) -> Permissions {
        let write = !matches!(self, Region::Text | Region::InitText | Region::Rodata | Region::InitRodata);
        Permissions { write, execute: self.is_executable() }
    }
}

/// A region of a module in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// Which one.
    pub region: Region,
    /// Address of its first byte.
    pub base: u64,
    /// Bytes that are allocated for it, whole pages (LAYOUT-40).
    pub size: u64,
    /// What may be done with it.
    pub permissions: Permissions,
}

/// Memory from the heap: zeroed bytes for each region of a layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeapMemory(BTreeMap<Region, Vec<u8>>);

impl HeapMemory {
    /// As much as the kernel allocates for a layout (LAYOUT-40).
    pub fn new(layout: &Layout) -> Self {
        let bytes = |region| vec![0; usize::try_from(layout.allocated(region)).unwrap_or(0)];
        HeapMemory(layout.regions().map(|region| (region, bytes(region))).collect())
    }
}

impl Memory for HeapMemory {
    fn region(&self, region: Region) -> &[u8] {
        self.0.get(&region).map_or(&[], Vec::as_slice)
    }

    fn region_mut(&mut self, region: Region) -> &mut [u8] {
        self.0.get_mut(&region).map_or(&mut [], Vec::as_mut_slice)
    }

    fn regions_mut(&mut self) -> Vec<(Region, &mut [u8])> {
        self.0.iter_mut().map(|(region, bytes)| (*region, bytes.as_mut_slice())).collect()
    }
}

/// Memory in one block that somebody else has made: the regions follow each other, each on a page of its own. It serves who
/// loads modules into memory of his own: then the block is that memory, and lies at its real address.
///
/// ```
/// use elf_layout::{BlockMemory, Generation, Layout, Region};
///
/// let mut layout = Layout::new(Generation::ModMemType, 0x1000, 0);
/// *layout.sizes.get_mut(Region::Text) = 0x1234;
/// *layout.sizes.get_mut(Region::Data) = 8;
/// assert_eq!(BlockMemory::size(&layout), 0x3000);
/// let memory = BlockMemory::new(&layout, vec![0; 0x3000]).unwrap();
/// assert_eq!(memory.placement(0x7000_0000).bases.get(Region::Data), 0x7000_2000);
/// assert!(BlockMemory::new(&layout, vec![0; 0x2fff]).is_none());
/// ```
#[derive(Debug)]
pub struct BlockMemory<B> {
    block: B,
    /// First byte and end of each region in the block.
    ranges: PerRegion<(usize, usize)>,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> BlockMemory<B> {
    /// The regions of a layout in a block; `None` if it is too small. Its bytes become zero.
    pub fn new(layout: &Layout, mut block: B) -> Option<Self> {
        let (mut ranges, mut end) = (PerRegion::default(), 0usize);
        for region in layout.regions() {
            let start = end;
            end = start.checked_add(usize::try_from(layout.allocated(region)).ok()?)?;
            *ranges.get_mut(region) = (start, end);
        }
        block.as_mut().get_mut(..end)?.fill(0);
        Some(BlockMemory { block, ranges })
    }
}

impl BlockMemory<()> {
    /// How many bytes a block for this layout needs.
    pub fn size(layout: &Layout) -> u64 {
        layout.regions().map(|region| layout.allocated(region)).fold(0, u64::saturating_add)
    }
}

impl<B> BlockMemory<B> {
    /// Where the regions lie, if the block lies at `base`.
    pub fn placement(&self, base: u64) -> Placement {
        let mut bases = PerRegion::default();
        for region in Region::ALL {
            let (start, end) = self.ranges.get(region);
            if start != end {
                *bases.get_mut(region) = base.wrapping_add(start as u64);
            }
        }
        Placement { bases, percpu: None }
    }
}

impl<B> Memory for BlockMemory<B>
where
    B: AsRef<[u8]> + AsMut<[u8]> + core::fmt::Debug + Send + Sync + 'static,
{
    fn region(&self, region: Region) -> &[u8] {
        let (start, end) = self.ranges.get(region);
        self.block.as_ref().get(start..end).unwrap_or_default()
    }

    fn region_mut(&mut self, region: Region) -> &mut [u8] {
        let (start, end) = self.ranges.get(region);
        self.block.as_mut().get_mut(start..end).unwrap_or_default()
    }

    fn regions_mut(&mut self) -> Vec<(Region, &mut [u8])> {
        let mut rest = self.block.as_mut();
        let mut regions = Vec::new();
        // Regions lie in the block in the order of their numbers.
        for region in Region::ALL {
            let (start, end) = self.ranges.get(region);
            let Some((bytes, after)) = rest.split_at_mut_checked(end.saturating_sub(start)) else { break };
            if !bytes.is_empty() {
                regions.push((region, bytes));
            }
            rest = after;
        }
        regions
    }
}

/// `kernel/module/main.c: move_module` without its allocation: copies every section that has a place and file bytes
/// (LAYOUT-41), and sets its final address: the second rewrite. The memory is zero before.
pub fn move_module<'d>(
    info: LoadInfo<'d>,
    layout: Layout,
    placement: Placement,
    memory: Box<dyn Memory>,
) -> Module<'d> {
    let mut module = Module { info, layout, placement, values: Vec::new(), unknown: Vec::new(), memory };
    module.copy_sections();
    module
}

/// Is a symbol in a section that is not moved, by the edited headers? Its value is an address in the temporary copy, which counts as
/// 0 here (LAYOUT-43).
pub fn is_temporary(file: &ModuleFile<'_>, sechdrs: &[Shdr], symbol: u32) -> bool {
    let shndx = file.symbols().get(symbol as usize).map_or(SHN_UNDEF, SymFields::shndx);
    let index = usize::from(shndx);
    let section = sechdrs.get(index).filter(|_| shndx != SHN_UNDEF && index != file.index().pcpu);
    section.is_some_and(|s| s.sh_flags & SHF_ALLOC == 0)
}

impl Module<'_> {
    fn copy_sections(&mut self) {
        let Module { info, layout, placement, memory, .. } = self;
        for (i, section) in info.sechdrs.iter_mut().enumerate() {
            let Some(place) = layout.place(i).filter(|_| section.sh_flags & SHF_ALLOC != 0) else {
                continue;
            };
            section.sh_addr = placement.address(place);
            if section.sh_type == SHT_NOBITS {
                continue;
            }
            let bytes = info.file.section_bytes(i);
            if let Some(target) = memory.at_mut(place, bytes.len() as u64) {
                target.copy_from_slice(bytes);
            }
        }
    }

    /// Starts again in other memory, which is zero: its sections are as they are in the file, its symbols keep their values.
    /// Gives the memory that it had.
    pub fn move_again(&mut self, memory: Box<dyn Memory>) -> Box<dyn Memory> {
        let old = core::mem::replace(&mut self.memory, memory);
        self.copy_sections();
        old
    }

    /// Two regions that have memory in common: no kernel places them so.
    pub fn overlap(&self) -> Option<[Segment; 2]> {
        let mut segments: Vec<Segment> = self.segments().collect();
        segments.sort_by_key(|segment| segment.base);
        let pairs = segments.iter().zip(segments.iter().skip(1));
        let mut overlapping = pairs.filter(|(a, b)| b.base < a.base.saturating_add(a.size));
        overlapping.next().map(|(a, b)| [*a, *b])
    }

    /// Where an address of the module is in its memory; `None` if it is outside.
    pub fn place_of(&self, address: u64) -> Option<SectionPlace> {
        self.layout.regions().find_map(|region| {
            let offset = address.checked_sub(self.placement.bases.get(region))?;
            (offset < self.layout.allocated(region)).then_some(SectionPlace { region, offset })
        })
    }

    /// Can a place of the module only be read once it is formed (`complete_formation`)?
    pub fn is_read_only(&self, place: SectionPlace) -> bool {
        place.offset < self.read_only_size(place.region)
    }

    /// Bytes at the start of a region that can only be read once the module is formed: `u64::MAX` for all.
    fn read_only_size(&self, region: Region) -> u64 {
        let [core, init] = self.layout.marks;
        match region {
            _ if !self.info.config.strict_module_rwx => 0,
            Region::Core => core.ro_size,
            Region::Init => init.ro_size,
            region if region.permissions().write => 0,
            _ => u64::MAX,
        }
    }

    /// Addresses of its code and constants that stay, as long as it is loaded, where nobody can write to them.
    pub fn read_only(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let stays = self.segments().filter(|segment| !segment.region.is_init());
        stays.filter_map(|segment| {
            let size = segment.size.min(self.read_only_size(segment.region));
            (size != 0).then(|| segment.base..segment.base.saturating_add(size))
        })
    }

    /// `include/linux/module.h: within_module`
    pub fn within_module(&self, address: u64) -> bool {
        self.place_of(address).is_some()
    }

    /// `include/linux/module.h: within_module_init`
    pub fn within_module_init(&self, address: u64) -> bool {
        self.place_of(address).is_some_and(|place| place.region.is_init())
    }

    /// `len` bytes at an address; `None` if not all of them are in one region.
    pub fn read(&self, address: u64, len: u64) -> Option<&[u8]> {
        self.memory.at(self.place_of(address)?, len)
    }

    /// Writes bytes at an address. Gives where they are; `None` if not all of them are in one region, and then nothing is
    /// written.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Option<SectionPlace> {
        let place = self.place_of(address)?;
        self.memory.at_mut(place, bytes.len() as u64)?.copy_from_slice(bytes);
        Some(place)
    }

    /// The u16 at an address.
    pub fn u16(&self, address: u64) -> Option<u16> {
        le16(self.read(address, 2)?, 0)
    }

    /// The u32 at an address.
    pub fn u32(&self, address: u64) -> Option<u32> {
        le32(self.read(address, 4)?, 0)
    }

    /// The u64 at an address.
    pub fn u64(&self, address: u64) -> Option<u64> {
        le64(self.read(address, 8)?, 0)
    }

    /// Where the self-relative s32 at an address points to.
    pub fn relative(&self, address: u64) -> Option<u64> {
        Some(address.wrapping_add_signed(i64::from(self.u32(address)?.cast_signed())))
    }

    /// A section in memory, by index.
    pub fn table(&self, index: usize) -> Option<Table> {
        let place = self.layout.place(index)?;
        let section = self.info.sechdrs.get(index)?;
        let size = section.sh_size;
        Some(Table { index, place, address: self.placement.address(place), size })
    }

    /// `find_sec` or `section_objs`: the first section of that name that is in memory.
    pub fn section(&self, name: &str) -> Option<Table> {
        self.named(self.info.find_sec(name))
    }

    /// The first section of that name, as architectures look for theirs without a look at flags, section 0 included; `None`
    /// too if that one is not in memory.
    pub fn first_section(&self, name: &str) -> Option<Table> {
        let file = self.info.file;
        (!file.is_named(0, name)).then(|| self.named(file.find_any_sec(name)))?
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

    /// Addresses in a section at which relocations were left out, as nobody knows their symbols, or which hold addresses of the
    /// temporary copy: what stands there means nothing. In order.
    pub fn left_out(&self, index: usize) -> Vec<u64> {
        let unknown = |symbol: u32| self.unknown.get(symbol as usize) == Some(&true);
        self.relocated_by(index, |symbol| {
            unknown(symbol) || is_temporary(self.info.file, &self.info.sechdrs, symbol)
        })
    }

    /// Those of them that hold addresses of the temporary copy.
    pub fn in_temporary_copy(&self, index: usize) -> Vec<u64> {
        self.relocated_by(index, |symbol| is_temporary(self.info.file, &self.info.sechdrs, symbol))
    }

    /// Addresses in a section that relocations against such symbols are for, in order.
    fn relocated_by(&self, index: usize, is_one: impl Fn(u32) -> bool) -> Vec<u64> {
        let Some(table) = self.table(index) else { return Vec::new() };
        let those = self.relocations_of(index).filter(|rela| is_one(rela.r_sym()));
        let mut those: Vec<u64> = those.map(|rela| table.address.wrapping_add(rela.r_offset)).collect();
        those.sort_unstable();
        those
    }

    /// The relocations of a section, as the file has them.
    fn relocations_of(&self, index: usize) -> impl Iterator<Item = Rela> {
        let sections = self.info.sechdrs.iter().enumerate();
        let of_section = sections.filter(move |(_, s)| s.sh_type == SHT_RELA && s.sh_info as usize == index);
        of_section.flat_map(|(rela, _)| self.info.file.relocations(rela)).map(Rela::from)
    }

    /// The place in the file of what an address of the temporary copy leads to that stands at `at` in a section, put there by the
    /// one relocation of that type for it. The copy begins with a page.
    pub fn copied_from(&self, index: usize, at: u64, r_type: u32) -> Option<u64> {
        let (file, table) = (self.info.file, self.table(index)?);
        let mut here =
            self.relocations_of(index).filter(|rela| table.address.wrapping_add(rela.r_offset) == at);
        let rela = here.next().filter(|rela| rela.r_type() == r_type && here.next().is_none())?;
        let known = self.unknown.get(rela.r_sym() as usize) != Some(&true);
        let symbol = file.symbols().get(rela.r_sym() as usize).filter(|_| known)?;
        let section = self.info.sechdrs.get(usize::from(symbol.shndx()))?;
        let is_copied = is_temporary(file, &self.info.sechdrs, rela.r_sym()) && section.sh_type != SHT_NOBITS;
        let place =
            section.sh_offset.wrapping_add(symbol.value()).wrapping_add(rela.r_addend.cast_unsigned());
        is_copied.then_some(place)
    }

    /// All bytes of a table, to be changed.
    pub fn table_mut(&mut self, table: &Table) -> Option<&mut [u8]> {
        self.memory.at_mut(table.place, table.size)
    }

    /// `kernel/module/kallsyms.c: find_kallsyms_symbol`: the name that an address of the module has in the kernel's log
    /// (LIFE-54). That of the highest symbol up to it, the first of several; without mapping symbols and labels (LIFE-53).
    pub fn symbol_at(&self, address: u64) -> Option<&[u8]> {
        let mut best: Option<(u64, &[u8])> = None;
        for (value, name) in self.kallsyms() {
            if value <= address && best.is_none_or(|(of, _)| value > of) {
                best = Some((value, name));
            }
        }
        best.map(|(_, name)| name)
    }

    /// The symbols that an address is looked up in: value and name.
    fn kallsyms(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let file = self.info.file;
        let symbols = file.symbols().iter().zip(&self.values).skip(1);
        let defined = symbols.filter(|(symbol, _)| symbol.shndx() != SHN_UNDEF);
        defined.map(|(symbol, value)| (*value, file.symbol_name(symbol))).filter(|(_, name)| {
            let is_mapping = name.starts_with(b".L") || name.starts_with(b"L0") || name.starts_with(b"$");
            !name.is_empty() && !is_mapping
        })
    }

    /// An address of the module as `%pS` prints it once the module is formed: a symbol with offset and size, which reaches to the next
    /// symbol or to the end of its region; the bare address without one in that region (LIFE-54, seen on 7.3.4).
    pub fn symbol_text(&self, address: u64) -> String {
        let inside =
            |segment: &Segment| segment.base <= address && address.wrapping_sub(segment.base) < segment.size;
        let (base, end) = self.segments().find(inside).map_or((0, u64::MAX), |segment| {
            // Before 6.4 it ends with the code of its area, also where the address lies behind that.
            let [core, init] = self.layout.marks;
            let size = match segment.region {
                Region::Core => core.text_size,
                Region::Init => init.text_size,
                _ => segment.size,
            };
            (segment.base, segment.base.wrapping_add(size))
        });
        let start = self.kallsyms().map(|(value, _)| value).filter(|v| (base..=address).contains(v)).max();
        let Some((start, name)) = start.zip(self.symbol_at(address)) else { return format!("{address:#x}") };
        let behind = self.kallsyms().map(|(value, _)| value).filter(|value| *value > address);
        let next = behind.min().map_or(end, |next| end.min(next));
        let (offset, size) = (address.wrapping_sub(start), next.wrapping_sub(start));
        format!("{}+{offset:#x}/{size:#x} [{}]", printed(name), self.info.file.name_text())
    }

    /// The name in its `struct module` as memory has it by now: a relocation may go over it.
    pub fn name_in_memory(&self) -> &[u8] {
        let this = self.table(self.info.file.index().module);
        let bytes = this.and_then(|this| self.memory.at(this.place, this.size));
        bytes.and_then(|bytes| cstr(bytes, MODULE_NAME)).unwrap_or_else(|| self.info.file.name())
    }

    /// Its regions in the order of allocation.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        self.layout.regions().map(|region| Segment {
            region,
            base: self.placement.bases.get(region),
            size: self.layout.allocated(region),
            permissions: region.permissions(),
        })
    }

    /// Address of its init function (`mod->init`); `None` if it has none (LIFE-10).
    pub fn init(&self) -> Option<u64> {
        let offset = self.info.config.struct_module_init_exit.map(|(init, _)| init);
        self.function(offset, b"init_module")
    }

    /// Address of its exit function (`mod->exit`); `None` if it has none.
    pub fn exit(&self) -> Option<u64> {
        let offset = self.info.config.struct_module_init_exit.map(|(_, exit)| exit);
        self.function(offset, b"cleanup_module")
    }

    /// A pointer of `struct module`. Where its offset is not known, the symbol tells it to which a relocation of
    /// `.gnu.linkonce.this_module` sets it.
    fn function(&self, offset: Option<u64>, symbol: &[u8]) -> Option<u64> {
        let file = self.info.file;
        let this_module = file.index().module;
        if let (Some(offset), Some(mut place)) = (offset, self.layout.place(this_module)) {
            place.offset = place.offset.saturating_add(offset);
            return le64(self.memory.at(place, 8)?, 0).filter(|pointer| *pointer != 0);
        }
        let tables = file.sections().iter().enumerate();
        let tables = tables.filter(|(_, s)| s.sh_type == SHT_RELA && s.sh_info as usize == this_module);
        let mut symbols = tables
            .flat_map(|(index, _)| file.relocations(index))
            .map(|rela| Rela::from(rela).r_sym() as usize);
        let named = |index: &usize| file.symbols().get(*index).is_some_and(|s| file.symbol_name(s) == symbol);
        self.values.get(symbols.find(named)?).copied()
    }
}
