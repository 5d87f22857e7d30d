//! What keeps the program from doing its work. What the kernel would say about
//! a module is not an error but a [`elf_layout::Finding`].

use std::io;
use std::path::{Path, PathBuf};

/// An input that cannot be used, or an output that cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("{}: cannot write: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A compressed file is damaged, or too large when decompressed.
    #[error("{}: cannot decompress ({format}): {why}", path.display())]
    Decompress {
        /// The file.
        path: PathBuf,
        /// gzip, xz or zstd.
        format: &'static str,
        /// Why.
        why: String,
    },
    /// A description of the kernel is unusable.
    #[error("{}: {source}", path.display())]
    Kernel {
        /// The file.
        path: PathBuf,
        /// Why.
        source: kernel::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {what}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// The options ask for something that does not fit together.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// The file it is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Error::Read { path, .. }
            | Error::Write { path, .. }
            | Error::Decompress { path, .. }
            | Error::Kernel { path, .. }
            | Error::Unusable { path, .. } => Some(path),
            Error::Usage(_) => None,
        }
    }

    /// With the file it is about.
    pub fn read(path: &Path, source: io::Error) -> Self {
        Error::Read { path: path.into(), source }
    }

    /// With the file it is about.
    pub fn write(path: &Path, source: io::Error) -> Self {
        Error::Write { path: path.into(), source }
    }

    /// With the file it is about.
    pub fn unusable(path: &Path, what: impl Into<String>) -> Self {
        Error::Unusable { path: path.into(), what: what.into() }
    }
}
