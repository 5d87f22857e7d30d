//! Images of arm64 kernels: the flat Image (IMG-4) and the vmlinux that it is made of.

use elf_layout::Machine;
use kernel_image::{FlatFormat, FlatHeader, ImageArch};

use super::{Aarch64, MACHINE};

/// `R_AARCH64_RELATIVE`.
const R_AARCH64_RELATIVE: u32 = 0x403;

/// `Documentation/arch/arm64/booting.rst`; addresses are those of `arch/arm64/include/asm/memory.h`.
static IMAGE: FlatFormat = FlatFormat {
    name: "arm64 Image",
    title: "arm64 Image",
    header,
    // KIMAGE_VADDR is aligned to the size of the modules' region, 128 MiB at least.
    region_align: 128 << 20,
    // The kernel is mapped in blocks of 2 MiB.
    block: 2 << 20,
    // KIMAGE_VADDR with 48-bit addresses since 6.5.
    usual_base: 0xffff_8000_8000_0000,
};

impl ImageArch for Aarch64 {
    fn machine(&self) -> &'static Machine {
        &MACHINE
    }

    fn flat_format(&self) -> Option<&'static FlatFormat> {
        Some(&IMAGE)
    }

    fn relative_relocation(&self) -> Option<u32> {
        Some(R_AARCH64_RELATIVE)
    }
}

/// `struct arm64_image_header` of `arch/arm64/include/asm/image.h` (IMG-4).
fn header(image: &[u8]) -> Option<FlatHeader> {
    let word = |at: usize| image.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
    image.get(0x38..)?.starts_with(b"ARMd").then_some(())?;
    let flags = word(0x18)?;
    Some(FlatHeader {
        // Not zero before 5.8.
        text_offset: word(8)?,
        big_endian: flags & 1 != 0,
        page_size: match (flags >> 1) & 3 {
            1 => Some(0x1000),
            2 => Some(0x4000),
            3 => Some(0x1_0000),
            _ => None,
        },
    })
}
