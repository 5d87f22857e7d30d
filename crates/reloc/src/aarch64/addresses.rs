//! Which addresses of aarch64 have memory behind them (FIN-78).

use kernel::RunningKernel;

use super::relocate::TOP_BYTE;
use crate::reach::{Reach, in_image};

/// Below are user space, which the kernel must not touch (PAN), and addresses that are none.
const KERNEL_HALF: u64 = 0xfff0_0000_0000_0000;

/// The bit that tells which half of the addresses one is in, where the top byte is ignored.
const UPPER_HALF: u64 = 1 << 55;

/// The last page is never mapped: an error as a pointer leads there.
const ERRORS: u64 = 0xffff_ffff_ffff_f000;

/// What is at an address outside of the module that is loaded and of `area`, where modules and their guard pages are.
pub fn reach(kernel: &dyn RunningKernel, area: [(u64, u64); 2], address: u64) -> Reach {
    // With another top byte it may be the same address (TBI1, RELOC-GEN-11), which steps that read do not look at.
    let whole = if address & UPPER_HALF != 0 { address | TOP_BYTE } else { address };
    if whole != address {
        let found = reach(kernel, area, whole);
        return if found == Reach::Nothing { found } else { Reach::Unknown };
    }
    if !(KERNEL_HALF..ERRORS).contains(&address) {
        return Reach::Nothing;
    }
    in_image(kernel, address).unwrap_or_else(|| {
        let free = area.iter().any(|(start, end)| (*start..*end).contains(&address));
        if free { Reach::Free } else { Reach::Unknown }
    })
}
