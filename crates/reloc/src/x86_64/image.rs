//! Images of x86_64 kernels: a vmlinux, mostly in a bzImage (IMG-1, IMG-3).

use elf_layout::Machine;
use kernel_image::ImageArch;

use super::{MACHINE, X86_64};

impl ImageArch for X86_64 {
    fn machine(&self) -> &'static Machine {
        &MACHINE
    }
}
