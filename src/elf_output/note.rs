//! What made the file: a build id of its own, as the module's is that of the file before linking, and a note in words.

use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};

use elf_layout::Segment;
use elf_layout::bytes::printed;
use foldhash::quality::FixedState;
use object::elf;

use super::{Content, Section};
use crate::load::Load;

/// Its section.
pub(super) const SECTION: &[u8] = b".note.kmodld";
/// Alignment of notes.
pub(super) const ALIGN: u64 = 4;
/// The type of the note in words, under the name `kmodld`.
const IN_WORDS: u32 = 1;

/// Both notes.
pub(super) fn note(load: &Load<'_>, regions: &[Segment], sections: &[Section<'_>]) -> Vec<u8> {
    let words = words(load, regions);
    let id = build_id(load, regions, sections, &words);
    let mut out = Vec::new();
    push(&mut out, b"GNU\0", elf::NT_GNU_BUILD_ID.0, &id);
    push(&mut out, b"kmodld\0", IN_WORDS, words.as_bytes());
    out
}

/// One record: the sizes, the type, name and bytes, each padded.
fn push(out: &mut Vec<u8>, name: &[u8], kind: u32, bytes: &[u8]) {
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes();
    out.extend([size(name), size(bytes), kind.to_le_bytes()].concat());
    for part in [name, bytes] {
        out.extend(part);
        out.resize(out.len().next_multiple_of(ALIGN as usize), 0);
    }
}

/// Lines of `name: value`: the module, the kernel, the stage, where it lies.
fn words(load: &Load<'_>, regions: &[Segment]) -> String {
    let (module, kernel) = (&load.module, load.kernel);
    let mut out = format!(
        "made by: kmodld {}\nmodule: {}\nkernel: {}\n",
        env!("CARGO_PKG_VERSION"),
        module.info.file.name_text(),
        printed(kernel.release.as_bytes())
    );
    // Writing to a String does not fail.
    if let Some(banner) = &kernel.banner {
        let _ = writeln!(out, "banner: {}", printed(banner.trim_end().as_bytes()));
    }
    let _ = writeln!(out, "stage: {}", load.stage.name());
    for Segment { region, base, size, .. } in regions {
        let _ = writeln!(out, "{}: {base:#x} {size:#x}", region.name());
    }
    if let Some(percpu) = module.placement.percpu {
        let _ = writeln!(out, "percpu: {percpu:#x}");
    }
    out
}

/// A hash of all that the file holds, as linkers make their fast ones: two files have the same one only if they are the same.
fn build_id(load: &Load<'_>, regions: &[Segment], sections: &[Section<'_>], words: &str) -> [u8; 16] {
    let half = |seed| {
        let mut hash = FixedState::with_seed(seed).build_hasher();
        hash.write(words.as_bytes());
        regions.iter().for_each(|region| hash.write(load.module.memory.region(region.region)));
        for section in sections {
            hash.write(&section.name);
            let numbers = [section.flags, section.addr, section.size];
            numbers.into_iter().for_each(|number| hash.write_u64(number));
            if let Content::Bytes(bytes) = &section.content {
                hash.write(bytes);
            }
        }
        hash.finish().to_le_bytes()
    };
    let mut id = [0; 16];
    id.iter_mut().zip([half(0), half(1)].concat()).for_each(|(to, from)| *to = from);
    id
}
