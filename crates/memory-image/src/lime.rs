//! LiME, and AVML, which is LiME with packed ranges.

use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::bytes::{le32, le64};

use crate::range::Range;
use crate::read_at::ReadAt;
use crate::snappy;

const LIME: u32 = 0x4c69_4d45;
const AVML: u32 = 0x4c4d_5641;
/// Bytes of the header of a range: magic, version, first and last physical address, 8 bytes that mean nothing.
const HEADER: u64 = 32;
/// A chunk of snappy's framing unpacks to so much at most.
const CHUNK_MAX: usize = 1 << 16;
/// More ranges or chunks than these has no dump: 4 TiB of memory.
const RANGES_MAX: usize = 1 << 16;
const CHUNKS_MAX: usize = 1 << 26;

/// A chunk that is packed.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    /// Physical address of its first byte.
    address: u64,
    /// Where its data is in the file, behind its checksum.
    at: u64,
    /// Bytes of that.
    len: u32,
    /// Bytes that it unpacks to.
    size: u32,
    packed: bool,
}

impl Chunk {
    /// The physical address behind it.
    pub fn end(&self) -> u64 {
        self.address.saturating_add(u64::from(self.size))
    }
}

/// The ranges of a dump.
#[derive(Debug, Default)]
pub struct Ranges {
    /// Ranges that lie in the file as they are.
    pub plain: Vec<Range>,
    /// Chunks of packed ranges, by address.
    pub chunks: Vec<Chunk>,
    /// What is missing.
    pub damage: Vec<String>,
}

/// Is it LiME or AVML? True for AVML.
pub fn magic(head: &[u8]) -> Option<bool> {
    match (le32(head, 0)?, le32(head, 4)?) {
        (LIME, 1) => Some(false),
        (AVML, 1 | 2) => Some(true),
        _ => None,
    }
}

/// Reads all headers of ranges.
pub fn ranges(file: &impl ReadAt) -> Ranges {
    let mut found = Ranges::default();
    let mut at = 0u64;
    for _ in 0..RANGES_MAX {
        let Some(head) = file.array::<32>(at) else { break };
        let (magic, version) = (le32(&head, 0).unwrap_or(0), le32(&head, 4).unwrap_or(0));
        let (first, last) = (le64(&head, 8).unwrap_or(0), le64(&head, 16).unwrap_or(0));
        let size = last.checked_sub(first).and_then(|size| size.checked_add(1));
        let (LIME | AVML, Some(size)) = (magic, size) else {
            found.damage.push(alloc::format!("no header of a range at {at:#x} of the file"));
            break;
        };
        let data = at.saturating_add(HEADER);
        if version == 2 && magic == AVML {
            let Some(next) = packed_range(file, data, first, size, &mut found) else { break };
            at = next;
        } else {
            let there = file.size().saturating_sub(data).min(size);
            found.plain.push(Range { start: first, size: there, at: data });
            if there < size {
                found.damage.push(alloc::format!(
                    "cut off: physical memory from {:#x} to {last:#x}",
                    first.saturating_add(there)
                ));
            }
            at = data.saturating_add(size);
        }
    }
    found.chunks.sort_by_key(|chunk| chunk.address);
    found
}

/// The chunks of one range (snappy's framing_format.txt); gives where the next range begins.
fn packed_range(file: &impl ReadAt, data: u64, first: u64, size: u64, found: &mut Ranges) -> Option<u64> {
    let (mut at, mut done) = (data, 0u64);
    while done < size && found.chunks.len() < CHUNKS_MAX {
        let Some(head) = file.array::<4>(at) else { break };
        let [kind, len @ ..] = head;
        let len = u32::from_le_bytes([len[0], len[1], len[2], 0]);
        let body = at.saturating_add(4);
        match kind {
            0 | 1 => {
                let len = len.checked_sub(4)?;
                let from = body.saturating_add(4);
                let unpacked = if kind == 1 {
                    usize::try_from(len).ok()
                } else {
                    snappy::length(&file.up_to(from, 5)).map(|(size, _)| size)
                };
                let there = from.saturating_add(u64::from(len)) <= file.size();
                let Some(unpacked) = unpacked.filter(|n| there && (1..=CHUNK_MAX).contains(n)) else { break };
                found.chunks.push(Chunk {
                    address: first.saturating_add(done),
                    at: from,
                    len,
                    size: u32::try_from(unpacked).ok()?,
                    packed: kind == 0,
                });
                done = done.saturating_add(unpacked as u64);
            }
            // A stream identifier, padding, and chunks that may be skipped.
            0x80..=0xff => {}
            _ => break,
        }
        at = body.saturating_add(u64::from(len));
    }
    if done < size {
        let (from, to) = (first.saturating_add(done), first.saturating_add(size));
        found.damage.push(alloc::format!("cut off or broken: physical memory from {from:#x} to {to:#x}"));
        return None;
    }
    // The length of what was packed follows.
    at.checked_add(8)
}

/// Fills as much of `out` as the chunk at `address` holds; how many bytes that is.
pub fn read_chunk(file: &impl ReadAt, chunks: &[Chunk], address: u64, out: &mut [u8]) -> Option<usize> {
    let before = chunks.partition_point(|chunk| chunk.address <= address).checked_sub(1)?;
    let chunk = chunks.get(before)?;
    let from = usize::try_from(address.checked_sub(chunk.address)?).ok()?;
    if from >= usize::try_from(chunk.size).ok()? {
        return None;
    }
    let data = file.up_to(chunk.at, usize::try_from(chunk.len).ok()?);
    let data = if chunk.packed { snappy::unpack(&data, CHUNK_MAX)? } else { data };
    let piece = data.get(from..)?;
    let len = piece.len().min(out.len());
    out.get_mut(..len)?.copy_from_slice(piece.get(..len)?);
    Some(len)
}
