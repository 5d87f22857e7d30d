//! Containers around a kernel, told by magic and opened one in another (IMG-1 to IMG-7).

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

use crate::bytes::{array, le16, size32, slice};
use crate::{DecompressError, Error};

/// How a payload is compressed (IMG-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// The old `.lzma` format.
    Lzma,
    /// xz.
    Xz,
    /// lzop's format around LZO1X.
    Lzo,
    /// LZ4 in its legacy frame, the one that kernel builds use.
    Lz4,
    /// LZ4 in its current frame, as `lz4` writes it.
    Lz4Frame,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// What the first bytes say.
    pub fn of(bytes: &[u8]) -> Option<Compression> {
        const MAGIC: [(&[u8], Compression); 8] = [
            (b"\x1f\x8b\x08", Compression::Gzip),
            (b"BZh", Compression::Bzip2),
            (b"\x5d\0\0", Compression::Lzma),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"\x89LZO\0\r\n\x1a\n", Compression::Lzo),
            (b"\x02!L\x18", Compression::Lz4),
            (b"\x04\x22M\x18", Compression::Lz4Frame),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
        ];
        MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, kind)| *kind)
    }

    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Bzip2 => "bzip2",
            Compression::Lzma => "lzma",
            Compression::Xz => "xz",
            Compression::Lzo => "lzo",
            Compression::Lz4 | Compression::Lz4Frame => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One shell around a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Container {
    /// x86's bzImage (IMG-1).
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

/// Opens containers until an ELF or an arm64 Image is left.
pub(crate) fn unwrap<'d>(
    file: &'d [u8],
    limit: usize,
    decompress: &mut Decompressor<'_>,
) -> Result<Unwrapped<'d>, Error> {
    let mut data = Cow::Borrowed(file);
    let mut containers = Vec::new();
    loop {
        if is_elf(&data) || is_arm64_image(&data) {
            return Ok(Unwrapped { data, containers });
        }
        if containers.len() >= DEPTH {
            return Err(Error::TooDeep(DEPTH));
        }
        let (payload, compression) = if is_bzimage(&data) {
            containers.push(Container::BzImage);
            compressed("bzImage", bzimage_payload(&data)?)?
        } else if is_zboot(&data) {
            containers.push(Container::Zboot);
            compressed("EFI zboot", zboot_payload(&data)?)?
        } else if let Some(compression) = Compression::of(&data) {
            (&*data, Some(compression))
        } else {
            return Err(Error::Unrecognised(first_bytes(&data)));
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

/// IMG-4.
pub(crate) fn is_arm64_image(data: &[u8]) -> bool {
    slice(data, 0x38, 4) == Some(b"ARMd")
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

/// Where a payload lies and what it is made of; an ELF may lie there uncompressed.
fn compressed<'d>(
    what: &'static str,
    (at, payload): (usize, &'d [u8]),
) -> Result<(&'d [u8], Option<Compression>), Error> {
    match Compression::of(payload) {
        Some(compression) => Ok((payload, Some(compression))),
        None if is_elf(payload) || is_arm64_image(payload) => Ok((payload, None)),
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

/// The header of an arm64 Image (IMG-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arm64Header {
    pub(crate) text_offset: u64,
    pub(crate) flags: u64,
}

impl Arm64Header {
    pub(crate) fn parse(data: &[u8]) -> Option<Arm64Header> {
        let word = |at| array(data, at).map(u64::from_le_bytes);
        is_arm64_image(data).then_some(())?;
        Some(Arm64Header { text_offset: word(8)?, flags: word(0x18)? })
    }

    pub(crate) fn big_endian(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Page size, if the header says it (bits 1 and 2 of the flags).
    pub(crate) fn page_size(&self) -> Option<u32> {
        match (self.flags >> 1) & 3 {
            1 => Some(0x1000),
            2 => Some(0x4000),
            3 => Some(0x1_0000),
            _ => None,
        }
    }
}
