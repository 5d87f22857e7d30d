//! Which code of a module was executed, in the format of DynamoRIO's drcov, which tools of coverage read.

use std::path::Path;

use run::watch::Watch;

/// Bytes of one block at most: its size has 16 bits.
const BLOCK_MAX: u64 = 0xffff;

/// How much was executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// Blocks.
    pub blocks: usize,
    /// Bytes of code in them, each counted once.
    pub bytes: u64,
    /// Bytes of code that there are.
    pub of: u64,
}

/// The blocks of watched modules as a file of drcov, version 2, and how much that is. `file` is the module's path.
pub fn drcov(watch: &Watch, file: &Path) -> (Vec<u8>, Covered) {
    let (mut modules, mut blocks, mut covered) = (Vec::new(), Vec::new(), Covered::default());
    for loaded in watch.loaded.iter().filter(|loaded| loaded.watched) {
        let ends = loaded.at_first.iter().map(|region| region.start.saturating_add(region.size));
        let (base, end) = (loaded.at_first.iter().map(|region| region.start).min(), ends.max());
        let (Some(base), Some(end)) = (base, end) else { continue };
        let number = modules.len();
        modules.push(format!(
            "{number:3}, {base:#018x}, {end:#018x}, {:#018x}, {:#010x}, {:#010x}, {}\n",
            0,
            0,
            0,
            file.display()
        ));
        covered.of = loaded
            .at_first
            .iter()
            .filter(|region| region.code)
            .fold(covered.of, |all, region| all.saturating_add(region.size));
        let mut behind = 0;
        for (start, (size, _)) in &loaded.covered {
            let stop = start.saturating_add(*size);
            covered.bytes = covered.bytes.saturating_add(stop.saturating_sub(behind.max(*start)));
            behind = stop.max(behind);
            let (offset, size) = (start.wrapping_sub(base) as u32, (*size).min(BLOCK_MAX) as u16);
            blocks.extend(offset.to_le_bytes());
            blocks.extend(size.to_le_bytes());
            blocks.extend((number as u16).to_le_bytes());
            covered.blocks = covered.blocks.saturating_add(1);
        }
    }
    let mut out = format!(
        "DRCOV VERSION: 2\nDRCOV FLAVOR: drcov\nModule Table: version 2, count {}\nColumns: id, base, end, entry, checksum, timestamp, path\n",
        modules.len()
    );
    modules.iter().for_each(|module| out.push_str(module));
    out.push_str(&format!("BB Table: {} bbs\n", covered.blocks));
    let mut out = out.into_bytes();
    out.extend(blocks);
    (out, covered)
}

#[cfg(test)]
mod tests {
    use run::watch::{Loaded, Region, Wanted};

    use super::*;

    #[test]
    fn blocks_are_told_by_offsets_in_the_module() {
        let region = |start, code| Region { start, size: 0x100, code, init: false, number: 0 };
        let mut loaded = Loaded { name: "m".into(), watched: true, ..Loaded::default() };
        loaded.at_first = vec![region(0x2000, true), region(0x1000, false)];
        loaded.covered.insert(0x2010, (4, 9));
        loaded.covered.insert(0x2012, (6, 1));
        let mut watch = Watch::new(vec!["m".into()], Wanted::default(), 0);
        watch.loaded = vec![Loaded { watched: false, ..loaded.clone() }, loaded];
        let (bytes, covered) = drcov(&watch, Path::new("/m.ko"));
        assert_eq!(covered, Covered { blocks: 2, bytes: 8, of: 0x100 });
        let table = bytes.len() - 16;
        let text = String::from_utf8_lossy(&bytes[..table]);
        assert!(
            text.contains("count 1\n") && text.contains("  0, 0x0000000000001000, 0x0000000000002100, "),
            "{text}"
        );
        assert!(text.ends_with("/m.ko\nBB Table: 2 bbs\n"), "{text}");
        assert_eq!(bytes[table..], [0x10, 0x10, 0, 0, 4, 0, 0, 0, 0x12, 0x10, 0, 0, 6, 0, 0, 0]);
    }
}
