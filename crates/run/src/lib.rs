//! Executes a kernel image's own code in user space.
//!
//! [`memory::Memory`] is memory with permissions and snapshots, [`cpu::Cpu`] is a processor that executes what lies in it, one
//! instruction after the other, and never more than it is allowed to.
//!
//! [`boot::boot`] makes a machine of a kernel image ([`kernel_image::KernelImage`]) and runs its boot up to where modules can be loaded;
//! `kmodld run` and `kmodld check --judge` are made of that.
//!
//! ```
//! use run::memory::{Access, Memory, Protection};
//!
//! // One page of physical memory, seen at two addresses: as code, and to be written.
//! let mut memory = Memory::new(0x1000);
//! assert!(memory.map(0xffff_8000_0000_0000, 0x1000, 0, Protection::DATA));
//! assert!(memory.map(0xffff_ffff_8000_0000, 0x1000, 0, Protection::CODE));
//! memory.write(0xffff_8000_0000_0010, &[0x90, 0xc3])?;
//! assert_eq!(memory.bytes(0xffff_ffff_8000_0010, 2)?, [0x90, 0xc3]);
//! let fault = memory.write(0xffff_ffff_8000_0010, &[0]).expect_err("code is not written to");
//! assert_eq!(fault.access, Access::Write);
//! # Ok::<(), run::memory::Fault>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod aarch64;
pub mod boot;
mod ciphers;
pub mod cpu;
pub mod debugger;
pub mod heap;
pub mod kept;
mod lanes;
pub mod machine;
pub mod memory;
pub mod parameters;
pub mod processor;
pub mod standing;
pub mod stubs;
pub mod symbols;
pub mod system;
#[cfg(test)]
mod testing;
pub mod watch;
pub mod world;
pub mod x86_64;

/// The architectures whose kernels can be run.
pub static PROCESSORS: &[&dyn processor::Processor] = &[&x86_64::Boots, &aarch64::Boots];
