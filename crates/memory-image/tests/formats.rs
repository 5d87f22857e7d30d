//! The same memory in every format: what is read, what is missing, and what a file that is cut off still gives.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic)]

use std::sync::Arc;

use memory_image::{AddressSpace, Dump, Flattened, Format, ReadAt, is_flattened};
use reloc::{ARCHITECTURES, Architecture};
use testkit::dump::{Physical, Tables, flattened, literal, zstd};

const SIZE: usize = 256 << 10;

fn memory() -> Physical {
    Physical::patterned(SIZE)
}

fn kdump(memory: &Physical) -> Vec<u8> {
    memory.kdump(|n, page| match n % 5 {
        0 => (page.to_vec(), 0),
        1 => (miniz_oxide::deflate::compress_to_vec_zlib(page, 6), 1),
        2 => (lzokay::compress::compress(page).unwrap(), 2),
        3 => (literal(page), 4),
        // ruzstd packs nothing in this configuration.
        _ => (zstd(page), 0x20),
    })
}

fn all(memory: &Physical) -> Vec<(Format, Vec<u8>)> {
    let size = SIZE as u64;
    vec![
        (Format::Raw, memory.bytes.clone()),
        (Format::Lime, memory.lime(&[0x3000, 0x11000, SIZE - 0x14000])),
        (Format::Avml, memory.avml()),
        (Format::Elf, memory.elf(62, &[(0, 0, 0x8000), (0, 0x8000, size - 0x8000)], "OSRELEASE=6.12.1\n")),
        (Format::Kdump, kdump(memory)),
    ]
}

/// Every read of a dump is right, or fails; how many bytes of it can be read, page by page.
fn readable(dump: &Dump<impl ReadAt>, memory: &Physical) -> usize {
    let mut page = [0; 4096];
    let pages = (0..SIZE).step_by(4096).filter(|at| {
        let read = dump.physical(*at as u64, &mut page);
        assert!(!read || page == memory.bytes[*at..][..4096], "{} {at:#x}", dump.format().name());
        read
    });
    pages.count() * 4096
}

#[test]
fn the_same_memory_out_of_every_format() {
    let memory = memory();
    for (format, file) in all(&memory) {
        let dump = Dump::open(file.as_slice()).unwrap();
        assert_eq!((dump.format(), dump.damage()), (format, &[][..]));
        let left_out = if format == Format::Kdump { 4096 } else { 0 };
        assert_eq!(readable(&dump, &memory), SIZE - left_out, "{format:?}");
        assert_eq!(dump.physical_end(), SIZE as u64, "{format:?}");
        let mut across = [0; 300];
        for at in [0x2ff0, 0x7fff, 0xffff, 0x13f80] {
            assert!(dump.physical(at, &mut across), "{format:?} {at:#x}");
            assert_eq!(across[..], memory.bytes[at as usize..][..300], "{format:?}");
        }
        assert!(!dump.physical(SIZE as u64 - 10, &mut across), "{format:?}: beyond the end");
        assert!(!dump.physical(u64::MAX - 10, &mut across), "{format:?}");
        let flat = flattened(&file, 5000);
        assert!(is_flattened(&flat) && !is_flattened(&file));
        let dump = Dump::open(Flattened::new(flat)).unwrap();
        assert_eq!(readable(&dump, &memory), SIZE - left_out, "{format:?}, flattened");
    }
}

#[test]
fn what_is_cut_off_is_named() {
    let memory = memory();
    for (format, file) in all(&memory) {
        let mut last = 0;
        for len in (0..file.len()).step_by(977) {
            let Ok(dump) = Dump::open(&file[..len]) else {
                assert!(len < 12 << 10, "{format:?} cut at {len:#x}");
                continue;
            };
            let now = readable(&dump, &memory);
            assert!(now >= last, "{format:?}: more of the file gives no less");
            if format != Format::Raw && now < last.max(1) + 4096 && len + 4096 < file.len() && now != 0 {
                assert!(!dump.damage().is_empty(), "{format:?} cut at {len:#x}");
            }
            last = now.max(last);
        }
        assert!(last > SIZE - 0x12000, "{format:?}: {last:#x}");
    }
}

#[test]
fn no_damage_breaks_anything() {
    let memory = memory();
    let mut seed = 1u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for (_, file) in all(&memory) {
        for _ in 0..300 {
            let mut bad = file.clone();
            for _ in 0..=random() % 4 {
                // Headers and tables lie at the beginning.
                let reach = if random() % 2 == 0 { bad.len() as u64 } else { 700 };
                let at = (random() % reach) as usize;
                bad[at] = random() as u8;
            }
            if let Ok(dump) = Dump::open(bad.as_slice()) {
                let mut out = [0; 64];
                for at in (0..SIZE as u64).step_by(0x7f00) {
                    dump.physical(at, &mut out);
                    dump.segment(at | 1 << 63, &mut out);
                }
                let dump = Arc::new(dump);
                for form in ARCHITECTURES.iter().flat_map(|arch| arch.page_tables()) {
                    let space = AddressSpace::of_tables(Arc::clone(&dump), form, random() % SIZE as u64);
                    space.mappings(form.lowest() | (random() % (1 << 30)), u64::MAX);
                    space.read(random() | form.lowest(), &mut out);
                }
            }
        }
    }
}

/// What entries of an architecture's tables have beside the address: of tables, of pages, of pages that are code.
fn bits_of(arch: &dyn Architecture) -> (u64, u64, u64) {
    if arch.machine().inline_static_calls {
        (0x67, 0x8000_0000_0000_0063, 0x61)
    } else {
        (3, 0x0068_0000_0000_0403, 0x0040_0000_0000_0483)
    }
}

#[test]
fn addresses_are_translated_by_every_form_of_page_tables() {
    for arch in ARCHITECTURES {
        let (table, data, code) = bits_of(*arch);
        for form in arch.page_tables() {
            let page = 1u64 << form.page_bits;
            let mut memory = Physical::new(64 * page as usize);
            let tables = Tables { page_bits: form.page_bits, index_bits: form.index_bits, table, page: 0 };
            let root = 2 * page;
            // Two pages that follow each other, one that follows with other permissions, and one far away.
            let base = u64::MAX - (1 << 30) + 1 - (4 * page);
            memory.map(tables, root, base, 8 * page, code);
            memory.map(tables, root, base + page, 9 * page, code);
            memory.map(tables, root, base + 2 * page, 10 * page, data);
            memory.map(tables, root, form.lowest(), 5 * page, data);
            for n in 4..12 {
                memory.put(n * page, &[n as u8; 64]);
                memory.put((n + 1) * page - 8, &[n as u8 | 0x80; 8]);
            }
            let dump = Arc::new(Dump::open(memory.bytes.as_slice()).unwrap());
            let space = AddressSpace::of_tables(dump, form, root);
            let mut out = [0; 16];
            assert!(space.read(base + page - 8, &mut out), "{}", form.title);
            assert_eq!(out, [[0x88; 8], [9; 8]].concat()[..], "{}", form.title);
            assert_eq!(space.u64(form.lowest()), Some(0x0505_0505_0505_0505), "{}", form.title);
            assert_eq!(space.physical(base + 2 * page + 3), Some(10 * page + 3), "{}", form.title);
            assert!(!space.read(base + 3 * page - 8, &mut out), "{}: what follows is not mapped", form.title);
            assert_eq!(space.u64(base & !(1 << 63)), None, "{}: no address of the kernel", form.title);
            let all = space.mappings(form.lowest(), u64::MAX);
            let shown: Vec<_> =
                all.iter().map(|m| (m.start, m.size, m.physical, m.write, m.execute)).collect();
            let want = [
                (form.lowest(), page, 5 * page, true, false),
                (base, 2 * page, 8 * page, false, true),
                (base + 2 * page, page, 10 * page, true, false),
            ];
            assert_eq!(shown, want, "{}", form.title);
            let part = space.mappings(base + page, base + 2 * page);
            assert_eq!((part.len(), part[0].start, part[0].size), (1, base + page, page), "{}", form.title);
        }
    }
}

#[test]
fn segments_have_virtual_addresses_of_their_own() {
    let memory = memory();
    let high = 0xffff_ffff_8100_0000;
    let file =
        memory.elf(62, &[(high, 0x4000, 0x3000), (0xffff_8880_0000_0000, 0, 0x10000)], "OSRELEASE=6.12.1\n");
    let dump = Arc::new(Dump::open(file).unwrap());
    assert_eq!(
        dump.vmcoreinfo().and_then(|info| info.release().map(str::to_owned)).as_deref(),
        Some("6.12.1")
    );
    assert_eq!(dump.e_machine(), Some(62));
    let space = AddressSpace::of_segments(Arc::clone(&dump));
    let mut out = [0; 32];
    assert!(space.read(high + 0x10, &mut out));
    assert_eq!(out[..], memory.bytes[0x4010..][..32]);
    assert!(!space.read(high + 0x2ff0, &mut out), "beyond the segment");
    assert!(dump.physical(0x8000, &mut out), "by its physical address");
    assert_eq!(space.mappings(high, u64::MAX).len(), 1);
}
