//! Page tables of x86_64 (`arch/x86/include/asm/pgtable_types.h`).

use kernel_image::{PageEntry, PageTables};

const PRESENT: u64 = 1;
const RW: u64 = 1 << 1;
/// The entry maps a block instead of a table.
const PSE: u64 = 1 << 7;
const NX: u64 = 1 << 63;
/// Physical addresses have at most 52 bits.
const ADDRESS: u64 = (1 << 52) - (1 << 12);

/// With 4 and 5 levels (CONFIG_X86_5LEVEL, on CPUs that have it).
pub static PAGE_TABLES: [PageTables; 2] = [
    PageTables {
        title: "4-level page tables",
        root: "init_top_pgt",
        page_bits: 12,
        index_bits: &[9, 9, 9, 9],
        both_halves: true,
        entry,
    },
    PageTables {
        title: "5-level page tables",
        root: "init_top_pgt",
        page_bits: 12,
        index_bits: &[9, 9, 9, 9, 9],
        both_halves: true,
        entry,
    },
];

fn entry(entry: u64, level: u32) -> PageEntry {
    let is_block = level == 0 || entry & PSE != 0;
    match (entry & PRESENT != 0, is_block, level) {
        (false, ..) | (_, true, 3..) => PageEntry::Nothing,
        (_, false, _) => PageEntry::Table(entry & ADDRESS),
        (_, true, _) => {
            // Of a block the lowest bits of the address are zero, but for PAT.
            let size = 0x1000_u64.wrapping_shl(level.wrapping_mul(9));
            PageEntry::Mapped {
                address: entry & ADDRESS & size.wrapping_neg(),
                write: entry & RW != 0,
                execute: entry & NX == 0,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        assert_eq!(entry(0x1234_5000, 1), PageEntry::Nothing);
        assert_eq!(entry(0x8000_0000_1234_5067, 1), PageEntry::Table(0x1234_5000));
        let page = PageEntry::Mapped { address: 0x1234_5000, write: true, execute: false };
        assert_eq!(entry(0x8000_0000_1234_5063, 0), page);
        let block = PageEntry::Mapped { address: 0x1220_0000, write: false, execute: true };
        assert_eq!(entry(0x1220_10e1, 1), block, "PAT of a block is no address");
        assert_eq!(entry(0x80 | 1, 3), PageEntry::Nothing, "no block is that large");
        assert_eq!(PAGE_TABLES[0].lowest(), 0xffff_8000_0000_0000);
        assert_eq!(PAGE_TABLES[1].lowest(), 0xff00_0000_0000_0000);
    }
}
