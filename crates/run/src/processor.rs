//! What boots kernels, one for each architecture.

use alloc::boxed::Box;

use kernel_image::KernelImage;

use crate::boot::{self, Error, Report};
use crate::machine::Platform;
use crate::parameters::Told;
use crate::system::{Running, System};

/// Boots kernels of one architecture.
pub trait Processor: core::fmt::Debug + Sync {
    /// `e_machine` of what it executes.
    fn machine(&self) -> u16;

    /// Boots an image, on a machine that is told something; system calls on it may take `budget` instructions each.
    ///
    /// # Errors
    ///
    /// [`Error`], where process 1 does not come to be.
    fn boot(
        &self,
        image: &KernelImage<'_>,
        told: &Told,
        budget: u64,
    ) -> Result<(Box<dyn Running>, Report), Error>;
}

/// [`Processor::boot`] for one architecture.
pub(crate) fn boot<C>(
    image: &KernelImage<'_>,
    told: &Told,
    budget: u64,
) -> Result<(Box<dyn Running>, Report), Error>
where
    C: Platform + core::fmt::Debug + Send + 'static,
    C::Registers: Send,
{
    let (machine, report) = boot::boot::<C>(image, told, &[], &mut |_, _| {})?;
    let system = System::new(machine, budget).map_err(|stopped| Error::Image(alloc::format!("{stopped}")))?;
    Ok((Box::new(system), report))
}
