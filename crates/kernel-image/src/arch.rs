//! What an architecture knows about the images of its kernels.

use alloc::vec::Vec;
use core::fmt::Debug;

use elf_layout::Machine;

use crate::paging::PageTables;

/// A machine architecture: the part of the porting checklist that reads kernel images.
///
/// A kernel that is only ever an ELF file (in whatever container) needs [`ImageArch::machine`] and, if its
/// pointers are filled in by relocation when it starts, [`ImageArch::relative_relocation`].
pub trait ImageArch: Sync + Debug {
    /// Facts about it: `e_machine` of its vmlinux, its word in vermagic, its page sizes.
    fn machine(&self) -> &'static Machine;

    /// Its flat image, the file that its boot loaders start; `None` if there is none.
    fn flat_format(&self) -> Option<&'static FlatFormat> {
        None
    }

    /// The type of the RELA records that fill in the kernel's own pointers when it starts, as B + A (KSYM-12);
    /// `None` if pointers stand in the file.
    fn relative_relocation(&self) -> Option<u32> {
        None
    }

    /// Where the code at `address` calls or jumps to by instructions that hold the distance; addresses that are none may be among
    /// them. `None` if that is not known of the architecture.
    fn calls(&self, _code: &[u8], _address: u64) -> Option<Vec<u64>> {
        None
    }

    /// The forms that its page tables can have, the most common first; empty if that is not known.
    fn page_tables(&self) -> &'static [PageTables] {
        &[]
    }

    /// What the physical address of a kernel's first byte (`_text`) is a multiple of: a power of two, in bytes.
    fn physical_align(&self) -> u64 {
        2 << 20
    }

    /// Bytes of a page, if the image tells them. `header` is that of a flat image, which a vmlinux may have too.
    ///
    /// Unless overridden: 4096 where no option changes it ([`Machine::page_sizes`]), else what the header says.
    fn page_size(&self, header: Option<&FlatHeader>) -> Option<u32> {
        match self.machine().page_sizes {
            [] => Some(0x1000),
            _ => header.and_then(|header| header.page_size),
        }
    }
}

/// A flat image: one piece of memory, whose first byte is `_text`, with a header that does not say where it is
/// linked.
#[derive(Debug)]
pub struct FlatFormat {
    /// Its name, as [`KernelImage::format_name`](crate::KernelImage::format_name) gives it.
    pub name: &'static str,
    /// Its name in messages.
    pub title: &'static str,
    /// Reads the header at the start of an image; `None` if the magic is not there.
    pub header: fn(&[u8]) -> Option<FlatHeader>,
    /// Address to which the region that the kernel is linked into is aligned: a power of two, in bytes.
    pub region_align: u64,
    /// Size of the blocks that the kernel is mapped in: a power of two, in bytes.
    pub block: u64,
    /// Link address of `_text` in most kernels, for an image that does not show it.
    pub usual_base: u64,
}

/// What the header of a flat image says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlatHeader {
    /// By how many bytes `_text` lies behind an aligned address.
    pub text_offset: u64,
    /// The kernel is big-endian.
    pub big_endian: bool,
    /// Bytes of a page, if it says so.
    pub page_size: Option<u32>,
}

/// The architecture among those known that a flat image is for, with the image's format and header.
pub(crate) fn of_flat_image(
    known: &[&'static dyn ImageArch],
    data: &[u8],
) -> Option<(&'static dyn ImageArch, &'static FlatFormat, FlatHeader)> {
    known.iter().find_map(|arch| {
        let format = arch.flat_format()?;
        Some((*arch, format, (format.header)(data)?))
    })
}
