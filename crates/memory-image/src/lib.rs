//! Memory of a running or dead Linux kernel, out of whatever it was written to.
//!
//! [`Dump::open`] tells the format by its magic: an ELF core (`/proc/kcore`, `/proc/vmcore` and what `makedumpfile -E` makes of
//! it, QEMU's `dump-guest-memory` with and without paging), a kdump-compressed file (also flattened), LiME, AVML; anything else
//! is raw physical memory. It reads through [`ReadAt`], piece by piece: a dump is never in memory as a whole.
//!
//! [`Dump::physical`] and [`Dump::segment`] give memory by physical and by virtual address. [`AddressSpace`] reads virtual
//! addresses through the page tables that lie in physical memory ([`PageTables`](kernel_image::PageTables)). What a dump does
//! not hold is a hole: [`Dump::damage`] names what is cut off or broken, and reads of it fail.
//!
//! Every byte of a dump counts as hostile: no panic, no allocation by a claimed size, and a bounded number of steps.
//!
//! ```
//! use memory_image::{Dump, Format};
//!
//! # fn main() -> Result<(), memory_image::Error> {
//! // A dump of LiME: one range, from 0x1000 to 0x1fff.
//! let mut file = Vec::from(*b"EMiL\x01\0\0\0");
//! file.extend(0x1000_u64.to_le_bytes());
//! file.extend(0x1fff_u64.to_le_bytes());
//! file.extend([0; 8]);
//! file.extend([0xaa; 0x1000]);
//!
//! let dump = Dump::open(file)?;
//! let mut bytes = [0; 4];
//! assert!(dump.format() == Format::Lime && dump.physical(0x1800, &mut bytes));
//! assert_eq!(bytes, [0xaa; 4]);
//! assert!(!dump.physical(0x2000, &mut bytes), "a hole");
//! # Ok(())
//! # }
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod dump;
mod elf;
mod kdump;
mod lime;
mod pages;
mod range;
mod read_at;
mod snappy;
mod space;
mod vmcoreinfo;

pub use dump::{Dump, Format};
pub use range::Range;
pub use read_at::{Flattened, ReadAt, is_flattened};
pub use space::{AddressSpace, Mapping};
pub use vmcoreinfo::VmcoreInfo;

/// What keeps a file from being used as a dump.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It cannot be read at its beginning.
    #[error("it is empty, or cannot be read")]
    Empty,
    /// It is of a known format, but not of one that is read.
    #[error("{0}")]
    Unsupported(alloc::string::String),
    /// What its format begins with is cut off or makes no sense.
    #[error("damaged: {what} at {at:#x}")]
    Damaged {
        /// What.
        what: &'static str,
        /// Offset in the file.
        at: u64,
    },
}
