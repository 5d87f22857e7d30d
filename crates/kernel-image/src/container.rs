//! Containers around a kernel: recognised by their magic, opened from the outermost to the innermost (IMG-1 to IMG-7).

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

use crate::arch::of_flat_image;
use crate::bytes::{le16, size32, slice};
use crate::{Compression, DecompressError, Error, ImageArch};

/// One shell around a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Container {
    /// A bzImage (IMG-1).
    BzImage,
    /// An EFI zboot application (IMG-5).
    Zboot,
    /// A compressed file or payload (IMG-2, IMG-6).
    Compressed(Compression),
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Container::BzImage => f.write_str("bzImage"),
            Container::Zboot => f.write_str("EFI zboot"),
            Container::Compressed(compression) => compression.fmt(f),
        }
    }
}

/// A decompressor: compression, compressed bytes, and the most bytes that may
/// come out. What follows the end of the stream is to be ignored: a bzImage
/// payload ends with its uncompressed size (IMG-2).
pub type Decompressor<'f> = dyn FnMut(Compression, &[u8], usize) -> Result<Vec<u8>, DecompressError> + 'f;

/// The most containers in each other: a compressed bzImage with a compressed payload has three.
const DEPTH: usize = 4;

/// What is in the containers, and which they were, outermost first.
pub(crate) struct Unwrapped<'d> {
    pub(crate) data: Cow<'d, [u8]>,
    pub(crate) containers: Vec<Container>,
}

/// Opens containers until an ELF or a flat image of an architecture in `known` is left.
pub(crate) fn unwrap<'d>(
    file: &'d [u8],
    limit: usize,
    known: &[&'static dyn ImageArch],
    decompress: &mut Decompressor<'_>,
) -> Result<Unwrapped<'d>, Error> {
    let mut data = Cow::Borrowed(file);
    let mut containers = Vec::new();
    loop {
        if is_kernel(&data, known) {
            return Ok(Unwrapped { data, containers });
        }
        if containers.len() >= DEPTH {
            return Err(Error::TooDeep(DEPTH));
        }
        let (payload, compression) = if is_bzimage(&data) {
            containers.push(Container::BzImage);
            compressed("bzImage", bzimage_payload(&data)?, known)?
        } else if is_zboot(&data) {
            containers.push(Container::Zboot);
            compressed("EFI zboot", zboot_payload(&data)?, known)?
        } else if let Some(compression) = Compression::of(&data) {
            (&*data, Some(compression))
        } else {
            let flat = known.iter().filter_map(|arch| Some(arch.flat_format()?.title)).collect();
            return Err(Error::Unrecognised { start: first_bytes(&data), flat });
        };
        data = match compression {
            Some(compression) => {
                containers.push(Container::Compressed(compression));
                let unpacked = decompress(compression, payload, limit);
                Cow::Owned(unpacked.map_err(|reason| Error::Decompress { compression, reason })?)
            }
            None => Cow::Owned(payload.to_vec()),
        };
    }
}

pub(crate) fn is_elf(data: &[u8]) -> bool {
    data.starts_with(b"\x7fELF")
}

/// No container, but a kernel.
fn is_kernel(data: &[u8], known: &[&'static dyn ImageArch]) -> bool {
    is_elf(data) || of_flat_image(known, data).is_some()
}

fn is_bzimage(data: &[u8]) -> bool {
    slice(data, 0x202, 4) == Some(b"HdrS")
}

fn is_zboot(data: &[u8]) -> bool {
    data.starts_with(b"MZ") && slice(data, 4, 4) == Some(b"zimg")
}

fn first_bytes(data: &[u8]) -> [u8; 8] {
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(data) {
        *to = *from;
    }
    first
}

/// Where a payload lies and what it is made of; a kernel may lie there uncompressed.
fn compressed<'d>(
    what: &'static str,
    (at, payload): (usize, &'d [u8]),
    known: &[&'static dyn ImageArch],
) -> Result<(&'d [u8], Option<Compression>), Error> {
    match Compression::of(payload) {
        Some(compression) => Ok((payload, Some(compression))),
        None if is_kernel(payload, known) => Ok((payload, None)),
        None => Err(Error::UnknownPayload { what, at: at as u64, magic: first_bytes(payload) }),
    }
}

/// IMG-1: behind the real-mode code, at payload_offset.
fn bzimage_payload(data: &[u8]) -> Result<(usize, &[u8]), Error> {
    const WHAT: &str = "bzImage";
    let cut = |need: usize| Error::Truncated { what: WHAT, need: need as u64, have: data.len() as u64 };
    let version = le16(data, 0x206).ok_or(cut(0x208))?;
    if version < 0x0208 {
        return Err(Error::OldBootProtocol(version));
    }
    let setup_sects = match data.get(0x1f1) {
        Some(0) | None => 4usize,
        Some(n) => usize::from(*n),
    };
    let (Some(offset), Some(len)) = (size32(data, 0x248), size32(data, 0x24c)) else {
        return Err(cut(0x250));
    };
    let at = setup_sects.saturating_add(1).saturating_mul(512).saturating_add(offset);
    slice(data, at, len).map(|payload| (at, payload)).ok_or(cut(at.saturating_add(len)))
}

/// IMG-5: offset and size stand behind the magic.
fn zboot_payload(data: &[u8]) -> Result<(usize, &[u8]), Error> {
    let cut =
        |need: usize| Error::Truncated { what: "EFI zboot", need: need as u64, have: data.len() as u64 };
    let (Some(at), Some(len)) = (size32(data, 8), size32(data, 12)) else {
        return Err(cut(16));
    };
    slice(data, at, len).map(|payload| (at, payload)).ok_or(cut(at.saturating_add(len)))
}
