//! Images of arm64 kernels: the flat Image (IMG-4) and the vmlinux that it is made of.

use alloc::vec::Vec;

use elf_layout::Machine;
use kernel_image::{FlatFormat, FlatHeader, ImageArch, PageTables};

use super::paging::PAGE_TABLES;
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

    fn page_tables(&self) -> &'static [PageTables] {
        &PAGE_TABLES
    }

    /// EFI_KIMG_ALIGN of kernels whose segments are aligned to 64 KiB.
    fn physical_align(&self) -> u64 {
        64 << 10
    }

    fn flat_format(&self) -> Option<&'static FlatFormat> {
        Some(&IMAGE)
    }

    fn relative_relocation(&self) -> Option<u32> {
        Some(R_AARCH64_RELATIVE)
    }

    /// `bl` and `b`.
    fn calls(&self, code: &[u8], address: u64) -> Option<Vec<u64>> {
        let at = |(offset, bytes): (u64, &[u8])| {
            let insn = u32::from_le_bytes(*bytes.first_chunk()?);
            // imm26, in instructions.
            let distance = i64::from((insn << 6).cast_signed() >> 4);
            let calls = matches!(insn >> 26, 0b10_0101 | 0b00_0101);
            calls.then(|| address.wrapping_add(offset).wrapping_add_signed(distance))
        };
        Some((0u64..).step_by(4).zip(code.chunks_exact(4)).filter_map(at).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_41_what_code_calls() {
        let code = [0xd503_201fu32, 0x9400_0004, 0x17ff_ffff, 0xd65f_03c0].map(u32::to_le_bytes).concat();
        assert_eq!(
            Aarch64.calls(&code, 0x1000),
            Some(Vec::from([0x1014, 0x1004])),
            "LIFE-41: nop, bl, b, ret"
        );
        assert_eq!(Aarch64.calls(&code[..7], 0x1000), Some(Vec::new()), "LIFE-41: cut off");
    }
}
