//! How a payload is compressed (IMG-2).

use core::fmt;

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
    /// zlib, as sections of ELF files are compressed; no kernel is.
    Zlib,
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
            Compression::Zlib => "zlib",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
