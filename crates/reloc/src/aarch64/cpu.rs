//! What of the CPUs changes the bytes of a module of arm64.

use elf_layout::KernelVersion;

/// The number of ARM64_WORKAROUND_843419 in the kernel's capability bitmap, where known. The
/// numbers move with every capability that a release adds.
pub fn workaround_843419(version: KernelVersion) -> Option<u32> {
    match (version.major, version.minor, version.patch) {
        // 0: Debian's releases do not tell the patch level.
        (6, 1, 0 | 170..) => Some(54),
        (6, 12, 107..) => Some(70),
        _ => None,
    }
}
