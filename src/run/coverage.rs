//! Which code of a module was executed, in the format of DynamoRIO's drcov, which tools of coverage read.

use std::path::Path;

use run::watch::{Loaded, Watch};
use serde::Serialize;

/// Bytes of one block at most: its size has 16 bits.
const BLOCK_MAX: u64 = 0xffff;

/// How much code was executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct CoverageEntry {
    /// Blocks of instructions that are executed one after the other.
    pub blocks: usize,
    /// Bytes of code in them, each counted once.
    pub bytes: u64,
    /// Bytes of code that the module has, rounded up to pages.
    pub of: u64,
}

impl CoverageEntry {
    /// Of the watched modules.
    pub fn of(watch: &Watch) -> Self {
        let mut covered = CoverageEntry::default();
        for (loaded, _) in watched(watch) {
            let code = loaded.at_first.iter().filter(|region| region.code);
            covered.of = code.fold(covered.of, |all, region| all.saturating_add(region.size));
            covered.blocks = covered.blocks.saturating_add(loaded.covered.len());
            let mut behind = 0;
            for (start, (size, _)) in &loaded.covered {
                let stop = start.saturating_add(*size);
                covered.bytes = covered.bytes.saturating_add(stop.saturating_sub(behind.max(*start)));
                behind = stop.max(behind);
            }
        }
        covered
    }
}

/// The modules that are watched and lie somewhere, with where: from and up to.
fn watched(watch: &Watch) -> impl Iterator<Item = (&Loaded, (u64, u64))> {
    watch.loaded.iter().filter(|loaded| loaded.watched).filter_map(|loaded| {
        let ends = loaded.at_first.iter().map(|region| region.start.saturating_add(region.size));
        Some((loaded, (loaded.at_first.iter().map(|region| region.start).min()?, ends.max()?)))
    })
}

/// The blocks of watched modules as a file of drcov, version 2. `file` is the module's path.
pub fn drcov(watch: &Watch, file: &Path) -> Vec<u8> {
    let (mut modules, mut blocks, mut count) = (String::new(), Vec::new(), 0usize);
    for (number, (loaded, (base, end))) in watched(watch).enumerate() {
        modules.push_str(&format!(
            "{number:3}, {base:#018x}, {end:#018x}, {:#018x}, {:#010x}, {:#010x}, {}\n",
            0,
            0,
            0,
            file.display()
        ));
        for (start, (size, _)) in &loaded.covered {
            let (offset, size) = (start.wrapping_sub(base) as u32, (*size).min(BLOCK_MAX) as u16);
            blocks.extend(offset.to_le_bytes());
            blocks.extend(size.to_le_bytes());
            blocks.extend((number as u16).to_le_bytes());
            count = count.saturating_add(1);
        }
    }
    let mut out = format!(
        "DRCOV VERSION: 2\nDRCOV FLAVOR: drcov\nModule Table: version 2, count {}\nColumns: id, base, end, entry, checksum, timestamp, path\n{modules}BB Table: {count} bbs\n",
        watched(watch).count()
    )
    .into_bytes();
    out.extend(blocks);
    out
}

#[cfg(test)]
mod tests {
    use run::watch::{Region, Wanted};

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
        let (bytes, covered) = (drcov(&watch, Path::new("/m.ko")), CoverageEntry::of(&watch));
        assert_eq!(covered, CoverageEntry { blocks: 2, bytes: 8, of: 0x100 });
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
