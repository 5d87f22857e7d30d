//! A dump as a file, read piece by piece.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memory_image::ReadAt;

/// A file that is read by offset, never as a whole.
#[derive(Debug)]
pub struct DumpFile {
    file: File,
    size: u64,
}

impl DumpFile {
    /// Opens a file. That of `/proc/kcore` has no size.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        let is_dump = meta.is_file() && !path.starts_with("/proc");
        Ok(DumpFile { size: if is_dump { meta.len() } else { u64::MAX }, file })
    }
}

impl ReadAt for DumpFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> bool {
        offset.checked_add(out.len() as u64).is_some_and(|end| end <= self.size)
            && self.file.read_exact_at(out, offset).is_ok()
    }
}

/// A dump, flattened or not.
#[derive(Debug)]
pub enum DumpSource {
    /// As it is.
    Plain(DumpFile),
    /// Written as a stream.
    Flattened(memory_image::Flattened<DumpFile>),
}

impl DumpSource {
    /// Opens a file, and indexes it if it is flattened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = DumpFile::open(path)?;
        let flattened = memory_image::is_flattened(&file);
        Ok(if flattened {
            DumpSource::Flattened(memory_image::Flattened::new(file))
        } else {
            DumpSource::Plain(file)
        })
    }
}

impl ReadAt for DumpSource {
    fn size(&self) -> u64 {
        match self {
            DumpSource::Plain(file) => file.size(),
            DumpSource::Flattened(file) => file.size(),
        }
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> bool {
        match self {
            DumpSource::Plain(file) => file.read_at(offset, out),
            DumpSource::Flattened(file) => file.read_at(offset, out),
        }
    }
}
