//! Reading files, compressed ones by their magic (DEC-7).

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Deref;
use std::path::Path;

use liblzma::stream::{Action, Status, Stream};
use memmap2::MmapMut;

use crate::error::Error;
use crate::image::{KEPT_MAX, map_again};
use crate::mapped::Mapped;

/// The kernel takes no module file larger than INT_MAX (VAL-4).
const FILE_MAX: u64 = i32::MAX as u64;

/// Files from this size in bytes on are mapped, where nobody can change them meanwhile: a copy would need memory that is
/// not there yet. To read smaller ones into memory that is used again costs less.
const MAPPED_MIN: usize = 1 << 20;

/// The bytes of a file, or what came out of a compressed one.
#[derive(Debug)]
pub struct Bytes(Buffers, Where);

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.content(self.1)
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Reads a file whole.
pub fn read(path: &Path) -> Result<Bytes, Error> {
    let mut buffers = Buffers::default();
    let content = buffers.read(path)?;
    Ok(Bytes(buffers, content))
}

/// Reads a file, and decompresses it if it begins as gzip, xz or zstd does.
pub fn read_decompressed(path: &Path) -> Result<Bytes, Error> {
    let mut buffers = Buffers::default();
    let content = buffers.fill(path)?;
    Ok(Bytes(buffers, content))
}

/// Memory that one file after another is read into.
#[derive(Debug, Default)]
pub struct Buffers {
    /// Large enough for the file; what is behind its end is of files before.
    file: Option<MmapMut>,
    /// A large file, until the next.
    mapped: Option<Mapped>,
    /// What tells its size only by being read.
    piped: Vec<u8>,
    /// What comes out of a compressed file.
    out: Vec<u8>,
}

/// Where the content of a file is.
#[derive(Clone, Copy, Debug)]
enum Where {
    /// So many bytes at the beginning of `file`.
    File(usize),
    Mapped,
    Piped,
    Out,
}

/// Room for decompressed bytes grows by at least this many.
const GROWTH: usize = 1 << 18;

impl Buffers {
    /// As [`read_decompressed`], into memory that is used again.
    pub fn read_decompressed(&mut self, path: &Path) -> Result<&[u8], Error> {
        for buffer in [&mut self.piped, &mut self.out] {
            if buffer.capacity() > KEPT_MAX {
                *buffer = Vec::new();
            }
        }
        let content = self.fill(path)?;
        Ok(self.content(content))
    }

    fn content(&self, content: Where) -> &[u8] {
        match content {
            Where::File(len) => self.file.as_deref().and_then(|file| file.get(..len)).unwrap_or_default(),
            Where::Mapped => self.mapped.as_deref().unwrap_or_default(),
            Where::Piped => &self.piped,
            Where::Out => &self.out,
        }
    }

    fn fill(&mut self, path: &Path) -> Result<Where, Error> {
        let file = self.read(path)?;
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let packed = decompress(self.content(file), &mut out, FILE_MAX);
        self.out = out;
        if packed.map_err(|(format, why)| Error::Decompress { path: path.into(), format, why })? {
            // Nobody needs to wait for what is not looked at any more.
            self.mapped = None;
            return Ok(Where::Out);
        }
        Ok(file)
    }

    fn read(&mut self, path: &Path) -> Result<Where, Error> {
        let failed = |e| Error::read(path, e);
        let mut file = File::open(path).map_err(failed)?;
        let too_large = || Error::unusable(path, "larger than 2 GiB, the kernel's limit for a module file");
        let metadata = file.metadata().map_err(failed)?;
        // What is no plain file tells its size only by being read; nor do files of /proc.
        let size = if metadata.is_file() { metadata.len() } else { 0 };
        let size = usize::try_from(size).ok().filter(|s| *s as u64 <= FILE_MAX).ok_or_else(too_large)?;
        self.mapped = None;
        if size >= MAPPED_MIN {
            match Mapped::new(file) {
                Ok(mapped) if mapped.len() as u64 > FILE_MAX => return Err(too_large()),
                Ok(mapped) => {
                    self.mapped = Some(mapped);
                    return Ok(Where::Mapped);
                }
                Err(unmapped) => file = unmapped,
            }
        }
        // What comes behind the size that a file had is not read, nor does the kernel (kernel_read_file).
        let end = size.max(1);
        let (mut room, _) = map_again(self.file.take(), end).map_err(failed)?;
        let mut len = 0usize;
        while let Some(rest) = room.get_mut(len..end).filter(|rest| !rest.is_empty()) {
            match file.read(rest) {
                Ok(0) => break,
                Ok(read) => len = len.saturating_add(read),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        if len <= size {
            self.file = Some(room);
            return Ok(Where::File(len));
        }
        self.piped.clear();
        self.piped.extend(room.get(..len).unwrap_or_default());
        self.file = Some(room);
        let left = FILE_MAX.saturating_add(1).saturating_sub(len as u64);
        (&mut file).take(left).read_to_end(&mut self.piped).map_err(failed)?;
        if self.piped.len() as u64 > FILE_MAX { Err(too_large()) } else { Ok(Where::Piped) }
    }
}

/// What a decoder may need beside its output: the dictionary of an xz stream is as large as its header claims.
/// zstd's has a limit of its own, 128 MiB.
const DICTIONARY_MAX: u64 = 256 << 20;

/// Decompresses what begins as gzip, xz or zstd does, `limit` bytes at most; false if it is none of them. The error
/// is the format, and why.
pub fn decompress(file: &[u8], out: &mut Vec<u8>, limit: u64) -> Result<bool, (&'static str, String)> {
    let (format, result) = match file {
        [0x1f, 0x8b, 8, ..] => ("gzip", read_limited(flate2::read::MultiGzDecoder::new(file), out, limit)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => ("xz", unxz(file, out, limit)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = zstd::stream::read::Decoder::with_buffer(file);
            let decoder = decoder.map_err(|e| e.to_string());
            ("zstd", decoder.and_then(|decoder| read_limited(decoder, out, limit)))
        }
        _ => return Ok(false),
    };
    let too_large = || format!("more than {limit} bytes come out of it");
    let result = result.and_then(|()| if out.len() as u64 > limit { Err(too_large()) } else { Ok(()) });
    result.map(|()| true).map_err(|why| (format, why))
}

/// Reads up to one byte more than the limit.
fn read_limited(decoder: impl Read, out: &mut Vec<u8>, limit: u64) -> Result<(), String> {
    decoder.take(limit.saturating_add(1)).read_to_end(out).map(drop).map_err(|e| e.to_string())
}

/// Decodes one .xz stream, straight into the spare room of `out`; up to the limit and what fits beside.
fn unxz(file: &[u8], out: &mut Vec<u8>, limit: u64) -> Result<(), String> {
    let mut stream = Stream::new_stream_decoder(DICTIONARY_MAX, 0).map_err(|e| e.to_string())?;
    loop {
        if out.len() == out.capacity() {
            out.try_reserve(out.len().max(GROWTH)).map_err(|e| e.to_string())?;
        }
        let done = usize::try_from(stream.total_in()).unwrap_or(usize::MAX);
        let rest = file.get(done..).unwrap_or(&[]);
        match stream.process_vec(rest, out, Action::Finish) {
            Ok(Status::StreamEnd) => return Ok(()),
            Ok(_) if out.len() as u64 > limit => return Ok(()),
            // Room is left, so what is missing is input.
            Ok(_) if out.len() < out.capacity() => return Err(String::from("the file ends too early")),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn dec_7_compressed_by_magic_not_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("module.ko");
        let content = b"\x7fELF and more".repeat(99);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&content).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
        xz.write_all(&content).unwrap();
        let zstd = zstd::stream::encode_all(&*content, 1).unwrap();
        for (format, packed) in
            [("gzip", gzip.finish().unwrap()), ("xz", xz.finish().unwrap()), ("zstd", zstd)]
        {
            std::fs::write(&path, &packed).unwrap();
            assert_eq!(*read_decompressed(&path).unwrap(), content, "DEC-7: {format}");
            std::fs::write(&path, &packed[..packed.len() / 2]).unwrap();
            let error = read_decompressed(&path).unwrap_err().to_string();
            assert!(error.contains(format) && error.contains("module.ko"), "truncated {format}: {error}");
        }
        std::fs::write(&path, &content).unwrap();
        assert_eq!(*read_decompressed(&path).unwrap(), content);
        assert!(read_decompressed(dir.path()).unwrap_err().to_string().contains("cannot read"));
    }

    /// A header of a few bytes may not make the decoder allocate gigabytes.
    #[test]
    fn an_xz_dictionary_is_bounded() {
        let mut xz = liblzma::encode_all(&b"a module"[..], 6).unwrap();
        // Block header at 12: size, flags, then the filter LZMA2, one byte of properties: the dictionary's size.
        assert_eq!(xz[12..16], [2, 0, 0x21, 1]);
        for (dictionary, fits) in [(30, true), (31, true), (32, false), (40, false)] {
            xz[16] = dictionary;
            let mut crc = flate2::Crc::new();
            crc.update(&xz[12..20]);
            xz[20..24].copy_from_slice(&crc.sum().to_le_bytes());
            let read = decompress(&xz, &mut Vec::new(), 1 << 20);
            assert_eq!(read.is_ok(), fits, "dictionary {dictionary}: {read:?}");
        }
    }

    #[test]
    fn a_bomb_is_cut_off() {
        let zeros = vec![0; 1 << 20];
        let bombs = [zstd::stream::encode_all(&*zeros, 1).unwrap(), liblzma::encode_all(&*zeros, 1).unwrap()];
        for bomb in bombs {
            let mut out = Vec::new();
            assert_eq!((decompress(&bomb, &mut out, 1 << 20), out.len()), (Ok(true), 1 << 20));
            let (_, why) = decompress(&bomb, &mut Vec::new(), (1 << 20) - 1).unwrap_err();
            assert!(why.contains("more than 1048575 bytes"), "{why}");
        }
    }
}
