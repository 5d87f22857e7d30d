//! ELF cores.

use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::bytes::{align_up, le16, le32, le64, slice};

use crate::Error;
use crate::range::Range;
use crate::read_at::ReadAt;
use crate::vmcoreinfo::VmcoreInfo;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// The number of program headers is in section header 0.
const PN_XNUM: u16 = 0xffff;
const PHDR: usize = 56;
/// More program headers than this has no core.
const HEADERS_MAX: usize = 1 << 20;
/// No notes are longer.
const NOTES_MAX: usize = 16 << 20;

/// What a core holds.
#[derive(Debug, Default)]
pub struct Core {
    pub e_machine: u16,
    /// By virtual address.
    pub virtual_: Vec<Range>,
    /// By physical address.
    pub physical: Vec<Range>,
    pub vmcoreinfo: Option<VmcoreInfo>,
    pub damage: Vec<String>,
}

/// Reads headers and notes of a core.
pub fn core(file: &impl ReadAt) -> Result<Core, Error> {
    let head = file.array::<64>(0).ok_or(Error::Damaged { what: "ELF header", at: 0 })?;
    if head.get(4..6) != Some(&[2, 1]) {
        return Err(Error::Unsupported("no 64-bit little-endian ELF core".into()));
    }
    let field = |at| le64(&head, at).unwrap_or(0);
    let short = |at| le16(&head, at).unwrap_or(0);
    let (phoff, shoff) = (field(32), field(40));
    if short(54) != PHDR as u16 {
        return Err(Error::Damaged { what: "size of program headers", at: 54 });
    }
    let count = match short(56) {
        PN_XNUM => {
            let raw =
                file.array::<64>(shoff).ok_or(Error::Damaged { what: "section header 0", at: shoff })?;
            le32(&raw, 44).unwrap_or(0) as usize
        }
        count => usize::from(count),
    };
    let table = file.up_to(phoff, count.min(HEADERS_MAX).saturating_mul(PHDR));
    let mut found = Core { e_machine: short(18), ..Core::default() };
    if table.len() < count.saturating_mul(PHDR) {
        found.damage.push("the table of program headers is cut off".into());
    }
    for header in table.chunks_exact(PHDR) {
        let field = |at| le64(header, at).unwrap_or(0);
        let (at, vaddr, paddr, size) = (field(8), field(16), field(24), field(32));
        let there = file.size().saturating_sub(at).min(size);
        match le32(header, 0) {
            Some(PT_NOTE) if found.vmcoreinfo.is_none() => {
                let notes = file.up_to(at, usize::try_from(there).unwrap_or(0).min(NOTES_MAX));
                found.vmcoreinfo = vmcoreinfo(&notes);
            }
            Some(PT_LOAD) if size != 0 => {
                // Addresses of the kernel have all upper bits set; QEMU without paging writes 0, user memory is none of its.
                if vaddr >> 63 != 0 {
                    found.virtual_.push(Range { start: vaddr, size: there, at });
                }
                // -1: not known, as of vmalloc in /proc/kcore.
                let whole = paddr.checked_add(size).is_some_and(|end| end <= 1 << 52);
                if whole && (paddr != 0 || vaddr >> 63 == 0 || is_linear_start(vaddr)) {
                    found.physical.push(Range { start: paddr, size: there, at });
                }
                if there < size {
                    let from = if vaddr == 0 { paddr } else { vaddr }.saturating_add(there);
                    let left = size.saturating_sub(there);
                    found.damage.push(alloc::format!("cut off: {left:#x} bytes of memory from {from:#x}"));
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// May physical address 0 be mapped there? The linear mapping begins at a multiple of 1 GiB; old kernels wrote physical address 0
/// for areas that have none.
fn is_linear_start(vaddr: u64) -> bool {
    vaddr & ((1 << 30) - 1) == 0
}

/// The note VMCOREINFO.
pub fn vmcoreinfo(notes: &[u8]) -> Option<VmcoreInfo> {
    let mut at = 0u64;
    loop {
        let (name_size, size) = (u64::from(le32(notes, at)?), u64::from(le32(notes, at.checked_add(4)?)?));
        let name_at = at.checked_add(12)?;
        let data_at = name_at.checked_add(align_up(name_size, 4))?;
        let name = slice(notes, name_at, name_size)?;
        // QEMU hands out the guest's note, which may be longer than its text.
        if name.starts_with(b"VMCOREINFO") {
            let left = (notes.len() as u64).checked_sub(data_at)?;
            return Some(VmcoreInfo::new(slice(notes, data_at, size.min(left))?));
        }
        at = data_at.checked_add(align_up(size, 4))?;
    }
}
