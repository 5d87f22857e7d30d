//! Linux's `load_module` in user space.
//!
//! [`Loader`] is the way in: it takes a kernel (`kernel::KernelDescription` and `kernel::KernelState`, made from the files that
//! [`kernel_source`] reads or by `kernel::KernelDescriptionBuilder`), places modules in its address space as it would, and runs the
//! pipeline of the module [`load`], whose stages live in the crates `elf-layout`, `symres`, `reloc` and `finalize`. What comes of it is an
//! [`Attempt`]: a [`load::Load`], the module in memory ([`elf_layout::Module`]) at its final addresses with what it takes from others and
//! what was patched, and [`elf_layout::Findings`] with everything the kernel would say. [`Attempt::into_result`] gives the module only
//! where the kernel takes it and all of its memory is known.
//!
//! The program of the same name is built on this library alone, behind the feature `cli`.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod address;
pub mod attempt;
pub mod check;
pub mod decompression;
pub mod digest;
pub mod document;
pub mod elf_output;
pub mod error;
pub mod explain;
pub mod image;
pub mod input;
pub mod inspect;
pub mod kernel_facts;
pub mod kernel_source;
pub mod keyring;
pub mod load;
pub mod load_map;
pub mod loader;
mod mapped;
pub mod memory_file;
pub mod modinfo;
pub mod modprobe;
pub mod outputs;
pub mod raw_output;
pub mod root;
pub mod run;
pub mod sarif;
#[cfg(feature = "schema")]
pub mod schema;
pub mod setup;
pub mod simulate;
pub mod threads;

pub use attempt::{Attempt, Failure};
pub use error::Error;
pub use image::Workspace;
pub use load::{Args, Load, Stage};
pub use loader::{Loader, Place};
