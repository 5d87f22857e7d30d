//! Dumps of memory: their formats, and the page tables in them.

use std::sync::Arc;

use memory_image::{AddressSpace, Dump, Flattened, ReadAt, is_flattened};
use reloc::ARCHITECTURES;

use super::{checksum, same_twice};

/// How much is walked at once: as much as any kernel has for modules.
const AREA: u64 = 1 << 30;

/// A dump in any format: what can be read of it.
pub fn dump(data: &[u8]) {
    same_twice(data, || match is_flattened(data) {
        true => Dump::open(Flattened::new(data)).map_or_else(|e| e.to_string(), |dump| read(&dump, data)),
        false => Dump::open(data).map_or_else(|e| e.to_string(), |dump| read(&dump, data)),
    });
}

fn read<R: ReadAt>(dump: &Dump<R>, data: &[u8]) -> String {
    let damage = dump.damage();
    assert!(damage.len() <= data.len() && damage.iter().all(|text| text.len() < 1000), "{damage:?}");
    if let Some(info) = dump.vmcoreinfo() {
        assert!(info.text().len() <= data.len() * 3);
        let _ = (info.release(), info.build_id(), info.kernel_offset(), info.symbol("init_top_pgt"));
    }
    let segments = dump.segments();
    for pair in segments.windows(2) {
        assert!(
            pair[0].start.saturating_add(pair[0].size) <= pair[1].start,
            "segments lie over each other: {pair:?}"
        );
    }
    let end = dump.physical_end();
    let mut byte = [0];
    assert!(end == u64::MAX || !dump.physical(end, &mut byte), "memory behind its end {end:#x}");
    let mut page = vec![0; 512];
    let (mut sum, chance) = (0u64, checksum(data));
    for n in 0..16 {
        let at = checksum(&[n]).wrapping_add(chance) % end.clamp(1, 1 << 40);
        if dump.physical(at, &mut page) {
            let mut part = [0; 16];
            assert!(dump.physical(at + 100, &mut part), "a part of what is there at {at:#x} is not");
            assert_eq!(part, page[100..116], "two reads of the same memory at {at:#x}");
            sum = sum.wrapping_add(checksum(&page));
        }
    }
    for segment in segments.iter().take(8) {
        for at in [segment.start, segment.start.saturating_add(segment.size / 2)] {
            let len = dump.segment(at, &mut page);
            assert!(len as u64 <= segment.size, "more than the segment holds");
            sum = sum.wrapping_add(checksum(&page[..len]));
        }
    }
    format!("{} {end:#x} {} {sum:#x}", dump.format().name(), damage.len())
}

/// Physical memory whose second page is the topmost page table, in every form that there is.
pub fn page_tables(data: &[u8]) {
    let Ok(dump) = Dump::open(data) else { return };
    let dump = Arc::new(dump);
    for form in ARCHITECTURES.iter().flat_map(|arch| arch.page_tables()) {
        let space = AddressSpace::of_tables(Arc::clone(&dump), form, 2 << form.page_bits);
        for from in [form.lowest(), form.base().max(form.lowest()), u64::MAX - AREA] {
            let to = from.saturating_add(AREA);
            let found = space.mappings(from, to);
            let mut end = from;
            for mapping in &found {
                assert!(
                    mapping.size != 0 && mapping.start >= end,
                    "{}: {mapping:x?} after {end:#x}",
                    form.title
                );
                end = mapping.end();
                assert!(end <= to, "{}: {mapping:x?}", form.title);
            }
            for mapping in found.iter().take(16) {
                assert_eq!(
                    space.physical(mapping.start),
                    Some(mapping.physical),
                    "{}: {mapping:x?}",
                    form.title
                );
                let (mut one, mut other) = ([0; 16], [0; 16]);
                let len = mapping.size.min(16) as usize;
                let by_address = space.read(mapping.start, &mut one[..len]);
                assert_eq!(by_address, dump.physical(mapping.physical, &mut other[..len]), "{mapping:x?}");
                assert!(!by_address || one == other, "{}: {mapping:x?}", form.title);
            }
        }
    }
}
