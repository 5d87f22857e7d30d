//! Kernel memory: what an image or a SPEC holds of it at link addresses, and pieces of a running kernel.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt::Debug;

use kernel_image::KernelImage;

use crate::exports::Exports;
use crate::kallsyms::KernelSymbols;

/// A piece of kernel memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Address of its first byte.
    pub address: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Piece {
    /// Fills `out` with what is at `address`; false if the piece does not hold all of it.
    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        let from = address.checked_sub(self.address).and_then(|at| usize::try_from(at).ok());
        let bytes = from.and_then(|from| self.bytes.get(from..)?.get(..out.len()));
        bytes.map(|bytes| out.copy_from_slice(bytes)).is_some()
    }

    /// Fills `out` with what is at `address`; false if none of the pieces holds all of it.
    pub fn read_any(pieces: &[Piece], address: u64, out: &mut [u8]) -> bool {
        pieces.iter().any(|piece| piece.read(address, out))
    }
}

/// The memory of a running kernel, or of a dump of one, by virtual address.
pub trait LiveMemory: Debug + Send + Sync {
    /// Fills `out` with what is at `address`; false if not all of it is there.
    fn read(&self, address: u64, out: &mut [u8]) -> bool;
}

/// Memory of a kernel that later stages read, and that a SPEC therefore has to keep of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// From one symbol up to another.
    Between(&'static str, &'static str),
    /// What a symbol names, up to the next one.
    Object(&'static str),
    /// What a symbol names, up to the next one, and so many bytes wherever a word of it leads.
    Pointed(&'static str, u64),
    /// So many bytes at each symbol whose name begins so.
    Prefix(&'static str, u64),
    /// So many bytes at each export that is no function.
    ExportedData(u64),
}

/// Kernel memory at link addresses.
#[derive(Clone, Debug, Default)]
pub enum LinkMemory {
    /// None is known.
    #[default]
    Unknown,
    /// All that an image holds.
    Image(Box<KernelImage<'static>>),
    /// Pieces that a SPEC kept, by address.
    Pieces(BTreeMap<u64, Vec<u8>>),
}

impl LinkMemory {
    /// Fills `out` with what is at a link address; false if not every byte of it is known.
    pub fn read(&self, address: u64, out: &mut [u8]) -> bool {
        match self {
            LinkMemory::Unknown => false,
            LinkMemory::Image(image) => {
                let bytes = image.read_relocated(address, out.len());
                bytes.map(|bytes| out.copy_from_slice(&bytes)).is_some()
            }
            LinkMemory::Pieces(pieces) => {
                let piece = pieces.range(..=address).next_back();
                let read = piece.map(|(start, bytes)| {
                    let from = usize::try_from(address.wrapping_sub(*start)).ok()?;
                    let end = from.checked_add(out.len())?;
                    out.copy_from_slice(bytes.get(from..end)?);
                    Some(())
                });
                read.flatten().is_some()
            }
        }
    }

    /// These parts of it: the pieces that a SPEC keeps of an image, joined where they touch.
    pub fn pieces(
        &self,
        parts: &[Part],
        symbols: &KernelSymbols,
        exports: &Exports,
    ) -> BTreeMap<u64, Vec<u8>> {
        let image = match self {
            LinkMemory::Unknown => return BTreeMap::new(),
            LinkMemory::Pieces(pieces) => return pieces.clone(),
            LinkMemory::Image(image) => image,
        };
        let len = |start: u64, end: u64| usize::try_from(end.checked_sub(start)?).ok();
        let parts = parts.iter().flat_map(|part| part_of(*part, image, symbols, exports));
        let in_image =
            |(start, end): &(u64, u64)| len(*start, *end).is_some_and(|n| image.read(*start, n).is_some());
        let mut extents: Vec<(u64, u64)> = parts.filter(in_image).collect();
        extents.sort_unstable();
        extents.dedup_by(|next, last| {
            let touches = next.0 <= last.1;
            if touches {
                last.1 = last.1.max(next.1);
            }
            touches
        });
        let read = |(start, end): (u64, u64)| {
            Some((start, image.read_relocated(start, len(start, end)?)?.into_owned()))
        };
        extents.into_iter().filter_map(read).collect()
    }
}

/// Start and end of all that belongs to a part.
fn part_of(
    part: Part,
    image: &KernelImage<'_>,
    symbols: &KernelSymbols,
    exports: &Exports,
) -> Vec<(u64, u64)> {
    /// No table that is read is larger.
    const LONGEST: u64 = 1 << 20;
    let sized = |at: u64, len: u64| (at, at.saturating_add(len));
    match part {
        Part::Between(start, stop) => {
            let ends = symbols.address(start).zip(symbols.address(stop));
            ends.filter(|(start, stop)| start < stop && stop.wrapping_sub(*start) <= LONGEST)
                .into_iter()
                .collect()
        }
        Part::Object(name) => {
            let Some(start) = symbols.address(name) else { return Vec::new() };
            let after = symbols.iter().map(|s| s.address).filter(|address| *address > start).min();
            let end = after.filter(|end| end.wrapping_sub(start) <= LONGEST);
            end.map(|end| (start, end)).into_iter().collect()
        }
        Part::Pointed(name, len) => {
            let mut found = part_of(Part::Object(name), image, symbols, exports);
            let words = found.first().and_then(|(start, end)| {
                image.read_relocated(*start, usize::try_from(end.checked_sub(*start)?).ok()?)
            });
            let words = words.as_deref().unwrap_or_default().as_chunks::<8>().0;
            let leads = words.iter().map(|word| u64::from_le_bytes(*word)).filter(|word| word >> 63 == 1);
            found.extend(leads.map(|at| sized(at, len)));
            found
        }
        Part::Prefix(prefix, len) => {
            let named = symbols.iter().filter(|s| s.name.starts_with(prefix.as_bytes()));
            named.map(|s| sized(s.address, len)).collect()
        }
        Part::ExportedData(len) => {
            let code = |kind: u8| matches!(kind, b't' | b'T' | b'w' | b'W');
            let functions: BTreeSet<u64> =
                symbols.iter().filter(|s| code(s.kind)).map(|s| s.address).collect();
            let data = exports.iter().filter_map(|e| e.address).filter(|at| !functions.contains(at));
            data.map(|at| sized(at, len)).collect()
        }
    }
}
