//! What of the CPUs changes the bytes of a module of arm64.

use elf_layout::{Change, Changes};

/// The number of ARM64_WORKAROUND_843419 in the kernel's capability bitmap, where known. The
/// numbers move with every capability that a release adds.
pub fn workaround_843419(changes: Changes) -> Option<u32> {
    if changes.has(Change::Erratum843419IsCap54) {
        Some(54)
    } else if changes.has(Change::Erratum843419IsCap70) {
        Some(70)
    } else {
        None
    }
}
