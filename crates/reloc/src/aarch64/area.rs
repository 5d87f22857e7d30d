//! Where arm64 puts modules (`arch/arm64/kernel/module.c: module_alloc`, `module_init_limits`).

use elf_layout::place::Windows;
use elf_layout::{Change, Changes};

/// Branches reach so far from the window of modules to the kernel.
const SZ_128M: u64 = 128 << 20;
const SZ_2G: u64 = 2 << 30;
/// Start of the module area with 48 bits of virtual addresses (MODULES_VADDR).
const MODULES_VADDR: u64 = 0xffff_8000_0000_0000;

/// LAYOUT-52: modules go below the kernel image, from the lowest address from which a branch still
/// reaches its end. No other allocation of the kernel lies there. When that is full they go where only
/// PLTs reach: from 6.5 to 2 GiB below the end of the image, before to the vmalloc area above it, which they
/// share with others; its lowest part is the image's.
pub fn module_area(changes: Changes, symbol: &dyn Fn(&str) -> Option<u64>) -> Windows {
    // Since v6.5 (3e35d303ab7d, module_init_limits) the area is 2 GiB and the whole image is to be reached;
    // before that it is 128 MiB, and the text is.
    let wide = changes.has(Change::WideModuleArea);
    let (size, reached) = if wide { (SZ_2G, "_end") } else { (SZ_128M, "_etext") };
    // The image is mapped from _stext on.
    let image = symbol("_stext").unwrap_or(MODULES_VADDR.wrapping_add(size));
    let reached = symbol(reached).unwrap_or(image);
    let near = reached.wrapping_sub(image) < SZ_128M;
    let start = reached.wrapping_sub(if near { SZ_128M } else { SZ_2G });
    let fallback = if wide {
        (reached.wrapping_sub(SZ_2G), image)
    } else {
        (image.wrapping_add(SZ_128M), start.wrapping_add(SZ_2G))
    };
    Windows { direct: (start, image), fallback: near.then_some(fallback), code_block: None }
}
