//! Executes a kernel image's own code in user space.
//!
//! [`memory::Memory`] is memory with permissions and snapshots, [`cpu::Cpu`] is a processor that executes what lies in it, one
//! instruction after the other, and never more than it is allowed to.
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
