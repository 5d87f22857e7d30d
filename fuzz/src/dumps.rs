//! Dumps to start from: the same small memory in every format, and page tables of every form.

use reloc::{ARCHITECTURES, Architecture};
use testkit::dump::{Physical, Tables, flattened, literal, zstd};

const SIZE: usize = 32 << 10;
const VMCOREINFO: &str = "OSRELEASE=6.12.1\nPAGESIZE=4096\nSYMBOL(init_top_pgt)=ffffffff82000000\nKERNELOFFSET=1000000\nBUILD-ID=00ff\n";

fn memory() -> Physical {
    Physical::patterned(SIZE)
}

/// ELF cores, with addresses of either kind.
pub fn elf() -> Vec<Vec<u8>> {
    let (memory, size) = (memory(), SIZE as u64);
    let high = 0xffff_ffff_8100_0000;
    vec![
        memory.elf(62, &[(0, 0, 0x4000), (0, 0x4000, size - 0x4000)], VMCOREINFO),
        memory.elf(183, &[(high, 0x4000, 0x3000), (0xffff_8880_0000_0000, 0, 0x5000)], VMCOREINFO),
        memory.elf(62, &[(high, 0, 0x2000), (high + 0x1000, 0x1000, 0x2000)], ""),
        flattened(&memory.elf(62, &[(0, 0, size)], VMCOREINFO), 5000),
    ]
}

/// LiME and AVML.
pub fn lime() -> Vec<Vec<u8>> {
    let memory = memory();
    vec![memory.lime(&[0x3000, 0x2000, SIZE - 0x5000]), memory.avml()]
}

/// A zlib stream of one stored block.
fn zlib(page: &[u8]) -> Vec<u8> {
    let (mut low, mut high) = (1u32, 0u32);
    for byte in page {
        low = (low + u32::from(*byte)) % 65521;
        high = (high + low) % 65521;
    }
    let len = page.len() as u16;
    let mut out = vec![0x78, 1, 1];
    out.extend(len.to_le_bytes());
    out.extend((!len).to_le_bytes());
    out.extend(page);
    out.extend((high << 16 | low).to_be_bytes());
    out
}

/// An LZO stream of one run of literals: its length beyond 18 as so many times 255, and the rest.
fn lzo(page: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    let mut rest = page.len() - 18;
    while rest > 255 {
        out.push(0);
        rest -= 255;
    }
    out.push(rest as u8);
    out.extend(page);
    out.extend([0x11, 0, 0]);
    out
}

/// kdump-compressed: each way to pack a page.
pub fn kdump() -> Vec<Vec<u8>> {
    let pack = |n: usize, page: &[u8]| match n % 5 {
        0 => (page.to_vec(), 0),
        1 => (zlib(page), 1),
        2 => (lzo(page), 2),
        3 => (literal(page), 4),
        _ => (zstd(page), 0x20),
    };
    let file = memory().kdump(pack);
    vec![flattened(&file, 5000), file]
}

/// What entries have beside the address: of tables, of data, of code.
fn bits_of(arch: &dyn Architecture) -> [u64; 3] {
    match arch.machine().inline_static_calls {
        true => [0x67, 0x8000_0000_0000_0063, 0x61],
        false => [3, 0x0068_0000_0000_0403, 0x0040_0000_0000_0483],
    }
}

/// Memory with page tables, for each form.
pub fn page_tables() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for arch in ARCHITECTURES {
        let [table, data, code] = bits_of(*arch);
        for form in arch.page_tables() {
            let page = 1u64 << form.page_bits;
            let mut memory = Physical::new(16 * page as usize);
            let tables = Tables { page_bits: form.page_bits, index_bits: form.index_bits, table, page: 0 };
            let base = u64::MAX - (1 << 30) + 1 + 4 * page;
            for (address, physical, more) in [
                (base, 3, code),
                (base + page, 4, code),
                (base + 2 * page, 5, data),
                (form.lowest(), 6, data),
            ] {
                memory.map(tables, 2 * page, address, physical * page, more);
            }
            all.push(memory.bytes);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use memory_image::{AddressSpace, Dump, Flattened, ReadAt, is_flattened};

    use super::*;

    /// Every page of the memory can be read, but for those that the format leaves out.
    fn pages(dump: &Dump<impl ReadAt>) -> usize {
        let mut page = [0; 4096];
        let memory = memory();
        let read = |at: &usize| {
            let read = dump.physical(*at as u64, &mut page);
            assert!(!read || page == memory.bytes[*at..][..4096]);
            read
        };
        (0..SIZE).step_by(4096).filter(read).count()
    }

    #[test]
    fn seeds_are_good_dumps() {
        // The third core's segment at physical address 0 is no part of the linear mapping, so that address is not believed.
        let all = [(elf(), vec![8, 7, 2, 8]), (lime(), vec![8, 8]), (kdump(), vec![7, 7])];
        for (seeds, want) in all {
            let read = |seed: &Vec<u8>| match is_flattened(seed) {
                true => pages(&Dump::open(Flattened::new(seed.as_slice())).unwrap()),
                false => pages(&Dump::open(seed.as_slice()).unwrap()),
            };
            assert_eq!(seeds.iter().map(read).collect::<Vec<_>>(), want);
        }
        let forms = ARCHITECTURES.iter().flat_map(|arch| arch.page_tables());
        for (seed, form) in page_tables().iter().zip(forms) {
            let dump = Arc::new(Dump::open(seed.as_slice()).unwrap());
            let space = AddressSpace::of_tables(dump, form, 2 << form.page_bits);
            assert_eq!(space.mappings(form.lowest(), u64::MAX).len(), 3, "{}", form.title);
        }
    }
}
