//! Reading files, compressed ones by their magic (DEC-7).

use std::borrow::Cow;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Deref;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use kernel_image::{FileError, Packed, decompress_file};
use memmap2::MmapMut;

use crate::error::Error;
use crate::image::{KEPT_MAX, map_again};
use crate::mapped::Mapped;

/// The kernel takes no module file larger than INT_MAX (VAL-4).
pub(crate) const FILE_MAX: u64 = i32::MAX as u64;

/// Files from this size in bytes on are mapped, where nobody can change them meanwhile: a copy would need memory that is
/// not there yet. To read smaller ones into memory that is used again costs less.
const MAPPED_MIN: usize = 1 << 20;

/// What stands for stdin, or stdout, instead of a file's name.
pub const STDIN: &str = "-";

/// All of stdin, which can be read once only.
fn stdin(into: &mut Vec<u8>) -> std::io::Result<()> {
    static ALL: Mutex<Option<Vec<u8>>> = Mutex::new(None);
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = match &mut *all {
        Some(bytes) => bytes,
        empty => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().take(FILE_MAX).read_to_end(&mut bytes)?;
            empty.insert(bytes)
        }
    };
    into.clear();
    into.extend_from_slice(bytes);
    Ok(())
}

/// The bytes of a file, or what came out of a compressed one.
#[derive(Debug)]
pub struct Bytes(Buffers, Where);

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.content(self.1)
    }
}

impl Bytes {
    /// How the file is compressed; `None` if it is not.
    pub fn packed(&self) -> Option<&Packed> {
        self.0.packed.as_ref()
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

/// What comes out of the bytes of a file at `path`, as [`read_decompressed`] gives it.
pub fn decompressed<'b>(path: &Path, bytes: &'b [u8]) -> Result<Cow<'b, [u8]>, Error> {
    let mut out = Vec::new();
    let is_packed = decompress_file(bytes, &mut out, FILE_MAX).map_err(|e| failed_to_unpack(path, e))?;
    Ok(if is_packed { Cow::Owned(out) } else { Cow::Borrowed(bytes) })
}

fn failed_to_unpack(path: &Path, e: FileError) -> Error {
    Error::Decompress { path: path.into(), format: e.compression.name(), why: e.why }
}

/// Memory that one file after another is read into.
#[derive(Debug, Default)]
pub struct Buffers {
    /// Large enough for the file; what is behind its end is of files before.
    file: Option<MmapMut>,
    /// A large file, until the next.
    mapped: Option<Mapped>,
    /// Bytes of a file whose size is not known before it is read, such as a pipe.
    piped: Vec<u8>,
    /// What comes out of a compressed file.
    out: Vec<u8>,
    /// How the file that was read last is compressed.
    packed: Option<Packed>,
    /// Where the content of the file is that was read last.
    last: Where,
}

/// Where the content of a file is.
#[derive(Clone, Copy, Debug, Default)]
enum Where {
    /// So many bytes at the beginning of `file`.
    File(usize),
    Mapped,
    #[default]
    Piped,
    Out,
}

impl Buffers {
    /// As [`read_decompressed`], into memory that is used again.
    pub fn read_decompressed(&mut self, path: &Path) -> Result<&[u8], Error> {
        for buffer in [&mut self.piped, &mut self.out] {
            if buffer.capacity() > KEPT_MAX {
                *buffer = Vec::new();
            }
        }
        self.last = self.fill(path)?;
        Ok(self.content(self.last))
    }

    /// As [`Buffers::read_decompressed`], with how the file is compressed.
    pub fn read_packed(&mut self, path: &Path) -> Result<(&[u8], Option<Packed>), Error> {
        self.read_decompressed(path)?;
        let packed = self.packed.clone();
        Ok((self.content(self.last), packed))
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
        self.packed = None;
        let file = self.read(path)?;
        self.packed = Packed::of(self.content(file));
        let mut out = std::mem::take(&mut self.out);
        let packed = decompress_file(self.content(file), &mut out, FILE_MAX);
        self.out = out;
        if packed.map_err(|e| failed_to_unpack(path, e))? {
            // Nobody needs to wait for what is not looked at any more.
            self.mapped = None;
            return Ok(Where::Out);
        }
        Ok(file)
    }

    fn read(&mut self, path: &Path) -> Result<Where, Error> {
        let failed = |e| Error::read(path, e);
        if path == Path::new(STDIN) {
            stdin(&mut self.piped).map_err(failed)?;
            return Ok(Where::Piped);
        }
        let mut file = File::open(path).map_err(failed)?;
        let too_large = || Error::unusable(path, "larger than 2 GiB, the kernel's limit for a module file");
        let metadata = file.metadata().map_err(failed)?;
        // The size of what is no plain file, or is a file of /proc, is not known before it is read.
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
}
