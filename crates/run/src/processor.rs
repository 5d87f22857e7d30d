//! What boots kernels, one for each architecture.

use alloc::boxed::Box;

use kernel_image::KernelImage;

use crate::boot::{Error, Report};
use crate::system::Running;

/// Boots kernels of one architecture.
pub trait Processor: core::fmt::Debug + Sync {
    /// `e_machine` of what it executes.
    fn machine(&self) -> u16;

    /// Boots an image; system calls on it may take `budget` instructions each.
    ///
    /// # Errors
    ///
    /// [`Error`], where process 1 does not come to be.
    fn boot(&self, image: &KernelImage<'_>, budget: u64) -> Result<(Box<dyn Running>, Report), Error>;
}
