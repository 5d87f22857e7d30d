//! Page tables of arm64 (`arch/arm64/include/asm/pgtable-hwdef.h`).

use kernel_image::{PageEntry, PageTables};

/// AP[2]: read-only.
const READ_ONLY: u64 = 1 << 7;
/// DBM: hardware makes it writable at the first write.
const DBM: u64 = 1 << 51;
/// The kernel may not execute it.
const PXN: u64 = 1 << 53;

const ROOT: &str = "swapper_pg_dir";

const fn tables(
    title: &'static str,
    page_bits: u32,
    index_bits: &'static [u32],
    entry: fn(u64, u32) -> PageEntry,
) -> PageTables {
    PageTables { title, root: ROOT, page_bits, index_bits, both_halves: false, entry }
}

/// Every granule and number of address bits that a kernel can have (CONFIG_ARM64_VA_BITS), the most common first.
pub static PAGE_TABLES: [PageTables; 10] = [
    tables("4K pages, 48 bits", 12, &[9, 9, 9, 9], entry_4k),
    tables("4K pages, 39 bits", 12, &[9, 9, 9], entry_4k),
    tables("4K pages, 52 bits", 12, &[4, 9, 9, 9, 9], entry_4k_52),
    tables("4K pages, 48 bits of 52", 12, &[9, 9, 9, 9], entry_4k_52),
    tables("64K pages, 48 bits", 16, &[6, 13, 13], entry_64k),
    tables("64K pages, 52 bits", 16, &[10, 13, 13], entry_64k),
    tables("64K pages, 42 bits", 16, &[13, 13], entry_64k),
    tables("16K pages, 47 bits", 14, &[11, 11, 11], entry_16k),
    tables("16K pages, 48 bits", 14, &[1, 11, 11, 11], entry_16k),
    tables("16K pages, 52 bits", 14, &[5, 11, 11, 11], entry_16k_52),
];

fn entry_4k(value: u64, level: u32) -> PageEntry {
    entry(value, level, 12, value & bits(12, 48), 2)
}

/// FEAT_LPA2: bits 51:50 of the address are in 9:8.
fn entry_4k_52(value: u64, level: u32) -> PageEntry {
    entry(value, level, 12, value & bits(12, 50) | (value & bits(8, 10)) << 42, 3)
}

fn entry_16k(value: u64, level: u32) -> PageEntry {
    entry(value, level, 14, value & bits(14, 48), 1)
}

fn entry_16k_52(value: u64, level: u32) -> PageEntry {
    entry(value, level, 14, value & bits(14, 50) | (value & bits(8, 10)) << 42, 2)
}

/// FEAT_LPA: bits 51:48 of the address are in 15:12, which are zero without it.
fn entry_64k(value: u64, level: u32) -> PageEntry {
    entry(value, level, 16, value & bits(16, 48) | (value & bits(12, 16)) << 36, 2)
}

/// The bits from one up to another.
const fn bits(from: u32, to: u32) -> u64 {
    (u64::MAX << from) & !(u64::MAX << to)
}

/// An entry, with the address that is in it. Blocks lie at most at level `blocks`.
fn entry(value: u64, level: u32, page_bits: u32, address: u64, blocks: u32) -> PageEntry {
    let mapped = |address| PageEntry::Mapped {
        address,
        write: value & READ_ONLY == 0 || value & DBM != 0,
        execute: value & PXN == 0,
    };
    match (value & 3, level) {
        (3, 0) => mapped(address),
        (3, _) => PageEntry::Table(address),
        (1, 1..) if level <= blocks => {
            let size_bits = level.wrapping_mul(page_bits.wrapping_sub(3)).wrapping_add(page_bits);
            mapped(address & u64::MAX.checked_shl(size_bits).unwrap_or(0))
        }
        _ => PageEntry::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn entries() {
        let page = PageEntry::Mapped { address: 0x4000_1000, write: true, execute: false };
        assert_eq!(entry_4k(0x0068_0000_4000_1703, 0), page);
        assert_eq!(entry_4k(0x4000_1003, 2), PageEntry::Table(0x4000_1000));
        let block = PageEntry::Mapped { address: 0x4020_0000, write: false, execute: true };
        assert_eq!(entry_4k(0x4020_0781, 1), block);
        assert_eq!(entry_4k(0x4020_0781, 3), PageEntry::Nothing, "no block is that large");
        assert_eq!(entry_4k(0x4020_0781, 0), PageEntry::Nothing, "no page");
        assert_eq!(entry_64k(0x4001_f003, 1), PageEntry::Table(0x000f_0000_4001_0000));
        assert_eq!(entry_4k_52(0x4000_1303, 1), PageEntry::Table(0x000c_0000_4000_1000));
        for tables in &PAGE_TABLES {
            let named = tables.title.split(' ').nth(2).unwrap();
            assert_eq!(named, tables.address_bits().to_string(), "{}", tables.title);
        }
    }
}
