//! Kernel images: files opened for [`KernelDescriptionBuilder::image`].

use std::path::Path;

use kernel::KernelDescriptionBuilder;
use kernel_image::{ImageArch, KernelImage};
use reloc::ARCHITECTURES;

use super::cache::{Cache, Kind};
use super::needs;
use crate::error::Error;

/// Reads an image in any container, or what a cache has of it.
pub fn read_kept(path: &Path, cache: Option<&Cache>) -> Result<KernelDescriptionBuilder, Error> {
    let Some(cache) = cache else { return read(path, &crate::input::read(path)?) };
    let from = path.display().to_string();
    cache.through(
        Kind::Image,
        path,
        |records| KernelDescriptionBuilder::new().records(&from, records).ok(),
        |bytes| read(path, bytes),
        |told| told.to_records(&needs()),
    )
}

/// Reads an image in any container. Without symbols or exports it is of no use.
pub fn read(path: &Path, bytes: &[u8]) -> Result<KernelDescriptionBuilder, Error> {
    if bytes.is_empty() {
        return Err(Error::unusable(path, "not a kernel image: the file is empty"));
    }
    let image = open(path, bytes)?;
    let config = image.config();
    let from = path.display().to_string();
    let told = KernelDescriptionBuilder::new().image(&from, image, config, &needs());
    told.map_err(|source| Error::Kernel { path: path.to_owned(), source })
}

/// The image in the bytes of a file, in any container.
pub fn open<'b>(path: &Path, bytes: &'b [u8]) -> Result<KernelImage<'b>, Error> {
    let known: Vec<&dyn ImageArch> = ARCHITECTURES.iter().map(|arch| *arch as &dyn ImageArch).collect();
    let opened = KernelImage::open(bytes, KernelImage::DEFAULT_LIMIT, &known);
    opened.map_err(|error| Error::Kernel { path: path.to_owned(), source: error.into() })
}
