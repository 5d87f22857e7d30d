//! Images of x86_64 kernels: a vmlinux, mostly in a bzImage (IMG-1, IMG-3).

use alloc::vec::Vec;

use elf_layout::Machine;
use kernel_image::{ImageArch, PageTables};

use super::paging::PAGE_TABLES;
use super::{MACHINE, X86_64};

impl ImageArch for X86_64 {
    fn machine(&self) -> &'static Machine {
        &MACHINE
    }

    fn page_tables(&self) -> &'static [PageTables] {
        &PAGE_TABLES
    }

    /// `call` and `jmp` of 5 bytes, wherever such bytes are.
    fn calls(&self, code: &[u8], address: u64) -> Option<Vec<u64>> {
        let at = |(offset, bytes): (u64, &[u8])| {
            let [0xe8 | 0xe9, distance @ ..] = bytes.first_chunk::<5>()? else { return None };
            let end = address.wrapping_add(offset).wrapping_add(5);
            Some(end.wrapping_add_signed(i64::from(i32::from_le_bytes(*distance))))
        };
        Some((0u64..).zip(code.windows(5)).filter_map(at).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_41_what_code_calls() {
        // nop; call +0x10; jmp -5; ret
        let code = [0x90, 0xe8, 0x10, 0, 0, 0, 0xe9, 0xfb, 0xff, 0xff, 0xff, 0xc3];
        assert_eq!(X86_64.calls(&code, 0x1000), Some(Vec::from([0x1016, 0x1006])), "LIFE-41");
        assert_eq!(X86_64.calls(&code[..5], 0x1000), Some(Vec::new()), "LIFE-41: cut off");
    }
}
