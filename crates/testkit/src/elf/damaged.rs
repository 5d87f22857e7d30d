//! Where things lie in an ELF64 file that may be damaged: nothing here panics.

use std::ops::Range;

use super::{NOBITS, Sh};

/// Byte offset and width of the fields of a section header.
pub const SHDR: [(usize, usize); 10] = [
    Sh::Name.place(),
    Sh::Type.place(),
    Sh::Flags.place(),
    Sh::Addr.place(),
    Sh::Offset.place(),
    Sh::Size.place(),
    Sh::Link.place(),
    Sh::Info.place(),
    Sh::Align.place(),
    Sh::Entsize.place(),
];
/// The same of the ELF header, those that are read.
pub const EHDR: [(usize, usize); 8] = [(4, 1), (5, 1), (16, 2), (18, 2), (40, 8), (58, 2), (60, 2), (62, 2)];

/// A little-endian number of `width` bytes; `None` beyond the end.
pub fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// Writes a little-endian number, as far as there is room.
pub fn put(bytes: &mut [u8], at: usize, width: usize, value: u64) {
    if let Some(room) = at.checked_add(width).and_then(|end| bytes.get_mut(at..end)) {
        room.copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// One section.
#[derive(Clone, Debug)]
pub struct Section {
    /// File offset of its header.
    pub header: usize,
    /// Its name.
    pub name: Vec<u8>,
    /// SHT_*
    pub kind: u32,
    /// Its bytes in the file; empty if it has none there.
    pub bytes: Range<usize>,
}

/// The sections that a file's header table names, those that can be read.
pub fn sections(file: &[u8]) -> Vec<Section> {
    let table = || {
        let (at, count) = (number(file, 40, 8)?, number(file, 60, 2)?);
        Some((usize::try_from(at).ok()?, usize::try_from(count).ok()?, number(file, 62, 2)?))
    };
    let Some((at, count, names)) = table() else { return Vec::new() };
    let field = |index: usize, field: Sh| {
        let (offset, width) = field.place();
        number(file, at.checked_add(64 * index)?.checked_add(offset)?, width)
    };
    let names =
        usize::try_from(names).ok().and_then(|n| usize::try_from(field(n, Sh::Offset)?).ok()).unwrap_or(0);
    let section = |index| {
        let kind = u32::try_from(field(index, Sh::Type)?).ok()?;
        let (start, size) = (
            usize::try_from(field(index, Sh::Offset)?).ok()?,
            usize::try_from(field(index, Sh::Size)?).ok()?,
        );
        let size = if kind == NOBITS { 0 } else { size };
        let bytes = start..start.checked_add(size)?;
        let name = names.checked_add(usize::try_from(field(index, Sh::Name)?).ok()?)?;
        let name = file.get(name..).unwrap_or_default();
        Some(Section {
            header: at + 64 * index,
            name: name.split(|b| *b == 0).next().unwrap_or_default().to_vec(),
            kind,
            bytes: if bytes.end <= file.len() { bytes } else { 0..0 },
        })
    };
    (0..count).filter_map(section).collect()
}
