//! kdump-compressed files: those of makedumpfile, and of QEMU.

use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::bytes::{le32, le64};

use crate::Error;
use crate::elf;
use crate::pages;
use crate::read_at::ReadAt;
use crate::vmcoreinfo::VmcoreInfo;

const SIGNATURES: [&[u8; 8]; 2] = [b"KDUMP   ", b"DISKDUMP"];
/// Bytes of a page descriptor: offset, size, flags, flags of the page.
const DESCRIPTOR: u64 = 24;
/// Bits of the bitmap that are counted together.
const BLOCK_BITS: u64 = 1 << 15;
/// So many page frames at most: 256 TiB.
const FRAMES_MAX: u64 = 1 << 36;
const NOTES_MAX: u64 = 16 << 20;

/// A kdump-compressed file, its headers read.
#[derive(Debug)]
pub struct Kdump {
    page: u64,
    /// Where the bitmap of the pages in the file is.
    bitmap: u64,
    /// Frames that the bitmap has bits for.
    frames: u64,
    /// Pages in the file before each block of the bitmap.
    ranks: Vec<u64>,
    /// Where the page descriptors are.
    descriptors: u64,
    /// Where the dump begins and ends, if it was split.
    frames_here: (u64, u64),
    pub vmcoreinfo: Option<VmcoreInfo>,
    pub damage: Vec<String>,
}

/// Is it one?
pub fn is_kdump(head: &[u8]) -> bool {
    SIGNATURES.iter().any(|signature| head.starts_with(*signature))
}

impl Kdump {
    /// Reads the headers and counts the bitmap.
    pub fn open(file: &impl ReadAt) -> Result<Self, Error> {
        let head = file.array::<464>(0).ok_or(Error::Damaged { what: "kdump header", at: 0 })?;
        let word = |at| u64::from(le32(&head, at).unwrap_or(0));
        let (page, sub_size, bitmap_blocks) = (word(428), word(432), word(436));
        if !page.is_power_of_two() || !(4096..=65536).contains(&page) {
            return Err(Error::Damaged { what: "block size", at: 428 });
        }
        let sub = file.array::<104>(page).unwrap_or([0; 104]);
        let field = |at| le64(&sub, at).unwrap_or(0);
        let version = word(8);
        let frames = if version >= 6 && field(96) != 0 { field(96) } else { word(440) }.min(FRAMES_MAX);
        let split = version >= 2 && le32(&sub, 12) == Some(1);
        let frames_here = match (split, version >= 6) {
            (false, _) => (0, u64::MAX),
            (true, true) => (field(80), field(88)),
            (true, false) => (field(16), field(24)),
        };
        let note = |at, size| {
            let size: u64 = field(size);
            file.up_to(field(at), usize::try_from(size.min(NOTES_MAX)).unwrap_or(0))
        };
        let mut vmcoreinfo = None;
        if version >= 3 && field(40) != 0 {
            vmcoreinfo = Some(VmcoreInfo::new(&note(32, 40)));
        }
        if version >= 4 && vmcoreinfo.is_none() {
            vmcoreinfo = elf::vmcoreinfo(&note(48, 56));
        }
        let bitmap = sub_size.saturating_add(1).saturating_mul(page);
        let all = bitmap_blocks.saturating_mul(page);
        let half = all / 2;
        let mut out = Kdump {
            page,
            bitmap: bitmap.saturating_add(half),
            frames: frames.min(half.saturating_mul(8)),
            ranks: Vec::new(),
            descriptors: bitmap.saturating_add(all),
            frames_here,
            vmcoreinfo,
            damage: Vec::new(),
        };
        out.count(file);
        Ok(out)
    }

    fn count(&mut self, file: &impl ReadAt) {
        let (mut bit, mut rank) = (0u64, 0u64);
        while bit < self.frames {
            let bits = BLOCK_BITS.min(self.frames.saturating_sub(bit));
            let bytes = usize::try_from(bits.div_ceil(8)).unwrap_or(0);
            let block = file.up_to(self.bitmap.saturating_add(bit / 8), bytes);
            if block.len() < bytes {
                self.damage.push(alloc::format!(
                    "cut off in the bitmap: physical memory from {:#x}",
                    bit.saturating_mul(self.page)
                ));
                self.frames = bit;
                return;
            }
            self.ranks.push(rank);
            let ones: u64 =
                block.iter().map(|byte| u64::from(byte.count_ones())).fold(0, u64::saturating_add);
            rank = rank.saturating_add(ones);
            bit = bit.saturating_add(BLOCK_BITS);
        }
        let end = self.descriptors.saturating_add(rank.saturating_mul(DESCRIPTOR));
        // The last page in the file lies farthest back, as a rule.
        let last = file.array::<24>(end.saturating_sub(DESCRIPTOR));
        let behind = last.and_then(|raw| le64(&raw, 0)?.checked_add(u64::from(le32(&raw, 8)?)));
        if rank != 0 && behind.is_none_or(|behind| behind > file.size()) {
            self.damage.push("cut off: the last pages are not in the file".into());
        }
    }

    /// Physical memory that there may be, in bytes from 0.
    pub fn end(&self) -> u64 {
        self.frames.saturating_mul(self.page)
    }

    /// Fills as much of `out` as the page at `address` holds; how many bytes that is.
    pub fn read(&self, file: &impl ReadAt, address: u64, out: &mut [u8]) -> Option<usize> {
        let frame = address.checked_div(self.page)?;
        let from = usize::try_from(address.checked_rem(self.page)?).ok()?;
        if frame >= self.frames || frame < self.frames_here.0 || frame >= self.frames_here.1 {
            return None;
        }
        let index = self.index(file, frame)?;
        let at = self.descriptors.checked_add(index.checked_mul(DESCRIPTOR)?)?;
        let raw = file.array::<24>(at)?;
        let (at, size, flags) = (le64(&raw, 0)?, le32(&raw, 8)? as usize, le32(&raw, 12)?);
        let page = usize::try_from(self.page).ok()?;
        if size == 0 || size > page.checked_mul(2)? {
            return None;
        }
        let packed = file.up_to(at, size);
        let data = pages::unpack(packed, flags, page)?;
        let piece = data.get(from..)?;
        let len = piece.len().min(out.len());
        out.get_mut(..len)?.copy_from_slice(piece.get(..len)?);
        Some(len)
    }

    /// Which of the pages in the file is that frame? `None` if it is none of them.
    fn index(&self, file: &impl ReadAt, frame: u64) -> Option<u64> {
        let block = frame / BLOCK_BITS;
        let start = block.checked_mul(BLOCK_BITS)?.checked_div(8)?;
        let bytes = frame.checked_div(8)?.checked_sub(start)?;
        let bits = file.up_to(self.bitmap.checked_add(start)?, usize::try_from(bytes).ok()?.checked_add(1)?);
        let (last, before) = bits.split_last()?;
        let bit = (frame % 8) as u32;
        if last >> bit & 1 == 0 {
            return None;
        }
        let below = u64::from((last & !(0xff_u8 << bit)).count_ones());
        let ones: u64 =
            before.iter().map(|byte| u64::from(byte.count_ones())).fold(below, u64::saturating_add);
        self.ranks.get(usize::try_from(block).ok()?)?.checked_add(ones)
    }
}
