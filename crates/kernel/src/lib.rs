//! The kernel that modules are loaded into: its symbols and exports, and the modules loaded so far
//! (spec 08, 09 §9.1). What becomes of a module in it by which rule is left to `symres` and others.
//!
//! - [`kallsyms`] and [`symvers`] read the texts that describe a kernel.
//! - [`Kernel`] is the index that they are joined into.
//! - [`lifecycle`] is what happens to the module list as modules come and go.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

extern crate alloc;

pub mod boot;
pub mod btf;
pub mod error;
pub mod exports;
pub mod kallsyms;
mod kernel;
pub mod lifecycle;
pub mod names;
pub mod symvers;
pub mod taint;

pub use boot::BootParams;
pub use btf::{BaseBtf, BtfType};
pub use error::Error;
pub use exports::{Export, ExportTable, Exports};
pub use kallsyms::{KernelSymbol, KernelSymbols};
pub use kernel::{Kernel, KernelParts, LoadedModule, NotLoaded, Owner};
pub use lifecycle::{Exit, Init, ModuleState};
pub use symvers::Symvers;
pub use taint::{Taint, Taints};
