//! What of the CPUs changes the bytes of a module of arm64.

use elf_layout::{Change, Changes};
use kernel::types::StructPaths;
use kernel::{Part, RunningKernel};

/// The kernel's table of errata (`arch/arm64/kernel/cpu_errata.c`).
const ERRATA: &str = "arm64_errata";
/// What it says of erratum 843419, with the NUL.
const ERRATUM_843419: &[u8] = b"ARM erratum 843419\0";

const ENTRY: &str = "arm64_cpu_capabilities";
/// The table with its texts.
pub const MEMORY: &[Part] = &[Part::Pointed(ERRATA, ERRATUM_843419.len() as u64)];
/// The members of an entry that are read.
pub const TYPES: &StructPaths = &[(ENTRY, &["desc", "capability"])];

/// The number of ARM64_WORKAROUND_843419 in the kernel's capability bitmap, where known (PLT-26). The numbers move with every
/// capability that a release adds: the kernel's own table of errata tells it, else the release if that is known.
pub fn workaround_843419(changes: Changes, kernel: &dyn RunningKernel) -> Option<u32> {
    numbered(kernel).or_else(|| {
        if changes.has(Change::Erratum843419IsCap54) {
            Some(54)
        } else if changes.has(Change::Erratum843419IsCap70) {
            Some(70)
        } else {
            None
        }
    })
}

/// The number as the kernel's table has it.
fn numbered(kernel: &dyn RunningKernel) -> Option<u32> {
    /// No table is longer.
    const ENTRIES_MAX: u64 = 512;
    let table = kernel.symbol(ERRATA)?;
    let size = kernel.struct_size(ENTRY)?;
    let (desc, capability) = (kernel.member(ENTRY, "desc")?, kernel.member(ENTRY, "capability")?);
    let mut text = [0; ERRATUM_843419.len()];
    for n in 0..ENTRIES_MAX {
        let entry = table.checked_add(n.checked_mul(size)?)?;
        // The entry behind the last has no text.
        let at = kernel.pointer(entry.checked_add(desc.offset)?)?;
        if at != 0 && kernel.read(at, &mut text) && text == ERRATUM_843419 {
            let mut number = [0; 2];
            let read = kernel.read(entry.checked_add(capability.offset)?, &mut number);
            return read.then(|| u32::from(u16::from_le_bytes(number)));
        }
    }
    None
}
