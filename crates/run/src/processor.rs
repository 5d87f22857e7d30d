//! What boots kernels, one for each architecture.

use alloc::boxed::Box;

use bytes::Bytes;
use kernel_image::KernelImage;

use crate::boot::{self, Error, Report};
use crate::kept::{Kept, Reader};
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

    /// Takes up a system as [`Running::keep`] has given it, behind the number of the architecture.
    fn take_up(&self, from: Reader, budget: u64) -> Option<(Box<dyn Running>, Report)>;
}

/// Takes up a booted kernel, with the report of its boot, from the bytes that [`Running::keep`] has given to this same program: it is as it
/// was then. System calls on it may take `budget` instructions each. Bytes that are not of a machine are `None`; whether they are unchanged is
/// for who has kept them to know.
pub fn take_up(bytes: Bytes, budget: u64) -> Option<(Box<dyn Running>, Report)> {
    let mut from = Reader::new(bytes);
    let machine = u16::take_up(&mut from)?;
    let processor = crate::PROCESSORS.iter().find(|processor| processor.machine() == machine)?;
    processor.take_up(from, budget)
}

/// [`Processor::take_up`] for one architecture.
pub(crate) fn taken_up<C>(mut from: Reader, budget: u64) -> Option<(Box<dyn Running>, Report)>
where
    C: Platform + core::fmt::Debug + Send + 'static,
    C::Registers: Send,
{
    let report = Report::take_up(&mut from)?;
    let system = System::<C>::take_up(&mut from, budget)?;
    from.is_at_end().then(|| (Box::new(system) as Box<dyn Running>, report))
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
