//! Which addresses of x86_64 have memory behind them (FIN-78).

use elf_layout::KernelConfig;
use kernel::RunningKernel;

use super::{KERNEL_IMAGE_SIZE, MODULES_END, START_KERNEL_MAP, taken_at_boot};
use crate::reach::{Reach, in_image};

/// Below are user space, which the kernel must not touch (SMAP), and addresses that are none, with four or five levels of
/// page tables.
const KERNEL_HALF: u64 = 0xff00_0000_0000_0000;
/// Two gigabytes without memory begin here; the kernel's mapping follows.
const HOLE: u64 = 0xffff_ffff_0000_0000;
/// The last two megabytes are a hole too: an error as a pointer leads there.
const LAST_HOLE: u64 = 0xffff_ffff_ffe0_0000;
/// The mapping of the image ends at a large page.
const LARGE_PAGE: u64 = 2 << 20;

/// What is at an address outside of the module that is loaded.
pub fn reach(config: &KernelConfig, kernel: &dyn RunningKernel, address: u64) -> Reach {
    let image_size = if config.randomize_base { KERNEL_IMAGE_SIZE.0 } else { KERNEL_IMAGE_SIZE.1 };
    let modules = START_KERNEL_MAP.wrapping_add(image_size);
    match address {
        ..KERNEL_HALF | HOLE..START_KERNEL_MAP | LAST_HOLE.. => Reach::Nothing,
        _ if address < HOLE => Reach::Unknown,
        // cleanup_highmap has unmapped what is around the image.
        _ if address < modules => in_image(kernel, address).unwrap_or_else(|| around_image(kernel, address)),
        _ if address >= MODULES_END => Reach::Unknown,
        _ if address < modules.wrapping_add(taken_at_boot(config, &|name| kernel.symbol(name))) => {
            Reach::Unknown
        }
        _ => Reach::Free,
    }
}

fn around_image(kernel: &dyn RunningKernel, address: u64) -> Reach {
    let Some((text, end)) = kernel.symbol("_text").zip(kernel.symbol("_end")) else { return Reach::Unknown };
    let mapped = end.checked_next_multiple_of(LARGE_PAGE).unwrap_or(u64::MAX);
    if address < text || address >= mapped { Reach::Nothing } else { Reach::Unknown }
}
