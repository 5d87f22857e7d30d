//! A dump: which format it has, and what of memory it holds.

use alloc::string::String;
use alloc::vec::Vec;

use crate::Error;
use crate::elf;
use crate::kdump::{self, Kdump};
use crate::lime::{self, Chunk};
use crate::range::Range;
use crate::read_at::ReadAt;
use crate::vmcoreinfo::VmcoreInfo;

/// How a dump is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An ELF core.
    Elf,
    /// kdump-compressed.
    Kdump,
    /// LiME.
    Lime,
    /// AVML.
    Avml,
    /// Physical memory, each byte at its address.
    Raw,
}

impl Format {
    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Elf => "ELF core",
            Format::Kdump => "kdump-compressed",
            Format::Lime => "LiME",
            Format::Avml => "AVML",
            Format::Raw => "raw physical memory",
        }
    }
}

/// A dump of memory.
#[derive(Debug)]
pub struct Dump<R> {
    file: R,
    format: Format,
    e_machine: Option<u16>,
    physical: Vec<Range>,
    virtual_: Vec<Range>,
    chunks: Vec<Chunk>,
    kdump: Option<Kdump>,
    vmcoreinfo: Option<VmcoreInfo>,
    damage: Vec<String>,
}

impl<R: ReadAt> Dump<R> {
    /// Tells the format by the magic, and reads the headers. Without any magic it is raw physical memory.
    pub fn open(file: R) -> Result<Self, Error> {
        let head = file.up_to(0, 64);
        if head.is_empty() {
            return Err(Error::Empty);
        }
        let mut dump = Dump {
            format: Format::Raw,
            e_machine: None,
            physical: Vec::new(),
            virtual_: Vec::new(),
            chunks: Vec::new(),
            kdump: None,
            vmcoreinfo: None,
            damage: Vec::new(),
            file,
        };
        if head.starts_with(b"\x7fELF") {
            let core = elf::core(&dump.file)?;
            dump.format = Format::Elf;
            dump.e_machine = Some(core.e_machine);
            (dump.physical, dump.virtual_) = (core.physical, core.virtual_);
            (dump.vmcoreinfo, dump.damage) = (core.vmcoreinfo, core.damage);
        } else if kdump::is_kdump(&head) {
            let mut kdump = Kdump::open(&dump.file)?;
            dump.format = Format::Kdump;
            dump.vmcoreinfo = kdump.vmcoreinfo.take();
            dump.damage = core::mem::take(&mut kdump.damage);
            dump.kdump = Some(kdump);
        } else if let Some(is_avml) = lime::magic(&head) {
            let ranges = lime::ranges(&dump.file);
            dump.format = if is_avml { Format::Avml } else { Format::Lime };
            (dump.physical, dump.chunks, dump.damage) = (ranges.plain, ranges.chunks, ranges.damage);
        } else {
            dump.physical = Vec::from([Range { start: 0, size: dump.file.size(), at: 0 }]);
        }
        dump.physical = disjoint(dump.physical);
        dump.virtual_ = disjoint(dump.virtual_);
        Ok(dump)
    }

    /// How it is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// `e_machine` of an ELF core.
    pub fn e_machine(&self) -> Option<u16> {
        self.e_machine
    }

    /// The note that the kernel left, if the dump has it.
    pub fn vmcoreinfo(&self) -> Option<&VmcoreInfo> {
        self.vmcoreinfo.as_ref()
    }

    /// What is cut off or broken, each in words.
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    /// Has it memory by physical address?
    pub fn has_physical(&self) -> bool {
        !self.physical.is_empty() || !self.chunks.is_empty() || self.kdump.is_some()
    }

    /// Ranges of virtual addresses that it holds by themselves, by address.
    pub fn segments(&self) -> &[Range] {
        &self.virtual_
    }

    /// The end of its physical memory.
    pub fn physical_end(&self) -> u64 {
        let plain = self.physical.iter().map(|range| range.start.saturating_add(range.size)).max();
        let chunks = self.chunks.last().map(|chunk| chunk.end());
        let kdump = self.kdump.as_ref().map(Kdump::end);
        plain.into_iter().chain(chunks).chain(kdump).max().unwrap_or(0)
    }

    /// Fills `out` with memory at a physical address; false if the dump does not hold all of it.
    pub fn physical(&self, address: u64, out: &mut [u8]) -> bool {
        let mut done = 0usize;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(at) = address.checked_add(done as u64) else { return false };
            let read = match &self.kdump {
                Some(kdump) => kdump.read(&self.file, at, rest),
                None => read_range(&self.file, &self.physical, at, rest)
                    .or_else(|| lime::read_chunk(&self.file, &self.chunks, at, rest)),
            };
            let Some(read) = read.filter(|read| *read != 0) else { return false };
            done = done.saturating_add(read);
        }
        true
    }

    /// Fills `out` with memory at a virtual address that the dump holds by itself; how many bytes of it that is, 0 if none.
    pub fn segment(&self, address: u64, out: &mut [u8]) -> usize {
        read_range(&self.file, &self.virtual_, address, out).unwrap_or(0)
    }
}

/// The same memory by ranges that do not lie over each other, by address: a dump may hold a page more than once, such as by the
/// linear mapping and by that of the kernel's text.
fn disjoint(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_by_key(|range| (range.start, core::cmp::Reverse(range.size)));
    let mut end = 0u64;
    let mut out: Vec<Range> = Vec::with_capacity(ranges.len());
    for mut range in ranges {
        let covered = end.saturating_sub(range.start).min(range.size);
        range.start = range.start.saturating_add(covered);
        range.at = range.at.saturating_add(covered);
        range.size = range.size.saturating_sub(covered);
        if range.size != 0 {
            end = range.start.saturating_add(range.size);
            out.push(range);
        }
    }
    out
}

/// Fills as much of `out` as one range holds; how many bytes that is.
fn read_range(file: &impl ReadAt, ranges: &[Range], address: u64, out: &mut [u8]) -> Option<usize> {
    let after = ranges.partition_point(|range| range.start <= address);
    let range = ranges.get(after.checked_sub(1)?)?;
    let from = address.checked_sub(range.start)?;
    let left = range.size.checked_sub(from).filter(|left| *left != 0)?;
    let len = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    let part = out.get_mut(..len)?;
    file.read_at(range.at.checked_add(from)?, part).then_some(len)
}
